//! Promise 5: a client that does not read, and a sender that does not send, hurt nobody else, and lose nothing.
mod harness;

use std::time::{Duration, Instant};

use harness::{Client, Home, Line, Node, eventually_within, on_both_inboxes};

on_both_inboxes!(
    a_stalled_client_delays_nobody_and_gets_everything_later,
    a_client_that_never_reads_is_closed_and_loses_nothing,
    a_client_that_never_acknowledges_delays_nobody,
    a_slow_reader_gets_everything,
);

const BIG: usize = 32 * 1024;
const BACKLOG: u64 = 60;

fn big(n: u64) -> String {
    format!("\"{n}:{}\"", "x".repeat(BIG))
}

/// A client that has said hello and reads nothing; its buffers are soon full.
fn stalled(node: &Node) -> Client {
    let line = Line::connect_with_small_buffer(node.tcp());
    Client::hello_on(line, "slow", "")
}

fn a_stalled_client_delays_nobody_and_gets_everything_later(home: Home) {
    let node = Node::start(home);
    let mut slow = stalled(&node);
    let mut fast = node.client("fast");
    let mut longest = Duration::ZERO;
    for n in 1..=BACKLOG {
        node.accept("slow", &big(n));
        let start = Instant::now();
        node.accept("fast", &n.to_string());
        fast.expect_payment(n, &n.to_string());
        fast.ack(n);
        longest = longest.max(start.elapsed());
    }
    assert!(longest < Duration::from_secs(5), "somebody waited for the slow client: {longest:?}");
    node.expect_acknowledged("fast", BACKLOG);

    for n in 1..=BACKLOG {
        slow.expect_payment(n, &big(n));
        slow.ack(n);
    }
    node.expect_acknowledged("slow", BACKLOG);
}

fn a_client_that_never_reads_is_closed_and_loses_nothing(home: Home) {
    let node = Node::start(home);
    let mut slow = stalled(&node);
    for n in 1..=BACKLOG {
        node.accept("slow", &big(n));
    }
    let mut fast = node.client("fast");
    eventually_within(Duration::from_secs(90), "the client that does not read is closed", || {
        let seq = node.accept("fast", "1");
        fast.expect_payment(seq, "1");
        fast.ack(seq);
        std::thread::sleep(Duration::from_millis(200));
        node.about("slow")["online"] == false
    });
    // What it did get are whole payments, in order; a half one at the end is no line.
    let (payments, code) = slow.read_to_the_end();
    assert!((1..).zip(&payments).all(|(seq, payment)| payment.seq == seq));
    assert!(code.is_none_or(|code| code == "too_slow"));

    let mut again = node.client("slow");
    assert_eq!((again.welcome.acked, again.welcome.pending), (0, BACKLOG));
    for n in 1..=BACKLOG {
        again.expect_payment(n, &big(n));
        again.ack(n);
    }
}

fn a_client_that_never_acknowledges_delays_nobody(home: Home) {
    let node = Node::with(home, &["--window", "8"]);
    let mut silent = node.client("silent");
    let mut other = node.client("other");
    for n in 1..=100 {
        node.accept("silent", &n.to_string());
        node.accept("other", &n.to_string());
        other.expect_payment(n, &n.to_string());
        other.ack(n);
    }
    silent.expect_seqs(1..=8);
    silent.expect_nothing_but_pings(harness::QUIET);
    for n in 1..=92 {
        silent.ack(n);
        silent.expect_seqs([n + 8]);
    }
}

fn a_slow_reader_gets_everything(home: Home) {
    let node = Node::start(home);
    for n in 1..=BACKLOG {
        node.accept("slow", &big(n));
    }
    let mut slow = stalled(&node);
    for n in 1..=BACKLOG {
        slow.expect_payment(n, &big(n));
        std::thread::sleep(Duration::from_millis(20));
        if n % 7 == 0 {
            slow.ack(n);
        }
    }
    slow.ack(BACKLOG);
    node.expect_acknowledged("slow", BACKLOG);
}

#[test]
fn stalled_bodies_block_nobody() {
    let node = Node::start(Home::Embedded);
    let head =
        "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{";
    let mut stalled: Vec<_> = (0..32).map(|_| node.http_client()).collect();
    for http in &mut stalled {
        http.write(head.as_bytes());
    }
    let mut halves: Vec<_> = (0..32).map(|_| node.http_client()).collect();
    for http in &mut halves {
        http.write(b"POST /v1/payments HT");
    }
    let seq = node.accept("01", "1");
    node.client("01").expect_payment(seq, "1");
}

#[test]
fn a_request_that_dribbles_is_ended() {
    let node = Node::start(Home::Embedded);
    let mut http = node.http_client().patient(Duration::from_secs(50));
    http.write(
        b"POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{",
    );
    // Thirty seconds for a whole request.
    let answer = http.answer();
    assert_eq!(answer.status, 408, "{}", answer.show());
    assert!(http.is_closed());
}
