//! A store that comes back without its last writes: the client is told with a new epoch, and what comes after is delivered.

use std::time::{Duration, Instant};

use crate::harness::{self, Client, Home, Next, Node, PATIENCE, Payment, Proxy, Redis, eventually, redis};

/// So that a node looks after its clients every few seconds.
const OFTEN: [&str; 2] = ["--heartbeat", "2"];

/// Receives as a careful program does, coming back when it is closed, until this message arrives.
///
/// Whatever arrives on the way is acknowledged. Returns the payment and the epoch under which it came.
#[track_caller]
fn receive_until(node: &Node, mut client: Client, msg: &str) -> (Payment, u64) {
    let deadline = Instant::now() + PATIENCE * 2;
    loop {
        assert!(Instant::now() < deadline, "{msg} does not arrive");
        match client.next(Duration::from_millis(500)) {
            Next::Frame(frame) if frame.kind() == "payment" => {
                let payment = frame.payment();
                let _ = client.try_ack(payment.seq);
                if payment.msg.as_deref() == Some(msg) {
                    return (payment, client.welcome.epoch);
                }
            }
            Next::Silence => {}
            Next::Frame(_) | Next::Closed => client = come_back(node, deadline),
        }
    }
}

#[track_caller]
fn come_back(node: &Node, deadline: Instant) -> Client {
    loop {
        if let Some(client) = Client::try_hello(node.tcp(), "01") {
            return client;
        }
        assert!(Instant::now() < deadline, "the client is not welcomed again");
        harness::pause();
    }
}

/// Posts until it is accepted: the node may still be finding its Redis again.
#[track_caller]
fn post(node: &Node, msg: &str, id: &str) {
    eventually(&format!("payment {id} is accepted"), || node.post_with_id("01", msg, id).is_success());
}

#[test]
fn a_client_learns_of_a_flushed_store() {
    let node = Node::with(Home::Redis, &OFTEN);
    let mut client = node.client("01");
    for n in 1..=3 {
        node.accept("01", &n.to_string());
    }
    client.expect_seqs(1..=3);
    client.ack(3);
    node.expect_acknowledged("01", 3);
    let before = client.welcome.epoch;

    node.redis().cli(&["FLUSHALL"]).expect_ok();
    post(&node, "\"after\"", "after");
    let (payment, epoch) = receive_until(&node, client, "\"after\"");
    assert!(epoch > before, "the numbering began anew: {epoch} after {before}");
    node.expect_acknowledged("01", payment.seq);
}

#[test]
fn a_client_learns_of_it_without_any_payment() {
    let node = Node::with(Home::Redis, &OFTEN);
    let mut client = node.client("01");
    node.accept("01", "1");
    client.expect_payment(1, "1");
    client.ack(1);
    node.expect_acknowledged("01", 1);
    node.redis().cli(&["FLUSHALL"]).expect_ok();
    // At the latest when the node looks after it, once a heartbeat.
    client.read_to_the_end_within(PATIENCE);
    let again = come_back(&node, Instant::now() + PATIENCE);
    assert!(again.welcome.epoch > client.welcome.epoch);
    assert_eq!(again.welcome.pending, 0);
}

#[test]
fn an_acknowledgement_under_way_removes_nothing_that_was_not_seen() {
    let node = Node::with(Home::Redis, &OFTEN);
    let mut client = node.client("01");
    for n in 1..=2 {
        node.accept("01", &n.to_string());
    }
    client.expect_seqs(1..=2);
    client.ack(2);
    node.expect_acknowledged("01", 2);
    let backup = node.redis().backup();
    for n in 3..=5 {
        node.accept("01", &n.to_string());
    }
    client.expect_seqs(3..=5);

    // Redis comes back without 3, 4 and 5; their numbers are given to others; the client acknowledges what it saw.
    node.redis().restart_from(&backup);
    for id in ["a", "b", "c"] {
        post(&node, &format!("\"new {id}\""), id);
    }
    let _ = client.try_ack(5);
    let before = client.welcome.epoch;
    let (last, epoch) = {
        let (first, epoch) = receive_until(&node, client, "\"new a\"");
        assert_eq!(first.seq, 3);
        assert!(epoch > before, "{epoch} after {before}");
        let client = come_back(&node, Instant::now() + PATIENCE);
        receive_until(&node, client, "\"new c\"")
    };
    assert_eq!(last.seq, 5);
    assert!(epoch > before);
    node.expect_acknowledged("01", 5);
}

#[test]
fn a_failover_that_lost_writes_is_survived() {
    let primary = Redis::start();
    let cable = Proxy::to(primary.port());
    let replica = Redis::replica_of(cable.port());
    let front = Proxy::to(primary.port());
    let node = Node::on_url(&primary, &front.redis_url(), "n1", &OFTEN);
    node.expect_ready();
    let mut client = node.client("01");
    node.accept("01", "1");
    client.expect_payment(1, "1");
    client.ack(1);
    node.expect_acknowledged("01", 1);
    redis::caught_up(&primary, &replica);

    // The replica hears no more; what is accepted now, it never gets.
    cable.refuse(true);
    cable.cut();
    for n in 2..=4 {
        node.accept("01", &n.to_string());
    }
    client.expect_seqs(2..=4);
    let before = client.welcome.epoch;
    primary.kill();
    replica.cli(&["REPLICAOF", "NO", "ONE"]).expect_ok();
    front.retarget(replica.port());
    front.cut();

    post(&node, "\"after\"", "after");
    let _ = client.try_ack(4);
    let (payment, epoch) = receive_until(&node, client, "\"after\"");
    assert_eq!(payment.seq, 2, "the first number that the replica did not know");
    assert!(epoch > before, "{epoch} after {before}");
    node.expect_acknowledged("01", 2);
}

#[test]
fn a_failover_that_lost_nothing_changes_nothing() {
    let primary = Redis::start();
    let replica = Redis::replica_of(primary.port());
    let front = Proxy::to(primary.port());
    let node = Node::on_url(&primary, &front.redis_url(), "n1", &OFTEN);
    node.expect_ready();
    let mut client = node.client("01");
    for n in 1..=3 {
        node.accept("01", &n.to_string());
    }
    let seen = client.expect_seqs(1..=3);
    client.ack(1);
    node.expect_acknowledged("01", 1);
    redis::caught_up(&primary, &replica);
    primary.kill();
    replica.cli(&["REPLICAOF", "NO", "ONE"]).expect_ok();
    front.retarget(replica.port());
    front.cut();

    post(&node, "\"after\"", "after");
    drop(client);
    let mut again = come_back(&node, Instant::now() + PATIENCE);
    assert_eq!(again.welcome.acked, 1);
    for before in &seen[1..] {
        assert_eq!(again.expect_any_payment().frame.line, before.frame.line);
    }
    again.expect_payment(4, "\"after\"");
}
