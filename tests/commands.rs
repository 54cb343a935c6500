//! The other commands: `send`, `listen`, `status`, against a running node.

use crate::harness::{self, Home, Node, Program, TempDir, eventually, json};

#[test]
fn send_posts_a_payment() {
    let node = Node::start(Home::Embedded);
    let mut client = node.client("01");
    let url = node.http_url();
    let exit = Program::run(&["send", "--client", "01", r#"{"amount":"10.00"}"#, "--server", &url]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stdout.contains("accepted"), "{}", exit.stdout);
    client.expect_payment(1, r#"{"amount":"10.00"}"#);
}

#[test]
fn send_reads_its_message_from_standard_input() {
    let node = Node::start(Home::Embedded);
    let mut client = node.client("01");
    let url = node.http_url();
    let args = ["send", "--client", "01", "-", "--server", &url, "--payment-id", "wx-1"];
    let exit = Program::start_with_input(&args, &[], Some("{\"amount\":\n10.00}\n")).wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let payment = client.expect_payment(1, r#"{"amount":10.00}"#);
    assert_eq!(payment.payment_id.as_deref(), Some("wx-1"));
    // Again: it is there already.
    let exit = Program::start_with_input(&args, &[], Some("{\"amount\":\n10.00}\n")).wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    client.expect_nothing_but_pings(harness::QUIET);
}

#[test]
fn send_waits_for_the_acknowledgement() {
    let node = Node::start(Home::Embedded);
    let mut client = node.client("01");
    let url = node.http_url();
    let sending = Program::start(&["send", "--client", "01", "1", "--server", &url, "--wait", "30"], &[]);
    client.expect_payment(1, "1");
    client.ack(1);
    let exit = sending.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stdout.contains("acknowledged"), "{}", exit.stdout);
}

#[test]
fn send_says_what_went_wrong() {
    let node = Node::start(Home::Embedded);
    let url = node.http_url();
    let bad = Program::run(&["send", "--client", "a b", "1", "--server", &url]);
    assert!(matches!(bad.code, Some(1 | 2)), "{:?}", bad.code);
    assert!(!bad.stderr.trim().is_empty());
    let bad = Program::run(&["send", "--client", "01", "{", "--server", &url]);
    assert!(matches!(bad.code, Some(1 | 2)), "{:?}", bad.code);
    assert!(!bad.stderr.trim().is_empty());
    let nobody = format!("http://127.0.0.1:{}", harness::free_port());
    let away = Program::run(&["send", "--client", "01", "1", "--server", &nobody]);
    assert_eq!(away.code, Some(1));
    assert!(!away.stderr.trim().is_empty() && !away.stderr.contains("panicked"), "{}", away.stderr);
}

#[test]
fn listen_prints_and_acknowledges() {
    let node = Node::start(Home::Embedded);
    for n in 1..=3 {
        node.accept("01", &format!(r#"{{"n":{n}.0}}"#));
    }
    let exit = Program::run(&["listen", "--client", "01", "--server", &node.tcp().to_string(), "--count", "2"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let lines: Vec<_> = exit.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", exit.stdout);
    for (n, line) in (1..).zip(lines) {
        let fields = json::fields(line).expect("a JSON line");
        let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| json::tokens(value));
        assert_eq!(field("seq"), Some(n.to_string()), "{line}");
        assert_eq!(field("msg"), Some(format!(r#"{{"n":{n}.0}}"#)), "{line}");
    }
    node.expect_acknowledged("01", 2);
    assert_eq!(node.status("01", 3), "accepted");
}

#[test]
fn listen_may_leave_payments_where_they_are() {
    let node = Node::start(Home::Embedded);
    node.accept("01", "1");
    let args = ["listen", "--client", "01", "--server", &node.tcp().to_string(), "--count", "1", "--no-ack"];
    let exit = Program::run(&args);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.stdout.lines().count(), 1);
    assert_eq!(node.status("01", 1), "accepted");
    node.client("01").expect_payment(1, "1");
}

#[test]
fn status_tells_who_is_online_and_who_has_payments_waiting() {
    let node = Node::start(Home::Embedded);
    let _client = node.client("till-7");
    node.accept("till-8", "1");
    let url = node.http_url();
    eventually("both are named", || {
        let exit = Program::run(&["status", "--server", &url]);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        exit.stdout.contains("till-7") && exit.stdout.contains("till-8")
    });
    let one = Program::run(&["status", "till-8", "--server", &url]);
    assert_eq!(one.code, Some(0), "{}", one.stderr);
    assert!(one.stdout.contains("till-8") && !one.stdout.contains("till-7"), "{}", one.stdout);
}

#[test]
fn the_commands_work_with_keys_and_tokens() {
    let dir = TempDir::new();
    let keys = dir.file("keys", "a-key-of-this-test\n");
    let secrets = dir.file("secrets", "a-secret-of-this-test\n");
    let node = Node::with(Home::Embedded, &["--api-keys-file", &keys, "--client-secret-file", &secrets]);
    let (url, tcp) = (node.http_url(), node.tcp().to_string());

    let send = ["send", "--client", "01", "1", "--server", &url];
    assert_eq!(Program::run(&send).code, Some(1), "without a key");
    let with_key = [&send[..], &["--api-key", "a-key-of-this-test"]].concat();
    let exit = Program::run(&with_key);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);

    let token = Program::run(&["token", "01", "--client-secret-file", &secrets]);
    assert_eq!(token.code, Some(0), "{}", token.stderr);
    let listen = ["listen", "--client", "01", "--server", &tcp, "--count", "1", "--token", token.stdout.trim()];
    let exit = Program::run(&listen);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.stdout.lines().count(), 1);
    assert_eq!(Program::run(&listen[..7]).code, Some(1), "without a token");
}
