//! A histogram of whole numbers that is counted without a lock.
//!
//! prometheus-client's own takes a lock for each value, and every reader's thread counts here for
//! every payment that is acknowledged. A value costs two additions.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many values lie within each of some bounds, and what all of them sum up to. A clone is the
/// same histogram.
#[derive(Clone, Debug)]
pub(crate) struct Histogram(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    scale: &'static Scale,
    /// One for each bound, and one for what lies beyond the last.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Scale {
    /// How many of what is counted are one of what is shown.
    per_unit: u32,
    /// The highest value of each bucket, rising.
    bounds: &'static [u64],
}

/// Jobs of a round; 128 are the most.
pub(crate) const JOBS: Scale = Scale { per_unit: 1, bounds: &[1, 2, 4, 8, 16, 32, 64, 128] };

/// Milliseconds, 1 ms to an hour, shown in seconds.
pub(crate) const MILLIS: Scale = Scale {
    per_unit: 1_000,
    bounds: &[
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000,
        3_600_000,
    ],
};

/// Microseconds, 100 µs to the second that a round trip may take, shown in seconds.
pub(crate) const MICROS: Scale = Scale {
    per_unit: 1_000_000,
    bounds: &[100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000],
};

impl Histogram {
    pub(crate) fn new(scale: &'static Scale) -> Histogram {
        let buckets = (0..=scale.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram(Arc::new(Counts { scale, buckets, sum: AtomicU64::new(0) }))
    }

    /// Counts a value.
    pub(crate) fn observe(&self, value: u64) {
        let Counts { scale, buckets, sum } = &*self.0;
        let bucket = scale.bounds.partition_point(|bound| *bound < value);
        buckets[bucket].fetch_add(1, Ordering::Relaxed);
        sum.fetch_add(value, Ordering::Relaxed);
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), fmt::Error> {
        let Counts { scale, buckets, sum } = &*self.0;
        let shown = |value: u64| value as f64 / f64::from(scale.per_unit);
        // The encoder adds the buckets up.
        let bounds = scale.bounds.iter().map(|bound| shown(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(shown(sum.load(Ordering::Relaxed)), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    #[test]
    fn a_value_lies_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::new(&MILLIS);
        [0, 1, 2, 3, 3_600_000, 3_600_001].iter().for_each(|value| histogram.observe(*value));
        let mut registry = Registry::default();
        registry.register("h", "H", histogram);
        let mut text = String::new();
        text::encode(&mut text, &registry).expect("a string takes all");
        for line in [
            "h_bucket{le=\"0.001\"} 2",
            "h_bucket{le=\"0.002\"} 3",
            "h_bucket{le=\"0.005\"} 4",
            "h_bucket{le=\"3600.0\"} 5",
            "h_bucket{le=\"+Inf\"} 6",
            "h_count 6",
            "h_sum 7200.007",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
        }
    }
}
