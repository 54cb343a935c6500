//! Thread body of `bookkeeper`: has claims, acknowledgements, refusals and releases stored.
//!
//! All of a client's pass through one queue, in order. What the store refuses for a while (it is
//! away, busy, full) is kept, with what is behind it, and tried again: a node that dies with it
//! costs repeats, never a payment. Acknowledgements gather for a moment, unless a sender waits for
//! one: several payments of a client then cost one note, and many clients' notes one round trip.
//! That, too, can only cost repeats. A connection stands here once, whatever it has to say, and once it
//! has ended only as a few words without its socket, so that an outage of the store costs neither
//! descriptors nor other clients' hellos. A refusal is stored before anything of its client that came
//! after it: an acknowledgement must not pass over it, nor the release end its session.

use crate::client::catch_up::rolled_back;
use crate::client::close_reason::CloseReason;
use crate::client::connection::{Connection, Ended};
use crate::client::words::{Word, Words};
use crate::inbox::{Booked, Error, Inbox, MAX_PER_CALL, Note, Session};
use crate::metrics::Metrics;
use crate::payment::{ClientId, Status};
use crate::receipts::Receipts;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a hello waits for the store.
pub(crate) const CLAIM_LIMIT: Duration = Duration::from_secs(3);
/// How long nothing is tried after the store refused.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long acknowledgements gather: so much work comes again if the node dies with them.
const GATHER: Duration = Duration::from_millis(50);
/// What is due within this is stored along with what is due now.
const GRAIN: Duration = Duration::from_millis(8);
/// So many of what gathers are stored along with it whenever they are due: a round of few costs as much.
const FEW: usize = 16;
/// From so many kept items on, releases go: a client that is not released is only said to be
/// online until it comes back, or its node ends.
const MAX_KEPT: usize = 100_000;

/// Something to be stored for a connection.
pub(crate) enum Item {
    /// It said hello; until then its claim makes sense.
    Claim(Arc<Connection>, Instant),
    /// It acknowledged or refused something, or was sent something: `take_words` says what.
    Words(Arc<Connection>),
    /// An acknowledgement gathers, the first for a while: its time is to be kept.
    Gathering,
    /// It ended, and this was not stored by then.
    LastWords(Ended, Words),
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

    /// What is due by then, and a few of the others along with it.
    fn take_due(&self, by: Instant) -> Vec<Item> {
        let mut gathering = self.gathering.lock();
        if gathering.front().is_none_or(|(due, _)| *due > by) {
            return Vec::new();
        }
        let count = gathering.iter().zip(0..).take_while(|((due, _), nth)| *nth < FEW || *due <= by).count();
        gathering.drain(..count).map(|(_, connection)| Item::Words(connection)).collect()
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

/// What one item has to say to the store now.
enum Saying {
    Claim(Arc<Connection>, Instant),
    Words { from: Speaker, session: Session, words: Words },
    Release(Ended),
}

/// Whose words they are.
enum Speaker {
    Connected(Arc<Connection>),
    /// With the words that come after these.
    Ended(Ended, Words),
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
        // The end of the connection took its words over.
        Item::Words(connection) => connection.has_words(),
        Item::LastWords(_, words) => !words.is_empty(),
        Item::Release(ended) => ended.is_needed(),
        Item::Gathering | Item::Stop(_) => false,
    }
}

impl Bookkeeper {
    /// One round trip. What is to be tried again, or comes behind it, stays at the front, in its order. Whether the
    /// store refused for a while.
    fn round(&self, kept: &mut VecDeque<Item>, later: &mut Vec<(Instant, Item)>) -> bool {
        let (mut sayings, mut again, mut notes) = (Vec::new(), VecDeque::new(), Vec::new());
        // Whose further items wait for a round of their own.
        let mut full: HashSet<ClientId> = HashSet::new();
        while notes.len() < MAX_PER_CALL
            && let Some(item) = kept.pop_front()
        {
            if client_of(&item).is_some_and(|client| full.contains(client)) {
                // A hello that has waited long enough is told so, whatever stands before it.
                if !matches!(item, Item::Claim(..)) || still_makes_sense(&item) {
                    again.push_back(item);
                }
                continue;
            }
            let Some(saying) = saying(item) else { continue };
            let before = notes.len();
            saying.push_notes(&mut notes);
            // A connection speaks once in a round: what is put back would else get out of its order.
            if let Saying::Words { from, words, .. } = &saying
                && (matches!(from, Speaker::Connected(_))
                    || from.has_more()
                    || words.iter().any(|word| matches!(word, Word::Refuse { .. })))
            {
                full.insert(from.client().clone());
            }
            sayings.push((saying, notes.len() - before));
        }
        if notes.is_empty() {
            again.append(kept);
            *kept = again;
            return false;
        }
        let mut outcomes = self.inbox.book(&notes).into_iter();
        let mut refused = VecDeque::new();
        let mut away = false;
        for (saying, count) in sayings {
            let outcomes: Vec<_> = outcomes.by_ref().take(count).collect();
            away |= outcomes.iter().any(|outcome| outcome.as_ref().is_err_and(Error::passes));
            refused.extend(self.settle(saying, outcomes, later));
        }
        again.append(kept);
        // Whoever has more to say goes to the end, before what else there is of the same client: others come first.
        let busy: HashSet<ClientId> = refused.iter().filter_map(client_of).cloned().collect();
        let behind = |item: &Item| client_of(item).is_some_and(|client| busy.contains(client));
        let (mut behind, mut others): (VecDeque<_>, VecDeque<_>) = again.into_iter().partition(behind);
        others.append(&mut refused);
        others.append(&mut behind);
        *kept = others;
        away
    }

    /// Makes true here what the store did. Returns what is still to be said.
    fn settle(
        &self,
        saying: Saying,
        mut outcomes: Vec<Result<Booked, Error>>,
        later: &mut Vec<(Instant, Item)>,
    ) -> Option<Item> {
        match saying {
            Saying::Claim(connection, deadline) => self.settle_claim(connection, deadline, outcomes.pop()?, later),
            Saying::Release(ended) => match outcomes.pop()? {
                Err(error) if error.passes() => Some(Item::Release(ended)),
                Err(error) => {
                    log::error!("{}: {error}; this client is not served", ended.client);
                    None
                }
                Ok(_) => None,
            },
            Saying::Words { mut from, words, .. } => {
                let mut unsaid = Words::default();
                for (word, outcome) in words.into_iter().zip(outcomes) {
                    match outcome {
                        Ok(booked) => self.said(&mut from, &word, booked),
                        Err(error) if error.passes() => unsaid.push(word),
                        Err(error) => {
                            log::error!("{}: {error}; this client is not served", from.client());
                            from.close(CloseReason::Unavailable("this client's inbox cannot be read".into()));
                        }
                    }
                }
                from.go_on(unsaid)
            }
        }
    }

    fn settle_claim(
        &self,
        connection: Arc<Connection>,
        deadline: Instant,
        outcome: Result<Booked, Error>,
        later: &mut Vec<(Instant, Item)>,
    ) -> Option<Item> {
        match outcome {
            Ok(Booked::Claimed(claimed)) => connection.claimed(&claimed),
            Ok(Booked::Replaced) => connection.close(CloseReason::Replaced),
            Ok(Booked::TooSoon(wait)) => {
                later.push(((Instant::now() + wait).min(deadline), Item::Claim(connection, deadline)));
            }
            Ok(_) => {}
            Err(error) if error.passes() => {
                connection.claim_refused(&error);
                return Some(Item::Claim(connection, deadline));
            }
            Err(error) => {
                connection.close(CloseReason::Unavailable("this client's inbox cannot be read".into()));
                log::error!("{}: {error}; this client is not served", connection.client());
            }
        }
        None
    }

    fn said(&self, from: &mut Speaker, word: &Word, booked: Booked) {
        let client = from.client().clone();
        if let (Speaker::Connected(connection), Booked::Acknowledged(acked) | Booked::Passed(acked)) = (&*from, &booked)
        {
            connection.acked(*acked);
        }
        match (word, booked) {
            (Word::Ack { payments, .. }, Booked::Acknowledged(acked)) => {
                self.metrics.acknowledged(*payments as u64);
                self.receipts.acknowledged(&client, acked);
            }
            // Some of it may be dead letters: the inbox tells which.
            (Word::Ack { payments, .. }, Booked::Passed(acked)) => {
                self.metrics.acknowledged(*payments as u64);
                self.receipts.look(&client, acked);
            }
            (Word::Refuse { mark, .. }, Booked::Refused) => {
                self.receipts.ended(&client, mark.seq, Status::Refused);
            }
            (_, Booked::Replaced) => from.close(CloseReason::Replaced),
            (_, Booked::RolledBack) => {
                self.receipts.abandon(&client);
                from.rolled_back(&self.metrics);
            }
            _ => {}
        }
    }
}

impl Speaker {
    fn client(&self) -> &ClientId {
        match self {
            Speaker::Connected(connection) => connection.client(),
            Speaker::Ended(ended, _) => &ended.client,
        }
    }

    fn has_more(&self) -> bool {
        match self {
            Speaker::Connected(connection) => connection.has_words(),
            Speaker::Ended(_, rest) => !rest.is_empty(),
        }
    }

    /// Ends the connection, where there still is one. What it has not said by then counts no more.
    fn close(&mut self, reason: CloseReason) {
        match self {
            Speaker::Connected(connection) => connection.close(reason),
            Speaker::Ended(_, rest) => *rest = Words::default(),
        }
    }

    fn rolled_back(&mut self, metrics: &Metrics) {
        match self {
            Speaker::Connected(connection) => connection.close(rolled_back(connection)),
            Speaker::Ended(ended, rest) => {
                log::error!("{}: the store came back without writes that its last connection saw", ended.client);
                metrics.rolled_back();
                *rest = Words::default();
            }
        }
    }

    /// The item of what is not said yet: these first.
    fn go_on(self, unsaid: Words) -> Option<Item> {
        match self {
            Speaker::Connected(connection) => {
                if unsaid.is_empty() && !connection.has_words() {
                    return None;
                }
                connection.keep_words(unsaid);
                Some(Item::Words(connection))
            }
            Speaker::Ended(ended, mut rest) => {
                rest.put_back(unsaid);
                (!rest.is_empty()).then_some(Item::LastWords(ended, rest))
            }
        }
    }
}

impl Saying {
    fn push_notes(&self, notes: &mut Vec<Note>) {
        match self {
            // It may have ended just now; then there is nothing to claim.
            Saying::Claim(connection, deadline) => notes.extend(connection.claim(*deadline).map(Note::Claim)),
            Saying::Words { from, session, words } => {
                notes.extend(words.iter().map(|word| word.note(from.client(), session)));
            }
            Saying::Release(Ended { client, session, .. }) => {
                notes.push(Note::Release { client: client.clone(), session: session.clone() });
            }
        }
    }
}

fn client_of(item: &Item) -> Option<&ClientId> {
    match item {
        Item::Claim(connection, _) | Item::Words(connection) => Some(connection.client()),
        Item::LastWords(ended, _) | Item::Release(ended) => Some(&ended.client),
        Item::Gathering | Item::Stop(_) => None,
    }
}

/// What an item has to say to the store, if it still has.
fn saying(item: Item) -> Option<Saying> {
    if !still_makes_sense(&item) {
        return None;
    }
    match item {
        Item::Claim(connection, deadline) => Some(Saying::Claim(connection, deadline)),
        Item::Words(connection) => {
            let (session, words) = connection.take_words()?;
            Some(Saying::Words { from: Speaker::Connected(connection), session, words })
        }
        Item::LastWords(ended, mut rest) => {
            let (session, words) = (ended.session.clone(), rest.take_next());
            Some(Saying::Words { from: Speaker::Ended(ended, rest), session, words })
        }
        Item::Release(ended) => Some(Saying::Release(ended)),
        Item::Gathering | Item::Stop(_) => None,
    }
}
