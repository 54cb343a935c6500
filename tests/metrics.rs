//! `/metrics` counts what happened, in Prometheus' words, without naming clients.
mod harness;

use std::collections::BTreeMap;

use harness::{Home, Node, eventually, on_both_inboxes};

on_both_inboxes!(what_happened_is_counted, live_and_caught_up_deliveries_are_told_apart, clients_are_not_named);

/// Every sample: `name{labels}` and its value.
fn samples(node: &Node) -> BTreeMap<String, f64> {
    let answer = node.get("/metrics").expect(200);
    let kind = answer.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("text/plain") || kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = answer.text();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let parse = |line: &str| -> Option<(String, f64)> {
        let end = line.rfind('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1))?;
        let value = line[end..].split_whitespace().next()?;
        Some((line[..end].to_owned(), value.parse().ok()?))
    };
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect()
}

fn value(node: &Node, sample: &str) -> f64 {
    samples(node).get(sample).copied().unwrap_or(0.0)
}

#[track_caller]
fn expect(node: &Node, sample: &str, expected: f64) {
    eventually(&format!("{sample} is {expected}"), || (value(node, sample) - expected).abs() < 0.5);
}

fn what_happened_is_counted(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    expect(&node, "payrelay_clients_online", 1.0);
    node.post_with_id("01", "1", "wx-1").expect(202);
    node.post_with_id("01", "1", "wx-1").expect(200);
    node.post("01", "2").expect(202);
    node.post_body("{").expect_problem(400, "bad_json");
    node.post("a b", "1").expect_problem(400, "invalid_client_id");
    node.post("a b", "1").expect_problem(400, "invalid_client_id");
    client.expect_seqs(1..=2);
    client.ack(2);
    node.expect_acknowledged("01", 2);

    expect(&node, "payrelay_payments_accepted_total", 2.0);
    expect(&node, "payrelay_payments_duplicate_total", 1.0);
    expect(&node, "payrelay_payments_acknowledged_total", 2.0);
    expect(&node, r#"payrelay_requests_refused_total{code="bad_json"}"#, 1.0);
    expect(&node, r#"payrelay_requests_refused_total{code="invalid_client_id"}"#, 2.0);
    eventually("both were delivered, one way or the other", || {
        let live = value(&node, r#"payrelay_payments_delivered_total{way="live"}"#);
        let caught_up = value(&node, r#"payrelay_payments_delivered_total{way="catch_up"}"#);
        (live + caught_up - 2.0).abs() < 0.5
    });
    client.send_line(r#"{"type":"bye"}"#);
    client.expect_closed();
    expect(&node, "payrelay_clients_online", 0.0);
}

fn live_and_caught_up_deliveries_are_told_apart(home: Home) {
    let node = Node::start(home);
    node.accept("01", "1");
    let mut client = node.client("01");
    client.expect_payment(1, "1");
    eventually("the one that waited was caught up with", || {
        value(&node, r#"payrelay_payments_delivered_total{way="catch_up"}"#) >= 1.0
    });
    client.ack(1);
    let mut seq = 1;
    eventually("one that came while the client was idle went live", || {
        seq += 1;
        assert_eq!(node.accept("01", "1"), seq);
        client.expect_payment(seq, "1");
        client.ack(seq);
        value(&node, r#"payrelay_payments_delivered_total{way="live"}"#) >= 1.0
    });
}

fn clients_are_not_named(home: Home) {
    let node = Node::start(home);
    let size = |node: &Node| samples(node).len();
    node.accept("a-client-of-this-test", "1");
    let _client = node.client("a-client-of-this-test");
    let before = size(&node);
    for n in 0..20 {
        node.accept(&format!("another-client-{n}"), "1");
    }
    let text = node.get("/metrics").expect(200).text();
    assert!(!text.contains("a-client-of-this-test") && !text.contains("another-client"), "{text}");
    assert_eq!(size(&node), before, "as many samples as before");
}
