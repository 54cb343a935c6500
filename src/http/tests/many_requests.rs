//! One connection takes many requests, and their answers come in order, whole, and each to its own.

use std::thread;
use std::time::Duration;

use super::{GET, Scene};

#[test]
fn a_connection_takes_many_requests() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    for _ in 0..10 {
        assert_eq!(peer.ask("GET /a HTTP/1.1", ""), "GET /a ");
        assert_eq!(peer.ask("POST /b HTTP/1.1", "hello"), "POST /b hello");
    }
}

#[test]
fn pipelined_answers_keep_their_order() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    let path = |number: usize| match number % 3 {
        0 => format!("/now/{number}"),
        1 => "/later".to_string(),
        _ => "/nowhere".to_string(),
    };
    let requests: String = (0..100)
        .map(|number| {
            let path = path(number);
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Number: {number}\r\n\r\n")
        })
        .collect();
    peer.say(requests);
    for number in 0..100 {
        let reply = peer.reply();
        match number % 3 {
            2 => assert_eq!(reply.status, 404),
            _ => assert_eq!(reply.body, format!("GET {} ", path(number))),
        }
    }
}

#[test]
fn pipelined_bodies_are_told_apart() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    let mut text = String::new();
    for number in 0..50 {
        let body = "b".repeat(number * 20);
        let length = body.len();
        text += &format!("POST /{number} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
        text +=
            &format!("POST /{number}c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    }
    peer.say(text);
    for number in 0..50 {
        assert_eq!(peer.reply().body, format!("POST /{number} {}", "b".repeat(number * 20)));
        assert_eq!(peer.reply().body, format!("POST /{number}c abc"));
    }
}

#[test]
fn an_answer_may_come_later_from_another_thread() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    peer.say("POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
    scene.wait_for("the request", |scene| scene.toy.handled() == 1);
    // Read ahead, but not handed over.
    peer.say(GET);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(scene.toy.handled(), 1);
    scene.toy.let_go();
    assert_eq!(peer.reply().body, "POST /hold hi");
    assert_eq!(peer.reply().body, "GET /a ");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    for text in [
        "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;e\r\nhello\r\n0\r\nT: x\r\n\r\n",
    ] {
        for byte in text.bytes() {
            peer.say([byte]);
        }
        assert_eq!(peer.reply().body, "POST /a hello");
    }
}

#[test]
fn head_gets_no_body() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    peer.say(format!("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n{GET}"));
    let reply = peer.reply_to(true);
    assert!(reply.head.contains("\r\nContent-Length: 8\r\n"), "{reply:?}");
    assert_eq!(peer.reply().body, "GET /a ", "the next answer follows at once");
}

#[test]
fn a_line_end_before_a_request_is_forgiven() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    peer.say(format!("\r\n{GET}\r\n"));
    assert_eq!(peer.reply().body, "GET /a ");
    peer.say(GET);
    assert_eq!(peer.reply().body, "GET /a ");
    peer.say(format!("\r\n\r\n{GET}"));
    assert_eq!(peer.reply().body, "GET /a ");
    peer.say(format!("\r\n\r\n\r\n{GET}"));
    peer.expect_problem(400, "bad_request");
}

#[test]
fn a_line_end_before_a_request_is_forgiven_wherever_it_is_cut() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    for byte in format!("\r\n\r\n{GET}").bytes() {
        peer.say([byte]);
        // So that it comes alone.
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(peer.reply().body, "GET /a ");
}

#[test]
fn a_long_answer_reaches_a_slow_reader_whole() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    peer.say(format!("GET /big HTTP/1.1\r\nHost: x\r\n\r\n{GET}"));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(peer.reply().body.len(), 8 << 20);
    assert_eq!(peer.reply().body, "GET /a ");
    peer.say("GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(peer.reply().body.len(), 8 << 20);
    peer.expect_end();
}
