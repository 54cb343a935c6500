//! A node that was frozen and comes back undoes nothing, takes nobody back, and judges nobody by its own absence.

use std::time::{Duration, Instant};

use crate::harness::{self, Client, Deployment, Home, Next, Node, QUIET, Reply, eventually, on_both_inboxes};

/// How often all nodes together stored that a payment was acknowledged.
fn acknowledged(nodes: &[Node]) -> f64 {
    let count = |node: &Node| {
        let metrics = node.get("/metrics").expect(200).text();
        let line = metrics.lines().find_map(|line| line.strip_prefix("payrelay_payments_acknowledged_total "));
        line.expect("a metric").trim().parse::<f64>().expect("a number")
    };
    nodes.iter().map(count).sum()
}

/// Client 01 is connected to n1 and has got five payments; n1 is frozen then.
fn frozen_with_a_client() -> (Deployment, Client) {
    let nodes = Deployment::redis(2);
    let mut client = nodes[0].client("01");
    for seq in 1..=5 {
        nodes[1].accept("01", &seq.to_string());
    }
    client.expect_seqs(1..=5);
    client.ack(1);
    nodes[1].expect_acknowledged("01", 1);
    nodes[0].pause();
    (nodes, client)
}

/// The client moved to n2, and n1 is awake again.
#[track_caller]
fn expect_nothing_undone(nodes: &Deployment, mut old: Client, mut new: Client) {
    let (repeats, code) = old.read_to_the_end();
    assert!(repeats.is_empty(), "the thawed node sends nothing: {repeats:?}");
    assert_eq!(code.as_deref(), Some("replaced"));
    nodes[0].expect_ready();

    let about = nodes[0].about("01");
    assert_eq!((&about["acked"], &about["pending"]), (&3.into(), &2.into()), "a stale ack changes nothing: {about}");
    // Which nodes live, a node learns once a second.
    eventually("the thawed node knows where the client is", || {
        let about = nodes[0].about("01");
        about["online"] == true && about["node"] == "n2"
    });
    assert_eq!(nodes[0].status("01", 5), "accepted");

    // From whichever node it comes, it comes to where the client is now, and nothing comes twice.
    assert_eq!(nodes[0].accept("01", "6"), 6);
    new.expect_payment(6, "6");
    assert_eq!(nodes[1].accept("01", "7"), 7);
    new.expect_payment(7, "7");
    new.ack(7);
    nodes[0].expect_acknowledged("01", 7);
    new.expect_nothing_but_pings(QUIET);
    nodes[0].expect_online("01", true);
    eventually("each payment is acknowledged once", || acknowledged(&nodes.nodes) >= 7.0);
    assert_eq!(acknowledged(&nodes.nodes), 7.0);
}

/// The client turns to n2, which gives it what is not acknowledged.
#[track_caller]
fn move_to_n2(nodes: &Deployment) -> Client {
    let mut new = nodes[1].client("01");
    assert_eq!((new.welcome.acked, new.welcome.pending), (1, 4));
    new.expect_seqs(2..=5);
    new.ack(3);
    nodes[1].expect_acknowledged("01", 3);
    new
}

#[test]
fn a_thawed_node_takes_nothing_back() {
    let (nodes, mut old) = frozen_with_a_client();
    let new = move_to_n2(&nodes);
    old.ack(5);
    nodes[0].resume();
    expect_nothing_undone(&nodes, old, new);
}

/// The takeover was told while nobody listened: the ack itself finds out that it comes too late.
#[test]
fn a_thawed_node_that_missed_the_takeover_takes_nothing_back() {
    let (nodes, mut old) = frozen_with_a_client();
    nodes.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let new = move_to_n2(&nodes);
    old.ack(5);
    nodes[0].resume();
    expect_nothing_undone(&nodes, old, new);
}

#[test]
fn a_node_whose_lease_lapsed_takes_nothing_back() {
    let (nodes, mut old) = frozen_with_a_client();
    let new = move_to_n2(&nodes);
    old.ack(5);
    eventually("the lease of the frozen node lapses", || {
        nodes.redis.cli(&["EXISTS", "payrelay:0:lease:n1"]) == Reply::Int(0)
    });
    nodes[0].resume();
    expect_nothing_undone(&nodes, old, new);
}

/// Frozen while its client did not move: it goes on where it was.
#[test]
fn a_thawed_node_delivers_what_came_meanwhile() {
    let (nodes, mut client) = frozen_with_a_client();
    for seq in 6..=20 {
        assert_eq!(nodes[1].accept("01", &seq.to_string()), seq);
    }
    client.ack(5);
    nodes[0].resume();
    for seq in 6..=20 {
        client.expect_payment(seq, &seq.to_string());
    }
    client.ack(20);
    nodes[1].expect_acknowledged("01", 20);
    client.expect_nothing_but_pings(QUIET);
    assert_eq!(acknowledged(&nodes.nodes), 20.0);
}

#[test]
fn a_node_that_is_frozen_again_and_again_loses_nothing() {
    let nodes = Deployment::redis(2);
    let mut seq = 0;
    let mut client = nodes[0].client("01");
    for round in 0..6 {
        let (frozen, awake) = (&nodes[round % 2], &nodes[1 - round % 2]);
        frozen.pause();
        let mut next = awake.client("01");
        assert_eq!(next.welcome.acked, seq);
        seq = awake.accept("01", &round.to_string());
        next.expect_payment(seq, &round.to_string());
        next.ack(seq);
        awake.expect_acknowledged("01", seq);
        frozen.resume();
        client.expect_error("replaced");
        client = next;
    }
    client.expect_nothing_but_pings(QUIET);
    assert_eq!(seq, 6);
    assert_eq!(acknowledged(&nodes.nodes), 6.0);
}

on_both_inboxes!(a_thawed_node_reads_what_waits_in_its_sockets_before_it_calls_anybody_idle);

fn a_thawed_node_reads_what_waits_in_its_sockets_before_it_calls_anybody_idle(home: Home) {
    const FROZEN: Duration = Duration::from_millis(4500);
    let node = Node::with(home, &["--heartbeat", "1"]);
    let mut clients: Vec<Client> = Vec::new();
    for n in 0..8 {
        clients.push(node.client(&format!("c{n}")));
        all_say_that_they_live(&mut clients);
    }
    node.pause();
    let start = Instant::now();
    // All the while they say it; the node cannot hear them.
    while start.elapsed() < FROZEN {
        all_say_that_they_live(&mut clients);
        std::thread::sleep(Duration::from_millis(300));
    }
    node.resume();
    node.expect_ready();
    for n in 0..clients.len() {
        all_say_that_they_live(&mut clients);
        let seq = node.accept(&format!("c{n}"), "1");
        clients[n].expect_payment(seq, "1");
        clients[n].ack(seq);
        node.expect_acknowledged(&format!("c{n}"), seq);
    }
    // And who really is silent is still found out.
    let silent = &mut clients[0];
    silent.ignore_pings();
    match silent.next(harness::READ_LIMIT) {
        Next::Frame(frame) => assert_eq!(frame.text("code").as_deref(), Some("idle_timeout"), "{}", frame.line),
        other => panic!("an idle_timeout was expected, not {other:?}"),
    }
}

fn all_say_that_they_live(clients: &mut [Client]) {
    clients.iter_mut().for_each(|client| client.send_line(r#"{"type":"ping"}"#));
}
