//! A refused request, and one that we fail at, gets one answer that its sender understands, and costs no other request.

use super::{GET, Scene, short};

#[test]
fn a_refusal_of_the_service_leaves_the_connection_if_no_body_follows() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    peer.say(format!("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n{GET}"));
    assert_eq!(peer.reply().problem(), (404, "not_found".to_string()));
    assert_eq!(peer.reply().body, "GET /a ");

    peer.say("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 28\r\n\r\n");
    peer.say(GET);
    assert!(peer.reply().closes());
    peer.expect_end();
}

#[test]
fn a_panic_ends_its_own_connection_with_a_500() {
    let scene = Scene::new();
    for path in ["/panic", "/admit-panics", "/drop"] {
        let mut peer = scene.peer();
        peer.say(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let reply = peer.reply();
        assert_eq!(reply.problem(), (500, "internal".to_string()));
        let stored = if path == "/admit-panics" { "no" } else { "unknown" };
        assert!(reply.body.contains(&format!(r#""stored":"{stored}""#)), "{reply:?}");
        assert!(reply.closes());
        peer.expect_end();
    }
    scene.expect_good_service();
}

#[test]
fn a_sender_that_understands_no_problems_gets_none() {
    let scene = Scene::with(short(300, 10_000));
    let too_large = format!("Content-Length: 1001\r\n\r\n{}", "x".repeat(1001));
    for (path, rest) in [
        ("/a", too_large.as_str()),
        ("/a", "\r\n"),
        ("/a", "Transfer-Encoding: chunked\r\n\r\nno\r\n"),
        ("/a", "Content-Length: 9\r\n\r\ntoo slow"),
        ("/panic", "Content-Length: 1\r\n\r\nx"),
        ("/drop", "Content-Length: 1\r\n\r\nx"),
    ] {
        let mut peer = scene.peer();
        peer.say(format!("POST {path} HTTP/1.1\r\nHost: x\r\nCanned: 1\r\n{rest}"));
        let reply = peer.reply();
        assert_eq!((reply.status, reply.body.as_str()), (200, "sorry"), "{path} {rest}");
        assert!(reply.closes(), "{reply:?}");
        peer.expect_end();
    }
    // It is one request's, not the connection's.
    let mut peer = scene.peer();
    peer.say("POST /a HTTP/1.1\r\nHost: x\r\nCanned: 1\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(peer.reply().body, "POST /a x");
    peer.say("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n");
    peer.expect_problem(400, "bad_request");
}
