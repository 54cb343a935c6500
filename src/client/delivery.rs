//! What one client gets next: live or behind, the window, what an ack may mean, bells out of
//! order, takeovers. A state machine without I/O: who holds the client's lock asks it, sends what
//! it says, and tells it what the socket took. The sums are its parts': how much is on the wire is
//! in `window`, the bells that came ahead of their turn in `early`.
//!
//! A client is *live* (the router sends what the bells bring) or *behind* (catch-up sends what
//! the inbox holds). In between it is *checked*: catch-up looks into its inbox, though nothing is
//! known to wait there. Whoever learns something about a client that is not live only notes a
//! wish: the newest seq, or "check". Who holds it gives it away:
//!
//! ```text
//!           claimed, all acked                 bell: the next one -> send
//! claiming ───────────────────────▶ live ◀──────────────────────────────┐
//!    │ claimed, some pending         │ gap, check        nothing is left │
//!    └──────────────▶ behind: catch-up ◀─┴──────────────────▶ catch-up ──┘
//!                       │        ▲  ack makes room      socket took the rest ▲
//!                window full ──▶ behind: nobody      socket full ──▶ behind: drainer
//! ```

mod early;
mod window;

use crate::doorbell::Bell;
use crate::payment::{Entry, Mark, Seq};
use early::Early;
use std::collections::BTreeSet;
use window::{OnWire, Window};

/// The most bytes of unacknowledged frames on the wire; one frame always goes.
pub(crate) const MAX_WINDOW_BYTES: usize = 1 << 20;
/// The most bells that are kept ahead of their turn.
pub(crate) const MAX_EARLY: usize = 16;
/// The most bytes of them.
pub(crate) const MAX_EARLY_BYTES: usize = 64 * 1024;
/// The most dead letters that are remembered until their bells have come.
const MAX_DEAD: usize = 1024;

/// Who sends to a client now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its claim is not stored yet.
    Claiming,
    /// The router.
    Live,
    /// Catch-up has it in its queue or at hand.
    CatchUp,
    /// The same, but nothing is known to wait: somebody only doubts that.
    Checked,
    /// Nobody: the window is full, or what is next cannot be sent, and the next ack gives it to catch-up.
    WindowFull,
    /// The drainer: the socket was full in the middle of a frame.
    Drainer,
}

/// What to do with a bell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// Send it now.
    Send(Entry),
    /// Kept ahead of its turn; ask [`Delivery::gap_stands`] in a moment.
    Kept,
    /// The client is behind now: give it to catch-up.
    CatchUp,
    /// Noted, or known.
    Nothing,
}

/// How an entry that catch-up read is to be handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    Send,
    /// It was sent before.
    Skip,
    /// There is no room for it.
    WindowFull,
}

/// Where a client goes after a slice of catch-up or a drained socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// To catch-up's queue.
    CatchUp,
    /// Nowhere: it is live, waits for an ack, or is the drainer's.
    Stay,
}

/// What catch-up is to ask the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) after: Mark,
    /// 0: only whether session and place are still true.
    pub(crate) payments: usize,
    pub(crate) bytes: usize,
}

/// What an ack changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acked {
    /// To be stored.
    pub(crate) mark: Mark,
    /// There is room again: give the client to catch-up.
    pub(crate) resume: bool,
}

/// The state of one connection's delivery.
pub(crate) struct Delivery {
    phase: Phase,
    window: Window,
    /// The newest payment whose last byte the socket took.
    sent: Mark,
    /// The frame that the socket took a part of.
    owed: Option<OnWire>,
    /// The newest seq that anybody mentioned.
    newest: Seq,
    /// Somebody has reason to doubt what we know.
    check: bool,
    early: Early,
    /// Dead letters that were not sent yet: the bell of one may be on its way here.
    dead: BTreeSet<Seq>,
    /// The highest session that took this client over, heard of while claiming.
    taken_by: u64,
    session: u64,
}

impl Delivery {
    pub(crate) fn new(window: usize) -> Delivery {
        Delivery {
            phase: Phase::Claiming,
            window: Window::new(window),
            sent: Mark::default(),
            owed: None,
            newest: Seq(0),
            check: false,
            early: Early::default(),
            dead: BTreeSet::new(),
            taken_by: 0,
            session: 0,
        }
    }

    /// The claim is stored. `Err`: a newer session has taken over meanwhile.
    pub(crate) fn claimed(&mut self, session: u64, acked: Mark, last: Mark) -> Result<Next, ()> {
        self.session = session;
        if self.taken_by > session {
            return Err(());
        }
        self.sent = acked;
        self.newest = self.newest.max(last.seq);
        Ok(self.settle())
    }

    /// A takeover was heard of. Whether this connection is over.
    pub(crate) fn taken_over(&mut self, by: u64) -> bool {
        self.taken_by = self.taken_by.max(by);
        self.phase != Phase::Claiming && self.taken_by > self.session
    }

    /// A doorbell rang.
    pub(crate) fn ring(&mut self, bell: Bell) -> Ring {
        let mark = bell.entry.mark;
        self.newest = self.newest.max(mark.seq);
        if self.phase == Phase::Checked && self.has_left() {
            self.phase = Phase::CatchUp;
        }
        if self.phase != Phase::Live {
            return Ring::Nothing;
        }
        if mark.seq <= self.sent.seq {
            // An old one, unless the store gave the number again to another payment.
            let known = mark.seq < self.sent.seq || mark == self.sent;
            return if known { Ring::Nothing } else { self.doubt() };
        }
        if self.dead.contains(&mark.seq) {
            return self.doubt();
        }
        if mark.seq > self.sent.seq.next() {
            return self.keep(bell);
        }
        if bell.previous() != self.sent {
            return self.doubt();
        }
        if !self.window.has_room(bell.entry.frame_bytes()) {
            self.phase = Phase::WindowFull;
            return Ring::Nothing;
        }
        Ring::Send(bell.entry)
    }

    fn doubt(&mut self) -> Ring {
        if self.wish_check() { Ring::CatchUp } else { Ring::Nothing }
    }

    fn keep(&mut self, bell: Bell) -> Ring {
        if self.early.keep(bell) {
            return Ring::Kept;
        }
        self.fall_behind(Phase::CatchUp);
        Ring::CatchUp
    }

    /// The kept bell whose turn has come, if there is one.
    pub(crate) fn next_kept(&mut self) -> Option<Bell> {
        if self.phase != Phase::Live {
            return None;
        }
        self.early.take(self.sent.seq.next())
    }

    /// A moment has passed since a bell was kept. Whether the client is to go to catch-up.
    pub(crate) fn gap_stands(&mut self) -> bool {
        let stands = self.phase == Phase::Live && !self.early.is_empty();
        if stands {
            self.fall_behind(Phase::CatchUp);
        }
        stands
    }

    fn fall_behind(&mut self, phase: Phase) {
        self.phase = phase;
        self.early = Early::default();
    }

    /// Somebody mentioned one that was not sent yet.
    fn has_left(&self) -> bool {
        self.newest > self.sent.seq
    }

    fn is_catch_ups(&self) -> bool {
        matches!(self.phase, Phase::CatchUp | Phase::Checked)
    }

    /// Somebody doubts what is known here. Whether the client is to go to catch-up for it.
    pub(crate) fn wish_check(&mut self) -> bool {
        self.check = true;
        let free = matches!(self.phase, Phase::Live | Phase::WindowFull);
        if free {
            let known_to_wait = self.is_behind() || self.has_left();
            self.fall_behind(if known_to_wait { Phase::CatchUp } else { Phase::Checked });
        }
        free
    }

    /// The socket took a whole frame.
    pub(crate) fn took(&mut self, mark: Mark, bytes: usize) {
        self.sent = mark;
        self.newest = self.newest.max(mark.seq);
        if self.phase == Phase::Checked {
            self.phase = Phase::CatchUp;
        }
        let died = self.dead.contains(&mark.seq);
        self.dead.retain(|seq| *seq > mark.seq);
        // One that died while its frame was owed was sent, but nothing waits for its ack.
        if !died {
            self.window.add(OnWire { mark, bytes });
        }
    }

    /// The socket took a part of a frame (`owed`), or none of it: the drainer has the client now.
    pub(crate) fn blocked(&mut self, owed: Option<(Mark, usize)>) {
        self.fall_behind(Phase::Drainer);
        self.owed = owed.map(|(mark, bytes)| OnWire { mark, bytes });
    }

    /// The socket took the rest. The mark is that of the payment which is now sent, if it was one.
    pub(crate) fn drained(&mut self) -> (Option<Mark>, Next) {
        let owed = self.owed.take();
        let mark = owed.as_ref().map(|frame| frame.mark);
        if let Some(OnWire { mark, bytes }) = owed {
            self.took(mark, bytes);
        }
        if self.phase != Phase::Drainer {
            return (mark, Next::Stay);
        }
        (mark, self.settle())
    }

    /// What catch-up is to read. `None`: nothing, and the client is no longer its.
    pub(crate) fn wanted(&mut self) -> Option<Wanted> {
        let check = std::mem::take(&mut self.check);
        let (payments, bytes) = self.window.room();
        if payments == 0 || bytes == 0 {
            if !check {
                self.phase = Phase::WindowFull;
                return None;
            }
            return Some(Wanted { after: self.sent, payments: 0, bytes: 0 });
        }
        // The inbox will say what is the newest; a bell that lied is forgotten with this, and one
        // that rings from here on is not.
        self.newest = self.sent.seq;
        Some(Wanted { after: self.sent, payments, bytes })
    }

    /// Whether an entry that was read may be sent.
    pub(crate) fn offer(&self, entry: &Entry) -> Offer {
        if entry.mark.seq <= self.sent.seq || self.dead.contains(&entry.mark.seq) {
            Offer::Skip
        } else if self.window.has_room(entry.frame_bytes()) {
            Offer::Send
        } else {
            Offer::WindowFull
        }
    }

    /// A slice was sent whole, and it reached up to here: what lies behind its last entry are dead letters.
    pub(crate) fn passed(&mut self, upto: Mark) {
        if self.is_catch_ups() && upto.seq > self.sent.seq {
            self.sent = upto;
            self.dead.retain(|seq| *seq > upto.seq);
        }
    }

    /// Everything up to here has left the inbox, though this client did not acknowledge all of it: then it is dead.
    pub(crate) fn left_inbox(&mut self, upto: Seq) {
        self.window.take_up_to(upto);
    }

    /// A slice is sent, as far as it went; `last` was the newest in the inbox when it was read.
    pub(crate) fn finish_slice(&mut self, last: Mark) -> Next {
        self.newest = self.newest.max(last.seq);
        if self.is_catch_ups() { self.settle() } else { Next::Stay }
    }

    /// The inbox could not be read: the same again, for what was known is not known any more.
    pub(crate) fn read_again(&mut self) -> Next {
        self.check = true;
        if self.is_catch_ups() { Next::CatchUp } else { Next::Stay }
    }

    /// Live where nothing is left to do, else with whom it has to wait.
    fn settle(&mut self) -> Next {
        self.phase = match (self.has_left(), self.check, self.window.is_full()) {
            (false, false, _) => Phase::Live,
            (false, true, _) => Phase::Checked,
            (true, false, true) => Phase::WindowFull,
            (true, _, _) => Phase::CatchUp,
        };
        if self.is_catch_ups() { Next::CatchUp } else { Next::Stay }
    }

    /// Catch-up found no room for what comes next.
    pub(crate) fn window_full(&mut self) {
        if self.is_catch_ups() {
            self.phase = if self.check { Phase::CatchUp } else { Phase::WindowFull };
        }
    }

    /// The next payment cannot go over this wire at all, and is not waited for.
    pub(crate) fn passed_over(&mut self, mark: Mark) {
        self.sent = mark;
        self.newest = self.newest.max(mark.seq);
    }

    /// The client says that everything up to `seq` is done. `None`: nothing new, or nothing that
    /// was sent.
    pub(crate) fn ack(&mut self, seq: Seq) -> Option<Acked> {
        let mark = self.window.take_up_to(seq)?;
        Some(Acked { mark, resume: self.resume() })
    }

    /// The client refuses a payment. `None`: it was not sent on this connection, or is acknowledged.
    pub(crate) fn nack(&mut self, seq: Seq) -> Option<Acked> {
        let mark = self.window.take(seq)?;
        Some(Acked { mark, resume: self.resume() })
    }

    /// A payment became a dead letter by somebody else's word. Whether there is room again: give the client to
    /// catch-up.
    pub(crate) fn died(&mut self, seq: Seq) -> bool {
        if self.nack(seq).is_some_and(|acked| acked.resume) {
            return true;
        }
        if seq <= self.sent.seq {
            return false;
        }
        if self.dead.len() >= MAX_DEAD {
            // Their bells will be doubted for want of their predecessors instead.
            self.dead.clear();
        }
        self.dead.insert(seq);
        // A bell of it may have been kept ahead of its turn.
        self.wish_check()
    }

    /// Gives a client back to catch-up that waited for room.
    fn resume(&mut self) -> bool {
        let waited = self.phase == Phase::WindowFull;
        if waited {
            self.phase = Phase::CatchUp;
        }
        waited
    }

    /// What is on the wire and would be done with an ack of `seq`.
    pub(crate) fn covered(&self, seq: Seq) -> impl Iterator<Item = Mark> {
        self.window.up_to(seq)
    }

    /// Whether acknowledgements are needed soon, for there to be room: half of it is taken, or what is next waits for
    /// it.
    pub(crate) fn needs_acks(&self) -> bool {
        self.phase == Phase::WindowFull || self.window.is_half_full()
    }

    /// The newest payment that was sent, or acknowledged before.
    pub(crate) fn newest_sent(&self) -> Mark {
        self.sent
    }

    /// Whether it has payments to take, or room to make, before anything else. Of one that is checked, as every client
    /// is now and then, that is not known.
    pub(crate) fn is_behind(&self) -> bool {
        !matches!(self.phase, Phase::Live | Phase::Checked)
    }

    /// For the log: the newest that was sent, and how many of it are not acknowledged.
    pub(crate) fn sent(&self) -> (Seq, usize) {
        (self.sent.seq, self.window.len())
    }
}

#[cfg(test)]
mod tests;
