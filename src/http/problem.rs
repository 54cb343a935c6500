//! Error answers: `application/problem+json` (RFC 9457) with a stable code.
//!
//! A value; who decides that something is a problem are the doors and the routes. Used on every thread that answers.

use std::borrow::Cow;

use serde::Serialize;
use tiny_http::{Header, StatusCode};

use super::{Response, json};

/// Why a request failed, in the contract's words (README.md, *Errors*).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    status: u16,
    code: &'static str,
    detail: Cow<'static, str>,
    /// Of a 5xx only: whether the payment may be in the inbox all the same.
    stored: Option<&'static str>,
    /// Of a 405 only: the methods that are allowed.
    allow: Option<Detail>,
}

/// The body of an answer; the order of the fields is the contract's.
#[derive(Serialize)]
struct Page<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    #[serde(flatten)]
    line: Line<'a>,
}

/// What a failed line of a batch says.
#[derive(Serialize)]
struct Line<'a> {
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<&'static str>,
}

/// The text of a problem; most are fixed.
type Detail = Cow<'static, str>;

impl Problem {
    fn new(status: u16, code: &'static str, detail: impl Into<Detail>) -> Problem {
        Problem { status, code, detail: detail.into(), stored: (status >= 500).then_some("no"), allow: None }
    }

    /// 400: the body, or a line of it, is not JSON.
    pub(crate) fn bad_json(detail: impl Into<Detail>) -> Problem {
        Problem::new(400, "bad_json", detail)
    }

    /// 400: it cannot be understood, as HTTP or as what the route takes.
    pub(crate) fn bad_request(detail: impl Into<Detail>) -> Problem {
        Problem::new(400, "bad_request", detail)
    }

    /// 400: not a client id.
    pub(crate) fn invalid_client_id(detail: impl Into<Detail>) -> Problem {
        Problem::new(400, "invalid_client_id", detail)
    }

    /// 400: not the name of a channel.
    pub(crate) fn invalid_channel(detail: impl Into<Detail>) -> Problem {
        Problem::new(400, "invalid_channel", detail)
    }

    /// 400: not a payment id.
    pub(crate) fn invalid_payment_id(detail: impl Into<Detail>) -> Problem {
        Problem::new(400, "invalid_payment_id", detail)
    }

    /// 401: no key, or none that we know.
    pub(crate) fn unauthorized(detail: impl Into<Detail>) -> Problem {
        Problem::new(401, "unauthorized", detail)
    }

    /// 403: the key is known, and may not do this.
    pub(crate) fn forbidden(detail: impl Into<Detail>) -> Problem {
        Problem::new(403, "forbidden", detail)
    }

    /// 404: there is no such thing.
    pub(crate) fn not_found(detail: impl Into<Detail>) -> Problem {
        Problem::new(404, "not_found", detail)
    }

    /// 405: the path is served, but not with this method; `allow` lists those it is served with.
    pub(crate) fn method_not_allowed(allow: impl Into<Detail>) -> Problem {
        let allow = allow.into();
        let mut problem = Problem::new(405, "method_not_allowed", format!("this path takes {allow}"));
        problem.allow = Some(allow);
        problem
    }

    /// 408: the request did not arrive in time.
    pub(crate) fn too_slow() -> Problem {
        Problem::new(408, "too_slow", "the request did not arrive whole within its time")
    }

    /// 409: what is there now does not allow it.
    pub(crate) fn conflict(detail: impl Into<Detail>) -> Problem {
        Problem::new(409, "conflict", detail)
    }

    /// 411: a body is needed and its length was not said.
    pub(crate) fn length_required() -> Problem {
        Problem::new(411, "length_required", "send Content-Length or Transfer-Encoding: chunked")
    }

    /// 413: the body is longer than this route takes.
    pub(crate) fn body_too_large(limit: usize) -> Problem {
        let detail = match limit {
            0 => "no body is taken here".to_owned(),
            limit => format!("at most {limit} bytes are taken here"),
        };
        Problem::new(413, "body_too_large", detail)
    }

    /// 415: a content type that this route does not take.
    pub(crate) fn unsupported_media_type(detail: impl Into<Detail>) -> Problem {
        Problem::new(415, "unsupported_media_type", detail)
    }

    /// 417: an `Expect` other than `100-continue`.
    pub(crate) fn expectation_failed() -> Problem {
        Problem::new(417, "expectation_failed", "only Expect: 100-continue is understood")
    }

    /// 422: the payment id is there already, with another payment.
    pub(crate) fn payment_id_reused(detail: impl Into<Detail>) -> Problem {
        Problem::new(422, "payment_id_reused", detail)
    }

    /// 429: the client's inbox is full.
    pub(crate) fn inbox_full(detail: impl Into<Detail>) -> Problem {
        Problem::new(429, "inbox_full", detail)
    }

    /// 431: the request line and the fields together, or their number, are past the limit.
    pub(crate) fn head_too_large(detail: impl Into<Detail>) -> Problem {
        Problem::new(431, "head_too_large", detail)
    }

    /// 500: a fault of ours.
    pub(crate) fn internal() -> Problem {
        Problem::new(500, "internal", "a fault of payrelay's own; its log says more")
    }

    /// 503: the store or something else that is needed does not answer.
    pub(crate) fn unavailable(detail: impl Into<Detail>) -> Problem {
        Problem::new(503, "unavailable", detail)
    }

    /// 503: the store takes nothing more from anybody.
    pub(crate) fn store_full(detail: impl Into<Detail>) -> Problem {
        Problem::new(503, "store_full", detail)
    }

    /// 503: no connection or thread can be had for this one.
    pub(crate) fn too_many_connections() -> Problem {
        Problem::new(503, "too_many_connections", "no more connections can be served now")
    }

    /// 505: another HTTP than 1.0 and 1.1.
    pub(crate) fn version_not_supported() -> Problem {
        Problem::new(505, "version_not_supported", "HTTP/1.1 and HTTP/1.0 are spoken here")
    }

    /// The same problem where nobody knows whether the payment was stored.
    pub(crate) fn stored_unknown(mut self) -> Problem {
        self.stored = Some("unknown");
        self
    }

    /// Whether something may be stored all the same.
    pub(crate) fn may_be_stored(&self) -> bool {
        self.stored == Some("unknown")
    }

    /// The stable code, for metrics and logs.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// The whole answer.
    pub(crate) fn response(&self) -> Response {
        let page = Page {
            r#type: "about:blank",
            title: StatusCode(self.status).default_reason_phrase(),
            status: self.status,
            line: self.fields(),
        };
        let body = serde_json::to_vec(&page).expect("strings and numbers become JSON");
        let mut response = json(self.status, body);
        // Content-Type is replaced, not added.
        response.add_header(header("Content-Type", "application/problem+json"));
        if self.status == 401 {
            response.add_header(header("WWW-Authenticate", "Bearer"));
        }
        if let Some(methods) = &self.allow {
            response.add_header(header("Allow", methods));
        }
        if matches!(self.status, 429 | 503) {
            response.add_header(header("Retry-After", "1"));
        }
        response
    }

    /// The line that answers a failed line of a batch, without a line break.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(&self.fields()).expect("strings become JSON")
    }

    fn fields(&self) -> Line<'_> {
        Line { code: self.code, detail: &self.detail, stored: self.stored }
    }
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("our own fields are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn printed(problem: &Problem) -> (u16, Vec<String>, String) {
        let response = problem.response();
        let status = response.status_code().0;
        let fields = response.headers().iter().map(Header::to_string).collect();
        let mut body = String::new();
        response.into_reader().read_to_string(&mut body).expect("it is text");
        (status, fields, body)
    }

    #[test]
    fn the_body_is_the_protocols_example() {
        let (status, fields, body) = printed(&Problem::bad_json("line 1, column 24: expected value"));
        assert_eq!(status, 400);
        assert_eq!(fields, ["Content-Type: application/problem+json"]);
        assert_eq!(
            body,
            r#"{"type":"about:blank","title":"Bad Request","status":400,"code":"bad_json","detail":"line 1, column 24: expected value"}"#
        );
    }

    #[test]
    fn a_5xx_says_whether_the_payment_was_stored() {
        let (_, fields, body) = printed(&Problem::unavailable("the store is away"));
        assert!(body.ends_with(r#""stored":"no"}"#), "{body}");
        assert!(fields.contains(&"Retry-After: 1".to_string()), "{fields:?}");

        let (_, _, body) = printed(&Problem::unavailable("no answer").stored_unknown());
        assert!(body.ends_with(r#""stored":"unknown"}"#), "{body}");
    }

    #[test]
    fn fields_that_a_status_needs_are_there() {
        let (_, fields, _) = printed(&Problem::unauthorized("a key is needed"));
        assert!(fields.contains(&"WWW-Authenticate: Bearer".to_string()));
        let (_, fields, _) = printed(&Problem::method_not_allowed("GET, HEAD"));
        assert!(fields.contains(&"Allow: GET, HEAD".to_string()));
        let (_, fields, _) = printed(&Problem::inbox_full("till-7 has 100000"));
        assert!(fields.contains(&"Retry-After: 1".to_string()));
    }

    #[test]
    fn a_failed_line_of_a_batch_is_short() {
        assert_eq!(
            Problem::bad_json("line 1, column 1: \"x\"").line(),
            r#"{"code":"bad_json","detail":"line 1, column 1: \"x\""}"#
        );
        assert_eq!(
            Problem::unavailable("no answer").stored_unknown().line(),
            r#"{"code":"unavailable","detail":"no answer","stored":"unknown"}"#
        );
    }

    #[test]
    fn other_words_leave_the_code() {
        let problem = Problem::not_found("no such client");
        assert_eq!((problem.status(), problem.code()), (404, "not_found"));
        assert!(problem.line().contains("no such client"));
    }
}
