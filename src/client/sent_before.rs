//! What was sent to clients that left before they had acknowledged all of it, so that a repeat is
//! known for one. For `/metrics` only, so what is forgotten here costs a count that is too low.

use crate::payment::{ClientId, Mark};
use parking_lot::Mutex;
use std::collections::HashMap;

/// How many clients are remembered at least; twice as many at most.
const REMEMBERED: usize = 50_000;

/// The newest payment that was sent to each of the clients that left last.
#[derive(Default)]
pub(super) struct SentBefore {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    recent: HashMap<ClientId, Mark>,
    /// Forgotten as a whole once there are enough recent ones.
    older: HashMap<ClientId, Mark>,
}

impl SentBefore {
    /// A client left, and everything up to this had been sent to it.
    pub(super) fn note(&self, client: &ClientId, sent: Mark) {
        let mut state = self.state.lock();
        if state.recent.len() >= REMEMBERED {
            state.older = std::mem::take(&mut state.recent);
        }
        state.recent.insert(client.clone(), sent);
    }

    /// What was sent to a client that is here again.
    pub(super) fn take(&self, client: &ClientId) -> Option<Mark> {
        let mut state = self.state.lock();
        let older = state.older.remove(client);
        state.recent.remove(client).or(older)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::Seq;

    fn client(number: usize) -> ClientId {
        ClientId::parse(&number.to_string()).expect("a client id")
    }

    fn mark(seq: usize) -> Mark {
        Mark { seq: Seq(seq as u64), accepted_at: 1 }
    }

    #[test]
    fn the_latest_word_counts_and_is_given_once() {
        let sent = SentBefore::default();
        sent.note(&client(1), mark(3));
        sent.note(&client(1), mark(5));
        assert_eq!(sent.take(&client(1)), Some(mark(5)));
        assert_eq!(sent.take(&client(1)), None);
    }

    #[test]
    fn the_oldest_are_forgotten_and_the_number_is_bounded() {
        let sent = SentBefore::default();
        let all = 3 * REMEMBERED;
        (0..all).for_each(|n| sent.note(&client(n), mark(n)));
        let state = sent.state.lock();
        assert!(state.recent.len() + state.older.len() <= 2 * REMEMBERED);
        drop(state);
        assert_eq!(sent.take(&client(0)), None);
        (all - REMEMBERED..all).for_each(|n| assert_eq!(sent.take(&client(n)), Some(mark(n))));
    }
}
