//! Clients whose acknowledgements make no sense (F55): above what was sent, 0, lower, doubled, before the hello, from
//! a replaced connection, and some that are no numbers at all.
//!
//! What a lie above what was sent counts for must be known exactly, else nobody could say afterwards what was lost and
//! what the client gave away. So a liar's window is 1: when it has read a payment that it did not acknowledge, nothing
//! else is under way to it, and the lie counts for that payment and no more.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::line::Line;
use super::receiver::{Acks, Receiver};
use super::{Shared, spawn};
use crate::fault::Kind as Fault;
use crate::history::{End, Kind, Record};

/// A number that a program with doubles for numbers cannot hold.
const PAST_DOUBLES: u64 = (1 << 53) + 1;

/// One that lies, and its second connection.
struct Liar {
    shared: Arc<Shared>,
    first: Receiver,
    second: Receiver,
    client: u32,
}

/// Starts it.
pub fn start(shared: &Arc<Shared>, client: u32, actor: u16, twin: u16) -> io::Result<JoinHandle<()>> {
    let narrow = r#","window":1"#;
    let mut liar = Liar {
        shared: Arc::clone(shared),
        first: Receiver::new(shared, client, actor, "receiver")?.saying(narrow),
        second: Receiver::new(shared, client, twin, "twin")?.saying(narrow),
        client,
    };
    spawn(format!("liar-{client}"), move || {
        while !liar.shared.is_over() {
            if liar.shared.is_draining() {
                liar.first.step(Acks::Prompt);
                continue;
            }
            let honest = Instant::now() + Duration::from_millis(liar.first.random.within(50, 1000));
            liar.first.steps(Acks::Prompt, honest);
            liar.lie();
        }
        for mut receiver in [liar.first, liar.second] {
            receiver.close(End::Own);
            receiver.writer.flush();
        }
    })
}

impl Liar {
    fn lie(&mut self) {
        match self.first.random.below(9) {
            0 => self.overstate(u64::MAX >> 1),
            1 => self.overstate(PAST_DOUBLES),
            2 => {
                let more = self.first.random.within(1, 1000);
                let received = self.first.link.as_ref().map_or(0, |link| link.received);
                self.overstate(received + more);
            }
            3 => self.say_and_tell("{\"type\":\"ack\",\"seq\":0}\n"),
            4 => {
                let acked = self.first.link.as_ref().map_or(0, |link| link.acked);
                let lower = acked.saturating_sub(self.first.random.within(1, 10));
                self.say_and_tell(&format!("{{\"type\":\"ack\",\"seq\":{lower}}}\n"));
            }
            5 => {
                let acked = self.first.link.as_ref().map_or(0, |link| link.acked);
                self.say_and_tell(&format!("{{\"type\":\"ack\",\"seq\":{acked}}}\n").repeat(3));
            }
            6 => {
                let seqs = ["-1", "1.5", "\"7\"", "null", "1e3", "[1]", "18446744073709551616"];
                let seq = *self.first.random.pick(&seqs);
                self.say_and_tell(&format!("{{\"type\":\"ack\",\"seq\":{seq}}}\n"));
            }
            7 => self.ack_before_hello(),
            _ => self.ack_when_replaced(),
        }
    }

    fn say_and_tell(&mut self, line: &str) {
        if self.first.link.is_some() {
            self.first.say(line);
            self.shared.behaved(Fault::F55);
        }
    }

    /// Reads one payment that it does not acknowledge, and then acknowledges more than there is. Others come meanwhile,
    /// for which its window has no room: they are what a node that believes it would lose.
    fn overstate(&mut self, seq: u64) {
        if !self.read_one() {
            return;
        }
        let until = Instant::now() + Duration::from_millis(self.first.random.within(50, 500));
        self.first.steps(Acks::Never, until);
        if self.read_one() {
            overstate(&mut self.first, self.client, seq);
            self.shared.behaved(Fault::F55);
        }
    }

    /// Whether there is one that was read and not acknowledged; then nothing else is under way.
    fn read_one(&mut self) -> bool {
        let until = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until && !self.shared.is_over() {
            if self.first.link.as_ref().is_some_and(|link| link.received > link.acked) {
                return true;
            }
            self.first.step(Acks::Never);
        }
        false
    }

    fn ack_before_hello(&mut self) {
        let node = self.shared.draw_node(&mut self.first.random);
        let Ok(mut line) = Line::connect(self.shared.world.nodes[node].tcp.addr()) else { return };
        if line.write("{\"type\":\"ack\",\"seq\":1000000}\n").is_ok() {
            self.shared.behaved(Fault::F55);
        }
    }

    /// Another connection takes over; the one before speaks all the same.
    fn ack_when_replaced(&mut self) {
        if !self.read_one() {
            return;
        }
        let until = Instant::now() + Duration::from_secs(1);
        while self.second.link.is_none() && Instant::now() < until {
            self.second.step(Acks::Never);
        }
        overstate(&mut self.first, self.client, PAST_DOUBLES);
        self.shared.behaved(Fault::F55);
        self.second.close(End::Own);
    }
}

/// Says a seq that was never sent; written down is the one that it can count for.
fn overstate(receiver: &mut Receiver, client: u32, seq: u64) {
    let Some(link) = &mut receiver.link else { return };
    link.acked = link.received;
    let counts = Record { kind: Kind::Ack, seq: link.received, extra: seq, ..link.blank(client) };
    receiver.writer.record(counts);
    receiver.say(&format!("{{\"type\":\"ack\",\"seq\":{seq}}}\n"));
}
