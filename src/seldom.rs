//! A word in the log for what may happen thousands of times: said now and then, not each time.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// How long nothing is said after something was.
const PAUSE: Duration = Duration::from_secs(10);

/// Remembers when something was said last.
#[derive(Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Says a warning, unless one was said a moment ago.
    pub(crate) fn warn(&self, word: impl FnOnce() -> String) {
        let mut last = self.0.lock();
        if last.is_none_or(|last| last.elapsed() >= PAUSE) {
            *last = Some(Instant::now());
            drop(last);
            let word = word();
            log::warn!("{word}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_said_once() {
        let seldom = Seldom::default();
        let mut said = 0;
        for _ in 0..1000 {
            seldom.warn(|| {
                said += 1;
                "a flood".into()
            });
        }
        assert_eq!(said, 1);
    }
}
