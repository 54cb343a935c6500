//! *Gateways*: the notify URL is the proof. Who has another one finds nothing, and the right one never reaches a log.

use crate::harness::node::{JSON, envelope, ready_line};
use crate::harness::{self, Client, Exit, Home, Node, Program, TempDir, eventually_some, http};

const SECRET: &str = "a-secret-of-this-test";
/// HMAC-SHA256 of `01` under [`SECRET`].
const TOKEN_01: &str = "a230d401f880b41bc2438681ef02333411b5055d34262d32b797323c8e20b3d3";
/// The first half of HMAC-SHA256 of `notify:01` under it, of `notify:a:b@c`, and of `notify:01` under the older one.
const NOTIFY_01: &str = "c8dcdf6b163ac5f4a41ca16e4ba9b2db";
const NOTIFY_ABC: &str = "54b6bc41649fa2f8a95f880eb02f407b";
const OLDER_NOTIFY_01: &str = "8d382bdf3b791b39e478447767a26ba8";

struct Files {
    dir: TempDir,
    keys: String,
    secrets: String,
}

fn files() -> Files {
    let dir = TempDir::new();
    let keys = dir.file("keys", "a-key-of-this-test\n");
    let secrets = dir.file("secrets", &format!("{SECRET}\nan-older-secret-of-this-test\n"));
    Files { dir, keys, secrets }
}

fn path(client: &str, token: &str) -> String {
    format!("/v1/gateways/stripe/{client}/{token}")
}

/// A node that serves stripe and alipay, and asks everybody else for keys.
fn node(files: &Files, door: &str) -> Node {
    let gateways = ["--http-server", door, "--gateways", "stripe,alipay", "--client-secret-file", &files.secrets];
    Node::with(Home::Embedded, &[&gateways[..], &["--api-keys-file", &files.keys]].concat())
}

#[test]
fn a_right_url_needs_no_key() {
    let files = files();
    for door in ["strict", "tiny_http"] {
        let node = node(&files, door);
        let post = |path: &str| node.request("POST", path, &[JSON], b"{\"id\":\"evt_1\"}").expect(200);
        post(&path("01", NOTIFY_01));
        // Any of the secrets will do, and a client id may be percent-encoded.
        post(&path("01", OLDER_NOTIFY_01));
        post(&path("a:b@c", NOTIFY_ABC));
        post(&path("a%3Ab%40c", NOTIFY_ABC));
        let hello = |id: &str, token: &str| Client::hello(node.tcp(), id, &format!(r#""token":"{token}""#));
        let mut client = hello("01", TOKEN_01);
        let payment = client.expect_any_payment();
        assert_eq!(payment.frame.text("path"), Some(path("01", NOTIFY_01)));
        client.expect_nothing_but_pings(harness::QUIET);
    }
}

#[test]
fn another_url_leads_nowhere() {
    let files = files();
    let paths = [
        path("01", ""),
        path("01", &NOTIFY_01[1..]),
        path("01", &NOTIFY_01[..31]),
        path("01", &format!("{NOTIFY_01}0")),
        path("01", &NOTIFY_01.to_uppercase()),
        path("01", &NOTIFY_01.replace('c', "d")),
        path("01", TOKEN_01),
        path("01", &TOKEN_01[..32]),
        path("01", SECRET),
        path("02", NOTIFY_01),
        path("01", NOTIFY_ABC),
        // A client id that is none, a profile that is not switched on, one that nobody knows.
        path("a%20b", NOTIFY_01),
        path("..", NOTIFY_01),
        path("01", NOTIFY_01).replace("stripe", "wechat-v3"),
        path("01", NOTIFY_01).replace("stripe", "Stripe"),
        path("01", NOTIFY_01).replace("stripe", "paypal"),
    ];
    for door in ["strict", "tiny_http"] {
        let node = node(&files, door);
        for path in &paths {
            for method in ["POST", "GET", "DELETE"] {
                node.request(method, path, &[JSON], b"{\"id\":\"evt_1\"}").expect_problem(404, "not_found");
            }
        }
        // What is wrong with a request to a right one is told in the gateway's own words.
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
            let answer = node.request(method, &path("01", NOTIFY_01), &[], b"").expect(500);
            let decoration = ["Allow", "Content-Type"].map(|name| answer.header(name));
            assert_eq!((answer.text().as_str(), decoration), ("", [None, None]), "{method}: {}", answer.show());
        }
        // What only looks like such a path is asked for a key like everything else.
        node.request("POST", "/v1/gateways/stripe/01", &[], b"x").expect_problem(401, "unauthorized");
        node.request("POST", &format!("{}/x", path("01", NOTIFY_01)), &[], b"x").expect_problem(401, "unauthorized");
        let key = [("Authorization", "Bearer a-key-of-this-test")];
        node.request("GET", "/v1/clients/01", &key, b"").expect_problem(404, "not_found");
    }
}

#[test]
fn without_gateways_no_url_is_right() {
    let files = files();
    let node = Node::with(Home::Embedded, &["--client-secret-file", &files.secrets]);
    node.request("POST", &path("01", NOTIFY_01), &[JSON], b"{}").expect_problem(404, "not_found");
    let node = Node::start(Home::Embedded);
    node.request("POST", &path("01", NOTIFY_01), &[JSON], b"{}").expect_problem(404, "not_found");
}

#[test]
fn a_senders_payment_id_is_never_a_gateways() {
    let files = files();
    let node = Node::with(Home::Embedded, &["--gateways", "stripe", "--client-secret-file", &files.secrets]);
    node.post_with_id("01", "1", "stripe:evt_1").expect_problem(400, "invalid_payment_id");
    node.request("POST", &path("01", NOTIFY_01), &[JSON], b"{\"id\":\"evt_1\"}").expect(200);
    node.post_with_id("01", "1", "stripe:evt_1").expect_problem(400, "invalid_payment_id");
    let asked = node.get("/v1/clients/01/payments?payment_id=stripe:evt_1").expect(200);
    assert_eq!((asked.seq(), asked.field("status")), (1, "accepted".to_owned()));
    node.get("/v1/clients/01/payments?payment_id=a%20b").expect_problem(400, "invalid_payment_id");
}

/// Runs `serve` with flags that it refuses.
#[track_caller]
fn expect_refusal(files: &Files, flags: &[&str], says: &str) {
    let data = files.dir.join("data").display().to_string();
    let mut all = vec!["serve", "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--data-dir", &data];
    all.extend_from_slice(flags);
    expect_usage_error(&Program::run(&all), says);
}

#[track_caller]
fn expect_usage_error(exit: &Exit, says: &str) {
    assert_eq!(exit.code, Some(2), "{}", exit.stderr);
    assert_eq!(exit.error_lines().len(), 1, "one line: {}", exit.stderr);
    assert!(exit.stderr.contains(says), "{}", exit.stderr);
}

#[test]
fn gateways_need_the_secret_and_a_name_that_is_known() {
    let files = files();
    expect_refusal(&files, &["--gateways", "stripe"], "--client-secret-file");
    expect_refusal(&files, &["--gateways", "stripe", "--insecure"], "--client-secret-file");
    let secret = ["--client-secret-file", files.secrets.as_str()];
    expect_refusal(&files, &[&secret[..], &["--gateways", "stripe,paypal"]].concat(), "paypal");
    expect_refusal(
        &files,
        &[&secret[..], &["--gateways", "stripe", "--gateway-answer", "no"]].concat(),
        "acknowledged",
    );
}

#[test]
fn the_variables_do_what_the_flags_do() {
    let files = files();
    let data = files.dir.join("data").display().to_string();
    let flags = ["serve", "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--data-dir", &data];
    let env = [
        ("PAYRELAY_GATEWAYS", "alipay, stripe"),
        ("PAYRELAY_GATEWAY_ANSWER", "acknowledged"),
        ("PAYRELAY_CLIENT_SECRET_FILE", files.secrets.as_str()),
    ];
    let program = Program::start(&flags, &env);
    let (http_addr, tcp) = eventually_some("it is ready", || ready_line(&program.stderr()));
    let mut http = http::Http::connect(http_addr).patient(harness::PATIENCE);
    http.ask("POST", &path("01", NOTIFY_01), &[JSON], b"{\"id\":\"evt_1\"}");
    let mut client = Client::hello(tcp, "01", &format!(r#""token":"{TOKEN_01}""#));
    client.expect_any_payment();
    client.ack(1);
    http.answer().expect(200);
}

#[test]
fn the_program_prints_the_path_of_a_url() {
    let files = files();
    let print = |profile: &str, client: &str| {
        Program::run(&["notify-url", profile, client, "--client-secret-file", &files.secrets])
    };
    for profile in ["wechat-v2", "wechat-v3", "alipay", "antom", "unionpay", "adyen", "stripe", "generic"] {
        let exit = print(profile, "01");
        let expected = format!("/v1/gateways/{profile}/01/{NOTIFY_01}\n");
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(0), expected.as_str()), "{}", exit.stderr);
    }
    assert_eq!(print("stripe", "a:b@c").stdout, format!("{}\n", path("a:b@c", NOTIFY_ABC)));
    expect_usage_error(&print("paypal", "01"), "paypal");
    expect_usage_error(&print("stripe", "a b"), "client id");
    expect_usage_error(&Program::run(&["notify-url", "stripe", "01"]), "--client-secret-file");
    let missing = files.dir.join("missing").display().to_string();
    let exit = Program::run(&["notify-url", "stripe", "01", "--client-secret-file", &missing]);
    expect_usage_error(&exit, &missing);
}

#[test]
fn nothing_secret_reaches_the_log() {
    expect_nothing_secret_in_the_log("strict", "acknowledged");
}

#[test]
fn nothing_secret_reaches_the_log_through_the_side_door() {
    expect_nothing_secret_in_the_log("tiny_http", "stored");
}

fn expect_nothing_secret_in_the_log(door: &str, mode: &str) {
    let files = files();
    let redis = harness::Redis::start();
    let url = redis.url();
    let flags = ["serve", "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--redis", &url, "--body-limit", "1000"];
    let further = ["--http-server", door, "--gateway-answer", mode, "--client-secret-file", &files.secrets];
    let gateways = ["--gateways", "wechat-v3,stripe", "--api-keys-file", &files.keys];
    let program = Program::start(&[&flags[..], &further, &gateways].concat(), &[("RUST_LOG", "trace")]);
    let (http_addr, tcp) = eventually_some("it is ready", || ready_line(&program.stderr()));
    let ready = || http::request(http_addr, "GET", "/readyz", &[], b"").status == 200;
    harness::eventually("it takes payments", ready);

    let mut client = Client::hello(tcp, "01", &format!(r#""token":"{TOKEN_01}""#));
    let right = path("01", NOTIFY_01);
    let mut http = http::Http::connect(http_addr).patient(harness::PATIENCE);
    http.ask("POST", &right, &[("Stripe-Signature", "a-signature-of-this-test")], b"{\"id\":\"a-body-of-this-test\"}");
    client.expect_any_payment();
    client.ack(1);
    http.answer().expect(200);
    // What goes wrong is where a log might say too much.
    let post =
        |path: &str, headers: &[(&str, &str)], body: &[u8]| http::request(http_addr, "POST", path, headers, body);
    post(&right, &[], &[b'x'; 1001]).expect(500);
    post(&path("01", OLDER_NOTIFY_01).to_uppercase(), &[], b"x").expect(401);
    post(&path("02", NOTIFY_01), &[], b"x").expect(404);
    post(&right.replace("stripe", "wechat-v3"), &[("Wechatpay-Signature", "WECHATPAY/SIGNTEST/x")], b"x").expect(500);
    post(&format!("{right}/"), &[], b"x").expect(401);
    http::request(http_addr, "GET", &right, &[], b"").expect(500);
    http::raw(
        http_addr,
        format!("POST {right} HTTP/1.1\r\nHost: x\r\nHost: y\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    http::raw(http_addr, format!("POST {right} HTTP/1.1\r\n broken\r\n\r\n").as_bytes());
    http::raw_half_closed(
        http_addr,
        format!("POST {right} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx").as_bytes(),
    );
    let key = [JSON, ("Authorization", "Bearer a-key-of-this-test")];
    // An operator's calls leave lines with their path; none of these is one.
    http::request(http_addr, "DELETE", &right, &key, b"").expect(500);
    http::request(http_addr, "DELETE", &format!("{right}/connection"), &key, b"").expect(404);
    http::request(http_addr, "DELETE", "/v1/clients/02", &key, b"").expect(404);
    post("/v1/payments", &key, envelope("01", "1", None).as_bytes()).expect(202);
    redis.kill();
    post(&right, &[], b"{\"id\":\"evt_2\"}").expect(500);

    program.signal(rustix::process::Signal::TERM);
    let exit = program.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let log = exit.stderr.to_lowercase();
    assert!(log.contains("a notification of stripe is answered with failure"), "the log is at its finest: {log}");
    assert!(log.contains("delete /v1/clients/02: 404"), "an operator's call is in it: {log}");
    let secret = [NOTIFY_01, OLDER_NOTIFY_01, TOKEN_01, SECRET, "a-key-of-this-test"];
    for text in secret.into_iter().chain(["a-signature-of-this-test", "a-body-of-this-test"]) {
        assert!(!log.contains(text), "{text} is in the log: {log}");
    }
}
