//! Broadcasts: one message for every client that is connected now. Nothing of it is stored, and nobody acknowledges it.
//!
//! The bus brings a broadcast to every node; here it goes to that node's clients, through [`Broadcasts`], a queue with a
//! thread of its own, `broadcasts`. Ten thousand sends take a while: on the subscriber's thread doorbells would wait
//! for them, on the router's payments. How one client gets it, or not, is `client::connection`'s.
//!
//! Source: README.md, *Broadcasts*.

use crate::client::Clients;
use crate::framing::Framing;
use crate::metrics::{LeftOut, Metrics};
use crate::payment::{Channel, Content};
use crate::seldom::Seldom;
use crossbeam_channel::{Receiver, Sender, bounded};
use serde::de::IgnoredAny;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The most broadcasts that wait on a node.
pub(crate) const MAX_WAITING: usize = 256;
/// The most bytes of them. The largest body fits in several times.
pub(crate) const MAX_WAITING_BYTES: usize = 64 << 20;
/// How each begins.
const HEAD: &[u8] = b"{\"type\":\"broadcast\",\"channel\":\"";

/// The JSON object that every client gets.
// No `Debug`: it is a message.
pub(crate) struct Broadcast(Vec<u8>);

impl Broadcast {
    pub(crate) fn new(channel: &Channel, content: &Content) -> Broadcast {
        Broadcast([HEAD, channel.as_str().as_bytes(), b"\",", content.as_bytes(), b"}"].concat())
    }

    /// Takes what another node wrote; `None` if it is none. A line break would let it pass for two frames, and what is
    /// no JSON would have every client end its connection.
    pub(crate) fn parse(text: &[u8]) -> Option<Broadcast> {
        let is_one = text.starts_with(HEAD) && !text.iter().any(|&b| b == b'\n' || b == b'\r');
        let json = std::str::from_utf8(text).ok().filter(|_| is_one)?;
        serde_json::from_str::<IgnoredAny>(json).is_ok().then(|| Broadcast(text.to_vec()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What waits to be sent to this node's clients.
pub(crate) struct Broadcasts {
    queue: (Sender<Option<Broadcast>>, Receiver<Option<Broadcast>>),
    bytes: AtomicUsize,
    stopping: AtomicBool,
    clients: Arc<Clients>,
    metrics: Arc<Metrics>,
    full: Seldom,
}

impl Broadcasts {
    pub(crate) fn new(clients: Arc<Clients>, metrics: Arc<Metrics>) -> Broadcasts {
        Broadcasts {
            queue: bounded(MAX_WAITING),
            bytes: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            clients,
            metrics,
            full: Seldom::default(),
        }
    }

    /// Whether one more would be taken now: else its sender is told so before any node hears of it.
    pub(crate) fn has_room(&self) -> bool {
        !self.queue.0.is_full() && self.bytes.load(Ordering::Relaxed) < MAX_WAITING_BYTES
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.0.len()
    }

    /// Hears of one. Never waits: for what has no room, this node's clients go without.
    pub(crate) fn hear(&self, text: &[u8]) {
        let Some(broadcast) = Broadcast::parse(text) else {
            return log::debug!("a broadcast that is none");
        };
        let bytes = broadcast.0.len();
        let has_room = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_WAITING_BYTES;
        if !has_room || self.queue.0.try_send(Some(broadcast)).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.metrics.broadcast_dropped();
            self.full.warn(|| "broadcasts come faster than clients can be told; some reach nobody here".into());
        }
    }

    /// The thread body: until [`Broadcasts::stop`].
    pub(crate) fn run(&self) {
        while let Ok(Some(broadcast)) = self.queue.1.recv() {
            self.bytes.fetch_sub(broadcast.0.len(), Ordering::Relaxed);
            self.send(&broadcast);
            if self.is_stopping() {
                return;
            }
        }
    }

    fn send(&self, broadcast: &Broadcast) {
        let clients = self.clients.all();
        for framing in Framing::ALL {
            let mut speaking = clients.iter().filter(|client| client.framing() == framing).peekable();
            if speaking.peek().is_none() {
                continue;
            }
            let Ok(frame) = framing.wrap(broadcast.as_bytes()) else {
                speaking.for_each(|_| self.metrics.broadcast_left_out(LeftOut::TooLargeForFraming));
                continue;
            };
            // Shared: a client whose socket took a part of it keeps no copy of the rest.
            let frame: Arc<[u8]> = frame.into();
            for client in speaking {
                if self.is_stopping() {
                    return;
                }
                match client.broadcast(&frame) {
                    true => self.metrics.broadcast_delivered(),
                    false => self.metrics.broadcast_left_out(LeftOut::Behind),
                }
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends the thread, in the middle of a broadcast too: nobody was promised it.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // If there is no place for it, the thread is awake.
        let _ = self.queue.0.try_send(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::histogram::{self, Histogram};
    use crate::metrics::{DeadLetters, InboxMeters, LineMeters};

    fn empty() -> Broadcasts {
        let rounds = Histogram::new(&histogram::MILLIS);
        let meters = InboxMeters { store: "embedded", rounds, lines: LineMeters::new() };
        Broadcasts::new(Arc::default(), Arc::new(Metrics::new(meters, DeadLetters::default())))
    }

    fn broadcast(msg: &str) -> Broadcast {
        let content = Content::json_text(msg.as_bytes()).expect("JSON");
        Broadcast::new(&Channel::parse("notices").expect("valid"), &content)
    }

    #[test]
    fn a_broadcast_is_the_contracts_object() {
        let expected = br#"{"type":"broadcast","channel":"notices","msg":"maintenance at 02:00"}"#;
        assert_eq!(broadcast(r#""maintenance at 02:00""#).as_bytes(), expected);
    }

    #[test]
    fn what_is_no_broadcast_never_goes_out() {
        let good = broadcast("{\n\"a\": 10.00}");
        assert!(Broadcast::parse(good.as_bytes()).is_some_and(|read| read.as_bytes() == good.as_bytes()));
        let payment = br#"{"type":"payment","seq":1,"channel":"payments","accepted_at":1,"msg":1}"#;
        let two = [good.as_bytes(), b"\n", payment, b"\n"].concat();
        let whole = broadcast("1");
        let half = &whole.as_bytes()[..whole.as_bytes().len() - 1];
        let no_json = [HEAD, b"a\",\"msg\":01}"].concat();
        let no_text = [HEAD, b"a\",\"msg\":\"\xff\"}"].concat();
        for bad in [&b""[..], b"{}", payment, &two, &two[..two.len() - 1], half, &no_json, &no_text] {
            assert!(Broadcast::parse(bad).is_none());
        }
    }

    #[test]
    fn the_queue_is_bounded_and_says_so_before_it_overflows() {
        let broadcasts = empty();
        let text = broadcast("1");
        for _ in 0..MAX_WAITING {
            assert!(broadcasts.has_room());
            broadcasts.hear(text.as_bytes());
        }
        assert!(!broadcasts.has_room());
        broadcasts.hear(text.as_bytes());
        assert_eq!(broadcasts.bytes.load(Ordering::Relaxed), MAX_WAITING * text.as_bytes().len());

        let broadcasts = empty();
        let large = broadcast(&format!("\"{}\"", "x".repeat(MAX_WAITING_BYTES / 2)));
        broadcasts.hear(large.as_bytes());
        broadcasts.hear(large.as_bytes());
        assert_eq!((broadcasts.queue.1.len(), broadcasts.has_room()), (1, true), "a small one still fits");
        broadcasts.stop();
        broadcasts.run();
    }
}
