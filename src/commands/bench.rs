//! `payrelay bench`: puts a node, or several, under load and checks what comes out.
//!
//! All clients live on one thread and all senders on another, so that the generator itself takes
//! little of the machine; the main thread tells the progress and decides when a run is over.

use std::io::{self, IsTerminal, Write};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use self::ledger::Ledger;
use self::plan::Plan;
use self::report::{Report, grouped};
use self::stage::{Stage, Step};
use super::{Failure, plainly, print, say};
use crate::args::BenchArgs;
use crate::signals;

mod answers;
mod check;
mod histogram;
mod ledger;
mod message;
mod plan;
mod receivers;
mod report;
mod senders;
mod stage;
mod wire;

/// After the sending: without an arrival for so long, what is missing is lost.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// Once everything arrived, what comes again may still show up.
const LINGER: Duration = Duration::from_millis(200);
const PROGRESS: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Runs the load and prints the report.
///
/// # Errors
///
/// [`Failure::Usage`]: nothing was sent. [`Failure::Runtime`]: a client was not let in, nothing was
/// accepted, or the check found something; then the report says how much.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let plan = Plan::new(args)?;
    let stop = signals::listen(None).map_err(|error| failed("cannot listen to signals", &error))?;
    let (stage, ledger) = (Stage::new(), Ledger::new(plan.clients));
    let report = std::thread::scope(|scope| {
        let run = Run { plan: &plan, stage: &stage, ledger: &ledger, stop };
        let report = run.all(scope);
        // Whatever happened: the threads end, else the scope would wait for them for ever.
        stage.go_to(Step::Over);
        report
    })?;
    let text = if args.json { report.json() } else { report.text() };
    print(text.as_bytes())?;
    report.failure().map_or(Ok(()), |line| Err(Failure::Runtime(line)))
}

struct Run<'a> {
    plan: &'a Plan,
    stage: &'a Stage,
    ledger: &'a Ledger,
    /// Brings the first Ctrl-C.
    stop: Receiver<()>,
}

/// A thread of a run.
type Worker<'scope, T> = ScopedJoinHandle<'scope, io::Result<T>>;

impl<'a> Run<'a> {
    fn all<'scope>(&self, scope: &'scope Scope<'scope, '_>) -> Result<Report, Failure>
    where
        'a: 'scope,
    {
        let (plan, stage, ledger) = (self.plan, self.stage, self.ledger);
        let receivers = start(scope, "receivers", move || receivers::run(plan, stage, ledger))?;
        self.await_clients(&receivers)?;
        say(&format!("{} clients connected; {}", grouped(plan.clients as u64), plan.sending()));
        stage.go_to(Step::Sending);
        let senders = start(scope, "senders", move || senders::run(plan, stage, ledger))?;
        let mut line = ProgressLine::new();
        let mut ended_early = self.await_senders(&senders, &mut line);
        stage.go_to(Step::Draining);
        let sent = join(senders)?;
        ended_early |= self.drain(&mut line);
        line.finish();
        stage.go_to(Step::Over);
        Ok(Report::new(plan, ledger, sent, &join(receivers)?, ended_early))
    }

    fn await_clients<T>(&self, receivers: &Worker<'_, T>) -> Result<(), Failure> {
        while self.stage.welcome() < self.plan.clients {
            if let Some(why) = self.stage.not_let_in() {
                let (welcome, clients) = (self.stage.welcome(), self.plan.clients);
                return Err(Failure::Runtime(format!("{why} ({welcome} of {clients} clients were)")));
            }
            if receivers.is_finished() {
                return Err(Failure::Runtime("the receivers' thread ended; the lines above say why".to_owned()));
            }
            if self.stop.recv_timeout(LOOK).is_ok() {
                return Err(Failure::Runtime("stopped before all clients were connected".to_owned()));
            }
        }
        Ok(())
    }

    /// Waits until the sending is over; `true` if that was asked for.
    fn await_senders<T>(&self, senders: &Worker<'_, T>, line: &mut ProgressLine) -> bool {
        while !senders.is_finished() {
            if self.stop.recv_timeout(LOOK).is_ok() {
                return true;
            }
            line.tell(self.stage, self.ledger);
        }
        false
    }

    /// Waits until everything accepted arrived, or nothing more does; `true` if it was broken off.
    fn drain(&self, line: &mut ProgressLine) -> bool {
        let (mut delivered, mut since) = (self.ledger.delivered(), Instant::now());
        loop {
            if self.ledger.delivered() != delivered {
                (delivered, since) = (self.ledger.delivered(), Instant::now());
            }
            let patience = if self.ledger.missing() == 0 { LINGER } else { DRAIN_TIME };
            if since.elapsed() >= patience {
                return false;
            }
            if self.stop.recv_timeout(LOOK).is_ok() {
                return true;
            }
            line.tell(self.stage, self.ledger);
        }
    }
}

fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> io::Result<T> + Send + 'scope,
) -> Result<Worker<'scope, T>, Failure> {
    let started = Builder::new().name(name.to_owned()).spawn_scoped(scope, body);
    started.map_err(|error| failed(&format!("cannot start the {name}"), &error))
}

fn join<T>(worker: Worker<'_, T>) -> Result<T, Failure> {
    match worker.join() {
        Ok(outcome) => outcome.map_err(|error| failed("the run broke off", &error)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::Runtime(format!("{what}: {}", plainly(error)))
}

/// The line on standard error, once a second; on a terminal it writes over itself.
struct ProgressLine {
    is_terminal: bool,
    told_at: Instant,
    accepted: u64,
    width: usize,
}

impl ProgressLine {
    fn new() -> ProgressLine {
        ProgressLine { is_terminal: io::stderr().is_terminal(), told_at: Instant::now(), accepted: 0, width: 0 }
    }

    fn tell(&mut self, stage: &Stage, ledger: &Ledger) {
        let since = self.told_at.elapsed();
        if since < PROGRESS {
            return;
        }
        let accepted = ledger.accepted();
        let per_second = (accepted - self.accepted) as f64 / since.as_secs_f64();
        (self.told_at, self.accepted) = (Instant::now(), accepted);
        let line = format!(
            "{} s: {} accepted ({}/s), {} delivered, {} under way, {} errors",
            stage.now_us() / 1_000_000,
            grouped(accepted),
            grouped(per_second as u64),
            grouped(ledger.delivered()),
            grouped(ledger.missing()),
            grouped(stage.errors())
        );
        if self.is_terminal {
            // What was longer before is written over.
            self.width = self.width.max(line.len());
            let _ = write!(io::stderr(), "\r{line:width$}", width = self.width);
        } else {
            say(&line);
        }
    }

    fn finish(&self) {
        if self.width > 0 {
            let _ = writeln!(io::stderr());
        }
    }
}
