//! Payments and their names: what each may hold, and how one is kept until it is acknowledged.
//!
//! Values only. Who stores them is `inbox`'s business, how they reach a client `client`'s.

use data_encoding::{BASE64, HEXLOWER};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The most nested levels of arrays and objects in a `msg`; receivers choke on more.
pub const MAX_DEPTH: usize = 64;
/// The most characters of one number in a `msg`.
pub const MAX_NUMBER_CHARS: usize = 256;
/// The most characters of a client id and of a payment id: keys in the store are made of them.
pub(crate) const MAX_ID_CHARS: usize = 128;
/// The most characters of a channel.
pub(crate) const MAX_CHANNEL_CHARS: usize = 64;

/// The profiles of payment gateways. Each owns the payment ids that begin with its name and `:`, so a sender's must not.
pub const GATEWAY_PROFILES: [&str; 8] =
    ["wechat-v2", "wechat-v3", "alipay", "antom", "unionpay", "adyen", "stripe", "generic"];

/// A name that is not one: says of what kind, and what would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName {
    kind: &'static str,
    rule: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a {}: {}", self.kind, self.rule)
    }
}

impl std::error::Error for InvalidName {}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@-".contains(&b))
}

/// Who receives: 1 to 128 characters of `A-Z a-z 0-9 . _ : @ -`, but not `.` or `..`.
// An Arc: every map, queue and log line holds one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    /// Takes a text that keeps the rule.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says the rule.
    pub fn parse(text: &str) -> Result<ClientId, InvalidName> {
        if is_id(text) && text != "." && text != ".." {
            return Ok(ClientId(Arc::from(text)));
        }
        let rule = "1 to 128 characters of A-Z a-z 0-9 . _ : @ -, but not . or ..";
        Err(InvalidName { kind: "client id", rule })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The sender's own name of a payment: the same alphabet as a client id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentId(Box<str>);

impl PaymentId {
    /// Takes a text that keeps the rule.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says the rule.
    pub fn parse(text: &str) -> Result<PaymentId, InvalidName> {
        let gateway = |profile: &str| text.strip_prefix(profile).is_some_and(|rest| rest.starts_with(':'));
        if is_id(text) && !GATEWAY_PROFILES.iter().any(|profile| gateway(profile)) {
            return Ok(PaymentId(text.into()));
        }
        let rule = "1 to 128 characters of A-Z a-z 0-9 . _ : @ -, not beginning with a gateway's name and a colon";
        Err(InvalidName { kind: "payment id", rule })
    }

    /// The same, and gateways' own as well: for asking what became of a payment, not for posting one.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says the rule.
    pub fn parse_any(text: &str) -> Result<PaymentId, InvalidName> {
        if is_id(text) {
            return Ok(PaymentId(text.into()));
        }
        Err(InvalidName { kind: "payment id", rule: "1 to 128 characters of A-Z a-z 0-9 . _ : @ -" })
    }

    /// A gateway's own: the profile's name, `:`, and its id of the notification. `None` where the two do not fit into
    /// a payment id.
    #[must_use]
    pub fn of_gateway(profile: &str, id: &str) -> Option<PaymentId> {
        let text = format!("{profile}:{id}");
        (is_id(&text) && !id.is_empty()).then(|| PaymentId(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The kind of a message: 1 to 64 characters of `a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel(Box<str>);

impl Channel {
    /// Takes a text that keeps the rule.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] says the rule.
    pub fn parse(text: &str) -> Result<Channel, InvalidName> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if (1..=MAX_CHANNEL_CHARS).contains(&text.len()) && text.bytes().all(letter) {
            return Ok(Channel(text.into()));
        }
        Err(InvalidName { kind: "channel", rule: "1 to 64 characters of a-z 0-9 . _ -" })
    }
}

impl Channel {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Channel {
    fn default() -> Self {
        Channel("payments".into())
    }
}

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

/// Why a JSON text cannot be a `msg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidMessage {
    /// It is no JSON; what the parser said.
    Json(String),
    /// More than [`MAX_DEPTH`] levels.
    TooDeep,
    /// A number of more than [`MAX_NUMBER_CHARS`] characters.
    NumberTooLong,
}

impl fmt::Display for InvalidMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidMessage::Json(why) => f.write_str(why),
            InvalidMessage::TooDeep => write!(f, "msg has more than {MAX_DEPTH} nested levels"),
            InvalidMessage::NumberTooLong => write!(f, "a number in msg has more than {MAX_NUMBER_CHARS} characters"),
        }
    }
}

/// A gateway's notification as it came: what its receiver needs to check the gateway's signature.
#[derive(Clone, Copy)]
pub struct Notification<'a> {
    /// The profile's name.
    pub gateway: &'a str,
    /// Untouched.
    pub body: &'a [u8],
    /// Empty if none came.
    pub content_type: &'a str,
    /// The signature headers that came: names in lower case, each once.
    pub headers: &'a [(&'a str, String)],
    /// Of the request.
    pub method: &'a str,
    /// Still percent-encoded. It holds the token of the URL, which no log may show.
    pub path: &'a str,
    /// What followed the `?`; empty if nothing did.
    pub query: &'a str,
}

/// How the content of a gateway's notification begins, and no other.
const NOTIFICATION: &[u8] = b"\"gateway\":";

/// The message itself, as the end of a frame: `"msg":…` and what belongs to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Vec<u8>);

/// Without the message: a `Debug` may end in a log.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

impl Content {
    /// The fields, without the braces around a frame.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// JSON, kept token for token; a line break between tokens becomes a space.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage`] where receivers would choke on it.
    pub fn json(msg: &RawValue) -> Result<Content, InvalidMessage> {
        check_shape(msg.get())?;
        let mut tail = Vec::with_capacity(msg.get().len() + 6);
        tail.extend_from_slice(b"\"msg\":");
        tail.extend_from_slice(msg.get().as_bytes());
        // A string holds no raw line break (RFC 8259, 7), so any that is here stands between tokens.
        tail.iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
        Ok(Content(tail))
    }

    /// A body that must be JSON.
    ///
    /// # Errors
    ///
    /// [`InvalidMessage`] where it is not, or where receivers would choke on it.
    pub fn json_text(body: &[u8]) -> Result<Content, InvalidMessage> {
        let not_json = |why: String| InvalidMessage::Json(why);
        let text = std::str::from_utf8(body).map_err(|e| not_json(format!("not UTF-8: {e}")))?;
        let msg: &RawValue = serde_json::from_str(text).map_err(|e| not_json(e.to_string()))?;
        Content::json(msg)
    }

    /// A body of any other kind: as a JSON string where it is UTF-8, else in base 64.
    #[must_use]
    pub fn body(body: &[u8], content_type: &str) -> Content {
        let mut tail = Vec::with_capacity(body.len() + content_type.len() + 32);
        push_body(&mut tail, "msg", body);
        push_field(&mut tail, "content_type", content_type);
        Content(tail)
    }

    /// A gateway's notification, the body as a JSON string where it is UTF-8, else in base 64.
    #[must_use]
    pub fn notification(notification: &Notification<'_>) -> Content {
        let Notification { gateway, body, content_type, headers, method, path, query } = *notification;
        let mut tail = Vec::with_capacity(body.len() + path.len() + 512);
        tail.extend_from_slice(NOTIFICATION);
        push_json_string(&mut tail, gateway);
        tail.push(b',');
        push_body(&mut tail, "body", body);
        push_field(&mut tail, "content_type", content_type);
        tail.extend_from_slice(b",\"headers\":{");
        for (i, (name, value)) in headers.iter().enumerate() {
            if i > 0 {
                tail.push(b',');
            }
            push_json_string(&mut tail, name);
            tail.push(b':');
            push_json_string(&mut tail, value);
        }
        tail.push(b'}');
        push_field(&mut tail, "method", method);
        push_field(&mut tail, "path", path);
        push_field(&mut tail, "query", query);
        Content(tail)
    }

    /// What it adds to its frame, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Bytes as the field `name` where they are UTF-8, else as `<name>_base64`.
fn push_body(out: &mut Vec<u8>, name: &str, body: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    match std::str::from_utf8(body) {
        Ok(text) => {
            out.extend_from_slice(b"\":");
            push_json_string(out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"_base64\":\"");
            out.extend_from_slice(BASE64.encode(body).as_bytes());
            out.push(b'"');
        }
    }
}

/// One more field, whose name needs no escaping.
fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    push_json_string(out, value);
}

fn push_json_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text is always written to memory");
}

/// Depth and number length, which no JSON parser judges for us. The text is valid JSON.
fn check_shape(json: &str) -> Result<(), InvalidMessage> {
    let (mut depth, mut number, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in json.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        number = match byte {
            b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E' => number + 1,
            _ => 0,
        };
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(InvalidMessage::TooDeep);
        }
        if number > MAX_NUMBER_CHARS {
            return Err(InvalidMessage::NumberTooLong);
        }
    }
    Ok(())
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
        let head = ["\"channel\":\"", &channel.0, id[0], id[1], "\""];
        let length: usize = head.iter().map(|part| part.len()).sum();
        let mut text = Vec::with_capacity(length + content.0.len() + 4);
        push_number(&mut text, length as u64);
        text.push(b' ');
        head.iter().for_each(|part| text.extend_from_slice(part.as_bytes()));
        text.extend_from_slice(&content.0);
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

/// Appends a number in decimal digits. Half a dozen are written for each payment, and `write!` takes several times as
/// long.
pub(crate) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        // The remainder is below ten.
        digits[from] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return out.extend_from_slice(&digits[from..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(content: &Content) -> String {
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
    fn a_message_is_kept_token_for_token_but_for_line_breaks() {
        let content = Content::json_text(b"{\r\n \"a\": 10.00,\n\"b\":1E400, \"a\":\"x\\n\\ud800\"}").expect("JSON");
        assert!(frame(&content).ends_with(r#""msg":{   "a": 10.00, "b":1E400, "a":"x\n\ud800"}}"#));
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

    #[test]
    fn a_body_that_is_no_json_comes_as_text_or_base64() {
        let text = Content::body("a\nb\"\u{2028}".as_bytes(), "text/plain");
        assert!(frame(&text).ends_with("\"msg\":\"a\\nb\\\"\u{2028}\",\"content_type\":\"text/plain\"}"));
        let bytes = Content::body(&[0xff, 0x00], "application/octet-stream");
        assert!(frame(&bytes).ends_with(r#""msg_base64":"/wA=","content_type":"application/octet-stream"}"#));
    }

    fn notification<'a>(body: &'a [u8], headers: &'a [(&'a str, String)]) -> Notification<'a> {
        let (content_type, path, query) = ("text/xml", "/v1/gateways/wechat-v2/01/t%61ken", "a=%20\"");
        Notification { gateway: "wechat-v2", body, content_type, headers, method: "POST", path, query }
    }

    #[test]
    fn a_notification_comes_as_its_receiver_checks_it() {
        let headers = [("a-signature", "x\\y".to_owned()), ("a-time", "1".to_owned())];
        let text = Content::notification(&notification(b"<a>2.00</a>\n", &headers));
        let expected = concat!(
            r#""gateway":"wechat-v2","body":"<a>2.00</a>\n","content_type":"text/xml","#,
            r#""headers":{"a-signature":"x\\y","a-time":"1"},"#,
            r#""method":"POST","path":"/v1/gateways/wechat-v2/01/t%61ken","query":"a=%20\""}"#,
        );
        assert!(frame(&text).ends_with(expected), "{}", frame(&text));
        let bytes = Content::notification(&notification(b"\xd6\xd0", &[]));
        assert!(frame(&bytes).contains(r#","body_base64":"1tA=","content_type":"text/xml","headers":{},"#));
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
    fn a_gateways_payment_id_is_its_own() {
        let id = PaymentId::of_gateway("alipay", "a1b2").expect("it fits");
        assert_eq!(id.as_str(), "alipay:a1b2");
        assert!(PaymentId::parse(id.as_str()).is_err(), "no sender may use it");
        assert_eq!(PaymentId::parse_any(id.as_str()), Ok(id), "everybody may ask for it");
        assert!(PaymentId::parse_any("a b").is_err());
        assert!(PaymentId::of_gateway("alipay", &"x".repeat(121)).is_some());
        for id in ["", "a b", "\u{4e2d}", &"x".repeat(122)] {
            assert_eq!(PaymentId::of_gateway("alipay", id), None, "{id}");
        }
    }

    #[test]
    fn depth_and_numbers_are_bounded_at_the_limit() {
        let nested = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(Content::json_text(&nested(64)).is_ok());
        assert_eq!(Content::json_text(&nested(65)), Err(InvalidMessage::TooDeep));
        assert!(Content::json_text(&[b'1'; 256]).is_ok());
        assert_eq!(Content::json_text(&[b'1'; 257]), Err(InvalidMessage::NumberTooLong));
        let brackets_in_text = format!("\"\\\"{}\"", "[1".repeat(300));
        assert!(Content::json_text(brackets_in_text.as_bytes()).is_ok());
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
    fn names_keep_their_rules() {
        for good in ["0", "a.b_c:d@e-f", "...", &"x".repeat(128)] {
            assert!(ClientId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "{a}", "a*", "%2e", "é", "a/b", &"x".repeat(129)] {
            assert!(ClientId::parse(bad).is_err(), "{bad}");
        }
        assert!(PaymentId::parse("alipay-1").is_ok());
        assert!(PaymentId::parse("alipay:1").is_err());
        assert!(Channel::parse("re_funds.2-x").is_ok());
        assert!(Channel::parse("Refunds").is_err());
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
