//! What a socket has not taken of a frame that was begun.

use std::sync::Arc;

/// The rest of a frame; empty where nothing is owed. Who owes the same frame as others shares it with them.
#[derive(Default)]
pub(super) struct Owed {
    frame: Option<Arc<[u8]>>,
    taken: usize,
}

impl Owed {
    /// Of this frame, what stands behind the bytes that were taken.
    pub(super) fn of(frame: Arc<[u8]>, taken: usize) -> Owed {
        Owed { frame: Some(frame), taken }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.frame.as_deref().and_then(|frame| frame.get(self.taken..)).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The socket took more of it. With the last byte the frame is let go.
    pub(super) fn took(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.is_empty() {
            *self = Owed::default();
        }
    }
}
