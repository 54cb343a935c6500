//! The file at one moment, for those who only read it: they wait for no commit.

use super::tables::{
    ENTRIES, Fault, IDS, LETTERS, PENDING, Place, STATES, State, corrupt, entry_of, letter_of, parse_place, place_of,
    seen, state_of,
};
use crate::inbox::{Ask, Backlog, Found, Letters, Query, Reading, Slice, Status, Which, letter};
use crate::payment::{ClientId, Mark, Seq};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableError};
use std::ops::Bound;
use std::time::Duration;

/// The most places that one reading goes through: those of dead letters bring nothing.
const MOST_LOOKS: usize = 1_000;

/// The tables, as the last commit left them.
pub(super) struct View {
    pub(super) states: ReadOnlyTable<&'static str, &'static [u8]>,
    pub(super) entries: ReadOnlyTable<(&'static str, u64), &'static [u8]>,
    pub(super) ids: ReadOnlyTable<(&'static str, &'static str), &'static [u8]>,
    pub(super) pending: ReadOnlyTable<&'static str, ()>,
    pub(super) letters: ReadOnlyTable<(&'static str, u64), &'static [u8]>,
}

/// A payment that was looked up.
pub(super) struct Looked {
    pub(super) found: Found,
    /// It is past its time, and no dead letter yet.
    pub(super) due: bool,
}

impl View {
    pub(super) fn open(at: &ReadTransaction) -> Result<View, TableError> {
        Ok(View {
            states: at.open_table(STATES)?,
            entries: at.open_table(ENTRIES)?,
            ids: at.open_table(IDS)?,
            pending: at.open_table(PENDING)?,
            letters: at.open_table(LETTERS)?,
        })
    }

    /// Whether a place that a session saw is still what it was.
    pub(super) fn fits(&self, state: &State, client: &ClientId, place: Mark) -> Result<bool, Fault> {
        match place.seq {
            seq if seq > state.last.seq => Ok(false),
            // Acknowledged, or before the first: nothing is left there to compare with.
            seq if seq < state.acked.seq || seq == Seq(0) => Ok(true),
            seq if seq == state.acked.seq => Ok(place == state.acked),
            seq => Ok(place_of(&self.entries, client, seq)?.mark() == place),
        }
    }

    /// What lies behind a place, and what of it is past its time.
    pub(super) fn slice(&self, state: &State, ask: &Ask, now: u64) -> Result<(Reading, Vec<Seq>), Fault> {
        let from = if ask.after.seq > state.acked.seq { ask.after } else { state.acked };
        let (mut entries, mut due, mut bytes, mut upto) = (Vec::new(), Vec::new(), 0, from);
        let places = (ask.client.as_str(), from.seq.next().0)..=(ask.client.as_str(), state.last.seq.0);
        let rows = if ask.payments == 0 { 0 } else { MOST_LOOKS };
        for row in self.entries.range(places)?.take(rows) {
            let (_, text) = row?;
            let place = parse_place(&ask.client, upto.seq.next(), text.value())?;
            upto = place.mark();
            match place {
                Place::Tomb(_) => {}
                Place::Payment(stored) if is_due(stored.entry.expires_at, now) => due.push(upto.seq),
                Place::Payment(stored) => {
                    bytes += stored.entry.parcel.as_bytes().len();
                    entries.push(stored.entry);
                }
            }
            if bytes > ask.bytes || entries.len() >= ask.payments {
                break;
            }
        }
        Ok((Reading::Slice(Slice { entries, upto, acked: state.acked.seq, last: state.last }), due))
    }

    pub(super) fn look_up(&self, query: &Query, now: u64) -> Result<Option<Looked>, Fault> {
        let client = &query.client;
        let Some(state) = state_of(&self.states, client)? else { return Ok(None) };
        let (seq, asked_by) = match &query.which {
            Which::Seq(seq) => (*seq, None),
            Which::PaymentId(id) => match seen(&self.ids, client, id.as_str(), state.born, now)? {
                Some(seen) => (seen.mark.seq, Some(id.as_str().to_owned())),
                None => return Ok(None),
            },
        };
        if seq == Seq(0) || seq > state.last.seq {
            return Ok(None);
        }
        let (status, held) = match letter_of(&self.letters, client, seq)? {
            Some(letter) => letter,
            None if seq <= state.acked.seq => (Status::Acknowledged, None),
            None => match place_of(&self.entries, client, seq)? {
                Place::Payment(stored) => (Status::Accepted, Some(stored)),
                Place::Tomb(_) => return Err(corrupt(client, &format!("dead letter {seq}"))),
            },
        };
        let payment_id = asked_by.or_else(|| held.as_ref()?.entry.parcel.payment_id().map(str::to_owned));
        let expires_at = held.map_or(0, |held| held.entry.expires_at);
        let waits = status == Status::Accepted && expires_at > 0;
        let due_in = waits.then(|| Duration::from_millis(expires_at.saturating_sub(now)));
        let found = Found { seq, status, payment_id, due_in };
        Ok(Some(Looked { found, due: waits && is_due(expires_at, now) }))
    }

    pub(super) fn dead_letters(
        &self,
        client: &ClientId,
        after: Seq,
        most: usize,
        bytes: usize,
    ) -> Result<Option<Letters>, Fault> {
        if state_of(&self.states, client)?.is_none() {
            return Ok(None);
        }
        let (mut letters, mut size) = (Vec::new(), 0);
        for row in self.letters.range((client.as_str(), after.next().0)..=(client.as_str(), u64::MAX))? {
            let (place, text) = row?;
            let what = || corrupt(client, &format!("dead letter {}", place.value().1));
            if !letter::status(text.value()).ok_or_else(what)?.is_dead_letter() {
                continue;
            }
            if letters.len() >= most || size >= bytes {
                return Ok(Some(Letters { letters, more: true }));
            }
            size += text.value().len();
            letters.push(letter::parse(text.value()).ok_or_else(what)?.0);
        }
        Ok(Some(Letters { letters, more: false }))
    }

    pub(super) fn waiting(&self, after: Option<&ClientId>, most: usize) -> Result<Vec<ClientId>, Fault> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_str()));
        let mut clients = Vec::new();
        for row in self.pending.range::<&str>((start, Bound::Unbounded))?.take(most) {
            clients.extend(ClientId::parse(row?.0.value()));
        }
        Ok(clients)
    }

    /// What waits, in at most so many inboxes. One that cannot be read is in nobody's way.
    pub(super) fn backlog(&self, most: usize) -> Result<Backlog, Fault> {
        let mut backlog = Backlog { inboxes: self.pending.len()?, ..Backlog::default() };
        for client in self.waiting(None, most)? {
            match self.waiting_of(&client) {
                Ok((payments, oldest_at)) => {
                    backlog.payments += payments;
                    backlog.oldest_at = Some(backlog.oldest_at.map_or(oldest_at, |oldest| oldest.min(oldest_at)));
                }
                Err(Fault::Job(error)) => log::debug!("{client}: {error}"),
                Err(fault) => return Err(fault),
            }
        }
        Ok(backlog)
    }

    /// How many payments wait in an inbox that is not empty, and when the oldest was accepted.
    fn waiting_of(&self, client: &ClientId) -> Result<(u64, u64), Fault> {
        let state = state_of(&self.states, client)?.unwrap_or_else(|| State::new(0));
        let oldest = entry_of(&self.entries, client, state.acked.seq.next())?;
        Ok((state.pending(), oldest.entry.mark.accepted_at))
    }
}

/// Whether a payment is past its time.
pub(super) fn is_due(expires_at: u64, now: u64) -> bool {
    expires_at > 0 && expires_at <= now
}
