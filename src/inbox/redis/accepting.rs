//! Accepting on Redis: one round of the group commit, the bells of what it stored, and whether it can store at all.
//!
//! What the script judges of a payment is told in `accept.lua`, what a node can work out for it in `guesses`, what
//! replicas make of it in `replicas`. Runs on whichever thread commits the round.

use super::connection::Pipeline;
use super::guesses::{Guess, Newest, Step};
use super::reply::{mark, number, one_each, senseless, text};
use super::{RedisInbox, replicas};
use crate::doorbell::{Bell, Hint};
use crate::inbox::{Accepted, Deposit, Error, Note, Status, Stored};
use crate::payment::Entry;
use redis::Value;
use std::time::Instant;

/// About how many bytes the script is given of a payment besides its parcel: names of keys, a state, how entries begin.
const BESIDE_PARCEL: usize = 512;

impl RedisInbox {
    /// One round of the group commit.
    pub(super) fn store(&self, deposits: Vec<Deposit>) {
        let now = Instant::now();
        let (deposits, late): (Vec<_>, Vec<_>) = deposits.into_iter().partition(|d| now < d.deadline);
        late.into_iter().for_each(|d| d.done.say(Err(Error::away("no time was left"))));
        if deposits.is_empty() {
            return;
        }
        let now_ms = self.lease.now_ms();
        // Who waits is written down as well, and no guess knows where.
        let guessable = deposits.iter().map(|d| (!d.receipt).then_some(&d.payment));
        let steps = self.guesses.steps(guessable, now_ms, self.options.inbox_limit);
        let push = |pipeline: &mut Pipeline, (): &()| self.push_accept(pipeline, &deposits, &steps, now_ms);
        let (mut reply, waited) = self.call_and(&self.commits, &[()], push, |pipeline| self.replicas.push(pipeline));
        let replies = one_each(reply.pop().unwrap_or_else(|| Err(senseless("no reply"))), deposits.len());
        let replicated = self.replicas.judge(&waited);
        match &replicated {
            Ok(()) => self.note_trouble(&replies),
            Err(error) => self.note_trouble(&[Err(error.clone())]),
        }
        let each = deposits.iter().zip(steps.into_iter().zip(replies));
        let outcomes: Vec<_> = each.map(|(d, (step, reply))| self.read_accepted(d, step, reply)).collect();
        // All bells of a round ring before its answers are written: writing takes longer.
        let mut bells = Vec::new();
        let outcomes: Vec<_> =
            deposits.iter().zip(outcomes).map(|(d, outcome)| self.hint_of(d, outcome, &mut bells)).collect();
        (self.hint)(Hint::Bells(bells));
        self.touched.note(deposits.iter().zip(&outcomes).filter(|(_, o)| o.is_ok()).map(|(d, _)| &d.payment.client));
        // What this Redis has taken is delivered in any case, but it is not promised yet.
        let promised = |outcome: Result<Accepted, Error>| outcome.and_then(|a| replicated.clone().map(|()| a));
        deposits.into_iter().zip(outcomes).for_each(|(d, outcome)| d.done.say(promised(outcome)));
    }

    /// Redis answers, so payments can be stored again, unless it is full or lacks replicas.
    pub(super) fn note_reached(&self) {
        let mut state = self.state.lock();
        let over = state.trouble.as_ref().is_some_and(|(_, why)| !is_seen_by_payments_only(why));
        if over {
            state.trouble = None;
            log::info!("Redis answers again");
        }
    }

    /// Sees to it that this node's client misses nothing: by a bell, or else by a look into its inbox.
    fn hint_of(
        &self,
        deposit: &Deposit,
        outcome: Result<(Accepted, Option<Bell>), Error>,
        bells: &mut Vec<Bell>,
    ) -> Result<Accepted, Error> {
        let check = || (self.hint)(Hint::Check(deposit.payment.client.clone()));
        match outcome {
            Ok((accepted, bell)) => {
                match bell {
                    Some(bell) => bells.push(bell),
                    // The first answer to it may have been lost, and its bell with that.
                    None if accepted.duplicate && accepted.status == Status::Accepted => check(),
                    None => {}
                }
                Ok(accepted)
            }
            Err(error) => {
                if matches!(error, Error::Unavailable { stored: Stored::Unknown, .. }) {
                    check();
                }
                Err(error)
            }
        }
    }

    /// One call for all of them, in `accept.lua`'s words.
    pub(super) fn push_accept(
        &self,
        pipeline: &mut Pipeline,
        deposits: &[Deposit],
        steps: &[Option<Step>],
        now_ms: u64,
    ) {
        let ids = deposits.iter().filter(|d| d.payment.payment_id.is_some()).count();
        let parcels: usize = deposits.iter().map(|d| d.payment.parcel.as_bytes().len()).sum();
        pipeline.reserve(parcels + deposits.len() * BESIDE_PARCEL);
        self.scripts.accept.begin(pipeline, 2 * deposits.len() + ids, 3 + 4 * deposits.len());
        for deposit in deposits {
            let keys = self.names.client(&deposit.payment.client);
            ["state", "inbox"].iter().for_each(|name| pipeline.word(&keys.parts(name).map(str::as_bytes)));
        }
        for payment in deposits.iter().map(|d| &d.payment) {
            if let Some(id) = &payment.payment_id {
                pipeline.word(&self.names.client(&payment.client).id_parts(id.as_str()).map(str::as_bytes));
            }
        }
        let window = self.options.dedup_window.as_millis();
        [&now_ms.to_string(), &self.me, &window.to_string()].iter().for_each(|word| pipeline.word(&[word.as_bytes()]));
        let mut text = Vec::with_capacity(BESIDE_PARCEL);
        for (deposit, step) in deposits.iter().zip(steps) {
            let parcel = deposit.payment.parcel.as_bytes();
            match step {
                Some(Step { before, after }) => {
                    pipeline.word(&[before.state.as_bytes()]);
                    text.clear();
                    before.write_newest(&mut text);
                    pipeline.word(&[&text]);
                    text.clear();
                    after.write_newest(&mut text);
                    pipeline.word(&[&text, parcel]);
                }
                None => [b"", b"", parcel].iter().for_each(|word| pipeline.word(&[word])),
            }
            pipeline.word(&[asks(deposit).as_bytes()]);
        }
    }

    fn read_accepted(
        &self,
        deposit: &Deposit,
        step: Option<Step>,
        reply: Result<Value, Error>,
    ) -> Result<(Accepted, Option<Bell>), Error> {
        let client = &deposit.payment.client;
        let line = reply.as_ref().map(|reply| text(reply).unwrap_or("?".into()));
        if !line.as_ref().is_ok_and(|line| line.is_empty()) {
            self.guesses.forget(client);
        }
        let line = line.map_err(Clone::clone)?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (word, rest, step) {
            ("", "", Some(Step { before, after })) => {
                Ok(self.accepted(deposit, before.newest.mark.accepted_at, &after))
            }
            ("accepted", rest, _) => {
                let (previous_at, after) = rest.split_once(' ').ok_or_else(|| senseless(&line))?;
                let after = Guess::parse_accepted(after).ok_or_else(|| senseless(&line))?;
                let accepted = self.accepted(deposit, number(previous_at)?, &after);
                self.guesses.learn(client, after);
                Ok(accepted)
            }
            ("duplicate", rest, _) => {
                let words: Vec<&str> = rest.split(' ').collect();
                let [seq, at, word, owner] = words[..] else { return Err(senseless(&line)) };
                let mark = mark(seq, at)?;
                let status = match word {
                    "due" => self.expire(client, mark.seq, owner),
                    _ => Status::parse(word).ok_or_else(|| senseless(&line))?,
                };
                Ok((Accepted { mark, duplicate: true, status, online: self.is_online(owner) }, None))
            }
            ("full", "", _) => Err(Error::InboxFull),
            ("reused", "", _) => Err(Error::IdReused),
            _ => Err(senseless(&line)),
        }
    }

    fn is_online(&self, owner: &str) -> bool {
        owner != "-" && self.lease.is_alive(owner)
    }

    /// What there is to say of a payment that is the newest of its client now.
    fn accepted(&self, deposit: &Deposit, previous_at: u64, after: &Guess) -> (Accepted, Option<Bell>) {
        let Deposit { payment, receipt, .. } = deposit;
        let (Newest { mark, expires_at, .. }, owner) = (after.newest, after.owner());
        let accepted = Accepted { mark, duplicate: false, status: Status::Accepted, online: self.is_online(owner) };
        let bell = (owner == self.me).then(|| {
            let entry = Entry { mark, expires_at, parcel: payment.parcel.clone() };
            Bell { client: payment.client.clone(), previous_at, awaited: *receipt, entry }
        });
        (accepted, bell)
    }

    /// What a note has made of its client's state.
    pub(super) fn note_state(&self, note: &Note, reply: &Value) {
        if let Note::Ack { client, .. } = note {
            self.guesses.refresh(client, || Guess::parse(text(reply)?.splitn(3, ' ').nth(2)?));
        }
    }

    /// Remembers for `health` whether payments can be stored, and says so when it changes.
    pub(super) fn note_trouble(&self, replies: &[Result<Value, Error>]) {
        let now = replies.iter().find_map(|reply| match reply {
            Err(error) if error.passes() => Some(error.to_string()),
            _ => None,
        });
        if replies.is_empty() {
            return;
        }
        let trouble = now.clone().map(|why| (Instant::now(), why));
        let before = std::mem::replace(&mut self.state.lock().trouble, trouble);
        match (before, now) {
            (None, Some(why)) => log::warn!("payments cannot be stored: {why}"),
            (Some(_), None) => log::info!("payments are stored again"),
            _ => {}
        }
    }
}

/// What is asked of a payment besides, in `accept.lua`'s words.
fn asks(deposit: &Deposit) -> String {
    let Deposit { payment, receipt, .. } = deposit;
    if payment.payment_id.is_none() && payment.expires_in.is_none() && !receipt {
        return String::new();
    }
    let or_none = |word: Option<String>| word.unwrap_or_else(|| "-".into());
    let print = or_none(payment.payment_id.as_ref().map(|_| payment.parcel.fingerprint()));
    let life = or_none(payment.expires_in.map(|life| life.as_millis().to_string()));
    format!("{print} {life} {}", u8::from(*receipt))
}

/// Whether this is trouble of a Redis that answers all else as if nothing were.
pub(super) fn is_seen_by_payments_only(trouble: &str) -> bool {
    trouble == Error::StoreFull.to_string() || replicas::is_too_few(trouble)
}
