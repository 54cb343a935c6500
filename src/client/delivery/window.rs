//! What was sent to a client and is not acknowledged, and how much more may be.

use super::MAX_WINDOW_BYTES;
use crate::payment::{Mark, Seq};
use std::collections::VecDeque;

/// A payment's frame, of which the socket took all or a part.
pub(super) struct OnWire {
    pub(super) mark: Mark,
    pub(super) bytes: usize,
}

/// The frames that the socket took whole, by seq, and their bounds.
pub(super) struct Window {
    most_payments: usize,
    on_wire: VecDeque<OnWire>,
    bytes: usize,
}

impl Window {
    pub(super) fn new(most_payments: usize) -> Window {
        Window { most_payments, on_wire: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn add(&mut self, frame: OnWire) {
        self.bytes += frame.bytes;
        self.on_wire.push_back(frame);
    }

    /// Takes out everything up to `seq`. The newest of it, if there was any.
    pub(super) fn take_up_to(&mut self, seq: Seq) -> Option<Mark> {
        let mut mark = None;
        while let Some(frame) = self.on_wire.front().filter(|frame| frame.mark.seq <= seq) {
            mark = Some(frame.mark);
            self.bytes -= frame.bytes;
            self.on_wire.pop_front();
        }
        mark
    }

    /// Takes out this one, if it is there.
    pub(super) fn take(&mut self, seq: Seq) -> Option<Mark> {
        let at = self.on_wire.iter().position(|frame| frame.mark.seq == seq)?;
        let OnWire { mark, bytes } = self.on_wire.remove(at)?;
        self.bytes -= bytes;
        Some(mark)
    }

    /// Everything up to `seq`.
    pub(super) fn up_to(&self, seq: Seq) -> impl Iterator<Item = Mark> {
        self.on_wire.iter().map(|frame| frame.mark).take_while(move |mark| mark.seq <= seq)
    }

    pub(super) fn len(&self) -> usize {
        self.on_wire.len()
    }

    /// How many payments may be added, and how many bytes of them.
    pub(super) fn room(&self) -> (usize, usize) {
        let payments = self.most_payments.saturating_sub(self.on_wire.len());
        let bytes =
            if self.on_wire.is_empty() { MAX_WINDOW_BYTES } else { MAX_WINDOW_BYTES.saturating_sub(self.bytes) };
        (payments, bytes)
    }

    /// Whether a frame of so many bytes may be added.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.on_wire.is_empty() || (self.on_wire.len() < self.most_payments && self.bytes + bytes <= MAX_WINDOW_BYTES)
    }

    pub(super) fn is_full(&self) -> bool {
        self.on_wire.len() >= self.most_payments || self.bytes >= MAX_WINDOW_BYTES
    }

    pub(super) fn is_half_full(&self) -> bool {
        self.on_wire.len() >= self.most_payments / 2 || self.bytes >= MAX_WINDOW_BYTES / 2
    }
}
