//! The window: so many payments, and so many bytes, are on the wire unacknowledged; the rest waits in the inbox.

use crate::harness::{self, Client, Home, Node, QUIET, on_both_inboxes};

on_both_inboxes!(
    the_window_fills_and_an_ack_refills_it,
    a_backlog_keeps_to_the_window,
    a_hello_lowers_the_window,
    a_hello_does_not_raise_the_window,
    an_ack_beyond_what_was_sent_counts_as_far_as_was_sent,
    a_lower_ack_is_ignored,
    the_window_has_a_size_in_bytes,
    one_payment_is_always_sent,
);

fn post(node: &Node, count: u64) {
    for n in 1..=count {
        node.accept("01", &n.to_string());
    }
}

fn the_window_fills_and_an_ack_refills_it(home: Home) {
    let node = Node::with(home, &["--window", "4"]);
    let mut client = node.client("01");
    assert_eq!(client.welcome.window, 4);
    post(&node, 10);
    client.expect_seqs(1..=4);
    client.expect_nothing_but_pings(QUIET);
    client.ack(2);
    client.expect_seqs(5..=6);
    client.expect_nothing_but_pings(QUIET);
    client.ack(6);
    client.expect_seqs(7..=10);
    client.ack(10);
    node.expect_acknowledged("01", 10);
    // And then it is live again.
    node.accept("01", "11");
    client.expect_seqs([11]);
}

fn a_backlog_keeps_to_the_window(home: Home) {
    let node = Node::with(home, &["--window", "4"]);
    post(&node, 10);
    let mut client = node.client("01");
    client.expect_seqs(1..=4);
    client.expect_nothing_but_pings(QUIET);
    for seq in 1..=6 {
        client.ack(seq);
        client.expect_seqs([seq + 4]);
    }
    client.expect_nothing_but_pings(QUIET);
}

fn a_hello_lowers_the_window(home: Home) {
    let node = Node::start(home);
    post(&node, 3);
    let mut client = node.client_with("01", r#""window":2"#);
    assert_eq!(client.welcome.window, 2);
    client.expect_seqs(1..=2);
    client.expect_nothing_but_pings(QUIET);
    client.ack(1);
    client.expect_seqs([3]);
}

fn a_hello_does_not_raise_the_window(home: Home) {
    let node = Node::with(home, &["--window", "2"]);
    post(&node, 3);
    let mut client = node.client_with("01", r#""window":16"#);
    assert_eq!(client.welcome.window, 2);
    client.expect_seqs(1..=2);
    client.expect_nothing_but_pings(QUIET);
}

fn an_ack_beyond_what_was_sent_counts_as_far_as_was_sent(home: Home) {
    let node = Node::with(home, &["--window", "4"]);
    post(&node, 10);
    let mut client = node.client("01");
    client.expect_seqs(1..=4);
    client.ack(1000);
    client.expect_seqs(5..=8);
    client.expect_nothing_but_pings(QUIET);
    node.expect_acknowledged("01", 4);
    assert_eq!(node.about("01")["acked"], 4);
    assert_eq!(node.status("01", 5), "accepted");
}

fn a_lower_ack_is_ignored(home: Home) {
    let node = Node::with(home, &["--window", "4"]);
    post(&node, 7);
    let mut client = node.client("01");
    client.expect_seqs(1..=4);
    client.ack(3);
    client.expect_seqs(5..=7);
    for lower in [1, 0, 3, 2] {
        client.ack(lower);
    }
    client.expect_nothing_but_pings(QUIET);
    node.expect_acknowledged("01", 3);
    client.ack(5);
    node.expect_acknowledged("01", 5);
    assert_eq!(node.status("01", 6), "accepted");
}

/// Reads until nothing comes for a while; the lengths of the lines.
fn read_all_there_is(client: &mut Client) -> Vec<usize> {
    let mut lengths = vec![client.expect_any_payment().frame.line.len()];
    // The rest is on its way already, or does not come.
    while let harness::Next::Frame(frame) = client.next(QUIET * 2) {
        lengths.push(frame.line.len());
    }
    lengths
}

fn the_window_has_a_size_in_bytes(home: Home) {
    let node = Node::start(home);
    let msg = format!("\"{}\"", "x".repeat(200 * 1024));
    for _ in 0..8 {
        node.accept("01", &msg);
    }
    let mut client = node.client("01");
    let mut seen = 0;
    while seen < 8 {
        let lengths = read_all_there_is(&mut client);
        assert!(lengths.iter().sum::<usize>() <= 1 << 20, "at most 1 MiB unacknowledged: {lengths:?}");
        seen += lengths.len() as u64;
        client.ack(seen);
    }
    node.expect_acknowledged("01", 8);
}

fn one_payment_is_always_sent(home: Home) {
    let node = Node::with(home, &["--body-limit", "2097152"]);
    let mut client = node.client("01");
    let msg = format!("\"{}\"", "x".repeat(1_500_000));
    for seq in 1..=2 {
        assert_eq!(node.accept("01", &msg), seq);
    }
    client.expect_payment(1, &msg);
    client.expect_nothing_but_pings(QUIET);
    client.ack(1);
    client.expect_payment(2, &msg);
}
