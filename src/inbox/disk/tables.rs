//! What lies in `inbox.redb`: its tables, and the texts in them. Knows nothing of sessions.
//!
//! Every value is a line of numbers and words, as in the Redis home: it can be read by eye, and a
//! further field needs no new table. What cannot be read is that client's trouble alone.

use crate::doorbell::{StoredEntry, parse_entry, parse_tomb};
use crate::inbox::{Error, Status, letter};
use crate::payment::{ClientId, Mark, Seq};
use redb::{ReadableTable, StorageError, TableDefinition, TableError, TransactionError, WriteTransaction};

/// Of the whole file; another one is not opened.
pub(super) const FORMAT: u64 = 2;

/// `format` is [`FORMAT`]; `born_floor`: no client's numbering may begin before this (Unix ms).
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Client → [`State`].
pub(super) const STATES: TableDefinition<&str, &[u8]> = TableDefinition::new("states");
/// Client and seq → [`StoredEntry`], or the place that a dead letter left.
pub(super) const ENTRIES: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("entries");
/// Client and payment id → [`Seen`].
pub(super) const IDS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("payment_ids");
/// When a payment id is forgotten (Unix ms), client, payment id: the order in which they expire.
pub(super) const EXPIRIES: TableDefinition<(u64, &str, &str), ()> = TableDefinition::new("payment_id_expiries");
/// Client and seq → dead letter, or what became of it, as `letter` tells.
pub(super) const LETTERS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("letters");
/// When a dead letter was purged or put back (Unix ms), client, seq: the order in which that is forgotten.
pub(super) const WORDS: TableDefinition<(u64, &str, u64), ()> = TableDefinition::new("letter_words");
/// Clients with a non-empty inbox.
pub(super) const PENDING: TableDefinition<&str, ()> = TableDefinition::new("pending");

/// Makes those that are missing, so that readers find them all.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), TableError> {
    transaction.open_table(STATES)?;
    transaction.open_table(ENTRIES)?;
    transaction.open_table(IDS)?;
    transaction.open_table(EXPIRIES)?;
    transaction.open_table(PENDING)?;
    transaction.open_table(LETTERS)?;
    transaction.open_table(WORDS)?;
    Ok(())
}

/// What is left of an error of redb's once it is known that our tables are right.
pub(super) fn table_error(error: TableError) -> StorageError {
    match error {
        TableError::Storage(error) => error,
        other => StorageError::Corrupted(other.to_string()),
    }
}

/// The same of beginning a transaction.
pub(super) fn begin_error(error: TransactionError) -> StorageError {
    match error {
        TransactionError::Storage(error) => error,
        other => StorageError::Corrupted(other.to_string()),
    }
}

/// Why one job, or a whole round, cannot go on.
#[derive(Debug)]
pub(super) enum Fault {
    /// This job alone: nothing was changed for it.
    Job(Error),
    /// The file. Nothing of the transaction may stay.
    Store(StorageError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Job(error)
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Fault {
        Fault::Store(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        match fault {
            Fault::Job(error) => error,
            Fault::Store(error) => Error::away(error.to_string()),
        }
    }
}

/// What is known of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// When its numbering began (Unix ms): its epoch.
    pub(super) born: u64,
    pub(super) last: Mark,
    pub(super) acked: Mark,
    /// Of all parcels that ever entered the inbox.
    pub(super) bytes_in: u64,
    /// How many payments count no more, for they were acknowledged, purged or put back; and their bytes.
    pub(super) gone: u64,
    pub(super) bytes_gone: u64,
    /// Dead letters' places between acked and last.
    pub(super) tombs: u64,
}

impl State {
    pub(super) fn new(born: u64) -> State {
        State { born, last: Mark::default(), acked: Mark::default(), bytes_in: 0, gone: 0, bytes_gone: 0, tombs: 0 }
    }

    pub(super) fn pending(&self) -> u64 {
        self.last.seq.since(self.acked.seq).saturating_sub(self.tombs)
    }

    /// How many dead letters are held.
    pub(super) fn dead_letters(&self) -> u64 {
        (self.acked.seq.0 + self.tombs).saturating_sub(self.gone)
    }

    /// Whether there are none, nor places of any.
    pub(super) fn is_plain(&self) -> bool {
        self.tombs == 0 && self.gone == self.acked.seq.0
    }

    /// How many payments count towards the limits, and how many bytes.
    pub(super) fn held(&self) -> (u64, u64) {
        (self.last.seq.0.saturating_sub(self.gone), self.bytes_in.saturating_sub(self.bytes_gone))
    }

    /// What became of a payment that was given a number, and is no dead letter.
    pub(super) fn status(&self, seq: Seq) -> Status {
        if seq <= self.acked.seq { Status::Acknowledged } else { Status::Accepted }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let State { born, last, acked, bytes_in, gone, bytes_gone, tombs } = self;
        let mark = |mark: Mark| format!("{} {}", mark.seq, mark.accepted_at);
        format!("2 {born} {} {} {bytes_in} {gone} {bytes_gone} {tombs}", mark(last), mark(acked)).into_bytes()
    }

    pub(super) fn parse(text: &[u8]) -> Option<State> {
        let [2, born, last, last_at, acked, acked_at, bytes_in, gone, bytes_gone, tombs] = numbers(text)? else {
            return None;
        };
        let last = Mark { seq: Seq(last), accepted_at: last_at };
        let acked = Mark { seq: Seq(acked), accepted_at: acked_at };
        let counts = acked.seq <= last.seq && gone <= last.seq.0 && tombs <= last.seq.since(acked.seq);
        // No inbox gets there, and what is counted further from here cannot overflow.
        let sizes = bytes_gone <= bytes_in && last.seq.0.max(bytes_in) <= i64::MAX as u64;
        (counts && sizes).then_some(State { born, last, acked, bytes_in, gone, bytes_gone, tombs })
    }
}

/// A payment id that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) mark: Mark,
    /// From this Unix time (ms) on it counts as unused.
    pub(super) expires_at: u64,
    /// Of the numbering it belongs to: a retired client's ids mean nothing to its next life.
    pub(super) born: u64,
    pub(super) fingerprint: String,
}

impl Seen {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Mark { seq, accepted_at } = self.mark;
        format!("{} 1 {seq} {accepted_at} {} {}", self.fingerprint, self.expires_at, self.born).into_bytes()
    }

    /// Reads a row; `None` if it is none.
    pub(super) fn parse(text: &[u8]) -> Option<Seen> {
        let blank = text.iter().position(|&b| b == b' ')?;
        let fingerprint = std::str::from_utf8(&text[..blank]).ok()?.to_owned();
        let [1, seq, accepted_at, expires_at, born] = numbers(&text[blank + 1..])? else { return None };
        Some(Seen { mark: Mark { seq: Seq(seq), accepted_at }, expires_at, born, fingerprint })
    }
}

/// Exactly so many numbers, a blank between two.
fn numbers<const N: usize>(text: &[u8]) -> Option<[u64; N]> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ').map(|word| word.parse().ok());
    let mut all = [0; N];
    for number in &mut all {
        *number = words.next()??;
    }
    words.next().is_none().then_some(all)
}

pub(super) fn corrupt(client: &ClientId, what: &str) -> Fault {
    Fault::Job(Error::Corrupt(format!("client {client}: {what} in inbox.redb cannot be read")))
}

/// Reads a client's state.
pub(super) fn state_of(
    states: &impl ReadableTable<&'static str, &'static [u8]>,
    client: &ClientId,
) -> Result<Option<State>, Fault> {
    let Some(text) = states.get(client.as_str())? else { return Ok(None) };
    State::parse(text.value()).map(Some).ok_or_else(|| corrupt(client, "its state"))
}

/// Reads the payment at a place between acked and last, which must hold one.
pub(super) fn entry_of(
    entries: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    client: &ClientId,
    seq: Seq,
) -> Result<StoredEntry, Fault> {
    let text = entries.get((client.as_str(), seq.0))?.ok_or_else(|| corrupt(client, &format!("payment {seq}")))?;
    parse_stored(client, seq, text.value())
}

/// What lies at a place between acked and last.
pub(super) enum Place {
    Payment(StoredEntry),
    /// A dead letter left it.
    Tomb(Mark),
}

impl Place {
    pub(super) fn mark(&self) -> Mark {
        match self {
            Place::Payment(stored) => stored.entry.mark,
            Place::Tomb(mark) => *mark,
        }
    }
}

/// Reads a place between acked and last.
pub(super) fn place_of(
    entries: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    client: &ClientId,
    seq: Seq,
) -> Result<Place, Fault> {
    let text = entries.get((client.as_str(), seq.0))?.ok_or_else(|| corrupt(client, &format!("payment {seq}")))?;
    parse_place(client, seq, text.value())
}

/// Reads what was found at a place, payment or not.
pub(super) fn parse_place(client: &ClientId, seq: Seq, text: &[u8]) -> Result<Place, Fault> {
    match parse_tomb(text).filter(|mark| mark.seq == seq) {
        Some(mark) => Ok(Place::Tomb(mark)),
        None => parse_stored(client, seq, text).map(Place::Payment),
    }
}

/// What became of a dead letter, with the letter if it is still held; `None`: it is none.
pub(super) fn letter_of(
    letters: &impl ReadableTable<(&'static str, u64), &'static [u8]>,
    client: &ClientId,
    seq: Seq,
) -> Result<Option<(Status, Option<StoredEntry>)>, Fault> {
    let Some(text) = letters.get((client.as_str(), seq.0))? else { return Ok(None) };
    let status = letter::status(text.value()).ok_or_else(|| corrupt(client, &format!("dead letter {seq}")))?;
    let held = status.is_dead_letter().then(|| letter::parse(text.value()));
    let held = held.map(|held| held.ok_or_else(|| corrupt(client, &format!("dead letter {seq}")))).transpose()?;
    Ok(Some((status, held.map(|(_, stored)| stored))))
}

/// Reads what was found at a payment's place.
pub(super) fn parse_stored(client: &ClientId, seq: Seq, text: &[u8]) -> Result<StoredEntry, Fault> {
    let entry = parse_entry(text).filter(|stored| stored.entry.mark.seq == seq);
    entry.ok_or_else(|| corrupt(client, &format!("payment {seq}")))
}

/// Reads what is known of a payment id, if anything still is.
pub(super) fn seen(
    ids: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    client: &ClientId,
    id: &str,
    born: u64,
    now: u64,
) -> Result<Option<Seen>, Fault> {
    let Some(text) = ids.get((client.as_str(), id))? else { return Ok(None) };
    let seen = Seen::parse(text.value()).ok_or_else(|| corrupt(client, "a payment id"))?;
    Ok(Some(seen).filter(|seen| seen.born == born && seen.expires_at > now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_whose_numbers_cannot_be_is_none() {
        let state = "2 1732330000000 9 1732330000123 4 1732330000100 900 3 300 1";
        assert_eq!(State::parse(state.as_bytes()).map(State::to_bytes), Some(state.as_bytes().to_vec()));
        for cannot_be in [
            "2 0 9 0 10 0 900 3 300 0",
            "2 0 9 0 4 0 900 10 300 0",
            "2 0 9 0 4 0 900 3 901 0",
            "2 0 9 0 4 0 900 3 300 6",
            "2 0 9 0 4 0 900 3 300 18446744073709551615",
            "2 0 18446744073709551615 0 4 0 900 3 300 0",
            "2 0 9 0 4 0 18446744073709551615 3 300 0",
        ] {
            assert_eq!(State::parse(cannot_be.as_bytes()), None, "{cannot_be}");
        }
    }
}
