//! Connections to Redis that keep a deadline, and are never used again after an error.
//!
//! The redis crate's blocking connection clears its time limits after connecting, waits its read
//! limit once for every missing reply of a pipeline, and does not heal. So: limits are set here,
//! a whole pipeline shares one of them, and a connection that failed is dropped. What was sent
//! when it failed has an unknown outcome, and nothing here sends it again.

use crate::inbox::{CALL_LIMIT, Error, Stored};
use crate::metrics::LineMeter;
use crate::payment::push_number;
use parking_lot::{Condvar, Mutex};
use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind, Value};
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONNECT_LIMIT: Duration = Duration::from_millis(500);
/// How many descriptors are kept back: one for each purpose, and some that others may snatch.
const RESERVED: usize = 8;
/// How long nobody tries again after a connection could not be made.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Where Redis is, from a URL. Shows neither user nor password.
#[derive(Clone)]
pub(crate) struct Target {
    info: ConnectionInfo,
    reserve: Arc<Reserve>,
}

/// Descriptors that are kept back for Redis: where senders and clients have taken all others, a
/// node that could not reach its store any more would never get rid of them.
#[derive(Default)]
struct Reserve(Mutex<Vec<File>>);

impl Reserve {
    /// Takes what is missing, as far as it can be had.
    fn fill(&self) {
        let mut held = self.0.lock();
        while held.len() < RESERVED {
            let Ok(file) = File::open("/dev/null") else { return };
            held.push(file);
        }
    }

    /// Gives one up for a connection. Whether there was one.
    fn give(&self) -> bool {
        self.0.lock().pop().is_some()
    }
}

/// Whether there was no descriptor to be had.
fn lacks_descriptor(error: &RedisError) -> bool {
    let code = io_cause(error).and_then(io::Error::raw_os_error);
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].iter().any(|errno| code == Some(errno.raw_os_error()))
}

/// The system's error behind one of the redis crate's, which keeps its cause in an `Arc`.
pub(crate) fn io_cause(error: &RedisError) -> Option<&io::Error> {
    let cause = std::error::Error::source(error)?;
    cause.downcast_ref::<Arc<dyn std::error::Error + Send + Sync>>()?.downcast_ref()
}

impl Target {
    /// Reads `redis://`, `rediss://` or `unix://`.
    pub(crate) fn parse(url: &str) -> Result<Target, String> {
        let info = url.into_connection_info().map_err(|e| e.to_string())?;
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(15))
            .with_interval(Duration::from_secs(5))
            .with_retries(3);
        let tcp = redis::io::tcp::TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(keepalive)
            .set_user_timeout(Duration::from_secs(20));
        let settings = info.redis_settings().clone().set_skip_set_lib_name();
        let target = Target { info: info.set_tcp_settings(tcp).set_redis_settings(settings), reserve: Arc::default() };
        target.reserve.fill();
        Ok(target)
    }

    /// The number of the database: channels know none, so it goes into their names.
    pub(crate) fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }

    /// Connects, with time limits that stay. `resp3` for a connection that subscribes.
    pub(crate) fn open(&self, resp3: bool) -> Result<redis::Connection, RedisError> {
        loop {
            match self.try_open(resp3) {
                // An acceptor may be quicker than we are; there are a few.
                Err(error) if lacks_descriptor(&error) && self.reserve.give() => {}
                Ok(connection) => {
                    self.reserve.fill();
                    return Ok(connection);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn try_open(&self, resp3: bool) -> Result<redis::Connection, RedisError> {
        let mut info = self.info.clone();
        if resp3 {
            let settings = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
            info = info.set_redis_settings(settings);
        }
        let connection = redis::Client::open(info)?.get_connection_with_timeout(CONNECT_LIMIT)?;
        connection.set_read_timeout(Some(CALL_LIMIT))?;
        connection.set_write_timeout(Some(CALL_LIMIT))?;
        Ok(connection)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => write!(f, "redis://{host}:{port}/{}", self.database()),
            ConnectionAddr::TcpTls { host, port, .. } => write!(f, "rediss://{host}:{port}/{}", self.database()),
            other => write!(f, "{other}"),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Commands that go out in one write.
#[derive(Default)]
pub(crate) struct Pipeline {
    bytes: Vec<u8>,
    count: usize,
}

impl Pipeline {
    /// Appends a command in Redis' own encoding.
    pub(crate) fn command(&mut self, words: &[&[u8]]) {
        self.begin(words.len());
        words.iter().for_each(|word| self.word(&[word]));
    }

    /// Makes room for so many more bytes; what needs more still grows.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Begins a command of so many words; they follow one by one.
    pub(super) fn begin(&mut self, words: usize) {
        push_length(&mut self.bytes, b'*', words);
        self.count += 1;
    }

    /// Appends a word to the command that was begun, in parts.
    pub(super) fn word(&mut self, parts: &[&[u8]]) {
        push_length(&mut self.bytes, b'$', parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Appends a number, likewise.
    pub(super) fn number(&mut self, number: u64) {
        let mut digits = itoa::Buffer::new();
        self.word(&[digits.format(number).as_bytes()]);
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

fn push_length(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    push_number(out, length as u64);
    out.extend_from_slice(b"\r\n");
}

/// Why nobody tries to connect for a moment: one for all purposes, so that the first that gets
/// through opens the way for all.
#[derive(Default)]
pub(crate) struct Outage(Mutex<Option<(Instant, String)>>);

impl Outage {
    /// The reason, while the moment lasts.
    fn reason(&self) -> Option<String> {
        let failed = self.0.lock();
        failed.as_ref().filter(|(until, _)| Instant::now() < *until).map(|(_, why)| why.clone())
    }

    fn note<T>(&self, outcome: &Result<T, String>) {
        *self.0.lock() = outcome.as_ref().err().map(|why| (Instant::now() + jittered(BACK_OFF), why.clone()));
    }
}

/// The connections of one purpose: as many as calls run at once, at most `most`.
///
/// Purposes do not share, so that no listing stands in a payment's way.
pub(crate) struct Lines {
    target: Target,
    /// Sent on every new connection before anything else.
    greeting: Pipeline,
    state: Mutex<State>,
    given_back: Condvar,
    most: usize,
    outage: Arc<Outage>,
    meter: LineMeter,
}

struct State {
    idle: Vec<redis::Connection>,
    open: usize,
    /// How many were lost, and not replaced yet.
    lost: usize,
}

impl Lines {
    pub(crate) fn new(target: Target, greeting: Pipeline, most: usize, outage: Arc<Outage>, meter: LineMeter) -> Lines {
        let state = Mutex::new(State { idle: Vec::new(), open: 0, lost: 0 });
        Lines { target, greeting, state, given_back: Condvar::new(), most, outage, meter }
    }

    /// Sends a pipeline and returns as many replies, within [`CALL_LIMIT`] and a connect's limit.
    ///
    /// An error of one command is that command's. Where the connection fails, every reply that
    /// is missing is `Unavailable`, with `Stored::No` if the pipeline cannot have been sent.
    pub(crate) fn call(&self, pipeline: &Pipeline) -> Vec<Result<Value, Error>> {
        let mut line = match self.take() {
            Ok(line) => line,
            Err(why) => return refuse_all(pipeline.len(), &Error::away(why)),
        };
        let began = Instant::now();
        let replies = exchange(&mut line, pipeline, began + CALL_LIMIT);
        if !replies.is_empty() {
            self.meter.round_trips.observe(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        self.give_back(replies.iter().all(|reply| !broken(reply)).then_some(line));
        replies
    }

    fn take(&self) -> Result<redis::Connection, String> {
        let mut state = self.state.lock();
        if let Some(line) = state.idle.pop() {
            return Ok(line);
        }
        if let Some(why) = self.outage.reason() {
            return Err(why);
        }
        let deadline = Instant::now() + CALL_LIMIT;
        while state.open >= self.most {
            if self.given_back.wait_until(&mut state, deadline).timed_out() {
                return Err("too many calls at once".into());
            }
            if let Some(line) = state.idle.pop() {
                return Ok(line);
            }
        }
        state.open += 1;
        drop(state);
        let line = self.connect();
        self.outage.note(&line);
        let mut state = self.state.lock();
        if line.is_err() {
            state.open -= 1;
            self.given_back.notify_one();
        } else if state.lost > 0 {
            state.lost -= 1;
            self.meter.reconnects.inc();
        }
        line
    }

    fn connect(&self) -> Result<redis::Connection, String> {
        let mut line = self.target.open(false).map_err(|e| format!("{}: {}", self.target, brief(&e)))?;
        let replies = exchange(&mut line, &self.greeting, Instant::now() + CALL_LIMIT);
        match replies.into_iter().find_map(Result::err) {
            Some(Error::Unavailable { why, .. }) => Err(why),
            Some(error) => Err(error.to_string()),
            None => Ok(line),
        }
    }

    /// Drops the connections that nobody uses now.
    pub(crate) fn distrust(&self) {
        self.state.lock().forget_idle();
        self.given_back.notify_one();
    }

    fn give_back(&self, line: Option<redis::Connection>) {
        let mut state = self.state.lock();
        match line {
            Some(line) => state.idle.push(line),
            None => {
                state.open -= 1;
                state.lost += 1;
                // What failed under one call has failed under all: they would only find out one by one.
                state.forget_idle();
            }
        }
        drop(state);
        self.given_back.notify_one();
    }
}

impl State {
    fn forget_idle(&mut self) {
        self.open -= self.idle.len();
        self.lost += self.idle.len();
        self.idle.clear();
    }
}

/// Whether a reply says that its connection must not be used again.
fn broken(reply: &Result<Value, Error>) -> bool {
    matches!(reply, Err(Error::Unavailable { stored: Stored::Unknown, .. }))
}

fn refuse_all(count: usize, error: &Error) -> Vec<Result<Value, Error>> {
    (0..count).map(|_| Err(error.clone())).collect()
}

/// Says it all on one connection and returns as many replies, until the deadline.
pub(super) fn exchange(
    line: &mut redis::Connection,
    pipeline: &Pipeline,
    deadline: Instant,
) -> Vec<Result<Value, Error>> {
    if pipeline.count == 0 {
        return Vec::new();
    }
    // A write that failed may have been taken in part: whole commands of it may run.
    if let Err(e) = line.send_packed_command(&pipeline.bytes) {
        return refuse_all(pipeline.count, &unknown(brief(&e)));
    }
    let mut replies = Vec::with_capacity(pipeline.count);
    let mut limit = CALL_LIMIT;
    while replies.len() < pipeline.count {
        // Most replies come in one read, so the limit is set anew only when time has really gone.
        let left = deadline.saturating_duration_since(Instant::now());
        if limit.saturating_sub(left) > CALL_LIMIT / 10 {
            if left.is_zero() || line.set_read_timeout(Some(left)).is_err() {
                replies.resize_with(pipeline.count, || Err(unknown("no answer in time".into())));
                return replies;
            }
            limit = left;
        }
        match line.recv_response() {
            Ok(Value::ServerError(e)) => replies.push(Err(judge(&e.into()))),
            Ok(value) => replies.push(Ok(value)),
            Err(e) if e.is_io_error() || e.is_unrecoverable_error() => {
                replies.resize_with(pipeline.count, || Err(unknown(brief(&e))));
                return replies;
            }
            Err(e) => replies.push(Err(judge(&e))),
        }
    }
    if limit != CALL_LIMIT && line.set_read_timeout(Some(CALL_LIMIT)).is_err() {
        log::debug!("a Redis connection keeps a shortened time limit");
    }
    replies
}

fn unknown(why: String) -> Error {
    Error::Unavailable { stored: Stored::Unknown, why }
}

/// What an error reply means. All of them come before a command wrote anything.
fn judge(error: &RedisError) -> Error {
    let passing = ["BUSY", "MISCONF", "NOREPLICAS", "NOAUTH", "WRONGPASS", "NOPERM", "UNKILLABLE"];
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoScript) => Error::away(NO_SCRIPT),
        ErrorKind::Server(ServerErrorKind::ResponseError) if error.detail().is_some_and(is_max_clients) => {
            Error::away(brief(error))
        }
        ErrorKind::Server(ServerErrorKind::ResponseError) | ErrorKind::UnexpectedReturnType => {
            Error::Corrupt(brief(error))
        }
        ErrorKind::Server(_) => Error::away(brief(error)),
        _ if error.code() == Some("OOM") => Error::StoreFull,
        _ if error.code().is_some_and(|code| passing.contains(&code)) => Error::away(brief(error)),
        _ => Error::Corrupt(brief(error)),
    }
}

/// The reason of an error whose cure is to load the scripts again.
pub(crate) const NO_SCRIPT: &str = "NOSCRIPT";

fn is_max_clients(detail: &str) -> bool {
    detail.contains("max number of clients")
}

/// An error in one line, without what the URL may hold.
pub(crate) fn brief(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let text = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    };
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

/// Something between a half and the whole of it, so that nodes do not knock in step.
pub(crate) fn jittered(most: Duration) -> Duration {
    let byte: [u8; 1] = crate::auth::random();
    most / 2 + (most / 2) * u32::from(byte[0]) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_error_is_found_behind_the_crates() {
        let error = |code: rustix::io::Errno| RedisError::from(io::Error::from_raw_os_error(code.raw_os_error()));
        assert!(lacks_descriptor(&error(rustix::io::Errno::MFILE)));
        assert!(!lacks_descriptor(&error(rustix::io::Errno::CONNREFUSED)));
        let interrupted = error(rustix::io::Errno::INTR);
        assert_eq!(io_cause(&interrupted).map(io::Error::kind), Some(io::ErrorKind::Interrupted));
    }
}
