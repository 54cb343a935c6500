//! Sending on a socket without ever waiting for its peer.

use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io;
use std::net::{Shutdown, TcpStream};

/// What the kernel may hold for a peer that does not read; its default would be megabytes. Set on the listeners, for what
/// they accept has it from them.
pub(crate) const SEND_BUFFER: usize = 64 << 10;

/// Sends what the socket takes now, and returns how much that was.
///
/// # Errors
///
/// The connection is lost.
pub(crate) fn send_now(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    send_with(socket, bytes, SendFlags::empty())
}

/// The same, but the kernel may hold back what does not fill a segment, some 200 ms long (`TCP_CORK` in tcp(7)), until more
/// is sent or [`push`] is called: so that what follows each other at once goes out together.
///
/// # Errors
///
/// The connection is lost.
pub(crate) fn send_and_hold(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    send_with(socket, bytes, SendFlags::MORE)
}

/// Has the kernel send what it holds back.
pub(crate) fn push(socket: &TcpStream) {
    // Setting this does it, also where it was set before (tcp(7)).
    let _ = socket.set_nodelay(true);
}

fn send_with(socket: &TcpStream, mut bytes: &[u8], flags: SendFlags) -> io::Result<usize> {
    let all = bytes.len();
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL | flags) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::AGAIN) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(all - bytes.len())
}

/// Says a last word to a connection that is not let in, as far as the socket takes it at once.
pub(crate) fn turn_away(socket: &TcpStream, last_word: &[u8]) {
    let _ = send_now(socket, last_word);
    let _ = socket.shutdown(Shutdown::Write);
    // Closing with bytes unread would reset the connection, and with it might go the last word.
    let _ = recv(socket, &mut [0; 4096], RecvFlags::DONTWAIT);
}
