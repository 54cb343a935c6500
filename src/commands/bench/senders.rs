//! Thread body `senders`: all connections that post, on one thread.
//!
//! In the closed loop a sender posts again as soon as it has room. In the open loop every payment
//! has its time, and its latency counts from then: a server that stalls does not get fewer
//! payments to answer, and what had to wait for it counts as slow.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::answers::{self, Outcome};
use super::histogram::Histogram;
use super::ledger::Ledger;
use super::message::Messages;
use super::plan::{Plan, Round};
use super::stage::{Stage, Step};
use super::wire::{Poller, Wire};
use crate::commands::plainly;

/// The time for an answer, once its request was sent.
const ANSWER_TIME_US: u64 = 30_000_000;
/// After the sending, the time for the last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// Before a broken connection is tried again; in the closed loop also after a refusal.
const PAUSE_US: u64 = 200_000;
/// Before an idle connection that the server closed is opened again.
const SHORT_PAUSE_US: u64 = 10_000;
/// A sender that owes so much to its socket writes no further requests.
const MAX_OWED_BYTES: usize = 256 * 1024;
const MAX_KINDS_OF_ERRORS: usize = 32;
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// What the senders found.
#[derive(Default)]
pub(super) struct Sent {
    /// From when a payment was to be sent to its answer, of those that were accepted.
    pub(super) answers: Histogram,
    pub(super) first_us: Option<u64>,
    pub(super) last_us: u64,
    pub(super) errors: BTreeMap<String, u64>,
    /// Posted, but the connection broke before the answer.
    pub(super) unanswered: u64,
    /// Due in the open loop, but the server was too slow for them to be posted in time.
    pub(super) not_sent: u64,
}

/// One connection.
struct Sender {
    number: usize,
    round: Round,
    ids: Vec<String>,
    address: SocketAddr,
    /// A request up to its length.
    head: String,
    wire: Option<Wire>,
    /// Requests without an answer, the oldest first.
    unanswered: VecDeque<Posted>,
    received: Vec<u8>,
    /// The next payment's turn.
    turn: u64,
    not_before_us: u64,
}

/// A request that was posted.
struct Posted {
    turn: u64,
    count: usize,
    at_us: u64,
}

/// What all senders use.
struct Desk<'a> {
    plan: &'a Plan,
    stage: &'a Stage,
    ledger: &'a Ledger,
    poller: Poller,
    messages: Messages,
    body: Vec<u8>,
    chunk: Vec<u8>,
    sent: Sent,
}

/// Posts until the time is over or the stage says so, and waits for the last answers.
///
/// # Errors
///
/// The system refuses what the thread needs.
pub(super) fn run(plan: &Plan, stage: &Stage, ledger: &Ledger) -> io::Result<Sent> {
    let mut desk = Desk {
        plan,
        stage,
        ledger,
        poller: Poller::new()?,
        messages: plan.messages(),
        body: Vec::new(),
        chunk: vec![0; 64 * 1024],
        sent: Sent::default(),
    };
    let mut senders: Vec<Sender> = (0..plan.senders).map(|number| Sender::new(plan, number)).collect();
    let end_us = micros(plan.time);
    let mut tokens = Vec::new();
    loop {
        let now_us = stage.now_us().min(end_us);
        let is_over = now_us >= end_us || stage.step() != Step::Sending;
        for sender in &mut senders {
            sender.keep_time(&mut desk, now_us);
            // What was due before the end is still posted, where there is room for it.
            if !is_over || plan.rate.is_some() {
                sender.post(&mut desk, now_us);
            }
        }
        if is_over {
            break;
        }
        let next_us = senders.iter().filter_map(|sender| sender.next_us(plan)).min().unwrap_or(u64::MAX);
        let wait = Duration::from_micros(next_us.min(end_us).saturating_sub(stage.now_us())).min(LONGEST_WAIT);
        desk.poller.wait(wait, &mut tokens)?;
        tokens.iter().for_each(|&token| senders[token].hear(&mut desk));
    }
    finish(&mut senders, &mut desk)?;
    Ok(desk.sent)
}

fn finish(senders: &mut [Sender], desk: &mut Desk<'_>) -> io::Result<()> {
    let stopped_us = desk.stage.now_us();
    let time = Duration::from_micros(stopped_us).min(desk.plan.time);
    for sender in senders.iter() {
        let due = sender.round.turns_within(time).unwrap_or(sender.turn);
        desk.sent.not_sent += due.saturating_sub(sender.turn);
    }
    let until_us = stopped_us + micros(LAST_ANSWERS);
    let mut tokens = Vec::new();
    while senders.iter().any(|sender| !sender.unanswered.is_empty()) {
        if desk.stage.now_us() >= until_us || desk.stage.step() == Step::Over {
            senders.iter_mut().for_each(|sender| sender.give_up(desk, "no answer in time"));
            break;
        }
        desk.poller.wait(LONGEST_WAIT, &mut tokens)?;
        tokens.iter().for_each(|&token| senders[token].hear(desk));
    }
    Ok(())
}

impl Sender {
    fn new(plan: &Plan, number: usize) -> Sender {
        let (target, address) = &plan.http[number % plan.http.len()];
        let content_type = if plan.batch > 1 { "application/x-ndjson" } else { "application/json" };
        let (base, host) = (&target.base, &target.host);
        let mut head = format!(
            "POST {base}/v1/payments HTTP/1.1\r\nHost: {host}\r\nUser-Agent: payrelay-bench\r\nContent-Type: {content_type}\r\n"
        );
        if let Some(key) = &plan.key {
            head += &format!("Authorization: Bearer {}\r\n", key.expose());
        }
        head += "Content-Length: ";
        Sender {
            number,
            round: plan.round(number),
            ids: (number..plan.clients).step_by(plan.senders).map(|client| plan.client_id(client)).collect(),
            address: *address,
            head,
            wire: None,
            unanswered: VecDeque::new(),
            received: Vec::new(),
            turn: 0,
            not_before_us: 0,
        }
    }

    /// Gives up a connection that does not answer, and opens one where there is none.
    fn keep_time(&mut self, desk: &mut Desk<'_>, now_us: u64) {
        if self.unanswered.front().is_some_and(|posted| posted.at_us + ANSWER_TIME_US < now_us) {
            self.give_up(desk, "no answer in time");
        }
        if self.wire.is_none() && now_us >= self.not_before_us {
            match Wire::open(self.address, &desk.poller, self.number) {
                Ok(wire) => self.wire = Some(wire),
                Err(error) => self.give_up(desk, &plainly(&error)),
            }
        }
    }

    /// When this sender has something to do that no socket will tell; none: when it is answered.
    fn next_us(&self, plan: &Plan) -> Option<u64> {
        let has_room = self.unanswered.len() < plan.pipeline
            && self.wire.as_ref().is_none_or(|wire| wire.owed_bytes() < MAX_OWED_BYTES);
        let due_us = self.round.due_us(self.turn).unwrap_or(0);
        has_room.then(|| due_us.max(self.not_before_us))
    }

    /// Posts what is due and fits.
    fn post(&mut self, desk: &mut Desk<'_>, now_us: u64) {
        let Some(mut wire) = self.wire.take() else {
            return;
        };
        while now_us >= self.not_before_us
            && self.unanswered.len() < desk.plan.pipeline
            && wire.owed_bytes() < MAX_OWED_BYTES
        {
            let is_due = |turn| self.round.due_us(turn).is_none_or(|due_us| due_us <= now_us);
            let count = (self.turn..).take(desk.plan.batch).take_while(|turn| is_due(*turn)).count();
            if count == 0 {
                break;
            }
            self.write_request(desk, count, now_us, wire.owe());
            self.unanswered.push_back(Posted { turn: self.turn, count, at_us: now_us });
            self.turn += count as u64;
            desk.sent.first_us.get_or_insert(now_us);
        }
        match wire.flush(&desk.poller) {
            Ok(()) => self.wire = Some(wire),
            Err(error) => self.give_up(desk, &plainly(&error)),
        }
    }

    fn write_request(&self, desk: &mut Desk<'_>, count: usize, now_us: u64, out: &mut Vec<u8>) {
        desk.body.clear();
        for turn in (self.turn..).take(count) {
            let (client, number) = self.round.payment(turn);
            desk.ledger.post(client, number);
            let id = &self.ids[client / desk.plan.senders];
            write!(desk.body, "{{\"client\":\"{id}\",\"msg\":").expect("a Vec takes everything");
            desk.messages.write(&mut desk.body, id, number, self.round.due_us(turn).unwrap_or(now_us));
            desk.body.push(b'}');
            if desk.plan.batch > 1 {
                desk.body.push(b'\n');
            }
        }
        write!(out, "{}{}\r\n\r\n", self.head, desk.body.len()).expect("a Vec takes everything");
        out.extend_from_slice(&desk.body);
    }

    /// Something happened to the socket.
    fn hear(&mut self, desk: &mut Desk<'_>) {
        let Some(mut wire) = self.wire.take() else {
            return;
        };
        match self.exchange(&mut wire, desk) {
            Ok(true) => self.wire = Some(wire),
            Ok(false) => self.forget(desk),
            Err(why) => self.give_up(desk, &why),
        }
    }

    /// Writes and reads what goes; `false` once the server has said that it closes.
    fn exchange(&mut self, wire: &mut Wire, desk: &mut Desk<'_>) -> Result<bool, String> {
        wire.flush(&desk.poller).map_err(|error| plainly(&error))?;
        let count = match wire.read(&mut desk.chunk) {
            Ok(None) => return Ok(true),
            Ok(Some(count)) => count,
            // An idle connection may be closed at any time.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.unanswered.is_empty() => {
                self.not_before_us = desk.stage.now_us() + SHORT_PAUSE_US;
                return Ok(false);
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err("closed by the server".to_owned()),
            Err(error) => return Err(plainly(&error)),
        };
        self.received.extend_from_slice(&desk.chunk[..count]);
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        while let Some(answer) = answers::take(rest)? {
            rest = &rest[answer.length..];
            if answer.is_interim() {
                continue;
            }
            let posted = self.unanswered.pop_front().ok_or("an answer that nothing was asked for")?;
            self.note(&posted, &answer.outcomes(posted.count, desk.plan.batch > 1), desk);
            // Asking again at once would only measure how fast it refuses.
            if answer.is_refusal() && desk.plan.rate.is_none() {
                self.not_before_us = desk.stage.now_us() + PAUSE_US;
            }
            if answer.is_last {
                return Ok(false);
            }
        }
        let taken = received.len() - rest.len();
        self.received = received;
        self.received.drain(..taken);
        Ok(true)
    }

    fn note(&self, posted: &Posted, outcomes: &[Outcome], desk: &mut Desk<'_>) {
        let now_us = desk.stage.now_us();
        desk.sent.last_us = now_us;
        for (turn, outcome) in (posted.turn..).zip(outcomes) {
            match outcome {
                Outcome::Accepted => {
                    let (client, number) = self.round.payment(turn);
                    desk.ledger.accept(client, number);
                    let since_us = self.round.due_us(turn).unwrap_or(posted.at_us);
                    desk.sent.answers.record(now_us.saturating_sub(since_us));
                }
                Outcome::Refused(why) => desk.count_errors(why, 1),
            }
        }
    }

    /// The connection is lost: what it had not answered may be stored or not.
    fn give_up(&mut self, desk: &mut Desk<'_>, why: &str) {
        self.not_before_us = desk.stage.now_us() + PAUSE_US;
        desk.count_errors(&format!("connection: {why}"), 1);
        self.forget(desk);
    }

    fn forget(&mut self, desk: &mut Desk<'_>) {
        desk.sent.unanswered += self.unanswered.iter().map(|posted| posted.count as u64).sum::<u64>();
        self.unanswered.clear();
        self.received.clear();
        self.wire = None;
    }
}

impl Desk<'_> {
    fn count_errors(&mut self, kind: &str, count: u64) {
        self.stage.count_errors(count);
        let is_known = self.sent.errors.contains_key(kind);
        let kind = if is_known || self.sent.errors.len() < MAX_KINDS_OF_ERRORS { kind } else { "others" };
        *self.sent.errors.entry(kind.to_owned()).or_default() += count;
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
