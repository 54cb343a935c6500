//! No sender, and no crowd of them, stops or starves the door for the others.
//!
//! The numbers are those of the thirteen, see [`super`].

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::peer::Peer;
use super::{GET, PATIENCE, Scene, short};
use crate::doorstep::MOST_LEAVING;
use crate::http::door::Limits;

/// 3
#[test]
fn another_version_is_answered_and_leaves_nothing_behind() {
    let scene = Scene::new();
    for _ in 0..20 {
        let mut peer = scene.peer();
        peer.say("GET / HTTP/2.0\r\n\r\n");
        peer.expect_problem(505, "version_not_supported");
    }
    scene.wait_for("their threads' end", |scene| scene.door.connections() == 0);
}

/// 4
#[test]
fn stalled_bodies_hold_up_nobody_else() {
    let scene = Scene::new();
    let _stalled: Vec<_> = [
        "Content-Length: 900\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
        "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        "Connection: upgrade\r\nContent-Length: 900\r\n\r\nx",
    ]
    .iter()
    .cycle()
    .take(64)
    .map(|rest| {
        let mut peer = scene.peer();
        peer.say(format!("POST /a HTTP/1.1\r\nHost: x\r\n{rest}"));
        peer
    })
    .collect();
    scene.wait_for("all", |scene| scene.door.connections() == 64);
    scene.expect_good_service();
}

/// 5
#[test]
fn a_burst_of_connections_is_served_whole() {
    let scene = Scene::new();
    let mut peers: Vec<_> = (0..64).map(|_| scene.peer()).collect();
    for peer in &mut peers {
        peer.say(GET);
    }
    for peer in &mut peers {
        assert_eq!(peer.reply().body, "GET /a ");
    }
}

/// 6, for as far as one process can try it: the limit on connections, which is there so that descriptors do not run
/// out.
#[test]
fn past_the_connection_cap_a_503_is_said_and_room_is_used_again() {
    let scene = Scene::with(Limits { max_connections: 2, ..Limits::default() });
    let (mut first, mut second) = (scene.peer(), scene.peer());
    first.ask("GET /a HTTP/1.1", "");
    second.ask("GET /a HTTP/1.1", "");
    for _ in 0..3 {
        scene.peer().expect_problem(503, "too_many_connections");
    }
    assert_eq!(*scene.toy.refused.lock(), ["too_many_connections"; 3]);
    first.ask("GET /a HTTP/1.1", "");
    drop(second);
    scene.wait_for("a free place", |scene| scene.door.connections() == 1);
    scene.expect_good_service();
}

/// Whoever was sent away does not stay for all that it had sent by then: else a few such, and nobody else could be.
#[test]
fn strangers_that_ask_and_ask_make_room() {
    let scene = Scene::with(Limits { max_connections: MOST_LEAVING + 1, ..Limits::default() });
    let crowd = || {
        let mut stranger = scene.peer();
        // Far more than can be answered while the test lasts.
        stranger.say("GET /guess HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500));
        stranger
    };
    let _strangers: Vec<Peer> = (0..=MOST_LEAVING).map(|_| crowd()).collect();
    let mut inside = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while inside.len() <= MOST_LEAVING {
        assert!(Instant::now() < deadline, "only {} were let in", inside.len());
        let mut newcomer = scene.peer();
        // It may be turned away before it has said anything.
        let _ = newcomer.socket.write_all(GET.as_bytes());
        let mut start = [0; 12];
        if newcomer.socket.read_exact(&mut start).is_ok() && &start == b"HTTP/1.1 200" {
            inside.push(newcomer);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// 7, the part that can be tried here: connections come and go, and every thread ends.
#[test]
fn threads_end_with_their_connections() {
    let scene = Scene::new();
    for _ in 0..200 {
        drop(scene.peer());
    }
    scene.wait_for("the end of all", |scene| scene.door.connections() == 0);
    scene.expect_good_service();
}

/// 8
#[test]
fn a_head_without_end_is_cut_off() {
    let scene = Scene::new();
    let mut peer = scene.peer();
    let flood = vec![b'a'; 1 << 20];
    let mut text = b"GET / HTTP/1.1\r\nHost: x\r\nA: ".to_vec();
    text.extend_from_slice(&flood[..16 << 10]);
    peer.say(&text);
    peer.expect_problem(431, "head_too_large");

    let mut peer = scene.peer();
    peer.say(format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(64)));
    peer.expect_problem(431, "head_too_large");

    // Who floods on is reset, sooner or later.
    let mut peer = scene.peer();
    let begun_at = Instant::now();
    while peer.socket.write_all(&flood).is_ok() {
        assert!(begun_at.elapsed() < PATIENCE, "it is still read");
    }
    scene.expect_good_service();
}

/// 9
#[test]
fn silent_and_dribbling_senders_do_not_stay() {
    let scene = Scene::with(short(200, 200));
    let _silent: Vec<_> = (0..10).map(|_| scene.peer()).collect();
    let mut dribbling = scene.peer();
    dribbling.say("G");
    scene.wait_for("all", |scene| scene.door.connections() > 0);
    scene.wait_for("the end of all", |scene| scene.door.connections() == 0);
}

/// 10
#[test]
fn who_pipelines_and_never_reads_hurts_nobody_and_is_given_up() {
    let limits = short(10_000, 60_000);
    let scene = Scene::with_drainer(limits, Duration::from_millis(500));
    let mut peer = scene.peer();
    peer.say("GET /big HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20));
    scene.wait_for("the first", |scene| scene.toy.handled() >= 1);
    scene.expect_good_service();
    // At most what the kernel swallows: eight MiB do not fit, so the others are not even begun.
    assert!(scene.toy.handled() < 5, "{}", scene.toy.handled());
    scene.wait_for("its end", |scene| scene.door.connections() == 0);
}

/// 13
#[test]
fn a_connection_costs_one_descriptor_and_the_cap_is_kept() {
    let scene = Scene::with(Limits { max_connections: 50, ..Limits::default() });
    let mut peers: Vec<_> = (0..50).map(|_| scene.peer()).collect();
    for peer in &mut peers {
        peer.ask("GET /a HTTP/1.1", "");
    }
    assert_eq!(scene.door.connections(), 50);
    scene.peer().expect_problem(503, "too_many_connections");
}
