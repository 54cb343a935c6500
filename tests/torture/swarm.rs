//! Thousands of sockets on one thread: each says what it is told to, when it is told to, and keeps what it hears.
//!
//! Floods use it straight to a node's ports. No socket ever makes the thread wait; what the system refuses a peer ends
//! that peer, and only what the thread itself needs and does not get is an error.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Sockets reported at once.
const MAX_EVENTS: usize = 1024;
/// What is kept of what a peer hears; nothing that a flood is told is longer.
const HEARD: usize = 4096;
/// What the kernel may hold for a peer that does not read.
const SMALL_BUFFER: usize = 4096;

/// What one peer says and does.
#[derive(Clone, Debug)]
pub struct Talk {
    /// Said once, as fast as the socket takes it.
    pub first: Arc<[u8]>,
    /// How long after connecting it begins.
    pub hold: Duration,
    /// Said after it, again and again.
    pub drip: Option<Drip>,
    /// Takes what the other side says; else the kernel holds it until it holds no more.
    pub reads: bool,
}

/// Bytes that come slowly, and for ever: after the last one the first again.
#[derive(Clone, Debug)]
pub struct Drip {
    pub bytes: Arc<[u8]>,
    /// How many at a time.
    pub step: usize,
    pub every: Duration,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// There never was one.
    Refused,
    /// In order.
    Closed,
    Reset,
}

/// One socket of the swarm, one connection after the other.
#[derive(Debug)]
pub struct Peer {
    pub talk: Talk,
    address: SocketAddr,
    /// None: it is not to be opened.
    opens_at: Option<Instant>,
    socket: Option<TcpStream>,
    /// How much of `first` was said, and which byte of the drip is next, and when.
    said: usize,
    dripped: usize,
    drips_at: Instant,
    /// Since when the connection stands.
    pub connected: Option<Instant>,
    pub ended: Option<(Instant, End)>,
    /// The first of what came.
    pub heard: Vec<u8>,
    pub heard_at: Option<Instant>,
}

/// All of them.
pub struct Swarm {
    epoll: OwnedFd,
    events: Vec<Event>,
    chunk: Vec<u8>,
    pub peers: Vec<Peer>,
}

impl Talk {
    /// Says this at once, and listens.
    pub fn says(first: impl Into<Arc<[u8]>>) -> Talk {
        Talk { first: first.into(), hold: Duration::ZERO, drip: None, reads: true }
    }

    /// Says this first; again and again so many bytes of `bytes` after it.
    pub fn drips(first: impl Into<Arc<[u8]>>, bytes: &[u8], step: usize, every: Duration) -> Talk {
        Talk { drip: Some(Drip { bytes: bytes.into(), step, every }), ..Talk::says(first) }
    }
}

impl Swarm {
    /// # Errors
    ///
    /// No descriptor is left for it.
    pub fn new() -> io::Result<Swarm> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Swarm { epoll, events: Vec::with_capacity(MAX_EVENTS), chunk: vec![0; 64 << 10], peers: Vec::new() })
    }

    /// One more peer, which connects with the next turn. Returns its place in `peers`.
    pub fn add(&mut self, address: SocketAddr, talk: Talk) -> usize {
        let now = Instant::now();
        self.peers.push(Peer {
            talk,
            address,
            opens_at: Some(now),
            socket: None,
            said: 0,
            dripped: 0,
            drips_at: now,
            connected: None,
            ended: None,
            heard: Vec::new(),
            heard_at: None,
        });
        self.peers.len() - 1
    }

    /// Does what is due, and waits for something to happen, at most so long.
    ///
    /// # Errors
    ///
    /// This process has no descriptor left, or the system refuses what the thread needs.
    pub fn turn(&mut self, limit: Duration) -> io::Result<()> {
        let now = Instant::now();
        for place in 0..self.peers.len() {
            let peer = &mut self.peers[place];
            match peer.opens_at {
                Some(at) if at <= now => peer.open(&self.epoll, place)?,
                _ => peer.say(now),
            }
        }
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let now = Instant::now();
        for event in &self.events {
            let place = usize::try_from(event.data.u64()).map_err(io::Error::other)?;
            self.peers[place].notice(event.flags, &mut self.chunk, now);
        }
        Ok(())
    }
}

impl Peer {
    /// Cuts what there is with a reset, and connects again, to there and then.
    pub fn reopen(&mut self, address: SocketAddr, at: Instant) {
        self.cut();
        (self.address, self.opens_at) = (address, Some(at));
        (self.said, self.dripped) = (0, 0);
        (self.connected, self.ended, self.heard_at) = (None, None, None);
        self.heard.clear();
    }

    /// Ends it with a reset, and for good.
    pub fn cut(&mut self) {
        self.opens_at = None;
        if let Some(socket) = self.socket.take() {
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
    }

    /// It stands, as far as anybody knows.
    pub fn is_open(&self) -> bool {
        self.socket.is_some() && self.connected.is_some()
    }

    /// For how long its connection stood, or has stood.
    pub fn age(&self) -> Duration {
        let end = self.ended.map_or_else(Instant::now, |(at, _)| at);
        self.connected.map_or(Duration::ZERO, |since| end.saturating_duration_since(since))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn open(&mut self, epoll: &OwnedFd, place: usize) -> io::Result<()> {
        self.opens_at = None;
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if !self.talk.reads {
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
        }
        match socket.connect(&self.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(_) => {
                self.ended = Some((Instant::now(), End::Refused));
                return Ok(());
            }
        }
        let socket = TcpStream::from(socket);
        // Told once for each thing that happens: so a peer that does not read costs nothing.
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &socket, EventData::new_u64(place as u64), flags)?;
        self.socket = Some(socket);
        Ok(())
    }

    fn notice(&mut self, flags: EventFlags, chunk: &mut [u8], now: Instant) {
        if self.socket.is_none() {
            return;
        }
        let is_over = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if self.connected.is_none() {
            if is_over {
                return self.end(End::Refused, now);
            }
            self.connected = Some(now);
            self.drips_at = now + self.talk.hold;
        }
        if self.talk.reads {
            self.read(chunk, now);
        } else if is_over || flags.contains(EventFlags::RDHUP) {
            return self.end(if is_over { End::Reset } else { End::Closed }, now);
        }
        self.say(now);
    }

    fn read(&mut self, chunk: &mut [u8], now: Instant) {
        while let Some(socket) = &mut self.socket {
            match socket.read(chunk) {
                Ok(0) => return self.end(End::Closed, now),
                Ok(count) => {
                    let room = HEARD - self.heard.len();
                    self.heard.extend_from_slice(&chunk[..count.min(room)]);
                    self.heard_at.get_or_insert(now);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.end(End::Reset, now),
            }
        }
    }

    /// Says what is due and what the socket takes. That it takes nothing any more is read, or noticed, and no news here.
    fn say(&mut self, now: Instant) {
        let (Some(socket), Some(connected)) = (&mut self.socket, self.connected) else { return };
        if now < connected + self.talk.hold {
            return;
        }
        while self.said < self.talk.first.len() {
            match socket.write(&self.talk.first[self.said..]) {
                Ok(count) => self.said += count,
                Err(_) => return,
            }
        }
        let Some(drip) = &self.talk.drip else { return };
        if now < self.drips_at {
            return;
        }
        self.drips_at = now + drip.every;
        let end = (self.dripped + drip.step).min(drip.bytes.len());
        if let Ok(count) = socket.write(&drip.bytes[self.dripped..end]) {
            self.dripped = (self.dripped + count) % drip.bytes.len();
        }
    }

    fn end(&mut self, how: End, now: Instant) {
        self.socket = None;
        self.ended = Some((now, how));
    }
}
