//! What both homes promise, through the trait alone: the same tests over a data directory and over a real Redis.
//! What only Redis can do to us (junk, forgotten scripts, another node) stands at the end.

use super::disk::{DiskInbox, DiskOptions};
use super::redis::durability::Demands;
use super::redis::{Options, RedisInbox, Target};
use super::*;
use crate::doorbell::{Bell, Hint};
use crate::payment::{Channel, Content};
use ::redis::{FromRedisValue, ToRedisArgs};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// How long a test waits for what must happen.
const LONG: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

macro_rules! on_both_homes {
    ($($name:ident),+ $(,)?) => {
        mod disk {
            $( #[test] fn $name() { super::$name(super::Home::Disk); } )+
        }
        mod redis {
            $( #[test] fn $name() { super::$name(super::Home::Redis); } )+
        }
    };
}

on_both_homes!(
    seqs_have_no_gaps_and_accepted_at_never_falls,
    a_payment_id_is_one_payment,
    after_its_window_a_payment_id_is_new,
    the_inbox_limit_is_exact_for_many_threads,
    a_full_inbox_names_the_first_of_a_repeat_and_takes_more_after_an_ack,
    the_newest_session_owns_the_inbox,
    a_session_that_was_released_is_over_and_nothing_was_lost,
    notes_of_one_call_are_stored_in_their_order,
    acks_only_rise,
    an_ack_of_what_never_was_is_a_roll_back,
    a_reading_keeps_its_limits,
    a_reading_behind_what_never_was_is_a_roll_back,
    a_client_changes_hands_ten_times_a_second_at_most,
    a_claim_past_its_deadline_is_not_run,
    a_payment_is_found_by_number_and_by_id,
    a_record_says_what_is_there,
    who_keeps_payments_waiting_is_listed_by_client_id,
    a_retired_clients_next_life_is_newer_and_knows_no_old_payment_id,
    bells_ring_before_the_answers_and_only_for_who_is_here,
    a_payment_past_its_deadline_is_not_stored,
    a_panic_in_one_answer_hurts_no_other,
    every_payment_of_many_threads_is_answered_once,
    more_than_one_call_takes_is_answered_in_order,
    after_the_close_payments_are_refused,
    a_refused_payment_is_a_dead_letter_and_those_before_it_stay,
    an_ack_passes_over_dead_letters_and_none_counts_twice,
    a_refusal_is_fenced_like_an_ack,
    an_operator_gets_past_a_payment_once,
    dead_letters_are_listed_in_order_and_in_pages,
    a_dead_letter_put_back_is_a_new_payment,
    a_purged_dead_letter_leaves_a_word_for_the_window,
    behind_what_is_not_acknowledged_words_outlive_the_window_and_payment_ids_do_not,
    dead_letters_fill_the_inbox_until_they_are_purged,
    a_retired_clients_dead_letters_go_with_it,
    an_expired_payment_is_not_read_but_dead,
    whoever_looks_finds_an_expired_payment_dead,
    what_was_sent_in_time_expires_only_with_its_session,
);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Disk,
    Redis,
}

/// An inbox with its committer, and what was heard of it.
struct World {
    inbox: Arc<dyn Inbox>,
    /// Bells and answers, in the order in which they came.
    heard: Arc<Mutex<Vec<String>>>,
    committer: Option<JoinHandle<()>>,
    server: Option<Arc<Server>>,
    _dir: Option<Dir>,
}

/// A directory of the test's own, gone with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("payrelay-contract-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A real redis-server, reached by a socket in its own directory: so no two tests ever meet.
struct Server {
    child: Mutex<Child>,
    socket: PathBuf,
    _dir: Dir,
}

impl Server {
    fn start() -> Arc<Server> {
        let dir = Dir::new();
        let socket = dir.0.join("redis.sock");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", "redis.log"])
            .arg("--unixsocket")
            .arg(&socket)
            .arg("--dir")
            .arg(&dir.0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server (Debian: apt-get install redis-server)");
        let server = Server { child: Mutex::new(child), socket, _dir: dir };
        eventually("redis-server answers", || server.try_ask::<String>(&["PING"]).is_ok());
        Arc::new(server)
    }

    fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    fn try_ask<T: FromRedisValue>(&self, words: &[impl ToRedisArgs]) -> ::redis::RedisResult<T> {
        let mut connection = ::redis::Client::open(self.url())?.get_connection_with_timeout(LONG)?;
        connection.set_read_timeout(Some(LONG))?;
        let mut command = ::redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut connection)
    }

    #[track_caller]
    fn ask<T: FromRedisValue>(&self, words: &[impl ToRedisArgs]) -> T {
        self.try_ask(words).unwrap_or_else(|e| panic!("Redis: {e}"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.lock()), signal).expect("a signal to our own redis-server");
    }

    /// An inbox of a node on this Redis.
    fn inbox(
        &self,
        node: &str,
        inbox_limit: u64,
        dedup_window: Duration,
        heard: &Arc<Mutex<Vec<String>>>,
    ) -> RedisInbox {
        let demands = Demands { durability: Durability::Any, replicas: 0 };
        let options = Options { node: node.into(), inbox_limit, dedup_window, demands };
        RedisInbox::new(&Target::parse(&self.url()).expect("a URL"), options, recorder(heard))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Bells and deaths; that a client is to be looked at is no news.
fn recorder(heard: &Arc<Mutex<Vec<String>>>) -> Box<dyn Fn(Hint) + Send + Sync> {
    let heard = Arc::clone(heard);
    Box::new(move |hint| match hint {
        Hint::Bell(bell) => heard.lock().push(format!("bell {} {}", bell.client, bell.entry.mark.seq)),
        Hint::Died(client, seq, status) => heard.lock().push(format!("{} {client} {seq}", status.as_str())),
        Hint::Check(_) => {}
    })
}

fn disk(dir: &Path, inbox_limit: u64, dedup_window: Duration, heard: &Arc<Mutex<Vec<String>>>) -> DiskInbox {
    let options = DiskOptions { inbox_limit, dedup_window, node: "n1".into() };
    let fatal = Box::new(|why| panic!("the disk failed: {why}"));
    DiskInbox::open(&dir.join("data"), options, recorder(heard), fatal).expect("opens")
}

impl World {
    fn open(home: Home) -> World {
        World::with(home, 100_000, 3600 * SECOND)
    }

    fn with(home: Home, inbox_limit: u64, dedup_window: Duration) -> World {
        let heard = Arc::default();
        match home {
            Home::Disk => {
                let dir = Dir::new();
                let inbox = Arc::new(disk(&dir.0, inbox_limit, dedup_window, &heard));
                World::run(inbox, heard, None, Some(dir))
            }
            Home::Redis => {
                let server = Server::start();
                let inbox = Arc::new(server.inbox("n1", inbox_limit, dedup_window, &heard));
                World::run(inbox, heard, Some(server), None)
            }
        }
    }

    /// Another node on the same Redis.
    fn beside(&self, node: &str) -> World {
        let (server, heard) = (Arc::clone(self.server()), Arc::default());
        let inbox = Arc::new(server.inbox(node, 100_000, 3600 * SECOND, &heard));
        World::run(inbox, heard, Some(server), None)
    }

    fn run(
        inbox: Arc<dyn Inbox>,
        heard: Arc<Mutex<Vec<String>>>,
        server: Option<Arc<Server>>,
        dir: Option<Dir>,
    ) -> World {
        let leading = Arc::clone(&inbox);
        let committer = Some(thread::spawn(move || leading.commit()));
        World { inbox, heard, committer, server, _dir: dir }
    }

    fn server(&self) -> &Arc<Server> {
        self.server.as_ref().expect("a world with a Redis")
    }

    /// Posts a payment and waits for its answer.
    #[track_caller]
    fn try_post(&self, name: &str, id: Option<&str>, msg: &str) -> Result<Accepted, Error> {
        let (tx, rx) = mpsc::channel();
        self.inbox.accept(deposit(payment(name, id, msg), move |result| drop(tx.send(result))));
        rx.recv_timeout(LONG).expect("an answer")
    }

    #[track_caller]
    fn post(&self, name: &str) -> Mark {
        self.try_post(name, None, "1").expect("accepted").mark
    }

    fn book_one(&self, note: Note) -> Result<Booked, Error> {
        let mut booked = self.inbox.book(&[note]);
        assert_eq!(booked.len(), 1, "one answer for one note");
        booked.remove(0)
    }

    /// Claims, as often as it takes to have a turn.
    #[track_caller]
    fn claim(&self, name: &str) -> Claimed {
        let deadline = Instant::now() + LONG;
        loop {
            match self.book_one(claim(name)) {
                Ok(Booked::Claimed(claimed)) => return claimed,
                Ok(Booked::TooSoon(wait)) if Instant::now() < deadline => thread::sleep(wait),
                other => panic!("not claimed: {other:?}"),
            }
        }
    }

    fn ack(&self, name: &str, session: &Session, mark: Mark) -> Result<Booked, Error> {
        self.book_one(ack(name, session, mark))
    }

    fn release(&self, name: &str, session: &Session) -> Result<Booked, Error> {
        self.book_one(Note::Release { client: client(name), session: session.clone() })
    }

    fn read(
        &self,
        name: &str,
        session: &Session,
        after: Mark,
        payments: usize,
        bytes: usize,
    ) -> Result<Reading, Error> {
        let ask = Ask { client: client(name), session: session.clone(), after, payments, bytes };
        self.inbox.read(&[ask]).remove(0)
    }

    /// The places that a reading brings, and what it says was accepted last.
    #[track_caller]
    fn slice(&self, name: &str, session: &Session, after: Mark, payments: usize, bytes: usize) -> (Vec<Mark>, Mark) {
        match self.read(name, session, after, payments, bytes) {
            Ok(Reading::Slice(Slice { entries, last, .. })) => (entries.iter().map(|entry| entry.mark).collect(), last),
            other => panic!("no slice: {other:?}"),
        }
    }

    #[track_caller]
    fn record(&self, name: &str) -> Option<Record> {
        self.inbox.records(&[client(name)]).remove(0).expect("a word")
    }

    #[track_caller]
    fn find(&self, name: &str, which: Which) -> Option<Found> {
        self.inbox.look_up(&[Query { client: client(name), which }]).remove(0).expect("a word")
    }

    #[track_caller]
    fn find_id(&self, name: &str, id: &str) -> Option<Found> {
        self.find(name, Which::PaymentId(payment_id(id)))
    }

    /// Waits until these clients, and no others, are listed as waiting.
    #[track_caller]
    fn expect_waiting(&self, names: &[&str]) {
        let expected: Vec<ClientId> = names.iter().map(|name| client(name)).collect();
        eventually(&format!("{names:?} wait"), || {
            self.inbox.tend();
            self.inbox.waiting(None, 100).is_ok_and(|list| list == expected)
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.inbox.close();
        if let Some(committer) = self.committer.take() {
            let ended = committer.join();
            assert!(ended.is_ok() || thread::panicking(), "the committer ends in order");
        }
    }
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn client(name: &str) -> ClientId {
    ClientId::parse(name).expect("a client id")
}

fn payment_id(id: &str) -> PaymentId {
    PaymentId::parse(id).expect("a payment id")
}

fn claim(name: &str) -> Note {
    claim_until(name, Instant::now() + LONG)
}

fn claim_until(name: &str, deadline: Instant) -> Note {
    Note::Claim(Claim { client: client(name), token: Token::random(), address: "10.0.0.7:51312".into(), deadline })
}

fn ack(name: &str, session: &Session, mark: Mark) -> Note {
    Note::Ack { client: client(name), session: session.clone(), mark }
}

fn payment(name: &str, id: Option<&str>, msg: &str) -> Payment {
    let content = Content::json_text(msg.as_bytes()).expect("JSON");
    Payment::new(client(name), id.map(payment_id), &Channel::default(), &content)
}

fn deposit(payment: Payment, done: impl FnOnce(Result<Accepted, Error>) + Send + 'static) -> Deposit {
    Deposit { payment, receipt: false, deadline: Instant::now() + LONG, done: Done::new(done) }
}

fn seq(n: u64) -> Which {
    Which::Seq(Seq(n))
}

fn not_stored<T: fmt::Debug>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Unavailable { stored: Stored::No, .. }))
}

fn seqs_have_no_gaps_and_accepted_at_never_falls(home: Home) {
    let world = World::open(home);
    let marks: Vec<Mark> = (0..20).map(|_| world.post("01")).collect();
    assert!(marks.iter().zip(1..).all(|(mark, n)| mark.seq == Seq(n)), "{marks:?}");
    assert!(marks.windows(2).all(|two| two[0].accepted_at <= two[1].accepted_at), "{marks:?}");
    assert_eq!(world.post("02").seq, Seq(1), "every client has its own numbers");
}

fn a_payment_id_is_one_payment(home: Home) {
    let world = World::open(home);
    let first = world.try_post("01", Some("wx-1"), "1").expect("accepted");
    assert!(!first.duplicate);
    let again = world.try_post("01", Some("wx-1"), "1").expect("known");
    assert_eq!((again.mark, again.duplicate, again.status), (first.mark, true, Status::Accepted));
    assert_eq!(world.try_post("01", Some("wx-1"), "2"), Err(Error::IdReused));
    assert_eq!(world.record("01").expect("known").last, Seq(1), "a repeat stores nothing");
    let other = world.try_post("02", Some("wx-1"), "2").expect("accepted");
    assert!(!other.duplicate, "payment ids are a client's own");

    let session = world.claim("01").session;
    assert_eq!(world.ack("01", &session, first.mark), Ok(Booked::Acknowledged(Seq(1))));
    let late = world.try_post("01", Some("wx-1"), "1").expect("known");
    assert_eq!((late.mark, late.duplicate, late.status), (first.mark, true, Status::Acknowledged));
    assert_eq!(world.try_post("01", Some("wx-1"), "2"), Err(Error::IdReused));
}

fn after_its_window_a_payment_id_is_new(home: Home) {
    let world = World::with(home, 10, Duration::from_millis(50));
    world.try_post("01", Some("wx-1"), "1").expect("accepted");
    eventually("the payment id is forgotten", || world.find_id("01", "wx-1").is_none());
    let anew = world.try_post("01", Some("wx-1"), "2").expect("accepted");
    assert_eq!((anew.mark.seq, anew.duplicate), (Seq(2), false));
}

fn the_inbox_limit_is_exact_for_many_threads(home: Home) {
    let world = World::with(home, 50, SECOND);
    let full = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    if let Err(error) = world.try_post("01", None, "1") {
                        assert_eq!(error, Error::InboxFull);
                        full.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(full.into_inner(), 30);
    let record = world.record("01").expect("known");
    assert_eq!((record.last, record.pending), (Seq(50), 50));
}

fn a_full_inbox_names_the_first_of_a_repeat_and_takes_more_after_an_ack(home: Home) {
    let world = World::with(home, 1, 3600 * SECOND);
    let first = world.try_post("01", Some("wx-1"), "1").expect("accepted").mark;
    assert_eq!(world.try_post("01", Some("wx-2"), "1"), Err(Error::InboxFull));
    assert!(world.try_post("01", Some("wx-1"), "1").expect("known").duplicate);
    assert_eq!(world.find_id("01", "wx-2"), None, "what was refused left nothing");
    assert_eq!(world.post("02").seq, Seq(1), "the limit is of one client");
    let session = world.claim("01").session;
    world.ack("01", &session, first).expect("acknowledged");
    let second = world.try_post("01", Some("wx-2"), "1").expect("accepted");
    assert_eq!((second.mark.seq, second.duplicate), (Seq(2), false));
}

fn the_newest_session_owns_the_inbox(home: Home) {
    let world = World::open(home);
    let (first, second) = (world.post("01"), world.post("01"));
    let old = world.claim("01");
    let new = world.claim("01");
    assert!(new.session.number > old.session.number);
    assert_eq!((new.session.epoch, new.acked, new.last, new.pending), (old.session.epoch, old.acked, second, 2));

    assert_eq!(world.ack("01", &old.session, second), Ok(Booked::Replaced));
    assert_eq!(world.read("01", &old.session, Mark::default(), 9, 9), Ok(Reading::Replaced));
    assert_eq!(world.read("01", &old.session, Mark::default(), 0, 0), Ok(Reading::Replaced));
    world.release("01", &old.session).expect("an answer");
    let record = world.record("01").expect("known");
    assert_eq!((record.acked, record.pending), (Seq(0), 2), "a stale ack changes nothing");
    assert!(record.owner.is_some(), "the end of the old session is not the end of the new one");

    assert_eq!(world.ack("01", &new.session, first), Ok(Booked::Acknowledged(Seq(1))));
    assert_eq!(world.release("01", &new.session), Ok(Booked::Released));
    assert_eq!(world.record("01").expect("known").owner, None);
}

/// Catch-up reads on a line of its own: its question may come after the release.
fn a_session_that_was_released_is_over_and_nothing_was_lost(home: Home) {
    let world = World::open(home);
    let first = world.post("01");
    let before = world.claim("01");
    world.release("01", &before.session).expect("released");
    assert_eq!(world.read("01", &before.session, Mark::default(), 9, 9), Ok(Reading::Replaced));
    assert_eq!(world.ack("01", &before.session, first), Ok(Booked::Replaced));
    let after = world.claim("01");
    assert_eq!(after.session.epoch, before.session.epoch, "the store lost nothing");
    assert_eq!((after.acked, after.pending), (Mark::default(), 1));
}

fn notes_of_one_call_are_stored_in_their_order(home: Home) {
    let world = World::open(home);
    let first = world.post("01");
    let session = world.claim("01").session;
    let notes = [
        ack("01", &session, first),
        Note::Release { client: client("01"), session: session.clone() },
        claim("01"),
        claim("02"),
    ];
    let booked = world.inbox.book(&notes);
    let [
        Ok(Booked::Acknowledged(Seq(1))),
        Ok(Booked::Released),
        Ok(Booked::Claimed(again)),
        Ok(Booked::Claimed(other)),
    ] = &booked[..]
    else {
        panic!("not in order: {booked:?}");
    };
    assert_eq!((again.acked, again.last, again.pending), (first, first, 0));
    assert!(again.session.number > session.number);
    assert_eq!((other.acked, other.last, other.pending), (Mark::default(), Mark::default(), 0));
}

fn acks_only_rise(home: Home) {
    let world = World::open(home);
    let sent: Vec<Mark> = (0..3).map(|_| world.post("01")).collect();
    let session = world.claim("01").session;
    assert_eq!(world.ack("01", &session, sent[1]), Ok(Booked::Acknowledged(Seq(2))));
    assert_eq!(world.ack("01", &session, sent[0]), Ok(Booked::Acknowledged(Seq(2))));
    assert_eq!(world.ack("01", &session, sent[1]), Ok(Booked::Acknowledged(Seq(2))));
    assert_eq!(world.slice("01", &session, sent[1], 9, 9999), (vec![sent[2]], sent[2]));
    assert_eq!(world.ack("01", &session, sent[2]), Ok(Booked::Acknowledged(Seq(3))));
    let record = world.record("01").expect("known");
    assert_eq!((record.acked, record.pending, record.oldest_pending_at), (Seq(3), 0, None));
}

fn an_ack_of_what_never_was_is_a_roll_back(home: Home) {
    let world = World::open(home);
    for name in ["another-time", "another-number"] {
        let first = world.post(name);
        let session = world.claim(name).session;
        let wrong = match name {
            "another-time" => Mark { accepted_at: first.accepted_at + 1, ..first },
            _ => Mark { seq: Seq(2), ..first },
        };
        assert_eq!(world.ack(name, &session, wrong), Ok(Booked::RolledBack), "{name}");
        let record = world.record(name).expect("known");
        assert_eq!((record.acked, record.pending), (Seq(0), 1), "{name}");
        let session = world.claim(name).session;
        assert_eq!(world.slice(name, &session, Mark::default(), 9, 9999), (vec![first], first), "{name}");
        assert_eq!(world.ack(name, &session, first), Ok(Booked::Acknowledged(Seq(1))), "{name}");
    }
}

fn a_reading_keeps_its_limits(home: Home) {
    let world = World::open(home);
    let sent: Vec<Mark> = (0..40).map(|_| world.post("01")).collect();
    let (session, last) = (world.claim("01").session, sent[39]);
    let start = Mark::default();
    assert_eq!(world.slice("01", &session, start, 100, usize::MAX), (sent.clone(), last));
    for payments in [1, 15, 16, 17, 33, 39] {
        assert_eq!(world.slice("01", &session, start, payments, usize::MAX), (sent[..payments].to_vec(), last));
    }
    assert_eq!(world.slice("01", &session, sent[2], 2, usize::MAX), (sent[3..5].to_vec(), last));
    assert_eq!(world.slice("01", &session, start, 0, usize::MAX), (vec![], last), "0 only checks");
    assert_eq!(world.slice("01", &session, last, 9, usize::MAX), (vec![], last));
    assert_eq!(world.slice("01", &session, start, 9, 1), (sent[..1].to_vec(), last), "at least one comes");
    let (some, _) = world.slice("01", &session, start, 100, 400);
    assert!(some.len() > 1 && some.len() < 20 && sent.starts_with(&some), "{some:?}");

    assert_eq!(world.ack("01", &session, sent[9]), Ok(Booked::Acknowledged(Seq(10))));
    assert_eq!(world.slice("01", &session, sent[9], 3, usize::MAX), (sent[10..13].to_vec(), last));
    let (rest, _) = world.slice("01", &session, sent[4], 3, usize::MAX);
    assert_eq!(rest, sent[10..13], "what left the inbox does not come again");
}

fn a_reading_behind_what_never_was_is_a_roll_back(home: Home) {
    let world = World::open(home);
    for (name, payments) in [("another-time", 9), ("another-number", 9), ("only-a-check", 0)] {
        let sent = [world.post(name), world.post(name)];
        let session = world.claim(name).session;
        let after = match name {
            "another-number" => Mark { seq: Seq(3), ..sent[1] },
            _ => Mark { accepted_at: sent[0].accepted_at + 1, ..sent[0] },
        };
        assert_eq!(world.read(name, &session, after, payments, 99), Ok(Reading::RolledBack), "{name}");
        let session = world.claim(name).session;
        assert_eq!(world.slice(name, &session, Mark::default(), 9, 9999).0, sent, "{name}");
    }
}

fn a_client_changes_hands_ten_times_a_second_at_most(home: Home) {
    let world = World::open(home);
    // A claim of another may come so late that it has its turn: then the next one is too soon.
    let (held, wait) = (0..50)
        .find_map(|_| {
            let held = world.claim("01").session;
            match world.book_one(claim("01")) {
                Ok(Booked::TooSoon(wait)) => Some((held, wait)),
                _ => None,
            }
        })
        .expect("two claims within 100 ms");
    assert!(!wait.is_zero() && wait <= Duration::from_millis(100), "{wait:?}");
    assert_eq!(world.slice("01", &held, Mark::default(), 0, 0).0, [], "who waits takes nothing away");
    thread::sleep(wait);
    let Ok(Booked::Claimed(next)) = world.book_one(claim("01")) else { panic!("its turn has come") };
    assert!(next.session.number > held.number);
    world.release("01", &next.session).expect("released");
    assert!(matches!(world.book_one(claim("01")), Ok(Booked::Claimed(_))), "nobody holds it: no wait");
}

fn a_claim_past_its_deadline_is_not_run(home: Home) {
    let world = World::open(home);
    for round in 0..20 {
        let late = claim_until("01", Instant::now());
        assert!(not_stored(&world.book_one(late)), "round {round}");
        assert_eq!(world.record("01"), None, "round {round}");
    }
}

fn a_payment_is_found_by_number_and_by_id(home: Home) {
    let world = World::open(home);
    let first = world.try_post("01", Some("wx-1"), "1").expect("accepted").mark;
    world.post("01");
    let found = |seq, status, id: Option<&str>| {
        let payment_id = id.map(str::to_owned);
        Some(Found { seq: Seq(seq), status, payment_id, due_in: None })
    };
    assert_eq!(world.find("01", seq(1)), found(1, Status::Accepted, Some("wx-1")));
    assert_eq!(world.find("01", seq(2)), found(2, Status::Accepted, None));
    assert_eq!(world.find_id("01", "wx-1"), found(1, Status::Accepted, Some("wx-1")));
    let session = world.claim("01").session;
    world.ack("01", &session, first).expect("acknowledged");
    assert_eq!(world.find("01", seq(1)), found(1, Status::Acknowledged, None));
    assert_eq!(world.find_id("01", "wx-1"), found(1, Status::Acknowledged, Some("wx-1")));
    for unknown in [0, 3, u64::MAX] {
        assert_eq!(world.find("01", seq(unknown)), None, "{unknown}");
    }
    assert_eq!(
        (world.find("02", seq(1)), world.find_id("02", "wx-1"), world.find_id("01", "wx-2")),
        (None, None, None)
    );
}

fn a_record_says_what_is_there(home: Home) {
    let world = World::open(home);
    assert_eq!(world.record("01"), None);
    let session = world.claim("01").session;
    let owner = world.record("01").and_then(|record| record.owner).expect("connected");
    assert_eq!((owner.node.as_str(), owner.address.as_str()), ("n1", "10.0.0.7:51312"));
    assert!(owner.since > 1_700_000_000_000, "Unix ms: {}", owner.since);
    let sent = [world.post("01"), world.post("01"), world.post("01")];
    world.ack("01", &session, sent[0]).expect("acknowledged");
    world.release("01", &session).expect("released");
    let expected = Record {
        last: Seq(3),
        acked: Seq(1),
        pending: 2,
        oldest_pending_at: Some(sent[1].accepted_at),
        dead_letters: 0,
        owner: None,
    };
    assert_eq!(world.record("01"), Some(expected));
    world.post("never-connected");
    assert_eq!(world.record("never-connected").expect("known").pending, 1);
}

fn who_keeps_payments_waiting_is_listed_by_client_id(home: Home) {
    let world = World::open(home);
    let marks = ["b", "a", "c"].map(|name| (name, world.post(name)));
    world.claim("nothing-waits");
    world.expect_waiting(&["a", "b", "c"]);
    assert_eq!(world.inbox.waiting(None, 2), Ok(vec![client("a"), client("b")]));
    assert_eq!(world.inbox.waiting(Some(&client("a")), 9), Ok(vec![client("b"), client("c")]));
    let session = world.claim("b").session;
    world.ack("b", &session, marks[0].1).expect("acknowledged");
    world.expect_waiting(&["a", "c"]);
}

fn a_retired_clients_next_life_is_newer_and_knows_no_old_payment_id(home: Home) {
    let world = World::open(home);
    world.try_post("01", Some("wx-1"), "1").expect("accepted");
    world.try_post("02", Some("wx-1"), "1").expect("accepted");
    let before = world.claim("01").session;
    // Epochs are milliseconds: a life lasts at least one.
    eventually("a millisecond is over", || world.post("01").accepted_at > before.epoch);
    let pending = world.record("01").expect("known").pending;
    assert_eq!(world.inbox.retire(&client("01"), false), Ok(Retired::Pending(pending)));
    assert_eq!(world.inbox.retire(&client("01"), true), Ok(Retired::Done));
    assert_eq!(world.inbox.retire(&client("01"), true), Ok(Retired::Unknown));
    assert_eq!((world.record("01"), world.find_id("01", "wx-1")), (None, None));

    let anew = world.try_post("01", Some("wx-1"), "2").expect("accepted");
    assert_eq!((anew.mark.seq, anew.duplicate, anew.online), (Seq(1), false, false));
    let after = world.claim("01");
    assert!(after.session.epoch > before.epoch, "{} > {}", after.session.epoch, before.epoch);
    assert_eq!((after.acked, after.pending), (Mark::default(), 1));
    // The old life's connection can do nothing to the new one.
    assert_ne!(world.ack("01", &before, anew.mark), Ok(Booked::Acknowledged(Seq(1))));
    world.release("01", &before).expect("an answer");
    let record = world.record("01").expect("known");
    assert!((record.acked, record.pending) == (Seq(0), 1) && record.owner.is_some(), "{record:?}");
    assert!(world.try_post("02", Some("wx-1"), "1").expect("known").duplicate, "another's payment ids stay");

    let session = world.claim("03").session;
    world.release("03", &session).expect("released");
    assert_eq!(world.inbox.retire(&client("03"), false), Ok(Retired::Done), "nothing was pending");
}

fn bells_ring_before_the_answers_and_only_for_who_is_here(home: Home) {
    let world = World::open(home);
    let session = world.claim("01").session;
    let post = |name: &'static str| {
        let (heard, (tx, rx)) = (Arc::clone(&world.heard), mpsc::channel());
        world.inbox.accept(deposit(payment(name, Some("wx-1"), "1"), move |result| {
            let accepted = result.expect("accepted");
            heard.lock().push(format!("answer {name} {} {}", accepted.mark.seq, accepted.online));
            let _ = tx.send(());
        }));
        rx.recv_timeout(LONG).expect("an answer");
    };
    post("01");
    post("02");
    post("01");
    world.release("01", &session).expect("released");
    world.post("01");
    let expected = ["bell 01 1", "answer 01 1 true", "answer 02 1 false", "answer 01 1 true"];
    assert_eq!(*world.heard.lock(), expected, "a repeat rings no bell, nor does what nobody here waits for");
}

fn a_payment_past_its_deadline_is_not_stored(home: Home) {
    let world = World::open(home);
    let (tx, rx) = mpsc::channel();
    let mut late = deposit(payment("01", Some("wx-1"), "1"), move |result| drop(tx.send(result)));
    late.deadline = Instant::now();
    world.inbox.accept(late);
    assert!(not_stored(&rx.recv_timeout(LONG).expect("an answer")));
    assert_eq!((world.record("01"), world.find_id("01", "wx-1")), (None, None));
}

fn a_panic_in_one_answer_hurts_no_other(home: Home) {
    let world = World::open(home);
    let (inbox, (held_tx, held), (go, go_rx)) = (Arc::clone(&world.inbox), mpsc::channel(), mpsc::channel::<()>());
    let leader = thread::spawn(move || {
        inbox.accept(deposit(payment("01", None, "1"), move |_| {
            let _ = held_tx.send(());
            let _ = go_rx.recv_timeout(LONG);
        }));
    });
    held.recv_timeout(LONG).expect("a round is led");
    // These are one round, the committer's.
    let (tx, rx) = mpsc::channel();
    for n in 2..=5 {
        let tx = tx.clone();
        world.inbox.accept(deposit(payment("01", None, "1"), move |result| {
            assert!(n % 2 == 1, "on purpose");
            drop(tx.send(result));
        }));
    }
    go.send(()).expect("the leader waits");
    leader.join().expect("no panic");
    let answers: Vec<Seq> =
        (0..2).map(|_| rx.recv_timeout(LONG).expect("an answer").expect("accepted").mark.seq).collect();
    assert_eq!(answers, [Seq(3), Seq(5)]);
    assert_eq!(world.post("01").seq, Seq(6), "who panicked had its payment stored, and others go on");
}

fn every_payment_of_many_threads_is_answered_once(home: Home) {
    const CLIENTS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let world = World::open(home);
    let (tx, rx) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..16 {
            let (tx, inbox) = (tx.clone(), &world.inbox);
            scope.spawn(move || {
                for n in 0..200 {
                    let (tx, name) = (tx.clone(), CLIENTS[n % CLIENTS.len()]);
                    inbox.accept(deposit(payment(name, None, "1"), move |result| drop(tx.send((name, result)))));
                }
            });
        }
    });
    drop(tx);
    let mut seqs: HashMap<&str, Vec<u64>> = HashMap::new();
    // It ends with the last of the senders: a second answer would be counted, a missing one too.
    while let Ok((name, result)) = rx.recv_timeout(LONG) {
        seqs.entry(name).or_default().push(result.expect("accepted").mark.seq.0);
    }
    for name in CLIENTS {
        let mut all = seqs.remove(name).unwrap_or_default();
        all.sort_unstable();
        assert!(all.iter().copied().eq(1..=640), "{name}: {} answers", all.len());
        assert_eq!(world.record(name).expect("known").last, Seq(640));
    }
}

fn more_than_one_call_takes_is_answered_in_order(home: Home) {
    let world = World::open(home);
    let names: Vec<String> = (0..300).map(|n| format!("c{n}")).collect();
    let clients: Vec<ClientId> = names.iter().map(|name| client(name)).collect();
    // As many payments as its name has letters: so no two answers look alike by chance.
    let post_some = |name: &String| {
        (1..name.len()).for_each(|_| drop(world.try_post(name, None, "1")));
        world.post(name)
    };
    let marks: Vec<Mark> = names.iter().map(post_some).collect();
    let notes: Vec<Note> = names.iter().map(|name| claim(name)).collect();
    let sessions: Vec<Session> = world
        .inbox
        .book(&notes)
        .into_iter()
        .zip(&marks)
        .map(|(booked, mark)| match booked {
            Ok(Booked::Claimed(claimed)) if claimed.last == *mark => claimed.session,
            other => panic!("not claimed: {other:?}"),
        })
        .collect();
    assert_eq!(sessions.len(), names.len());
    let ask = |(client, session): (&ClientId, &Session)| {
        let (client, session) = (client.clone(), session.clone());
        Ask { client, session, after: Mark::default(), payments: 9, bytes: usize::MAX }
    };
    let asks: Vec<Ask> = clients.iter().zip(&sessions).map(ask).collect();
    let lasts = world.inbox.read(&asks).into_iter().map(|reading| match reading {
        Ok(Reading::Slice(Slice { entries, .. })) => entries.last().map(|entry| entry.mark).expect("some"),
        other => panic!("no slice: {other:?}"),
    });
    assert!(lasts.eq(marks.iter().copied()));
    let queries: Vec<Query> = clients.iter().map(|c| Query { client: c.clone(), which: seq(3) }).collect();
    let found = world.inbox.look_up(&queries).into_iter().map(|found| found.expect("a word").is_some());
    assert!(found.eq(names.iter().map(|name| name.len() >= 3)));
    let records = world.inbox.records(&clients).into_iter().map(|r| r.expect("a word").expect("known").last);
    assert!(records.eq(marks.iter().map(|mark| mark.seq)));
}

fn after_the_close_payments_are_refused(home: Home) {
    let world = World::open(home);
    world.post("01");
    world.inbox.close();
    assert!(not_stored(&world.try_post("01", None, "1")));
    assert_eq!(world.record("01").expect("known").last, Seq(1));
}

impl World {
    fn nack(&self, name: &str, session: &Session, mark: Mark) -> Result<Booked, Error> {
        let (client, session, reason) = (client(name), session.clone(), "unknown order".to_owned());
        self.book_one(Note::Refuse { client, session, mark, reason })
    }

    fn sent(&self, name: &str, session: &Session, mark: Mark) {
        let note = Note::Sent { client: client(name), session: session.clone(), mark };
        assert_eq!(self.book_one(note), Ok(Booked::Noted));
    }

    #[track_caller]
    fn refuse(&self, name: &str, n: u64) -> Option<(Status, bool)> {
        self.inbox.refuse(&client(name), Seq(n), "operator").expect("a word")
    }

    #[track_caller]
    fn letters(&self, name: &str) -> Vec<Letter> {
        self.inbox.dead_letters(&client(name), Seq(0), 100, usize::MAX).expect("a word").expect("known").letters
    }

    #[track_caller]
    fn status(&self, name: &str, n: u64) -> Status {
        self.find(name, seq(n)).expect("known").status
    }

    #[track_caller]
    fn retry(&self, name: &str, n: u64) -> Retry {
        self.inbox.retry(&client(name), Seq(n)).expect("a word")
    }

    #[track_caller]
    fn purge(&self, name: &str, n: u64) -> Option<Status> {
        self.inbox.purge(&client(name), Seq(n)).expect("a word")
    }

    /// Posts a payment that expires after so long.
    #[track_caller]
    fn post_expiring(&self, name: &str, id: Option<&str>, life: Duration) -> Mark {
        let (tx, rx) = mpsc::channel();
        let mut payment = payment(name, id, "1");
        payment.expires_in = Some(life);
        self.inbox.accept(deposit(payment, move |result| drop(tx.send(result))));
        rx.recv_timeout(LONG).expect("an answer").expect("accepted").mark
    }

    /// Waits until others than the session that holds a client find its payment past its time. It was not sent; and
    /// its node, which is ours, must have been seen for long enough.
    #[track_caller]
    fn expect_expired_though_held(&self, name: &str, n: u64) {
        eventually("a held one that was not sent expires", || {
            self.inbox.tend();
            self.status(name, n) == Status::Expired
        });
    }

    /// Waits until a payment is past its time by a margin.
    fn pass_time(&self, mark: Mark, life: Duration) {
        let until = mark.accepted_at + u64::try_from(life.as_millis()).expect("short") + 20;
        eventually("its time is over", || self.inbox.now_ms() > until);
    }
}

const LIFE: Duration = Duration::from_millis(300);

fn a_refused_payment_is_a_dead_letter_and_those_before_it_stay(home: Home) {
    let world = World::open(home);
    let first = world.post("01");
    let second = world.try_post("01", Some("wx-2"), "2").expect("accepted").mark;
    let third = world.post("01");
    let session = world.claim("01").session;
    assert_eq!(world.nack("01", &session, second), Ok(Booked::Refused));
    assert_eq!(world.nack("01", &session, second), Ok(Booked::Refused), "said again after a lost answer");
    let statuses = [1, 2, 3].map(|n| world.status("01", n));
    assert_eq!(statuses, [Status::Accepted, Status::Refused, Status::Accepted]);
    assert_eq!(world.find("01", seq(2)).expect("known").payment_id.as_deref(), Some("wx-2"), "it is still held");
    assert_eq!(world.find_id("01", "wx-2").expect("known").status, Status::Refused);
    let again = world.try_post("01", Some("wx-2"), "2").expect("known");
    assert_eq!((again.mark.seq, again.duplicate, again.status), (Seq(2), true, Status::Refused));
    assert_eq!(world.try_post("01", Some("wx-2"), "3"), Err(Error::IdReused));
    let record = world.record("01").expect("known");
    assert_eq!((record.acked, record.pending, record.dead_letters), (Seq(0), 2, 1));
    assert_eq!(world.slice("01", &session, Mark::default(), 9, 9999), (vec![first, third], third));
    let letters = world.letters("01");
    assert_eq!(letters.len(), 1);
    let Letter { status, dead_at, maybe_delivered, reason, entry } = &letters[0];
    assert_eq!((*status, *maybe_delivered, reason.as_str()), (Status::Refused, false, "unknown order"));
    assert!(*dead_at >= second.accepted_at && entry.mark == second, "{letters:?}");
    assert_eq!(world.heard.lock().iter().filter(|heard| *heard == "refused 01 2").count(), 1);
}

fn an_ack_passes_over_dead_letters_and_none_counts_twice(home: Home) {
    let world = World::with(home, 6, 3600 * SECOND);
    let sent: Vec<Mark> = (0..6).map(|_| world.post("01")).collect();
    let session = world.claim("01").session;
    for n in [1, 3, 4] {
        assert_eq!(world.nack("01", &session, sent[n]), Ok(Booked::Refused));
    }
    assert_eq!(world.ack("01", &session, sent[0]), Ok(Booked::Passed(Seq(2))), "the place behind it goes as well");
    let record = world.record("01").expect("known");
    assert_eq!((record.pending, record.dead_letters), (2, 3));
    assert_eq!(world.slice("01", &session, sent[1], 9, 9999), (vec![sent[2], sent[5]], sent[5]));
    assert_eq!(world.ack("01", &session, sent[5]), Ok(Booked::Passed(Seq(6))));
    let record = world.record("01").expect("known");
    assert_eq!((record.acked, record.pending, record.dead_letters), (Seq(6), 0, 3));
    let statuses: Vec<&str> = (1..=6).map(|n| world.status("01", n).as_str()).collect();
    assert_eq!(statuses, ["acknowledged", "refused", "acknowledged", "refused", "refused", "acknowledged"]);
    assert_eq!(world.nack("01", &session, sent[5]), Ok(Booked::Settled), "what is acknowledged stays so");
    // Three are held, so three more have room; and with the dead ones gone, six.
    for n in 7..=9 {
        assert_eq!(world.post("01").seq, Seq(n));
    }
    assert_eq!(world.try_post("01", None, "1"), Err(Error::InboxFull));
    for n in [2, 4, 5] {
        assert_eq!(world.purge("01", n), Some(Status::Purged));
    }
    let more = [world.post("01"), world.post("01"), world.post("01")];
    assert_eq!(world.try_post("01", None, "1"), Err(Error::InboxFull));
    assert_eq!(world.ack("01", &session, more[2]), Ok(Booked::Acknowledged(Seq(12))), "all is plain again");
    let next = world.post("01");
    assert_eq!(world.ack("01", &session, next), Ok(Booked::Acknowledged(Seq(13))));
    assert_eq!(world.record("01").expect("known").dead_letters, 0);
}

fn a_refusal_is_fenced_like_an_ack(home: Home) {
    let world = World::open(home);
    let sent = [world.post("01"), world.post("01")];
    let old = world.claim("01").session;
    let new = world.claim("01").session;
    assert_eq!(world.nack("01", &old, sent[0]), Ok(Booked::Replaced));
    assert_eq!(world.status("01", 1), Status::Accepted);
    let wrong = Mark { accepted_at: sent[0].accepted_at + 1, ..sent[0] };
    assert_eq!(world.nack("01", &new, wrong), Ok(Booked::RolledBack));
    assert_eq!((world.status("01", 1), world.letters("01")), (Status::Accepted, vec![]));
}

fn an_operator_gets_past_a_payment_once(home: Home) {
    let world = World::open(home);
    let sent = [world.post("01"), world.post("01"), world.post("01")];
    let session = world.claim("01").session;
    assert_eq!(world.refuse("01", 1), Some((Status::Refused, true)));
    assert_eq!(world.refuse("01", 1), Some((Status::Refused, false)));
    assert_eq!(world.record("01").expect("known").acked, Seq(1), "the head is never a dead letter's place");
    assert_eq!(world.slice("01", &session, Mark::default(), 9, 9999).0, sent[1..]);
    assert_eq!(world.ack("01", &session, sent[1]), Ok(Booked::Passed(Seq(2))));
    assert_eq!(world.refuse("01", 2), Some((Status::Acknowledged, false)));
    assert_eq!(world.refuse("01", 3), Some((Status::Refused, true)));
    assert_eq!(world.slice("01", &session, sent[1], 9, 9999), (vec![], sent[2]));
    assert_eq!((world.refuse("01", 4), world.refuse("01", 0), world.refuse("02", 1)), (None, None, None));
    // A place that became a dead letter's is still known as what it was.
    assert_eq!(world.slice("01", &session, sent[2], 9, 9999), (vec![], sent[2]));
    let fourth = world.post("01");
    assert_eq!(world.slice("01", &session, sent[2], 9, 9999), (vec![fourth], fourth));
}

fn dead_letters_are_listed_in_order_and_in_pages(home: Home) {
    let world = World::open(home);
    for _ in 0..12 {
        world.post("01");
    }
    for n in [9, 10, 2, 11, 5] {
        world.refuse("01", n);
    }
    assert_eq!(world.purge("01", 10), Some(Status::Purged));
    let page = |after, most, bytes| {
        let page = world.inbox.dead_letters(&client("01"), Seq(after), most, bytes).expect("a word").expect("known");
        let seqs: Vec<u64> = page.letters.iter().map(|letter| letter.entry.mark.seq.0).collect();
        (seqs, page.more)
    };
    assert_eq!(page(0, 100, usize::MAX), (vec![2, 5, 9, 11], false));
    assert_eq!(page(0, 2, usize::MAX), (vec![2, 5], true));
    assert_eq!(page(5, 2, usize::MAX), (vec![9, 11], false));
    assert_eq!(page(0, 100, 1), (vec![2], true), "at least one comes");
    assert_eq!(page(11, 100, usize::MAX), (vec![], false));
    assert_eq!(world.inbox.dead_letters(&client("02"), Seq(0), 9, 9), Ok(None));
}

fn a_dead_letter_put_back_is_a_new_payment(home: Home) {
    let world = World::with(home, 2, 3600 * SECOND);
    let first = world.try_post("01", Some("wx-1"), "1").expect("accepted").mark;
    let second = world.post("01");
    let session = world.claim("01").session;
    world.nack("01", &session, first).expect("refused");
    let Retry::Accepted(again, id) = world.retry("01", 1) else { panic!("a dead letter") };
    assert_eq!((again.mark.seq, again.duplicate, again.online, id.as_deref()), (Seq(3), false, true, Some("wx-1")));
    assert!(again.mark.accepted_at >= second.accepted_at);
    assert_eq!(world.status("01", 1), Status::Retried(Seq(3)));
    assert_eq!(world.find_id("01", "wx-1").expect("known").status, Status::Retried(Seq(3)));
    let repeat = world.try_post("01", Some("wx-1"), "1").expect("known");
    assert_eq!((repeat.mark.seq, repeat.status), (Seq(1), Status::Retried(Seq(3))));
    assert_eq!(world.letters("01"), vec![]);
    let (entries, last) = world.slice("01", &session, first, 9, 9999);
    assert_eq!((entries, last), (vec![second, again.mark], again.mark));
    assert_eq!(world.retry("01", 1), Retry::Gone(Status::Retried(Seq(3))), "once");
    assert_eq!(
        (world.retry("01", 2), world.retry("01", 9), world.retry("02", 1)),
        (Retry::Unknown, Retry::Unknown, Retry::Unknown)
    );
    assert_eq!(world.try_post("01", None, "1"), Err(Error::InboxFull), "it takes the room that it took before");
    world.ack("01", &session, again.mark).expect("acknowledged");
    assert_eq!(world.record("01").map(|r| (r.pending, r.dead_letters)), Some((0, 0)));
    assert_eq!(world.status("01", 3), Status::Acknowledged);
}

fn a_purged_dead_letter_leaves_a_word_for_the_window(home: Home) {
    let world = World::with(home, 10, Duration::from_millis(200));
    world.post("01");
    world.refuse("01", 1);
    assert_eq!(world.purge("01", 1), Some(Status::Purged));
    assert_eq!((world.status("01", 1), world.letters("01")), (Status::Purged, vec![]));
    assert_eq!(world.purge("01", 1), Some(Status::Purged), "said again after a lost answer");
    assert_eq!(world.retry("01", 1), Retry::Gone(Status::Purged));
    assert_eq!((world.purge("01", 2), world.purge("02", 1)), (None, None));
    // Words go when dead letters are touched, and their time is over.
    eventually("the word is forgotten", || {
        let next = world.post("01").seq.0;
        world.refuse("01", next);
        world.purge("01", next);
        world.purge("01", 1).is_none()
    });
}

fn behind_what_is_not_acknowledged_words_outlive_the_window_and_payment_ids_do_not(home: Home) {
    const WINDOW: Duration = Duration::from_millis(400);
    let world = World::with(home, 200, WINDOW);
    let head = world.post("01");
    let purged = world.try_post("01", Some("wx-purged"), "1").expect("accepted").mark;
    let retried = world.try_post("01", Some("wx-retried"), "1").expect("accepted").mark;
    for n in [2, 3] {
        world.refuse("01", n);
    }
    assert_eq!(world.purge("01", 2), Some(Status::Purged));
    let Retry::Accepted(again, _) = world.retry("01", 3) else { panic!("a dead letter") };
    let ids = ["wx-purged", "wx-retried"];
    assert!(ids.iter().all(|id| world.try_post("01", Some(id), "1").expect("known").duplicate), "within the window");

    // Words go when dead letters are touched, and their time is over; these must not, for their places are still there.
    world.pass_time(again.mark, WINDOW);
    for n in 5..=100 {
        assert_eq!(world.post("01").seq, Seq(n));
        world.refuse("01", n);
        world.purge("01", n);
    }
    let new = ids.map(|id| world.try_post("01", Some(id), "2").expect("accepted"));
    assert!(new.iter().all(|accepted| !accepted.duplicate && accepted.status == Status::Accepted), "{new:?}");
    assert_eq!(new.each_ref().map(|accepted| accepted.mark.seq), [Seq(101), Seq(102)]);
    let statuses = [1, 2, 3, 4].map(|n| world.status("01", n));
    assert_eq!(statuses, [Status::Accepted, Status::Purged, Status::Retried(Seq(4)), Status::Accepted]);
    assert_eq!(ids.map(|id| world.find_id("01", id).expect("known").seq), [Seq(101), Seq(102)]);

    let session = world.claim("01").session;
    let expected = vec![head, again.mark, new[0].mark, new[1].mark];
    let (read, last) = world.slice("01", &session, Mark::default(), 99, 9999);
    assert_eq!((read, last), (expected, new[1].mark));
    for place in [purged, retried] {
        assert_eq!(
            world.slice("01", &session, place, 1, 9999).0,
            [again.mark],
            "a place is still known as what it was"
        );
    }
    assert_eq!(world.ack("01", &session, new[1].mark), Ok(Booked::Passed(Seq(102))));
    assert_eq!(world.record("01").map(|r| (r.pending, r.dead_letters)), Some((0, 0)));
}

fn dead_letters_fill_the_inbox_until_they_are_purged(home: Home) {
    let world = World::with(home, 2, 3600 * SECOND);
    world.post("01");
    world.post("01");
    for n in [1, 2] {
        world.refuse("01", n);
    }
    assert_eq!(world.record("01").map(|r| (r.pending, r.dead_letters)), Some((0, 2)));
    assert_eq!(world.try_post("01", None, "1"), Err(Error::InboxFull));
    world.purge("01", 2);
    assert_eq!(world.post("01").seq, Seq(3));
    assert_eq!(world.try_post("01", None, "1"), Err(Error::InboxFull));
}

fn a_retired_clients_dead_letters_go_with_it(home: Home) {
    let world = World::open(home);
    world.post("01");
    world.post("01");
    for n in [1, 2] {
        world.refuse("01", n);
    }
    world.purge("01", 2);
    assert_eq!(world.inbox.retire(&client("01"), false), Ok(Retired::Done), "nothing is pending");
    world.post("01");
    assert_eq!((world.letters("01"), world.status("01", 1)), (vec![], Status::Accepted));
    if home == Home::Redis {
        let keys: Vec<String> = world.server().ask(&["KEYS", "payrelay:{01}:*"]);
        assert_eq!(keys.len(), 2, "{keys:?}");
    }
}

fn an_expired_payment_is_not_read_but_dead(home: Home) {
    let world = World::open(home);
    let first = world.post("01");
    let second = world.post_expiring("01", None, LIFE);
    let third = world.post_expiring("01", None, 3600 * SECOND);
    let session = world.claim("01").session;
    assert_eq!(world.slice("01", &session, Mark::default(), 9, 9999).0, [first, second, third]);
    world.pass_time(second, LIFE);
    // Only what lies behind the place was not sent.
    assert_eq!(world.slice("01", &session, first, 9, 9999), (vec![third], third));
    assert_eq!((world.status("01", 2), world.status("01", 3)), (Status::Expired, Status::Accepted));
    let letters = world.letters("01");
    assert!(letters.len() == 1 && !letters[0].maybe_delivered && letters[0].reason.is_empty(), "{letters:?}");
    assert_eq!(*world.heard.lock(), ["expired 01 2"]);
    assert_eq!(world.ack("01", &session, third), Ok(Booked::Passed(Seq(3))));
    assert_eq!(world.status("01", 2), Status::Expired);
}

fn whoever_looks_finds_an_expired_payment_dead(home: Home) {
    let world = World::open(home);
    world.post_expiring("01", Some("wx-1"), LIFE);
    world.post_expiring("02", Some("wx-1"), LIFE);
    let third = world.post_expiring("03", None, LIFE);
    let left = world.find("01", seq(1)).expect("known").due_in.expect("it will expire");
    assert!(left <= LIFE + EXPIRY_GRACE, "{left:?}");
    let held = world.claim("03").session;
    world.pass_time(third, LIFE);
    assert_eq!((world.status("01", 1), world.letters("01").len()), (Status::Expired, 1));
    let again = world.try_post("02", Some("wx-1"), "1").expect("known");
    assert_eq!((again.duplicate, again.status), (true, Status::Expired));
    assert_eq!(world.find("01", seq(1)).expect("known").due_in, None);
    // Of a connected client the holder's word may still be on its way; a moment later it is not.
    world.expect_expired_though_held("03", 1);
    assert!(!world.letters("03")[0].maybe_delivered);
    assert_eq!(world.slice("03", &held, Mark::default(), 9, 99), (vec![], third));
}

fn what_was_sent_in_time_expires_only_with_its_session(home: Home) {
    let world = World::open(home);
    let sent = ["acked", "left", "taken"].map(|name| world.post_expiring(name, None, LIFE));
    let sessions = ["acked", "left", "taken"].map(|name| world.claim(name).session);
    (0..3).for_each(|n| world.sent(["acked", "left", "taken"][n], &sessions[n], sent[n]));
    world.post_expiring("unsent", None, LIFE);
    world.claim("unsent");
    world.expect_expired_though_held("unsent", 1);
    for name in ["acked", "left", "taken"] {
        assert_eq!(world.status(name, 1), Status::Accepted, "its connection lives");
    }
    assert_eq!(world.ack("acked", &sessions[0], sent[0]), Ok(Booked::Acknowledged(Seq(1))));
    assert_eq!(world.status("acked", 1), Status::Acknowledged);

    world.release("left", &sessions[1]).expect("released");
    assert_eq!(world.status("left", 1), Status::Expired);
    assert!(world.letters("left")[0].maybe_delivered);

    let next = world.claim("taken").session;
    assert_eq!(world.slice("taken", &next, Mark::default(), 9, 99).0, []);
    assert_eq!(world.status("taken", 1), Status::Expired);
    assert!(world.letters("taken")[0].maybe_delivered);
    // What is said too late of it changes nothing.
    world.sent("taken", &sessions[2], sent[2]);
    assert_eq!(world.status("taken", 1), Status::Expired);
}

// From here on: what only Redis can do to us.

const KEYS: [&str; 7] = ["state", "inbox", "beside", "id:wx-1", "dead", "letters", "words"];

impl Server {
    fn key(name: &str, key: &str) -> String {
        format!("payrelay:{{{name}}}:{key}")
    }

    /// Everything that is stored for a client, byte for byte.
    fn image(&self, name: &str) -> Vec<Option<Vec<u8>>> {
        KEYS.iter().map(|key| self.ask(&["DUMP", &Server::key(name, key)])).collect()
    }

    /// Puts something else in the place of one key.
    fn spoil(&self, name: &str, key: &str, words: &[&str]) {
        let key = Server::key(name, key);
        self.ask::<()>(&["DEL", &key]);
        let mut all = vec![words[0], &key];
        all.extend(&words[1..]);
        self.ask::<::redis::Value>(&all);
    }
}

impl World {
    /// A payment with an id for which somebody on this node waits.
    fn try_post_awaited(&self, name: &str, id: &str) -> Result<Accepted, Error> {
        let (tx, rx) = mpsc::channel();
        let mut awaited = deposit(payment(name, Some(id), "1"), move |result| drop(tx.send(result)));
        awaited.receipt = true;
        self.inbox.accept(awaited);
        rx.recv_timeout(LONG).expect("an answer")
    }
}

/// Another's text in the list, though as many as there should be.
const FOREIGN: [&str; 2] = ["RPUSH", "not an entry"];

#[test]
fn junk_in_a_clients_keys_is_that_clients_trouble_alone() {
    let world = World::open(Home::Redis);
    let server = Arc::clone(world.server());
    // Which key, what stands there instead, and which calls are to say so.
    let cases: [(&str, &[&str], &[&str]); 19] = [
        ("state", &["SET", "junk"], &["post", "await", "claim", "ack", "read", "find", "record", "release"]),
        ("state", &["SET", ""], &["post", "await", "claim", "ack", "read", "find", "record", "release"]),
        ("state", &["SET", "3 1 1 9 0 0 0 0 0 0 1 1 1 x n1/x"], &["post", "claim", "ack", "read", "find", "record"]),
        ("state", &["SET", "2 -1 1 9 0 0 0 0 0 0 1 1 1 x n1/x"], &["post", "claim", "ack", "read", "find", "record"]),
        ("state", &["HSET", "a", "b"], &["post", "await", "claim", "ack", "read", "find", "record", "release"]),
        ("inbox", &["SET", "junk"], &["post", "await", "claim", "ack", "read", "find", "record"]),
        ("inbox", &["HSET", "a", "b"], &["post", "await", "claim", "ack", "read", "find", "record"]),
        ("inbox", &FOREIGN, &["ack", "read"]),
        ("inbox", &["RPUSH", "9 1 0 9 20 x"], &["ack", "read"]),
        ("inbox", &["RPUSH", "a", "b"], &["claim", "ack", "read"]),
        ("beside", &["SET", "junk"], &["await", "claim", "ack", "record", "release"]),
        ("beside", &["HSET", "since", "lately"], &["claim"]),
        ("id:wx-1", &["HSET", "a", "b"], &["repeat", "find id"]),
        ("id:wx-1", &["SET", "junk"], &[]),
        ("dead", &["SET", "junk"], &["repeat", "find", "find id", "refuse", "purge", "retry"]),
        ("dead", &["HSET", "1", "junk"], &["repeat", "find", "find id", "refuse", "purge", "retry"]),
        ("letters", &["SET", "junk"], &["refuse", "list"]),
        ("letters", &["ZADD", "1", "1"], &["list"]),
        ("words", &["SET", "junk"], &["refuse"]),
    ];
    for (number, (key, junk, troubled)) in cases.into_iter().enumerate() {
        let (name, other) = (format!("c{number}"), format!("other-{number}"));
        let (name, other) = (name.as_str(), other.as_str());
        let mark = world.try_post_awaited(name, "wx-1").expect("accepted").mark;
        let session = world.claim(name).session;
        let others = world.post(other);
        let others_session = world.claim(other).session;
        server.spoil(name, key, junk);

        let check = |what: &str, call: &mut dyn FnMut() -> Result<(), Error>| {
            let before = server.image(name);
            let outcome = call();
            let case = format!("{key} {junk:?}: {what}: {outcome:?}");
            if troubled.contains(&what) {
                assert!(matches!(outcome, Err(Error::Corrupt(_))), "{case}");
            }
            if outcome.is_err() {
                assert_eq!(server.image(name), before, "{case}: half-changed");
            }
        };
        let some = |outcome: Result<Accepted, Error>| outcome.map(|_| ());
        check("post", &mut || some(world.try_post(name, None, "1")));
        check("await", &mut || some(world.try_post_awaited(name, "wx-2")));
        check("repeat", &mut || some(world.try_post(name, Some("wx-1"), "1")));
        check("find", &mut || {
            let query = Query { client: client(name), which: seq(1) };
            world.inbox.look_up(&[query]).remove(0).map(|_| ())
        });
        check("find id", &mut || {
            let query = Query { client: client(name), which: Which::PaymentId(payment_id("wx-1")) };
            world.inbox.look_up(&[query]).remove(0).map(|_| ())
        });
        check("record", &mut || world.inbox.records(&[client(name)]).remove(0).map(|_| ()));
        check("read", &mut || world.read(name, &session, Mark::default(), 9, usize::MAX).map(|_| ()));
        check("list", &mut || world.inbox.dead_letters(&client(name), Seq(0), 9, 99).map(|_| ()));
        check("purge", &mut || world.inbox.purge(&client(name), Seq(1)).map(|_| ()));
        check("retry", &mut || world.inbox.retry(&client(name), Seq(1)).map(|_| ()));
        check("refuse", &mut || world.inbox.refuse(&client(name), Seq(1), "operator").map(|_| ()));
        check("ack", &mut || world.ack(name, &session, mark).map(|_| ()));
        check("claim", &mut || world.book_one(claim(name)).map(|_| ()));
        check("release", &mut || world.release(name, &session).map(|_| ()));

        let notes = [claim(name), ack(name, &session, mark), ack(other, &others_session, others)];
        let booked = world.inbox.book(&notes);
        assert_eq!(booked[2], Ok(Booked::Acknowledged(Seq(1))), "{key} {junk:?}: others go on");
        assert_eq!(world.post(other).seq, Seq(2), "{key} {junk:?}: others go on");
        assert_eq!(world.inbox.retire(&client(name), true), Ok(Retired::Done), "{key} {junk:?}: it can be discarded");
        assert_eq!(world.post(name).seq, Seq(1), "{key} {junk:?}: and begins anew");
    }
}

#[test]
fn junk_of_one_client_hides_no_other_that_waits() {
    let world = World::open(Home::Redis);
    let marks = ["a", "b", "c"].map(|name| world.post(name));
    world.expect_waiting(&["a", "b", "c"]);
    world.server().spoil("a", "state", &["SET", "junk"]);
    world.post("d");
    let session = world.claim("b").session;
    world.ack("b", &session, marks[1]).expect("acknowledged");
    eventually("c and d wait, and b does not", || {
        world.inbox.tend();
        let listed = world.inbox.waiting(None, 100).expect("a list");
        listed.iter().filter(|c| c.as_str() != "a").map(ClientId::as_str).eq(["c", "d"])
    });
}

#[test]
fn who_waits_is_listed_though_redis_was_away_when_it_was_looked_at() {
    let world = World::open(Home::Redis);
    world.inbox.tend();
    world.post("01");
    let server = world.server();
    server.signal(Signal::STOP);
    // It is looked at after five seconds; by then nothing is answered.
    let until = Instant::now() + 6 * SECOND;
    while Instant::now() < until {
        world.inbox.tend();
        thread::sleep(Duration::from_millis(50));
    }
    server.signal(Signal::CONT);
    world.expect_waiting(&["01"]);
}

#[test]
fn scripts_that_redis_forgot_are_no_error() {
    let world = World::open(Home::Redis);
    let server = Arc::clone(world.server());
    let flush = || server.ask::<()>(&["SCRIPT", "FLUSH"]);
    flush();
    let session = world.claim("01").session;
    flush();
    let first = world.try_post("01", Some("wx-1"), "1").expect("accepted").mark;
    flush();
    assert!(world.try_post("01", Some("wx-1"), "1").expect("known").duplicate);
    flush();
    assert_eq!(world.slice("01", &session, Mark::default(), 9, 99), (vec![first], first));
    flush();
    assert_eq!(world.find("01", seq(1)).expect("known").status, Status::Accepted);
    flush();
    let booked = world.inbox.book(&[ack("01", &session, first), claim("02"), claim("03")]);
    assert!(booked[0] == Ok(Booked::Acknowledged(Seq(1))) && booked.iter().all(Result::is_ok), "{booked:?}");
    flush();
    assert_eq!(world.release("01", &session), Ok(Booked::Released));
    flush();
    assert_eq!(world.inbox.tend(), Tended::Fine);
    flush();
    assert_eq!(world.inbox.retire(&client("01"), false), Ok(Retired::Done));
    flush();
    assert_eq!(world.post("01").seq, Seq(1));
}

#[test]
fn payments_are_stored_once_while_scripts_are_forgotten_all_the_time() {
    let world = World::open(Home::Redis);
    let server = Arc::clone(world.server());
    let over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                server.ask::<()>(&["SCRIPT", "FLUSH"]);
            }
        });
        // One that was forgotten again between its loading and its call was not run, and says so.
        let accepted = |_| match world.try_post("01", None, "1") {
            Ok(_) => 1,
            outcome if not_stored(&outcome) => 0,
            outcome => panic!("neither stored nor certainly not: {outcome:?}"),
        };
        let senders: Vec<_> = (0..4).map(|_| scope.spawn(move || (0..100).map(accepted).sum::<u64>())).collect();
        let outcomes: Vec<_> = senders.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        let accepted: u64 = outcomes.into_iter().map(|sender| sender.expect("no panic")).sum();
        assert!(accepted >= 100, "{accepted} of 400");
        assert_eq!(world.record("01").expect("known").last, Seq(accepted), "none is stored twice");
    });
}

#[test]
fn large_numbers_stay_exact() {
    const AT: u64 = (1 << 53) - 1000;
    let world = World::open(Home::Redis);
    for n in [(1 << 31) - 2, (1 << 32) - 2, 99_999_999_999_999, 999_999_999_999_998, (1 << 53) - 9] {
        let name = format!("c{n}");
        let name = name.as_str();
        let bytes = n.min(AT) - 60;
        let state = format!("2 {n} {AT} {bytes} {n} {n} {bytes} 0 {AT} 0 {n} {n} {n} - -");
        world.server().spoil(name, "state", &["SET", &state]);
        let fields = || -> Vec<u64> {
            let text: String = world.server().ask(&["GET", &Server::key(name, "state")]);
            text.split(' ').filter_map(|word| word.parse().ok()).collect()
        };
        let at = |seq| Mark { seq: Seq(seq), accepted_at: AT };

        let claimed = world.claim(name);
        assert_eq!((claimed.session.number, claimed.session.epoch), (n + 1, n));
        assert_eq!((claimed.acked, claimed.last, claimed.pending), (at(n), at(n), 0));
        let sent = [world.try_post_awaited(name, "wx-1").expect("accepted").mark, world.post(name), world.post(name)];
        assert_eq!(sent, [at(n + 1), at(n + 2), at(n + 3)]);
        let again = world.try_post(name, Some("wx-1"), "1").expect("known");
        assert_eq!((again.mark, again.duplicate), (at(n + 1), true));
        assert_eq!(world.slice(name, &claimed.session, at(n), 9, 9999), (sent.to_vec(), sent[2]));
        assert_eq!(world.find(name, seq(n + 2)).expect("known").seq, Seq(n + 2));
        assert_eq!(world.find(name, seq(n + 4)), None);
        assert_eq!(world.ack(name, &claimed.session, sent[1]), Ok(Booked::Acknowledged(Seq(n + 2))));
        let record = world.record(name).expect("known");
        assert_eq!((record.last, record.acked, record.pending), (Seq(n + 3), Seq(n + 2), 1));
        let parcel = payment(name, None, "1").parcel.as_bytes().len() as u64;
        let first = payment(name, Some("wx-1"), "1").parcel.as_bytes().len() as u64;
        let (bytes_in, bytes_gone) = (bytes + first + 2 * parcel, bytes + first + parcel);
        assert_eq!(fields(), [2, n + 3, AT, bytes_in, n + 2, n + 2, bytes_gone, 0, AT, 0, n, n, n + 1]);
        let wrong = Mark { accepted_at: AT - 1, ..sent[2] };
        assert_eq!(world.ack(name, &claimed.session, wrong), Ok(Booked::RolledBack));
        let epoch = world.claim(name).session.epoch;
        assert!(epoch > n && (n < AT || epoch == n + 1), "{epoch} after {n}");
        let heard: Vec<String> = (1..=3).map(|more| format!("bell {name} {}", n + more)).collect();
        assert!(world.heard.lock().ends_with(&heard), "{heard:?}");
    }
}

#[test]
fn a_roll_back_ends_the_session_and_raises_the_epoch() {
    let world = World::open(Home::Redis);
    let first = world.post("01");
    let session = world.claim("01").session;
    let wrong = Mark { accepted_at: first.accepted_at + 1, ..first };
    assert_eq!(world.ack("01", &session, wrong), Ok(Booked::RolledBack));
    assert_ne!(world.ack("01", &session, first), Ok(Booked::Acknowledged(Seq(1))), "it must claim anew");
    assert_eq!(world.record("01").expect("known").acked, Seq(0));
    let anew = world.claim("01");
    assert!(anew.session.epoch > session.epoch && anew.session.number > session.number);
    assert_eq!(world.ack("01", &anew.session, first), Ok(Booked::Acknowledged(Seq(1))));
}

#[test]
fn a_claim_that_redis_sees_too_late_does_not_run() {
    let world = World::open(Home::Redis);
    world.claim("warm");
    let server = world.server();
    server.signal(Signal::STOP);
    let outcome = world.book_one(claim_until("01", Instant::now() + SECOND / 5));
    server.signal(Signal::CONT);
    assert!(matches!(outcome, Err(Error::Unavailable { stored: Stored::Unknown, .. })), "{outcome:?}");
    // By the second answer Redis has read all that had come before the first.
    (0..3).for_each(|_| server.ask::<()>(&["PING"]));
    assert_eq!(world.record("01"), None);
}

#[test]
fn another_nodes_client_is_rung_there_and_its_receipt_comes_here() {
    let here = World::open(Home::Redis);
    let there = here.beside("n2");
    there.inbox.tend();
    here.inbox.tend();
    let session = there.claim("01").session;
    let (tx, rx) = mpsc::channel();
    let mut subscriber = ::redis::Client::open(here.server().url()).expect("a URL").get_connection().expect("connects");
    subscriber.set_read_timeout(Some(LONG)).expect("a time limit");
    let mut subscriber = subscriber.as_pubsub();
    subscriber.psubscribe("payrelay:0:node:*").expect("subscribes");
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(message) = subscriber.get_message() {
                let text = String::from_utf8_lossy(message.get_payload_bytes()).into_owned();
                if tx.send((message.get_channel_name().to_owned(), text)).is_err()
                    || message.get_payload_bytes() == b"end"
                {
                    return;
                }
            }
        });
        let accepted = here.try_post_awaited("01", "wx-1").expect("accepted");
        assert!(accepted.online, "the other node lives");
        let (channel, text) = rx.recv_timeout(LONG).expect("a doorbell");
        assert_eq!(channel, "payrelay:0:node:n2");
        let bell = text.strip_prefix("doorbell ").and_then(|text| Bell::parse(text.as_bytes())).expect("a bell");
        assert_eq!((bell.client.as_str(), bell.previous_at, bell.entry.mark), ("01", 0, accepted.mark));
        assert!(here.heard.lock().is_empty() && there.heard.lock().is_empty(), "nobody is rung twice");

        let booked = there.ack("01", &session, accepted.mark);
        assert_eq!(booked, Ok(Booked::Acknowledged(Seq(1))));
        let receipt = ("payrelay:0:node:n1".to_owned(), "receipt/01/1 1".to_owned());
        assert_eq!(rx.recv_timeout(LONG).expect("a receipt"), receipt);

        // Taken over from here: the other node is told.
        let taken = here.claim("01").session;
        assert_eq!(there.ack("01", &session, accepted.mark), Ok(Booked::Replaced));
        let takeover = ("payrelay:0:node:n2".to_owned(), format!("takeover 01 {}", taken.number));
        assert_eq!(rx.recv_timeout(LONG).expect("a takeover"), takeover);
        here.server().ask::<i64>(&["PUBLISH", "payrelay:0:node:end", "end"]);
    });
}

#[test]
fn a_dead_nodes_clients_are_not_online() {
    let here = World::open(Home::Redis);
    let there = here.beside("n2");
    there.inbox.tend();
    here.inbox.tend();
    there.claim("01");
    assert!(here.try_post("01", None, "1").expect("accepted").online);
    there.inbox.leave();
    here.inbox.tend();
    assert!(!here.try_post("01", None, "1").expect("accepted").online);
    assert_eq!(here.record("01").expect("known").owner, None);
    assert_eq!(here.inbox.nodes(), ["n1"]);
}
