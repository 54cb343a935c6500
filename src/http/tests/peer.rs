//! The sender's side of a connection, for the tests of the doors: what it says, and what it expects to read.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// The other side of a connection.
pub(super) struct Peer {
    pub(super) socket: TcpStream,
    input: Vec<u8>,
}

/// An answer, read whole.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn closes(&self) -> bool {
        self.head.contains("\r\nConnection: close\r\n")
    }

    /// The status and the code of a problem.
    pub(super) fn problem(&self) -> (u16, String) {
        assert!(self.head.contains("application/problem+json"), "{self:?}");
        let page: serde_json::Value = serde_json::from_str(&self.body).expect("it is JSON");
        assert_eq!(page["status"], self.status);
        (self.status, page["code"].as_str().expect("a code").to_string())
    }
}

impl Peer {
    pub(super) fn connect(address: SocketAddr) -> Peer {
        let socket = TcpStream::connect(address).expect("the door is open");
        socket.set_read_timeout(Some(PATIENCE)).expect("it is set");
        Peer { socket, input: Vec::new() }
    }

    pub(super) fn say(&mut self, text: impl AsRef<[u8]>) {
        self.socket.write_all(text.as_ref()).expect("it is taken");
    }

    /// A proper request; returns the body of its answer.
    pub(super) fn ask(&mut self, line: &str, body: &str) -> String {
        let length = body.len();
        self.say(format!("{line}\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"));
        let reply = self.reply();
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    }

    fn more(&mut self) -> usize {
        let mut piece = [0; 65_536];
        let read = self.socket.read(&mut piece).expect("it comes in time");
        self.input.extend_from_slice(&piece[..read]);
        read
    }

    /// A head, without what follows it.
    pub(super) fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.input.drain(..end + 4).collect();
                return String::from_utf8(head).expect("it is text");
            }
            let came = String::from_utf8_lossy(&self.input).into_owned();
            assert!(self.more() > 0, "closed after {came:?}");
        }
    }

    pub(super) fn reply(&mut self) -> Reply {
        self.reply_to(false)
    }

    pub(super) fn reply_to(&mut self, head_only: bool) -> Reply {
        let head = self.head();
        let status = head[9..12].parse().expect("a status");
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().expect("a number"));
        let length = if head_only { 0 } else { length };
        while self.input.len() < length {
            assert!(self.more() > 0, "closed in the middle of a body");
        }
        let body = self.input.drain(..length).collect();
        Reply { status, head, body: String::from_utf8(body).expect("it is text") }
    }

    /// Everything until the connection is closed.
    pub(super) fn rest(&mut self) -> String {
        while self.more() > 0 {}
        String::from_utf8(std::mem::take(&mut self.input)).expect("it is text")
    }

    /// The connection is closed, properly, and nothing more is said.
    pub(super) fn expect_end(&mut self) {
        assert_eq!(self.rest(), "");
    }

    /// A problem that ends the connection.
    pub(super) fn expect_problem(&mut self, status: u16, code: &str) {
        let reply = self.reply();
        assert_eq!(reply.problem(), (status, code.to_string()));
        assert!(reply.closes(), "{reply:?}");
        self.expect_end();
    }
}
