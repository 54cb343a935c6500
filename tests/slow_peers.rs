//! Promise 5: a client that does not read, and a sender that does not send, hurt nobody else, and lose nothing.

use std::time::{Duration, Instant};

use crate::harness::node::envelope;
use crate::harness::{
    self, Client, Home, Line, Mode, Node, Proxy, Redis, Way, eventually, eventually_within, on_both_inboxes,
};

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
    let metrics = node.get("/metrics").expect(200).text();
    assert!(metrics.contains("payrelay_connections_closed_total{code=\"too_slow\"} 1"), "{metrics}");

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

/// Two clients at a time fill what is stored in one round trip.
#[test]
fn two_clients_that_refuse_without_end_keep_nobody_from_the_store() {
    const MANY: u64 = 4000;
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let here = Node::on_url(&redis, &proxy.redis_url(), "n1", &["--window", "4096"]);
    here.expect_ready();
    let there = Node::on(&redis, "n2", &[]);
    let ids = ["busy-1", "busy-2"];
    for id in ids {
        there.post_batch(&(envelope(id, "1", None) + "\n").repeat(4000)).expect(200);
    }
    there.accept("quiet", "1");
    let mut quiet = here.client("quiet");
    quiet.expect_payment(1, "1");
    let mut busy = ids.map(|id| here.client(id));
    busy.iter_mut().for_each(|client| drop(client.expect_seqs(1..=MANY)));

    // Each round trip takes a while from here on.
    proxy.set(Way::Down, Mode::Delay(Duration::from_millis(60)));
    let nacks: String = (1..=MANY).map(|seq| format!("{{\"type\":\"nack\",\"seq\":{seq}}}\n")).collect();
    for client in &mut busy {
        client.send_bytes(nacks.as_bytes());
    }
    eventually("they refuse", || ids.iter().all(|id| there.status(id, 1) == "refused"));
    quiet.ack(1);
    there.expect_acknowledged("quiet", 1);
    let still_busy = ids.iter().filter(|id| there.status(id, MANY) == "accepted").count();
    assert_eq!(still_busy, ids.len(), "the acknowledgement was stored before all that was said before it");
    proxy.set(Way::Down, Mode::Pass);
    eventually("all of them are refused", || ids.iter().all(|id| there.status(id, MANY) == "refused"));
    assert!(ids.iter().all(|id| there.about(id)["dead_letters"] == MANY));
}
