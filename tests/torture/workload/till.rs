//! A client's memory: what it processed, kept over all of its connections as a real one's database would.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::roster;

/// One client.
#[derive(Debug)]
pub struct Till {
    pub id: String,
    connections: AtomicU32,
    books: Mutex<Books>,
}

/// What it processed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Books {
    pub epoch: u64,
    /// The highest seq that was read in this epoch, and when that was accepted.
    pub highest: u64,
    pub accepted_at: u64,
}

impl Till {
    pub fn new(client: u32) -> Till {
        Till { id: roster::id(client), connections: AtomicU32::new(0), books: Mutex::default() }
    }

    /// The number of its next connection.
    pub fn next_connection(&self) -> u32 {
        self.connections.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn books(&self) -> Books {
        *self.lock()
    }

    /// A payment was read; the same one again changes nothing.
    pub fn enter(&self, seq: u64, accepted_at: u64) {
        let mut books = self.lock();
        if seq > books.highest {
            (books.highest, books.accepted_at) = (seq, accepted_at);
        }
    }

    /// A numbering that began anew is remembered from where the node says that it stands.
    pub fn welcome(&self, epoch: u64, acked: u64) {
        let mut books = self.lock();
        if books.epoch != epoch {
            *books = Books { epoch, highest: acked, accepted_at: 0 };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
