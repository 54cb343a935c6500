//! F76: requests that are huge, tiny, slow or endless.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::flood::{self, Stop, TURN};
use super::{Fault, Skipped, siege};
use crate::harness::Http;
use crate::history::What;
use crate::plan::Step;
use crate::process::Watch;
use crate::swarm::{Peer, Swarm, Talk};
use crate::world::{Node, World};

/// The client they name; it never gets a payment.
const NOBODY: &str = "nobody-F76";
/// The largest body.
const BODY: usize = 256 << 10;
/// How long the contract gives a request, from its first byte to its last.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// What a busy machine may take on top.
const LATE: Duration = Duration::from_secs(2);
/// What each of them may be answered with; the last one where there is no room.
const ANSWERS: [u16; 6] = [400, 408, 411, 413, 431, 503];
/// From this amount on it is a siege, with receivers that do not read as well.
const SIEGE: u64 = 1000;

/// Sends them to the node's HTTP port, most of them slowly; with an amount of [`SIEGE`] or more, besieges it.
///
/// The evidence: how many were refused, and how many threads the node has started for the slow ones.
///
/// # Errors
///
/// [`Skipped`]: not enough descriptors.
pub fn begin(world: &Arc<World>, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    if step.amount >= SIEGE {
        return siege::begin(world, step);
    }
    let slow = flood::size(world, 200, 2000);
    flood::begin(world, step, slow, move |world, step, stop| pester(world, step, stop, slow))
}

/// A request whose head, or whose body, comes a byte a second.
pub fn slow_talk(number: usize) -> Talk {
    let every = Duration::from_secs(1);
    if number.is_multiple_of(2) {
        return Talk::drips(*b"POST /v1/payments HTTP/1.1\r\nHost: ", &[b'h'; 64], 1, every);
    }
    Talk::drips(head("Content-Length: 1000"), &[b' '; 64], 1, every)
}

fn pester(world: &World, step: &Step, stop: &Stop, slow: usize) -> io::Result<u64> {
    let node = flood::target(world, step);
    let Some((http, _)) = flood::ports(node, stop) else { return Ok(0) };
    let mut watch = Watch::over(node);
    let before = watch.most_threads;
    let mut swarm = Swarm::new()?;
    quick_talks().into_iter().chain((0..slow).map(slow_talk)).for_each(|talk| _ = swarm.add(http, talk));
    let (mut refused, mut longest) = (0, Duration::ZERO);
    while !stop.is_set() {
        swarm.turn(TURN)?;
        watch.look();
        for peer in swarm.peers.iter_mut().filter(|peer| peer.ended.is_some()) {
            refused += u64::from(judge(world, &peer.talk, &peer.heard));
            if let (Some(since), Some(at)) = (peer.connected, peer.heard_at) {
                longest = longest.max(at.saturating_duration_since(since));
            }
            let http = node.ports().map_or(http, |(http, _)| http);
            peer.reopen(http, Instant::now() + 5 * TURN);
        }
    }
    let waiting = swarm.peers.iter().filter(|peer| peer.is_open() && peer.heard.is_empty());
    longest = waiting.map(Peer::age).fold(longest, Duration::max);
    if longest >= REQUEST_TIME && watch.is_undisturbed() {
        judge_time(world, node, longest);
    }
    drop(swarm);
    expect_nothing_stored(world);
    Ok(refused + watch.most_threads.saturating_sub(before).min(slow as u64))
}

/// Whether it was refused, as it must be.
fn judge(world: &World, talk: &Talk, heard: &[u8]) -> bool {
    let Some(status) = flood::status(heard) else { return false };
    let is_right = ANSWERS.contains(&status);
    if !is_right {
        let said = &talk.first[..talk.first.len().min(120)];
        let what = format!("{} … was answered with {status}", said.escape_ascii());
        world.history.event(What::Broken { check: "C2".to_owned(), what });
    }
    is_right
}

fn judge_time(world: &World, node: &Node, longest: Duration) {
    world.history.event(What::Measured { bound: "request time".to_owned(), ms: longest.as_secs_f64() * 1000.0 });
    if longest > REQUEST_TIME + LATE {
        let what = format!("node {} bore with a request for {longest:?}", node.number);
        world.history.event(What::Broken { check: "L3".to_owned(), what });
    }
}

/// No node knows of the client that was named, as far as one of them can be asked.
fn expect_nothing_stored(world: &World) {
    for node in &world.nodes {
        let Some((http, _)) = node.ports() else { continue };
        let asked = Http::try_connect(http)
            .map(|http| http.patient(Duration::from_secs(2)))
            .and_then(|mut http| http.try_send("GET", &format!("/v1/clients/{NOBODY}"), &[], b""));
        if let Ok(answer) = asked
            && answer.is_success()
        {
            let what = format!("after requests that were all refused: {}", answer.show());
            return world.history.event(What::Broken { check: "C2".to_owned(), what });
        }
    }
}

fn head(headers: &str) -> Vec<u8> {
    let path = format!("/v1/clients/{NOBODY}/payments");
    format!("POST {path} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n{headers}\r\n\r\n").into_bytes()
}

/// What is to be refused as soon as it is seen.
fn quick_talks() -> Vec<Talk> {
    let with_body = |length: usize, body: Vec<u8>| [head(&format!("Content-Length: {length}")), body].concat();
    let many: String = (0..10_000).map(|number| format!("X-{number}: {number}\r\n")).collect();
    let requests = [
        [head("Content-Length: 1000000000000000000"), vec![b'1'; 1000]].concat(),
        with_body(0, Vec::new()),
        with_body(1, b"{".to_vec()),
        with_body(BODY, vec![b'{'; BODY]),
        with_body(BODY + 1, vec![b'1'; BODY + 1]),
        head("X-No: length"),
        head(many.trim_end()),
        head(&format!("X-Long: {}", "x".repeat(1 << 20))),
    ];
    let endless = [b"1000\r\n".to_vec(), vec![b'1'; 0x1000], b"\r\n".to_vec()].concat();
    let endless = Talk::drips(head("Transfer-Encoding: chunked"), &endless, endless.len(), Duration::ZERO);
    requests.map(Talk::says).into_iter().chain([endless]).collect()
}
