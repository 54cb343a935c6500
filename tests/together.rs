//! Payments of one client that wait together are sent together, and none of them is held back for it.

use std::time::{Duration, Instant};

use crate::harness::node::envelope;
use crate::harness::{Deployment, Home, Node, QUIET, eventually_quick, on_both_inboxes};

on_both_inboxes!(
    what_a_window_lets_through_comes_at_once,
    what_comes_together_for_many_keeps_each_clients_order,
    a_backlog_comes_at_once,
);

/// So long a kernel may hold back what it was told to.
const HELD_BACK: Duration = Duration::from_millis(200);
/// So many in a row are quicker.
const IN_A_ROW: usize = 3;

fn batch(clients: &[&str], each: u64) -> String {
    (0..each).flat_map(|_| clients).map(|client| envelope(client, "1", None) + "\n").collect()
}

fn what_a_window_lets_through_comes_at_once(home: Home) {
    let nodes = Deployment::at(home, &["--window", "3"]);
    let mut client = nodes[0].client("01");
    let mut first = 1;
    // From where the client is, and from another node. Of five that come together three may be sent.
    for node in nodes.iter().rev() {
        eventually_quick(&format!("{home:?}: five from {}", node.name()), HELD_BACK, IN_A_ROW, || {
            let began = Instant::now();
            node.post_batch(&batch(&["01"], 5)).expect(200);
            client.expect_seqs(first..first + 3);
            client.ack(first + 2);
            client.expect_seqs(first + 3..first + 5);
            client.ack(first + 4);
            first += 5;
            began.elapsed()
        });
    }
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
    let node = Node::start(home);
    let mut clients = 0;
    eventually_quick(&format!("{home:?}: a backlog"), HELD_BACK, IN_A_ROW, || {
        clients += 1;
        let name = clients.to_string();
        node.post_batch(&batch(&[&name], 7)).expect(200);
        let began = Instant::now();
        node.client(&name).expect_seqs(1..=7);
        began.elapsed()
    });
}
