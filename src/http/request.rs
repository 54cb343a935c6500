//! A bounded, strict request: what its head may look like, as a value.
//!
//! Whatever two readers of HTTP could understand differently is refused, for a proxy may stand before us and then a
//! doubt about where a request ends lets one sender's bytes become another's request. Where a head ends is found in
//! `head_end`; `parse` makes the value, and asks `target` and `fields` what its parts mean. Bodies are
//! [`super::body`]'s, reading and answering the doors'. Values only; they are made on the thread of the connection.

mod fields;
mod head_end;
mod parse;
mod target;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Instant;

use percent_encoding::percent_decode_str;
use tiny_http::Method;

use super::Problem;
use crate::auth::Asker;
pub(super) use head_end::{HeadEnd, line_length};

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

impl Head {
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

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const LIMIT: usize = crate::http::door::MAX_HEAD_BYTES;

    /// Finds and parses a head, as the strict door does.
    pub(super) fn read(text: impl AsRef<[u8]>) -> Result<Head, (u16, &'static str)> {
        let bytes = text.as_ref();
        let found = HeadEnd::default().find(bytes, LIMIT).and_then(|end| match end {
            Some(end) => Head::parse(&bytes[..end]),
            None => Err(Problem::too_slow()),
        });
        found.map_err(|problem| (problem.status(), problem.code()))
    }

    pub(super) fn get(fields: &str) -> Result<Head, (u16, &'static str)> {
        read(format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
    }

    pub(super) fn refusal(text: impl AsRef<[u8]>) -> u16 {
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
    fn a_post_must_say_how_long_it_is() {
        let lacks = |line: &str| read(format!("{line}\r\nHost: x\r\n\r\n")).expect("it is valid").lacks_length();
        assert!(lacks("POST / HTTP/1.1") && lacks("PUT / HTTP/1.0"));
        assert!(!lacks("GET / HTTP/1.1") && !lacks("DELETE / HTTP/1.1"));
    }

    #[test]
    fn a_debug_shows_no_key() {
        let head = get("Authorization: Bearer secret-of-ours\r\n").expect("it is valid");
        assert!(!format!("{head:?}").contains("secret"));
    }
}
