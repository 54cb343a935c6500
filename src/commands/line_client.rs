//! The receiver's end of the line protocol: connecting, whole lines in, whole lines out.
//!
//! What the lines mean is left to `listen.rs`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::connect;
use crate::args::MAX_BODY_BYTES;
use crate::frame::{ESCAPED_BYTES, FRAME_ROOM};

/// The longest line that any server sends.
// Source: README.md, *TCP reference*. The buffer grows only as far as a line needs.
const MAX_LINE_BYTES: usize = ESCAPED_BYTES * MAX_BODY_BYTES + FRAME_ROOM;
const WRITE_TIME: Duration = Duration::from_secs(10);

/// What waiting for a line brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A line as it came, with the line break.
    Line(Vec<u8>),
    /// No whole line until then.
    Nothing,
    /// The server closed.
    End,
    /// Whoever read the output has gone.
    NobodyReads,
}

/// A connection to a node's TCP port.
pub(super) struct LineClient {
    stream: TcpStream,
    reader: LineReader,
    /// When bytes last came in: only they prove that the server lives.
    pub(super) heard_at: Instant,
}

impl LineClient {
    /// Connects to `host:port`.
    pub(super) fn connect(server: &str) -> io::Result<LineClient> {
        let stream = connect(server)?;
        stream.set_write_timeout(Some(WRITE_TIME))?;
        Ok(LineClient { stream, reader: LineReader::default(), heard_at: Instant::now() })
    }

    /// Sends a line, whole or not at all as far as the server can tell: on an error, give up.
    pub(super) fn send(&mut self, json: &str) -> io::Result<()> {
        self.stream.write_all(format!("{json}\n").as_bytes())
    }

    /// Waits for a line, at most until `until`.
    pub(super) fn hear(&mut self, until: Instant) -> io::Result<Heard> {
        self.listen(until, None)
    }

    /// The same, as long as somebody reads what goes to this output.
    pub(super) fn hear_for(&mut self, output: impl AsFd, until: Instant) -> io::Result<Heard> {
        self.listen(until, Some(output.as_fd()))
    }

    fn listen(&mut self, until: Instant, output: Option<BorrowedFd<'_>>) -> io::Result<Heard> {
        loop {
            if let Some(line) = self.reader.take_line() {
                return Ok(Heard::Line(line));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::Nothing);
            }
            let mut watched = vec![PollFd::new(&self.stream, PollFlags::IN)];
            // Nothing is asked of the output: that its reader has gone is reported unasked.
            watched.extend(output.iter().map(|output| PollFd::new(output, PollFlags::empty())));
            match poll(&mut watched, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            if watched.get(1).is_some_and(|output| !output.revents().is_empty()) {
                return Ok(Heard::NobodyReads);
            }
            match self.reader.fill(&mut self.stream) {
                Ok(0) => return Ok(Heard::End),
                Ok(_) => self.heard_at = Instant::now(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends our half and waits until the server has ended its own, so that it took what we sent.
    pub(super) fn leave(mut self, within: Duration) {
        let until = Instant::now() + within;
        // The payment is printed and the work done: a server that is gone already changes nothing.
        let _ = self.send(r#"{"type":"bye"}"#);
        let _ = self.stream.shutdown(Shutdown::Write);
        while matches!(self.hear(until), Ok(Heard::Line(_))) {}
    }
}

/// Bytes in, whole lines out; half a line outlives a time-out.
#[derive(Default)]
struct LineReader {
    buffer: Vec<u8>,
    /// The buffer holds no line break before this.
    searched: usize,
}

impl LineReader {
    fn take_line(&mut self) -> Option<Vec<u8>> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(at) = found else {
            self.searched = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(self.searched + at + 1);
        self.searched = 0;
        Some(std::mem::replace(&mut self.buffer, rest))
    }

    fn fill(&mut self, source: &mut impl Read) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = source.read(&mut chunk)?;
        if self.buffer.len() + count > MAX_LINE_BYTES {
            let what = "it sent a line that is too long; is this payrelay's TCP port?";
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_as_they_went_in() {
        let mut reader = LineReader::default();
        reader.fill(&mut &b"{\"a\":"[..]).expect("bytes");
        assert_eq!(reader.take_line(), None);
        reader.fill(&mut &b" 1}\r\nx\n\nhalf"[..]).expect("bytes");
        assert_eq!(reader.take_line(), Some(b"{\"a\": 1}\r\n".to_vec()));
        assert_eq!(reader.take_line(), Some(b"x\n".to_vec()));
        assert_eq!(reader.take_line(), Some(b"\n".to_vec()));
        assert_eq!(reader.take_line(), None);
        assert_eq!(reader.buffer, b"half");
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut reader = LineReader::default();
        let mut endless = io::repeat(b'x');
        let error = loop {
            match reader.fill(&mut endless) {
                Ok(_) => assert_eq!(reader.take_line(), None),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(reader.buffer.len() <= MAX_LINE_BYTES);
    }
}
