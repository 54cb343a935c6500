//! What the checks found: a few of each kind listed with all that helps to look into it, the rest counted.

use std::collections::BTreeMap;

use super::windows::Windows;
use crate::verdict::{Gravity, Violation};

/// Listed of each check.
const LISTED: u64 = 20;
/// A fault shows its consequences a while after it is healed.
const AFTER_NS: u64 = 3_000_000_000;

pub(super) struct Findings<'a> {
    windows: &'a Windows,
    pub(super) broken: BTreeMap<String, u64>,
    pub(super) gravity: Option<Gravity>,
    pub(super) listed: Vec<Violation>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(windows: &'a Windows) -> Findings<'a> {
        Findings { windows, broken: BTreeMap::new(), gravity: None, listed: Vec::new() }
    }

    /// A rule that was broken, as bad as its letter says: C safety, L bounds, V vacuous.
    pub(super) fn add(&mut self, check: &str, at: u64, who: impl ToString, what: impl FnOnce() -> String) {
        let gravity = match check.as_bytes().first() {
            Some(b'L') => Gravity::Bound,
            Some(b'V') => Gravity::Vacuous,
            _ => Gravity::Safety,
        };
        self.add_as(gravity, check, at, who, what);
    }

    pub(super) fn add_as(
        &mut self,
        gravity: Gravity,
        check: &str,
        at: u64,
        who: impl ToString,
        what: impl FnOnce() -> String,
    ) {
        self.gravity = self.gravity.max(Some(gravity));
        let times = self.broken.entry(check.to_owned()).or_default();
        *times += 1;
        if *times <= LISTED {
            self.listed.push(Violation {
                check: check.to_owned(),
                gravity,
                at_secs: at as f64 / 1e9,
                who: who.to_string(),
                what: what(),
                faults: self.windows.around(at, AFTER_NS).map(|window| window.words(at)).collect(),
            });
        }
    }
}
