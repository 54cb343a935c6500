//! One connection of the strict door: the socket, and how answers get out through it in their order.
//!
//! A connection is *busy* from handing over a request until its answer was taken whole, and whatever else wants to
//! write waits for that. Answers come from whichever thread finishes the work and are sent without waiting, under the
//! connection's lock; what the socket does not take is parked with the drainer.
//! Reading is [`super::reader`]'s, on the connection's own thread; what is here runs on every thread that answers.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tiny_http::Method;

use super::door::Lobby;
use super::request::Version;
use super::{Head, Response};
use crate::doorstep::Stranger;
use crate::drainer::{Drained, Owing};
use crate::payment::push_number;
use crate::socket::send_now;

/// One connection: the socket, and what its reader and those who answer must agree on.
pub(crate) struct Connection {
    number: u64,
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) lobby: Arc<Lobby>,
    state: Mutex<State>,
    /// Nobody is busy any more.
    free: Condvar,
}

struct State {
    /// An answer is owed, or bytes of one.
    busy: bool,
    /// What the answer under way has to know of its request.
    terms: Terms,
    /// The answer that is being sent, and how much of it was.
    owed: Vec<u8>,
    sent: usize,
    /// After what is owed, nothing more is said.
    closing: bool,
    /// The socket is of no use any more.
    gone: bool,
    /// A request has come in part: stopping lets it finish.
    partial: bool,
    /// Its place was given away: what the socket does not take at once is not waited for.
    sent_away: bool,
    free_since: Instant,
}

/// How the answer to a request is to be given.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    version: Version,
    /// HEAD: the head of the answer only.
    head_only: bool,
    /// It is the last one.
    close: bool,
}

impl Terms {
    pub(super) fn of(head: &Head, close: bool) -> Terms {
        Terms { version: head.version(), head_only: *head.method() == Method::Head, close }
    }

    /// For what answers no request that we could read.
    pub(super) fn last() -> Terms {
        Terms { version: Version::Http11, head_only: false, close: true }
    }
}

impl Connection {
    /// A connection nobody reads yet.
    ///
    /// # Errors
    ///
    /// The socket refuses its options.
    pub(super) fn open(
        number: u64,
        socket: TcpStream,
        peer: SocketAddr,
        lobby: Arc<Lobby>,
    ) -> io::Result<Arc<Connection>> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(lobby.limits.idle_time))?;
        let state = State {
            busy: false,
            terms: Terms::last(),
            owed: Vec::new(),
            sent: 0,
            closing: false,
            gone: false,
            partial: false,
            sent_away: false,
            free_since: Instant::now(),
        };
        Ok(Arc::new(Connection { number, socket, peer, lobby, state: Mutex::new(state), free: Condvar::new() }))
    }

    /// Sends the answer that is owed. Never waits; called once for each request handed over.
    pub(super) fn answer(self: &Arc<Self>, response: Response) {
        let terms = self.state.lock().terms;
        self.send_answer(response, terms, terms.close || self.lobby.is_stopping());
    }

    /// The same, and it is the last one, whatever was agreed.
    pub(super) fn answer_and_close(self: &Arc<Self>, response: Response) {
        let terms = self.state.lock().terms;
        self.send_answer(response, terms, true);
    }

    /// Closes it if it only waits for a request; else the answer under way will.
    pub(super) fn stop(&self) {
        let state = self.state.lock();
        if !state.busy && !state.partial {
            self.wake_reader();
        }
    }

    fn send_answer(self: &Arc<Self>, response: Response, terms: Terms, close: bool) {
        // Printed outside the lock: while we are busy nobody else writes.
        let bytes = print(response, terms, close);
        self.send(bytes, close);
    }

    /// Sends bytes in the name of whoever made the connection busy.
    pub(super) fn send(self: &Arc<Self>, bytes: Vec<u8>, close: bool) {
        let outcome = {
            let mut state = self.state.lock();
            if state.gone {
                return;
            }
            state.owed = bytes;
            state.sent = 0;
            state.closing |= close;
            self.push(&mut state)
        };
        if matches!(outcome, Drained::Some | Drained::Nothing) {
            self.lobby.drainer.park(self.clone());
        }
    }

    /// Sends what the socket takes of what is owed, and settles when that is all.
    fn push(&self, state: &mut State) -> Drained {
        if state.gone {
            return Drained::Gone;
        }
        let Ok(taken) = send_now(&self.socket, &state.owed[state.sent..]) else {
            self.lose(state);
            return Drained::Gone;
        };
        state.sent += taken;
        if state.sent < state.owed.len() {
            if state.sent_away {
                self.lose(state);
                return Drained::Gone;
            }
            return if taken > 0 { Drained::Some } else { Drained::Nothing };
        }
        self.settle(state);
        Drained::All
    }

    /// Everything was sent: the connection is free, or at its end.
    fn settle(&self, state: &mut State) {
        state.busy = false;
        state.owed = Vec::new();
        state.free_since = Instant::now();
        // Where the request itself was the last one, the reader waits for us; else it is reading and must be told.
        let stops = self.lobby.is_stopping() && !state.partial;
        if (state.closing || stops) && !state.terms.close {
            self.wake_reader();
        }
        self.free.notify_one();
    }

    fn lose(&self, state: &mut State) {
        state.gone = true;
        state.closing = true;
        state.busy = false;
        state.owed = Vec::new();
        let _ = self.socket.shutdown(Shutdown::Both);
        self.free.notify_one();
    }

    /// Ends the reader's `read`, after what has come already, and leaves the way out open.
    fn wake_reader(&self) {
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// Waits until nothing is owed. As every answer is sent or dropped, and the drainer's patience has an end, so has
    /// this.
    fn when_free(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        while state.busy {
            self.free.wait(&mut state);
        }
        state
    }

    /// Waits for the last answer, and says whether the socket is still good for closing it politely.
    pub(super) fn is_answered(&self) -> bool {
        !self.when_free().gone
    }

    /// A request has come in part: stopping waits for the rest.
    pub(super) fn request_begins(&self) {
        self.state.lock().partial = true;
    }

    /// For how long nobody has been busy; none while somebody is.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        let state = self.state.lock();
        (!state.busy).then(|| state.free_since.elapsed())
    }

    /// Waits for our turn to write and takes it; false if there is nothing more to say here.
    pub(super) fn take_turn(&self, terms: Terms, partial: bool) -> bool {
        let mut state = self.when_free();
        if state.closing {
            return false;
        }
        state.busy = true;
        state.terms = terms;
        state.partial = partial;
        true
    }
}

impl Stranger for Connection {
    fn send_away(&self) {
        let mut state = self.state.lock();
        state.sent_away = true;
        self.wake_reader();
        if state.sent < state.owed.len() {
            self.lose(&mut state);
        }
    }
}

impl Owing for Connection {
    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn drain(self: Arc<Self>) -> Drained {
        self.push(&mut self.state.lock())
    }

    fn give_up(&self) {
        log::debug!("http: {} does not read its answer, closing", self.peer);
        // Reset at close: else the kernel would keep the unread answer for minutes.
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
        self.lose(&mut self.state.lock());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.lobby.leave(self.number);
    }
}

/// An answer that nobody asked for, closing: what the acceptor says to those it turns away.
pub(super) fn last_words(response: Response) -> Vec<u8> {
    print(response, Terms::last(), true)
}

/// The bytes of an answer.
fn print(response: Response, terms: Terms, close: bool) -> Vec<u8> {
    let (status, length) = (response.status_code(), response.data_length().unwrap_or(0));
    let mut bytes = Vec::with_capacity(256 + length);
    let version = match terms.version {
        Version::Http10 => "HTTP/1.0 ",
        Version::Http11 => "HTTP/1.1 ",
    };
    push(&mut bytes, &[version]);
    push_number(&mut bytes, status.0.into());
    push(&mut bytes, &[" ", status.default_reason_phrase(), "\r\n"]);
    match (close, terms.version) {
        (true, _) => push(&mut bytes, &["Connection: close\r\n"]),
        (false, Version::Http10) => push(&mut bytes, &["Connection: keep-alive\r\n"]),
        (false, Version::Http11) => {}
    }
    push(&mut bytes, &["Server: payrelay\r\nDate: ", &httpdate::fmt_http_date(SystemTime::now()), "\r\n"]);
    for field in response.headers() {
        push(&mut bytes, &[field.field.as_str().as_str(), ": ", field.value.as_str(), "\r\n"]);
    }
    // A 204 must not say a length (RFC 9110, section 8.6).
    if status != 204 {
        push(&mut bytes, &["Content-Length: "]);
        push_number(&mut bytes, length as u64);
        push(&mut bytes, &["\r\n"]);
    }
    push(&mut bytes, &["\r\n"]);
    if !terms.head_only {
        bytes.extend_from_slice(response.into_reader().get_ref());
    }
    bytes
}

fn push(bytes: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json;

    fn printed(status: u16, body: &str, terms: Terms, close: bool) -> String {
        let bytes = print(json(status, body.into()), terms, close);
        String::from_utf8(bytes).expect("it is text")
    }

    fn terms(version: Version, head_only: bool) -> Terms {
        Terms { version, head_only, close: false }
    }

    #[test]
    fn an_answer_names_us_and_its_length() {
        let text = printed(202, "{}", terms(Version::Http11, false), false);
        assert!(text.starts_with("HTTP/1.1 202 Accepted\r\n"), "{text}");
        assert!(text.contains("\r\nServer: payrelay\r\n"), "{text}");
        assert!(text.contains("\r\nDate: "), "{text}");
        assert!(text.ends_with("\r\nContent-Length: 2\r\n\r\n{}"), "{text}");
        assert!(!text.contains("Connection:"), "{text}");
    }

    #[test]
    fn long_answers_are_not_chunked() {
        let long = "x".repeat(100_000);
        let text = printed(200, &long, terms(Version::Http11, false), false);
        assert!(text.contains("\r\nContent-Length: 100000\r\n"));
        assert!(!text.contains("chunked"));
    }

    #[test]
    fn the_end_and_the_keeping_of_a_connection_are_said() {
        let close = "\r\nConnection: close\r\n";
        let keep = "\r\nConnection: keep-alive\r\n";
        assert!(printed(200, "", terms(Version::Http11, false), true).contains(close));
        assert!(printed(200, "", terms(Version::Http10, false), true).contains(close));
        assert!(printed(200, "", terms(Version::Http10, false), false).contains(keep));
    }

    #[test]
    fn the_answer_to_head_has_a_length_and_no_body() {
        let text = printed(200, "hello", terms(Version::Http11, true), false);
        assert!(text.ends_with("Content-Length: 5\r\n\r\n"), "{text}");
    }

    #[test]
    fn a_204_says_no_length() {
        let text = printed(204, "", terms(Version::Http11, false), true);
        assert!(text.starts_with("HTTP/1.1 204 No Content\r\nConnection: close\r\n"));
        assert!(!text.contains("Content-Length"), "{text}");
        assert!(text.ends_with("\r\n\r\n") && !text.ends_with("\r\n\r\n\r\n"));
    }
}
