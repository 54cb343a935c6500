//! F57: connections that never say a whole hello.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flood::{self, Stop, TURN};
use super::{Fault, Skipped};
use crate::history::What;
use crate::plan::Step;
use crate::process::Watch;
use crate::swarm::{Peer, Swarm, Talk};
use crate::world::World;

/// How long the contract gives a client for its hello, from connecting.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// What a busy machine may take on top.
const LATE: Duration = Duration::from_secs(2);

/// Opens connections to the node's TCP port: every other one is silent, the rest say a hello of a byte a second. Each
/// that is ended is followed by another.
///
/// The evidence: as many threads as the node has started for them.
///
/// # Errors
///
/// [`Skipped`]: not enough descriptors.
pub fn begin(world: &Arc<World>, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    let count = flood::size(world, 200, 2000);
    flood::begin(world, step, count, move |world, step, stop| hold(world, step, stop, count))
}

/// One that says nothing, or far too little.
pub fn talk(number: usize) -> Talk {
    let slow = format!(r#"{{"type":"hello","client":"slow-{number}","token":"none"}}"#);
    let mut talk = Talk::says([]);
    if number % 2 == 1 {
        talk = Talk::drips([], slow.as_bytes(), 1, Duration::from_secs(1));
    }
    talk
}

fn hold(world: &World, step: &Step, stop: &Stop, count: usize) -> io::Result<u64> {
    let node = flood::target(world, step);
    let Some((_, tcp)) = flood::ports(node, stop) else { return Ok(0) };
    let mut watch = Watch::over(node);
    let before = watch.most_threads;
    let mut swarm = Swarm::new()?;
    (0..count).for_each(|number| _ = swarm.add(tcp, talk(number)));
    let mut oldest = Duration::ZERO;
    while !stop.is_set() {
        swarm.turn(TURN)?;
        watch.look();
        for peer in swarm.peers.iter_mut().filter(|peer| peer.ended.is_some()) {
            oldest = oldest.max(peer.age());
            let tcp = node.ports().map_or(tcp, |(_, tcp)| tcp);
            peer.reopen(tcp, Instant::now() + TURN);
        }
    }
    oldest = swarm.peers.iter().map(Peer::age).fold(oldest, Duration::max);
    if oldest >= HELLO_TIME && watch.is_undisturbed() {
        judge(world, node.number, oldest);
    }
    Ok(watch.most_threads.saturating_sub(before).min(count as u64))
}

fn judge(world: &World, node: usize, oldest: Duration) {
    world.history.event(What::Measured { bound: "hello timeout".to_owned(), ms: oldest.as_secs_f64() * 1000.0 });
    if oldest > HELLO_TIME + LATE {
        let what = format!("node {node} bore with a connection without a hello for {oldest:?}");
        world.history.event(What::Broken { check: "L3".to_owned(), what });
    }
}
