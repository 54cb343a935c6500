//! Who has come in and has not shown yet what for: where every place is taken, these make room.
//!
//! A silent connection costs its peer nothing and holds a place as a client or a sender does. Were all of them equal, a
//! crowd of silent ones would lock clients out until their time for a hello is over, and again. So where every
//! place is taken, a newcomer gets that of the stranger who has been here longest; who has shown what it came for keeps
//! its own. Each door has one. Used by acceptors and connections' own threads; waits for nobody.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::capacity::LEAST_RESERVE;

/// How long a stranger keeps its place whoever comes: long enough for a hello, or for a request's head, on most ways.
/// Where more strangers come within it than there are places, newcomers are refused.
pub(crate) const STRANGER_GRACE: Duration = Duration::from_millis(500);

/// So many of one door that were sent away may not have left yet; for so long there are as many connections above the
/// limit.
pub(crate) const MOST_LEAVING: usize = 8;
// There are two doors, and they share what is kept back.
const _: () = assert!(2 * MOST_LEAVING <= LEAST_RESERVE);

/// A connection that can be asked to go.
pub(crate) trait Stranger {
    /// Has its own thread find the end, whether that reads or waits until an answer is taken. Waits for nobody.
    fn send_away(&self);
}

impl Stranger for TcpStream {
    fn send_away(&self) {
        let _ = self.shutdown(Shutdown::Read);
    }
}

/// The strangers of one door.
pub(crate) struct Doorstep<S> {
    inner: Mutex<Inner<S>>,
}

struct Inner<S> {
    /// The next one's number: they stand in the order in which they came.
    next: u64,
    strangers: BTreeMap<u64, (Instant, Arc<S>)>,
    /// How many were sent away whose threads have not ended yet.
    leaving: usize,
}

impl<S: Stranger> Doorstep<S> {
    pub(crate) fn new() -> Arc<Doorstep<S>> {
        let inner = Inner { next: 0, strangers: BTreeMap::new(), leaving: 0 };
        Arc::new(Doorstep { inner: Mutex::new(inner) })
    }

    /// Somebody came in.
    pub(crate) fn enter(self: &Arc<Self>, stranger: Arc<S>) -> Step<S> {
        let mut inner = self.inner.lock();
        let number = inner.next;
        inner.next += 1;
        inner.strangers.insert(number, (Instant::now(), stranger));
        Step { doorstep: Arc::clone(self), number, known: false }
    }

    /// Sends the stranger away who has been here longest; false if there is none who can be asked to go. Its thread
    /// finds the end of what there is to read, and tells it why.
    pub(crate) fn make_room(&self) -> bool {
        let mut inner = self.inner.lock();
        if inner.leaving >= MOST_LEAVING {
            return false;
        }
        let Some(oldest) = inner.strangers.first_entry().filter(|oldest| oldest.get().0.elapsed() >= STRANGER_GRACE)
        else {
            return false;
        };
        let (_, stranger) = oldest.remove();
        inner.leaving += 1;
        drop(inner);
        stranger.send_away();
        true
    }
}

/// A connection's stand among the strangers, until it is dropped.
pub(crate) struct Step<S> {
    doorstep: Arc<Doorstep<S>>,
    number: u64,
    /// It has shown what it came for.
    known: bool,
}

impl<S> Step<S> {
    /// It has shown what it came for, and keeps its place from now on; false if that was given away before.
    pub(crate) fn pass(&mut self) -> bool {
        self.known = self.known || self.doorstep.inner.lock().strangers.remove(&self.number).is_some();
        self.known
    }

    /// Whether its place was given to a newcomer.
    pub(crate) fn was_sent_away(&self) -> bool {
        !self.known && !self.doorstep.inner.lock().strangers.contains_key(&self.number)
    }
}

impl<S> Drop for Step<S> {
    fn drop(&mut self) {
        if self.known {
            return;
        }
        let mut inner = self.doorstep.inner.lock();
        let stranger = inner.strangers.remove(&self.number);
        if stranger.is_none() {
            inner.leaving -= 1;
        }
        // What is dropped with it may ask for locks of its own.
        drop(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread::sleep;

    /// A stranger, and the other end of its connection.
    fn stranger() -> (Arc<TcpStream>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        (Arc::new(listener.accept().expect("a connection").0), peer)
    }

    #[test]
    fn the_oldest_stranger_makes_room_and_who_is_known_does_not() {
        let doorstep = Doorstep::new();
        let strangers: Vec<_> = (0..4).map(|_| stranger()).collect();
        let mut steps: Vec<_> = strangers.iter().map(|(socket, _)| doorstep.enter(Arc::clone(socket))).collect();
        assert!(!doorstep.make_room(), "a moment is everybody's");
        sleep(STRANGER_GRACE);
        assert!(steps[0].pass() && steps[0].pass());
        drop(steps.remove(2));
        assert!(doorstep.make_room() && doorstep.make_room() && !doorstep.make_room());

        let sent_away: Vec<bool> = steps.iter().map(Step::was_sent_away).collect();
        assert_eq!(sent_away, [false, true, true]);
        assert!(!steps[1].pass(), "too late");
        assert_eq!((&*strangers[1].0).read(&mut [0; 1]).expect("the end"), 0, "its thread wakes");
    }

    #[test]
    fn who_was_sent_away_and_has_not_left_is_counted() {
        let doorstep = Doorstep::new();
        let strangers: Vec<_> = (0..=MOST_LEAVING).map(|_| stranger()).collect();
        let mut steps: Vec<_> = strangers.iter().map(|(socket, _)| doorstep.enter(Arc::clone(socket))).collect();
        sleep(STRANGER_GRACE);
        (0..MOST_LEAVING).for_each(|_| assert!(doorstep.make_room()));
        assert!(!doorstep.make_room(), "one more would be one too many");
        drop(steps.remove(0));
        assert!(doorstep.make_room());
    }
}
