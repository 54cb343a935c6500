//! The command line: exit status, one line of error, and what a receiver or sender sees.
//!
//! The server's part is played by a script, so that its lines can be any.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

const WELCOME: &str =
    r#"{"type":"welcome","client":"01","node":"n1","epoch":1,"acked":0,"pending":2,"heartbeat":30,"window":256}"#;
const FIRST: &str = r#"{"type":"payment","seq":1,"channel":"payments","accepted_at":7,"msg":{"n": 10.00}}"#;
const SECOND: &str = r#"{"type":"payment","seq":2,"channel":"payments","accepted_at":8,"msg":"ü"}"#;

fn payrelay(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payrelay"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PAYRELAY_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(args: &[&str]) -> Output {
    payrelay(args).output().expect("payrelay runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A port on which one connection after the other is played.
fn serve<F>(connections: usize, play: F) -> (String, thread::JoinHandle<()>)
where
    F: Fn(usize, TcpStream) + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let server = thread::spawn(move || {
        for number in 0..connections {
            let (stream, _) = listener.accept().expect("a connection");
            let limit = Some(Duration::from_secs(10));
            stream.set_read_timeout(limit).expect("a time limit");
            play(number, stream);
        }
    });
    (address, server)
}

fn say(mut stream: &TcpStream, lines: &[&str]) {
    for line in lines {
        stream.write_all(format!("{line}\n").as_bytes()).expect("sent");
    }
}

fn hear(stream: &TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    let mut stream = stream;
    while stream.read(&mut byte).expect("a line") == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    text(&line)
}

/// Answers one HTTP request, which it returns.
fn answer(stream: TcpStream, response: &str) -> String {
    let mut reader = BufReader::new(&stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        reader.read_line(&mut request).expect("a head");
    }
    let length = request.to_lowercase().split("content-length: ").nth(1).map(|rest| {
        let digits = rest.lines().next().expect("a length");
        digits.parse().expect("a number")
    });
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body).expect("a body");
    (&stream).write_all(response.as_bytes()).expect("sent");
    request + &text(&body)
}

#[test]
fn wrong_usage_is_exit_status_2_and_one_line() {
    for args in [
        &[][..],
        &["serve", "--nonsense"],
        &["serve", "--http", "0.0.0.0:0"],
        &["send", "--client", "01", "{amount:1}"],
        &["send", "--client", "01", "1", "--server", "https://x"],
        &["token", "01", "--client-secret-file", "/no/such/file"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(text(&output.stderr).lines().count(), 1, "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let output = payrelay(&["status", "--server", "https://x"]).env("PAYRELAY_API_KEY", "").output();
    assert!(text(&output.expect("runs").stderr).contains("https:// is not supported"));

    let refused = |value: &str| {
        let output = payrelay(&["serve", "--http", "0.0.0.0:0"])
            .env("PAYRELAY_HEARTBEAT", value)
            .env("PAYRELAY_REDIS", value)
            .output();
        text(&output.expect("runs").stderr)
    };
    assert!(refused("").contains("--api-keys-file"), "{}", refused(""));
    assert!(!refused("x").contains("--api-keys-file"));
}

#[test]
fn insecure_is_never_guessed_from_its_variable() {
    for (value, says) in [("maybe", "neither true nor false"), ("0", "--api-keys-file"), ("", "--api-keys-file")] {
        let output = payrelay(&["serve", "--http", "0.0.0.0:0"]).env("PAYRELAY_INSECURE", value).output();
        let line = text(&output.expect("runs").stderr);
        assert!(line.contains(says), "{value}: {line}");
    }
}

#[test]
fn help_does_not_show_secrets_of_the_environment() {
    for command in ["serve", "send", "listen", "status"] {
        let output = payrelay(&[command, "--help"])
            .env("PAYRELAY_REDIS", "redis://:hunter2@r")
            .env("PAYRELAY_API_KEY", "hunter2")
            .env("PAYRELAY_TOKEN", "hunter2")
            .output();
        assert!(!text(&output.expect("runs").stdout).contains("hunter2"));
    }
}

#[test]
fn a_token_is_what_openssl_says_it_is() {
    let file = std::env::temp_dir().join(format!("payrelay-secret-{}", std::process::id()));
    std::fs::write(&file, "payrelay-test-secret\n").expect("written");
    let output = payrelay(&["token", "01"]).env("PAYRELAY_CLIENT_SECRET_FILE", &file).output().expect("runs");
    std::fs::remove_file(&file).expect("removed");
    // printf 01 | openssl dgst -sha256 -hmac payrelay-test-secret
    let token = "b8c5202da3cd921efb3e965251ea332cd22c41edaffdda8a5b255bc965a1c9d8\n";
    assert_eq!(text(&output.stdout), token);
    assert!(text(&output.stderr).contains("chmod 600"), "mode 0644 is told");
}

#[test]
fn listen_prints_then_acknowledges_and_leaves_after_count() {
    let (address, server) = serve(1, |_, stream| {
        assert_eq!(hear(&stream), r#"{"client":"01","token":"t","type":"hello"}"#);
        say(&stream, &[WELCOME, r#"{"type":"ping"}"#, r#"{"type":"broadcast","msg":1}"#, FIRST, SECOND]);
        assert_eq!(hear(&stream), r#"{"type":"pong"}"#);
        assert_eq!(hear(&stream), r#"{"type":"ack","seq":1}"#);
        assert_eq!(hear(&stream), r#"{"type":"ack","seq":2}"#);
        assert_eq!(hear(&stream), r#"{"type":"bye"}"#);
        assert_eq!(hear(&stream), "", "the end");
    });
    let args = ["listen", "--client", "01", "--token", "t", "--count", "2"];
    let output = run(&[&args[..], &["--server", &address]].concat());
    server.join().expect("the server's part");
    assert_eq!(text(&output.stdout), format!("{FIRST}\n{SECOND}\n"));
    assert_eq!(text(&output.stderr), "connected to node n1 as 01: 2 pending\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn listen_comes_back_and_acknowledges_a_repeat_without_printing_it() {
    let (address, server) = serve(3, |number, stream| {
        hear(&stream);
        match number {
            0 => {
                say(&stream, &[WELCOME, FIRST]);
                assert_eq!(hear(&stream), r#"{"type":"ack","seq":1}"#);
            }
            1 => say(&stream, &[WELCOME, r#"{"type":"error","code":"shutting_down","message":"m"}"#]),
            _ => {
                say(&stream, &[WELCOME, FIRST, SECOND]);
                assert_eq!(hear(&stream), r#"{"type":"ack","seq":1}"#);
                assert_eq!(hear(&stream), r#"{"type":"ack","seq":2}"#);
            }
        }
    });
    let output = run(&["listen", "--client", "01", "--count", "2", "--server", &address]);
    server.join().expect("the server's part");
    assert_eq!(text(&output.stdout), format!("{FIRST}\n{SECOND}\n"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn listen_ends_where_it_was_replaced() {
    let (address, server) = serve(1, |_, stream| {
        hear(&stream);
        say(&stream, &[WELCOME, r#"{"type":"error","code":"replaced","message":"another"}"#]);
    });
    let output = run(&["listen", "--client", "01", "--server", &address]);
    server.join().expect("the server's part");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).ends_with("replaced: another\n"));
}

#[test]
fn listen_does_not_acknowledge_what_nobody_read() {
    let (address, server) = serve(1, |_, stream| {
        hear(&stream);
        // The payment comes when it has seen already that nobody reads, or before.
        say(&stream, &[WELCOME, FIRST]);
        let heard = [hear(&stream), hear(&stream)].concat();
        assert!(["", r#"{"type":"bye"}"#].contains(&heard.as_str()), "no acknowledgement: {heard}");
    });
    let mut child = payrelay(&["listen", "--client", "01", "--server", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ends");
    server.join().expect("the server's part");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stderr).lines().count(), 1, "only the welcome");
}

#[test]
fn listen_leaves_when_its_reader_does() {
    let (address, server) = serve(1, |_, stream| {
        hear(&stream);
        say(&stream, &[WELCOME, FIRST]);
        assert_eq!(hear(&stream), r#"{"type":"ack","seq":1}"#);
        assert_eq!(hear(&stream), r#"{"type":"bye"}"#, "no payment need come for that");
    });
    let mut child = payrelay(&["listen", "--client", "01", "--server", &address])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    reader.read_line(&mut line).expect("the payment");
    drop(reader);
    let left = server.join();
    if left.is_err() {
        child.kill().expect("our own child");
    }
    let output = child.wait_with_output().expect("ends");
    left.expect("the server's part");
    assert_eq!((output.status.code(), line.trim_end()), (Some(0), FIRST), "{}", text(&output.stderr));
}

#[test]
fn listen_notices_a_server_that_fell_silent() {
    let (address, server) = serve(2, |number, stream| {
        hear(&stream);
        let welcome = WELCOME.replace(r#""heartbeat":30"#, r#""heartbeat":1"#);
        say(&stream, &[&welcome]);
        if number == 0 {
            assert_eq!(hear(&stream), r#"{"type":"ping"}"#);
            assert_eq!(hear(&stream), r#"{"type":"ping"}"#);
            assert_eq!(hear(&stream), "", "it left");
        } else {
            say(&stream, &[FIRST]);
            hear(&stream);
        }
    });
    let output = run(&["listen", "--client", "01", "--count", "1", "--server", &address]);
    server.join().expect("the server's part");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn send_posts_the_message_token_for_token() {
    let (address, server) = serve(1, |_, stream| {
        let response = "HTTP/1.1 202 Accepted\r\nContent-Length: 21\r\n\r\n{\"status\":\"accepted\"}";
        let request = answer(stream, response);
        assert!(request.starts_with("POST /v1/payments?wait=2 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nAuthorization: Bearer k\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"client\":\"01\",\"msg\":{\"n\": 10.00}}"), "{request}");
    });
    let url = format!("http://{address}");
    let output = payrelay(&["send", "--client", "01", "--wait", "2", "{\"n\": 10.00}", "--server", &url])
        .env("PAYRELAY_API_KEY", "k")
        .output()
        .expect("runs");
    server.join().expect("the server's part");
    assert_eq!(text(&output.stdout), "{\"status\":\"accepted\"}\n");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn send_tells_why_it_was_refused() {
    let (address, server) = serve(1, |_, stream| {
        let body = r#"{"code":"inbox_full","detail":"full"}"#;
        let response = format!("HTTP/1.1 429 x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        answer(stream, &response);
    });
    let url = format!("http://{address}");
    let output = run(&["send", "--client", "01", "1", "--server", &url]);
    server.join().expect("the server's part");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("429 inbox_full: full"));
}

#[test]
fn nobody_there_is_one_line_that_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    drop(listener);
    let url = format!("http://{address}");
    for args in [
        &["send", "--client", "01", "1", "--server", &url][..],
        &["status", "--server", &url],
        &["listen", "--client", "01", "--server", &address],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let line = text(&output.stderr);
        assert!(line.contains(&address) && line.lines().count() == 1, "{line}");
    }
}

#[test]
fn status_follows_the_pages() {
    let (address, server) = serve(3, |number, stream| {
        let (path, body) = [
            ("/v1/clients ", r#"{"clients":[{"client":"01","online":true}],"next":"01"}"#),
            ("/v1/clients?after=01 ", r#"{"clients":[{"client":"02","online":true}],"next":null}"#),
            ("/v1/clients?pending=true ", r#"{"clients":[{"client":"02","pending":3}],"next":null}"#),
        ][number];
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let request = answer(stream, &response);
        assert!(request.starts_with(&format!("GET {path}")), "{request}");
    });
    let output = run(&["status", "--server", &format!("http://{address}")]);
    server.join().expect("the server's part");
    let lines = text(&output.stdout);
    assert_eq!(lines.lines().count(), 6, "{lines}");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn status_of_an_unknown_client_says_so() {
    let (address, server) = serve(1, |_, stream| {
        answer(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    });
    let output = run(&["status", "01", "--server", &format!("http://{address}")]);
    server.join().expect("the server's part");
    assert!(text(&output.stderr).contains("unknown client 01"));
    assert_eq!(output.status.code(), Some(1));
}
