//! The load: senders that post, receivers that read and acknowledge and misbehave as the protocol allows, the canary,
//! and the auditor that asks what became of it all.
//!
//! Everything they see and do goes into the history; judging it is left to the checker, but for what can only be seen
//! here (an answer that is not ours, a frame that cannot be read). Nobody here fails because a node is away.

mod auditor;
mod canary;
mod liar;
mod line;
mod payload;
mod post;
mod receiver;
mod sender;
mod till;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::fault::Kind as Fault;
use crate::history::{What, Writer};
use crate::options::Profile;
use crate::random::Random;
use crate::roster::{self, Duty};
use crate::world::World;
use till::Till;

/// How long outcomes that are unknown are followed up after the last post.
const RESOLVE_LIMIT: Duration = Duration::from_secs(60);
/// The numbers of who writes records; senders are counted from 0.
const RECEIVERS: u16 = 1000;
/// The second connections of the same clients.
const TWINS: u16 = 1500;
const AUDITORS: u16 = 2000;
const LAST_PROBES: u16 = 2050;
const CANARY: u16 = 2100;
/// How many payments the auditor may ask for.
const MAX_KNOWN: usize = 2000;
/// A run that is shorter has no time for behaviours of many seconds.
const SHORT_RUN_SECS: u64 = 300;
/// The longest sleep of a thread that is to see that it is over.
const NAP: Duration = Duration::from_millis(50);

/// A load that is running.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    posting: Vec<JoinHandle<()>>,
    receiving: Vec<JoinHandle<()>>,
    writer: Writer,
}

/// What its threads share.
#[derive(Debug)]
pub struct Shared {
    pub world: Arc<World>,
    /// A client's memory outlives its connections.
    pub tills: Vec<Till>,
    phase: AtomicU64,
    over: AtomicBool,
    resolve_until: Mutex<Option<Instant>>,
    known: Mutex<VecDeque<Known>>,
    behaved: Mutex<[Option<Instant>; Fault::ALL.len()]>,
}

/// What goes on.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    Posting,
    /// No new payments; those of unknown outcome are posted again until it is known.
    Resolving,
    /// Receivers are prompt and honest.
    Draining,
}

/// A payment that was accepted, for the auditor to ask about.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub client: u32,
    pub seq: u64,
    pub payment_id: Option<u64>,
}

impl Workload {
    /// Starts all of its threads.
    ///
    /// # Errors
    ///
    /// A file of the history could not be made, or a thread.
    pub fn start(world: &Arc<World>) -> io::Result<Workload> {
        let options = &world.options;
        let shared = Arc::new(Shared {
            world: Arc::clone(world),
            tills: (0..roster::count(options)).map(Till::new).collect(),
            phase: AtomicU64::new(Phase::Posting as u64),
            over: AtomicBool::new(false),
            resolve_until: Mutex::default(),
            known: Mutex::default(),
            behaved: Mutex::new([None; Fault::ALL.len()]),
        });
        let writer = world.history.writer(LAST_PROBES)?;
        if shared.tills.len() > usize::from(AUDITORS - TWINS) {
            return Err(io::Error::other("more clients than there are numbers for"));
        }
        let (mut posting, mut receiving) = (Vec::new(), Vec::new());
        for (client, number) in (0..roster::count(options)).zip(0..) {
            let (first, twin) = (RECEIVERS + number, TWINS + number);
            receiving.push(match roster::duty(options, client) {
                Duty::Canary => canary::receive(&shared, client, first)?,
                Duty::Lies => liar::start(&shared, client, first, twin)?,
                Duty::Acks | Duty::Auto => receiver::start(&shared, client, first, twin)?,
            });
        }
        receiving.extend(auditor::start(&shared)?);
        posting.extend(sender::start(&shared)?);
        posting.extend(canary::post(&shared)?);
        Ok(Workload { shared, posting, receiving, writer })
    }

    /// Ends the posting: whose outcome is unknown and can be asked for again is posted until it is known.
    pub fn stop_posting(&mut self) {
        *self.shared.resolve_until.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Instant::now() + RESOLVE_LIMIT);
        self.shared.enter(Phase::Resolving);
        for thread in self.posting.drain(..) {
            join(thread);
        }
    }

    /// Makes receivers prompt and honest, and waits until every inbox is empty and its client has seen all of it;
    /// true if that happened in time. The last probe of each client is written down either way.
    pub fn drain(&mut self, limit: Duration) -> bool {
        self.shared.enter(Phase::Draining);
        let emptied = auditor::wait_until_empty(&self.shared, &mut self.writer, limit);
        auditor::note_levels(&self.shared.world);
        emptied
    }

    /// Ends everything that still runs.
    pub fn stop(mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        for thread in self.posting.drain(..).chain(self.receiving.drain(..)) {
            join(thread);
        }
        self.writer.flush();
    }
}

impl Shared {
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Posting,
            1 => Phase::Resolving,
            _ => Phase::Draining,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u64, Ordering::SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub fn is_draining(&self) -> bool {
        self.phase() == Phase::Draining
    }

    /// Whether it is too late to ask again what became of a post.
    pub fn is_resolved(&self) -> bool {
        let until = *self.resolve_until.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_over() || until.is_some_and(|until| Instant::now() > until)
    }

    /// The stream of a role.
    pub fn random(&self, role: &str) -> Random {
        Random::of(self.world.options.seed, role)
    }

    pub fn draw_node(&self, random: &mut Random) -> usize {
        usize::try_from(random.below(self.world.nodes.len() as u64)).expect("a handful of nodes")
    }

    /// Another than that, where there is one.
    pub fn draw_other_node(&self, random: &mut Random, node: usize) -> usize {
        let count = self.world.nodes.len();
        let step = usize::try_from(random.within(1, (count as u64 - 1).max(1))).expect("a handful of nodes");
        (node + step) % count
    }

    /// Whether behaviours change quickly, so that each has its turn.
    pub fn is_brisk(&self) -> bool {
        let options = &self.world.options;
        options.profile == Profile::Gate || options.duration < SHORT_RUN_SECS
    }

    /// Sleeps, but not past the end of the run or, for receivers, past the beginning of the drain.
    pub fn sleep(&self, until: Instant) {
        let begun_in = self.phase();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_over() || self.phase() != begun_in {
                return;
            }
            thread::sleep(left.min(NAP));
        }
    }

    /// A behaviour had its effect; it is written down twice a second at most.
    pub fn behaved(&self, kind: Fault) {
        let index = Fault::ALL.iter().position(|(known, _)| *known == kind).expect("every kind is in the list");
        let mut behaved = self.behaved.lock().unwrap_or_else(PoisonError::into_inner);
        if behaved[index].is_some_and(|last| last.elapsed() < Duration::from_millis(500)) {
            return;
        }
        behaved[index] = Some(Instant::now());
        drop(behaved);
        self.world.history.event(What::Behaved { kind });
    }

    pub fn know(&self, known: Known) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == MAX_KNOWN {
            all.pop_front();
        }
        all.push_back(known);
    }

    pub fn draw_known(&self, random: &mut Random) -> Option<Known> {
        let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let index = random.below(all.len().max(1) as u64);
        all.get(usize::try_from(index).expect("a small number")).copied()
    }
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    assert!(thread.join().is_ok(), "{name} panicked: a fault of the harness");
}

/// Starts a thread of the load.
fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(body)
}
