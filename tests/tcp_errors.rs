//! What a client does wrong on its line is answered with a stable code and the end of that connection, and of no other.

use std::time::{Duration, Instant};

use crate::harness::line_client::hello;
use crate::harness::{self, Client, Home, Line, Next, Node, TempDir, eventually, eventually_some, limit};

fn node() -> Node {
    Node::start(Home::Embedded)
}

#[test]
fn bad_json() {
    let node = node();
    for line in ["{oops", "{\"type\":\"ping\"", "\"", "{\"type\":\"ack\",\"seq\":01}", "{\"type\":\"ping\"} x"] {
        let mut client = node.client("01");
        client.send_line(line);
        client.expect_error("bad_json");
    }
}

#[test]
fn bad_frame() {
    let node = node();
    node.accept("01", "1");
    let wrong = [
        r#"{}"#,
        r#"{"type":5}"#,
        r#"{"type":null}"#,
        r#"{"type":"ack"}"#,
        r#"{"type":"ack","seq":"1"}"#,
        r#"{"type":"ack","seq":1.0}"#,
        r#"{"type":"ack","seq":1e0}"#,
        r#"{"type":"ack","seq":-1}"#,
        r#"{"type":"ack","seq":null}"#,
        r#"{"type":"ack","seq":[1]}"#,
        r#"{"type":"ack","seq":true}"#,
        r#"{"type":"ack","seq":18446744073709551616}"#,
        r#"{"type":"ack","seq":1,"seq":1}"#,
        r#"{"type":"ping","type":"ack","seq":1}"#,
    ];
    for line in wrong {
        let mut client = node.client("01");
        client.expect_payment(1, "1");
        client.send_line(line);
        let error = client.expect_any_error();
        assert_eq!(error.text("code").as_deref(), Some("bad_frame"), "{line}: {}", error.line);
    }
    // JSON, but no object: bad either way.
    for line in [r#"["ack",1]"#, "1", "null", "\"ack\"", "[]"] {
        let mut client = node.client("01");
        client.expect_payment(1, "1");
        client.send_line(line);
        let code = client.expect_any_error().text("code").unwrap_or_default();
        assert!(["bad_frame", "bad_json"].contains(&code.as_str()), "{line}: {code}");
    }
    assert_eq!(node.status("01", 1), "accepted", "none of these acknowledged anything");
}

#[test]
fn odd_but_right_acknowledgements() {
    let node = node();
    for n in 1..=3 {
        node.accept("01", &n.to_string());
    }
    let mut client = node.client("01");
    client.expect_seqs(1..=3);
    client.send_line(r#"{"type":"ack","seq":0}"#);
    client.send_line(r#" { "seq" : 1 , "note" : {"a":[1,2]} , "note" : 2, "type" : "ack" } "#);
    node.expect_acknowledged("01", 1);
    client.send_line(r#"{"type":"ack","seq":9007199254740993}"#);
    node.expect_acknowledged("01", 3);
    client.send_line(r#"{"type":"ack","seq":2}"#);
    client.expect_nothing_but_pings(harness::QUIET);
    assert_eq!(node.accept("01", "4"), 4);
    client.expect_payment(4, "4");
    assert_eq!(node.status("01", 4), "accepted");
}

#[test]
fn line_too_long() {
    let node = node();
    let mut client = node.client("01");
    let padded = |length: usize| {
        let frame = r#"{"type":"ping","pad":""}"#;
        frame.replace("\"\"", &format!("\"{}\"", "x".repeat(length - frame.len())))
    };
    client.send_line(&padded(60_000));
    client.expect_nothing_but_pings(harness::QUIET);
    let _ = client.try_send_bytes(padded(70_000).as_bytes());
    client.expect_error("line_too_long");

    // The same before the hello.
    let mut line = node.connect_raw();
    let _ = line.try_send_bytes(&vec![b' '; 70_000]);
    line.expect_error("line_too_long");
}

#[test]
fn hello_required() {
    let node = node();
    for first in [r#"{"type":"ack","seq":1}"#, r#"{"type":"ping"}"#] {
        let mut line = node.connect_raw();
        line.send_line(first);
        line.expect_error("hello_required");
    }
}

#[test]
fn hello_timeout_when_silent() {
    let node = node();
    let mut line = node.connect_raw();
    let start = Instant::now();
    line.expect_error("hello_timeout");
    let time = Duration::from_secs(limit("time for a hello") as u64);
    assert!(start.elapsed() > time - Duration::from_millis(200), "after {:?}", start.elapsed());
}

#[test]
fn hello_timeout_when_dribbling() {
    let node = node();
    let mut line = node.connect_raw();
    let start = Instant::now();
    // A hello that would take more than a minute.
    let hello = hello("01", &format!("\"pad\":\"{}\"", "x".repeat(60)));
    let mut bytes = hello.bytes();
    let end = loop {
        let byte = bytes.next().expect("it is ended long before the hello is whole");
        let _ = line.try_send_bytes(&[byte]);
        match line.next(Duration::from_secs(1)) {
            Next::Silence => {}
            Next::Frame(frame) => break frame,
            Next::Closed => panic!("closed without a word"),
        }
    };
    assert_eq!(end.text("code").as_deref(), Some("hello_timeout"), "{}", end.line);
    assert!(start.elapsed() < Duration::from_secs(40), "ten seconds in all, not for a byte: {:?}", start.elapsed());
    line.expect_closed();
}

#[test]
fn unauthorized() {
    let files = TempDir::new();
    let secrets = files.file("secrets", "a-secret-of-this-test\n");
    let node = Node::with(Home::Embedded, &["--client-secret-file", &secrets]);
    for extra in ["", r#""token":"""#, r#""token":"0123""#] {
        let mut line = node.connect_raw();
        line.send_line(&hello("01", extra));
        line.expect_error("unauthorized");
    }
    node.expect_unknown("01");
}

#[test]
fn invalid_client_id() {
    let node = node();
    let long = "x".repeat(129);
    for id in ["", ".", "..", "a b", "a/b", "a*", "{a}", "\u{e4}", "\u{430}", "a\\u0000", "a\\n", "%30", &long] {
        let mut line = node.connect_raw();
        line.send_line(&hello(id, ""));
        line.expect_error("invalid_client_id");
    }
    for line_text in
        [r#"{"type":"hello"}"#, r#"{"type":"hello","client":1}"#, r#"{"type":"hello","client":"01","client":"01"}"#]
    {
        let mut line = node.connect_raw();
        line.send_line(line_text);
        let code = line.expect_any_error().text("code").unwrap_or_default();
        assert!(["bad_frame", "invalid_client_id"].contains(&code.as_str()), "{line_text}: {code}");
    }
    for id in ["0", "...", "a:b", "-", &"x".repeat(128)] {
        node.client(id);
    }
}

#[test]
fn idle_timeout() {
    let node = Node::with(Home::Embedded, &["--heartbeat", "1"]);
    let mut client = node.client("01");
    assert_eq!(client.welcome.heartbeat, 1);
    client.ignore_pings();
    // It is asked first …
    let asked = client.next_of_any_kind(Instant::now() + harness::READ_LIMIT);
    assert!(matches!(&asked, Next::Frame(frame) if frame.kind() == "ping"), "{asked:?}");
    // … and then given up, whatever was sent to it.
    node.accept("01", "1");
    client.expect_payment(1, "1");
    client.expect_error("idle_timeout");
    node.expect_online("01", false);
}

#[test]
fn a_client_that_answers_pings_stays() {
    let node = Node::with(Home::Embedded, &["--heartbeat", "1"]);
    let mut client = node.client("01");
    // So long that it is not only asked twice and given up three heartbeats after its last answer.
    client.expect_nothing_but_pings(Duration::from_secs(7));
    node.accept("01", "1");
    client.expect_payment(1, "1");
}

#[test]
fn too_many_clients() {
    let node = Node::with(Home::Embedded, &["--max-clients", "2"]);
    let mut first = node.client("01");
    let second = node.client("02");
    let mut third = Line::connect(node.tcp());
    let _ = third.try_send_bytes(format!("{}\n", hello("03", "")).as_bytes());
    third.expect_error("too_many_clients");
    node.accept("01", "1");
    first.expect_payment(1, "1");

    drop(second);
    let mut third = eventually_some("there is room again", || Client::try_hello(node.tcp(), "03"));
    node.accept("03", "1");
    third.expect_payment(1, "1");
}

#[test]
fn garbage_does_no_harm() {
    let node = node();
    let mut other = node.client("other");
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(10);
    let brackets = b"[".repeat(65_536);
    let spaces = b" ".repeat(65_536);
    let garbage: [&[u8]; 10] = [
        &tls,
        &brackets,
        &spaces,
        b"\0\0\0\0\n",
        b"\xff\xfe\xfd\n",
        b"\xef\xbb\xbf{\"type\":\"hello\",\"client\":\"01\"}\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"{\"type\":\"hello\",\"client\":\"\xff\"}\n",
        b"{\"type\":\"hello\",\"client\":\"01\",\"token\":[[[[[[[[[[\n",
        b"\r\r\r\r{}\r\n",
    ];
    for (seq, bytes) in (1..).zip(garbage) {
        let mut line = node.connect_raw();
        let _ = line.try_send_bytes(bytes);
        line.half_close();
        let (payments, _code) = line.read_to_the_end();
        assert!(payments.is_empty());
        node.accept("other", &seq.to_string());
        other.expect_payment(seq, &seq.to_string());
    }
    // The same from one who was welcomed.
    for bytes in [&tls, &brackets, &spaces] {
        let mut client = node.client("01");
        let _ = client.try_send_bytes(bytes);
        client.half_close();
        client.read_to_the_end();
    }
    node.client("01");
}

#[test]
fn a_carriage_return_is_tolerated() {
    let node = node();
    let mut line = node.connect_raw();
    line.send_bytes(b"{\"type\":\"hello\",\"client\":\"01\"}\r\n");
    line.expect_welcome();
    node.accept("01", "1");
    line.expect_payment(1, "1");
    line.send_bytes(b"{\"type\":\"ack\",\"seq\":1}\r\n");
    node.expect_acknowledged("01", 1);
}

#[test]
fn lines_may_come_in_pieces_and_together() {
    let node = node();
    node.accept("01", "1");
    node.accept("01", "2");
    let mut line = node.connect_raw();
    for piece in hello("01", "").as_bytes().chunks(3) {
        line.send_bytes(piece);
    }
    line.send_bytes(b"\n{\"type\":\"pi");
    line.expect_welcome();
    line.expect_seqs(1..=2);
    line.send_bytes(b"ng\"}\n{\"type\":\"ack\",\"seq\":1}\n{\"type\":\"ack\",\"seq\":2}\n{\"type\":\"bye\"}\n");
    line.expect_closed();
    node.expect_acknowledged("01", 2);
}

#[test]
fn a_ping_is_answered() {
    let node = node();
    let mut client = node.client("01");
    client.send_line(r#"{"type":"ping"}"#);
    let answer = client.next_of_any_kind(Instant::now() + harness::READ_LIMIT);
    assert!(matches!(&answer, Next::Frame(frame) if frame.kind() == "pong"), "{answer:?}");
}

#[test]
fn bye_is_a_clean_leave() {
    let node = node();
    node.accept("01", "1");
    let mut client = node.client("01");
    client.expect_payment(1, "1");
    client.send_line(r#"{"type":"bye"}"#);
    client.expect_closed();
    node.expect_online("01", false);
    assert_eq!(node.status("01", 1), "accepted", "what was not acknowledged stays");
    node.client("01").expect_payment(1, "1");
}

#[test]
fn a_client_that_sends_no_more_is_gone() {
    let node = node();
    let mut client = node.client("01");
    node.accept("01", "1");
    client.expect_payment(1, "1");
    client.ack(1);
    client.half_close();
    client.read_to_the_end();
    node.expect_online("01", false);
    node.expect_acknowledged("01", 1);
}

#[test]
fn a_client_that_is_reset_is_gone() {
    let node = node();
    let mut client = node.client("01");
    node.accept("01", "1");
    client.expect_payment(1, "1");
    client.into_line().reset();
    node.expect_online("01", false);
    eventually("it may come back", || Client::try_hello(node.tcp(), "01").is_some());
}
