//! Each call of an operator leaves one line in the log: whose key, from where, what, of which client, and the outcome.

use crate::harness::node::envelope;
use crate::harness::{Client, Home, Node, TempDir, http, on_both_inboxes};

const OPERATOR: &str = "an-operators-key-of-this-test";
const READER: &str = "a-readers-key-of-this-test";

on_both_inboxes!(every_admin_call_is_one_line, so_is_every_call_for_a_dead_letter);

/// Ends the node, so that its log is whole.
fn audit_lines(node: &Node) -> Vec<String> {
    assert_eq!(node.terminate().code, Some(0));
    node.expect_log("stopped after");
    let log = node.log();
    log.lines().filter_map(|line| line.split_once("audit: ")).map(|(_, line)| line.to_owned()).collect()
}

fn every_admin_call_is_one_line(home: Home) {
    let dir = TempDir::new();
    let keys = dir.file("keys", &format!("# keys\n\n{READER} read send\n{OPERATOR} admin send\n"));
    let node = Node::with(home, &["--api-keys-file", &keys]);
    let ask = |key: &str, method: &str, path: &str| {
        let bearer = format!("Bearer {key}");
        node.request(method, path, &[("Authorization", &bearer)], b"")
    };
    let bearer = format!("Bearer {OPERATOR}");
    let headers = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    node.request("POST", "/v1/payments", &headers, envelope("till:7@shop", "1", None).as_bytes()).expect(202);
    let mut client = Client::hello(node.tcp(), "till:7@shop", "");
    client.expect_payment(1, "1");

    ask(OPERATOR, "DELETE", "/v1/clients/till:7@shop/connection").expect(204);
    client.expect_error("disconnected");
    ask(OPERATOR, "DELETE", "/v1/clients/nobody/connection").expect(404);
    ask(OPERATOR, "DELETE", "/v1/clients/till:7@shop").expect(409);
    ask(READER, "DELETE", "/v1/clients/till:7@shop?discard=true").expect(403);
    // However it is written, the log shows the client's id.
    ask(OPERATOR, "DELETE", "/v1/clients/%74ill%3A7%40shop?discard=true&note=%0d%0aaudit").expect(204);
    // These are no operator's.
    ask(READER, "GET", "/v1/clients/till:7@shop").expect(404);
    ask(OPERATOR, "POST", "/v1/clients/till:7@shop/connection").expect(405);
    ask("a-wrong-key-of-this-test", "DELETE", "/v1/clients/till:7@shop").expect(401);

    let lines = audit_lines(&node);
    let without_ports: Vec<String> = lines.iter().map(|line| without_port(line)).collect();
    let expected = [
        "key 4 at 127.0.0.1: DELETE /v1/clients/till:7@shop/connection: 204",
        "key 4 at 127.0.0.1: DELETE /v1/clients/nobody/connection: 404",
        "key 4 at 127.0.0.1: DELETE /v1/clients/till:7@shop: 409",
        "key 3 at 127.0.0.1: DELETE /v1/clients/till:7@shop?discard=true: 403",
        "key 4 at 127.0.0.1: DELETE /v1/clients/till:7@shop?discard=true: 204",
    ];
    assert_eq!(without_ports, expected, "{lines:?}");
    for key in [OPERATOR, READER] {
        assert!(!node.log().contains(key));
    }
}

fn so_is_every_call_for_a_dead_letter(home: Home) {
    let dir = TempDir::new();
    let keys = dir.file("keys", &format!("{READER} read send\n{OPERATOR} admin\n"));
    let node = Node::with(home, &["--api-keys-file", &keys]);
    let ask = |key: &str, method: &str, path: &str| {
        let headers = [("Authorization", format!("Bearer {key}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        node.request(method, path, &headers, b"")
    };
    let bearer = format!("Bearer {READER}");
    let headers = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    for n in ["1", "2"] {
        node.request("POST", "/v1/payments", &headers, envelope("01", n, None).as_bytes()).expect(202);
    }

    ask(OPERATOR, "DELETE", "/v1/clients/01/payments/1").expect(200);
    ask(OPERATOR, "DELETE", "/v1/clients/01/payments/2").expect(200);
    ask(OPERATOR, "DELETE", "/v1/clients/01/payments/9").expect(404);
    ask(READER, "DELETE", "/v1/clients/01/payments/2").expect(403);
    ask(OPERATOR, "POST", "/v1/clients/01/dead-letters/1/retry").expect(202);
    ask(OPERATOR, "POST", "/v1/clients/01/dead-letters/1/retry").expect(409);
    ask(READER, "POST", "/v1/clients/01/dead-letters/2/retry").expect(403);
    ask(OPERATOR, "DELETE", "/v1/clients/01/dead-letters/2").expect(204);
    ask(OPERATOR, "DELETE", "/v1/clients/%30%31/dead-letters/9").expect(404);
    ask(READER, "DELETE", "/v1/clients/01/dead-letters/2").expect(403);
    // Looking is nobody's deed.
    ask(READER, "GET", "/v1/clients/01/dead-letters").expect(200);

    let lines = audit_lines(&node);
    let without_ports: Vec<String> = lines.iter().map(|line| without_port(line)).collect();
    let expected = [
        "key 2 at 127.0.0.1: DELETE /v1/clients/01/payments/1: 200",
        "key 2 at 127.0.0.1: DELETE /v1/clients/01/payments/2: 200",
        "key 2 at 127.0.0.1: DELETE /v1/clients/01/payments/9: 404",
        "key 1 at 127.0.0.1: DELETE /v1/clients/01/payments/2: 403",
        "key 2 at 127.0.0.1: POST /v1/clients/01/dead-letters/1/retry: 202",
        "key 2 at 127.0.0.1: POST /v1/clients/01/dead-letters/1/retry: 409",
        "key 1 at 127.0.0.1: POST /v1/clients/01/dead-letters/2/retry: 403",
        "key 2 at 127.0.0.1: DELETE /v1/clients/01/dead-letters/2: 204",
        "key 2 at 127.0.0.1: DELETE /v1/clients/01/dead-letters/9: 404",
        "key 1 at 127.0.0.1: DELETE /v1/clients/01/dead-letters/2: 403",
    ];
    assert_eq!(without_ports, expected, "{lines:?}");
    for key in [OPERATOR, READER] {
        assert!(!node.log().contains(key));
    }
}

/// The line without the port of the one who asked, which must be there.
fn without_port(line: &str) -> String {
    let (before, after) = line.split_once("127.0.0.1:").unwrap_or_else(|| panic!("no address: {line}"));
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    assert!(rest.len() < after.len(), "no port: {line}");
    format!("{before}127.0.0.1{rest}")
}

#[test]
fn without_keys_it_says_so() {
    let node = Node::start(Home::Embedded);
    http::request(node.http(), "DELETE", "/v1/clients/01", &[], b"").expect(404);
    let lines = audit_lines(&node);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("no key at 127.0.0.1:"), "{lines:?}");
}
