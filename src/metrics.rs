//! The counters of `/metrics`, in Prometheus' text format.
//!
//! No label has values that a sender or client could choose.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt;

/// How a payment went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Live,
    CatchUp,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabel {
    way: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

/// All counters of a node.
pub(crate) struct Metrics {
    registry: Registry,
    accepted: Counter,
    duplicates: Counter,
    refused: Family<CodeLabel, Counter>,
    live: Counter,
    caught_up: Counter,
    acknowledged: Counter,
    closed: Family<CodeLabel, Counter>,
    rollbacks: Counter,
    online: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("payrelay");
        let delivered = Family::<WayLabel, Counter>::default();
        // One statement each: a guard of the family lives to the end of its own.
        let live = delivered.get_or_create(&WayLabel { way: "live" }).clone();
        let caught_up = delivered.get_or_create(&WayLabel { way: "catch_up" }).clone();
        let metrics = Metrics {
            accepted: Counter::default(),
            duplicates: Counter::default(),
            refused: Family::default(),
            live,
            caught_up,
            acknowledged: Counter::default(),
            closed: Family::default(),
            rollbacks: Counter::default(),
            online: Gauge::default(),
            registry: Registry::default(),
        };
        // The names get their `_total` from the format.
        registry.register("payments_accepted", "Payments stored in an inbox", metrics.accepted.clone());
        registry.register("payments_duplicate", "Posts whose payment id was there", metrics.duplicates.clone());
        registry.register("requests_refused", "Answers that were problems, by code", metrics.refused.clone());
        registry.register("payments_delivered", "Payments written to a client's socket, repeats included", delivered);
        registry.register(
            "payments_acknowledged",
            "Payments whose acknowledgement is stored",
            metrics.acknowledged.clone(),
        );
        registry.register("connections_closed", "Clients' connections that ended, by code", metrics.closed.clone());
        registry.register(
            "rollbacks",
            "Times the store was found without writes it had taken",
            metrics.rollbacks.clone(),
        );
        registry.register("clients_online", "Clients connected to this node", metrics.online.clone());
        Metrics { registry, ..metrics }
    }

    pub(crate) fn accepted(&self, duplicate: bool) {
        if duplicate {
            self.duplicates.inc()
        } else {
            self.accepted.inc()
        };
    }

    pub(crate) fn refused(&self, code: &'static str) {
        self.refused.get_or_create(&CodeLabel { code }).inc();
    }

    pub(crate) fn delivered(&self, way: Way) {
        match way {
            Way::Live => self.live.inc(),
            Way::CatchUp => self.caught_up.inc(),
        };
    }

    pub(crate) fn acknowledged(&self, payments: u64) {
        self.acknowledged.inc_by(payments);
    }

    pub(crate) fn closed(&self, code: &'static str) {
        self.closed.get_or_create(&CodeLabel { code }).inc();
    }

    pub(crate) fn rolled_back(&self) {
        self.rollbacks.inc();
    }

    /// Everything as text.
    pub(crate) fn text(&self, online: usize) -> Result<String, fmt::Error> {
        self.online.set(i64::try_from(online).unwrap_or(i64::MAX));
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}
