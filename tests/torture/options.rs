//! What a run can be told, and what each profile makes of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::fault::Kind;

/// The nodes'. Short, so that the end of a silent client is seen within a run.
pub const HEARTBEAT: Duration = Duration::from_secs(3);

/// The torture test of payrelay.
#[derive(Debug, Parser)]
#[command(name = "payrelay-torture", bin_name = "scripts/torture.sh")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Draws a plan from the seed, runs it, and checks what happened
    Run(Options),
    /// Checks a stored history again
    Check {
        /// What a run left: records, events, options and plan
        dir: PathBuf,
    },
    /// Adds up the results of many runs
    Sum {
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
    },
}

/// One run. Everything that is drawn is drawn from these and nothing else.
#[derive(Args, Clone, Debug, Deserialize, Serialize)]
pub struct Options {
    /// What everything is drawn from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds under faults; healing and draining come on top
    #[arg(long, default_value_t = 60)]
    pub duration: u64,
    #[arg(long, value_enum, default_value_t = Profile::Gate)]
    pub profile: Profile,
    #[arg(long, default_value_t = 3)]
    pub nodes: usize,
    /// Receivers with acknowledgements; a few more, with other duties, come on top
    #[arg(long, default_value_t = 24)]
    pub clients: usize,
    #[arg(long, default_value_t = 8)]
    pub senders: usize,
    /// Payments a second of all senders together
    #[arg(long, default_value_t = 400)]
    pub rate: u64,
    /// Only these kinds of faults: F1,F20
    #[arg(long, value_delimiter = ',', value_parser = code)]
    pub only: Vec<String>,
    /// None of these kinds
    #[arg(long, value_delimiter = ',', value_parser = code)]
    pub without: Vec<String>,
    /// Runs this plan (a plan.jsonl of another run) instead of drawing one
    #[arg(long)]
    pub plan: Option<PathBuf>,
    /// Where the history goes [default: a temporary directory]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Keeps the history of a valid run as well
    #[arg(long)]
    pub keep: bool,
    /// The program under test [default: the one that was built with this test]
    #[arg(long)]
    pub server: Option<PathBuf>,
}

/// Which kinds of faults, how long each, and what is expected of the store.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Every kind that needs no special rights, in slices of 2 to 4 s
    Gate,
    /// Every kind this machine can do, in slices of 5 to 30 s
    Soak,
    /// Only what Redis can suffer
    Store,
    /// Lying clients, garbage and floods on top
    Hostile,
    /// Failovers that lose writes: what is lost must be told, nothing else may be
    Rollback,
}

/// A kind's number, if there is such a kind.
fn code(text: &str) -> Result<String, String> {
    Kind::parse(text).map(Kind::code).ok_or_else(|| "no kind of fault has this number".into())
}
