//! What goes over a client's connection, as values: its frames to us, ours to it, each the text of a JSON object.
//!
//! Values only: no socket, no state. Payments' frames are built in `payment`, broadcasts' in `broadcast`; how frames
//! are told from each other is `framing`'s.
//!
//! Source: README.md, *TCP reference*.

use crate::payment::{ClientId, Seq};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;
use std::fmt;

/// The most bytes of a client's frame, without what ends or precedes it.
pub(crate) const MAX_FRAME_BYTES: usize = 64 << 10;
/// What a server's frame has besides a body, each of whose bytes may take [`ESCAPED_BYTES`].
pub(crate) const FRAME_ROOM: usize = 4 << 10;
/// The most that one byte of a body takes in a frame: `\u0001`.
pub(crate) const ESCAPED_BYTES: usize = 6;

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ClientFrame {
    Hello(Hello),
    Ack(Seq),
    /// It can't process this one, for a reason.
    Nack(Seq, String),
    Ping,
    Pong,
    Bye,
}

/// The first frame of a connection.
#[derive(PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) client: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) window: Option<u64>,
    /// A payment counts as acknowledged once the socket took it.
    pub(crate) auto_ack: bool,
}

/// Without the token: a `Debug` may end in a log.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello").field("client", &self.client).field("window", &self.window).finish_non_exhaustive()
    }
}

/// Why a text is no frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InvalidFrame {
    /// It is no JSON.
    Json(String),
    /// It is JSON, but not what the contract has.
    Frame(String),
}

// A derived reader refuses a known field that is given twice and passes over unknown ones.
#[derive(Deserialize)]
struct Fields {
    r#type: String,
    client: Option<String>,
    id: Option<String>,
    token: Option<String>,
    window: Option<u64>,
    ack: Option<String>,
    seq: Option<u64>,
    reason: Option<String>,
}

impl ClientFrame {
    /// Reads one, without what ends or precedes it.
    pub(crate) fn parse(line: &[u8]) -> Result<ClientFrame, InvalidFrame> {
        if let Some(seq) = plain_ack(line) {
            return Ok(ClientFrame::Ack(seq));
        }
        // Of bytes the parser would look at those fields alone that it knows.
        let text = std::str::from_utf8(line).map_err(|e| InvalidFrame::Json(format!("not UTF-8: {e}")))?;
        // A derived reader would take an array too, by position.
        if !is_object(line) {
            let json: Result<IgnoredAny, _> = serde_json::from_str(text);
            return Err(match json {
                Ok(_) => InvalidFrame::Frame("a line, or a frame, is one JSON object".into()),
                Err(e) => InvalidFrame::Json(e.to_string()),
            });
        }
        let fields: Fields = serde_json::from_str(text).map_err(|e| match e.classify() {
            Category::Data => InvalidFrame::Frame(e.to_string()),
            _ => InvalidFrame::Json(e.to_string()),
        })?;
        let wrong = |why: &str| Err(InvalidFrame::Frame(why.to_owned()));
        match fields.r#type.as_str() {
            "hello" => fields.hello().map(ClientFrame::Hello),
            "ack" => match fields.seq {
                Some(seq) => Ok(ClientFrame::Ack(Seq(seq))),
                None => wrong("an ack needs a seq"),
            },
            "nack" => fields.nack(),
            "ping" => Ok(ClientFrame::Ping),
            "pong" => Ok(ClientFrame::Pong),
            "bye" => Ok(ClientFrame::Bye),
            _ => wrong("unknown type; it may be hello, ack, nack, ping, pong or bye"),
        }
    }
}

/// The seq of an acknowledgement in the very form that the contract shows, as nearly all have it: nothing has to be
/// allocated for it. Any other form is read as JSON.
fn plain_ack(line: &[u8]) -> Option<Seq> {
    let digits = line.strip_prefix(b"{\"type\":\"ack\",\"seq\":")?.strip_suffix(b"}")?;
    // JSON has no leading zeros, and 19 digits always fit.
    let plain = digits.len() <= 19 && digits.first()? != &b'0' && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| Seq(digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0'))))
}

/// The most bytes of a nack's reason.
pub(crate) const MAX_REASON_BYTES: usize = 256;

/// Whether a JSON text, if it is one, is an object.
pub(crate) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

impl Fields {
    fn nack(self) -> Result<ClientFrame, InvalidFrame> {
        let Some(seq) = self.seq else { return Err(InvalidFrame::Frame("a nack needs a seq".into())) };
        let reason = self.reason.unwrap_or_default();
        if reason.len() > MAX_REASON_BYTES {
            return Err(InvalidFrame::Frame(format!("a reason has at most {MAX_REASON_BYTES} bytes")));
        }
        Ok(ClientFrame::Nack(Seq(seq), reason))
    }

    fn hello(self) -> Result<Hello, InvalidFrame> {
        let wrong = |why: &str| Err(InvalidFrame::Frame(why.to_owned()));
        if self.client.is_some() && self.id.is_some() && self.client != self.id {
            return wrong("client and id differ");
        }
        let auto_ack = match self.ack.as_deref() {
            None => false,
            Some("auto") => true,
            Some(_) => return wrong("ack may only be \"auto\""),
        };
        if self.window == Some(0) {
            return wrong("a window is at least 1");
        }
        Ok(Hello { client: self.client.or(self.id), token: self.token, window: self.window, auto_ack })
    }
}

/// A ping, and what answers one.
pub(crate) const PING: &[u8] = b"{\"type\":\"ping\"}";
/// See [`PING`].
pub(crate) const PONG: &[u8] = b"{\"type\":\"pong\"}";

/// The answer to a hello.
pub(crate) struct Welcome<'a> {
    pub(crate) client: &'a ClientId,
    pub(crate) node: &'a str,
    pub(crate) epoch: u64,
    pub(crate) acked: Seq,
    pub(crate) pending: u64,
    pub(crate) heartbeat_secs: u64,
    pub(crate) window: usize,
}

impl Welcome<'_> {
    /// The frame. Ids and node names hold nothing that JSON would escape.
    pub(crate) fn json(&self) -> String {
        let Welcome { client, node, epoch, acked, pending, heartbeat_secs, window } = self;
        format!(
            "{{\"type\":\"welcome\",\"client\":\"{client}\",\"node\":\"{node}\",\"epoch\":{epoch},\"acked\":{acked},\
             \"pending\":{pending},\"heartbeat\":{heartbeat_secs},\"window\":{window}}}"
        )
    }
}

/// Our last frame: why we close.
pub(crate) fn error_json(code: &str, message: &str) -> String {
    let error = serde_json::json!({ "type": "error", "code": code, "message": message });
    // Built by hand for the order of its fields, which the contract shows.
    format!("{{\"type\":\"error\",\"code\":{},\"message\":{}}}", error["code"], error["message"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_bad_frame(line: &str) -> bool {
        matches!(ClientFrame::parse(line.as_bytes()), Err(InvalidFrame::Frame(_)))
    }

    #[test]
    fn a_hello_may_say_id_for_client() {
        let hello = |line: &str| match ClientFrame::parse(line.as_bytes()) {
            Ok(ClientFrame::Hello(hello)) => hello,
            other => panic!("{other:?}"),
        };
        assert_eq!(hello(r#"{"type":"hello","id":"01"}"#).client.as_deref(), Some("01"));
        assert_eq!(hello(r#"{"type":"hello","id":"01","client":"01"}"#).client.as_deref(), Some("01"));
        let full = hello(r#"{"type":"hello","client":"01","token":"t","window":16,"ack":"auto","shop":{"a":[1]}}"#);
        assert_eq!((full.window, full.auto_ack, full.token.as_deref()), (Some(16), true, Some("t")));
        assert!(is_bad_frame(r#"{"type":"hello","id":"01","client":"02"}"#));
    }

    #[test]
    fn debug_shows_no_token() {
        let hello = ClientFrame::parse(br#"{"type":"hello","client":"01","token":"hunter2"}"#);
        let shown = format!("{hello:?}");
        assert!(shown.contains("01") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn an_ack_is_a_whole_number_and_nothing_else() {
        let ack = |seq: &str| ClientFrame::parse(format!(r#"{{"type":"ack","seq":{seq}}}"#).as_bytes());
        assert_eq!(ack("42"), Ok(ClientFrame::Ack(Seq(42))));
        for seq in ["-1", "1.0", "\"1\"", "1e2", "18446744073709551616", "[1]", "null", "true"] {
            assert!(matches!(ack(seq), Err(InvalidFrame::Frame(_))), "{seq}");
        }
        for seq in ["", "-", "+1", "01", "1a", "1 2"] {
            assert!(matches!(ack(seq), Err(InvalidFrame::Json(_))), "{seq}");
        }
        for (seq, read) in [("0", 0), ("10", 10), ("9999999999999999999", 9_999_999_999_999_999_999), (" 7 ", 7)] {
            assert_eq!(ack(seq), Ok(ClientFrame::Ack(Seq(read))));
        }
        assert_eq!(ack("18446744073709551615"), Ok(ClientFrame::Ack(Seq(u64::MAX))));
        assert!(is_bad_frame(r#"{"type":"ack"}"#));
        assert!(is_bad_frame(r#"{"type":"ack","seq":1,"seq":1}"#));
    }

    #[test]
    fn a_nack_names_one_payment_and_may_say_why() {
        let nack = |rest: &str| ClientFrame::parse(format!(r#"{{"type":"nack"{rest}}}"#).as_bytes());
        assert_eq!(
            nack(r#","seq":43,"reason":"unknown order""#),
            Ok(ClientFrame::Nack(Seq(43), "unknown order".into()))
        );
        assert_eq!(nack(r#","seq":43"#), Ok(ClientFrame::Nack(Seq(43), String::new())));
        let longest = "é".repeat(MAX_REASON_BYTES / 2);
        assert_eq!(nack(&format!(r#","seq":1,"reason":"{longest}""#)), Ok(ClientFrame::Nack(Seq(1), longest.clone())));
        for rest in ["", r#","seq":"1""#, r#","seq":1,"reason":7"#, &format!(r#","seq":1,"reason":"{longest}x""#)] {
            assert!(matches!(nack(rest), Err(InvalidFrame::Frame(_))), "{rest}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_from_what_is_no_frame() {
        for line in ["", "{", "hello", "\u{feff}{}", "{\"type\":\"ping\"} x", "\0"] {
            assert!(matches!(ClientFrame::parse(line.as_bytes()), Err(InvalidFrame::Json(_))), "{line:?}");
        }
        for line in [&b"\"\xff\""[..], b"{\"type\":\"ping\",\"x\":\"\xff\"}", b"{\"type\":\"\xff\"}"] {
            assert!(matches!(ClientFrame::parse(line), Err(InvalidFrame::Json(_))), "{}", line.escape_ascii());
        }
        for line in [
            r#"["hello","ar",null,null,null,null,null]"#,
            "[]",
            "1",
            "{}",
            r#"{"type":1}"#,
            r#"{"type":"what"}"#,
            r#"{"type":"hello","window":0}"#,
        ] {
            assert!(is_bad_frame(line), "{line}");
        }
        assert_eq!(ClientFrame::parse(b"{\"type\":\"ping\"}\r"), Ok(ClientFrame::Ping));
    }
}
