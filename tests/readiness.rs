//! `/readyz` follows the store: 503 with the reason while payments cannot be stored, and 200 again by itself once they can, without anybody posting.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use crate::harness::{self, Home, Node, PATIENCE, READ_LIMIT, Redis, eventually, eventually_within};

/// Waits until it says that it is not ready; the reason.
#[track_caller]
fn expect_not_ready(node: &Node) -> String {
    let mut reason = String::new();
    eventually("the node says that it is not ready", || {
        let answer = node.get("/readyz");
        if answer.status != 503 {
            return false;
        }
        let json = answer.json();
        assert_eq!(json["ready"], false, "{json}");
        reason = json["reason"].as_str().unwrap_or_default().to_owned();
        true
    });
    assert!(!reason.is_empty(), "a reason is given");
    node.get("/healthz").expect(200);
    reason
}

/// The same until the reason says this; what comes before may be the moment at which it began.
#[track_caller]
fn expect_reason(node: &Node, words: &[&str]) {
    let mut last = String::new();
    eventually(&format!("the reason is one of {words:?}"), || {
        last = node.get("/readyz").text();
        words.iter().any(|word| last.to_lowercase().contains(word))
    });
    expect_not_ready(node);
}

/// Ready by itself, and it is true: posts are taken.
#[track_caller]
fn expect_ready_by_itself(node: &Node) {
    eventually_within(PATIENCE, "the node is ready again by itself", || node.is_ready());
    // A connection that was refused is tried again only a moment later.
    eventually("posts are taken", || node.post_with_id("01", "1", "after").is_success());
}

/// A Redis whose user `relay` the node is; the test itself stays the user that may do anything.
fn as_relay() -> (Arc<Redis>, Node) {
    let redis = Redis::start();
    redis.cli(&["ACL", "SETUSER", "relay", "on", ">right", "~*", "&*", "+@all"]).expect_ok();
    let url = format!("redis://relay:right@127.0.0.1:{}/", redis.port());
    let node = Node::on_url(&redis, &url, "n1", &[]);
    node.expect_ready();
    (redis, node)
}

/// Whoever is connected has to come in anew.
fn throw_all_out(redis: &Redis) {
    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
}

#[test]
fn after_a_full_redis_to_which_somebody_posted() {
    after_a_full_redis(true);
}

#[test]
fn after_a_full_redis_to_which_nobody_posted() {
    after_a_full_redis(false);
}

fn after_a_full_redis(posted: bool) {
    let node = Node::start(Home::Redis);
    node.redis().cli(&["CONFIG", "SET", "maxmemory", "1"]).expect_ok();
    if posted {
        node.post("01", "1").expect_problem(503, "store_full");
    }
    expect_reason(&node, &["maxmemory", "full", "memory"]);
    node.redis().cli(&["CONFIG", "SET", "maxmemory", "0"]).expect_ok();
    expect_ready_by_itself(&node);
}

#[test]
fn after_a_redis_that_took_no_writes_when_somebody_posted() {
    after_a_redis_that_took_no_writes(true);
}

#[test]
fn after_a_redis_that_took_no_writes_when_nobody_posted() {
    after_a_redis_that_took_no_writes(false);
}

fn after_a_redis_that_took_no_writes(posted: bool) {
    let node = Node::start(Home::Redis);
    let nobody = harness::free_port().to_string();
    node.redis().cli(&["REPLICAOF", "127.0.0.1", &nobody]).expect_ok();
    if posted {
        node.post("01", "1").expect_any_problem(503);
    }
    expect_reason(&node, &["replica", "readonly", "read only"]);
    node.redis().cli(&["REPLICAOF", "NO", "ONE"]).expect_ok();
    expect_ready_by_itself(&node);
}

#[test]
fn after_a_password_that_came_and_went() {
    let redis = Redis::start();
    let node = Node::on(&redis, "n1", &[]);
    redis.cli(&["CONFIG", "SET", "requirepass", "secret"]).expect_ok();
    inline(&redis, "AUTH secret\r\nCLIENT KILL TYPE pubsub\r\nCLIENT KILL TYPE normal\r\n");
    node.post("01", "1").expect_any_problem(503);
    expect_reason(&node, &["noauth", "authentication", "password"]);
    inline(&redis, "AUTH secret\r\nCONFIG SET requirepass \"\"\r\n");
    expect_ready_by_itself(&node);
}

/// Says several things on one connection, and that is the last of them.
fn inline(redis: &Redis, lines: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).expect("a connection to Redis");
    stream.set_read_timeout(Some(READ_LIMIT)).expect("a time limit");
    stream.write_all(format!("{lines}QUIT\r\n").as_bytes()).expect("words to Redis");
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said);
    assert!(said.starts_with("+OK") && !said.contains("-ERR"), "{said}");
}

#[test]
fn after_another_password() {
    let (redis, node) = as_relay();
    redis.cli(&["ACL", "SETUSER", "relay", "resetpass", ">wrong"]).expect_ok();
    throw_all_out(&redis);
    expect_reason(&node, &["wrongpass", "authentication", "password"]);
    redis.cli(&["ACL", "SETUSER", "relay", "resetpass", ">right"]).expect_ok();
    expect_ready_by_itself(&node);
}

#[test]
fn after_rights_that_were_taken_away() {
    for rights in ["-@all", "-evalsha", "-@write"] {
        let (redis, node) = as_relay();
        redis.cli(&["ACL", "SETUSER", "relay", rights]).expect_ok();
        throw_all_out(&redis);
        node.post("01", "1").expect_any_problem(503);
        expect_not_ready(&node);
        redis.cli(&["ACL", "SETUSER", "relay", "+@all"]).expect_ok();
        expect_ready_by_itself(&node);
    }
}

#[test]
fn after_a_script_that_did_not_end() {
    let node = Node::start(Home::Redis);
    let redis = node.redis();
    redis.cli(&["CONFIG", "SET", "busy-reply-threshold", "100"]).expect_ok();
    thread::scope(|scope| {
        scope.spawn(|| redis.try_cli(&["EVAL", "while true do end", "0"]));
        expect_reason(&node, &["busy"]);
        eventually("the script is killed", || {
            let said = redis.try_cli(&["SCRIPT", "KILL"]);
            said.is_ok_and(|said| format!("{said:?}").contains("OK") || format!("{said:?}").contains("NOTBUSY"))
        });
    });
    expect_ready_by_itself(&node);
}

/// What `/readyz` says a 2xx is worth; the log says the same.
#[track_caller]
fn words(node: &Node) -> String {
    let words = node.get("/readyz").expect(200).field("durability");
    node.expect_log(&words);
    words
}

const ALWAYS: &str = "durable: a 2xx is on Redis' disk before it is sent. Survives a crash of payrelay, of Redis and of the machine, as far as the disk keeps its word.";
const EVERY_SECOND: &str = "survives a crash of payrelay, and of the Redis process on a healthy disk. A power cut loses about the last second; a stalled or full disk can lose about two seconds of accepted payments, even on a plain Redis crash.";
const FAILOVER: &str = " A failover can lose payments the new primary had not received.";

#[test]
fn the_words_say_what_a_2xx_is_worth() {
    let any: &[&str] = &["--require-durability", "any"];
    let weaker = format!("{EVERY_SECOND} Weaker while the file is rewritten.");
    let cases: [(&[&str], &str); 7] = [
        (&[], ALWAYS),
        (&["--appendfsync", "everysec"], EVERY_SECOND),
        (&["--appendfsync", "everysec", "--no-appendfsync-on-rewrite", "yes"], &weaker),
        (&["--appendfsync", "no"], "a Redis crash or power cut loses accepted payments: up to about 30 s."),
        (
            &["--appendonly", "no", "--save", "3600 1 300 100"],
            "a Redis crash or power cut loses accepted payments: all since the last snapshot.",
        ),
        (&["--appendonly", "no"], "memory only: a restart of Redis loses every pending payment."),
        (&["--save", "3600 1 300 100"], ALWAYS),
    ];
    for (settings, said) in cases {
        let node = Node::on(&Redis::with(settings), "n1", any);
        assert_eq!(words(&node), said, "{settings:?}");
    }
}

#[test]
fn a_redis_that_does_not_tell_is_unknown() {
    let (redis, _node) = as_relay();
    redis.cli(&["ACL", "SETUSER", "relay", "-config"]).expect_ok();
    let url = format!("redis://relay:right@127.0.0.1:{}/", redis.port());
    let node = Node::on_url(&redis, &url, "n2", &["--require-durability", "any"]);
    node.expect_ready();
    assert_eq!(words(&node), "durability unknown: CONFIG GET is not allowed here. The append-only file is on.");
    let node = Node::on_url(&redis, &url, "n3", &[]);
    expect_reason(&node, &["--require-durability everysec"]);
}

#[test]
fn a_redis_with_a_replica_may_fail_over() {
    let redis = Redis::start();
    let replica = Redis::replica_of(redis.port());
    harness::redis::caught_up(&redis, &replica);
    let node = Node::on(&redis, "n1", &[]);
    assert_eq!(words(&node), format!("{ALWAYS}{FAILOVER}"));
    let node = Node::on(&redis, "n2", &["--wait-replicas", "1"]);
    assert_eq!(
        words(&node),
        format!("{ALWAYS}{FAILOVER} payrelay waits for 1 replica (narrows it, does not close it).")
    );
    let node = Node::on_url(&redis, &redis.url(), "n3", &["--wait-replicas", "2"]);
    expect_reason(&node, &["1 of the 2 replicas"]);
}

/// A Redis with a replica that has caught up, and a node that waits for it.
fn with_a_replica() -> (Arc<Redis>, Arc<Redis>, Node) {
    let redis = Redis::start();
    let replica = Redis::replica_of(redis.port());
    harness::redis::caught_up(&redis, &replica);
    let node = Node::on(&redis, "n1", &["--wait-replicas", "1"]);
    (redis, replica, node)
}

/// Frozen, it is still connected.
#[test]
fn after_a_frozen_replica() {
    let (_redis, replica, node) = with_a_replica();
    replica.pause();
    expect_reason(&node, &["0 of the 1 replicas"]);
    replica.resume();
    expect_ready_by_itself(&node);
}

/// Killed, it is not.
#[test]
fn after_a_killed_replica() {
    let (_redis, replica, node) = with_a_replica();
    replica.kill();
    expect_reason(&node, &["0 of the 1 replicas"]);
    replica.restart();
    expect_ready_by_itself(&node);
}

#[test]
fn a_payment_that_waited_in_vain_says_so_at_once() {
    let (_redis, replica, node) = with_a_replica();
    replica.pause();
    node.post("01", "1").expect_problem(503, "unavailable");
    let ready = node.get("/readyz").expect(503);
    assert!(ready.field("reason").contains("0 of 1 replicas"), "{}", ready.show());
}

#[test]
fn eviction_is_called_by_its_name() {
    let redis = Redis::with(&["--maxmemory-policy", "volatile-lru"]);
    let node = Node::on_url(&redis, &redis.url(), "n1", &["--require-durability", "any"]);
    expect_reason(&node, &["redis may evict inboxes."]);
}
