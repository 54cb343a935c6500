//! What the profile `rollback` adds: a failover that loses writes is told, mixes nothing up, and is got over.

use std::collections::HashMap;
use std::io;

use super::case::Case;
use super::findings::Findings;
use super::processes;
use crate::history::Kind;
use crate::roster;

/// What a node logs when it finds that the store came back without its last writes.
const TOLD: &str = "without its last writes";

/// After a failover that took payments which had been delivered, a client was told by a new epoch, or a node's log says
/// so; `lost` of them were accepted and are gone.
///
/// # Errors
///
/// A log that cannot be read.
pub(super) fn c4_told(case: &Case, findings: &mut Findings<'_>) -> io::Result<()> {
    let numbers_twice = numbers_given_twice(case);
    let Some((client, seq, at)) = numbers_twice else { return Ok(()) };
    if !processes::is_logged(case, TOLD)? && !has_new_epoch(case, client) {
        findings.add("C4", at, roster::id(client), || {
            format!("seq {seq} was given to two payments, and neither an epoch nor a log says that the store went back")
        });
    }
    Ok(())
}

/// (seq, accepted_at) is never two payments: C4 sees to that. Here: a seq that was, and so must be told.
fn numbers_given_twice(case: &Case) -> Option<(u32, u64, u64)> {
    let mut first: HashMap<(u32, u64), u64> = HashMap::new();
    let twice = case.receives().find(|record| {
        let uid = *first.entry((record.client, record.seq)).or_insert(record.uid);
        uid != record.uid
    });
    twice.map(|record| (record.client, record.seq, record.at))
}

fn has_new_epoch(case: &Case, client: u32) -> bool {
    let mut epochs = case.story.records.iter().filter(|record| record.kind == Kind::Welcome && record.client == client);
    let first = epochs.next().map(|record| record.digest);
    epochs.any(|record| Some(record.digest) != first)
}

/// After each failover payments are accepted and delivered again, before the next or the drain.
pub(super) fn l3_goes_on(case: &Case, findings: &mut Findings<'_>) {
    let failovers: Vec<_> = case.failovers().collect();
    for (number, failover) in failovers.iter().enumerate() {
        let until = failovers.get(number + 1).map_or(case.drain.unwrap_or(case.end), |next| next.begin);
        if until.saturating_sub(failover.end) < super::windows::SECOND * 2 {
            continue;
        }
        let of_it = |at: u64| failover.end < at && at < until;
        let mut came = case.payments.iter().filter(|(_, payment)| of_it(payment.first_begin) && payment.received > 0);
        if came.next().is_none() {
            findings.add("L3", failover.end, "everybody", || "nothing is delivered after a failover".into());
        }
    }
}
