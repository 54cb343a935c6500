//! `POST /v1/gateways/{profile}/{client}/{token}`: payment gateways' own notifications.
//!
//! A gateway knows no API key, takes no JSON of ours and reads the answer byte by byte; what is peculiar to each is in
//! [`profile`]'s table. Here: whom a URL lets in, and which answer a notification gets when. Whether its token is right
//! is the gate's to say, and it goes into no log. Runs on the threads of HTTP connections; nothing here waits but for
//! the store, and at the gate whoever only guesses.
//!
//! Source: README.md, *Gateways*.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::payments::{STORE_LIMIT, problem_of};
use super::routes::Routes;
use super::{Admission, Answer, Problem, Request};
use crate::frame::{ESCAPED_BYTES, FRAME_ROOM};
use crate::inbox::{Accepted, Deposit, Done, Error, Status};
use crate::metrics::Metrics;
use crate::payment::{Channel, ClientId, Payment, Seq};
use crate::receipts::Receipts;
use profile::{PROFILES, Profile};
use tiny_http::Method;

mod fields;
mod form;
#[cfg(test)]
mod hostile;
mod json;
mod notice;
pub(super) mod profile;
mod xml;

/// How long before its gateway gives up a notification is answered.
const MARGIN: Duration = Duration::from_secs(1);
/// Of the room that a line has past six times the body limit, what a notification's query and headers may take; the rest
/// is for the other fields of the frame.
const CONTENT_ROOM: usize = FRAME_ROOM - 512;

/// The gateways that are served.
pub(crate) struct Gateways {
    profiles: Vec<&'static Profile>,
    /// Success is said once the client acknowledged it, not once it is stored.
    until_acknowledged: bool,
}

impl Gateways {
    /// Serves the profiles of these names.
    pub(crate) fn new(names: &[&str], until_acknowledged: bool) -> Gateways {
        let profiles = PROFILES.iter().filter(|profile| names.contains(&profile.name)).collect();
        Gateways { profiles, until_acknowledged }
    }

    /// Whose notification for which client this is, if its profile is switched on and its client's id one.
    fn find(&self, address: &Address) -> Option<(&'static Profile, ClientId)> {
        let profile = self.profiles.iter().find(|profile| profile.name == address.profile)?;
        Some((*profile, ClientId::parse(&address.client).ok()?))
    }
}

/// The three parts of a notify URL, unchecked.
#[derive(PartialEq, Eq)]
pub(super) struct Address {
    pub(super) profile: String,
    pub(super) client: String,
    pub(super) token: String,
}

/// Without the token: a `Debug` may end in a log.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({}, {})", self.profile, self.client)
    }
}

/// The answer that one gateway waits for.
struct Reply {
    profile: &'static Profile,
    client: ClientId,
    answer: Answer,
    metrics: Arc<Metrics>,
}

impl Reply {
    fn success(self) {
        self.answer.send(self.profile.success.response());
    }

    /// The gateway comes again. It reads no reason, so that is for the operator; `code` is the metric's.
    fn failure(self, code: &'static str) {
        log::debug!("{}: a notification of {} is answered with failure: {code}", self.client, self.profile.name);
        self.metrics.refused(code);
        self.answer.send(self.profile.failure.response());
    }
}

impl Routes {
    /// Whose notification a URL takes, if its token is right: the gate says so, and has who only guesses wait.
    pub(super) fn proven(&self, address: &Address, peer: SocketAddr) -> Result<&'static Profile, Problem> {
        // The token first and in any case, so that nobody sees what else is wrong with a URL.
        let right = self.gate.admits_notification(&address.client, &address.token, peer);
        let found = self.gateways.find(address).filter(|_| right);
        found.map(|(profile, _)| profile).ok_or_else(no_such_path)
    }

    /// From here on the gateway's own failure answer stands for every problem.
    pub(super) fn admit_notification(&self, profile: &'static Profile) -> Admission {
        let may_wait = self.gateways.until_acknowledged;
        Admission { failure: Some(&profile.failure), may_wait, ..Admission::with_body(self.body_limit) }
    }

    /// `POST /v1/gateways/{profile}/{client}/{token}`, whose token was looked at when it was let in.
    pub(super) fn post_notification(&self, address: &Address, request: &Request, answer: Answer) {
        let Some((profile, client)) = self.gateways.find(address) else {
            return answer.send(self.refuse(&no_such_path()));
        };
        let came_at = request.begun.unwrap_or_else(Instant::now);
        let reply = Reply { profile, client: client.clone(), answer, metrics: Arc::clone(&self.metrics) };
        if *request.head.method() != Method::Post {
            return reply.failure("method_not_allowed");
        }
        if notice::is_probe(profile, &request.head) {
            return reply.failure("signature_probe");
        }
        let content = notice::content(profile, request);
        if content.bytes() > ESCAPED_BYTES * self.body_limit + CONTENT_ROOM {
            // Receivers rely on the length of their lines.
            return reply.failure("head_too_large");
        }
        let id = notice::payment_id(profile, &request.head, &request.body);
        let payment = Payment::new(client, Some(id), &Channel::default(), &content);
        self.deposit_notification(payment, came_at + profile.time.saturating_sub(MARGIN), reply);
    }

    fn deposit_notification(&self, payment: Payment, wait_until: Instant, reply: Reply) {
        let waits = self.gateways.until_acknowledged;
        let receipts = Arc::clone(&self.receipts);
        let done = move |outcome: Result<Accepted, Error>| match outcome {
            Err(error) => reply.failure(problem_of(&error).code()),
            Ok(accepted) => {
                reply.metrics.accepted(accepted.duplicate);
                match accepted.status {
                    _ if !waits => reply.success(),
                    Status::Accepted => await_end(&receipts, reply, accepted.mark.seq, wait_until),
                    status => settle(&receipts, reply, status, wait_until),
                }
            }
        };
        let deadline = Instant::now() + STORE_LIMIT;
        self.inbox.accept(Deposit { payment, receipt: waits, deadline, done: Done::new(done) });
    }
}

fn no_such_path() -> Problem {
    Problem::not_found("no such path")
}

/// Holds the answer back until a payment has come to its end, or the time is over.
fn await_end(receipts: &Arc<Receipts>, reply: Reply, seq: Seq, until: Instant) {
    let (client, held) = (reply.client.clone(), Arc::clone(receipts));
    receipts.park(client, seq, until, Box::new(move |status| settle(&held, reply, status, until)));
}

/// Where success waits for the client: whatever else became of it, the gateway is to try again.
fn settle(receipts: &Arc<Receipts>, reply: Reply, status: Status, until: Instant) {
    match status {
        Status::Acknowledged => reply.success(),
        // An operator put it back: what became of it under its new seq is what counts.
        Status::Retried(seq) if Instant::now() < until => {
            let (client, held) = (reply.client.clone(), Arc::clone(receipts));
            // The store was told of a wait for the notification, not for what it was put back as.
            receipts.park_untold(client, seq, until, Box::new(move |status| settle(&held, reply, status, until)));
        }
        _ => reply.failure("not_acknowledged"),
    }
}
