//! How much room the bodies of one door take together.
//!
//! Each body has its own limit, but there are thousands of connections. What goes beyond a little for each comes out of
//! one room, and who finds it full is refused, whatever it announced. Used on connections' own threads; waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a connection may hold of a body without asking: so much that single payments of the usual size go on while
/// large bodies are refused, and no more than the largest head takes.
pub(crate) const FREE_BODY_BYTES: usize = 16 << 10;

/// The room of one door.
#[derive(Debug)]
pub(super) struct Room {
    most: usize,
    taken: AtomicUsize,
}

impl Room {
    /// A room of so many bytes.
    pub(super) fn new(most: usize) -> Arc<Room> {
        Arc::new(Room { most, taken: AtomicUsize::new(0) })
    }
}

/// What one connection has of it.
pub(super) struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Share {
    /// Nothing yet.
    pub(super) fn of(room: &Arc<Room>) -> Share {
        Share { room: Arc::clone(room), bytes: 0 }
    }

    /// Makes it a body's of so many bytes in memory; false if the room is full, and then it is as it was.
    pub(super) fn grow_to(&mut self, held: usize) -> bool {
        let more = held.saturating_sub(FREE_BODY_BYTES).saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        // Relaxed: it counts, and orders nothing.
        if self.room.taken.fetch_add(more, Ordering::Relaxed) + more > self.room.most {
            self.room.taken.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes += more;
        true
    }

    /// The body is gone.
    pub(super) fn let_go(&mut self) {
        if self.bytes > 0 {
            self.room.taken.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_share_the_room_and_small_ones_need_none() {
        let room = Room::new(1000);
        let (mut one, mut other) = (Share::of(&room), Share::of(&room));
        assert!(one.grow_to(FREE_BODY_BYTES) && one.grow_to(FREE_BODY_BYTES + 600));
        assert!(other.grow_to(FREE_BODY_BYTES + 399) && other.grow_to(FREE_BODY_BYTES + 400));
        assert!(!other.grow_to(FREE_BODY_BYTES + 401), "full");
        assert!(Share::of(&room).grow_to(FREE_BODY_BYTES), "small ones go on");
        one.let_go();
        assert!(other.grow_to(FREE_BODY_BYTES + 1000));
        drop(other);
        assert_eq!(room.taken.load(Ordering::Relaxed), 0);
    }
}
