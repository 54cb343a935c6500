//! Which inboxes *stay* non-empty: kept up to date behind the payments' way, never on it.
//!
//! Who got a payment is looked at again a few seconds later: nearly always it is acknowledged by
//! then. What is in the list is gone through a part at a time and corrected.

use super::RedisInbox;
use super::connection::Pipeline;
use super::reply::{Counts, number, senseless, text, texts};
use crate::inbox::{Backlog, CALL_LIMIT, Error, Inbox, MAX_COUNTED, MAX_PER_CALL};
use crate::payment::ClientId;
use parking_lot::Mutex;
use redis::Value;
use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// How long a payment may lie before its inbox counts as one that stays non-empty.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How many clients are remembered to be looked at; one past it is not listed in time.
const MAX_TOUCHED: usize = 100_000;
/// How many of them are looked at in one go.
const MAX_LOOKED_AT: usize = 8 * MAX_PER_CALL;
/// How many states are asked for in one round trip to be counted; they are short.
const COUNTED_PER_CALL: usize = 1_000;
/// Among how many of the oldest inboxes the oldest payment is looked for. What the list says of one was true when it
/// was last corrected; since then the inbox can only have lost its oldest.
const OLDEST: usize = 16;

/// The clients that are to be looked at.
#[derive(Default)]
pub(super) struct Touched {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clients: HashSet<ClientId>,
    /// All wait equally long, so they are due in the order in which they came.
    due: VecDeque<(Instant, ClientId)>,
    /// Where the round through the list goes on.
    from: usize,
}

impl Touched {
    /// These clients got something.
    pub(super) fn note<'a>(&self, clients: impl Iterator<Item = &'a ClientId>) {
        let mut state = self.state.lock();
        for client in clients {
            if !state.clients.contains(client) && state.clients.len() < MAX_TOUCHED {
                state.clients.insert(client.clone());
                state.due.push_back((Instant::now() + LOOK_AGAIN, client.clone()));
            }
        }
    }

    fn take_due(&self) -> Vec<ClientId> {
        let now = Instant::now();
        let mut state = self.state.lock();
        let count = state.due.iter().take(MAX_LOOKED_AT).take_while(|(due, _)| *due <= now).count();
        let due: Vec<ClientId> = state.due.drain(..count).map(|(_, client)| client).collect();
        due.iter().for_each(|client| {
            state.clients.remove(client);
        });
        due
    }
}

/// Corrects the list.
pub(super) fn correct(inbox: &RedisInbox) -> Result<(), Error> {
    let mut clients = inbox.touched.take_due();
    let listed = listed(inbox)?;
    clients.extend(listed);
    let mut pipeline = Pipeline::default();
    let mut failed = None;
    for (client, record) in clients.iter().zip(inbox.records(&clients)) {
        let (key, id) = (inbox.names.waiting.as_bytes(), client.as_str().as_bytes());
        match record {
            Ok(Some(record)) if record.pending > 0 => {
                let oldest = record.oldest_pending_at.unwrap_or_default().to_string();
                // Through a script, for a full Redis refuses the command itself, just when it matters.
                let add = b"#!lua flags=allow-oom\nredis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])";
                pipeline.command(&[b"EVAL", add, b"1", key, oldest.as_bytes(), id]);
            }
            Ok(_) => pipeline.command(&[b"ZREM", key, id]),
            // One that cannot be read stays as it is, and in nobody's way.
            Err(Error::Corrupt(why)) => log::debug!("{client}: {why}"),
            Err(error) => failed = Some(error),
        }
    }
    let replies = inbox.tending.call(&pipeline);
    let failed = failed.or_else(|| replies.into_iter().find_map(Result::err));
    if let Some(error) = failed {
        inbox.touched.note(clients.iter());
        return Err(error);
    }
    Ok(())
}

/// The next part of the list.
fn listed(inbox: &RedisInbox) -> Result<Vec<ClientId>, Error> {
    let from = inbox.touched.state.lock().from;
    let mut pipeline = Pipeline::default();
    let (first, last) = (from.to_string(), (from + MAX_PER_CALL - 1).to_string());
    pipeline.command(&[b"ZRANGE", inbox.names.waiting.as_bytes(), first.as_bytes(), last.as_bytes()]);
    let reply = inbox.tending.call(&pipeline).pop().unwrap_or_else(|| Err(senseless("no reply")))?;
    let clients: Vec<ClientId> = texts(&reply).iter().filter_map(|id| ClientId::parse(id).ok()).collect();
    // A little behind, for those that are struck off now move the others up.
    inbox.touched.state.lock().from = if clients.len() < MAX_PER_CALL { 0 } else { from + MAX_PER_CALL / 2 };
    Ok(clients)
}

/// Counts what waits, the oldest inboxes first.
pub(super) fn count(inbox: &RedisInbox) -> Result<Backlog, Error> {
    let deadline = Instant::now() + CALL_LIMIT;
    let mut pipeline = Pipeline::default();
    let (key, last) = (inbox.names.waiting.as_bytes(), (MAX_COUNTED - 1).to_string());
    pipeline.command(&[b"ZCARD", key]);
    pipeline.command(&[b"ZRANGE", key, b"0", last.as_bytes()]);
    let mut replies = inbox.questions.call(&pipeline).into_iter();
    let mut next = || replies.next().unwrap_or_else(|| Err(senseless("no reply")));
    let (inboxes, listed) = (number(&text(&next()?).unwrap_or_default())?, texts(&next()?));
    let listed: Vec<ClientId> = listed.iter().filter_map(|id| ClientId::parse(id).ok()).collect();
    let (mut payments, mut oldest) = (0, Vec::with_capacity(OLDEST));
    for clients in listed.chunks(COUNTED_PER_CALL) {
        if Instant::now() >= deadline {
            return Err(Error::away("counting what waits took too long"));
        }
        for (client, pending) in clients.iter().zip(pending(inbox, clients)) {
            let pending = pending?;
            payments += pending;
            if pending > 0 && oldest.len() < OLDEST {
                oldest.push(client.clone());
            }
        }
    }
    let records = inbox.records(&oldest).into_iter();
    let ages = records.filter_map(|record| record.ok().flatten()?.oldest_pending_at);
    Ok(Backlog { inboxes, payments, oldest_at: ages.min() })
}

/// How many payments wait for each of some clients; 0 where that cannot be read.
fn pending(inbox: &RedisInbox, clients: &[ClientId]) -> Vec<Result<u64, Error>> {
    let mut pipeline = Pipeline::default();
    for client in clients {
        let keys = inbox.names.client(client);
        pipeline.command(&[b"GET", keys.key("state").as_bytes()]);
        pipeline.command(&[b"LLEN", keys.key("inbox").as_bytes()]);
    }
    let pending = |replies: &[Result<Value, Error>]| match replies {
        [Ok(state), Ok(Value::Int(held))] => Ok(text(state)
            .and_then(|state| Some(Counts::read(&state, u64::try_from(*held).ok()?).ok()?.pending()))
            .unwrap_or(0)),
        replies => match replies.iter().find_map(|reply| reply.as_ref().err()) {
            None | Some(Error::Corrupt(_)) => Ok(0),
            Some(error) => Err(error.clone()),
        },
    };
    inbox.questions.call(&pipeline).chunks(2).map(pending).collect()
}
