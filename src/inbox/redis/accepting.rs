//! Accepting on Redis: one round of the group commit, the bells of what it stored, and whether it can store at all.
//!
//! What a script judges of a payment is told in `accept.lua`, what replicas make of it in `replicas`. Runs on whichever
//! thread commits the round.

use super::connection::Pipeline;
use super::reply::{mark, number, senseless, text};
use super::{RedisInbox, replicas};
use crate::doorbell::{Bell, Hint};
use crate::inbox::{Accepted, Deposit, Error, Status, Stored};
use crate::payment::Entry;
use redis::Value;
use std::time::Instant;

impl RedisInbox {
    /// One round of the group commit.
    pub(super) fn store(&self, deposits: Vec<Deposit>) {
        let now = Instant::now();
        let (deposits, late): (Vec<_>, Vec<_>) = deposits.into_iter().partition(|d| now < d.deadline);
        late.into_iter().for_each(|d| d.done.say(Err(Error::away("no time was left"))));
        let now_ms = self.lease.now_ms().to_string();
        let push = |pipeline: &mut Pipeline, d: &Deposit| self.push_accept(pipeline, d, &now_ms);
        let (replies, waited) = self.call_and(&self.commits, &deposits, push, |pipeline| self.replicas.push(pipeline));
        let replicated = self.replicas.judge(&waited);
        match &replicated {
            Ok(()) => self.note_trouble(&replies),
            Err(error) => self.note_trouble(&[Err(error.clone())]),
        }
        let outcomes: Vec<_> = deposits.iter().zip(replies).map(|(d, reply)| self.read_accepted(d, &reply?)).collect();
        // All bells of a round ring before its answers are written: writing takes longer.
        let outcomes: Vec<_> = deposits.iter().zip(outcomes).map(|(d, outcome)| self.ring(d, outcome)).collect();
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

    /// Tells this node's clients what they may have missed otherwise.
    fn ring(&self, deposit: &Deposit, outcome: Result<(Accepted, Option<Bell>), Error>) -> Result<Accepted, Error> {
        let check = || (self.hint)(Hint::Check(deposit.payment.client.clone()));
        match outcome {
            Ok((accepted, bell)) => {
                match bell {
                    Some(bell) => (self.hint)(Hint::Bell(bell)),
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

    fn push_accept(&self, pipeline: &mut Pipeline, deposit: &Deposit, now_ms: &str) {
        let payment = &deposit.payment;
        let keys = self.names.client(&payment.client);
        let life = payment.expires_in.map(|life| life.as_millis().to_string());
        let waiter = if deposit.receipt { self.options.node.as_bytes() } else { b"" };
        let mut args: Vec<&[u8]> = vec![now_ms.as_bytes(), payment.parcel.as_bytes(), self.me.as_bytes(), waiter];
        let (state, inbox, beside) = (keys.key("state"), keys.key("inbox"), keys.key("beside"));
        let mut all: Vec<&[u8]> = vec![state.as_bytes(), inbox.as_bytes(), beside.as_bytes()];
        match &payment.payment_id {
            None => {
                if let Some(life) = &life {
                    args.extend([b"", b"", life.as_bytes()]);
                }
                self.scripts.accept.call(pipeline, &all, &args);
            }
            Some(id) => {
                let id_key = keys.id(id.as_str());
                let (print, window) = (payment.parcel.fingerprint(), self.options.dedup_window.as_millis().to_string());
                all.push(id_key.as_bytes());
                args.extend([print.as_bytes(), window.as_bytes()]);
                args.extend(life.as_deref().map(str::as_bytes));
                self.scripts.accept.call(pipeline, &all, &args);
            }
        }
    }

    fn read_accepted(&self, deposit: &Deposit, reply: &Value) -> Result<(Accepted, Option<Bell>), Error> {
        let line = text(reply).unwrap_or_default();
        let words: Vec<&str> = line.split(' ').collect();
        let online = |owner: &str| owner != "-" && self.lease.is_alive(owner);
        match words[..] {
            ["accepted", seq, at, previous_at, owner] => {
                let mark = mark(seq, at)?;
                let accepted = Accepted { mark, duplicate: false, status: Status::Accepted, online: online(owner) };
                let bell = (owner == self.me).then(|| {
                    let life = deposit.payment.expires_in.map(|life| u64::try_from(life.as_millis()).unwrap_or(0));
                    let expires_at = life.map_or(0, |life| mark.accepted_at.saturating_add(life));
                    let entry = Entry { mark, expires_at, parcel: deposit.payment.parcel.clone() };
                    Bell {
                        client: deposit.payment.client.clone(),
                        previous_at: number(previous_at).unwrap_or(0),
                        awaited: deposit.receipt,
                        entry,
                    }
                });
                Ok((accepted, bell))
            }
            ["duplicate", seq, at, word, owner] => {
                let mark = mark(seq, at)?;
                let status = match word {
                    "due" => self.expire(&deposit.payment.client, mark.seq, owner),
                    _ => Status::parse(word).ok_or_else(|| senseless(&line))?,
                };
                Ok((Accepted { mark, duplicate: true, status, online: online(owner) }, None))
            }
            ["full"] => Err(Error::InboxFull),
            ["reused"] => Err(Error::IdReused),
            _ => Err(senseless(&line)),
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

/// Whether this is trouble of a Redis that answers all else as if nothing were.
pub(super) fn is_seen_by_payments_only(trouble: &str) -> bool {
    trouble == Error::StoreFull.to_string() || replicas::is_too_few(trouble)
}
