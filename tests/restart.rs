//! Promises 1 and 2 over restarts: what was accepted comes again with the same number, time and epoch; what was acknowledged does not.

use crate::harness::{self, Home, Node, eventually, on_both_inboxes};

on_both_inboxes!(
    pending_payments_survive_a_kill,
    pending_payments_survive_an_orderly_stop,
    acknowledged_payments_do_not_come_again,
    the_numbering_goes_on,
    a_payment_that_was_seen_but_not_acknowledged_comes_again_unchanged,
);

fn survives(home: Home, end: impl Fn(&Node)) {
    let node = Node::start(home);
    let mut client = node.client("01");
    node.accept("01", r#"{"amount":"10.00"}"#);
    node.post_with_id("01", "[2]", "wx-2").expect(202);
    let before = [client.expect_payment(1, r#"{"amount":"10.00"}"#), client.expect_payment(2, "[2]")];

    end(&node);
    node.restart();

    let mut again = node.client("01");
    assert_eq!((again.welcome.acked, again.welcome.pending), (0, 2));
    assert_eq!(again.welcome.epoch, client.welcome.epoch);
    let after = [again.expect_any_payment(), again.expect_any_payment()];
    for (before, after) in before.iter().zip(after) {
        assert_eq!(after.frame.line, before.frame.line, "the same line, accepted_at too");
    }
    // The payment id is still known as well.
    let repeat = node.post_with_id("01", "[2]", "wx-2").expect(200).json();
    assert_eq!((&repeat["duplicate"], &repeat["seq"]), (&true.into(), &2.into()));
}

fn pending_payments_survive_a_kill(home: Home) {
    survives(home, Node::kill);
}

fn pending_payments_survive_an_orderly_stop(home: Home) {
    survives(home, |node| assert_eq!(node.terminate().code, Some(0)));
}

fn acknowledged_payments_do_not_come_again(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    for n in 1..=5 {
        node.accept("01", &n.to_string());
    }
    client.expect_seqs(1..=5);
    client.ack(3);
    node.expect_acknowledged("01", 3);

    node.kill();
    node.restart();

    let mut again = node.client("01");
    assert_eq!((again.welcome.acked, again.welcome.pending), (3, 2));
    again.expect_payment(4, "4");
    again.expect_payment(5, "5");
    again.ack(5);
    node.expect_acknowledged("01", 5);
    assert_eq!(node.status("01", 1), "acknowledged");

    assert_eq!(node.terminate().code, Some(0));
    node.restart();
    let mut last = node.client("01");
    assert_eq!((last.welcome.acked, last.welcome.pending), (5, 0));
    last.expect_nothing_but_pings(harness::QUIET);
}

fn the_numbering_goes_on(home: Home) {
    let node = Node::start(home);
    assert_eq!(node.accept("01", "1"), 1);
    assert_eq!(node.accept("02", "1"), 1);
    for life in 2..=4 {
        node.kill();
        node.restart();
        assert_eq!(node.accept("01", "1"), life);
    }
    assert_eq!(node.accept("02", "1"), 2);
}

fn a_payment_that_was_seen_but_not_acknowledged_comes_again_unchanged(home: Home) {
    let node = Node::start(home);
    node.accept("01", "1");
    let first = node.client("01").expect_payment(1, "1");
    for _ in 0..3 {
        let again = node.client("01").expect_payment(1, "1");
        assert_eq!(again.frame.line, first.frame.line);
    }
}

#[test]
fn pending_payments_survive_a_crash_of_redis() {
    let node = Node::start(Home::Redis);
    let mut client = node.client("01");
    node.accept("01", "1");
    node.accept("01", "2");
    let payments = client.expect_seqs(1..=2);
    client.ack(1);
    node.expect_acknowledged("01", 1);

    node.redis().kill();
    node.redis().restart();
    node.expect_ready();

    let mut again = node.client("01");
    assert_eq!((again.welcome.acked, again.welcome.pending), (1, 1));
    assert_eq!(again.welcome.epoch, client.welcome.epoch);
    assert_eq!(again.expect_any_payment().frame.line, payments[1].frame.line);
    let seq = node.accept("01", "3");
    assert_eq!(seq, 3);
    again.expect_payment(3, "3");
}

#[test]
fn everything_killed_at_once_comes_back() {
    let node = Node::start(Home::Redis);
    for n in 1..=10 {
        node.accept("01", &n.to_string());
    }
    let epoch = node.client("01").welcome.epoch;
    node.kill();
    node.redis().kill();
    node.redis().restart();
    node.restart();

    let mut client = node.client("01");
    assert_eq!((client.welcome.acked, client.welcome.pending), (0, 10));
    assert_eq!(client.welcome.epoch, epoch);
    for n in 1..=10 {
        client.expect_payment(n, &n.to_string());
    }
}

#[test]
fn a_connected_client_gets_its_payments_after_a_crash_of_redis_without_doing_anything() {
    let node = Node::start(Home::Redis);
    let mut client = node.client("01");
    node.redis().kill();
    node.redis().restart();
    eventually("posts are accepted again", || node.post_with_id("01", "1", "a").is_success());
    client.expect_payment(1, "1");
    client.ack(1);
    node.expect_acknowledged("01", 1);
}
