//! The checker: judges a run by what it wrote down, as a pure function of the files in its directory.
//!
//! Which rule is which is in the first line of each function, under the number that the design of this test gave it:
//! C1 to C16 are promises of safety, L1 to L3 of time, V1 guards against a run that proves nothing. Where a rule
//! cannot be decided because an outcome is not known, it is judged in payrelay's favour.

mod answers;
mod bounds;
mod case;
mod findings;
mod processes;
mod rollback;
mod store;
mod vacuous;
mod windows;
mod wire;

use std::collections::HashSet;
use std::io;
use std::path::Path;

use case::{Case, NEVER, Outcome};
use findings::Findings;
use store::Lost;

use crate::verdict::{Figures, Verdict};

/// Judges what a run left in its directory.
///
/// # Errors
///
/// The files cannot be read, or are not those of a run.
pub fn check(dir: &Path) -> io::Result<Verdict> {
    let case = Case::read(dir)?;
    let mut findings = Findings::new(&case.windows);
    let mut figures = figures(&case);
    processes::seen_broken(&case, &mut findings);
    let lost = store(&case, &mut findings);
    figures.rolled_back = lost.rolled_back;
    wire(&case, &mut findings);
    answers::c14_acknowledged(&case, &mut findings);
    answers::c14_online(&case, &mut findings);
    answers::c14_ready(&case, &mut findings);
    processes::c16_logs(&case, &mut findings)?;
    processes::c16_ends(&case, &mut findings);
    figures.levels = processes::c16_levels(&case, &mut findings);
    if case.is_rollback() {
        rollback::c4_told(&case, &mut findings)?;
        rollback::l3_goes_on(&case, &mut findings);
    }
    bounds(&case, &mut figures, &mut findings);
    vacuous(&case, &figures, &mut findings);
    Ok(Verdict {
        seed: case.options.seed,
        profile: format!("{:?}", case.options.profile).to_lowercase(),
        seconds: case.end as f64 / 1e9,
        broken: findings.broken,
        gravity: findings.gravity,
        violations: findings.listed,
        figures,
    })
}

fn store(case: &Case, findings: &mut Findings<'_>) -> Lost {
    let lost = store::c1_lost(case, findings);
    store::c2_phantom(case, findings);
    let places = store::c4_agreement(case, findings);
    store::c5_bytes(case, findings);
    store::c10_ids(case, findings);
    store::c11_real_time(case, findings);
    store::c12_mixed(case, &places, findings);
    store::c15_gaps(case, &lost, &places, findings);
    lost
}

fn wire(case: &Case, findings: &mut Findings<'_>) {
    wire::c6_order(case, findings);
    wire::c7_window(case, findings);
    wire::c8_acked(case, findings);
    wire::c9_repeats(case, findings);
    wire::c13_single(case, findings);
}

fn bounds(case: &Case, figures: &mut Figures, findings: &mut Findings<'_>) {
    let measures = &mut figures.measures;
    measures.extend(bounds::l1_alive(case, findings));
    measures.extend(bounds::l2_isolated(case, findings));
    measures.push(bounds::l3_node_killed(case, findings));
    measures.extend(bounds::l3_redis_back(case, findings));
    measures.push(bounds::l3_answers(case, findings));
    measures.push(bounds::l3_without_doorbell(case, findings));
    measures.extend(bounds::l3_measured(case, findings));
    measures.retain(|measure| measure.count > 0);
}

fn vacuous(case: &Case, figures: &Figures, findings: &mut Findings<'_>) {
    vacuous::v1_whole(case, findings);
    vacuous::v1_accepted(case, findings);
    vacuous::v1_effects(case, figures, findings);
    vacuous::v1_reconnects(case, findings);
}

/// What can be counted without judging. C3, what was delivered although nobody was told that it is stored, is among it.
fn figures(case: &Case) -> Figures {
    let mut figures = Figures { dead_letters: case.dead.len() as u64, ..Figures::default() };
    figures.attempts = case.attempts.len() as u64;
    let duplicates = case.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ok && attempt.duplicate);
    figures.duplicates = duplicates.count() as u64;
    for payment in case.payments.values() {
        let is_unknown = !payment.was_accepted() && !payment.was_refused();
        figures.accepted += u64::from(payment.was_accepted());
        figures.refused += u64::from(payment.was_refused());
        figures.unknown += u64::from(is_unknown);
        figures.recovered += u64::from(is_unknown && payment.received > 0);
    }
    let mut places = HashSet::new();
    for record in case.receives() {
        figures.deliveries += 1;
        figures.repeats += u64::from(!places.insert(case.place(record)));
    }
    for connections in case.connections.values() {
        let welcomed = connections.iter().filter(|connection| connection.welcome_at != NEVER).count() as u64;
        figures.connections += welcomed;
        figures.reconnects += welcomed.saturating_sub(1);
    }
    vacuous::count_faults(case, &mut figures);
    figures
}
