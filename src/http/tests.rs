//! The strict door over real sockets: what it promises to senders, and what no sender can do to it.
//!
//! The second half has a test for each of the thirteen things that stop, starve or fool tiny_http's server (README.md,
//! *Two HTTP doors*).

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tiny_http::Method;

use super::door::{Door, Limits};
use super::room::FREE_BODY_BYTES;
use super::tiny::{SideDoor, WORKERS};
use super::{Admission, Answer, Canned, Head, Problem, Request, Response, Service, json};
use crate::doorstep::MOST_LEAVING;
use crate::drainer::{self, Drainer};

const BODY_LIMIT: usize = 1000;
/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the answer to a guess takes.
const GUESS: Duration = Duration::from_millis(200);

/// What a sender that shows the header `Canned` understands in place of a problem.
static SORRY: Canned = Canned { status: 200, content_type: Some("text/plain"), body: "sorry" };

/// Answers with what it was asked: method, target and body. Some paths do more, see [`Toy::handle`].
#[derive(Default)]
struct Toy {
    /// Answers that wait until the test lets them go.
    held: Mutex<Vec<(String, Answer)>>,
    handled: AtomicUsize,
    refused: Mutex<Vec<&'static str>>,
    /// While it is locked, some requests are being handled.
    slow: Mutex<()>,
}

impl Service for Toy {
    fn admit(&self, head: &Head, _peer: SocketAddr) -> Result<Admission, Response> {
        match (head.method(), head.path()) {
            (_, "/nowhere") => Err(Problem::not_found("not here").response()),
            // As somebody who guesses keys is answered.
            (_, "/guess") => {
                thread::sleep(GUESS);
                Err(Problem::not_found("not here").response())
            }
            (_, "/admit-panics") => panic!("a fault in admit, made by the test"),
            (_, "/slow") => Ok(Admission::with_body(1 << 20)),
            (Method::Get | Method::Head | Method::Options, _) | (_, "/no-body") => Ok(Admission::with_body(0)),
            _ => Ok(Admission { failure: head.header("Canned").map(|_| &SORRY), ..Admission::with_body(BODY_LIMIT) }),
        }
    }

    fn handle(&self, request: Request, answer: Answer) {
        self.handled.fetch_add(1, Ordering::SeqCst);
        let text =
            format!("{} {} {}", request.head.method(), request.head.path(), String::from_utf8_lossy(&request.body));
        match request.head.path() {
            "/panic" => panic!("a fault in handle, made by the test"),
            "/drop" => drop(answer),
            "/slow" => {
                drop(self.slow.lock());
                answer.send(json(200, text.into_bytes()));
            }
            "/hold" => self.held.lock().push((text, answer)),
            "/big" => answer.send(json(200, vec![b'x'; 8 << 20])),
            "/later" => {
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(20));
                    answer.send(json(200, text.into_bytes()));
                });
            }
            _ => answer.send(json(200, text.into_bytes())),
        }
    }

    fn refused(&self, code: &'static str) {
        self.refused.lock().push(code);
    }
}

impl Toy {
    fn let_go(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        for (text, answer) in held {
            answer.send(json(200, text.into_bytes()));
        }
    }

    fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }
}

struct Scene {
    door: Arc<Door>,
    toy: Arc<Toy>,
    drainer: Arc<Drainer>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl Scene {
    fn new() -> Scene {
        Scene::with(Limits::default())
    }

    fn with(limits: Limits) -> Scene {
        Scene::with_drainer(limits, drainer::PATIENCE)
    }

    fn with_drainer(limits: Limits, patience: Duration) -> Scene {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let address = listener.local_addr().expect("it is bound");
        let toy = Arc::new(Toy::default());
        let drainer = Arc::new(Drainer::with_patience(patience).expect("a descriptor can be had"));
        let door = Arc::new(Door::new(listener, toy.clone(), drainer.clone(), limits));
        let (own_door, own_drainer) = (door.clone(), drainer.clone());
        let threads = vec![thread::spawn(move || own_door.accept()), thread::spawn(move || drainer::run(&own_drainer))];
        Scene { door, toy, drainer, address, threads }
    }

    fn peer(&self) -> Peer {
        Peer::connect(self.address)
    }

    /// One request on a connection of its own; what came until its end.
    fn say(&self, text: impl AsRef<[u8]>) -> String {
        let mut peer = self.peer();
        peer.say(text);
        peer.rest()
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&Scene) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "in vain: {what}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// An honest sender is served at once, whatever the others do.
    fn expect_good_service(&self) {
        let asked_at = Instant::now();
        assert_eq!(self.peer().ask("GET /canary HTTP/1.1", ""), "GET /canary ");
        assert!(asked_at.elapsed() < Duration::from_secs(1));
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.toy.let_go();
        self.door.stop();
        self.drainer.stop();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "a thread panicked");
        }
    }
}

/// The other side of a connection.
struct Peer {
    socket: TcpStream,
    input: Vec<u8>,
}

#[derive(Debug, PartialEq)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn closes(&self) -> bool {
        self.head.contains("\r\nConnection: close\r\n")
    }

    /// The status and the code of a problem.
    fn problem(&self) -> (u16, String) {
        assert!(self.head.contains("application/problem+json"), "{self:?}");
        let page: serde_json::Value = serde_json::from_str(&self.body).expect("it is JSON");
        assert_eq!(page["status"], self.status);
        (self.status, page["code"].as_str().expect("a code").to_string())
    }
}

impl Peer {
    fn connect(address: SocketAddr) -> Peer {
        let socket = TcpStream::connect(address).expect("the door is open");
        socket.set_read_timeout(Some(PATIENCE)).expect("it is set");
        Peer { socket, input: Vec::new() }
    }

    fn say(&mut self, text: impl AsRef<[u8]>) {
        self.socket.write_all(text.as_ref()).expect("it is taken");
    }

    /// A proper request; returns the body of its answer.
    fn ask(&mut self, line: &str, body: &str) -> String {
        let length = body.len();
        self.say(format!("{line}\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"));
        let reply = self.reply();
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.body
    }

    fn more(&mut self) -> usize {
        let mut piece = [0; 65_536];
        let read = self.socket.read(&mut piece).expect("it comes in time");
        self.input.extend_from_slice(&piece[..read]);
        read
    }

    /// A head, without what follows it.
    fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.input.drain(..end + 4).collect();
                return String::from_utf8(head).expect("it is text");
            }
            let came = String::from_utf8_lossy(&self.input).into_owned();
            assert!(self.more() > 0, "closed after {came:?}");
        }
    }

    fn reply(&mut self) -> Reply {
        self.reply_to(false)
    }

    fn reply_to(&mut self, head_only: bool) -> Reply {
        let head = self.head();
        let status = head[9..12].parse().expect("a status");
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().expect("a number"));
        let length = if head_only { 0 } else { length };
        while self.input.len() < length {
            assert!(self.more() > 0, "closed in the middle of a body");
        }
        let body = self.input.drain(..length).collect();
        Reply { status, head, body: String::from_utf8(body).expect("it is text") }
    }

    /// Everything until the connection is closed.
    fn rest(&mut self) -> String {
        while self.more() > 0 {}
        String::from_utf8(std::mem::take(&mut self.input)).expect("it is text")
    }

    /// The connection is closed, properly, and nothing more is said.
    fn expect_end(&mut self) {
        assert_eq!(self.rest(), "");
    }

    /// A problem that ends the connection.
    fn expect_problem(&mut self, status: u16, code: &str) {
        let reply = self.reply();
        assert_eq!(reply.problem(), (status, code.to_string()));
        assert!(reply.closes(), "{reply:?}");
        self.expect_end();
    }
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

fn short(request_ms: u64, idle_ms: u64) -> Limits {
    Limits {
        request_time: Duration::from_millis(request_ms),
        idle_time: Duration::from_millis(idle_ms),
        linger_time: Duration::from_millis(200),
        ..Limits::default()
    }
}

// What senders can rely on.

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

// What tiny_http's server did not survive.

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

/// 6, for as far as one process can try it: the limit on connections, which is there so that descriptors do not run out.
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

// The side door.

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
