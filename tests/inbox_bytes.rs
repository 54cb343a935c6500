//! One inbox holds at most 256 MiB, however few payments and dead letters that are: past it 429, and nobody else notices.

use crate::harness::node::JSON;
use crate::harness::{Answer, Home, Node, PATIENCE, Redis, eventually_within, on_both_inboxes};

on_both_inboxes!(an_inbox_is_full_at_256_mib);

const MIB: usize = 1 << 20;

/// Posts until it is answered one way or the other: a slow machine may need a second try.
#[track_caller]
fn post(node: &Node, client: &str, msg_bytes: usize, id: &str) -> Answer {
    let body = format!("{{\"client\":\"{client}\",\"payment_id\":\"{id}\",\"msg\":\"{}\"}}", "x".repeat(msg_bytes));
    let mut answer = None;
    eventually_within(PATIENCE * 6, "there is an answer", || {
        let mut http = node.http_client().patient(PATIENCE * 2);
        answer = Some(http.send("POST", "/v1/payments", &[JSON], body.as_bytes()));
        answer.as_ref().is_some_and(|answer| answer.status != 503)
    });
    answer.expect("there is one")
}

fn an_inbox_is_full_at_256_mib(home: Home) {
    let flags = ["--body-limit", "16777216", "--require-durability", "any"];
    let node = match home {
        Home::Embedded => Node::with(home, &flags),
        // Its disk would only make this slow.
        Home::Redis => Node::on(&Redis::without_persistence(), "n1", &flags),
    };
    // As large as they may be; a disk that is slow takes smaller ones.
    let (large, count) = match home {
        Home::Embedded => (4 * MIB - 1024, 64),
        Home::Redis => (16 * MIB - 4096, 16),
    };
    // So many fill it but for a little.
    for n in 1..=count {
        let answer = post(&node, "01", large, &format!("wx-{n}"));
        assert!(answer.is_success(), "{}", answer.show());
        assert_eq!(answer.seq(), n);
    }
    let refused = || {
        post(&node, "01", large, "too-much").expect_problem(429, "inbox_full");
        post(&node, "01", 100 * 1024, "still-too-much").expect_problem(429, "inbox_full");
        node.get("/v1/clients/01/payments?payment_id=too-much").expect_problem(404, "not_found");
    };
    refused();
    // It is the bytes: a small one fits, a repeat is told, and others have an inbox of their own.
    assert_eq!(post(&node, "01", 10, "small").seq(), count + 1);
    assert_eq!(post(&node, "01", large, "wx-3").expect(200).seq(), 3);
    assert_eq!(post(&node, "02", large, "wx-1").seq(), 1);
    refused();
    assert_eq!(node.about("01")["pending"], count + 1);

    // What became a dead letter holds its room until it is thrown away.
    let delete = |path| eventually_within(PATIENCE, path, || node.delete(path).is_success());
    delete("/v1/clients/01/payments/2");
    assert_eq!(node.about("01")["pending"], count);
    refused();
    delete("/v1/clients/01/dead-letters/2");
    assert_eq!(post(&node, "01", large, "instead").seq(), count + 2);
    refused();

    // What is acknowledged makes room for as much, and no more.
    let mut client = node.client("01");
    client.expect_seqs([1]);
    client.ack(1);
    node.expect_acknowledged("01", 1);
    assert_eq!(post(&node, "01", large, "room").seq(), count + 3);
    refused();
}
