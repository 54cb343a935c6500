//! A busy client's acknowledgements may be read together, but nobody who needs one waits for that, and none of them is lost.
mod harness;

use std::time::{Duration, Instant};

use harness::node::{JSON, envelope};
use harness::{Client, Deployment, Home, Node, on_both_inboxes};

on_both_inboxes!(
    a_sender_that_waits_hears_at_once,
    a_full_window_is_read_at_once,
    what_was_acknowledged_does_not_come_again_after_reconnecting_at_once,
    a_node_that_stops_stores_what_was_acknowledged,
);

/// A reader may leave acknowledgements in the socket for so long.
const NAP: Duration = Duration::from_millis(250);

/// Has a client acknowledge some payments, one after the other: from then on it is busy.
fn make_busy(node: &Node, client: &mut Client, from: u64) {
    for seq in from..from + 3 {
        assert_eq!(node.accept("01", &seq.to_string()), seq);
        client.expect_seqs([seq]);
        client.ack(seq);
    }
}

fn a_sender_that_waits_hears_at_once(home: Home) {
    const WAITS: u32 = 20;
    let nodes = Deployment::at(home, &[]);
    let mut client = nodes[0].client("01");
    make_busy(&nodes[0], &mut client, 1);
    let began = Instant::now();
    for (seq, node) in (4..).zip(nodes.iter().cycle()).take(WAITS as usize) {
        // Posted where the client is, and on another node.
        let mut sender = node.http_client();
        let body = envelope("01", &seq.to_string(), None);
        sender.ask("POST", "/v1/payments?wait=30", &[JSON], body.as_bytes());
        client.expect_seqs([seq]);
        client.ack(seq);
        assert_eq!(sender.answer().expect(200).field("status"), "acknowledged");
    }
    let took = began.elapsed();
    assert!(took < WAITS * NAP / 2, "{WAITS} waits took {took:?}");
}

fn a_full_window_is_read_at_once(home: Home) {
    const WINDOW: u32 = 8;
    const PAYMENTS: u32 = 400;
    let node = Node::with(home, &["--window", &WINDOW.to_string()]);
    for n in 1..=PAYMENTS {
        node.accept("01", &n.to_string());
    }
    let began = Instant::now();
    let mut client = node.client("01");
    for seq in 1..=u64::from(PAYMENTS) {
        client.expect_seqs([seq]);
        client.ack(seq);
    }
    let took = began.elapsed();
    assert!(took < PAYMENTS / WINDOW * NAP / 2, "{PAYMENTS} payments took {took:?}");
    node.expect_acknowledged("01", PAYMENTS.into());
}

fn what_was_acknowledged_does_not_come_again_after_reconnecting_at_once(home: Home) {
    let node = Node::start(home);
    for from in (1..16).step_by(3) {
        let mut client = node.client("01");
        assert_eq!((client.welcome.acked, client.welcome.pending), (from - 1, 0));
        make_busy(&node, &mut client, from);
    }
}

fn a_node_that_stops_stores_what_was_acknowledged(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    make_busy(&node, &mut client, 1);
    node.terminate();
    node.restart();
    assert_eq!(node.status("01", 3), "acknowledged");
}
