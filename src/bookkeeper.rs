//! Thread body of `bookkeeper`: has claims, acknowledgements and releases stored.
//!
//! All of a client's pass through one queue, in order. What the store refuses for a while (it is
//! away, busy, full) is kept, with what is behind it, and tried again: a node that dies with it
//! costs repeats, never a payment. A connection stands in the queue with one acknowledgement at
//! most, the newest, so the queue is bounded by the connections.

use crate::client::catch_up::rolled_back;
use crate::client::connection::{CloseReason, Connection};
use crate::inbox::{Booked, Error, Inbox, MAX_PER_CALL, Note};
use crate::metrics::Metrics;
use crate::receipts::Receipts;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a hello waits for the store.
pub(crate) const CLAIM_LIMIT: Duration = Duration::from_secs(3);
/// How long nothing is tried after the store refused.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Something to be stored for a connection.
pub(crate) enum Item {
    /// It said hello; until then its claim makes sense.
    Claim(Arc<Connection>, Instant),
    /// It acknowledged something: `take_ack` says what.
    Ack(Arc<Connection>),
    /// It ended.
    Release(Arc<Connection>),
    /// Store what is there and end, in this time.
    Stop(Instant),
}

/// What the thread uses.
pub(crate) struct Bookkeeper {
    pub(crate) queue: Receiver<Item>,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) metrics: Arc<Metrics>,
}

/// A note, and what it came from.
struct Entry {
    item: Item,
    note: Note,
}

/// The thread body: until a [`Item::Stop`].
pub(crate) fn run(bookkeeper: &Bookkeeper) {
    let mut kept = VecDeque::new();
    // Claims that have to wait for their turn.
    let mut later: Vec<(Instant, Item)> = Vec::new();
    let mut stop = None;
    loop {
        if stop.is_none() && kept.is_empty() {
            stop = wait(bookkeeper, &mut kept, &later);
        }
        while kept.len() < MAX_PER_CALL {
            match bookkeeper.queue.try_recv() {
                Ok(Item::Stop(deadline)) => stop = Some(deadline),
                Ok(item) => kept.push_back(item),
                Err(_) => break,
            }
        }
        let now = Instant::now();
        let (due, rest) = later.into_iter().partition(|(at, _)| *at <= now);
        later = rest;
        kept.extend::<Vec<Item>>(due.into_iter().map(|(_, item)| item).collect());
        let away = bookkeeper.round(&mut kept, &mut later);
        match stop {
            Some(_) if kept.is_empty() && bookkeeper.queue.is_empty() => return,
            Some(deadline) if Instant::now() >= deadline => {
                log::warn!("{} notes were not stored; their payments come again", kept.len());
                return;
            }
            _ => {}
        }
        if away {
            std::thread::sleep(BACK_OFF);
        }
    }
}

/// Waits for something to do. Says whether that is to stop.
fn wait(bookkeeper: &Bookkeeper, kept: &mut VecDeque<Item>, later: &[(Instant, Item)]) -> Option<Instant> {
    let item = match later.iter().map(|(at, _)| *at).min() {
        None => bookkeeper.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(at) => bookkeeper.queue.recv_deadline(at),
    };
    match item {
        Ok(Item::Stop(deadline)) => return Some(deadline),
        Ok(item) => kept.push_back(item),
        Err(RecvTimeoutError::Timeout) => {}
        Err(RecvTimeoutError::Disconnected) => return Some(Instant::now()),
    }
    None
}

impl Bookkeeper {
    /// One round trip. What is to be tried again stays at the front, in its order. Whether the
    /// store refused for a while.
    fn round(&self, kept: &mut VecDeque<Item>, later: &mut Vec<(Instant, Item)>) -> bool {
        let count = kept.len().min(MAX_PER_CALL);
        let entries: Vec<Entry> = kept.drain(..count).filter_map(|item| self.entry(item)).collect();
        let notes: Vec<Note> = entries.iter().map(|entry| entry.note.clone()).collect();
        if notes.is_empty() {
            return false;
        }
        let outcomes = self.inbox.book(&notes);
        let mut again = VecDeque::new();
        for (entry, outcome) in entries.into_iter().zip(outcomes) {
            match outcome {
                Ok(Booked::TooSoon(wait)) => later.push((Instant::now() + wait, entry.item)),
                Ok(booked) => self.done(&entry.item, booked),
                Err(error) if error.passes() => again.extend(keep(entry, &error)),
                Err(error) => give_up(&entry.item, &error),
            }
        }
        let away = !again.is_empty();
        again.append(kept);
        *kept = again;
        away
    }

    fn entry(&self, item: Item) -> Option<Entry> {
        let note = match &item {
            Item::Claim(connection, _) if connection.is_closed() => return None,
            Item::Claim(connection, deadline) if Instant::now() >= *deadline => {
                connection.close(CloseReason::Unavailable("the store is unavailable; connect again".into()));
                return None;
            }
            Item::Claim(connection, deadline) => Note::Claim(connection.claim(*deadline)),
            Item::Ack(connection) => {
                let (session, mark) = connection.take_ack()?;
                Note::Ack { client: connection.client().clone(), session, mark }
            }
            Item::Release(connection) => {
                Note::Release { client: connection.client().clone(), session: connection.release() }
            }
            Item::Stop(_) => return None,
        };
        Some(Entry { item, note })
    }

    fn done(&self, item: &Item, booked: Booked) {
        match (item, booked) {
            (Item::Claim(connection, _), Booked::Claimed(claimed)) => connection.claimed(&claimed),
            (Item::Ack(connection), Booked::Acknowledged(acked)) => {
                self.metrics.acknowledged(connection.acked(acked));
                self.receipts.acknowledged(connection.client(), acked);
            }
            (Item::Claim(connection, _) | Item::Ack(connection), Booked::Replaced) => {
                connection.close(CloseReason::Replaced);
            }
            (Item::Ack(connection), Booked::RolledBack) if !connection.is_closed() => {
                connection.close(rolled_back(connection));
            }
            _ => {}
        }
    }
}

/// What is to be done again, though the store refused it for now.
fn keep(entry: Entry, error: &Error) -> Option<Item> {
    match (&entry.item, &entry.note) {
        (Item::Ack(connection), Note::Ack { mark, .. }) => connection.keep_ack(*mark),
        (Item::Claim(connection, _), _) => log::debug!("{}: its claim waits: {error}", connection.client()),
        _ => {}
    }
    Some(entry.item)
}

/// The store will never take it.
fn give_up(item: &Item, error: &Error) {
    let (Item::Claim(connection, _) | Item::Ack(connection) | Item::Release(connection)) = item else { return };
    log::error!("{}: {error}; this client is not served", connection.client());
    connection.close(CloseReason::Unavailable(error.to_string()));
}
