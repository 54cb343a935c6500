//! What a node cannot hold it refuses in words; who is inside is served all the same, and who leaves makes room.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use crate::harness::line_client::hello;
use crate::harness::node::{JSON, envelope, ready_line};
use crate::harness::{
    Answer, Client, Home, Http, Line, Next, Node, PATIENCE, READ_LIMIT, Redis, TempDir, eventually, eventually_some,
    http, on_both_inboxes, pause,
};

on_both_inboxes!(
    a_third_http_connection_is_refused_while_there_may_be_two,
    a_third_client_is_refused_while_there_may_be_two,
    a_node_with_few_descriptors_refuses_and_lives,
    running_out_of_descriptors_ends_no_acceptor,
);

/// A connection that stays open and has had its first answer. None where it was refused.
fn inside(addr: SocketAddr) -> Option<Http> {
    let mut http = Http::try_connect(addr).ok()?;
    let answer = http.try_send("GET", "/healthz", &[], b"").ok()?;
    (answer.status == 200).then_some(http)
}

#[track_caller]
fn expect_too_many(answer: Answer) {
    let answer = answer.expect_problem(503, "too_many_connections");
    let wait = answer.header("Retry-After").unwrap_or_default();
    assert!(wait.parse::<u32>().is_ok(), "{}", answer.show());
}

fn a_third_http_connection_is_refused_while_there_may_be_two(home: Home) {
    let node = Node::with(home, &["--max-http", "2"]);
    // The one that found the node ready may not have left yet.
    let mut first = eventually_some("a place", || inside(node.http()));
    let mut second = eventually_some("a place", || inside(node.http()));
    for _ in 0..5 {
        expect_too_many(http::request(node.http(), "GET", "/healthz", &[], b""));
        let body = envelope("01", "1", None);
        expect_too_many(http::request(node.http(), "POST", "/v1/payments", &[JSON], body.as_bytes()));
    }
    // Nothing of it was stored, and who is inside is served.
    first.send("GET", "/v1/clients/01", &[], b"").expect_problem(404, "not_found");
    let body = envelope("01", "1", None);
    assert_eq!(second.send("POST", "/v1/payments", &[JSON], body.as_bytes()).expect(202).seq(), 1);

    drop(first);
    let mut third = eventually_some("a place is free again", || inside(node.http()));
    assert_eq!(third.send("POST", "/v1/payments", &[JSON], body.as_bytes()).expect(202).seq(), 2);
    expect_too_many(http::request(node.http(), "GET", "/healthz", &[], b""));
}

fn a_third_client_is_refused_while_there_may_be_two(home: Home) {
    let node = Node::with(home, &["--max-clients", "2"]);
    let mut first = node.client("01");
    let second = node.client("02");
    for id in ["03", "01"] {
        let mut line = node.connect_raw();
        let _ = line.try_send_bytes(format!("{}\n", hello(id, "")).as_bytes());
        line.expect_error("too_many_clients");
    }
    // A connection that says nothing counts as well: it holds a thread and a descriptor.
    node.connect_raw().expect_error("too_many_clients");
    node.accept("01", "1");
    first.expect_payment(1, "1");
    first.ack(1);
    node.expect_acknowledged("01", 1);
    node.expect_unknown("03");

    drop(second);
    let mut third = eventually_some("a place is free again", || Client::try_hello(node.tcp(), "03"));
    node.accept("03", "1");
    third.expect_payment(1, "1");
    node.connect_raw().expect_error("too_many_clients");
}

/// A node in a shell's limits; killed when it is dropped.
struct Limited {
    child: Child,
    dir: TempDir,
    http: SocketAddr,
    tcp: SocketAddr,
    _redis: Option<Arc<Redis>>,
}

impl Limited {
    fn start(home: Home, limit: &str) -> Limited {
        let dir = TempDir::new();
        let redis = (home == Home::Redis).then(Redis::start);
        let store = match &redis {
            Some(redis) => ["--redis".to_owned(), redis.url()],
            None => ["--data-dir".to_owned(), dir.join("data").to_str().expect("UTF-8").to_owned()],
        };
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limit}; exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_payrelay"))
            .args(["serve", "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--node", "n1"])
            .args(store)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("log")).expect("a file for the log"))
            .spawn()
            .expect("a shell");
        let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        let deadline = Instant::now() + PATIENCE;
        let (http, tcp) = loop {
            if let Some(addresses) = ready_line(&log()) {
                break addresses;
            }
            let ended = child.try_wait().expect("our own child").is_some();
            if ended || Instant::now() > deadline {
                let _ = child.kill();
                panic!("no ready line:\n{}", log());
            }
            pause();
        };
        let node = Limited { child, dir, http, tcp, _redis: redis };
        eventually("the node is ready", || {
            let answer = Http::try_connect(node.http).and_then(|mut http| http.try_send("GET", "/readyz", &[], b""));
            answer.is_ok_and(|answer| answer.status == 200)
        });
        node
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).expect("the log")
    }

    /// A number of the ready line.
    fn announced(&self, name: &str) -> usize {
        let log = self.log();
        let word = log.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.unwrap_or_else(|| panic!("no {name} in:\n{log}")).parse().expect("a number")
    }

    fn lives(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_none()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the log of the limited node\n{}---", self.log());
        }
    }
}

/// Says hello: the client, or the code with which it was refused.
fn knock(addr: SocketAddr, id: &str) -> Result<Line, String> {
    let mut line = Line::try_connect(addr).expect("the kernel accepts for the node");
    let _ = line.try_send_bytes(format!("{}\n", hello(id, "")).as_bytes());
    match line.next(READ_LIMIT) {
        Next::Frame(frame) if frame.kind() == "welcome" => Ok(line),
        Next::Frame(frame) => Err(frame.text("code").unwrap_or_default()),
        other => panic!("client {id}: neither welcome nor refusal: {other:?}"),
    }
}

fn a_node_with_few_descriptors_refuses_and_lives(home: Home) {
    let mut node = Limited::start(home, "ulimit -n 200");
    let (most, most_http) = (node.announced("max_clients"), node.announced("max_http"));
    assert!(node.log().contains("bounded by RLIMIT_NOFILE"), "{}", node.log());
    assert!(most >= 10 && most_http >= 2 && most + most_http < 200, "{most} clients, {most_http} HTTP connections");

    let mut client = Client::hello(node.tcp, "inside", "");
    let mut sender = eventually_some("a place", || inside(node.http));
    // Both floods at once: a place for each, and not one more.
    let (mut clients, mut refused) = (Vec::new(), 0);
    let (mut senders, mut turned_away) = (vec![], 0);
    for n in 0..300 {
        match knock(node.tcp, &format!("flood-{n}")) {
            Ok(line) => clients.push(line),
            Err(code) => {
                assert_eq!(code, "too_many_clients");
                refused += 1;
            }
        }
        match inside(node.http) {
            Some(http) => senders.push(http),
            None => turned_away += 1,
        }
    }
    assert_eq!((clients.len(), refused), (most - 1, 300 - (most - 1)));
    assert!(senders.len() < most_http && turned_away > 0, "{} inside, {turned_away} refused", senders.len());
    assert!(node.lives());

    // Who is inside is served as ever.
    for seq in 1..=20 {
        let body = envelope("inside", &seq.to_string(), None);
        let answer = sender.send("POST", "/v1/payments", &[JSON], body.as_bytes());
        assert_eq!(answer.expect(202).seq(), seq);
        client.expect_payment(seq, &seq.to_string());
        client.ack(seq);
    }
    eventually("all are acknowledged", || {
        sender.send("GET", "/v1/clients/inside", &[], b"").expect(200).json()["acked"] == 20
    });

    clients.clear();
    senders.clear();
    let mut late = eventually_some("clients are let in again", || knock(node.tcp, "late").ok());
    let mut http = eventually_some("senders are let in again", || inside(node.http));
    let body = envelope("late", "1", None);
    http.send("POST", "/v1/payments", &[JSON], body.as_bytes()).expect(202);
    late.expect_payment(1, "1");
    assert!(node.lives());
    assert!(!node.log().contains("panic"), "{}", node.log());
}

fn running_out_of_descriptors_ends_no_acceptor(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let mut sender = eventually_some("a sender that is inside", || inside(node.http()));
    let most = node.descriptors() + 2;
    node.limit_descriptors(most);

    let flood: Vec<_> =
        (0..40).map(|n| TcpStream::connect(if n % 2 == 0 { node.http() } else { node.tcp() })).collect();
    node.expect_log("http: accept: Too many open files");
    node.expect_log("tcp: accept: Too many open files");
    // Who is inside is served all the same.
    let body = envelope("01", "1", None);
    assert_eq!(sender.send("POST", "/v1/payments", &[JSON], body.as_bytes()).status, 202);
    client.expect_payment(1, "1");

    drop(flood);
    node.limit_descriptors(most + 1000);
    eventually("a new sender is served", || inside(node.http()).is_some());
    node.client("02");
    client.ack(1);
    node.expect_acknowledged("01", 1);
}
