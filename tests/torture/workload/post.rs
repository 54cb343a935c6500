//! One post: its request, what was answered, and whether the answer is one to this request at all.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::Shared;
use super::payload::Payload;
use crate::harness::{Answer, Http};
use crate::history::{Kind, Record, Status, Way, What, Writer, uid_text};
use crate::roster;

/// A payment on its way.
#[derive(Clone, Debug)]
pub struct Post {
    pub payload: Arc<Payload>,
    pub client: u32,
    pub way: Way,
    /// The uid whose name it is.
    pub payment_id: Option<u64>,
}

/// What became of it.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    Ok { code: u16, seq: u64, status: Status, duplicate: bool, online: bool },
    Fail(u16),
    Unknown(u16),
}

/// What came back for a request.
#[derive(Debug)]
pub enum Reply {
    /// Nothing of it left this process.
    NotSent,
    /// It was sent, at least in part, and nothing came back in time.
    None,
    Came(Answer),
}

/// A request as it goes out.
#[derive(Debug)]
pub struct Request {
    path: String,
    content_type: &'static str,
    body: Vec<u8>,
}

/// Connections to the nodes, one to each, kept as long as they work.
#[derive(Debug)]
pub struct Doors {
    nodes: Vec<(SocketAddr, Option<Http>)>,
    limit: Duration,
}

#[derive(Deserialize)]
struct Told<'a> {
    status: &'a str,
    client: &'a str,
    seq: u64,
    payment_id: Option<&'a str>,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    online: bool,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    stored: Option<String>,
}

impl Post {
    /// As a request of its own; `wait` in seconds.
    pub fn request(&self, wait: Option<u64>) -> Request {
        let raw = matches!(self.way, Way::Raw) || self.payload.content_type.is_some();
        let mut request = if raw { self.raw() } else { self.enveloped() };
        if let Some(secs) = wait {
            request.path.push_str(&format!("{}wait={secs}", if raw { "&" } else { "?" }));
        }
        request
    }

    fn enveloped(&self) -> Request {
        let mut body = Vec::with_capacity(self.payload.content.len() + 160);
        self.write_envelope(&mut body);
        Request { path: "/v1/payments".into(), content_type: "application/json", body }
    }

    fn raw(&self) -> Request {
        let mut path = format!("/v1/clients/{}/payments?", roster::id(self.client));
        match self.payload.channel {
            // The same in other words.
            "" => path.push_str("channel=payments"),
            channel => path.push_str(&format!("channel={channel}")),
        }
        if let Some(id) = self.payment_id {
            path.push_str(&format!("&payment_id={}", uid_text(id)));
        }
        let content_type = self.payload.content_type.unwrap_or("application/json");
        Request { path, content_type, body: self.payload.content.clone() }
    }

    fn write_envelope(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(format!(r#"{{"client":"{}","#, roster::id(self.client)).as_bytes());
        if let Some(id) = self.payment_id {
            body.extend_from_slice(format!(r#""payment_id":"{}","#, uid_text(id)).as_bytes());
        }
        if !self.payload.channel.is_empty() {
            body.extend_from_slice(format!(r#""channel":"{}","#, self.payload.channel).as_bytes());
        }
        body.extend_from_slice(br#""msg":"#);
        body.extend_from_slice(&self.payload.content);
        body.push(b'}');
    }

    /// Writes down that it goes out now.
    pub fn begin(&self, writer: &mut Writer, node: usize) {
        writer.record(Record { kind: Kind::Post, digest: self.payload.digest, ..self.blank(node) });
    }

    /// Writes down what became of it.
    pub fn end(&self, writer: &mut Writer, node: usize, outcome: Outcome) {
        let blank = self.blank(node);
        writer.record(match outcome {
            Outcome::Ok { code, seq, status, duplicate, online } => Record {
                kind: Kind::PostOk,
                code,
                seq,
                note: status as u8,
                flag: duplicate,
                extra: u64::from(online),
                ..blank
            },
            Outcome::Fail(code) => Record { kind: Kind::PostFail, code, ..blank },
            Outcome::Unknown(code) => Record { kind: Kind::PostUnknown, code, ..blank },
        });
    }

    fn blank(&self, node: usize) -> Record {
        Record {
            note: self.way as u8,
            node: byte(node),
            client: self.client,
            uid: self.payload.uid,
            payment_id: self.payment_id.unwrap_or_default(),
            ..Record::default()
        }
    }

    /// What a reply to it alone says.
    pub fn judge(&self, shared: &Shared, reply: &Reply) -> Outcome {
        match reply {
            Reply::NotSent => Outcome::Fail(0),
            Reply::None => Outcome::Unknown(0),
            Reply::Came(answer) if answer.is_success() => {
                let outcome = self.judge_told(shared, answer.status, &answer.body);
                self.check_code(shared, outcome);
                outcome
            }
            Reply::Came(answer) => {
                check_retry_after(shared, answer);
                let problem = serde_json::from_slice(&answer.body).ok();
                failure(answer.status, problem.as_ref())
            }
        }
    }

    /// What a line of the answer to a batch says.
    fn judge_line(&self, shared: &Shared, line: &[u8]) -> Outcome {
        match serde_json::from_slice::<Problem>(line) {
            Ok(problem) => failure(status_of(&problem.code), Some(&problem)),
            Err(_) => self.judge_told(shared, 200, line),
        }
    }

    fn judge_told(&self, shared: &Shared, code: u16, body: &[u8]) -> Outcome {
        let told: Result<Told<'_>, _> = serde_json::from_slice(body);
        let id = self.payment_id.map(uid_text);
        match told {
            Ok(told) if told.client == roster::id(self.client) && told.payment_id == id.as_deref() && told.seq > 0 => {
                if let Some(status) = status(told.status) {
                    let Told { seq, duplicate, online, .. } = told;
                    return Outcome::Ok { code, seq, status, duplicate, online };
                }
            }
            _ => {}
        }
        let (client, text) = (roster::id(self.client), String::from_utf8_lossy(body));
        let what = format!("posted for {client} with id {id:?}, and answered with {code} {text}");
        shared.broken("C12", what);
        Outcome::Unknown(code)
    }

    /// 202 says that it is in the inbox now and was not before, and nothing else does.
    fn check_code(&self, shared: &Shared, outcome: Outcome) {
        let Outcome::Ok { code, status, duplicate, .. } = outcome else { return };
        if (code == 202) != (status == Status::Accepted && !duplicate) {
            shared.broken(
                "C12",
                format!("{} got {code} for {status:?}, duplicate: {duplicate}", uid_text(self.payload.uid)),
            );
        }
    }
}

/// Several posts as the lines of one request.
pub fn batch(posts: &[Post]) -> Request {
    let mut body = Vec::new();
    for post in posts {
        post.write_envelope(&mut body);
        body.push(b'\n');
    }
    Request { path: "/v1/payments".into(), content_type: "application/x-ndjson", body }
}

/// What a reply to a batch says of each line.
pub fn judge_batch(shared: &Shared, posts: &[Post], reply: &Reply) -> Vec<Outcome> {
    let answer = match reply {
        Reply::Came(answer) if answer.is_success() => answer,
        other => return posts.iter().map(|post| post.judge(shared, other)).collect(),
    };
    let lines: Vec<&[u8]> = answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    if lines.len() != posts.len() {
        shared.broken("C12", format!("{} lines answer a batch of {}", lines.len(), posts.len()));
        return vec![Outcome::Unknown(answer.status); posts.len()];
    }
    posts.iter().zip(lines).map(|(post, line)| post.judge_line(shared, line)).collect()
}

impl Request {
    /// All of it as bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let Request { path, content_type, body } = self;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: payrelay\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    }
}

impl Doors {
    pub fn new(shared: &Shared, limit: Duration) -> Doors {
        let nodes = shared.world.nodes.iter().map(|node| (node.http.addr(), None));
        Doors { nodes: nodes.collect(), limit }
    }

    /// Sends a request and reads the answer.
    pub fn send(&mut self, node: usize, request: &Request) -> Reply {
        if self.ask(node, request) { self.answer(node) } else { Reply::NotSent }
    }

    /// Sends a request; false if nothing of it went out.
    pub fn ask(&mut self, node: usize, request: &Request) -> bool {
        let Some(http) = self.open(node) else { return false };
        let sent = http.try_ask("POST", &request.path, &[("Content-Type", request.content_type)], &request.body);
        if sent.is_err() {
            self.nodes[node].1 = None;
        }
        true
    }

    /// The answer to what was asked last.
    pub fn answer(&mut self, node: usize) -> Reply {
        let answer = self.nodes[node].1.as_mut().and_then(|http| http.try_answer(false).ok());
        self.keep(node, answer.as_ref());
        answer.map_or(Reply::None, Reply::Came)
    }

    /// Asks with GET, of whatever.
    pub fn get(&mut self, node: usize, path: &str) -> Option<Answer> {
        let answer = self.open(node)?.try_send("GET", path, &[], b"").ok();
        self.keep(node, answer.as_ref());
        answer
    }

    fn open(&mut self, node: usize) -> Option<&mut Http> {
        let (addr, kept) = &mut self.nodes[node];
        // A node that was started again has ended those it had, which says nothing about the node that is there now.
        if kept.as_ref().is_none_or(Http::is_stale) {
            *kept = Http::try_connect(*addr).map(|http| http.patient(self.limit)).ok();
        }
        kept.as_mut()
    }

    /// Keeps the connection, unless there was no answer on it or it was the last one.
    fn keep(&mut self, node: usize, answer: Option<&Answer>) {
        let is_last = |answer: &Answer| answer.header("Connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        if answer.is_none_or(is_last) {
            self.nodes[node].1 = None;
        }
    }
}

/// Sends the first `length` bytes of a request on a connection of its own and ends it: with a reset, or in order.
pub fn send_cut(addr: SocketAddr, request: &[u8], length: usize, reset: bool) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&addr, Duration::from_secs(3))?;
    stream.set_write_timeout(Some(Duration::from_secs(3)))?;
    let sent = stream.write_all(&request[..length]);
    if reset {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    }
    sent
}

fn failure(code: u16, problem: Option<&Problem>) -> Outcome {
    match problem.and_then(|problem| problem.stored.as_deref()) {
        _ if (400..500).contains(&code) => Outcome::Fail(code),
        Some("no") => Outcome::Fail(code),
        _ => Outcome::Unknown(code),
    }
}

fn check_retry_after(shared: &Shared, answer: &Answer) {
    if answer.status == 503 && answer.header("Retry-After").is_none() {
        shared.broken("C14", format!("a 503 without Retry-After: {}", answer.show()));
    }
}

/// The HTTP status that belongs to the code of a failed line.
fn status_of(code: &str) -> u16 {
    match code {
        "unavailable" | "store_full" | "too_many_connections" => 503,
        "internal" => 500,
        "inbox_full" => 429,
        "payment_id_reused" => 422,
        "body_too_large" => 413,
        _ => 400,
    }
}

/// The status that an answer names.
pub fn status(text: &str) -> Option<Status> {
    Some(match text {
        "accepted" => Status::Accepted,
        "acknowledged" => Status::Acknowledged,
        "refused" => Status::Refused,
        "expired" => Status::Expired,
        "retried" => Status::Retried,
        "purged" => Status::Purged,
        _ => return None,
    })
}

pub fn byte(node: usize) -> u8 {
    u8::try_from(node).expect("a handful of nodes")
}

/// A fault of payrelay's that can be seen at once.
impl Shared {
    pub fn broken(&self, check: &str, what: String) {
        self.world.history.event(What::Broken { check: check.into(), what });
    }
}
