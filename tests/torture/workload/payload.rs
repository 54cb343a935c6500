//! What is paid: bodies of every size and shape, each with its uid in it, and the digest of what must be delivered.
//!
//! The expectation is built by a rule of its own here and not by payrelay's code: a body is written twice, once with
//! the line breaks that are posted and once with the spaces that must arrive.

use std::fmt::Write as _;
use std::sync::OnceLock;

use crate::history::{digest, parse_uid, uid_text};
use crate::random::Random;

/// The most bytes of a body or of a line of a batch; payrelay's default.
const BODY_LIMIT: usize = 262_144;
/// More than this a second of all senders together would test the machine and not payrelay.
const BYTES_A_SECOND: f64 = 10e6;
/// A line of a batch is not longer, so that no batch comes near its limit of 8 MiB.
const MAX_LINE: usize = 16 << 10;
/// What only a message holds: it must stand in no log.
const SECRET: &str = "SECRET-";

/// In which field a message arrives, and how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// `msg`, token for token.
    Json,
    /// `msg`, as a string, with `content_type`.
    Text,
    /// `msg_base64`, with `content_type`.
    Bytes,
}

/// The digest of what a receiver must see, computed by sender and receiver alike. `content` is the raw JSON text of
/// `msg`, or what the string, or the base 64, stands for; `content_type` is empty with [`Form::Json`].
pub fn delivered(form: Form, channel: &str, content_type: &str, content: &[u8]) -> u64 {
    digest(&[&[form as u8], channel.as_bytes(), content_type.as_bytes(), content])
}

/// The uid that the content of a payment names, if it does.
pub fn uid_within(form: Form, content: &[u8]) -> Option<u64> {
    let start = &content[..content.len().min(64)];
    let text = match form {
        Form::Json => {
            let field = start.windows(3).position(|window| window == br#""u""#)? + 3;
            let open = field + start[field..].iter().position(|byte| *byte == b'"')? + 1;
            &start[open..]
        }
        Form::Text | Form::Bytes => start.strip_prefix(b"u=")?,
    };
    let end = text.iter().position(|byte| !matches!(byte, b's' | b'-' | b'0'..=b'9' | b'A'..=b'F'))?;
    parse_uid(std::str::from_utf8(&text[..end]).ok()?)
}

/// One message, and what is to arrive of it.
#[derive(Clone, Debug)]
pub struct Payload {
    pub uid: u64,
    /// Empty: none is named, and it is `payments`.
    pub channel: &'static str,
    /// Only where it is not JSON, and goes by the raw route.
    pub content_type: Option<&'static str>,
    pub content: Vec<u8>,
    /// It does not name its uid, so the payment id must.
    pub is_anonymous: bool,
    /// [`delivered`].
    pub digest: u64,
}

/// By which way a message goes, as far as it limits what it may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route {
    /// Within the object of a single post.
    Envelope,
    /// Within a line of a batch.
    Line,
    /// As a body of its own.
    Raw,
}

/// Draws messages.
#[derive(Debug)]
pub struct Mint {
    random: Random,
    /// How much of the large ones the rate leaves room for.
    large: f64,
}

impl Mint {
    /// `rate`: payments a second of all senders together.
    pub fn new(random: Random, rate: u64) -> Mint {
        // 70 % of 175 B, 24 % of 4.5 KiB; 4 % of 64 KiB and 2 % of 256 KiB where there is room.
        let (small, large) = (1_230.0, 7_860.0);
        let room = BYTES_A_SECOND / (rate.max(1) as f64) - small;
        Mint { random, large: (room / large).clamp(0.0, 1.0) }
    }

    /// A message for a client.
    pub fn draw(&mut self, uid: u64, client: &str, route: Route) -> Payload {
        let channel = match self.random.below(10) {
            0 => "refunds",
            1 => "x.7_-",
            _ => "",
        };
        let (name, size) = (uid_text(uid), self.size(route));
        let shape = match route {
            Route::Raw => self.random.weighted(&[40, 5, 5, 2, 30, 18]),
            Route::Envelope | Route::Line => self.random.weighted(&[86, 6, 6, 2]),
        };
        match shape {
            0 => {
                let text = compact(&name, client, size);
                Payload::json(uid, channel, text.clone().into_bytes(), &text)
            }
            1 => {
                let breaks: &[&str] = if route == Route::Line { &["\r"] } else { &["\n", "\r\n", "\r", "\n\r\n"] };
                let line_break = *self.random.pick(breaks);
                let posted = pretty(&name, client, size, line_break);
                let arrives = pretty(&name, client, size, &" ".repeat(line_break.len()));
                Payload::json(uid, channel, posted.into_bytes(), &arrives)
            }
            2 => {
                let text = self.odd(&name, client);
                Payload::json(uid, channel, text.clone().into_bytes(), &text)
            }
            3 => {
                let text = *self.random.pick(&["null", "\"\"", "0", "{}", "[]", "false"]);
                Payload { is_anonymous: true, ..Payload::json(uid, channel, text.as_bytes().to_vec(), text) }
            }
            4 => self.text(uid, channel, &name, size),
            _ => self.bytes(uid, channel, &name, size),
        }
    }

    fn size(&mut self, route: Route) -> usize {
        let part = |of_ten_thousand: f64| (of_ten_thousand * self.large) as u64;
        let weights = [7000, 2400, part(400.0), part(200.0)];
        let (low, high) = match self.random.weighted(&weights) {
            0 => (50, 300),
            1 => (1 << 10, 8 << 10),
            2 => (64 << 10, 64 << 10),
            // What is around it takes at most 255 bytes.
            _ => (BODY_LIMIT as u64 - 300, BODY_LIMIT as u64 - 256),
        };
        let drawn = usize::try_from(self.random.within(low, high)).expect("a small number");
        match route {
            Route::Line => drawn.min(MAX_LINE),
            // A body may be as long as the limit says, to the byte.
            Route::Raw if drawn > BODY_LIMIT / 2 => BODY_LIMIT - usize::from(self.random.percent(50)),
            Route::Raw | Route::Envelope => drawn,
        }
    }

    /// What JSON allows and careless programs spoil.
    fn odd(&mut self, name: &str, client: &str) -> String {
        const VALUES: [&str; 16] = [
            "10.00",
            "123456789012345678901234567890",
            "-0",
            "1E+2",
            "0.1e-7",
            "1e999",
            r#""\u0041\/\b\f\n\r\t\"\\""#,
            r#""\ud83d\ude00""#,
            "\"支付宝 € \u{2028} \u{7f}\"",
            r#"{"a":1,"a":2}"#,
            "[[[[[[[[[[]]]]]]]]]]",
            r#"{"":null," ":[]}"#,
            r#""\u0000\u2029""#,
            "[ 1 ,\t2 ]",
            r#""{\"type\":\"ack\",\"seq\":1}""#,
            "true",
        ];
        let mut text = format!(r#"{{"u":"{name}","k":"{client}""#);
        for _ in 0..self.random.within(1, 6) {
            let value = *self.random.pick(&VALUES);
            // Some keys come twice.
            let key = self.random.below(4);
            let _ = write!(text, r#","x{key}":{value}"#);
        }
        text.push('}');
        text
    }

    fn text(&mut self, uid: u64, channel: &'static str, name: &str, size: usize) -> Payload {
        let kinds = ["text/plain", "text/plain; charset=utf-8", "application/x-www-form-urlencoded", "text/xml"];
        let content_type = *self.random.pick(&kinds);
        let mut content = format!("u={name}&\r\n\t\"<支付>\\ \u{1}\n").into_bytes();
        fill(&mut content, size, b"\n".len());
        content.push(b'\n');
        Payload::other(uid, channel, content_type, content, Form::Text)
    }

    fn bytes(&mut self, uid: u64, channel: &'static str, name: &str, size: usize) -> Payload {
        let mut content = format!("u={name}&").into_bytes();
        content.extend_from_slice(&[0, 0xff, 0xfe, b'\n', 0xc3]);
        fill(&mut content, size.min(64 << 10), 0);
        Payload::other(uid, channel, "application/octet-stream", content, Form::Bytes)
    }
}

impl Payload {
    fn json(uid: u64, channel: &'static str, content: Vec<u8>, arrives: &str) -> Payload {
        let digest = delivered(Form::Json, named(channel), "", arrives.as_bytes());
        Payload { uid, channel, content_type: None, content, is_anonymous: false, digest }
    }

    fn other(uid: u64, channel: &'static str, content_type: &'static str, content: Vec<u8>, form: Form) -> Payload {
        let digest = delivered(form, named(channel), content_type, &content);
        Payload { uid, channel, content_type: Some(content_type), content, is_anonymous: false, digest }
    }
}

fn named(channel: &str) -> &str {
    if channel.is_empty() { "payments" } else { channel }
}

fn compact(name: &str, client: &str, size: usize) -> String {
    let mut text = format!(r#"{{"u":"{name}","k":"{client}","pad":""#).into_bytes();
    fill(&mut text, size, r#""}"#.len());
    text.extend_from_slice(br#""}"#);
    String::from_utf8(text).expect("ASCII")
}

fn pretty(name: &str, client: &str, size: usize, line_break: &str) -> String {
    let b = line_break;
    let mut text = format!(r#"{{{b}  "u": "{name}",{b}  "k": "{client}",{b}  "list": [{b}1,{b}2 ],{b}  "pad": ""#);
    let mut pad = Vec::new();
    // The same for every kind of break, so that what is posted and what arrives differ in nothing else.
    fill(&mut pad, size.saturating_sub(200), 0);
    text.push_str(std::str::from_utf8(&pad).expect("ASCII"));
    let _ = write!(text, r#""{b}}}"#);
    text
}

/// Appends the marker and whatever else it takes to reach `size`, with room for so many bytes more.
fn fill(text: &mut Vec<u8>, size: usize, room: usize) {
    text.extend_from_slice(SECRET.as_bytes());
    text.extend_from_slice(b"4711");
    let missing = size.saturating_sub(text.len() + room);
    text.extend_from_slice(&filler().as_bytes()[..missing]);
}

/// Copied from, for nothing is drawn as cheaply.
fn filler() -> &'static str {
    static FILLER: OnceLock<String> = OnceLock::new();
    FILLER.get_or_init(|| {
        let mut random = Random::of(0, "filler");
        let letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ,.;:-_+*{}[]()";
        (0..BODY_LIMIT).map(|_| char::from(*random.pick(letters))).collect()
    })
}
