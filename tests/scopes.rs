//! A key opens the routes that its scopes name, and nothing else; whoever shows none learns nothing of what there is.

use crate::harness::line_client::hello;
use crate::harness::node::envelope;
use crate::harness::{Home, Http, Node, TempDir, http};

const FULL: &str = "a-full-key-of-this-test";
const SEND: &str = "a-send-key-of-this-test";
const READ: &str = "a-read-key-of-this-test";
const ADMIN: &str = "an-admin-key-of-this-test";
const TWO: &str = "a-key-of-two-scopes-of-this-test";

/// A request, the scope that it takes, and what is said to who has it. Client 01 has payments and is not online, 02 was
/// never there.
struct Case {
    method: &'static str,
    path: &'static str,
    scope: &'static str,
    status: u16,
}

const fn case(method: &'static str, path: &'static str, scope: &'static str, status: u16) -> Case {
    Case { method, path, scope, status }
}

/// Every route of the contract, and what is none.
const CASES: [Case; 36] = [
    case("POST", "/v1/payments", "send", 202),
    case("POST", "/v1/payments?wait=0", "send", 400),
    case("POST", "/v1/clients/01/payments", "send", 202),
    case("GET", "/v1/clients/01/payments/1", "send", 200),
    case("HEAD", "/v1/clients/01/payments/1", "send", 200),
    case("GET", "/v1/clients/01/payments/4000", "send", 404),
    case("GET", "/v1/clients/01/payments?payment_id=a", "send", 404),
    case("GET", "/v1/clients", "read", 200),
    case("GET", "/v1/clients?pending=true", "read", 200),
    case("GET", "/v1/clients/01", "read", 200),
    case("HEAD", "/v1/clients/01", "read", 200),
    case("GET", "/v1/clients/02", "read", 404),
    case("GET", "/metrics", "read", 200),
    case("GET", "/v1/clients/01/dead-letters", "read", 200),
    case("HEAD", "/v1/clients/01/dead-letters", "read", 200),
    case("DELETE", "/v1/clients/01/payments/4000", "admin", 404),
    case("POST", "/v1/clients/01/dead-letters/4000/retry", "admin", 404),
    case("DELETE", "/v1/clients/01/dead-letters/4000", "admin", 404),
    case("DELETE", "/v1/clients/01/connection", "admin", 404),
    case("DELETE", "/v1/clients/01", "admin", 409),
    case("DELETE", "/v1/clients/02?discard=true", "admin", 404),
    case("POST", "/v1/broadcasts", "admin", 202),
    case("POST", "/v1/broadcasts?wait=1", "admin", 400),
    // What nobody can do is said to any key, and to nobody without.
    case("GET", "/", "", 404),
    case("GET", "/nothing", "", 404),
    case("GET", "/v1/clients/a%20b", "", 400),
    case("GET", "/v1/clients/01/payments/first", "", 404),
    case("GET", "/v1/payments", "", 405),
    case("HEAD", "/v1/payments", "", 405),
    case("PUT", "/v1/clients/01", "", 405),
    case("PATCH", "/v1/payments", "", 405),
    case("TRACE", "/v1/payments", "", 405),
    case("BREW", "/v1/payments", "", 405),
    case("OPTIONS", "/v1/payments", "", 405),
    case("OPTIONS", "*", "", 404),
    case("CONNECT", "relay:443", "", 405),
];

/// Keys, and what they may do.
const KEYS: [(&str, &[&str]); 5] = [
    (FULL, &["send", "read", "admin"]),
    (SEND, &["send"]),
    (READ, &["read"]),
    (ADMIN, &["admin"]),
    (TWO, &["read", "send"]),
];

fn node(args: &[&str]) -> (TempDir, Node) {
    let dir = TempDir::new();
    let text =
        format!("# keys of this test\n{FULL}\n{SEND} send\n{READ}\tread\n\n  {ADMIN}   admin\n{TWO} read send\n");
    let keys = dir.file("keys", &text);
    let mut all = vec!["--api-keys-file", &keys];
    all.extend_from_slice(args);
    let node = Node::with(Home::Embedded, &all);
    post(&node, FULL).expect(202);
    (dir, node)
}

fn post(node: &Node, key: &str) -> http::Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("Content-Type", "application/json"), ("Authorization", &bearer)];
    node.request("POST", "/v1/payments", &headers, envelope("01", "1", None).as_bytes())
}

/// Asks as a case says, with these values of `Authorization`.
fn ask(node: &Node, case: &Case, authorization: &[&str]) -> http::Answer {
    let mut headers: Vec<_> = authorization.iter().map(|&value| ("Authorization", value)).collect();
    let body = match case.method {
        "POST" if case.path.starts_with("/v1/broadcasts") => r#"{"msg":1}"#.to_owned(),
        "POST" if !case.path.ends_with("/retry") => envelope("01", "1", None),
        _ => String::new(),
    };
    headers.push(("Content-Type", "application/json"));
    node.request(case.method, case.path, &headers, body.as_bytes())
}

/// How many payments client 01 ever had.
fn accepted(node: &Node) -> u64 {
    let bearer = format!("Bearer {FULL}");
    let about = node.request("GET", "/v1/clients/01", &[("Authorization", &bearer)], b"").expect(200).json();
    about["last_seq"].as_u64().expect("a number")
}

fn each_key_opens_its_scopes(args: &[&str]) {
    let (_dir, node) = node(args);
    let (before, mut stored) = (accepted(&node), 0);
    for case in &CASES {
        for (key, scopes) in KEYS {
            let allowed = case.scope.is_empty() || scopes.contains(&case.scope);
            // The scheme's name has no case, and blanks around a field's value are not part of it.
            for shown in [format!("Bearer {key}"), format!("bearer {key}"), format!("BEARER {key}  ")] {
                let answer = ask(&node, case, &[&shown]);
                let expected = if allowed { case.status } else { 403 };
                let what = format!("{} {} with {shown:?}: {}", case.method, case.path, answer.show());
                assert_eq!(answer.status, expected, "{what}");
                if !allowed && case.method != "HEAD" {
                    let answer = answer.expect_problem(403, "forbidden");
                    assert!(answer.field("detail").contains(case.scope), "it names what is missing: {what}");
                }
                stored += u64::from(expected == 202 && case.scope == "send");
            }
        }
    }
    assert_eq!(accepted(&node) - before, stored, "a 403 stores nothing");
}

#[test]
fn each_key_opens_its_scopes_at_the_front_door() {
    each_key_opens_its_scopes(&[]);
}

#[test]
fn each_key_opens_its_scopes_at_the_side_door() {
    each_key_opens_its_scopes(&["--http-server", "tiny_http"]);
}

fn who_shows_no_key_learns_nothing(args: &[&str]) {
    let (_dir, node) = node(args);
    let before = accepted(&node);
    let (full, send) = (format!("Bearer {FULL}"), format!("Bearer {SEND}"));
    let (long, scoped) = (format!("Bearer {}", "x".repeat(15_000)), format!("Bearer {SEND} send"));
    let two_blanks = format!("Bearer  {FULL}");
    let wrong: [&[&str]; 13] = [
        &[],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &["Bearer a-wrong-key-of-this-test"],
        &[FULL],
        &[&two_blanks],
        &["Basic YS1mdWxsLWtleS1vZi10aGlzLXRlc3Q="],
        // Two are none, even where both are right.
        &[&full, &full],
        &[&full, &send],
        &[&full, ""],
        &[&long],
        &[&scoped],
    ];
    for case in &CASES {
        for authorization in wrong {
            let answer = ask(&node, case, authorization);
            assert_eq!(answer.status, 401, "{} {} with {authorization:?}: {}", case.method, case.path, answer.show());
            assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"));
            if case.method != "HEAD" {
                answer.expect_problem(401, "unauthorized");
            }
        }
        // No head is so long, whatever it asks for.
        let longer = format!("Bearer {}", "x".repeat(65_536));
        ask(&node, case, &[&longer]).expect(431);
    }
    assert_eq!(accepted(&node), before, "a 401 stores nothing");
}

#[test]
fn who_shows_no_key_learns_nothing_at_the_front_door() {
    who_shows_no_key_learns_nothing(&[]);
}

#[test]
fn who_shows_no_key_learns_nothing_at_the_side_door() {
    who_shows_no_key_learns_nothing(&["--http-server", "tiny_http"]);
}

#[test]
fn the_open_routes_ask_for_no_key() {
    let (_dir, node) = node(&[]);
    for path in ["/healthz", "/readyz"] {
        node.get(path).expect(200);
        node.request("HEAD", path, &[], b"").expect(200);
        node.request("GET", path, &[("Authorization", "Bearer wrong-key-of-this-test")], b"").expect(200);
        node.request("DELETE", path, &[], b"").expect_any_problem(405);
    }
}

#[test]
fn a_key_is_asked_for_before_a_body_is_read() {
    let (_dir, node) = node(&[]);
    // Announced, and never sent.
    for (key, status) in [("", "401"), (READ, "403")] {
        for more in ["", "Expect: 100-continue\r\n"] {
            let head = format!(
                "POST /v1/payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n{more}\
                 Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
            );
            let raw = http::raw(node.http(), head.as_bytes());
            let text = String::from_utf8_lossy(&raw.bytes).into_owned();
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")) && raw.closed, "{text}");
        }
    }
}

#[test]
fn each_request_of_a_connection_is_judged_by_its_own_key() {
    let (_dir, node) = node(&[]);
    let mut http: Http = node.http_client();
    for (key, status) in [(READ, 200), (SEND, 403), ("a-wrong-key-of-this-test", 401), (FULL, 200), (ADMIN, 403)] {
        let bearer = format!("Bearer {key}");
        http.send("GET", "/v1/clients", &[("Authorization", &bearer)], b"").expect(status);
    }
}

#[test]
fn without_a_keys_file_nobody_is_asked() {
    let node = Node::start(Home::Embedded);
    node.request("GET", "/v1/clients", &[("Authorization", "Bearer whatever-it-is")], b"").expect(200);
    node.delete("/v1/clients/01").expect_problem(404, "not_found");
    let mut client = node.connect_raw();
    client.send_line(&hello("01", r#""token":"whatever""#));
    client.expect_welcome();
}
