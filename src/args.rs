//! The command line: every flag once, with its variable, default, unit, check and help text.
//!
//! Here stand the commands and what the smaller ones take. What a value may be is checked one by one when it is read
//! (`value`), together in [`ServeArgs::check`] and [`BenchArgs::check`]. Whether a port is free or a file readable is
//! left to who uses it. Runs on the main thread, before there is any other.
//!
//! Source: README.md, *Configuration*.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use self::value::{client_id, count_in, gateway, host_and_port, seconds_in};
use crate::payment::ClientId;

mod bench;
mod command_line;
pub(crate) mod node_name;
mod redis_url;
mod report;
pub(crate) mod serve;
mod tcp_address;
mod value;

pub use self::bench::BenchArgs;
pub use self::command_line::parse;
pub use self::node_name::default_node_name;
pub use self::redis_url::RedisUrl;
pub(crate) use self::serve::is_loopback;
pub use self::serve::{Durability, GatewayAnswer, HttpServer, ServeArgs};
pub use self::tcp_address::TcpAddress;

/// The most that a body limit may be set to: a body is whole in memory, and six times that as a line at the worst.
pub(crate) const MAX_BODY_BYTES: usize = 16 << 20;
/// More than any machine holds, and little enough to be multiplied by a payment's size.
const MAX_EXPECTED: usize = 1_000_000_000;

/// What the user asked for.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a node: take payments over HTTP, deliver them over TCP
    Serve(ServeArgs),
    /// Receive a client's payments: print each as a JSON line and acknowledge it
    Listen(ListenArgs),
    /// Send one payment
    Send(SendArgs),
    /// Show who is online and who has payments waiting
    Status(StatusArgs),
    /// Print a client's TCP token
    Token(TokenArgs),
    /// Check what the promises hang on, before a node starts or beside it; changes nothing
    Doctor(Box<DoctorArgs>),
    /// Print the path of a client's notify URL, for a payment gateway
    NotifyUrl(NotifyUrlArgs),
    /// Put a node under load and check that every payment arrives once, in order and unchanged
    Bench(BenchArgs),
}

/// What `payrelay listen` takes.
#[derive(Args, Clone, Debug)]
pub struct ListenArgs {
    /// The client to receive for
    #[arg(long, value_name = "ID", value_parser = client_id)]
    pub client: ClientId,

    /// A node's TCP address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7070", value_parser = host_and_port)]
    pub server: String,

    /// The client's token, as `payrelay token` prints it
    #[arg(long, env = "PAYRELAY_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,

    /// Acknowledge nothing, so that every payment stays in the inbox
    #[arg(long)]
    pub no_ack: bool,

    /// Leave after so many payments
    #[arg(long, value_name = "PAYMENTS", value_parser = count_in(1, usize::MAX))]
    pub count: Option<usize>,
}

/// What `payrelay send` takes.
#[derive(Args, Clone, Debug)]
pub struct SendArgs {
    /// The client that shall receive it
    #[arg(long, value_name = "ID", value_parser = client_id)]
    pub client: ClientId,

    /// The payment: any JSON; - reads it from standard input
    #[arg(value_name = "MESSAGE", allow_negative_numbers = true)]
    pub message: String,

    /// A node's HTTP address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub server: String,

    /// Your own id of the payment: the same one again stores nothing
    #[arg(long, value_name = "ID")]
    pub payment_id: Option<String>,

    /// The kind of message [default: payments]
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,

    /// Wait up to so long for the client's acknowledgement (1 to 30)
    #[arg(long, value_name = "SECONDS", value_parser = seconds_in(1, 30))]
    pub wait: Option<Duration>,

    /// The API key
    #[arg(long, env = "PAYRELAY_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<Secret>,
}

/// What `payrelay status` takes.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Only this client
    #[arg(value_name = "CLIENT", value_parser = client_id)]
    pub client: Option<ClientId>,

    /// A node's HTTP address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub server: String,

    /// The API key
    #[arg(long, env = "PAYRELAY_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<Secret>,

    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// What `payrelay token` takes.
#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    /// Whose token
    #[arg(value_name = "CLIENT", value_parser = client_id)]
    pub client: ClientId,

    /// The file that `payrelay serve` is given
    #[arg(long, env = "PAYRELAY_CLIENT_SECRET_FILE", value_name = "FILE")]
    pub client_secret_file: PathBuf,
}

/// What `payrelay doctor` takes: a node's settings, and the load that it shall carry.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {
    /// The settings of the node.
    #[command(flatten)]
    pub serve: ServeArgs,

    /// Expected clients, on all nodes together
    #[arg(long, value_name = "CLIENTS", default_value = "0", value_parser = count_in(0, MAX_EXPECTED))]
    pub expect_clients: usize,

    /// Expected payments that wait at the worst time, of all clients together
    #[arg(long, value_name = "PAYMENTS", default_value = "0", value_parser = count_in(0, MAX_EXPECTED))]
    pub expect_pending: usize,

    /// Expected payments with a payment id within the dedup window
    #[arg(long, value_name = "IDS", default_value = "0", value_parser = count_in(0, MAX_EXPECTED))]
    pub expect_ids: usize,

    /// Expected size of a message
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = count_in(1, MAX_BODY_BYTES))]
    pub expect_size: usize,
}

/// What `payrelay notify-url` takes.
#[derive(Args, Clone, Debug)]
pub struct NotifyUrlArgs {
    /// The gateway: one of those that `payrelay serve --gateways` takes
    #[arg(value_name = "PROFILE", value_parser = gateway)]
    pub profile: &'static str,

    /// Who shall receive its notifications
    #[arg(value_name = "CLIENT", value_parser = client_id)]
    pub client: ClientId,

    /// The file that `payrelay serve` is given
    #[arg(long, env = "PAYRELAY_CLIENT_SECRET_FILE", value_name = "FILE")]
    pub client_secret_file: PathBuf,
}

/// Wrong usage: one line that says what is wrong and how to mend it. Exit status 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl UsageError {
    /// An error with this line, which must hold no secret.
    pub fn new(line: impl Into<String>) -> Self {
        UsageError(line.into())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for UsageError {}

/// A text that no log and no error may show: a token, an API key.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself, to be sent and never to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Secret(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
