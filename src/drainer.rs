//! Thread body `drainer`: parks the sockets that would not take everything, until they take more or a deadline passes.
//!
//! It is what lets every other thread send without waiting. What is owed, and what comes after it, is the parked one's
//! own business ([`Owing`]): TCP clients and HTTP connections park here alike.
//! Runs on one thread of its own, which [`run`] is; [`Drainer`] is the handle that all others share.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// How long a socket may take nothing before it is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Somebody who owes bytes to a socket.
pub(crate) trait Owing: Send + Sync {
    /// The socket whose writability is waited for.
    fn socket(&self) -> &TcpStream;

    /// Sends what the socket takes now; never waits.
    ///
    /// It is also called when the socket reports an error, which the send then finds out. Who owes nothing any more
    /// says [`Drained::All`]: [`Drained::Nothing`] on a writable socket would be asked again at once.
    fn drain(self: Arc<Self>) -> Drained;

    /// The deadline passed: the socket took nothing for too long. It is parked no more.
    fn give_up(&self);
}

/// What came of an attempt to send the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Everything was taken; the socket is parked no more.
    All,
    /// A part was taken: the deadline starts again.
    Some,
    /// The socket was full after all.
    Nothing,
    /// The connection is lost; the socket is parked no more.
    Gone,
}

/// The handle: who holds it may park, without ever waiting.
pub(crate) struct Drainer {
    /// Rung when somebody arrives, so that the thread leaves `poll`.
    bell: OwnedFd,
    arrivals: Mutex<Arrivals>,
    /// How many are parked, arrivals included.
    parked: AtomicUsize,
    patience: Duration,
}

#[derive(Default)]
struct Arrivals {
    waiting: Vec<Arc<dyn Owing>>,
    stop: bool,
}

struct Parked {
    owing: Arc<dyn Owing>,
    deadline: Instant,
}

impl Drainer {
    /// A drainer with the usual [`PATIENCE`]; [`run`] must be given a thread.
    ///
    /// # Errors
    ///
    /// No descriptor could be had.
    pub(crate) fn new() -> io::Result<Drainer> {
        Drainer::with_patience(PATIENCE)
    }

    /// The same with another patience, so that tests need not wait for the usual one.
    ///
    /// # Errors
    ///
    /// No descriptor could be had.
    pub(crate) fn with_patience(patience: Duration) -> io::Result<Drainer> {
        Ok(Drainer {
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            arrivals: Mutex::default(),
            parked: AtomicUsize::new(0),
            patience,
        })
    }

    /// Has the socket watched until it takes what is owed.
    ///
    /// It does not matter whether the socket became writable in the meantime: the next `poll` says so at once.
    /// Nobody may be parked twice at a time. After [`Drainer::stop`] nothing is drained any more.
    pub(crate) fn park(&self, owing: Arc<dyn Owing>) {
        let first = {
            let mut arrivals = self.arrivals.lock();
            arrivals.waiting.push(owing);
            self.parked.fetch_add(1, Ordering::Relaxed);
            arrivals.waiting.len() == 1
        };
        if first {
            self.ring();
        }
    }

    /// How many sockets are parked.
    pub(crate) fn parked(&self) -> usize {
        self.parked.load(Ordering::Relaxed)
    }

    /// Ends [`run`]; whoever is still parked then is given up.
    pub(crate) fn stop(&self) {
        self.arrivals.lock().stop = true;
        self.ring();
    }

    fn ring(&self) {
        // The only error is a full counter, and then the bell is ringing already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn silence(&self) {
        let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
    }
}

/// The thread body: returns after [`Drainer::stop`].
pub(crate) fn run(drainer: &Drainer) {
    let mut parked: Vec<Parked> = Vec::new();
    loop {
        let ready = wait(drainer, &parked);
        drainer.silence();
        // Before the arrivals are added, so that `ready` and `parked` still speak of the same sockets.
        let before = parked.len();
        serve(&mut parked, &ready, drainer.patience);
        drainer.parked.fetch_sub(before - parked.len(), Ordering::Relaxed);

        let mut arrivals = drainer.arrivals.lock();
        let stop = arrivals.stop;
        let deadline = Instant::now() + drainer.patience;
        parked.extend(arrivals.waiting.drain(..).map(|owing| Parked { owing, deadline }));
        drop(arrivals);
        if stop {
            parked.iter().for_each(|one| one.owing.give_up());
            return;
        }
    }
}

/// Waits for the bell, a socket or the next deadline; says of each parked socket whether something happened to it.
fn wait(drainer: &Drainer, parked: &[Parked]) -> Vec<bool> {
    let mut watched = Vec::with_capacity(parked.len() + 1);
    watched.push(PollFd::new(&drainer.bell, PollFlags::IN));
    watched.extend(parked.iter().map(|one| PollFd::new(one.owing.socket(), PollFlags::OUT)));
    match poll(&mut watched, time_left(parked).as_ref()) {
        // Errors and hang-ups are reported unasked; the send finds out what they are.
        Ok(_) => watched[1..].iter().map(|one| !one.revents().is_empty()).collect(),
        Err(Errno::INTR) => vec![false; parked.len()],
        Err(error) => {
            // Out of kernel memory: nothing is lost, so go on a little later.
            log::warn!("drainer: poll: {error}; trying again");
            std::thread::sleep(Duration::from_millis(10));
            vec![false; parked.len()]
        }
    }
}

fn time_left(parked: &[Parked]) -> Option<Timespec> {
    let next = parked.iter().map(|one| one.deadline).min()?;
    // A millisecond more, so that one wake-up finds the deadline passed and not just short of it.
    let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    Timespec::try_from(left).ok()
}

/// Drains those that are ready, gives up those whose deadline passed, and keeps the rest.
fn serve(parked: &mut Vec<Parked>, ready: &[bool], patience: Duration) {
    let now = Instant::now();
    let mut ready = ready.iter();
    parked.retain_mut(|one| {
        let outcome = match ready.next() {
            Some(true) => Arc::clone(&one.owing).drain(),
            _ => Drained::Nothing,
        };
        match outcome {
            Drained::All | Drained::Gone => false,
            Drained::Some => {
                one.deadline = now + patience;
                true
            }
            Drained::Nothing if one.deadline <= now => {
                one.owing.give_up();
                false
            }
            Drained::Nothing => true,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
    use rustix::net::{SendFlags, send};
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;

    /// Owes a number of bytes, and notes what became of it.
    struct Debtor {
        socket: TcpStream,
        owed: Mutex<usize>,
        end: crossbeam_channel::Sender<&'static str>,
    }

    impl Owing for Debtor {
        fn socket(&self) -> &TcpStream {
            &self.socket
        }

        fn drain(self: Arc<Self>) -> Drained {
            let mut owed = self.owed.lock();
            let before = *owed;
            while *owed > 0 {
                let piece = vec![b'x'; (*owed).min(65_536)];
                match send(&self.socket, &piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                    Ok(sent) => *owed -= sent,
                    Err(Errno::AGAIN) if *owed < before => return Drained::Some,
                    Err(Errno::AGAIN) => return Drained::Nothing,
                    Err(_) => {
                        self.end.send("gone").expect("the test listens");
                        return Drained::Gone;
                    }
                }
            }
            self.end.send("all").expect("the test listens");
            Drained::All
        }

        fn give_up(&self) {
            self.end.send("given up").expect("the test listens");
        }
    }

    struct Scene {
        drainer: Arc<Drainer>,
        thread: Option<thread::JoinHandle<()>>,
        end_tx: crossbeam_channel::Sender<&'static str>,
        end_rx: crossbeam_channel::Receiver<&'static str>,
    }

    impl Scene {
        fn new(patience: Duration) -> Scene {
            let drainer = Arc::new(Drainer::with_patience(patience).expect("a descriptor can be had"));
            let thread = {
                let drainer = drainer.clone();
                thread::spawn(move || run(&drainer))
            };
            let (end_tx, end_rx) = crossbeam_channel::unbounded();
            Scene { drainer, thread: Some(thread), end_tx, end_rx }
        }

        /// A debtor of so many bytes, and the peer that may read them. Left to itself the kernel lets a socket's
        /// buffers grow to dozens of MiB, and a debtor might then owe nothing before anybody has read.
        fn debtor(&self, owed: usize) -> (Arc<Debtor>, TcpStream) {
            let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
            let peer = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
            let (socket, _) = listener.accept().expect("somebody connected");
            set_socket_recv_buffer_size(&peer, BUFFER).expect("a socket takes its size");
            set_socket_send_buffer_size(&socket, BUFFER).expect("a socket takes its size");
            let debtor = Debtor { socket, owed: Mutex::new(owed), end: self.end_tx.clone() };
            (Arc::new(debtor), peer)
        }

        fn end(&self) -> &'static str {
            self.end_rx.recv_timeout(Duration::from_secs(10)).expect("something happens within ten seconds")
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            self.drainer.stop();
            let thread = self.thread.take().expect("dropped once");
            thread.join().expect("the drainer does not panic");
        }
    }

    const MUCH: usize = 32 << 20;
    const BUFFER: usize = 64 << 10;

    #[test]
    fn a_socket_that_is_writable_already_is_drained_at_once() {
        let scene = Scene::new(PATIENCE);
        let (debtor, _peer) = scene.debtor(10);
        scene.drainer.park(debtor);
        assert_eq!(scene.end(), "all");
    }

    #[test]
    fn what_a_full_socket_did_not_take_follows_when_the_peer_reads() {
        let scene = Scene::new(PATIENCE);
        let (debtor, mut peer) = scene.debtor(MUCH);
        assert_eq!(debtor.clone().drain(), Drained::Some, "the socket fills up");
        scene.drainer.park(debtor.clone());

        let mut whole = vec![0; MUCH];
        peer.read_exact(&mut whole).expect("everything arrives");
        assert_eq!(scene.end(), "all");
        assert_eq!(*debtor.owed.lock(), 0);
    }

    #[test]
    fn park_limit() {
        let scene = Scene::new(Duration::from_secs(2));
        let (stuck, _never_reads) = scene.debtor(MUCH);
        let (slow, mut reads_a_little) = scene.debtor(MUCH);
        stuck.clone().drain();
        slow.clone().drain();
        let parked_at = Instant::now();
        scene.drainer.park(stuck.clone());
        scene.drainer.park(slow);

        // Progress moves the deadline: it still reads when the other one is given up.
        let mut some = vec![0; 4 * BUFFER];
        let mut read = 0;
        while scene.end_rx.is_empty() {
            reads_a_little.read_exact(&mut some).expect("more is always owed");
            read += some.len();
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(scene.end(), "given up");
        assert!(parked_at.elapsed() >= Duration::from_secs(2));
        assert!(*stuck.owed.lock() > 0);
        let mut rest = vec![0; MUCH - read];
        reads_a_little.read_exact(&mut rest).expect("it all comes");
        assert_eq!(scene.end(), "all");
    }

    #[test]
    fn a_peer_that_leaves_is_found_out_before_the_deadline() {
        let scene = Scene::new(PATIENCE);
        let (debtor, peer) = scene.debtor(MUCH);
        debtor.clone().drain();
        scene.drainer.park(debtor);
        drop(peer);
        assert_eq!(scene.end(), "gone");
    }

    #[test]
    fn a_thousand_may_be_parked_and_parked_again() {
        let scene = Scene::new(PATIENCE);
        let debtors: Vec<_> = (0..200).map(|_| scene.debtor(1)).collect();
        for _ in 0..5 {
            for (debtor, _) in &debtors {
                *debtor.owed.lock() = 1;
                scene.drainer.park(debtor.clone());
            }
            for _ in &debtors {
                assert_eq!(scene.end(), "all");
            }
        }
    }

    #[test]
    fn stopping_gives_up_who_is_parked() {
        let scene = Scene::new(PATIENCE);
        let (debtor, _peer) = scene.debtor(MUCH);
        debtor.clone().drain();
        scene.drainer.park(debtor);
        scene.drainer.stop();
        assert_eq!(scene.end(), "given up");
    }
}
