//! What a message may be, and how it ends its frame: JSON token for token, any other body, a gateway's notification.
//!
//! Values only. What stands before the message in a frame is left to `Parcel` and `Entry`, the size of a body to `http`.

use data_encoding::BASE64;
use serde_json::value::RawValue;
use std::fmt;

/// The most nested levels of arrays and objects in a `msg`; receivers choke on more.
pub const MAX_DEPTH: usize = 64;
/// The most characters of one number in a `msg`.
pub const MAX_NUMBER_CHARS: usize = 256;

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
pub(super) const NOTIFICATION: &[u8] = b"\"gateway\":";

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
        let (name, msg) = (b"\"msg\":", msg.get().as_bytes());
        let mut tail = [name, msg].concat();
        // A string holds no raw line break (RFC 8259, 7), so any that is here stands between tokens.
        memchr::memchr2_iter(b'\n', b'\r', msg).for_each(|at| tail[name.len() + at] = b' ');
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
    let (mut depth, mut number) = (0usize, 0usize);
    let mut bytes = json.as_bytes();
    while let Some((&byte, rest)) = bytes.split_first() {
        bytes = rest;
        number = match byte {
            b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E' => number + 1,
            _ => 0,
        };
        match byte {
            b'"' => bytes = behind_string(bytes),
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

/// What follows the string whose first quote stood before these bytes. Most of a message is in strings.
fn behind_string(mut bytes: &[u8]) -> &[u8] {
    while let Some(at) = memchr::memchr2(b'"', b'\\', bytes) {
        if bytes[at] == b'"' {
            return &bytes[at + 1..];
        }
        // A backslash and what it escapes.
        bytes = bytes.get(at + 2..).unwrap_or_default();
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::super::tests::{frame, notification};
    use super::*;

    #[test]
    fn a_message_is_kept_token_for_token_but_for_line_breaks() {
        let content = Content::json_text(b"{\r\n \"a\": 10.00,\n\"b\":1E400, \"a\":\"x\\n\\ud800\"}").expect("JSON");
        assert!(frame(&content).ends_with(r#""msg":{   "a": 10.00, "b":1E400, "a":"x\n\ud800"}}"#));
    }

    #[test]
    fn a_body_that_is_no_json_comes_as_text_or_base64() {
        let text = Content::body("a\nb\"\u{2028}".as_bytes(), "text/plain");
        assert!(frame(&text).ends_with("\"msg\":\"a\\nb\\\"\u{2028}\",\"content_type\":\"text/plain\"}"));
        let bytes = Content::body(&[0xff, 0x00], "application/octet-stream");
        assert!(frame(&bytes).ends_with(r#""msg_base64":"/wA=","content_type":"application/octet-stream"}"#));
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
    fn depth_and_numbers_are_bounded_at_the_limit() {
        let nested = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(Content::json_text(&nested(64)).is_ok());
        assert_eq!(Content::json_text(&nested(65)), Err(InvalidMessage::TooDeep));
        assert!(Content::json_text(&[b'1'; 256]).is_ok());
        assert_eq!(Content::json_text(&[b'1'; 257]), Err(InvalidMessage::NumberTooLong));
        let brackets_in_text = format!("\"\\\"{}\"", "[1".repeat(300));
        assert!(Content::json_text(brackets_in_text.as_bytes()).is_ok());
        // An escaped backslash escapes nothing, an escaped quote ends nothing.
        let brackets = "[".repeat(65);
        for strings in [format!(r#"["\\",{brackets}"#), format!(r#"{{"\"":"\\\"\\",{brackets}"#)] {
            assert_eq!(check_shape(&strings), Err(InvalidMessage::TooDeep), "{strings}");
        }
        assert_eq!(check_shape(&format!(r#"["\\\"{brackets}"]"#)), Ok(()));
    }
}
