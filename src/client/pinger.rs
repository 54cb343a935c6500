//! Thread body of `pinger`: asks for a word from each client that has been silent for a heartbeat.
//!
//! One thread for all of them: a client's own would have to wake for its ping and again for the answer, and little else
//! is done for an idle client. It judges nobody. Whether a client is gone is found by its reader, after an empty read.

use super::Clients;
use super::reader::SILENT_HEARTBEATS;
use crate::frame::PING;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Rounds in a heartbeat: a ping comes late by one of them at most.
const ROUNDS: u32 = 8;
/// The round of a silence in which the last ping is due.
pub(crate) const LAST_PING: u32 = (SILENT_HEARTBEATS - 1) * ROUNDS + 1;
/// So many are pinged without a pause. Many clients' readers that wake at once would have payments wait for a processor.
const AT_ONCE: usize = 32;
const PAUSE: Duration = Duration::from_millis(1);

/// The thread body: until the other end of `stop` is dropped.
pub(crate) fn run(clients: &Clients, heartbeat: Duration, stop: &Receiver<()>) {
    let mut next = Instant::now();
    loop {
        next = (next + heartbeat / ROUNDS).max(Instant::now());
        let Err(RecvTimeoutError::Timeout) = stop.recv_deadline(next) else { return };
        let mut silent = clients.all();
        silent.retain(|connection| is_due(connection.one_more_silent_round()));
        for some in silent.chunks(AT_ONCE) {
            some.iter().for_each(|connection| connection.say(PING));
            std::thread::sleep(PAUSE);
        }
    }
}

/// Whether silence of so many rounds, the first of them not a whole one, calls for a ping. Not once a reader is about to
/// give its client up.
fn is_due(silent_rounds: u32) -> bool {
    (1..SILENT_HEARTBEATS).any(|heartbeats| silent_rounds == heartbeats * ROUNDS + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_comes_after_each_whole_heartbeat_but_the_last() {
        let due: Vec<u32> = (0..1000).filter(|&rounds| is_due(rounds)).collect();
        assert_eq!(due, [9, 17]);
        assert_eq!(due.last(), Some(&LAST_PING));
    }
}
