//! Redis away, frozen or cut off: senders hear it quickly and in words, nothing that was stored is lost, and it heals by itself.

use std::time::{Duration, Instant};

use crate::harness::node::{JSON, envelope};
use crate::harness::{
    self, Answer, Deployment, Home, Mode, Node, PATIENCE, Proxy, READ_LIMIT, Redis, Way, eventually, eventually_some,
};

/// A 503 that says when to come again, and whether it was stored.
#[track_caller]
fn expect_unavailable(answer: Answer, stored: &[&str]) {
    let answer = answer.expect_problem(503, "unavailable");
    let wait = answer.header("Retry-After").unwrap_or_default();
    assert!(wait.parse::<u32>().is_ok(), "{}", answer.show());
    assert!(stored.contains(&answer.field("stored").as_str()), "{}", answer.show());
}

#[test]
fn a_node_starts_without_redis_and_becomes_ready_by_itself() {
    let redis = Redis::away();
    let node = Node::on_url(&redis, &redis.url(), "n1", &[]);
    let ready = node.get("/readyz").expect(503).json();
    assert_eq!(ready["ready"], false, "{ready}");
    assert!(ready["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{ready}");
    node.get("/healthz").expect(200);
    expect_unavailable(node.post("01", "1"), &["no"]);

    redis.restart();
    node.expect_ready();
    let mut client = node.client("01");
    assert_eq!(node.accept("01", "2"), 1, "what was refused was not stored");
    client.expect_payment(1, "2");
    client.ack(1);
    node.expect_acknowledged("01", 1);
}

#[test]
fn posts_are_refused_while_redis_is_away() {
    let nodes = Deployment::redis(2);
    nodes.redis.kill();
    for node in &nodes.nodes {
        expect_unavailable(node.post_with_id("01", "1", "wx-1"), &["no", "unknown"]);
        eventually("the node says that it is not ready", || !node.is_ready());
        let ready = node.get("/readyz").expect(503).json();
        assert!(ready["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{ready}");
        node.get("/healthz").expect(200);
    }
    nodes.redis.restart();
    for node in &nodes.nodes {
        node.expect_ready();
        assert!(node.post_with_id("01", "1", "wx-1").is_success());
    }
    assert_eq!(nodes[0].about("01")["last_seq"], 1);
}

#[test]
fn a_frozen_redis_is_a_quick_503() {
    let node = Node::start(Home::Redis);
    node.accept("01", "1");
    node.redis().pause();
    let mut http = node.http_client().patient(PATIENCE);
    for n in 0..3 {
        let start = Instant::now();
        let body = envelope("01", "2", Some(&format!("wx-{n}")));
        expect_unavailable(http.send("POST", "/v1/payments", &[JSON], body.as_bytes()), &["no", "unknown"]);
        // Two seconds are promised; the rest is for a slow machine.
        assert!(start.elapsed() < Duration::from_secs(8), "after {:?}", start.elapsed());
    }
    node.get("/healthz").expect(200);
    eventually("the node says that it is not ready", || !node.is_ready());

    node.redis().resume();
    node.expect_ready();
    // Whatever became of the unknown ones: sent again with their payment ids they are there once.
    for n in 0..3 {
        assert!(node.post_with_id("01", "2", &format!("wx-{n}")).is_success());
    }
    assert_eq!(node.about("01")["last_seq"], 4);
    let mut client = node.client("01");
    client.expect_payment(1, "1");
    for seq in 2..=4 {
        client.expect_payment(seq, "2");
    }
}

#[test]
fn an_acknowledgement_while_redis_is_away_is_stored_afterwards() {
    let node = Node::start(Home::Redis);
    let mut client = node.client("01");
    for n in 1..=3 {
        node.accept("01", &n.to_string());
    }
    client.expect_seqs(1..=3);
    node.redis().kill();
    client.ack(3);
    // The node has it: it answers a ping that came after it.
    client.send_line(r#"{"type":"ping"}"#);
    client.next_of_any_kind(Instant::now() + READ_LIMIT);
    node.redis().restart();
    node.expect_ready();
    node.expect_acknowledged("01", 3);
}

#[test]
fn an_acknowledgement_while_redis_is_frozen_is_stored_afterwards() {
    let node = Node::start(Home::Redis);
    let mut client = node.client("01");
    node.accept("01", "1");
    client.expect_payment(1, "1");
    node.redis().pause();
    client.ack(1);
    eventually("the node has noticed", || !node.is_ready());
    node.redis().resume();
    node.expect_acknowledged("01", 1);
    assert_eq!(node.accept("01", "2"), 2);
    client.expect_payment(2, "2");
}

#[test]
fn deliveries_go_on_when_the_subscriber_is_thrown_out() {
    let nodes = Deployment::redis(2);
    let mut client = nodes[0].client("01");
    for seq in 1..=10 {
        nodes.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        assert_eq!(nodes[1].accept("01", &seq.to_string()), seq);
        client.expect_payment(seq, &seq.to_string());
        client.ack(seq);
    }
    nodes[0].expect_acknowledged("01", 10);
}

#[test]
fn a_silent_subscription_costs_a_moment_and_no_payment() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let here = Node::on_url(&redis, &proxy.redis_url(), "n1", &[]);
    here.expect_ready();
    let there = Node::on(&redis, "n2", &[]);
    let mut client = here.client("01");
    there.accept("01", "1");
    client.expect_payment(1, "1");

    proxy.set_pubsub(Some(Mode::Swallow));
    there.accept("01", "2");
    client.expect_payment(2, "2");
    there.accept("01", "3");
    client.expect_payment(3, "3");
    proxy.set_pubsub(None);
    proxy.cut();
    let seq = eventually_some("a post is accepted", || {
        let answer = there.post_with_id("01", "4", "wx-4");
        answer.is_success().then(|| answer.seq())
    });
    assert_eq!(seq, 4);
    client.expect_payment(4, "4");
}

#[test]
fn forgotten_scripts_are_no_error() {
    let node = Node::start(Home::Redis);
    let mut client = node.client("01");
    let flush = || node.redis().cli(&["SCRIPT", "FLUSH"]).expect_ok();
    for seq in 1..=5 {
        flush();
        assert_eq!(node.accept("01", &seq.to_string()), seq);
        client.expect_payment(seq, &seq.to_string());
        flush();
        client.ack(seq);
        node.expect_acknowledged("01", seq);
        flush();
        assert_eq!(node.about("01")["acked"], seq);
        flush();
        client = node.client("01");
        assert_eq!(client.welcome.acked, seq);
    }
}

#[test]
fn a_connection_that_is_cut_in_the_middle_of_a_reply_mixes_nothing_up() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let node = Node::on_url(&redis, &proxy.redis_url(), "n1", &[]);
    node.expect_ready();
    let mut seq = 0;
    for way in [Way::Up, Way::Down] {
        for bytes in [0, 1, 2, 5, 13, 40, 100, 250] {
            let id = format!("{way:?}-{bytes}");
            proxy.set(way, Mode::CutAfter(bytes));
            let body = envelope("01", &format!("{id:?}"), Some(&id));
            let mut http = node.http_client().patient(PATIENCE);
            let first = http.send("POST", "/v1/payments", &[JSON], body.as_bytes());
            assert!(first.is_success() || first.status == 503, "{}", first.show());
            proxy.set(way, Mode::Pass);
            let answer = eventually_some("it is accepted when it is sent again", || {
                let answer = node.post_body(&body);
                answer.is_success().then_some(answer)
            });
            seq += 1;
            assert_eq!(answer.seq(), seq, "{}", answer.show());
            assert_eq!(answer.field("payment_id"), id);
            let other = eventually_some("another client's is accepted", || {
                let answer = node.post_with_id("other", "1", &id);
                answer.is_success().then_some(answer)
            });
            assert_eq!((other.field("client").as_str(), other.seq()), ("other", seq), "an answer is its own");
        }
    }
    assert!(proxy.effects() > 0, "the proxy did cut something");
    assert_eq!(node.about("01")["last_seq"], seq);
}

#[test]
fn a_half_open_connection_to_redis_is_noticed() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let node = Node::on_url(&redis, &proxy.redis_url(), "n1", &[]);
    node.expect_ready();
    let mut client = node.client("01");
    proxy.set_both(Mode::Swallow);
    let mut http = node.http_client().patient(PATIENCE);
    let body = envelope("01", "1", Some("wx-1"));
    expect_unavailable(http.send("POST", "/v1/payments", &[JSON], body.as_bytes()), &["no", "unknown"]);
    proxy.set_both(Mode::Pass);
    proxy.cut();
    eventually("posts are accepted again", || node.post_body(&body).is_success());
    client.expect_payment(1, "1");
    client.ack(1);
    node.expect_acknowledged("01", 1);
}

#[test]
fn a_slow_redis_is_slow_and_not_broken() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let node = Node::on_url(&redis, &proxy.redis_url(), "n1", &[]);
    node.expect_ready();
    let mut client = node.client("01");
    proxy.set(Way::Down, Mode::Delay(Duration::from_millis(100)));
    for seq in 1..=5 {
        assert_eq!(node.accept("01", "1"), seq);
        client.expect_payment(seq, "1");
        client.ack(seq);
    }
    node.expect_acknowledged("01", 5);
}

#[test]
fn a_hello_while_redis_is_away_is_told_so() {
    let node = Node::start(Home::Redis);
    node.redis().kill();
    let mut line = node.connect_raw();
    line.send_line(&harness::line_client::hello("01", ""));
    line.expect_error("unavailable");
    node.redis().restart();
    node.expect_ready();
    node.client("01");
}
