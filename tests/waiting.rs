//! `?wait`: the sender hears that the client acknowledged, as soon as it did, or gets its 202 when the time is over.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::node::{JSON, envelope};
use crate::harness::{Answer, Deployment, Home, Http, Node, PATIENCE, eventually, on_both_inboxes};

on_both_inboxes!(
    the_answer_comes_with_the_acknowledgement,
    the_answer_is_202_when_the_time_is_over,
    a_repeat_waits_too,
    a_repeat_of_an_acknowledged_payment_does_not_wait,
    a_wait_out_of_range_is_refused,
    many_who_wait_hinder_nobody,
    a_stopping_node_gives_the_waiter_its_answer,
    a_client_that_comes_late_ends_the_wait,
    the_raw_route_waits_too,
    the_answer_comes_at_once_and_not_at_the_end,
    a_repeat_is_answered_at_once_too,
);

/// Starts a post that waits; the answer is read later.
fn post_waiting(node: &Node, body: &str, seconds: u32) -> Http {
    let mut http = node.http_client().patient(PATIENCE + Duration::from_secs(u64::from(seconds)));
    http.ask("POST", &format!("/v1/payments?wait={seconds}"), &[JSON], body.as_bytes());
    http
}

#[track_caller]
fn expect_acknowledged(answer: Answer, client: &str, seq: u64) {
    let json = answer.expect(200).json();
    assert_eq!(json["status"], "acknowledged", "{json}");
    assert_eq!(json["client"], client, "{json}");
    assert_eq!(json["seq"], seq, "{json}");
}

fn the_answer_comes_with_the_acknowledgement(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let mut client = nodes[0].client("01");
    for (seq, node) in (1..).zip(&nodes) {
        // Posted where the client is, and on another node.
        let waiter = thread::scope(|scope| {
            let body = envelope("01", &seq.to_string(), Some(&format!("wx-{seq}")));
            let waiter = scope.spawn(move || post_waiting(node, &body, 30).answer());
            client.expect_payment(seq, &seq.to_string());
            // It was delivered; that is not yet an acknowledgement.
            thread::sleep(Duration::from_millis(200));
            assert!(!waiter.is_finished(), "answered before the client acknowledged");
            client.ack(seq);
            waiter.join().expect("a sender")
        });
        assert_eq!(waiter.field("payment_id"), format!("wx-{seq}"));
        expect_acknowledged(waiter, "01", seq);
    }
}

fn the_answer_is_202_when_the_time_is_over(home: Home) {
    let node = Node::start(home);
    let start = Instant::now();
    let answer = post_waiting(&node, &envelope("01", "1", None), 1).answer().expect(202);
    assert!(start.elapsed() >= Duration::from_millis(900), "after {:?}", start.elapsed());
    assert_eq!(answer.field("status"), "accepted");
    assert_eq!(answer.seq(), 1);
    assert_eq!(answer.json()["online"], false);
}

fn a_repeat_waits_too(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let mut client = nodes[0].client("01");
    nodes[0].post_with_id("01", "1", "wx-1").expect(202);
    client.expect_payment(1, "1");
    let body = envelope("01", "1", Some("wx-1"));
    let mut waiters: Vec<_> = nodes.iter().map(|node| post_waiting(node, &body, 30)).collect();
    thread::sleep(Duration::from_millis(200));
    client.ack(1);
    for waiter in &mut waiters {
        let answer = waiter.answer();
        assert_eq!(answer.json()["duplicate"], true, "{}", answer.show());
        expect_acknowledged(answer, "01", 1);
    }
}

fn a_repeat_of_an_acknowledged_payment_does_not_wait(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    node.post_with_id("01", "1", "wx-1").expect(202);
    client.expect_payment(1, "1");
    client.ack(1);
    node.expect_acknowledged("01", 1);
    let start = Instant::now();
    let answer = post_waiting(&node, &envelope("01", "1", Some("wx-1")), 30).answer();
    assert!(start.elapsed() < Duration::from_secs(20), "at once, not after {:?}", start.elapsed());
    assert_eq!(answer.json()["duplicate"], true, "{}", answer.show());
    expect_acknowledged(answer, "01", 1);
}

fn a_wait_out_of_range_is_refused(home: Home) {
    let node = Node::start(home);
    for wait in ["0", "31", "-1", "1.5", "abc", "", "99999999999999999999"] {
        let path = format!("/v1/payments?wait={wait}");
        let answer = node.request("POST", &path, &[JSON], envelope("01", "1", None).as_bytes());
        answer.expect_problem(400, "bad_request");
    }
    node.expect_unknown("01");
}

fn many_who_wait_hinder_nobody(home: Home) {
    const WAITERS: u64 = 200;
    let nodes = Deployment::at(home, &[]);
    let node = nodes.last().expect("at least one node");
    let mut waiters: Vec<_> =
        (0..WAITERS).map(|n| post_waiting(node, &envelope("late", &n.to_string(), None), 30)).collect();
    let stored_by = Instant::now();
    eventually("all of them are stored", || node.get("/v1/clients/late").json()["pending"] == WAITERS);

    let mut other = node.client("02");
    for seq in 1..=20 {
        let start = Instant::now();
        assert_eq!(node.accept("02", "1"), seq);
        other.expect_payment(seq, "1");
        assert!(start.elapsed() < Duration::from_secs(5), "a normal payment took {:?}", start.elapsed());
    }

    let mut late = nodes[0].client("late");
    for seq in 1..=WAITERS {
        late.expect_seqs([seq]);
        late.ack(seq);
    }
    let in_time = stored_by.elapsed() < Duration::from_secs(20);
    for waiter in &mut waiters {
        let answer = waiter.answer();
        // Only a machine that is very slow can have let the 30 s pass.
        assert!(answer.status == 200 || !in_time, "{}", answer.show());
    }
}

fn a_stopping_node_gives_the_waiter_its_answer(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let mut waiter = post_waiting(&node, &envelope("01", "1", None), 30);
    client.expect_payment(1, "1");
    let exit = node.terminate();
    let answer = waiter.answer().expect(202);
    assert_eq!(answer.field("status"), "accepted");
    assert_eq!(answer.seq(), 1);
    assert_eq!(exit.code, Some(0));
    client.expect_error("shutting_down");
}

fn a_client_that_comes_late_ends_the_wait(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let mut waiter = post_waiting(&nodes[0], &envelope("01", "1", None), 30);
    eventually("it is stored", || nodes[0].get("/v1/clients/01").status == 200);
    let mut client = nodes.last().expect("at least one node").client("01");
    client.expect_payment(1, "1");
    client.ack(1);
    expect_acknowledged(waiter.answer(), "01", 1);
}

fn the_raw_route_waits_too(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let mut http = node.http_client().patient(PATIENCE * 2);
    http.ask("POST", "/v1/clients/01/payments?wait=30", &[("Content-Type", "text/plain")], b"hello");
    client.expect_payment(1, "\"hello\"");
    client.ack(1);
    expect_acknowledged(http.answer(), "01", 1);
}

/// Far below the wait, and far above what it takes.
const AT_ONCE: Duration = Duration::from_secs(10);

fn the_answer_comes_at_once_and_not_at_the_end(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let mut seq = 0;
    for here in &nodes {
        // The client is here; who waits is here, and on another node.
        let mut client = here.client("01");
        for node in nodes.iter().cycle().take(2 * nodes.len()) {
            seq += 1;
            let mut waiter = post_waiting(node, &envelope("01", &seq.to_string(), None), 30);
            client.expect_payment(seq, &seq.to_string());
            client.ack(seq);
            let since = Instant::now();
            expect_acknowledged(waiter.answer(), "01", seq);
            assert!(since.elapsed() < AT_ONCE, "on {}: after {:?}", node.name(), since.elapsed());
        }
    }
}

fn a_repeat_is_answered_at_once_too(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let mut client = nodes[0].client("01");
    nodes[0].post_with_id("01", "1", "wx-1").expect(202);
    client.expect_payment(1, "1");
    let body = envelope("01", "1", Some("wx-1"));
    let mut waiters: Vec<_> = nodes.iter().map(|node| post_waiting(node, &body, 30)).collect();
    client.ack(1);
    let since = Instant::now();
    for waiter in &mut waiters {
        expect_acknowledged(waiter.answer(), "01", 1);
    }
    assert!(since.elapsed() < AT_ONCE, "after {:?}", since.elapsed());
}
