//! What the nemesis can do: a file for each thing it does it to.

mod bodies;
mod crowd;
mod descriptors;
mod doorbells;
mod failover;
mod flood;
mod garbage;
mod links;
mod nodes;
pub mod redis;
mod siege;
mod silence;
mod strace;
mod waiters;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::fault::Kind;
use crate::plan::Step;
use crate::random::Random;
use crate::world::{Node, World};

/// A fault in force.
pub trait Fault: Send {
    /// Ends it, and returns once its cause is gone (the process is up again, the setting is back): from then on bounds
    /// are measured. Returns how often something happened that the target must have noticed; 0 says that the fault
    /// proved nothing.
    fn heal(self: Box<Self>, world: &World) -> u64;
}

/// This machine cannot do it, and why.
#[derive(Debug)]
pub struct Skipped(pub String);

/// Brings a fault into force.
///
/// # Errors
///
/// [`Skipped`]: nothing was done.
pub fn begin(world: &Arc<World>, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    Ok(match step.kind {
        kind if kind.is_behaviour() => return Err(Skipped("senders and receivers do it of their own accord".into())),
        Kind::F1 => nodes::kill(world, step),
        Kind::F2 => nodes::freeze(world, step),
        Kind::F3 => nodes::stop(world, step),
        Kind::F5 => nodes::kill_everything(world, step),
        Kind::F20 => redis::kill(world),
        Kind::F22 => redis::freeze(world, step),
        Kind::F23 => links::slow(world, step),
        Kind::F24 => links::cut(world, step),
        Kind::F25 => links::half_open(world, step),
        Kind::F26 => doorbells::silence(world, step),
        Kind::F27 => doorbells::overflow(world, step),
        Kind::F28 => doorbells::forge(world, step),
        Kind::F29 => redis::load_slowly(world, step),
        Kind::F30 => redis::keep_busy(world),
        Kind::F31 => redis::run_out_of_memory(world, step),
        Kind::F33 => redis::demote(world),
        Kind::F36 => redis::forget_scripts(world, step),
        Kind::F37 => redis::run_out_of_connections(world, step)?,
        Kind::F38 => failover::begin(world)?,
        Kind::F6 => descriptors::begin(world, step)?,
        Kind::F7 => strace::begin_no_thread(world, step)?,
        Kind::F12 => strace::begin_accept(world, step)?,
        Kind::F56 => crowd::begin(world, step)?,
        Kind::F57 => silence::begin(world, step)?,
        Kind::F58 => garbage::begin(world, step)?,
        Kind::F75 => waiters::begin(world, step)?,
        Kind::F76 => bodies::begin(world, step)?,
        // The behaviours, which were let out above.
        kind => return Err(Skipped(format!("{} is nobody's here", kind.code()))),
    })
}

/// The node that a step is for.
fn target<'a>(world: &'a World, step: &Step) -> &'a Node {
    &world.nodes[step.node % world.nodes.len()]
}

/// What a step draws while it is in force.
fn random(world: &World, step: &Step) -> Random {
    Random::of(world.options.seed, &format!("fault/{}/{}", step.kind.code(), step.at_ms))
}

/// Something that is done again and again until it is healed, on a thread of its own.
#[derive(Debug)]
struct Repeated {
    over: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Repeated {
    /// `act` does it once, and returns what effect that had and how long to wait before the next time.
    fn start(mut act: impl FnMut() -> (u64, Duration) + Send + 'static) -> Repeated {
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut effects = 0;
            while !told.load(Ordering::SeqCst) {
                let (effect, pause) = act();
                effects += effect;
                thread::park_timeout(pause);
            }
            effects
        });
        Repeated { over, thread }
    }

    /// The sum of all effects.
    fn stop(self) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or(0)
    }
}
