//! Promise 6: a doorbell is only a hint. Whatever is published on a node's channel, clients get their inboxes in order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::program::lock;
use crate::harness::{Client, Deployment, QUIET, Redis, eventually};
use payrelay::bus::{Bus, Event};

/// Publishes on the channel of node n1, whose client is rung. How many of them nobody heard.
fn publish_some(redis: &Redis, payloads: &[Vec<u8>]) -> usize {
    let client = redis::Client::open(redis.url()).expect("a URL");
    let mut connection = client.get_connection().expect("a connection to Redis");
    let mut unheard = 0;
    for payload in payloads {
        let mut command = redis::cmd("PUBLISH");
        let heard: i64 =
            command.arg("payrelay:0:node:n1").arg(payload.as_slice()).query(&mut connection).expect("Redis publishes");
        unheard += usize::from(heard == 0);
    }
    unheard
}

/// The same; the node hears all of them.
#[track_caller]
fn publish(redis: &Redis, payloads: &[Vec<u8>]) {
    assert_eq!(publish_some(redis, payloads), 0, "the node listens");
}

/// A doorbell as the script writes it, with another's message in it.
fn forged(client: &str, previous_at: u64, seq: u64, accepted_at: u64) -> Vec<u8> {
    forged_with(client, previous_at, seq, accepted_at, "\"forged\"")
}

fn forged_with(client: &str, previous_at: u64, seq: u64, accepted_at: u64, msg: &str) -> Vec<u8> {
    let head = "\"channel\":\"payments\"";
    format!("doorbell {client} {previous_at} 0 {seq} {accepted_at} 0 99 {} {head}\"msg\":{msg}", head.len())
        .into_bytes()
}

/// Posts so many payments at the other node, which rings n1; they arrive in order, as they are. Their `accepted_at`.
#[track_caller]
fn pass(nodes: &Deployment, client: &mut Client, count: u64) -> Vec<u64> {
    let mut accepted = Vec::new();
    for _ in 0..count {
        let msg = format!("\"real {}\"", client.welcome.acked + accepted.len() as u64);
        let seq = nodes[1].accept("01", &msg);
        accepted.push(client.expect_payment(seq, &msg).accepted_at);
        client.ack(seq);
    }
    accepted
}

/// The node has dealt with all that was published before: it tells its own ear once a second, in the same order.
#[track_caller]
fn expect_unharmed(nodes: &Deployment, client: &mut Client, seq: u64) {
    client.expect_nothing_but_pings(QUIET);
    assert_eq!(nodes[1].accept("01", "\"after it all\""), seq);
    client.expect_payment(seq, "\"after it all\"");
    client.ack(seq);
    nodes[1].expect_acknowledged("01", seq);
    for node in &nodes.nodes {
        assert!(!node.has_ended());
        assert!(!node.log().contains("panic"), "{}", node.log());
        assert!(!node.log().contains("without its last writes"), "{}", node.log());
    }
}

#[test]
fn garbage_harms_nobody() {
    let nodes = Deployment::redis(2);
    let mut client = nodes[0].client("01");
    pass(&nodes, &mut client, 3);
    let texts = [
        "",
        " ",
        "doorbell",
        "doorbell ",
        "doorbell 01",
        "doorbell 01 1 0 4 1 0 9",
        "doorbell 01 1 0 4 1 0 9 ",
        "doorbell 01 1 0 4 1 0 9 99 short",
        "doorbell 01 1 0 4 1 0 9 -1 x",
        "doorbell 01 1 0 4 1 0 9 18446744073709551615 x",
        "doorbell 01 1 0 4 1 0 9 18446744073709551616 x",
        "doorbell 01 1 0 -4 1 0 9 1 x",
        "doorbell 01 1 0 4.0 1 0 9 1 x",
        "doorbell 01  1 0 4 1 0 9 1 x",
        "doorbell ../.. 1 0 4 1 0 9 1 x",
        "doorbell {01} 1 4 1 0 9 1 x",
        "doorbell\n01 1 4 1 0 9 1 x",
        "takeover",
        "takeover 01",
        "takeover 01 -1",
        "takeover 01 99999999999999999999",
        "takeover 02 99",
        "takeover 01 0",
        "disconnect",
        "disconnect ",
        "disconnect 02",
        "receipt/01/9 x",
        "receipt//",
        "question",
        "question {}",
        "question [1,2",
        "question {\"answer_to\":\"\",\"topic\":\"\",\"after\":null}",
        "beat beat",
    ];
    let mut payloads: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    payloads.push(b"\xff\xfe\xfd".to_vec());
    payloads.push(b"doorbell \xff\xfe 1 4 1 0 9 1 x".to_vec());
    payloads.push(b"doorbell 01 1 0 4 1 0 9 1 \xff\xff\xff".to_vec());
    payloads.push(b"takeover \xff 1".to_vec());
    payloads.push(b"disconnect \xc3\x28".to_vec());
    payloads.push(vec![0; 1 << 20]);
    payloads.push(vec![b' '; 1 << 20]);
    payloads.push([b"doorbell 01 1 0 4 1 0 9 1048576 ".to_vec(), vec![b'x'; 1 << 20]].concat());
    publish(&nodes.redis, &payloads);
    expect_unharmed(&nodes, &mut client, 4);
}

#[test]
fn doubled_and_old_doorbells_repeat_nothing() {
    let nodes = Deployment::redis(2);
    // One that listens under the node's name hears what the node hears.
    let (spy, bells) = (Bus::redis(&nodes.redis.url(), "n1").expect("a URL"), Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&bells);
    spy.on("doorbell", move |event| {
        if let Event::Message(message) = event {
            lock(&heard).push([b"doorbell ", message.bytes].concat());
        }
    });
    let listening = spy.clone();
    let listener = std::thread::spawn(move || listening.run());
    eventually("the spy listens", || spy.is_up());

    let mut client = nodes[0].client("01");
    for seq in 1..=10 {
        nodes[1].accept("01", &seq.to_string());
        client.expect_payment(seq, &seq.to_string());
    }
    eventually("ten bells rang", || lock(&bells).len() == 10);
    let real = lock(&bells).clone();
    let mut backwards = real.clone();
    backwards.reverse();
    for copies in [&real, &real, &backwards] {
        publish(&nodes.redis, copies);
    }
    client.expect_nothing_but_pings(QUIET);
    client.ack(10);
    nodes[1].expect_acknowledged("01", 10);
    publish(&nodes.redis, &real);
    drop(client);
    let mut again = nodes[0].client("01");
    publish(&nodes.redis, &real);
    expect_unharmed(&nodes, &mut again, 11);
    spy.stop();
    listener.join().expect("no panic");
}

#[test]
fn doubled_doorbells_at_the_moment_they_ring_repeat_nothing() {
    let nodes = Deployment::redis(2);
    let url = nodes.redis.url();
    let (echo, twice) = (Bus::redis(&url, "n1").expect("a URL"), Bus::redis(&url, "echo").expect("a URL"));
    // Every bell is rung once more as soon as it is heard, its echo not.
    let rung = Mutex::new(std::collections::HashSet::new());
    echo.on("doorbell", move |event| {
        if let Event::Message(message) = event
            && lock(&rung).insert(message.bytes.to_vec())
        {
            let _ = twice.emit(payrelay::bus::To::Node("n1"), "doorbell", message.bytes);
        }
    });
    let listening = echo.clone();
    let listener = std::thread::spawn(move || listening.run());
    eventually("the echo listens", || echo.is_up());
    let mut client = nodes[0].client("01");
    pass(&nodes, &mut client, 100);
    expect_unharmed(&nodes, &mut client, 101);
    echo.stop();
    listener.join().expect("no panic");
}

#[test]
fn doorbells_from_the_future_are_not_shown() {
    let nodes = Deployment::redis(2);
    let mut client = nodes[0].client("01");
    pass(&nodes, &mut client, 3);
    for round in 0..10 {
        let next = 4 + round;
        let ahead = (next + 1..next + 40).map(|seq| forged("01", 1_732_330_000_000, seq, 1_732_330_000_000));
        let mut payloads: Vec<Vec<u8>> = ahead.collect();
        payloads.push(forged("01", 0, u64::MAX, 0));
        payloads.push(forged("01", u64::MAX, u64::MAX - 1, u64::MAX));
        if round % 2 == 0 {
            payloads.reverse();
        }
        publish(&nodes.redis, &payloads);
        pass(&nodes, &mut client, 1);
    }
    expect_unharmed(&nodes, &mut client, 14);
}

#[test]
fn forged_content_under_known_numbers_is_not_shown() {
    let nodes = Deployment::redis(2);
    let mut client = nodes[0].client("01");
    let mut accepted = pass(&nodes, &mut client, 5);
    // How far back it lies, what is added to the time of the one before it, and to its own.
    let kinds = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (3, 0, 0), (3, 1, 1)];
    for (back, before, own) in kinds {
        let seq = accepted.len() - back;
        publish(&nodes.redis, &[forged("01", accepted[seq - 2] + before, seq as u64, accepted[seq - 1] + own)]);
        accepted.extend(pass_on(&nodes, &mut client, &accepted));
    }
    // The next number, but not behind what was sent last.
    for previous in [0, accepted[0] - 1, u64::MAX] {
        let next = accepted.len() as u64 + 1;
        publish(&nodes.redis, &[forged("01", previous, next, accepted[0])]);
        accepted.extend(pass_on(&nodes, &mut client, &accepted));
    }
    publish(&nodes.redis, &[forged("01", 0, 0, 0), forged("01", 0, 0, 1)]);
    expect_unharmed(&nodes, &mut client, accepted.len() as u64 + 1);
}

/// One more payment: it is the next that the client gets. Its `accepted_at`.
#[track_caller]
fn pass_on(nodes: &Deployment, client: &mut Client, before: &[u64]) -> Vec<u64> {
    // Nothing is awaited here: what was published is heard before what is accepted after it.
    let next = before.len() as u64 + 1;
    let passed = pass(nodes, client, 1);
    nodes[1].expect_acknowledged("01", next);
    passed
}

#[test]
fn doorbells_for_others_reach_nobody() {
    let nodes = Deployment::redis(2);
    let mut client = nodes[0].client("01");
    let mut other = nodes[0].client("02");
    let accepted = pass(&nodes, &mut client, 2);
    let payloads = [
        // Nobody has ever heard of this one.
        forged("03", 0, 1, 1),
        // For the other, what would be next for the first.
        forged("02", accepted[1], 3, accepted[1] + 1),
        // A client id is what it is, to the letter.
        forged("0", accepted[1], 3, accepted[1] + 1),
        forged("01.", accepted[1], 3, accepted[1] + 1),
    ];
    publish(&nodes.redis, &payloads);
    other.expect_nothing_but_pings(QUIET);
    assert_eq!(nodes[1].accept("02", "1"), 1);
    other.expect_payment(1, "1");
    expect_unharmed(&nodes, &mut client, 3);
    nodes[0].expect_unknown("03");
}

#[test]
fn a_flood_of_large_doorbells_delays_but_loses_nothing() {
    let nodes = Deployment::redis(2);
    let mut client = nodes[0].client("01");
    pass(&nodes, &mut client, 2);
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    let flood: Vec<Vec<u8>> = (0..100).map(|n| forged_with("01", 7, 4 + n, 7, &large)).collect();
    // Redis throws out a subscriber that has more than 32 MB to read: what was not heard is looked up then.
    publish_some(&nodes.redis, &flood);
    for seq in 3..=20 {
        assert_eq!(nodes[1].accept("01", &seq.to_string()), seq);
    }
    for seq in 3..=20 {
        client.expect_payment(seq, &seq.to_string());
        client.ack(seq);
    }
    expect_unharmed(&nodes, &mut client, 21);
}

#[test]
fn forged_doorbells_open_no_window_that_is_full() {
    let nodes = Deployment::redis(2);
    let mut client = nodes[0].client_with("01", r#""window":2"#);
    for seq in 1..=5 {
        nodes[1].accept("01", &seq.to_string());
    }
    let sent = client.expect_seqs(1..=2);
    let payloads: Vec<Vec<u8>> =
        (3..9).map(|seq| forged("01", sent[1].accepted_at, seq, sent[1].accepted_at)).collect();
    publish(&nodes.redis, &payloads);
    client.expect_nothing_but_pings(QUIET);
    for seq in 3..=5 {
        client.ack(seq - 2);
        client.expect_payment(seq, &seq.to_string());
    }
    client.ack(5);
    expect_unharmed(&nodes, &mut client, 6);
}

/// A bell that names the next seq and the right predecessor looks like a real one. It is shown; but what it shows takes
/// no payment's place in the inbox, its acknowledgement removes none, and the node notices.
#[test]
fn a_perfect_forgery_costs_no_payment() {
    let nodes = Deployment::redis(2);
    let mut client = nodes[0].client("01");
    let accepted = pass(&nodes, &mut client, 2);
    nodes[1].expect_acknowledged("01", 2);
    publish(&nodes.redis, &[forged("01", accepted[1], 3, accepted[1] + 1)]);
    client.expect_payment(3, "\"forged\"");
    client.ack(3);
    let (more, code) = client.read_to_the_end();
    assert!(more.is_empty(), "{more:?}");
    assert_eq!(code.as_deref(), Some("unavailable"), "the inbox knows of no payment 3");

    let mut again = nodes[0].client("01");
    assert_eq!(again.welcome.acked, 2);
    assert!(again.welcome.epoch > client.welcome.epoch, "what was remembered of 3 is to be forgotten");
    assert_eq!(nodes[1].accept("01", "\"the real third\""), 3);
    again.expect_payment(3, "\"the real third\"");
    again.ack(3);
    nodes[1].expect_acknowledged("01", 3);
    assert_eq!(nodes[1].about("01")["last_seq"], 3);
}

#[test]
fn garbage_all_the_while_disturbs_no_order() {
    let nodes = Deployment::redis(2);
    let mut client = nodes[0].client("01");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (redis, over) = (&nodes.redis, &over);
        let forger = scope.spawn(move || {
            let mut round = 0;
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                let some = (1..=30).map(|n| forged("01", 1, round + n, 1));
                let mut payloads: Vec<Vec<u8>> = some.collect();
                payloads.push(b"doorbell \xff".to_vec());
                publish(redis, &payloads);
                round = (round + 7) % 200;
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pass(&nodes, &mut client, 200)));
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        forger.join().expect("no panic");
        assert!(done.is_ok_and(|accepted| accepted.len() == 200));
    });
    expect_unharmed(&nodes, &mut client, 201);
}
