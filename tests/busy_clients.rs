//! A busy client's acknowledgements may be read together, but nobody who needs one waits for that, and none of them is lost.

use std::time::{Duration, Instant};

use crate::harness::node::{JSON, envelope};
use crate::harness::{Client, Deployment, Home, Http, Node, eventually_quick, on_both_inboxes};

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

/// What of all that was sent is not acknowledged comes again on a new connection, and nothing else does.
fn expect_rest(client: &mut Client, last: u64) {
    let acked = client.welcome.acked;
    assert_eq!(client.welcome.pending, last - acked);
    client.expect_seqs(acked + 1..=last);
    client.ack(last);
}

/// Sends a payment to a client that gets it, and returns who is to be answered once it is acknowledged.
type WaitFor = fn(&Node, u64, &mut Client) -> Http;

/// How long a sender waits for the answer to a payment of this seq, sent in the way given.
fn time_of_answer(node: &Node, seq: u64, client: &mut Client, wait_for: WaitFor) -> Duration {
    let began = Instant::now();
    let mut sender = wait_for(node, seq, client);
    client.ack(seq);
    assert_eq!(sender.answer().expect(200).field("status"), "acknowledged");
    began.elapsed()
}

/// Has every fourth payment waited for by a sender whose answer must not wait for a nap's end: it comes as soon as that
/// of a client which has just connected, and whose reader does not nap. Both take long where the machine is busy, and
/// either may be told only with the notes that gather for 50 ms.
fn expect_answers_at_once(home: Home, nodes: &[Node], wait_for: WaitFor) {
    let mut client = nodes[0].client("01");
    let mut from = 1;
    for node in nodes {
        eventually_quick(&format!("{home:?}: an answer of {}", node.name()), NAP / 4, 4, || {
            let mut idle = nodes[0].client(&format!("idle-{from}"));
            let usual = time_of_answer(node, 1, &mut idle, wait_for);
            make_busy(&nodes[0], &mut client, from);
            let time = time_of_answer(node, from + 3, &mut client, wait_for);
            from += 4;
            time.saturating_sub(usual)
        });
    }
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
        let sender = post_waiting(node, &envelope(&client.welcome.client, "1", None));
        client.expect_seqs([seq]);
        sender
    });
}

fn a_sender_of_a_large_payment_hears_at_once(home: Home) {
    expect_answers_at_once(home, &[Node::start(home)], |node, seq, client| {
        // More than a socket takes at once.
        let large = format!("\"{}\"", "x".repeat(200 * 1024));
        let sender = post_waiting(node, &envelope(&client.welcome.client, &large, None));
        client.expect_seqs([seq]);
        sender
    });
}

fn a_sender_that_repeats_hears_at_once(home: Home) {
    expect_answers_at_once(home, &[Node::start(home)], |node, seq, client| {
        let id = format!("wx-{seq}");
        let name = client.welcome.client.clone();
        node.post_with_id(&name, "1", &id).expect(202);
        client.expect_seqs([seq]);
        // The payment is on the wire by now; only the repeat waits.
        post_waiting(node, &envelope(&name, "1", Some(&id)))
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
    let (mut in_vain, mut last) = (0, 0);
    for _ in 0..6 {
        let mut client = node.client("01");
        in_vain += u32::from(client.welcome.acked < last);
        expect_rest(&mut client, last);
        make_busy(&node, &mut client, last + 1);
        last += 3;
    }
    // A newcomer waits for what was said before it, but not for ever: a busy machine may take longer to read it.
    assert!(in_vain <= 1, "{in_vain} times of 5");
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
        expect_rest(&mut client, last);
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
