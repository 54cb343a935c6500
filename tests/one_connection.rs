//! Promise 4: one live connection per client id, over all nodes; the newest wins.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::line_client::hello;
use crate::harness::{
    self, Client, Deployment, Home, Line, Next, Node, eventually, eventually_within, on_both_inboxes,
};

on_both_inboxes!(
    the_newest_connection_replaces_the_older,
    the_newest_wins_every_time,
    what_was_not_acknowledged_comes_to_the_newest,
    an_operator_closes_a_connection,
    two_programs_that_fight_share_the_payments,
    a_crowd_that_fights_and_gives_up_keeps_nobody_out,
);

fn the_newest_connection_replaces_the_older(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let newer = nodes.last().expect("at least one node");
    let mut old = nodes[0].client("till-7");
    let mut new = newer.client("till-7");
    old.expect_error("replaced");

    nodes[0].accept("till-7", r#"{"amount":"10.00"}"#);
    new.expect_payment(1, r#"{"amount":"10.00"}"#);
    new.ack(1);
    nodes[0].expect_acknowledged("till-7", 1);
    eventually("both nodes know where the client is", || {
        nodes.iter().all(|node| {
            let about = node.about("till-7");
            about["online"] == true && about["node"] == newer.name()
        })
    });
}

fn the_newest_wins_every_time(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let mut current = nodes[0].client("01");
    for turn in 1..=8 {
        let mut next = nodes[turn % nodes.len()].client("01");
        current.expect_error("replaced");
        let msg = turn.to_string();
        let seq = nodes[0].accept("01", &msg);
        next.expect_payment(seq, &msg);
        next.ack(seq);
        nodes[0].expect_acknowledged("01", seq);
        current = next;
    }
    // The end of a connection that was replaced does not end the one that replaced it.
    thread::sleep(harness::QUIET);
    nodes[0].expect_online("01", true);
    current.expect_nothing_but_pings(harness::QUIET);
}

fn what_was_not_acknowledged_comes_to_the_newest(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let mut old = nodes[0].client("01");
    for n in 1..=4 {
        nodes[0].accept("01", &n.to_string());
    }
    let seen = old.expect_seqs(1..=4);
    old.ack(2);
    nodes[0].expect_acknowledged("01", 2);

    let mut new = nodes.last().expect("at least one node").client("01");
    assert_eq!((new.welcome.acked, new.welcome.pending), (2, 2));
    assert_eq!(new.welcome.epoch, old.welcome.epoch);
    for (seq, before) in (3..=4).zip(&seen[2..]) {
        assert_eq!(new.expect_seqs([seq])[0].frame.line, before.frame.line);
    }
    old.expect_error("replaced");
}

fn an_operator_closes_a_connection(home: Home) {
    let nodes = Deployment::at(home, &[]);
    for node in &nodes {
        // On the node that is asked, and on another one.
        let mut client = nodes[0].client("01");
        nodes.iter().for_each(|node| node.expect_online("01", true));
        let answer = node.delete("/v1/clients/01/connection");
        assert!(answer.is_success(), "{}", answer.show());
        client.expect_error("disconnected");
        node.expect_online("01", false);
    }
}

/// How many times a second a client id may change hands.
const TAKEOVERS_A_SECOND: f64 = 10.0;

fn two_programs_that_fight_share_the_payments(home: Home) {
    const PAYMENTS: u64 = 60;
    let nodes = Deployment::at(home, &[]);
    let (stop, welcomes) = (AtomicBool::new(false), AtomicU64::new(0));
    let start = Instant::now();
    thread::scope(|scope| {
        for program in 0..2 {
            let node = &nodes[program % nodes.len()];
            let (stop, welcomes) = (&stop, &welcomes);
            scope.spawn(move || fight(node, "01", stop, welcomes));
        }
        // A scope waits for its threads: so they end before a failure is shown.
        let _stop = StopAtEnd(&stop);
        for n in 1..=PAYMENTS {
            nodes[0].accept("01", &n.to_string());
            thread::sleep(Duration::from_millis(30));
        }
        eventually_within(Duration::from_secs(60), "every payment is acknowledged by one of them", || {
            nodes[0].about("01")["acked"] == PAYMENTS
        });
        // Others do not notice.
        let mut other = nodes[0].client("02");
        nodes[0].accept("02", "1");
        other.expect_payment(1, "1");
    });
    let (count, seconds) = (welcomes.load(Ordering::SeqCst), start.elapsed().as_secs_f64());
    let allowed = TAKEOVERS_A_SECOND.mul_add(seconds, 20.0);
    assert!((count as f64) <= allowed, "{count} takeovers in {seconds:.1} s");
    assert!(count >= 4, "they did fight: {count}");
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A program that acknowledges what it gets and, when it is thrown out, comes back at once.
fn fight(node: &Node, id: &str, stop: &AtomicBool, welcomes: &AtomicU64) {
    while !stop.load(Ordering::SeqCst) {
        let Some(mut client) = Client::try_hello(node.tcp(), id) else {
            continue;
        };
        welcomes.fetch_add(1, Ordering::SeqCst);
        let mut expected = client.welcome.acked + 1;
        while !stop.load(Ordering::SeqCst) {
            match client.next(Duration::from_millis(200)) {
                Next::Frame(frame) if frame.kind() == "payment" => {
                    let seq = frame.number("seq");
                    assert_eq!(seq, expected, "in order on every connection");
                    expected += 1;
                    let _ = client.try_ack(seq);
                }
                Next::Frame(_) | Next::Closed => break,
                Next::Silence => {}
            }
        }
    }
}

/// A program that says hello and gives up before it is its turn, again and again.
fn give_up(node: &Node, id: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let mut lines = Vec::new();
        for _ in 0..5 {
            let Ok(mut line) = Line::try_connect(node.tcp()) else { continue };
            let _ = line.try_send_bytes(format!("{}\n", hello(id, "")).as_bytes());
            lines.push(line);
        }
        thread::sleep(Duration::from_millis(50));
        // Some leave with a reset.
        if let Some(line) = lines.pop() {
            line.reset();
        }
    }
}

/// It takes less than one; with the dead in the queue it would take minutes.
const SECONDS: Duration = Duration::from_secs(15);

fn a_crowd_that_fights_and_gives_up_keeps_nobody_out(home: Home) {
    let node = Node::start(home);
    drop(node.client("01"));
    node.expect_online("01", false);
    let threads = node.threads();
    let (stop, welcomes) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let (node, stop, welcomes) = (&node, &stop, &welcomes);
        for _ in 0..3 {
            scope.spawn(move || fight(node, "01", stop, welcomes));
        }
        for _ in 0..2 {
            scope.spawn(move || give_up(node, "01", stop));
        }
        let _stop = StopAtEnd(stop);
        eventually("they fight", || welcomes.load(Ordering::SeqCst) >= 5);
        for turn in 1..=6 {
            // Others get in at once, and one more that fights gets in within seconds.
            let mut other = node.client(&format!("other-{turn}"));
            assert_eq!(node.accept(&format!("other-{turn}"), "1"), 1);
            other.expect_payment(1, "1");
            // Its welcome may be overtaken by the next one that fights: then it tries again, as a program does.
            eventually_within(SECONDS, "one more gets in", || Client::try_hello(node.tcp(), "01").is_some());
        }
        assert_eq!(node.accept("01", "1"), 1);
        eventually("one of those that fight acknowledges", || node.about("01")["acked"] == 1);
    });
    // They are gone, and leave no queue of the dead behind.
    eventually_within(SECONDS, "the real one gets in", || Client::try_hello(node.tcp(), "01").is_some());
    eventually_within(SECONDS, "their threads are gone", || node.threads() <= threads + 8);
    let mut real = node.client("01");
    real.expect_nothing_but_pings(harness::QUIET);
    assert_eq!(node.accept("01", "2"), 2);
    real.expect_payment(2, "2");
}

#[test]
fn a_frozen_node_does_not_take_a_client_back() {
    let nodes = Deployment::redis(2);
    let mut old = nodes[0].client("01");
    nodes[1].accept("01", "1");
    old.expect_payment(1, "1");

    nodes[0].pause();
    let mut new = nodes[1].client("01");
    new.expect_payment(1, "1");
    new.ack(1);
    nodes[1].expect_acknowledged("01", 1);
    // An acknowledgement that waits in the frozen node's buffers counts for nothing that it was not shown.
    nodes[1].accept("01", "2");
    new.expect_payment(2, "2");
    let _ = old.try_ack(2);
    nodes[0].resume();

    old.read_to_the_end();
    nodes[1].accept("01", "3");
    new.expect_payment(3, "3");
    assert_eq!(nodes[1].about("01")["acked"], 1);
    assert_eq!(nodes[1].about("01")["node"], "n2");
}

#[test]
fn a_client_moves_when_its_node_dies() {
    let nodes = Deployment::redis(2);
    let mut old = nodes[0].client("01");
    nodes[0].accept("01", "1");
    let before = old.expect_payment(1, "1");
    nodes[0].kill();
    old.expect_closed();

    let mut new = nodes[1].client("01");
    assert_eq!(new.expect_payment(1, "1").frame.line, before.frame.line);
    nodes[1].accept("01", "2");
    new.expect_payment(2, "2");
}
