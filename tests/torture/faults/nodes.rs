//! What happens to a node's process: killed, frozen, stopped in order, or killed with all others and Redis.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Fault, random, redis, target};
use crate::harness::eventually_true;
use crate::history::What;
use crate::plan::Step;
use crate::random::Random;
use crate::world::World;

/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Signals closer together than 300 ms are one.
const SECOND_SIGNAL: Duration = Duration::from_millis(400);

/// Where a node was, and is to be again.
struct Gone {
    node: usize,
    effect: u64,
}

/// F1: kill -9; started again at the end.
pub fn kill(world: &World, step: &Step) -> Box<dyn Fault> {
    let node = target(world, step);
    // It may still be coming up after a death of its own.
    node.revive();
    Box::new(Gone { node: node.number, effect: u64::from(node.kill()) })
}

impl Fault for Gone {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        if world.nodes[self.node].revive() { self.effect } else { 0 }
    }
}

struct Frozen {
    node: usize,
    effect: u64,
}

/// F2: SIGSTOP, and SIGCONT at the end.
pub fn freeze(world: &World, step: &Step) -> Box<dyn Fault> {
    let node = target(world, step);
    node.revive();
    node.signal(Signal::STOP);
    let is_frozen = eventually_true(Duration::from_secs(1), || node.is_frozen());
    Box::new(Frozen { node: node.number, effect: u64::from(is_frozen) })
}

impl Fault for Frozen {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        let node = &world.nodes[self.node];
        let still = u64::from(node.is_frozen());
        node.signal(Signal::CONT);
        self.effect.min(still)
    }
}

/// F3: SIGTERM; started again at the end. `amount`: above 1, a second SIGTERM follows, which ends it at once.
pub fn stop(world: &World, step: &Step) -> Box<dyn Fault> {
    let node = target(world, step);
    node.revive();
    let (start, mut effect) = (Instant::now(), 0);
    if node.terminate() {
        effect = 1;
        let is_hurried = step.amount > 1 && !eventually_true(SECOND_SIGNAL, || node.has_stopped());
        if is_hurried {
            node.terminate();
        }
        let status = node.wait(STOP_LIMIT.saturating_sub(start.elapsed()));
        let may_be = |code| code == 0 || (is_hurried && code == 1);
        if !status.and_then(|status| status.code()).is_some_and(may_be) {
            let how = status.map_or("not within 10 s".into(), |status| format!("with {status}"));
            let what = format!("node {} was asked to stop and ended {how}", node.number);
            world.history.event(What::Broken { check: "C16".into(), what });
        }
    }
    Box::new(Gone { node: node.number, effect })
}

struct Dead {
    effect: u64,
    random: Random,
}

/// F5: every node and Redis killed; started again in an order that is drawn, a moment apart.
pub fn kill_everything(world: &World, step: &Step) -> Box<dyn Fault> {
    let killed = world.nodes.iter().filter(|node| node.kill()).count();
    world.redis().kill();
    Box::new(Dead { effect: killed as u64, random: random(world, step) })
}

impl Fault for Dead {
    fn heal(mut self: Box<Self>, world: &World) -> u64 {
        // The last one is Redis. Nobody waits for who was started before, for a node waits for Redis a while.
        let mut left: Vec<usize> = (0..=world.nodes.len()).collect();
        thread::scope(|scope| {
            while !left.is_empty() {
                let drawn = usize::try_from(self.random.below(left.len() as u64)).expect("an index");
                match world.nodes.get(left.remove(drawn)) {
                    Some(node) => drop(scope.spawn(|| node.revive())),
                    None => redis::launch(world, world.redis()),
                }
                thread::sleep(Duration::from_millis(self.random.below(300)));
            }
        });
        redis::bring_back(world, world.redis());
        self.effect
    }
}
