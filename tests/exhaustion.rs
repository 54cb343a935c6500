//! Running out of descriptors, threads or memory costs the one connection that needs them; all is well once it is over.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::node::{JSON, envelope};
use crate::harness::{
    Client, Home, Http, Line, Node, Redis, TempDir, eventually, eventually_some, http, limit, on_both_inboxes, pause,
};
use rustix::process::{Resource, getrlimit};

on_both_inboxes!(without_descriptors_who_comes_is_told_so, without_threads_who_comes_is_told_so);

/// How long we watch that a node which can take nobody does not spin.
const WATCH: Duration = Duration::from_secs(1);

/// A connection that stays open and has had its first answer.
fn try_sender(node: &Node) -> Option<Http> {
    let mut http = Http::try_connect(node.http()).ok()?;
    let answer = http.try_send("GET", "/healthz", &[], b"").ok()?;
    (answer.status == 200).then_some(http)
}

/// A client and a sender that are inside.
struct Inside {
    client: Client,
    sender: Http,
    seq: u64,
}

impl Inside {
    fn of(node: &Node) -> Inside {
        let client = node.client("inside");
        let sender = eventually_some("a sender that is inside", || try_sender(node));
        Inside { client, sender, seq: 0 }
    }

    /// Those that found the node ready have left.
    fn is_alone(&mut self) -> bool {
        let text = self.sender.send("GET", "/metrics", &[], b"").expect(200).text();
        text.contains("payrelay_connections_open{door=\"http\"} 1\n")
    }

    /// They notice nothing.
    #[track_caller]
    fn expect_service(&mut self, payments: u64) {
        for _ in 0..payments {
            self.seq += 1;
            let body = envelope("inside", &self.seq.to_string(), None);
            let answer = self.sender.send("POST", "/v1/payments", &[JSON], body.as_bytes());
            assert_eq!(answer.expect(202).seq(), self.seq);
            self.client.expect_payment(self.seq, &self.seq.to_string());
            self.client.ack(self.seq);
        }
    }
}

#[track_caller]
fn expect_refusals(node: &Node) {
    for _ in 0..20 {
        let body = envelope("outside", "1", None);
        let refused = http::request(node.http(), "POST", "/v1/payments", &[JSON], body.as_bytes());
        let refused = refused.expect_problem(503, "too_many_connections");
        assert!(refused.header("Retry-After").is_some(), "{}", refused.show());
        assert_eq!(refused.field("stored"), "no");
        node.connect_raw().expect_error("too_many_clients");
    }
}

/// Where nobody knocks and where somebody does, it waits.
#[track_caller]
fn expect_calm(node: &Node) {
    let (before, from) = (node.cpu_time(), Instant::now());
    while from.elapsed() < WATCH {
        pause();
    }
    let spent = node.cpu_time() - before;
    assert!(spent < WATCH / 2, "{spent:?} of processor time in {:?}", from.elapsed());
}

/// A new client is welcomed and a new sender's payment accepted.
#[track_caller]
fn expect_recovery(node: &Node, what: &str) {
    let from = Instant::now();
    let post = |address: SocketAddr| {
        let body = envelope("late", "1", None);
        let mut http = Http::try_connect(address).ok()?;
        let answer = http.try_send("POST", "/v1/payments", &[JSON], body.as_bytes()).ok()?;
        (answer.status == 202).then_some(())
    };
    eventually_some("a new sender is served", || post(node.http()));
    let mut client = eventually_some("a new client is welcomed", || Client::try_hello(node.tcp(), "late"));
    client.expect_payment(1, "1");
    println!("{what}: all was well {:?} after there were some again", from.elapsed());
    node.expect_unknown("outside");
}

fn without_descriptors_who_comes_is_told_so(home: Home) {
    let node = Node::start(home);
    let mut inside = Inside::of(&node);
    eventually("nobody else is there", || inside.is_alone());
    let had = node.descriptors();
    node.limit(Resource::Nofile, had);
    // A few can still be had.
    let _clients: Vec<Client> = (0..).map_while(|n| Client::try_hello(node.tcp(), &format!("other-{n}"))).collect();
    let _senders: Vec<Http> = (0..).map_while(|_| try_sender(&node)).collect();
    // Also where one door says no while the other does: neither takes what the other needs for that.
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| expect_refusals(&node));
        }
    });
    inside.expect_service(20);
    expect_calm(&node);
    node.limit(Resource::Nofile, had + 1000);
    expect_recovery(&node, "descriptors");
    inside.expect_service(1);
}

/// A user of this number has no processes but the test's.
const NOBODY: u32 = 61_234;
/// What such a user may have, threads counted: room for a node and a few connections.
const PROCESSES: usize = 120;

/// Processes that do nothing, so many that a node of their user can have no thread more.
struct Crowd(Vec<Child>);

impl Crowd {
    fn of(node: &Node) -> Crowd {
        let sleep = || Command::new("sleep").arg("600").uid(NOBODY).stdin(Stdio::null()).spawn().expect("root may");
        // A few more, for a thread of the node may just be ending.
        let crowd = Crowd((node.threads()..PROCESSES + 10).map(|_| sleep()).collect());
        // They are counted once they are this user's.
        eventually("the last of them is there", || {
            crowd
                .0
                .iter()
                .all(|child| std::fs::metadata(format!("/proc/{}", child.id())).is_ok_and(|p| p.uid() == NOBODY))
        });
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A node of a user who has nothing else, with its inboxes at `home`.
fn node_of_its_own_user(home: Home) -> Node {
    let dir = Arc::new(TempDir::new());
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), None).expect("root may");
    let limits = format!("ulimit -u {PROCESSES}");
    if home == Home::Redis {
        let redis = Redis::start();
        return Node::under_user(NOBODY, &limits, &["--redis", &redis.url()], Some(Arc::clone(&redis)), dir);
    }
    let data = dir.join("data").to_str().expect("UTF-8").to_owned();
    Node::under_user(NOBODY, &limits, &["--data-dir", &data], None, dir)
}

fn without_threads_who_comes_is_told_so(home: Home) {
    // Two nodes would be one user's.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // The limit is none for root; and it is the user's, so that anybody else is above one of 1 at once.
    let is_root = rustix::process::geteuid().is_root();
    let node = if is_root { node_of_its_own_user(home) } else { Node::start(home) };
    let mut inside = Inside::of(&node);
    eventually("nobody else is there", || inside.is_alone());
    let before = getrlimit(Resource::Nproc).current;
    let crowd = is_root.then(|| Crowd::of(&node));
    if !is_root {
        node.limit(Resource::Nproc, 1);
    }
    expect_refusals(&node);
    inside.expect_service(20);
    expect_calm(&node);
    drop(crowd);
    if !is_root {
        node.limit(Resource::Nproc, before.map_or(usize::MAX, |most| usize::try_from(most).expect("64 bits")));
    }
    expect_recovery(&node, "threads");
    inside.expect_service(1);
}

/// What does not get off the ground takes no memory: not from clients that do not read, nor from senders that do not
/// finish. The first cost the rest of a line each, the second the body as far as it came, up to a limit together.
#[test]
fn who_does_not_read_and_who_does_not_finish_take_little_memory() {
    const STALLED: usize = 20;
    const EACH: usize = 64;
    // On Redis, for the embedded inbox caches what it stores; its disk would only make this slow.
    let flags = ["--body-limit", "16777216", "--require-durability", "any"];
    let node = Node::on(&Redis::without_persistence(), "n1", &flags);
    let mut inside = Inside::of(&node);
    inside.expect_service(20);
    let before = node.memory();

    let msg = format!("\"{}\"", "x".repeat(64 << 10));
    let stalled: Vec<Client> = (0..STALLED)
        .map(|n| Client::hello_on(Line::connect_with_small_buffer(node.tcp()), &format!("s{n}"), ""))
        .collect();
    for n in 0..STALLED * EACH {
        eventually("it is accepted", || node.post(&format!("s{}", n % STALLED), &msg).status == 202);
    }
    let grown = node.memory().saturating_sub(before);
    let pending = STALLED * EACH * (64 << 10);
    // A line for each of them, and what the allocator keeps.
    let allowed = STALLED * (128 << 10) + (20 << 20);
    println!("{STALLED} clients that do not read, {} MiB for them: {} MiB more", pending >> 20, grown >> 20);
    assert!(grown < allowed, "{grown} bytes more with {pending} pending");

    // Far more bodies than there is room for.
    let most = limit("bodies together, past that");
    let part = vec![b'x'; 15 << 20];
    let mut refused = 0;
    let mut held = Vec::new();
    for _ in 0..most / part.len() + 8 {
        let mut http = node.http_client();
        let head = "POST /v1/clients/01/payments HTTP/1.1\r\nHost: x\r\nContent-Length: 16777216\r\n\r\n";
        http.write(head.as_bytes());
        match http.try_write(&part) {
            Ok(()) => held.push(http),
            Err(_) => refused += 1,
        }
    }
    let grown = node.memory().saturating_sub(before);
    println!("{} bodies begun, {refused} of them refused at once: {} MiB more", held.len() + refused, grown >> 20);
    assert!(grown < allowed + most + (64 << 20), "{grown} bytes more");
    inside.expect_service(20);
    eventually("those past the room are refused", || {
        let told = |http: &mut Http| http.try_answer(false).is_ok_and(|answer| answer.status == 503);
        refused += held.extract_if(.., |http| http.has_more() && told(http)).count();
        refused >= 8
    });
    drop((stalled, held));
    expect_recovery(&node, "memory");
}
