//! Accepting where no descriptor can be had: one is kept for saying no, for all doors of the process.
//!
//! Without it `accept` would fail, and whoever knocks would wait in the kernel's queue without a word. With it each is
//! taken, told, and closed. One door at a time has it, from knock to goodbye, and none holds a descriptor while nobody
//! knocks, as an `accept` that waits does: or else what one door lets go of for a moment would be another's, which could
//! then let somebody in while the first could not even say no.

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// The descriptor, unless there is none.
static SPARE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// What became of who knocked.
pub(crate) enum Accepted {
    Welcome(TcpStream, SocketAddr),
    /// There was no descriptor for it, for this reason; it was told so.
    Refused(io::Error),
}

/// Waits until somebody knocks, and accepts. Where there is no descriptor to be had, `refuse` says so, without waiting.
///
/// # Errors
///
/// Nobody was accepted: the listener is shut down, whoever knocked has gone ([`is_the_peers`]), or no descriptor is left
/// for saying no either.
pub(crate) fn accept(listener: &TcpListener, refuse: impl FnOnce(&TcpStream)) -> io::Result<Accepted> {
    // The lock is not held while nobody knocks, whatever became of who did.
    listener.set_nonblocking(true)?;
    poll(&mut [PollFd::new(listener, PollFlags::IN)], None)?;
    let mut spare = SPARE.lock();
    refill(&mut spare);
    let error = match listener.accept() {
        Ok((socket, peer)) => return Ok(Accepted::Welcome(socket, peer)),
        Err(error) => error,
    };
    let is_want = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error())).contains(&error.raw_os_error());
    if !is_want || spare.take().is_none() {
        return Err(error);
    }
    let (socket, peer) = listener.accept()?;
    // Meanwhile others may have ended.
    if refill(&mut spare) {
        return Ok(Accepted::Welcome(socket, peer));
    }
    refuse(&socket);
    drop(socket);
    refill(&mut spare);
    Ok(Accepted::Refused(error))
}

/// Errors that are about one connection which is gone already: the next one may be fine.
pub(crate) fn is_the_peers(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

/// False if none can be had.
fn refill(spare: &mut Option<OwnedFd>) -> bool {
    if spare.is_none() {
        *spare = eventfd(0, EventfdFlags::CLOEXEC).ok();
    }
    spare.is_some()
}
