//! What of a connection is to be stored: the client's words from when they are said until the store has them, and at
//! the end its release.
//!
//! Booked under the connection's lock, stored by `bookkeeper`, which comes for it. Of which payments a word may speak is
//! left to `delivery`, in which order words are stored to `words`.

use super::{Connection, Inner};
use crate::bookkeeper::Item;
use crate::client::close_reason::CloseReason;
use crate::client::delivery::Next;
use crate::client::words::{MAX_WORDS, Word, Words};
use crate::inbox::Session;
use crate::payment::{ClientId, Entry, Mark, Seq};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is left of a connection for the bookkeeper; no socket.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) client: ClientId,
    pub(crate) session: Session,
    /// Its claim was sent to the store, and may be there.
    claimed: Arc<AtomicBool>,
}

impl Ended {
    /// Whether there is anything to store: not for one whose claim never reached the store.
    pub(crate) fn is_needed(&self) -> bool {
        self.claimed.load(Ordering::Relaxed)
    }
}

/// What the bookkeeper has of what a connection has to have stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Booking {
    No,
    /// It gathers: the bookkeeper will look in a moment.
    Gathering,
    /// The bookkeeper's queue holds a note of it.
    Queued,
}

impl Connection {
    /// The client acknowledged everything up to `seq`.
    pub(crate) fn ack(self: &Arc<Self>, seq: Seq) {
        let mut inner = self.inner.lock();
        if inner.closed.is_none() {
            self.ack_locked(&mut inner, seq);
        }
    }

    pub(super) fn ack_locked(self: &Arc<Self>, inner: &mut Inner, seq: Seq) {
        self.time(inner, seq);
        let on_wire = inner.delivery.sent().1;
        let Some(acked) = inner.delivery.ack(seq) else { return };
        inner.to_book.push(Word::Ack { mark: acked.mark, payments: on_wire - inner.delivery.sent().1 });
        // A sender on another node is known by the bell, one on this node by its wait as well.
        let hurries = inner.awaited > Seq(0) || self.shared.receipts.is_awaited(&self.client);
        if acked.mark.seq >= inner.awaited {
            inner.awaited = Seq(0);
        }
        if hurries {
            self.queue_words(inner);
        } else if inner.booked == Booking::No {
            inner.booked = Booking::Gathering;
            self.shared.book.gather(Arc::clone(self));
        }
        if acked.resume {
            self.go(Next::CatchUp);
        }
    }

    /// Counts how long what is now acknowledged took.
    fn time(&self, inner: &Inner, seq: Seq) {
        let now = (self.shared.clock)();
        let accepted = inner.delivery.covered(seq).map(|mark| mark.accepted_at);
        accepted.for_each(|at| self.shared.metrics.took(now.saturating_sub(at)));
    }

    /// Has the bookkeeper come for what is to be stored, at once.
    fn queue_words(self: &Arc<Self>, inner: &mut Inner) {
        // Where the queue is full, the next word tries again, or the end of the connection.
        if inner.booked != Booking::Queued && self.shared.book.try_put(Item::Words(Arc::clone(self))) {
            inner.booked = Booking::Queued;
        }
    }

    /// The client can't process a payment.
    pub(crate) fn nack(self: &Arc<Self>, seq: Seq, reason: String) {
        let mut inner = self.inner.lock();
        if inner.closed.is_some() {
            return;
        }
        if inner.to_book.len() >= MAX_WORDS {
            let why = "too many refusals wait for the store; connect again";
            return self.close_locked(&mut inner, CloseReason::Unavailable(why.into()));
        }
        match inner.delivery.nack(seq) {
            None => log::debug!("{}: a nack of {seq}, which is not under way on this connection", self.client),
            Some(refused) => {
                self.refuse_locked(&mut inner, refused.mark, reason);
                if refused.resume {
                    self.go(Next::CatchUp);
                }
            }
        }
    }

    /// Has a payment made a dead letter by this session's word, behind what it acknowledged before.
    pub(super) fn refuse_locked(self: &Arc<Self>, inner: &mut Inner, mark: Mark, reason: String) {
        inner.to_book.push(Word::Refuse { mark, reason });
        self.queue_words(inner);
    }

    /// Has the store know that one which can expire was sent.
    pub(super) fn note_sent(self: &Arc<Self>, inner: &mut Inner, entry: &Entry) {
        if entry.expires_at > 0 {
            inner.to_book.push(Word::Sent { mark: entry.mark });
            self.queue_words(inner);
        }
    }

    /// What is to be stored next, and of which session.
    pub(crate) fn take_words(&self) -> Option<(Session, Words)> {
        let mut inner = self.inner.lock();
        inner.booked = Booking::No;
        let session = inner.session.clone()?;
        let words = inner.to_book.take_next();
        (!words.is_empty()).then_some((session, words))
    }

    /// Whether something is not stored yet.
    pub(crate) fn has_words(&self) -> bool {
        !self.inner.lock().to_book.is_empty()
    }

    /// The bookkeeper holds an item of this connection's words, with these to be said before any other.
    pub(crate) fn keep_words(&self, words: Words) {
        let mut inner = self.inner.lock();
        inner.to_book.put_back(words);
        inner.booked = Booking::Queued;
    }

    /// Acknowledgements up to a seq are stored.
    pub(crate) fn acked(&self, seq: Seq) {
        let mut inner = self.inner.lock();
        inner.acked = inner.acked.max(seq);
    }

    /// Hands over what is to be stored of a connection that has ended; it is closed by now. The
    /// token alone proves a release: the claim may have been stored without our hearing of it.
    pub(crate) fn hand_over(&self) {
        let ended = self.hand_over_words();
        self.shared.book.put(Item::Release(ended));
    }

    /// The same, but for the release.
    pub(crate) fn hand_over_words(&self) -> Ended {
        let mut inner = self.inner.lock();
        let unknown = Session { number: 0, token: self.token, epoch: 0 };
        let last_words = std::mem::take(&mut inner.to_book);
        let ended = Ended {
            client: self.client.clone(),
            session: inner.session.clone().unwrap_or(unknown),
            claimed: Arc::clone(&self.claimed),
        };
        drop(inner);
        // A reader's thread may wait here, until the bookkeeper has taken what came before.
        if !last_words.is_empty() {
            self.shared.book.put(Item::LastWords(ended.clone(), last_words));
        }
        ended
    }
}
