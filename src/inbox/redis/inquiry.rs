//! What `payrelay doctor` asks of a Redis. Nothing here changes anything there, not even its
//! store of scripts, so that it may be asked beside a running node.
//!
//! Rights are tried by queueing each command in a transaction that is thrown away: Redis judges
//! them as it queues.

use super::connection::{Pipeline, exchange};
use super::facts::Facts;
use super::lease::clock;
use super::reply::senseless;
use super::{Replies, Target, all_channel, brief, node_channel};
use crate::inbox::{CALL_LIMIT, Error, Stored};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What was learned.
pub(crate) struct Inquiry {
    pub(crate) facts: Facts,
    pub(crate) round_trip: Duration,
    /// Redis' clock less this machine's.
    pub(crate) ahead_ms: i64,
    /// `None`: there are no transactions for us, so nothing could be tried.
    pub(crate) denied: Option<Denied>,
}

/// What this user may not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Denied {
    /// Commands without which nothing is stored or delivered.
    pub(crate) commands: Vec<&'static str>,
    /// Commands by which nodes tell each other.
    pub(crate) channels: Vec<&'static str>,
    /// `WAIT`.
    pub(crate) waiting: bool,
}

/// What scripts, lease and listings need; `KEY` is a client's.
const COMMANDS: [&str; 30] = [
    "EVALSHA 0 1 KEY",
    "EVAL x 1 KEY",
    "SCRIPT LOAD x",
    "TIME",
    "GET KEY",
    "SET KEY 1",
    "DEL KEY",
    "UNLINK KEY",
    "PEXPIRE KEY 1",
    "PTTL KEY",
    "SCAN 0",
    "LLEN KEY",
    "LINDEX KEY 0",
    "LRANGE KEY 0 0",
    "RPUSH KEY 1",
    "LTRIM KEY 0 0",
    "LSET KEY 0 1",
    "LPOP KEY",
    "HGET KEY 1",
    "HMGET KEY 1",
    "HSET KEY 1 1",
    "HDEL KEY 1",
    "SADD KEY 1",
    "SREM KEY 1",
    "SMEMBERS KEY",
    "ZADD KEY 1 1",
    "ZCARD KEY",
    "ZRANGE KEY 0 0",
    "ZREM KEY 1",
    "ZRANGEBYSCORE KEY 0 0",
];
const WAIT: &str = "WAIT 1 1";
/// What nodes tell each other with, on a node's channel and on that of all.
const CHANNEL_COMMANDS: [&str; 4] = ["SUBSCRIBE NODE", "SUBSCRIBE ALL", "PUBLISH NODE x", "PUBLISH ALL x"];

/// Asks a Redis for all of it, on behalf of a node of this name.
///
/// # Errors
///
/// It cannot be reached, or does not let us ask.
pub(crate) fn inquire(target: &Target, node: &str) -> Result<Inquiry, Error> {
    let mut line = target.open(false).map_err(|error| Error::away(brief(&error)))?;
    let mut ask = |pipeline: &Pipeline| exchange(&mut line, pipeline, Instant::now() + CALL_LIMIT);
    let facts = Facts::learn(&mut ask)?;
    let (round_trip, ahead_ms) = compare_clocks(&mut ask)?;
    Ok(Inquiry { facts, round_trip, ahead_ms, denied: try_rights(&mut ask, target.database(), node)? })
}

/// The time of one round trip, and how far Redis' clock is ahead of ours.
fn compare_clocks(mut ask: impl FnMut(&Pipeline) -> Replies) -> Result<(Duration, i64), Error> {
    let mut pipeline = Pipeline::default();
    pipeline.command(&[b"TIME"]);
    let (asked, ours) = (Instant::now(), SystemTime::now());
    let reply = ask(&pipeline).pop().unwrap_or_else(|| Err(senseless("no reply")));
    let round_trip = asked.elapsed();
    // That the right is missing is told where rights are.
    let Ok(reply) = reply else { return Ok((round_trip, 0)) };
    let theirs = clock(&reply).ok_or_else(|| senseless("TIME is no time"))?;
    let ours = (ours + round_trip / 2).duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let signed = |ms: u128| i64::try_from(ms).unwrap_or(i64::MAX);
    Ok((round_trip, signed(u128::from(theirs)).saturating_sub(signed(ours))))
}

/// What is forbidden; `None` if it cannot be tried.
fn try_rights(mut ask: impl FnMut(&Pipeline) -> Replies, database: i64, node: &str) -> Result<Option<Denied>, Error> {
    let mut begin = Pipeline::default();
    begin.command(&[b"MULTI"]);
    // By itself: without a transaction around them the commands would be run.
    match ask(&begin).pop() {
        Some(Ok(_)) => {}
        Some(Err(error @ Error::Unavailable { stored: Stored::Unknown, .. })) => return Err(error),
        // Forbidden, or unknown: a Sentinel has no transactions.
        _ => return Ok(None),
    }
    let (node, all) = (node_channel(database, node), all_channel(database));
    let word = |word: &str| match word {
        "KEY" => "payrelay:{doctor}:state".to_owned(),
        "NODE" => node.clone(),
        "ALL" => all.clone(),
        other => other.to_owned(),
    };
    let tried: Vec<&'static str> = COMMANDS.into_iter().chain(CHANNEL_COMMANDS).chain([WAIT]).collect();
    let mut pipeline = Pipeline::default();
    for line in &tried {
        let words: Vec<String> = line.split(' ').map(word).collect();
        pipeline.command(&words.iter().map(String::as_bytes).collect::<Vec<_>>());
    }
    pipeline.command(&[b"DISCARD"]);
    let mut replies = ask(&pipeline);
    replies.pop().unwrap_or_else(|| Err(senseless("no reply")))?;
    let mut denied = Denied::default();
    for (line, reply) in tried.into_iter().zip(replies) {
        match reply {
            Err(error) if is_denial(&error) => denied.note(line),
            _ => {}
        }
    }
    Ok(Some(denied))
}

fn is_denial(error: &Error) -> bool {
    matches!(error, Error::Unavailable { why, .. } if why.starts_with("NOPERM"))
}

impl Denied {
    fn note(&mut self, line: &'static str) {
        // As Redis' rules call it.
        let name = if line.starts_with("SCRIPT") { "SCRIPT LOAD" } else { line.split(' ').next().unwrap_or(line) };
        if line == WAIT {
            self.waiting = true;
        } else if !CHANNEL_COMMANDS.contains(&line) {
            self.commands.push(name);
        } else if !self.channels.contains(&name) {
            self.channels.push(name);
        }
    }
}
