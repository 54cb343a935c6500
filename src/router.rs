//! Thread body of `router`: bells to sockets. It never waits for anything but the next bell.
//!
//! Where several wait it takes them together, and what is for one client goes out as one: so the more it is behind, the
//! less each costs.

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
/// The most bytes of them, and of those that the router has taken and not sent yet.
pub(crate) const MAX_BELL_BYTES: usize = 64 << 20;
/// The most that the router takes together.
pub(crate) const MAX_TAKEN: usize = 4 * 1024;

/// The bell queue's entrance.
pub(crate) struct Bells {
    queue: Sender<Option<Bell>>,
    bytes: Arc<AtomicUsize>,
    taken: Arc<AtomicUsize>,
    clients: Arc<Clients>,
}

/// The bell queue's exit; one thread takes from it.
#[derive(Clone)]
pub(crate) struct Rung {
    queue: Receiver<Option<Bell>>,
    bytes: Arc<AtomicUsize>,
    /// How many are in the router's hands.
    taken: Arc<AtomicUsize>,
}

/// Makes the bell queue.
pub(crate) fn bells(clients: Arc<Clients>) -> (Bells, Rung) {
    let (bell_tx, bell_rx) = crossbeam_channel::bounded(MAX_BELLS);
    let [bytes, taken] = [0; 2].map(|none| Arc::new(AtomicUsize::new(none)));
    let bells = Bells { queue: bell_tx, bytes: Arc::clone(&bytes), taken: Arc::clone(&taken), clients };
    (bells, Rung { queue: bell_rx, bytes, taken })
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
        self.queue.len() + self.taken.load(Ordering::Relaxed)
    }

    /// Ends the router behind what is in its queue.
    pub(crate) fn stop(&self) {
        let _ = self.queue.send(None);
    }
}

impl Rung {
    /// Takes what else waits. Whether [`Bells::stop`] stood behind it.
    fn take_more(&self, taken: &mut VecDeque<Bell>) -> bool {
        while taken.len() < MAX_TAKEN {
            match self.queue.try_recv() {
                Ok(Some(bell)) => taken.push_back(bell),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    }

    /// Rings at each client, which sends what the bells brought. `gap`: at which of them there is one.
    fn send_all(&self, taken: &mut VecDeque<Bell>, clients: &Clients, mut gap: impl FnMut(Arc<Connection>)) {
        self.taken.store(taken.len(), Ordering::Relaxed);
        // Those of one client stay in their order.
        taken.make_contiguous().sort_by(|a, b| a.client.cmp(&b.client));
        while let Some(first) = taken.front() {
            let connection = clients.get(&first.client);
            let count = taken.iter().take_while(|bell| bell.client == first.client).count();
            let bytes = taken.iter().take(count).map(|bell| bell.entry.frame_bytes()).sum();
            let bells = taken.drain(..count);
            if let Some(connection) = connection
                && connection.ring(bells)
            {
                gap(connection);
            }
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.taken.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

/// The thread body: until [`Bells::stop`].
pub(crate) fn run(rung: &Rung, clients: &Clients) {
    // All gaps are equally long, so they end in the order in which they began.
    let mut gaps: VecDeque<(Instant, Arc<Connection>)> = VecDeque::new();
    let mut taken = VecDeque::new();
    let mut is_over = false;
    while !is_over {
        let bell = match gaps.front() {
            None => rung.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((end, _)) => rung.queue.recv_deadline(*end),
        };
        match bell {
            Ok(Some(bell)) => {
                taken.push_back(bell);
                is_over = rung.take_more(&mut taken);
            }
            Ok(None) | Err(RecvTimeoutError::Disconnected) => is_over = true,
            Err(RecvTimeoutError::Timeout) => {}
        }
        rung.send_all(&mut taken, clients, |connection| {
            if gaps.len() < MAX_BELLS {
                gaps.push_back((Instant::now() + GAP, connection));
            }
        });
        while gaps.front().is_some_and(|(end, _)| *end <= Instant::now()) {
            if let Some((_, connection)) = gaps.pop_front() {
                connection.gap();
            }
        }
    }
}
