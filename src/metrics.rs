//! What `/metrics` shows, in Prometheus' text format: what was counted here, and the levels that
//! `gauges` reads for a scrape.
//!
//! No label has values that a sender or client could choose. Counting never takes a lock but for
//! what is refused or closed.

pub(crate) mod histogram;
pub(crate) mod levels;

use crate::payment::Status;
use histogram::Histogram;
use levels::Levels;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// What every name begins with.
const PREFIX: &str = "payrelay";

/// How a payment went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Live,
    CatchUp,
}

/// Why a client went without a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// It was not yet welcome, or something waited for it.
    Behind,
    TooLargeForFraming,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabel {
    way: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabel {
    door: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PurposeLabel {
    purpose: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabel {
    queue: &'static str,
}

/// What one of the doors, HTTP's or TCP's, counts.
#[derive(Clone, Debug)]
pub(crate) struct DoorMeter {
    open: Gauge,
    refused: Counter,
}

impl DoorMeter {
    pub(crate) fn entered(&self) {
        self.open.inc();
    }

    pub(crate) fn left(&self) {
        self.open.dec();
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }
}

/// What the inbox measures of itself, whatever its home.
pub(crate) struct InboxMeters {
    /// `redis` or `embedded`.
    pub(crate) store: &'static str,
    /// Jobs of each round of the group commit.
    pub(crate) rounds: Histogram,
    /// Nothing without Redis.
    pub(crate) lines: LineMeters,
}

/// What all connections to Redis measure, by purpose. A clone is the same.
#[derive(Clone, Debug)]
pub(crate) struct LineMeters {
    round_trips: Family<PurposeLabel, Histogram, fn() -> Histogram>,
    reconnects: Family<PurposeLabel, Counter>,
}

/// What the connections of one purpose measure.
#[derive(Clone, Debug)]
pub(crate) struct LineMeter {
    /// In microseconds.
    pub(crate) round_trips: Histogram,
    /// Connections that were made in the place of a lost one.
    pub(crate) reconnects: Counter,
}

impl LineMeters {
    pub(crate) fn new() -> LineMeters {
        let round_trips = Family::new_with_constructor((|| Histogram::new(&histogram::MICROS)) as fn() -> Histogram);
        LineMeters { round_trips, reconnects: Family::default() }
    }

    /// For one purpose.
    pub(crate) fn of(&self, purpose: &'static str) -> LineMeter {
        let round_trips = self.round_trips.get_or_create_owned(&PurposeLabel { purpose });
        LineMeter { round_trips, reconnects: self.reconnects(purpose) }
    }

    /// For connections of a purpose that have no round trips: they only listen.
    pub(crate) fn reconnects(&self, purpose: &'static str) -> Counter {
        self.reconnects.get_or_create_owned(&PurposeLabel { purpose })
    }
}

/// Counts dead letters. A clone is the same: the store's hints are counted before all else is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeadLetters(Family<ReasonLabel, Counter>);

impl DeadLetters {
    pub(crate) fn died(&self, status: Status) {
        self.0.get_or_create(&ReasonLabel { reason: status.as_str() }).inc();
    }
}

/// All counters of a node.
pub(crate) struct Metrics {
    registry: Registry,
    accepted: Counter,
    duplicates: Counter,
    refused: Family<CodeLabel, Counter>,
    live: Counter,
    caught_up: Counter,
    repeated: Counter,
    acknowledged: Counter,
    latency: Histogram,
    closed: Family<CodeLabel, Counter>,
    takeovers: Counter,
    rollbacks: Counter,
    broadcasts_delivered: Counter,
    broadcasts_behind: Counter,
    broadcasts_too_large: Counter,
    broadcasts_dropped: Counter,
    http: DoorMeter,
    tcp: DoorMeter,
    dead_letters: DeadLetters,
}

impl Metrics {
    pub(crate) fn new(inbox: InboxMeters, dead_letters: DeadLetters) -> Metrics {
        let mut registry = Registry::with_prefix(PREFIX);
        let delivered = Family::<WayLabel, Counter>::default();
        let left_out = Family::<ReasonLabel, Counter>::default();
        let behind = left_out.get_or_create_owned(&ReasonLabel { reason: "behind" });
        let too_large = left_out.get_or_create_owned(&ReasonLabel { reason: "too_large_for_framing" });
        let open = Family::<DoorLabel, Gauge>::default();
        let turned_away = Family::<DoorLabel, Counter>::default();
        let meter = |door| {
            let label = DoorLabel { door };
            DoorMeter { open: open.get_or_create_owned(&label), refused: turned_away.get_or_create_owned(&label) }
        };
        let metrics = Metrics {
            accepted: Counter::default(),
            duplicates: Counter::default(),
            refused: Family::default(),
            live: delivered.get_or_create_owned(&WayLabel { way: "live" }),
            caught_up: delivered.get_or_create_owned(&WayLabel { way: "catch_up" }),
            repeated: Counter::default(),
            acknowledged: Counter::default(),
            latency: Histogram::new(&histogram::MILLIS),
            closed: Family::default(),
            takeovers: Counter::default(),
            rollbacks: Counter::default(),
            broadcasts_delivered: Counter::default(),
            broadcasts_behind: behind,
            broadcasts_too_large: too_large,
            broadcasts_dropped: Counter::default(),
            http: meter("http"),
            tcp: meter("tcp"),
            dead_letters,
            registry: Registry::default(),
        };
        // The names get their `_total` and their unit from the format.
        registry.register("payments_accepted", "Payments stored in an inbox", metrics.accepted.clone());
        registry.register("payments_duplicate", "Posts whose payment id was there", metrics.duplicates.clone());
        registry.register("requests_refused", "Answers that were problems, by code", metrics.refused.clone());
        registry.register("payments_delivered", "Payments written to a client's socket, repeats included", delivered);
        registry.register(
            "payments_repeated",
            "Payments sent again that this node had sent on an earlier connection",
            metrics.repeated.clone(),
        );
        registry.register(
            "payments_acknowledged",
            "Payments whose acknowledgement is stored",
            metrics.acknowledged.clone(),
        );
        registry.register_with_unit(
            "acknowledgement_latency",
            "From accepting a payment to its client's acknowledgement",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        registry.register("connections_closed", "Clients' connections that ended, by code", metrics.closed.clone());
        registry.register("connections_open", "Connections that are open, by door", open);
        registry.register("connections_refused", "Connections turned away at the limit, by door", turned_away);
        registry.register(
            "takeovers",
            "Clients' connections here that a newer one of the same client replaced",
            metrics.takeovers.clone(),
        );
        registry.register(
            "rollbacks",
            "Times the store was found without writes it had taken",
            metrics.rollbacks.clone(),
        );
        registry.register(
            "broadcasts_delivered",
            "Broadcasts written to a client's socket",
            metrics.broadcasts_delivered.clone(),
        );
        registry.register("broadcasts_left_out", "Clients that went without a broadcast, by reason", left_out);
        registry.register(
            "broadcasts_dropped",
            "Broadcasts that reached nobody here, for too many waited",
            metrics.broadcasts_dropped.clone(),
        );
        registry.register(
            "dead_letters",
            "Payments that this node found refused or expired, by reason",
            metrics.dead_letters.0.clone(),
        );
        register_inbox(&mut registry, inbox);
        let start = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        registry.register_with_unit(
            "process_start_time",
            "When this process began, Unix time",
            Unit::Seconds,
            ConstGauge::new(start),
        );
        Metrics { registry, ..metrics }
    }

    /// HTTP's.
    pub(crate) fn http(&self) -> &DoorMeter {
        &self.http
    }

    /// TCP's.
    pub(crate) fn tcp(&self) -> &DoorMeter {
        &self.tcp
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

    /// A payment went out that had gone out on an earlier connection.
    pub(crate) fn repeated(&self) {
        self.repeated.inc();
    }

    /// A client acknowledged a payment so long after it was accepted.
    pub(crate) fn took(&self, millis: u64) {
        self.latency.observe(millis);
    }

    pub(crate) fn acknowledged(&self, payments: u64) {
        self.acknowledged.inc_by(payments);
    }

    pub(crate) fn closed(&self, code: &'static str) {
        self.closed.get_or_create(&CodeLabel { code }).inc();
    }

    pub(crate) fn taken_over(&self) {
        self.takeovers.inc();
    }

    pub(crate) fn rolled_back(&self) {
        self.rollbacks.inc();
    }

    pub(crate) fn broadcast_delivered(&self) {
        self.broadcasts_delivered.inc();
    }

    pub(crate) fn broadcast_left_out(&self, why: LeftOut) {
        match why {
            LeftOut::Behind => self.broadcasts_behind.inc(),
            LeftOut::TooLargeForFraming => self.broadcasts_too_large.inc(),
        };
    }

    pub(crate) fn broadcast_dropped(&self) {
        self.broadcasts_dropped.inc();
    }

    /// Everything as text.
    pub(crate) fn text(&self, levels: &Levels) -> Result<String, fmt::Error> {
        let mut out = String::new();
        levels.write(&mut out)?;
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

fn register_inbox(registry: &mut Registry, inbox: InboxMeters) {
    registry.register("commit_jobs", "Jobs of each round of the group commit", inbox.rounds);
    registry.register_with_unit(
        "redis_round_trip",
        "Round trips to Redis, by purpose",
        Unit::Seconds,
        inbox.lines.round_trips,
    );
    registry.register(
        "redis_reconnects",
        "Connections to Redis made in the place of a lost one, by purpose",
        inbox.lines.reconnects,
    );
    let about = vec![("version", env!("CARGO_PKG_VERSION")), ("store", inbox.store)];
    registry.register("build", "This program", Info::new(about));
}
