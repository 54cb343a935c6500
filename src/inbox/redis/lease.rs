//! The lease of this node, who else is alive, and what time Redis has.
//!
//! A lease is a key of five seconds that holds the boot id of the process; it is renewed once a
//! second. Nothing hangs on a lease but the word `online` in an answer, the listing, that of two
//! processes with one name the older ends, and, with what `sights` makes of it, whether what a
//! node sent can expire: sessions, not leases, protect inboxes.

use super::connection::{Lines, Pipeline};
use super::names::Names;
use super::reply::{text, texts};
use super::sights::{Sights, Standing};
use crate::inbox::{Error, Tended};
use parking_lot::Mutex;
use redis::Value;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const LEASE: Duration = Duration::from_secs(5);

/// What this node knows of its own lease and the others'.
pub(super) struct Lease {
    node: String,
    boot: String,
    state: Mutex<State>,
}

struct State {
    /// Redis' clock at an instant of ours.
    clock: Option<(Instant, u64)>,
    /// Of every lease that holds, by `node/boot`.
    sights: Sights,
    joined: bool,
    renewed: Option<Instant>,
}

impl Lease {
    pub(super) fn new(node: String, boot: String) -> Lease {
        let state = State { clock: None, sights: Sights::default(), joined: false, renewed: None };
        Lease { node, boot, state: Mutex::new(state) }
    }

    /// Redis' clock in Unix milliseconds: learned once a second, carried on by ours.
    pub(super) fn now_ms(&self) -> u64 {
        let clock = self.state.lock().clock;
        match clock {
            Some((then, ms)) => ms + u64::try_from(then.elapsed().as_millis()).unwrap_or(0),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis().try_into().unwrap_or(0)),
        }
    }

    /// Whether an owner (`node/boot`) is a process that lives.
    pub(super) fn is_alive(&self, owner: &str) -> bool {
        owner.strip_prefix(self.node.as_str()).and_then(|rest| rest.strip_prefix('/')) == Some(self.boot.as_str())
            || self.state.lock().sights.holds(owner)
    }

    /// What may be said of the owner of an inbox, where somebody else's payments hang on it.
    pub(super) fn standing(&self, owner: &str) -> Standing {
        self.state.lock().sights.standing(owner, Instant::now())
    }

    /// The names of all nodes that live, this one too.
    pub(super) fn nodes(&self) -> Vec<String> {
        let state = self.state.lock();
        let mut nodes: Vec<_> =
            state.sights.holding().filter_map(|owner| Some(owner.split_once('/')?.0.into())).collect();
        if !nodes.contains(&self.node) {
            nodes.push(self.node.clone());
        }
        nodes
    }

    /// Whether the last renewal is not long ago.
    pub(super) fn holds(&self) -> bool {
        self.state.lock().renewed.is_some_and(|at| at.elapsed().as_millis() < 3000)
    }

    /// Renews the lease and learns clock and neighbours.
    pub(super) fn renew(&self, lines: &Lines, names: &Names) -> Result<Tended, Error> {
        let (key, nodes) = (names.lease(&self.node), names.nodes());
        let mut pipeline = Pipeline::default();
        pipeline.command(&[b"TIME"]);
        pipeline.command(&[b"GET", key.as_bytes()]);
        pipeline.command(&[b"PEXPIRE", key.as_bytes(), lease_ms().as_bytes()]);
        pipeline.command(&[b"SMEMBERS", nodes.as_bytes()]);
        let asked = Instant::now();
        let mut replies = lines.call(&pipeline).into_iter();
        let mut next = || replies.next().unwrap_or_else(|| Err(Error::away("no reply")));
        let (time, holder, renewed, others) = (next()?, next()?, next()?, next()?);
        let held_by = text(&holder).unwrap_or_default();
        let joined = self.state.lock().joined;
        if joined && !held_by.is_empty() && held_by != self.boot {
            return Ok(Tended::Ousted);
        }
        let lapsed = renewed == Value::Int(0) || held_by != self.boot;
        // Another node may just have struck this name off for a lease that had lapsed.
        let struck_off = !texts(&others).contains(&self.node);
        if lapsed || struck_off {
            self.take(lines, &key, &nodes)?;
        }
        let leases = self.neighbours(lines, names, &texts(&others))?;
        let mut state = self.state.lock();
        state.clock = clock(&time).map(|ms| (asked + asked.elapsed() / 2, ms)).or(state.clock);
        let now = Instant::now();
        state.sights.look(now, leases);
        state.renewed = Some(now);
        let first = !std::mem::replace(&mut state.joined, true);
        Ok(if lapsed && !first { Tended::Lapsed } else { Tended::Fine })
    }

    fn take(&self, lines: &Lines, key: &str, nodes: &str) -> Result<(), Error> {
        let mut pipeline = Pipeline::default();
        // Through scripts, for a full Redis refuses both commands, but not a node.
        let set = b"#!lua flags=allow-oom\nredis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])";
        pipeline.command(&[b"EVAL", set, b"1", key.as_bytes(), self.boot.as_bytes(), lease_ms().as_bytes()]);
        let add = b"#!lua flags=allow-oom\nredis.call('SADD', KEYS[1], ARGV[1])";
        pipeline.command(&[b"EVAL", add, b"1", nodes.as_bytes(), self.node.as_bytes()]);
        lines.call(&pipeline).into_iter().try_for_each(|reply| reply.map(|_| ()))
    }

    /// Who holds a lease, and how long ago it was renewed.
    fn neighbours(&self, lines: &Lines, names: &Names, others: &[String]) -> Result<Vec<(String, Duration)>, Error> {
        let mut pipeline = Pipeline::default();
        for node in others {
            let key = names.lease(node);
            pipeline.command(&[b"GET", key.as_bytes()]);
            pipeline.command(&[b"PTTL", key.as_bytes()]);
        }
        let mut leases = Vec::new();
        let mut gone = Pipeline::default();
        let mut replies = lines.call(&pipeline).into_iter();
        for node in others {
            let mut next = || replies.next().unwrap_or_else(|| Err(Error::away("no reply")));
            let (boot, left) = (next()?, next()?);
            match text(&boot) {
                Some(boot) => leases.push((format!("{node}/{boot}"), LEASE.saturating_sub(time_left(&left)))),
                None if *node != self.node => gone.command(&[b"SREM", names.nodes().as_bytes(), node.as_bytes()]),
                None => {}
            }
        }
        // A node that only lapsed enters its name again with its next renewal.
        if gone.len() > 0 {
            lines.call(&gone).into_iter().try_for_each(|reply| reply.map(|_| ()))?;
        }
        Ok(leases)
    }

    /// Gives the lease back, if it still is this process'.
    pub(super) fn end(&self, lines: &Lines, names: &Names) {
        let script = b"if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end";
        let mut pipeline = Pipeline::default();
        pipeline.command(&[b"EVAL", script, b"1", names.lease(&self.node).as_bytes(), self.boot.as_bytes()]);
        if let Some(Err(error)) = lines.call(&pipeline).pop() {
            log::debug!("the lease is left to lapse: {error}");
        }
    }
}

fn lease_ms() -> String {
    LEASE.as_millis().to_string()
}

/// The reply of PTTL; nothing where there is no such time.
fn time_left(reply: &Value) -> Duration {
    match reply {
        Value::Int(ms) => Duration::from_millis(u64::try_from(*ms).unwrap_or(0)),
        _ => Duration::ZERO,
    }
}

/// The reply of TIME in milliseconds.
pub(super) fn clock(reply: &Value) -> Option<u64> {
    let parts = texts(reply);
    let number = |i: usize| parts.get(i)?.parse::<u64>().ok();
    Some(number(0)? * 1000 + number(1)? / 1000)
}
