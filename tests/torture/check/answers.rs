//! C14, honesty: what an answer says beyond "it is stored" is true.

use std::collections::HashMap;

use super::case::{Attempt, Case, NEVER, Outcome};
use super::findings::Findings;
use super::windows::SECOND;
use crate::history::{Kind, Record, Status, Way, uid_text};
use crate::options::HEARTBEAT;
use crate::roster::{self, Duty};

/// How long a client that vanished may be called online: three heartbeats, and what it takes to close it.
const ONLINE_AFTER: u64 = HEARTBEAT.as_secs() * 3 * SECOND + 5 * SECOND;
/// What a node that died said of its clients is forgotten only as its word runs out.
const AFTERMATH: u64 = ONLINE_AFTER;
/// How long a node that is ready must go on being so.
const READY_FOR: u64 = SECOND;

/// C14: `acknowledged` only after an ack that covers it was sent. A client with `"ack":"auto"` sends none.
pub(super) fn c14_acknowledged(case: &Case, findings: &mut Findings<'_>) {
    let mut answers: HashMap<(u16, u64), Vec<&Attempt>> = HashMap::new();
    let says_so = |attempt: &&Attempt| attempt.outcome == Outcome::Ok && attempt.says(Status::Acknowledged);
    for attempt in case.attempts.iter().filter(says_so) {
        answers.entry((attempt.actor, attempt.uid)).or_default().push(attempt);
    }
    let mut acked: HashMap<u32, u64> = HashMap::new();
    for record in &case.story.records {
        let told = match record.kind {
            // A welcome may confirm what an earlier one of these confirmed.
            Kind::Ack | Kind::Welcome => {
                let acked = acked.entry(record.client).or_default();
                *acked = record.seq.max(*acked);
                continue;
            }
            Kind::ProbePayment if record.note == Status::Acknowledged as u8 => (record.client, record.seq),
            Kind::PostOk if record.note == Status::Acknowledged as u8 => {
                let of_it = answers.get(&(record.actor, record.uid)).into_iter().flatten();
                let Some(attempt) = of_it.into_iter().find(|attempt| attempt.end == record.at) else { continue };
                (attempt.client, attempt.seq)
            }
            _ => continue,
        };
        let (client, seq) = told;
        let acked = acked.get(&client).copied().unwrap_or(0);
        if seq > acked && case.duty(client) != Duty::Auto {
            findings.add("C14", record.at, roster::id(client), || {
                format!("seq {seq} is said to be acknowledged, and no more than {acked} was")
            });
        }
    }
}

/// C14: `"online":true` only if the client had a connection, now or a moment ago.
pub(super) fn c14_online(case: &Case, findings: &mut Findings<'_>) {
    for attempt in case.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ok && attempt.online) {
        if !was_online(case, attempt.client, attempt.begin, attempt.end) {
            let uid = uid_text(attempt.uid);
            findings.add("C14", attempt.end, roster::id(attempt.client), || {
                format!("said to be online in the answer to {uid}, and has no connection")
            });
        }
    }
}

/// A connection is of no less use than this: `hello_at` is written down about when it is sent.
fn was_online(case: &Case, client: u32, begin: u64, end: u64) -> bool {
    let connections = case.connections.get(&client).map_or(&[][..], Vec::as_slice);
    // Connections are counted in the order of their beginning, and the latest ones are what matters.
    let said_hello = connections.iter().rev().filter(|connection| connection.hello_at <= end + SECOND);
    let mut checked = said_hello.take_while(|connection| connection.hello_at != NEVER);
    checked.any(|connection| {
        let until = connection.closed_at.saturating_add(ONLINE_AFTER);
        until >= begin || until + case.windows.overlap(connection.closed_at, begin, AFTERMATH) >= begin
    })
}

/// Whether the store itself stopped after the word was given, which a node cannot know before: the refusal came later
/// than the second, and of all that was posted meanwhile, wherever, nothing had been stored by then.
fn stalls_later(case: &Case, attempt: &Attempt, ready_at: u64) -> bool {
    let from = case.attempts.partition_point(|other| other.begin < attempt.begin);
    let mut meanwhile = case.attempts[from..].iter().take_while(|other| other.begin <= attempt.end);
    attempt.end - ready_at > READY_FOR
        && !meanwhile.any(|other| other.outcome == Outcome::Ok && other.end <= attempt.end)
}

/// C14: a node that says it is ready takes a post within the next second. Only where no fault was near; what is asked
/// of it is that it does not answer with a 5xx.
pub(super) fn c14_ready(case: &Case, findings: &mut Findings<'_>) {
    let mut ready: HashMap<u8, Vec<u64>> = HashMap::new();
    let is_ready = |record: &&Record| record.kind == Kind::Ready && record.code == 200;
    for record in case.story.records.iter().filter(is_ready) {
        ready.entry(record.node).or_default().push(record.at);
    }
    for attempt in case.attempts.iter().filter(|attempt| attempt.is_5xx() && !attempt.is(Way::Cut)) {
        let said = ready.get(&attempt.node).map_or(&[][..], Vec::as_slice);
        let before = said.partition_point(|at| *at <= attempt.begin);
        let Some(at) = before.checked_sub(1).map(|place| said[place]) else { continue };
        let is_near = attempt.begin - at <= READY_FOR && !stalls_later(case, attempt, at);
        if is_near && case.windows.calm(at.saturating_sub(SECOND), attempt.end.saturating_add(SECOND)) {
            findings.add("C14", attempt.end, format!("node {}", attempt.node + 1), || {
                let ago = (attempt.begin - at) as f64 / 1e6;
                format!("a {} for {}, {ago:.0} ms after /readyz said 200", attempt.code, uid_text(attempt.uid))
            });
        }
    }
}
