//! The bells that came ahead of their turn, a few of them, until those before them have come.

use super::{MAX_EARLY, MAX_EARLY_BYTES};
use crate::doorbell::Bell;
use crate::payment::Seq;
use std::collections::BTreeMap;

/// Bells by the seq whose turn they wait for.
#[derive(Default)]
pub(super) struct Early {
    bells: BTreeMap<Seq, Bell>,
    bytes: usize,
}

impl Early {
    /// Keeps a bell, or says that there is no room for it.
    pub(super) fn keep(&mut self, bell: Bell) -> bool {
        let bytes = bell.entry.frame_bytes();
        if self.bells.len() >= MAX_EARLY || self.bytes + bytes > MAX_EARLY_BYTES {
            return false;
        }
        self.bytes += bytes;
        // A number that was given again rings twice, and not with the same payment.
        if let Some(before) = self.bells.insert(bell.entry.mark.seq, bell) {
            self.bytes -= before.entry.frame_bytes();
        }
        true
    }

    /// The bell of this seq, which is kept no longer.
    pub(super) fn take(&mut self, seq: Seq) -> Option<Bell> {
        let bell = self.bells.remove(&seq)?;
        self.bytes -= bell.entry.frame_bytes();
        Some(bell)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bells.is_empty()
    }
}
