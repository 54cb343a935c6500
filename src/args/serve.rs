//! The settings of `payrelay serve`: a node's flags, and what may not stand together.
//!
//! Whether a port is free or a file readable is left to who uses it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::node_name::node_name;
use super::value::{address, count_in, gateway, seconds_in, truth};
use super::{MAX_BODY_BYTES, RedisUrl, TcpAddress, UsageError};

/// A year: every remembered payment id takes room in the store.
pub(crate) const MAX_DEDUP_WINDOW_SECS: u64 = 365 * 24 * 3600;
/// An hour: a client that is gone for longer than three of them should be known to be.
const MAX_HEARTBEAT_SECS: u64 = 3600;
/// What is unacknowledged is remembered for each client, 16 bytes a payment.
pub(crate) const MAX_WINDOW: usize = 65_536;
/// More than any Redis has.
const MAX_REPLICAS: usize = 64;

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

impl ServeArgs {
    /// Checks what only several flags together show. [`parse`](super::parse) has called it already.
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

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::command_line::tests::{parsed, refused};
    use super::*;

    fn serve(flags: &str) -> ServeArgs {
        match parsed(&format!("serve {flags}")) {
            Ok(Command::Serve(args)) => args,
            other => panic!("`serve {flags}` gave {other:?}"),
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
}
