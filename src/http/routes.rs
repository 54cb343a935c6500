//! What each path does: who may ask, which method, how large a body; then on to `payments` (posts
//! and their statuses), `clients` (listings, closing, retiring), `dead_letters` and `broadcasts`.
//!
//! Runs on the threads of HTTP connections; nothing here waits but for the store, and at the
//! gate whoever only guesses keys or notify URLs.

use super::gateways::{Address, Gateways};
use super::{Admission, Answer, Head, Problem, Request, Response, Service, json, whole};
use crate::auth::{Asker, Right};
use crate::broadcast::Broadcasts;
use crate::bus::Bus;
use crate::gate::Gate;
use crate::gauges::Gauges;
use crate::inbox::Inbox;
use crate::metrics::{DoorMeter, Metrics};
use crate::payment::{ClientId, Seq};
use crate::receipts::Receipts;
use std::net::SocketAddr;
use std::sync::Arc;
use tiny_http::Method;

/// The most bytes of a batch.
pub(crate) const MAX_BATCH_BYTES: usize = 8 << 20;

/// What the routes use.
pub(crate) struct Routes {
    pub(crate) node: String,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) bus: Bus,
    pub(crate) broadcasts: Arc<Broadcasts>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gauges: Gauges,
    pub(crate) gate: Arc<Gate>,
    pub(crate) gateways: Gateways,
    /// Of one payment, in bytes.
    pub(crate) body_limit: usize,
}

/// Every method that some path takes; for the 405 of a request that names no path.
const METHODS: &str = "GET, HEAD, POST, DELETE";

/// Who may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum May {
    Anybody,
    /// Who shows a key that has this right.
    Key(Right),
}

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    Payments,
    ClientPayments(ClientId),
    /// By its seq.
    Payment(ClientId, Seq),
    DeadLetters(ClientId),
    DeadLetter(ClientId, Seq),
    /// To be put back.
    Retry(ClientId, Seq),
    Clients,
    Client(ClientId),
    Connection(ClientId),
    /// A gateway's notification.
    Notification(Address),
    Broadcasts,
    Healthz,
    Readyz,
    Metrics,
}

impl Route {
    /// Finds out what a path names.
    fn of(head: &Head) -> Result<Route, Problem> {
        if *head.method() == Method::Connect {
            return Err(Problem::method_not_allowed(METHODS));
        }
        // Nearly all requests are for this one, which then needs no decoding.
        if head.path() == "/v1/payments" {
            return Ok(Route::Payments);
        }
        let segments = head.path_segments().map_err(|_| Problem::not_found("no such path"))?;
        let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        let client = |id: &str| ClientId::parse(id).map_err(|e| Problem::invalid_client_id(e.to_string()));
        let letter = |seq: &str| match seq.parse() {
            Ok(seq) => Ok(Seq(seq)),
            Err(_) => Err(Problem::not_found("a dead letter is named by its seq")),
        };
        match segments[..] {
            ["v1", "payments"] => Ok(Route::Payments),
            ["v1", "clients"] => Ok(Route::Clients),
            ["v1", "clients", id] => Ok(Route::Client(client(id)?)),
            ["v1", "clients", id, "connection"] => Ok(Route::Connection(client(id)?)),
            ["v1", "clients", id, "payments"] => Ok(Route::ClientPayments(client(id)?)),
            ["v1", "clients", id, "payments", seq] => {
                let seq = seq.parse().map_err(|_| Problem::not_found("a payment is named by its seq"))?;
                Ok(Route::Payment(client(id)?, Seq(seq)))
            }
            ["v1", "clients", id, "dead-letters"] => Ok(Route::DeadLetters(client(id)?)),
            ["v1", "clients", id, "dead-letters", seq] => Ok(Route::DeadLetter(client(id)?, letter(seq)?)),
            ["v1", "clients", id, "dead-letters", seq, "retry"] => Ok(Route::Retry(client(id)?, letter(seq)?)),
            ["v1", "gateways", profile, client, token] => {
                Ok(Route::Notification(Address { profile: profile.into(), client: client.into(), token: token.into() }))
            }
            ["v1", "broadcasts"] => Ok(Route::Broadcasts),
            ["healthz"] => Ok(Route::Healthz),
            ["readyz"] => Ok(Route::Readyz),
            ["metrics"] => Ok(Route::Metrics),
            _ => Err(Problem::not_found("no such path")),
        }
    }

    /// The methods that it takes, and who may use each. Where `GET` stands, `HEAD` goes too.
    fn takes(&self) -> &'static [(&'static str, May)] {
        const SEND: May = May::Key(Right::Send);
        const READ: May = May::Key(Right::Read);
        const ADMIN: May = May::Key(Right::Admin);
        match self {
            Route::Payments => &[("POST", SEND)],
            Route::ClientPayments(_) => &[("GET", SEND), ("POST", SEND)],
            Route::Payment(..) => &[("GET", SEND), ("DELETE", ADMIN)],
            Route::DeadLetters(_) => &[("GET", READ)],
            Route::DeadLetter(..) => &[("DELETE", ADMIN)],
            Route::Retry(..) => &[("POST", ADMIN)],
            Route::Clients => &[("GET", READ)],
            Route::Client(_) => &[("GET", READ), ("DELETE", ADMIN)],
            Route::Connection(_) => &[("DELETE", ADMIN)],
            // Its URL is the proof.
            Route::Notification(_) => &[("POST", May::Anybody)],
            Route::Broadcasts => &[("POST", ADMIN)],
            Route::Healthz | Route::Readyz => &[("GET", May::Anybody)],
            Route::Metrics => &[("GET", READ)],
        }
    }

    /// Who may use this method on it; `None` where nobody can.
    fn who_may(&self, method: &Method) -> Option<May> {
        let asked = match method {
            Method::Head => "GET",
            other => other.as_str(),
        };
        self.takes().iter().find(|(takes, _)| *takes == asked).map(|(_, may)| *may)
    }

    /// Whether no key is asked for, not even to say 405.
    fn is_open(&self) -> bool {
        self.takes().iter().any(|(_, may)| *may == May::Anybody)
    }

    /// What may be done with it, for the `Allow` of a 405.
    fn allow(&self) -> String {
        let names = self.takes().iter().map(|(method, _)| if *method == "GET" { "GET, HEAD" } else { method });
        names.collect::<Vec<_>>().join(", ")
    }
}

impl Service for Routes {
    fn admit(&self, head: &Head, peer: SocketAddr) -> Result<Admission, Response> {
        self.judge(head, peer).map_err(|problem| self.refuse(&problem))
    }

    fn handle(&self, request: Request, answer: Answer) {
        let route = match Route::of(&request.head) {
            Ok(route) => route,
            Err(problem) => return answer.send(self.refuse(&problem)),
        };
        let answer = match route.who_may(request.head.method()) {
            Some(May::Key(Right::Admin)) => audited(&request, answer),
            _ => answer,
        };
        let head = &request.head;
        let outcome = match (route, head.method()) {
            (Route::Payments, _) if is_batch(head) => return self.post_batch(&request, answer),
            (Route::Payments, _) => return self.post_payment(&request, answer),
            (Route::Notification(address), _) => return self.post_notification(&address, &request, answer),
            (Route::ClientPayments(client), Method::Post) => return self.post_body(client, &request, answer),
            (Route::ClientPayments(client), _) => self.payment_by_id(&client, head),
            (Route::Payment(client, seq), Method::Delete) => self.refuse_payment(&client, seq),
            (Route::DeadLetters(client), _) => self.list_dead_letters(&client, head),
            (Route::DeadLetter(client, seq), _) => self.purge_dead_letter(&client, seq),
            (Route::Retry(client, seq), _) => self.retry_dead_letter(&client, seq),
            (Route::Payment(client, seq), _) => self.payment_by_seq(&client, seq),
            (Route::Clients, _) => self.list_clients(head),
            (Route::Client(client), Method::Delete) => self.retire(&client, head),
            (Route::Client(client), _) => self.show_client(&client),
            (Route::Connection(client), _) => self.disconnect(&client),
            (Route::Broadcasts, _) => self.broadcast(&request),
            (Route::Healthz, _) => Ok(json(200, br#"{"alive":true}"#.to_vec())),
            (Route::Readyz, _) => Ok(self.readyz()),
            (Route::Metrics, _) => self.metrics_text(),
        };
        answer.send(outcome.unwrap_or_else(|problem| self.refuse(&problem)));
    }

    fn refused(&self, code: &'static str) {
        self.metrics.refused(code);
    }

    fn meter(&self) -> Option<&DoorMeter> {
        Some(self.metrics.http())
    }
}

impl Routes {
    /// A key first, or a notify URL's token: who has none learns nothing of what there is.
    fn judge(&self, head: &Head, peer: SocketAddr) -> Result<Admission, Problem> {
        let route = Route::of(head);
        let asker = match &route {
            Ok(route) if route.is_open() => Asker::ANYBODY,
            _ => self.asker(head, peer)?,
        };
        let route = route?;
        let notified = match &route {
            Route::Notification(address) => Some(self.proven(address, peer)?),
            _ => None,
        };
        let may = match route.who_may(head.method()) {
            Some(may) => may,
            // That, too, is told in the gateway's own words.
            None if notified.is_some() => May::Anybody,
            None => return Err(Problem::method_not_allowed(route.allow())),
        };
        check_right(may, asker, head, peer)?;
        match notified {
            Some(profile) => Ok(self.admit_notification(profile)),
            None => {
                let known = !route.is_open() || !self.gate.asks_for_keys();
                Ok(Admission { asker, known, ..Admission::with_body(self.body_limit(&route, head)?) })
            }
        }
    }

    fn asker(&self, head: &Head, peer: SocketAddr) -> Result<Asker, Problem> {
        let asker = self.gate.asker(head.headers_named("Authorization"), peer);
        asker.ok_or_else(|| Problem::unauthorized("send Authorization: Bearer KEY with a known key"))
    }

    /// The most bytes that the body may have; a type that the route does not take has none.
    fn body_limit(&self, route: &Route, head: &Head) -> Result<usize, Problem> {
        // A retry has no body, and `curl -X POST` says no length then.
        if *head.method() != Method::Post || matches!(route, Route::Retry(..)) {
            return Ok(0);
        }
        if head.headers_named("Content-Encoding").any(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return Err(Problem::unsupported_media_type("send the body without a Content-Encoding"));
        }
        match route {
            Route::Payments if is_batch(head) => Ok(MAX_BATCH_BYTES),
            Route::Payments if !is_json(head) => Err(Problem::unsupported_media_type(
                "send Content-Type: application/json, or application/x-ndjson for a batch",
            )),
            Route::Broadcasts if !is_json(head) => {
                Err(Problem::unsupported_media_type("send Content-Type: application/json"))
            }
            _ => Ok(self.body_limit),
        }
    }

    /// Counts a problem and makes it an answer.
    pub(super) fn refuse(&self, problem: &Problem) -> Response {
        self.metrics.refused(problem.code());
        problem.response()
    }

    fn readyz(&self) -> Response {
        let health = self.inbox.health();
        if let Err(reason) = health.ready {
            let body = serde_json::json!({ "ready": false, "reason": reason });
            return json(503, body.to_string().into_bytes());
        }
        let mut warnings = health.warnings;
        if !self.bus.is_up() {
            warnings.push("other nodes are not heard: payments that come in there arrive here a moment late".into());
        }
        // By hand, for the order that the contract shows.
        let text = |value: &str| serde_json::Value::from(value);
        let body = format!(
            r#"{{"ready":true,"store":{},"durability":{},"warnings":{}}}"#,
            text(health.store),
            text(&health.durability),
            serde_json::Value::from(warnings),
        );
        json(200, body.into_bytes())
    }

    fn metrics_text(&self) -> Result<Response, Problem> {
        let text = self.metrics.text(&self.gauges.read());
        let body = text.map_err(|_| Problem::internal())?.into_bytes();
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        Ok(whole(200, Some(kind), body))
    }
}

fn check_right(may: May, asker: Asker, head: &Head, peer: SocketAddr) -> Result<(), Problem> {
    let May::Key(right) = may else { return Ok(()) };
    if asker.may(right) {
        return Ok(());
    }
    if right == Right::Admin {
        log::info!("{}: 403", deed(head, asker, peer));
    }
    Err(Problem::forbidden(format!("this key lacks the right `{}`", right.as_str())))
}

/// The answer to an operator's call, which leaves a line in the log once it is given, whatever it says.
fn audited(request: &Request, answer: Answer) -> Answer {
    let deed = deed(&request.head, request.asker, request.peer);
    Answer::new(
        Box::new(move |response| {
            log::info!("{deed}: {}", response.status_code().0);
            answer.send(response);
        }),
        None,
    )
}

/// Who asks for what, for the log. The path is decoded, so that a client id reads the same however it was written.
fn deed(head: &Head, asker: Asker, peer: SocketAddr) -> String {
    let path = head.path_segments().unwrap_or_default().join("/");
    let discard = if matches!(flag(head, "discard"), Ok(true)) { "?discard=true" } else { "" };
    format!("audit: {asker} at {peer}: {} /{path}{discard}", head.method())
}

/// A query parameter; twice is a mistake.
pub(super) fn parameter(head: &Head, name: &str) -> Result<Option<String>, Problem> {
    let mut values = head.query_pairs().filter(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Problem::bad_request(format!("{name} is given twice"))),
        (value, None) => Ok(value),
    }
}

/// A query parameter that says yes or no.
pub(super) fn flag(head: &Head, name: &str) -> Result<bool, Problem> {
    match parameter(head, name)?.as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Problem::bad_request(format!("{name} is true or false"))),
    }
}

/// The media type of the body, without its parameters.
fn media_type(head: &Head) -> Option<&str> {
    let text = head.header("Content-Type")?;
    let end = memchr::memchr(b';', text.as_bytes()).unwrap_or(text.len());
    Some(text[..end].trim_ascii())
}

fn is_batch(head: &Head) -> bool {
    media_type(head).is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-ndjson"))
}

/// Without a type, a body is taken for what the route is for.
pub(super) fn is_json(head: &Head) -> bool {
    media_type(head).is_none_or(is_json_type)
}

/// Whether a media type, in letters of any case, is one of JSON's.
pub(super) fn is_json_type(kind: &str) -> bool {
    let suffix = kind.len().checked_sub("+json".len()).and_then(|at| kind.get(at..));
    kind.eq_ignore_ascii_case("application/json") || suffix.is_some_and(|end| end.eq_ignore_ascii_case("+json"))
}

/// Whether the body says of itself that it is JSON.
pub(super) fn says_json(head: &Head) -> bool {
    media_type(head).is_some_and(is_json_type)
}
