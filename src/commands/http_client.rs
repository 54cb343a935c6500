//! A small HTTP/1.1 client for `send` and `status`: one request, one connection, one deadline.
//!
//! What a path means, and which statuses are good, is left to the commands. No TLS.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{Failure, connect, plainly, printable};
use crate::args::Secret;

/// The time for a whole exchange, beside what the server is asked to wait.
const ANSWER_TIME: Duration = Duration::from_secs(10);
const MAX_HEAD_BYTES: u64 = 16 * 1024;
const MAX_FIELDS: usize = 64;
/// A page of 1,000 clients is about 300 KB.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
/// RFC 3986's unreserved characters stay as they are.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A text as it stands in a path or a query.
pub(super) fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A node's HTTP side, and the key to show there.
pub(super) struct HttpClient<'a> {
    target: Target,
    key: Option<&'a Secret>,
}

/// Where requests go: a URL, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// As it stands in the `Host` field.
    pub(super) host: String,
    /// `host:port`, to connect to.
    pub(super) address: String,
    /// What stands before every path, without a slash at its end.
    pub(super) base: String,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Target {
    /// Reads the address that `flag` was given: `http://host[:port][/base]`. Opens nothing yet.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`]: it is something else.
    pub(super) fn parse(flag: &str, url: &str) -> Result<Target, Failure> {
        let refuse = |why: &str| Err(Failure::Usage(format!("{flag}: {why}; give it as http://127.0.0.1:8080")));
        let Some((scheme, rest)) = url.split_once("://") else {
            return refuse("the URL does not begin with http://");
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => {
                return refuse(
                    "https:// is not supported, this command speaks plain HTTP: name the node itself, or a tunnel to it",
                );
            }
            _ => return refuse("the URL does not begin with http://"),
        }
        let (host, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if host.contains('@') {
            return refuse("the URL takes no user or password (an API key goes into --api-key)");
        }
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#\\\"<>".contains(&byte);
        if host.is_empty() || !rest.bytes().all(is_plain) {
            return refuse("the URL holds no host, or characters that none can have");
        }
        let Some(address) = with_port(host) else {
            return refuse("the URL's port cannot be read");
        };
        Ok(Target { host: host.to_owned(), address, base: base.trim_end_matches('/').to_owned() })
    }
}

/// Refuses a key that cannot stand in a header.
///
/// # Errors
///
/// [`Failure::Usage`]; the key is not shown.
pub(super) fn check_key(key: Option<&Secret>) -> Result<(), Failure> {
    if key.is_some_and(|key| !is_header_value(key.expose())) {
        let line = "--api-key: a key holds visible ASCII characters only; check that it is the key alone";
        return Err(Failure::Usage(line.to_owned()));
    }
    Ok(())
}

impl<'a> HttpClient<'a> {
    /// Reads the address, `http://host[:port][/base]`. Opens nothing yet.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`]: it is something else, or the key cannot stand in a header.
    pub(super) fn new(url: &str, key: Option<&'a Secret>) -> Result<HttpClient<'a>, Failure> {
        let target = Target::parse("--server", url)?;
        check_key(key)?;
        Ok(HttpClient { target, key })
    }

    /// Gets what is at `path`.
    ///
    /// # Errors
    ///
    /// [`Failure::Runtime`], naming the address: there is no answer, or not an HTTP one.
    pub(super) fn get(&self, path: &str) -> Result<Answer, Failure> {
        self.exchange("GET", path, None, Duration::ZERO)
    }

    /// Posts JSON to `path`, whose answer may take `wait` longer than others.
    ///
    /// # Errors
    ///
    /// As for [`HttpClient::get`]; the server may have done it all the same.
    pub(super) fn post(&self, path: &str, json: &[u8], wait: Duration) -> Result<Answer, Failure> {
        self.exchange("POST", path, Some(json), wait)
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&[u8]>, wait: Duration) -> Result<Answer, Failure> {
        let failed = |tried: &str, error: io::Error| {
            let (address, why) = (&self.target.address, plainly(&error));
            Failure::Runtime(printable(&format!("{tried} {address}: {why}")))
        };
        let stream = connect(&self.target.address).map_err(|error| failed("cannot connect to", error))?;
        let deadline = Instant::now() + ANSWER_TIME + wait;
        let mut wire = BufReader::new(Timed { stream, deadline });
        let request = self.request(method, path, body);
        // A server may refuse a body before it has read it: its answer says more than our error.
        let written = wire.get_mut().write_all(&request);
        match (read_answer(&mut wire), written) {
            (Ok(answer), _) => Ok(answer),
            (Err(_), Err(error)) => Err(failed("cannot send to", error)),
            (Err(error), Ok(())) => Err(failed("no usable answer from", error)),
        }
    }

    fn request(&self, method: &str, path: &str, body: Option<&[u8]>) -> Vec<u8> {
        let mut head = format!(
            "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: payrelay\r\nAccept: application/json\r\nConnection: close\r\n",
            self.target.base, self.target.host
        );
        if let Some(key) = self.key {
            head += &format!("Authorization: Bearer {}\r\n", key.expose());
        }
        if let Some(body) = body {
            let length = body.len();
            head += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        }
        let mut request = head.into_bytes();
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body.unwrap_or_default());
        request
    }
}

impl Answer {
    pub(super) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The problem that an answer tells: `401 unauthorized: the API key is missing or wrong`.
    pub(super) fn problem(&self) -> Failure {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Problem {
            title: Option<String>,
            code: Option<String>,
            detail: Option<String>,
        }
        let problem: Problem = serde_json::from_slice(&self.body).unwrap_or_default();
        let mut line = format!("the server refused: {}", self.status);
        if let Some(code) = problem.code.or(problem.title) {
            line += &format!(" {code}");
        }
        if let Some(detail) = problem.detail {
            line += &format!(": {detail}");
        }
        Failure::Runtime(printable(&line))
    }
}

/// `host` as an address to connect to; 80 is HTTP's port.
fn with_port(host: &str) -> Option<String> {
    let name_end = host.rfind(']').map_or(0, |at| at + 1);
    match host[name_end..].rsplit_once(':') {
        None => Some(format!("{host}:80")),
        Some((name, port)) => {
            let has_name = name_end > 0 || !name.is_empty();
            let is_port = port.parse::<u16>().is_ok_and(|port| port != 0);
            (has_name && is_port).then(|| host.to_owned())
        }
    }
}

fn is_header_value(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A stream of which every read and write ends by the deadline.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buf)
    }
}

impl Write for Timed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How an answer's body ends. Source: RFC 9112, section 6.3.
#[derive(Debug, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    Chunked,
    UntilClosed,
}

fn read_answer(wire: &mut impl BufRead) -> io::Result<Answer> {
    let (status, length) = loop {
        let (status, length) = read_head(wire)?;
        // 1xx: the real answer follows.
        if status >= 200 {
            break (status, length);
        }
    };
    let mut body = Vec::new();
    match length {
        Length::Bytes(count) if count > MAX_ANSWER_BYTES => return Err(too_long()),
        Length::Bytes(count) => read_exactly(wire, count, &mut body)?,
        Length::Chunked => read_chunks(wire, &mut body)?,
        Length::UntilClosed => {
            wire.take(MAX_ANSWER_BYTES + 1).read_to_end(&mut body)?;
            if body.len() as u64 > MAX_ANSWER_BYTES {
                return Err(too_long());
            }
        }
    }
    Ok(Answer { status, body })
}

fn read_head(wire: &mut impl BufRead) -> io::Result<(u16, Length)> {
    let mut head = Vec::new();
    let mut left = wire.take(MAX_HEAD_BYTES);
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        if left.read_until(b'\n', &mut head)? == 0 {
            return Err(match head.len() {
                0 => cut_off(),
                _ => not_http(),
            });
        }
        // Whoever does not speak HTTP may never send an empty line.
        if !head.starts_with(b"HTTP/1.") {
            return Err(not_http());
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(&head).map_err(|_| not_http())?;
    let status = response.code.ok_or_else(not_http)?;
    Ok((status, length_of(status, response.headers)?))
}

fn length_of(status: u16, fields: &[httparse::Header<'_>]) -> io::Result<Length> {
    let field = |name: &str| {
        let named = fields.iter().find(|f| f.name.eq_ignore_ascii_case(name));
        named.map(|field| String::from_utf8_lossy(field.value))
    };
    if status < 200 || status == 204 || status == 304 {
        return Ok(Length::Bytes(0));
    }
    if let Some(coding) = field("transfer-encoding") {
        return match coding.trim().eq_ignore_ascii_case("chunked") {
            true => Ok(Length::Chunked),
            false => Err(not_http()),
        };
    }
    match field("content-length") {
        Some(text) => text.trim().parse().map(Length::Bytes).map_err(|_| not_http()),
        None => Ok(Length::UntilClosed),
    }
}

fn read_exactly(wire: &mut impl BufRead, count: u64, body: &mut Vec<u8>) -> io::Result<()> {
    let read = wire.take(count).read_to_end(body)?;
    if (read as u64) < count {
        return Err(cut_off());
    }
    Ok(())
}

fn read_chunks(wire: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_short_line(wire)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| not_http())?;
        if size == 0 {
            // Trailers, up to the empty line.
            while !read_short_line(wire)?.is_empty() {}
            return Ok(());
        }
        if size > MAX_ANSWER_BYTES - body.len() as u64 {
            return Err(too_long());
        }
        read_exactly(wire, size, body)?;
        if !read_short_line(wire)?.is_empty() {
            return Err(not_http());
        }
    }
}

fn read_short_line(wire: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    wire.take(1024).read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(cut_off());
    }
    let line = String::from_utf8(line).map_err(|_| not_http())?;
    Ok(line.trim_end().to_owned())
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before the answer did")
}

fn not_http() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer; is this the HTTP port?")
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is longer than 64 MiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<HttpClient<'static>, Failure> {
        HttpClient::new(url, None)
    }

    fn answer(text: &str) -> io::Result<(u16, String)> {
        let answer = read_answer(&mut text.as_bytes())?;
        Ok((answer.status, String::from_utf8_lossy(&answer.body).into()))
    }

    #[test]
    fn a_server_is_named_by_its_url() {
        for (url, address, base) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080", ""),
            ("http://relay/", "relay:80", ""),
            ("HTTP://relay:81/pay/v/", "relay:81", "/pay/v"),
            ("http://[::1]", "[::1]:80", ""),
            ("http://[::1]:8080/x", "[::1]:8080", "/x"),
        ] {
            let client = client(url).unwrap_or_else(|error| panic!("{url}: {error}"));
            assert_eq!((&*client.target.address, &*client.target.base), (address, base));
        }
        for (url, says) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://relay", "https:// is not supported"),
            ("ftp://relay", "does not begin with http://"),
            ("http://joe:hunter2@relay", "--api-key"),
            ("http://", "no host"),
            ("http://:80", "port"),
            ("http://relay:0", "port"),
            ("http://relay:x", "port"),
            ("http://relay/\r\nX: y", "characters"),
            ("http://relay/?a=b", "characters"),
        ] {
            let error = client(url).err().map(|error| error.to_string());
            let error = error.unwrap_or_else(|| panic!("{url} was taken"));
            assert!(error.contains(says), "{url}: {error}");
            assert!(!error.contains("hunter2") && !error.contains('\n'));
        }
    }

    #[test]
    fn a_key_cannot_forge_a_header() {
        let key = Secret::from("hunter2\r\nX: y".to_owned());
        let error = HttpClient::new("http://h", Some(&key)).err();
        let line = error.expect("a bad key").to_string();
        assert!(!line.contains("hunter2"), "{line}");
    }

    #[test]
    fn a_client_id_fits_into_a_path() {
        assert_eq!(escaped("a:b@c.d_e-f"), "a%3Ab%40c.d_e-f");
    }

    #[test]
    fn a_request_has_one_length_and_the_key() {
        let key = Secret::from("k".to_owned());
        let client = HttpClient::new("http://h:1/b", Some(&key)).expect("a good URL");
        let request = client.request("POST", "/v1/payments", Some(b"{}"));
        let text = String::from_utf8(request).expect("text");
        assert!(text.starts_with("POST /b/v1/payments HTTP/1.1\r\nHost: h:1\r\n"));
        assert!(text.contains("\r\nAuthorization: Bearer k\r\n"));
        assert!(text.ends_with("\r\nContent-Length: 2\r\n\r\n{}"));
    }

    #[test]
    fn an_answer_is_read_to_its_end_and_no_further() {
        for (text, status, body) in [
            ("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}rest", 202, "{}"),
            ("HTTP/1.1 204 No Content\r\n\r\nrest", 204, ""),
            ("HTTP/1.0 200 OK\r\n\r\nto the end", 200, "to the end"),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", 200, ""),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: x\r\n\r\n",
                200,
                "abc0123456789",
            ),
        ] {
            assert_eq!(answer(text).expect(text), (status, body.to_owned()));
        }
    }

    #[test]
    fn half_an_answer_is_no_answer() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff0\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
            "{\"type\":\"error\",\"code\":\"bad_json\"}\n",
        ] {
            assert!(answer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_problem_is_told_in_one_line() {
        let told = |status, body: &str| {
            let body = body.as_bytes().to_vec();
            Answer { status, body }.problem().to_string()
        };
        assert_eq!(
            told(400, r#"{"title":"Bad Request","code":"bad_json","detail":"line 1\nx"}"#),
            "the server refused: 400 bad_json: line 1 x"
        );
        assert_eq!(told(502, "<html>"), "the server refused: 502");
    }
}
