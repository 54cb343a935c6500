//! Promise 3: one payment id, one payment, from whichever node and however often it is posted.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use crate::harness::node::{JSON, envelope};
use crate::harness::{self, Answer, Deployment, Home, Node, eventually, eventually_some, on_both_inboxes};

on_both_inboxes!(
    a_repeat_is_stored_once,
    a_repeat_tells_the_present_status,
    another_body_under_the_same_id_is_refused,
    line_breaks_between_tokens_make_no_other_body,
    an_id_belongs_to_one_client,
    the_id_may_be_an_idempotency_key,
    two_different_ids_are_refused,
    a_race_is_won_by_one,
    a_race_of_different_bodies_is_won_by_one,
    the_status_is_asked_by_payment_id,
    the_window_ends,
    a_post_without_an_id_is_always_new,
);

#[track_caller]
fn expect_duplicate(answer: Answer, seq: u64, status: &str) {
    let answer = answer.expect(200);
    let json = answer.json();
    assert_eq!(json["duplicate"], true, "{json}");
    assert_eq!(json["seq"], seq, "{json}");
    assert_eq!(json["status"], status, "{json}");
}

fn a_repeat_is_stored_once(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let mut client = nodes[0].client("01");
    assert_eq!(nodes[0].post_with_id("01", "1", "wx-1").expect(202).seq(), 1);
    for node in nodes.iter().cycle().take(4) {
        let repeat = node.post_with_id("01", "1", "wx-1");
        assert_eq!(repeat.field("payment_id"), "wx-1");
        assert_eq!(repeat.field("client"), "01");
        expect_duplicate(repeat, 1, "accepted");
    }
    nodes[0].accept("01", "2");
    assert_eq!(client.expect_payment(1, "1").payment_id.as_deref(), Some("wx-1"));
    client.expect_payment(2, "2");
}

fn a_repeat_tells_the_present_status(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    node.post_with_id("01", "1", "wx-1").expect(202);
    client.expect_payment(1, "1");
    client.ack(1);
    node.expect_acknowledged("01", 1);
    expect_duplicate(node.post_with_id("01", "1", "wx-1"), 1, "acknowledged");
    client.expect_nothing_but_pings(harness::QUIET);
}

fn another_body_under_the_same_id_is_refused(home: Home) {
    let node = Node::start(home);
    node.post_with_id("01", r#"{"amount":"10.00"}"#, "wx-1").expect(202);
    node.post_with_id("01", r#"{"amount":"10.01"}"#, "wx-1").expect_problem(422, "payment_id_reused");
    // Equal as a value is not equal as a text: receivers may check a signature.
    node.post_with_id("01", r#"{"amount":"\u0031\u0030.00"}"#, "wx-1").expect_problem(422, "payment_id_reused");
    let channel = r#"{"client":"01","msg":{"amount":"10.00"},"payment_id":"wx-1","channel":"refunds"}"#;
    node.post_body(channel).expect_problem(422, "payment_id_reused");
    let default = r#"{"client":"01","msg":{"amount":"10.00"},"payment_id":"wx-1","channel":"payments"}"#;
    expect_duplicate(node.post_body(default), 1, "accepted");
    let path = "/v1/clients/01/payments?payment_id=wx-1";
    let text = node.request("POST", path, &[("Content-Type", "text/plain")], br#"{"amount":"10.00"}"#);
    text.expect_problem(422, "payment_id_reused");
    assert_eq!(node.about("01")["last_seq"], 1, "nothing else was stored");
}

fn line_breaks_between_tokens_make_no_other_body(home: Home) {
    let node = Node::start(home);
    node.post_with_id("01", "{\"a\":\n1}", "wx-1").expect(202);
    expect_duplicate(node.post_with_id("01", "{\"a\": 1}", "wx-1"), 1, "accepted");
}

fn an_id_belongs_to_one_client(home: Home) {
    let node = Node::start(home);
    node.post_with_id("01", "1", "wx-1").expect(202);
    assert_eq!(node.post_with_id("02", "2", "wx-1").expect(202).seq(), 1);
    node.client("02").expect_payment(1, "2");
}

fn keyed(node: &Node, key: &str, body: &str) -> Answer {
    node.request("POST", "/v1/payments", &[JSON, ("Idempotency-Key", key)], body.as_bytes())
}

fn the_id_may_be_an_idempotency_key(home: Home) {
    let node = Node::start(home);
    let body = envelope("01", "1", None);
    let first = keyed(&node, "\"wx-1\"", &body).expect(202);
    assert_eq!(first.field("payment_id"), "wx-1", "without the quotes");
    expect_duplicate(keyed(&node, "wx-1", &body), 1, "accepted");
    expect_duplicate(keyed(&node, "wx-1", &envelope("01", "1", Some("wx-1"))), 1, "accepted");
    expect_duplicate(node.post_with_id("01", "1", "wx-1"), 1, "accepted");
    let payment = node.client("01").expect_payment(1, "1");
    assert_eq!(payment.payment_id.as_deref(), Some("wx-1"));
}

fn two_different_ids_are_refused(home: Home) {
    let node = Node::start(home);
    keyed(&node, "wx-1", &envelope("01", "1", Some("wx-2"))).expect_any_problem(400);
    keyed(&node, "no spaces", &envelope("01", "1", None)).expect_problem(400, "invalid_payment_id");
    let batch = [("Content-Type", "application/x-ndjson"), ("Idempotency-Key", "wx-1")];
    let body = envelope("01", "1", None);
    node.request("POST", "/v1/payments", &batch, body.as_bytes()).expect_any_problem(400);
    node.expect_unknown("01");
}

fn a_race_is_won_by_one(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let barrier = Barrier::new(2);
    let race = |node: &Node| {
        let mut http = node.http_client();
        let post = |n: u32| {
            let body = envelope("01", &n.to_string(), Some(&format!("race-{n}")));
            barrier.wait();
            http.send("POST", "/v1/payments", &[JSON], body.as_bytes())
        };
        (0..100).map(post).collect::<Vec<_>>()
    };
    let (left, right) = thread::scope(|scope| {
        let left = scope.spawn(|| race(&nodes[0]));
        let right = scope.spawn(|| race(nodes.last().expect("at least one node")));
        (left.join().expect("a sender"), right.join().expect("a sender"))
    });
    for (one, two) in left.iter().zip(&right) {
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 202], "one is new, one is the duplicate: {} and {}", one.show(), two.show());
        assert_eq!(one.seq(), two.seq());
    }
    let mut client = nodes[0].client("01");
    for n in 1..=100 {
        // Strictly one after the other, so the numbers are in the order of the races.
        client.expect_payment(n, &(n - 1).to_string());
    }
    client.expect_nothing_but_pings(harness::QUIET);
}

fn a_race_of_different_bodies_is_won_by_one(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let barrier = Barrier::new(2);
    let race = |node: &Node, msg: &str| {
        let mut http = node.http_client();
        let post = |n: u32| {
            let body = envelope("01", msg, Some(&format!("race-{n}")));
            barrier.wait();
            http.send("POST", "/v1/payments", &[JSON], body.as_bytes()).status
        };
        (0..20).map(post).collect::<Vec<_>>()
    };
    let (left, right) = thread::scope(|scope| {
        let left = scope.spawn(|| race(&nodes[0], "1"));
        let right = scope.spawn(|| race(nodes.last().expect("at least one node"), "2"));
        (left.join().expect("a sender"), right.join().expect("a sender"))
    });
    for pair in left.iter().zip(&right) {
        assert!(matches!(pair, (202, 422) | (422, 202)), "{pair:?}");
    }
    assert_eq!(nodes[0].about("01")["last_seq"], 20);
}

fn the_status_is_asked_by_payment_id(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let last = nodes.last().expect("at least one node");
    nodes[0].accept("01", "0");
    nodes[0].post_with_id("01", "1", "wx:1@x").expect(202);
    let asked = last.get("/v1/clients/01/payments?payment_id=wx%3A1%40x").expect(200).json();
    assert_eq!(asked["client"], "01");
    assert_eq!(asked["seq"], 2);
    assert_eq!(asked["status"], "accepted");
    assert_eq!(asked["payment_id"], "wx:1@x");
    assert_eq!(last.get("/v1/clients/01/payments/2").expect(200).field("payment_id"), "wx:1@x", "it is still held");

    let mut client = nodes[0].client("01");
    client.expect_seqs(1..=2);
    client.ack(2);
    eventually("it is acknowledged", || {
        last.get("/v1/clients/01/payments?payment_id=wx:1@x").expect(200).field("status") == "acknowledged"
    });
    last.get("/v1/clients/01/payments?payment_id=never").expect_problem(404, "not_found");
    last.get("/v1/clients/02/payments?payment_id=wx:1@x").expect_problem(404, "not_found");
}

fn the_window_ends(home: Home) {
    let node = Node::with(home, &["--dedup-window", "1"]);
    let mut client = node.client("01");
    node.post_with_id("01", "1", "wx-1").expect(202);
    client.expect_payment(1, "1");
    client.ack(1);
    node.expect_acknowledged("01", 1);
    let again = eventually_some("the same payment id is a new payment", || {
        let answer = node.post_with_id("01", "1", "wx-1");
        (answer.status == 202).then_some(answer)
    });
    assert_eq!(again.seq(), 2);
    client.expect_payment(2, "1");
}

fn a_post_without_an_id_is_always_new(home: Home) {
    let node = Node::start(home);
    for seq in 1..=3 {
        assert_eq!(node.accept("01", "1"), seq);
    }
}

#[test]
fn a_repeat_after_an_unknown_outcome_is_stored_once() {
    let node = Node::start(Home::Redis);
    node.redis().pause();
    let mut http = node.http_client().patient(Duration::from_secs(30));
    let body = envelope("01", "1", Some("wx-1"));
    http.send("POST", "/v1/payments", &[JSON], body.as_bytes()).expect(503);
    node.redis().resume();
    eventually("a repeat is accepted", || node.post_with_id("01", "1", "wx-1").is_success());
    node.expect_ready();
    expect_duplicate(node.post_with_id("01", "1", "wx-1"), 1, "accepted");
    let mut client = node.client("01");
    client.expect_payment(1, "1");
    client.expect_nothing_but_pings(harness::QUIET);
}
