//! Redis away while a crowd acknowledges and comes again and again: who comes is told so, the node keeps no socket of who has gone, and every acknowledgement is stored afterwards.

use std::time::{Duration, Instant};

use crate::harness::line_client::hello;
use crate::harness::node::envelope;
use crate::harness::{self, Client, Home, Line, Node, PATIENCE, eventually, eventually_within};

/// More than any queue of the node should have to hold.
const CROWD: usize = 200;
/// What a node may have open besides: requests that end, connections to Redis, threads of the test's own requests.
const SLACK: usize = 24;

/// All of them say hello at once, and each is told that the store is away.
#[track_caller]
fn all_are_told(node: &Node, ids: &[String]) {
    let mut lines: Vec<Line> = ids.iter().map(|_| node.connect_raw()).collect();
    for (line, id) in lines.iter_mut().zip(ids) {
        line.send_line(&hello(id, ""));
    }
    for line in &mut lines {
        line.expect_error("unavailable");
    }
}

#[test]
fn a_crowd_that_acknowledges_in_an_outage_costs_nothing() {
    let node = Node::start(Home::Redis);
    let ids: Vec<String> = (0..CROWD).map(|n| format!("c{n:03}")).collect();
    let post_all = |msg: &str| {
        let lines: String = ids.iter().map(|id| envelope(id, msg, None) + "\n").collect();
        node.post_batch(&lines).expect(200).json_lines()
    };
    assert!(post_all("1").iter().all(|answer| answer["seq"] == 1));
    let alone = (node.descriptors(), node.threads());
    let mut clients: Vec<Client> = ids.iter().map(|id| node.client(id)).collect();
    for client in &mut clients {
        client.expect_payment(1, "1");
    }

    node.redis().kill();
    for client in &mut clients {
        client.ack(1);
    }
    // A newcomer among all that is told within some seconds.
    let start = Instant::now();
    let mut newcomer = node.connect_raw();
    newcomer.send_line(&hello("newcomer", ""));
    newcomer.expect_error("unavailable");
    assert!(start.elapsed() < Duration::from_secs(12), "after {:?}", start.elapsed());

    // Half of them leave properly, the others with a reset; then all come again, more than once.
    for (n, mut client) in clients.into_iter().enumerate() {
        // The node has read the acknowledgement: it answers a ping behind it.
        client.send_line(r#"{"type":"ping"}"#);
        let deadline = Instant::now() + PATIENCE;
        while !matches!(client.next_of_any_kind(deadline), harness::Next::Frame(frame) if frame.kind() == "pong") {
            assert!(Instant::now() < deadline, "no pong");
        }
        if n % 2 == 0 { client.into_line().reset() } else { drop(client) }
    }
    for _ in 0..3 {
        all_are_told(&node, &ids);
    }
    // Redis is still away, and nobody is here.
    eventually("who has gone costs no descriptor", || node.descriptors() <= alone.0 + SLACK);
    eventually("and no thread", || node.threads() <= alone.1 + SLACK);

    node.redis().restart();
    node.expect_ready();
    eventually_within(PATIENCE * 2, "all acknowledgements are stored", || {
        ids.iter().all(|id| {
            let answer = node.get(&format!("/v1/clients/{id}/payments/1"));
            answer.status == 200 && answer.field("status") == "acknowledged"
        })
    });
    assert!(post_all("2").iter().all(|answer| answer["seq"] == 2));
    for id in &ids {
        let mut client = node.client(id);
        assert_eq!((client.welcome.acked, client.welcome.pending), (1, 1), "client {id}");
        client.expect_payment(2, "2");
    }
    eventually("after it, too, who has gone costs nothing", || node.descriptors() <= alone.0 + SLACK);
}
