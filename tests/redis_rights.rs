//! A Redis user without the right to any channel: payments are stored, delivered and acknowledged all the same, a moment later.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::harness::node::{JSON, envelope};
use crate::harness::{Node, PATIENCE, Redis, eventually};

/// Two nodes that may do anything but publish and subscribe.
fn without_channels() -> (Arc<Redis>, Node, Node) {
    let redis = Redis::start();
    redis.cli(&["ACL", "SETUSER", "relay", "on", ">secret", "~*", "+@all", "resetchannels"]).expect_ok();
    let url = format!("redis://relay:secret@127.0.0.1:{}/", redis.port());
    let [n1, n2] = ["n1", "n2"].map(|name| Node::on_url(&redis, &url, name, &["--heartbeat", "5"]));
    for node in [&n1, &n2] {
        eventually("payments are accepted", || node.post_with_id("first", "1", node.name()).is_success());
    }
    (redis, n1, n2)
}

#[test]
fn payments_are_stored_delivered_and_acknowledged() {
    let (_redis, here, there) = without_channels();
    let mut client = here.client("01");
    for seq in 1..=4 {
        // Posted where the client is, and on the node that would have to ring.
        let node = if seq % 2 == 0 { &here } else { &there };
        let msg = seq.to_string();
        let id = format!("wx-{seq}");
        assert_eq!(node.post_with_id("01", &msg, &id).expect(202).seq(), seq);
        client.expect_payment(seq, &msg);
        client.ack(seq);
        there.expect_acknowledged("01", seq);
        let repeat = node.post_with_id("01", &msg, &id).expect(200).json();
        assert_eq!((&repeat["seq"], &repeat["status"]), (&seq.into(), &"acknowledged".into()), "{repeat}");
    }
    let about = there.about("01");
    assert_eq!((&about["last_seq"], &about["acked"], &about["pending"]), (&4.into(), &4.into(), &0.into()), "{about}");
}

#[test]
fn a_receipt_that_cannot_be_sent_bricks_nobody() {
    let (_redis, here, there) = without_channels();
    let mut client = here.client("01");
    thread::scope(|scope| {
        // Whoever waits on the other node would be told over a channel.
        let waiter = scope.spawn(|| {
            let mut http = there.http_client().patient(PATIENCE);
            http.send("POST", "/v1/payments?wait=2", &[JSON], envelope("01", "1", Some("wx-1")).as_bytes())
        });
        client.expect_payment(1, "1");
        client.ack(1);
        here.expect_acknowledged("01", 1);
        let answer = waiter.join().expect("a sender");
        assert!(answer.is_success(), "{}", answer.show());
    });
    assert_eq!(there.accept("01", "2"), 2);
    client.expect_payment(2, "2");
    client.ack(2);
    here.expect_acknowledged("01", 2);
    assert_eq!(here.client("01").welcome.acked, 2);
}

#[test]
fn a_takeover_that_cannot_be_told_bricks_nobody() {
    let (_redis, here, there) = without_channels();
    let mut old = here.client("01");
    here.accept("01", "1");
    old.expect_payment(1, "1");
    for turn in 0..3 {
        let nodes = [&there, &here];
        let mut new = nodes[turn % 2].client("01");
        let epoch = old.welcome.epoch;
        assert_eq!(new.welcome.epoch, epoch, "the epoch stays");
        let seq = new.welcome.acked + 1;
        new.expect_payment(seq, "1");
        // The older one finds out with its next look at the store, if nobody can tell it.
        let (_, code) = old.read_to_the_end_within(Duration::from_secs(30));
        assert_eq!(code.as_deref(), Some("replaced"));
        new.ack(seq);
        here.expect_acknowledged("01", seq);
        assert_eq!(here.accept("01", "1"), seq + 1);
        new.expect_payment(seq + 1, "1");
        old = new;
    }
}
