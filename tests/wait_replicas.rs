//! With `--wait-replicas N` a 2xx says that N replicas have the payment; where they do not, it is a 503 with `"stored":"unknown"`, and so is every repeat until they do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::redis::caught_up;
use crate::harness::{Answer, Mode, Node, Program, Proxy, Redis, Reply, Way, eventually};

/// What a sender waits at most for such a 503.
const PROMISED: Duration = Duration::from_secs(2);

/// A primary, a replica whose line to it can be held up, and a node that waits for so many.
struct Pair {
    primary: Arc<Redis>,
    replica: Arc<Redis>,
    line: Proxy,
    node: Node,
}

impl Pair {
    fn waiting_for(replicas: &str) -> Pair {
        let primary = Redis::start();
        let line = Proxy::to(primary.port());
        let replica = Redis::replica_of(line.port());
        caught_up(&primary, &replica);
        let node = Node::on(&primary, "n1", &["--wait-replicas", replicas]);
        Pair { primary, replica, line, node }
    }

    /// Posts until the replica has it in time: where a disk is slow it is unknown at first.
    fn post_until_promised(&self, msg: &str, id: &str) {
        eventually("it is accepted", || self.node.post_with_id("01", msg, id).is_success());
    }

    /// How many payments of client 01 the replica has.
    fn replicated(&self) -> i64 {
        match self.replica.cli(&["LLEN", "payrelay:{01}:inbox"]) {
            Reply::Int(payments) => payments,
            other => panic!("{other:?}"),
        }
    }
}

/// A 503 in time that leaves it open whether the payment is stored.
#[track_caller]
fn expect_unknown(post: impl FnOnce() -> Answer) {
    let asked = Instant::now();
    let answer = post();
    assert!(asked.elapsed() < PROMISED, "after {:?}", asked.elapsed());
    let answer = answer.expect_problem(503, "unavailable");
    assert_eq!(answer.json()["stored"], "unknown", "{}", answer.show());
}

#[test]
fn a_2xx_comes_after_the_replica_has_it() {
    let pair = Pair::waiting_for("1");
    // Each piece of the line waits, so it may come to several times this; a round waits half a second at most.
    pair.line.set(Way::Down, Mode::Delay(Duration::from_millis(20)));
    for seq in 1..=5 {
        // What counts is what is true at the 2xx.
        pair.post_until_promised("1", &format!("wx-{seq}"));
        assert_eq!(pair.replicated(), seq);
    }
}

#[test]
fn without_the_flag_nobody_waits() {
    let pair = Pair::waiting_for("0");
    pair.line.set_both(Mode::Hold);
    assert_eq!(pair.node.accept("01", "1"), 1);
    assert_eq!(pair.replicated(), 0);
}

#[test]
fn a_frozen_replica_makes_it_unknown_until_it_is_back() {
    let pair = Pair::waiting_for("1");
    let other = Node::on(&pair.primary, "n2", &["--wait-replicas", "1"]);
    let mut client = pair.node.client("01");
    pair.replica.pause();
    expect_unknown(|| pair.node.post_with_id("01", "1", "wx-1"));
    // It is stored here, so it is delivered; only nobody may rely on it yet.
    client.expect_payment(1, "1");
    // A repeat waits again, at whichever node.
    for node in [&pair.node, &other, &pair.node] {
        expect_unknown(|| node.post_with_id("01", "1", "wx-1"));
    }
    pair.replica.resume();
    caught_up(&pair.primary, &pair.replica);
    for node in [&pair.node, &other] {
        let mut repeat = node.post_with_id("01", "1", "wx-1");
        eventually("the repeat is answered", || {
            repeat = node.post_with_id("01", "1", "wx-1");
            repeat.is_success()
        });
        let repeat = repeat.expect(200).json();
        assert_eq!((&repeat["duplicate"], &repeat["seq"]), (&true.into(), &1.into()), "{repeat}");
    }
    assert_eq!(pair.node.about("01")["last_seq"], 1);
    assert_eq!(pair.replicated(), 1);
}

#[test]
fn a_replica_that_is_cut_off_makes_it_unknown_too() {
    let pair = Pair::waiting_for("1");
    pair.line.refuse(true);
    pair.line.cut();
    eventually("the primary has no replica", || pair.primary.info("connected_slaves") == 0);
    expect_unknown(|| pair.node.post_with_id("01", "1", "wx-1"));
    expect_unknown(|| pair.node.post_with_id("01", "1", "wx-1"));
    pair.line.refuse(false);
    caught_up(&pair.primary, &pair.replica);
    eventually("the repeat is answered", || pair.node.post_with_id("01", "1", "wx-1").status == 200);
    assert_eq!(pair.replicated(), 1);
    pair.post_until_promised("2", "wx-2");
    assert_eq!(pair.replicated(), 2);
}

#[test]
fn a_repeat_writes_something_to_wait_for() {
    let pair = Pair::waiting_for("1");
    pair.post_until_promised("1", "wx-1");
    // WAIT answers for the last write of its connection; without one it would answer at once.
    assert_eq!(pair.primary.cli(&["DEL", "payrelay:0:replicated"]), Reply::Int(1));
    pair.post_until_promised("1", "wx-1");
    assert_eq!(pair.replica.cli(&["EXISTS", "payrelay:0:replicated"]), Reply::Int(1));
}

#[test]
fn a_round_of_many_is_unknown_as_a_whole() {
    let pair = Pair::waiting_for("1");
    let line = |n: u32| format!(r#"{{"client":"01","msg":{n},"payment_id":"wx-{n}"}}"#);
    let lines: Vec<String> = (1..=20).map(line).collect();
    pair.replica.pause();
    expect_unknown(|| pair.node.post_batch(&lines.join("\n")));
    pair.replica.resume();
    caught_up(&pair.primary, &pair.replica);
    let mut answer = pair.node.post_batch(&lines.join("\n"));
    eventually("the batch is answered", || {
        answer = pair.node.post_batch(&lines.join("\n"));
        answer.is_success()
    });
    assert_eq!(answer.text().matches(r#""duplicate":true"#).count(), 20, "{}", answer.show());
    assert_eq!(pair.node.about("01")["last_seq"], 20);
}

#[test]
fn what_was_refused_stays_refused() {
    let pair = Pair::waiting_for("1");
    pair.post_until_promised("1", "wx-1");
    pair.replica.pause();
    pair.node.post_with_id("01", "2", "wx-1").expect_problem(422, "payment_id_reused");
}

#[test]
fn acknowledgements_wait_for_no_replica() {
    let pair = Pair::waiting_for("1");
    let mut client = pair.node.client("01");
    pair.post_until_promised("1", "wx-1");
    client.expect_payment(1, "1");
    pair.replica.pause();
    client.ack(1);
    pair.node.expect_acknowledged("01", 1);
    assert_eq!(pair.node.client("01").welcome.acked, 1);
}

#[test]
fn a_redis_that_forgot_the_scripts_is_no_hindrance() {
    let pair = Pair::waiting_for("1");
    for seq in 1..=3 {
        pair.primary.cli(&["SCRIPT", "FLUSH"]).expect_ok();
        pair.post_until_promised("1", &format!("wx-{seq}"));
        assert_eq!(pair.replicated(), seq);
    }
}

#[test]
fn the_embedded_inbox_has_no_replicas() {
    let exit = Program::run(&["serve", "--wait-replicas", "1"]);
    assert_eq!(exit.code, Some(2), "{}", exit.stderr);
    assert!(exit.error_lines().len() == 1 && exit.stderr.contains("--redis"), "{}", exit.stderr);
}
