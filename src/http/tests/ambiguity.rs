//! Where a request ends is never guessed: no sender's bytes become another request.
//!
//! The numbers are those of the thirteen, see [`super`].

use std::net::Shutdown;

use super::{GET, Scene};

#[test]
fn smuggled_requests_are_not_seen() {
    let scene = Scene::new();
    let inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = inner.len();
    for fields in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: {length}, {length}\r\n"),
        format!("Content-Length: +{length}\r\n"),
        "Transfer-Encoding: xchunked\r\n".to_string(),
        "Transfer-Encoding:\x0bchunked\r\n".to_string(),
        "Transfer-Encoding : chunked\r\n".to_string(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n".to_string(),
        format!("X: y\r\n Content-Length: {length}\r\n"),
        format!("X: y\nContent-Length: {length}\r\n"),
        format!("X: y\rContent-Length: {length}\r\n"),
    ] {
        let mut peer = scene.peer();
        peer.say(format!("POST /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n0\r\n\r\n{inner}"));
        peer.expect_problem(400, "bad_request");
    }
    assert_eq!(scene.toy.handled(), 0);
    scene.expect_good_service();
}

/// 1
#[test]
fn a_huge_content_length_costs_nothing() {
    let scene = Scene::new();
    for length in ["40000000000", "100000000000000"] {
        let mut peer = scene.peer();
        peer.say(format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"));
        peer.socket.shutdown(Shutdown::Write).expect("it is open");
        peer.expect_problem(413, "body_too_large");
    }
    scene.expect_good_service();
}

/// 2
#[test]
fn a_length_past_all_numbers_is_only_too_large() {
    let scene = Scene::new();
    for length in ["9223372036854775808", "18446744073709551616", "99999999999999999999999999"] {
        let mut peer = scene.peer();
        peer.say(format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nx"));
        peer.expect_problem(413, "body_too_large");
    }
    scene.expect_good_service();
}

/// 11
#[test]
fn lengths_are_never_guessed() {
    let scene = Scene::new();
    for length in ["abc", "-5", "5\r\nContent-Length: 6", "5\r\nContent-Length: 5", "0x5", ""] {
        let mut peer = scene.peer();
        peer.say(format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{GET}"));
        peer.expect_problem(400, "bad_request");
    }
    assert_eq!(scene.toy.handled(), 0, "no body was read as a request");
}

/// 12
#[test]
fn encodings_are_never_guessed() {
    let scene = Scene::new();
    for fields in [
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
    ] {
        let mut peer = scene.peer();
        peer.say(format!("POST /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n0\r\n\r\n{GET}"));
        peer.expect_problem(400, "bad_request");
    }
    assert_eq!(scene.toy.handled(), 0);
    // Trailers do not shift what follows.
    let mut peer = scene.peer();
    peer.say(format!(
        "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: u\r\n\r\n{GET}"
    ));
    assert_eq!(peer.reply().body, "POST /a hi");
    assert_eq!(peer.reply().body, "GET /a ");
}
