//! A body is taken once its head was admitted, and within its limits.

use std::thread;
use std::time::Duration;

use super::{BODY_LIMIT, Scene};
use crate::http::door::Limits;
use crate::http::room::FREE_BODY_BYTES;

#[test]
fn expect_100_continue_is_honoured_when_admitted() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    let head = "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    peer.say(head);
    assert_eq!(peer.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    peer.say("hello");
    assert_eq!(peer.reply().body, "POST /a hello");

    // Nobody waits where the body is there already.
    peer.say(format!("{head}hello"));
    assert_eq!(peer.reply().body, "POST /a hello");

    // Nobody is told to go on where the head alone is refused.
    peer.say(head.replace("/a", "/nowhere"));
    let reply = peer.reply();
    assert!(reply.status == 404 && reply.closes(), "{reply:?}");
    peer.expect_end();
    let mut peer = scene.peer();
    peer.say(head.replace(": 5", ": 1001"));
    peer.expect_problem(413, "body_too_large");
    let mut peer = scene.peer();
    peer.say(head.replace("100-continue", "200-ok"));
    peer.expect_problem(417, "expectation_failed");
}

#[test]
fn a_continue_keeps_its_place_between_answers() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    peer.say("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    peer.say("POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    scene.wait_for("the request", |scene| scene.toy.handled() == 1);
    thread::sleep(Duration::from_millis(50));
    scene.toy.let_go();
    assert_eq!(peer.reply().body, "GET /hold ");
    assert_eq!(peer.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    peer.say("hello");
    assert_eq!(peer.reply().body, "POST /a hello");
}

#[test]
fn a_post_needs_a_length_where_a_body_is_wanted() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    peer.say("POST /no-body HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(peer.reply().body, "POST /no-body ");
    peer.say("POST /a HTTP/1.1\r\nHost: x\r\n\r\n");
    peer.expect_problem(411, "length_required");
}

#[test]
fn the_body_limit_is_exact_and_needs_no_reading() {
    let scene = Scene::new();
    let head = |length: usize| format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    for length in [BODY_LIMIT - 1, BODY_LIMIT] {
        let mut peer = scene.peer();
        peer.say(head(length) + &"x".repeat(length));
        assert_eq!(peer.reply().body.len(), "POST /a ".len() + length);
    }
    let mut peer = scene.peer();
    peer.say(head(BODY_LIMIT + 1));
    peer.expect_problem(413, "body_too_large");
    // Who sends it all the same can still read the answer.
    let mut peer = scene.peer();
    peer.say(head(60_000) + &"x".repeat(60_000));
    peer.expect_problem(413, "body_too_large");
    assert!(scene.toy.refused.lock().contains(&"body_too_large"));
}

#[test]
fn bodies_together_have_a_limit_and_small_ones_go_on() {
    const ROOM: usize = 64 << 10;
    const LARGE: usize = FREE_BODY_BYTES + ROOM;
    let scene = Scene::with(Limits { bodies_bytes: ROOM, ..Limits::default() });
    let post = |length: usize| {
        let mut peer = scene.peer();
        peer.say(format!("POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length)));
        peer
    };
    // The first takes all of the room for as long as it is being handled.
    let slow = scene.toy.slow.lock();
    let mut first = post(LARGE);
    scene.wait_for("it is being handled", |scene| scene.toy.handled() == 1);
    post(FREE_BODY_BYTES + 1).expect_problem(503, "unavailable");
    assert_eq!(*scene.toy.refused.lock(), ["unavailable"]);
    assert_eq!(scene.peer().ask("POST /a HTTP/1.1", "small"), "POST /a small");

    drop(slow);
    assert_eq!(first.reply().status, 200);
    // And then there is room for another, and for no byte more.
    assert_eq!(first.ask("POST /a HTTP/1.1", "small"), "POST /a small");
    assert_eq!(post(LARGE).reply().status, 200);
    post(LARGE + 1).expect_problem(503, "unavailable");
}
