//! One run from its plan to its verdict: start, torment under load, heal, drain, check.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::check;
use crate::history::{History, What};
use crate::nemesis;
use crate::options::Options;
use crate::plan::Plan;
use crate::tally::Tally;
use crate::workload::Workload;
use crate::world::World;

/// Quiet at the start, so that there is something to compare with.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long inboxes may take to empty once everything is healed.
const DRAIN_LIMIT: Duration = Duration::from_secs(120);

/// Runs the whole of it, and says how it ended.
pub fn run(options: &Options) -> ExitCode {
    let dir = options.out.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("payrelay-torture-{}-{}", options.seed, std::process::id()))
    });
    if let Err(cause) = play(options, &dir) {
        println!("failed: {cause} (history: {})", dir.display());
        return ExitCode::from(2);
    }
    let code = judge(&dir);
    if code == ExitCode::SUCCESS && !options.keep && options.out.is_none() {
        let _ = fs::remove_dir_all(&dir);
    }
    code
}

/// Checks a stored history, and prints what is wrong and then the result in one sentence.
pub fn judge(dir: &Path) -> ExitCode {
    let verdict = match check::check(dir) {
        Ok(verdict) => verdict,
        Err(cause) => {
            println!("failed: cannot read the history in {}: {cause}", dir.display());
            return ExitCode::from(2);
        }
    };
    print!("{verdict}");
    if let Err(cause) = verdict.write(dir) {
        println!("no result.json: {cause}");
    }
    if verdict.exit_code() != 0 {
        println!("history: {}", dir.display());
    }
    println!("{}", verdict.sentence());
    ExitCode::from(verdict.exit_code())
}

/// Prints the results of many runs as one table.
pub fn sum(dirs: &[PathBuf]) -> ExitCode {
    match Tally::of(dirs) {
        Ok(tally) => {
            println!("{}\n{}", tally.table(), tally.bounds());
            ExitCode::SUCCESS
        }
        Err(cause) => {
            println!("failed: {cause}");
            ExitCode::from(2)
        }
    }
}

fn play(options: &Options, dir: &Path) -> io::Result<()> {
    let history = History::create(dir)?;
    serde_json::to_writer_pretty(File::create(dir.join("options.json"))?, options)?;
    let plan = match &options.plan {
        Some(stored) => Plan::read(stored)?,
        None => Plan::draw(options),
    };
    plan.write(&dir.join("plan.jsonl"))?;
    println!("seed {}, {} faults planned, history in {}", options.seed, plan.steps.len(), dir.display());
    io::stdout().flush()?;

    let world = Arc::new(World::start(options, &history)?);
    let mut workload = Workload::start(&world)?;
    history.event(What::Quiet);
    thread::sleep(WARM_UP);
    let end = Instant::now() + Duration::from_secs(options.duration);
    nemesis::torment(&world, &plan);
    history.event(What::Quiet);
    // The plan may end with a quiet slice.
    thread::sleep(end.saturating_duration_since(Instant::now()));
    workload.stop_posting();
    history.event(What::Drain);
    if !workload.drain(DRAIN_LIMIT) {
        // What is missing the checker lists.
        history.event(What::Remark { text: "not every inbox was empty in time".into() });
    }
    workload.stop();
    Ok(())
}
