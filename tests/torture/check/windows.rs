//! When which fault was in force: everything that is measured, or forgiven, is so against these.

use std::collections::HashMap;

use crate::fault::Kind;
use crate::history::{Event, What};
use crate::plan::Plan;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;

/// Those that are not for one node.
const OF_ALL: [Kind; 10] =
    [Kind::F5, Kind::F20, Kind::F22, Kind::F29, Kind::F30, Kind::F31, Kind::F33, Kind::F36, Kind::F37, Kind::F38];

/// One fault from its beginning to its healing.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) step: usize,
    pub(super) kind: Kind,
    /// The node it was for, where the kind is for one.
    pub(super) node: u8,
    pub(super) begin: u64,
    /// The end of the history, if it was never healed.
    pub(super) end: u64,
    /// `None` if it was never healed.
    pub(super) effect: Option<u64>,
}

/// All of them, in the order of their beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    pub(super) all: Vec<Window>,
    /// Their union: apart from each other, in order.
    union: Vec<(u64, u64)>,
}

impl Window {
    /// The fault at this time, in a few words.
    pub(super) fn words(&self, at: u64) -> String {
        let since = (at as f64 - self.begin as f64) / 1e9;
        let mut name = format!("{} {}, step {}", self.kind.code(), self.kind.words(), self.step);
        if !OF_ALL.contains(&self.kind) {
            name += &format!(", node {}", self.node + 1);
        }
        match at.checked_sub(self.end) {
            Some(healed) if healed > 0 => format!("{name}: healed {:.1} s ago", healed as f64 / 1e9),
            _ => format!("{name}: for {since:.1} s"),
        }
    }

    pub(super) fn touches(&self, from: u64, to: u64) -> bool {
        self.begin <= to && self.end >= from
    }
}

impl Windows {
    pub(super) fn read(events: &[Event], plan: &Plan, nodes: usize, end: u64) -> Windows {
        let mut all: Vec<Window> = Vec::new();
        let mut open: HashMap<usize, usize> = HashMap::new();
        for event in events {
            match &event.what {
                What::FaultBegin { step, kind } => {
                    open.insert(*step, all.len());
                    let node = plan.steps.get(*step).map_or(0, |step| step.node % nodes.max(1));
                    let node = u8::try_from(node).unwrap_or(0);
                    all.push(Window { step: *step, kind: *kind, node, begin: event.at, end, effect: None });
                }
                What::FaultEnd { step, effect, .. } => {
                    if let Some(window) = open.remove(step).and_then(|place| all.get_mut(place)) {
                        (window.end, window.effect) = (event.at, Some(*effect));
                    }
                }
                _ => {}
            }
        }
        all.sort_by_key(|window| window.begin);
        let union = unite(all.iter().map(|window| (window.begin, window.end)));
        Windows { all, union }
    }

    /// Those in force at a time, or healed no longer than `after` before it.
    pub(super) fn around(&self, at: u64, after: u64) -> impl Iterator<Item = &Window> {
        self.all.iter().filter(move |window| window.begin <= at && at <= window.end.saturating_add(after))
    }

    /// Whether no fault at all was in force at any time from `from` to `to`.
    pub(super) fn calm(&self, from: u64, to: u64) -> bool {
        let next = self.union.partition_point(|(_, end)| *end < from);
        self.union.get(next).is_none_or(|(begin, _)| *begin > to)
    }

    /// Whether no fault but this one was in force at any time from `from` to `to`.
    pub(super) fn alone(&self, only: &Window, from: u64, to: u64) -> bool {
        self.all.iter().all(|window| window.step == only.step || !window.touches(from, to))
    }

    /// How much of the time from `from` to `to` was under a fault, or within `after` of its healing.
    pub(super) fn overlap(&self, from: u64, to: u64, after: u64) -> u64 {
        let stretched = unite(self.union.iter().map(|(begin, end)| (*begin, end.saturating_add(after))));
        stretched.iter().map(|(begin, end)| (*end).min(to).saturating_sub((*begin).max(from))).sum()
    }

    /// The stretches without a fault, until `end`.
    pub(super) fn gaps(&self, end: u64) -> Vec<(u64, u64)> {
        let begins = self.union.iter().map(|(begin, _)| *begin).chain([end]);
        let ends = [0].into_iter().chain(self.union.iter().map(|(_, end)| *end));
        ends.zip(begins).filter(|(from, to)| from < to).collect()
    }
}

/// Stretches in the order of their beginning, made one where they touch.
fn unite(stretches: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut united: Vec<(u64, u64)> = Vec::new();
    for (begin, end) in stretches {
        match united.last_mut() {
            Some(last) if begin <= last.1 => last.1 = last.1.max(end),
            _ => united.push((begin, end)),
        }
    }
    united
}
