//! A fault that is a thread of ours: it does something to a node until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use super::{Fault, Skipped};
use crate::harness::Http;
use crate::history::What;
use crate::options::Profile;
use crate::plan::Step;
use crate::process::Watch;
use crate::swarm::{Swarm, Talk};
use crate::world::{Node, World};

/// The moment a swarm's thread waits for something to happen.
pub const TURN: Duration = Duration::from_millis(20);
/// Descriptors that the rest of this process takes: proxies, senders, receivers, files.
const OTHER_DESCRIPTORS: u64 = 1500;
/// How long a node that should accept again is asked; far more than it may take.
const ASKED: Duration = Duration::from_secs(15);
/// How long one answer is waited for, to be asked for again on a new connection.
const ANSWERED: Duration = Duration::from_millis(500);
/// How long it is tried to take back what a flood has stored.
const RETIRED: Duration = Duration::from_secs(10);

/// A request that stores nothing and asks no store.
pub const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n";
/// A first line that is refused at once, whatever the store does.
pub const NO_HELLO: &[u8] = b"{\"type\":\"ping\"}\n";

/// The thread.
#[derive(Debug)]
struct Flood {
    stop: Stop,
    thread: JoinHandle<io::Result<u64>>,
}

/// Whether it is time to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts `body`, which opens at most so many sockets and returns its evidence once it is told to stop.
///
/// # Errors
///
/// [`Skipped`]: this process may not open so many.
pub fn begin(
    world: &Arc<World>,
    step: &Step,
    sockets: usize,
    body: impl FnOnce(&World, &Step, &Stop) -> io::Result<u64> + Send + 'static,
) -> Result<Box<dyn Fault>, Skipped> {
    let (needed, most) = (sockets as u64 + OTHER_DESCRIPTORS, getrlimit(Resource::Nofile).current);
    if let Some(most) = most.filter(|most| *most < needed) {
        return Err(Skipped(format!("{sockets} sockets need a descriptor limit of {needed}, not {most}")));
    }
    let stop = Stop::default();
    let (world, step, told) = (Arc::clone(world), step.clone(), stop.clone());
    let thread = thread::Builder::new().name(format!("flood-{}", step.kind.code())).spawn(move || {
        let outcome = body(&world, &step, &told);
        if let Err(error) = &outcome {
            let text = format!("{}: the harness could not go on: {error}", step.kind.code());
            world.history.event(What::Remark { text });
        }
        outcome
    });
    let thread = thread.map_err(|error| Skipped(format!("no thread for it: {error}")))?;
    Ok(Box::new(Flood { stop, thread }))
}

impl Fault for Flood {
    fn heal(self: Box<Self>, _world: &World) -> u64 {
        self.stop.set();
        let outcome = self.thread.join().expect("a flood that ends in order");
        outcome.unwrap_or(0)
    }
}

/// A size: small where a run must be short.
pub fn size(world: &World, gate: usize, full: usize) -> usize {
    if world.options.profile == Profile::Gate { gate } else { full }
}

/// The node a step is for.
pub fn target<'a>(world: &'a World, step: &Step) -> &'a Node {
    &world.nodes[step.node % world.nodes.len()]
}

/// Its own ports, HTTP and TCP; waits for them while it is down. None if it is down until the end.
pub fn ports(node: &Node, stop: &Stop) -> Option<(SocketAddr, SocketAddr)> {
    while !stop.is_set() {
        if let Some(ports) = node.ports() {
            return Some(ports);
        }
        thread::sleep(TURN);
    }
    node.ports()
}

/// Writes down how long it takes from now until both ports serve a new connection; not if something else happens to
/// the node meanwhile.
pub fn measure_acceptance(world: &World, node: &Node, bound: &str) -> io::Result<()> {
    let (begun, mut watch) = (Instant::now(), Watch::over(node));
    for (is_http, says) in [(true, HEALTH), (false, NO_HELLO)] {
        while begun.elapsed() < ASKED {
            watch.look();
            let Some((http, tcp)) = node.ports() else {
                thread::sleep(TURN);
                continue;
            };
            if is_answered(if is_http { http } else { tcp }, says)? {
                break;
            }
        }
    }
    let ms = begun.elapsed().as_secs_f64() * 1000.0;
    if watch.is_undisturbed() {
        world.history.event(What::Measured { bound: bound.to_owned(), ms });
    }
    Ok(())
}

/// Whether a new connection that says this is served: being refused is no service.
fn is_answered(address: SocketAddr, says: &[u8]) -> io::Result<bool> {
    let (mut swarm, deadline) = (Swarm::new()?, Instant::now() + ANSWERED);
    swarm.add(address, Talk::says(says));
    while Instant::now() < deadline && swarm.peers[0].ended.is_none() && swarm.peers[0].heard.is_empty() {
        swarm.turn(TURN)?;
    }
    let is_served = served(&swarm.peers[0].heard);
    if !is_served {
        thread::sleep(TURN);
    }
    Ok(is_served)
}

/// Whether these are the words of a node that has let us in.
pub fn served(heard: &[u8]) -> bool {
    !heard.is_empty() && !refused(heard)
}

/// Whether these are the words of a node that has no room.
pub fn refused(heard: &[u8]) -> bool {
    let refusals: [&[u8]; 2] = [b"too_many_connections", b"too_many_clients"];
    refusals.iter().any(|words| contains(heard, words))
}

/// Whether `heard` has `words` somewhere.
pub fn contains(heard: &[u8], words: &[u8]) -> bool {
    heard.windows(words.len()).any(|part| part == words)
}

/// The status of an HTTP answer of which at least the first line is there.
pub fn status(heard: &[u8]) -> Option<u16> {
    let rest = heard.strip_prefix(b"HTTP/1.")?;
    std::str::from_utf8(rest.get(2..5)?).ok()?.parse().ok()
}

/// Retires clients that were the flood's own, with all that is stored for them.
pub fn retire(world: &World, clients: impl IntoIterator<Item = String>) {
    let deadline = Instant::now() + RETIRED;
    let (mut http, mut turns) = (None, 0);
    for client in clients {
        let path = format!("/v1/clients/{client}?discard=true");
        loop {
            let answer = http.as_mut().and_then(|http: &mut Http| http.try_send("DELETE", &path, &[], b"").ok());
            match answer.map(|answer| answer.status) {
                Some(204 | 404) => break,
                _ if Instant::now() > deadline => {
                    let text = format!("client {client} of a flood, and those after it, could not be retired");
                    return world.history.event(What::Remark { text });
                }
                _ => thread::sleep(TURN),
            }
            http = world.nodes[turns % world.nodes.len()].ports().and_then(|(http, _)| Http::try_connect(http).ok());
            http = http.map(|http| http.patient(Duration::from_secs(2)));
            turns += 1;
        }
    }
}
