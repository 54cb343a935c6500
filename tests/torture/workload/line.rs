//! A receiver's connection as far as bytes and frames go: a reader that nothing surprises, as slow as it is told to be.

use std::borrow::Cow;
use std::io::{self, BufRead as _, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::payload::{Form, delivered, uid_within};
use crate::history::{End, parse_uid};

/// How long a read waits for bytes.
const LOOK: Duration = Duration::from_millis(50);
/// How long a write may take.
const WRITE_LIMIT: Duration = Duration::from_secs(3);
/// Longer than any frame of payrelay's.
const MAX_LINE: usize = 7 * 262_144;
/// What is read at once.
const CHUNK: usize = 32 << 10;

/// One connection.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    chunk: Box<[u8]>,
    /// What of the chunk is not taken yet.
    rest: std::ops::Range<usize>,
    line: Vec<u8>,
    /// The line was handed out; the next one begins anew.
    is_whole: bool,
    /// Bytes a second, where we are slow.
    pub rate: Option<u64>,
    /// So many bytes more are read, then no more.
    pub budget: Option<usize>,
    /// When something last came.
    pub heard: Instant,
}

/// What reading brought.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Came {
    /// [`Line::frame`] has it.
    Frame,
    Nothing,
    Closed,
    /// The budget is used up.
    UsedUp,
}

/// What a node says.
#[derive(Debug)]
pub enum Frame<'a> {
    Payment(Payment),
    Welcome {
        client: Cow<'a, str>,
        acked: u64,
        pending: u64,
        epoch: u64,
        window: u64,
    },
    Ping,
    Pong,
    Broadcast,
    /// How it says that the connection ends, and its code.
    Error(End, Cow<'a, str>),
    /// None of those.
    Odd,
}

/// A payment as it came, as far as records go.
#[derive(Clone, Copy, Debug)]
pub struct Payment {
    pub seq: u64,
    /// 0: it names none that is one of ours.
    pub uid: u64,
    pub digest: u64,
    pub payment_id: u64,
    pub accepted_at: u64,
}

impl Line {
    pub fn connect(addr: SocketAddr) -> io::Result<Line> {
        let stream = TcpStream::connect_timeout(&addr, WRITE_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(WRITE_LIMIT))?;
        Ok(Line {
            stream,
            chunk: vec![0; CHUNK].into(),
            rest: 0..0,
            line: Vec::new(),
            is_whole: false,
            rate: None,
            budget: None,
            heard: Instant::now(),
        })
    }

    pub fn write(&mut self, text: &str) -> io::Result<()> {
        (&self.stream).write_all(text.as_bytes())
    }

    /// We send no more.
    pub fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends it with a reset.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// A whole frame is here already.
    pub fn has_more(&self) -> bool {
        self.chunk[self.rest.clone()].contains(&b'\n')
    }

    /// Something of a frame was read, and not all of it.
    pub fn is_within_a_frame(&self) -> bool {
        !self.is_whole && !self.line.is_empty()
    }

    /// Reads on to the next frame, or until nothing comes for a moment.
    pub fn read(&mut self) -> Came {
        if self.is_whole {
            self.line.clear();
            self.is_whole = false;
        }
        loop {
            let mut ahead = &self.chunk[self.rest.clone()];
            let taken = ahead.read_until(b'\n', &mut self.line).expect("memory can be read");
            self.rest.start += taken;
            if self.line.last() == Some(&b'\n') {
                self.is_whole = true;
                return Came::Frame;
            }
            if self.line.len() > MAX_LINE {
                return Came::Closed;
            }
            match self.fill() {
                // Who is slow has other things to see to before the frame is whole.
                Came::Frame if self.rate.is_some() && !self.has_more() => {
                    self.line.extend_from_slice(&self.chunk[self.rest.clone()]);
                    self.rest = 0..0;
                    return Came::Nothing;
                }
                Came::Frame => {}
                other => return other,
            }
        }
    }

    /// [`Came::Frame`]: there is more to look at.
    fn fill(&mut self) -> Came {
        let mut room = self.chunk.len();
        if let Some(rate) = self.rate {
            room = room.min(usize::try_from(rate / 10).expect("a slow rate").max(1));
        }
        if let Some(budget) = self.budget {
            room = room.min(budget);
            if budget == 0 {
                return Came::UsedUp;
            }
        }
        match (&self.stream).read(&mut self.chunk[..room]) {
            Ok(0) => Came::Closed,
            Ok(count) => {
                self.rest = 0..count;
                self.heard = Instant::now();
                self.budget = self.budget.map(|budget| budget - count);
                if self.rate.is_some() {
                    thread::sleep(Duration::from_millis(100));
                }
                Came::Frame
            }
            Err(e) if is_pause(&e) => Came::Nothing,
            Err(_) => Came::Closed,
        }
    }

    /// The frame that was read last.
    pub fn frame(&self) -> Frame<'_> {
        let json = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        plain_payment(json).map(Frame::Payment).or_else(|| any_frame(json)).unwrap_or(Frame::Odd)
    }

    /// The beginning of what was read last, for a message.
    pub fn show(&self) -> String {
        String::from_utf8_lossy(&self.line[..self.line.len().min(300)]).into_owned()
    }
}

fn is_pause(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// A payment in the form in which nearly all come, its `msg` an object: read without a parser, for there are many.
/// Whether the object is what it must be its digest says.
fn plain_payment(json: &[u8]) -> Option<Payment> {
    let rest = json.strip_prefix(br#"{"type":"payment","seq":"#)?;
    let (seq, rest) = number(rest)?;
    let rest = rest.strip_prefix(br#","channel":""#)?;
    let (channel, mut rest) = text(rest)?;
    let mut payment_id = None;
    if let Some(id) = rest.strip_prefix(br#","payment_id":""#) {
        let (id, behind) = text(id)?;
        (payment_id, rest) = (Some(id), behind);
    }
    let (accepted_at, rest) = number(rest.strip_prefix(br#","accepted_at":"#)?)?;
    let msg = rest.strip_prefix(br#","msg":"#)?.strip_suffix(b"}")?;
    // Behind anything else a content type may follow.
    (msg.first()? == &b'{' && msg.last()? == &b'}')
        .then(|| payment(seq, accepted_at, channel, payment_id, Form::Json, "", msg))
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let end = text.iter().take(20).position(|byte| !byte.is_ascii_digit())?;
    Some((std::str::from_utf8(&text[..end]).ok()?.parse().ok()?, &text[end..]))
}

/// Up to the quote that ends it.
fn text(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = text.iter().take(130).position(|byte| matches!(byte, b'"' | b'\\'))?;
    let behind = text[end..].strip_prefix(b"\"")?;
    Some((std::str::from_utf8(&text[..end]).ok()?, behind))
}

fn payment(
    seq: u64,
    accepted_at: u64,
    channel: &str,
    payment_id: Option<&str>,
    form: Form,
    content_type: &str,
    content: &[u8],
) -> Payment {
    let payment_id = payment_id.and_then(parse_uid).unwrap_or_default();
    let uid = uid_within(form, content).unwrap_or(payment_id);
    Payment { seq, uid, digest: delivered(form, channel, content_type, content), payment_id, accepted_at }
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    client: Option<Cow<'a, str>>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    acked: Option<u64>,
    pending: Option<u64>,
    epoch: Option<u64>,
    window: Option<u64>,
    seq: Option<u64>,
    accepted_at: Option<u64>,
    #[serde(borrow)]
    channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payment_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    msg: Option<&'a RawValue>,
    #[serde(borrow)]
    msg_base64: Option<Cow<'a, str>>,
}

/// A message may be null, and is there then.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Any frame that the contract has.
fn any_frame(json: &[u8]) -> Option<Frame<'_>> {
    let fields: Fields<'_> = serde_json::from_slice(json).ok()?;
    Some(match &*fields.r#type {
        "payment" => Frame::Payment(any_payment(&fields)?),
        "welcome" => Frame::Welcome {
            acked: fields.acked?,
            pending: fields.pending?,
            epoch: fields.epoch?,
            window: fields.window?,
            client: fields.client?,
        },
        "ping" => Frame::Ping,
        "pong" => Frame::Pong,
        "broadcast" => Frame::Broadcast,
        "error" => {
            let code = fields.code?;
            Frame::Error(end_of(&code), code)
        }
        _ => return None,
    })
}

fn any_payment(fields: &Fields<'_>) -> Option<Payment> {
    let content_type = fields.content_type.as_deref();
    let (form, content) = match (fields.msg, content_type, &fields.msg_base64) {
        (Some(msg), None, None) => (Form::Json, Cow::Borrowed(msg.get().as_bytes())),
        (Some(msg), Some(_), None) => {
            let text: String = serde_json::from_str(msg.get()).ok()?;
            (Form::Text, Cow::Owned(text.into_bytes()))
        }
        (None, Some(_), Some(base64)) => {
            let bytes = data_encoding::BASE64.decode(base64.as_bytes()).ok()?;
            (Form::Bytes, Cow::Owned(bytes))
        }
        _ => return None,
    };
    let (channel, id) = (fields.channel.as_deref()?, fields.payment_id.as_deref());
    let content_type = content_type.unwrap_or_default();
    Some(payment(fields.seq?, fields.accepted_at?, channel, id, form, content_type, &content))
}

fn end_of(code: &str) -> End {
    match code {
        "replaced" => End::Replaced,
        "shutting_down" => End::ShuttingDown,
        "unavailable" => End::Unavailable,
        "idle_timeout" => End::IdleTimeout,
        "too_slow" => End::TooSlow,
        "too_many_clients" => End::TooManyClients,
        _ => End::Other,
    }
}
