//! The check of what arrives: in order, once, at the right client, as it was sent.

use serde::Serialize;

use super::ledger::Entry;

/// What was wrong, over all clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Faults {
    /// Delivered again on the connection that had it already, or after it was acknowledged.
    pub(super) repeated: u64,
    /// Delivered after one that was posted later.
    pub(super) out_of_order: u64,
    /// Delivered under a `seq` that is not above the one before.
    pub(super) seq_out_of_order: u64,
    pub(super) wrong_client: u64,
    pub(super) altered: u64,
}

impl Faults {
    pub(super) fn sum(&self) -> u64 {
        self.repeated + self.out_of_order + self.seq_out_of_order + self.wrong_client + self.altered
    }
}

/// What one client has seen.
#[derive(Default)]
pub(super) struct Watch {
    /// The highest number ever, plus one.
    next: u64,
    /// Numbers below this came on an earlier connection and may come again on this one.
    may_repeat_below: u64,
    /// The highest number and seq on this connection.
    last: Option<u64>,
    last_seq: Option<u64>,
}

/// What an arrival is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    /// Again on a new connection, as is allowed: its acknowledgement was not stored.
    AllowedRepeat,
    Repeated,
    OutOfOrder,
    SeqOutOfOrder,
    NeverPosted,
}

impl Watch {
    /// A new connection begins: what came before may come again.
    pub(super) fn reconnect(&mut self) {
        self.may_repeat_below = self.next;
        self.last = None;
        self.last_seq = None;
    }

    /// Judges payment `number`, whose `seq` is known where the server numbers.
    pub(super) fn judge(&mut self, number: u64, seq: Option<u64>, entry: Entry) -> Verdict {
        if entry == Entry::NeverPosted {
            return Verdict::NeverPosted;
        }
        let is_forward = self.last.is_none_or(|last| number > last);
        let is_seq_forward = match (seq, self.last_seq) {
            (Some(seq), Some(last)) => seq > last,
            _ => true,
        };
        let verdict = match entry {
            Entry::Again if is_forward && number < self.may_repeat_below => Verdict::AllowedRepeat,
            Entry::Again => Verdict::Repeated,
            _ if !is_forward => Verdict::OutOfOrder,
            _ if !is_seq_forward => Verdict::SeqOutOfOrder,
            _ => Verdict::Right,
        };
        self.next = self.next.max(number + 1);
        self.last = self.last.max(Some(number));
        self.last_seq = self.last_seq.max(seq);
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(watch: &mut Watch, arrivals: &[(u64, u64, Entry)]) -> Vec<Verdict> {
        arrivals.iter().map(|&(number, seq, entry)| watch.judge(number, Some(seq), entry)).collect()
    }

    #[test]
    fn in_order_and_once_is_right_also_where_numbers_are_left_out() {
        let mut watch = Watch::default();
        let arrivals = [(0, 1, Entry::First), (1, 2, Entry::First), (5, 3, Entry::First)];
        assert_eq!(judged(&mut watch, &arrivals), [Verdict::Right; 3]);
        assert_eq!(watch.judge(6, None, Entry::First), Verdict::Right, "a server that does not number");
    }

    #[test]
    fn swapped_payments_are_out_of_order() {
        let mut watch = Watch::default();
        let arrivals = [(1, 1, Entry::First), (0, 2, Entry::First), (2, 3, Entry::First)];
        assert_eq!(judged(&mut watch, &arrivals), [Verdict::Right, Verdict::OutOfOrder, Verdict::Right]);
        assert_eq!(watch.judge(3, Some(3), Entry::First), Verdict::SeqOutOfOrder);
    }

    #[test]
    fn a_repeat_is_allowed_once_on_a_new_connection() {
        let mut watch = Watch::default();
        judged(&mut watch, &[(0, 1, Entry::First), (1, 2, Entry::First)]);
        assert_eq!(watch.judge(1, Some(2), Entry::Again), Verdict::Repeated);
        watch.reconnect();
        let arrivals = [(1, 2, Entry::Again), (2, 3, Entry::First), (2, 3, Entry::Again), (1, 2, Entry::Again)];
        let verdicts = [Verdict::AllowedRepeat, Verdict::Right, Verdict::Repeated, Verdict::Repeated];
        assert_eq!(judged(&mut watch, &arrivals), verdicts);
    }

    #[test]
    fn what_nobody_posted_is_told() {
        assert_eq!(Watch::default().judge(0, Some(1), Entry::NeverPosted), Verdict::NeverPosted);
    }
}
