//! Dead letters: what a client or an operator refused leaves the inbox, holds nothing up, is listed, put back or purged.

use crate::harness::node::{JSON, envelope};
use crate::harness::{self, Deployment, Home, Node, PATIENCE, eventually, on_both_inboxes};
use serde_json::{Value, json};
use std::thread;

on_both_inboxes!(
    a_nack_is_a_dead_letter_and_what_follows_flows,
    acks_and_nacks_count_in_the_order_in_which_they_were_said,
    a_nack_of_what_was_not_sent_does_nothing,
    a_nack_makes_room_in_the_window,
    a_malformed_nack_is_a_bad_frame,
    a_nack_from_a_replaced_connection_does_nothing,
    a_wait_hears_of_the_refusal,
    an_operator_unblocks_a_client_that_never_acknowledges,
    an_operator_cannot_refuse_what_is_acknowledged,
    a_retry_is_a_new_payment,
    purged_is_purged,
    dead_letters_count_towards_the_limit,
    dead_letters_survive_a_kill,
    a_client_with_dead_letters_is_retired,
);

fn nack(seq: u64, reason: &str) -> String {
    format!(r#"{{"type":"nack","seq":{seq},"reason":"{reason}"}}"#)
}

fn letters(node: &Node, client: &str) -> Vec<Value> {
    let page = node.get(&format!("/v1/clients/{client}/dead-letters")).expect(200).json();
    assert_eq!(page["next"], Value::Null);
    page["dead_letters"].as_array().expect("a list").clone()
}

fn expect_status(node: &Node, seq: u64, status: &str) {
    eventually(&format!("{seq} is {status}"), || node.status("01", seq) == status);
}

fn post(node: &Node, path: &str) -> harness::http::Answer {
    node.request("POST", path, &[], b"")
}

fn a_nack_is_a_dead_letter_and_what_follows_flows(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let (here, there) = (&nodes[0], &nodes[nodes.len() - 1]);
    let mut client = here.client("01");
    there.accept("01", "1");
    there.post_with_id("01", r#"{"amount":10.00}"#, "wx-2").expect(202);
    there.accept("01", "3");
    client.expect_seqs(1..=3);
    client.send_line(&nack(2, "unknown order"));
    expect_status(there, 2, "refused");
    assert_eq!((there.status("01", 1), there.status("01", 3)), ("accepted".into(), "accepted".into()));

    let list = letters(there, "01");
    assert_eq!(list.len(), 1);
    assert_eq!(
        (&list[0]["seq"], &list[0]["status"], &list[0]["reason"]),
        (&json!(2), &json!("refused"), &json!("unknown order"))
    );
    assert!(
        list[0]["dead_at"].as_u64() >= list[0]["payment"]["accepted_at"].as_u64()
            && list[0].get("maybe_delivered").is_none()
    );
    assert_eq!((&list[0]["payment"]["seq"], &list[0]["payment"]["payment_id"]), (&json!(2), &json!("wx-2")));
    let text = there.get("/v1/clients/01/dead-letters").text();
    assert!(text.contains(r#""msg":{"amount":10.00}"#), "token for token: {text}");
    let about = there.about("01");
    assert_eq!((&about["acked"], &about["pending"], &about["dead_letters"]), (&json!(0), &json!(2), &json!(1)));

    client.ack(3);
    here.expect_acknowledged("01", 3);
    assert_eq!((there.status("01", 1), there.status("01", 2)), ("acknowledged".into(), "refused".into()));
    let by_id = there.get("/v1/clients/01/payments?payment_id=wx-2").expect(200).json();
    assert_eq!(by_id, json!({"client": "01", "seq": 2, "status": "refused", "payment_id": "wx-2"}));
    let repeat = there.post_with_id("01", r#"{"amount":10.00}"#, "wx-2").expect(200).json();
    assert_eq!((&repeat["status"], &repeat["duplicate"], &repeat["seq"]), (&json!("refused"), &json!(true), &json!(2)));
    there.accept("01", "4");
    client.expect_payment(4, "4");
    let metrics = here.get("/metrics").expect(200).text();
    assert!(metrics.contains("payrelay_dead_letters_total{reason=\"refused\"} 1"), "{metrics}");
    assert!(metrics.contains("payrelay_payments_acknowledged_total 2"), "{metrics}");
}

fn acks_and_nacks_count_in_the_order_in_which_they_were_said(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    (1..=6).for_each(|n| assert_eq!(node.accept("01", "1"), n));
    client.expect_seqs(1..=6);
    let lines = [
        &nack(5, "five"),
        r#"{"type":"ack","seq":2}"#,
        &nack(2, "too late"),
        &nack(3, "three"),
        r#"{"type":"ack","seq":6}"#,
    ];
    client.send_bytes((lines.join("\n") + "\n").as_bytes());
    node.expect_acknowledged("01", 6);
    let statuses: Vec<String> = (1..=6).map(|seq| node.status("01", seq)).collect();
    assert_eq!(statuses, ["acknowledged", "acknowledged", "refused", "acknowledged", "refused", "acknowledged"]);
}

fn a_nack_of_what_was_not_sent_does_nothing(home: Home) {
    let node = Node::start(home);
    let mut client = node.client_with("01", r#""window":1"#);
    node.accept("01", "1");
    node.accept("01", "2");
    client.expect_payment(1, "1");
    client.send_line(&nack(2, "not seen"));
    client.send_line(&nack(99, "never was"));
    client.ack(1);
    client.expect_payment(2, "2");
    client.ack(2);
    node.expect_acknowledged("01", 2);
    assert_eq!(letters(&node, "01").len(), 0);
}

fn a_nack_makes_room_in_the_window(home: Home) {
    let node = Node::start(home);
    let mut client = node.client_with("01", r#""window":2"#);
    (1..=4).for_each(|n| assert_eq!(node.accept("01", "1"), n));
    client.expect_seqs(1..=2);
    client.send_line(&nack(2, ""));
    client.expect_payment(3, "1");
    client.send_line(&nack(1, ""));
    client.expect_payment(4, "1");
    client.ack(4);
    node.expect_acknowledged("01", 4);
    assert!(letters(&node, "01").iter().all(|letter| letter.get("reason").is_none()));
}

fn a_malformed_nack_is_a_bad_frame(home: Home) {
    let node = Node::start(home);
    node.accept("01", "1");
    for line in [r#"{"type":"nack"}"#.to_owned(), nack(1, &"x".repeat(257)), r#"{"type":"nack","seq":"1"}"#.to_owned()]
    {
        let mut client = node.client("01");
        client.expect_payment(1, "1");
        client.send_line(&line);
        client.expect_error("bad_frame");
        eventually("it has left", || node.about("01")["online"] == false);
    }
    assert_eq!(node.status("01", 1), "accepted");
}

fn a_nack_from_a_replaced_connection_does_nothing(home: Home) {
    let node = Node::start(home);
    node.accept("01", "1");
    let mut old = node.client("01");
    old.expect_payment(1, "1");
    let mut new = node.client("01");
    new.expect_payment(1, "1");
    let _ = old.try_send_bytes((nack(1, "") + "\n").as_bytes());
    new.ack(1);
    node.expect_acknowledged("01", 1);
    assert_eq!(letters(&node, "01").len(), 0);
}

fn a_wait_hears_of_the_refusal(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let (here, there) = (&nodes[0], &nodes[nodes.len() - 1]);
    let mut client = here.client("01");
    thread::scope(|scope| {
        let wait = || {
            let mut http = there.http_client().patient(PATIENCE);
            http.send("POST", "/v1/payments?wait=25", &[JSON], envelope("01", "1", None).as_bytes())
        };
        let first = scope.spawn(wait);
        client.expect_payment(1, "1");
        client.send_line(&nack(1, ""));
        assert_eq!(first.join().expect("a sender").expect(200).json()["status"], "refused");
        let second = scope.spawn(wait);
        client.expect_payment(2, "1");
        here.delete("/v1/clients/01/payments/2").expect(200);
        assert_eq!(second.join().expect("a sender").expect(200).json()["status"], "refused");
    });
}

fn an_operator_unblocks_a_client_that_never_acknowledges(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let (here, there) = (&nodes[0], &nodes[nodes.len() - 1]);
    let mut client = here.client_with("01", r#""window":1"#);
    (1..=4).for_each(|n| assert_eq!(there.accept("01", &n.to_string()), n));
    client.expect_payment(1, "1");
    let answer = there.delete("/v1/clients/01/payments/1").expect(200).json();
    assert_eq!(answer, json!({"client": "01", "seq": 1, "status": "refused"}));
    client.expect_payment(2, "2");
    // One that waits behind the window is not sent any more.
    there.delete("/v1/clients/01/payments/3").expect(200);
    client.ack(2);
    client.expect_payment(4, "4");
    client.ack(4);
    here.expect_acknowledged("01", 4);
    let statuses: Vec<String> = (1..=4).map(|seq| there.status("01", seq)).collect();
    assert_eq!(statuses, ["refused", "acknowledged", "refused", "acknowledged"]);
    assert_eq!(letters(there, "01")[0]["reason"], "refused by an operator");
}

fn an_operator_cannot_refuse_what_is_acknowledged(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    node.accept("01", "1");
    node.accept("01", "2");
    client.expect_seqs(1..=2);
    client.ack(1);
    node.expect_acknowledged("01", 1);
    node.delete("/v1/clients/01/payments/1").expect_problem(409, "conflict");
    for _ in 0..2 {
        assert_eq!(node.delete("/v1/clients/01/payments/2").expect(200).json()["status"], "refused");
    }
    for path in [
        "/v1/clients/01/payments/3",
        "/v1/clients/01/payments/0",
        "/v1/clients/02/payments/1",
        "/v1/clients/01/payments/x",
    ] {
        node.delete(path).expect_problem(404, "not_found");
    }
    assert_eq!(node.status("01", 1), "acknowledged");
}

fn a_retry_is_a_new_payment(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let (here, there) = (&nodes[0], &nodes[nodes.len() - 1]);
    let mut client = here.client("01");
    there.post_with_id("01", "1", "wx-1").expect(202);
    there.accept("01", "2");
    let first = client.expect_payment(1, "1");
    client.expect_payment(2, "2");
    client.send_line(&nack(1, "later"));
    expect_status(there, 1, "refused");
    let answer = post(there, "/v1/clients/01/dead-letters/1/retry").expect(202).json();
    assert_eq!(answer, json!({"status": "accepted", "client": "01", "seq": 3, "payment_id": "wx-1", "online": true}));
    let again = client.expect_payment(3, "1");
    assert!(again.accepted_at >= first.accepted_at);
    assert_eq!(
        there.get("/v1/clients/01/payments/1").json(),
        json!({"client": "01", "seq": 1, "status": "retried", "retried_as": 3})
    );
    let repeat = there.post_with_id("01", "1", "wx-1").expect(200).json();
    assert_eq!((&repeat["status"], &repeat["retried_as"], &repeat["seq"]), (&json!("retried"), &json!(3), &json!(1)));
    post(there, "/v1/clients/01/dead-letters/1/retry").expect_problem(409, "conflict");
    post(there, "/v1/clients/01/dead-letters/2/retry").expect_problem(404, "not_found");
    client.ack(3);
    here.expect_acknowledged("01", 3);
    assert_eq!(letters(there, "01").len(), 0);
}

fn purged_is_purged(home: Home) {
    let node = Node::start(home);
    node.post_with_id("01", "1", "wx-1").expect(202);
    node.accept("01", "2");
    node.delete("/v1/clients/01/payments/1").expect(200);
    for _ in 0..2 {
        node.delete("/v1/clients/01/dead-letters/1").expect(204);
    }
    assert_eq!(node.status("01", 1), "purged");
    assert_eq!(node.post_with_id("01", "1", "wx-1").expect(200).json()["status"], "purged");
    assert_eq!(node.delete("/v1/clients/01/payments/1").expect(200).json()["status"], "purged");
    post(&node, "/v1/clients/01/dead-letters/1/retry").expect_problem(404, "not_found");
    node.delete("/v1/clients/01/dead-letters/2").expect_problem(404, "not_found");
    node.get("/v1/clients/nobody/dead-letters").expect_problem(404, "not_found");
    node.get("/v1/clients/01/dead-letters?after=x").expect_problem(400, "bad_request");
    assert_eq!(letters(&node, "01").len(), 0);
    node.client("01").expect_payment(2, "2");
}

fn dead_letters_count_towards_the_limit(home: Home) {
    let node = Node::with(home, &["--inbox-limit", "3"]);
    (1..=3).for_each(|n| assert_eq!(node.accept("01", "1"), n));
    (1..=3).for_each(|n| drop(node.delete(&format!("/v1/clients/01/payments/{n}")).expect(200)));
    assert_eq!(node.about("01")["pending"], 0);
    node.post("01", "1").expect_problem(429, "inbox_full");
    post(&node, "/v1/clients/01/dead-letters/2/retry").expect(202);
    node.post("01", "1").expect_problem(429, "inbox_full");
    node.delete("/v1/clients/01/dead-letters/1").expect(204);
    assert_eq!(node.accept("01", "1"), 5);
    node.post("01", "1").expect_problem(429, "inbox_full");
}

fn dead_letters_survive_a_kill(home: Home) {
    let node = Node::start(home);
    (1..=3).for_each(|n| assert_eq!(node.accept("01", &n.to_string()), n));
    let mut client = node.client("01");
    client.expect_seqs(1..=3);
    client.send_line(&nack(2, "unknown order"));
    expect_status(&node, 2, "refused");
    node.kill();
    node.restart();
    assert_eq!((node.status("01", 2), letters(&node, "01").len()), ("refused".into(), 1));
    let mut client = node.client("01");
    client.expect_payment(1, "1");
    client.expect_payment(3, "3");
    client.ack(3);
    node.expect_acknowledged("01", 3);
    assert_eq!(node.status("01", 2), "refused");
}

fn a_client_with_dead_letters_is_retired(home: Home) {
    let node = Node::start(home);
    node.accept("01", "1");
    node.delete("/v1/clients/01/payments/1").expect(200);
    node.delete("/v1/clients/01").expect(204);
    node.expect_unknown("01");
    assert_eq!(node.accept("01", "1"), 1);
    assert_eq!((node.status("01", 1), letters(&node, "01").len()), ("accepted".into(), 0));
}

#[test]
fn a_list_comes_in_pages() {
    let node = Node::start(Home::Embedded);
    let lines = vec![envelope("01", "1", None); 1001].join("\n");
    node.post_batch(&lines).expect(200);
    let mut http = node.http_client().patient(PATIENCE);
    for seq in 1..=1001 {
        http.send("DELETE", &format!("/v1/clients/01/payments/{seq}"), &[], b"").expect(200);
    }
    let page = node.get("/v1/clients/01/dead-letters").expect(200).json();
    assert_eq!((page["dead_letters"].as_array().map(Vec::len), &page["next"]), (Some(1000), &json!(1000)));
    let rest = node.get("/v1/clients/01/dead-letters?after=1000").expect(200).json();
    assert_eq!((&rest["dead_letters"][0]["seq"], &rest["next"]), (&json!(1001), &Value::Null));
}

#[test]
fn a_nack_while_redis_is_away_is_stored_afterwards() {
    let node = Node::start(Home::Redis);
    let mut client = node.client("01");
    (1..=3).for_each(|n| assert_eq!(node.accept("01", "1"), n));
    client.expect_seqs(1..=3);
    node.redis().pause();
    client.ack(1);
    client.send_line(&nack(2, "unknown order"));
    client.ack(3);
    // Its connection ends before any of it is stored.
    client.send_line(r#"{"type":"bye"}"#);
    client.expect_closed();
    eventually("the node has noticed", || !node.is_ready());
    node.redis().resume();
    node.expect_ready();
    node.expect_acknowledged("01", 3);
    assert_eq!((node.status("01", 1), node.status("01", 2)), ("acknowledged".into(), "refused".into()));
    eventually("it is released", || node.about("01")["online"] == false);
}
