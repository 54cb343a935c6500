//! Why a client's connection ends, and how the client is told.

use crate::frame::error_json;
use crate::framing::Framing;

/// The most characters of our words: a parser's may hold the whole of a client's frame, and every framing must hold ours.
const MAX_WORDS_CHARS: usize = 400;

/// Why a connection ends; the client reads code and words as its last frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    BadJson(String),
    BadFrame(String),
    // Not skipped and forgiven: we no longer know where the next frame starts.
    LineTooLong,
    HelloRequired,
    HelloTimeout,
    Unauthorized,
    InvalidClientId(String),
    TooManyClients,
    /// A newer connection said hello with the same client id.
    Replaced,
    /// An operator closed it.
    Disconnected,
    /// Nothing was received for three heartbeats.
    IdleTimeout,
    /// Something was owed, and for 30 s the socket took none of it.
    TooSlow,
    /// The store cannot be reached, or lost what this connection saw.
    Unavailable(String),
    ShuttingDown,
    /// The client said bye, or is gone. Nothing is said to it.
    Left,
}

impl CloseReason {
    /// The contract's code; none where nothing is said.
    pub(crate) fn code(&self) -> Option<&'static str> {
        Some(match self {
            CloseReason::BadJson(_) => "bad_json",
            CloseReason::BadFrame(_) => "bad_frame",
            CloseReason::LineTooLong => "line_too_long",
            CloseReason::HelloRequired => "hello_required",
            CloseReason::HelloTimeout => "hello_timeout",
            CloseReason::Unauthorized => "unauthorized",
            CloseReason::InvalidClientId(_) => "invalid_client_id",
            CloseReason::TooManyClients => "too_many_clients",
            CloseReason::Replaced => "replaced",
            CloseReason::Disconnected => "disconnected",
            CloseReason::IdleTimeout => "idle_timeout",
            CloseReason::TooSlow => "too_slow",
            CloseReason::Unavailable(_) => "unavailable",
            CloseReason::ShuttingDown => "shutting_down",
            CloseReason::Left => return None,
        })
    }

    fn words(&self) -> &str {
        match self {
            CloseReason::BadJson(why) | CloseReason::BadFrame(why) => why,
            CloseReason::InvalidClientId(why) | CloseReason::Unavailable(why) => why,
            CloseReason::LineTooLong => "a line, or a frame behind its length, is at most 65536 bytes",
            CloseReason::HelloRequired => "the first line, or frame, must be a hello",
            CloseReason::HelloTimeout => "no hello within 10 s of connecting",
            CloseReason::Unauthorized => "the token is not this client's",
            CloseReason::TooManyClients => "this node holds as many connections as it can",
            CloseReason::Replaced => "another connection took over this client id",
            CloseReason::Disconnected => "an operator closed this connection",
            CloseReason::IdleTimeout => "nothing was received for three heartbeats",
            CloseReason::TooSlow => "the socket took nothing for 30 s",
            CloseReason::ShuttingDown => "this node is stopping; connect again",
            CloseReason::Left => "",
        }
    }

    /// The last frame, if one is said.
    pub(crate) fn last_word(&self, framing: Framing) -> Option<Vec<u8>> {
        let words: String = self.words().chars().take(MAX_WORDS_CHARS).collect();
        framing.wrap(error_json(self.code()?, &words).as_bytes()).ok()
    }
}
