//! How frames go out to a client: through one function, without waiting.
//!
//! All sends happen under the connection's lock and never wait (`MSG_DONTWAIT`); they are the only
//! I/O under it. What the socket does not take of a frame is owed before anything else is sent,
//! and the drainer has the connection until then. So frames never interleave and nobody waits for
//! a client. Only the last word of a connection that ends goes out beside it.

use super::{Connection, Inner};
use crate::client::close_reason::CloseReason;
use crate::client::owed::Owed;
use crate::drainer::{Drained, Owing};
use crate::metrics::Way;
use crate::payment::{Entry, Mark};
use crate::socket::{push, send_and_hold, send_now};
use std::net::TcpStream;
use std::sync::Arc;

/// How much of something the socket took.
enum Took {
    All,
    Part,
    Nothing,
    Gone,
}

impl Connection {
    /// What was held back goes out.
    pub(super) fn let_go(&self, inner: &mut Inner) {
        inner.holding = false;
        if std::mem::take(&mut inner.held_back) {
            push(&self.stream);
        }
    }

    /// Whether the next may follow; where not, the drainer has the client, or nobody any more.
    pub(super) fn send_payment(self: &Arc<Self>, inner: &mut Inner, entry: &Entry, way: Way) -> bool {
        let mut frame = self.framing.begin(entry.frame_bytes());
        entry.write_frame(&mut frame);
        if self.framing.end(&mut frame).is_err() {
            self.does_not_fit(inner, entry.mark);
            return true;
        }
        let bytes = entry.frame_bytes();
        match self.write(inner, &frame, |taken| Owed::of(frame[taken..].into(), 0)) {
            Took::All => {
                inner.delivery.took(entry.mark, bytes);
                self.count_sent(inner, entry.mark, way);
                self.note_sent(inner, entry);
                self.auto_ack(inner, Some(entry.mark));
                return true;
            }
            Took::Part => {
                inner.delivery.blocked(Some((entry.mark, bytes)));
                self.count_sent(inner, entry.mark, way);
                self.note_sent(inner, entry);
                self.park(inner);
            }
            Took::Nothing => {
                inner.delivery.blocked(None);
                self.park(inner);
            }
            Took::Gone => self.close_locked(inner, CloseReason::Left),
        }
        false
    }

    fn count_sent(&self, inner: &Inner, mark: Mark, way: Way) {
        self.shared.metrics.delivered(way);
        let before = inner.sent_before;
        if mark.seq <= before.seq && mark.accepted_at <= before.accepted_at {
            self.shared.metrics.repeated();
        }
    }

    /// The next payment is longer than this connection's framing can tell: it becomes a dead letter, and those behind
    /// it go on.
    fn does_not_fit(self: &Arc<Self>, inner: &mut Inner, mark: Mark) {
        log::warn!("{}: payment {} is too long for {}: refused, a dead letter", self.client, mark.seq, self.framing);
        inner.delivery.passed_over(mark);
        self.refuse_locked(inner, mark, "too_large_for_framing".to_owned());
    }

    fn auto_ack(self: &Arc<Self>, inner: &mut Inner, mark: Option<Mark>) {
        if let Some(mark) = mark.filter(|_| self.auto_ack) {
            self.ack_locked(inner, mark.seq);
        }
    }

    fn park(self: &Arc<Self>, inner: &mut Inner) {
        if !std::mem::replace(&mut inner.parked, true) {
            self.shared.drainer.park(Arc::clone(self) as Arc<dyn Owing>);
        }
    }

    /// A frame that is no payment. Left out while something is owed, or the welcome is: it is a ping
    /// or a pong, and bytes that go out say as much.
    pub(crate) fn say(self: &Arc<Self>, json: &[u8]) {
        let mut inner = self.inner.lock();
        let welcomed = inner.session.is_some();
        if welcomed && inner.closed.is_none() && !inner.leaving && inner.rest.is_empty() {
            self.write_all(&mut inner, json);
        }
    }

    pub(super) fn write_all(self: &Arc<Self>, inner: &mut Inner, json: &[u8]) {
        let frame = self.framing.wrap(json).expect("a frame that is no payment is short");
        match self.write(inner, &frame, |taken| Owed::of(frame[taken..].into(), 0)) {
            Took::All => {}
            Took::Part => self.park(inner),
            Took::Nothing => {
                inner.rest = Owed::of(frame.into(), 0);
                self.park(inner);
            }
            Took::Gone => self.close_locked(inner, CloseReason::Left),
        }
    }

    /// A broadcast, unless the client is behind: whoever has payments to take is not held up by what is not stored.
    /// Whether it gets it.
    pub(crate) fn broadcast(self: &Arc<Self>, frame: &Arc<[u8]>) -> bool {
        let mut inner = self.inner.lock();
        if inner.closed.is_some() || inner.leaving || !inner.rest.is_empty() || inner.delivery.is_behind() {
            return false;
        }
        match self.write(&mut inner, frame, |taken| Owed::of(Arc::clone(frame), taken)) {
            Took::All => true,
            Took::Part => {
                self.park(&mut inner);
                true
            }
            Took::Nothing => false,
            Took::Gone => {
                self.close_locked(&mut inner, CloseReason::Left);
                false
            }
        }
    }

    /// The one function through which bytes go out. What is owed of a frame that was begun is kept, as `rest` says.
    fn write(&self, inner: &mut Inner, frame: &[u8], rest: impl FnOnce(usize) -> Owed) -> Took {
        if !inner.rest.is_empty() {
            return Took::Nothing;
        }
        inner.held_back |= inner.holding;
        let sent = if inner.holding { send_and_hold(&self.stream, frame) } else { send_now(&self.stream, frame) };
        match sent {
            Ok(n) if n == frame.len() => Took::All,
            Ok(0) => Took::Nothing,
            Ok(n) => {
                inner.rest = rest(n);
                Took::Part
            }
            Err(_) => Took::Gone,
        }
    }
}

/// The drainer's view: a socket that was full.
impl Owing for Connection {
    fn socket(&self) -> &TcpStream {
        &self.stream
    }

    fn drain(self: Arc<Self>) -> Drained {
        let mut inner = self.inner.lock();
        if inner.closed.is_some() {
            return Drained::Gone;
        }
        let taken = match send_now(&self.stream, inner.rest.bytes()) {
            Ok(n) => n,
            Err(_) => {
                self.close_locked(&mut inner, CloseReason::Left);
                return Drained::Gone;
            }
        };
        inner.rest.took(taken);
        if !inner.rest.is_empty() {
            return if taken > 0 { Drained::Some } else { Drained::Nothing };
        }
        inner.parked = false;
        let (mark, next) = inner.delivery.drained();
        self.auto_ack(&mut inner, mark);
        self.wake_if_pressing(&mut inner);
        self.go(next);
        Drained::All
    }

    fn give_up(&self) {
        self.close(CloseReason::TooSlow);
    }
}
