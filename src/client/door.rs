//! Thread body of `tcp-accept`: gives each client's connection a thread, or refuses it.

use super::Caller;
use super::close_reason::CloseReason;
use super::reader::{self, Reception};
use crate::doorstep::Doorstep;
use crate::framing::Framing;
use crate::seldom::Seldom;
use crate::socket::turn_away;
use crate::spare::{self, Accepted};
use crate::thread;
use rustix::net::sockopt;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Longer than a full socket is waited for (`drainer`), so that `too_slow` is said first.
pub(crate) const USER_TIMEOUT: Duration = Duration::from_secs(40);
/// TCP keepalive finds out within a minute and a half that a peer is gone that owes nothing: after so long without a
/// word, by so many probes so far apart.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// After an accept that failed, at first and at most.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Where clients come in: one for all listeners of a node.
pub(crate) struct Door {
    reception: Arc<Reception>,
    /// The most connections at once.
    most: usize,
    inside: AtomicUsize,
    /// Who has not said hello yet.
    doorstep: Arc<Doorstep<TcpStream>>,
    stopping: AtomicBool,
    /// The last thread could not be had; said once, not for each connection of a flood.
    threads_fail: AtomicBool,
    refused: Seldom,
    failing: Seldom,
}

impl Door {
    pub(crate) fn new(reception: Arc<Reception>, most: usize) -> Arc<Door> {
        let (stopping, threads_fail) = (AtomicBool::new(false), AtomicBool::new(false));
        let (inside, doorstep) = (AtomicUsize::new(0), Doorstep::new());
        let (refused, failing) = (Seldom::default(), Seldom::default());
        Arc::new(Door { reception, most, inside, doorstep, stopping, threads_fail, refused, failing })
    }

    /// The thread body: takes connections until [`Door::stop`]. No error ends it.
    pub(crate) fn accept(self: &Arc<Self>, listener: &TcpListener, framing: Framing) {
        let mut pause = PAUSE;
        let mut number = 0u64;
        loop {
            let accepted = spare::accept(listener, |stream| self.turn_away(stream, framing));
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            match accepted {
                Ok(Accepted::Welcome(stream, peer)) => {
                    pause = PAUSE;
                    number += 1;
                    self.let_in(number, Caller { stream: Arc::new(stream), peer, framing });
                }
                Ok(Accepted::Refused(error)) => {
                    self.failing.warn(|| format!("tcp: accept: {error}; connections are refused, or wait"));
                }
                Err(error) if spare::is_the_peers(&error) => {}
                Err(error) => {
                    self.failing.warn(|| format!("tcp: accept: {error}; connections are refused, or wait"));
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Ends [`Door::accept`] of a listener.
    pub(crate) fn stop(&self, listener: &TcpListener) {
        self.stopping.store(true, Ordering::Release);
        let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
    }

    fn let_in(self: &Arc<Self>, number: u64, caller: Caller) {
        let (stream, peer, framing) = (Arc::clone(&caller.stream), caller.peer, caller.framing);
        // One that cannot be set up is gone.
        if set_up(&stream).is_err() {
            return;
        }
        let place = Place::take(self);
        if self.inside.load(Ordering::Relaxed) > self.most {
            self.refused.warn(|| format!("tcp: every place is taken: {} connections are the most", self.most));
            if !self.doorstep.make_room() {
                return self.turn_away(&stream, framing);
            }
        }
        let step = self.doorstep.enter(Arc::clone(&stream));
        let started = thread::connection(format!("read-{number}"), move || {
            let place = place;
            reader::run(&place.0.reception, caller, step);
        });
        match started {
            Ok(()) => self.threads_fail.store(false, Ordering::Relaxed),
            Err(error) => {
                if !self.threads_fail.swap(true, Ordering::Relaxed) {
                    log::warn!("tcp: no thread for {peer}: {error}; refusing until there is one");
                }
                self.turn_away(&stream, framing);
            }
        }
    }

    /// Says `too_many_clients`, as far as the socket takes it at once.
    fn turn_away(&self, stream: &TcpStream, framing: Framing) {
        self.reception.shared.metrics.closed("too_many_clients");
        self.reception.shared.metrics.tcp().refused();
        turn_away(stream, &CloseReason::TooManyClients.last_word(framing).unwrap_or_default());
    }
}

/// One connection's place; given back when its thread ends, however it does.
struct Place(Arc<Door>);

impl Place {
    fn take(door: &Arc<Door>) -> Place {
        door.inside.fetch_add(1, Ordering::Relaxed);
        door.reception.shared.metrics.tcp().entered();
        Place(Arc::clone(door))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
        self.0.reception.shared.metrics.tcp().left();
    }
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_PROBES))?;
    let millis = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, millis)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_finds_out_who_has_vanished() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let _client = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let (stream, _) = listener.accept().expect("a connection");
        set_up(&stream).expect("options");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        assert_eq!(socket.tcp_keepalive_time().expect("an option"), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().expect("an option"), Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), 3);
        assert_eq!(sockopt::tcp_user_timeout(&stream).expect("an option"), 40_000);
        assert!(USER_TIMEOUT > crate::drainer::PATIENCE, "so that `too_slow` is found first");
    }
}
