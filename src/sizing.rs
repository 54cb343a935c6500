//! What a load takes of its store: memory of Redis, or room on disk. Rules of thumb, measured.
//!
//! Measured on 2026-11-24 with Redis 7.0.15 (jemalloc, 64 bits, `used_memory`) and redb 4.1 (blocks
//! of the file), client ids of 11 characters, payment ids of 8 to 36. README.md's *Sizing* has the
//! figures; `tests/sizing.rs` compares both with a real store.

/// Redis: a client with an empty inbox that is connected; 290 of it stay while it is not.
const CLIENT_IN_REDIS: u64 = 460;
/// Redis: an inbox that holds something, beside what it holds.
const INBOX_IN_REDIS: u64 = 100;
/// Redis: a payment beside its message: frame, seq, time.
const ENTRY_IN_REDIS: u64 = 62;
/// Redis: a remembered payment id; 230 with 8 characters.
const ID_IN_REDIS: u64 = 260;
/// Redis packs payments into blocks of so many bytes; one that is larger than half of it has its own.
const BLOCK_IN_REDIS: u64 = 8192;

/// The file: a client, with or without payments.
const CLIENT_IN_FILE: u64 = 60;
/// The file: a payment beside its message, and the room that its page keeps free.
const ENTRY_IN_FILE: u64 = 170;
/// The file: a remembered payment id, in two tables.
const ID_IN_FILE: u64 = 400;
/// What the file is divided into; a payment larger than half a page has pages of its own.
const PAGE_IN_FILE: u64 = 4096;

/// What a payment id adds to its own payment.
const ID_IN_ENTRY: u64 = 45;

/// What a deployment is to hold at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) clients: u64,
    /// Payments that wait, of all clients together.
    pub(crate) pending: u64,
    /// Payments with a payment id within the dedup window.
    pub(crate) ids: u64,
    pub(crate) message_bytes: u64,
}

impl Load {
    /// What it adds to Redis' `used_memory`.
    pub(crate) fn redis_bytes(&self) -> u64 {
        let inboxes = self.pending.min(self.clients.max(1));
        let entry = self.frame_bytes() + ENTRY_IN_REDIS;
        // What the allocator rounds up: an eighth on average for blocks that grow, a quarter at
        // most for one that is as large as its payment.
        let entry = if entry > BLOCK_IN_REDIS / 2 { entry + entry / 4 } else { entry + entry / 8 };
        self.clients * CLIENT_IN_REDIS + inboxes * INBOX_IN_REDIS + self.pending * entry + self.ids * ID_IN_REDIS
    }

    /// What it adds to `inbox.redb`.
    pub(crate) fn file_bytes(&self) -> u64 {
        let entry = self.frame_bytes() + ENTRY_IN_FILE;
        let entry =
            if entry > PAGE_IN_FILE / 2 { entry.next_power_of_two().max(PAGE_IN_FILE) } else { entry + entry / 10 };
        self.clients * CLIENT_IN_FILE + self.pending * entry + self.ids * ID_IN_FILE
    }

    fn frame_bytes(&self) -> u64 {
        self.message_bytes + if self.ids > 0 { ID_IN_ENTRY } else { 0 }
    }

    /// Whether anything is expected at all.
    pub(crate) fn is_none(&self) -> bool {
        self.clients == 0 && self.pending == 0 && self.ids == 0
    }
}

/// A number of bytes for an operator: `1.5 MiB`.
pub(crate) fn shown(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes, "KiB");
    for larger in ["MiB", "GiB", "TiB"] {
        if value < 1024 * 1000 {
            break;
        }
        (value, unit) = (value / 1024, larger);
    }
    format!("{}.{} {unit}", value / 1024, value % 1024 * 10 / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        assert_eq!(shown(0), "0.0 KiB");
        assert_eq!(shown(1536), "1.5 KiB");
        assert_eq!(shown(1024 * 999), "999.0 KiB");
        assert_eq!(shown(1024 * 1024), "1.0 MiB");
        assert_eq!(shown(3 << 30), "3.0 GiB");
        assert_eq!(shown(u64::MAX), "16777215.9 TiB");
    }

    #[test]
    fn the_largest_load_that_can_be_given_is_a_number() {
        let load = Load { clients: 1_000_000_000, pending: 1_000_000_000, ids: 1_000_000_000, message_bytes: 16 << 20 };
        assert!(load.redis_bytes() > 16 << 50 && load.file_bytes() > 16 << 50);
    }
}
