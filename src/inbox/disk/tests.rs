//! The embedded home's promises, over a temporary directory and a clock that the test sets.

use super::tables::{IDS, STATES};
use super::*;
use crate::inbox::{Accepted, Booked, Claim, Claimed, Done, Slice, Status, Stored, Token, Which};
use crate::payment::{Channel, Content, Mark, Payment, PaymentId, Seq};
use redb::backends::InMemoryBackend;
use redb::{BackendError, ReadableTableMetadata, StorageBackend, TableDefinition};
use std::error::Error as _;
use std::io;
use std::ops::{Bound, Deref};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

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

#[test]
fn seqs_have_no_gaps_and_accepted_at_stays_over_a_restart() {
    let dir = Dir::new();
    let home = dir.open();
    assert_eq!(mark_of(post(&home, "01", None, "1")), mark(1, 0));
    home.at(5);
    assert_eq!(mark_of(post(&home, "01", None, "2")), mark(2, 5));
    let epoch = home.claim("01").session.epoch;
    drop(home);

    let home = dir.open();
    // The clock went back: what comes later never seems older.
    assert_eq!(mark_of(post(&home, "01", None, "3")), mark(3, 5));
    let claimed = home.claim("01");
    assert_eq!((claimed.session.epoch, claimed.pending, claimed.last), (epoch, 3, mark(3, 5)));
    let read = home.read_after("01", &claimed.session, claimed.acked, 10);
    assert_eq!(marks(read), [mark(1, 0), mark(2, 5), mark(3, 5)]);
}

#[test]
fn a_payment_id_is_stored_once_until_its_window_ends() {
    let dir = Dir::new();
    let home = dir.open();
    let first = post(&home, "01", Some("wx-1"), "1").expect("accepted");
    assert!(!first.duplicate);
    home.at(999);
    let again = post(&home, "01", Some("wx-1"), "1").expect("known");
    assert_eq!((again.mark, again.duplicate, again.status), (first.mark, true, Status::Accepted));
    assert_eq!(post(&home, "01", Some("wx-1"), "2"), Err(Error::IdReused));
    assert_eq!(mark_of(post(&home, "02", Some("wx-1"), "2")).seq, Seq(1));

    let session = home.claim("01").session;
    assert_eq!(home.ack("01", &session, first.mark), Ok(Booked::Acknowledged(Seq(1))));
    assert_eq!(post(&home, "01", Some("wx-1"), "1").expect("known").status, Status::Acknowledged);
    drop(home);

    let home = dir.open();
    assert_eq!(home.find_id("01", "wx-1").expect("known").status, Status::Acknowledged);
    home.at(1_000);
    assert_eq!(home.find_id("01", "wx-1"), None);
    let anew = post(&home, "01", Some("wx-1"), "2").expect("accepted");
    assert_eq!((anew.mark, anew.duplicate), (mark(2, 1_000), false));
}

#[test]
fn expired_payment_ids_leave_the_file_in_small_steps() {
    let dir = Dir::new();
    let home = dir.open();
    (0..200).for_each(|n| assert!(post(&home, "01", Some(&format!("wx-{n}")), "1").is_ok()));
    let rows = |home: &Home| {
        let at = home.file().expect("open").begin_read().expect("reads");
        let (ids, expiries) =
            (at.open_table(IDS).expect("is there"), at.open_table(tables::EXPIRIES).expect("is there"));
        (ids.len().expect("reads"), expiries.len().expect("reads"))
    };
    home.at(1_000);
    // Used anew before its old row is removed: the new one stays.
    assert!(!post(&home, "01", Some("wx-199"), "1").expect("accepted").duplicate);
    assert!(rows(&home).0 >= 135);
    (0..3).for_each(|_| assert!(post(&home, "01", None, "1").is_ok()));
    assert_eq!(rows(&home), (1, 1));
    assert!(post(&home, "01", Some("wx-199"), "1").expect("known").duplicate);
}

#[test]
fn the_inbox_limit_is_exact_for_many_threads() {
    let dir = Dir::new();
    let home = dir.open_with(50);
    let full = AtomicU64::new(0);
    thread::scope(|scope| {
        let committer = scope.spawn(|| home.commit());
        let senders: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..10 {
                        match post(&home, "01", None, "1") {
                            Ok(_) => {}
                            Err(error) => {
                                assert_eq!(error, Error::InboxFull);
                                full.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
        home.close();
        committer.join().expect("no panic");
    });
    assert_eq!(full.into_inner(), 30);
    assert_eq!(home.record_of("01").expect("known").pending, 50);
}

#[test]
fn a_full_inbox_still_names_the_first_of_a_repeat_and_takes_more_after_an_ack() {
    let dir = Dir::new();
    let home = dir.open_with(1);
    let first = mark_of(post(&home, "01", Some("wx-1"), "1"));
    assert_eq!(post(&home, "01", Some("wx-2"), "1"), Err(Error::InboxFull));
    assert!(post(&home, "01", Some("wx-1"), "1").expect("known").duplicate);
    assert_eq!(home.find_id("01", "wx-2"), None);
    let session = home.claim("01").session;
    home.ack("01", &session, first).expect("acknowledged");
    assert_eq!(mark_of(post(&home, "01", Some("wx-2"), "1")).seq, Seq(2));
}

#[test]
fn a_full_disk_refuses_payments_but_not_claims_and_acks() {
    let dir = Dir::new();
    let home = dir.open();
    let first = mark_of(post(&home, "01", None, "1"));
    home.free.store(KEEP_FREE_BYTES - 1, Ordering::Relaxed);
    assert_eq!(post(&home, "01", None, "2"), Err(Error::StoreFull));
    assert!(home.health().ready.is_err());
    let session = home.claim("01").session;
    assert_eq!(home.ack("01", &session, first), Ok(Booked::Acknowledged(Seq(1))));
    home.free.store(KEEP_FREE_BYTES, Ordering::Relaxed);
    assert_eq!(mark_of(post(&home, "01", None, "2")).seq, Seq(2));
    assert_eq!(home.health().ready, Ok(()));
}

#[test]
fn acks_only_rise_and_only_the_owners_count() {
    let dir = Dir::new();
    let home = dir.open();
    let sent: Vec<Mark> = (0..3).map(|_| mark_of(post(&home, "01", None, "1"))).collect();
    let session = home.claim("01").session;
    let stranger = Session { token: Token::random(), ..session.clone() };
    assert_eq!(home.ack("01", &stranger, sent[2]), Ok(Booked::Replaced));
    assert_eq!(home.ack("01", &session, sent[1]), Ok(Booked::Acknowledged(Seq(2))));
    assert_eq!(home.ack("01", &session, sent[0]), Ok(Booked::Acknowledged(Seq(2))));
    assert_eq!(home.ack("01", &session, mark(4, 0)), Ok(Booked::RolledBack));
    assert_eq!(home.ack("01", &session, mark(3, 1)), Ok(Booked::RolledBack));
    let record = home.record_of("01").expect("known");
    assert_eq!((record.acked, record.pending, record.oldest_pending_at), (Seq(2), 1, Some(BEGIN)));
    assert_eq!(marks(home.read_after("01", &session, Mark::default(), 10)), [sent[2]]);
}

#[test]
fn bells_ring_before_the_answers_and_only_for_who_is_connected() {
    let dir = Dir::new();
    let home = dir.open();
    home.claim("on");
    let send = |name: &str| {
        let heard = home.heard.clone();
        let done = move |result: Result<Accepted, Error>| {
            let accepted = result.expect("accepted");
            heard.lock().push(format!("answer {} {}", accepted.online, accepted.mark.seq));
        };
        let pending = Pending::new(deposit(payment(name, None, "1"), done));
        DiskJob::Deposit { pending, answer: None }
    };
    home.run(vec![send("on"), send("off"), send("on")]);
    assert_eq!(*home.heard.lock(), ["bell on 1", "bell on 2", "answer true 1", "answer false 1", "answer true 2"]);
}

#[test]
fn a_bell_names_the_payment_before() {
    let dir = Dir::new();
    let bells = Arc::new(Mutex::new(Vec::new()));
    let ring = bells.clone();
    let ring = Box::new(move |hint: Hint| {
        if let Hint::Bells(bells) = hint {
            ring.lock().extend(bells.iter().map(|bell| bell.previous()));
        }
    });
    let inbox = DiskInbox::open(&dir.0, options(10), ring, fail_loudly()).expect("opens");
    inbox.book(&[claim("01")]).remove(0).expect("claimed");
    let first = mark_of(post(&inbox, "01", None, "1"));
    post(&inbox, "01", None, "2").expect("accepted");
    assert_eq!(*bells.lock(), [Mark::default(), first]);
}

#[test]
fn the_newest_session_owns_the_inbox_and_its_end_is_its_own() {
    let dir = Dir::new();
    let home = dir.open();
    let old = home.claim("01").session;
    let Ok(Booked::TooSoon(wait)) = home.book(&[claim("01")]).remove(0) else { panic!("changed hands at once") };
    assert!(wait <= Duration::from_millis(100));
    assert_eq!(home.read_after("01", &old, Mark::default(), 0), Ok(slice_of_none()));
    thread::sleep(wait);
    let new = home.claim("01").session;
    assert!(new.number > old.number);
    assert_eq!(home.read_after("01", &old, Mark::default(), 0), Ok(Reading::Replaced));
    assert_eq!(home.release("01", &old), Ok(Booked::Replaced));
    assert!(home.record_of("01").expect("known").owner.is_some());
    assert_eq!(home.release("01", &new), Ok(Booked::Released));
    assert_eq!(home.record_of("01").expect("known").owner, None);
    // Nobody holds it: no wait.
    home.claim("01");
}

fn slice_of_none() -> Reading {
    Reading::Slice(Slice { entries: Vec::new(), upto: Mark::default(), acked: Seq(0), last: Mark::default() })
}

#[test]
fn a_claim_past_its_deadline_changes_nothing() {
    let dir = Dir::new();
    let home = dir.open();
    let Note::Claim(late) = claim("01") else { unreachable!("it is one") };
    let late = Note::Claim(Claim { deadline: Instant::now(), ..late });
    assert_eq!(home.book(&[late]), [Err(Error::away("too late"))]);
    assert_eq!(home.record_of("01"), None);
}

#[test]
fn a_client_is_known_once_it_had_a_payment_or_a_connection() {
    let dir = Dir::new();
    let home = dir.open();
    assert_eq!(home.record_of("01"), None);
    let session = home.claim("01").session;
    let record = home.record_of("01").expect("known");
    assert_eq!((record.last, record.pending, record.oldest_pending_at), (Seq(0), 0, None));
    let owner = record.owner.expect("connected");
    assert_eq!((owner.node.as_str(), owner.since, owner.address.as_str()), ("n1", BEGIN, "10.0.0.7:51312"));
    home.release("01", &session).expect("released");
    drop(home);
    assert!(dir.open().record_of("01").is_some_and(|record| record.owner.is_none()));
}

#[test]
fn a_reading_keeps_its_limits_and_notices_what_never_was() {
    let dir = Dir::new();
    let home = dir.open();
    let sent: Vec<Mark> = (0..4).map(|_| mark_of(post(&home, "01", None, "1"))).collect();
    let session = home.claim("01").session;
    assert_eq!(marks(home.read_after("01", &session, sent[0], 2)), sent[1..3]);
    assert_eq!(marks(home.read_after("01", &session, sent[3], 2)), []);
    assert_eq!(marks(home.read_after("01", &session, Mark::default(), 0)), []);
    let (client, after) = (client("01"), Mark::default());
    let ask = Ask { client, session: session.clone(), after, payments: 9, bytes: 1 };
    assert_eq!(marks(home.read(&[ask]).remove(0)), sent[..1]);
    assert_eq!(home.read_after("01", &session, mark(5, 0), 1), Ok(Reading::RolledBack));
    assert_eq!(home.read_after("01", &session, mark(2, 1), 0), Ok(Reading::RolledBack));
}

#[test]
fn a_payment_is_found_by_number_and_by_id() {
    let dir = Dir::new();
    let home = dir.open();
    let first = mark_of(post(&home, "01", Some("wx-1"), "1"));
    post(&home, "01", None, "1").expect("accepted");
    let found = |seq, status, id: Option<&str>| {
        Some(Found { seq: Seq(seq), status, payment_id: id.map(str::to_owned), due_in: None })
    };
    assert_eq!(home.find("01", Which::Seq(Seq(1))), found(1, Status::Accepted, Some("wx-1")));
    assert_eq!(home.find("01", Which::Seq(Seq(2))), found(2, Status::Accepted, None));
    let session = home.claim("01").session;
    home.ack("01", &session, first).expect("acknowledged");
    assert_eq!(home.find("01", Which::Seq(Seq(1))), found(1, Status::Acknowledged, None));
    assert_eq!(home.find_id("01", "wx-1"), found(1, Status::Acknowledged, Some("wx-1")));
    assert_eq!((home.find("01", Which::Seq(Seq(0))), home.find("01", Which::Seq(Seq(3)))), (None, None));
    assert_eq!((home.find_id("01", "wx-2"), home.find_id("02", "wx-1")), (None, None));
}

#[test]
fn who_has_payments_waiting_is_listed_by_client_id() {
    let dir = Dir::new();
    let home = dir.open();
    for name in ["b", "a", "c"] {
        post(&home, name, None, "1").expect("accepted");
    }
    home.claim("nothing-waits");
    assert_eq!(home.waiting(None, 2), Ok(vec![client("a"), client("b")]));
    let session = home.claim("b").session;
    home.ack("b", &session, mark(1, 0)).expect("acknowledged");
    assert_eq!(home.waiting(None, 9), Ok(vec![client("a"), client("c")]));
    assert_eq!(home.waiting(Some(&client("a")), 9), Ok(vec![client("c")]));
}

#[test]
fn a_retired_client_is_unknown_and_its_next_life_is_newer() {
    let dir = Dir::new();
    let home = dir.open();
    let session = home.claim("01").session;
    post(&home, "01", Some("wx-1"), "1").expect("accepted");
    post(&home, "02", Some("wx-1"), "1").expect("accepted");
    assert_eq!(home.retire(&client("01"), false), Ok(Retired::Pending(1)));
    assert_eq!(home.retire(&client("01"), true), Ok(Retired::Done));
    assert_eq!(home.retire(&client("01"), true), Ok(Retired::Unknown));
    assert_eq!((home.record_of("01"), home.find_id("01", "wx-1")), (None, None));
    assert_eq!(home.ack("01", &session, mark(1, 0)), Ok(Booked::Replaced));
    assert_eq!(home.waiting(None, 9), Ok(vec![client("02")]));

    let anew = post(&home, "01", Some("wx-1"), "2").expect("accepted");
    assert_eq!((anew.mark.seq, anew.duplicate, anew.online), (Seq(1), false, false));
    let claimed = home.claim("01");
    assert!(claimed.session.epoch > session.epoch && claimed.session.number > session.number);
    assert!(post(&home, "02", Some("wx-1"), "1").expect("known").duplicate);
}

#[test]
fn a_retired_clients_payment_ids_go_however_many_there_are() {
    let dir = Dir::new();
    let home = dir.open();
    let drop_it = |_: Result<Accepted, Error>| ();
    for some in 0..21 {
        let one = |n| Pending::new(deposit(payment("01", Some(&format!("wx-{some}-{n}")), "1"), drop_it));
        home.run((0..100).map(|n| DiskJob::Deposit { pending: one(n), answer: None }).collect());
    }
    assert_eq!(home.retire(&client("01"), true), Ok(Retired::Done));
    let at = home.file().expect("open").begin_read().expect("reads");
    for rows in [at.open_table(IDS).expect("is there").len(), at.open_table(tables::ENTRIES).expect("is there").len()] {
        assert_eq!(rows.expect("reads"), 0);
    }
    assert_eq!(at.open_table(tables::EXPIRIES).expect("is there").len().expect("reads"), 0);
}

#[test]
fn what_cannot_be_read_is_one_clients_trouble_and_can_be_discarded() {
    let dir = Dir::new();
    let home = dir.open();
    post(&home, "01", None, "1").expect("accepted");
    post(&home, "02", None, "1").expect("accepted");
    let transaction = home.file().expect("open").begin_write().expect("writes");
    transaction.open_table(STATES).expect("is there").insert("01", &b"1 2 3"[..]).expect("writes");
    transaction.commit().expect("commits");
    assert!(matches!(post(&home, "01", None, "1"), Err(Error::Corrupt(_))));
    assert!(matches!(home.book(&[claim("01"), claim("02")])[..], [Err(Error::Corrupt(_)), Ok(Booked::Claimed(_))]));
    assert!(matches!(home.retire(&client("01"), false), Err(Error::Corrupt(_))));
    assert_eq!(home.retire(&client("01"), true), Ok(Retired::Done));
    assert_eq!(mark_of(post(&home, "01", None, "1")).seq, Seq(1));
}

#[test]
fn a_panic_in_one_answer_hurts_no_other() {
    let dir = Dir::new();
    let home = dir.open();
    let (tx, rx) = mpsc::channel();
    let job = |payment, done: Box<dyn FnOnce(Result<Accepted, Error>) + Send>| DiskJob::Deposit {
        pending: Pending::new(deposit(payment, done)),
        answer: None,
    };
    let bad = job(payment("01", None, "1"), Box::new(|_| panic!("on purpose")));
    let good = job(payment("01", None, "2"), Box::new(move |result| tx.send(result).expect("the test waits")));
    home.run(vec![bad, good]);
    assert_eq!(mark_of(rx.recv().expect("an answer")).seq, Seq(2));
}

#[test]
fn a_payment_that_is_dropped_says_that_nobody_knows() {
    let (tx, rx) = mpsc::channel();
    let pending = Pending::new(deposit(payment("01", None, "1"), move |result| tx.send(result).expect("heard")));
    // Even while its thread unwinds, and though the answer itself panics.
    let other = Pending::new(deposit(payment("01", None, "1"), |_| panic!("on purpose")));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _both = (pending, other);
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    let answers: Vec<_> = rx.iter().collect();
    assert!(matches!(answers[..], [Err(Error::Unavailable { stored: Stored::Unknown, .. })]));
}

#[test]
fn a_payment_whose_time_is_over_is_not_stored() {
    let dir = Dir::new();
    let home = dir.open();
    let (tx, rx) = mpsc::channel();
    let mut late = deposit(payment("01", None, "1"), move |result| tx.send(result).expect("the test waits"));
    late.deadline = Instant::now();
    home.accept(late);
    assert!(matches!(rx.recv().expect("an answer"), Err(Error::Unavailable { stored: Stored::No, .. })));
    assert_eq!(home.record_of("01"), None);
}

#[test]
fn after_the_close_nothing_is_stored() {
    let dir = Dir::new();
    let home = dir.open();
    home.close();
    home.commit();
    assert!(matches!(post(&home, "01", None, "1"), Err(Error::Unavailable { stored: Stored::No, .. })));
    assert!(matches!(home.book(&[claim("01")])[..], [Err(Error::Unavailable { stored: Stored::No, .. })]));
    assert_eq!(home.record_of("01"), None);
}

/// A disk that fails from a given moment on.
#[derive(Debug)]
struct Failing {
    memory: InMemoryBackend,
    broken: Arc<AtomicBool>,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) { Err(io::Error::other("gone")) } else { self.memory.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.memory.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.memory.unlock_range(start, end)
    }
}

#[test]
fn a_failed_fsync_is_unknown_to_all_and_ends_the_process() {
    let broken = Arc::new(AtomicBool::new(false));
    let backend = Failing { memory: InMemoryBackend::new(), broken: broken.clone() };
    let file = Database::builder().create_with_backend(backend).expect("opens");
    let transaction = file.begin_write().expect("writes");
    tables::create(&transaction).expect("makes them");
    transaction.commit().expect("commits");
    let deaths = Arc::new(Mutex::new(Vec::new()));
    let told = deaths.clone();
    let inbox = DiskInbox {
        file: Mutex::new(Some(Arc::new(file))),
        options: options(10),
        world: World::real(&std::env::temp_dir()),
        doubt_before: 0,
        group: Group::new(),
        holders: Mutex::default(),
        sessions: AtomicU64::new(0),
        hint: Box::new(|_| panic!("it was not stored")),
        no_room: Seldom::default(),
        fatal: Box::new(move |why| told.lock().push(why)),
    };
    broken.store(true, Ordering::Relaxed);
    assert!(matches!(inbox.book(&[claim("01")])[..], [Err(Error::Unavailable { stored: Stored::Unknown, .. })]));
    assert_eq!(deaths.lock().len(), 1);
    assert!(inbox.holders.lock().is_empty());
    // Not tried again: redb takes nothing more.
    assert!(matches!(post(&inbox, "01", None, "1"), Err(Error::Unavailable { stored: Stored::No, .. })));
    assert_eq!(deaths.lock().len(), 2);
}

#[test]
fn a_second_process_is_refused_in_a_line() {
    let dir = Dir::new();
    let _home = dir.open();
    let message = dir.refusal().to_string();
    assert!(message.contains("is in use by another payrelay; "), "{message}");
}

#[test]
fn directory_and_file_are_their_owners_alone() {
    let dir = Dir::new();
    let _home = dir.open();
    let mode = |path: &Path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir.0), mode(&dir.file())), (0o700, 0o600));
}

#[test]
fn what_cannot_be_opened_says_why() {
    let dir = Dir::new();
    std::fs::write(&dir.0, "").expect("writes");
    assert!(matches!(dir.refusal(), OpenError::NotADirectory(_)));
    let below = Dir(dir.0.join("below"));
    let refusal = below.refusal();
    assert!(matches!(refusal, OpenError::Denied { .. }) && refusal.source().is_some(), "{refusal}");

    for content in [&b"hello"[..], &[7; 100_000]] {
        let dir = Dir::new();
        std::fs::create_dir(&dir.0).expect("makes it");
        std::fs::write(dir.file(), content).expect("writes");
        let refusal = dir.refusal();
        assert!(matches!(refusal, OpenError::Damaged { .. }) && refusal.source().is_some(), "{refusal}");
        assert_eq!(std::fs::read(dir.file()).expect("is still there"), content);
    }
}

#[test]
fn a_file_that_was_cut_short_is_damaged() {
    let dir = Dir::new();
    let home = dir.open();
    (0..50).for_each(|_| drop(post(&home, "01", None, "1")));
    drop(home);
    let file = std::fs::OpenOptions::new().write(true).open(dir.file()).expect("opens");
    file.set_len(file.metadata().expect("is there").len() / 2).expect("cuts");
    let refusal = dir.refusal();
    assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
}

#[test]
fn a_file_of_another_format_is_left_alone() {
    let dir = Dir::new();
    drop(dir.open());
    let file = Database::open(dir.file()).expect("opens");
    let transaction = file.begin_write().expect("writes");
    transaction.open_table(tables::META).expect("is there").insert("format", 9).expect("writes");
    transaction.commit().expect("commits");
    drop(file);
    let refusal = dir.refusal();
    assert!(matches!(refusal, OpenError::Foreign { format: Some(9), .. }), "{refusal}");

    let dir = Dir::new();
    std::fs::create_dir(&dir.0).expect("makes it");
    let file = Database::create(dir.file()).expect("opens");
    let transaction = file.begin_write().expect("writes");
    transaction.open_table(TableDefinition::<u64, u64>::new("theirs")).expect("makes it");
    transaction.commit().expect("commits");
    drop(file);
    let refusal = dir.refusal();
    assert!(matches!(refusal, OpenError::Foreign { format: None, .. }), "{refusal}");
}
