//! Runs the plan: each fault at its time on a thread of its own, healed at its end, and everything healed after all.
//!
//! Two faults that exclude each other are kept apart here once more, for what heals slowly heals later than planned.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::faults::{self, Fault, Skipped, redis};
use crate::harness::program::lock;
use crate::harness::{Mode, Proxy};
use crate::history::What;
use crate::plan::{self, Plan};
use crate::world::World;

/// How long a fault waits for another one to heal before it is left out.
const TURN_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether everything that should run runs.
const WATCH: Duration = Duration::from_millis(100);

/// What is in force: the numbers of steps of the plan.
#[derive(Debug, Default)]
struct Force {
    steps: Mutex<Vec<usize>>,
    changed: Condvar,
}

/// Does to the world what the plan says, from now on; returns when all of it is healed.
pub fn torment(world: &Arc<World>, plan: &Plan) {
    let (force, over, start) = (Force::default(), AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(world, &over));
        let mut steps = Vec::new();
        for (number, step) in plan.steps.iter().enumerate() {
            sleep_until(start + Duration::from_millis(step.at_ms));
            let force = &force;
            steps.push(scope.spawn(move || play(world, plan, number, force)));
        }
        for step in steps {
            if step.join().is_err() {
                world.history.event(What::Remark { text: "a fault ended in a panic of the harness".into() });
            }
        }
        over.store(true, Ordering::SeqCst);
        let _ = watcher.join();
    });
    mend(world);
}

/// One step of the plan from its beginning to its end.
fn play(world: &Arc<World>, plan: &Plan, number: usize, force: &Force) {
    let step = &plan.steps[number];
    if !force.enter(world, plan, number) {
        let text = format!("step {number} ({}) is left out: others do not heal", step.kind.code());
        world.history.event(What::Remark { text });
        return;
    }
    let end = Instant::now() + Duration::from_millis(step.length_ms);
    let begun = catch_unwind(AssertUnwindSafe(|| faults::begin(world, step)));
    let effect = match begun {
        Ok(Ok(fault)) => {
            sleep_until(end);
            heal(world, fault)
        }
        Ok(Err(Skipped(why))) => {
            world.history.event(What::Skipped { kind: step.kind, why });
            0
        }
        Err(_) => 0,
    };
    force.leave(world, plan, number, effect);
}

fn heal(world: &World, fault: Box<dyn Fault>) -> u64 {
    let healed = catch_unwind(AssertUnwindSafe(|| fault.heal(world)));
    healed.unwrap_or_else(|_| {
        world.history.event(What::Remark { text: "healing ended in a panic of the harness".into() });
        0
    })
}

// The history is written under the lock, so that it tells of beginnings and ends in the order in which they were; of a
// beginning before it, and of an end after: what is measured in between is never blamed on nothing.
impl Force {
    /// Waits until nothing is in force that excludes this step. Whether it came to that.
    fn enter(&self, world: &World, plan: &Plan, number: usize) -> bool {
        let step = &plan.steps[number];
        let excluded = |steps: &mut Vec<usize>| steps.iter().any(|&other| plan::excludes(&plan.steps[other], step));
        let waited = self.changed.wait_timeout_while(lock(&self.steps), TURN_LIMIT, excluded);
        let (mut steps, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            return false;
        }
        steps.push(number);
        world.history.event(What::FaultBegin { step: number, kind: step.kind });
        true
    }

    fn leave(&self, world: &World, plan: &Plan, number: usize, effect: u64) {
        let mut steps = lock(&self.steps);
        steps.retain(|&step| step != number);
        world.history.event(What::FaultEnd { step: number, kind: plan.steps[number].kind, effect });
        if steps.is_empty() {
            world.history.event(What::Quiet);
        }
        self.changed.notify_all();
    }
}

/// Starts again whatever has ended without being asked: the run goes on, and the history has it.
fn watch(world: &World, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        for node in &world.nodes {
            if node.has_died() {
                node.revive();
            }
        }
        let redis = world.redis();
        if redis.has_ended() {
            world.history.event(What::Remark { text: "redis-server ended unasked; it is started again".into() });
            redis::bring_back(world, redis);
        }
        thread::sleep(WATCH);
    }
}

/// Brings everything back, whatever was forgotten.
fn mend(world: &World) {
    let pass = |proxy: &Proxy| {
        proxy.set_both(Mode::Pass);
        proxy.set_pubsub(None);
        proxy.refuse(false);
    };
    for node in &world.nodes {
        [&node.http, &node.tcp, &node.redis].into_iter().for_each(pass);
        node.signal(Signal::CONT);
    }
    redis::mend(world);
    for node in &world.nodes {
        node.has_died();
        node.revive();
    }
}

fn sleep_until(time: Instant) {
    thread::sleep(time.saturating_duration_since(Instant::now()));
}
