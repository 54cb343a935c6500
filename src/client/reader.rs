//! Thread body of `read-N`, one for each client: hello to bye.
//!
//! Reads frames, hands acknowledgements on, answers pings, and judges idleness: after an empty
//! read, never by a timer, so that a node that was stopped for a while reads what came meanwhile
//! before it calls anybody silent. While a client is busy acknowledging, naps between two reads. Who is silent is asked
//! for a word by `pinger`.

use super::close_reason::CloseReason;
use super::connection::{Connection, Shared};
use super::{Caller, Clients};
use crate::bookkeeper::{CLAIM_LIMIT, Item};
use crate::doorstep::Step;
use crate::frame::{ClientFrame, Hello, InvalidFrame, MAX_FRAME_BYTES, PONG};
use crate::framing::{Framing, NoFrame};
use crate::gate::Gate;
use crate::payment::ClientId;
use crate::socket::turn_away;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From connecting to the end of the first frame.
pub(crate) const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// Heartbeats without a byte from a client until it counts as gone; it is pinged after each but the last.
pub(crate) const SILENT_HEARTBEATS: u32 = 3;
/// How long a busy client's acknowledgements come together in its socket: so much work comes again if the node dies,
/// besides that of the time until they are stored.
const NAP: Duration = Duration::from_millis(250);
/// How much sooner a nap may end, where other timers end as well: a wake-up of its own costs more than what it reads.
const NAP_SLACK: Duration = Duration::from_millis(50);
/// How long a newcomer waits at most for what its client said on the connection before to be read.
const READ_OUT_LIMIT: Duration = NAP;
/// How long a refused client's bytes are still read, so that it can read why.
const LINGER: Duration = Duration::from_secs(1);
/// How much of them: four of the longest frames, which a client may have sent before it could read why.
const LINGER_BYTES: usize = 4 * MAX_FRAME_BYTES;
/// What is read at once. No more, for a thousand readers' stacks share one processor's cache.
const READ_BYTES: usize = 256;
/// What an idle client may keep as its buffer.
const KEPT_BYTES: usize = 64;

/// What every reader uses.
pub(crate) struct Reception {
    pub(crate) clients: Arc<Clients>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) window: usize,
    pub(crate) heartbeat: Duration,
}

/// The thread body: until the connection ends.
pub(crate) fn run(reception: &Reception, caller: Caller, mut step: Step<TcpStream>) {
    let mut frames = Frames::new(caller.framing);
    let hello = match read_hello(reception, &caller, &mut frames) {
        Ok(hello) if step.pass() => hello,
        Err(reason) if !step.was_sent_away() => return refuse(reception, &caller, &reason),
        _ => return give_way(reception, &caller),
    };
    drop(step);
    let (client, window, auto_ack) = hello;
    read_out(&reception.clients, &client);
    // Its own thread waits here, and nobody else. Who has left meanwhile takes nobody's turn.
    while let Some(wait) = reception.clients.turn(&client) {
        std::thread::sleep(wait);
        if peek(&caller.stream) == Peeked::End {
            return;
        }
    }
    let connection = Connection::new(client, caller, window, auto_ack, Arc::clone(&reception.shared));
    reception.clients.enter(&connection);
    if reception.shared.book.put(Item::Claim(Arc::clone(&connection), Instant::now() + CLAIM_LIMIT)) {
        let reason = converse(reception, &connection, &mut frames);
        connection.close(reason);
        connection.hand_over();
    }
    reception.clients.leave(&connection);
    linger(connection.stream());
}

/// The first frame, within its deadline however slowly it comes.
fn read_hello(
    reception: &Reception,
    caller: &Caller,
    frames: &mut Frames,
) -> Result<(ClientId, usize, bool), CloseReason> {
    let stream = &caller.stream;
    let deadline = Instant::now() + HELLO_LIMIT;
    loop {
        if let Some(frame) = frames.next()? {
            return match ClientFrame::parse(frame).map_err(reason_of)? {
                ClientFrame::Hello(hello) => admit(reception, &hello, caller.peer),
                _ => Err(CloseReason::HelloRequired),
            };
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
            return Err(CloseReason::HelloTimeout);
        }
        match frames.fill(&**stream) {
            Filled::Some => {}
            Filled::Nothing => return Err(CloseReason::HelloTimeout),
            Filled::End => return Err(CloseReason::Left),
        }
    }
}

fn admit(reception: &Reception, hello: &Hello, peer: SocketAddr) -> Result<(ClientId, usize, bool), CloseReason> {
    let Some(id) = &hello.client else {
        return Err(CloseReason::BadFrame("a hello needs a client".into()));
    };
    let client = ClientId::parse(id).map_err(|e| CloseReason::InvalidClientId(e.to_string()))?;
    if !reception.gate.admits(&client, hello.token.as_deref(), peer) {
        return Err(CloseReason::Unauthorized);
    }
    let asked = hello.window.map_or(reception.window, |window| usize::try_from(window).unwrap_or(usize::MAX));
    Ok((client, asked.min(reception.window), hello.auto_ack))
}

/// Everything after the hello. Returns why it ended, as far as this side knows.
fn converse(reception: &Reception, connection: &Arc<Connection>, frames: &mut Frames) -> CloseReason {
    if connection.stream().set_read_timeout(Some(reception.heartbeat * SILENT_HEARTBEATS)).is_err() {
        return CloseReason::Left;
    }
    // Nothing but naps is timed on this thread from here on. Without the slack they are only dearer.
    let slack = u64::try_from(NAP_SLACK.as_nanos()).ok().and_then(NonZeroU64::new);
    let _ = rustix::thread::set_current_timer_slack(slack);
    let (mut acks, mut acked_at, mut napped): (usize, Option<Instant>, _) = (0, None, false);
    loop {
        loop {
            let frame = match frames.next() {
                Ok(Some(frame)) => ClientFrame::parse(frame).map_err(reason_of),
                Ok(None) => break,
                Err(reason) => Err(reason),
            };
            match frame {
                Ok(ClientFrame::Ack(seq)) => {
                    connection.ack(seq);
                    acks += 1;
                }
                Ok(ClientFrame::Nack(seq, reason)) => connection.nack(seq, reason),
                Ok(ClientFrame::Ping) => connection.say(PONG),
                Ok(ClientFrame::Pong) => {}
                Ok(ClientFrame::Bye) => return CloseReason::Left,
                Ok(ClientFrame::Hello(_)) => return CloseReason::BadFrame("hello was said already".into()),
                Err(reason) => return reason,
            }
        }
        if frames.took_all {
            connection.has_read();
        }
        if acks > 0 && frames.took_all {
            let now = Instant::now();
            let soon = acked_at.replace(now).is_some_and(|before| now.duration_since(before) < NAP);
            // A nap that brought a single one together saved nothing.
            napped = soon || (napped && acks > 1);
            if napped {
                connection.nap(NAP - NAP_SLACK);
                if peek(connection.stream()) == Peeked::Nothing {
                    connection.has_read();
                }
            }
            acks = 0;
        }
        match frames.fill(connection.stream()) {
            Filled::Some => connection.heard(),
            Filled::End => return CloseReason::Left,
            Filled::Nothing if connection.was_asked() => return CloseReason::IdleTimeout,
            // This machine stood still, and nobody has asked yet.
            Filled::Nothing => {}
        }
    }
}

fn reason_of(invalid: InvalidFrame) -> CloseReason {
    match invalid {
        InvalidFrame::Json(why) => CloseReason::BadJson(why),
        InvalidFrame::Frame(why) => CloseReason::BadFrame(why),
    }
}

/// Has what a client said on its connection before read, where that one's reader naps: what it acknowledged would else
/// come again on the new one.
fn read_out(clients: &Clients, client: &ClientId) {
    let deadline = Instant::now() + READ_OUT_LIMIT;
    while let Some(before) = clients.get(client)
        && (peek(before.stream()) != Peeked::Nothing || before.is_behind())
        && Instant::now() < deadline
    {
        before.wake();
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What can be seen of a socket without reading.
#[derive(PartialEq, Eq)]
enum Peeked {
    Some,
    Nothing,
    /// The client has ended its side.
    End,
}

fn peek(stream: &TcpStream) -> Peeked {
    match recv(stream, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 1..)) => Peeked::Some,
        Err(Errno::AGAIN | Errno::INTR) => Peeked::Nothing,
        Ok((_, 0)) | Err(_) => Peeked::End,
    }
}

/// Ends a connection that never became a client's. Its own thread may wait for its socket.
fn refuse(reception: &Reception, caller: &Caller, reason: &CloseReason) {
    let mut stream: &TcpStream = &caller.stream;
    reception.shared.metrics.closed(reason.code().unwrap_or("left"));
    if let Some(last_word) = reason.last_word(caller.framing) {
        let _ = stream.set_write_timeout(Some(LINGER));
        let _ = stream.write_all(&last_word);
    }
    let _ = stream.shutdown(Shutdown::Write);
    linger(stream);
}

/// Ends a connection whose place a newcomer got. Not a moment is spent on it, for there is one too many until then.
fn give_way(reception: &Reception, caller: &Caller) {
    let reason = CloseReason::TooManyClients;
    reception.shared.metrics.closed(reason.code().unwrap_or_default());
    reception.shared.metrics.tcp().refused();
    turn_away(&caller.stream, &reason.last_word(caller.framing).unwrap_or_default());
}

/// Reads on for a moment: bytes that nobody read would have the kernel reset the connection, and
/// the client lose our last word.
fn linger(mut stream: &TcpStream) {
    let deadline = Instant::now() + LINGER;
    let mut scratch = [0; READ_BYTES];
    let mut left = LINGER_BYTES;
    while left > 0 {
        let time = deadline.saturating_duration_since(Instant::now());
        if time.is_zero() || stream.set_read_timeout(Some(time)).is_err() {
            return;
        }
        match stream.read(&mut scratch) {
            Ok(n) if n > 0 => left = left.saturating_sub(n),
            _ => return,
        }
    }
}

enum Filled {
    Some,
    /// The time limit passed.
    Nothing,
    /// The client is gone, or the connection was closed from this side.
    End,
}

/// Cuts a stream into frames of at most [`MAX_FRAME_BYTES`].
struct Frames {
    framing: Framing,
    buffer: Vec<u8>,
    /// Up to here the frames were taken.
    taken: usize,
    /// So many bytes from there were looked at, and hold no whole frame.
    searched: usize,
    /// The last read took all that was there.
    took_all: bool,
}

impl Frames {
    fn new(framing: Framing) -> Frames {
        Frames { framing, buffer: Vec::new(), taken: 0, searched: 0, took_all: true }
    }

    /// The JSON of the next whole frame; none if it has not come yet.
    fn next(&mut self) -> Result<Option<&[u8]>, CloseReason> {
        let came = &self.buffer[self.taken..];
        match self.framing.cut(came, self.searched) {
            Ok(Some(found)) => {
                self.taken += found.end;
                self.searched = 0;
                Ok(Some(&came[found.json]))
            }
            Ok(None) => {
                self.searched = came.len();
                Ok(None)
            }
            Err(NoFrame::TooLong) => Err(CloseReason::LineTooLong),
            Err(NoFrame::Foreign) => Err(CloseReason::BadFrame(self.framing.rule().into())),
        }
    }

    /// Reads once. The buffer holds no more than one frame and what came with its end.
    fn fill(&mut self, mut stream: impl Read) -> Filled {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_BYTES {
            self.buffer = Vec::new();
        }
        let mut chunk = [0; READ_BYTES];
        loop {
            match stream.read(&mut chunk) {
                Ok(0) => return Filled::End,
                Ok(n) => {
                    self.buffer.extend_from_slice(&chunk[..n]);
                    self.took_all = n < chunk.len();
                    return Filled::Some;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Filled::Nothing,
                Err(_) => return Filled::End,
            }
        }
    }
}

#[cfg(test)]
mod hostile;
