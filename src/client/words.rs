//! What a client said and is not stored yet: acknowledgements, refusals, and that something was sent. Values only.
//!
//! In the order in which it was said. Acknowledgements are cumulative, so the newer of two that follow each other says
//! all; none is joined with one on the other side of a refusal.

use crate::inbox::{Note, Session};
use crate::payment::{ClientId, Mark};
use std::collections::VecDeque;

/// The most that may stand here before a client's refusals end its connection: they wait while the store is away.
pub(crate) const MAX_WORDS: usize = 4096;
/// The most that is stored in one go.
const MAX_AT_ONCE: usize = 64;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Everything up to here is done; so many payments newly are.
    Ack { mark: Mark, payments: usize },
    /// This one can't be processed.
    Refuse { mark: Mark, reason: String },
    /// This one, which can expire, was sent.
    Sent { mark: Mark },
}

impl Word {
    /// What the store is told.
    pub(crate) fn note(&self, client: &ClientId, session: &Session) -> Note {
        let (client, session) = (client.clone(), session.clone());
        match self {
            Word::Ack { mark, .. } => Note::Ack { client, session, mark: *mark },
            Word::Refuse { mark, reason } => Note::Refuse { client, session, mark: *mark, reason: reason.clone() },
            Word::Sent { mark } => Note::Sent { client, session, mark: *mark },
        }
    }
}

/// All of them, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words(VecDeque<Word>);

impl Words {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn push(&mut self, word: Word) {
        match (self.0.back_mut(), word) {
            (Some(Word::Ack { mark, payments }), Word::Ack { mark: newer, payments: more }) => {
                // What was put back may be older than what came meanwhile.
                if newer.seq > mark.seq {
                    *mark = newer;
                }
                *payments += more;
            }
            (_, word) => self.0.push_back(word),
        }
    }

    /// Takes what may be stored together: no acknowledgement behind a refusal, which must be stored before it.
    pub(crate) fn take_next(&mut self) -> Words {
        let mut refused = false;
        let mut passes = |word: &Word| {
            refused |= matches!(word, Word::Refuse { .. });
            !(refused && matches!(word, Word::Ack { .. }))
        };
        let count = self.0.iter().take(MAX_AT_ONCE).take_while(|word| passes(word)).count();
        Words(self.0.drain(..count).collect())
    }

    /// Puts back what was taken and not stored.
    pub(crate) fn put_back(&mut self, words: Words) {
        let behind = std::mem::replace(self, words);
        behind.0.into_iter().for_each(|word| self.push(word));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Word> {
        self.0.iter()
    }
}

impl IntoIterator for Words {
    type Item = Word;
    type IntoIter = std::collections::vec_deque::IntoIter<Word>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::Seq;

    fn mark(seq: u64) -> Mark {
        Mark { seq: Seq(seq), accepted_at: 1_732_330_000_000 + seq }
    }

    fn ack(seq: u64, payments: usize) -> Word {
        Word::Ack { mark: mark(seq), payments }
    }

    fn refuse(seq: u64) -> Word {
        Word::Refuse { mark: mark(seq), reason: "unknown order".into() }
    }

    fn said(words: &[Word]) -> Words {
        let mut all = Words::default();
        words.iter().cloned().for_each(|word| all.push(word));
        all
    }

    #[test]
    fn acks_are_joined_but_never_across_a_refusal() {
        let mut words = said(&[ack(1, 1), ack(3, 2), refuse(5), ack(4, 1), ack(6, 1)]);
        assert_eq!(words.take_next(), said(&[ack(3, 3), refuse(5)]));
        assert_eq!(words.take_next(), said(&[ack(6, 2)]));
        assert!(words.take_next().is_empty());
    }

    #[test]
    fn what_is_put_back_is_said_first() {
        let mut words = said(&[ack(1, 1), refuse(2), refuse(3)]);
        let taken = words.take_next();
        words.push(ack(4, 1));
        words.put_back(taken);
        assert_eq!(words, said(&[ack(1, 1), refuse(2), refuse(3), ack(4, 1)]));
    }

    #[test]
    fn refusals_that_follow_each_other_are_stored_together() {
        let sent = |seq| Word::Sent { mark: mark(seq) };
        let mut words = said(&[ack(1, 1), refuse(2), refuse(3), sent(5), refuse(4), ack(5, 1)]);
        assert_eq!(words.take_next(), said(&[ack(1, 1), refuse(2), refuse(3), sent(5), refuse(4)]));
        assert_eq!(words.take_next(), said(&[ack(5, 1)]));
    }

    #[test]
    fn an_older_ack_that_is_put_back_takes_nothing_from_a_newer_one() {
        let mut words = said(&[ack(3, 3)]);
        let older = words.take_next();
        words.push(ack(7, 4));
        let newer = words.take_next();
        words.put_back(older);
        words.put_back(newer);
        assert_eq!(words, said(&[ack(7, 7)]));
    }

    #[test]
    fn an_ack_that_is_put_back_is_joined_with_the_newer_one() {
        let mut words = said(&[ack(1, 1)]);
        let taken = words.take_next();
        words.push(ack(3, 2));
        words.put_back(taken);
        assert_eq!(words, said(&[ack(3, 3)]));
    }
}
