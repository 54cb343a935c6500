//! A message arrives token for token as it was sent: numbers, escapes, the order of keys, whatever JSON allows.

use crate::harness::{self, Answer, Client, Home, Node, on_both_inboxes};

on_both_inboxes!(
    every_message_arrives_token_for_token,
    a_line_break_between_tokens_becomes_a_space,
    nesting_has_a_limit,
    a_number_has_a_limit,
    nobody_forges_a_frame,
    what_is_no_json_is_refused,
);

const MESSAGES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "\"\"",
    "{}",
    "[]",
    "10.00",
    "1E400",
    "-1e-400",
    "1e+2",
    "123456789012345678901234567890",
    "0.1000000000000000055511151231257827021181583404541015625",
    "18446744073709551616",
    r#"{"z":1,"a":2,"m":3}"#,
    r#"{"amount":"1","amount":"2"}"#,
    r#"{"":""}"#,
    r#"{"a":{"a":{"a":[[],{},[{}]]}}}"#,
    r#""\u0041\/\b\f\n\r\t\"\\""#,
    r#""\u0000""#,
    r#""\ud800""#,
    r#""\udc00\ud800""#,
    r#""\ud83d\ude00""#,
    "\"😀 ä 中文 \u{7f}\"",
    "\"line\u{2028}paragraph\u{2029}next\u{85}\"",
    "\"\u{feff}\"",
    r#"[1,1.0,1.00,"1",true,null]"#,
    r#"{"type":"ack","seq":1000}"#,
    r#"{ "a" : [ 1 , 2 ] }"#,
    "\"\\u2028\"",
    r#"{"😀":"\uD83D\uDE00"}"#,
];

fn every_message_arrives_token_for_token(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    for (seq, msg) in (1..).zip(MESSAGES) {
        assert_eq!(node.accept("01", msg), seq, "{msg}");
        // Live …
        client.expect_payment(seq, msg);
    }
    drop(client);
    // … and from the inbox.
    let mut client = node.client("01");
    for (seq, msg) in (1..).zip(MESSAGES) {
        client.expect_payment(seq, msg);
    }
    drop(client);

    // In a batch, and as a raw body, as well.
    let batch: String = MESSAGES.iter().map(|msg| harness::node::envelope("02", msg, None) + "\n").collect();
    node.post_batch(&batch).expect(200);
    for msg in MESSAGES {
        post_raw(&node, "03", msg).expect(202);
    }
    for id in ["02", "03"] {
        let mut client = node.client(id);
        for (seq, msg) in (1..).zip(MESSAGES) {
            client.expect_payment(seq, msg);
        }
    }
}

fn post_raw(node: &Node, client: &str, json: &str) -> Answer {
    let path = format!("/v1/clients/{client}/payments");
    node.request("POST", &path, &[("Content-Type", "application/json")], json.as_bytes())
}

fn a_line_break_between_tokens_becomes_a_space(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let pretty = "{\n  \"a\": [\n\t1,\n    2\n  ],\n  \"b\": \"\\n\"\n}";
    node.accept("01", pretty);
    let arrived = client.expect_payment(1, pretty);
    assert_eq!(arrived.msg.as_deref(), Some(pretty.replace('\n', " ").as_str()));

    for (seq, text) in (2..).zip(["{\r\n\"a\":\r\n1\r\n}", "[1,\r2]", "\n\n[\n\n]\n\n"]) {
        node.accept("01", text);
        expect_one_line(&mut client, seq, text);
        post_raw(&node, "02", text).expect(202);
    }
    // A whole request over several lines.
    node.post_body("\n{\r\n  \"msg\" : {\n \"a\" : 1 }\n ,\n \"client\" : \"01\"\n}\r\n").expect(202);
    expect_one_line(&mut client, 5, r#"{"a":1}"#);

    let mut client = node.client("02");
    for (seq, text) in (1..).zip(["{\r\n\"a\":\r\n1\r\n}", "[1,\r2]", "\n\n[\n\n]\n\n"]) {
        expect_one_line(&mut client, seq, text);
    }
}

fn expect_one_line(client: &mut Client, seq: u64, msg: &str) {
    let payment = client.expect_payment(seq, msg);
    assert!(!payment.frame.line.contains(['\r', '\n']), "{:?}", payment.frame.line);
}

fn nested(levels: usize) -> [String; 2] {
    let lists = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
    [lists, objects]
}

fn nesting_has_a_limit(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    for (seq, msg) in (1..).zip(nested(64)) {
        node.accept("01", &msg);
        client.expect_payment(seq, &msg);
    }
    for msg in nested(65).into_iter().chain(nested(20_000)) {
        node.post("01", &msg).expect_any_problem(400);
        post_raw(&node, "01", &msg).expect_any_problem(400);
    }
    // Brackets within a string nest nothing.
    let text = format!("\"{}\"", "[{".repeat(200));
    node.accept("01", &text);
    client.expect_payment(3, &text);
}

fn a_number_has_a_limit(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let numbers = |length: usize| {
        let digits = "1".repeat(length);
        let fraction = format!("0.{}", "0".repeat(length - 2));
        let exponent = format!("1e{}", "0".repeat(length - 2));
        [digits, fraction, exponent]
    };
    for (seq, number) in (1..).zip(numbers(256)) {
        node.accept("01", &format!("[{number}]"));
        client.expect_payment(seq, &format!("[{number}]"));
    }
    for number in numbers(257) {
        node.post("01", &format!("[{number}]")).expect_any_problem(400);
        post_raw(&node, "01", &number).expect_any_problem(400);
    }
    // As a string it may be as long as it likes.
    let text = format!("\"{}\"", "1".repeat(1000));
    node.accept("01", &text);
    client.expect_payment(4, &text);
}

fn nobody_forges_a_frame(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let forged = r#"{"type":"payment","seq":2,"channel":"payments","accepted_at":1,"msg":"forged"}"#;
    let headers = [("Content-Type", "text/plain")];
    let body = format!("a\n{forged}\r\n{forged}\r{forged}");
    node.request("POST", "/v1/clients/01/payments", &headers, body.as_bytes()).expect(202);
    let payment = client.expect_any_payment();
    assert_eq!(payment.seq, 1);
    assert_eq!(payment.msg_text(), body);
    client.expect_nothing_but_pings(harness::QUIET);
}

fn what_is_no_json_is_refused(home: Home) {
    let node = Node::start(home);
    let bad = [
        "",
        "01",
        "+1",
        "1.",
        ".5",
        "1e",
        "0x10",
        "NaN",
        "Infinity",
        "-",
        "'a'",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "[1,]",
        "{,}",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\" 1}",
        "[1 2]",
        "nul",
        "True",
        "1 2",
        "[",
        "\"\t\"",
        "\"\u{0}\"",
        "\u{feff}1",
        "// c\n1",
    ];
    for msg in bad {
        node.post("01", msg).expect_any_problem(400);
        post_raw(&node, "01", msg).expect_problem(400, "bad_json");
    }
    let not_utf8 = b"{\"client\":\"01\",\"msg\":\"\xff\"}";
    let headers = [("Content-Type", "application/json")];
    node.request("POST", "/v1/payments", &headers, not_utf8).expect_any_problem(400);
    node.request("POST", "/v1/clients/01/payments", &headers, b"\"\xff\"").expect_any_problem(400);
    node.expect_unknown("01");
}
