//! Reads, for a scrape, how full everything is that nobody keeps count of on the payments' way.
//!
//! Runs on the thread that answers the scrape. What it asks the store is bounded in time.

use crate::bookkeeper::Book;
use crate::broadcast::Broadcasts;
use crate::client::Clients;
use crate::client::connection::Connection;
use crate::drainer::Drainer;
use crate::inbox::Inbox;
use crate::metrics::levels::{BacklogLevels, Levels};
use crate::router::Bells;
use crossbeam_channel::Sender;
use std::sync::Arc;

/// Where to look.
pub(crate) struct Gauges {
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) bells: Arc<Bells>,
    pub(crate) broadcasts: Arc<Broadcasts>,
    pub(crate) book: Arc<Book>,
    pub(crate) catch_up: Sender<Option<Arc<Connection>>>,
    pub(crate) drainer: Arc<Drainer>,
}

impl Gauges {
    pub(crate) fn read(&self) -> Levels {
        Levels {
            clients_online: self.clients.count_online(),
            queues: vec![
                ("bells", self.bells.waiting()),
                ("book", self.book.waiting()),
                ("broadcasts", self.broadcasts.waiting()),
                ("catch_up", self.catch_up.len()),
                ("commit", self.inbox.uncommitted()),
                ("gathering_acks", self.book.gathering()),
                ("parked_sockets", self.drainer.parked()),
            ],
            backlog: self.backlog(),
        }
    }

    fn backlog(&self) -> Option<BacklogLevels> {
        let backlog = self.inbox.backlog();
        let backlog = backlog.inspect_err(|error| log::debug!("/metrics tells no backlog: {error}")).ok()?;
        let age_ms = backlog.oldest_at.map_or(0, |at| self.inbox.now_ms().saturating_sub(at));
        Some(BacklogLevels { inboxes: backlog.inboxes, payments: backlog.payments, oldest_age: age_ms as f64 / 1000.0 })
    }
}
