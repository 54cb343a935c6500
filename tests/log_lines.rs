//! What is named outside cannot forge a log line, and what is secret is in none, at any level.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::harness::line_client::hello;
use crate::harness::node::envelope;
use crate::harness::{Client, Node, Program, Redis, TempDir, eventually, http};

/// What a line of a log must not hold: it ends the line, or steers the terminal of who reads it.
const UNFIT: [char; 6] = ['\r', '\u{1b}', '\u{2028}', '\u{2029}', '\u{85}', '\0'];

/// Longer than this no line is: 2,000 characters, of which each may be escaped, and what stands before them.
const LONGEST: usize = 2_000 * 10 + 200;

/// Checks that every line is one of the program's own, and short.
#[track_caller]
fn expect_fit(log: &str) {
    for line in log.lines() {
        assert!(line.starts_with("[20") && line.contains("] "), "a forged line: {line:?}");
        assert!(!line.contains(UNFIT), "{line:?}");
        assert!(!line.starts_with("[2099-"), "a forged line: {line:?}");
        assert!(line.len() <= LONGEST, "{} bytes in one line", line.len());
    }
}

#[test]
fn nothing_from_a_sender_or_a_client_forges_a_line() {
    let node = Node::talkative(None, &[]);
    let evil = "x\\r\\n[2099-01-01T00:00:00.000Z ERROR forged] \\u001b[2J\\u2028y";
    let long = "x".repeat(60_000);
    for id in [evil, &long] {
        let mut line = node.connect_raw();
        line.send_line(&format!(r#"{{"type":"hello","client":"{id}"}}"#));
        line.expect_error("invalid_client_id");
        let mut client = node.client("01");
        client.send_line(&format!(r#"{{"type":"{id}"}}"#));
        client.expect_error("bad_frame");
        node.post_body(&envelope(id, "1", None)).expect_problem(400, "invalid_client_id");
        node.post_with_id("01", "1", id).expect_problem(400, "invalid_payment_id");
    }
    let path = "/v1/clients/x%0d%0a[2099-01-01T00:00:00.000Z%20ERROR%20forged]%1b[2J%e2%80%a8y";
    node.get(path).expect(400);
    node.delete(&format!("{path}/connection")).expect(400);
    node.delete("/v1/clients/01?discard=%0d%0a[2099-01-01T00:00:00.000Z%20ERROR%20forged]").expect(400);
    node.get("/readyz\u{2028}").expect(400);
    for value in ["a\rb", "a\x1b[2Jb", "a\0b", "a\u{2028}b", &long] {
        for name in ["Idempotency-Key", "Content-Type", "Authorization", "X-Forwarded-For"] {
            let more = "Connection: close\r\nContent-Length: 0";
            let head = format!("POST /v1/payments HTTP/1.1\r\nHost: x\r\n{name}: {value}\r\n{more}\r\n\r\n");
            http::raw(node.http(), head.as_bytes());
        }
    }
    http::raw(node.http(), b"GET /\x1b[2J\xe2\x80\xa8 HTTP/1.1\r\nHost: x\r\n\r\n");
    http::raw(node.http(), b"\x1b[2J\r\n\r\n");
    assert_eq!(node.terminate().code, Some(0));
    node.expect_log("stopped after");
    assert!(node.log().contains("DEBUG"), "it was told to talk");
    expect_fit(&node.log());
}

/// Something on Redis' port that answers everything with this error.
fn evil_redis(error: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let error = error.clone();
            thread::spawn(move || answer_all(stream, &error));
        }
    });
    address
}

fn answer_all(mut stream: TcpStream, error: &str) {
    let mut chunk = [0; 4096];
    while stream.read(&mut chunk).is_ok_and(|count| count > 0) {
        if stream.write_all(format!("-ERR {error}\r\n").as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn nothing_from_a_redis_forges_a_line() {
    let evil = format!("evil\u{1b}[2J\u{2028}[2099-01-01T00:00:00.000Z ERROR forged]\u{85}{}", "x".repeat(65_536));
    let address = evil_redis(evil);
    let node = Node::talkative(Some((&Redis::away(), &format!("redis://{address}/"))), &[]);
    eventually("the log shows what Redis said", || node.log().contains("evil\\u{1b}[2J\\u{2028}"));
    node.post("01", "1").expect_any_problem(503);
    expect_fit(&node.log());
}

#[test]
fn no_secret_is_in_the_log_at_any_level() {
    let (key, other, secret) = ("a-key-of-this-test", "another-key-of-this-test", "a-secret-of-this-test");
    let dir = TempDir::new();
    let keys = dir.file("keys", &format!("{key}\n{other} read\n"));
    let secrets = dir.file("secrets", secret);
    let token = Program::run(&["token", "01", "--client-secret-file", &secrets]).stdout.trim().to_owned();
    let (user, password) = ("joe-of-this-test", "a-password-of-this-test");
    let redis = Redis::start();
    redis.cli(&["ACL", "SETUSER", user, "on", &format!(">{password}"), "~*", "&*", "+@all"]);
    let url = format!("redis://{user}:{password}@127.0.0.1:{}/", redis.port());
    let files = ["--api-keys-file", &keys, "--client-secret-file", &secrets];
    let node = Node::talkative(Some((&redis, &url)), &files);
    node.expect_ready();

    let wrong_key = "a-wrong-key-of-this-test";
    let message = "a-message-of-this-test";
    for shown in [format!("Bearer {key}"), format!("Bearer {other}"), format!("Bearer {wrong_key}"), key.to_owned()] {
        for (method, path) in [
            ("POST", "/v1/payments"),
            ("POST", "/v1/clients/01/payments"),
            ("GET", "/v1/clients"),
            ("GET", "/v1/clients/a-token-in-a-path/and/no/route"),
            ("GET", "/v1/clients?token=a-token-in-a-query"),
            ("DELETE", "/v1/clients/02?api_key=a-token-in-a-query"),
            ("DELETE", "/v1/clients/02/connection"),
        ] {
            let body = envelope("01", &format!("\"{message}\""), None);
            let headers = [("Content-Type", "application/json"), ("Authorization", shown.as_str())];
            node.request(method, path, &headers, if method == "POST" { body.as_bytes() } else { b"" });
        }
        // Heads that are no HTTP, with the key in them.
        http::raw(node.http(), format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization : {shown}\r\n\r\n").as_bytes());
        http::raw(node.http(), format!("{shown}\r\n\r\n").as_bytes());
    }
    let mut client = Client::hello(node.tcp(), "01", &format!(r#""token":"{token}""#));
    client.expect_any_payment();
    let wrong_token = "a-token-of-this-test";
    for line in [
        hello("01", &format!(r#""token":"{wrong_token}""#)),
        hello("02", &format!(r#""token":"{token}""#)),
        hello("01", &format!(r#""token":["{wrong_token}"]"#)),
        format!(r#"{{"type":"{wrong_token}"}}"#),
        format!("{wrong_token}{secret}"),
    ] {
        let mut connection = node.connect_raw();
        connection.send_line(&line);
        connection.expect_any_error();
    }
    // Keys read again, well and badly; and a Redis that goes away and comes back.
    node.signal(rustix::process::Signal::HUP);
    eventually("they are read again", || node.log().matches("read again").count() == 2);
    std::fs::write(&keys, format!("{key} {wrong_key}\n")).expect("our own file");
    node.signal(rustix::process::Signal::HUP);
    node.expect_log("behind the API key stands something else");
    redis.cli(&["ACL", "SETUSER", user, "resetpass", ">another"]);
    redis.cli(&["CLIENT", "KILL", "USER", user]);
    eventually("the node notices", || !node.is_ready());
    assert_eq!(node.terminate().code, Some(0));
    node.expect_log("stopped after");

    let log = node.log();
    assert!(log.contains("DEBUG"), "it was told to talk");
    let all = [key, other, wrong_key, secret, &token, wrong_token, user, password, message];
    for secret in all.into_iter().chain(["a-token-in-a-path", "a-token-in-a-query"]) {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in the log: {line:?}");
    }
    expect_fit(&log);
}

#[test]
fn the_log_of_an_embedded_node_holds_no_secret_either() {
    let dir = TempDir::new();
    let keys = dir.file("keys", "a-key-of-this-test");
    let node = Node::talkative(None, &["--api-keys-file", &keys, "--http-server", "tiny_http"]);
    for shown in ["Bearer a-key-of-this-test", "Bearer a-wrong-key-of-this-test"] {
        let headers = [("Content-Type", "application/json"), ("Authorization", shown)];
        let body = envelope("01", r#""a-message-of-this-test""#, None);
        node.request("POST", "/v1/payments?token=a-token-of-this-test", &headers, body.as_bytes());
    }
    node.client("01").expect_any_payment();
    assert_eq!(node.terminate().code, Some(0));
    node.expect_log("stopped after");
    assert!(!node.log().contains("-of-this-test"), "{}", node.log());
}
