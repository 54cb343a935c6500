//! A small publish/subscribe component: `on` and `once` a topic, `off`, `emit` to one node or all.
//!
//! Over Redis there is one connection that listens and one subscriber thread, however many
//! handlers there are; a second connection speaks, since the blocking connection cannot do both at
//! once. Subscriptions outlive the connection: they are made again after each reconnect. Without
//! Redis the same calls stay within the process.
//!
//! Delivery is at most once: what is emitted while nobody listens is gone, so every handler also
//! hears when the line was lost and when it is there again, and looks for itself then. payrelay's
//! own doorbells and takeovers come through [`Bus::on`], a receipt that a sender waits for through
//! [`Bus::once`].
//!
//! Handlers run on the subscriber's thread (within the process: on the emitter's). They must be
//! quick and never wait.
//!
//! ```
//! use payrelay::bus::{Bus, Event, To};
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use std::sync::Arc;
//!
//! let bus = Bus::local("n1");
//! let paid = Arc::new(AtomicU32::new(0));
//! let sum = Arc::clone(&paid);
//! let subscription = bus.on("paid", move |event| match event {
//!     Event::Message(message) => {
//!         sum.fetch_add(message.json::<u32>().unwrap_or(0), Ordering::Relaxed);
//!     }
//!     Event::Lost(_) => {}   // nothing is heard from here on
//!     Event::Restored => {}  // look for yourself what was missed
//! });
//! bus.emit(To::Node("n1"), "paid", b"40")?;
//! bus.emit(To::All, "paid", b"2")?;
//! bus.off(subscription);
//! bus.emit(To::All, "paid", b"1000")?;
//! assert_eq!(paid.load(Ordering::Relaxed), 42);
//! # Ok::<(), payrelay::bus::Error>(())
//! ```

use crate::inbox::redis::{Target, all_channel, brief, io_cause, jittered, node_channel};
use parking_lot::{Mutex, RwLock};
use redis::RedisError;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A line on which nothing was heard for so long is taken for dead; see [`Bus::beat`].
const SILENCE: Duration = Duration::from_millis(2500);
/// How often the subscriber looks up from its line.
const TICK: Duration = Duration::from_millis(500);
const BACK_OFF: Duration = Duration::from_millis(400);
/// What a node says to itself.
const BEAT: &str = "beat";

/// To whom a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To<'a> {
    /// The node of this name, which may be this one.
    Node(&'a str),
    /// Every node, this one too.
    All,
}

/// What a handler hears.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Somebody emitted this.
    Message(Message<'a>),
    /// The connection failed, and why: nothing is heard until [`Event::Restored`].
    Lost(&'a str),
    /// It is there again: what was emitted in between is gone.
    Restored,
}

/// A message, as the bytes that were emitted.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// Under what.
    pub topic: &'a str,
    /// What.
    pub bytes: &'a [u8],
}

/// Without the bytes, which may be a payment: a `Debug` may end in a log.
impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Message<'_> {
    /// The message as a value, where it is JSON.
    ///
    /// # Errors
    ///
    /// It is no JSON, or not of this shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.bytes)
    }
}

/// A message was not emitted, or it is unknown whether it was.
#[derive(Debug)]
pub struct Error {
    why: String,
    may_be_heard: bool,
}

impl Error {
    fn unheard(why: String) -> Error {
        Error { why, may_be_heard: false }
    }

    /// Whether somebody may hear it all the same: it was sent, and not confirmed.
    #[must_use]
    pub fn may_have_been_heard(&self) -> bool {
        self.may_be_heard
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.may_be_heard { "not confirmed" } else { "not emitted" };
        write!(f, "{what}: {}", self.why)
    }
}

impl std::error::Error for Error {}

/// Names one `on` or `once`, for [`Bus::off`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    topic: String,
    id: u64,
}

type Handle = Arc<dyn Fn(Event<'_>) + Send + Sync>;

struct Handler {
    id: u64,
    once: bool,
    handle: Handle,
}

/// The component; see the module. A clone is the same bus.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    node: String,
    handlers: RwLock<HashMap<String, Vec<Handler>>>,
    next_id: AtomicU64,
    line: Option<Line>,
}

struct Line {
    target: Target,
    /// The connection that speaks, while nobody uses it.
    speaker: Mutex<Option<redis::Connection>>,
    up: AtomicBool,
    stopped: AtomicBool,
}

impl Bus {
    /// A bus within this process.
    #[must_use]
    pub fn local(node: &str) -> Bus {
        Bus::with(node, None)
    }

    /// A bus over Redis. Nothing is heard before [`Bus::run`] runs.
    ///
    /// # Errors
    ///
    /// The URL is none that the redis crate knows.
    pub fn redis(url: &str, node: &str) -> Result<Bus, Error> {
        let target = Target::parse(url).map_err(Error::unheard)?;
        let line =
            Line { target, speaker: Mutex::new(None), up: AtomicBool::new(false), stopped: AtomicBool::new(false) };
        Ok(Bus::with(node, Some(line)))
    }

    fn with(node: &str, line: Option<Line>) -> Bus {
        let inner = Inner { node: node.to_owned(), handlers: RwLock::default(), next_id: AtomicU64::new(0), line };
        Bus { inner: Arc::new(inner) }
    }

    /// Calls a handler for every message under a topic. A topic is any text without blanks.
    pub fn on(&self, topic: &str, handle: impl Fn(Event<'_>) + Send + Sync + 'static) -> Subscription {
        self.add(topic, false, Arc::new(handle))
    }

    /// The same, but the first message under the topic is the last that this handler hears.
    pub fn once(&self, topic: &str, handle: impl Fn(Event<'_>) + Send + Sync + 'static) -> Subscription {
        self.add(topic, true, Arc::new(handle))
    }

    fn add(&self, topic: &str, once: bool, handle: Handle) -> Subscription {
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let mut handlers = self.inner.handlers.write();
        handlers.entry(topic.to_owned()).or_default().push(Handler { id, once, handle });
        Subscription { topic: topic.to_owned(), id }
    }

    /// Ends a subscription. One that has ended already is no error.
    pub fn off(&self, subscription: Subscription) {
        let mut handlers = self.inner.handlers.write();
        if let Some(list) = handlers.get_mut(&subscription.topic) {
            list.retain(|handler| handler.id != subscription.id);
            if list.is_empty() {
                handlers.remove(&subscription.topic);
            }
        }
    }

    /// Sends a message, waiting at most a second for Redis to take it. Returns to how many nodes it was handed.
    ///
    /// # Errors
    ///
    /// Redis did not confirm it in time. It may have been heard all the same.
    pub fn emit(&self, to: To<'_>, topic: &str, message: &[u8]) -> Result<usize, Error> {
        match &self.inner.line {
            Some(line) => line.speak(to, &payload(topic, message)),
            None => {
                let is_ours = matches!(to, To::All) || to == To::Node(&self.inner.node);
                if is_ours {
                    self.deliver(topic, message);
                }
                Ok(usize::from(is_ours))
            }
        }
    }

    /// Whether messages are heard now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.inner.line.as_ref().is_none_or(|line| line.up.load(Ordering::Acquire))
    }

    /// Says something to oneself. To be called once a second: a subscriber that does not hear its
    /// own node for more than two has lost its line, whatever the socket says.
    pub fn beat(&self) {
        if self.inner.line.is_some()
            && let Err(error) = self.emit(To::Node(&self.inner.node), BEAT, b"")
        {
            log::debug!("the bus' own beat: {error}");
        }
    }

    /// The thread body of `subscriber`: listens, until [`Bus::stop`]. Returns at once where the
    /// bus is within the process.
    pub fn run(&self) {
        let Some(line) = &self.inner.line else { return };
        // The first failure is said, further ones of the same kind are not.
        let mut said = false;
        while !line.stopped.load(Ordering::Acquire) {
            let Err(error) = self.listen(line) else { return };
            let why = brief(&error);
            if line.up.swap(false, Ordering::AcqRel) || !said {
                log::warn!("no word from other nodes for now: {}: {why}", line.target);
                said = true;
                self.tell_all(Event::Lost(&why));
            }
            std::thread::sleep(jittered(BACK_OFF));
        }
    }

    fn listen(&self, line: &Line) -> Result<(), RedisError> {
        let mut connection = line.target.open(true)?;
        let mut listener = connection.as_pubsub();
        let database = line.target.database();
        listener.subscribe(node_channel(database, &self.inner.node))?;
        listener.subscribe(all_channel(database))?;
        listener.set_read_timeout(Some(TICK))?;
        line.up.store(true, Ordering::Release);
        log::info!("listening for other nodes on {}", line.target);
        self.tell_all(Event::Restored);
        let mut heard = Instant::now();
        while !line.stopped.load(Ordering::Acquire) {
            match listener.get_message() {
                Ok(message) => {
                    heard = Instant::now();
                    self.deliver_payload(message.get_payload_bytes());
                }
                Err(e) if (e.is_timeout() || is_interrupted(&e)) && heard.elapsed() < SILENCE => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Ends [`Bus::run`] within half a second.
    pub fn stop(&self) {
        if let Some(line) = &self.inner.line {
            line.stopped.store(true, Ordering::Release);
        }
    }

    fn deliver_payload(&self, payload: &[u8]) {
        let blank = payload.iter().position(|&b| b == b' ').unwrap_or(payload.len());
        let (topic, rest) = payload.split_at(blank);
        match std::str::from_utf8(topic) {
            Ok(topic) => self.deliver(topic, rest.get(1..).unwrap_or_default()),
            Err(_) => log::debug!("a message whose topic is no text"),
        }
    }

    fn deliver(&self, topic: &str, bytes: &[u8]) {
        let called = self.handlers_of(topic);
        called.iter().for_each(|handle| call(handle, Event::Message(Message { topic, bytes })));
    }

    /// Those that are to hear a message; those that hear only one are forgotten with it.
    // They are called after the lock is given up: a handler may subscribe, and one must not wait
    // for another.
    fn handlers_of(&self, topic: &str) -> Vec<Handle> {
        let copy = |list: &Vec<Handler>| list.iter().map(|handler| Arc::clone(&handler.handle)).collect();
        let handlers = self.inner.handlers.read();
        match handlers.get(topic) {
            None => return Vec::new(),
            Some(list) if !list.iter().any(|handler| handler.once) => return copy(list),
            Some(_) => drop(handlers),
        }
        let mut handlers = self.inner.handlers.write();
        let Some(list) = handlers.get_mut(topic) else { return Vec::new() };
        let called = copy(list);
        list.retain(|handler| !handler.once);
        if list.is_empty() {
            handlers.remove(topic);
        }
        called
    }

    fn tell_all(&self, event: Event<'_>) {
        let all: Vec<Handle> =
            self.inner.handlers.read().values().flatten().map(|handler| Arc::clone(&handler.handle)).collect();
        all.iter().for_each(|handle| call(handle, event));
    }
}

/// The process was stopped and continued: the line is as it was.
fn is_interrupted(error: &RedisError) -> bool {
    io_cause(error).is_some_and(|cause| cause.kind() == std::io::ErrorKind::Interrupted)
}

/// A panic of a handler is its own: the subscriber goes on for the others.
fn call(handle: &Handle, event: Event<'_>) {
    if catch_unwind(AssertUnwindSafe(|| handle(event))).is_err() {
        log::error!("a panic in a handler of the bus");
    }
}

fn payload(topic: &str, message: &[u8]) -> Vec<u8> {
    [topic.as_bytes(), b" ", message].concat()
}

impl Line {
    /// Publishes on the one connection that speaks. It is taken out while it is in use, so nobody
    /// waits under the lock; who finds it gone opens another, and one of them stays.
    fn speak(&self, to: To<'_>, payload: &[u8]) -> Result<usize, Error> {
        let kept = self.speaker.lock().take();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.target.open(false).map_err(|e| Error::unheard(brief(&e)))?,
        };
        let database = self.target.database();
        let channel = match to {
            To::Node(node) => node_channel(database, node),
            To::All => all_channel(database),
        };
        let heard = redis::cmd("PUBLISH").arg(channel).arg(payload).query(&mut connection);
        // What Redis itself refused nobody hears.
        let heard = heard.map_err(|e: RedisError| Error { why: brief(&e), may_be_heard: e.code().is_none() })?;
        *self.speaker.lock() = Some(connection);
        Ok(heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

    fn recorder() -> (Heard, impl Fn(Event<'_>) + Send + Sync + 'static) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&heard);
        let handler = move |event: Event<'_>| {
            if let Event::Message(message) = event {
                copy.lock().push(message.bytes.to_vec());
            }
        };
        (heard, handler)
    }

    #[test]
    fn once_hears_one_message_and_on_hears_all_until_off() {
        let bus = Bus::local("n1");
        let (all, on) = recorder();
        let (first, once) = recorder();
        let subscription = bus.on("t", on);
        bus.once("t", once);
        for message in [b"1", b"2"] {
            bus.emit(To::All, "t", message).expect("within the process");
        }
        bus.off(subscription.clone());
        bus.off(subscription);
        bus.emit(To::All, "t", b"3").expect("within the process");
        assert_eq!(*all.lock(), [b"1", b"2"]);
        assert_eq!(*first.lock(), [b"1"]);
    }

    #[test]
    fn another_nodes_message_is_not_heard() {
        let bus = Bus::local("n1");
        let (heard, on) = recorder();
        bus.on("t", on);
        bus.emit(To::Node("n2"), "t", b"1").expect("within the process");
        assert!(heard.lock().is_empty());
    }

    #[test]
    fn a_handler_may_subscribe_and_one_that_panics_hurts_no_other() {
        let bus = Bus::local("n1");
        let (heard, on) = recorder();
        let inner = bus.clone();
        bus.on("t", |_| panic!("a handler's own fault"));
        bus.on("t", move |_| {
            inner.once("u", |_| {});
        });
        bus.on("t", on);
        bus.emit(To::All, "t", b"1").expect("within the process");
        assert_eq!(*heard.lock(), [b"1"]);
    }

    #[test]
    fn a_payload_is_topic_and_bytes_whatever_they_are() {
        let bus = Bus::local("n1");
        let (heard, on) = recorder();
        bus.on("t", on);
        for payload in [&b"t a b"[..], b"t", b"t ", b"\xff\xff x", b"", b"t \xff"] {
            bus.deliver_payload(payload);
        }
        assert_eq!(*heard.lock(), [&b"a b"[..], b"", b"", b"\xff"]);
    }
}
