//! The ledger of a run: which payments were posted, accepted and delivered.
//!
//! Written by the senders' and the receivers' thread, read by the main thread. A payment takes two
//! bits, whatever its size, so an hour of 50,000 a second takes 45 MB.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// What is written in it, for all clients.
pub(super) struct Ledger {
    accounts: Vec<Mutex<Account>>,
    accepted: AtomicU64,
    delivered: AtomicU64,
    /// Both accepted and delivered.
    settled: AtomicU64,
}

/// One client's payments, by their number.
#[derive(Default)]
struct Account {
    posted: u64,
    accepted: Bits,
    delivered: Bits,
}

/// What a delivery is to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    First,
    Again,
    /// Nobody posted a payment of that number.
    NeverPosted,
}

impl Ledger {
    pub(super) fn new(clients: usize) -> Ledger {
        let accounts = (0..clients).map(|_| Mutex::default()).collect();
        Ledger { accounts, accepted: AtomicU64::new(0), delivered: AtomicU64::new(0), settled: AtomicU64::new(0) }
    }

    /// A client's payment `number` is about to be sent; numbers come in order, from 0.
    pub(super) fn post(&self, client: usize, number: u64) {
        self.accounts[client].lock().posted = number + 1;
    }

    /// Its sender got the 2xx.
    pub(super) fn accept(&self, client: usize, number: u64) {
        let mut account = self.accounts[client].lock();
        if account.accepted.set(number) {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            if account.delivered.holds(number) {
                self.settled.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Its client got it.
    pub(super) fn deliver(&self, client: usize, number: u64) -> Entry {
        let mut account = self.accounts[client].lock();
        if number >= account.posted {
            return Entry::NeverPosted;
        }
        if !account.delivered.set(number) {
            return Entry::Again;
        }
        self.delivered.fetch_add(1, Ordering::Relaxed);
        if account.accepted.holds(number) {
            self.settled.fetch_add(1, Ordering::Relaxed);
        }
        Entry::First
    }

    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// How many were accepted and are not delivered: under way, or, at the end, lost.
    pub(super) fn missing(&self) -> u64 {
        // Read first, so that what is accepted in between cannot make it negative.
        let settled = self.settled.load(Ordering::Relaxed);
        self.accepted().saturating_sub(settled)
    }

    /// How many were delivered although no sender was told so: an answer got lost, or said no.
    pub(super) fn unannounced(&self) -> u64 {
        let settled = self.settled.load(Ordering::Relaxed);
        self.delivered().saturating_sub(settled)
    }
}

/// A set of numbers, one bit each.
#[derive(Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Adds a number; `false` if it was there.
    fn set(&mut self, number: u64) -> bool {
        let (word, bit) = place(number);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    fn holds(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

fn place(number: u64) -> (usize, u64) {
    ((number / 64) as usize, 1 << (number % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_accepted_is_missing_until_it_is_delivered() {
        let ledger = Ledger::new(2);
        for number in 0..3 {
            ledger.post(1, number);
        }
        ledger.accept(1, 0);
        assert_eq!(ledger.missing(), 1);
        assert_eq!(ledger.deliver(1, 0), Entry::First);
        assert_eq!(ledger.missing(), 0);
        // The delivery may come before the sender has its answer.
        assert_eq!(ledger.deliver(1, 1), Entry::First);
        assert_eq!((ledger.missing(), ledger.unannounced()), (0, 1));
        ledger.accept(1, 1);
        ledger.accept(1, 2);
        assert_eq!((ledger.missing(), ledger.unannounced()), (1, 0));
        assert_eq!((ledger.accepted(), ledger.delivered()), (3, 2));
    }

    #[test]
    fn a_delivery_counts_once_and_only_where_it_was_posted() {
        let ledger = Ledger::new(2);
        ledger.post(0, 70);
        assert_eq!(ledger.deliver(0, 70), Entry::First);
        assert_eq!(ledger.deliver(0, 70), Entry::Again);
        assert_eq!(ledger.deliver(0, 71), Entry::NeverPosted);
        assert_eq!(ledger.deliver(1, 70), Entry::NeverPosted);
        assert_eq!(ledger.delivered(), 1);
    }
}
