//! Promise 2, order: a client sees its payments numbered 1, 2, 3, … without gaps, whoever sends them and wherever.

use std::collections::HashMap;
use std::thread;

use crate::harness::node::{JSON, envelope};
use crate::harness::{self, Client, Deployment, Home, Node, on_both_inboxes};

on_both_inboxes!(
    many_senders_one_client,
    one_sender_sees_rising_numbers,
    a_client_that_keeps_reconnecting_sees_no_gap,
    a_backlog_comes_before_what_is_new,
);

const SENDERS: u64 = 8;
const EACH: u64 = 25;

fn many_senders_one_client(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let mut client = nodes[0].client("01");
    let answers = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                scope.spawn({
                    let node = &nodes[usize::try_from(sender).expect("small") % nodes.len()];
                    move || post_each(node, "01", sender)
                })
            })
            .collect();
        for seq in 1..=SENDERS * EACH {
            client.expect_seqs([seq]);
            client.ack(seq);
        }
        senders.into_iter().flat_map(|sender| sender.join().expect("a sender")).collect::<HashMap<_, _>>()
    });
    // Every number once, and the one that the sender was told is the one that the client saw.
    assert_eq!(answers.len() as u64, SENDERS * EACH, "no number was given twice");
    nodes[0].expect_acknowledged("01", SENDERS * EACH);
    let mut again = nodes[0].client("01");
    assert_eq!((again.welcome.acked, again.welcome.pending), (SENDERS * EACH, 0));
    again.expect_nothing_but_pings(harness::QUIET);
}

/// Posts one after the other; what was answered: seq and message.
fn post_each(node: &Node, client: &str, sender: u64) -> Vec<(u64, String)> {
    let mut http = node.http_client();
    let mut last = 0;
    let post = |n| {
        let msg = format!(r#"{{"sender":{sender},"n":{n}}}"#);
        let body = envelope(client, &msg, None);
        let seq = http.send("POST", "/v1/payments", &[JSON], body.as_bytes()).expect(202).seq();
        assert!(seq > last, "sender {sender}: {seq} after {last}");
        last = seq;
        (seq, msg)
    };
    (0..EACH).map(post).collect()
}

fn one_sender_sees_rising_numbers(home: Home) {
    let nodes = Deployment::at(home, &[]);
    for n in 1..=20 {
        // A payment that was answered before the next was posted has the lower number, whichever node took it.
        let node = &nodes[n % nodes.len()];
        assert_eq!(node.accept("01", &n.to_string()), n as u64);
    }
    let mut client = nodes[0].client("01");
    for n in 1..=20 {
        client.expect_payment(n, &n.to_string());
    }
}

fn a_client_that_keeps_reconnecting_sees_no_gap(home: Home) {
    let nodes = Deployment::at(home, &[]);
    thread::scope(|scope| {
        for (sender, node) in (0..4).zip(nodes.iter().cycle()) {
            scope.spawn(move || post_each(node, "01", sender));
        }
        let mut acked = 0;
        for life in 0.. {
            let mut client: Client = nodes[life % nodes.len()].client("01");
            // What was acknowledged last may still be on its way into the store.
            assert!(client.welcome.acked <= acked, "{}", client.welcome.frame.line);
            let first = client.welcome.acked + 1;
            for seq in (first..=4 * EACH).take(15) {
                client.expect_seqs([seq]);
                client.ack(seq);
                acked = acked.max(seq);
            }
            if acked == 4 * EACH {
                break;
            }
        }
    });
    nodes[0].expect_acknowledged("01", 4 * EACH);
}

fn a_backlog_comes_before_what_is_new(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let last = nodes.last().expect("at least one node");
    for n in 1..=50 {
        last.accept("01", &n.to_string());
    }
    let mut client = nodes[0].client("01");
    for n in 51..=100 {
        last.accept("01", &n.to_string());
    }
    for n in 1..=100 {
        client.expect_payment(n, &n.to_string());
    }
}
