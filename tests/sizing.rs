//! The load that `payrelay doctor` works out is what it really takes: within a fifth, for messages of 100, 256 and 4,096 bytes.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use crate::harness::node::ready_line;
use crate::harness::{Http, Node, PATIENCE, Program, Redis, TempDir, eventually_some, pause};

const CLIENTS: usize = 200;
const EACH: usize = 20;

/// Posts so many payments with ids for each client, in turn.
fn fill(http: SocketAddr, size: usize) {
    let mut http = Http::connect(http).patient(PATIENCE);
    for round in 0..EACH {
        let line = |n: usize| {
            let msg = "x".repeat(size - 2);
            format!(r#"{{"client":"till-{n:06}","msg":"{msg}","payment_id":"wx-{round:010}-{n:010}"}}"#)
        };
        let lines: Vec<String> = (0..CLIENTS).map(line).collect();
        let kind = ("Content-Type", "application/x-ndjson");
        let answer = http.send("POST", "/v1/payments", &[kind], lines.join("\n").as_bytes()).expect(200);
        assert_eq!(answer.text().matches(r#""status":"accepted""#).count(), CLIENTS);
    }
}

/// What the doctor says of such a load, in bytes.
fn expected(store: &[&str], size: usize) -> f64 {
    let (clients, payments, size) = (CLIENTS.to_string(), (CLIENTS * EACH).to_string(), size.to_string());
    let load = ["--expect-clients", &clients, "--expect-pending", &payments, "--expect-ids", &payments];
    let ports = ["--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--expect-size", &size];
    let exit = Program::run(&[&["doctor"], store, &load, &ports].concat());
    let words = exit.stdout.split("the expected load takes about ").nth(1).expect("a word on the load");
    let mut words = words.split([' ', ':', ';', '\n']);
    let number: f64 = words.next().and_then(|word| word.parse().ok()).expect("a number");
    match words.next() {
        Some("KiB") => number * 1024.0,
        Some("MiB") => number * 1024.0 * 1024.0,
        unit => panic!("{unit:?}"),
    }
}

#[track_caller]
fn expect_close(what: &str, expected: f64, took: u64) {
    let took = took as f64;
    println!("{what}: took {took}, {expected} were expected");
    assert!((expected / took - 1.0).abs() <= 0.2, "{what}: took {took}, {expected} were expected");
}

/// A figure that does not change any more.
fn settled(mut figure: impl FnMut() -> u64) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut last = figure();
    let mut same = 0;
    while same < 25 && Instant::now() < deadline {
        pause();
        let now = figure();
        same = if now.abs_diff(last) < 4096 { same + 1 } else { 0 };
        last = now;
    }
    last
}

#[test]
fn in_redis() {
    for size in [100, 256, 4096] {
        // Without a file: its buffers are memory, too.
        let redis = Redis::without_persistence();
        let node = Node::on(&redis, "n1", &["--require-durability", "any"]);
        let before = settled(|| redis.info("used_memory"));
        fill(node.http(), size);
        let took = settled(|| redis.info("used_memory")) - before;
        expect_close(&format!("{size} bytes"), expected(&["--redis", &redis.url()], size), took);
    }
}

#[test]
fn in_the_file() {
    for size in [100, 256, 4096] {
        let dir = TempDir::new();
        let data = dir.join("data").to_str().expect("UTF-8").to_owned();
        let ports = ["--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0"];
        let node = Program::start(&[&["serve", "--data-dir", &data], &ports[..]].concat(), &[]);
        let (http, _) = eventually_some("the node is ready", || ready_line(&node.stderr()));
        fill(http, size);
        let took = std::fs::metadata(dir.join("data/inbox.redb")).expect("the file").blocks() * 512;
        expect_close(&format!("{size} bytes"), expected(&["--data-dir", &data], size), took);
    }
}
