//! How full everything is at the moment of a scrape: values, and their text.

use super::QueueLabel;
use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

/// What was read. Each scrape has its own, so that two at once do not disturb each other.
#[derive(Debug)]
pub(crate) struct Levels {
    pub(crate) clients_online: usize,
    /// By the name of the queue.
    pub(crate) queues: Vec<(&'static str, usize)>,
    /// `None`: the store did not say.
    pub(crate) backlog: Option<BacklogLevels>,
}

/// What waits in the store's inboxes.
#[derive(Debug)]
pub(crate) struct BacklogLevels {
    pub(crate) inboxes: u64,
    pub(crate) payments: u64,
    /// Of the oldest payment, in seconds; 0 where none waits.
    pub(crate) oldest_age: f64,
}

impl Levels {
    /// Appends them as text.
    pub(super) fn write(&self, out: &mut String) -> Result<(), fmt::Error> {
        let mut registry = Registry::with_prefix(super::PREFIX);
        let number = |n: usize| ConstGauge::new(u64::try_from(n).unwrap_or(u64::MAX));
        registry.register("clients_online", "Clients connected to this node", number(self.clients_online));
        let queues = Family::<QueueLabel, Gauge>::default();
        for (queue, length) in &self.queues {
            let gauge = queues.get_or_create_owned(&QueueLabel { queue });
            gauge.set(i64::try_from(*length).unwrap_or(i64::MAX));
        }
        registry.register("queue_length", "What waits in this node's queues", queues);
        let answers = ConstGauge::new(u64::from(self.backlog.is_some()));
        registry.register("store_up", "Whether the store answered this scrape", answers);
        if let Some(BacklogLevels { inboxes, payments, oldest_age }) = self.backlog {
            registry.register("inboxes_waiting", "Inboxes with payments in them", ConstGauge::new(inboxes));
            registry.register(
                "payments_pending",
                "Payments that are not acknowledged, in at most 10000 inboxes",
                ConstGauge::new(payments),
            );
            registry.register_with_unit(
                "oldest_pending_age",
                "Time since the oldest of them was accepted, 0 where there is none",
                Unit::Seconds,
                ConstGauge::new(oldest_age),
            );
        }
        text::encode_registry(out, &registry)
    }
}
