//! What a run will do: who posts to whom, when, and where. Worked out before anything is sent.

use std::net::SocketAddr;
use std::time::Duration;

use data_encoding::HEXLOWER;

use super::message::Messages;
use crate::args::{BenchArgs, Secret};
use crate::auth::{ClientSecrets, random};
use crate::capacity;
use crate::commands::http_client::{Target, check_key};
use crate::commands::{Failure, connect, plainly};

/// Descriptors besides the connections.
const OTHER_DESCRIPTORS: usize = 32;

/// What all threads of a run know.
pub(super) struct Plan {
    pub(super) http: Vec<(Target, SocketAddr)>,
    pub(super) tcp: Vec<SocketAddr>,
    pub(super) clients: usize,
    /// Connections that post: not more than there are clients.
    pub(super) senders: usize,
    pub(super) time: Duration,
    /// Payments a second; none: closed loop.
    pub(super) rate: Option<usize>,
    pub(super) batch: usize,
    pub(super) pipeline: usize,
    pub(super) size: usize,
    pub(super) key: Option<Secret>,
    pub(super) acknowledges: bool,
    /// Tells this run's messages from any other's.
    run: String,
    prefix: String,
    secrets: Option<ClientSecrets>,
}

impl Plan {
    /// Checks what the command line could not: addresses, files, the limits of this process.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`]: something cannot be used. [`Failure::Runtime`]: nobody is there.
    pub(super) fn new(args: &BenchArgs) -> Result<Plan, Failure> {
        check_key(args.api_key.as_ref())?;
        let targets: Result<Vec<_>, _> = args.http.iter().map(|url| Target::parse("--http", url)).collect();
        let run = HEXLOWER.encode(&random::<4>());
        let prefix = args.prefix.clone().unwrap_or_else(|| format!("bench-{run}-"));
        let least = Messages::least_size(&run, prefix.len() + (args.clients - 1).to_string().len());
        if args.size < least {
            let line = format!("--size {} has no room for what the check needs; give at least {least}", args.size);
            return Err(Failure::Usage(line));
        }
        let secrets = args.client_secret_file.as_deref().map(ClientSecrets::load).transpose();
        let secrets = secrets.map_err(|error| Failure::Usage(error.to_string()))?;
        let senders = args.senders.min(args.clients);
        check_descriptors(args.clients, senders)?;
        let http: Result<Vec<_>, _> =
            targets?.into_iter().map(|target| reach(&target.address).map(|at| (target, at))).collect();
        let tcp: Result<Vec<_>, _> = args.tcp.iter().map(|address| reach(address)).collect();
        Ok(Plan {
            http: http?,
            tcp: tcp?,
            clients: args.clients,
            senders,
            time: args.seconds,
            rate: Some(args.rate).filter(|rate| *rate > 0),
            batch: args.batch,
            pipeline: args.pipeline,
            size: args.size,
            key: args.api_key.clone(),
            acknowledges: !args.no_ack,
            run,
            prefix,
            secrets,
        })
    }

    /// What the senders will do, for the user.
    pub(super) fn sending(&self) -> String {
        let (senders, secs, size) = (self.senders, self.time.as_secs(), self.size);
        let pace = match self.rate {
            Some(rate) => format!("{rate} payments a second"),
            None => "as fast as answers come".to_owned(),
        };
        let batch = if self.batch > 1 { format!(" in batches of {}", self.batch) } else { String::new() };
        let pipeline = if self.pipeline > 1 { format!(", pipelined {} deep", self.pipeline) } else { String::new() };
        format!("{senders} senders post {size} bytes each{batch}{pipeline} for {secs} s, {pace}")
    }

    pub(super) fn messages(&self) -> Messages {
        Messages::new(&self.run, self.size)
    }

    pub(super) fn client_id(&self, client: usize) -> String {
        format!("{}{client}", self.prefix)
    }

    /// The line with which a client introduces itself.
    pub(super) fn hello(&self, client: usize) -> String {
        let id = self.client_id(client);
        match &self.secrets {
            None => format!("{{\"type\":\"hello\",\"client\":\"{id}\"}}\n"),
            Some(secrets) => {
                format!("{{\"type\":\"hello\",\"client\":\"{id}\",\"token\":\"{}\"}}\n", secrets.token(&id))
            }
        }
    }

    /// Where a client connects, at first or at a later attempt.
    ///
    /// The clients of one sender are spread too, so that payments also go from one node to another.
    pub(super) fn tcp_of(&self, client: usize, attempt: usize) -> SocketAddr {
        self.tcp[(client + client / self.senders + attempt) % self.tcp.len()]
    }

    pub(super) fn round(&self, sender: usize) -> Round {
        Round::new(sender, self.senders, self.clients, self.rate)
    }
}

/// Whom one sender posts to, and when. Every client belongs to one sender, so its order is defined.
pub(super) struct Round {
    sender: usize,
    senders: usize,
    /// How many clients are this sender's.
    clients: u64,
    /// Microseconds from one payment to the next, and before the first; none in the closed loop.
    pace: Option<(f64, f64)>,
}

impl Round {
    fn new(sender: usize, senders: usize, clients: usize, rate: Option<usize>) -> Round {
        let own = (clients - sender).div_ceil(senders) as u64;
        let pace = rate.map(|rate| {
            let interval_us = 1e6 * clients as f64 / (rate as f64 * own as f64);
            (interval_us, interval_us * sender as f64 / senders as f64)
        });
        Round { sender, senders, clients: own, pace }
    }

    /// The client that this sender's payment `turn` is for, and its number among that client's.
    pub(super) fn payment(&self, turn: u64) -> (usize, u64) {
        let client = self.sender + self.senders * (turn % self.clients) as usize;
        (client, turn / self.clients)
    }

    /// When this sender's payment `turn` is to be sent; none: as soon as there is room.
    pub(super) fn due_us(&self, turn: u64) -> Option<u64> {
        self.pace.map(|(interval_us, first_us)| (first_us + interval_us * turn as f64) as u64)
    }

    /// How many payments are to be sent before `time`; none in the closed loop.
    pub(super) fn turns_within(&self, time: Duration) -> Option<u64> {
        let time_us = time.as_micros() as f64;
        self.pace.map(|(interval_us, first_us)| ((time_us - first_us) / interval_us).ceil().max(0.0) as u64)
    }
}

fn check_descriptors(clients: usize, senders: usize) -> Result<(), Failure> {
    let (needed, allowed) = (clients + senders + OTHER_DESCRIPTORS, capacity::raise_descriptor_limit());
    if needed <= allowed {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "--clients {clients} needs {needed} descriptors and this process may have {allowed}; raise `ulimit -Hn` or give fewer clients"
    )))
}

/// The address under which somebody really listens.
fn reach(address: &str) -> Result<SocketAddr, Failure> {
    let found = connect(address).and_then(|stream| stream.peer_addr());
    found.map_err(|error| Failure::Runtime(format!("cannot connect to {address}: {}", plainly(&error))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_belongs_to_one_sender_and_has_its_numbers_in_order() {
        for (senders, clients) in [(1, 1), (3, 10), (16, 100), (4, 4)] {
            let mut next = vec![0; clients];
            for sender in 0..senders {
                let round = Round::new(sender, senders, clients, None);
                for turn in 0..round.clients * 3 {
                    let (client, number) = round.payment(turn);
                    assert_eq!((client % senders, number), (sender, next[client]));
                    next[client] += 1;
                }
            }
            assert_eq!(next, vec![3; clients]);
        }
    }

    #[test]
    fn a_rate_is_kept_over_all_senders() {
        for (senders, clients) in [(1, 1), (3, 10), (16, 100)] {
            let time = Duration::from_secs(10);
            let rounds = (0..senders).map(|sender| Round::new(sender, senders, clients, Some(2000)));
            let turns: u64 = rounds.filter_map(|round| round.turns_within(time)).sum();
            assert!((19_990..=20_010).contains(&turns), "{turns}");
        }
        let round = Round::new(1, 2, 2, Some(2));
        let due: Vec<_> = (0..3).map(|turn| round.due_us(turn)).collect();
        assert_eq!(due, [Some(500_000), Some(1_500_000), Some(2_500_000)]);
        assert_eq!(round.turns_within(Duration::from_secs(2)), Some(2));
        assert_eq!(Round::new(0, 1, 1, None).due_us(7), None);
    }
}
