//! The doors over real sockets: what they promise to senders, and what no sender can do to them.
//!
//! Each file has one promise; here is what they share: a door before a service that is a toy. Thirteen things stop,
//! starve or fool tiny_http's server (README.md, *Two HTTP doors*). Each has a test, which bears its number, in
//! [`ambiguity`] or [`hostile_crowds`].

mod ambiguity;
mod bodies;
mod endings;
mod hostile_crowds;
mod many_requests;
mod peer;
mod refusals;
mod side_door;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tiny_http::Method;

use super::door::{Door, Limits};
use super::{Admission, Answer, Canned, Head, Problem, Request, Response, Service, json};
use crate::drainer::{self, Drainer};
use peer::Peer;

const BODY_LIMIT: usize = 1000;
/// The longest that a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the answer to a guess takes.
const GUESS: Duration = Duration::from_millis(200);
/// A request without a body.
const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

/// What a sender that shows the header `Canned` understands in place of a problem.
static SORRY: Canned = Canned { status: 200, content_type: Some("text/plain"), body: "sorry" };

/// Limits under which a test need not wait long.
fn short(request_ms: u64, idle_ms: u64) -> Limits {
    Limits {
        request_time: Duration::from_millis(request_ms),
        idle_time: Duration::from_millis(idle_ms),
        linger_time: Duration::from_millis(200),
        ..Limits::default()
    }
}

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

/// The strict door before a toy, with its threads.
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
