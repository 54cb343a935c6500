//! The command line: every flag once, with its variable, default, unit, check and help text.
//!
//! What a value may be is checked here, one by one when it is read, together in
//! [`ServeArgs::check`]. Whether a port is free or a file readable is left to who uses it. Runs on
//! the main thread, before there is any other.
//!
//! Source: README.md, *Configuration*.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use self::report::{one_line, shown};
use crate::http::routes::MAX_BATCH_BYTES;
use crate::payment::{ClientId, GATEWAY_PROFILES};

mod redis_url;
mod report;
mod tcp_address;

pub use self::redis_url::RedisUrl;
pub use self::tcp_address::TcpAddress;

/// The most that a body limit may be set to: a body is whole in memory, and six times that as a line at the worst.
pub(crate) const MAX_BODY_BYTES: usize = 16 << 20;
/// A year: every remembered payment id takes room in the store.
pub(crate) const MAX_DEDUP_WINDOW_SECS: u64 = 365 * 24 * 3600;
/// As a client id, for it stands where one may.
pub(crate) const MAX_NODE_NAME_BYTES: usize = 128;
/// An hour: a client that is gone for longer than three of them should be known to be.
const MAX_HEARTBEAT_SECS: u64 = 3600;
/// What is unacknowledged is remembered for each client, 16 bytes a payment.
pub(crate) const MAX_WINDOW: usize = 65_536;
/// More than any Redis has.
const MAX_REPLICAS: usize = 64;
/// What stands around the message in a line of a batch, with the longest client id.
const MAX_BENCH_ENVELOPE_BYTES: usize = 160;
/// More than any machine holds, and little enough to be multiplied by a payment's size.
const MAX_EXPECTED: usize = 1_000_000_000;
/// Longer ones leave no room in a client id for the number.
const MAX_PREFIX_BYTES: usize = 120;

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

/// The settings of `payrelay serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Where to take payments (HTTP); port 0 picks a free one
    #[arg(long, env = "PAYRELAY_HTTP", value_name = "IP:PORT", default_value = "127.0.0.1:8080", value_parser = address)]
    pub http: SocketAddr,

    /// Where clients connect (TCP): lines, or u16be@ or u32be@ for frames behind their length; may be given several times, in the variable separated by commas
    #[arg(long, env = "PAYRELAY_TCP", value_name = "[FRAMING@]IP:PORT", default_value = "127.0.0.1:7070", value_delimiter = ',', value_parser = TcpAddress::parse)]
    pub tcp: Vec<TcpAddress>,

    /// Keep the inboxes in this Redis, which several nodes may share
    #[arg(long, env = "PAYRELAY_REDIS", value_name = "URL", hide_env_values = true, conflicts_with = "data_dir", value_parser = RedisUrl::parse)]
    pub redis: Option<RedisUrl>,

    /// Without --redis: keep the inboxes in this directory; one node only
    #[arg(long, env = "PAYRELAY_DATA_DIR", value_name = "DIR", default_value = "./payrelay-data")]
    pub data_dir: PathBuf,

    /// This node's name; every node of a deployment needs its own [default: host name and HTTP port]
    #[arg(long, env = "PAYRELAY_NODE", value_name = "NAME", value_parser = node_name)]
    pub node: Option<String>,

    /// API keys for HTTP, one a line, at least 16 characters each; behind a key what it may do: send, read, admin [default: all]
    #[arg(long, env = "PAYRELAY_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,

    /// Secret that clients' tokens are made of, one a line: the first makes them, all are accepted
    #[arg(long, env = "PAYRELAY_CLIENT_SECRET_FILE", value_name = "FILE")]
    pub client_secret_file: Option<PathBuf>,

    /// Serve other machines without API keys or client secret
    #[arg(long, env = "PAYRELAY_INSECURE", value_parser = truth)]
    pub insecure: bool,

    /// Silence after which a client is pinged; after three of them it is closed (1 to 3600)
    #[arg(long, env = "PAYRELAY_HEARTBEAT", value_name = "SECONDS", default_value = "30", value_parser = seconds_in(1, MAX_HEARTBEAT_SECS))]
    pub heartbeat: Duration,

    /// Payments that may be unacknowledged on one connection at once (1 to 65536)
    #[arg(long, env = "PAYRELAY_WINDOW", value_name = "PAYMENTS", default_value = "256", value_parser = count_in(1, MAX_WINDOW))]
    pub window: usize,

    /// Connected clients, at most [default: what the machine can hold]
    #[arg(long, env = "PAYRELAY_MAX_CLIENTS", value_name = "CLIENTS", value_parser = count_in(1, usize::MAX))]
    pub max_clients: Option<usize>,

    /// Payments one client's inbox may hold (and at most 256 MiB of them)
    #[arg(long, env = "PAYRELAY_INBOX_LIMIT", value_name = "PAYMENTS", default_value = "100000", value_parser = count_in(1, usize::MAX))]
    pub inbox_limit: usize,

    /// The largest request body (1 to 16777216)
    #[arg(long, env = "PAYRELAY_BODY_LIMIT", value_name = "BYTES", default_value = "262144", value_parser = count_in(1, MAX_BODY_BYTES))]
    pub body_limit: usize,

    /// How long a payment id is remembered (1 to 31536000)
    #[arg(long, env = "PAYRELAY_DEDUP_WINDOW", value_name = "SECONDS", default_value = "604800", value_parser = seconds_in(1, MAX_DEDUP_WINDOW_SECS))]
    pub dedup_window: Duration,

    /// Who takes HTTP connections; tiny_http on loopback only, behind a proxy that checks requests
    #[arg(long, env = "PAYRELAY_HTTP_SERVER", value_name = "SERVER", default_value = "strict")]
    pub http_server: HttpServer,

    /// HTTP connections, at most [default: what the machine can hold]
    #[arg(long, env = "PAYRELAY_MAX_HTTP", value_name = "CONNECTIONS", value_parser = count_in(1, usize::MAX))]
    pub max_http: Option<usize>,

    /// Payment gateways whose notifications are taken, separated by commas; they need --client-secret-file
    #[arg(long, env = "PAYRELAY_GATEWAYS", value_name = "LIST", value_delimiter = ',', value_parser = gateway)]
    pub gateways: Vec<&'static str>,

    /// When a gateway is told that its notification arrived
    #[arg(long, env = "PAYRELAY_GATEWAY_ANSWER", value_name = "WHEN", default_value = "stored")]
    pub gateway_answer: GatewayAnswer,

    /// How safely Redis must write before this node calls itself ready
    #[arg(long, env = "PAYRELAY_REQUIRE_DURABILITY", value_name = "LEVEL", default_value = "everysec")]
    pub require_durability: Durability,

    /// With --redis: how many replicas must have a payment before its sender hears of it (0 to 64)
    #[arg(long, env = "PAYRELAY_WAIT_REPLICAS", value_name = "REPLICAS", default_value = "0", value_parser = count_in(0, MAX_REPLICAS))]
    pub wait_replicas: usize,
}

/// Who takes the HTTP connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum HttpServer {
    /// Our own strict reader
    Strict,
    /// tiny_http's server
    TinyHttp,
}

/// When a payment gateway is told success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GatewayAnswer {
    /// Once the notification is in the inbox
    Stored,
    /// Once the client acknowledged it
    Acknowledged,
}

/// How safely the store must keep what it took, from the strongest down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Durability {
    /// On disk before each answer
    Always,
    /// On disk within a second
    Everysec,
    /// Whatever Redis is set to
    Any,
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

/// What `payrelay bench` takes.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Nodes' HTTP addresses, separated by commas; senders are spread over them
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_delimiter = ',')]
    pub http: Vec<String>,

    /// Nodes' TCP addresses, separated by commas; clients are spread over them
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7070", value_delimiter = ',', value_parser = host_and_port)]
    pub tcp: Vec<String>,

    /// Connected clients (1 to 100000)
    #[arg(long, value_name = "CLIENTS", default_value = "100", value_parser = count_in(1, 100_000))]
    pub clients: usize,

    /// Connections that post, at most one for each client (1 to 1024)
    #[arg(long, value_name = "CONNECTIONS", default_value = "16", value_parser = count_in(1, 1024))]
    pub senders: usize,

    /// How long to send (1 to 3600)
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds_in(1, 3600))]
    pub seconds: Duration,

    /// Payments a second, at fixed times whether or not the server keeps up; 0: each sender posts as soon as it has its answer
    #[arg(long, value_name = "PAYMENTS", default_value = "0", value_parser = count_in(0, 1_000_000))]
    pub rate: usize,

    /// Payments in one request; above 1 they go as a batch (1 to 10000)
    #[arg(long, value_name = "PAYMENTS", default_value = "1", value_parser = count_in(1, 10_000))]
    pub batch: usize,

    /// Requests that a sender may have unanswered at once (1 to 1024)
    #[arg(long, value_name = "REQUESTS", default_value = "1", value_parser = count_in(1, 1024))]
    pub pipeline: usize,

    /// Size of each message (64 to 1048576)
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = count_in(64, 1024 * 1024))]
    pub size: usize,

    /// What the client ids begin with [default: a random one for each run]
    #[arg(long, value_name = "PREFIX", value_parser = client_id_prefix)]
    pub prefix: Option<String>,

    /// The API key
    #[arg(long, env = "PAYRELAY_API_KEY", value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<Secret>,

    /// The file that `payrelay serve` is given, to make the clients' tokens
    #[arg(long, env = "PAYRELAY_CLIENT_SECRET_FILE", value_name = "FILE")]
    pub client_secret_file: Option<PathBuf>,

    /// Acknowledge nothing: for servers without acks; a payrelay node stops at the window's edge
    #[arg(long)]
    pub no_ack: bool,

    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
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

impl BenchArgs {
    /// Checks what only several flags together show. [`parse`] has called it already.
    ///
    /// # Errors
    ///
    /// A request would be larger than a node takes.
    pub fn check(&self) -> Result<(), UsageError> {
        if self.batch * (self.size + MAX_BENCH_ENVELOPE_BYTES) <= MAX_BATCH_BYTES {
            return Ok(());
        }
        let most = MAX_BATCH_BYTES / (self.size + MAX_BENCH_ENVELOPE_BYTES);
        Err(UsageError(format!(
            "--batch {} with --size {} is more than the 8 MiB that a node takes at once; give at most --batch {most}",
            self.batch, self.size
        )))
    }
}

impl ServeArgs {
    /// Checks what only several flags together show. [`parse`] has called it already.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong; nothing was opened yet.
    ///
    /// Source: README.md, *What needs keys*.
    pub fn check(&self) -> Result<(), UsageError> {
        let refuse = |line: String| Err(UsageError(line));
        if self.http_server == HttpServer::TinyHttp && !is_loopback(self.http) {
            return refuse(format!(
                "--http-server tiny_http opens on loopback only, not on {}; use --http 127.0.0.1:{} with a proxy before it, or --http-server strict",
                self.http,
                self.http.port()
            ));
        }
        if !self.insecure && self.api_keys_file.is_none() && !is_loopback(self.http) {
            return refuse(format!(
                "--http {} can be reached from other machines; give --api-keys-file FILE, listen on 127.0.0.1, or say --insecure",
                self.http
            ));
        }
        let open_tcp = self.tcp.iter().find(|tcp| !is_loopback(tcp.address));
        if let Some(tcp) = open_tcp
            && !self.insecure
            && self.client_secret_file.is_none()
        {
            return refuse(format!(
                "--tcp {tcp} can be reached from other machines; give --client-secret-file FILE, listen on 127.0.0.1, or say --insecure"
            ));
        }
        if self.wait_replicas > 0 && self.redis.is_none() {
            return refuse("--wait-replicas needs --redis; the embedded inbox has no replicas".into());
        }
        // Not even --insecure helps: without the secret there is no URL that could be right.
        if !self.gateways.is_empty() && self.client_secret_file.is_none() {
            return refuse(
                "--gateways needs the secret that notify URLs are made of; give --client-secret-file FILE".into(),
            );
        }
        let port = self.http.port();
        if port != 0 && self.tcp.iter().any(|tcp| tcp.address.port() == port) {
            return refuse(format!("--http and --tcp both have port {port}; give one of them another port"));
        }
        for (n, tcp) in self.tcp.iter().enumerate() {
            let TcpAddress { address, .. } = tcp;
            if address.port() != 0 && self.tcp[..n].iter().any(|other| other.address == *address) {
                return refuse(format!(
                    "--tcp {address} is given twice; give one of them another port, or leave it out"
                ));
            }
        }
        Ok(())
    }
}

/// Whether only this machine reaches an address.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// The node's name where `--node` does not give one: `till-host:8080`.
///
/// `port` is the HTTP port that was really bound. What a name may not hold becomes `-`.
pub fn default_node_name(port: u16) -> String {
    let system = rustix::system::uname();
    node_name_of(&system.nodename().to_string_lossy(), port)
}

fn node_name_of(host: &str, port: u16) -> String {
    let port = format!(":{port}");
    let keep = |c: char| if is_name_character(c) { c } else { '-' };
    let host: String = host.chars().map(keep).collect();
    let host = if host.is_empty() { "node" } else { &host };
    let fits = host.len().min(MAX_NODE_NAME_BYTES - port.len());
    format!("{}{port}", &host[..fits])
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._:@-".contains(c)
}

/// Reads the command line and the environment; does not return where they are wrong.
///
/// Wrong usage is one line on standard error and exit status 2. `--help` and `--version` go to
/// standard output, exit status 0.
pub fn parse() -> Command {
    match parse_from(std::env::args_os().collect()) {
        Ok(command) => command,
        Err(Unusable::Shown(text)) => {
            // A reader that went away (`payrelay --help | head -1`) is no error.
            let _ = std::io::stdout().write_all(text.as_bytes());
            process::exit(0)
        }
        Err(Unusable::Wrong(error)) => {
            let _ = writeln!(std::io::stderr(), "payrelay: {error}");
            process::exit(2)
        }
    }
}

#[derive(Parser)]
#[command(
    name = "payrelay",
    version,
    about,
    after_help = "Every flag of `serve` also has an environment variable; the flag wins."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

/// Why there is no command to run.
#[derive(Debug)]
enum Unusable {
    /// Help or the version was asked for.
    Shown(String),
    Wrong(UsageError),
}

fn parse_from(argv: Vec<OsString>) -> Result<Command, Unusable> {
    let shape = without_empty_variables(CommandLine::command());
    let help = help_for(&shape, &argv);
    let refuse = |error: clap::Error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Unusable::Shown(error.render().to_string()),
        _ => Unusable::Wrong(one_line(&error, &help)),
    };
    let matches = shape.try_get_matches_from(argv).map_err(&refuse)?;
    let command = CommandLine::from_arg_matches(&matches).map_err(&refuse)?.command;
    match &command {
        Command::Serve(args) => args.check().map_err(Unusable::Wrong)?,
        Command::Doctor(args) => args.serve.check().map_err(Unusable::Wrong)?,
        Command::Bench(args) => args.check().map_err(Unusable::Wrong)?,
        _ => {}
    }
    Ok(command)
}

/// An empty environment variable counts as not set: unit files and compose files make such.
fn without_empty_variables(shape: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    shape.mut_subcommands(|command| {
        command.mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) => arg.env(Resettable::Reset),
            _ => arg,
        })
    })
}

/// The command that explains the one which was tried.
fn help_for(shape: &clap::Command, argv: &[OsString]) -> String {
    let tried = argv.get(1).and_then(|word| word.to_str());
    match tried.and_then(|word| shape.find_subcommand(word)) {
        Some(command) => format!("`payrelay {} --help`", command.get_name()),
        None => "`payrelay --help`".to_owned(),
    }
}

fn address(text: &str) -> Result<SocketAddr, UsageError> {
    text.trim().parse().map_err(|_| {
        UsageError(format!(
            "`{}` is not IP:PORT; give one such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
            shown(text)
        ))
    })
}

fn host_and_port(text: &str) -> Result<String, UsageError> {
    let is_good = |(host, port): (&str, &str)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port != 0)
    };
    if text.rsplit_once(':').is_some_and(is_good) {
        return Ok(text.to_owned());
    }
    Err(UsageError(format!("`{}` is not HOST:PORT; give one such as 127.0.0.1:7070", shown(text))))
}

fn client_id(text: &str) -> Result<ClientId, UsageError> {
    ClientId::parse(text).map_err(|error| UsageError(format!("`{}` is {error}", shown(text))))
}

/// One of the gateways' names, as it stands in our own list.
fn gateway(text: &str) -> Result<&'static str, UsageError> {
    let known = GATEWAY_PROFILES.into_iter().find(|name| *name == text.trim());
    known.ok_or_else(|| {
        UsageError(format!("`{}` is no gateway; give some of {}", shown(text), GATEWAY_PROFILES.join(", ")))
    })
}

fn client_id_prefix(text: &str) -> Result<String, UsageError> {
    if text.len() <= MAX_PREFIX_BYTES && ClientId::parse(&format!("{text}0")).is_ok() {
        return Ok(text.to_owned());
    }
    Err(UsageError(format!(
        "`{}` cannot begin a client id; give at most {MAX_PREFIX_BYTES} characters of A-Z a-z 0-9 . _ : @ -",
        shown(text)
    )))
}

fn node_name(text: &str) -> Result<String, UsageError> {
    let has_length = (1..=MAX_NODE_NAME_BYTES).contains(&text.len());
    if has_length && text != "." && text != ".." && text.chars().all(is_name_character) {
        return Ok(text.to_owned());
    }
    Err(UsageError(format!(
        "`{}` is no node name; give 1 to {MAX_NODE_NAME_BYTES} characters of A-Z a-z 0-9 . _ : @ - (but not `.` or `..`)",
        shown(text)
    )))
}

/// A flag's variable: `PAYRELAY_INSECURE=1`.
fn truth(text: &str) -> Result<bool, UsageError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        // Never guessed: what it opens is open to everybody.
        _ => Err(UsageError(format!("`{}` is neither true nor false; give one of them", shown(text)))),
    }
}

fn count_in(min: usize, max: usize) -> impl Fn(&str) -> Result<usize, UsageError> + Clone {
    move |text| match text.parse() {
        Ok(count) if (min..=max).contains(&count) => Ok(count),
        _ => Err(out_of_range(text, min as u64, max as u64)),
    }
}

fn seconds_in(min: u64, max: u64) -> impl Fn(&str) -> Result<Duration, UsageError> + Clone {
    move |text| match text.parse() {
        Ok(secs) if (min..=max).contains(&secs) => Ok(Duration::from_secs(secs)),
        _ => Err(out_of_range(text, min, max)),
    }
}

fn out_of_range(text: &str, min: u64, max: u64) -> UsageError {
    let range = match max {
        u64::MAX => format!("of {min} or more"),
        _ => format!("from {min} to {max}"),
    };
    UsageError(format!("`{}` does not fit; give a whole number {range}", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, Unusable> {
        let words = std::iter::once("payrelay").chain(line.split_whitespace());
        parse_from(words.map(OsString::from).collect())
    }

    fn serve(flags: &str) -> ServeArgs {
        match parsed(&format!("serve {flags}")) {
            Ok(Command::Serve(args)) => args,
            other => panic!("`serve {flags}` gave {other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        match parsed(line) {
            Err(Unusable::Wrong(error)) => {
                let line = error.to_string();
                assert!(!line.contains('\n'), "more than one line: {line}");
                line
            }
            other => panic!("`{line}` gave {other:?}"),
        }
    }

    #[test]
    fn serve_without_flags_has_the_promised_defaults() {
        let args = serve("");
        assert_eq!(args.http.to_string(), "127.0.0.1:8080");
        assert_eq!(tcp_of(&args), ["127.0.0.1:7070"]);
        assert!(args.redis.is_none() && args.node.is_none() && !args.insecure);
        assert_eq!(args.data_dir, PathBuf::from("./payrelay-data"));
        assert_eq!(args.heartbeat, Duration::from_secs(30));
        assert_eq!((args.window, args.inbox_limit), (256, 100_000));
        assert_eq!(args.body_limit, 262_144);
        assert_eq!(args.dedup_window, Duration::from_secs(604_800));
        assert_eq!(args.http_server, HttpServer::Strict);
        assert_eq!(args.require_durability, Durability::Everysec);
        assert_eq!((args.max_clients, args.max_http, args.wait_replicas), (None, None, 0));
    }

    #[test]
    fn bench_without_flags_has_the_promised_defaults() {
        let Ok(Command::Bench(args)) = parsed("bench") else { panic!("`bench` was refused") };
        assert_eq!(args.http, ["http://127.0.0.1:8080"]);
        assert_eq!(args.tcp, ["127.0.0.1:7070"]);
        assert_eq!((args.clients, args.senders, args.seconds), (100, 16, Duration::from_secs(10)));
        assert_eq!((args.rate, args.batch, args.pipeline, args.size), (0, 1, 1, 256));
        assert!(args.prefix.is_none() && !args.no_ack && !args.json);
        assert!(parsed("bench --batch 10000").is_ok(), "the most lines of the usual size are one batch");
    }

    #[test]
    fn gateways_are_a_list() {
        let args = serve("--gateways stripe,wechat-v3 --gateways alipay --client-secret-file s");
        assert_eq!(args.gateways, ["stripe", "wechat-v3", "alipay"]);
        assert_eq!(args.gateway_answer, GatewayAnswer::Stored);
        let args = serve("--gateways stripe --gateway-answer acknowledged --client-secret-file s");
        assert_eq!(args.gateway_answer, GatewayAnswer::Acknowledged);
        assert!(serve("").gateways.is_empty());
    }

    #[test]
    fn tcp_may_be_given_several_times() {
        assert_eq!(serve("--tcp 127.0.0.1:1 --tcp [::1]:2").tcp.len(), 2);
        assert_eq!(serve("--tcp 127.0.0.1:1,127.0.0.1:2").tcp.len(), 2);
    }

    fn tcp_of(args: &ServeArgs) -> Vec<String> {
        args.tcp.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_framing_stands_before_its_address() {
        let args = serve("--tcp 127.0.0.1:1,u16be@127.0.0.1:2 --tcp u32be@[::1]:3");
        assert_eq!(tcp_of(&args), ["127.0.0.1:1", "u16be@127.0.0.1:2", "u32be@[::1]:3"]);
        for (flag, says) in [
            ("u8be@127.0.0.1:1", "no framing `u8be`"),
            ("U16BE@127.0.0.1:1", "no framing `U16BE`"),
            ("lines@127.0.0.1:1", "IP:PORT alone for lines"),
            ("@127.0.0.1:1", "no framing ``"),
            ("u16be@", "is not IP:PORT"),
            ("u16be@localhost:1", "is not IP:PORT"),
            ("u16be@127.0.0.1:1 --tcp 127.0.0.1:1", "127.0.0.1:1 is given twice"),
            ("u16be@0.0.0.0:1", "--client-secret-file"),
        ] {
            let error = refused(&format!("serve --tcp {flag}"));
            assert!(error.contains(says), "{flag}: {error}");
        }
    }

    #[test]
    fn wrong_usage_is_one_line_that_says_how_to_mend_it() {
        for (line, says) in [
            ("", "payrelay serve"),
            ("", "--help"),
            ("serf", "did you mean `serve`"),
            ("serve --heartbeta 3", "did you mean `--heartbeat`"),
            ("serve --nonsense", "payrelay serve --help"),
            ("serve --heartbeat 0", "from 1 to 3600"),
            ("serve --window 65537", "from 1 to 65536"),
            ("serve --max-clients 0", "of 1 or more"),
            ("serve --body-limit 16777217", "from 1 to 16777216"),
            ("serve --dedup-window x", "from 1 to 31536000"),
            ("serve --http localhost:8080", "127.0.0.1:8080"),
            ("serve --http 127.0.0.1:1 --http 127.0.0.1:2", "once"),
            ("serve --http-server nginx", "strict, tiny_http"),
            ("serve --http-server", "needs a value"),
            ("serve --require-durability never", "always, everysec, any"),
            ("serve --node a/b", "A-Z a-z 0-9"),
            ("serve --wait-replicas 65 --redis redis://h", "from 0 to 64"),
            ("serve --wait-replicas 1", "--redis"),
            ("doctor --wait-replicas 1", "--redis"),
            ("doctor --heartbeat 0", "from 1 to 3600"),
            ("doctor --expect-size 0", "from 1 to 16777216"),
            ("serve --expect-clients 1", "unexpected argument"),
            ("serve --redis http://x", "redis://"),
            ("serve --redis redis://h --data-dir d", "give one of them"),
            ("serve --insecure=maybe", "--insecure"),
            ("send 5", "--client <ID> is missing"),
            ("send --client 01 5 --wait 31", "from 1 to 30"),
            ("listen --client a/b", "`a/b` is not a client id: 1 to 128"),
            ("listen --client 01 --server 7070", "HOST:PORT"),
            ("token 01", "--client-secret-file <FILE> is missing"),
            ("serve --gateways paypal --client-secret-file s", "`paypal` is no gateway; give some of wechat-v2, "),
            ("serve --gateways alipay,, --client-secret-file s", "`` is no gateway"),
            ("serve --gateways stripe", "--client-secret-file"),
            ("serve --gateways stripe --insecure", "--client-secret-file"),
            ("serve --gateway-answer later", "stored, acknowledged"),
            ("notify-url paypal 01 --client-secret-file s", "`paypal` is no gateway"),
            ("notify-url stripe a/b --client-secret-file s", "`a/b` is not a client id"),
            ("notify-url stripe 01", "--client-secret-file <FILE> is missing"),
            ("bench --tcp 127.0.0.1", "HOST:PORT"),
            ("bench --clients 0", "from 1 to 100000"),
            ("bench --senders 1025", "from 1 to 1024"),
            ("bench --seconds 3601", "from 1 to 3600"),
            ("bench --rate 1000001", "from 0 to 1000000"),
            ("bench --batch 10001", "from 1 to 10000"),
            ("bench --batch 128 --size 100000", "at most --batch 83"),
            ("bench --pipeline 0", "from 1 to 1024"),
            ("bench --size 63", "from 64 to 1048576"),
            ("bench --prefix a/b", "`a/b` cannot begin a client id"),
        ] {
            let error = refused(line);
            assert!(error.contains(says), "`{line}`: {error}");
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for line in ["--help", "help", "serve --help", "--version"] {
            assert!(matches!(parsed(line), Err(Unusable::Shown(_))), "{line}");
        }
    }

    #[test]
    fn a_negative_number_and_a_dash_are_messages() {
        for message in ["-5", "-"] {
            match parsed(&format!("send --client 01 {message}")) {
                Ok(Command::Send(args)) => assert_eq!(args.message, message),
                other => panic!("{message} gave {other:?}"),
            }
        }
    }

    #[test]
    fn nobody_outside_reaches_a_node_without_keys() {
        for (flags, says) in [
            ("--http 0.0.0.0:8080", "--api-keys-file"),
            ("--http [::]:8080", "--insecure"),
            ("--tcp 0.0.0.0:7070", "--client-secret-file"),
            ("--tcp 127.0.0.1:1 --tcp 10.0.0.1:2", "--tcp 10.0.0.1:2"),
            ("--http 0.0.0.0:8080 --client-secret-file s", "--http"),
            ("--tcp 0.0.0.0:7070 --api-keys-file k", "--tcp"),
            ("--http-server tiny_http --http 0.0.0.0:80 --insecure", "loopback"),
            ("--http-server tiny_http --http 0.0.0.0:80 --api-keys-file k", "loopback"),
        ] {
            let error = refused(&format!("serve {flags}"));
            assert!(error.contains(says), "{flags}: {error}");
        }
        serve("--http 0.0.0.0:8080 --api-keys-file k");
        serve("--tcp 0.0.0.0:7070 --client-secret-file s");
        serve("--http 0.0.0.0:8080 --tcp 0.0.0.0:7070 --insecure");
        serve("--http [::1]:8080 --tcp 127.0.0.2:7070");
        serve("--http [::ffff:127.0.0.1]:8080 --http-server tiny_http");
    }

    #[test]
    fn two_listeners_do_not_share_a_port() {
        assert!(refused("serve --http 127.0.0.1:7070").contains("another port"));
        assert!(refused("serve --tcp 127.0.0.1:1 --tcp 127.0.0.1:1").contains("twice"));
        serve("--http 127.0.0.1:0 --tcp 127.0.0.1:0 --tcp 127.0.0.1:0");
    }

    #[test]
    fn an_error_never_shows_a_password() {
        for line in [
            "serve --redis http://joe:hunter2@r",
            "serve --redis redis://joe:hunter2@r/x",
            "serve --redis redis://joe:hun/hunter2@r",
            "serve --redis rediss://joe:hunter2@r#insecure",
            "serve --redis hunter2",
            "serve redis://joe:hunter2@r",
            "redis://joe:hunter2@r",
            "serve --redis redis://joe:hunter2@r --data-dir d",
        ] {
            let error = refused(line);
            assert!(!error.contains("hunter2"), "`{line}`: {error}");
        }
        let args = parsed("send --client 01 5 --api-key hunter2");
        assert!(!format!("{args:?}").contains("hunter2"));
    }

    #[test]
    fn a_node_is_named_after_its_host_and_port() {
        assert_eq!(node_name_of("till-host", 8080), "till-host:8080");
        assert_eq!(node_name_of("a b/ü", 1), "a-b--:1");
        assert_eq!(node_name_of("", 1), "node:1");
        let long = node_name_of(&"x".repeat(300), 65535);
        assert_eq!(long.len(), 128);
        for name in [long, default_node_name(8080), "n1".into()] {
            assert_eq!(node_name(&name), Ok(name));
        }
        for name in ["", ".", "..", "a b", "ü", &"x".repeat(129)] {
            assert!(node_name(name).is_err(), "{name}");
        }
    }
}
