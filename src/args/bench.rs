//! What `payrelay bench` takes: the load that is put on a node.
//!
//! What comes of it, and whether the machine can do so much, is left to `commands::bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value::{client_id_prefix, count_in, host_and_port, seconds_in};
use super::{Secret, UsageError};
use crate::http::routes::MAX_BATCH_BYTES;

/// What stands around the message in a line of a batch, with the longest client id.
const MAX_BENCH_ENVELOPE_BYTES: usize = 160;

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

impl BenchArgs {
    /// Checks what only several flags together show. [`parse`](super::parse) has called it already.
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

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::command_line::tests::parsed;
    use super::*;

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
}
