//! F6: a node that has no descriptor left.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit};

use super::flood::{self, HEALTH, Stop, TURN};
use super::{Fault, Skipped};
use crate::history::What;
use crate::plan::Step;
use crate::process::{Process, Watch};
use crate::swarm::{Swarm, Talk};
use crate::world::World;

/// For how long the threads are watched before anything is done.
const BEFORE: Duration = Duration::from_millis(500);
/// What the flood itself may cost the node before it is watched again.
const SETTLING: Duration = Duration::from_millis(800);
/// Shorter than this says nothing of how busy a thread is.
const LEAST: Duration = Duration::from_millis(500);
/// A thread that runs, or is ready to, for more than this share of the time spins; one that did so for more than that
/// before had other work. Of the time, not of a processor: on a busy machine a thread that spins gets little of one.
const SPINS: f64 = 0.9;
const WORKS: f64 = 0.5;
/// What a client of the flood says, and how often: more often than the heartbeat.
const SIGN_OF_LIFE: &[u8] = b"{\"type\":\"pong\"}\n";
const ALIVE: Duration = Duration::from_secs(2);
/// A little less than it has, to a little more.
const LESS: u64 = 8;
const SPREAD: u64 = 32;

/// By thread id: its name, and for what share of the time it ran or was ready to.
type Shares = HashMap<u32, (String, f64)>;

/// How long each thread had run at a moment.
struct Times {
    at: Instant,
    of: HashMap<u32, (String, Duration)>,
}

/// Leaves the node about as many descriptors as it has, and floods both of its ports. Healed, it has as many as before
/// and no flood; how long it takes until both ports serve again is measured.
///
/// The evidence: how many connections were not served while it lasted.
///
/// # Errors
///
/// [`Skipped`]: not enough descriptors of our own.
pub fn begin(world: &Arc<World>, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    let count = flood::size(world, 200, 1000);
    flood::begin(world, step, count, move |world, step, stop| exhaust(world, step, stop, count))
}

fn exhaust(world: &World, step: &Step, stop: &Stop, count: usize) -> io::Result<u64> {
    let node = flood::target(world, step);
    let Some(ports) = flood::ports(node, stop) else { return Ok(0) };
    let mut watch = Watch::over(node);
    let Some(process) = watch.process() else { return Ok(0) };
    let early = Times::of(process);
    thread::sleep(BEFORE);
    let quiet = early.shares(process);
    let Some(before) = limit(process, step) else { return Ok(0) };
    let outcome = hold(stop, ports, count, &mut watch);
    // The process may be gone; then its limit is as well.
    let _ = process.limit_descriptors(before);
    flood::measure_acceptance(world, node, "descriptors back")?;
    let (unserved, busy) = outcome?;
    if watch.is_undisturbed() {
        for (id, (name, share)) in busy {
            judge(world, node.number, &name, share, quiet.get(&id).map_or(0.0, |(_, share)| *share));
        }
    }
    Ok(unserved)
}

/// Lowers the limit and returns what it was. None if the process is gone.
fn limit(process: Process, step: &Step) -> Option<Rlimit> {
    let most = process.descriptors()?.saturating_sub(LESS) + step.amount % SPREAD;
    // It inherited the most that it may ask for from us.
    let maximum = getrlimit(Resource::Nofile).maximum;
    process.limit_descriptors(Rlimit { current: Some(most), maximum }).ok()
}

/// Keeps the flood up. Returns how many of it were not served, and how busy each thread was once it was there.
fn hold(
    stop: &Stop,
    ports: (SocketAddr, SocketAddr),
    count: usize,
    watch: &mut Watch<'_>,
) -> io::Result<(u64, Shares)> {
    let mut swarm = Swarm::new()?;
    for number in 0..count {
        let hello = format!("{{\"type\":\"hello\",\"client\":\"flood-{number:03}\"}}\n");
        let (address, talk) = match number % 2 {
            0 => (ports.0, Talk::says(HEALTH)),
            _ => (ports.1, Talk::drips(hello.into_bytes(), SIGN_OF_LIFE, SIGN_OF_LIFE.len(), ALIVE)),
        };
        swarm.add(address, talk);
    }
    let settled = Instant::now() + SETTLING;
    let mut times = None;
    while !stop.is_set() {
        swarm.turn(TURN)?;
        watch.look();
        if let Some(process) = watch.process()
            && settled <= Instant::now()
        {
            times.get_or_insert_with(|| Times::of(process));
        }
    }
    let unserved = swarm.peers.iter().filter(|peer| !flood::served(&peer.heard)).count();
    let shares = times.zip(watch.process()).map(|(times, process)| times.shares(process));
    Ok((unserved as u64, shares.unwrap_or_default()))
}

/// A thread must not spin for being out of descriptors.
fn judge(world: &World, node: usize, name: &str, share: f64, before: f64) {
    if share >= SPINS && before < WORKS {
        let what =
            format!("node {node} without a descriptor: thread {name} is at it for {:.0} % of the time", share * 100.0);
        world.history.event(What::Broken { check: "L3".to_owned(), what });
    }
}

impl Times {
    fn of(process: Process) -> Times {
        Times { at: Instant::now(), of: process.thread_times() }
    }

    /// How busy each thread has been since then; nothing if that is too short a time.
    fn shares(&self, process: Process) -> Shares {
        let lasted = self.at.elapsed();
        if lasted < LEAST {
            return Shares::new();
        }
        let now = process.thread_times().into_iter();
        let shares = now.filter_map(|(id, (name, ran))| {
            let ran = ran.saturating_sub(self.of.get(&id)?.1);
            Some((id, (name, ran.as_secs_f64() / lasted.as_secs_f64())))
        });
        shares.collect()
    }
}
