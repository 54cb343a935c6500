//! `payrelay bench` loads a node, and a server that loses, repeats or changes a payment does not get past its check.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::program::lock;
use crate::harness::{self, Deployment, Exit, Home, Node, Program, READ_LIMIT, TempDir, on_both_inboxes};
use rustix::process::Signal;
use serde_json::{Value, json};

on_both_inboxes!(the_closed_loop_is_all_delivered, a_rate_is_kept, batches_are_all_delivered);

fn the_closed_loop_is_all_delivered(home: Home) {
    let node = Node::start(home);
    let report = well(&bench(&node, &["--clients", "20", "--senders", "4", "--seconds", "1", "--json"]));
    assert!(report["accepted"].as_u64() > Some(0), "{report}");
    assert_eq!(report["accepted"], report["delivered"], "{report}");
    assert_eq!(report["errors"], json!({}), "{report}");
    let p50 = |times: &str| report[times]["p50"].as_u64();
    assert!(p50("answer_us") > Some(0) && p50("end_to_end_us") > Some(0), "{report}");
}

fn a_rate_is_kept(home: Home) {
    let node = Node::start(home);
    let args = ["--clients", "7", "--senders", "3", "--seconds", "1", "--rate", "100", "--size", "1000", "--json"];
    let report = well(&bench(&node, &args));
    let posted = report["accepted"].as_u64().zip(report["not_sent"].as_u64()).map(|(sent, not_sent)| sent + not_sent);
    assert!(posted.is_some_and(|posted| (98..=102).contains(&posted)), "{report}");
}

fn batches_are_all_delivered(home: Home) {
    let node = Node::start(home);
    let args = ["--clients", "5", "--senders", "2", "--seconds", "1", "--batch", "50", "--pipeline", "2", "--json"];
    let report = well(&bench(&node, &args));
    assert!(report["accepted"].as_u64() >= Some(50), "{report}");
    assert_eq!(report["accepted"], report["delivered"], "{report}");
}

#[test]
fn several_nodes_share_the_load() {
    let nodes = Deployment::redis(2);
    let urls = [nodes[0].http_url(), nodes[1].http_url()].join(",");
    let tcp = [nodes[0].tcp().to_string(), nodes[1].tcp().to_string()].join(",");
    let args =
        ["bench", "--http", &urls, "--tcp", &tcp, "--clients", "8", "--senders", "2", "--seconds", "1", "--json"];
    well(&Program::run(&args));
    for node in &nodes.nodes {
        let metrics = node.get("/metrics").text();
        for name in ["payrelay_payments_accepted_total ", "payrelay_payments_acknowledged_total "] {
            let line = metrics.lines().find(|line| line.starts_with(name));
            assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{}: {line:?}", node.name());
        }
    }
}

#[test]
fn it_shows_its_key_and_its_clients_tokens() {
    let dir = TempDir::new();
    let keys = dir.file("keys", "a-key-of-this-test\n");
    let secrets = dir.file("secrets", "a-secret-of-this-test\n");
    let node = Node::with(Home::Embedded, &["--api-keys-file", &keys, "--client-secret-file", &secrets]);
    let args = ["--clients", "3", "--seconds", "1", "--rate", "20", "--client-secret-file", &secrets, "--json"];
    let refused = bench(&node, &args);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("no payment was accepted: 401 unauthorized"), "{}", refused.stderr);
    well(&bench(&node, &[&args[..], &["--api-key", "a-key-of-this-test"]].concat()));
    let not_let_in = bench(&node, &["--clients", "3", "--seconds", "1", "--api-key", "a-key-of-this-test"]);
    assert_eq!(not_let_in.code, Some(1));
    assert!(not_let_in.stderr.contains("not let in") && not_let_in.stderr.contains("unauthorized"));
}

#[test]
fn a_node_that_restarts_meanwhile_loses_nothing() {
    let ports = [(); 2].map(|()| format!("127.0.0.1:{}", harness::free_port()));
    let node = Node::with(Home::Embedded, &["--http", &ports[0], "--tcp", &ports[1]]);
    let (url, tcp) = (node.http_url(), node.tcp().to_string());
    let args = ["bench", "--http", &url, "--tcp", &tcp, "--clients", "10", "--seconds", "5", "--rate", "200", "--json"];
    let running = Program::start(&args, &[]);
    harness::eventually("payments are under way", || running.stderr().contains(" accepted"));
    node.kill();
    node.restart();
    let report = well(&running.wait());
    assert!(report["reconnected"].as_u64() >= Some(10), "{report}");
}

#[test]
fn ctrl_c_ends_it_with_a_report() {
    let node = Node::start(Home::Embedded);
    let (url, tcp) = (node.http_url(), node.tcp().to_string());
    let args = ["bench", "--http", &url, "--tcp", &tcp, "--clients", "2", "--seconds", "600", "--rate", "50", "--json"];
    let running = Program::start(&args, &[]);
    harness::eventually("payments are under way", || running.stderr().contains(" accepted"));
    running.signal(Signal::INT);
    let report = well(&running.wait());
    assert_eq!(report["ended_early"], true);
}

#[test]
fn the_report_for_people_names_every_figure() {
    let node = Node::start(Home::Embedded);
    let exit = bench(&node, &["--clients", "2", "--seconds", "1", "--rate", "20"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    for line in
        ["accepted ", "delivered ", "answer ", "end to end ", "errors       none", "check        0 lost, 0 repeated"]
    {
        assert!(exit.stdout.contains(line), "{line}:\n{}", exit.stdout);
    }
    assert!(exit.stderr.contains("2 clients connected"), "{}", exit.stderr);
}

#[test]
fn wrong_usage_is_told_in_one_line() {
    let nobody = format!("127.0.0.1:{}", harness::free_port());
    for (args, code, says) in [
        (["--http", "https://x"], 2, "--http: https:// is not supported"),
        (["--http", "x"], 2, "--http: the URL does not begin with http://"),
        (["--size", "64"], 2, "give at least"),
        (["--client-secret-file", "/no/such/file"], 2, "/no/such/file"),
        (["--clients", "100000"], 2, "descriptors"),
        (["--http", &format!("http://{nobody}")], 1, "nobody listens there"),
    ] {
        let exit = Program::run(&[&["bench"][..], &args[..]].concat());
        assert_eq!(exit.code, Some(code), "{args:?}: {}", exit.stderr);
        assert_eq!(exit.error_lines().len(), 1, "{args:?}: {}", exit.stderr);
        assert!(exit.stderr.contains(says), "{args:?}: {}", exit.stderr);
    }
}

#[test]
fn a_server_without_seqs_and_acks_can_be_measured() {
    let exit = FakeServer::start(|_, payment| vec![payment]).bench();
    let report = well(&exit);
    assert_eq!(report["accepted"], report["delivered"], "{report}");
}

#[test]
fn a_lost_payment_is_caught() {
    let server = FakeServer::start(|number, payment| if number == 10 { vec![] } else { vec![payment] });
    expect_caught(&server.bench(), "lost");
}

#[test]
fn a_repeated_payment_is_caught() {
    let server = FakeServer::start(|number, payment| match number {
        10 => vec![payment.clone(), payment],
        _ => vec![payment],
    });
    expect_caught(&server.bench(), "repeated");
}

#[test]
fn swapped_payments_are_caught() {
    let held = Mutex::new(None);
    // Ten and twelve are for the same client: there are two.
    let server = FakeServer::start(move |number, payment| match number {
        10 => {
            *lock(&held) = Some(payment);
            vec![]
        }
        12 => [payment].into_iter().chain(lock(&held).take()).collect(),
        _ => vec![payment],
    });
    expect_caught(&server.bench(), "out_of_order");
}

#[test]
fn a_payment_for_another_client_is_caught() {
    let server = FakeServer::start(|number, (client, msg)| match (number, client.strip_suffix('0')) {
        (10, Some(prefix)) => vec![(format!("{prefix}1"), msg)],
        (10, None) => vec![(format!("{}0", &client[..client.len() - 1]), msg)],
        _ => vec![(client, msg)],
    });
    expect_caught(&server.bench(), "wrong_client");
}

#[test]
fn an_altered_payment_is_caught() {
    let server = FakeServer::start(|number, (client, mut msg)| {
        if number == 10 {
            msg["pad"] = json!("10.00");
        }
        vec![(client, msg)]
    });
    expect_caught(&server.bench(), "altered");
}

/// Runs the bench against a node.
fn bench(node: &Node, args: &[&str]) -> Exit {
    let (url, tcp) = (node.http_url(), node.tcp().to_string());
    Program::run(&[&["bench", "--http", &url, "--tcp", &tcp][..], args].concat())
}

/// The report of a run that must have found nothing.
#[track_caller]
fn well(exit: &Exit) -> Value {
    assert_eq!(exit.code, Some(0), "{}{}", exit.stdout, exit.stderr);
    let report: Value = serde_json::from_str(&exit.stdout).expect("the report is JSON");
    for what in ["lost", "repeated", "out_of_order", "seq_out_of_order", "wrong_client", "altered"] {
        assert_eq!(report[what], 0, "{what}: {report}");
    }
    assert_eq!(report["ok"], true);
    report
}

#[track_caller]
fn expect_caught(exit: &Exit, what: &str) {
    assert_eq!(exit.code, Some(1), "{}{}", exit.stdout, exit.stderr);
    let report: Value = serde_json::from_str(&exit.stdout).expect("the report is JSON");
    assert_eq!(report[what], 1, "{report}");
    assert_eq!(report["ok"], false);
    assert!(exit.stderr.contains("the check failed"), "{}", exit.stderr);
}

/// A client id and a message.
type Payment = (String, Value);

/// As little of a server as the bench needs, with a fault of its own: which payments it sends for the one that came.
struct FakeServer {
    http: SocketAddr,
    tcp: SocketAddr,
}

impl FakeServer {
    fn start(fault: impl Fn(usize, Payment) -> Vec<Payment> + Send + 'static) -> FakeServer {
        let (http, tcp) = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port")).into();
        let server =
            FakeServer { http: http.local_addr().expect("its address"), tcp: tcp.local_addr().expect("its address") };
        let clients: Arc<Mutex<HashMap<String, TcpStream>>> = Arc::default();
        let entering = Arc::clone(&clients);
        thread::spawn(move || {
            for stream in tcp.incoming().flatten() {
                let _ = welcome(stream, &entering);
            }
        });
        thread::spawn(move || {
            let mut number = 0;
            for stream in http.incoming().flatten() {
                let _ = stream.set_read_timeout(Some(READ_LIMIT));
                let mut reader = BufReader::new(&stream);
                while let Some((client, msg)) = posted(&mut reader) {
                    number += 1;
                    for (client, msg) in fault(number, (client, msg)) {
                        let line = format!("{}\n", json!({ "type": "payment", "msg": msg }));
                        let clients = lock(&clients);
                        (&clients[&client]).write_all(line.as_bytes()).expect("the client reads");
                    }
                    let _ = (&stream).write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}");
                }
            }
        });
        server
    }

    fn bench(&self) -> Exit {
        let (url, tcp) = (format!("http://{}", self.http), self.tcp.to_string());
        let load = ["--clients", "2", "--senders", "1", "--seconds", "1", "--rate", "50", "--no-ack", "--json"];
        Program::run(&[&["bench", "--http", &url, "--tcp", &tcp][..], &load].concat())
    }
}

/// Lets a client in, unless it leaves without a hello.
fn welcome(stream: TcpStream, clients: &Mutex<HashMap<String, TcpStream>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(READ_LIMIT))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let Ok(hello) = serde_json::from_str::<Value>(&line) else {
        return Ok(());
    };
    (&stream).write_all(b"{\"type\":\"welcome\"}\n")?;
    let client = hello["client"].as_str().expect("a client id").to_owned();
    lock(clients).insert(client, stream);
    Ok(())
}

/// The next payment that is posted on a connection; none at its end.
fn posted(reader: &mut impl BufRead) -> Option<Payment> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut body: Value = serde_json::from_slice(&body).expect("JSON");
    Some((body["client"].as_str().expect("a client id").to_owned(), body["msg"].take()))
}
