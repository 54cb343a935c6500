//! Without a key nothing but the open routes; without a token no client; and nothing unprotected but on loopback.

use crate::harness::line_client::hello;
use crate::harness::node::envelope;
use crate::harness::{Client, Home, Node, Program, TempDir, http};

const KEY: &str = "a-key-of-this-test";
const SECRET: &str = "a-secret-of-this-test";
/// HMAC-SHA256 of `01` under [`SECRET`].
const TOKEN_01: &str = "a230d401f880b41bc2438681ef02333411b5055d34262d32b797323c8e20b3d3";

struct Files {
    _dir: TempDir,
    keys: String,
    secrets: String,
}

fn files() -> Files {
    let dir = TempDir::new();
    let keys = dir.file("keys", &format!("{KEY}\nanother-key-of-this-test\n"));
    let secrets = dir.file("secrets", &format!("{SECRET}\nan-older-secret-of-this-test\n"));
    Files { _dir: dir, keys, secrets }
}

#[test]
fn without_a_key_every_route_but_the_open_ones_is_401() {
    let files = files();
    let node = Node::with(Home::Embedded, &["--api-keys-file", &files.keys]);
    let routes = [
        ("POST", "/v1/payments"),
        ("POST", "/v1/payments?wait=5"),
        ("POST", "/v1/clients/01/payments"),
        ("GET", "/v1/clients/01/payments/1"),
        ("GET", "/v1/clients/01/payments?payment_id=a"),
        ("GET", "/v1/clients"),
        ("GET", "/v1/clients?pending=true"),
        ("GET", "/v1/clients/01"),
        ("DELETE", "/v1/clients/01"),
        ("DELETE", "/v1/clients/01/connection"),
        ("GET", "/metrics"),
        // Before it would be 404 or 405, or anything else.
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/v1/clients/a%20b"),
        ("GET", "/v1/payments"),
        ("PUT", "/v1/clients/01"),
        ("OPTIONS", "/v1/payments"),
    ];
    let long = format!("Bearer {}", "x".repeat(4000));
    let wrong = [
        None,
        Some(""),
        Some("Bearer"),
        Some("Bearer "),
        Some("Bearer wrong-key-of-this-test"),
        Some("Bearer a-key-of-this-tes"),
        Some("Bearer a-key-of-this-testt"),
        Some("Bearer A-KEY-OF-THIS-TEST"),
        Some(KEY),
        Some("Basic YS1rZXktb2YtdGhpcy10ZXN0"),
        Some(long.as_str()),
    ];
    for (method, path) in routes {
        for value in wrong {
            let headers: Vec<_> = value.map(|value| ("Authorization", value)).into_iter().collect();
            let answer = node.request(method, path, &headers, b"");
            let answer = answer.expect_problem(401, "unauthorized");
            assert!(answer.header("WWW-Authenticate").is_some_and(|w| w.contains("Bearer")), "{}", answer.show());
        }
    }
    let headers = [("Content-Type", "application/json")];
    node.request("POST", "/v1/payments", &headers, envelope("01", "1", None).as_bytes()).expect(401);
    for key in [KEY, "another-key-of-this-test"] {
        let bearer = format!("Bearer {key}");
        let with_key = [("Authorization", bearer.as_str())];
        node.request("GET", "/v1/clients/01", &with_key, b"").expect_problem(404, "not_found");
        node.request("GET", "/nothing", &with_key, b"").expect_problem(404, "not_found");
        node.request("GET", "/v1/payments", &with_key, b"").expect_any_problem(405);
        node.request("GET", "/metrics", &with_key, b"").expect(200);
    }
}

#[test]
fn the_open_routes_are_open() {
    let files = files();
    let node = Node::with(Home::Embedded, &["--api-keys-file", &files.keys]);
    node.get("/healthz").expect(200);
    node.get("/readyz").expect(200);
    let wrong = [("Authorization", "Bearer wrong-key-of-this-test")];
    node.request("GET", "/healthz", &wrong, b"").expect(200);
}

#[test]
fn with_a_key_payments_go_their_way() {
    let files = files();
    let node = Node::with(Home::Embedded, &["--api-keys-file", &files.keys]);
    let mut client = node.client("01");
    let bearer = format!("Bearer {KEY}");
    let headers = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    node.request("POST", "/v1/payments", &headers, envelope("01", "1", None).as_bytes()).expect(202);
    client.expect_payment(1, "1");
    // The scheme's name has no case.
    let lower = format!("bearer {KEY}");
    node.request("GET", "/v1/clients/01", &[("authorization", &lower)], b"").expect(200);
}

#[test]
fn a_token_opens_its_own_client_and_no_other() {
    let files = files();
    let node = Node::with(Home::Embedded, &["--client-secret-file", &files.secrets]);
    let token = |id: &str, token: &str| hello(id, &format!(r#""token":"{token}""#));
    let client = Client::hello(node.tcp(), "01", &format!(r#""token":"{TOKEN_01}""#));
    drop(client);
    let wrong = [
        hello("01", ""),
        token("02", TOKEN_01),
        token("01", &TOKEN_01[..63]),
        token("01", &format!("{TOKEN_01}0")),
        token("01", ""),
        token("01", SECRET),
    ];
    for line in wrong {
        let mut connection = node.connect_raw();
        connection.send_line(&line);
        connection.expect_error("unauthorized");
    }
}

#[test]
fn a_token_is_printed_by_the_program() {
    let files = files();
    let print = |id: &str, secrets: &str| Program::run(&["token", id, "--client-secret-file", secrets]);
    let exit = print("01", &files.secrets);
    assert_eq!((exit.code, exit.stdout.as_str()), (Some(0), format!("{TOKEN_01}\n").as_str()), "{}", exit.stderr);

    let node = Node::with(Home::Embedded, &["--client-secret-file", &files.secrets]);
    for id in ["01", "0", "a:b", "a@b_c-d.e", &"x".repeat(128)] {
        let token = print(id, &files.secrets).stdout;
        Client::hello(node.tcp(), id, &format!(r#""token":"{}""#, token.trim()));
    }
    // The second secret of the file makes no tokens, but its tokens are accepted.
    let older = TempDir::new();
    let older = older.file("secrets", "an-older-secret-of-this-test\n");
    let token = print("01", &older).stdout;
    assert_ne!(token.trim(), TOKEN_01);
    Client::hello(node.tcp(), "01", &format!(r#""token":"{}""#, token.trim()));
    assert_eq!(print("a b", &files.secrets).code, Some(2));
}

/// Starts a server that should refuse to: what it says, in one line.
#[track_caller]
fn expect_refusal(args: &[&str]) -> String {
    let data = TempDir::new();
    let path = data.join("data").display().to_string();
    let mut all = vec!["serve", "--data-dir", &path];
    all.extend_from_slice(args);
    let exit = Program::run(&all);
    assert_eq!(exit.code, Some(2), "{args:?}: {}", exit.stderr);
    assert_eq!(exit.error_lines().len(), 1, "{args:?}: one line: {}", exit.stderr);
    exit.stderr
}

#[test]
fn a_server_open_to_the_network_without_keys_refuses_to_start() {
    let files = files();
    let (keys, secrets) = (["--api-keys-file", files.keys.as_str()], ["--client-secret-file", files.secrets.as_str()]);
    expect_refusal(&["--http", "0.0.0.0:0", "--tcp", "127.0.0.1:0"]);
    expect_refusal(&["--http", "127.0.0.1:0", "--tcp", "0.0.0.0:0"]);
    // One of the two protects only its own port.
    expect_refusal(&["--http", "0.0.0.0:0", "--tcp", "127.0.0.1:0", secrets[0], secrets[1]]);
    expect_refusal(&["--http", "127.0.0.1:0", "--tcp", "0.0.0.0:0", keys[0], keys[1]]);
}

#[test]
fn a_server_with_keys_is_open_to_the_network() {
    let files = files();
    let flags = [
        "--http",
        "0.0.0.0:0",
        "--tcp",
        "0.0.0.0:0",
        "--api-keys-file",
        &files.keys,
        "--client-secret-file",
        &files.secrets,
    ];
    let node = Node::with(Home::Embedded, &flags);
    let http = std::net::SocketAddr::from(([127, 0, 0, 1], node.http().port()));
    let tcp = std::net::SocketAddr::from(([127, 0, 0, 1], node.tcp().port()));
    http::request(http, "GET", "/v1/clients", &[], b"").expect(401);
    Client::hello(tcp, "01", &format!(r#""token":"{TOKEN_01}""#));
}

#[test]
fn insecure_means_insecure() {
    let node = Node::with(Home::Embedded, &["--http", "0.0.0.0:0", "--tcp", "0.0.0.0:0", "--insecure"]);
    let http = std::net::SocketAddr::from(([127, 0, 0, 1], node.http().port()));
    http::request(http, "GET", "/v1/clients", &[], b"").expect(200);
}

#[test]
fn weak_or_missing_secrets_are_refused() {
    let dir = TempDir::new();
    let short = dir.file("short", "fifteen-letters\n");
    let empty = dir.file("empty", "");
    let missing = dir.join("missing").display().to_string();
    for file in [&short, &empty, &missing] {
        for flag in ["--api-keys-file", "--client-secret-file"] {
            let said = expect_refusal(&["--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", flag, file]);
            assert!(said.contains(file.as_str()), "it names the file: {said}");
            assert!(!said.contains("fifteen-letters"), "it does not show the secret: {said}");
        }
    }
}

#[test]
fn secrets_never_reach_the_log() {
    let files = files();
    let node = Node::with(Home::Embedded, &["--api-keys-file", &files.keys, "--client-secret-file", &files.secrets]);
    let bearer = format!("Bearer {KEY}");
    let headers = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    let body = envelope("01", r#""a-message-of-this-test""#, None);
    node.request("POST", "/v1/payments", &headers, body.as_bytes()).expect(202);
    let mut client = Client::hello(node.tcp(), "01", &format!(r#""token":"{TOKEN_01}""#));
    client.expect_any_payment();
    let mut wrong = node.connect_raw();
    wrong.send_line(&hello("01", r#""token":"a-token-of-this-test""#));
    wrong.expect_error("unauthorized");
    assert_eq!(node.terminate().code, Some(0));
    let log = node.log();
    for secret in [KEY, SECRET, TOKEN_01, "a-message-of-this-test", "a-token-of-this-test"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}
