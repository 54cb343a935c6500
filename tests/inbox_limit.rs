//! The inbox limit: exactly so many payments wait for a client, counted over all nodes; one more is refused with 429.

use std::thread;

use crate::harness::node::{JSON, envelope};
use crate::harness::{self, Deployment, Home, Node, eventually_some, on_both_inboxes};

on_both_inboxes!(
    the_limit_is_exact,
    the_limit_is_exact_in_a_race,
    after_an_acknowledgement_one_more_fits,
    a_repeat_is_told_even_when_it_is_full,
    a_batch_fills_it_and_no_more,
    another_client_is_not_touched,
);

const LIMIT: [&str; 2] = ["--inbox-limit", "10"];

fn fill(node: &Node) {
    for seq in 1..=10 {
        assert_eq!(node.post_with_id("01", &seq.to_string(), &format!("wx-{seq}")).expect(202).seq(), seq);
    }
}

fn the_limit_is_exact(home: Home) {
    let nodes = Deployment::at(home, &LIMIT);
    fill(&nodes[0]);
    for node in &nodes {
        node.post("01", "11").expect_problem(429, "inbox_full");
        node.post_with_id("01", "11", "wx-11").expect_problem(429, "inbox_full");
    }
    assert_eq!(nodes[0].about("01")["pending"], 10);
    // A refusal leaves no record: the payment id is free.
    nodes[0].get("/v1/clients/01/payments?payment_id=wx-11").expect_problem(404, "not_found");
}

fn the_limit_is_exact_in_a_race(home: Home) {
    let nodes = Deployment::at(home, &LIMIT);
    let post = |node: &Node| {
        let mut http = node.http_client();
        let body = envelope("01", "1", None);
        (0..5).map(|_| http.send("POST", "/v1/payments", &[JSON], body.as_bytes()).status).collect::<Vec<_>>()
    };
    let statuses: Vec<u16> = thread::scope(|scope| {
        let senders: Vec<_> = (0..16)
            .map(|n| {
                scope.spawn({
                    let node = &nodes[n % nodes.len()];
                    move || post(node)
                })
            })
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("a sender")).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 202).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|&&status| status == 429).count(), 70, "{statuses:?}");
    let mut client = nodes[0].client("01");
    client.expect_seqs(1..=10);
    client.expect_nothing_but_pings(harness::QUIET);
}

fn after_an_acknowledgement_one_more_fits(home: Home) {
    let nodes = Deployment::at(home, &LIMIT);
    let last = nodes.last().expect("at least one node");
    fill(&nodes[0]);
    let mut client = last.client("01");
    client.expect_seqs(1..=10);
    for seq in 11..=13 {
        last.post("01", "1").expect_problem(429, "inbox_full");
        client.ack(seq - 10);
        nodes[0].expect_acknowledged("01", seq - 10);
        assert_eq!(nodes[0].accept("01", "1"), seq);
        client.expect_seqs([seq]);
    }
    client.ack(13);
    let seq = eventually_some("there is room again", || {
        let answer = nodes[0].post("01", "1");
        (answer.status == 202).then(|| answer.seq())
    });
    assert_eq!(seq, 14);
}

fn a_repeat_is_told_even_when_it_is_full(home: Home) {
    let node = Node::with(home, &LIMIT);
    fill(&node);
    let repeat = node.post_with_id("01", "3", "wx-3").expect(200).json();
    assert_eq!((&repeat["duplicate"], &repeat["seq"]), (&true.into(), &3.into()));
    node.post_with_id("01", "4", "wx-3").expect_problem(422, "payment_id_reused");
}

fn a_batch_fills_it_and_no_more(home: Home) {
    let node = Node::with(home, &LIMIT);
    let answers = node.post_batch(&(envelope("01", "1", None) + "\n").repeat(13)).expect(200).json_lines();
    assert_eq!(answers.len(), 13);
    assert!((1..=10).zip(&answers).all(|(seq, answer)| answer["seq"] == seq), "{answers:?}");
    assert!(answers[10..].iter().all(|answer| answer["code"] == "inbox_full"), "{answers:?}");
}

fn another_client_is_not_touched(home: Home) {
    let node = Node::with(home, &LIMIT);
    fill(&node);
    node.post("01", "11").expect_problem(429, "inbox_full");
    assert_eq!(node.accept("02", "1"), 1);
}
