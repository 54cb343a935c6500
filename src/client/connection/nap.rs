//! When a connection's reader may leave what its client sends in the socket for a moment.
//!
//! A thread that is woken for each acknowledgement of a busy client costs more than all else about it, so the reader of
//! one naps after an acknowledgement and then reads what has come together. Whoever needs to know sooner wakes it: where
//! a sender waits, where the window gets full, where somebody doubts what is known here, where the connection ends, and
//! where the same client says hello again.

use super::{Connection, Inner};
use crate::payment::Seq;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The smallest window that allows naps: with a smaller one, half of it is full at once.
const LEAST_WINDOW: usize = 8;

impl Connection {
    /// Has its reader, whose thread this is, sleep for so long, unless somebody needs it now or wakes it.
    pub(crate) fn nap(&self, longest: Duration) {
        let mut inner = self.inner.lock();
        if self.is_pressing(&inner) {
            return;
        }
        inner.napping = true;
        drop(inner);
        // Whoever wakes it between these two has it not sleep at all. Waking for no reason only ends a nap early.
        self.reading.store(true, Ordering::Release);
        std::thread::park_timeout(longest);
        self.inner.lock().napping = false;
    }

    /// Its reader has handled all that was in the socket.
    pub(crate) fn has_read(&self) {
        self.reading.store(false, Ordering::Release);
    }

    /// Whether its reader naps, or is at what came meanwhile.
    pub(crate) fn is_behind(&self) -> bool {
        self.reading.load(Ordering::Acquire)
    }

    /// Wakes its reader, if that naps.
    pub(crate) fn wake(&self) {
        self.wake_locked(&mut self.inner.lock());
    }

    pub(super) fn wake_locked(&self, inner: &mut Inner) {
        if std::mem::take(&mut inner.napping) {
            self.reader.unpark();
        }
    }

    /// Something was sent, or could not be for want of room.
    pub(super) fn wake_if_pressing(&self, inner: &mut Inner) {
        if inner.napping && self.is_pressing(inner) {
            self.wake_locked(inner);
        }
    }

    /// Whether what the client says now has to be read at once.
    fn is_pressing(&self, inner: &Inner) -> bool {
        self.window < LEAST_WINDOW
            || inner.closed.is_some()
            || inner.leaving
            || inner.delivery.needs_acks()
            || inner.awaited > Seq(0)
            || self.shared.receipts.is_awaited(&self.client)
    }
}
