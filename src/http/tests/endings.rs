//! A connection ends when a side asks for it or time is up, and nobody who is owed an answer goes without it.

use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{GET, PATIENCE, Scene, short};

#[test]
fn http_1_0_closes_unless_told_to_keep() {
    let scene = Scene::new();
    let text = scene.say("GET /a HTTP/1.0\r\n\r\n");
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.contains("\r\nConnection: close\r\n"));
    assert!(text.ends_with("\r\n\r\nGET /a "));

    let mut peer = scene.peer();
    peer.say("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(peer.reply().head.contains("\r\nConnection: keep-alive\r\n"));
    peer.say("GET /a HTTP/1.0\r\n\r\n");
    assert!(peer.reply().closes());
    peer.expect_end();
}

#[test]
fn the_sender_may_ask_to_close() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    peer.say(format!("GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n{GET}"));
    assert!(peer.reply().closes());
    peer.expect_end();
    assert_eq!(scene.toy.handled(), 1, "what follows the last request is ignored");
}

#[test]
fn who_half_closes_gets_the_answer() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    peer.say(format!("{GET}POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"));
    peer.socket.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(peer.reply().body, "GET /a ");
    scene.wait_for("the request", |scene| scene.toy.handled() == 2);
    // Its reader has ended, the connection has not.
    thread::sleep(Duration::from_millis(50));
    assert_eq!(scene.door.connections(), 1);
    scene.toy.let_go();
    assert_eq!(peer.reply().body, "POST /hold hi");
    peer.expect_end();
    scene.wait_for("the end", |scene| scene.door.connections() == 0);
}

#[test]
fn a_request_that_ends_in_the_middle_is_refused() {
    let scene = Scene::new();
    for part in ["GET / HT", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhi"] {
        let mut peer = scene.peer();
        peer.say(part);
        peer.socket.shutdown(Shutdown::Write).expect("it is open");
        peer.expect_problem(400, "bad_request");
    }
    assert_eq!(scene.toy.handled(), 0);
}

#[test]
fn an_idle_connection_is_closed_silently_but_not_while_it_is_owed_an_answer() {
    let scene = Scene::with(short(10_000, 150));
    scene.peer().expect_end();

    let mut peer = scene.peer();
    peer.say("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    thread::sleep(Duration::from_millis(400));
    let answered_at = Instant::now();
    scene.toy.let_go();
    assert_eq!(peer.reply().body, "GET /hold ");
    peer.expect_end();
    assert!(answered_at.elapsed() >= Duration::from_millis(140), "idleness begins at the answer");
}

#[test]
fn a_slow_request_is_told_so_whatever_it_does() {
    let scene = Scene::with(short(300, 10_000));
    for beginning in ["GET / HT", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n"] {
        let mut peer = scene.peer();
        let begun_at = Instant::now();
        peer.say(beginning);
        // A byte now and then does not move the deadline.
        for _ in 0..4 {
            thread::sleep(Duration::from_millis(50));
            peer.say("x");
        }
        peer.expect_problem(408, "too_slow");
        assert!(begun_at.elapsed() < Duration::from_secs(2));
    }
    // The deadline is a request's, not a connection's.
    let mut peer = scene.peer();
    for _ in 0..3 {
        peer.say(&GET[..10]);
        thread::sleep(Duration::from_millis(150));
        peer.say(&GET[10..]);
        assert_eq!(peer.reply().body, "GET /a ");
    }
}

#[test]
fn stopping_finishes_what_is_under_way() {
    let scene = Scene::with(short(10_000, 60_000));
    let (mut idle, mut fresh, mut busy, mut halfway) = (scene.peer(), scene.peer(), scene.peer(), scene.peer());
    idle.ask("GET /a HTTP/1.1", "");
    busy.say("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
    halfway.say("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe");
    scene.wait_for("all four", |scene| scene.door.connections() == 4 && scene.toy.handled() == 2);
    thread::sleep(Duration::from_millis(100));

    scene.door.stop();
    idle.expect_end();
    fresh.expect_end();
    assert!(!scene.door.drained(Instant::now() + Duration::from_millis(50)));
    halfway.say("llo");
    let reply = halfway.reply();
    assert!(reply.body == "POST /a hello" && reply.closes(), "{reply:?}");
    halfway.expect_end();
    scene.toy.let_go();
    let reply = busy.reply();
    assert!(reply.body == "GET /hold " && reply.closes(), "{reply:?}");
    busy.expect_end();
    assert!(scene.door.drained(Instant::now() + PATIENCE));
    assert!(TcpStream::connect(scene.address).is_err(), "nobody is let in any more");
}
