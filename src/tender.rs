//! Thread body of `tender`: what has to be done once a second, and is in nobody's way.
//!
//! Renews the node's lease and has every client compared with the store once a heartbeat, a part
//! of them each second.

use crate::bus::Bus;
use crate::client::Clients;
use crate::inbox::{Inbox, Tended};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_secs(1);
/// How often every client is looked after while the bus is down, in ticks.
const DEAF_TICKS: u64 = 2;

/// What the thread uses.
pub(crate) struct Tender {
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) bus: Bus,
    pub(crate) clients: Arc<Clients>,
    pub(crate) heartbeat_secs: u64,
    /// Ends with its sender.
    pub(crate) stop: Receiver<()>,
}

/// The thread body. Another process under this node's name ends this one.
pub(crate) fn run(tender: &Tender) {
    let mut tick = 0u64;
    let mut next = Instant::now();
    loop {
        next = (next + TICK).max(Instant::now());
        match tender.stop.recv_deadline(next) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
        tick += 1;
        match tender.inbox.tend() {
            Tended::Fine => {}
            Tended::Lapsed => {
                log::warn!("this node's lease had lapsed; its clients are compared with the store");
                tender.clients.check_all();
            }
            Tended::Ousted => {
                log::error!("another process took this node's name over; give each node its own with --node");
                std::process::exit(1);
            }
        }
        tender.check_some(tick);
    }
}

/// Thread body of `beat`: speaks to the node's own ear once a second. Apart from the rest, whose
/// round trips would delay it where Redis is slow, until the line is taken for dead.
pub(crate) fn beat(bus: &Bus, stop: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(TICK) {
        bus.beat();
    }
}

impl Tender {
    /// A heartbeat's part of the clients: each comes once.
    fn check_some(&self, tick: u64) {
        for connection in self.clients.all() {
            // While other nodes are not heard, everyone is looked after often.
            let deaf = !self.bus.is_up() && tick.is_multiple_of(DEAF_TICKS);
            if deaf || (connection.since_ms() / 1000) % self.heartbeat_secs == tick % self.heartbeat_secs {
                connection.wish_check();
            }
        }
    }
}
