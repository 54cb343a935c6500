//! A full Redis refuses new payments and nothing else: clients come, acknowledge and drain it, and then it takes payments again.

use crate::harness::{Home, Node, eventually};

#[test]
fn a_full_redis_drains_and_takes_payments_again() {
    let node = Node::start(Home::Redis);
    let redis = node.redis();
    let msg = format!("\"{}\"", "x".repeat(200_000));
    let mut online = node.client("02");
    node.accept("02", "1");
    online.expect_payment(1, "1");

    let limit = redis.info("used_memory") + 4 * 1024 * 1024;
    redis.cli(&["CONFIG", "SET", "maxmemory", &limit.to_string()]).expect_ok();
    let mut stored = 0;
    let refused = loop {
        let answer = node.post("01", &msg);
        if answer.status != 202 {
            break answer;
        }
        stored += 1;
        assert_eq!(answer.seq(), stored);
        assert!(stored < 100, "it is never full");
    };
    let refused = refused.expect_problem(503, "store_full");
    assert!(refused.header("Retry-After").is_some(), "{}", refused.show());
    assert_eq!(refused.field("stored"), "no");

    // Who is there acknowledges, who comes is welcomed, and gets everything.
    online.ack(1);
    node.expect_acknowledged("02", 1);
    let mut client = node.client("01");
    assert_eq!((client.welcome.acked, client.welcome.pending), (0, stored));
    for seq in 1..=stored {
        client.expect_payment(seq, &msg);
        client.ack(seq);
    }
    node.expect_acknowledged("01", stored);

    eventually("posts are accepted again", || node.post_with_id("01", "\"room\"", "room").is_success());
    client.expect_payment(stored + 1, "\"room\"");
}

#[test]
fn everything_but_a_post_works_while_nothing_fits() {
    let node = Node::start(Home::Redis);
    let redis = node.redis();
    for n in 1..=3 {
        node.accept("01", &n.to_string());
    }
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).expect_ok();
    node.post("01", "4").expect_problem(503, "store_full");
    node.post("new", "1").expect_problem(503, "store_full");

    let mut client = node.client("01");
    client.expect_seqs(1..=3);
    client.ack(2);
    node.expect_acknowledged("01", 2);
    assert_eq!(node.about("01")["pending"], 1);
    drop(client);
    let mut client = node.client("01");
    assert_eq!((client.welcome.acked, client.welcome.pending), (2, 1));
    client.expect_payment(3, "3");
    client.ack(3);
    node.expect_acknowledged("01", 3);
    node.client("never-seen-before");

    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]).expect_ok();
    eventually("posts are accepted again", || node.post_with_id("01", "4", "wx-4").is_success());
    client.expect_payment(4, "4");
}
