//! Payments: what one is made of, what becomes of it, and how it is kept until it is acknowledged.
//!
//! Values only. What names it bears is told in `name`, what its message may be in `content`. Who stores it is `inbox`'s
//! business, how it reaches a client `client`'s.

mod content;
pub(crate) mod name;

pub use self::content::{Content, InvalidMessage, MAX_DEPTH, MAX_NUMBER_CHARS, Notification};
pub use self::name::{Channel, ClientId, GATEWAY_PROFILES, InvalidName, PaymentId};

use self::content::NOTIFICATION;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::fmt;
use std::time::Duration;

/// A payment's number in its client's inbox: 1, 2, 3, …; 0 stands before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }

    /// How many numbers lie between an earlier one and this; 0 if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Seq) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One place in an inbox. A store that lost writes gives the same seq again, but not the same
/// `accepted_at` with it: only both together name a payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The payment's number.
    pub seq: Seq,
    /// When it was accepted: Unix time in milliseconds, the store's clock.
    pub accepted_at: u64,
}

/// What became of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It waits in the inbox.
    Accepted,
    /// Its client said that it is done.
    Acknowledged,
    /// A dead letter: its client or an operator refused it.
    Refused,
    /// A dead letter: its time was over.
    Expired,
    /// A dead letter that was put back, as the payment of this seq.
    Retried(Seq),
    /// A dead letter that was thrown away.
    Purged,
}

impl Status {
    /// The contract's word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Accepted => "accepted",
            Status::Acknowledged => "acknowledged",
            Status::Refused => "refused",
            Status::Expired => "expired",
            Status::Retried(_) => "retried",
            Status::Purged => "purged",
        }
    }

    /// Reads the word as it stands in a store: with the new seq behind `retried/`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Status> {
        Some(match text {
            "accepted" => Status::Accepted,
            "acknowledged" => Status::Acknowledged,
            "refused" => Status::Refused,
            "expired" => Status::Expired,
            "purged" => Status::Purged,
            _ => Status::Retried(Seq(text.strip_prefix("retried/")?.parse().ok()?)),
        })
    }

    /// Whether it is held as a dead letter: to be listed, put back or thrown away.
    #[must_use]
    pub fn is_dead_letter(self) -> bool {
        matches!(self, Status::Refused | Status::Expired)
    }
}

/// What a sender wants one client to have.
#[derive(Clone, Debug)]
pub struct Payment {
    /// For whom.
    pub client: ClientId,
    /// The sender's name for it: the same one is stored once within the dedup window.
    pub payment_id: Option<PaymentId>,
    /// What of its frame is known before it has a seq.
    pub parcel: Parcel,
    /// How long after it was accepted it is still to be delivered; none: for ever.
    pub expires_in: Option<Duration>,
}

impl Payment {
    /// Wraps a message up for a client.
    #[must_use]
    pub fn new(client: ClientId, payment_id: Option<PaymentId>, channel: &Channel, content: &Content) -> Payment {
        let parcel = Parcel::new(channel, payment_id.as_ref(), content);
        Payment { client, payment_id, parcel, expires_in: None }
    }
}

/// What of a frame is known before the payment has a seq. It is stored and sent between nodes as
/// the text `<length of the first part> <first part><second part>`; the two parts are the frame's
/// fields before and after `accepted_at`.
#[derive(Clone, PartialEq, Eq)]
pub struct Parcel {
    text: Vec<u8>,
}

/// Without the message: a `Debug` may end in a log.
impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parcel({} bytes)", self.text.len())
    }
}

impl Parcel {
    fn new(channel: &Channel, payment_id: Option<&PaymentId>, content: &Content) -> Parcel {
        let id = payment_id.map(|id| ["\",\"payment_id\":\"", id.as_str()]).unwrap_or_default();
        let head = ["\"channel\":\"", channel.as_str(), id[0], id[1], "\""];
        let length: usize = head.iter().map(|part| part.len()).sum();
        let mut text = Vec::with_capacity(length + content.bytes() + 4);
        push_number(&mut text, length as u64);
        text.push(b' ');
        head.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
        text.extend_from_slice(content.as_bytes());
        Parcel { text }
    }

    /// The stored text.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Reads the stored text; `None` if it is none. None that we make has a line feed, and one that was damaged so would
    /// pass for two frames.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Parcel> {
        split(text).filter(|_| !text.contains(&b'\n'))?;
        Some(Parcel { text: text.to_vec() })
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        split(&self.text).expect("checked when it was made")
    }

    /// What tells a repeat from another payment under the same id: SHA-256 over channel and
    /// message (with its content type), the first half of it in hex, 32 characters.
    ///
    /// A gateway's notification is known by its id alone: its repeats differ in their bytes, so it is taken over that.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let (head, tail) = self.parts();
        let tail = if tail.starts_with(NOTIFICATION) { head } else { tail };
        let channel = head.split(|&b| b == b',').next().unwrap_or_default();
        let hash = Sha256::new().chain_update(channel).chain_update([b',']).chain_update(tail).finalize();
        HEXLOWER.encode(&hash[..16])
    }

    /// The payment id within, if it has one.
    #[must_use]
    pub fn payment_id(&self) -> Option<&str> {
        let head = std::str::from_utf8(self.parts().0).ok()?;
        head.split_once(",\"payment_id\":\"")?.1.strip_suffix('"')
    }
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = text.iter().take(5).position(|&b| b == b' ')?;
    let at: usize = std::str::from_utf8(&text[..blank]).ok()?.parse().ok()?;
    text.get(blank + 1..)?.split_at_checked(at)
}

/// One payment as it lies in an inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub mark: Mark,
    /// After this Unix time (ms, the store's clock) it is not delivered; 0: never.
    pub expires_at: u64,
    /// Everything else of its frame.
    pub parcel: Parcel,
}

impl Entry {
    /// What the frame weighs, within a few bytes above.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.parcel.text.len() + 88
    }

    /// The JSON object that goes over the wire, without what ends or precedes it there.
    pub fn write_frame(&self, out: &mut Vec<u8>) {
        let (head, tail) = self.parcel.parts();
        out.reserve(head.len() + tail.len() + 80);
        out.extend_from_slice(b"{\"type\":\"payment\",\"seq\":");
        push_number(out, self.mark.seq.0);
        out.push(b',');
        out.extend_from_slice(head);
        out.extend_from_slice(b",\"accepted_at\":");
        push_number(out, self.mark.accepted_at);
        out.push(b',');
        out.extend_from_slice(tail);
        out.push(b'}');
    }
}

/// Appends a number in decimal digits. Two dozen are written for each payment, and `write!` takes several times as long.
pub(crate) fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn frame(content: &Content) -> String {
        let id = PaymentId::parse("wx-4200").expect("valid");
        let client = ClientId::parse("01").expect("valid");
        let payment = Payment::new(client, Some(id), &Channel::default(), content);
        let mark = Mark { seq: Seq(42), accepted_at: 1_732_330_000_123 };
        let parcel = Parcel::parse(payment.parcel.as_bytes()).expect("what was made can be read");
        let mut out = Vec::new();
        Entry { mark, expires_at: 0, parcel }.write_frame(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_frame_has_the_contracts_fields_in_the_contracts_order() {
        let content = Content::json_text(br#"{"amount":"10.00"}"#).expect("JSON");
        let expected = r#"{"type":"payment","seq":42,"channel":"payments","payment_id":"wx-4200","accepted_at":1732330000123,"msg":{"amount":"10.00"}}"#;
        assert_eq!(frame(&content), expected);
    }

    #[test]
    fn a_stored_text_with_a_line_feed_is_none() {
        let good = b"20 \"channel\":\"payments\"\"msg\":\"a b\"";
        assert!(Parcel::parse(good).is_some());
        for at in 3..good.len() {
            let mut damaged = good.to_vec();
            damaged[at] = b'\n';
            assert_eq!(Parcel::parse(&damaged), None, "{at}");
        }
    }

    pub(super) fn notification<'a>(body: &'a [u8], headers: &'a [(&'a str, String)]) -> Notification<'a> {
        let (content_type, path, query) = ("text/xml", "/v1/gateways/wechat-v2/01/t%61ken", "a=%20\"");
        Notification { gateway: "wechat-v2", body, content_type, headers, method: "POST", path, query }
    }

    #[test]
    fn a_debug_shows_no_message() {
        let content = Content::notification(&notification(b"secret", &[]));
        let id = PaymentId::of_gateway("alipay", "1");
        let client = ClientId::parse("01").expect("valid");
        let shown = format!("{:?} {content:?}", Payment::new(client, id, &Channel::default(), &content));
        assert!(!shown.contains("secret") && !shown.contains("ken"), "{shown}");
    }

    #[test]
    fn a_notification_is_known_by_its_id_alone() {
        let print = |id: &str, body: &[u8]| {
            let client = ClientId::parse("01").expect("valid");
            let content = Content::notification(&notification(body, &[]));
            let id = PaymentId::of_gateway("wechat-v2", id);
            Payment::new(client, id, &Channel::default(), &content).parcel.fingerprint()
        };
        assert_eq!(print("1", b"a"), print("1", b"b"));
        assert_ne!(print("1", b"a"), print("2", b"a"));
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 9, 10, 1_732_330_000_123, u64::MAX] {
            let mut out = b"x".to_vec();
            push_number(&mut out, number);
            assert_eq!(String::from_utf8(out), Ok(format!("x{number}")));
        }
    }

    #[test]
    fn a_fingerprint_is_of_channel_and_message_not_of_the_id() {
        let print = |id: &str, channel: &str, msg: &str| {
            let content = Content::json_text(msg.as_bytes()).expect("JSON");
            let client = ClientId::parse("01").expect("valid");
            let channel = Channel::parse(channel).expect("valid");
            Payment::new(client, PaymentId::parse(id).ok(), &channel, &content).parcel.fingerprint()
        };
        assert_eq!(print("a", "payments", "1"), print("b", "payments", "1"));
        assert_ne!(print("a", "payments", "1"), print("a", "refunds", "1"));
        assert_ne!(print("a", "payments", "1"), print("a", "payments", "1.0"));
    }
}
