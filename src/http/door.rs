//! Thread body `http-accept`: the strict door, which gives each connection a thread, or refuses it.
//!
//! It knows who is inside, so that stopping reaches everybody. What happens on a connection is [`super::reader`]'s.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::connection::{self, Connection};
use super::room::Room;
use super::{Problem, Service, reader};
use crate::capacity::MOST_HTTP;
use crate::doorstep::Doorstep;
use crate::drainer::Drainer;
use crate::seldom::Seldom;
use crate::socket::turn_away;
use crate::spare::{self, Accepted};

/// Enough for a route with everything below it; the default of 2 MiB only costs address space.
const STACK_BYTES: usize = 256 << 10;

/// How long the acceptor waits after an error, at first and at most.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The request line and all fields: more than any sender needs who means well, and little enough for each connection.
pub(crate) const MAX_HEAD_BYTES: usize = 16 << 10;
/// All bodies together: a thousand of the usual limit, or thirty full batches.
pub(crate) const MAX_BODIES_BYTES: usize = 256 << 20;
/// For a whole request, however slowly it comes: a sender that needs longer has given up on its own side mostly.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(30);
/// From an answer to the first byte of the next request; longer than most senders keep a connection they do not use.
pub(crate) const IDLE_TIME: Duration = Duration::from_secs(60);
/// As long as a peer takes to read a last answer on a slow way.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// What one sender may have of us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at a time; past it they are refused with a 503.
    pub(crate) max_connections: usize,
    /// Bytes of a head.
    pub(crate) head_bytes: usize,
    /// Bytes of memory that all bodies together may take, past what is each connection's own.
    pub(crate) bodies_bytes: usize,
    /// From the first byte of a request to its last.
    pub(crate) request_time: Duration,
    /// From an answer to the first byte of the next request.
    pub(crate) idle_time: Duration,
    /// How long we go on listening after a last answer, so that the peer can read it.
    pub(crate) linger_time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: MOST_HTTP,
            head_bytes: MAX_HEAD_BYTES,
            bodies_bytes: MAX_BODIES_BYTES,
            request_time: REQUEST_TIME,
            idle_time: IDLE_TIME,
            linger_time: LINGER_TIME,
        }
    }
}

/// The strict door.
pub(crate) struct Door {
    listener: TcpListener,
    lobby: Arc<Lobby>,
    /// The last thread could not be started; so that it is logged once, not for each connection of a flood.
    threads_fail: AtomicBool,
    refused: Seldom,
    failing: Seldom,
}

/// What the connections of one door share.
pub(super) struct Lobby {
    pub(super) service: Arc<dyn Service>,
    pub(super) drainer: Arc<Drainer>,
    pub(super) limits: Limits,
    stopping: AtomicBool,
    pub(super) room: Arc<Room>,
    /// Who has not shown a key yet, or asked for what needs none.
    doorstep: Arc<Doorstep<Connection>>,
    inside: Mutex<HashMap<u64, Weak<Connection>>>,
    /// The last one left.
    empty: Condvar,
}

impl Door {
    /// A door over a listener. Its maker has chosen the backlog, and the send buffer, which bounds what the kernel holds
    /// for a peer that does not read.
    pub(crate) fn new(listener: TcpListener, service: Arc<dyn Service>, drainer: Arc<Drainer>, limits: Limits) -> Door {
        let lobby = Lobby {
            service,
            drainer,
            limits,
            stopping: AtomicBool::new(false),
            room: Room::new(limits.bodies_bytes),
            doorstep: Doorstep::new(),
            inside: Mutex::default(),
            empty: Condvar::new(),
        };
        let (threads_fail, refused, failing) = (AtomicBool::new(false), Seldom::default(), Seldom::default());
        Door { listener, lobby: Arc::new(lobby), threads_fail, refused, failing }
    }

    /// The thread body: takes connections until [`Door::stop`]. No error ends it.
    pub(crate) fn accept(&self) {
        let mut pause = PAUSE;
        let mut number = 0;
        loop {
            let accepted = spare::accept(&self.listener, |socket| self.turn_away(socket));
            if self.lobby.is_stopping() {
                return;
            }
            match accepted {
                Ok(Accepted::Welcome(socket, peer)) => {
                    pause = PAUSE;
                    number += 1;
                    self.let_in(number, socket, peer);
                }
                Ok(Accepted::Refused(error)) => {
                    self.failing.warn(|| format!("http: accept: {error}; connections are refused, or wait"));
                }
                Err(error) if spare::is_the_peers(&error) => {}
                Err(error) => {
                    self.failing.warn(|| format!("http: accept: {error}; connections are refused, or wait"));
                    thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Ends [`Door::accept`], closes the connections that wait for a request, and has the others close after their
    /// answer, which says so.
    pub(crate) fn stop(&self) {
        self.lobby.stopping.store(true, Ordering::SeqCst);
        // Wakes the acceptor; the listener's descriptor stays ours, so nobody can meet another socket under its number.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for connection in self.lobby.everybody() {
            connection.stop();
        }
    }

    /// Waits until nobody is inside any more; false if the deadline comes first.
    pub(crate) fn drained(&self, deadline: Instant) -> bool {
        let mut inside = self.lobby.inside.lock();
        while !inside.is_empty() {
            if self.lobby.empty.wait_until(&mut inside, deadline).timed_out() {
                return inside.is_empty();
            }
        }
        true
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.lobby.inside.lock().len()
    }

    fn let_in(&self, number: u64, socket: TcpStream, peer: SocketAddr) {
        let most = self.lobby.limits.max_connections;
        if self.connections() >= most {
            self.refused.warn(|| {
                format!("http: every place is taken: {most} connections are the most, and {peer} is one more")
            });
            if !self.lobby.doorstep.make_room() {
                return self.turn_away(&socket);
            }
        }
        let Ok(connection) = Connection::open(number, socket, peer, self.lobby.clone()) else {
            // The socket options were refused: the peer is gone.
            return;
        };
        self.lobby.inside.lock().insert(number, Arc::downgrade(&connection));
        if let Some(meter) = self.lobby.service.meter() {
            meter.entered();
        }
        if self.lobby.is_stopping() {
            // Stop may have gone through the others before this one was in the list.
            return;
        }
        let own = connection.clone();
        let step = self.lobby.doorstep.enter(connection.clone());
        let spawned = thread::Builder::new()
            .name(format!("http-{number}"))
            .stack_size(STACK_BYTES)
            .spawn(move || reader::run(own, step));
        match spawned {
            Ok(_) => self.threads_fail.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.threads_fail.swap(true, Ordering::Relaxed) {
                    log::warn!("http: no thread for {peer}: {error}; refusing until there is one");
                }
                self.turn_away(&connection.socket);
            }
        }
    }

    /// Says 503, as far as the socket takes it at once: the acceptor waits for nobody.
    fn turn_away(&self, socket: &TcpStream) {
        let problem = Problem::too_many_connections();
        self.lobby.service.refused(problem.code());
        if let Some(meter) = self.lobby.service.meter() {
            meter.refused();
        }
        let bytes = connection::last_words(problem.response());
        turn_away(socket, &bytes);
    }
}

impl Lobby {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The connection of this number is closed.
    pub(super) fn leave(&self, number: u64) {
        let mut inside = self.inside.lock();
        if inside.remove(&number).is_some()
            && let Some(meter) = self.service.meter()
        {
            meter.left();
        }
        if inside.is_empty() {
            self.empty.notify_all();
        }
    }

    /// Collected first and the lock let go: whoever drops the last hold of a connection needs the lock.
    fn everybody(&self) -> Vec<Arc<Connection>> {
        let inside = self.inside.lock();
        inside.values().filter_map(Weak::upgrade).collect()
    }
}
