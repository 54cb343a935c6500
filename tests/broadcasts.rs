//! A broadcast reaches every client that is connected and not behind, on every node; nothing is stored, nobody waits.

use std::time::{Duration, Instant};

use crate::harness::node::JSON;
use crate::harness::{
    self, Answer, Client, Deployment, Framing, Home, Line, Mode, Next, Node, Proxy, QUIET, READ_LIMIT, Redis, Reply,
    Way, eventually, json, on_both_inboxes,
};

on_both_inboxes!(
    everybody_who_is_connected_gets_it,
    it_arrives_token_for_token,
    who_is_behind_gets_none_and_misses_no_payment,
    a_full_socket_gets_whole_frames_and_holds_up_nobody,
    what_is_wrong_is_refused_and_reaches_nobody,
    a_flood_beside_payments_loses_no_payment,
    what_does_not_fit_a_framing_is_left_out,
);

fn broadcast(node: &Node, body: &str) -> Answer {
    node.request("POST", "/v1/broadcasts", &[JSON], body.as_bytes())
}

#[track_caller]
fn expect_broadcast(client: &mut Line, channel: &str, msg: &str) {
    let frame = client.expect_frame();
    assert_eq!(frame.names(), ["type", "channel", "msg"], "{}", frame.line);
    assert_eq!(frame.text("channel").as_deref(), Some(channel), "{}", frame.line);
    assert_eq!(frame.kind(), "broadcast", "{}", frame.line);
    assert_eq!(json::tokens(frame.raw("msg").unwrap_or_default()), json::tokens(msg), "{}", frame.line);
}

fn metric(node: &Node, name: &str) -> u64 {
    let text = node.get("/metrics").expect(200).text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.split(' ').next());
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a whole number")
}

/// A frame of a payment or of a broadcast; the next one, whichever it is.
#[track_caller]
fn next_kind(client: &mut Line) -> String {
    client.expect_frame().kind()
}

fn everybody_who_is_connected_gets_it(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let mut clients: Vec<Client> = (0..6).map(|n| nodes[n % nodes.len()].client(&format!("c{n}"))).collect();
    let told = broadcast(&nodes[0], r#"{"channel":"notices","msg":"maintenance at 02:00"}"#).expect(202).json();
    assert_eq!(told, serde_json::json!({"status": "broadcast", "nodes": nodes.len()}));
    for client in &mut clients {
        expect_broadcast(client, "notices", r#""maintenance at 02:00""#);
    }
    // From another node as well, without a channel.
    broadcast(&nodes[nodes.len() - 1], r#"{"msg":null}"#).expect(202);
    clients.iter_mut().for_each(|client| expect_broadcast(client, "payments", "null"));

    // Nothing of it is kept: not for those who come later, not in any inbox, not as a number.
    nodes[0].client("late").expect_nothing_but_pings(QUIET);
    let about = nodes[0].about("c0");
    assert_eq!((&about["last_seq"], &about["pending"]), (&0.into(), &0.into()), "{about}");
    if home == Home::Redis {
        let keys = nodes[0].redis().cli(&["KEYS", "*broadcast*"]);
        assert!(matches!(&keys, Reply::List(keys) if keys.is_empty()), "{keys:?}");
    }
    // The numbers of payments go on as if nothing had been.
    assert_eq!(nodes[0].accept("c0", "1"), 1);
    clients[0].expect_payment(1, "1");
    let delivered: u64 = nodes.iter().map(|node| metric(node, "payrelay_broadcasts_delivered_total")).sum();
    assert_eq!(delivered, 12);
}

fn it_arrives_token_for_token(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let number = "9".repeat(256);
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
    for msg in [
        r#"{"amount":10.00,"n":1E400,"big":123456789012345678901234567890,"n":"\u00e9\n\ud800"}"#,
        &number,
        &deep,
        "\"\u{1f600} \\\" \\\\\"",
    ] {
        broadcast(&node, &format!(r#"{{"channel":"a.b_c-1","msg":{msg}}}"#)).expect(202);
        expect_broadcast(&mut client, "a.b_c-1", msg);
    }
    // A line break between tokens cannot make two frames of one.
    let forged = "{\"a\":1,\r\n\"type\":\n\"payment\"}";
    broadcast(&node, &format!("{{\"msg\":\n{forged}\n}}\n")).expect(202);
    expect_broadcast(&mut client, "payments", forged);
    client.expect_nothing_but_pings(QUIET);
}

fn who_is_behind_gets_none_and_misses_no_payment(home: Home) {
    let node = Node::start(home);
    let mut behind = node.client_with("behind", r#""window":1"#);
    let mut other = node.client("other");
    node.accept("behind", "1");
    node.accept("behind", "2");
    behind.expect_payment(1, "1");
    // Bells are quick, but the second must have been tried before the client counts as behind.
    eventually("it is behind", || {
        broadcast(&node, r#"{"channel":"notices","msg":"are you there?"}"#).expect(202);
        expect_broadcast(&mut other, "notices", r#""are you there?""#);
        metric(&node, r#"payrelay_broadcasts_left_out_total{reason="behind"}"#) > 0
    });
    broadcast(&node, r#"{"channel":"notices","msg":"for who is not behind"}"#).expect(202);
    expect_broadcast(&mut other, "notices", r#""for who is not behind""#);
    behind.ack(1);
    loop {
        let frame = behind.expect_frame();
        assert!(!frame.line.contains("for who is not behind"), "{}", frame.line);
        if frame.kind() == "payment" {
            assert_eq!(frame.number("seq"), 2);
            break;
        }
    }
    behind.ack(2);
    node.expect_acknowledged("behind", 2);
    // Now it is not any more.
    broadcast(&node, r#"{"msg":"again"}"#).expect(202);
    expect_broadcast(&mut behind, "payments", r#""again""#);
}

fn a_full_socket_gets_whole_frames_and_holds_up_nobody(home: Home) {
    let node = Node::start(home);
    let mut full = Client::hello_on(Line::connect_with_small_buffer(node.tcp()), "full", "");
    let mut other = node.client("other");
    let big = format!("\"{}\"", "x".repeat(200_000));
    for n in 1..=10 {
        let start = Instant::now();
        broadcast(&node, &format!(r#"{{"msg":{big}}}"#)).expect(202);
        expect_broadcast(&mut other, "payments", &big);
        assert!(start.elapsed() < Duration::from_secs(10), "{n}: {:?}", start.elapsed());
    }
    assert_eq!(node.accept("full", "1"), 1);
    assert_eq!(node.accept("other", "1"), 1);
    other.expect_payment(1, "1");
    // What was begun comes to its end, then the payment; of the other broadcasts it never hears.
    let mut broadcasts = 0;
    loop {
        let frame = full.expect_frame();
        if frame.kind() == "payment" {
            break;
        }
        assert_eq!(frame.raw("msg"), Some(big.as_str()), "a whole one");
        broadcasts += 1;
    }
    assert!((1..10).contains(&broadcasts), "{broadcasts} of ten");
    full.ack(1);
    node.expect_acknowledged("full", 1);
    broadcast(&node, r#"{"msg":"again"}"#).expect(202);
    expect_broadcast(&mut full, "payments", r#""again""#);
}

fn what_is_wrong_is_refused_and_reaches_nobody(home: Home) {
    let node = Node::with(home, &["--body-limit", "1000"]);
    let mut client = node.client("01");
    let deep = format!(r#"{{"msg":{}1{}}}"#, "[".repeat(65), "]".repeat(65));
    let number = format!(r#"{{"msg":{}}}"#, "1".repeat(257));
    for (body, code) in [
        ("", "bad_json"),
        ("{", "bad_json"),
        (r#"{"msg":1}{"msg":2}"#, "bad_json"),
        ("[1]", "bad_request"),
        ("{}", "bad_request"),
        (r#"{"msg":1,"msg":2}"#, "bad_request"),
        (&deep, "bad_request"),
        (&number, "bad_request"),
        (r#"{"channel":"Notices","msg":1}"#, "invalid_channel"),
        (r#"{"channel":"","msg":1}"#, "invalid_channel"),
        // A payment on the wrong path would reach everybody, and no inbox.
        (r#"{"client":"01","msg":{"amount":"10.00"}}"#, "bad_request"),
        (r#"{"id":"01","msg":1}"#, "bad_request"),
        (r#"{"payment_id":"wx-1","msg":1}"#, "bad_request"),
        (r#"{"expires_in":60,"msg":1}"#, "bad_request"),
    ] {
        broadcast(&node, body).expect_problem(400, code);
    }
    let (good, path) = (br#"{"msg":1}"#, "/v1/broadcasts");
    node.request("POST", "/v1/broadcasts?wait=5", &[JSON], good).expect_problem(400, "bad_request");
    node.request("POST", path, &[JSON, ("Idempotency-Key", "a")], good).expect_problem(400, "bad_request");
    for kind in ["application/x-ndjson", "text/plain", "application/x-www-form-urlencoded"] {
        let answer = node.request("POST", path, &[("Content-Type", kind)], good);
        answer.expect_problem(415, "unsupported_media_type");
    }
    broadcast(&node, &format!(r#"{{"msg":"{}"}}"#, "x".repeat(1000))).expect_problem(413, "body_too_large");
    node.get(path).expect_problem(405, "method_not_allowed");
    client.expect_nothing_but_pings(QUIET);
    // Unknown fields say nothing.
    broadcast(&node, r#"{"shop":{"a":[1]},"client":null,"msg":1}"#).expect(202);
    expect_broadcast(&mut client, "payments", "1");
}

fn a_flood_beside_payments_loses_no_payment(home: Home) {
    const PAYMENTS: u64 = 200;
    let nodes = Deployment::at(home, &[]);
    let mut client = nodes[0].client("01");
    std::thread::scope(|scope| {
        let other = &nodes[nodes.len() - 1];
        let flood = scope.spawn(|| {
            let mut http = other.http_client();
            let mut taken = 0;
            for n in 0..2000 {
                let answer = http.send("POST", "/v1/broadcasts", &[JSON], format!(r#"{{"msg":{n}}}"#).as_bytes());
                assert!(answer.status == 202 || answer.status == 503, "{}", answer.show());
                taken += u64::from(answer.status == 202);
            }
            taken
        });
        scope.spawn(|| {
            let mut http = nodes[0].http_client();
            for n in 1..=PAYMENTS {
                let body = harness::node::envelope("01", &n.to_string(), None);
                http.send("POST", "/v1/payments", &[JSON], body.as_bytes()).expect(202);
            }
        });
        let (mut payments, mut broadcasts, mut last) = (0, 0, None);
        while payments < PAYMENTS {
            let frame = client.expect_frame();
            if frame.kind() == "payment" {
                payments += 1;
                assert_eq!(frame.number("seq"), payments, "in order, each once");
                client.ack(payments);
            } else {
                let n = frame.number("msg");
                assert!(last < Some(n), "one sender's broadcasts come in order: {n} after {last:?}");
                last = Some(n);
                broadcasts += 1;
            }
        }
        assert!(flood.join().expect("the flood goes on to its end") >= broadcasts);
    });
    nodes[0].expect_acknowledged("01", PAYMENTS);
}

fn what_does_not_fit_a_framing_is_left_out(home: Home) {
    let node = Node::with(home, &["--tcp", "127.0.0.1:0", "--tcp", "u16be@127.0.0.1:0", "--tcp", "u32be@127.0.0.1:0"]);
    let mut clients = Framing::ALL.map(|framing| (framing, node.client_in(framing, &format!("{framing:?}"), "")));
    let too_long = format!("\"{}\"", "x".repeat(65_500));
    broadcast(&node, &format!(r#"{{"msg":{too_long}}}"#)).expect(202);
    broadcast(&node, r#"{"msg":"short"}"#).expect(202);
    for (framing, client) in &mut clients {
        if *framing != Framing::U16be {
            expect_broadcast(client, "payments", &too_long);
        }
        expect_broadcast(client, "payments", r#""short""#);
    }
    assert_eq!(metric(&node, r#"payrelay_broadcasts_left_out_total{reason="too_large_for_framing"}"#), 1);
}

#[test]
fn a_client_gets_none_before_its_welcome() {
    let redis = Redis::start();
    let node = Node::on(&redis, "n1", &[]);
    redis.pause();
    let mut line = node.connect_raw();
    line.send_line(&harness::line_client::hello("01", ""));
    // Redis hears nothing, so nobody can say what became of it.
    let answer = broadcast(&node, r#"{"msg":1}"#).expect_problem(503, "unavailable");
    assert_eq!(answer.field("stored"), "unknown");
    redis.resume();
    // A broadcast that Redis took in after all may come, but only behind the welcome.
    assert_eq!(next_kind(&mut line), "welcome");
}

#[test]
fn where_redis_is_away_nobody_was_told() {
    let redis = Redis::start();
    let node = Node::on(&redis, "n1", &[]);
    let mut client = node.client("01");
    redis.kill();
    eventually("its end is noticed", || {
        let answer = broadcast(&node, r#"{"msg":"away"}"#).expect_problem(503, "unavailable");
        answer.header("Retry-After").is_some() && answer.field("stored") == "no"
    });
    redis.restart();
    node.expect_ready();
    // The client's inbox may be looked at in this moment, for what rang while nobody listened: that leaves nobody out.
    eventually("both lines are there again", || {
        let answer = broadcast(&node, r#"{"msg":"back"}"#);
        answer.status == 202 && answer.json()["nodes"] == 1
    });
    expect_broadcast(&mut client, "payments", r#""back""#);
}

#[test]
fn a_client_whose_inbox_is_looked_at_is_left_out_of_none() {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    // Once a heartbeat its node asks the inbox of each client what is there, and here that takes a tenth of one.
    let node = Node::on_url(&redis, &proxy.redis_url(), "n1", &["--heartbeat", "1"]);
    node.expect_ready();
    let mut client = node.client("01");
    proxy.set(Way::Down, Mode::Delay(Duration::from_millis(100)));
    proxy.set_pubsub(Some(Mode::Pass));
    for n in 0..40 {
        broadcast(&node, &format!(r#"{{"msg":{n}}}"#)).expect(202);
        expect_broadcast(&mut client, "payments", &n.to_string());
    }
    assert_eq!(metric(&node, r#"payrelay_broadcasts_left_out_total{reason="behind"}"#), 0);
}

#[test]
fn a_stop_waits_for_no_broadcast() {
    let node = Node::start(Home::Embedded);
    let mut client = node.client("01");
    let mut http = node.http_client();
    for _ in 0..300 {
        let answer = http.send("POST", "/v1/broadcasts", &[JSON], br#"{"msg":1}"#);
        assert!(answer.status == 202 || answer.status == 503, "{}", answer.show());
    }
    let exit = node.terminate();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(!exit.stderr.contains("left behind"), "{}", exit.stderr);
    let deadline = Instant::now() + READ_LIMIT;
    let last = loop {
        match client.next(deadline.saturating_duration_since(Instant::now())) {
            Next::Frame(frame) if frame.kind() == "broadcast" => {}
            other => break other,
        }
    };
    assert!(matches!(&last, Next::Frame(frame) if frame.text("code").as_deref() == Some("shutting_down")), "{last:?}");
}
