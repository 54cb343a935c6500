//! Many sockets on one thread: an epoll, and connections that never make their thread wait.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};

use crate::socket::send_now;

/// Sockets reported at once.
const MAX_EVENTS: usize = 1024;
/// epoll counts in milliseconds; shorter waits are left to `poll`, which counts in nanoseconds.
const SHORT: Duration = Duration::from_millis(10);

/// The sockets of one thread.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(MAX_EVENTS) })
    }

    /// Waits until something happens to a socket, at most so long; `tokens` are those it happened to.
    pub(super) fn wait(&mut self, limit: Duration, tokens: &mut Vec<usize>) -> io::Result<()> {
        tokens.clear();
        let time = |limit| Timespec::try_from(limit).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        let mut limit = time(limit)?;
        if limit < time(SHORT)? {
            match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], Some(&limit)) {
                Ok(_) | Err(Errno::INTR) => limit = time(Duration::ZERO)?,
                Err(error) => return Err(error.into()),
            }
        }
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        tokens.extend(self.events.iter().filter_map(|event| usize::try_from(event.data.u64()).ok()));
        Ok(())
    }
}

/// One connection, and what it still owes to its peer.
pub(super) struct Wire {
    stream: TcpStream,
    token: usize,
    owed: Vec<u8>,
    /// The poller tells when the socket takes more.
    is_blocked: bool,
}

impl Wire {
    /// Begins to connect. Bytes may be owed at once; a failure shows when they are sent or read.
    pub(super) fn open(address: SocketAddr, poller: &Poller, token: usize) -> io::Result<Wire> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from(socket);
        // A socket that is still connecting takes nothing, and says so when it does.
        epoll::add(&poller.epoll, &stream, EventData::new_u64(token as u64), EventFlags::IN | EventFlags::OUT)?;
        Ok(Wire { stream, token, owed: Vec::new(), is_blocked: true })
    }

    /// How much the socket has not taken yet. Whoever appends looks at it first: there is no other bound.
    pub(super) fn owed_bytes(&self) -> usize {
        self.owed.len()
    }

    /// Where to append what shall be sent with the next [`Wire::flush`].
    pub(super) fn owe(&mut self) -> &mut Vec<u8> {
        &mut self.owed
    }

    /// Sends what the socket takes now.
    ///
    /// # Errors
    ///
    /// The connection is lost.
    pub(super) fn flush(&mut self, poller: &Poller) -> io::Result<()> {
        let sent = send_now(&self.stream, &self.owed)?;
        self.owed.drain(..sent);
        if self.owed.is_empty() == self.is_blocked {
            self.is_blocked = !self.owed.is_empty();
            let also = if self.is_blocked { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(self.token as u64);
            epoll::modify(&poller.epoll, &self.stream, data, EventFlags::IN | also)?;
        }
        Ok(())
    }

    /// Reads what is there into `chunk`; `None` if nothing is.
    ///
    /// # Errors
    ///
    /// The connection is lost; `UnexpectedEof`: the peer closed it.
    pub(super) fn read(&mut self, chunk: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(&self.stream, chunk, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, _)) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            // Still connecting.
            Err(Errno::NOTCONN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends our half, behind what was sent.
    pub(super) fn finish(&self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}
