//! How far a run is: what its threads and the main thread tell each other while it lasts.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// The steps of a run, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Step {
    /// The clients say hello; whoever is not let in ends the run.
    Opening,
    Sending,
    /// Nothing more is posted; what was accepted may still arrive.
    Draining,
    Over,
}

/// The run as its threads share it.
pub(super) struct Stage {
    step: AtomicU8,
    /// Times count from here; it is set when the sending begins.
    start: OnceLock<Instant>,
    welcome: AtomicUsize,
    errors: AtomicU64,
    not_let_in: OnceLock<String>,
}

impl Stage {
    pub(super) fn new() -> Stage {
        Stage {
            step: AtomicU8::new(Step::Opening as u8),
            start: OnceLock::new(),
            welcome: AtomicUsize::new(0),
            errors: AtomicU64::new(0),
            not_let_in: OnceLock::new(),
        }
    }

    pub(super) fn step(&self) -> Step {
        match self.step.load(Ordering::Acquire) {
            0 => Step::Opening,
            1 => Step::Sending,
            2 => Step::Draining,
            _ => Step::Over,
        }
    }

    /// Goes on to a step; never back to an earlier one.
    pub(super) fn go_to(&self, step: Step) {
        if step == Step::Sending {
            self.start.get_or_init(Instant::now);
        }
        self.step.fetch_max(step as u8, Ordering::AcqRel);
    }

    /// Microseconds since the sending began.
    pub(super) fn now_us(&self) -> u64 {
        let since = self.start.get().map(Instant::elapsed).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// One more client was let in.
    pub(super) fn count_welcome(&self) {
        self.welcome.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn welcome(&self) -> usize {
        self.welcome.load(Ordering::Relaxed)
    }

    pub(super) fn count_errors(&self, count: u64) {
        self.errors.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// A client was not let in, and why.
    pub(super) fn refuse(&self, why: String) {
        let _ = self.not_let_in.set(why);
    }

    pub(super) fn not_let_in(&self) -> Option<&str> {
        self.not_let_in.get().map(String::as_str)
    }
}
