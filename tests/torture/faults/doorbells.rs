//! What happens to the doorbells: silence, a subscriber that Redis throws out, and bells that nobody rang.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::redis::{ask, insist};
use super::{Fault, Repeated, random, target};
use crate::harness::program::lock;
use crate::harness::redis::Session;
use crate::harness::{Mode, Redis, Reply, eventually_true};
use crate::plan::Step;
use crate::random::Random;
use crate::roster;
use crate::world::World;

/// Longer than the second that passes between two words of a node to itself.
const LISTEN_LIMIT: Duration = Duration::from_secs(3);
/// How long a node may take to listen again.
const SUBSCRIBED_LIMIT: Duration = Duration::from_secs(2);
/// How many real bells the forger remembers.
const MEMORY: usize = 256;
/// Never the time at which a payment of a run was accepted: with the right one a forgery would be perfect, and shown.
const WRONG_TIMES: [u64; 4] = [1, 7, 1_732_330_000_000, u64::MAX];
/// What Redis writes into its log when it throws a subscriber out.
const THROWN_OUT: &str = "for overcoming of output buffer limits";

fn channel(node: usize) -> String {
    format!("payrelay:0:node:n{}", node + 1)
}

struct Silent {
    node: usize,
    before: u64,
}

struct Killing(Repeated);

/// F26: a node's subscription is half open. `amount` odd: every `amount` ms every node's is closed by Redis instead.
pub fn silence(world: &Arc<World>, step: &Step) -> Box<dyn Fault> {
    if step.amount % 2 == 1 {
        let (redis, pause) = (Arc::clone(world.redis()), Duration::from_millis(step.amount.max(50)));
        return Box::new(Killing(Repeated::start(move || match ask(&redis, &["CLIENT", "KILL", "TYPE", "pubsub"]) {
            Ok(Reply::Int(killed)) => (killed.unsigned_abs(), pause),
            _ => (0, pause),
        })));
    }
    let node = target(world, step);
    let before = node.redis.effects();
    node.redis.set_pubsub(Some(Mode::Swallow));
    Box::new(Silent { node: node.number, before })
}

impl Fault for Silent {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        let proxy = &world.nodes[self.node].redis;
        let effect = proxy.effects() - self.before;
        proxy.set_pubsub(None);
        effect
    }
}

impl Fault for Killing {
    fn heal(self: Box<Self>, _world: &World) -> u64 {
        self.0.stop()
    }
}

struct Overflowing {
    node: usize,
    before: u64,
    publisher: Repeated,
}

/// F27: a subscriber may have 64 KB unread, and a node reads nothing while bells ring: its subscription is held or,
/// with `amount` 1, the whole node is frozen.
pub fn overflow(world: &Arc<World>, step: &Step) -> Box<dyn Fault> {
    let (node, redis) = (target(world, step), Arc::clone(world.redis()));
    let before = redis.logged(THROWN_OUT);
    // Just started, or just cut off by another fault, it does not listen yet: then there is nobody to throw out.
    eventually_true(SUBSCRIBED_LIMIT, || listens(&redis, node.number));
    insist(world, &redis, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 64kb 64kb 1"]);
    match step.amount {
        0 => node.redis.set_pubsub(Some(Mode::Hold)),
        _ => node.signal(Signal::STOP),
    }
    let (channel, mut session) = (channel(node.number), None);
    // Small ones, so that the system's own buffers fill first, as they do in earnest.
    let bell = forged("nobody", 1, 4, 1, &format!("\"{}\"", "x".repeat(16 << 10)));
    let publisher = Repeated::start(move || {
        for _ in 0..50 {
            if publish(&redis, &mut session, &channel, &bell).is_none_or(|heard| heard == 0) {
                return (0, Duration::from_millis(50));
            }
        }
        (0, Duration::ZERO)
    });
    Box::new(Overflowing { node: node.number, before, publisher })
}

impl Fault for Overflowing {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        let node = &world.nodes[self.node];
        self.publisher.stop();
        node.redis.set_pubsub(None);
        node.signal(Signal::CONT);
        insist(world, world.redis(), &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60"]);
        world.redis().logged(THROWN_OUT).saturating_sub(self.before)
    }
}

fn listens(redis: &Redis, node: usize) -> bool {
    let asked = ask(redis, &["PUBSUB", "NUMSUB", &channel(node)]);
    matches!(asked, Ok(Reply::List(parts)) if matches!(parts.as_slice(), [_, Reply::Int(1..)]))
}

/// Publishes on a connection that is kept. To how many it went.
fn publish(redis: &Redis, session: &mut Option<Session>, channel: &str, payload: &[u8]) -> Option<u64> {
    if session.is_none() {
        *session = redis.session(LISTEN_LIMIT).ok();
    }
    let answer = session.as_mut()?.ask(&[b"PUBLISH", channel.as_bytes(), payload]);
    match answer {
        Ok(Reply::Int(heard)) => Some(heard.unsigned_abs()),
        _ => {
            *session = None;
            None
        }
    }
}

struct Forging {
    forger: Repeated,
    spy: Repeated,
}

/// F28: `amount` messages a second on a node's channel that are garbage, copies of real bells, or bells of payments
/// that do not exist.
pub fn forge(world: &Arc<World>, step: &Step) -> Box<dyn Fault> {
    let (node, redis) = (target(world, step).number, Arc::clone(world.redis()));
    let heard: Arc<Mutex<VecDeque<String>>> = Arc::default();
    let spy = spy(Arc::clone(&redis), node, Arc::clone(&heard));
    let (mut random, rate) = (random(world, step), step.amount.max(1));
    // Everybody but the canary, at which no fault is aimed.
    let clients = u64::from(roster::canary(&world.options));
    let (channel, mut session, mut large_at) = (channel(node), None, Instant::now());
    let forger = Repeated::start(move || {
        let mut effect = 0;
        let burst = rate.div_ceil(50);
        for _ in 0..burst {
            let known = lock(&heard).clone();
            let is_large = large_at.elapsed() > Duration::from_secs(1) && random.percent(10);
            if is_large {
                large_at = Instant::now();
            }
            for payload in forgeries(&mut random, &known, clients, is_large) {
                // One of those who hear it is our spy.
                let reached = publish(&redis, &mut session, &channel, &payload);
                effect += u64::from(reached.is_some_and(|reached| reached > 1));
            }
        }
        (effect, Duration::from_secs_f64(burst as f64 / rate as f64))
    });
    Box::new(Forging { forger, spy })
}

impl Fault for Forging {
    fn heal(self: Box<Self>, _world: &World) -> u64 {
        self.spy.stop();
        self.forger.stop()
    }
}

/// Hears what a node hears, and remembers its real bells.
fn spy(redis: Arc<Redis>, node: usize, heard: Arc<Mutex<VecDeque<String>>>) -> Repeated {
    let mut session: Option<Session> = None;
    Repeated::start(move || {
        let Some(listening) = &mut session else {
            session = redis.session(LISTEN_LIMIT).ok().and_then(|mut session| {
                session.ask(&["SUBSCRIBE", &channel(node)]).ok()?;
                Some(session)
            });
            return (0, Duration::from_millis(if session.is_some() { 0 } else { 200 }));
        };
        match listening.hear() {
            Ok(Reply::List(parts)) => {
                if let Some(Reply::Text(bell)) = parts.into_iter().nth(2)
                    && is_real(&bell)
                {
                    let mut heard = lock(&heard);
                    heard.push_back(bell);
                    if heard.len() > MEMORY {
                        heard.pop_front();
                    }
                }
            }
            _ => session = None,
        }
        (0, Duration::ZERO)
    })
}

/// A real bell that was heard to the letter: an altered copy would be the perfect forgery.
fn is_real(bell: &str) -> bool {
    bell.starts_with("doorbell till-") && !bell.contains("\"forged\"") && !bell.contains('\u{fffd}')
}

/// One message, or a few that belong together.
fn forgeries(random: &mut Random, known: &VecDeque<String>, clients: u64, is_large: bool) -> Vec<Vec<u8>> {
    if is_large {
        return vec![forged("nobody", 7, 4, 7, &format!("\"{}\"", "x".repeat(1 << 20)))];
    }
    let copy = |place: usize| known[place].as_bytes().to_vec();
    let newest = known.len().checked_sub(1);
    match (random.weighted(&[20, 20, 10, 30, 20]), newest) {
        // Doubled as soon as it was heard.
        (0, Some(newest)) => vec![copy(newest)],
        // Late.
        (1, Some(newest)) => vec![copy(usize::try_from(random.below(newest as u64 + 1)).expect("an index"))],
        // Out of order.
        (2, Some(newest)) => (newest.saturating_sub(4)..=newest).rev().map(copy).collect(),
        (0..=3, _) => vec![bell_of_nothing(random, known, clients)],
        _ => vec![garbage(random)],
    }
}

/// A bell as a script writes it, of a payment that does not exist: numbers near a real one's, or absurd ones.
fn bell_of_nothing(random: &mut Random, known: &VecDeque<String>, clients: u64) -> Vec<u8> {
    let client = roster::id(u32::try_from(random.below(clients)).expect("a client's number"));
    let prefix = format!("doorbell {client} ");
    let last = known.iter().rev().find_map(|bell| bell.strip_prefix(&prefix)?.split(' ').nth(2)?.parse::<u64>().ok());
    let last = last.unwrap_or(1);
    let seq = match random.below(4) {
        0 => last + random.within(1, 40),
        1 => last.saturating_sub(random.within(0, 40)),
        2 => last,
        _ => *random.pick(&[0, u64::MAX - 1, u64::MAX]),
    };
    let (previous_at, accepted_at) = (*random.pick(&WRONG_TIMES), *random.pick(&WRONG_TIMES));
    forged(&client, previous_at, seq, accepted_at, "\"forged\"")
}

fn forged(client: &str, previous_at: u64, seq: u64, accepted_at: u64, msg: &str) -> Vec<u8> {
    let head = "\"channel\":\"payments\"";
    format!("doorbell {client} {previous_at} 0 {seq} {accepted_at} 0 99 {} {head}\"msg\":{msg}", head.len())
        .into_bytes()
}

/// What no script writes.
fn garbage(random: &mut Random) -> Vec<u8> {
    const TEXTS: [&[u8]; 20] = [
        b"",
        b" ",
        b"doorbell",
        b"doorbell ",
        b"doorbell till-001",
        b"doorbell till-001 1 0 4 1 0 9 99 short",
        b"doorbell till-001 1 0 4 1 0 9 -1 x",
        b"doorbell till-001 1 0 4 1 0 9 18446744073709551616 x",
        b"doorbell till-001  1 0 4 1 0 9 1 x",
        b"doorbell ../.. 1 0 4 1 0 9 1 x",
        b"doorbell\ntill-001 1 4 1 0 9 1 x",
        b"doorbell \xff\xfe 1 4 1 0 9 1 x",
        b"doorbell till-001 1 0 4 1 0 9 1 \xff\xff\xff",
        b"takeover till-001 0",
        b"takeover \xff 1",
        b"disconnect \xc3\x28",
        b"receipt//",
        b"question {",
        b"beat beat",
        b"\xff\xfe\xfd",
    ];
    if random.percent(50) {
        return random.pick(&TEXTS).to_vec();
    }
    (0..random.within(1, 200)).map(|_| u8::try_from(random.below(256)).expect("a byte")).collect()
}
