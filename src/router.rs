//! Thread body of `router`: bells to sockets. It never waits for anything but the next bell.

use crate::client::Clients;
use crate::client::connection::Connection;
use crate::doorbell::{Bell, Hint};
use crate::payment::ClientId;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the gap before a bell that came ahead of its turn may stand.
const GAP: Duration = Duration::from_millis(5);
/// The most bells in the queue.
pub(crate) const MAX_BELLS: usize = 16 * 1024;
/// The most bytes of them.
pub(crate) const MAX_BELL_BYTES: usize = 64 << 20;

/// The bell queue's entrance.
pub(crate) struct Bells {
    queue: Sender<Option<Bell>>,
    bytes: Arc<AtomicUsize>,
    clients: Arc<Clients>,
}

/// The bell queue's exit; one thread takes from it.
#[derive(Clone)]
pub(crate) struct Rung {
    queue: Receiver<Option<Bell>>,
    bytes: Arc<AtomicUsize>,
}

/// Makes the bell queue.
pub(crate) fn bells(clients: Arc<Clients>) -> (Bells, Rung) {
    let (bell_tx, bell_rx) = crossbeam_channel::bounded(MAX_BELLS);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Bells { queue: bell_tx, bytes: Arc::clone(&bytes), clients }, Rung { queue: bell_rx, bytes })
}

impl Bells {
    /// Takes a hint from the inbox. Never waits.
    pub(crate) fn hint(&self, hint: Hint) {
        match hint {
            Hint::Bell(bell) => self.ring(bell),
            Hint::Check(client) => self.check(&client),
            Hint::Died(client, seq, _) => {
                if let Some(connection) = self.clients.get(&client) {
                    connection.died(seq);
                }
            }
        }
    }

    fn check(&self, client: &ClientId) {
        if let Some(connection) = self.clients.get(client) {
            connection.wish_check();
        }
    }

    /// Rings. Never waits: where the queue is full, the client is compared with its inbox instead.
    pub(crate) fn ring(&self, bell: Bell) {
        let bytes = bell.entry.frame_bytes();
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > MAX_BELL_BYTES {
            return self.missed(&bell, bytes);
        }
        if let Err(TrySendError::Full(Some(bell)) | TrySendError::Disconnected(Some(bell))) =
            self.queue.try_send(Some(bell))
        {
            self.missed(&bell, bytes);
        }
    }

    fn missed(&self, bell: &Bell, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.check(&bell.client);
    }

    /// How many bells wait for the router.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Ends the router behind what is in its queue.
    pub(crate) fn stop(&self) {
        let _ = self.queue.send(None);
    }
}

/// The thread body: until [`Bells::stop`].
pub(crate) fn run(rung: &Rung, clients: &Clients) {
    // All gaps are equally long, so they end in the order in which they began.
    let mut gaps: VecDeque<(Instant, Arc<Connection>)> = VecDeque::new();
    loop {
        let bell = match gaps.front() {
            None => rung.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((end, _)) => rung.queue.recv_deadline(*end),
        };
        match bell {
            Ok(Some(bell)) => {
                rung.bytes.fetch_sub(bell.entry.frame_bytes(), Ordering::Relaxed);
                if let Some(connection) = clients.get(&bell.client)
                    && connection.ring(bell)
                    && gaps.len() < MAX_BELLS
                {
                    gaps.push_back((Instant::now() + GAP, connection));
                }
            }
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        while gaps.front().is_some_and(|(end, _)| *end <= Instant::now()) {
            if let Some((_, connection)) = gaps.pop_front() {
                connection.gap();
            }
        }
    }
}
