//! Thread body of `bookkeeper`: has claims, acknowledgements and releases stored.
//!
//! All of a client's pass through one queue, in order. What the store refuses for a while (it is
//! away, busy, full) is kept, with what is behind it, and tried again: a node that dies with it
//! costs repeats, never a payment. Acknowledgements gather for a moment, unless a sender waits for
//! one: several payments of a client then cost one note, and many clients' notes one round trip.
//! That, too, can only cost repeats. A connection stands here with one acknowledgement at most, the
//! newest, and once it has ended only as a few words without its socket, so that an outage of the
//! store costs neither descriptors nor other clients' hellos.

use crate::client::catch_up::rolled_back;
use crate::client::close_reason::CloseReason;
use crate::client::connection::{Connection, Ended};
use crate::inbox::{Booked, Error, Inbox, MAX_PER_CALL, Note};
use crate::metrics::Metrics;
use crate::payment::{ClientId, Mark};
use crate::receipts::Receipts;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a hello waits for the store.
pub(crate) const CLAIM_LIMIT: Duration = Duration::from_secs(3);
/// How long nothing is tried after the store refused.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long acknowledgements gather: so much work comes again if the node dies with them.
const GATHER: Duration = Duration::from_millis(50);
/// What is due within this is stored along with what is due now.
const GRAIN: Duration = Duration::from_millis(2);
/// From so many kept items on, releases go: a client that is not released is only said to be
/// online until it comes back, or its node ends.
const MAX_KEPT: usize = 100_000;

/// Something to be stored for a connection.
pub(crate) enum Item {
    /// It said hello; until then its claim makes sense.
    Claim(Arc<Connection>, Instant),
    /// It acknowledged something: `take_ack` says what.
    Ack(Arc<Connection>),
    /// An acknowledgement gathers, the first for a while: its time is to be kept.
    Gathering,
    /// It ended, and this is the acknowledgement that was not stored by then.
    LastAck(Ended, Mark),
    /// It ended.
    Release(Ended),
    /// Store what is there and end, in this time.
    Stop(Instant),
}

/// The bookkeeper's entrance.
pub(crate) struct Book {
    queue: Sender<Item>,
    /// Who has acknowledged something, and when that is to be stored. All gather equally long, so they are due in
    /// the order in which they came; nobody is woken for one.
    gathering: Mutex<VecDeque<(Instant, Arc<Connection>)>>,
}

impl Book {
    /// The entrance, with room for so many items, and what the thread takes from.
    pub(crate) fn new(places: usize) -> (Arc<Book>, Receiver<Item>) {
        let (queue, items) = bounded(places);
        (Arc::new(Book { queue, gathering: Mutex::default() }), items)
    }

    /// Has something stored; waits until there is a place. False: the bookkeeper has ended.
    pub(crate) fn put(&self, item: Item) -> bool {
        self.queue.send(item).is_ok()
    }

    /// The same at once or not at all.
    pub(crate) fn try_put(&self, item: Item) -> bool {
        self.queue.try_send(item).is_ok()
    }

    /// Has an acknowledgement stored in a moment, together with what comes until then.
    pub(crate) fn gather(&self, connection: Arc<Connection>) {
        let mut gathering = self.gathering.lock();
        gathering.push_back((Instant::now() + GATHER, connection));
        let is_first = gathering.len() == 1;
        drop(gathering);
        if is_first {
            // Where the queue is full, the bookkeeper is awake, and looks here after it.
            self.try_put(Item::Gathering);
        }
    }

    /// Ends the thread once everything is stored, or when the time is over.
    pub(crate) fn stop(&self, share: Duration) {
        let _ = self.queue.send_timeout(Item::Stop(Instant::now() + share), share);
    }

    /// How many items wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// How many clients' acknowledgements gather.
    pub(crate) fn gathering(&self) -> usize {
        self.gathering.lock().len()
    }

    /// When the first of what gathers is due.
    fn due(&self) -> Option<Instant> {
        self.gathering.lock().front().map(|(due, _)| *due)
    }

    /// What was due before this.
    fn take_due(&self, before: Instant) -> Vec<Item> {
        let mut gathering = self.gathering.lock();
        let count = gathering.iter().take_while(|(due, _)| *due <= before).count();
        gathering.drain(..count).map(|(_, connection)| Item::Ack(connection)).collect()
    }
}

/// What the thread uses.
pub(crate) struct Bookkeeper {
    pub(crate) book: Arc<Book>,
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
        while let Ok(item) = bookkeeper.queue.try_recv() {
            match item {
                Item::Stop(deadline) => stop = Some(deadline),
                item => kept.push_back(item),
            }
        }
        let now = Instant::now();
        kept.extend(bookkeeper.book.take_due(if stop.is_some() { now + GATHER } else { now + GRAIN }));
        let (due, rest): (Vec<_>, Vec<_>) = later.into_iter().partition(|(at, _)| *at <= now);
        later = rest;
        kept.extend(due.into_iter().map(|(_, item)| item));
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
            kept.retain(still_makes_sense);
            if kept.len() > MAX_KEPT {
                kept.retain(|item| !matches!(item, Item::Release(_)));
            }
            std::thread::sleep(BACK_OFF);
        }
    }
}

/// Waits for something to do. Says whether that is to stop.
fn wait(bookkeeper: &Bookkeeper, kept: &mut VecDeque<Item>, later: &[(Instant, Item)]) -> Option<Instant> {
    let item = match later.iter().map(|(at, _)| *at).chain(bookkeeper.book.due()).min() {
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

/// Whether an item is to be tried again. One that is not lets go of its connection, and a hello
/// that has waited long enough is told so.
fn still_makes_sense(item: &Item) -> bool {
    match item {
        Item::Claim(connection, deadline) if Instant::now() >= *deadline => {
            connection.close(CloseReason::Unavailable("the store is unavailable; connect again".into()));
            false
        }
        Item::Claim(connection, _) => !connection.is_closed(),
        // The end of the connection took its acknowledgement over.
        Item::Ack(connection) => connection.has_ack(),
        Item::LastAck(..) => true,
        Item::Release(ended) => ended.is_needed(),
        Item::Gathering | Item::Stop(_) => false,
    }
}

impl Bookkeeper {
    /// One round trip. What is to be tried again stays at the front, in its order. Whether the
    /// store refused for a while.
    fn round(&self, kept: &mut VecDeque<Item>, later: &mut Vec<(Instant, Item)>) -> bool {
        let count = kept.len().min(MAX_PER_CALL);
        let entries: Vec<Entry> = kept.drain(..count).filter_map(entry).collect();
        let notes: Vec<Note> = entries.iter().map(|entry| entry.note.clone()).collect();
        if notes.is_empty() {
            return false;
        }
        let outcomes = self.inbox.book(&notes);
        let mut again = VecDeque::new();
        for (entry, outcome) in entries.into_iter().zip(outcomes) {
            match (outcome, &entry.item) {
                (Ok(Booked::TooSoon(wait)), Item::Claim(_, deadline)) => {
                    later.push(((Instant::now() + wait).min(*deadline), entry.item));
                }
                (Ok(booked), _) => self.done(&entry.item, booked),
                (Err(error), _) if error.passes() => {
                    keep(&entry, &error);
                    again.push_back(entry.item);
                }
                (Err(error), _) => give_up(&entry.item, &error),
            }
        }
        let away = !again.is_empty();
        again.append(kept);
        *kept = again;
        away
    }

    fn done(&self, item: &Item, booked: Booked) {
        match (item, booked) {
            (Item::Claim(connection, _), Booked::Claimed(claimed)) => connection.claimed(&claimed),
            (Item::Ack(connection), Booked::Acknowledged(acked)) => {
                self.metrics.acknowledged(connection.acked(acked));
                self.receipts.acknowledged(connection.client(), acked);
            }
            (Item::LastAck(ended, _), Booked::Acknowledged(acked)) => {
                self.metrics.acknowledged(acked.since(ended.acked));
                self.receipts.acknowledged(&ended.client, acked);
            }
            (Item::Claim(connection, _) | Item::Ack(connection), Booked::Replaced) => {
                connection.close(CloseReason::Replaced);
            }
            (Item::Ack(connection), Booked::RolledBack) => {
                self.receipts.abandon(connection.client());
                connection.close(rolled_back(connection));
            }
            (Item::LastAck(ended, _), Booked::RolledBack) => {
                self.receipts.abandon(&ended.client);
                log::error!("{}: the store came back without writes that its last connection saw", ended.client);
                self.metrics.rolled_back();
            }
            _ => {}
        }
    }
}

/// What an item has to say to the store, if it still has.
fn entry(item: Item) -> Option<Entry> {
    if !still_makes_sense(&item) {
        return None;
    }
    let ack = |client: &ClientId, session, mark| Note::Ack { client: client.clone(), session, mark };
    let note = match &item {
        Item::Claim(connection, deadline) => Note::Claim(connection.claim(*deadline)?),
        Item::Ack(connection) => {
            let (session, mark) = connection.take_ack()?;
            ack(connection.client(), session, mark)
        }
        Item::LastAck(ended, mark) => ack(&ended.client, ended.session.clone(), *mark),
        Item::Release(ended) => Note::Release { client: ended.client.clone(), session: ended.session.clone() },
        Item::Gathering | Item::Stop(_) => return None,
    };
    Some(Entry { item, note })
}

/// The store refused it for now.
fn keep(entry: &Entry, error: &Error) {
    match (&entry.item, &entry.note) {
        (Item::Ack(connection), Note::Ack { mark, .. }) => connection.keep_ack(*mark),
        (Item::Claim(connection, _), _) => connection.claim_refused(error),
        _ => {}
    }
}

/// The store will never take it.
fn give_up(item: &Item, error: &Error) {
    let client = match item {
        Item::Claim(connection, _) | Item::Ack(connection) => {
            connection.close(CloseReason::Unavailable("this client's inbox cannot be read".into()));
            connection.client()
        }
        Item::LastAck(ended, _) | Item::Release(ended) => &ended.client,
        Item::Gathering | Item::Stop(_) => return,
    };
    log::error!("{client}: {error}; this client is not served");
}
