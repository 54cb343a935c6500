//! Thread body `receivers`: all clients of a run, on one thread.
//!
//! Each says hello, checks what arrives, and acknowledges all that one read brought with one line.
//! A client whose connection breaks during the run comes again, as a real one would.

use std::borrow::Cow;
use std::io;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::check::{Faults, Verdict, Watch};
use super::histogram::Histogram;
use super::ledger::Ledger;
use super::message::{Messages, Said};
use super::plan::Plan;
use super::stage::{Stage, Step};
use super::wire::{Poller, Wire};
use crate::auth::random;
use crate::commands::{plainly, printable};

/// From connecting to the welcome.
const WELCOME_TIME: Duration = Duration::from_secs(15);
/// Connections that are being opened at once: fewer than a listener's backlog.
const MAX_OPENING: usize = 128;
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often the clients that have no connection are looked at, and how long to wait where all have one.
const LOOK: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// An ack may be left out where the next one says the same: no more is owed than that.
const MAX_OWED_BYTES: usize = 4096;
/// What stands around the message in a line.
const MAX_ENVELOPE_BYTES: usize = 8192;

/// What the receivers found.
#[derive(Default)]
pub(super) struct Received {
    /// From when a payment was to be sent to its arrival.
    pub(super) end_to_end: Histogram,
    pub(super) last_us: u64,
    pub(super) faults: Faults,
    /// Came again on a new connection, as is allowed.
    pub(super) allowed_repeats: u64,
    /// An earlier run's, or somebody else's.
    pub(super) foreign: u64,
    pub(super) reconnected: u64,
}

/// One client.
struct Receiver {
    number: usize,
    id: String,
    wire: Option<Wire>,
    is_welcome: bool,
    attempts: usize,
    failures: u32,
    /// With a connection: when the welcome must be there. Without: when to connect.
    at: Instant,
    /// The front half of a line.
    half: Vec<u8>,
    watch: Watch,
    last_seq: u64,
    acked: u64,
}

/// What all clients use.
struct Hall<'a> {
    plan: &'a Plan,
    stage: &'a Stage,
    ledger: &'a Ledger,
    poller: Poller,
    messages: Messages,
    opening: usize,
    received: Received,
}

#[derive(Deserialize)]
struct ServerLine<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    seq: Option<u64>,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
}

/// Connects all clients and takes what comes until the stage is over.
///
/// # Errors
///
/// The system refuses what the thread needs.
pub(super) fn run(plan: &Plan, stage: &Stage, ledger: &Ledger) -> io::Result<Received> {
    let (poller, messages) = (Poller::new()?, plan.messages());
    let mut hall = Hall { plan, stage, ledger, poller, messages, opening: 0, received: Received::default() };
    let mut receivers: Vec<Receiver> = (0..plan.clients).map(|number| Receiver::new(plan, number)).collect();
    let mut chunk = vec![0; 64 * 1024];
    let mut tokens = Vec::new();
    let mut without = plan.clients;
    let mut looked_at: Option<Instant> = None;
    while stage.step() != Step::Over {
        let now = Instant::now();
        if without > 0 && looked_at.is_none_or(|at| now - at >= LOOK) {
            receivers.iter_mut().filter(|receiver| !receiver.is_welcome).for_each(|one| one.keep_time(&mut hall, now));
            looked_at = Some(now);
        }
        hall.poller.wait(if without > 0 { LOOK } else { LONGEST_WAIT }, &mut tokens)?;
        for &token in &tokens {
            let receiver = &mut receivers[token];
            let was_welcome = receiver.is_welcome;
            receiver.hear(&mut hall, &mut chunk);
            match (was_welcome, receiver.is_welcome) {
                (false, true) => without -= 1,
                (true, false) => without += 1,
                _ => {}
            }
        }
    }
    receivers.iter_mut().for_each(|receiver| receiver.leave(&hall.poller));
    Ok(hall.received)
}

impl Receiver {
    fn new(plan: &Plan, number: usize) -> Receiver {
        Receiver {
            number,
            id: plan.client_id(number),
            wire: None,
            is_welcome: false,
            attempts: 0,
            failures: 0,
            at: Instant::now(),
            half: Vec::new(),
            watch: Watch::default(),
            last_seq: 0,
            acked: 0,
        }
    }

    /// Connects when it is time, and gives up who does not say welcome.
    fn keep_time(&mut self, hall: &mut Hall<'_>, now: Instant) {
        if now < self.at {
            return;
        }
        if self.wire.is_some() {
            return self.lose(hall, "no welcome in time");
        }
        if hall.opening < MAX_OPENING {
            self.open(hall, now);
        }
    }

    fn open(&mut self, hall: &mut Hall<'_>, now: Instant) {
        let address = hall.plan.tcp_of(self.number, self.attempts);
        self.attempts += 1;
        if self.attempts > 1 {
            self.watch.reconnect();
            hall.received.reconnected += 1;
        }
        hall.opening += 1;
        match Wire::open(address, &hall.poller, self.number) {
            Ok(mut wire) => {
                wire.owe().extend_from_slice(hall.plan.hello(self.number).as_bytes());
                self.wire = Some(wire);
                self.at = now + WELCOME_TIME;
            }
            Err(error) => self.lose(hall, &plainly(&error)),
        }
    }

    /// Something happened to the socket.
    fn hear(&mut self, hall: &mut Hall<'_>, chunk: &mut [u8]) {
        let Some(mut wire) = self.wire.take() else {
            return;
        };
        let outcome = self.exchange(&mut wire, hall, chunk);
        self.wire = Some(wire);
        if let Err(why) = outcome {
            self.lose(hall, &why);
        }
    }

    fn exchange(&mut self, wire: &mut Wire, hall: &mut Hall<'_>, chunk: &mut [u8]) -> Result<(), String> {
        let lost = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
            _ => plainly(&error),
        };
        // What the server said last tells more than that it takes nothing more: so read first.
        if let Some(count) = wire.read(chunk).map_err(lost)? {
            self.take_lines(&chunk[..count], wire, hall)?;
        }
        if hall.plan.acknowledges && self.acked < self.last_seq && wire.owed_bytes() < MAX_OWED_BYTES {
            self.acked = self.last_seq;
            wire.owe().extend_from_slice(format!("{{\"type\":\"ack\",\"seq\":{}}}\n", self.acked).as_bytes());
        }
        wire.flush(&hall.poller).map_err(lost)
    }

    fn take_lines(&mut self, mut bytes: &[u8], wire: &mut Wire, hall: &mut Hall<'_>) -> Result<(), String> {
        let now_us = hall.stage.now_us();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            if self.half.is_empty() {
                self.take_line(line, wire, hall, now_us)?;
            } else {
                let mut whole = std::mem::take(&mut self.half);
                whole.extend_from_slice(line);
                self.take_line(&whole, wire, hall, now_us)?;
            }
        }
        if self.half.len() + bytes.len() > 6 * hall.plan.size + MAX_ENVELOPE_BYTES {
            return Err("the server sent a line that is too long".to_owned());
        }
        self.half.extend_from_slice(bytes);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], wire: &mut Wire, hall: &mut Hall<'_>, now_us: u64) -> Result<(), String> {
        let not_ours = "the server sent a line that is not payrelay's; is this its TCP port?";
        let line: ServerLine<'_> = serde_json::from_slice(line).map_err(|_| not_ours.to_owned())?;
        match line.kind {
            "payment" => self.take_payment(&line, hall, now_us),
            "welcome" if !self.is_welcome => {
                self.is_welcome = true;
                self.failures = 0;
                hall.opening -= 1;
                hall.stage.count_welcome();
            }
            "ping" if wire.owed_bytes() < MAX_OWED_BYTES => wire.owe().extend_from_slice(b"{\"type\":\"pong\"}\n"),
            "error" => {
                let (code, message) = (line.code.unwrap_or_default(), line.message.unwrap_or_default());
                return Err(printable(&format!("{code}: {message}")));
            }
            _ => {}
        }
        Ok(())
    }

    fn take_payment(&mut self, line: &ServerLine<'_>, hall: &mut Hall<'_>, now_us: u64) {
        // Whatever it is, it is done with: nobody else will come for it.
        self.last_seq = self.last_seq.max(line.seq.unwrap_or_default());
        let received = &mut hall.received;
        let (number, at_us) = match hall.messages.read(line.msg.map_or("", RawValue::get), &self.id) {
            Said::Whole { number, at_us } => (number, at_us),
            Said::WrongClient => return received.faults.wrong_client += 1,
            Said::Altered => return received.faults.altered += 1,
            Said::Foreign => return received.foreign += 1,
        };
        let entry = hall.ledger.deliver(self.number, number);
        match self.watch.judge(number, line.seq, entry) {
            Verdict::Right => {}
            Verdict::AllowedRepeat => return received.allowed_repeats += 1,
            Verdict::Repeated => return received.faults.repeated += 1,
            Verdict::NeverPosted => return received.faults.altered += 1,
            Verdict::OutOfOrder => received.faults.out_of_order += 1,
            Verdict::SeqOutOfOrder => received.faults.seq_out_of_order += 1,
        }
        received.last_us = now_us;
        received.end_to_end.record(now_us.saturating_sub(at_us));
    }

    /// The connection is lost, or was never there: at first that ends the run, later it is tried again.
    fn lose(&mut self, hall: &mut Hall<'_>, why: &str) {
        if hall.stage.step() == Step::Opening {
            let (id, address) = (&self.id, hall.plan.tcp_of(self.number, self.attempts.saturating_sub(1)));
            hall.stage.refuse(format!("client {id} was not let in at {address}: {why}"));
        }
        if !self.is_welcome {
            hall.opening -= 1;
        }
        self.is_welcome = false;
        self.wire = None;
        self.half.clear();
        (self.last_seq, self.acked) = (0, 0);
        self.at = Instant::now() + pause(self.failures);
        self.failures += 1;
    }

    fn leave(&mut self, poller: &Poller) {
        if let Some(wire) = &mut self.wire {
            wire.owe().extend_from_slice(b"{\"type\":\"bye\"}\n");
            // A server that is gone already changes nothing.
            let _ = wire.flush(poller);
            wire.finish();
        }
    }
}

/// A random time that grows with the failures, so that many clients do not come at once.
fn pause(failures: u32) -> Duration {
    let longest = (SHORTEST_PAUSE * 2u32.saturating_pow(failures.min(8))).min(LONGEST_PAUSE);
    longest.mul_f32(f32::from(u16::from_be_bytes(random())) / f32::from(u16::MAX))
}
