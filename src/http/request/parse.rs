//! From the bytes of a head to the value: what `httparse` takes, less what it takes too generously.

use std::mem::MaybeUninit;
use std::str::FromStr;

use tiny_http::Method;

use super::target::split_target;
use super::{Field, Framing, Head, MAX_FIELDS, Version, malformed};
use crate::http::Problem;

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

fn text_length(path: &str, query: Option<&str>, fields: &[httparse::Header<'_>]) -> usize {
    let fields: usize = fields.iter().map(|field| field.name.len() + field.value.len()).sum();
    path.len() + query.map_or(0, |query| query.len() + 1) + fields
}

fn offset(text: &str) -> u32 {
    u32::try_from(text.len()).expect("a head is a few KiB")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{get, read, refusal};
    use super::MAX_FIELDS;

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
    fn the_number_of_fields_is_bounded() {
        // The Host is one of them.
        let fields = |count: usize| get(&"A: b\r\n".repeat(count - 1));
        assert!(fields(MAX_FIELDS - 1).is_ok());
        assert!(fields(MAX_FIELDS).is_ok());
        assert_eq!(fields(MAX_FIELDS + 1).err(), Some((431, "head_too_large")));
    }
}
