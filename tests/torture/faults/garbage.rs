//! F58: everything but a hello where a hello should be.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::flood::{self, Stop, TURN};
use super::{Fault, Skipped};
use crate::history::What;
use crate::plan::Step;
use crate::process::Watch;
use crate::random::Random;
use crate::swarm::{Peer, Swarm, Talk};
use crate::world::World;

/// Longer than a hello is waited for; nobody may be borne with for so long.
const MOST: Duration = Duration::from_secs(12);
/// From one piece of garbage to the next.
const BETWEEN: Duration = Duration::from_millis(4);
/// The longest line that a client may send.
const LINE: usize = 64 << 10;

/// What a server may say to it.
const CODES: [&str; 9] = [
    "bad_json",
    "bad_frame",
    "line_too_long",
    "hello_required",
    "hello_timeout",
    "unauthorized",
    "invalid_client_id",
    "too_many_clients",
    "shutting_down",
];

/// Sends garbage, drawn from the seed, on many connections to the node's TCP port, one after the other on each.
///
/// The evidence: how many of them were told what is wrong.
///
/// # Errors
///
/// [`Skipped`]: not enough descriptors.
pub fn begin(world: &Arc<World>, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    let count = flood::size(world, 100, 1000);
    flood::begin(world, step, count, move |world, step, stop| litter(world, step, stop, count))
}

fn litter(world: &World, step: &Step, stop: &Stop, count: usize) -> io::Result<u64> {
    let node = flood::target(world, step);
    let Some((_, tcp)) = flood::ports(node, stop) else { return Ok(0) };
    let mut random = Random::of(world.options.seed, &format!("garbage/{}", step.at_ms));
    let (mut watch, mut swarm) = (Watch::over(node), Swarm::new()?);
    let (mut told, mut borne, mut next) = (0, None, Instant::now());
    while !stop.is_set() {
        swarm.turn(TURN)?;
        watch.look();
        while next <= Instant::now() && swarm.peers.len() < count {
            next += BETWEEN;
            swarm.add(tcp, Talk::says(garbage(&mut random)));
        }
        for peer in swarm.peers.iter_mut().filter(|peer| peer.ended.is_some()) {
            told += u64::from(judge(world, peer));
            borne = borne.or_else(|| outstayed(peer));
            let tcp = node.ports().map_or(tcp, |(_, tcp)| tcp);
            peer.talk = Talk::says(garbage(&mut random));
            peer.reopen(tcp, Instant::now() + BETWEEN * 100);
        }
    }
    for peer in &swarm.peers {
        told += u64::from(judge(world, peer));
        borne = borne.or_else(|| outstayed(peer));
    }
    if let Some(what) = borne.filter(|_| watch.is_undisturbed()) {
        let what = format!("node {} left a connection open after {what}", node.number);
        world.history.event(What::Broken { check: "L3".to_owned(), what });
    }
    Ok(told)
}

/// What it said, if it was borne with for too long.
fn outstayed(peer: &Peer) -> Option<String> {
    (peer.age() > MOST).then(|| shown(&peer.talk.first))
}

/// Whether it was told what is wrong. Anything but one `error` line is a fault of the server's.
fn judge(world: &World, peer: &Peer) -> bool {
    if peer.heard.is_empty() {
        return false;
    }
    let code = error_code(&peer.heard);
    let is_right = code.as_deref().is_some_and(|code| CODES.contains(&code));
    if !is_right && peer.ended.is_some() {
        let what = format!("{} was answered by {}", shown(&peer.talk.first), shown(&peer.heard));
        world.history.event(What::Broken { check: "C5".to_owned(), what });
    }
    is_right
}

/// The code of one `error` line, if that is what this is.
fn error_code(heard: &[u8]) -> Option<String> {
    let line = heard.strip_suffix(b"\n")?;
    let frame: Value = (!line.contains(&b'\n')).then(|| serde_json::from_slice(line).ok())??;
    (frame["type"] == "error").then(|| frame["code"].as_str().map(str::to_owned))?
}

/// The front of it, fit for a line of text.
fn shown(bytes: &[u8]) -> String {
    let front = &bytes[..bytes.len().min(200)];
    format!("{} bytes, {}", bytes.len(), front.escape_ascii())
}

/// The next piece; never the hello of anybody.
fn garbage(random: &mut Random) -> Vec<u8> {
    let junk =
        |random: &mut Random, length: u64| (0..length).map(|_| random.next().to_be_bytes()[0]).collect::<Vec<u8>>();
    match random.below(16) {
        0 => vec![b'x'; LINE],
        1 => vec![b'x'; LINE + 1],
        2 => vec![b'['; LINE],
        3 => [&vec![b'['; LINE - 1][..], b"\n"].concat(),
        4 => b"\0\n".to_vec(),
        5 => b"{\"type\":\"hello\",\"client\":\"\xff\xfe\"}\n".to_vec(),
        6 => b"\xef\xbb\xbf{\"type\":\"hello\",\"client\":\"bom\"}\n".to_vec(),
        7 => b"\r".to_vec(),
        8 => b"\n".repeat(usize::try_from(random.within(1, 1000)).expect("a small number")),
        9 => b"\r\n\r\n".to_vec(),
        10 => client_hello(random),
        11 => b"GET / HTTP/1.1\r\nHost: node\r\nUser-Agent: lost\r\n\r\n".to_vec(),
        12 => [junk(random, 200), b"\n".to_vec()].concat(),
        13 => {
            let length = random.log_within(1, 4 * LINE as u64);
            junk(random, length)
        }
        14 => random.pick(&SHAPES).as_bytes().to_vec(),
        _ => mutated(random),
    }
}

/// JSON, but no hello.
const SHAPES: [&str; 12] = [
    "{}\n",
    "[]\n",
    "null\n",
    "\"hello\"\n",
    "{\"type\":\"hello\"}\n",
    "{\"type\":7,\"client\":\"x\"}\n",
    "{\"type\":\"hello\",\"client\":null}\n",
    "{\"type\":\"hello\",\"client\":\"x\",\"client\":\"x\"}\n",
    "{\"type\":\"hello\",\"client\":\"../x\"}\n",
    "{\"type\":\"hello\",\"client\":\"x\",\"window\":-1}\n",
    "{\"type\":\"ack\",\"seq\":1}\n",
    "{\"type\":\"payment\",\"seq\":1,\"msg\":{}}\n",
];

/// A hello with a byte in it that no JSON has outside of text.
fn mutated(random: &mut Random) -> Vec<u8> {
    let mut line = b"{\"type\":\"hello\",\"client\":\"x\"}\n".to_vec();
    let places = [0, 1, 7, 8, 15, 16, 24];
    line.insert(*random.pick(&places), *random.pick(b"\x00\x01\x1f\x7f\xc0\xff'#"));
    line
}

/// What a TLS client begins with.
fn client_hello(random: &mut Random) -> Vec<u8> {
    let mut record = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03".to_vec();
    record.extend((0..32).map(|_| random.next().to_be_bytes()[0]));
    record.extend(b"\x00\x00\x04\x13\x01\x13\x02\x01\x00");
    record
}
