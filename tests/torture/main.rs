//! The torture test: real nodes and a real Redis, broken on purpose by a plan drawn from a seed, under a load whose
//! every answer and every frame is written down; and a checker that reads what was written and says whether a promise
//! was broken.
//!
//! ```text
//! senders ───> [proxy H] ──> node n1..n3 ──> [proxy R] ──> redis (──> [proxy X] ──> replica)
//! receivers ─> [proxy T] ──>
//!                 nemesis: signals, limits, settings, proxies, floods
//! ```
//!
//! `run` draws the plan, runs it, heals, drains, and checks; `check DIR` checks a stored history again. The process
//! ends with 0 if every promise held, 1 if one of safety was broken, 3 if something took too long or too much, 2 if
//! the run itself failed or proves nothing. `scripts/torture.sh` builds and calls it.
#![allow(unreachable_pub, missing_docs, reason = "a program of its own: nothing here is an interface of payrelay")]

#[path = "../harness/mod.rs"]
mod harness;

mod check;
mod fault;
mod faults;
mod history;
mod nemesis;
mod options;
mod plan;
mod process;
mod random;
mod roster;
mod run;
mod swarm;
mod tally;
mod verdict;
mod workload;
mod world;

use std::process::ExitCode;

use clap::Parser;

use options::{Cli, Command};

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(options) => run::run(&options),
        Command::Check { dir } => run::judge(&dir),
        Command::Sum { dirs } => run::sum(&dirs),
    }
}
