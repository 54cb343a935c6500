//! Payments over HTTP: one, a raw body; and what became of one.
//!
//! A post is checked here and handed to the inbox; whoever leads the commit answers it, while this
//! thread goes back to reading.

use super::routes::{Routes, parameter, says_json};
use super::{Answer, Head, Problem, Request, Response, json};
use crate::frame::is_object;
use crate::inbox::{Accepted, Deposit, Done, Error, Found, Query, Status, Stored, Which};
use crate::payment::{Channel, ClientId, Content, InvalidMessage, Payment, PaymentId, Seq};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a post may wait for the store before it is refused.
pub(crate) const STORE_LIMIT: Duration = Duration::from_millis(1500);
/// Of a raw body. It goes into the frame, whose length receivers rely on.
pub(crate) const MAX_CONTENT_TYPE_BYTES: usize = 1024;
/// What a `?wait` may ask for, in seconds.
pub(crate) const WAITS: std::ops::RangeInclusive<u64> = 1..=30;
/// What `expires_in` may be, in seconds: up to a year.
pub(crate) const LIVES: std::ops::RangeInclusive<u64> = 1..=31_536_000;

// A derived reader refuses a known field that is given twice and passes over unknown ones.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    client: Option<String>,
    id: Option<String>,
    #[serde(borrow, default, deserialize_with = "present")]
    msg: Option<&'a RawValue>,
    payment_id: Option<String>,
    channel: Option<String>,
    expires_in: Option<u64>,
}

/// A field that may hold null, and holds it then.
pub(super) fn present<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Reads a body, or a line of one, which must be an object; `what` it is, for the problem.
pub(super) fn object<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, Problem> {
    // Of bytes the parser would look at those fields alone that it knows.
    let text = std::str::from_utf8(body).map_err(|e| Problem::bad_json(format!("not UTF-8: {e}")))?;
    // A derived reader would take an array too, by position.
    if !is_object(body) {
        let json: Result<IgnoredAny, _> = serde_json::from_str(text);
        return Err(match json {
            Ok(_) => Problem::bad_request(format!("{what} is a JSON object")),
            Err(e) => Problem::bad_json(e.to_string()),
        });
    }
    serde_json::from_str(text).map_err(|e| match e.classify() {
        Category::Data => Problem::bad_request(e.to_string()),
        _ => Problem::bad_json(e.to_string()),
    })
}

impl Envelope<'_> {
    pub(super) fn parse(text: &[u8]) -> Result<Envelope<'_>, Problem> {
        object(text, "a payment")
    }

    /// The payment within. `key`: the one of the header `Idempotency-Key`.
    pub(super) fn payment(&self, key: Option<PaymentId>) -> Result<Payment, Problem> {
        if self.client.is_some() && self.id.is_some() && self.client != self.id {
            return Err(Problem::bad_request("client and id are both given, and differ"));
        }
        let Some(client) = self.client.as_deref().or(self.id.as_deref()) else {
            return Err(Problem::bad_request("client is missing"));
        };
        let client = ClientId::parse(client).map_err(|e| Problem::invalid_client_id(e.to_string()))?;
        let payment_id = one_id(payment_id(self.payment_id.as_deref())?, key)?;
        let channel = channel(self.channel.as_deref())?;
        let expires_in = self.expires_in.map(life).transpose()?;
        let Some(msg) = self.msg else { return Err(Problem::bad_request("msg is missing")) };
        let content = Content::json(msg).map_err(invalid_message)?;
        Ok(Payment { expires_in, ..Payment::new(client, payment_id, &channel, &content) })
    }
}

fn life(secs: u64) -> Result<Duration, Problem> {
    let valid = LIVES.contains(&secs).then_some(Duration::from_secs(secs));
    valid.ok_or_else(|| Problem::bad_request("expires_in is a whole number of seconds from 1 to 31536000"))
}

fn payment_id(text: Option<&str>) -> Result<Option<PaymentId>, Problem> {
    text.map(PaymentId::parse).transpose().map_err(|e| Problem::invalid_payment_id(e.to_string()))
}

pub(super) fn channel(text: Option<&str>) -> Result<Channel, Problem> {
    let channel = text.map(Channel::parse).transpose().map_err(|e| Problem::invalid_channel(e.to_string()))?;
    Ok(channel.unwrap_or_default())
}

fn one_id(given: Option<PaymentId>, key: Option<PaymentId>) -> Result<Option<PaymentId>, Problem> {
    match (&given, &key) {
        (Some(a), Some(b)) if a != b => Err(Problem::bad_request("payment_id and Idempotency-Key differ")),
        _ => Ok(given.or(key)),
    }
}

pub(super) fn invalid_message(why: InvalidMessage) -> Problem {
    match why {
        InvalidMessage::Json(why) => Problem::bad_json(why),
        other => Problem::bad_request(other.to_string()),
    }
}

/// The header `Idempotency-Key`: a quoted string, as draft-ietf-httpapi-idempotency-key-header has
/// it, or bare.
fn idempotency_key(head: &Head) -> Result<Option<PaymentId>, Problem> {
    let mut keys = head.headers_named("Idempotency-Key");
    let (key, more) = (keys.next(), keys.next());
    if more.is_some() {
        return Err(Problem::bad_request("Idempotency-Key is given twice"));
    }
    payment_id(key.map(unquoted))
}

/// What stands between the quotes, where there are any.
pub(super) fn unquoted(key: &str) -> &str {
    key.strip_prefix('"').and_then(|k| k.strip_suffix('"')).unwrap_or(key)
}

fn wait(head: &Head) -> Result<Option<Duration>, Problem> {
    let Some(text) = parameter(head, "wait")? else { return Ok(None) };
    match text.parse() {
        Ok(secs) if WAITS.contains(&secs) => Ok(Some(Duration::from_secs(secs))),
        _ => Err(Problem::bad_request("wait is a number of seconds from 1 to 30")),
    }
}

impl Routes {
    /// `POST /v1/payments`, one payment.
    pub(super) fn post_payment(&self, request: &Request, answer: Answer) {
        let payment = idempotency_key(&request.head)
            .and_then(|key| Envelope::parse(&request.body)?.payment(key))
            .and_then(|payment| Ok((payment, wait(&request.head)?)));
        self.deposit(payment, answer);
    }

    /// `POST /v1/clients/{client}/payments`: the body is the payment.
    pub(super) fn post_body(&self, client: ClientId, request: &Request, answer: Answer) {
        let payment = body_payment(client, request).and_then(|payment| Ok((payment, wait(&request.head)?)));
        self.deposit(payment, answer);
    }

    fn deposit(&self, payment: Result<(Payment, Option<Duration>), Problem>, answer: Answer) {
        let (payment, wait) = match payment {
            Ok(payment) => payment,
            Err(problem) => return answer.send(self.refuse(&problem)),
        };
        let asked = Instant::now();
        let (client, payment_id) = (payment.client.clone(), payment.payment_id.clone());
        let (metrics, receipts) = (Arc::clone(&self.metrics), Arc::clone(&self.receipts));
        let done = move |outcome: Result<Accepted, Error>| match outcome {
            Err(error) => {
                let problem = problem_of(&error);
                metrics.refused(problem.code());
                answer.send(problem.response());
            }
            Ok(accepted) => {
                metrics.accepted(accepted.duplicate);
                let told = Told { client, payment_id, accepted };
                match wait {
                    Some(wait) if told.accepted.status == Status::Accepted => {
                        let (client, seq) = (told.client.clone(), told.accepted.mark.seq);
                        let hear = Box::new(move |status| answer.send(told.with(status).response()));
                        receipts.park(client, seq, asked + wait, hear);
                    }
                    _ => answer.send(told.response()),
                }
            }
        };
        let deposit =
            Deposit { payment, receipt: wait.is_some(), deadline: asked + STORE_LIMIT, done: Done::new(done) };
        self.inbox.accept(deposit);
    }

    /// `GET /v1/clients/{client}/payments?payment_id=…`
    pub(super) fn payment_by_id(&self, client: &ClientId, head: &Head) -> Result<Response, Problem> {
        let id = parameter(head, "payment_id")?.ok_or_else(|| Problem::bad_request("payment_id is missing"))?;
        let id = PaymentId::parse_any(&id).map_err(|e| Problem::invalid_payment_id(e.to_string()))?;
        self.status(client, Which::PaymentId(id))
    }

    /// `GET /v1/clients/{client}/payments/{seq}`
    pub(super) fn payment_by_seq(&self, client: &ClientId, seq: Seq) -> Result<Response, Problem> {
        self.status(client, Which::Seq(seq))
    }

    fn status(&self, client: &ClientId, which: Which) -> Result<Response, Problem> {
        let found = self.inbox.look_up(&[Query { client: client.clone(), which }]).pop();
        let found = found.transpose().map_err(|e| problem_of(&e))?.flatten();
        let Some(Found { seq, status, payment_id, .. }) = found else {
            return Err(Problem::not_found("no such payment"));
        };
        let id = payment_id.map(|id| format!(r#","payment_id":"{id}""#)).unwrap_or_default();
        let status = status_fields(status);
        let body = format!(r#"{{"client":"{client}","seq":{seq},{status}{id}}}"#);
        Ok(json(200, body.into_bytes()))
    }
}

fn body_payment(client: ClientId, request: &Request) -> Result<Payment, Problem> {
    let head = &request.head;
    let id = one_id(payment_id(parameter(head, "payment_id")?.as_deref())?, idempotency_key(head)?)?;
    let channel = channel(parameter(head, "channel")?.as_deref())?;
    // What is no number is no valid one either.
    let expires_in = parameter(head, "expires_in")?.map(|text| life(text.parse().unwrap_or(0))).transpose()?;
    let content = if says_json(head) {
        Content::json_text(&request.body).map_err(invalid_message)?
    } else {
        // Without a word on it, it is bytes (RFC 9110, 8.3).
        let content_type = head.header("Content-Type").unwrap_or("application/octet-stream");
        if content_type.len() > MAX_CONTENT_TYPE_BYTES {
            return Err(Problem::bad_request(format!("Content-Type has more than {MAX_CONTENT_TYPE_BYTES} bytes")));
        }
        Content::body(&request.body, content_type)
    };
    Ok(Payment { expires_in, ..Payment::new(client, id, &channel, &content) })
}

/// `"status":…`, and under which seq it was put back, if it was.
pub(super) fn status_fields(status: Status) -> String {
    let mut fields = [r#""status":""#, status.as_str(), "\""].concat();
    if let Status::Retried(seq) = status {
        fields.push_str(&format!(r#","retried_as":{seq}"#));
    }
    fields
}

/// What a sender is told of its payment.
pub(super) struct Told {
    pub(super) client: ClientId,
    pub(super) payment_id: Option<PaymentId>,
    pub(super) accepted: Accepted,
}

impl Told {
    fn with(mut self, status: Status) -> Told {
        self.accepted.status = status;
        self
    }

    /// The answer's body. Nothing in it needs escaping.
    pub(super) fn text(&self) -> String {
        let Accepted { mark, duplicate, status, online } = &self.accepted;
        let id = self.payment_id.as_ref().map(|id| [r#","payment_id":""#, id.as_str(), "\""].concat());
        let (mut seq, online) = (itoa::Buffer::new(), if *online { "true" } else { "false" });
        // Every payment has one, and `format!` takes several times as long.
        [
            "{",
            &status_fields(*status),
            r#","client":""#,
            self.client.as_str(),
            r#"","seq":"#,
            seq.format(mark.seq.0),
            id.as_deref().unwrap_or_default(),
            if *duplicate { r#","duplicate":true"# } else { "" },
            r#","online":"#,
            online,
            "}",
        ]
        .concat()
    }

    fn response(&self) -> Response {
        let new = self.accepted.status == Status::Accepted && !self.accepted.duplicate;
        json(if new { 202 } else { 200 }, self.text().into_bytes())
    }
}

/// An error of the store in the contract's words.
pub(super) fn problem_of(error: &Error) -> Problem {
    match error {
        Error::InboxFull => Problem::inbox_full("this client's inbox holds as many payments as it may"),
        Error::IdReused => Problem::payment_id_reused("this payment id was used for a payment with another body"),
        Error::StoreFull => Problem::store_full("the store has no room"),
        Error::Unavailable { stored: Stored::No, why } => Problem::unavailable(why.clone()),
        Error::Unavailable { stored: Stored::Unknown, why } => Problem::unavailable(why.clone()).stored_unknown(),
        Error::Corrupt(why) => {
            log::error!("an inbox cannot be read: {why}");
            Problem::unavailable("this client's inbox cannot be read")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::routes::is_json_type;
    use super::*;

    fn refusal(envelope: &str) -> &'static str {
        match Envelope::parse(envelope.as_bytes()).and_then(|e| e.payment(None)) {
            Ok(_) => "none",
            Err(problem) => problem.code(),
        }
    }

    #[test]
    fn an_envelope_says_what_is_wrong_with_it() {
        for (envelope, code) in [
            (r#"{"client":"01","msg":null}"#, "none"),
            (r#"{"id":"01","msg":{"a":10.00},"shop":{"x":[1]}}"#, "none"),
            (r#"{"id":"01","client":"01","msg":1}"#, "none"),
            (r#"{"id":"01","client":"02","msg":1}"#, "bad_request"),
            (r#"{"client":"01"}"#, "bad_request"),
            (r#"{"msg":1}"#, "bad_request"),
            (r#"{"client":"01","msg":1,"msg":2}"#, "bad_request"),
            (r#"{"client":1,"msg":1}"#, "bad_request"),
            (r#"[1]"#, "bad_request"),
            (r#"["01",null,{"a":1},"idx","ch",null]"#, "bad_request"),
            (r#""text""#, "bad_request"),
            (r#"["01","#, "bad_json"),
            (r#"{"client":"..","msg":1}"#, "invalid_client_id"),
            (r#"{"client":"01","msg":1,"channel":"X"}"#, "invalid_channel"),
            (r#"{"client":"01","msg":1,"payment_id":"alipay:1"}"#, "invalid_payment_id"),
            (r#"{"client":"01","msg":1,"expires_in":1}"#, "none"),
            (r#"{"client":"01","msg":1,"expires_in":31536000}"#, "none"),
            (r#"{"client":"01","msg":1,"expires_in":null}"#, "none"),
            (r#"{"client":"01","msg":1,"expires_in":0}"#, "bad_request"),
            (r#"{"client":"01","msg":1,"expires_in":31536001}"#, "bad_request"),
            (r#"{"client":"01","msg":1,"expires_in":-1}"#, "bad_request"),
            (r#"{"client":"01","msg":1,"expires_in":1.5}"#, "bad_request"),
            (r#"{"client":"01","msg":1,"expires_in":"60"}"#, "bad_request"),
            (r#"{"client":"01","msg":1,"expires_in":60,"expires_in":60}"#, "bad_request"),
            (r#"{"client":"01","msg":}"#, "bad_json"),
            ("", "bad_json"),
        ] {
            assert_eq!(refusal(envelope), code, "{envelope}");
        }
    }

    #[test]
    fn what_is_no_text_is_no_json_wherever_it_stands() {
        for body in [
            &b"{\"client\":\"01\",\"msg\":1,\"x\":\"\xff\"}"[..],
            b"{\"client\":\"01\",\"msg\":\"\xff\"}",
            b"[\"\xff\"]",
        ] {
            assert_eq!(Envelope::parse(body).map(|_| ()).map_err(|problem| problem.code()), Err("bad_json"));
        }
    }

    #[test]
    fn json_types_are_told_from_others() {
        assert!(is_json_type("Application/JSON") && is_json_type("application/vnd.x+Json"));
        assert!(!is_json_type("text/json") && !is_json_type("application/x-ndjson") && !is_json_type("json"));
    }
}
