//! The embedded home's promises, over a temporary directory and a clock that the test sets.
//!
//! Each file has one of them; here is the home, and what can be asked of it.

mod accepting;
mod answers;
mod faults;
mod looking;
mod opening;
mod owners;
mod retiring;

use super::*;
use crate::inbox::{Accepted, Booked, Claim, Claimed, Done, Slice, Status, Stored, Token, Which};
use crate::payment::{Channel, Content, Mark, Payment, PaymentId, Seq};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

const BEGIN: u64 = 1_732_330_000_000;
const SECOND: Duration = Duration::from_secs(1);

/// A directory of the test's own, gone with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("payrelay-disk-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        Dir(std::env::temp_dir().join(name))
    }

    fn open(&self) -> Home {
        self.open_with(100_000)
    }

    fn open_with(&self, inbox_limit: u64) -> Home {
        let clock = Arc::new(AtomicU64::new(BEGIN));
        let free = Arc::new(AtomicU64::new(u64::MAX));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (now, left, ring) = (clock.clone(), free.clone(), heard.clone());
        let world = World {
            now: Box::new(move || now.load(Ordering::Relaxed)),
            free_bytes: Box::new(move || Some(left.load(Ordering::Relaxed))),
        };
        let ring = move |hint: Hint| {
            if let Hint::Bells(bells) = hint {
                let bells = bells.iter().map(|bell| format!("bell {} {}", bell.client, bell.entry.mark.seq));
                ring.lock().extend(bells);
            }
        };
        let inbox = DiskInbox::open_in(world, &self.0, options(inbox_limit), Box::new(ring), fail_loudly());
        Home { inbox: inbox.expect("opens"), clock, free, heard }
    }

    fn refusal(&self) -> OpenError {
        let opened = DiskInbox::open(&self.0, options(1), Box::new(|_| ()), fail_loudly());
        opened.err().expect("is refused")
    }

    fn file(&self) -> PathBuf {
        self.0.join("inbox.redb")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0).or_else(|_| std::fs::remove_file(&self.0));
    }
}

fn options(inbox_limit: u64) -> DiskOptions {
    DiskOptions { inbox_limit, dedup_window: SECOND, node: "n1".into() }
}

fn fail_loudly() -> Box<dyn Fn(String) + Send + Sync> {
    Box::new(|why| panic!("the disk failed: {why}"))
}

struct Home {
    inbox: DiskInbox,
    clock: Arc<AtomicU64>,
    free: Arc<AtomicU64>,
    /// Bells and answers, in the order in which they came.
    heard: Arc<Mutex<Vec<String>>>,
}

impl Deref for Home {
    type Target = DiskInbox;

    fn deref(&self) -> &DiskInbox {
        &self.inbox
    }
}

impl Home {
    fn at(&self, ms: u64) {
        self.clock.store(BEGIN + ms, Ordering::Relaxed);
    }

    fn claim(&self, name: &str) -> Claimed {
        match self.book(&[claim(name)]).remove(0) {
            Ok(Booked::Claimed(claimed)) => claimed,
            other => panic!("not claimed: {other:?}"),
        }
    }

    fn ack(&self, name: &str, session: &Session, mark: Mark) -> Result<Booked, Error> {
        self.book(&[Note::Ack { client: client(name), session: session.clone(), mark }]).remove(0)
    }

    fn release(&self, name: &str, session: &Session) -> Result<Booked, Error> {
        self.book(&[Note::Release { client: client(name), session: session.clone() }]).remove(0)
    }

    fn read_after(&self, name: &str, session: &Session, after: Mark, payments: usize) -> Result<Reading, Error> {
        let (client, session) = (client(name), session.clone());
        self.read(&[Ask { client, session, after, payments, bytes: usize::MAX }]).remove(0)
    }

    fn record_of(&self, name: &str) -> Option<Record> {
        self.records(&[client(name)]).remove(0).expect("a word")
    }

    fn find(&self, name: &str, which: Which) -> Option<Found> {
        self.look_up(&[Query { client: client(name), which }]).remove(0).expect("a word")
    }

    fn find_id(&self, name: &str, id: &str) -> Option<Found> {
        self.find(name, Which::PaymentId(PaymentId::parse(id).expect("an id")))
    }
}

fn client(name: &str) -> ClientId {
    ClientId::parse(name).expect("a client id")
}

fn claim(name: &str) -> Note {
    let deadline = Instant::now() + 20 * SECOND;
    Note::Claim(Claim { client: client(name), token: Token::random(), address: "10.0.0.7:51312".into(), deadline })
}

fn payment(name: &str, id: Option<&str>, msg: &str) -> Payment {
    let id = id.map(|id| PaymentId::parse(id).expect("an id"));
    Payment::new(client(name), id, &Channel::default(), &Content::json_text(msg.as_bytes()).expect("JSON"))
}

fn deposit(payment: Payment, done: impl FnOnce(Result<Accepted, Error>) + Send + 'static) -> Deposit {
    Deposit { payment, receipt: false, deadline: Instant::now() + 20 * SECOND, done: Done::new(done) }
}

/// Posts a payment and waits for its answer.
fn post(inbox: &DiskInbox, name: &str, id: Option<&str>, msg: &str) -> Result<Accepted, Error> {
    let (tx, rx) = mpsc::channel();
    inbox.accept(deposit(payment(name, id, msg), move |result| tx.send(result).expect("the test waits")));
    rx.recv_timeout(20 * SECOND).expect("an answer")
}

fn mark_of(result: Result<Accepted, Error>) -> Mark {
    result.expect("accepted").mark
}

fn marks(reading: Result<Reading, Error>) -> Vec<Mark> {
    match reading {
        Ok(Reading::Slice(Slice { entries, .. })) => entries.iter().map(|entry| entry.mark).collect(),
        other => panic!("no slice: {other:?}"),
    }
}

fn mark(seq: u64, ms: u64) -> Mark {
    Mark { seq: Seq(seq), accepted_at: BEGIN + ms }
}
