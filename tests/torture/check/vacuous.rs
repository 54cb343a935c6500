//! V1: a run that did too little proves nothing, and must not count as one that found nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::bounds;
use super::case::{Attempt, Case, NEVER, Outcome};
use super::findings::Findings;
use crate::fault::Kind as Fault;
use crate::history::{Way, What};
use crate::options::Profile;
use crate::roster::{self, Duty};
use crate::verdict::Figures;

/// Shorter runs cannot show every misdeed, nor every receiver's way back.
const LONG_ENOUGH_SECS: u64 = 30;

/// V1: the history is whole.
pub(super) fn v1_whole(case: &Case, findings: &mut Findings<'_>) {
    if case.drain.is_none() {
        findings.add("V1", case.end, "the run", || "it ends before its drain: what is lost cannot be told".into());
    }
    if case.strays > 0 {
        findings.add("V1", case.end, "the run", || format!("{} answers to posts that never began", case.strays));
    }
}

/// V1: at least half of the payments that were meant to succeed did, and the canary was there. Payments and not posts:
/// what cannot be stored is posted again and again while Redis is away.
pub(super) fn v1_accepted(case: &Case, findings: &mut Findings<'_>) {
    let meant = case.attempts.iter().filter(|attempt| !attempt.is(Way::Cut) && !attempt.is(Way::Reused));
    let meant: HashSet<u64> = meant.map(|attempt| attempt.uid).collect();
    let accepted = meant.iter().filter(|uid| case.payments[uid].was_accepted()).count();
    if accepted * 2 < meant.len() || meant.is_empty() {
        let of = meant.len();
        findings.add("V1", case.end, "the run", || format!("{accepted} of {of} payments were accepted"));
    }
    if !bounds::canary_received(case) {
        findings.add("V1", case.end, "the run", || "the canary received nothing".into());
    }
}

/// V1: every kind that was planned took place and was noticed, unless this machine cannot do it; and so did every
/// misdeed of senders and receivers.
pub(super) fn v1_effects(case: &Case, figures: &Figures, findings: &mut Findings<'_>) {
    let planned: BTreeSet<Fault> = case.plan.steps.iter().map(|step| step.kind).collect();
    for kind in planned.into_iter().filter(|kind| !kind.is_behaviour()) {
        let code = kind.code();
        let tally = figures.faults.get(&code).copied().unwrap_or_default();
        if !figures.skipped.contains_key(&code) && tally.effect == 0 {
            findings.add("V1", case.end, format!("{code} {}", kind.words()), || {
                format!("was planned, took place {} times, and nobody noticed", tally.times)
            });
        }
    }
    for kind in expected_behaviours(case) {
        let code = kind.code();
        if !figures.skipped.contains_key(&code) && figures.behaviours.get(&code).is_none_or(|times| *times == 0) {
            findings.add("V1", case.end, format!("{code} {}", kind.words()), || "never happened".into());
        }
    }
}

fn expected_behaviours(case: &Case) -> impl Iterator<Item = Fault> {
    let options = &case.options;
    let asked = move |kind: Fault| {
        let code = kind.code();
        (options.only.is_empty() || options.only.contains(&code)) && !options.without.contains(&code)
    };
    let has_reason = |kind: Fault| match kind {
        // Only a profile with liars has any.
        Fault::F55 => case.options.profile == Profile::Hostile,
        // Nothing is still under way where every post was answered in time.
        Fault::F72 => case.attempts.iter().any(may_be_under_way),
        _ => true,
    };
    let kinds = Fault::ALL.iter().map(|(kind, _)| *kind).filter(|kind| kind.is_behaviour());
    kinds.filter(move |kind| is_long(case) && asked(*kind) && has_reason(*kind))
}

/// A post that a sender repeats without knowing whether the first one is over.
fn may_be_under_way(attempt: &Attempt) -> bool {
    let is_lone = [Way::Single, Way::Raw, Way::Batch].iter().any(|way| attempt.is(*way));
    is_lone && attempt.payment_id != 0 && attempt.outcome == Outcome::Unknown && attempt.code == 503
}

/// V1: every receiver that acknowledges came back at least once.
pub(super) fn v1_reconnects(case: &Case, findings: &mut Findings<'_>) {
    for client in (0..roster::count(&case.options)).filter(|client| case.duty(*client) == Duty::Acks) {
        let connections = case.connections.get(&client).map_or(&[][..], Vec::as_slice);
        let welcomed = connections.iter().filter(|connection| connection.welcome_at != NEVER).count();
        if welcomed < 2 && is_long(case) {
            findings.add("V1", case.end, roster::id(client), || format!("was welcomed {welcomed} times, never again"));
        }
    }
}

fn is_long(case: &Case) -> bool {
    case.options.duration >= LONG_ENOUGH_SECS
}

/// What took place, and what could not.
pub(super) fn count_faults(case: &Case, figures: &mut Figures) {
    for window in &case.windows.all {
        let tally = figures.faults.entry(window.kind.code()).or_default();
        tally.times += 1;
        tally.noticed += u64::from(window.effect.is_some_and(|effect| effect > 0));
        tally.effect += window.effect.unwrap_or(0);
    }
    let mut behaviours: BTreeMap<String, u64> = BTreeMap::new();
    for event in &case.story.events {
        match &event.what {
            What::Behaved { kind } => *behaviours.entry(kind.code()).or_default() += 1,
            What::Skipped { kind, why } => {
                figures.skipped.insert(kind.code(), why.clone());
            }
            _ => {}
        }
    }
    figures.behaviours = behaviours;
}
