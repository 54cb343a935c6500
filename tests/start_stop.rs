//! Starting and stopping: it says when it is ready and why it is not, stops in order and in time, and refuses in one line.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::harness::node::{JSON, envelope, ready_line};
use crate::harness::{self, Client, Home, Line, Node, PATIENCE, Program, Redis, TempDir, eventually, on_both_inboxes};
use rustix::process::Signal;

on_both_inboxes!(
    a_stop_is_orderly,
    an_interrupt_is_a_stop,
    a_stop_with_a_stalled_client_is_in_time,
    a_stop_stores_the_last_acknowledgements,
    a_stopped_node_accepts_nothing,
);

/// Ten seconds are promised; the rest is for a slow machine.
const IN_TIME: Duration = Duration::from_secs(15);

fn a_stop_is_orderly(home: Home) {
    let node = Node::start(home);
    let mut clients = [node.client("01"), node.client("02")];
    let exit = node.terminate();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.took < IN_TIME, "after {:?}", exit.took);
    for client in &mut clients {
        client.expect_error("shutting_down");
    }
}

fn an_interrupt_is_a_stop(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    node.signal(Signal::INT);
    assert_eq!(node.wait().code, Some(0));
    client.expect_error("shutting_down");
}

/// A client whose buffers are full, with the rest of a payment owed to it.
fn stalled(node: &Node) -> Client {
    let client = Client::hello_on(Line::connect_with_small_buffer(node.tcp()), "slow", "");
    for n in 0..30 {
        node.accept("slow", &format!("\"{n}:{}\"", "x".repeat(32 * 1024)));
    }
    client
}

fn a_stop_with_a_stalled_client_is_in_time(home: Home) {
    let node = Node::start(home);
    let _slow = stalled(&node);
    let mut other = node.client("01");
    // And a request that never gets whole.
    let mut half = node.http_client();
    half.write(b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{");
    let exit = node.terminate();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.took < IN_TIME, "after {:?}", exit.took);
    other.expect_error("shutting_down");
}

#[test]
fn a_stop_with_redis_frozen_is_in_time() {
    let node = Node::start(Home::Redis);
    let _slow = stalled(&node);
    let mut other = node.client("01");
    node.accept("01", "1");
    other.expect_payment(1, "1");
    node.redis().pause();
    other.ack(1);
    let mut post = node.http_client();
    post.ask("POST", "/v1/payments", &[JSON], envelope("01", "1", None).as_bytes());
    let exit = node.terminate();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.took < IN_TIME, "after {:?}", exit.took);
    other.expect_error("shutting_down");
    node.redis().resume();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let node = Node::start(Home::Redis);
    let _slow = stalled(&node);
    node.redis().pause();
    let mut post = node.http_client();
    post.ask("POST", "/v1/payments?wait=30", &[JSON], envelope("01", "1", None).as_bytes());
    node.signal(Signal::TERM);
    let first = Instant::now();
    // Signals so close together as 0.3 s are one.
    eventually("the second is another one", || first.elapsed() > Duration::from_millis(500));
    assert!(!node.has_ended(), "the stop is held up:\n{}", node.log());
    node.signal(Signal::INT);
    let exit = node.wait();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.took < Duration::from_secs(1), "after {:?}", exit.took);
    node.expect_log("a second signal");
    node.redis().resume();
}

fn a_stop_stores_the_last_acknowledgements(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    for n in 1..=20 {
        node.accept("01", &n.to_string());
    }
    client.expect_seqs(1..=20);
    for seq in 1..=20 {
        client.ack(seq);
    }
    // Once this is answered, the node has read them all.
    client.send_line(r#"{"type":"ping"}"#);
    client.next_of_any_kind(Instant::now() + harness::READ_LIMIT);
    assert_eq!(node.terminate().code, Some(0));
    node.restart();
    let client = node.client("01");
    assert_eq!((client.welcome.acked, client.welcome.pending), (20, 0));
}

fn a_stopped_node_accepts_nothing(home: Home) {
    let node = Node::start(home);
    let mut kept = node.http_client();
    kept.send("GET", "/healthz", &[], b"").expect(200);
    assert_eq!(node.terminate().code, Some(0));
    assert!(kept.try_send("POST", "/v1/payments", &[JSON], envelope("01", "1", None).as_bytes()).is_err());
    node.restart();
    node.expect_unknown("01");
}

#[test]
fn the_ready_line_names_both_addresses() {
    let node = Node::start(Home::Embedded);
    let (http, tcp) = ready_line(&node.log()).expect("a ready line");
    assert!(http.ip().is_loopback() && tcp.ip().is_loopback());
    assert!(http.port() != 0 && tcp.port() != 0 && http.port() != tcp.port());
    node.get("/healthz").expect(200);
}

#[test]
fn readiness_tells_the_store_and_its_durability() {
    let node = Node::start(Home::Redis);
    let ready = node.get("/readyz").expect(200).json();
    assert_eq!(ready["ready"], true, "{ready}");
    assert_eq!(ready["store"], "redis", "{ready}");
    assert!(ready["durability"].as_str().is_some_and(|words| !words.is_empty()), "{ready}");
    assert!(ready["warnings"].is_array(), "{ready}");
}

/// Flags for a server of its own, on free ports.
fn serve<'a>(data: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["serve", "--data-dir", data];
    for (flag, address) in [("--http", "127.0.0.1:0"), ("--tcp", "127.0.0.1:0")] {
        if !more.contains(&flag) {
            args.extend_from_slice(&[flag, address]);
        }
    }
    args.extend_from_slice(more);
    args
}

#[test]
fn a_port_in_use_is_told_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let dir = TempDir::new();
    let data = dir.join("data").display().to_string();
    for flag in ["--http", "--tcp"] {
        let exit = Program::run(&serve(&data, &[flag, &address]));
        assert_eq!(exit.code, Some(1), "{}", exit.stderr);
        let naming = exit.error_lines().into_iter().filter(|line| line.contains(&address)).count();
        assert_eq!(naming, 1, "one line that names {address}: {}", exit.stderr);
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    }
}

#[test]
fn wrong_usage_is_told_in_one_line() {
    let dir = TempDir::new();
    let data = dir.join("data").display().to_string();
    let wrong: [&[&str]; 11] = [
        &["--no-such-flag"],
        &["--window", "abc"],
        &["--window", "-1"],
        &["--heartbeat", "x"],
        &["--http", "nonsense"],
        &["--http"],
        &["--redis", "http://127.0.0.1/"],
        &["--require-durability", "sometimes"],
        &["--http-server", "nginx"],
        &["--inbox-limit", "ten"],
        &["extra-word"],
    ];
    for flags in wrong {
        let exit = Program::run(&serve(&data, flags));
        assert_eq!(exit.code, Some(2), "{flags:?}: {}", exit.stderr);
        assert_eq!(exit.error_lines().len(), 1, "{flags:?}: one line: {}", exit.stderr);
    }
    assert_eq!(Program::run(&["no-such-command"]).code, Some(2));
    assert_eq!(Program::run(&["--help"]).code, Some(0));
    assert_eq!(Program::run(&["serve", "--help"]).code, Some(0));
}

#[test]
fn an_environment_variable_is_a_flag_and_the_flag_wins() {
    let dir = TempDir::new();
    let data = dir.join("data").display().to_string();
    let env = [
        ("PAYRELAY_HTTP", "127.0.0.1:0"),
        ("PAYRELAY_TCP", "127.0.0.1:0"),
        ("PAYRELAY_DATA_DIR", data.as_str()),
        ("PAYRELAY_WINDOW", "4"),
        ("PAYRELAY_HEARTBEAT", "7"),
        ("PAYRELAY_NODE", "by-variable"),
    ];
    let program = Program::start(&["serve", "--window", "8"], &env);
    eventually("it is ready", || ready_line(&program.stderr()).is_some());
    let (_, tcp) = ready_line(&program.stderr()).expect("a ready line");
    let welcome = Client::hello(tcp, "01", "").welcome.clone();
    assert_eq!((welcome.window, welcome.heartbeat, welcome.node.as_str()), (8, 7, "by-variable"));

    let wrong = [env[0], env[1], env[2], ("PAYRELAY_WINDOW", "abc")];
    assert_eq!(Program::start(&["serve"], &wrong).wait().code, Some(2));
}

#[test]
fn a_second_process_on_the_same_directory_is_refused() {
    let dir = TempDir::new();
    let data = dir.join("data").display().to_string();
    let first = Program::start(&serve(&data, &[]), &[]);
    eventually("the first is ready", || ready_line(&first.stderr()).is_some());
    let second = Program::run(&serve(&data, &[]));
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(second.stderr.contains(&data), "it names the directory: {}", second.stderr);
    assert!(!second.stderr.contains("panicked"), "{}", second.stderr);
    let (http, _) = ready_line(&first.stderr()).expect("a ready line");
    harness::http::request(http, "GET", "/readyz", &[], b"").expect(200);
}

#[test]
fn a_directory_that_cannot_be_used_is_told() {
    let dir = TempDir::new();
    let file = dir.file("a-file", "not a directory");
    let below = format!("{file}/data");
    let damaged = dir.join("damaged");
    fs::create_dir(&damaged).expect("a directory");
    for path in [&file, &below] {
        let exit = Program::run(&serve(path, &[]));
        assert!(matches!(exit.code, Some(1 | 2)), "{path}: {:?} {}", exit.code, exit.stderr);
        assert!(exit.stderr.contains("a-file"), "it names the path: {}", exit.stderr);
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    }
}

#[test]
fn a_second_node_of_the_same_name_takes_over() {
    let redis = Redis::start();
    let older = Node::on(&redis, "n1", &[]);
    let mut client = older.client("01");
    older.accept("01", "1");
    client.expect_payment(1, "1");
    let newer = Node::on(&redis, "n1", &[]);
    let exit = older.wait();
    assert_eq!(exit.code, Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("n1"), "it says why: {}", exit.stderr);

    let mut client = newer.client("01");
    client.expect_payment(1, "1");
    newer.accept("01", "2");
    client.expect_payment(2, "2");
}

/// Starts a node on such a Redis that must not become ready, and returns what it says.
#[track_caller]
fn expect_not_ready(redis: &[&str], flags: &[&str]) -> String {
    let redis = Redis::with(redis);
    let node = Node::on_url(&redis, &redis.url(), "n1", flags);
    // At first it may only not have looked yet.
    let mut reason = String::new();
    eventually("it says why it is not ready", || {
        let ready = node.get("/readyz");
        assert_eq!(ready.status, 503, "{}", ready.show());
        reason = ready.field("reason").to_lowercase();
        ["durab", "append", "fsync", "evict", "persist", "policy"].iter().any(|word| reason.contains(word))
    });
    reason
}

#[test]
fn too_little_durability_is_not_ready() {
    expect_not_ready(&["--appendfsync", "everysec"], &["--require-durability", "always"]);
    expect_not_ready(&["--appendfsync", "no"], &[]);
    expect_not_ready(&["--appendonly", "no"], &[]);
}

#[test]
fn enough_durability_is_ready() {
    let cases: [(&[&str], &[&str]); 4] = [
        (&["--appendfsync", "everysec"], &[]),
        (&[], &["--require-durability", "always"]),
        (&["--appendonly", "no"], &["--require-durability", "any"]),
        (&["--appendfsync", "everysec"], &["--require-durability", "any"]),
    ];
    for (settings, flags) in cases {
        let redis = Redis::with(settings);
        let node = Node::on(&redis, "n1", flags);
        assert_eq!(node.accept("01", "1"), 1);
    }
}

#[test]
fn a_redis_that_evicts_is_not_ready() {
    let reason = expect_not_ready(&["--maxmemory-policy", "allkeys-lru"], &[]);
    assert!(reason.contains("evict") || reason.contains("policy"), "{reason}");
    expect_not_ready(&["--maxmemory-policy", "volatile-ttl"], &[]);
}

#[test]
fn two_deployments_share_a_redis_under_different_numbers() {
    let redis = Redis::start();
    let node = |number: u32| {
        let node = Node::on_url(&redis, &format!("{}{number}", redis.url()), "n1", &[]);
        node.expect_ready();
        node
    };
    let (zero, one) = (node(0), node(1));
    let (mut here, mut there) = (zero.client("01"), one.client("01"));
    assert_eq!(zero.accept("01", "\"zero\""), 1);
    assert_eq!(one.accept("01", "\"one\""), 1);
    here.expect_payment(1, "\"zero\"");
    there.expect_payment(1, "\"one\"");
    here.expect_nothing_but_pings(harness::QUIET);
    assert!(!zero.has_ended() && !one.has_ended(), "the same node name is no conflict");
}

#[test]
fn a_stop_before_redis_was_ever_there_is_orderly() {
    let redis = Redis::away();
    let node = Node::on_url(&redis, &redis.url(), "n1", &[]);
    node.get("/readyz").expect(503);
    let exit = node.terminate();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.took < PATIENCE);
}
