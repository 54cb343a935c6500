//! HTTP: where the doors, which take requests from the network, meet the routes, which answer them.
//!
//! Two doors hand the same [`Request`] to the same [`Service`]: the strict one ([`door`], [`reader`], [`connection`]), which faces
//! the network, and tiny_http's server ([`tiny`]), which wants a checking proxy in front. What a path does is the
//! service's. Nothing here has a thread of its own; each file says on which one it runs.

use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::Arc;

use tiny_http::{Header, StatusCode};

use crate::auth::Asker;
use crate::metrics::DoorMeter;
pub(crate) use canned::Canned;
use connection::Connection;
pub(crate) use problem::Problem;
pub(crate) use request::{Head, Request};

pub(crate) mod batch;
pub(crate) mod body;
mod broadcasts;
mod canned;
pub(crate) mod clients;
pub(crate) mod connection;
pub(crate) mod dead_letters;
pub(crate) mod door;
pub(crate) mod gateways;
#[cfg(test)]
mod hostile;
pub(crate) mod payments;
pub(crate) mod problem;
mod reader;
pub(crate) mod request;
pub(crate) mod room;
pub(crate) mod routes;
#[cfg(test)]
mod tests;
pub(crate) mod tiny;

/// An answer, whole in memory.
pub(crate) type Response = tiny_http::Response<Cursor<Vec<u8>>>;

/// An answer of this status whose body is JSON.
pub(crate) fn json(status: u16, body: Vec<u8>) -> Response {
    whole(status, Some("application/json"), body)
}

/// An answer of this status with this body, of this type.
fn whole(status: u16, content_type: Option<&str>, body: Vec<u8>) -> Response {
    let length = body.len();
    let field = |kind| Header::from_bytes("Content-Type", kind).expect("our own fields are ASCII");
    let fields = content_type.map(field).into_iter().collect();
    Response::new(StatusCode(status), fields, Cursor::new(body), Some(length), None)
        // We always know the length, so a chunked answer would only cost more.
        .with_chunked_threshold(usize::MAX)
}

/// What a request is let in with.
pub(crate) struct Admission {
    /// The most bytes that the body may have. With 0 the request may come without any word on its length; with more, a
    /// `POST` without one is refused (411).
    pub(crate) body_limit: usize,
    /// Whose key it showed.
    pub(crate) asker: Asker,
    /// What is said in place of any problem from here on, to a sender that understands nothing else.
    pub(crate) failure: Option<&'static Canned>,
    /// Its answer may wait for a client, whatever its query says.
    pub(crate) may_wait: bool,
    /// It showed a key or a notify URL's token, or none is asked for: its connection keeps its place.
    pub(crate) known: bool,
}

impl Admission {
    /// For a body of at most so many bytes, and a sender that showed no key and understands problems.
    pub(crate) fn with_body(body_limit: usize) -> Admission {
        Admission { body_limit, asker: Asker::ANYBODY, failure: None, may_wait: false, known: true }
    }
}

/// What the doors hand requests to.
pub(crate) trait Service: Send + Sync {
    /// Judges on the head alone, before a body is read: authentication, path, method, type. Has a peer
    /// wait a moment that only guesses keys, on the connection's own thread; one on loopback never.
    ///
    /// # Errors
    ///
    /// The answer to give at once. If a body was announced it is not read, and the connection is closed.
    fn admit(&self, head: &Head, peer: SocketAddr) -> Result<Admission, Response>;

    /// Does what is asked and answers, now or later, from this thread or another.
    fn handle(&self, request: Request, answer: Answer);

    /// Learns of a request that the door itself refused; `code` is the problem's.
    fn refused(&self, code: &'static str);

    /// Where the door counts its connections, if anybody wants to know.
    fn meter(&self) -> Option<&DoorMeter> {
        None
    }
}

/// Where the answer to one request goes: sent once, from whichever thread, without ever waiting for the peer.
///
/// Dropped unsent, it answers 500 `internal` with `"stored":"unknown"`: somebody was to answer and did not, and what
/// was done until then nobody can say. A sender that does not understand problems gets its failure instead.
pub(crate) struct Answer {
    way: Option<Way>,
    failure: Option<&'static Canned>,
}

/// How an answer reaches its door. The strict door's way needs no allocation of its own.
enum Way {
    Strict(Arc<Connection>),
    Other(Box<dyn FnOnce(Response) + Send>),
}

impl Answer {
    /// An answer that is given to a function, which must not wait.
    pub(crate) fn new(send: Box<dyn FnOnce(Response) + Send>, failure: Option<&'static Canned>) -> Answer {
        Answer { way: Some(Way::Other(send)), failure }
    }

    fn strict(connection: Arc<Connection>, failure: Option<&'static Canned>) -> Answer {
        Answer { way: Some(Way::Strict(connection)), failure }
    }

    /// Sends it. What the peer's socket does not take now is sent as it takes more, by the drainer.
    pub(crate) fn send(mut self, response: Response) {
        match self.way.take() {
            Some(Way::Strict(connection)) => connection.answer(response),
            Some(Way::Other(send)) => send(response),
            None => {}
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Some(way) = self.way.take() else { return };
        let response = in_words_of(self.failure, &Problem::internal().stored_unknown());
        match way {
            Way::Strict(connection) => connection.answer_and_close(response),
            Way::Other(send) => send(response),
        }
    }
}

/// A problem as its sender understands it.
fn in_words_of(failure: Option<&'static Canned>, problem: &Problem) -> Response {
    failure.map_or_else(|| problem.response(), Canned::response)
}
