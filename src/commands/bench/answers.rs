//! What a server says to a post: HTTP answers in, outcomes of payments out.

use serde::Deserialize;

use crate::commands::printable;

const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;
/// A batch of 10,000 lines is answered with about 2 MiB.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
const MAX_CODE_CHARS: usize = 40;

/// One answer, and how many bytes of the stream it was.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    status: u16,
    body: &'a [u8],
    pub(super) length: usize,
    /// The server closes the connection behind it.
    pub(super) is_last: bool,
}

/// What became of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Accepted,
    /// The status and the code, as they stand in the report.
    Refused(String),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    status: serde_json::Value,
    code: Option<String>,
}

/// Takes one answer from the front of what was read; `None` if it is not there whole.
///
/// # Errors
///
/// It is no answer that can be read: the connection is of no more use.
pub(super) fn take(bytes: &[u8]) -> Result<Option<Answer<'_>>, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        _ => return Err("not an HTTP answer"),
    };
    let field = |name: &str| {
        let named = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        named.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
    };
    let status = response.code.unwrap_or_default();
    let body = match field("content-length").map(str::parse) {
        Some(Ok(count)) if count <= MAX_BODY_BYTES => count,
        Some(_) => return Err("an answer whose length cannot be used"),
        None if status < 200 || status == 204 => 0,
        None => return Err("an answer without Content-Length"),
    };
    let is_last = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let Some(body) = bytes[head..].get(..body) else {
        return Ok(None);
    };
    Ok(Some(Answer { status, body, length: head + body.len(), is_last }))
}

impl Answer<'_> {
    /// An answer before the answer, such as 100.
    pub(super) fn is_interim(&self) -> bool {
        self.status < 200
    }

    /// Whether the request was refused as a whole.
    pub(super) fn is_refusal(&self) -> bool {
        !(200..300).contains(&self.status)
    }

    /// What became of the `count` payments of the request, in their order.
    pub(super) fn outcomes(&self, count: usize, is_batch: bool) -> Vec<Outcome> {
        if self.is_refusal() {
            let code = serde_json::from_slice(self.body).ok().and_then(|body: Body| body.code);
            let refused = Outcome::Refused(named(&self.status.to_string(), code));
            return vec![refused; count];
        }
        if !is_batch {
            return vec![Outcome::Accepted; count];
        }
        let lines = self.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut outcomes: Vec<_> = lines.map(line_outcome).take(count).collect();
        outcomes.resize(count, Outcome::Refused("line missing".to_owned()));
        outcomes
    }
}

fn line_outcome(line: &[u8]) -> Outcome {
    if line.starts_with(br#"{"status":"accepted""#) {
        return Outcome::Accepted;
    }
    let body: Body = serde_json::from_slice(line).unwrap_or_default();
    match (body.status.is_string(), body.code) {
        (true, None) => Outcome::Accepted,
        (_, code) => Outcome::Refused(named("line", code)),
    }
}

fn named(status: &str, code: Option<String>) -> String {
    match code {
        Some(code) => format!("{status} {}", printable(&code).chars().take(MAX_CODE_CHARS).collect::<String>()),
        None => status.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(what: &str) -> Outcome {
        Outcome::Refused(what.to_owned())
    }

    #[test]
    fn an_answer_is_taken_when_it_is_whole() {
        let text = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 503";
        for end in 0..text.len() - "HTTP/1.1 503".len() {
            assert!(take(&text.as_bytes()[..end]).expect("HTTP").is_none(), "{end}");
        }
        let answer = take(text.as_bytes()).expect("HTTP").expect("whole");
        assert_eq!(&text[answer.length..], "HTTP/1.1 503");
        assert_eq!(answer.outcomes(1, false), [Outcome::Accepted]);
        assert!(!answer.is_last && !answer.is_refusal() && !answer.is_interim());
    }

    #[test]
    fn a_refusal_is_known_by_its_code() {
        let text =
            "HTTP/1.1 503 x\r\nconnection: close\r\nContent-Length: 32\r\n\r\n{\"status\":503,\"code\":\"store_full\"}"
                .replace("32", "34");
        let answer = take(text.as_bytes()).expect("HTTP").expect("whole");
        assert!(answer.is_last && answer.is_refusal());
        assert_eq!(answer.outcomes(2, true), [refused("503 store_full"), refused("503 store_full")]);
        let bare = take(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n").expect("HTTP").expect("whole");
        assert_eq!(bare.outcomes(1, false), [refused("404")]);
    }

    #[test]
    fn a_batch_has_an_outcome_for_each_line() {
        let body =
            "{\"status\":\"accepted\",\"seq\":1}\n{\"seq\":2,\"status\":\"accepted\"}\n{\"code\":\"inbox_full\"}\n";
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let answer = take(text.as_bytes()).expect("HTTP").expect("whole");
        let expected = [Outcome::Accepted, Outcome::Accepted, refused("line inbox_full"), refused("line missing")];
        assert_eq!(answer.outcomes(4, true), expected);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for text in [
            "{\"type\":\"welcome\"}\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        ] {
            assert!(take(text.as_bytes()).is_err(), "{text}");
        }
        assert!(take(&b"HTTP/1.1 200 OK\r\nX: ".repeat(1000)).is_err());
    }
}
