//! Who waits for which acknowledgement (`?wait`), and the thread body of `timer` that ends it.
//!
//! A wait costs no thread: it is parked here with its answer. Word of the end comes from this
//! node's bookkeeper or, through the bus, from the node that holds the client. Such word only makes
//! it quick: the inbox is asked once after parking and again at the deadline, and that counts.

use crate::bus::{Bus, Subscription};
use crate::doorbell::topic;
use crate::inbox::{Inbox, Query, Status, Which};
use crate::payment::{ClientId, Seq};
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The timer looks up at least this often.
const LONGEST_NAP: Duration = Duration::from_secs(1);
/// How soon the inbox is asked again that did not answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Hears the present status: acknowledged, or still accepted when the time is over.
type Hear = Box<dyn FnOnce(Status) + Send>;

struct Wait {
    client: ClientId,
    seq: Seq,
    deadline: Instant,
    hear: Hear,
    word: Subscription,
    /// When the inbox is to be asked next, before the deadline.
    ask_at: Option<Instant>,
}

impl Wait {
    fn is_due(&self, now: Instant) -> bool {
        self.deadline <= now || self.ask_at.is_some_and(|at| at <= now)
    }

    fn next_look(&self) -> Instant {
        self.ask_at.map_or(self.deadline, |at| at.min(self.deadline))
    }
}

/// All that wait on this node.
pub(crate) struct Receipts {
    bus: Bus,
    waits: Mutex<Waits>,
    changed: Condvar,
    /// How many there are, to be looked at without the lock.
    count: AtomicUsize,
    me: Weak<Receipts>,
}

#[derive(Default)]
struct Waits {
    next: u64,
    by_number: HashMap<u64, Wait>,
    by_client: HashMap<ClientId, Vec<u64>>,
    stopped: bool,
}

impl Receipts {
    pub(crate) fn new(bus: Bus) -> Arc<Receipts> {
        Arc::new_cyclic(|me| Receipts {
            bus,
            waits: Mutex::default(),
            changed: Condvar::new(),
            count: AtomicUsize::new(0),
            me: me.clone(),
        })
    }

    /// Parks a wait. `hear` is called exactly once, from whichever thread learns of the end.
    pub(crate) fn park(&self, client: ClientId, seq: Seq, deadline: Instant, hear: Hear) {
        let me = self.me.clone();
        let whose = client.clone();
        let word = self.bus.once(&topic::receipt(&client, seq), move |event| {
            if let (crate::bus::Event::Message(_), Some(receipts)) = (event, me.upgrade()) {
                receipts.acknowledged(&whose, seq);
            }
        });
        let mut waits = self.waits.lock();
        if waits.stopped {
            drop(waits);
            self.bus.off(word);
            return hear(Status::Accepted);
        }
        let number = waits.next;
        waits.next += 1;
        waits.by_client.entry(client.clone()).or_default().push(number);
        waits.by_number.insert(number, Wait { client, seq, deadline, hear, word, ask_at: Some(Instant::now()) });
        self.count.store(waits.by_number.len(), Ordering::Release);
        drop(waits);
        self.changed.notify_one();
    }

    /// Everything of a client up to `acked` is acknowledged.
    pub(crate) fn acknowledged(&self, client: &ClientId, acked: Seq) {
        // Nobody waits, nearly always. One that parks just now asks the inbox after it.
        if self.count.load(Ordering::Acquire) > 0 {
            self.end(Status::Acknowledged, |wait| wait.client == *client && wait.seq <= acked, Some(client));
        }
    }

    /// Takes out the waits that are over and tells them, without the lock.
    fn end(&self, status: Status, over: impl Fn(&Wait) -> bool, of: Option<&ClientId>) {
        let mut waits = self.waits.lock();
        let numbers: Vec<u64> = match of {
            Some(client) => waits.by_client.get(client).cloned().unwrap_or_default(),
            None => waits.by_number.keys().copied().collect(),
        };
        let mut ended = Vec::new();
        for number in numbers {
            if waits.by_number.get(&number).is_some_and(&over) {
                ended.extend(waits.remove(number));
            }
        }
        self.count.store(waits.by_number.len(), Ordering::Release);
        drop(waits);
        for wait in ended {
            self.bus.off(wait.word);
            (wait.hear)(status);
        }
    }

    /// The thread body of `timer`: until [`Receipts::stop`].
    pub(crate) fn run(&self, inbox: &dyn Inbox) {
        loop {
            let now = Instant::now();
            let mut waits = self.waits.lock();
            if waits.stopped {
                return;
            }
            let due: Vec<(u64, Query)> = waits
                .by_number
                .iter_mut()
                .filter(|(_, wait)| wait.is_due(now))
                .map(|(number, wait)| {
                    wait.ask_at = None;
                    (*number, Query { client: wait.client.clone(), which: Which::Seq(wait.seq) })
                })
                .collect();
            if due.is_empty() {
                let next = waits.by_number.values().map(Wait::next_look).min();
                let until = next.map_or(now + LONGEST_NAP, |next| next.min(now + LONGEST_NAP));
                self.changed.wait_until(&mut waits, until);
                continue;
            }
            drop(waits);
            self.ask(inbox, &due, now);
        }
    }

    fn ask(&self, inbox: &dyn Inbox, due: &[(u64, Query)], now: Instant) {
        let queries: Vec<Query> = due.iter().map(|(_, query)| query.clone()).collect();
        for ((number, _), found) in due.iter().zip(inbox.look_up(&queries)) {
            let acknowledged = matches!(&found, Ok(Some(found)) if found.status == Status::Acknowledged);
            let mut waits = self.waits.lock();
            if let (Err(_), Some(wait)) = (&found, waits.by_number.get_mut(number)) {
                wait.ask_at = Some(now + ASK_AGAIN);
            }
            let over = waits.by_number.get(number).is_some_and(|wait| acknowledged || wait.deadline <= now);
            let wait = if over { waits.remove(*number) } else { None };
            self.count.store(waits.by_number.len(), Ordering::Release);
            drop(waits);
            if let Some(wait) = wait {
                self.bus.off(wait.word);
                (wait.hear)(if acknowledged { Status::Acknowledged } else { Status::Accepted });
            }
        }
    }

    /// The line to other nodes was lost for a while: word may be lost, so the inbox is asked.
    pub(crate) fn ask_again(&self) {
        let now = Instant::now();
        self.waits.lock().by_number.values_mut().for_each(|wait| wait.ask_at = Some(now));
        self.changed.notify_one();
    }

    /// A client's numbers may be given again to other payments: nobody must hear of those.
    pub(crate) fn abandon(&self, client: &ClientId) {
        if self.count.load(Ordering::Acquire) > 0 {
            self.end(Status::Accepted, |wait| wait.client == *client, Some(client));
        }
    }

    /// The node stops: whoever waits hears how it is now, and nobody waits any more.
    pub(crate) fn stop(&self) {
        self.waits.lock().stopped = true;
        self.changed.notify_one();
        self.end(Status::Accepted, |_| true, None);
    }
}

impl Waits {
    fn remove(&mut self, number: u64) -> Option<Wait> {
        let wait = self.by_number.remove(&number)?;
        if let Some(numbers) = self.by_client.get_mut(&wait.client) {
            numbers.retain(|n| *n != number);
            if numbers.is_empty() {
                self.by_client.remove(&wait.client);
            }
        }
        Some(wait)
    }
}
