//! Thread body `http-N`: reads one connection's requests, from the first to its close.
//!
//! Bounded and in order: one request ahead of the answer at most. A request that comes whole costs one read and no
//! other call into the kernel. Heads are [`super::request`]'s, bodies [`super::body`]'s, what a path does is the
//! service's, and answering [`super::connection`]'s.

use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::body::Body;
use super::connection::{Connection, Terms};
use super::request::HeadEnd;
use super::room::Share;
use super::{Answer, Canned, Head, Problem, Request, Response, in_words_of};
use crate::doorstep::Step;
use crate::socket::turn_away;

/// How much of what nobody will read is read after a last answer.
const LINGER_BYTES: usize = 64 << 10;

/// Room for any line between chunks, whatever the limit on heads.
const LEAST_INPUT: usize = 8 << 10;

/// Line ends before a request that are forgiven: some senders put one behind a body.
const FORGIVEN_LINE_ENDS: usize = 2;

/// The thread body: reads and hands over requests until the connection ends.
pub(super) fn run(connection: Arc<Connection>, step: Step<Connection>) {
    let mut reader = Reader::new(connection, step);
    loop {
        let end = match reader.next().and_then(|request| reader.hand_over(request)) {
            Ok(()) => continue,
            Err(end) => end,
        };
        // The body is gone, and what follows may take a moment.
        reader.share.let_go();
        match end {
            // Whoever still owes an answer holds the connection, and closes it by letting go.
            End::Silent => return,
            End::Close => {}
            End::Refuse(terms, response) => {
                if reader.connection.take_turn(terms, false) {
                    reader.connection.answer(response);
                }
            }
        }
        return reader.linger();
    }
}

/// Why no more requests are read.
enum End {
    /// Nothing more comes, or nobody is there: no more is said either.
    Silent,
    /// The answer under way, or one already given, is the last.
    Close,
    /// This is still to be said.
    Refuse(Terms, Response),
}

struct Reader {
    connection: Arc<Connection>,
    step: Step<Connection>,
    /// The room that the body of the request takes, until it is handled.
    share: Share,
    /// What was read; it never grows past its capacity, which holds the largest head.
    input: Vec<u8>,
    /// Where in it the unread begins.
    start: usize,
    /// When we first had to wait for more of a request that has come in part, and when it must be there.
    begun: Option<Instant>,
    deadline: Option<Instant>,
    /// What the sender of the request that was admitted understands in place of a problem.
    failure: Option<&'static Canned>,
    /// The socket's read timeout, so that it is set only where it changes.
    timeout: Duration,
}

impl Reader {
    fn new(connection: Arc<Connection>, step: Step<Connection>) -> Reader {
        let limits = connection.lobby.limits;
        let share = Share::of(&connection.lobby.room);
        Reader {
            connection,
            step,
            share,
            input: Vec::with_capacity(limits.head_bytes.max(LEAST_INPUT)),
            start: 0,
            begun: None,
            deadline: None,
            failure: None,
            timeout: limits.idle_time,
        }
    }

    /// The next request that the service will have, whole.
    fn next(&mut self) -> Result<Request, End> {
        loop {
            // What it has sent already could keep it here for long.
            if self.step.was_sent_away() {
                return Err(self.give_way());
            }
            let head = self.read_head()?;
            let peer = self.connection.peer;
            let service = &self.connection.lobby.service;
            match guarded(|| service.admit(&head, peer))? {
                Ok(admission) => {
                    self.failure = admission.failure;
                    if admission.known && !self.step.pass() {
                        return Err(self.give_way());
                    }
                    let body = self.read_body(&head, admission.body_limit)?;
                    let begun = self.begun;
                    self.request_is_whole()?;
                    return Ok(Request { head, body, peer, asker: admission.asker, begun });
                }
                Err(response) => self.decline(&head, response)?,
            }
        }
    }

    /// Hands it over as soon as its predecessor is answered, and makes the connection busy.
    fn hand_over(&mut self, request: Request) -> Result<(), End> {
        let close = !request.head.keep_alive();
        let failure = self.failure.take();
        if !self.connection.take_turn(Terms::of(&request.head, close), false) {
            return Err(End::Close);
        }
        let answer = Answer::strict(self.connection.clone(), failure);
        let service = &self.connection.lobby.service;
        // After a panic the answer was dropped, so the 500 is said.
        catch_unwind(AssertUnwindSafe(|| service.handle(request, answer))).map_err(|_| End::Close)?;
        self.share.let_go();
        if close { Err(End::Close) } else { Ok(()) }
    }

    /// Gives the service's refusal. A body that was announced is not read, so it ends the connection.
    fn decline(&mut self, head: &Head, response: Response) -> Result<(), End> {
        let close = head.has_body() || !head.keep_alive();
        let terms = Terms::of(head, close);
        if close {
            return Err(End::Refuse(terms, response));
        }
        self.request_is_whole()?;
        if !self.connection.take_turn(terms, false) {
            return Err(End::Close);
        }
        self.connection.answer(response);
        Ok(())
    }

    /// A problem of the request as such: after it nobody knows where the next one begins.
    fn refuse(&self, problem: &Problem) -> End {
        log::debug!("http: {}: {}", self.connection.peer, problem.line());
        self.connection.lobby.service.refused(problem.code());
        End::Refuse(Terms::last(), in_words_of(self.failure, problem))
    }

    /// Ends a connection whose place a newcomer got.
    fn give_way(&self) -> End {
        if let Some(meter) = self.connection.lobby.service.meter() {
            meter.refused();
        }
        self.refuse(&Problem::too_many_connections())
    }

    fn read_head(&mut self) -> Result<Head, End> {
        self.skip_line_ends()?;
        let limit = self.connection.lobby.limits.head_bytes;
        let mut end = HeadEnd::default();
        loop {
            let unread = &self.input[self.start..];
            let found = end
                .find(unread, limit)
                .and_then(|length| match length {
                    Some(length) => Head::parse(&unread[..length]).map(|head| Some((head, length))),
                    None => Ok(None),
                })
                .map_err(|problem| self.refuse(&problem))?;
            if let Some((head, length)) = found {
                self.start += length;
                return Ok(head);
            }
            self.fill(true)?;
        }
    }

    /// Waits for the first bytes of a request.
    fn skip_line_ends(&mut self) -> Result<(), End> {
        let mut forgiven = 0;
        loop {
            match &self.input[self.start..] {
                [b'\r', b'\n', ..] if forgiven < FORGIVEN_LINE_ENDS => {
                    forgiven += 1;
                    self.start += 2;
                }
                // Where a line end is cut in two, its other half is still coming.
                [] | [b'\r'] => self.fill(false)?,
                _ => return Ok(()),
            }
        }
    }

    fn read_body(&mut self, head: &Head, limit: usize) -> Result<Vec<u8>, End> {
        if head.lacks_length() && limit > 0 {
            return Err(self.refuse_with_head(head, &Problem::length_required()));
        }
        let mut body = Body::new(head.framing(), limit).map_err(|problem| self.refuse_with_head(head, &problem))?;
        if head.has_body() && head.expects_continue() && self.start == self.input.len() {
            self.say_continue(head)?;
        }
        loop {
            self.start +=
                body.take(&self.input[self.start..]).map_err(|problem| self.refuse_with_head(head, &problem))?;
            if !self.share.grow_to(body.held()) {
                let problem = Problem::unavailable("the bodies of other requests take all the room there is");
                return Err(self.refuse_with_head(head, &problem));
            }
            if body.is_whole() {
                return Ok(body.into_bytes());
            }
            self.fill(true)?;
        }
    }

    fn refuse_with_head(&self, head: &Head, problem: &Problem) -> End {
        match self.refuse(problem) {
            End::Refuse(_, response) => End::Refuse(Terms::of(head, true), response),
            end => end,
        }
    }

    fn say_continue(&mut self, head: &Head) -> Result<(), End> {
        let asked_at = Instant::now();
        if !self.connection.take_turn(Terms::of(head, false), true) {
            return Err(End::Close);
        }
        // It had to wait for the answers before; that is not the sender's fault.
        let waited = asked_at.elapsed();
        self.deadline = self.deadline.map(|deadline| deadline + waited);
        let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
        self.connection.send(go_on.to_vec(), false);
        Ok(())
    }

    /// Reads more, waiting for it: as long as the request may still take, or as a connection may be idle.
    fn fill(&mut self, begun: bool) -> Result<(), End> {
        self.make_room();
        if begun {
            let left = self.request_time_left()?;
            self.set_timeout(left)?;
        }
        loop {
            match rustix::io::read(&self.connection.socket, spare_capacity(&mut self.input)) {
                Ok(0) => return Err(self.ended(begun)),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = match begun {
                        true => self.request_time_left()?,
                        false => self.idle_time_left()?,
                    };
                    self.set_timeout(left)?;
                }
                Err(_) => return Err(End::Silent),
            }
        }
    }

    /// The unread is always less than a head or a line, so moving it to the front makes room.
    fn make_room(&mut self) {
        if self.start == self.input.len() {
            self.input.clear();
            self.start = 0;
        } else if self.input.len() == self.input.capacity() {
            self.input.drain(..self.start);
            self.start = 0;
        }
        debug_assert!(self.input.len() < self.input.capacity(), "a read needs room");
    }

    /// The peer sends no more, or we were woken up to stop.
    fn ended(&self, begun: bool) -> End {
        if self.step.was_sent_away() {
            return self.give_way();
        }
        if !begun {
            return End::Silent;
        }
        let problem = match self.connection.lobby.is_stopping() {
            true => Problem::unavailable("the node is stopping"),
            false => Problem::bad_request("the request ended before it was whole"),
        };
        self.refuse(&problem)
    }

    /// Counted from when we first had to wait for more of it.
    fn request_time_left(&mut self) -> Result<Duration, End> {
        let now = Instant::now();
        let deadline = match self.deadline {
            Some(deadline) => deadline,
            None => {
                self.connection.request_begins();
                self.begun = Some(now);
                now + self.connection.lobby.limits.request_time
            }
        };
        self.deadline = Some(deadline);
        match deadline.saturating_duration_since(now) {
            Duration::ZERO => Err(self.refuse(&Problem::too_slow())),
            left => Ok(left),
        }
    }

    /// Counted from the last answer; while one is owed nobody is idle.
    fn idle_time_left(&self) -> Result<Duration, End> {
        let idle_time = self.connection.lobby.limits.idle_time;
        let Some(idle_for) = self.connection.idle_for() else {
            return Ok(idle_time);
        };
        match idle_time.saturating_sub(idle_for) {
            Duration::ZERO => Err(End::Silent),
            left => Ok(left),
        }
    }

    fn request_is_whole(&mut self) -> Result<(), End> {
        (self.begun, self.deadline) = (None, None);
        self.set_timeout(self.connection.lobby.limits.idle_time)
    }

    fn set_timeout(&mut self, timeout: Duration) -> Result<(), End> {
        if timeout == self.timeout {
            return Ok(());
        }
        self.timeout = timeout;
        let set = self.connection.socket.set_read_timeout(Some(timeout));
        set.map_err(|_| End::Silent)
    }

    /// Closes so that the last answer arrives: a socket closed with bytes unread resets the connection, and the peer
    /// may lose what it has not read yet. So for a moment everything is read and thrown away.
    fn linger(mut self) {
        if !self.connection.is_answered() {
            return;
        }
        if self.step.was_sent_away() {
            // Not a moment is spent on it, for there is one connection too many until then.
            return turn_away(&self.connection.socket, b"");
        }
        let _ = self.connection.socket.shutdown(Shutdown::Write);
        let until = Instant::now() + self.connection.lobby.limits.linger_time;
        let mut room = LINGER_BYTES;
        while room > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.set_timeout(left).is_err() {
                return;
            }
            self.input.clear();
            match rustix::io::read(&self.connection.socket, spare_capacity(&mut self.input)) {
                Ok(read) if read > 0 => room = room.saturating_sub(read),
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
    }
}

/// Runs what must not take the whole thread down without a word: after a panic the sender gets a 500.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, End> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| End::Refuse(Terms::last(), Problem::internal().response()))
}
