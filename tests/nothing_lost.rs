//! Promise 1: whatever dies in between, every payment that got a 2xx arrives, and one that was sent again is stored once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::node::{JSON, envelope};
use crate::harness::{
    self, Client, Deployment, Home, Http, Next, Node, PATIENCE, Proxy, Redis, eventually_some, eventually_within,
    on_both_inboxes,
};

const SENDERS: usize = 4;
const EACH: usize = 60;
const ALL: usize = SENDERS * EACH;

/// What a receiver has seen: for every seq its payment id.
#[derive(Default)]
struct Seen {
    by_seq: Mutex<BTreeMap<u64, String>>,
    repeats: AtomicUsize,
    lives: AtomicUsize,
}

impl Seen {
    fn count(&self) -> usize {
        self.by_seq.lock().expect("no receiver has failed").len()
    }
}

/// Posts with payment ids, and every post again until it is known to be stored.
fn send(nodes: &[&Node], sender: usize) {
    let mut http: Option<Http> = None;
    let mut turn = sender;
    for n in 0..EACH {
        let id = format!("{sender}-{n}");
        let body = envelope("01", &format!("{id:?}"), Some(&id));
        loop {
            let connection = match &mut http {
                Some(open) => open,
                None => {
                    turn += 1;
                    match Http::try_connect(nodes[turn % nodes.len()].http()) {
                        Ok(new) => http.insert(new),
                        Err(_) => {
                            harness::pause();
                            continue;
                        }
                    }
                }
            };
            match connection.try_send("POST", "/v1/payments", &[JSON], body.as_bytes()) {
                Ok(answer) if answer.is_success() => break,
                Ok(answer) => {
                    assert_eq!(answer.status, 503, "{}", answer.show());
                    let stored = answer.field("stored");
                    assert!(["no", "unknown"].contains(&stored.as_str()), "{}", answer.show());
                }
                Err(_) => http = None,
            }
            harness::pause();
        }
    }
}

/// Receives and acknowledges, and comes back whenever it is thrown out, on one node and then on another.
fn receive(nodes: &[&Node], seen: &Seen, stop: &AtomicBool) {
    let mut turn = 0;
    while !stop.load(Ordering::SeqCst) {
        let node = nodes[turn % nodes.len()];
        turn += 1;
        let Some(mut client) = Client::try_hello(node.tcp(), "01") else {
            harness::pause();
            continue;
        };
        seen.lives.fetch_add(1, Ordering::SeqCst);
        let mut expected = client.welcome.acked + 1;
        while !stop.load(Ordering::SeqCst) {
            let frame = match client.next(Duration::from_millis(100)) {
                Next::Frame(frame) if frame.kind() == "payment" => frame,
                Next::Frame(_) | Next::Closed => break,
                Next::Silence => continue,
            };
            let payment = frame.payment();
            assert_eq!(payment.seq, expected, "in order and without gaps on every connection");
            expected += 1;
            let id = payment.payment_id.clone().expect("every payment has an id here");
            assert_eq!(payment.msg_text(), id, "a payment keeps its message");
            let before = seen.by_seq.lock().expect("no receiver has failed").insert(payment.seq, id.clone());
            if let Some(before) = before {
                assert_eq!(before, id, "seq {} is the same payment when it comes again", payment.seq);
                seen.repeats.fetch_add(1, Ordering::SeqCst);
            }
            let _ = client.try_ack(payment.seq);
        }
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs the load, does what `fault` does in the middle of it, and checks that everything arrived.
fn under_load(nodes: &[&Node], fault: impl FnOnce(&dyn Fn(usize))) {
    let (seen, stop) = (Seen::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| receive(nodes, &seen, &stop));
        let senders: Vec<_> = (0..SENDERS).map(|sender| scope.spawn(move || send(nodes, sender))).collect();
        fault(&|count| {
            eventually_within(PATIENCE * 2, &format!("{count} payments have arrived"), || seen.count() >= count);
        });
        for sender in senders {
            sender.join().expect("a sender");
        }
        eventually_within(PATIENCE * 2, "every payment that got a 2xx arrives", || seen.count() >= ALL);
        // What was acknowledged to a node that died before it was stored comes again, and is acknowledged again.
        let any = eventually_some("a node is ready again", || nodes.iter().find(|node| node.is_ready()));
        any.expect_acknowledged("01", ALL as u64);
        assert_eq!(any.about("01")["last_seq"], ALL);
    });
    let by_seq = seen.by_seq.into_inner().expect("no receiver has failed");
    assert!(by_seq.keys().copied().eq(1..=ALL as u64), "numbers without gaps: {:?}", by_seq.keys());
    let ids: HashSet<_> = by_seq.values().collect();
    assert_eq!(ids.len(), ALL, "each payment id was stored once");
}

on_both_inboxes!(nothing_is_lost_without_a_fault, nothing_is_lost_when_the_node_is_killed);

fn nothing_is_lost_without_a_fault(home: Home) {
    let nodes = Deployment::at(home, &[]);
    under_load(&nodes.iter().collect::<Vec<_>>(), |arrived| arrived(ALL / 2));
}

fn nothing_is_lost_when_the_node_is_killed(home: Home) {
    let nodes = Deployment::at(home, &[]);
    under_load(&nodes.iter().collect::<Vec<_>>(), |arrived| {
        for part in 1..=3 {
            arrived(ALL * part / 5);
            // One after the other: one of them has the client.
            for node in &nodes {
                node.kill();
                node.restart();
            }
        }
    });
}

#[test]
fn nothing_is_lost_when_redis_is_killed() {
    let nodes = Deployment::redis(2);
    under_load(&nodes.nodes.iter().collect::<Vec<_>>(), |arrived| {
        for part in 1..=3 {
            arrived(ALL * part / 5);
            nodes.redis.kill();
            nodes.redis.restart();
        }
    });
}

#[test]
fn nothing_is_lost_when_redis_is_frozen_for_a_while() {
    let nodes = Deployment::redis(2);
    under_load(&nodes.nodes.iter().collect::<Vec<_>>(), |arrived| {
        arrived(ALL / 4);
        nodes.redis.pause();
        thread::sleep(Duration::from_secs(4));
        nodes.redis.resume();
        arrived(ALL / 2);
    });
}

#[test]
fn nothing_is_lost_when_the_connections_to_redis_are_cut() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let node = Node::on_url(&redis, &proxy.redis_url(), "n1", &[]);
    node.expect_ready();
    under_load(&[&node], |arrived| {
        for part in 1..=8 {
            arrived(ALL * part / 10);
            proxy.cut();
        }
    });
    assert!(proxy.effects() > 0, "the proxy did cut something");
}

#[test]
fn nothing_is_lost_when_everything_is_killed_at_once() {
    let nodes = Deployment::redis(2);
    under_load(&nodes.nodes.iter().collect::<Vec<_>>(), |arrived| {
        arrived(ALL / 3);
        nodes.nodes.iter().for_each(Node::kill);
        nodes.redis.kill();
        nodes.redis.restart();
        nodes.nodes.iter().for_each(Node::restart);
        arrived(ALL / 2);
    });
}
