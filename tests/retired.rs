//! A client that an operator retires leaves nothing behind in Redis, and its payment ids are free again in its new life.

use std::thread;

use crate::harness::node::{JSON, envelope};
use crate::harness::{Deployment, Home, PATIENCE, Redis, Reply, eventually, on_both_inboxes};

on_both_inboxes!(payment_ids_are_free_again);

/// All keys of a client.
#[track_caller]
fn keys(redis: &Redis, client: &str) -> Vec<String> {
    match redis.cli(&["KEYS", &format!("payrelay:{{{client}}}:*")]) {
        Reply::List(keys) => keys.into_iter().map(Reply::text).collect(),
        other => panic!("not a list: {other:?}"),
    }
}

fn payment_ids_are_free_again(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let last = nodes.last().expect("at least one node");
    for life in 0..3 {
        for n in 1..=3 {
            // Another message under the same payment id: in one life it would be a 422.
            let msg = format!("\"life {life}\"");
            assert_eq!(nodes[0].post_with_id("01", &msg, &format!("wx-{n}")).expect(202).seq(), n);
        }
        assert_eq!(last.post_with_id("01", &format!("\"life {life}\""), "wx-1").expect(200).seq(), 1);
        let mut client = last.client("01");
        for seq in 1..=3 {
            client.expect_payment(seq, &format!("\"life {life}\""));
        }
        client.ack(1 + life);
        nodes[0].expect_acknowledged("01", 1 + life);
        client.send_line(r#"{"type":"bye"}"#);
        client.expect_closed();
        nodes[0].expect_online("01", false);
        last.delete("/v1/clients/01?discard=true").expect(204);
        for node in &nodes {
            node.expect_unknown("01");
            node.get("/v1/clients/01/payments?payment_id=wx-1").expect_problem(404, "not_found");
        }
    }
}

#[test]
fn no_key_is_left() {
    let nodes = Deployment::redis(2);
    let redis = &nodes.redis;
    // Others, of whose names this one's is a part.
    for id in ["0", "011", "a:01", "01:id"] {
        nodes[0].post_with_id(id, "1", "wx-1").expect(202);
    }
    let others = ["0", "011", "a:01", "01:id"].map(|id| keys(redis, id).len());
    // More payment ids than are swept at once.
    let lines: String = (0..2500).map(|n| envelope("01", "1", Some(&format!("wx-{n}"))) + "\n").collect();
    nodes[0].post_batch(&lines).expect(200);
    let mut client = nodes[1].client("01");
    client.expect_seqs(1..=10);
    client.ack(5);
    nodes[0].expect_acknowledged("01", 5);
    thread::scope(|scope| {
        // Somebody waits, on the other node.
        let waiter = scope.spawn(|| {
            let mut http = nodes[0].http_client().patient(PATIENCE * 2);
            http.send("POST", "/v1/payments?wait=5", &[JSON], envelope("01", "1", Some("waits")).as_bytes())
        });
        eventually("it is stored", || nodes[1].about("01")["last_seq"] == 2501);
        assert!(keys(redis, "01").len() > 2500);
        nodes[0].delete("/v1/clients/01?discard=true").expect(204);
        assert_eq!(keys(redis, "01"), Vec::<String>::new());
        let (_, code) = client.read_to_the_end();
        assert_eq!(code.as_deref(), Some("disconnected"));
        let answer = waiter.join().expect("a sender");
        assert!(answer.status < 500, "{}", answer.show());
    });
    // The end of its connection has brought nothing back.
    for node in &nodes.nodes {
        node.expect_unknown("01");
    }
    assert_eq!(keys(redis, "01"), Vec::<String>::new());
    assert_eq!(["0", "011", "a:01", "01:id"].map(|id| keys(redis, id).len()), others, "others keep theirs");
    assert_eq!(nodes[1].post_with_id("01", "2", "wx-1").expect(202).seq(), 1);
    assert_eq!(nodes[1].post_with_id("011", "1", "wx-1").expect(200).seq(), 1);
    eventually("it is listed as long as something waits", || {
        nodes[0].get("/v1/clients?pending=true").expect(200).text().contains("\"client\":\"01\"")
    });
    nodes[0].delete("/v1/clients/01?discard=true").expect(204);
    let listed = nodes[1].get("/v1/clients?pending=true").expect(200).text();
    assert!(!listed.contains("\"client\":\"01\""), "{listed}");
    assert_eq!(keys(redis, "01"), Vec::<String>::new());
}
