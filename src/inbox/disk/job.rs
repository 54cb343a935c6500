//! What a commit of the embedded home is made of: jobs that are worked on within a transaction
//! and hear what became of them after it.

use super::letters::{Act, Acted};
use super::round::{Cursor, Retirement, Round};
use crate::inbox::{Accepted, Booked, Deposit, Done, Error, Note, Stored, group};
use crate::payment::{ClientId, Payment};
use crossbeam_channel::Sender;
use redb::StorageError;
use std::time::Instant;

/// A payment that somebody waits for.
pub(super) struct Pending {
    pub(super) payment: Payment,
    /// Of its content, if it has a payment id to compare it by.
    pub(super) fingerprint: Option<String>,
    /// Its sender waits for the acknowledgement; on this node, so the bookkeeper is all that has to know.
    pub(super) awaited: bool,
    pub(super) deadline: Instant,
    done: Done,
}

impl Pending {
    /// Takes a deposit over. Hashes it, so call it before the queue and not from within a round.
    pub(super) fn new(deposit: Deposit) -> Pending {
        let Deposit { payment, receipt, deadline, done } = deposit;
        let fingerprint = payment.payment_id.as_ref().map(|_| payment.parcel.fingerprint());
        Pending { payment, fingerprint, awaited: receipt, deadline, done }
    }

    /// Tells what became of it.
    pub(super) fn complete(self, result: Result<Accepted, Error>) {
        self.done.say(result);
    }
}

/// Nobody can say whether it was stored.
pub(super) fn unknown(why: &str) -> Error {
    Error::Unavailable { stored: Stored::Unknown, why: why.into() }
}

/// A question whose asker waits. Dropped without an answer, it ends that wait.
pub(super) struct Asked<Q, A> {
    pub(super) question: Q,
    pub(super) answer: Option<A>,
    pub(super) reply: Sender<Result<A, Error>>,
}

impl<Q, A> Asked<Q, A> {
    fn finish(self, failed: Option<&Error>) {
        let answer = self.answer.ok_or_else(|| failed.cloned().unwrap_or_else(|| unknown("it was not tried")));
        // Who asked may be gone.
        let _ = self.reply.send(failed.map_or(answer, |error| Err(error.clone())));
    }
}

/// Whatever writes to the file.
pub(super) enum DiskJob {
    Deposit {
        pending: Pending,
        answer: Option<Result<Accepted, Error>>,
    },
    Notes(Asked<Vec<Note>, Vec<Result<Booked, Error>>>),
    /// What is done to a payment other than by its own session.
    Act(Asked<Act, Result<Acted, Error>>),
    /// A client, and whether its payments are discarded with it. Then come its payment ids.
    Retire(Asked<(ClientId, bool), Result<Retirement, Error>>),
    /// The next of a retired client's payment ids.
    Forget(Asked<Cursor, Option<Cursor>>),
}

impl DiskJob {
    /// Does it within a round's transaction. An error concerns the whole round.
    pub(super) fn work(&mut self, round: &mut Round) -> Result<(), StorageError> {
        match self {
            DiskJob::Deposit { pending, answer } => *answer = Some(round.for_itself(|round| round.accept(pending))?),
            DiskJob::Notes(asked) => {
                let notes = asked.question.iter();
                let booked = notes.map(|note| round.for_itself(|round| round.book(note)));
                asked.answer = Some(booked.collect::<Result<_, _>>()?);
            }
            DiskJob::Act(asked) => asked.answer = Some(round.for_itself(|round| round.act(&asked.question))?),
            DiskJob::Retire(asked) => {
                let (client, discard) = &asked.question;
                asked.answer = Some(round.for_itself(|round| round.retire(client, *discard))?);
            }
            DiskJob::Forget(asked) => asked.answer = Some(round.forget_ids(&asked.question)?),
        }
        Ok(())
    }

    /// Answers it: as the round had it, or that the round failed.
    pub(super) fn finish(self, failed: Option<&Error>) {
        match self {
            DiskJob::Deposit { pending, answer } => match (failed, answer) {
                (Some(error), _) => pending.complete(Err(error.clone())),
                (None, Some(answer)) => pending.complete(answer),
                (None, None) => drop(pending),
            },
            DiskJob::Notes(asked) => asked.finish(failed),
            DiskJob::Act(asked) => asked.finish(failed),
            DiskJob::Retire(asked) => asked.finish(failed),
            DiskJob::Forget(asked) => asked.finish(failed),
        }
    }
}

impl group::Job for DiskJob {
    fn bytes(&self) -> usize {
        const NOTE: usize = 256;
        match self {
            DiskJob::Deposit { pending, .. } => pending.payment.parcel.as_bytes().len() + NOTE,
            DiskJob::Notes(asked) => asked.question.len() * NOTE,
            DiskJob::Act(_) | DiskJob::Retire(_) | DiskJob::Forget(_) => NOTE,
        }
    }

    fn refuse(self, why: &str) {
        self.finish(Some(&Error::away(why)));
    }
}
