//! F7 and F12: system calls of a node that fail because strace has them fail.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::flood::{self, HEALTH, NO_HELLO, Stop, TURN};
use super::{Fault, Skipped};
use crate::history::What;
use crate::plan::Step;
use crate::process::{Process, Watch};
use crate::swarm::{Peer, Swarm, Talk};
use crate::world::World;

/// The threads of a node that take connections, and start a thread for each.
const ACCEPTORS: [&str; 2] = ["http-accept", "tcp-accept"];
/// How long attaching to a node, and letting go of it, may take.
const ATTACHING: Duration = Duration::from_secs(5);
/// How a new connection fails that is not about descriptors.
const ERRORS: [&str; 4] = ["ECONNABORTED", "ENOBUFS", "ENFILE", "EPERM"];
/// From one pair of connections to the next.
const BETWEEN: Duration = Duration::from_millis(50);
/// How long a connection listens before it speaks: what is said to one that is refused must not be lost by that.
const LISTENING: Duration = Duration::from_millis(300);
/// How long a connection may go unserved while every fifth is to fail.
const PATIENCE: Duration = Duration::from_secs(5);

/// strace on a node; dropped, it lets go.
#[derive(Debug)]
struct Tracer {
    child: Child,
    log: PathBuf,
}

/// Has every third thread that the node starts fail. Connections are opened all the while: some are refused, others
/// served. Healed, both ports serve again; how long that takes is measured.
///
/// The evidence: how many connections were refused.
///
/// # Errors
///
/// [`Skipped`]: no strace, or it may not attach.
pub fn begin_no_thread(world: &Arc<World>, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    let tracer = Tracer::attach(world, step, "clone,clone3", "EAGAIN:when=1+3")?;
    flood::begin(world, step, 0, move |world, step, stop| {
        let (mut watch, peers) = knock(world, step, stop)?;
        tracer.let_go();
        flood::measure_acceptance(world, flood::target(world, step), "threads back")?;
        let refused = peers.iter().filter(|peer| flood::refused(&peer.heard)).count();
        let served = peers.iter().filter(|peer| flood::served(&peer.heard)).count();
        if refused > 0 && served == 0 && watch.is_undisturbed() {
            let what = format!("node {}: every connection is refused for want of every third thread", step.node);
            world.history.event(What::Broken { check: "L3".to_owned(), what });
        }
        Ok(refused as u64)
    })
}

/// Has every fifth accept(2) of the node fail, the amount says how. Connections are opened all the while, and each must
/// be served. Healed, both ports serve again; how long that takes is measured.
///
/// The evidence: how many calls failed.
///
/// # Errors
///
/// [`Skipped`]: no strace, or it may not attach.
pub fn begin_accept(world: &Arc<World>, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    let error = ERRORS[usize::try_from(step.amount % 4).expect("below four")];
    let tracer = Tracer::attach(world, step, "accept4", &format!("{error}:when=3+5"))?;
    flood::begin(world, step, 0, move |world, step, stop| {
        let (mut watch, peers) = knock(world, step, stop)?;
        let failed = tracer.let_go();
        flood::measure_acceptance(world, flood::target(world, step), "accept back")?;
        let forgotten = |peer: &&Peer| peer.heard.is_empty() && peer.age() > PATIENCE;
        let unserved = peers.iter().filter(forgotten).count();
        if unserved > 0 && watch.is_undisturbed() {
            let what =
                format!("node {}: {unserved} connections were not served, every fifth accept failing", step.node);
            world.history.event(What::Broken { check: "L3".to_owned(), what });
        }
        Ok(failed)
    })
}

/// Opens connections to both ports until it is time to end.
fn knock<'a>(world: &'a World, step: &Step, stop: &Stop) -> io::Result<(Watch<'a>, Vec<Peer>)> {
    let node = flood::target(world, step);
    let (mut watch, mut swarm) = (Watch::over(node), Swarm::new()?);
    let mut next = Instant::now();
    while !stop.is_set() {
        if let Some((http, tcp)) = node.ports()
            && next <= Instant::now()
        {
            next += BETWEEN;
            for (address, says) in [(http, HEALTH), (tcp, NO_HELLO)] {
                swarm.add(address, Talk { hold: LISTENING, ..Talk::says(says) });
            }
        }
        swarm.turn(TURN)?;
        watch.look();
    }
    // The last ones get the time that the others had.
    let last = Instant::now() + 2 * LISTENING;
    while Instant::now() < last {
        swarm.turn(TURN)?;
    }
    Ok((watch, swarm.peers))
}

impl Tracer {
    /// Has these calls of the node's present process fail, `error` says how and which of them.
    fn attach(world: &World, step: &Step, calls: &str, error: &str) -> Result<Tracer, Skipped> {
        let node = flood::target(world, step);
        let process = Process::of(node).ok_or_else(|| Skipped("the node is down".to_owned()))?;
        let log = node.log().with_extension(format!("{}.strace", step.kind.code()));
        let said = log.with_extension("said");
        let child = Tracer::command(process, calls, error, &log, &said).and_then(|mut strace| strace.spawn());
        let child = child.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Skipped("no strace".to_owned()),
            _ => Skipped(format!("no strace: {error}")),
        })?;
        let mut tracer = Tracer { child, log };
        let deadline = Instant::now() + ATTACHING;
        loop {
            let tracers = process.tracers(&ACCEPTORS);
            if tracers.len() >= ACCEPTORS.len() && tracers.iter().all(|id| *id == tracer.child.id()) {
                return Ok(tracer);
            }
            if Instant::now() > deadline || tracer.child.try_wait().is_ok_and(|status| status.is_some()) {
                let why = fs::read_to_string(&said).unwrap_or_default();
                return Err(Skipped(format!("strace does not attach: {}", why.trim())));
            }
            thread::sleep(TURN);
        }
    }

    fn command(process: Process, calls: &str, error: &str, log: &Path, said: &Path) -> io::Result<Command> {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-p", &process.pid().to_string()])
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:error={error}")])
            .arg("-o")
            .arg(log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(said)?);
        Ok(command)
    }

    /// Lets go of the node, and returns how many of its calls failed.
    fn let_go(mut self) -> u64 {
        self.detach();
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains("(INJECTED)")).count() as u64
    }

    /// Asks strace to end, which leaves the node as it was; kills it where it does not.
    fn detach(&mut self) {
        let deadline = Instant::now() + ATTACHING;
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(TURN);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Reaped already in most cases: then nothing is sent to anybody.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.detach();
        }
    }
}
