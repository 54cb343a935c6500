//! A busy client's acknowledgements may be read together, but nobody who needs one waits for that, and none of them is lost.
mod harness;

use std::time::{Duration, Instant};

use harness::node::{JSON, envelope};
use harness::{Client, Deployment, Home, Http, Node, on_both_inboxes};

on_both_inboxes!(
    a_sender_that_waits_hears_at_once,
    a_sender_of_a_large_payment_hears_at_once,
    a_sender_that_repeats_hears_at_once,
    a_full_window_is_read_at_once,
    what_was_acknowledged_does_not_come_again_after_reconnecting_at_once,
    what_was_acknowledged_does_not_come_again_on_a_second_connection,
    a_node_that_stops_stores_what_was_acknowledged,
);

/// A reader may leave acknowledgements in the socket for so long.
const NAP: Duration = Duration::from_millis(250);
/// The least time between two connections of a client.
const LEAST_HOLD: Duration = Duration::from_millis(100);

/// Has a client acknowledge three payments, one after the other: then it is busy, and its reader naps.
fn make_busy(node: &Node, client: &mut Client, from: u64) {
    for seq in from..from + 3 {
        assert_eq!(node.accept("01", &seq.to_string()), seq);
        client.expect_seqs([seq]);
        client.ack(seq);
    }
}

/// Has every fourth payment waited for, in the way given, by a sender whose answer must not wait for a nap's end.
fn expect_answers_at_once(home: Home, nodes: &[Node], wait_for: impl Fn(&Node, u64, &mut Client) -> Http) {
    const WAITS: u32 = 12;
    let mut client = nodes[0].client("01");
    let mut waited = Duration::ZERO;
    for (from, node) in (1..).step_by(4).zip(nodes.iter().cycle()).take(WAITS as usize) {
        make_busy(&nodes[0], &mut client, from);
        let began = Instant::now();
        let mut sender = wait_for(node, from + 3, &mut client);
        client.ack(from + 3);
        assert_eq!(sender.answer().expect(200).field("status"), "acknowledged");
        waited += began.elapsed();
    }
    assert!(waited < WAITS * NAP / 2, "{home:?}: {WAITS} waits took {waited:?}");
}

/// Starts a post that waits.
fn post_waiting(node: &Node, body: &str) -> Http {
    let mut sender = node.http_client();
    sender.ask("POST", "/v1/payments?wait=30", &[JSON], body.as_bytes());
    sender
}

fn a_sender_that_waits_hears_at_once(home: Home) {
    // Posted where the client is, and on another node.
    expect_answers_at_once(home, &Deployment::at(home, &[]), |node, seq, client| {
        let sender = post_waiting(node, &envelope("01", "1", None));
        client.expect_seqs([seq]);
        sender
    });
}

fn a_sender_of_a_large_payment_hears_at_once(home: Home) {
    // More than a socket takes at once.
    let large = format!("\"{}\"", "x".repeat(200 * 1024));
    expect_answers_at_once(home, &[Node::start(home)], |node, seq, client| {
        let sender = post_waiting(node, &envelope("01", &large, None));
        client.expect_seqs([seq]);
        sender
    });
}

fn a_sender_that_repeats_hears_at_once(home: Home) {
    expect_answers_at_once(home, &[Node::start(home)], |node, seq, client| {
        let id = format!("wx-{seq}");
        node.post_with_id("01", "1", &id).expect(202);
        client.expect_seqs([seq]);
        // The payment is on the wire by now; only the repeat waits.
        post_waiting(node, &envelope("01", "1", Some(&id)))
    });
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

fn what_was_acknowledged_does_not_come_again_on_a_second_connection(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let (mut in_vain, mut last) = (0, 0);
    for _ in 0..6 {
        // Long enough for the second to be let in at once.
        let began = Instant::now();
        while began.elapsed() < LEAST_HOLD * 3 / 2 {
            make_busy(&node, &mut client, last + 1);
            last += 3;
        }
        // The first is open until the second is there.
        let second = node.client("01");
        in_vain += u32::from(second.welcome.acked < last);
        client = second;
        client.ack(last);
    }
    // What is read from the one at the very moment when the other takes over may come again.
    assert!(in_vain <= 1, "{in_vain} times of 6");
}

fn a_node_that_stops_stores_what_was_acknowledged(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    make_busy(&node, &mut client, 1);
    node.terminate();
    node.restart();
    assert_eq!(node.status("01", 3), "acknowledged");
}
