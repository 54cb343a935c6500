//! What one client gets next: live or behind, the window, what an ack may mean, bells out of
//! order, takeovers. A state machine without I/O: who holds the client's lock asks it, sends what
//! it says, and tells it what the socket took.
//!
//! A client is *live* (the router sends what the bells bring) or *behind* (catch-up sends what
//! the inbox holds). Whoever learns something about a client that is behind only notes a wish:
//! the newest seq, or "check". Who holds it gives it away:
//!
//! ```text
//!           claimed, all acked                 bell: the next one -> send
//! claiming ───────────────────────▶ live ◀──────────────────────────────┐
//!    │ claimed, some pending         │ gap, check        nothing is left │
//!    └──────────────▶ behind: catch-up ◀─┴──────────────────▶ catch-up ──┘
//!                       │        ▲  ack makes room      socket took the rest ▲
//!                window full ──▶ behind: nobody      socket full ──▶ behind: drainer
//! ```

use crate::doorbell::Bell;
use crate::payment::{Entry, Mark, Seq};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

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

struct OnWire {
    mark: Mark,
    bytes: usize,
}

/// The state of one connection's delivery.
pub(crate) struct Delivery {
    phase: Phase,
    window: usize,
    /// The newest payment whose last byte the socket took.
    sent: Mark,
    /// The frame that the socket took a part of.
    owed: Option<OnWire>,
    on_wire: VecDeque<OnWire>,
    bytes_on_wire: usize,
    /// The newest seq that anybody mentioned.
    newest: Seq,
    /// Somebody has reason to doubt what we know.
    check: bool,
    early: BTreeMap<Seq, Bell>,
    early_bytes: usize,
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
            window,
            sent: Mark::default(),
            owed: None,
            on_wire: VecDeque::new(),
            bytes_on_wire: 0,
            newest: Seq(0),
            check: false,
            early: BTreeMap::new(),
            early_bytes: 0,
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
        if !self.has_room(bell.entry.frame_bytes()) {
            self.phase = Phase::WindowFull;
            return Ring::Nothing;
        }
        Ring::Send(bell.entry)
    }

    fn doubt(&mut self) -> Ring {
        if self.wish_check() { Ring::CatchUp } else { Ring::Nothing }
    }

    fn keep(&mut self, bell: Bell) -> Ring {
        let bytes = bell.entry.frame_bytes();
        if self.early.len() >= MAX_EARLY || self.early_bytes + bytes > MAX_EARLY_BYTES {
            self.fall_behind();
            return Ring::CatchUp;
        }
        if self.early.insert(bell.entry.mark.seq, bell).is_none() {
            self.early_bytes += bytes;
        }
        Ring::Kept
    }

    /// The kept bell whose turn has come, if there is one.
    pub(crate) fn next_kept(&mut self) -> Option<Bell> {
        if self.phase != Phase::Live {
            return None;
        }
        let bell = self.early.remove(&self.sent.seq.next())?;
        self.early_bytes -= bell.entry.frame_bytes();
        Some(bell)
    }

    /// A moment has passed since a bell was kept. Whether the client is to go to catch-up.
    pub(crate) fn gap_stands(&mut self) -> bool {
        let stands = self.phase == Phase::Live && !self.early.is_empty();
        if stands {
            self.fall_behind();
        }
        stands
    }

    fn fall_behind(&mut self) {
        self.phase = Phase::CatchUp;
        self.early.clear();
        self.early_bytes = 0;
    }

    /// Somebody doubts what is known here. Whether the client is to go to catch-up for it.
    pub(crate) fn wish_check(&mut self) -> bool {
        self.check = true;
        let free = matches!(self.phase, Phase::Live | Phase::WindowFull);
        if free {
            self.fall_behind();
        }
        free
    }

    /// The socket took a whole frame.
    pub(crate) fn took(&mut self, mark: Mark, bytes: usize) {
        self.sent = mark;
        self.newest = self.newest.max(mark.seq);
        let died = self.dead.contains(&mark.seq);
        self.dead.retain(|seq| *seq > mark.seq);
        // One that died while its frame was owed was sent, but nothing waits for its ack.
        if !died {
            self.bytes_on_wire += bytes;
            self.on_wire.push_back(OnWire { mark, bytes });
        }
    }

    /// The socket took a part of a frame (`owed`), or none of it: the drainer has the client now.
    pub(crate) fn blocked(&mut self, owed: Option<(Mark, usize)>) {
        self.fall_behind();
        self.phase = Phase::Drainer;
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
        let payments = self.window.saturating_sub(self.on_wire.len());
        let bytes = if self.on_wire.is_empty() {
            MAX_WINDOW_BYTES
        } else {
            MAX_WINDOW_BYTES.saturating_sub(self.bytes_on_wire)
        };
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
        } else if self.has_room(entry.frame_bytes()) {
            Offer::Send
        } else {
            Offer::WindowFull
        }
    }

    /// A slice was sent whole, and it reached up to here: what lies behind its last entry are dead letters.
    pub(crate) fn passed(&mut self, upto: Mark) {
        if self.phase == Phase::CatchUp && upto.seq > self.sent.seq {
            self.sent = upto;
            self.dead.retain(|seq| *seq > upto.seq);
        }
    }

    /// Everything up to here has left the inbox, though this client did not acknowledge all of it: then it is dead.
    pub(crate) fn left_inbox(&mut self, upto: Seq) {
        while let Some(frame) = self.on_wire.front().filter(|frame| frame.mark.seq <= upto) {
            self.bytes_on_wire -= frame.bytes;
            self.on_wire.pop_front();
        }
    }

    /// A slice is sent, as far as it went; `last` was the newest in the inbox when it was read.
    pub(crate) fn finish_slice(&mut self, last: Mark) -> Next {
        self.newest = self.newest.max(last.seq);
        if self.phase != Phase::CatchUp { Next::Stay } else { self.settle() }
    }

    /// The inbox could not be read: the same again, for what was known is not known any more.
    pub(crate) fn read_again(&mut self) -> Next {
        self.check = true;
        if self.phase == Phase::CatchUp { Next::CatchUp } else { Next::Stay }
    }

    /// Live where nothing is left to do, else with whom it has to wait.
    fn settle(&mut self) -> Next {
        let left = self.newest > self.sent.seq;
        let full = self.on_wire.len() >= self.window || self.bytes_on_wire >= MAX_WINDOW_BYTES;
        self.phase = match (left, full) {
            _ if self.check => Phase::CatchUp,
            (false, _) => Phase::Live,
            (true, true) => Phase::WindowFull,
            (true, false) => Phase::CatchUp,
        };
        if self.phase == Phase::CatchUp { Next::CatchUp } else { Next::Stay }
    }

    /// Catch-up found no room for what comes next.
    pub(crate) fn window_full(&mut self) {
        if self.phase == Phase::CatchUp && !self.check {
            self.phase = Phase::WindowFull;
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
        let mut mark = None;
        while let Some(frame) = self.on_wire.front().filter(|frame| frame.mark.seq <= seq) {
            mark = Some(frame.mark);
            self.bytes_on_wire -= frame.bytes;
            self.on_wire.pop_front();
        }
        let mark = mark?;
        Some(Acked { mark, resume: self.resume() })
    }

    /// The client refuses a payment. `None`: it was not sent on this connection, or is acknowledged.
    pub(crate) fn nack(&mut self, seq: Seq) -> Option<Acked> {
        let at = self.on_wire.iter().position(|frame| frame.mark.seq == seq)?;
        let OnWire { mark, bytes } = self.on_wire.remove(at)?;
        self.bytes_on_wire -= bytes;
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
        self.on_wire.iter().map(|frame| frame.mark).take_while(move |mark| mark.seq <= seq)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.on_wire.is_empty() || (self.on_wire.len() < self.window && self.bytes_on_wire + bytes <= MAX_WINDOW_BYTES)
    }

    /// Whether acknowledgements are needed soon, for there to be room: half of it is taken, or what is next waits for it.
    pub(crate) fn needs_acks(&self) -> bool {
        self.phase == Phase::WindowFull
            || self.on_wire.len() >= self.window / 2
            || self.bytes_on_wire >= MAX_WINDOW_BYTES / 2
    }

    /// The newest payment that was sent, or acknowledged before.
    pub(crate) fn newest_sent(&self) -> Mark {
        self.sent
    }

    /// Whether nothing waits for the client but what the next bell brings.
    pub(crate) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// For the log: the newest that was sent, and how many of it are not acknowledged.
    pub(crate) fn sent(&self) -> (Seq, usize) {
        (self.sent.seq, self.on_wire.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::{Channel, ClientId, Content, Payment};

    const AT: u64 = 1_732_330_000_000;

    fn mark(seq: u64) -> Mark {
        if seq == 0 { Mark::default() } else { Mark { seq: Seq(seq), accepted_at: AT + seq } }
    }

    fn entry(seq: u64, bytes: usize) -> Entry {
        let text = format!("\"{}\"", "x".repeat(bytes));
        let content = Content::json_text(text.as_bytes()).expect("JSON");
        let client = ClientId::parse("01").expect("valid");
        let parcel = Payment::new(client, None, &Channel::default(), &content).parcel;
        Entry { mark: mark(seq), expires_at: 0, parcel }
    }

    fn bell(seq: u64) -> Bell {
        let client = ClientId::parse("01").expect("valid");
        Bell { client, previous_at: mark(seq - 1).accepted_at, awaited: false, entry: entry(seq, 1) }
    }

    fn live(window: usize, at: u64) -> Delivery {
        let mut delivery = Delivery::new(window);
        assert_eq!(delivery.claimed(1, mark(at), mark(at)), Ok(Next::Stay));
        delivery
    }

    /// Rings and lets the socket take what is to be sent.
    fn pass(delivery: &mut Delivery, seq: u64) {
        match delivery.ring(bell(seq)) {
            Ring::Send(entry) => delivery.took(entry.mark, entry.frame_bytes()),
            other => panic!("{seq}: {other:?}"),
        }
    }

    #[test]
    fn the_next_bell_is_sent_and_an_old_one_is_not() {
        let mut delivery = live(256, 41);
        pass(&mut delivery, 42);
        assert_eq!(delivery.ring(bell(42)), Ring::Nothing);
        assert_eq!(delivery.ring(bell(7)), Ring::Nothing);
        pass(&mut delivery, 43);
    }

    #[test]
    fn bells_that_overtake_each_other_are_put_in_order() {
        let mut delivery = live(256, 0);
        assert_eq!(delivery.ring(bell(3)), Ring::Kept);
        assert_eq!(delivery.ring(bell(2)), Ring::Kept);
        pass(&mut delivery, 1);
        for seq in [2, 3] {
            let kept = delivery.next_kept().expect("its turn");
            assert_eq!(kept.entry.mark, mark(seq));
            pass(&mut delivery, seq);
        }
        assert!(!delivery.gap_stands());
        pass(&mut delivery, 4);
    }

    #[test]
    fn a_gap_that_stands_goes_to_catch_up() {
        let mut delivery = live(256, 0);
        assert_eq!(delivery.ring(bell(2)), Ring::Kept);
        assert!(delivery.gap_stands());
        assert_eq!(delivery.wanted().expect("catch-up").after, mark(0));
        assert_eq!(delivery.ring(bell(3)), Ring::Nothing);
        for seq in 1..=2 {
            assert_eq!(delivery.offer(&entry(seq, 1)), Offer::Send);
            delivery.took(mark(seq), 100);
        }
        // The bell of 3 rang after the slice was read: it is not lost.
        assert_eq!(delivery.finish_slice(mark(2)), Next::CatchUp);
        delivery.took(mark(3), 100);
        assert_eq!(delivery.finish_slice(mark(3)), Next::Stay);
        pass(&mut delivery, 4);
    }

    #[test]
    fn no_more_bells_are_kept_than_the_bound() {
        let mut delivery = live(256, 0);
        for seq in 2..2 + MAX_EARLY as u64 {
            assert_eq!(delivery.ring(bell(seq)), Ring::Kept);
        }
        assert_eq!(delivery.ring(bell(99)), Ring::CatchUp);
    }

    #[test]
    fn a_bell_after_another_predecessor_is_doubted() {
        let mut delivery = live(256, 5);
        let mut bell = bell(6);
        bell.previous_at += 1;
        assert_eq!(delivery.ring(bell), Ring::CatchUp);
        assert_eq!(delivery.wanted().expect("a check").after, mark(5));
    }

    #[test]
    fn a_number_that_was_given_again_is_doubted() {
        let mut delivery = live(256, 5);
        let mut again = bell(5);
        again.entry.mark.accepted_at += 1;
        assert_eq!(delivery.ring(again), Ring::CatchUp);
    }

    #[test]
    fn past_the_window_nothing_is_sent_until_an_ack() {
        let mut delivery = live(2, 0);
        pass(&mut delivery, 1);
        pass(&mut delivery, 2);
        assert_eq!(delivery.ring(bell(3)), Ring::Nothing);
        assert_eq!(delivery.ring(bell(4)), Ring::Nothing);
        assert_eq!(delivery.ack(Seq(1)), Some(Acked { mark: mark(1), resume: true }));
        assert_eq!(delivery.wanted().expect("room").payments, 1);
        assert_eq!(delivery.offer(&entry(3, 1)), Offer::Send);
        delivery.took(mark(3), 100);
        assert_eq!(delivery.offer(&entry(4, 1)), Offer::WindowFull);
        delivery.window_full();
        assert_eq!(delivery.finish_slice(mark(4)), Next::Stay);
        assert_eq!(delivery.ack(Seq(3)), Some(Acked { mark: mark(3), resume: true }));
    }

    #[test]
    fn the_window_has_bytes_too_but_one_payment_always_goes() {
        let mut delivery = live(256, 0);
        let large = entry(1, 2 * MAX_WINDOW_BYTES);
        assert_eq!(delivery.offer(&large), Offer::Send);
        delivery.took(large.mark, large.frame_bytes());
        assert_eq!(delivery.offer(&entry(2, 1)), Offer::WindowFull);
        assert_eq!(delivery.ack(Seq(1)).map(|acked| acked.mark), Some(mark(1)));
        assert_eq!(delivery.offer(&entry(2, 1)), Offer::Send);
    }

    #[test]
    fn an_ack_counts_as_far_as_was_sent() {
        let mut delivery = live(256, 41);
        assert_eq!(delivery.ack(Seq(99)), None);
        pass(&mut delivery, 42);
        pass(&mut delivery, 43);
        assert_eq!(delivery.ack(Seq(41)), None);
        assert_eq!(delivery.ack(Seq(u64::MAX)), Some(Acked { mark: mark(43), resume: false }));
        assert_eq!(delivery.ack(Seq(42)), None);
        pass(&mut delivery, 44);
        assert_eq!(delivery.ack(Seq(44)).map(|acked| acked.mark), Some(mark(44)));
    }

    #[test]
    fn a_frame_counts_as_sent_with_its_last_byte() {
        let mut delivery = live(256, 0);
        let Ring::Send(first) = delivery.ring(bell(1)) else { panic!("the next one") };
        delivery.blocked(Some((first.mark, first.frame_bytes())));
        assert_eq!(delivery.ack(Seq(1)), None);
        assert_eq!(delivery.ring(bell(2)), Ring::Nothing);
        assert_eq!(delivery.drained(), (Some(mark(1)), Next::CatchUp));
        assert_eq!(delivery.ack(Seq(1)).map(|acked| acked.mark), Some(mark(1)));
        assert_eq!(delivery.wanted().expect("catch-up").after, mark(1));
    }

    #[test]
    fn a_drained_client_with_nothing_left_is_live() {
        let mut delivery = live(256, 0);
        let Ring::Send(first) = delivery.ring(bell(1)) else { panic!("the next one") };
        delivery.blocked(Some((first.mark, first.frame_bytes())));
        assert_eq!(delivery.drained(), (Some(mark(1)), Next::Stay));
        pass(&mut delivery, 2);
    }

    #[test]
    fn a_frame_of_which_nothing_was_taken_is_read_again() {
        let mut delivery = live(256, 0);
        assert!(matches!(delivery.ring(bell(1)), Ring::Send(_)));
        delivery.blocked(None);
        assert_eq!(delivery.drained(), (None, Next::CatchUp));
        assert_eq!(delivery.wanted().expect("catch-up").after, mark(0));
    }

    #[test]
    fn acks_are_needed_from_half_a_window_on_or_where_the_next_does_not_fit() {
        let mut delivery = live(8, 0);
        (1..=3).for_each(|seq| pass(&mut delivery, seq));
        assert!(!delivery.needs_acks());
        pass(&mut delivery, 4);
        assert!(delivery.needs_acks());
        assert!(delivery.ack(Seq(4)).is_some());
        assert!(!delivery.needs_acks());
        let large = entry(5, MAX_WINDOW_BYTES / 2);
        delivery.took(large.mark, large.frame_bytes());
        assert!(delivery.needs_acks());

        let mut delivery = live(8, 0);
        pass(&mut delivery, 1);
        let mut larger = bell(2);
        larger.entry = entry(2, MAX_WINDOW_BYTES);
        assert_eq!(delivery.ring(larger), Ring::Nothing);
        assert!(delivery.needs_acks());
    }

    #[test]
    fn what_rings_while_claiming_is_fetched_after_it() {
        let mut delivery = Delivery::new(256);
        assert_eq!(delivery.ring(bell(3)), Ring::Nothing);
        assert_eq!(delivery.claimed(1, mark(2), mark(2)), Ok(Next::CatchUp));
    }

    #[test]
    fn the_higher_session_stays_in_whatever_order_things_arrive() {
        let mut delivery = Delivery::new(256);
        assert!(!delivery.taken_over(7));
        assert_eq!(delivery.claimed(6, mark(0), mark(0)), Err(()));

        let mut delivery = Delivery::new(256);
        assert!(!delivery.taken_over(5));
        assert_eq!(delivery.claimed(6, mark(0), mark(0)), Ok(Next::Stay));
        assert!(!delivery.taken_over(6));
        assert!(delivery.taken_over(7));
    }

    #[test]
    fn a_bell_from_nowhere_costs_one_look() {
        let mut delivery = live(256, 5);
        let mut forged = bell(6);
        forged.entry.mark.seq = Seq(1_000_000);
        assert_eq!(delivery.ring(forged), Ring::Kept);
        assert!(delivery.gap_stands());
        assert!(delivery.wanted().is_some());
        assert_eq!(delivery.finish_slice(mark(5)), Next::Stay);
        pass(&mut delivery, 6);
    }

    #[test]
    fn what_lies_behind_a_slice_may_be_dead_and_is_passed() {
        let mut delivery = live(256, 0);
        assert_eq!(delivery.ring(bell(4)), Ring::Kept);
        assert!(delivery.gap_stands());
        assert!(delivery.wanted().is_some());
        delivery.took(mark(1), 100);
        delivery.passed(mark(3));
        assert_eq!(delivery.finish_slice(mark(3)), Next::Stay);
        pass(&mut delivery, 4);
        assert_eq!(delivery.ack(Seq(2)).map(|acked| acked.mark), Some(mark(1)), "dead ones are never acknowledged");
    }

    #[test]
    fn a_nack_is_for_one_that_was_sent_and_makes_room() {
        let mut delivery = live(2, 0);
        pass(&mut delivery, 1);
        pass(&mut delivery, 2);
        assert_eq!(delivery.ring(bell(3)), Ring::Nothing);
        assert_eq!(delivery.nack(Seq(3)), None);
        assert_eq!(delivery.nack(Seq(2)), Some(Acked { mark: mark(2), resume: true }));
        assert_eq!(delivery.nack(Seq(2)), None, "once");
        assert_eq!(delivery.wanted().expect("room").after, mark(2));
        assert_eq!(delivery.ack(Seq(2)).map(|acked| acked.mark), Some(mark(1)), "those before it stay pending");
    }

    #[test]
    fn one_that_died_elsewhere_is_not_sent_and_holds_no_place() {
        let mut delivery = live(1, 0);
        pass(&mut delivery, 1);
        assert_eq!(delivery.ring(bell(2)), Ring::Nothing);
        assert!(delivery.died(Seq(1)), "there is room again");
        assert!(delivery.wanted().is_some());
        assert_eq!(delivery.finish_slice(mark(1)), Next::Stay);

        let mut delivery = live(2, 0);
        assert!(delivery.died(Seq(1)), "it is looked at");
        assert!(delivery.wanted().is_some());
        assert_eq!(delivery.finish_slice(mark(0)), Next::Stay);
        assert_eq!(delivery.ring(bell(1)), Ring::CatchUp, "its bell comes late");
        assert!(delivery.wanted().is_some());
        delivery.passed(mark(1));
        assert_eq!(delivery.finish_slice(mark(1)), Next::Stay);
        pass(&mut delivery, 2);
    }

    #[test]
    fn what_died_after_it_was_read_is_not_sent() {
        let mut delivery = live(256, 0);
        assert_eq!(delivery.ring(bell(3)), Ring::Kept);
        assert!(delivery.gap_stands());
        assert!(delivery.wanted().is_some());
        // The slice with 1, 2 and 3 is on its way when word of 2 comes.
        assert!(!delivery.died(Seq(2)), "catch-up has it already");
        let offers = [1, 2, 3].map(|seq| {
            let offer = delivery.offer(&entry(seq, 1));
            if offer == Offer::Send {
                delivery.took(mark(seq), 100);
            }
            offer
        });
        assert_eq!(offers, [Offer::Send, Offer::Skip, Offer::Send]);
        delivery.passed(mark(3));
        assert_eq!(delivery.finish_slice(mark(3)), Next::CatchUp, "what was heard is compared with the inbox");
        assert_eq!(delivery.wanted().expect("a check").after, mark(3));
        assert_eq!(delivery.finish_slice(mark(3)), Next::Stay);
        pass(&mut delivery, 4);
    }

    #[test]
    fn what_left_the_inbox_holds_no_place() {
        let mut delivery = live(1, 0);
        pass(&mut delivery, 1);
        assert!(!delivery.wish_check() || delivery.wanted().is_some());
        delivery.left_inbox(Seq(1));
        assert_eq!(delivery.finish_slice(mark(1)), Next::Stay);
        pass(&mut delivery, 2);
    }

    #[test]
    fn a_check_is_made_even_where_the_window_is_full() {
        let mut delivery = live(1, 0);
        pass(&mut delivery, 1);
        assert_eq!(delivery.ring(bell(2)), Ring::Nothing);
        assert!(delivery.wish_check());
        assert!(!delivery.wish_check(), "catch-up has it already");
        assert_eq!(delivery.wanted(), Some(Wanted { after: mark(1), payments: 0, bytes: 0 }));
        assert_eq!(delivery.finish_slice(mark(2)), Next::Stay);
        assert_eq!(delivery.ack(Seq(1)), Some(Acked { mark: mark(1), resume: true }));
    }
}
