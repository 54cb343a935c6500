//! The siege: slow requests, silent connections and receivers that do not read, all at once on one node.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::flood::{self, Stop, TURN};
use super::{Fault, Skipped, bodies, silence};
use crate::harness::{Client, Http, Next};
use crate::history::What;
use crate::plan::Step;
use crate::process::Watch;
use crate::swarm::{Swarm, Talk};
use crate::world::{Node, World};

/// Payments that each receiver which does not read has waiting: a window full.
const WINDOW: usize = 2;
/// The bytes of each; the limit is 256 KiB.
const PAYMENT: usize = 240 << 10;
/// How many post them at the same time.
const POSTERS: usize = 4;
/// More often than the heartbeat.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// What a connection may cost besides the window of one that does not read, and what everything else may take meanwhile.
const CONNECTION_KIB: u64 = 32;
const REST_KIB: u64 = 64 << 10;
/// From one of the canary's payments to the next, and how long it waits for one.
const CANARY_EVERY: Duration = Duration::from_millis(200);
const CANARY_PATIENCE: Duration = Duration::from_secs(10);
const CANARY: &str = "siege-canary";

/// Besieges the node: 2,000 slow requests, 2,000 connections without a hello, 500 receivers that do not read, a tenth of
/// it where a run must be short; each that is ended is followed by another. A canary of its own posts to that node and
/// receives from it; its p99 and how much the node's memory grew are written down, and the memory has a bound.
///
/// The evidence: as many threads as the node has started for them.
///
/// # Errors
///
/// [`Skipped`]: not enough descriptors.
pub fn begin(world: &Arc<World>, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    let (slow, deaf) = (flood::size(world, 200, 2000), flood::size(world, 50, 500));
    flood::begin(world, step, 2 * slow + deaf, move |world, step, stop| besiege(world, step, stop, slow, deaf))
}

fn besiege(world: &World, step: &Step, stop: &Stop, slow: usize, deaf: usize) -> io::Result<u64> {
    let node = flood::target(world, step);
    let Some((http, tcp)) = flood::ports(node, stop) else { return Ok(0) };
    // A store that is slow just now must not put off the siege to its end.
    fill(http, deaf, Instant::now() + Duration::from_millis(step.length_ms / 3));
    let mut watch = Watch::over(node);
    let before = (watch.most_threads, watch.most_rss_kib);
    let mut swarm = Swarm::new()?;
    (0..slow).for_each(|number| _ = swarm.add(http, bodies::slow_talk(number)));
    (0..slow).for_each(|number| _ = swarm.add(tcp, silence::talk(number)));
    (0..deaf).for_each(|number| _ = swarm.add(tcp, deaf_talk(number)));
    let delays = thread::scope(|scope| {
        let canary = scope.spawn(|| sing(node, stop));
        while !stop.is_set() {
            swarm.turn(TURN)?;
            watch.look();
            let (http, tcp) = node.ports().unwrap_or((http, tcp));
            for (place, peer) in swarm.peers.iter_mut().enumerate().filter(|(_, peer)| peer.ended.is_some()) {
                peer.reopen(if place < slow { http } else { tcp }, Instant::now() + 5 * TURN);
            }
        }
        io::Result::Ok(canary.join().expect("a canary that ends in order"))
    })?;
    let connections = swarm.peers.len() as u64;
    drop(swarm);
    tell_delay(world, &delays);
    tell_memory(world, &mut watch, before.1, connections, deaf as u64);
    flood::retire(world, (0..deaf).map(client).chain([CANARY.to_owned()]));
    Ok(watch.most_threads.saturating_sub(before.0).min(connections))
}

fn client(number: usize) -> String {
    format!("siege-{number:03}")
}

/// Says a hello and that it lives, and reads nothing.
fn deaf_talk(number: usize) -> Talk {
    let hello = format!("{{\"type\":\"hello\",\"client\":\"{}\",\"window\":{WINDOW}}}\n", client(number));
    let alive = b"{\"type\":\"pong\"}\n";
    Talk { reads: false, ..Talk::drips(hello.into_bytes(), alive, alive.len(), SIGN_OF_LIFE) }
}

/// Gives each of those who will not read its payments, as far as the node takes them in time.
fn fill(http: SocketAddr, deaf: usize, deadline: Instant) {
    let body = format!("\"{}\"", "x".repeat(PAYMENT)).into_bytes();
    let fill_some = |first: usize| {
        let mut http = Http::try_connect(http).ok()?;
        for number in (first..deaf).step_by(POSTERS) {
            let path = format!("/v1/clients/{}/payments", client(number));
            for _ in 0..WINDOW {
                let left = deadline.checked_duration_since(Instant::now())?;
                http = http.patient(left);
                http.try_send("POST", &path, &[("Content-Type", "application/json")], &body).ok()?;
            }
        }
        Some(())
    };
    thread::scope(|scope| (0..POSTERS).for_each(|first| _ = scope.spawn(move || fill_some(first))));
}

/// Posts and receives until it is time to end; how long each payment took. Where the node fails it, it comes again.
fn sing(node: &Node, stop: &Stop) -> Vec<Duration> {
    let mut delays = Vec::new();
    while !stop.is_set() {
        let came = node.ports().and_then(|(http, tcp)| {
            let http = Http::try_connect(http).ok()?.patient(CANARY_PATIENCE);
            Some((http, Client::try_hello(tcp, CANARY)?))
        });
        if let Some((mut http, mut client)) = came {
            while !stop.is_set()
                && let Some(delay) = sing_once(&mut http, &mut client)
            {
                delays.push(delay);
                thread::sleep(CANARY_EVERY.saturating_sub(delay));
            }
        }
        thread::sleep(TURN);
    }
    delays.sort();
    delays
}

/// How long one payment took to its receiver; at least [`CANARY_PATIENCE`] if it did not come in time. None if it was
/// not accepted, or the receiver was cut off.
fn sing_once(http: &mut Http, client: &mut Client) -> Option<Duration> {
    let begun = Instant::now();
    let body = format!(r#"{{"client":"{CANARY}","msg":"still alive"}}"#);
    let posted =
        http.try_send("POST", "/v1/payments", &[("Content-Type", "application/json")], body.as_bytes()).ok()?;
    let posted: Value = serde_json::from_slice(&posted.body).ok()?;
    let seq = posted["seq"].as_u64()?;
    loop {
        match client.next(CANARY_PATIENCE) {
            Next::Frame(frame) if frame.kind() == "payment" => {
                client.try_ack(frame.number("seq")).ok()?;
                // One from before it was cut off may come first.
                if frame.number("seq") >= seq {
                    return Some(begun.elapsed());
                }
            }
            Next::Silence => return Some(begun.elapsed()),
            Next::Frame(_) | Next::Closed => return None,
        }
    }
}

fn tell_delay(world: &World, delays: &[Duration]) {
    if !delays.is_empty() {
        let p99 = delays[(delays.len() * 99).div_ceil(100) - 1];
        let ms = p99.as_secs_f64() * 1000.0;
        world.history.event(What::Measured { bound: "canary under siege".to_owned(), ms });
    }
}

fn tell_memory(world: &World, watch: &mut Watch<'_>, before_kib: u64, connections: u64, deaf: u64) {
    let grown_kib = watch.most_rss_kib.saturating_sub(before_kib);
    let level = |what: &str, value| {
        let node = u8::try_from(watch.node().number).expect("a handful of nodes");
        world.history.event(What::Level { node, what: what.to_owned(), value });
    };
    level("rss_kib grown in a siege", grown_kib);
    if let Some(rss) = watch.process().and_then(|process| process.rss_kib()) {
        level("rss_kib after a siege", rss);
    }
    let window_kib = (WINDOW * PAYMENT / 1024) as u64;
    let bound_kib = REST_KIB + connections * CONNECTION_KIB + deaf * window_kib;
    if grown_kib > bound_kib && watch.is_undisturbed() {
        let what = format!("a siege of {connections} connections took {grown_kib} KiB, more than {bound_kib}");
        world.history.event(What::Broken { check: "L3".to_owned(), what });
    }
}
