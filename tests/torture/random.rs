//! Random numbers that a seed and a role fix: drawing once more in one role moves no other.
//!
//! Seeding is SplitMix64 (Steele, Lea, Flood 2014), the generator xoshiro256** (Blackman, Vigna 2018).

use std::time::Duration;

/// One role's stream.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

impl Random {
    /// The stream of a role such as `plan` or `sender/3`.
    pub fn of(seed: u64, role: &str) -> Random {
        let mut state = role.bytes().fold(seed, |state, byte| split_mix(&mut (state ^ u64::from(byte))));
        Random([(); 4].map(|()| split_mix(&mut state)))
    }

    pub fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A whole number below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        // The bias is below 2^-32 for every range we draw from.
        self.next() % end
    }

    /// From `low` to `high`, both included.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// The same, every order of magnitude as likely as every other.
    pub fn log_within(&mut self, low: u64, high: u64) -> u64 {
        let (low_f, high_f) = (low as f64, high as f64);
        let drawn = low_f * (high_f / low_f).powf(self.share());
        (drawn as u64).clamp(low, high)
    }

    /// From 0 to 1, without 1.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[usize::try_from(self.below(among.len() as u64)).expect("an index")]
    }

    /// One of the indexes of `weights`, each as likely as its weight.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if left < *weight {
                return index;
            }
            left -= weight;
        }
        unreachable!("below the sum of the weights")
    }

    /// The time to the next arrival of a Poisson process of so many a second.
    pub fn arrival(&mut self, rate: f64) -> Duration {
        Duration::from_secs_f64((-(1.0 - self.share()).ln() / rate).min(10.0))
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
