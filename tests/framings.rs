//! Framing belongs to the listener: lines, u16be and u32be carry the same JSON objects, over the same connection code.

use std::time::{Duration, Instant};

use crate::harness::line_client::hello;
use crate::harness::{
    Client, Deployment, Framing, Home, Line, Next, Node, Payment, READ_LIMIT, TempDir, eventually, on_both_inboxes,
};

on_both_inboxes!(
    hello_to_bye_in_each_framing,
    a_client_moves_between_framings,
    the_longest_payment_goes_over_u32be,
    a_payment_too_long_for_u16be_becomes_a_dead_letter,
);

const ALL: [&str; 6] = ["--tcp", "127.0.0.1:0", "--tcp", "u16be@127.0.0.1:0", "--tcp", "u32be@127.0.0.1:0"];
/// Those with a length before each frame, and how many bytes it has.
const LENGTHS: [(Framing, usize); 2] = [(Framing::U16be, 2), (Framing::U32be, 4)];
/// The most bytes of a client's frame.
const MOST: usize = 64 * 1024;

fn node() -> Node {
    Node::with(Home::Embedded, &ALL)
}

fn text_of(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes))
}

/// A ping of so many bytes.
fn long_ping(bytes: usize) -> String {
    let frame = r#"{"type":"ping","pad":""}"#;
    frame.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - frame.len())))
}

#[track_caller]
fn expect_pong(line: &mut Line) {
    match line.next_of_any_kind(Instant::now() + READ_LIMIT) {
        Next::Frame(frame) if frame.line == r#"{"type":"pong"}"# => {}
        other => panic!("a pong was expected, not {other:?}"),
    }
}

fn hello_to_bye_in_each_framing(home: Home) {
    let node = Node::with(home, &ALL);
    let mut seen: Vec<String> = Vec::new();
    for framing in Framing::ALL {
        let id = format!("{framing:?}").to_lowercase();
        node.accept(&id, r#"{"amount":10.00}"#);
        let mut client = node.client_in(framing, &id, r#""window":16"#);
        assert_eq!((client.welcome.pending, client.welcome.window), (1, 16));
        let first = client.expect_payment(1, r#"{"amount":10.00}"#);
        node.post_with_id(&id, "\"a\\nb\"", "wx-2").expect(202);
        client.expect_payment(2, "\"a\\nb\"");
        client.send_line(r#"{"type":"ping"}"#);
        expect_pong(&mut client);
        client.ack(2);
        node.expect_acknowledged(&id, 2);
        client.send_line(r#"{"type":"bye"}"#);
        client.expect_closed();
        node.expect_online(&id, false);
        let Payment { accepted_at, frame, .. } = first;
        seen.push(frame.line.replace(&accepted_at.to_string(), "T"));
    }
    assert!(seen.iter().all(|line| *line == seen[0]), "the same object whatever precedes or ends it: {seen:?}");
}

fn a_client_moves_between_framings(home: Home) {
    let nodes = match home {
        Home::Embedded => vec![Node::with(home, &ALL)],
        Home::Redis => Deployment::with(2, &ALL).nodes,
    };
    let (node, other) = (&nodes[0], &nodes[nodes.len() - 1]);
    let mut before = node.client_in(Framing::Lines, "01", "").into_line();
    for (seq, framing) in (1..).zip([Framing::U16be, Framing::U32be, Framing::U16be, Framing::Lines]) {
        // Over to another framing, and where there are two nodes to the other one and back.
        let node = if seq % 2 == 0 { node } else { other };
        let mut client = node.client_in(framing, "01", "");
        before.expect_error("replaced");
        assert_eq!(client.welcome.acked, seq - 1);
        node.accept("01", &seq.to_string());
        client.expect_payment(seq, &seq.to_string());
        client.ack(seq);
        node.expect_acknowledged("01", seq);
        before = client.into_line();
    }
}

fn the_longest_payment_goes_over_u32be(home: Home) {
    let node = Node::with(home, &ALL);
    let msg = text_of(262_144 - r#"{"client":"01","msg":""}"#.len());
    for framing in [Framing::U32be, Framing::Lines] {
        let mut client = node.client_in(framing, "01", "");
        let seq = node.accept("01", &msg);
        client.expect_payment(seq, &msg);
        client.ack(seq);
        node.expect_acknowledged("01", seq);
    }
    // What must be escaped is six times as long.
    let body = vec![1; 262_144];
    let path = "/v1/clients/01/payments";
    node.request("POST", path, &[("Content-Type", "text/plain")], &body).expect(202);
    let mut client = node.client_in(Framing::U32be, "01", "");
    let payment = client.expect_any_payment();
    assert!(payment.frame.line.len() > 6 * 262_144, "{} bytes", payment.frame.line.len());
    assert_eq!(payment.msg_text().into_bytes(), body);
}

fn a_payment_too_long_for_u16be_becomes_a_dead_letter(home: Home) {
    let node = Node::with(home, &ALL);

    node.accept("01", "1");
    node.accept("01", "2");
    let mut client = node.client_in(Framing::U16be, "01", "");
    let overhead = client.expect_payment(1, "1").frame.line.len() - 1;
    client.expect_payment(2, "2");

    // The longest that two bytes can tell …
    let fits = text_of(65_535 - overhead - 2);
    assert_eq!(node.accept("01", &fits), 3);
    assert_eq!(client.expect_payment(3, &fits).frame.line.len(), 65_535);
    // … and one byte more: whoever waits for it hears that it is refused, and those behind it go on, whether the bell
    // brings them or the inbox.
    let too_long = text_of(65_535 - overhead - 1);
    let answer = node.request(
        "POST",
        "/v1/payments?wait=30",
        &[("Content-Type", "application/json")],
        format!(r#"{{"client":"01","msg":{too_long}}}"#).as_bytes(),
    );
    assert_eq!(answer.expect(200).json()["status"], "refused");
    assert_eq!(node.accept("01", "5"), 5);
    client.expect_payment(5, "5");
    client.ack(5);
    node.expect_acknowledged("01", 5);
    client.send_line(r#"{"type":"bye"}"#);
    drop(client);
    assert_eq!(node.accept("01", &too_long), 6);
    assert_eq!(node.accept("01", "7"), 7);
    let mut client = node.client_in(Framing::U16be, "01", "");
    client.expect_payment(7, "7");
    client.ack(7);

    // Nothing is lost: an operator finds both, with their reason.
    let letters = || node.get("/v1/clients/01/dead-letters").json()["dead_letters"].clone();
    eventually("both are dead letters", || letters().as_array().map(Vec::len) == Some(2));
    for (letter, seq) in letters().as_array().expect("a list").iter().zip([4, 6]) {
        assert_eq!((&letter["seq"], &letter["status"]), (&seq.into(), &"refused".into()));
        assert_eq!(letter["reason"], "too_large_for_framing");
    }
}

#[test]
fn frames_may_break_anywhere() {
    let node = node();
    node.accept("01", "1");
    for (framing, _) in LENGTHS {
        let greeting = framing.wrap(&hello("01", ""));
        for at in 1..greeting.len() {
            let mut line = node.connect_in(framing);
            line.send_bytes(&greeting[..at]);
            line.send_bytes(&greeting[at..]);
            line.expect_welcome();
            line.expect_payment(1, "1");
            line.send_line(r#"{"type":"bye"}"#);
            line.expect_closed();
        }
        // Byte by byte, and the end of one with the beginning of the next.
        let mut line = node.connect_in(framing);
        let two = [greeting, framing.wrap(r#"{"type":"ping"}"#)].concat();
        two.iter().for_each(|byte| line.send_bytes(&[*byte]));
        line.expect_welcome();
        line.expect_payment(1, "1");
    }
}

#[test]
fn several_frames_may_come_at_once() {
    for (framing, _) in LENGTHS {
        let node = node();
        node.accept("01", "1");
        node.accept("01", "2");
        let mut client = node.client_in(framing, "01", "");
        client.expect_seqs(1..=2);
        let frames = [
            r#"{"type":"ack","seq":1}"#,
            r#"{"type":"ping"}"#,
            r#" { "seq" : 2, "type" : "ack" } "#,
            "{\n\"type\":\"ping\"\n}",
            r#"{"type":"bye"}"#,
        ];
        client.send_bytes(&frames.map(|frame| framing.wrap(frame)).concat());
        expect_pong(&mut client);
        expect_pong(&mut client);
        client.expect_closed();
        node.expect_acknowledged("01", 2);
    }
}

#[test]
fn lengths_at_their_limits() {
    let node = node();
    for (framing, prefix) in LENGTHS {
        for said in [false, true] {
            let connect = || match said {
                false => node.connect_in(framing),
                true => node.client_in(framing, "01", "").into_line(),
            };
            // An empty frame is an empty line, and one byte is no object.
            for short in ["", "x", "1", "{"] {
                let mut line = connect();
                line.send_line(short);
                let code = line.expect_any_error().text("code").unwrap_or_default();
                let expected = if short == "1" { "bad_frame" } else { "bad_json" };
                assert_eq!(code, expected, "{framing:?}: {short:?}");
            }
        }
        let mut client = node.client_in(framing, "01", "");
        for length in [60_000, 65_535, MOST] {
            if prefix > 2 || length < MOST {
                client.send_line(&long_ping(length));
                expect_pong(&mut client);
            }
        }
    }
    // Two bytes cannot say more than 64 KiB; four can, and are refused before any of it has come.
    for length in [MOST + 1, 1 << 20, 0x1000_0000, 0xffff_ffff] {
        let length = u32::try_from(length).expect("four bytes").to_be_bytes();
        let mut client = node.client_in(Framing::U32be, "01", "");
        client.send_bytes(&length);
        client.expect_error("line_too_long");
        let mut line = node.connect_in(Framing::U32be);
        line.send_bytes(&length);
        line.expect_error("line_too_long");
    }
}

#[test]
fn every_refusal_speaks_the_listeners_framing() {
    let files = TempDir::new();
    let secrets = files.file("secrets", "a-secret-of-this-test\n");
    let args = [&ALL[..], &["--client-secret-file", &secrets, "--max-clients", "1", "--heartbeat", "1"]].concat();
    let node = Node::with(Home::Embedded, &args);
    for framing in Framing::ALL {
        let refused = |json: &str, code: &str| {
            // The one place may still be taken for a moment.
            eventually("there is room", || {
                let mut line = node.connect_in(framing);
                let _ = line.try_send_bytes(&framing.wrap(json));
                let got = line.expect_any_error().text("code");
                assert!(got.as_deref() == Some(code) || got.as_deref() == Some("too_many_clients"), "{got:?}");
                got.as_deref() == Some(code)
            });
        };
        refused(r#"{"type":"ping"}"#, "hello_required");
        refused(&hello("01", ""), "unauthorized");
        refused(&hello("a/b", ""), "invalid_client_id");
        refused("{oops", "bad_json");
        refused(r#"{"type":"what"}"#, "bad_frame");
        // A long word of the client's does not come back whole, so that two bytes tell its length.
        refused(&format!(r#"{{"type":"hello","window":"{}"}}"#, "\\u0001".repeat(10_000)), "bad_frame");
    }
    node.expect_unknown("01");
}

#[test]
fn pings_and_the_last_words_of_a_connection_are_framed() {
    let node = Node::with(Home::Embedded, &[&ALL[..], &["--heartbeat", "1"]].concat());
    for (framing, _) in LENGTHS {
        let mut client = node.client_in(framing, "01", "");
        client.ignore_pings();
        let asked = client.next_of_any_kind(Instant::now() + READ_LIMIT);
        assert!(matches!(&asked, Next::Frame(frame) if frame.line == r#"{"type":"ping"}"#), "{asked:?}");
        client.expect_error("idle_timeout");

        let mut client = node.client_in(framing, "01", "");
        node.delete("/v1/clients/01/connection").expect(204);
        client.expect_error("disconnected");
    }
    let mut last: Vec<Client> =
        LENGTHS.iter().map(|(framing, _)| node.client_in(*framing, &format!("{framing:?}"), "")).collect();
    node.signal(rustix::process::Signal::TERM);
    last.iter_mut().for_each(|client| drop(client.expect_error("shutting_down")));
}

#[test]
fn too_many_clients_is_framed() {
    let node = Node::with(Home::Embedded, &[&ALL[..], &["--max-clients", "1"]].concat());
    let _first = node.client_in(Framing::Lines, "01", "");
    for framing in Framing::ALL {
        let mut line = node.connect_in(framing);
        line.expect_error("too_many_clients");
    }
}

/// Nobody waits for ten seconds to learn that it is the wrong port.
#[test]
fn another_framing_than_the_listeners_is_refused_at_once() {
    let node = node();
    node.accept("01", "1");
    for listener in Framing::ALL {
        for spoken in Framing::ALL {
            if spoken == listener {
                continue;
            }
            let mut line = Line::connect(node.tcp_in(listener)).speaking(listener);
            let start = Instant::now();
            let _ = line.try_send_bytes(&spoken.wrap(&hello("01", "")));
            let error = line.expect_any_error();
            let code = error.text("code").unwrap_or_default();
            // Two bytes of four are a length, of an empty frame; four, two of them text, are one far too long.
            let expected = match (spoken, listener) {
                (Framing::U32be, Framing::U16be) => "bad_json",
                (Framing::U16be, Framing::U32be) => "line_too_long",
                _ => "bad_frame",
            };
            assert_eq!(code, expected, "{spoken:?} to {listener:?}");
            assert!(start.elapsed() < Duration::from_secs(8), "{spoken:?} to {listener:?}: {:?}", start.elapsed());
            if code == "bad_frame" {
                let message = error.text("message").unwrap_or_default();
                assert!(message.contains(&format!("speaks {listener:?}").to_lowercase()), "{message}");
            }
        }
    }
    assert_eq!(node.about("01")["online"], false);
    assert_eq!(node.status("01", 1), "accepted");
}

/// In the middle of a conversation too, and what was said wrongly acknowledges nothing.
#[test]
fn a_line_among_lengths_ends_the_connection() {
    let node = node();
    node.accept("01", "1");
    for (framing, _) in LENGTHS {
        let mut client = node.client_in(framing, "01", "");
        client.expect_payment(1, "1");
        client.send_bytes(b"{\"type\":\"ack\",\"seq\":1}\n");
        client.expect_error("bad_frame");
    }
    let mut client = node.client_in(Framing::Lines, "01", "");
    client.expect_payment(1, "1");
    client.send_bytes(&Framing::U16be.wrap(r#"{"type":"ack","seq":1}"#));
    client.expect_error("bad_frame");
    assert_eq!(node.status("01", 1), "accepted");
}

#[test]
fn a_slow_client_gets_whole_frames() {
    let node = node();
    let msg = text_of(40_000);
    for (framing, _) in LENGTHS {
        let id = format!("{framing:?}");
        let line = Line::connect_with_small_buffer(node.tcp_in(framing)).speaking(framing);
        let mut client = Client::hello_on(line, &id, "");
        for seq in 1..=20 {
            assert_eq!(node.accept(&id, &msg), seq);
        }
        // By now its socket is full in the middle of a frame; the rest follows as it reads.
        for seq in 1..=20 {
            client.expect_payment(seq, &msg);
            client.ack(seq);
        }
        node.expect_acknowledged(&id, 20);
    }
}
