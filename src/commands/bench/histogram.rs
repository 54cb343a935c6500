//! How long things took: a histogram of bounded memory whose buckets grow with what they hold.
//!
//! Values below 128 have a bucket each; above, every doubling is cut into 64 equal buckets. So a
//! quantile is at most a sixty-fourth too high, and never too low. The largest value is exact.

use serde::Serialize;

/// Each doubling has 2^6 buckets.
const BITS: u32 = 6;
const STEPS: usize = 1 << BITS;
/// Values from here on, 12 days in microseconds, share the last bucket.
const LIMIT: u64 = 1 << 40;
const BUCKETS: usize = (40 - BITS as usize + 1) * STEPS;

/// Counts of times in microseconds.
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

/// What a report says of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { counts: vec![0; BUCKETS], count: 0, max: 0 }
    }
}

impl Histogram {
    pub(super) fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    pub(super) fn quantiles(&self) -> Quantiles {
        let [p50, p99, p999] = [500, 990, 999].map(|permille| self.quantile(permille));
        Quantiles { p50, p99, p999, max: self.max }
    }

    /// The value that so many thousandths of all do not exceed; 0 where there are none.
    fn quantile(&self, permille: u64) -> u64 {
        let rank = (self.count * permille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return last_of(bucket).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(value: u64) -> usize {
    let value = value.min(LIMIT - 1);
    // How often it must be halved to have only one bit more than BITS.
    let halvings = (64 - value.leading_zeros()).saturating_sub(BITS + 1);
    halvings as usize * STEPS + (value >> halvings) as usize
}

/// The largest value that falls into a bucket.
fn last_of(bucket: usize) -> u64 {
    let halvings = (bucket / STEPS).saturating_sub(1);
    let kept = (bucket - halvings * STEPS) as u64;
    ((kept + 1) << halvings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gap() {
        let mut next = 0;
        for number in 0..BUCKETS {
            let last = last_of(number);
            assert_eq!((bucket(next), bucket(last)), (number, number), "from {next} to {last}");
            next = last + 1;
        }
        assert_eq!(next, LIMIT);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_bucket_is_at_most_a_sixty_fourth_wide() {
        for value in (0..40).flat_map(|bit| [1u64 << bit, (1 << bit) + (1 << bit) / 3, (2 << bit) - 1]) {
            let told = last_of(bucket(value.min(LIMIT - 1)));
            assert!(told >= value && told - value <= value / 64, "{value} is told as {told}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut times = Histogram::default();
        assert_eq!(times.quantiles(), Quantiles::default());
        (1..=100).for_each(|value| times.record(value));
        assert_eq!(times.quantiles(), Quantiles { p50: 50, p99: 99, p999: 100, max: 100 });
        times.record(5_000_000);
        assert_eq!(times.quantiles(), Quantiles { p50: 51, p99: 100, p999: 5_000_000, max: 5_000_000 });
    }
}
