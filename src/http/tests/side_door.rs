//! The side door hands the same requests to the same service as the strict one.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::peer::Peer;
use super::{PATIENCE, Toy};
use crate::http::tiny::{SideDoor, WORKERS};

#[test]
fn the_side_door_hands_the_same_requests_to_the_same_service() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
    let address = listener.local_addr().expect("it is bound");
    let toy = Arc::new(Toy::default());
    let door = Arc::new(SideDoor::new(listener, toy.clone(), 16 << 10).expect("it opens"));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let door = door.clone();
            thread::spawn(move || door.work())
        })
        .collect();

    let mut peer = Peer::connect(address);
    assert_eq!(peer.ask("POST /a HTTP/1.1", "hello"), "POST /a hello");
    assert_eq!(peer.ask("GET /later?wait=5 HTTP/1.1", ""), "GET /later ");
    peer.say("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(peer.reply().problem(), (404, "not_found".to_string()));
    peer.say("GET /drop HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(peer.reply().problem(), (500, "internal".to_string()));
    for (text, status, code) in [
        ("POST /a HTTP/1.1\r\nHost: x\r\n\r\n", 411, "length_required"),
        ("GET /a HTTP/1.1\r\n\r\n", 400, "bad_request"),
        ("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, "bad_request"),
        ("POST /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nContent-Length: 1\r\n\r\nx", 400, "bad_request"),
        (
            "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "bad_request",
        ),
    ] {
        let mut peer = Peer::connect(address);
        peer.say(text);
        assert_eq!(peer.reply().problem(), (status, code.to_string()), "{text}");
    }
    let mut peer = Peer::connect(address);
    peer.say(format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n{}", "x".repeat(1001)));
    assert_eq!(peer.reply().problem(), (413, "body_too_large".to_string()));

    // More waiting requests than workers, and still somebody is there for the others. One after the other, for of
    // connections that come in a burst tiny_http forgets some.
    let waiting: Vec<_> = (1..WORKERS + 4)
        .map(|count| {
            let mut peer = Peer::connect(address);
            peer.say("GET /hold?wait=30 HTTP/1.1\r\nHost: x\r\n\r\n");
            let deadline = Instant::now() + PATIENCE;
            while toy.held.lock().len() < count {
                assert!(Instant::now() < deadline, "they hold each other up");
                thread::sleep(Duration::from_millis(2));
            }
            peer
        })
        .collect();
    toy.let_go();
    for mut peer in waiting {
        assert_eq!(peer.reply().body, "GET /hold ");
    }

    door.stop();
    for worker in workers {
        worker.join().expect("no worker panics");
    }
}
