//! The torture test's plan: the same options give the same faults, and none that would undo another.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "parts of the torture test, which is a program of its own")]

#[path = "torture/fault.rs"]
mod fault;
#[path = "torture/options.rs"]
mod options;
#[path = "torture/plan.rs"]
mod plan;
#[path = "torture/random.rs"]
mod random;

use std::collections::BTreeSet;

use clap::Parser;

use fault::Kind;
use options::{Cli, Command, Options};
use plan::{Plan, Step, excludes};

fn options(words: &str) -> Options {
    let line = format!("payrelay-torture run {words}");
    match Cli::try_parse_from(line.split_whitespace()).expect("options").command {
        Command::Run(options) => options,
        other => panic!("a run, not {other:?}"),
    }
}

fn draw(words: &str) -> Vec<Step> {
    Plan::draw(&options(words)).steps
}

fn kinds(steps: &[Step]) -> BTreeSet<Kind> {
    steps.iter().map(|step| step.kind).collect()
}

const PROFILES: [&str; 5] = ["gate", "soak", "store", "hostile", "rollback"];

#[test]
fn the_same_options_give_the_same_plan() {
    for profile in PROFILES {
        let words = format!("--seed 7 --duration 600 --profile {profile}");
        assert_eq!(draw(&words), draw(&words));
        assert_ne!(draw(&words), draw(&words.replace('7', "8")));
    }
}

#[test]
fn a_plan_is_read_as_it_was_written() {
    let plan = Plan::draw(&options("--seed 3 --duration 300 --profile soak"));
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("plan-{}.jsonl", std::process::id()));
    plan.write(&path).expect("a file of our own");
    let read = Plan::read(&path);
    std::fs::remove_file(&path).expect("our own file");
    assert_eq!(read.expect("a plan"), plan);
}

#[test]
fn a_minute_at_the_gate_sees_most_kinds_and_a_few_see_all() {
    let mut seen = BTreeSet::new();
    for seed in 1..=20 {
        let found = kinds(&draw(&format!("--seed {seed} --duration 60")));
        assert!(found.len() >= 15, "seed {seed}: only {found:?}");
        if seed <= 4 {
            seen.extend(found);
        }
    }
    use Kind::{F1, F2, F3, F5, F20, F22, F23, F24, F25, F26, F27, F28, F29, F30, F31, F33, F36, F37};
    for kind in [F1, F2, F3, F5, F20, F22, F23, F24, F25, F26, F27, F28, F29, F30, F31, F33, F36, F37] {
        assert!(seen.contains(&kind), "{kind:?} in none of four runs");
    }
    assert!(!seen.contains(&Kind::F38), "the gate loses nothing");
}

#[test]
fn no_two_faults_that_exclude_each_other_are_planned_at_once() {
    for profile in PROFILES {
        for seed in 1..=20 {
            let steps = draw(&format!("--seed {seed} --duration 900 --profile {profile}"));
            assert!(!steps.is_empty());
            for (place, one) in steps.iter().enumerate() {
                assert!(one.at_ms + one.length_ms <= 900_000 && one.node < 3 && one.length_ms > 0, "{one:?}");
                let at_once = steps[place + 1..].iter().take_while(|other| other.at_ms < one.at_ms + one.length_ms);
                for other in at_once {
                    assert!(!excludes(one, other), "{profile} {seed}: {one:?} and {other:?}");
                }
            }
        }
    }
}

#[test]
fn some_faults_do_overlap_and_some_time_is_quiet() {
    let steps = draw("--seed 1 --duration 900 --profile soak");
    let overlapping = steps.windows(2).filter(|two| two[1].at_ms < two[0].at_ms + two[0].length_ms).count();
    assert!(overlapping > 5, "{overlapping}");
    // Every two minutes fifteen seconds in which nothing begins, and what was begun is over.
    let mut quiet = 0;
    let mut over = 0;
    for step in &steps {
        quiet += u32::from(step.at_ms > over + 15_000);
        over = over.max(step.at_ms + step.length_ms);
    }
    assert!(quiet >= 6, "{quiet}");
}

#[test]
fn only_the_kinds_that_were_asked_for_are_planned() {
    assert_eq!(kinds(&draw("--duration 300 --only F1,F20")), BTreeSet::from([Kind::F1, Kind::F20]));
    let without = kinds(&draw("--duration 600 --without F1,F20"));
    assert!(!without.contains(&Kind::F1) && !without.contains(&Kind::F20) && without.len() > 15, "{without:?}");
    assert!(draw("--duration 300 --only F50").is_empty(), "what clients do of their own accord is no step");
    assert!(draw("--duration 300 --only F38").is_empty(), "payments are lost in one profile only");
    assert!(kinds(&draw("--duration 600 --profile rollback")).contains(&Kind::F38));
    assert!(!kinds(&draw("--duration 900 --profile store")).contains(&Kind::F1));
}
