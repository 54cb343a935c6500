//! Whatever comes in, from senders, clients or through Redis: the node lives, answers in time, keeps its memory bounded,
//! and holds exactly what it said it holds.
//!
//! As many as `HOSTILE_SOCKETS` says, else a few hundred; the seed is `HOSTILE_SEED`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::harness::line_client::hello;
use crate::harness::{self, Answer, Client, Deployment, Framing, Home, Line, Next, Node, http};
use crate::hostile::mutation::{LIMIT, Plan, Random, mutated, run};
use crate::hostile::{framing, json};
use serde_json::Value;

/// More than this a node does not grow, whatever it is sent.
const MOST_GROWTH_KIB: u64 = 128 << 10;

fn plan(short: u64) -> Plan {
    let plan = Plan::of(short);
    let count = std::env::var("HOSTILE_SOCKETS").ok().and_then(|text| text.parse().ok());
    Plan { count: count.unwrap_or(short), ..plan }
}

#[track_caller]
fn expect_unharmed(node: &Node, memory_before: u64) {
    assert!(!node.has_ended());
    assert!(!node.log().contains("panicked"), "{}", node.log());
    let grown = node.memory_kib().saturating_sub(memory_before);
    assert!(grown < MOST_GROWTH_KIB, "{grown} KiB more than before");
}

/// A body behind a head that fits it.
fn request(random: &mut Random, body: &[u8]) -> Vec<u8> {
    let (path, kind) = *random.pick(&[
        ("/v1/payments", "application/json"),
        ("/v1/payments", "application/x-ndjson"),
        ("/v1/clients/raw/payments", "application/json"),
        ("/v1/clients/raw/payments?payment_id=a&channel=b", "text/plain"),
        ("/v1/clients/raw/payments", "x"),
    ]);
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// What a sender was promised: how many payments are stored for each client.
#[derive(Default)]
struct Promised(BTreeMap<String, u64>);

impl Promised {
    /// Takes note of an answer. As nobody else posts, each new payment has the number after the one before.
    fn hear(&mut self, answer: &Answer) -> bool {
        let is_batch = answer.header("Content-Type") == Some("application/x-ndjson");
        let told = match answer.status {
            200 if is_batch => answer.json_lines(),
            200 | 202 if answer.body.starts_with(b"{\"status\"") => vec![answer.json()],
            _ => Vec::new(),
        };
        let stored = told.iter().filter(|told| told["status"].is_string() && told["duplicate"] != true);
        for told in stored.clone() {
            let count = self.0.entry(told["client"].as_str().expect("a client").into()).or_default();
            *count += 1;
            assert_eq!(told["seq"], *count, "{told}");
        }
        stored.count() > 0
    }

    #[track_caller]
    fn expect_kept(&self, node: &Node) {
        for (client, count) in &self.0 {
            assert_eq!(node.about(client)["last_seq"], *count, "{client}");
        }
        let mut after = String::new();
        loop {
            let page = node.get(&format!("/v1/clients?pending=true{after}")).expect(200).json();
            for listed in page["clients"].as_array().expect("a list") {
                let client = listed["client"].as_str().expect("a client");
                assert_eq!(self.0.get(client), listed["last_seq"].as_u64().as_ref(), "nobody was told so: {listed}");
            }
            let Value::String(next) = &page["next"] else { return };
            after = format!("&after={next}");
        }
    }
}

#[test]
fn what_senders_send_is_stored_exactly_where_it_was_said() {
    let node = Node::start(Home::Embedded);
    let memory = node.memory_kib();
    let small = |bytes: &Vec<u8>| bytes.len() < 30_000;
    // Half of them are good as they are.
    let cases = || framing::cases().into_iter().filter(|case| case.bytes.len() < 30_000);
    let good: Vec<_> = cases().filter(|case| case.verdict.stored).map(|case| case.bytes).collect();
    let all: Vec<_> = cases().map(|case| case.bytes).collect();
    let messages = json::messages().into_iter().map(|case| case.text);
    let bodies: Vec<_> = json::posts().into_iter().map(|(body, _)| body).chain(messages).filter(small).collect();
    let words: [&[u8]; 14] = [
        b"\r\n",
        b"\n",
        b"\r\n\r\n",
        b"Content-Length: 23\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"\"client\":\"02\",",
        b"\"payment_id\":\"a\",",
        b"{\"client\":\"03\",\"msg\":1}\n",
        b"\"msg\":",
        b"0\r\n\r\n",
        b"Idempotency-Key: b\r\n",
        b"\0",
        b"\xff",
        b"%00",
    ];
    let make = |random: &mut Random| match random.below(4) {
        0 => mutated(random, &all, &words),
        1 => mutated(random, &good, &words),
        _ => {
            let body = mutated(random, &bodies, &words);
            request(random, &body)
        }
    };
    let promised = RefCell::new(Promised::default());
    run("requests, over sockets", plan(400), make, |input, _| {
        let begun = Instant::now();
        let raw = http::raw_half_closed(node.http(), input);
        assert!(raw.closed && begun.elapsed() < LIMIT, "after {:?}", begun.elapsed());
        // The answer to HEAD has a length and no body.
        let answers = if input.starts_with(b"HEAD") { Vec::new() } else { raw.answers() };
        answers.iter().map(|answer| promised.borrow_mut().hear(answer)).fold(false, |any, stored| any | stored)
    });
    promised.borrow().expect_kept(&node);
    assert_eq!(node.accept("witness", "1"), 1 + promised.borrow().0.get("witness").copied().unwrap_or(0));
    expect_unharmed(&node, memory);
}

/// How many clients the mutated lines speak for: one changes hands at most ten times a second.
const CLIENTS: usize = 100;

fn lines(framing: Framing) -> Vec<Vec<u8>> {
    let own = |number: usize| hello(&format!("c{number}"), "");
    let talk = [
        r#"{"type":"ack","seq":1}"#,
        r#"{"type":"ack","seq":9007199254740993}"#,
        r#"{"type":"nack","seq":2,"reason":"no"}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"pong","x":{"a":[1,2]}}"#,
        r#"{"type":"bye"}"#,
    ];
    let after = |hello: &str| [framing.wrap(hello), talk.iter().flat_map(|line| framing.wrap(line)).collect()].concat();
    let mut streams: Vec<Vec<u8>> = (0..CLIENTS).map(|number| after(&own(number))).collect();
    streams
        .extend((0..CLIENTS).map(|number| framing.wrap(&hello(&format!("c{number}"), r#""window":1,"ack":"auto""#))));
    streams.push(framing.wrap(&format!("{{\"type\":\"ping\",\"x\":\"{}\"}}", "x".repeat(60_000))));
    streams
}

/// For so long a client waits for an answer before it sends no more. Only how much is tried hangs on it.
const PAUSE: Duration = Duration::from_millis(20);

/// Sends, ends its side once nothing more is said to it, and reads until the other side ends too. Whether it was
/// welcomed.
#[track_caller]
fn say(mut line: Line, bytes: &[u8]) -> bool {
    let deadline = Instant::now() + LIMIT;
    let _ = line.try_send_bytes(bytes);
    let (mut welcomed, mut wait_until) = (false, Instant::now() + PAUSE);
    loop {
        match line.next_of_any_kind(wait_until) {
            Next::Frame(frame) => welcomed |= frame.kind() == "welcome",
            Next::Closed => return welcomed,
            Next::Silence if wait_until == deadline => panic!("not ended within {LIMIT:?}"),
            Next::Silence => {
                line.half_close();
                wait_until = deadline;
            }
        }
    }
}

#[test]
fn what_clients_say_costs_no_payment_and_no_other_client() {
    let listeners = ["--tcp", "127.0.0.1:0", "--tcp", "u16be@127.0.0.1:0", "--tcp", "u32be@127.0.0.1:0"];
    let node = Node::with(Home::Embedded, &listeners);
    for number in 0..CLIENTS {
        for msg in 1..=2 {
            node.accept(&format!("c{number}"), &msg.to_string());
        }
    }
    let mut witness = node.client("witness");
    let memory = node.memory_kib();
    let seeds = Framing::ALL.map(|framing| (framing, lines(framing)));
    let words: [&[u8]; 14] = [
        b"\n",
        b"\r\n",
        b"\0\x0f{\"type\":\"ping\"}",
        b"\0\0\0\x0f{\"type\":\"ping\"}",
        b"{\"type\":\"ping\"}\n",
        b"\"seq\":2,",
        b"\"type\":\"ack\",",
        b"\"",
        b"{",
        b"}",
        b"null",
        b"\\ud800",
        b"\xff\xff",
        b"\0\0",
    ];
    // The first byte says which framing is spoken.
    let make = |random: &mut Random| {
        let which = random.below(3);
        [vec![u8::try_from(which).expect("small")], mutated(random, &seeds[which].1, &words)].concat()
    };
    let mut passed = 0;
    run("lines, over sockets", plan(400), make, |input, random| {
        let welcomed = say(node.connect_in(seeds[usize::from(input[0])].0), &input[1..]);
        if random.one_in(40) {
            passed += 1;
            assert_eq!(node.accept("witness", "7"), passed);
            witness.expect_payment(passed, "7");
            witness.ack(passed);
        }
        welcomed
    });
    for number in 0..CLIENTS {
        let about = node.about(&format!("c{number}"));
        assert_eq!(about["last_seq"], 2, "{about}");
    }
    let waiting = node.get("/v1/clients?pending=true").expect(200).json();
    for client in waiting["clients"].as_array().expect("a list") {
        let id = client["client"].as_str().expect("a client");
        assert!(id.starts_with('c') || id == "witness", "nothing was ever sent to {id}");
    }
    expect_unharmed(&node, memory);
}

/// What nodes say to each other, as far as it does nothing to the client here if it is heard as it is.
fn messages() -> Vec<Vec<u8>> {
    let head = "\"channel\":\"payments\"";
    let bell = |client: &str, previous: u64, seq: u64| {
        let at = previous + 1;
        format!("doorbell {client} {previous} 0 {seq} {at} 0 99 {} {head}\"msg\":\"forged\"", head.len())
    };
    let mut messages: Vec<String> = (1..20).map(|seq| bell("receiver", 1_732_330_000_000, seq)).collect();
    messages.extend((1..5).map(|seq| bell("nobody", 0, seq)));
    let others = [
        "takeover nobody 7",
        "disconnect nobody",
        "dead nobody 3",
        "receipt/nobody/3 acknowledged",
        "receipt/receiver/1 refused",
        "beat ",
        "online/1 {\"node\":\"n9\",\"clients\":[]}",
        "question {\"answer_to\":\"n9\",\"topic\":\"online/1\",\"after\":null}",
        "broadcast {\"type\":\"broadcast\",\"channel\":\"notices\",\"msg\":{\"a\":[1,2]}}",
    ];
    messages.extend(others.map(str::to_owned));
    messages.into_iter().map(String::into_bytes).collect()
}

/// The next payment is this one. A broadcast may come before it, and its connection may have been ended for it.
#[track_caller]
fn expect_real(node: &Node, client: &mut Client, seq: u64, msg: &str) {
    loop {
        match client.next(harness::READ_LIMIT) {
            Next::Frame(frame) if frame.kind() == "payment" => {
                let payment = frame.payment();
                assert_eq!((payment.seq, payment.msg.as_deref()), (seq, Some(msg)), "{}", frame.line);
                return client.ack(seq);
            }
            Next::Frame(frame) if ["broadcast", "error"].contains(&frame.kind().as_str()) => {}
            Next::Closed => *client = node.client("receiver"),
            other => panic!("payment {seq} was expected, not {other:?}"),
        }
    }
}

#[test]
fn what_comes_through_redis_shows_no_client_anything_else() {
    let nodes = Deployment::redis(2);
    let memory = nodes[0].memory_kib();
    let mut client = nodes[0].client("receiver");
    let seeds = messages();
    let words: [&[u8]; 12] = [
        b" ",
        b"0",
        b"-1",
        b"18446744073709551615",
        b"/",
        b"\n",
        b"\"msg\":2",
        b"\xff",
        b"..",
        b"20 ",
        b"\r\n",
        b"{\"type\":\"payment\",\"seq\":1}",
    ];
    let redis = redis::Client::open(nodes.redis.url()).expect("a URL");
    let mut connection = redis.get_connection_with_timeout(Duration::from_secs(5)).expect("a connection to Redis");
    let mut seq = 0;
    let make = |random: &mut Random| mutated(random, &seeds, &words);
    run("doorbells, over Redis", plan(1_000), make, |input, random| {
        let mut command = redis::cmd("PUBLISH");
        let heard: i64 = command.arg("payrelay:0:node:n1").arg(input).query(&mut connection).expect("Redis publishes");
        assert_eq!(heard, 1, "the node listens");
        let real = random.one_in(20);
        if real {
            seq += 1;
            let msg = format!("\"real {seq}\"");
            assert_eq!(nodes[1].accept("receiver", &msg), seq);
            expect_real(&nodes[0], &mut client, seq, &msg);
        }
        real
    });
    assert_eq!(nodes[1].accept("receiver", "\"the last\""), seq + 1);
    expect_real(&nodes[0], &mut client, seq + 1, "\"the last\"");
    nodes[1].expect_acknowledged("receiver", seq + 1);
    expect_unharmed(&nodes[0], memory);
    expect_unharmed(&nodes[1], nodes[1].memory_kib());
}
