//! What a head's fields say of the whole request: its host, where its body ends, and what comes after it.

use tiny_http::Method;

use super::target::is_host_byte;
use super::{Framing, Head, Version, malformed};
use crate::http::Problem;

impl Head {
    /// Source: RFC 9112, section 3.2.
    pub(super) fn check_host(&self) -> Result<(), Problem> {
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
    pub(super) fn read_framing(&self) -> Result<Framing, Problem> {
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
    pub(super) fn read_expect(&self) -> Result<bool, Problem> {
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
    pub(super) fn read_keep_alive(&self) -> bool {
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

/// Digits only: no sign, no list, no blanks. A number past all bounds is only too large, which is for the limit to say.
fn content_length(digits: &str) -> Result<u64, Problem> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed("Content-Length is not a number"));
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::Framing;
    use super::super::tests::{get, read, refusal};

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
}
