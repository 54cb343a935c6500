//! `expires_in`: past its time a payment is not delivered any more, and says so to whoever looks.

use crate::harness::node::{JSON, envelope};
use crate::harness::{self, Deployment, Home, Mode, Node, PATIENCE, Proxy, Redis, Reply, eventually, on_both_inboxes};
use serde_json::Value;
use std::time::{Duration, Instant};

on_both_inboxes!(
    what_expired_before_its_client_came_is_not_delivered,
    what_expired_behind_a_full_window_is_not_delivered,
    what_was_delivered_in_time_can_be_acknowledged_late,
    what_was_delivered_and_lost_says_so,
    a_wait_hears_that_it_expired,
    a_repeat_hears_that_it_expired,
    an_expired_payment_is_put_back_without_expiry,
    a_raw_body_and_a_line_of_a_batch_expire_as_well,
    a_year_is_the_most,
    a_killed_nodes_client_protects_nothing,
);

/// With one second to live.
fn accept_brief(node: &Node, msg: &str) -> u64 {
    node.post_body(&format!(r#"{{"client":"01","msg":{msg},"expires_in":1}}"#)).expect(202).seq()
}

fn expect_expired(node: &Node, seq: u64) -> Value {
    eventually(&format!("{seq} has expired"), || node.status("01", seq) == "expired");
    let page = node.get("/v1/clients/01/dead-letters").expect(200).json();
    let list = page["dead_letters"].as_array().expect("a list");
    list.iter().find(|letter| letter["seq"] == seq).expect("it is a dead letter").clone()
}

fn what_expired_before_its_client_came_is_not_delivered(home: Home) {
    let node = Node::start(home);
    assert_eq!(accept_brief(&node, "1"), 1);
    node.accept("01", "2");
    let letter = expect_expired(&node, 1);
    assert_eq!((letter.get("maybe_delivered"), letter.get("reason")), (None, None));
    let mut client = node.client("01");
    client.expect_payment(2, "2");
    client.ack(2);
    node.expect_acknowledged("01", 2);
    assert_eq!(node.status("01", 1), "expired");
    let metrics = node.get("/metrics").expect(200).text();
    assert!(metrics.contains("payrelay_dead_letters_total{reason=\"expired\"} 1"), "{metrics}");
}

fn what_expired_behind_a_full_window_is_not_delivered(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let (here, there) = (&nodes[0], &nodes[nodes.len() - 1]);
    let mut client = here.client_with("01", r#""window":1"#);
    there.accept("01", "1");
    client.expect_payment(1, "1");
    assert_eq!(accept_brief(there, "2"), 2);
    there.accept("01", "3");
    assert_eq!(expect_expired(there, 2).get("maybe_delivered"), None);
    client.ack(1);
    client.expect_payment(3, "3");
}

fn what_was_delivered_in_time_can_be_acknowledged_late(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let (here, there) = (&nodes[0], &nodes[nodes.len() - 1]);
    let mut client = here.client("01");
    let mut other = here.client("02");
    assert_eq!(accept_brief(there, "1"), 1);
    client.expect_payment(1, "1");
    // Another client's, which nobody acknowledges, is the clock: when that one is over, ours would be.
    there.post_body(r#"{"client":"03","msg":1,"expires_in":3}"#).expect(202);
    eventually("its time is over", || there.status("03", 1) == "expired");
    assert_eq!(there.status("01", 1), "accepted");
    client.ack(1);
    here.expect_acknowledged("01", 1);
    other.expect_nothing_but_pings(harness::QUIET);
}

fn what_was_delivered_and_lost_says_so(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    assert_eq!(accept_brief(&node, "1"), 1);
    client.expect_payment(1, "1");
    client.into_line().reset();
    assert_eq!(expect_expired(&node, 1)["maybe_delivered"], true);
    node.client("01").expect_nothing_but_pings(harness::QUIET);
}

fn a_wait_hears_that_it_expired(home: Home) {
    let node = Node::start(home);
    let body = r#"{"client":"01","msg":1,"expires_in":1}"#;
    let mut http = node.http_client().patient(PATIENCE);
    let answer = http.send("POST", "/v1/payments?wait=20", &[JSON], body.as_bytes());
    assert_eq!(answer.expect(200).json()["status"], "expired");
}

fn a_repeat_hears_that_it_expired(home: Home) {
    let node = Node::start(home);
    let body = r#"{"client":"01","msg":1,"payment_id":"wx-1","expires_in":1}"#;
    node.post_body(body).expect(202);
    eventually("the repeat says so", || {
        // How long it lives is no part of what it is.
        let repeat = node.post_with_id("01", "1", "wx-1").expect(200).json();
        repeat["status"] == "expired" && repeat["duplicate"] == true && repeat["seq"] == 1
    });
}

fn an_expired_payment_is_put_back_without_expiry(home: Home) {
    let node = Node::start(home);
    accept_brief(&node, "1");
    expect_expired(&node, 1);
    node.request("POST", "/v1/clients/01/dead-letters/1/retry", &[], b"").expect(202);
    assert_eq!(accept_brief(&node, "2"), 3);
    expect_expired(&node, 3);
    assert_eq!(node.status("01", 2), "accepted");
    node.client("01").expect_payment(2, "1");
}

fn a_raw_body_and_a_line_of_a_batch_expire_as_well(home: Home) {
    let node = Node::start(home);
    let text = [("Content-Type", "text/plain")];
    node.request("POST", "/v1/clients/01/payments?expires_in=1", &text, b"x").expect(202);
    let lines = [r#"{"client":"01","msg":2,"expires_in":1}"#.to_owned(), envelope("01", "3", None)];
    node.post_batch(&lines.join("\n")).expect(200);
    expect_expired(&node, 1);
    expect_expired(&node, 2);
    node.client("01").expect_payment(3, "3");
}

fn a_year_is_the_most(home: Home) {
    let node = Node::start(home);
    for secs in ["0", "-1", "\"60\"", "31536001", "1.5"] {
        node.post_body(&format!(r#"{{"client":"01","msg":1,"expires_in":{secs}}}"#)).expect_problem(400, "bad_request");
    }
    for secs in ["0", "-1", "", "31536001", "1.5", "x"] {
        let path = format!("/v1/clients/01/payments?expires_in={secs}");
        node.request("POST", &path, &[JSON], b"1").expect_problem(400, "bad_request");
    }
    node.expect_unknown("01");
    for secs in ["1", "31536000", "null"] {
        node.post_body(&format!(r#"{{"client":"01","msg":1,"expires_in":{secs}}}"#)).expect(202);
    }
}

fn a_killed_nodes_client_protects_nothing(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let (here, there) = (&nodes[0], &nodes[nodes.len() - 1]);
    let mut client = here.client("01");
    // Longer than a node counts as living that was killed.
    there.post_body(r#"{"client":"01","msg":1,"expires_in":8}"#).expect(202);
    client.expect_payment(1, "1");
    here.kill();
    if nodes.len() == 1 {
        here.restart();
    }
    assert_eq!(expect_expired(there, 1)["maybe_delivered"], true);
}

#[test]
fn an_ack_never_passes_over_one_that_could_not_be_put_aside() {
    let redis = Redis::start();
    let node = Node::on(&redis, "n1", &[]);
    let mut client = node.client_with("01", r#""window":1"#);
    node.accept("01", "1");
    client.expect_payment(1, "1");
    assert_eq!(accept_brief(&node, "2"), 2);
    node.accept("01", "3");
    // Nobody may look at it meanwhile: whoever looks puts it aside.
    let posted = Instant::now();
    eventually("its time is over", || posted.elapsed() > Duration::from_millis(2500));

    // Redis answers, but takes no writes: the payment behind the expired one has to wait as well.
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]).expect_ok();
    client.ack(1);
    client.expect_nothing_but_pings(harness::QUIET);
    redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]).expect_ok();
    client.expect_payment(3, "3");
    client.ack(3);
    node.expect_acknowledged("01", 3);
    assert_eq!(node.status("01", 2), "expired");
}

/// For as long as a node may take to make up its mind, whoever looks there finds this payment accepted.
fn expect_accepted_for_a_while(node: &Node, seq: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(6) {
        assert_eq!(node.status("01", seq), "accepted", "after {:?}", start.elapsed());
        harness::pause();
    }
}

#[test]
fn an_outage_in_which_all_leases_lapse_expires_nothing_that_was_delivered_in_time() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let here = Node::on_url(&redis, &proxy.redis_url(), "n1", &[]);
    here.expect_ready();
    let there = Node::on(&redis, "n2", &[]);
    let mut client = here.client("01");
    there.post_body(r#"{"client":"01","msg":1,"expires_in":2}"#).expect(202);
    client.expect_payment(1, "1");

    proxy.set_both(Mode::Hold);
    redis.pause();
    let paused = Instant::now();
    eventually("all leases lapse", || paused.elapsed() > Duration::from_millis(5500));
    redis.resume();
    // The node that holds the client is the last that finds its way back.
    there.expect_ready();
    assert_eq!(redis.cli(&["EXISTS", "payrelay:0:lease:n1"]), Reply::Int(0), "its lease did lapse");
    assert_eq!(there.status("01", 1), "accepted");
    proxy.set_both(Mode::Pass);
    expect_accepted_for_a_while(&there, 1);
    client.ack(1);
    there.expect_acknowledged("01", 1);
}

#[test]
fn a_node_that_cannot_tell_what_it_delivered_in_time_loses_none_of_it() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let here = Node::on_url(&redis, &proxy.redis_url(), "n1", &[]);
    here.expect_ready();
    let there = Node::on(&redis, "n2", &[]);
    let mut client = here.client("01");
    // What others tell it still comes.
    proxy.set_pubsub(Some(Mode::Pass));
    proxy.set_both(Mode::Hold);
    assert_eq!(accept_brief(&there, "1"), 1);
    client.expect_payment(1, "1");
    let sent = Instant::now();
    while sent.elapsed() < Duration::from_millis(4500) {
        assert_eq!(there.status("01", 1), "accepted", "after {:?}", sent.elapsed());
        harness::pause();
    }
    proxy.set_both(Mode::Pass);
    expect_accepted_for_a_while(&there, 1);
    client.ack(1);
    there.expect_acknowledged("01", 1);
}
