//! A bounded, strict request: what its head may look like, as a value.
//!
//! Whatever two readers of HTTP could understand differently is refused, for a proxy may stand before us and then a
//! doubt about where a request ends lets one sender's bytes become another's request. Bodies are [`super::body`]'s,
//! reading and answering the doors'. Values only; they are made on the thread of the connection.

use std::borrow::Cow;
use std::fmt;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ops::Range;
use std::str::FromStr;
use std::time::Instant;

use percent_encoding::percent_decode_str;
use tiny_http::Method;

use super::Problem;
use crate::auth::Asker;

/// The most fields that a head may have.
pub(crate) const MAX_FIELDS: usize = 64;

/// A whole request.
pub(crate) struct Request {
    /// Everything before the body.
    pub(crate) head: Head,
    /// The body, without its framing; empty if there was none.
    pub(crate) body: Vec<u8>,
    /// Who sent it, as the socket says: behind a proxy, the proxy.
    pub(crate) peer: SocketAddr,
    /// Whose key it showed.
    pub(crate) asker: Asker,
    /// When it began to come; none where it came whole, just now, or nobody knows.
    pub(crate) begun: Option<Instant>,
}

/// The versions that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.0: one request a connection unless both sides say `keep-alive`, and no chunks.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// No body, and no word about one.
    None,
    /// So many bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The request line and the fields, checked.
pub(crate) struct Head {
    method: Method,
    version: Version,
    framing: Framing,
    keep_alive: bool,
    expects_continue: bool,
    /// The path, the query, and then each field's name and value, one behind the other: one allocation for all.
    text: String,
    path_end: usize,
    /// Equal to `path_end` if there is no `?`.
    target_end: usize,
    fields: Vec<Field>,
}

/// Where a field lies in the text; it begins where its predecessor ends.
#[derive(Clone, Copy)]
struct Field {
    start: u32,
    name_end: u32,
    end: u32,
}

/// How parts of the path may fail to be text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotText;

impl From<NotText> for Problem {
    fn from(NotText: NotText) -> Problem {
        Problem::bad_request("the path is not UTF-8")
    }
}

/// Finds the end of a head in what has come so far, each line looked at once it is there.
#[derive(Default)]
pub(super) struct HeadEnd {
    line_start: usize,
}

impl HeadEnd {
    /// The length of the head with its last empty line, or `None` if more has to come.
    ///
    /// `input` begins with the head, and each time with the same bytes.
    ///
    /// # Errors
    ///
    /// 400 for a line end or a control character that HTTP does not know, 431 for a head longer than `limit`.
    pub(super) fn find(&mut self, input: &[u8], limit: usize) -> Result<Option<usize>, Problem> {
        while let Some(length) = line_length(&input[self.line_start..])? {
            let end = self.line_start + length + 2;
            if end > limit {
                return Err(too_long(limit));
            }
            if length == 0 {
                return Ok(Some(end));
            }
            self.line_start = end;
        }
        if input.len() >= limit {
            return Err(too_long(limit));
        }
        Ok(None)
    }
}

fn too_long(limit: usize) -> Problem {
    Problem::head_too_large(format!("the request line and the fields have more than {limit} bytes"))
}

/// The length of the line that `input` begins with, without its CR LF, or `None` if that has not come yet.
///
/// # Errors
///
/// 400 if a control character comes first. A bare CR or LF is one: readers differ on whether it ends a line.
pub(super) fn line_length(input: &[u8]) -> Result<Option<usize>, Problem> {
    let Some(end) = input.iter().position(|&byte| (byte < b' ' && byte != b'\t') || byte == 0x7f) else {
        return Ok(None);
    };
    match &input[end..] {
        [b'\r', b'\n', ..] => Ok(Some(end)),
        [b'\r'] => Ok(None),
        _ => Err(Problem::bad_request("a control character in the head, or a line end that is not CR LF")),
    }
}

impl Head {
    /// Checks a head and keeps what is in it. `bytes` ends with the empty line.
    ///
    /// # Errors
    ///
    /// 400 for what is malformed or ambiguous, 417 for an unknown `Expect`, 431 for too many
    /// fields, 505 for another version. After any of them nobody knows where the request ends: close.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Head, Problem> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut raw = httparse::Request::new(&mut []);
        let length = match raw.parse_with_uninit_headers(bytes, &mut fields) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Err(malformed("it is cut short")),
            Err(error) => return Err(explain(error, bytes)),
        };
        // httparse also takes bare line feeds and skips leading empty lines; neither leads to a head of this length
        // when all lines end in CR LF, which the doors have checked. Here for callers that have not.
        if length != bytes.len() || bytes.first() == Some(&b'\r') {
            return Err(malformed("it does not end where its first empty line is"));
        }
        Head::from_raw(&raw)
    }

    fn from_raw(raw: &httparse::Request<'_, '_>) -> Result<Head, Problem> {
        let (Some(method), Some(target), Some(minor)) = (raw.method, raw.path, raw.version) else {
            return Err(malformed("the request line is incomplete"));
        };
        let version = match minor {
            0 => Version::Http10,
            _ => Version::Http11,
        };
        let (path, query) = split_target(method, target)?;
        let method = Method::from_str(method).map_err(|()| malformed("the method is not ASCII"))?;

        let mut head = Head {
            method,
            version,
            framing: Framing::None,
            keep_alive: false,
            expects_continue: false,
            text: String::with_capacity(text_length(path, query, raw.headers)),
            path_end: 0,
            target_end: 0,
            fields: Vec::with_capacity(raw.headers.len()),
        };
        head.keep_target(path, query);
        head.keep_fields(raw.headers);
        head.check_host()?;
        head.framing = head.read_framing()?;
        head.expects_continue = head.read_expect()?;
        head.keep_alive = head.read_keep_alive();
        Ok(head)
    }

    fn keep_target(&mut self, path: &str, query: Option<&str>) {
        self.text.push_str(path);
        self.path_end = self.text.len();
        if let Some(query) = query {
            self.text.push('?');
            self.text.push_str(query);
        }
        self.target_end = self.text.len();
    }

    fn keep_fields(&mut self, fields: &[httparse::Header<'_>]) {
        for field in fields {
            let start = offset(&self.text);
            self.text.push_str(field.name);
            let name_end = offset(&self.text);
            // Bytes that are no text become U+FFFD. Left out, an id of such bytes would count as none at all; so it
            // is there, and nothing that we take has that character in it.
            self.text.push_str(&String::from_utf8_lossy(field.value));
            let end = offset(&self.text);
            self.fields.push(Field { start, name_end, end });
        }
    }

    /// The method.
    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// The version.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The path as it came, still percent-encoded; of an absolute target, the part behind the host. `*` stays `*`.
    pub(crate) fn path(&self) -> &str {
        &self.text[..self.path_end]
    }

    /// What follows the first `?`, as it came.
    pub(crate) fn query(&self) -> Option<&str> {
        self.text[self.path_end..self.target_end].strip_prefix('?')
    }

    /// The segments of the path, percent-decoded; `/` has one, which is empty.
    ///
    /// Split first and decoded then: an encoded slash belongs to its segment.
    ///
    /// # Errors
    ///
    /// A segment is not UTF-8.
    pub(crate) fn path_segments(&self) -> Result<Vec<Cow<'_, str>>, NotText> {
        let path = self.path();
        path.strip_prefix('/')
            .unwrap_or(path)
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8().or(Err(NotText)))
            .collect()
    }

    /// The pairs of the query, decoded as a form is.
    pub(crate) fn query_pairs(&self) -> form_urlencoded::Parse<'_> {
        form_urlencoded::parse(self.query().unwrap_or_default().as_bytes())
    }

    /// The value of the first field of this name, whatever its letters' case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers_named(name).next()
    }

    /// The values of all fields of this name, in the order they came.
    pub(crate) fn headers_named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers().filter(move |(is, _)| is.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All fields, name and value, in the order they came.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|field| {
            let part = |range: Range<u32>| &self.text[range.start as usize..range.end as usize];
            (part(field.start..field.name_end), part(field.name_end..field.end))
        })
    }

    /// How the end of the body is found.
    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether a body follows.
    pub(crate) fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// Whether it is one of the methods that have a body, and not a word says how long it is.
    pub(crate) fn lacks_length(&self) -> bool {
        let with_body = matches!(self.method, Method::Post | Method::Put | Method::Patch);
        with_body && self.framing == Framing::None
    }

    /// Whether the sender holds the body back until it is told to go on.
    pub(crate) fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Whether the sender would use the connection for another request.
    pub(crate) fn keep_alive(&self) -> bool {
        self.keep_alive
    }

    /// Source: RFC 9112, section 3.2.
    fn check_host(&self) -> Result<(), Problem> {
        let mut hosts = self.headers_named("host");
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(malformed("more than one Host"));
        }
        match host {
            None if self.version == Version::Http11 => Err(malformed("Host is missing")),
            Some(host) if !host.bytes().all(is_host_byte) => Err(malformed("the Host is not a host")),
            _ => Ok(()),
        }
    }

    /// Source: RFC 9112, section 6.3, and stricter: where it lets us guess, we refuse.
    fn read_framing(&self) -> Result<Framing, Problem> {
        let mut encodings = self.headers_named("transfer-encoding");
        let mut lengths = self.headers_named("content-length");
        let (encoding, length) = (encodings.next(), lengths.next());
        if encodings.next().is_some() || lengths.next().is_some() {
            return Err(malformed("more than one Content-Length or Transfer-Encoding"));
        }
        match (encoding, length) {
            (None, None) => Ok(Framing::None),
            (None, Some(digits)) => content_length(digits).map(Framing::Length),
            (Some(_), Some(_)) => Err(malformed("both Content-Length and Transfer-Encoding are there")),
            (Some(_), None) if self.version == Version::Http10 => Err(malformed("HTTP/1.0 has no Transfer-Encoding")),
            (Some(coding), None) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (Some(_), None) => Err(malformed("the only Transfer-Encoding taken is chunked")),
        }
    }

    /// Source: RFC 9110, section 10.1.1; HTTP/1.0 knows no 100, so there it says nothing.
    fn read_expect(&self) -> Result<bool, Problem> {
        let mut expects = false;
        for value in self.headers_named("expect") {
            if !value.eq_ignore_ascii_case("100-continue") {
                return Err(Problem::expectation_failed());
            }
            expects = true;
        }
        Ok(expects && self.version == Version::Http11)
    }

    /// Source: RFC 9112, section 9.3. Whole tokens only: `x-close` is not `close`.
    fn read_keep_alive(&self) -> bool {
        let says = |token: &str| {
            self.headers_named("connection")
                .flat_map(|list| list.split(','))
                .any(|word| word.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
        };
        match self.version {
            // Whoever believes that it got through sends something else than HTTP next.
            _ if self.method == Method::Connect => false,
            Version::Http11 => !says("close"),
            Version::Http10 => says("keep-alive") && !says("close"),
        }
    }
}

/// Neither the path (it may hold a gateway's token) nor the fields (keys): a `Debug` may end in a log.
impl fmt::Debug for Head {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Head")
            .field("method", &self.method.as_str())
            .field("version", &self.version)
            .field("framing", &self.framing)
            .field("fields", &self.fields.len())
            .finish_non_exhaustive()
    }
}

fn malformed(detail: &'static str) -> Problem {
    Problem::bad_request(detail)
}

fn explain(error: httparse::Error, bytes: &[u8]) -> Problem {
    match error {
        httparse::Error::TooManyHeaders => Problem::head_too_large(format!("more than {MAX_FIELDS} fields")),
        httparse::Error::Version if has_other_version(bytes) => Problem::version_not_supported(),
        httparse::Error::HeaderName => {
            malformed("the name of a field is not a token, is not followed by its colon, or the line is folded")
        }
        httparse::Error::HeaderValue => malformed("a character that no field may have"),
        _ => malformed("the request line is not: method, target, version"),
    }
}

/// Whether the request line is a proper one but for its version, so that a 505 says more than a 400.
fn has_other_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r').next().unwrap_or(bytes);
    let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
    match words[..] {
        [_, _, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]] => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    }
}

/// Path and query of the request target.
///
/// Source: RFC 9112, section 3.2. `#` has no place in a target, and readers differ on what it means there.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(&'a str, Option<&'a str>), Problem> {
    if !target.is_ascii() || target.contains('#') {
        return Err(malformed("a character that no target may have"));
    }
    // A host and a port, and no path. What is said to it is the service's, which may want a key first.
    if method == "CONNECT" {
        return Ok((target, None));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((target, None));
    }
    let local = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => behind_host(&target[7..])?,
        _ => target,
    };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    };
    match path {
        // Only behind a host: `GET ? HTTP/1.1` has no path at all.
        "" if local.len() < target.len() => Ok(("/", query)),
        _ if path.starts_with('/') => Ok((path, query)),
        _ => Err(malformed("the target is neither a path nor an http:// URL")),
    }
}

fn behind_host(rest: &str) -> Result<&str, Problem> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, local) = rest.split_at(end);
    if host.is_empty() || !host.bytes().all(is_host_byte) {
        return Err(malformed("the target's host is not a host"));
    }
    Ok(local)
}

/// What a host and its port are written with. Neither `@` nor `,`, which make readers differ on which host is meant.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

/// Digits only: no sign, no list, no blanks. A number past all bounds is only too large, which is for the limit to say.
fn content_length(digits: &str) -> Result<u64, Problem> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed("Content-Length is not a number"));
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

fn text_length(path: &str, query: Option<&str>, fields: &[httparse::Header<'_>]) -> usize {
    let fields: usize = fields.iter().map(|field| field.name.len() + field.value.len()).sum();
    path.len() + query.map_or(0, |query| query.len() + 1) + fields
}

fn offset(text: &str) -> u32 {
    u32::try_from(text.len()).expect("a head is a few KiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = crate::http::door::MAX_HEAD_BYTES;

    /// Finds and parses a head, as the strict door does.
    fn read(text: impl AsRef<[u8]>) -> Result<Head, (u16, &'static str)> {
        let bytes = text.as_ref();
        let found = HeadEnd::default().find(bytes, LIMIT).and_then(|end| match end {
            Some(end) => Head::parse(&bytes[..end]),
            None => Err(Problem::too_slow()),
        });
        found.map_err(|problem| (problem.status(), problem.code()))
    }

    fn get(fields: &str) -> Result<Head, (u16, &'static str)> {
        read(format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
    }

    fn refusal(text: impl AsRef<[u8]>) -> u16 {
        match read(&text) {
            Ok(_) => panic!("taken: {}", text.as_ref().escape_ascii()),
            Err((status, _)) => status,
        }
    }

    #[test]
    fn a_plain_head_is_understood() {
        let head = read(
            "POST /v1/clients/a%2Fb/payments?payment_id=wx%201&x= HTTP/1.1\r\n\
             Host: example.com:8080\r\nContent-Type:application/json \r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 7\r\n\r\n",
        )
        .expect("it is valid");
        assert_eq!(*head.method(), Method::Post);
        assert_eq!(head.version(), Version::Http11);
        assert_eq!(head.path(), "/v1/clients/a%2Fb/payments");
        assert_eq!(head.query(), Some("payment_id=wx%201&x="));
        assert_eq!(head.path_segments().expect("it is text"), ["v1", "clients", "a/b", "payments"]);
        let pairs: Vec<_> = head.query_pairs().collect();
        assert_eq!(pairs, [("payment_id".into(), "wx 1".into()), ("x".into(), "".into())]);
        assert_eq!(head.header("CONTENT-TYPE"), Some("application/json"));
        assert_eq!(head.headers_named("X-a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.header("absent"), None);
        assert_eq!(head.framing(), Framing::Length(7));
        assert!(head.keep_alive() && head.has_body() && !head.lacks_length());
    }

    #[test]
    fn targets() {
        let target = |target: &str| {
            read(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .map(|head| (head.path().to_string(), head.query().map(ToString::to_string)))
        };
        let path = |path: &str| Ok((path.to_string(), None));
        let both = |path: &str, query: &str| Ok((path.to_string(), Some(query.to_string())));
        assert_eq!(target("/"), path("/"));
        assert_eq!(target("/a?"), both("/a", ""));
        assert_eq!(target("/a?b?c"), both("/a", "b?c"));
        assert_eq!(target("//a//"), path("//a//"));
        assert_eq!(target("http://host:80/a/b?c"), both("/a/b", "c"));
        assert_eq!(target("HTTP://host"), path("/"));
        assert_eq!(target("http://host?q"), both("/", "q"));
        assert_eq!(target("http://[::1]:80/"), path("/"));
        let bad = Err((400, "bad_request"));
        for refused in [
            "a",
            "?a",
            "*",
            "host:80",
            "https://host/",
            "http:///a",
            "http://",
            "http://u@host/",
            "http:/a",
            "/a#b",
            "/\u{e9}",
            "/\x7f",
        ] {
            assert_eq!(target(refused), bad, "{refused}");
        }
        let options = read("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is valid");
        assert_eq!(options.path(), "*");
    }

    #[test]
    fn after_a_connect_the_connection_ends() {
        let connect = read("CONNECT host:443 HTTP/1.1\r\nHost: host:443\r\n\r\n").expect("it is valid");
        assert_eq!((connect.path(), connect.query(), connect.keep_alive()), ("host:443", None, false));
    }

    #[test]
    fn segments_are_decoded_after_the_split() {
        let segments = |path: &str| {
            read(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
                .expect("it is valid")
                .path_segments()
                .map(|all| all.into_iter().map(Cow::into_owned).collect::<Vec<_>>())
        };
        assert_eq!(segments("/"), Ok(vec![String::new()]));
        assert_eq!(segments("/a/"), Ok(vec!["a".into(), String::new()]));
        assert_eq!(segments("/%C3%A9/%2e"), Ok(vec!["é".into(), ".".into()]));
        assert_eq!(segments("/a+b/%zz"), Ok(vec!["a+b".into(), "%zz".into()]));
        assert_eq!(segments("/%ff"), Err(NotText));
    }

    #[test]
    fn request_lines_have_exactly_three_words() {
        let line = |line: &str| refusal(format!("{line}\r\nHost: x\r\n\r\n"));
        for bad in [
            "GET /",
            "GET",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET / HTTP/1.1 x",
            " GET / HTTP/1.1",
            "GET\t/\tHTTP/1.1",
            "GET /a b HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/1",
            "GET / HTTP/11.1",
            "GET / HTTP/1.10",
            "GET / ICY/1.1",
            "G(T / HTTP/1.1",
            "GET HTTP/1.1",
            "{\"msg\":1}",
        ] {
            assert_eq!(line(bad), 400, "{bad}");
        }
        for other in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"] {
            assert_eq!(line(&format!("GET / {other}")), 505, "{other}");
        }
        assert_eq!(refusal("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
        // Methods we do not know are the routes' to refuse: they may be allowed elsewhere.
        let head = read("BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is valid");
        assert_eq!(head.method().as_str(), "BREW");
    }

    #[test]
    fn line_ends_are_cr_lf_and_nothing_else() {
        for bad in [
            &b"GET / HTTP/1.1\nHost: x\n\n"[..],
            b"GET / HTTP/1.1\r\nHost: x\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n\n",
            b"GET / HTTP/1.1\r\nHost: x\r\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n",
            b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA\0: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: \x0by\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nA: \x7f\r\n\r\n",
            b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ] {
            assert_eq!(refusal(bad), 400, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn fields_are_a_token_a_colon_and_a_value() {
        for bad in [
            "A : b\r\n",
            "A\t: b\r\n",
            " A: b\r\n",
            "A: b\r\n c\r\n",
            "A: b\r\n\tc\r\n",
            "A\r\n",
            ": b\r\n",
            "A(: b\r\n",
            "A\u{e9}: b\r\n",
            "A B: c\r\n",
            "Content-Length : 5\r\n",
            "Transfer-Encoding : chunked\r\n",
        ] {
            assert_eq!(get(bad).err(), Some((400, "bad_request")), "{bad}");
        }
        let head = get("Empty:\r\nTabs:\t\tx y\t\r\nName: \u{fc}\r\nColon: a: b\r\n").expect("it is valid");
        assert_eq!(head.header("empty"), Some(""));
        assert_eq!(head.header("tabs"), Some("x y"));
        assert_eq!(head.header("name"), Some("\u{fc}"));
        assert_eq!(head.header("colon"), Some("a: b"));
    }

    #[test]
    fn a_value_that_is_no_text_is_there_and_matches_nothing() {
        let head =
            read(b"GET / HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \xff\xfe\r\nB: c\r\n\r\n").expect("it is valid");
        assert_eq!(head.header("idempotency-key"), Some("\u{fffd}\u{fffd}"));
        assert_eq!(head.header("b"), Some("c"));
    }

    #[test]
    fn http_1_1_has_exactly_one_host() {
        assert_eq!(refusal("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(refusal("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"), 400);
        assert_eq!(refusal("GET / HTTP/1.0\r\nHost: x\r\nhost: y\r\n\r\n"), 400);
        for bad in ["a b", "a,b", "u@h", "a/b", "h\u{e9}"] {
            assert_eq!(refusal(format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n")), 400, "{bad}");
        }
        for good in ["", "h", "h:80", "[::1]:80", "a_b.c"] {
            assert!(read(format!("GET / HTTP/1.1\r\nHost: {good}\r\n\r\n")).is_ok(), "{good}");
        }
        assert!(read("GET / HTTP/1.0\r\n\r\n").is_ok());
    }

    #[test]
    fn lengths_are_digits_and_come_once() {
        let framing = |fields: &str| get(fields).map(|head| head.framing());
        for (digits, length) in
            [("0", 0), ("7", 7), ("007", 7), ("40000000000", 40_000_000_000), ("18446744073709551616", u64::MAX)]
        {
            assert_eq!(framing(&format!("Content-Length: {digits}\r\n")), Ok(Framing::Length(length)));
        }
        for bad in ["", "+5", "-5", "5,5", "5, 5", "5 5", "0x5", "5.0", "abc", "5;", "\u{665}", "1e3"] {
            assert_eq!(framing(&format!("Content-Length: {bad}\r\n")), Err((400, "bad_request")), "{bad}");
        }
        for twice in [
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\ncontent-length: 6\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
        ] {
            assert_eq!(framing(twice), Err((400, "bad_request")), "{twice}");
        }
    }

    #[test]
    fn the_only_encoding_is_chunked() {
        let framing = |fields: &str| get(fields).map(|head| head.framing());
        assert_eq!(framing("Transfer-Encoding: Chunked \r\n"), Ok(Framing::Chunked));
        for bad in [
            "",
            "identity",
            "gzip",
            "gzip, chunked",
            "chunked, gzip",
            "chunked, chunked",
            "chunked;q=1",
            "xchunked",
            "\"chunked\"",
            "chunked,",
        ] {
            assert_eq!(framing(&format!("Transfer-Encoding: {bad}\r\n")), Err((400, "bad_request")), "{bad}");
        }
        assert_eq!(refusal("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
        // Names that only resemble it are other fields.
        assert_eq!(framing("Transfer_Encoding: chunked\r\nX-Content-Length: 5\r\n"), Ok(Framing::None));
    }

    #[test]
    fn a_post_must_say_how_long_it_is() {
        let lacks = |line: &str| read(format!("{line}\r\nHost: x\r\n\r\n")).expect("it is valid").lacks_length();
        assert!(lacks("POST / HTTP/1.1") && lacks("PUT / HTTP/1.0"));
        assert!(!lacks("GET / HTTP/1.1") && !lacks("DELETE / HTTP/1.1"));
    }

    #[test]
    fn expectations() {
        let expects = |fields: &str| get(fields).map(|head| head.expects_continue());
        assert_eq!(expects(""), Ok(false));
        assert_eq!(expects("Expect: 100-Continue\r\n"), Ok(true));
        for unknown in ["100-continue, x", "x", ""] {
            assert_eq!(expects(&format!("Expect: {unknown}\r\n")), Err((417, "expectation_failed")));
        }
        let old = read("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
        assert!(!old.expect("it is valid").expects_continue());
    }

    #[test]
    fn connection_tokens_are_matched_whole() {
        let keeps = |line: &str, fields: &str| {
            read(format!("GET / {line}\r\nHost: x\r\n{fields}\r\n")).expect("it is valid").keep_alive()
        };
        assert!(keeps("HTTP/1.1", ""));
        assert!(keeps("HTTP/1.1", "Connection: x-close-y, closed\r\n"));
        assert!(keeps("HTTP/1.1", "Connection: upgrade\r\n"));
        assert!(!keeps("HTTP/1.1", "Connection: Close\r\n"));
        assert!(!keeps("HTTP/1.1", "Connection: keep-alive ,\tclose\r\n"));
        assert!(!keeps("HTTP/1.1", "Connection: a\r\nConnection: close\r\n"));
        assert!(!keeps("HTTP/1.0", ""));
        assert!(keeps("HTTP/1.0", "Connection: Keep-Alive\r\n"));
        assert!(!keeps("HTTP/1.0", "Connection: keep-alive, close\r\n"));
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        // The Host is one of them.
        let fields = |count: usize| get(&"A: b\r\n".repeat(count - 1));
        assert!(fields(MAX_FIELDS - 1).is_ok());
        assert!(fields(MAX_FIELDS).is_ok());
        assert_eq!(fields(MAX_FIELDS + 1).err(), Some((431, "head_too_large")));
    }

    #[test]
    fn the_length_of_a_head_is_bounded() {
        let head = |length: usize| {
            let rest = "GET / HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n".len();
            get(&format!("A: {}\r\n", "a".repeat(length - rest)))
        };
        assert!(head(LIMIT - 1).is_ok());
        assert!(head(LIMIT).is_ok());
        assert_eq!(head(LIMIT + 1).err(), Some((431, "head_too_large")));
        let long_target = format!("GET /{}", "a".repeat(LIMIT));
        assert_eq!(refusal(long_target), 431, "before its end has come");
    }

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let text = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut end = HeadEnd::default();
        for length in 0..text.len() {
            assert_eq!(end.find(&text[..length], LIMIT), Ok(None), "{length}");
        }
        assert_eq!(end.find(text, LIMIT), Ok(Some(text.len())));
    }

    #[test]
    fn a_debug_shows_no_key() {
        let head = get("Authorization: Bearer secret-of-ours\r\n").expect("it is valid");
        assert!(!format!("{head:?}").contains("secret"));
    }
}
