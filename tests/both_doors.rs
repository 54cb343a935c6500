//! The HTTP contract holds behind either door: our strict reader, and tiny_http's server.

use crate::harness::node::{JSON, envelope};
use crate::harness::{self, Home, Node, http};

/// Turns functions that take a door into tests, one for each: `strict::name` and `tiny_http::name`.
macro_rules! through_both_doors {
    ($($name:ident),+ $(,)?) => {
        mod strict {
            $( #[test] fn $name() { super::$name("strict"); } )+
        }
        mod tiny_http {
            $( #[test] fn $name() { super::$name("tiny_http"); } )+
        }
    };
}

through_both_doors!(
    a_payment_is_accepted,
    a_repeat_is_told,
    a_wait_ends_with_the_acknowledgement,
    a_batch_is_answered_line_by_line,
    a_raw_body_is_a_payment,
    problems_are_problems,
    a_connection_is_kept,
    a_chunked_body_is_a_body,
    pipelined_requests_are_answered_in_order,
    an_expectation_is_met,
    head_is_get_without_the_body,
    clients_are_listed,
    keys_are_asked_for,
    a_stop_is_orderly,
);

fn node(door: &str) -> Node {
    Node::with(Home::Embedded, &["--http-server", door])
}

fn a_payment_is_accepted(door: &str) {
    let node = node(door);
    let mut client = node.client("01");
    let answer = node.post_with_id("01", r#"{"amount":10.00}"#, "wx-1").expect(202);
    let expected =
        serde_json::json!({"status": "accepted", "client": "01", "seq": 1, "payment_id": "wx-1", "online": true});
    assert_eq!(answer.json(), expected);
    client.expect_payment(1, r#"{"amount":10.00}"#);
    client.ack(1);
    node.expect_acknowledged("01", 1);
}

fn a_repeat_is_told(door: &str) {
    let node = node(door);
    node.post_with_id("01", "1", "wx-1").expect(202);
    assert_eq!(node.post_with_id("01", "1", "wx-1").expect(200).json()["duplicate"], true);
    node.post_with_id("01", "2", "wx-1").expect_problem(422, "payment_id_reused");
    let keyed = [JSON, ("Idempotency-Key", "\"wx-1\"")];
    let answer = node.request("POST", "/v1/payments", &keyed, envelope("01", "1", None).as_bytes());
    assert_eq!(answer.expect(200).json()["duplicate"], true);
}

fn a_wait_ends_with_the_acknowledgement(door: &str) {
    let node = node(door);
    let mut client = node.client("01");
    let mut http = node.http_client().patient(harness::PATIENCE * 2);
    http.ask("POST", "/v1/payments?wait=30", &[JSON], envelope("01", "1", None).as_bytes());
    client.expect_payment(1, "1");
    client.ack(1);
    assert_eq!(http.answer().expect(200).field("status"), "acknowledged");

    http.ask("POST", "/v1/payments?wait=1", &[JSON], envelope("02", "1", None).as_bytes());
    assert_eq!(http.answer().expect(202).field("status"), "accepted");
}

fn a_batch_is_answered_line_by_line(door: &str) {
    let node = node(door);
    let batch: String = (1..=200).map(|n| envelope("01", &n.to_string(), None) + "\n").collect();
    let answers = node.post_batch(&format!("{batch}{{\n")).expect(200).json_lines();
    assert_eq!(answers.len(), 201);
    assert!((1..=200).zip(&answers).all(|(n, answer)| answer["seq"] == n));
    assert_eq!(answers[200]["code"], "bad_json");
}

fn a_raw_body_is_a_payment(door: &str) {
    let node = node(door);
    let mut client = node.client("01");
    let post = |content_type: &str, body: &[u8]| {
        node.request("POST", "/v1/clients/01/payments?channel=refunds", &[("Content-Type", content_type)], body)
    };
    post("text/plain", b"hello").expect(202);
    post("application/octet-stream", b"\xff\x00\xfe").expect(202);
    post("application/json", b"{").expect_problem(400, "bad_json");
    post("text/plain", b"").expect(202);
    let text = client.expect_payment(1, "\"hello\"");
    assert_eq!(text.content_type.as_deref(), Some("text/plain"));
    assert_eq!(text.channel, "refunds");
    assert_eq!(client.expect_any_payment().msg_base64.as_deref(), Some("/wD+"));
    client.expect_payment(3, "\"\"");
}

fn problems_are_problems(door: &str) {
    let node = node(door);
    node.post_body("{").expect_problem(400, "bad_json");
    node.post_body(r#"{"client":"a b","msg":1}"#).expect_problem(400, "invalid_client_id");
    node.post_body(r#"{"client":"01","msg":1,"channel":"NO"}"#).expect_problem(400, "invalid_channel");
    node.post_with_id("01", "1", "no no").expect_problem(400, "invalid_payment_id");
    node.post_body(r#"{"client":"01","msg":1,"expires_in":0}"#).expect_problem(400, "bad_request");
    node.get("/nothing").expect_problem(404, "not_found");
    let wrong = node.get("/v1/payments").expect_any_problem(405);
    assert_eq!(wrong.header("Allow"), Some("POST"));
    let text = [("Content-Type", "text/plain")];
    node.request("POST", "/v1/payments", &text, b"x").expect_any_problem(415);
    node.request("POST", "/v1/payments", &[JSON], &vec![b' '; 262_145]).expect_problem(413, "body_too_large");
    node.expect_unknown("01");
    node.get("/healthz").expect(200);
}

fn a_connection_is_kept(door: &str) {
    let node = node(door);
    let mut http = node.http_client();
    for seq in 1..=50 {
        let answer = http.send("POST", "/v1/payments", &[JSON], envelope("01", "1", None).as_bytes()).expect(202);
        assert_eq!(answer.seq(), seq);
    }
    http.send("GET", "/v1/clients/01", &[("Connection", "close")], b"").expect(200);
    assert!(http.is_closed());

    let old = http::raw(node.http(), b"GET /healthz HTTP/1.0\r\n\r\n");
    assert!(old.closed, "HTTP/1.0 keeps nothing unless asked to");
    old.only_answer().expect(200);
}

fn a_chunked_body_is_a_body(door: &str) {
    let node = node(door);
    let mut client = node.client("01");
    let body = envelope("01", r#"{"amount":10.00}"#, None);
    let (left, right) = body.split_at(7);
    let request = format!(
        "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{left}\r\n{:X}\r\n{right}\r\n0\r\n\r\n\
         GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        left.len(),
        right.len()
    );
    let raw = http::raw(node.http(), request.as_bytes());
    let statuses: Vec<_> = raw.answers().iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [202, 200]);
    client.expect_payment(1, r#"{"amount":10.00}"#);
}

fn pipelined_requests_are_answered_in_order(door: &str) {
    let node = node(door);
    let mut http = node.http_client();
    for n in 1..=20 {
        let id = format!("wx-{n}");
        http.ask("POST", "/v1/payments", &[JSON], envelope("01", &n.to_string(), Some(&id)).as_bytes());
        http.ask("GET", "/healthz", &[], b"");
    }
    for n in 1..=20 {
        let answer = http.answer().expect(202);
        assert_eq!(answer.json()["payment_id"], format!("wx-{n}"));
        // tiny_http has its workers store pipelined requests side by side: only the answers keep their order.
        if door == "strict" {
            assert_eq!(answer.seq(), n);
        }
        http.answer().expect(200);
    }
}

fn an_expectation_is_met(door: &str) {
    let node = node(door);
    let body = envelope("01", "1", None);
    let mut http = node.http_client();
    let head = format!(
        "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        body.len()
    );
    http.write(head.as_bytes());
    http.write(body.as_bytes());
    assert_eq!(http.answer().expect(202).seq(), 1);
    http.send("GET", "/healthz", &[], b"").expect(200);
}

fn head_is_get_without_the_body(door: &str) {
    let node = node(door);
    let mut http = node.http_client();
    let head = http.send("HEAD", "/healthz", &[], b"");
    assert!(matches!(head.status, 200 | 405), "{}", head.show());
    // Had a body come with it, this would not be an answer.
    http.send("GET", "/healthz", &[], b"").expect(200);
}

fn clients_are_listed(door: &str) {
    let node = node(door);
    let _client = node.client("01");
    let clients = node.get("/v1/clients").expect(200).json()["clients"].clone();
    assert_eq!(clients[0]["client"], "01", "{clients}");
    assert!(node.delete("/v1/clients/01/connection").is_success());
    node.accept("01", "1");
    node.delete("/v1/clients/01").expect_problem(409, "conflict");
    assert!(node.delete("/v1/clients/01?discard=true").is_success());
    node.expect_unknown("01");
}

fn keys_are_asked_for(door: &str) {
    let files = harness::TempDir::new();
    let keys = files.file("keys", "a-key-of-this-test\n");
    let node = Node::with(Home::Embedded, &["--http-server", door, "--api-keys-file", &keys]);
    let answer = node.get("/v1/clients").expect_problem(401, "unauthorized");
    assert!(answer.header("WWW-Authenticate").is_some(), "{}", answer.show());
    node.get("/nothing").expect_problem(401, "unauthorized");
    node.get("/healthz").expect(200);
    node.request("GET", "/v1/clients", &[("Authorization", "Bearer a-key-of-this-test")], b"").expect(200);
}

fn a_stop_is_orderly(door: &str) {
    let node = node(door);
    let mut client = node.client("01");
    let mut http = node.http_client().patient(harness::PATIENCE * 2);
    http.ask("POST", "/v1/payments?wait=30", &[JSON], envelope("01", "1", None).as_bytes());
    client.expect_payment(1, "1");
    let exit = node.terminate();
    assert_eq!(http.answer().expect(202).field("status"), "accepted");
    assert_eq!(exit.code, Some(0));
}

#[test]
fn the_side_door_opens_on_loopback_only() {
    let files = harness::TempDir::new();
    let keys = files.file("keys", "a-key-of-this-test\n");
    let data = files.join("data").display().to_string();
    let exit = harness::Program::run(&[
        "serve",
        "--http",
        "0.0.0.0:0",
        "--tcp",
        "127.0.0.1:0",
        "--http-server",
        "tiny_http",
        "--api-keys-file",
        &keys,
        "--data-dir",
        &data,
    ]);
    assert_eq!(exit.code, Some(2), "{}", exit.stderr);
}
