//! The commands beside `serve`, which is `node.rs`; one a file.
//!
//! Each has a `run` that returns when its work is done. Here is what they share: how one fails,
//! how it opens a connection, how it speaks to the user. They run on the main thread.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::args::UsageError;
use crate::printable::printable;

pub mod bench;
pub mod doctor;
mod http_client;
mod line_client;
pub mod listen;
pub mod notify_url;
pub mod send;
pub mod status;
pub mod token;

/// The time to open a connection, over all addresses of the host.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// Why a command ends without having done its work; its text is one line for the user.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage or configuration: exit status 2.
    Usage(String),
    /// It failed at run time: exit status 1.
    Runtime(String),
}

impl Failure {
    /// The exit status that this failure stands for.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Runtime(_) => ExitCode::from(1),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Usage(line) | Failure::Runtime(line)) = self;
        f.write_str(line)
    }
}

impl Error for Failure {}

impl From<UsageError> for Failure {
    fn from(error: UsageError) -> Self {
        Failure::Usage(error.to_string())
    }
}

/// Tells the user something, as one line on standard error. Nobody need be listening.
pub fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(line));
}

/// Opens a connection to `host:port`, trying each of the host's addresses.
fn connect(address: &str) -> io::Result<TcpStream> {
    let deadline = Instant::now() + CONNECT_TIME;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in address.to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&candidate, left) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// What went wrong, without Rust's "(os error 111)".
fn plainly(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "the other side closed the connection".to_owned(),
        _ => {
            let text = error.to_string();
            let end = text.find(" (os error").unwrap_or(text.len());
            text[..end].to_owned()
        }
    }
}

/// Prints to standard output; `false` when its reader has gone, which is no failure.
fn print(bytes: &[u8]) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Runtime(format!("cannot write to standard output: {}", plainly(&error)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_tells_usage_from_run_time() {
        let usage: Failure = UsageError::new("x").into();
        let status = |failure: &Failure| format!("{:?}", failure.exit_code());
        assert_eq!(status(&usage), format!("{:?}", ExitCode::from(2)));
        let failed = Failure::Runtime("x".into());
        assert_eq!(status(&failed), format!("{:?}", ExitCode::from(1)));
    }
}
