//! F56: a crowd of clients, all cut off at once, that all come again at once elsewhere.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flood::{self, Stop, TURN};
use super::{Fault, Skipped};
use crate::history::What;
use crate::plan::Step;
use crate::random::Random;
use crate::swarm::{Peer, Swarm, Talk};
use crate::world::World;

/// How long the crowd may take to come in, before anything is done to it.
const GATHERING: Duration = Duration::from_secs(15);
/// How long it is watched coming in again; what takes longer has failed.
const STORM: Duration = Duration::from_secs(30);
/// What each waits at most before it comes again, where they do not come all at once.
const JITTER_MS: u64 = 1000;
/// From a refusal to the next try.
const AGAIN_MS: (u64, u64) = (100, 300);
/// More often than the heartbeat, so that nobody is taken for dead.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);

/// The crowd, and where it may go.
struct Crowd<'a> {
    world: &'a World,
    /// The node that all are cut off from.
    left: usize,
    swarm: Swarm,
    random: Random,
}

/// Has a crowd say hello on the node; then resets every connection of it, and those of all other receivers there, and
/// has the crowd come again on the other nodes: at once where the amount is even, else within a second.
///
/// The evidence: how many were welcomed again.
///
/// # Errors
///
/// [`Skipped`]: not enough descriptors.
pub fn begin(world: &Arc<World>, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    let count = flood::size(world, 300, 5000);
    flood::begin(world, step, count, move |world, step, stop| storm(world, step, stop, count))
}

fn storm(world: &World, step: &Step, stop: &Stop, count: usize) -> io::Result<u64> {
    let node = flood::target(world, step);
    let Some((_, tcp)) = flood::ports(node, stop) else { return Ok(0) };
    let mut swarm = Swarm::new()?;
    (1..=count).for_each(|number| _ = swarm.add(tcp, talk(node.number, number)));
    let random = Random::of(world.options.seed, &format!("crowd/{}", step.at_ms));
    let mut crowd = Crowd { world, left: node.number, swarm, random };
    crowd.come_in(GATHERING, |_| tcp)?;

    crowd.cut();
    node.tcp.cut();
    let begun = Instant::now();
    let jitter_ms = if step.amount.is_multiple_of(2) { 0 } else { JITTER_MS };
    crowd.scatter(begun, jitter_ms);
    let nobody = tcp;
    let welcome = crowd.come_in(STORM, |crowd| crowd.elsewhere().unwrap_or(nobody))?;
    let ms = begun.elapsed().as_secs_f64() * 1000.0;
    world.history.event(What::Measured { bound: "reconnect storm".to_owned(), ms });
    while !stop.is_set() {
        crowd.swarm.turn(TURN)?;
    }
    Ok(welcome as u64)
}

/// Each node's crowd has ids of its own: there may be two at once.
fn talk(node: usize, number: usize) -> Talk {
    let hello = format!("{{\"type\":\"hello\",\"client\":\"crowd-{node}-{number:04}\"}}\n");
    Talk::drips(hello.into_bytes(), b"{\"type\":\"pong\"}\n", 16, SIGN_OF_LIFE)
}

impl Crowd<'_> {
    /// Waits until everybody is in, or the time is over. Who is sent away tries again, at `address`. Returns how many
    /// are in.
    fn come_in(&mut self, limit: Duration, address: impl Fn(&mut Self) -> std::net::SocketAddr) -> io::Result<usize> {
        let deadline = Instant::now() + limit;
        loop {
            self.swarm.turn(TURN)?;
            let welcome = self.swarm.peers.iter().filter(|peer| is_welcome(peer)).count();
            if welcome == self.swarm.peers.len() || Instant::now() >= deadline {
                return Ok(welcome);
            }
            for place in 0..self.swarm.peers.len() {
                if self.swarm.peers[place].ended.is_some() {
                    let pause = Duration::from_millis(self.random.within(AGAIN_MS.0, AGAIN_MS.1));
                    let address = address(self);
                    self.swarm.peers[place].reopen(address, Instant::now() + pause);
                }
            }
        }
    }

    fn cut(&mut self) {
        self.swarm.peers.iter_mut().for_each(Peer::cut);
    }

    fn scatter(&mut self, now: Instant, jitter_ms: u64) {
        for place in 0..self.swarm.peers.len() {
            let at = now + Duration::from_millis(self.random.within(0, jitter_ms));
            let address = self.elsewhere().unwrap_or(self.swarm.peers[place].address());
            self.swarm.peers[place].reopen(address, at);
        }
    }

    /// The TCP port of another node that runs; of the same one where there is no other.
    fn elsewhere(&mut self) -> Option<std::net::SocketAddr> {
        let is_other = |number: &usize| *number != self.left || self.world.nodes.len() == 1;
        let others = self.world.nodes.iter().filter(|node| is_other(&node.number));
        let ports: Vec<_> = others.filter_map(|node| Some(node.ports()?.1)).collect();
        (!ports.is_empty()).then(|| *self.random.pick(&ports))
    }
}

fn is_welcome(peer: &Peer) -> bool {
    peer.is_open() && peer.heard.starts_with(b"{\"type\":\"welcome\"")
}
