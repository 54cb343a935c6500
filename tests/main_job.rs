//! The main job: a payment that is posted over HTTP reaches its client over TCP, is acknowledged, and leaves the inbox.

use crate::harness::{self, Home, Node, json, now_ms, on_both_inboxes};
use serde_json::json;

on_both_inboxes!(
    a_posted_payment_arrives_and_is_acknowledged,
    the_answer_has_its_fields,
    the_welcome_line_has_its_fields_in_order,
    the_payment_line_has_its_fields_in_order,
    an_offline_client_gets_its_payments_later,
    id_is_accepted_for_client,
    every_client_has_its_own_numbers,
    a_client_is_not_interrupted_by_others,
    an_automatic_acknowledgement_is_one,
    a_message_of_the_full_size_arrives,
);

fn a_posted_payment_arrives_and_is_acknowledged(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("till-7");

    let answer = node.post("till-7", r#"{"amount":"10.00"}"#).expect(202);
    assert_eq!(answer.seq(), 1);
    client.expect_payment(1, r#"{"amount":"10.00"}"#);
    assert_eq!(node.status("till-7", 1), "accepted");

    client.ack(1);
    node.expect_acknowledged("till-7", 1);
    assert_eq!(node.about("till-7")["pending"], 0);
}

fn the_answer_has_its_fields(home: Home) {
    let node = Node::start(home);
    let _client = node.client("01");
    let answer = node.post_with_id("01", "1", "wx-4200").expect(202);
    assert!(answer.header("Content-Type").is_some_and(|t| t.starts_with("application/json")), "{}", answer.show());
    let expected = json!({"status": "accepted", "client": "01", "seq": 1, "payment_id": "wx-4200", "online": true});
    assert_eq!(answer.json(), expected);

    let offline = node.post("02", "1").expect(202).json();
    assert_eq!(offline["status"], "accepted");
    assert_eq!(offline["client"], "02");
    assert_eq!(offline["seq"], 1);
    assert_eq!(offline["online"], false);
    assert!(offline["payment_id"].is_null(), "none was given: {offline}");
}

fn the_welcome_line_has_its_fields_in_order(home: Home) {
    let node = Node::start(home);
    let client = node.client("01");
    let welcome = &client.welcome;
    let expected = ["type", "client", "node", "epoch", "acked", "pending", "heartbeat", "window"];
    assert_eq!(welcome.frame.names(), expected, "{}", welcome.frame.line);
    assert_eq!(welcome.node, "n1");
    assert_eq!((welcome.acked, welcome.pending), (0, 0));
    assert_eq!((welcome.heartbeat, welcome.window), (30, 256));
    assert!(welcome.epoch.abs_diff(now_ms()) < 60_000, "milliseconds since 1970: {}", welcome.epoch);
}

fn the_payment_line_has_its_fields_in_order(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let body = r#"{"channel":"refunds","msg":{"amount":"10.00"},"payment_id":"wx-4200","client":"01"}"#;
    node.post_body(body).expect(202);
    let payment = client.expect_payment(1, r#"{"amount":"10.00"}"#);
    let at = payment.accepted_at;
    let expected = format!(
        r#"{{"type":"payment","seq":1,"channel":"refunds","payment_id":"wx-4200","accepted_at":{at},"msg":{{"amount":"10.00"}}}}"#
    );
    assert_eq!(payment.frame.line, expected);
    assert!(at.abs_diff(now_ms()) < 60_000, "milliseconds since 1970: {at}");

    node.post("01", "2").expect(202);
    let plain = client.expect_payment(2, "2");
    assert_eq!(plain.channel, "payments", "the default");
    assert!(plain.accepted_at >= at, "the store's clock does not go back");
    let names = json::names(&plain.frame.line);
    let known: Vec<_> = names.iter().filter(|name| *name != "payment_id").collect();
    assert_eq!(known, ["type", "seq", "channel", "accepted_at", "msg"], "{}", plain.frame.line);
}

fn an_offline_client_gets_its_payments_later(home: Home) {
    let node = Node::start(home);
    for n in 1..=3 {
        let answer = node.post("01", &n.to_string()).expect(202);
        assert_eq!(answer.json()["online"], false);
    }
    let mut client = node.client("01");
    assert_eq!((client.welcome.acked, client.welcome.pending), (0, 3));
    for n in 1..=3 {
        client.expect_payment(n, &n.to_string());
    }
    client.ack(3);
    node.expect_acknowledged("01", 3);
    drop(client);

    let mut client = node.client("01");
    assert_eq!((client.welcome.acked, client.welcome.pending), (3, 0));
    client.expect_nothing_but_pings(harness::QUIET);
}

fn id_is_accepted_for_client(home: Home) {
    let node = Node::start(home);
    let mut line = node.connect_raw();
    line.send_line(r#"{"type":"hello","id":"01"}"#);
    assert_eq!(line.expect_welcome().client, "01");

    let answer = node.post_body(r#"{"id":"01","msg":{"amount":"10.00"}}"#).expect(202);
    assert_eq!(answer.field("client"), "01");
    line.expect_payment(1, r#"{"amount":"10.00"}"#);
}

fn every_client_has_its_own_numbers(home: Home) {
    let node = Node::start(home);
    let mut one = node.client("a");
    let mut two = node.client("A");
    assert_eq!(node.accept("a", r#""one""#), 1);
    assert_eq!(node.accept("A", r#""two""#), 1);
    assert_eq!(node.accept("a", r#""three""#), 2);
    one.expect_payment(1, r#""one""#);
    one.expect_payment(2, r#""three""#);
    two.expect_payment(1, r#""two""#);
    two.expect_nothing_but_pings(harness::QUIET);
}

fn a_client_is_not_interrupted_by_others(home: Home) {
    let node = Node::start(home);
    let ids = ["0", "a:b", "a", "b@c", "_", "-", "...", &"x".repeat(128)];
    let mut clients: Vec<_> = ids.iter().map(|id| node.client(id)).collect();
    for id in ids {
        assert_eq!(node.accept(id, &format!("{id:?}")), 1);
    }
    for (client, id) in clients.iter_mut().zip(ids) {
        client.expect_payment(1, &format!("{id:?}"));
        client.ack(1);
        node.expect_acknowledged(id, 1);
    }
}

fn an_automatic_acknowledgement_is_one(home: Home) {
    let node = Node::start(home);
    let mut client = node.client_with("01", r#""ack":"auto""#);
    node.accept("01", "1");
    client.expect_payment(1, "1");
    node.expect_acknowledged("01", 1);
}

fn a_message_of_the_full_size_arrives(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let msg = format!("\"{}\"", "x".repeat(262_144 - 100));
    node.accept("01", &msg);
    client.expect_payment(1, &msg);
}
