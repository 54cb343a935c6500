//! Every limit on a client is the README's figure: one below it and as much are taken, one more is not.

use std::time::{Duration, Instant};

use crate::harness::{self, Client, Home, Line, Next, Node, QUIET, limit, on_both_inboxes};

on_both_inboxes!(the_window_is_exact, the_window_has_so_many_bytes);

#[track_caller]
fn expect_pong(line: &mut Line) {
    let answer = line.next_of_any_kind(Instant::now() + harness::READ_LIMIT);
    assert!(matches!(&answer, Next::Frame(frame) if frame.kind() == "pong"), "{answer:?}");
}

/// A line of so many bytes that says this.
fn padded(json: &str, length: usize) -> String {
    let rest = json.strip_prefix('{').expect("an object");
    let pad = length - json.len() - r#""pad":"","#.len();
    format!(r#"{{"pad":"{}",{rest}"#, "x".repeat(pad))
}

#[test]
fn a_line_has_so_many_bytes() {
    let node = Node::start(Home::Embedded);
    let most = limit("line or frame from a client");
    let ping = r#"{"type":"ping"}"#;
    let hello = harness::line_client::hello("01", "");
    for length in [most - 1, most] {
        for end in ["\n", "\r\n"] {
            let mut line = node.connect_raw();
            line.send_bytes(format!("{}{end}", padded(&hello, length)).as_bytes());
            line.expect_welcome();
            line.send_bytes(format!("{}{end}", padded(ping, length)).as_bytes());
            expect_pong(&mut line);
        }
    }
    let mut line = node.connect_raw();
    let _ = line.try_send_bytes(format!("{}\n", padded(&hello, most + 1)).as_bytes());
    line.expect_error("line_too_long");
    let mut client = node.client("01");
    let _ = client.try_send_bytes(format!("{}\n", padded(ping, most + 1)).as_bytes());
    client.expect_error("line_too_long");
}

#[test]
fn a_reason_has_so_many_bytes() {
    let node = Node::start(Home::Embedded);
    let most = limit("reason of a `nack`");
    let mut client = node.client("01");
    for (seq, length) in [(1, most - 1), (2, most), (3, most + 1)] {
        node.accept("01", "1");
        client.expect_payment(seq, "1");
        client.send_line(&format!(r#"{{"type":"nack","seq":{seq},"reason":"{}"}}"#, "x".repeat(length)));
    }
    client.expect_error("bad_frame");
    let letters = || node.get("/v1/clients/01/dead-letters").expect(200).json()["dead_letters"].clone();
    harness::eventually("two are dead", || letters().as_array().is_some_and(|letters| letters.len() == 2));
    assert_eq!(letters()[1]["reason"].as_str().map(str::len), Some(most));
    assert_eq!(node.status("01", 3), "accepted");
}

fn the_window_is_exact(home: Home) {
    let node = Node::start(home);
    let window = limit("window") as u64;
    let lines = vec![harness::node::envelope("01", "1", None); limit("window") + 2];
    node.post_batch(&lines.join("\n")).expect(200);
    let mut client = node.client("01");
    assert_eq!(client.welcome.window, window);
    client.expect_seqs(1..=window);
    client.expect_nothing_but_pings(QUIET);
    client.ack(1);
    client.expect_seqs([window + 1]);
    client.expect_nothing_but_pings(QUIET);
}

fn the_window_has_so_many_bytes(home: Home) {
    let most = limit("bytes of a window");
    let node = Node::with(home, &["--body-limit", &most.to_string()]);
    node.accept("01", "\"\"");
    // What a line has besides its message; seqs of one digit are as long.
    let beside = node.client("01").expect_payment(1, "\"\"").frame.line.len() + 1;
    // A node counts a payment a few bytes too high, and never too low.
    for (client, total, whole) in [("02", most - 200, true), ("03", most + 1, false)] {
        let halves = [total / 2, total - total / 2];
        for half in halves {
            node.accept(client, &format!("\"{}\"", "x".repeat(half - beside)));
        }
        let mut receiver = node.client(client);
        assert_eq!(receiver.expect_any_payment().frame.line.len() + 1, halves[0]);
        if !whole {
            receiver.expect_nothing_but_pings(QUIET);
            receiver.ack(1);
        }
        assert_eq!(receiver.expect_any_payment().frame.line.len() + 1, halves[1]);
    }
}

#[test]
fn silence_has_so_many_heartbeats() {
    let node = Node::with(Home::Embedded, &["--heartbeat", "1"]);
    let mut silent = node.client("01");
    silent.ignore_pings();
    let started = Instant::now();
    let (mut pings, mut end) = (0, None);
    while end.is_none() {
        match silent.next_of_any_kind(Instant::now() + harness::READ_LIMIT) {
            Next::Frame(frame) if frame.kind() == "ping" => pings += 1,
            other => end = Some(other),
        }
    }
    let Some(Next::Frame(frame)) = end else { panic!("no word on why: {end:?}") };
    assert_eq!(frame.text("code").as_deref(), Some("idle_timeout"), "{}", frame.line);
    let beats = limit("heartbeats of silence");
    assert_eq!(pings, beats - 1, "a ping for each but the last");
    assert!(started.elapsed() >= Duration::from_secs(beats as u64) - Duration::from_millis(100));
}

#[test]
fn who_says_something_within_a_heartbeat_is_not_pinged() {
    let node = Node::with(Home::Embedded, &["--heartbeat", "2"]);
    let mut client = node.client("01");
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        client.send_line(r#"{"type":"ping"}"#);
        expect_pong(&mut client);
        let next = client.next_of_any_kind(Instant::now() + Duration::from_millis(200));
        assert!(matches!(next, Next::Silence), "{next:?}");
    }
}

#[test]
fn so_many_refusals_wait_for_the_store() {
    let node = Node::with(Home::Redis, &["--window", "65536"]);
    let most = limit("a client's words that wait for the store");
    let payments = most as u64 + 200;
    let lines = vec![harness::node::envelope("01", "1", None); most + 200];
    node.post_batch(&lines.join("\n")).expect(200);
    let mut client = node.client("01");
    client.expect_seqs(1..=payments);
    node.redis().pause();
    let nacks = |seqs: std::ops::RangeInclusive<u64>| -> String {
        seqs.map(|seq| format!("{{\"type\":\"nack\",\"seq\":{seq}}}\n")).collect()
    };
    // Some are on their way to the store already; these are not too many at any rate.
    client.send_bytes(nacks(1..=most as u64).as_bytes());
    client.send_line(r#"{"type":"ping"}"#);
    expect_pong(&mut client);
    let _ = client.try_send_bytes(nacks(most as u64 + 1..=payments).as_bytes());
    let (_, code) = client.read_to_the_end();
    assert_eq!(code.as_deref(), Some("unavailable"));
    // Nothing of it is lost: those that were taken are dead letters, the others come again.
    node.redis().resume();
    let mut again = harness::eventually_some("it is let in again", || Client::try_hello(node.tcp(), "01"));
    let dead = || node.about("01")["dead_letters"].as_u64().unwrap_or_default();
    harness::eventually("the others come again", || dead() >= most as u64);
    again.expect_any_payment();
}
