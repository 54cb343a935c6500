//! What nodes say to each other, as values: doorbells, takeovers, receipts, orders, questions.
//!
//! A doorbell is a hint, never the truth: whoever hears one compares it with what it knows, and
//! reads the inbox where they differ. The Lua scripts write the same texts (`accept.lua`,
//! `claim.lua`, `acknowledge.lua`, `bury.lua`, `retry.lua`).

use crate::payment::{ClientId, Entry, Mark, Parcel, Seq, Status};
use serde::{Deserialize, Serialize};

/// The topics of the bus.
pub(crate) mod topic {
    /// A new payment for a client that the node holds: [`super::Bell`].
    pub(crate) const DOORBELL: &str = "doorbell";
    /// A newer connection of a client was made elsewhere: [`super::Takeover`].
    pub(crate) const TAKEOVER: &str = "takeover";
    /// One payment is acknowledged, or a dead letter (`refused`, `expired`): a topic of its own, for whoever waits for just that one.
    #[must_use]
    pub(crate) fn receipt(client: &super::ClientId, seq: super::Seq) -> String {
        format!("receipt/{client}/{seq}")
    }
    /// A payment of a client that this node may hold became a dead letter: [`super::Gone`].
    pub(crate) const DEAD: &str = "dead";
    /// Close this client's connection: its id.
    pub(crate) const DISCONNECT: &str = "disconnect";
    /// For every client: the JSON object that it gets.
    pub(crate) const BROADCAST: &str = "broadcast";
    /// Who is online with you? [`super::Question`].
    pub(crate) const QUESTION: &str = "question";
}

/// A payment on its way to the client that this node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bell {
    /// For whom.
    pub(crate) client: ClientId,
    /// When the payment before it was accepted: only after exactly that one it may be sent.
    pub(crate) previous_at: u64,
    /// A sender waits for its acknowledgement.
    pub(crate) awaited: bool,
    /// The payment.
    pub(crate) entry: Entry,
}

impl Bell {
    /// Reads `client previous_at awaited entry`, awaited being 0 or 1; `None` if it is none.
    #[must_use]
    pub(crate) fn parse(text: &[u8]) -> Option<Bell> {
        let mut words = text.splitn(4, |&b| b == b' ');
        let client = ClientId::parse(word(words.next()?)?).ok()?;
        let previous_at = number(words.next()?)?;
        let awaited = words.next()? == b"1";
        let entry = parse_entry(words.next()?)?.entry;
        Some(Bell { client, previous_at, awaited, entry })
    }

    /// The place of the payment before.
    #[must_use]
    pub(crate) fn previous(&self) -> Mark {
        Mark { seq: Seq(self.entry.mark.seq.0.saturating_sub(1)), accepted_at: self.previous_at }
    }
}

/// What the inbox tells the node it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Payments were stored together for clients of this node.
    Bells(Vec<Bell>),
    /// One may have been: compare this client with its inbox, if it is here.
    Check(ClientId),
    /// A payment became a dead letter by what this node did.
    Died(ClientId, Seq, Status),
}

/// A stored entry with what only the store uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredEntry {
    /// The payment.
    pub(crate) entry: Entry,
    /// The session that sent it, if it can expire and was sent; 0: none.
    pub(crate) sent_by: u64,
    /// The bytes of all parcels that ever entered this inbox, up to this one: the difference of
    /// two of them is the size of what lies between.
    pub(crate) bytes: u64,
}

/// Reads `seq accepted_at expires_at bytes parcel`, as it lies in an inbox, `expires_at/session` where that session
/// has sent it; `None` if it is none.
#[must_use]
pub(crate) fn parse_entry(text: &[u8]) -> Option<StoredEntry> {
    let mut words = text.splitn(5, |&b| b == b' ');
    let mut next_word = || word(words.next()?);
    let mark = Mark { seq: Seq(next_word()?.parse().ok()?), accepted_at: next_word()?.parse().ok()? };
    let (expires_at, sent_by) = next_word().map(|text| text.split_once('/').unwrap_or((text, "0")))?;
    let (expires_at, sent_by) = (expires_at.parse().ok()?, sent_by.parse().ok()?);
    let bytes = next_word()?.parse().ok()?;
    let parcel = Parcel::parse(words.next()?)?;
    Some(StoredEntry { entry: Entry { mark, expires_at, parcel }, sent_by, bytes })
}

/// Reads `seq accepted_at 0 bytes -`, the place that a dead letter left in an inbox; `None` if it is none.
#[must_use]
pub(crate) fn parse_tomb(text: &[u8]) -> Option<Mark> {
    let numbers = text.strip_suffix(b" -")?;
    let mut words = numbers.split(|&b| b == b' ');
    let mark = Mark { seq: Seq(number(words.next()?)?), accepted_at: number(words.next()?)? };
    (words.count() == 2).then_some(mark)
}

impl StoredEntry {
    /// The text that [`parse_entry`] reads.
    #[must_use]
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let Mark { seq, accepted_at } = self.entry.mark;
        let sent_by = if self.sent_by == 0 { String::new() } else { format!("/{}", self.sent_by) };
        let expires_at = self.entry.expires_at;
        let mut text = format!("{seq} {accepted_at} {expires_at}{sent_by} {} ", self.bytes).into_bytes();
        text.extend_from_slice(self.entry.parcel.as_bytes());
        text
    }
}

/// A newer session of a client than the one that this node may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Takeover {
    /// Of whom.
    pub(crate) client: ClientId,
    /// Its number; every lower one is over.
    pub(crate) session: u64,
}

impl Takeover {
    /// Reads `client session`; `None` if it is none.
    #[must_use]
    pub(crate) fn parse(text: &[u8]) -> Option<Takeover> {
        let (client, session) = client_and_number(text)?;
        Some(Takeover { client, session })
    }
}

/// A payment that is not to be delivered any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Of whom.
    pub(crate) client: ClientId,
    /// Its number.
    pub(crate) seq: Seq,
}

impl Gone {
    /// Reads `client seq`; `None` if it is none.
    #[must_use]
    pub(crate) fn parse(text: &[u8]) -> Option<Gone> {
        let (client, seq) = client_and_number(text)?;
        Some(Gone { client, seq: Seq(seq) })
    }
}

/// Who is online with you?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// The node that asks.
    pub(crate) answer_to: String,
    /// Under what it listens for [`Online`].
    pub(crate) topic: String,
    /// Only clients after this id.
    pub(crate) after: Option<String>,
}

/// The answer to a [`Question`]: the first of them, by client id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Online {
    /// Whose answer.
    pub(crate) node: String,
    /// Client ids.
    pub(crate) clients: Vec<String>,
}

fn client_and_number(text: &[u8]) -> Option<(ClientId, u64)> {
    let mut words = text.splitn(2, |&b| b == b' ');
    let client = ClientId::parse(word(words.next()?)?).ok()?;
    Some((client, number(words.next()?)?))
}

fn word(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok()
}

fn number(text: &[u8]) -> Option<u64> {
    word(text)?.parse().ok()
}

#[cfg(test)]
pub(crate) mod hostile;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_is_read_as_the_script_writes_it() {
        let text = b"till-7 1732330000000 1 42 1732330000123 0 900 20 \"channel\":\"payments\"\"msg\":\"a b\"";
        let bell = Bell::parse(text).expect("a bell");
        assert_eq!((bell.client.as_str(), bell.previous_at), ("till-7", 1_732_330_000_000));
        assert_eq!(bell.previous().seq, Seq(41));
        assert!(bell.awaited);
        let mut frame = Vec::new();
        bell.entry.write_frame(&mut frame);
        let expected = br#"{"type":"payment","seq":42,"channel":"payments","accepted_at":1732330000123,"msg":"a b"}"#;
        assert_eq!(frame, expected);
    }

    #[test]
    fn what_is_no_bell_is_none() {
        for text in
            [&b""[..], b"till-7", b"till-7 1", b"till-7 1 0 2 3", b"till-7 1 0 2 3 0 4 99 short", b"{} 1 0 2 3 0 4 0 x"]
        {
            assert_eq!(Bell::parse(text), None);
        }
        assert_eq!(Takeover::parse(b"till-7 x"), None);
        assert_eq!(Takeover::parse(&[0xff, b' ', b'1']), None);
    }

    #[test]
    fn a_stored_entry_survives_its_text() {
        for expires_at in ["0", "1732330060123", "1732330060123/7"] {
            let text = format!("7 1732330000123 {expires_at} 25 20 \"channel\":\"payments\"\"msg\":1");
            assert_eq!(parse_entry(text.as_bytes()).expect("an entry").to_bytes(), text.as_bytes());
            assert_eq!(parse_tomb(text.as_bytes()), None);
        }
    }

    #[test]
    fn the_place_of_a_dead_letter_is_no_entry() {
        let text = b"7 1732330000123 0 25 -";
        assert_eq!(parse_tomb(text), Some(Mark { seq: Seq(7), accepted_at: 1_732_330_000_123 }));
        assert_eq!(parse_entry(text), None);
    }

    #[test]
    fn a_dead_letters_word_is_read_as_the_script_writes_it() {
        let text = b"dead till-7 42";
        let topic_ends = text.iter().position(|&b| b == b' ').expect("a topic");
        assert_eq!(&text[..topic_ends], topic::DEAD.as_bytes());
        let gone = Gone::parse(&text[topic_ends + 1..]).expect("a word");
        assert_eq!((gone.client.as_str(), gone.seq), ("till-7", Seq(42)));
    }
}
