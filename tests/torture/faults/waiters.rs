//! F75: many senders that wait for acknowledgements which nobody will give.

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

/// How many clients they post to.
const CLIENTS: usize = 20;
/// The longest that may be waited for.
const LONGEST: u64 = 30;
/// How much later than asked for an answer may come.
const LATE: Duration = Duration::from_secs(5);

/// Posts for clients that never connect, and waits for their acknowledgements: for as long as the step lasts, but at
/// most as long as one may.
///
/// The evidence: how many were told `accepted` once the time was over.
///
/// # Errors
///
/// [`Skipped`]: not enough descriptors.
pub fn begin(world: &Arc<World>, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    let count = flood::size(world, 100, 1000);
    flood::begin(world, step, count, move |world, step, stop| wait(world, step, stop, count))
}

fn wait(world: &World, step: &Step, stop: &Stop, count: usize) -> io::Result<u64> {
    let node = flood::target(world, step);
    let Some((http, _)) = flood::ports(node, stop) else { return Ok(0) };
    let seconds = (step.length_ms / 1000).clamp(1, LONGEST);
    let (mut watch, mut swarm) = (Watch::over(node), Swarm::new()?);
    (0..count).for_each(|number| _ = swarm.add(http, Talk::says(post(step, number, seconds))));
    let asked = Duration::from_secs(seconds);
    let deadline = Instant::now() + asked + LATE;
    // All of them are waited for, also when it is time to end: what they are told is the evidence.
    while !swarm.peers.iter().all(is_over) && Instant::now() < deadline {
        swarm.turn(TURN)?;
        watch.look();
    }
    let waited = swarm.peers.iter().filter(|peer| judge(world, peer, asked)).count();
    let unanswered = swarm.peers.iter().filter(|peer| peer.is_open() && peer.heard.is_empty()).count();
    if unanswered > 0 && watch.is_undisturbed() {
        let what = format!("node {}: {unanswered} of {count} posts with wait={seconds} got no answer", node.number);
        world.history.event(What::Broken { check: "L3".to_owned(), what });
    }
    drop(swarm);
    while !stop.is_set() {
        std::thread::sleep(TURN);
    }
    flood::retire(world, (0..CLIENTS).map(client));
    Ok(waited as u64)
}

fn client(number: usize) -> String {
    format!("absent-{:03}", number % CLIENTS)
}

fn post(step: &Step, number: usize, seconds: u64) -> Vec<u8> {
    let (client, id) = (client(number), format!("absent-{}-{number}", step.at_ms));
    let body = format!(r#"{{"client":"{client}","payment_id":"{id}","msg":{number}}}"#);
    let head = format!(
        "POST /v1/payments?wait={seconds} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    );
    format!("{head}\r\n\r\n{body}").into_bytes()
}

fn is_over(peer: &Peer) -> bool {
    peer.ended.is_some() || !peer.heard.is_empty()
}

/// Whether it was accepted and waited for in vain, as it must be where nothing else is wrong.
fn judge(world: &World, peer: &Peer, asked: Duration) -> bool {
    if flood::contains(&peer.heard, br#""status":"acknowledged""#) {
        let what = format!("nobody acknowledged, yet: {}", peer.heard.escape_ascii());
        world.history.event(What::Broken { check: "C14".to_owned(), what });
    }
    let (Some(since), Some(at)) = (peer.connected, peer.heard_at) else { return false };
    flood::status(&peer.heard) == Some(202) && at.saturating_duration_since(since) >= asked
}
