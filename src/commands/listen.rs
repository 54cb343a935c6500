//! `payrelay listen`: prints a client's payments as they come and acknowledges them.
//!
//! A payment is acknowledged once standard output took it, so it is printed at least once; while
//! this program lives, exactly once. It connects again by itself when a connection breaks.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::line_client::{Heard, LineClient};
use super::{Failure, plainly, print, printable, say};
use crate::args::ListenArgs;
use crate::auth::random;

/// The time for the server to answer a hello.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// The time for the server to take our last acknowledgement and our leave.
const LEAVE_TIME: Duration = Duration::from_secs(2);
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The largest window a server has: more payments than that never come again.
const MAX_REMEMBERED: usize = 65_536;
const MAX_HEARTBEAT_SECS: u64 = 3600;
/// Silence after which the server counts as gone, in heartbeats.
const MAX_SILENT_HEARTBEATS: u32 = 3;

/// Prints payments until `args.count` is reached, standard output is closed or the server refuses.
///
/// # Errors
///
/// [`Failure::Runtime`]: the first connection failed, the server said that this client shall not
/// come again, or standard output failed. What was not acknowledged is still in the inbox.
pub fn run(args: &ListenArgs) -> Result<(), Failure> {
    if is_output_closed() {
        return Err(Failure::Runtime(
            "standard output is closed; nothing could be printed, so nothing is taken".into(),
        ));
    }
    let mut listener = Listener { args, printed: Printed::default(), count: 0, was_welcome: false };
    let mut pause = Pause::default();
    loop {
        let started = Instant::now();
        let why = match listener.session() {
            Ok(()) => return Ok(()),
            Err(Ending::Final(failure)) => return Err(failure),
            Err(Ending::Broken(why)) => why,
        };
        if started.elapsed() >= LONGEST_PAUSE {
            pause = Pause::default();
        }
        let wait = pause.next();
        let secs = wait.as_secs_f32();
        say(&format!("{why}; connecting again in {secs:.1} s"));
        thread::sleep(wait);
    }
}

/// Whether this process was started without a standard output. Rust's runtime then puts /dev/null
/// there, open for both ways, where a shell's own `>/dev/null` is open for writing only: the first
/// loses payments unseen, the second was asked for.
fn is_output_closed() -> bool {
    let is_null = std::fs::read_link("/proc/self/fd/1").is_ok_and(|file| file == Path::new("/dev/null"));
    is_null && rustix::fs::fcntl_getfl(std::io::stdout()).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::RDWR))
}

/// Why a session did not end well.
enum Ending {
    /// Another attempt may succeed.
    Broken(String),
    Final(Failure),
}

/// A line of the server's, as far as we look at it.
#[derive(Debug, Deserialize)]
struct ServerLine {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    accepted_at: u64,
    #[serde(default)]
    epoch: u64,
    #[serde(default)]
    acked: u64,
    #[serde(default)]
    pending: u64,
    #[serde(default)]
    heartbeat: u64,
    #[serde(default)]
    node: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What holds from one connection to the next.
struct Listener<'a> {
    args: &'a ListenArgs,
    printed: Printed,
    /// Payments printed so far.
    count: usize,
    was_welcome: bool,
}

impl Listener<'_> {
    /// One connection, from hello to its end.
    fn session(&mut self) -> Result<(), Ending> {
        let server = &self.args.server;
        let mut wire =
            LineClient::connect(server).map_err(|error| self.lost(&format!("cannot connect to {server}"), &error))?;
        self.send(&mut wire, &self.hello())?;
        let welcome = self.await_welcome(&mut wire)?;
        self.was_welcome = true;
        self.printed.begin(welcome.epoch, welcome.acked);
        say(&format!(
            "connected to node {} as {}: {} pending",
            welcome.node,
            self.args.client.as_str(),
            welcome.pending
        ));
        let heartbeat_secs = welcome.heartbeat.clamp(1, MAX_HEARTBEAT_SECS);
        self.receive(wire, Duration::from_secs(heartbeat_secs))
    }

    fn hello(&self) -> String {
        let client = self.args.client.as_str();
        let mut hello = serde_json::json!({"type": "hello", "client": client});
        if let Some(token) = &self.args.token {
            hello["token"] = token.expose().into();
        }
        hello.to_string()
    }

    fn await_welcome(&self, wire: &mut LineClient) -> Result<ServerLine, Ending> {
        let until = Instant::now() + WELCOME_TIME;
        loop {
            let line = self.next_line(wire, until)?;
            let Some(line) = line else {
                let late = io::Error::from(io::ErrorKind::TimedOut);
                return Err(self.lost_connection(&late));
            };
            let parsed = self.parse(&line)?;
            match parsed.kind.as_str() {
                "welcome" => return Ok(parsed),
                _ => self.answer_if_ping(wire, &parsed)?,
            }
        }
    }

    fn receive(&mut self, mut wire: LineClient, heartbeat: Duration) -> Result<(), Ending> {
        let mut pings = 0;
        loop {
            let until = wire.heard_at + heartbeat * (pings + 1);
            let line = match self.heard(wire.hear_for(io::stdout(), until))? {
                Heard::Line(line) => line,
                Heard::NobodyReads => {
                    wire.leave(LEAVE_TIME);
                    return Ok(());
                }
                Heard::Nothing | Heard::End => {
                    pings = self.bear_silence(&mut wire, heartbeat, pings)?;
                    continue;
                }
            };
            pings = 0;
            let parsed = self.parse(&line)?;
            if parsed.kind != "payment" {
                self.answer_if_ping(&mut wire, &parsed)?;
                continue;
            }
            if !self.take_payment(&mut wire, &line, &parsed)? {
                return Ok(());
            }
            if self.args.count == Some(self.count) {
                wire.leave(LEAVE_TIME);
                return Ok(());
            }
        }
    }

    /// Nothing came for a heartbeat: asks whether the server is there, a few times. How often it was asked by now.
    fn bear_silence(&self, wire: &mut LineClient, heartbeat: Duration, pings: u32) -> Result<u32, Ending> {
        // Half a line is a sign of life too.
        if wire.heard_at.elapsed() < heartbeat {
            return Ok(0);
        }
        if pings + 1 >= MAX_SILENT_HEARTBEATS {
            let silent = io::Error::from(io::ErrorKind::TimedOut);
            return Err(self.lost_connection(&silent));
        }
        self.send(wire, r#"{"type":"ping"}"#)?;
        Ok(pings + 1)
    }

    /// Prints and acknowledges; `false` when nobody reads what we print.
    fn take_payment(&mut self, wire: &mut LineClient, line: &[u8], payment: &ServerLine) -> Result<bool, Ending> {
        let (seq, accepted_at_ms) = (payment.seq, payment.accepted_at);
        if self.printed.is_new(seq, accepted_at_ms) {
            if !print(line).map_err(Ending::Final)? {
                return Ok(false);
            }
            self.printed.note(seq, accepted_at_ms);
            self.count += 1;
        }
        if !self.args.no_ack {
            let ack = format!(r#"{{"type":"ack","seq":{seq}}}"#);
            self.send(wire, &ack).map_err(|ending| self.unless_done(ending))?;
        }
        Ok(true)
    }

    /// With the last payment printed there is nothing to come back for but its acknowledgement,
    /// and a new connection might bring others first.
    fn unless_done(&self, ending: Ending) -> Ending {
        match ending {
            Ending::Broken(why) if self.args.count == Some(self.count) => Ending::Final(Failure::Runtime(format!(
                "{why}; the last payment was printed but not acknowledged, so it will come again"
            ))),
            other => other,
        }
    }

    fn answer_if_ping(&self, wire: &mut LineClient, line: &ServerLine) -> Result<(), Ending> {
        match line.kind.as_str() {
            "ping" => self.send(wire, r#"{"type":"pong"}"#),
            "error" => Err(self.refused(line)),
            _ => Ok(()),
        }
    }

    fn refused(&self, line: &ServerLine) -> Ending {
        let (code, message) = (&line.code, &line.message);
        let text = printable(&format!("the server closed: {code}: {message}"));
        match is_final(code) {
            true => Ending::Final(Failure::Runtime(text)),
            false => Ending::Broken(text),
        }
    }

    fn send(&self, wire: &mut LineClient, json: &str) -> Result<(), Ending> {
        // What the server said before it closed tells more than that it closed.
        wire.send(json).map_err(|error| self.last_words(wire, &error))
    }

    fn last_words(&self, wire: &mut LineClient, error: &io::Error) -> Ending {
        let until = Instant::now() + Duration::from_millis(100);
        while let Ok(Heard::Line(line)) = wire.hear(until) {
            if let Ok(parsed) = self.parse(&line)
                && parsed.kind == "error"
            {
                return self.refused(&parsed);
            }
        }
        self.lost_connection(error)
    }

    fn next_line(&self, wire: &mut LineClient, until: Instant) -> Result<Option<Vec<u8>>, Ending> {
        match self.heard(wire.hear(until))? {
            Heard::Line(line) => Ok(Some(line)),
            _ => Ok(None),
        }
    }

    /// What may go on; the end of the connection may not.
    fn heard(&self, heard: io::Result<Heard>) -> Result<Heard, Ending> {
        match heard {
            Ok(Heard::End) => Err(self.lost_connection(&io::ErrorKind::ConnectionReset.into())),
            Ok(heard) => Ok(heard),
            Err(error) => Err(self.lost_connection(&error)),
        }
    }

    fn parse(&self, line: &[u8]) -> Result<ServerLine, Ending> {
        serde_json::from_slice(line).map_err(|_| {
            let server = &self.args.server;
            Ending::Final(Failure::Runtime(format!(
                "{server} sent a line that is not payrelay's; is this its TCP port?"
            )))
        })
    }

    fn lost_connection(&self, error: &io::Error) -> Ending {
        self.lost(&format!("lost the connection to {}", self.args.server), error)
    }

    /// A connection that never worked is rather a wrong address than an accident.
    fn lost(&self, what: &str, error: &io::Error) -> Ending {
        let line = format!("{what}: {}", plainly(error));
        let is_ours = error.kind() == io::ErrorKind::InvalidData;
        match self.was_welcome && !is_ours {
            true => Ending::Broken(line),
            false => Ending::Final(Failure::Runtime(line)),
        }
    }
}

/// Whether the next attempt would end in the same way, or take the id from whoever has it now.
fn is_final(code: &str) -> bool {
    matches!(
        code,
        "unauthorized"
            | "invalid_client_id"
            | "replaced"
            | "disconnected"
            | "bad_frame"
            | "bad_json"
            | "line_too_long"
            | "hello_required"
    )
}

/// Which payments were printed and may come again: a repeat has the same seq *and* the same
/// `accepted_at`, in the same epoch.
#[derive(Default)]
struct Printed {
    epoch: u64,
    accepted_at_ms: BTreeMap<u64, u64>,
}

impl Printed {
    /// A new connection: what the server has acknowledged never comes again.
    fn begin(&mut self, epoch: u64, acked: u64) {
        if epoch != self.epoch {
            self.accepted_at_ms.clear();
            self.epoch = epoch;
        }
        self.accepted_at_ms = self.accepted_at_ms.split_off(&acked.saturating_add(1));
    }

    fn is_new(&self, seq: u64, accepted_at_ms: u64) -> bool {
        self.accepted_at_ms.get(&seq) != Some(&accepted_at_ms)
    }

    fn note(&mut self, seq: u64, accepted_at_ms: u64) {
        self.accepted_at_ms.insert(seq, accepted_at_ms);
        if self.accepted_at_ms.len() > MAX_REMEMBERED {
            self.accepted_at_ms.pop_first();
        }
    }
}

/// How long to wait before the next attempt: from 0.2 s, doubling up to 5 s.
struct Pause {
    longest: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Pause { longest: SHORTEST_PAUSE }
    }
}

impl Pause {
    /// A random time up to what it is this time, so that many clients do not come at once.
    fn next(&mut self) -> Duration {
        let share = f32::from(u16::from_be_bytes(random())) / f32::from(u16::MAX);
        let pause = SHORTEST_PAUSE + (self.longest - SHORTEST_PAUSE).mul_f32(share);
        self.longest = (self.longest * 2).min(LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_has_the_same_seq_and_time_in_the_same_epoch() {
        let mut printed = Printed::default();
        printed.begin(1, 0);
        for seq in 1..=3 {
            assert!(printed.is_new(seq, 100));
            printed.note(seq, 100);
        }
        printed.begin(1, 1);
        assert!(!printed.is_new(2, 100));
        assert!(printed.is_new(3, 101), "other payment under an old seq");
        assert!(printed.is_new(4, 100));
        printed.begin(2, 0);
        assert!(printed.is_new(2, 100));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut printed = Printed::default();
        for seq in 1..=MAX_REMEMBERED as u64 + 10 {
            printed.note(seq, 1);
        }
        assert_eq!(printed.accepted_at_ms.len(), MAX_REMEMBERED);
        assert!(!printed.is_new(MAX_REMEMBERED as u64 + 10, 1));
        printed.begin(0, u64::MAX);
    }

    #[test]
    fn pauses_grow_to_five_seconds_and_differ() {
        let mut pause = Pause::default();
        assert_eq!(pause.next(), SHORTEST_PAUSE);
        let pauses: Vec<Duration> = (0..50).map(|_| pause.next()).collect();
        for pause in &pauses {
            assert!((SHORTEST_PAUSE..=LONGEST_PAUSE).contains(pause));
        }
        assert!(pauses.windows(2).any(|pair| pair[0] != pair[1]));
        assert_eq!(pause.longest, LONGEST_PAUSE);
    }

    #[test]
    fn it_comes_back_after_a_restart_but_not_after_it_was_replaced() {
        for code in ["shutting_down", "unavailable", "idle_timeout", "too_slow"] {
            assert!(!is_final(code), "{code}");
        }
        for code in ["replaced", "disconnected", "unauthorized", "bad_frame"] {
            assert!(is_final(code), "{code}");
        }
    }

    #[test]
    fn unknown_fields_and_kinds_are_no_error() {
        let line = br#"{"type":"payment","seq":42,"channel":"payments","accepted_at":7,"msg":{"a":[10.00]},"x":null}"#;
        let payment: ServerLine = serde_json::from_slice(line).expect("a payment");
        assert_eq!((payment.seq, payment.accepted_at), (42, 7));
        assert!(serde_json::from_slice::<ServerLine>(b"{\"type\":\"news\"}\r\n").is_ok());
    }
}
