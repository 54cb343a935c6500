//! A home with nothing in it, what can be asked of it, and a real redis-server: for the tests of both homes.

use crate::doorbell::Hint;
use crate::inbox::disk::{DiskInbox, DiskOptions};
use crate::inbox::redis::durability::Demands;
use crate::inbox::redis::{Options, RedisInbox, Target};
use crate::inbox::*;
use crate::payment::{Channel, Content};
use ::redis::{FromRedisValue, ToRedisArgs};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// How long a test waits for what must happen.
pub(in crate::inbox) const LONG: Duration = Duration::from_secs(30);
pub(in crate::inbox) const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::inbox) enum Home {
    Disk,
    Redis,
}

/// An inbox with its committer, and what was heard of it.
pub(in crate::inbox) struct World {
    pub(in crate::inbox) inbox: Arc<dyn Inbox>,
    /// Bells and answers, in the order in which they came.
    pub(in crate::inbox) heard: Arc<Mutex<Vec<String>>>,
    pub(in crate::inbox) committer: Option<JoinHandle<()>>,
    pub(in crate::inbox) server: Option<Arc<Server>>,
    pub(in crate::inbox) _dir: Option<Dir>,
}

/// A directory of the test's own, gone with it.
pub(in crate::inbox) struct Dir(PathBuf);

impl Dir {
    pub(in crate::inbox) fn new() -> Dir {
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
pub(in crate::inbox) struct Server {
    pub(in crate::inbox) child: Mutex<Child>,
    pub(in crate::inbox) socket: PathBuf,
    pub(in crate::inbox) _dir: Dir,
}

impl Server {
    pub(in crate::inbox) fn start() -> Arc<Server> {
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

    pub(in crate::inbox) fn url(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub(in crate::inbox) fn try_ask<T: FromRedisValue>(&self, words: &[impl ToRedisArgs]) -> ::redis::RedisResult<T> {
        let mut connection = ::redis::Client::open(self.url())?.get_connection_with_timeout(LONG)?;
        connection.set_read_timeout(Some(LONG))?;
        let mut command = ::redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut connection)
    }

    #[track_caller]
    pub(in crate::inbox) fn ask<T: FromRedisValue>(&self, words: &[impl ToRedisArgs]) -> T {
        self.try_ask(words).unwrap_or_else(|e| panic!("Redis: {e}"))
    }

    pub(in crate::inbox) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.lock()), signal).expect("a signal to our own redis-server");
    }

    /// An inbox of a node on this Redis.
    pub(in crate::inbox) fn inbox(
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
pub(in crate::inbox) fn recorder(heard: &Arc<Mutex<Vec<String>>>) -> Box<dyn Fn(Hint) + Send + Sync> {
    let heard = Arc::clone(heard);
    Box::new(move |hint| match hint {
        Hint::Bells(bells) => {
            heard.lock().extend(bells.iter().map(|bell| format!("bell {} {}", bell.client, bell.entry.mark.seq)))
        }
        Hint::Died(client, seq, status) => heard.lock().push(format!("{} {client} {seq}", status.as_str())),
        Hint::Check(_) => {}
    })
}

pub(in crate::inbox) fn disk(
    dir: &Path,
    inbox_limit: u64,
    dedup_window: Duration,
    heard: &Arc<Mutex<Vec<String>>>,
) -> DiskInbox {
    let options = DiskOptions { inbox_limit, dedup_window, node: "n1".into() };
    let fatal = Box::new(|why| panic!("the disk failed: {why}"));
    DiskInbox::open(&dir.join("data"), options, recorder(heard), fatal).expect("opens")
}

impl World {
    pub(in crate::inbox) fn open(home: Home) -> World {
        World::with(home, 100_000, 3600 * SECOND)
    }

    pub(in crate::inbox) fn with(home: Home, inbox_limit: u64, dedup_window: Duration) -> World {
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
    pub(in crate::inbox) fn beside(&self, node: &str) -> World {
        let (server, heard) = (Arc::clone(self.server()), Arc::default());
        let inbox = Arc::new(server.inbox(node, 100_000, 3600 * SECOND, &heard));
        World::run(inbox, heard, Some(server), None)
    }

    pub(in crate::inbox) fn run(
        inbox: Arc<dyn Inbox>,
        heard: Arc<Mutex<Vec<String>>>,
        server: Option<Arc<Server>>,
        dir: Option<Dir>,
    ) -> World {
        let leading = Arc::clone(&inbox);
        let committer = Some(thread::spawn(move || leading.commit()));
        World { inbox, heard, committer, server, _dir: dir }
    }

    pub(in crate::inbox) fn server(&self) -> &Arc<Server> {
        self.server.as_ref().expect("a world with a Redis")
    }

    /// Has a payment stored and waits for its answer. `receipt`: somebody on this node waits for its end.
    #[track_caller]
    fn put(&self, payment: Payment, receipt: bool) -> Result<Accepted, Error> {
        let (tx, rx) = mpsc::channel();
        let deposit = deposit(payment, move |result| drop(tx.send(result)));
        self.inbox.accept(Deposit { receipt, ..deposit });
        rx.recv_timeout(LONG).expect("an answer")
    }

    #[track_caller]
    pub(in crate::inbox) fn try_post(&self, name: &str, id: Option<&str>, msg: &str) -> Result<Accepted, Error> {
        self.put(payment(name, id, msg), false)
    }

    #[track_caller]
    pub(in crate::inbox) fn post(&self, name: &str) -> Mark {
        self.try_post(name, None, "1").expect("accepted").mark
    }

    pub(in crate::inbox) fn book_one(&self, note: Note) -> Result<Booked, Error> {
        let mut booked = self.inbox.book(&[note]);
        assert_eq!(booked.len(), 1, "one answer for one note");
        booked.remove(0)
    }

    /// Claims, as often as it takes to have a turn.
    #[track_caller]
    pub(in crate::inbox) fn claim(&self, name: &str) -> Claimed {
        let deadline = Instant::now() + LONG;
        loop {
            match self.book_one(claim(name)) {
                Ok(Booked::Claimed(claimed)) => return claimed,
                Ok(Booked::TooSoon(wait)) if Instant::now() < deadline => thread::sleep(wait),
                other => panic!("not claimed: {other:?}"),
            }
        }
    }

    pub(in crate::inbox) fn ack(&self, name: &str, session: &Session, mark: Mark) -> Result<Booked, Error> {
        self.book_one(ack(name, session, mark))
    }

    pub(in crate::inbox) fn release(&self, name: &str, session: &Session) -> Result<Booked, Error> {
        self.book_one(Note::Release { client: client(name), session: session.clone() })
    }

    pub(in crate::inbox) fn read(
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
    pub(in crate::inbox) fn slice(
        &self,
        name: &str,
        session: &Session,
        after: Mark,
        payments: usize,
        bytes: usize,
    ) -> (Vec<Mark>, Mark) {
        match self.read(name, session, after, payments, bytes) {
            Ok(Reading::Slice(Slice { entries, last, .. })) => (entries.iter().map(|entry| entry.mark).collect(), last),
            other => panic!("no slice: {other:?}"),
        }
    }

    #[track_caller]
    pub(in crate::inbox) fn record(&self, name: &str) -> Option<Record> {
        self.inbox.records(&[client(name)]).remove(0).expect("a word")
    }

    #[track_caller]
    pub(in crate::inbox) fn find(&self, name: &str, which: Which) -> Option<Found> {
        self.inbox.look_up(&[Query { client: client(name), which }]).remove(0).expect("a word")
    }

    #[track_caller]
    pub(in crate::inbox) fn find_id(&self, name: &str, id: &str) -> Option<Found> {
        self.find(name, Which::PaymentId(payment_id(id)))
    }

    /// Waits until these clients, and no others, are listed as waiting.
    #[track_caller]
    pub(in crate::inbox) fn expect_waiting(&self, names: &[&str]) {
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
pub(in crate::inbox) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub(in crate::inbox) fn client(name: &str) -> ClientId {
    ClientId::parse(name).expect("a client id")
}

pub(in crate::inbox) fn payment_id(id: &str) -> PaymentId {
    PaymentId::parse(id).expect("a payment id")
}

pub(in crate::inbox) fn claim(name: &str) -> Note {
    claim_until(name, Instant::now() + LONG)
}

pub(in crate::inbox) fn claim_until(name: &str, deadline: Instant) -> Note {
    Note::Claim(Claim { client: client(name), token: Token::random(), address: "10.0.0.7:51312".into(), deadline })
}

pub(in crate::inbox) fn ack(name: &str, session: &Session, mark: Mark) -> Note {
    Note::Ack { client: client(name), session: session.clone(), mark }
}

pub(in crate::inbox) fn payment(name: &str, id: Option<&str>, msg: &str) -> Payment {
    let content = Content::json_text(msg.as_bytes()).expect("JSON");
    Payment::new(client(name), id.map(payment_id), &Channel::default(), &content)
}

pub(in crate::inbox) fn deposit(
    payment: Payment,
    done: impl FnOnce(Result<Accepted, Error>) + Send + 'static,
) -> Deposit {
    Deposit { payment, receipt: false, deadline: Instant::now() + LONG, done: Done::new(done) }
}

pub(in crate::inbox) fn seq(n: u64) -> Which {
    Which::Seq(Seq(n))
}

pub(in crate::inbox) fn not_stored<T: fmt::Debug>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Unavailable { stored: Stored::No, .. }))
}

impl World {
    pub(in crate::inbox) fn nack(&self, name: &str, session: &Session, mark: Mark) -> Result<Booked, Error> {
        let (client, session, reason) = (client(name), session.clone(), "unknown order".to_owned());
        self.book_one(Note::Refuse { client, session, mark, reason })
    }

    pub(in crate::inbox) fn sent(&self, name: &str, session: &Session, mark: Mark) {
        let note = Note::Sent { client: client(name), session: session.clone(), mark };
        assert_eq!(self.book_one(note), Ok(Booked::Noted));
    }

    #[track_caller]
    pub(in crate::inbox) fn refuse(&self, name: &str, n: u64) -> Option<(Status, bool)> {
        self.inbox.refuse(&client(name), Seq(n), "operator").expect("a word")
    }

    #[track_caller]
    pub(in crate::inbox) fn letters(&self, name: &str) -> Vec<Letter> {
        self.inbox.dead_letters(&client(name), Seq(0), 100, usize::MAX).expect("a word").expect("known").letters
    }

    #[track_caller]
    pub(in crate::inbox) fn status(&self, name: &str, n: u64) -> Status {
        self.find(name, seq(n)).expect("known").status
    }

    #[track_caller]
    pub(in crate::inbox) fn retry(&self, name: &str, n: u64) -> Retry {
        self.inbox.retry(&client(name), Seq(n)).expect("a word")
    }

    #[track_caller]
    pub(in crate::inbox) fn purge(&self, name: &str, n: u64) -> Option<Status> {
        self.inbox.purge(&client(name), Seq(n)).expect("a word")
    }

    /// Posts a payment that expires after so long.
    #[track_caller]
    pub(in crate::inbox) fn post_expiring(&self, name: &str, id: Option<&str>, life: Duration) -> Mark {
        let payment = Payment { expires_in: Some(life), ..payment(name, id, "1") };
        self.put(payment, false).expect("accepted").mark
    }

    /// Waits until others than the session that holds a client find its payment past its time. It was not sent; and
    /// its node, which is ours, must have been seen for long enough.
    #[track_caller]
    pub(in crate::inbox) fn expect_expired_though_held(&self, name: &str, n: u64) {
        eventually("a held one that was not sent expires", || {
            self.inbox.tend();
            self.status(name, n) == Status::Expired
        });
    }

    /// Waits until a payment is past its time by a margin.
    pub(in crate::inbox) fn pass_time(&self, mark: Mark, life: Duration) {
        let until = mark.accepted_at + u64::try_from(life.as_millis()).expect("short") + 20;
        eventually("its time is over", || self.inbox.now_ms() > until);
    }
}

pub(in crate::inbox) const KEYS: [&str; 7] = ["state", "inbox", "beside", "id:wx-1", "dead", "letters", "words"];

impl Server {
    pub(in crate::inbox) fn key(name: &str, key: &str) -> String {
        format!("payrelay:{{{name}}}:{key}")
    }

    /// Everything that is stored for a client, byte for byte.
    pub(in crate::inbox) fn image(&self, name: &str) -> Vec<Option<Vec<u8>>> {
        KEYS.iter().map(|key| self.ask(&["DUMP", &Server::key(name, key)])).collect()
    }

    /// Puts something else in the place of one key.
    pub(in crate::inbox) fn spoil(&self, name: &str, key: &str, words: &[&str]) {
        let key = Server::key(name, key);
        self.ask::<()>(&["DEL", &key]);
        let mut all = vec![words[0], &key];
        all.extend(&words[1..]);
        self.ask::<::redis::Value>(&all);
    }
}

impl World {
    /// A payment with an id for which somebody on this node waits.
    #[track_caller]
    pub(in crate::inbox) fn try_post_awaited(&self, name: &str, id: &str) -> Result<Accepted, Error> {
        self.put(payment(name, Some(id), "1"), true)
    }
}
