//! Thread body `tiny-N`: the side door, tiny_http's server with a fixed number of workers.
//!
//! For loopback only, behind a proxy that buffers and checks requests: tiny_http trusts lengths that are announced and
//! waits for slow peers without end, and nothing after it can cure that. What it does pass on is checked by the strict
//! door's rules, and goes to the same service.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

use super::request::{Framing, Head, HeadEnd, Request};
use super::{Admission, Answer, Canned, Problem, Response, Service, in_words_of};

/// How many threads are to run [`SideDoor::work`].
pub(crate) const WORKERS: usize = 16;

/// Longer than any `?wait` with the time that the store may take.
const ANSWER_TIME: Duration = Duration::from_secs(35);

/// Requests that may wait on threads of their own at a time.
pub(crate) const MAX_WAITING: usize = 1024;

/// The side door.
pub(crate) struct SideDoor {
    server: tiny_http::Server,
    service: Arc<dyn Service>,
    head_bytes: usize,
    stopping: AtomicBool,
    waiting: Arc<AtomicUsize>,
}

/// A request on its way to the service, and where tiny_http takes the answer.
struct Errand {
    taken: tiny_http::Request,
    request: Request,
    /// What the sender understands in place of a problem.
    failure: Option<&'static Canned>,
    may_wait: bool,
    service: Arc<dyn Service>,
}

impl SideDoor {
    /// Opens the side door over a listener; tiny_http starts its acceptor at once.
    ///
    /// # Errors
    ///
    /// tiny_http cannot use the listener.
    pub(crate) fn new(listener: TcpListener, service: Arc<dyn Service>, head_bytes: usize) -> io::Result<SideDoor> {
        let server = tiny_http::Server::from_listener(listener, None).map_err(io::Error::other)?;
        Ok(SideDoor { server, service, head_bytes, stopping: AtomicBool::new(false), waiting: Arc::default() })
    }

    /// The thread body of each worker: returns after [`SideDoor::stop`], or because tiny_http's acceptor has ended,
    /// which it does for ever at its first error.
    pub(crate) fn work(&self) {
        loop {
            match self.server.recv() {
                Ok(taken) => self.serve(taken),
                Err(_) if self.stopping.load(Ordering::SeqCst) => return,
                Err(error) => return log::error!("http: tiny_http accepts no more: {error}"),
            }
        }
    }

    /// Ends the workers, each after the request it is at.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        (0..WORKERS).for_each(|_| self.server.unblock());
    }

    /// Waits until those that wait on threads of their own are answered, or the deadline comes.
    pub(crate) fn drained(&self, deadline: Instant) {
        while self.waiting.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn serve(&self, mut taken: tiny_http::Request) {
        match self.read(&mut taken) {
            Ok((request, Admission { failure, may_wait, .. })) => {
                let may_wait = may_wait || asks_to_wait(&request.head);
                self.dispatch(Errand { taken, request, failure, may_wait, service: self.service.clone() });
            }
            Err(response) => respond(taken, response),
        }
    }

    /// The request as the strict door would have read it.
    fn read(&self, taken: &mut tiny_http::Request) -> Result<(Request, Admission), Response> {
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let peer = taken.remote_addr().copied().unwrap_or(unknown);
        let head = parse(taken, self.head_bytes).map_err(|problem| self.refuse(None, &problem))?;
        let admission = self.service.admit(&head, peer)?;
        let body = read_body(taken, &head, admission.body_limit);
        let body = body.map_err(|problem| self.refuse(admission.failure, &problem))?;
        Ok((Request { head, body, peer, asker: admission.asker, begun: None }, admission))
    }

    fn refuse(&self, failure: Option<&'static Canned>, problem: &Problem) -> Response {
        self.service.refused(problem.code());
        in_words_of(failure, problem)
    }

    /// Does it here, or on a thread of its own if it may wait for a client: else a few such hold up everybody.
    fn dispatch(&self, errand: Errand) {
        if !errand.may_wait {
            return errand.run();
        }
        let refuse = |errand: Errand| {
            respond(errand.taken, self.refuse(errand.failure, &Problem::too_many_connections()));
        };
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return refuse(errand);
        }
        let waiting = self.waiting.clone();
        // Sent once the thread is there: what a failed start is given is lost, and the answer with it.
        let (errand_tx, errand_rx) = bounded::<Errand>(1);
        let spawned = thread::Builder::new().name("tiny-wait".to_string()).spawn(move || {
            if let Ok(errand) = errand_rx.recv() {
                errand.run();
            }
            waiting.fetch_sub(1, Ordering::SeqCst);
        });
        if spawned.is_err() {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return refuse(errand);
        }
        // The thread has the other end until this has come.
        let _ = errand_tx.send(errand);
    }
}

impl Errand {
    fn run(self) {
        let (answer_tx, answer_rx) = bounded(1);
        let send = Box::new(move |response| {
            let _ = answer_tx.try_send(response);
        });
        let answer = Answer::new(send, self.failure);
        self.service.handle(self.request, answer);
        let response = answer_rx.recv_timeout(ANSWER_TIME).unwrap_or_else(|_| {
            let problem = Problem::unavailable("no answer in time");
            in_words_of(self.failure, &problem.stored_unknown())
        });
        respond(self.taken, response);
    }
}

fn respond(taken: tiny_http::Request, response: Response) {
    if let Err(error) = taken.respond(response) {
        log::debug!("http: an answer could not be sent: {error}");
    }
}

/// Writes the head down again and reads that strictly, so that both doors have one set of rules.
fn parse(taken: &tiny_http::Request, limit: usize) -> Result<Head, Problem> {
    let version = taken.http_version();
    let mut text = format!("{} {} HTTP/{version}\r\n", taken.method(), taken.url());
    for field in taken.headers() {
        text.push_str(&format!("{field}\r\n"));
    }
    text.push_str("\r\n");
    match HeadEnd::default().find(text.as_bytes(), limit)? {
        Some(length) => Head::parse(&text.as_bytes()[..length]),
        None => Err(Problem::bad_request("the head is cut short")),
    }
}

fn read_body(taken: &mut tiny_http::Request, head: &Head, limit: usize) -> Result<Vec<u8>, Problem> {
    let most = limit as u64;
    if head.lacks_length() && limit > 0 {
        return Err(Problem::length_required());
    }
    if matches!(head.framing(), Framing::Length(length) if length > most) {
        return Err(Problem::body_too_large(limit));
    }
    if !head.has_body() {
        return Ok(Vec::new());
    }
    if upgrades(head) {
        return Err(Problem::bad_request("no upgrade is spoken here"));
    }
    let announced = match head.framing() {
        Framing::Length(length) => length,
        Framing::None | Framing::Chunked => most + 1,
    };
    let mut body = Vec::new();
    taken
        .as_reader()
        .take(announced)
        .read_to_end(&mut body)
        .map_err(|_| Problem::bad_request("the body could not be read"))?;
    if body.len() > limit {
        return Err(Problem::body_too_large(limit));
    }
    if matches!(head.framing(), Framing::Length(length) if length != body.len() as u64) {
        return Err(Problem::bad_request("the body ended before it was whole"));
    }
    Ok(body)
}

/// Whether tiny_http takes it for an upgrade, and then gives us the bare connection for a body.
fn upgrades(head: &Head) -> bool {
    head.headers_named("connection").any(|value| value.to_ascii_lowercase().contains("upgrade"))
}

fn asks_to_wait(head: &Head) -> bool {
    head.query_pairs().any(|(name, _)| name == "wait")
}
