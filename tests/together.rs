//! Payments of one client that wait together are sent together, and none of them is held back for it.
mod harness;

use std::time::{Duration, Instant};

use harness::node::envelope;
use harness::{Deployment, Home, Node, QUIET, on_both_inboxes};

on_both_inboxes!(
    what_a_window_lets_through_comes_at_once,
    what_comes_together_for_many_keeps_each_clients_order,
    a_backlog_comes_at_once,
);

/// So long a kernel may hold back what it was told to.
const HELD_BACK: Duration = Duration::from_millis(200);

fn batch(clients: &[&str], each: u64) -> String {
    (0..each).flat_map(|_| clients).map(|client| envelope(client, "1", None) + "\n").collect()
}

fn what_a_window_lets_through_comes_at_once(home: Home) {
    const ROUNDS: u64 = 20;
    let nodes = Deployment::at(home, &["--window", "3"]);
    let mut client = nodes[0].client("01");
    let began = Instant::now();
    for first in (1..=5 * ROUNDS).step_by(5) {
        // From where the client is, and from another node. Of five that come together three may be sent.
        nodes[usize::try_from(first).expect("small") % nodes.len()].post_batch(&batch(&["01"], 5)).expect(200);
        client.expect_seqs(first..first + 3);
        client.ack(first + 2);
        client.expect_seqs(first + 3..first + 5);
        client.ack(first + 4);
    }
    let took = began.elapsed();
    assert!(took < HELD_BACK * u32::try_from(ROUNDS).expect("small"), "{home:?}: {ROUNDS} rounds took {took:?}");
}

fn what_comes_together_for_many_keeps_each_clients_order(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let names = ["03", "01", "02"];
    let mut clients = names.map(|name| nodes[0].client(name));
    for node in nodes.iter().cycle().take(10) {
        node.post_batch(&batch(&names, 20)).expect(200);
    }
    for client in &mut clients {
        client.expect_seqs(1..=200);
        client.expect_nothing_but_pings(QUIET);
    }
}

fn a_backlog_comes_at_once(home: Home) {
    const CLIENTS: u32 = 20;
    let node = Node::start(home);
    let names: Vec<String> = (0..CLIENTS).map(|n| n.to_string()).collect();
    for name in &names {
        node.post_batch(&batch(&[name], 7)).expect(200);
    }
    let began = Instant::now();
    for name in &names {
        node.client(name).expect_seqs(1..=7);
    }
    let took = began.elapsed();
    assert!(took < HELD_BACK * CLIENTS, "{home:?}: {CLIENTS} backlogs took {took:?}");
}
