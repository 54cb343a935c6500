//! The word `stored` in a 503 is true: after "no" the payment is nowhere, after "unknown" a repeat with the same payment id makes it exactly one.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::harness::node::{JSON, envelope};
use crate::harness::{self, Answer, Home, Mode, Node, PATIENCE, Proxy, QUIET, Redis, Way, eventually, eventually_some};

/// Posts, patiently: while the store is in trouble an answer takes its time.
#[track_caller]
fn post(node: &Node, id: &str) -> Answer {
    let body = envelope("01", &format!("{id:?}"), Some(id));
    node.http_client().patient(PATIENCE).send("POST", "/v1/payments", &[JSON], body.as_bytes())
}

/// Posts into trouble; what the 503 says of it.
#[track_caller]
fn post_in_trouble(node: &Node, id: &str) -> String {
    let answer = post(node, id).expect_any_problem(503);
    let word = answer.field("stored");
    assert!(["no", "unknown"].contains(&word.as_str()), "{}", answer.show());
    word
}

/// How many times each payment id comes; until nothing comes any more.
#[track_caller]
fn receive_all(node: &Node, last: u64) -> BTreeMap<String, usize> {
    let mut client = node.client("01");
    let mut seen = BTreeMap::new();
    for payment in client.expect_seqs(1..=last) {
        *seen.entry(payment.payment_id.expect("all have one")).or_default() += 1;
    }
    client.expect_nothing_but_pings(QUIET);
    seen
}

/// After the trouble: the words were true. Then every one of them is sent again, and is there once.
#[track_caller]
fn expect_true(node: &Node, told: &[(String, String)]) {
    node.expect_ready();
    for (id, word) in told {
        let found = eventually_some("the status can be asked", || {
            let answer = node.get(&format!("/v1/clients/01/payments?payment_id={id}"));
            (answer.status != 503).then_some(answer)
        });
        assert!(found.status == 404 || word == "unknown" && found.status == 200, "{id}, {word}: {}", found.show());
        let again = eventually_some("it is accepted when it is sent again", || {
            let answer = post(node, id);
            answer.is_success().then_some(answer)
        });
        // Where it was there, it is a repeat; where not, it is new. A repeat of our own may also have been unknown.
        assert!(word == "unknown" || again.status == 202, "{id}, {word}: {}", again.show());
        assert_eq!(again.status == 200, found.status == 200, "{id}, {word}: {}", again.show());
    }
    assert_eq!(node.about("01")["last_seq"], told.len() as u64);
    let seen = receive_all(node, told.len() as u64);
    assert!(seen.len() == told.len() && seen.values().all(|&count| count == 1), "{seen:?}");
}

#[test]
fn no_is_true_when_redis_is_not_there() {
    let node = Node::start(Home::Redis);
    node.redis().kill();
    let mut told = Vec::new();
    for n in 0..10 {
        let id = format!("wx-{n}");
        told.push((id.clone(), post_in_trouble(&node, &id)));
    }
    assert!(told.iter().any(|(_, word)| word == "no"), "{told:?}");
    node.redis().restart();
    expect_true(&node, &told);
}

#[test]
fn no_is_true_when_redis_refuses() {
    let node = Node::start(Home::Redis);
    let redis = node.redis();
    let nobody = harness::free_port().to_string();
    let refusals: [(&str, [&[&str]; 2]); 3] = [
        ("full", [&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]]),
        ("replica", [&["REPLICAOF", "127.0.0.1", &nobody], &["REPLICAOF", "NO", "ONE"]]),
        (
            "too-few-replicas",
            [&["CONFIG", "SET", "min-replicas-to-write", "1"], &["CONFIG", "SET", "min-replicas-to-write", "0"]],
        ),
    ];
    let mut told = Vec::new();
    for (name, [harm, heal]) in refusals {
        redis.cli(harm).expect_ok();
        let word = post_in_trouble(&node, name);
        assert_eq!(word, "no", "{name}");
        told.push((name.to_owned(), word));
        redis.cli(heal).expect_ok();
        node.expect_ready();
    }
    expect_true(&node, &told);
}

#[test]
fn a_repeat_after_unknown_makes_it_exactly_one() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let node = Node::on_url(&redis, &proxy.redis_url(), "n1", &[]);
    node.expect_ready();
    let mut told = Vec::new();
    let troubles = [
        (Way::Down, Mode::CutAfter(0)),
        (Way::Down, Mode::CutAfter(7)),
        (Way::Up, Mode::CutAfter(0)),
        (Way::Up, Mode::CutAfter(90)),
        (Way::Down, Mode::Hold),
        (Way::Up, Mode::Hold),
        (Way::Down, Mode::Swallow),
        (Way::Up, Mode::Swallow),
    ];
    for (n, (way, mode)) in troubles.into_iter().enumerate() {
        // So that there is a connection to fail.
        eventually("the node has a connection", || post(&node, "warm").is_success());
        proxy.set(way, mode);
        let id = format!("wx-{n}");
        let word = post_in_trouble(&node, &id);
        told.push((id, word));
        proxy.set(way, Mode::Pass);
        proxy.cut();
    }
    assert!(told.iter().any(|(_, word)| word == "unknown"), "{told:?}");
    // What was on its way when it was cut has arrived or is lost by the time all is well again.
    node.expect_ready();
    let warm = node.get("/v1/clients/01/payments?payment_id=warm").expect(200).seq();
    assert_eq!(warm, 1);
    let client = &mut node.client("01");
    client.expect_seqs([1]);
    for (id, word) in &told {
        let again = eventually_some("it is accepted when it is sent again", || {
            let answer = post(&node, id);
            answer.is_success().then_some(answer)
        });
        assert!(word == "unknown" || again.status == 202, "{id}, {word}: {}", again.show());
    }
    assert_eq!(node.about("01")["last_seq"], 1 + told.len() as u64);
    let seen = receive_all(&node, 1 + told.len() as u64);
    assert!(seen.len() == 1 + told.len() && seen.values().all(|&count| count == 1), "{seen:?}");
}

#[test]
fn a_payment_of_unknown_outcome_reaches_the_connected_client_soon() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    // No heartbeat helps, and the doorbells' connection is left alone: its return would have all compared.
    let node = Node::on_url(&redis, &proxy.redis_url(), "n1", &["--heartbeat", "600"]);
    node.expect_ready();
    proxy.set_pubsub(Some(Mode::Pass));
    let mut client = node.client("01");
    for n in 1..=5 {
        let seq = 2 * n - 1;
        assert_eq!(node.accept("01", "1"), seq);
        client.expect_payment(seq, "1");
        // The script runs; its reply never comes.
        let mode = if n % 2 == 0 { Mode::Hold } else { Mode::CutAfter(0) };
        proxy.set(Way::Down, mode);
        let id = format!("wx-{n}");
        assert_eq!(post_in_trouble(&node, &id), "unknown");
        proxy.set(Way::Down, Mode::Pass);
        let payment = match client.next(Duration::from_secs(15)) {
            harness::Next::Frame(frame) => frame.payment(),
            other => panic!("payment {id} does not come: {other:?}"),
        };
        assert_eq!((payment.seq, payment.payment_id.as_deref()), (seq + 1, Some(id.as_str())));
        client.ack(seq + 1);
        eventually("it is a repeat when it is sent again", || {
            let answer = post(&node, &id);
            answer.is_success() && answer.json()["duplicate"] == true && answer.seq() == seq + 1
        });
        eventually("the node is ready", || node.is_ready());
    }
    client.expect_nothing_but_pings(QUIET);
}
