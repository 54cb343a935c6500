//! The raw route: the body, of any content type, is the payment.

use crate::harness::{self, Answer, Home, Node, on_both_inboxes};

on_both_inboxes!(
    a_text_arrives_as_a_text_with_its_type,
    json_arrives_as_json,
    what_says_it_is_json_must_be_json,
    bytes_that_are_no_text_arrive_in_base64,
    an_empty_body_is_a_payment,
    the_query_carries_the_rest,
    a_repeat_is_stored_once,
    a_bad_query_is_refused,
    a_content_type_has_a_length,
);

fn post(node: &Node, content_type: &str, body: &[u8]) -> Answer {
    node.request("POST", "/v1/clients/01/payments", &[("Content-Type", content_type)], body)
}

fn a_text_arrives_as_a_text_with_its_type(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let texts = [
        ("text/plain", "hello"),
        ("text/plain; charset=utf-8", "ä \"quoted\" \\ \u{0} \u{1} \t \r\n \u{2028} 😀"),
        ("application/xml", "<pay amount=\"10.00\"/>\n"),
        ("application/x-www-form-urlencoded", "out_trade_no=1&total_amount=10.00&sign=a%2Bb"),
        ("text/plain", "{\"looks\":\"like JSON\"}"),
    ];
    for (seq, (content_type, text)) in (1..).zip(texts) {
        let answer = post(&node, content_type, text.as_bytes()).expect(202);
        assert_eq!(answer.seq(), seq);
        assert_eq!(answer.field("status"), "accepted");
        let payment = client.expect_any_payment();
        assert_eq!(payment.seq, seq);
        assert_eq!(payment.msg_text(), text);
        assert_eq!(payment.content_type.as_deref(), Some(content_type));
        assert_eq!(payment.msg_base64, None);
    }
}

fn json_arrives_as_json(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let types =
        ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/vnd.shop.v2+json"];
    for (seq, content_type) in (1..).zip(types) {
        post(&node, content_type, br#"{"amount": 10.00}"#).expect(202);
        client.expect_payment(seq, r#"{"amount":10.00}"#);
    }
}

fn what_says_it_is_json_must_be_json(home: Home) {
    let node = Node::start(home);
    for content_type in ["application/json", "application/json;charset=utf-8", "application/problem+json"] {
        for body in ["", "{", "{\"a\":01}", "hello", "1 2"] {
            post(&node, content_type, body.as_bytes()).expect_problem(400, "bad_json");
        }
        post(&node, content_type, b"\"\xff\"").expect_any_problem(400);
    }
    node.expect_unknown("01");
}

fn bytes_that_are_no_text_arrive_in_base64(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    post(&node, "application/octet-stream", b"\xff\x00\xfe").expect(202);
    let payment = client.expect_any_payment();
    assert_eq!(payment.msg_base64.as_deref(), Some("/wD+"));
    assert_eq!(payment.content_type.as_deref(), Some("application/octet-stream"));
    assert_eq!(payment.msg, None);

    // GBK, say: the bytes are not UTF-8, though the type is a text.
    post(&node, "text/plain; charset=gbk", b"\xd6\xd0\xce\xc4").expect(202);
    let payment = client.expect_any_payment();
    assert_eq!(payment.msg_base64.as_deref(), Some("1tDOxA=="));
    assert_eq!(payment.content_type.as_deref(), Some("text/plain; charset=gbk"));
}

fn an_empty_body_is_a_payment(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    post(&node, "text/plain", b"").expect(202);
    let payment = client.expect_any_payment();
    assert_eq!(payment.msg_text(), "");
    assert_eq!(payment.content_type.as_deref(), Some("text/plain"));
}

fn the_query_carries_the_rest(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("a:b");
    let path = "/v1/clients/a%3Ab/payments?payment_id=wx%3A1&channel=refunds";
    let answer = node.request("POST", path, &[("Content-Type", "text/plain")], b"x").expect(202);
    assert_eq!(answer.field("client"), "a:b");
    assert_eq!(answer.field("payment_id"), "wx:1");
    let payment = client.expect_payment(1, "\"x\"");
    assert_eq!(payment.payment_id.as_deref(), Some("wx:1"));
    assert_eq!(payment.channel, "refunds");

    let path = "/v1/clients/a:b/payments?channel=notices&other=1";
    node.request("POST", path, &[("Content-Type", "text/plain"), ("Idempotency-Key", "\"wx:2\"")], b"y").expect(202);
    let payment = client.expect_payment(2, "\"y\"");
    assert_eq!(payment.payment_id.as_deref(), Some("wx:2"));
    assert_eq!(payment.channel, "notices");
}

fn a_repeat_is_stored_once(home: Home) {
    let node = Node::start(home);
    let path = "/v1/clients/01/payments?payment_id=wx-1";
    let post = |content_type: &str, body: &[u8]| node.request("POST", path, &[("Content-Type", content_type)], body);
    post("text/plain", b"x").expect(202);
    let repeat = post("text/plain", b"x").expect(200).json();
    assert_eq!((&repeat["duplicate"], &repeat["seq"]), (&true.into(), &1.into()));
    post("text/plain", b"y").expect_problem(422, "payment_id_reused");
    post("text/html", b"x").expect_problem(422, "payment_id_reused");
    let mut client = node.client("01");
    client.expect_payment(1, "\"x\"");
    client.expect_nothing_but_pings(harness::QUIET);
}

fn a_bad_query_is_refused(home: Home) {
    let node = Node::start(home);
    let cases = [
        ("payment_id=a%20b", "invalid_payment_id"),
        ("payment_id=", "invalid_payment_id"),
        ("channel=UPPER", "invalid_channel"),
        ("channel=", "invalid_channel"),
        ("expires_in=0", "bad_request"),
        ("wait=31", "bad_request"),
    ];
    for (query, code) in cases {
        let path = format!("/v1/clients/01/payments?{query}");
        node.request("POST", &path, &[("Content-Type", "text/plain")], b"x").expect_problem(400, code);
    }
    let different = [("Content-Type", "text/plain"), ("Idempotency-Key", "wx-2")];
    node.request("POST", "/v1/clients/01/payments?payment_id=wx-1", &different, b"x").expect_any_problem(400);
    node.expect_unknown("01");
}

fn a_content_type_has_a_length(home: Home) {
    let node = Node::start(home);
    let of = |bytes: usize| format!("text/{}", "x".repeat(bytes - "text/".len()));
    assert_eq!(post(&node, &of(1024), b"1").expect(202).seq(), 1);
    post(&node, &of(1025), b"1").expect_problem(400, "bad_request");
    assert_eq!(post(&node, "text/plain", b"1").expect(202).seq(), 2);
}
