//! A descriptor that is kept for saying no: one for each acceptor.
//!
//! Where no descriptor can be had, `accept` fails, and whoever knocks would wait in the kernel's queue without a word, and
//! the acceptor try again and again. With the spare one, each is taken, told, and closed.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// The descriptor, unless it is in use.
pub(crate) struct Spare(Option<OwnedFd>);

/// A connection that was accepted with it.
pub(crate) enum Taken {
    /// There are descriptors again: it may come in.
    Welcome(TcpStream, SocketAddr),
    /// There are none: it is to be told so.
    Refused(TcpStream),
}

impl Spare {
    pub(crate) fn new() -> Spare {
        let mut spare = Spare(None);
        spare.refill();
        spare
    }

    /// Accepts with the spare descriptor, where `accept` failed with this error for want of one. `None`: it did not, or
    /// somebody else was quicker. A refused connection must be gone before [`Spare::refill`] is called.
    pub(crate) fn accept(&mut self, listener: &TcpListener, error: &io::Error) -> Option<Taken> {
        let is_want = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).contains(&error.raw_os_error()?);
        if !is_want || self.0.take().is_none() {
            return None;
        }
        // It waits here if nobody knocks: `accept` finds out that there are no descriptors before it looks who is there.
        let (socket, peer) = listener.accept().ok()?;
        // Meanwhile others may have ended.
        Some(if self.refill() { Taken::Welcome(socket, peer) } else { Taken::Refused(socket) })
    }

    /// Has a descriptor kept again; false if none can be had.
    pub(crate) fn refill(&mut self) -> bool {
        if self.0.is_none() {
            self.0 = eventfd(0, EventfdFlags::CLOEXEC).ok();
        }
        self.0.is_some()
    }
}
