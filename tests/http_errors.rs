//! What is wrong is refused with a stable code, and after a 4xx nothing was stored.

use crate::harness::node::{JSON, envelope};
use crate::harness::{Answer, Home, Http, Node, http, on_both_inboxes};

on_both_inboxes!(
    a_bad_body_is_refused,
    a_bad_client_id_is_refused,
    a_bad_channel_is_refused,
    a_bad_payment_id_is_refused,
    client_and_id_must_agree,
    the_body_limit_is_exact,
    what_is_not_there_is_404,
);

fn a_bad_body_is_refused(home: Home) {
    let node = Node::start(home);
    for body in ["", "{", "{\"client\":\"01\",\"msg\":1", "hello", "{\"client\":\"01\",\"msg\":}"] {
        node.post_body(body).expect_problem(400, "bad_json");
    }
    let wrong = [
        r#"{"client":"01"}"#,
        r#"{"msg":1}"#,
        r#"[]"#,
        r#""01""#,
        r#"["01",1]"#,
        r#"{"client":1,"msg":1}"#,
        r#"{"client":null,"msg":1}"#,
        r#"{"client":"01","msg":1,"channel":5}"#,
        r#"{"client":"01","msg":1,"payment_id":5}"#,
        r#"{"client":"01","client":"01","msg":1}"#,
        r#"{"client":"01","msg":1,"msg":2}"#,
        r#"{"client":"01","msg":1,"payment_id":"a","payment_id":"a"}"#,
        r#"{"client":"01","msg":1,"channel":"a","channel":"b"}"#,
    ];
    for body in wrong {
        let code = node.post_body(body).expect_any_problem(400).field("code");
        assert!(["bad_request", "bad_json", "invalid_client_id"].contains(&code.as_str()), "{body}: {code}");
    }
    node.expect_unknown("01");
}

#[test]
fn a_problem_has_the_shape_of_rfc_9457() {
    let node = Node::start(Home::Embedded);
    let answer = node.post_body("{\"client\":\"01\",\"msg\": }").expect_problem(400, "bad_json");
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    assert_eq!(answer.field("title"), "Bad Request");
    assert_eq!(answer.json()["status"], 400);
}

fn a_bad_client_id_is_refused(home: Home) {
    let node = Node::start(home);
    let long = "x".repeat(129);
    for id in ["", ".", "..", "a b", "a/b", "a*", "{a}", "\u{e4}", "\u{430}", "a\\u0000", "a\\n", "a+b", "a%62", &long]
    {
        node.post_body(&envelope(id, "1", None)).expect_problem(400, "invalid_client_id");
    }
    // In a path, percent-encoded or not.
    let text = [("Content-Type", "text/plain")];
    for id in ["a%20b", "%2e", "%2E%2E", "a%2Fb", "a%00", "%C3%A4", "a*", "%7Ba%7D", "%zz", "%", &long] {
        let answer = node.request("POST", &format!("/v1/clients/{id}/payments"), &text, b"1");
        assert!(matches!(answer.status, 400 | 404), "{id}: {}", answer.show());
    }
    node.request("POST", "/v1/clients/a%20b/payments", &text, b"1").expect_problem(400, "invalid_client_id");
    assert_eq!(node.get("/v1/clients?pending=true").expect(200).json()["clients"], serde_json::json!([]));

    // What is encoded without need is the same client.
    assert_eq!(node.request("POST", "/v1/clients/%30%31/payments", &text, b"1").expect(202).field("client"), "01");
    assert_eq!(node.accept("01", "1"), 2);
    assert_eq!(node.accept(&"x".repeat(128), "1"), 1);
}

fn a_bad_channel_is_refused(home: Home) {
    let node = Node::start(home);
    for channel in ["", "UPPER", "a b", "a:b", "ä", "a\\n", &"x".repeat(65)] {
        let body = format!(r#"{{"client":"01","msg":1,"channel":"{channel}"}}"#);
        node.post_body(&body).expect_problem(400, "invalid_channel");
    }
    node.expect_unknown("01");
    for channel in ["a", "0._-", &"x".repeat(64)] {
        node.post_body(&format!(r#"{{"client":"01","msg":1,"channel":"{channel}"}}"#)).expect(202);
    }
}

fn a_bad_payment_id_is_refused(home: Home) {
    let node = Node::start(home);
    for id in ["", "a b", "a/b", "ä", "a\\n", "a\\\"", &"x".repeat(129)] {
        node.post_with_id("01", "1", id).expect_problem(400, "invalid_payment_id");
    }
    node.expect_unknown("01");
    for id in ["a", "AZaz09._:@-", &"x".repeat(128)] {
        node.post_with_id("01", "1", id).expect(202);
    }
}

fn client_and_id_must_agree(home: Home) {
    let node = Node::start(home);
    node.post_body(r#"{"client":"01","id":"02","msg":1}"#).expect_any_problem(400);
    node.expect_unknown("01");
    node.expect_unknown("02");
    node.post_body(r#"{"client":"01","id":"01","msg":1}"#).expect(202);
    // What we do not know is ignored, whatever it is and however often.
    node.post_body(r#"{"client":"01","msg":1,"note":{"deep":[1]},"note":2,"seq":77,"accepted_at":1}"#).expect(202);
    let mut client = node.client("01");
    client.expect_seqs(1..=2);
}

fn the_body_limit_is_exact(home: Home) {
    let node = Node::start(home);
    let body = |length: usize| {
        envelope("01", &format!("\"{}\"", "x".repeat(length - envelope("01", "\"\"", None).len())), None)
    };
    assert_eq!(body(262_144).len(), 262_144);
    node.post_body(&body(262_145)).expect_problem(413, "body_too_large");
    node.expect_unknown("01");
    node.post_body(&body(262_144)).expect(202);

    let text = [("Content-Type", "text/plain")];
    let raw = |length: usize| node.request("POST", "/v1/clients/02/payments", &text, &vec![b'x'; length]);
    raw(262_145).expect_problem(413, "body_too_large");
    raw(1_000_000).expect_problem(413, "body_too_large");
    node.expect_unknown("02");
    raw(262_144).expect(202);
    assert_eq!(node.client("02").expect_any_payment().msg_text().len(), 262_144);
}

fn what_is_not_there_is_404(home: Home) {
    let node = Node::start(home);
    node.accept("01", "1");
    for path in
        ["/", "/v1", "/v1/", "/v1/nothing", "/v2/payments", "/v1/payments/1", "/v1/clients/01/nothing", "//v1/payments"]
    {
        node.get(path).expect_problem(404, "not_found");
    }
    for path in
        ["/v1/clients/99", "/v1/clients/99/payments/1", "/v1/clients/01/payments/2", "/v1/clients/01/payments/99999999"]
    {
        node.get(path).expect_problem(404, "not_found");
    }
    for seq in ["0", "abc", "-1", "1.0", "18446744073709551616"] {
        let answer = node.get(&format!("/v1/clients/01/payments/{seq}"));
        assert!(matches!(answer.status, 400 | 404), "{seq}: {}", answer.show());
    }
    node.get("/v1/clients/01/payments/1").expect(200);
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    let node = Node::start(Home::Embedded);
    let cases = [
        ("GET", "/v1/payments", "POST"),
        ("DELETE", "/v1/payments", "POST"),
        ("PUT", "/v1/clients/01", "GET"),
        ("PUT", "/v1/clients/01", "DELETE"),
        ("POST", "/v1/clients", "GET"),
        ("POST", "/healthz", "GET"),
        ("POST", "/readyz", "GET"),
        ("POST", "/metrics", "GET"),
        ("GET", "/v1/clients/01/connection", "DELETE"),
        ("PATCH", "/v1/clients/01/payments", "POST"),
        ("POST", "/v1/clients/01/payments/1", "GET"),
    ];
    for (method, path, right) in cases {
        let answer = node.request(method, path, &[], b"").expect_any_problem(405);
        let allowed: Vec<_> = answer.header("Allow").unwrap_or_default().split(',').map(str::trim).collect();
        assert!(allowed.contains(&right), "{method} {path}: Allow: {allowed:?}");
        assert!(!allowed.contains(&method), "{method} {path}: Allow: {allowed:?}");
    }
}

#[test]
fn a_body_without_a_length_is_411() {
    let node = Node::start(Home::Embedded);
    let head = "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    http::raw(node.http(), head.as_bytes()).only_answer().expect_any_problem(411);
}

#[test]
fn a_body_that_is_encoded_is_415_wherever_that_is_said() {
    let node = Node::start(Home::Embedded);
    for path in ["/v1/payments", "/v1/clients/01/payments"] {
        for codings in [&["gzip"][..], &["identity", "gzip"], &["gzip", "identity"], &["identity, gzip"]] {
            let headers: Vec<_> = codings.iter().map(|coding| ("Content-Encoding", *coding)).collect();
            node.request("POST", path, &headers, b"\x1f\x8b\x08\x00").expect_problem(415, "unsupported_media_type");
        }
    }
    node.expect_unknown("01");
    let body = envelope("01", "1", None);
    node.request("POST", "/v1/payments", &[("Content-Encoding", "Identity")], body.as_bytes()).expect(202);
}

#[test]
fn another_content_type_is_415() {
    let node = Node::start(Home::Embedded);
    for content_type in ["text/plain", "application/xml", "multipart/form-data; boundary=x", "application/jsonx"] {
        let body = envelope("01", "1", None);
        node.request("POST", "/v1/payments", &[("Content-Type", content_type)], body.as_bytes())
            .expect_any_problem(415);
    }
    node.expect_unknown("01");
    for content_type in ["application/json; charset=utf-8", "Application/JSON"] {
        let body = envelope("01", "1", None);
        node.request("POST", "/v1/payments", &[("Content-Type", content_type)], body.as_bytes()).expect(202);
    }
}

#[test]
fn too_large_a_head_is_431() {
    let node = Node::start(Home::Embedded);
    let post = |headers: &str| {
        let body = envelope("01", "1", None);
        let length = body.len();
        let request = format!(
            "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        http::raw(node.http(), request.as_bytes())
    };
    let long = post(&format!("X-Long: {}\r\n", "x".repeat(20_000)));
    long.only_answer().expect_any_problem(431);
    assert!(long.closed);
    let many = post(&(0..100).map(|n| format!("X-{n}: 1\r\n")).collect::<String>());
    many.only_answer().expect_any_problem(431);
    assert!(many.closed);
    node.expect_unknown("01");
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_comes() {
    let node = Node::start(Home::Embedded);
    let head =
        "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 300000\r\n\r\n";
    let raw = http::raw(node.http(), head.as_bytes());
    raw.only_answer().expect_problem(413, "body_too_large");
    assert!(raw.closed, "a body that is not read closes the connection");
}

#[test]
fn garbage_does_no_harm() {
    let node = Node::start(Home::Embedded);
    let garbage: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"{\"type\":\"hello\",\"client\":\"01\"}\n\r\n\r\n",
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"GET /healthz HTTP/1.1 more\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\xff\xfe\xfd / HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for bytes in garbage {
        let raw = http::raw_half_closed(node.http(), bytes);
        assert!(raw.closed, "closed after {bytes:?}");
        for answer in raw.answers() {
            assert!((400..600).contains(&answer.status), "{bytes:?}: {}", answer.show());
        }
    }
    node.get("/healthz").expect(200);
}

#[test]
fn the_open_routes_answer() {
    let node = Node::start(Home::Embedded);
    node.get("/healthz").expect(200);
    let ready = node.get("/readyz").expect(200).json();
    assert_eq!(ready["ready"], true, "{ready}");
    assert!(ready["durability"].as_str().is_some_and(|words| !words.is_empty()), "{ready}");
    assert!(ready["store"].is_string(), "{ready}");
    assert!(ready["warnings"].is_array(), "{ready}");
}

#[test]
fn a_connection_goes_on_after_a_refusal() {
    let node = Node::start(Home::Embedded);
    let mut http = node.http_client();
    let post = |http: &mut Http, body: &str| -> Answer { http.send("POST", "/v1/payments", &[JSON], body.as_bytes()) };
    for seq in 1..=3 {
        let refused = post(&mut http, r#"{"client":"a b","msg":1}"#).expect_problem(400, "invalid_client_id");
        if refused.header("Connection").is_some_and(|c| c.eq_ignore_ascii_case("close")) {
            http = node.http_client();
        }
        assert_eq!(post(&mut http, &envelope("01", "1", None)).expect(202).seq(), seq);
    }
}
