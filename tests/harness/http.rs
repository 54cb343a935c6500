//! An HTTP client that hides nothing: one connection, kept alive, whole answers, and raw bytes where a test needs them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::READ_LIMIT;

/// One answer, as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}) in {}", self.show()))
    }

    /// The lines of an `application/x-ndjson` answer.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"))).collect()
    }

    /// A field of the answer that is text, or `""`.
    #[track_caller]
    pub fn field(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn seq(&self) -> u64 {
        self.json()["seq"].as_u64().unwrap_or_else(|| panic!("no seq in {}", self.show()))
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.show());
        self
    }

    /// Checks that this is a problem as RFC 9457 has it, with this status and code.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Answer {
        let answer = self.expect_any_problem(status);
        assert_eq!(answer.field("code"), code, "{}", answer.show());
        answer
    }

    /// The same, whatever the code is.
    #[track_caller]
    pub fn expect_any_problem(self, status: u16) -> Answer {
        let answer = self.expect(status);
        let kind = answer.header("Content-Type").unwrap_or_default();
        assert!(kind.starts_with("application/problem+json"), "{}", answer.show());
        let problem = answer.json();
        assert_eq!(problem["type"], "about:blank", "{}", answer.show());
        assert_eq!(problem["status"], u64::from(status), "{}", answer.show());
        for text in ["title", "code", "detail"] {
            assert!(problem[text].as_str().is_some_and(|t| !t.is_empty()), "no {text}: {}", answer.show());
        }
        answer
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub fn show(&self) -> String {
        format!("{} {:?}\n{}", self.status, self.headers, self.text())
    }
}

/// One connection to an HTTP port.
#[derive(Debug)]
pub struct Http {
    stream: TcpStream,
    host: String,
    /// What was read beyond the last answer.
    ahead: Vec<u8>,
    limit: Duration,
}

impl Http {
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Http {
        Http::try_connect(addr).unwrap_or_else(|e| panic!("no connection to http://{addr}: {e}"))
    }

    pub fn try_connect(addr: SocketAddr) -> io::Result<Http> {
        let stream = TcpStream::connect_timeout(&addr, READ_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(READ_LIMIT))?;
        Ok(Http { stream, host: addr.to_string(), ahead: Vec::new(), limit: READ_LIMIT })
    }

    /// How long an answer may take; for requests that wait.
    pub fn patient(mut self, limit: Duration) -> Http {
        self.limit = limit;
        self
    }

    #[track_caller]
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let answer = self.try_send(method, path, headers, body);
        answer.unwrap_or_else(|e| panic!("no answer to {method} {path}: {e}"))
    }

    pub fn try_send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        self.try_ask(method, path, headers, body)?;
        self.try_answer(method == "HEAD")
    }

    /// Sends a request and leaves the answer for [`Http::answer`].
    #[track_caller]
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) {
        let sent = self.try_ask(method, path, headers, body);
        sent.unwrap_or_else(|e| panic!("cannot send {method} {path}: {e}"));
    }

    pub fn try_ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        match self.stream.write_all(&bytes) {
            // The server may have answered and closed before it read all of it: the answer is there to be read.
            Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            sent => sent,
        }
    }

    #[track_caller]
    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("bytes to an HTTP port");
    }

    /// The same, where the server may have closed already.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Whether something has come that was not read yet, if only the end.
    pub fn has_more(&self) -> bool {
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(1)));
        self.stream.peek(&mut [0]).is_ok()
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.try_answer(false).unwrap_or_else(|e| panic!("no answer: {e}"))
    }

    pub fn try_answer(&mut self, head_only: bool) -> io::Result<Answer> {
        let deadline = Instant::now() + self.limit;
        loop {
            if let Some((answer, used)) = parse(&self.ahead, head_only, false)? {
                self.ahead.drain(..used);
                return Ok(answer);
            }
            if self.read_more(deadline)? == 0 {
                return match parse(&self.ahead, head_only, true)? {
                    Some((answer, used)) => {
                        self.ahead.drain(..used);
                        Ok(answer)
                    }
                    None => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// We send no more; the server may.
    pub fn half_close(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// True if the server closes the connection now, without another byte.
    pub fn is_closed(&mut self) -> bool {
        let deadline = Instant::now() + self.limit;
        self.ahead.is_empty() && matches!(self.read_more(deadline), Ok(0))
    }

    /// True if the server has ended the connection meanwhile, or said something unasked: before a next request.
    pub fn is_stale(&self) -> bool {
        let looked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let back = self.stream.set_nonblocking(false);
        back.is_err() || !matches!(looked, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    fn read_more(&mut self, deadline: Instant) -> io::Result<usize> {
        read_more(&self.stream, &mut self.ahead, deadline)
    }
}

/// Reads once; 0 is the end. A reset is an end too.
fn read_more(mut stream: &TcpStream, into: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    let mut chunk = vec![0; 64 << 10];
    match stream.read(&mut chunk) {
        Ok(count) => {
            into.extend_from_slice(&chunk[..count]);
            Ok(count)
        }
        // A machine that was stopped and goes on: nothing has come, and nothing is wrong.
        Err(e) if e.kind() == io::ErrorKind::Interrupted => read_more(stream, into, deadline),
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(0),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
        Err(e) => Err(e),
    }
}

/// What came back for raw bytes.
#[derive(Debug)]
pub struct Raw {
    pub bytes: Vec<u8>,
    /// The server ended the connection; false where we gave up waiting.
    pub closed: bool,
}

impl Raw {
    /// All answers that the bytes hold; the interim ones (1xx) are left out.
    #[track_caller]
    pub fn answers(&self) -> Vec<Answer> {
        let (mut found, mut rest) = (Vec::new(), &self.bytes[..]);
        while !rest.is_empty() {
            match parse(rest, false, true) {
                Ok(Some((answer, used))) => {
                    found.push(answer);
                    rest = &rest[used..];
                }
                other => panic!("not an answer ({other:?}): {}", String::from_utf8_lossy(rest)),
            }
        }
        found
    }

    #[track_caller]
    pub fn only_answer(&self) -> Answer {
        let mut answers = self.answers();
        assert_eq!(answers.len(), 1, "one answer: {}", String::from_utf8_lossy(&self.bytes));
        answers.remove(0)
    }
}

/// Sends bytes as they are and reads until the server closes, or for [`READ_LIMIT`].
pub fn raw(addr: SocketAddr, bytes: &[u8]) -> Raw {
    raw_within(addr, bytes, READ_LIMIT)
}

/// The same, giving up after `limit`.
pub fn raw_within(addr: SocketAddr, bytes: &[u8], limit: Duration) -> Raw {
    let stream = TcpStream::connect_timeout(&addr, READ_LIMIT).expect("a connection to the HTTP port");
    stream.set_write_timeout(Some(READ_LIMIT)).expect("a time limit");
    // The server may close before it has read all of it: then there is still an answer to read.
    let _ = (&stream).write_all(bytes);
    read_to_end(&stream, limit)
}

/// Sends bytes, says that no more will come, and reads until the server closes.
pub fn raw_half_closed(addr: SocketAddr, bytes: &[u8]) -> Raw {
    let stream = TcpStream::connect_timeout(&addr, READ_LIMIT).expect("a connection to the HTTP port");
    let _ = (&stream).write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    read_to_end(&stream, READ_LIMIT)
}

fn read_to_end(stream: &TcpStream, limit: Duration) -> Raw {
    let deadline = Instant::now() + limit;
    let mut bytes = Vec::new();
    loop {
        match read_more(stream, &mut bytes, deadline) {
            Ok(0) => return Raw { bytes, closed: true },
            Ok(_) => {}
            Err(_) => return Raw { bytes, closed: false },
        }
    }
}

/// One request, one connection.
#[track_caller]
pub fn request(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Http::connect(addr).send(method, path, headers, body)
}

/// Takes one answer off the front of `bytes`: it and its length, or nothing as long as it is not whole.
fn parse(bytes: &[u8], head_only: bool, at_end: bool) -> io::Result<Option<(Answer, usize)>> {
    let wrong = |what: &str| io::Error::other(format!("{what}: {}", String::from_utf8_lossy(bytes)));
    let Some(head_end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|_| wrong("not UTF-8"))?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let status: u16 = status.ok_or_else(|| wrong("not a status line"))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("not a header"))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    let start = head_end + 4;
    let rest = &bytes[start..];
    if (100..200).contains(&status) {
        let next = parse(rest, head_only, at_end)?;
        return Ok(next.map(|(answer, used)| (answer, start + used)));
    }
    if head_only || status == 204 || status == 304 {
        return Ok(Some((answer, start)));
    }
    if answer.header("Transfer-Encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked")) {
        let Some((body, used)) = dechunk(rest)? else {
            return Ok(None);
        };
        answer.body = body;
        return Ok(Some((answer, start + used)));
    }
    if let Some(length) = answer.header("Content-Length") {
        let length: usize = length.parse().map_err(|_| wrong("not a length"))?;
        if rest.len() < length {
            return Ok(None);
        }
        answer.body = rest[..length].to_vec();
        return Ok(Some((answer, start + length)));
    }
    if !at_end {
        return Ok(None);
    }
    answer.body = rest.to_vec();
    Ok(Some((answer, bytes.len())))
}

fn dechunk(bytes: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(line_end) = bytes[at..].windows(2).position(|w| w == b"\r\n") else {
            return Ok(None);
        };
        let line = String::from_utf8_lossy(&bytes[at..at + line_end]);
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        at += line_end + 2;
        if bytes.len() < at + size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&bytes[at..at + size]);
        at += size + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}
