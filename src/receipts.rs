//! Who waits for the end of which payment (`?wait`), and the thread body of `timer` that ends it.
//!
//! A wait costs no thread: it is parked here with its answer. Word of the end comes from this
//! node's bookkeeper or, through the bus, from the node that holds the client. Such word only makes
//! it quick: the inbox is asked once after parking, again at the deadline, and between them where it may know more than we
//! were told; and that counts.

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
/// How soon the inbox is asked again that did not answer, or of whose word nothing is known to come.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Hears the present status: acknowledged or dead, or still accepted when the time is over.
type Hear = Box<dyn FnOnce(Status) + Send>;

struct Wait {
    client: ClientId,
    seq: Seq,
    deadline: Instant,
    hear: Hear,
    word: Subscription,
    /// When the inbox is to be asked next, before the deadline.
    ask_at: Option<Instant>,
    /// The store does not know of it, so word may never come: the inbox is asked now and then.
    is_untold: bool,
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
    /// Told of a client one of whose payments somebody now waits for.
    awaited: Box<dyn Fn(&ClientId) + Send + Sync>,
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
    pub(crate) fn new(bus: Bus, awaited: impl Fn(&ClientId) + Send + Sync + 'static) -> Arc<Receipts> {
        Arc::new_cyclic(|me| Receipts {
            bus,
            waits: Mutex::default(),
            changed: Condvar::new(),
            count: AtomicUsize::new(0),
            awaited: Box::new(awaited),
            me: me.clone(),
        })
    }

    /// Parks a wait. `hear` is called exactly once, from whichever thread learns of the end.
    pub(crate) fn park(&self, client: ClientId, seq: Seq, deadline: Instant, hear: Hear) {
        self.park_one(client, seq, deadline, hear, false);
    }

    /// The same for a payment whose store was not told that somebody waits.
    pub(crate) fn park_untold(&self, client: ClientId, seq: Seq, deadline: Instant, hear: Hear) {
        self.park_one(client, seq, deadline, hear, true);
    }

    fn park_one(&self, client: ClientId, seq: Seq, deadline: Instant, hear: Hear, is_untold: bool) {
        let me = self.me.clone();
        let whose = client.clone();
        let word = self.bus.once(&topic::receipt(&client, seq), move |event| {
            if let (crate::bus::Event::Message(message), Some(receipts)) = (event, me.upgrade()) {
                // Of a dead letter the status is said, of an acknowledgement up to where it reached.
                let status = std::str::from_utf8(message.bytes).ok().and_then(Status::parse);
                receipts.ended(&whose, seq, status.unwrap_or(Status::Acknowledged));
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
        let ask_at = Some(Instant::now());
        let whose = client.clone();
        waits.by_number.insert(number, Wait { client, seq, deadline, hear, word, ask_at, is_untold });
        self.count.store(waits.by_number.len(), Ordering::Release);
        drop(waits);
        (self.awaited)(&whose);
        self.changed.notify_one();
    }

    /// Whether a sender of this node waits for one of a client's payments.
    pub(crate) fn is_awaited(&self, client: &ClientId) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.waits.lock().by_client.contains_key(client)
    }

    /// Everything of a client up to `acked` is acknowledged.
    pub(crate) fn acknowledged(&self, client: &ClientId, acked: Seq) {
        // Nobody waits, nearly always. One that parks just now asks the inbox after it.
        if self.count.load(Ordering::Acquire) > 0 {
            self.end(Status::Acknowledged, |wait| wait.client == *client && wait.seq <= acked, Some(client));
        }
    }

    /// One payment came to its end.
    pub(crate) fn ended(&self, client: &ClientId, seq: Seq, status: Status) {
        if self.count.load(Ordering::Acquire) > 0 {
            self.end(status, |wait| wait.client == *client && wait.seq == seq, Some(client));
        }
    }

    /// A client's payments up to a seq have left the inbox, but not all need be acknowledged: the inbox is asked.
    pub(crate) fn look(&self, client: &ClientId, upto: Seq) {
        if self.count.load(Ordering::Acquire) > 0 {
            let now = Instant::now();
            let mut waits = self.waits.lock();
            let over = waits.by_number.values_mut().filter(|wait| wait.client == *client && wait.seq <= upto);
            over.for_each(|wait| wait.ask_at = Some(now));
            drop(waits);
            self.changed.notify_one();
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
            let ask_in = match &found {
                Err(_) => Some(ASK_AGAIN),
                // Nobody need look at it when it is due, but who waits hears of it in time.
                Ok(Some(found)) => found.due_in.map(|due_in| due_in.max(ASK_AGAIN)),
                Ok(None) => None,
            };
            let status = found.ok().flatten().map_or(Status::Accepted, |found| found.status);
            let ended = status != Status::Accepted;
            let mut waits = self.waits.lock();
            if let Some(wait) = waits.by_number.get_mut(number)
                && let Some(ask_in) = ask_in.or(wait.is_untold.then_some(ASK_AGAIN))
            {
                wait.ask_at = Some(wait.ask_at.unwrap_or(now + ask_in).min(now + ask_in));
            }
            let over = waits.by_number.get(number).is_some_and(|wait| ended || wait.deadline <= now);
            let wait = if over { waits.remove(*number) } else { None };
            self.count.store(waits.by_number.len(), Ordering::Release);
            drop(waits);
            if let Some(wait) = wait {
                self.bus.off(wait.word);
                (wait.hear)(status);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::To;
    use crate::inbox::disk::{DiskInbox, DiskOptions};
    use crate::inbox::{Booked, Claim, Deposit, Done, Note, Token};
    use crate::payment::{Channel, Content, Mark, Payment};
    use std::path::PathBuf;
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
    use std::thread::{self, JoinHandle};

    const LONG: Duration = Duration::from_secs(30);

    /// Receipts with their timer, over an inbox in a directory of its own.
    struct Desk {
        bus: Bus,
        receipts: Arc<Receipts>,
        inbox: Arc<DiskInbox>,
        timer: Option<JoinHandle<()>>,
        dir: PathBuf,
    }

    impl Desk {
        fn open() -> Desk {
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let name = format!("payrelay-receipts-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
            let dir = std::env::temp_dir().join(name);
            let options = DiskOptions { inbox_limit: 100, dedup_window: LONG, node: "n1".into() };
            let fatal = Box::new(|why| panic!("the disk failed: {why}"));
            let inbox = Arc::new(DiskInbox::open(&dir, options, Box::new(|_| ()), fatal).expect("opens"));
            let bus = Bus::local("n1");
            let receipts = Receipts::new(bus.clone(), |_| {});
            let (running, asked) = (Arc::clone(&receipts), Arc::clone(&inbox));
            let timer = Some(thread::spawn(move || running.run(&*asked)));
            Desk { bus, receipts, inbox, timer, dir }
        }

        /// Stores a payment for client 01.
        fn post(&self) -> Mark {
            let (tx, rx) = mpsc::channel();
            let content = Content::json_text(b"1").expect("JSON");
            let payment = Payment::new(client("01"), None, &Channel::default(), &content);
            let done = Done::new(move |result| drop(tx.send(result)));
            self.inbox.accept(Deposit { payment, receipt: true, deadline: Instant::now() + LONG, done });
            rx.recv_timeout(LONG).expect("an answer").expect("accepted").mark
        }

        /// Acknowledges in the inbox, and tells nobody.
        fn acknowledge(&self, mark: Mark) {
            let (client, token, deadline) = (client("01"), Token::random(), Instant::now() + LONG);
            let claim = Claim { client: client.clone(), token, address: String::new(), deadline };
            let booked = self.inbox.book(&[Note::Claim(claim)]).remove(0);
            let Ok(Booked::Claimed(claimed)) = booked else { panic!("not claimed: {booked:?}") };
            let ack = Note::Ack { client: client.clone(), session: claimed.session.clone(), mark };
            let booked = self.inbox.book(&[ack, Note::Release { client, session: claimed.session }]);
            assert_eq!(booked[0], Ok(Booked::Acknowledged(mark.seq)));
        }

        /// Waits for a payment of client 01, as long as `limit`.
        fn park(&self, seq: u64, limit: Duration) -> Receiver<Status> {
            let (tx, rx) = mpsc::channel();
            let hear = Box::new(move |status| {
                let _ = tx.send(status);
            });
            self.receipts.park(client("01"), Seq(seq), Instant::now() + limit, hear);
            rx
        }

        /// Waits until the timer has asked the inbox about all that are parked, and went to sleep again.
        fn expect_asked(&self) {
            let deadline = Instant::now() + LONG;
            while !self.receipts.waits.lock().by_number.values().all(|wait| wait.ask_at.is_none()) {
                assert!(Instant::now() < deadline, "the inbox is not asked");
                thread::sleep(Duration::from_millis(2));
            }
        }

        /// Nothing is kept of those that were answered.
        fn expect_nobody_waits(&self) {
            let waits = self.receipts.waits.lock();
            assert!(waits.by_number.is_empty() && waits.by_client.is_empty());
            assert_eq!(self.receipts.count.load(Ordering::Acquire), 0);
        }
    }

    impl Drop for Desk {
        fn drop(&mut self) {
            self.receipts.stop();
            if let Some(timer) = self.timer.take() {
                let ended = timer.join();
                assert!(ended.is_ok() || thread::panicking(), "the timer ends in order");
            }
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    fn client(id: &str) -> ClientId {
        ClientId::parse(id).expect("a client id")
    }

    /// The one answer; whoever would give a second one is gone with it.
    #[track_caller]
    fn only_answer(rx: &Receiver<Status>) -> Status {
        let status = rx.recv_timeout(LONG).expect("an answer");
        assert_eq!(rx.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected), "one answer");
        status
    }

    #[test]
    fn what_was_acknowledged_before_it_was_waited_for_is_found_in_the_inbox() {
        let desk = Desk::open();
        desk.acknowledge(desk.post());
        assert_eq!(only_answer(&desk.park(1, 10 * LONG)), Status::Acknowledged);
        desk.expect_nobody_waits();
    }

    #[test]
    fn word_of_an_acknowledgement_ends_the_waits_up_to_it() {
        let desk = Desk::open();
        let waits: Vec<_> = (1..=3).map(|seq| desk.park(seq, 10 * LONG)).collect();
        desk.receipts.acknowledged(&client("02"), Seq(3));
        desk.receipts.acknowledged(&client("01"), Seq(2));
        assert_eq!(only_answer(&waits[0]), Status::Acknowledged);
        assert_eq!(only_answer(&waits[1]), Status::Acknowledged);
        assert_eq!(waits[2].try_recv(), Err(mpsc::TryRecvError::Empty));
        desk.receipts.acknowledged(&client("01"), Seq(9));
        assert_eq!(only_answer(&waits[2]), Status::Acknowledged);
        desk.expect_nobody_waits();
    }

    #[test]
    fn word_from_another_node_comes_by_the_bus() {
        let desk = Desk::open();
        let waits = [desk.park(1, 10 * LONG), desk.park(2, 10 * LONG)];
        desk.bus.emit(To::Node("n1"), &topic::receipt(&client("01"), Seq(1)), b"1").expect("within the process");
        assert_eq!(only_answer(&waits[0]), Status::Acknowledged);
        assert_eq!(waits[1].try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    #[test]
    fn two_waits_on_one_payment_both_hear() {
        let desk = Desk::open();
        let by_word = [desk.park(1, 10 * LONG), desk.park(1, 10 * LONG)];
        desk.receipts.acknowledged(&client("01"), Seq(1));
        by_word.iter().for_each(|wait| assert_eq!(only_answer(wait), Status::Acknowledged));
        let by_bus = [desk.park(2, 10 * LONG), desk.park(2, 10 * LONG)];
        desk.bus.emit(To::All, &topic::receipt(&client("01"), Seq(2)), b"2").expect("within the process");
        by_bus.iter().for_each(|wait| assert_eq!(only_answer(wait), Status::Acknowledged));
        let by_time = [desk.park(3, Duration::from_millis(20)), desk.park(3, Duration::from_millis(40))];
        by_time.iter().for_each(|wait| assert_eq!(only_answer(wait), Status::Accepted));
        desk.expect_nobody_waits();
    }

    #[test]
    fn a_deadline_answers_once_and_later_word_changes_nothing() {
        let desk = Desk::open();
        let started = Instant::now();
        let wait = desk.park(1, Duration::from_millis(50));
        assert_eq!(only_answer(&wait), Status::Accepted);
        assert!(started.elapsed() >= Duration::from_millis(50), "not before its time");
        desk.receipts.acknowledged(&client("01"), Seq(1));
        desk.bus.emit(To::All, &topic::receipt(&client("01"), Seq(1)), b"1").expect("within the process");
        desk.expect_nobody_waits();
    }

    #[test]
    fn at_the_deadline_the_inbox_has_the_last_word() {
        let desk = Desk::open();
        let mark = desk.post();
        let wait = desk.park(1, Duration::from_millis(500));
        desk.expect_asked();
        // Word of it gets lost.
        desk.acknowledge(mark);
        assert_eq!(only_answer(&wait), Status::Acknowledged);
    }

    #[test]
    fn where_no_word_need_come_the_inbox_is_asked_now_and_then() {
        let desk = Desk::open();
        let mark = desk.post();
        let (tx, rx) = mpsc::channel();
        let hear = Box::new(move |status| {
            let _ = tx.send(status);
        });
        desk.receipts.park_untold(client("01"), mark.seq, Instant::now() + 10 * LONG, hear);
        assert_eq!(rx.recv_timeout(2 * ASK_AGAIN), Err(RecvTimeoutError::Timeout));
        desk.acknowledge(mark);
        assert_eq!(only_answer(&rx), Status::Acknowledged);
        desk.expect_nobody_waits();
    }

    #[test]
    fn after_a_lost_line_the_inbox_is_asked_again() {
        let desk = Desk::open();
        let mark = desk.post();
        let wait = desk.park(1, 10 * LONG);
        desk.expect_asked();
        desk.acknowledge(mark);
        desk.receipts.ask_again();
        assert_eq!(only_answer(&wait), Status::Acknowledged);
    }

    #[test]
    fn a_stop_answers_all_and_nobody_waits_after_it() {
        let desk = Desk::open();
        let waits: Vec<_> = (1..=5).map(|seq| desk.park(seq, 10 * LONG)).collect();
        desk.receipts.stop();
        waits.iter().for_each(|wait| assert_eq!(only_answer(wait), Status::Accepted));
        assert_eq!(only_answer(&desk.park(6, 10 * LONG)), Status::Accepted);
        desk.receipts.stop();
        desk.expect_nobody_waits();
    }
}
