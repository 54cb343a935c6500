//! The bookkeeper's notes on Redis: a script call for each, and one for all acknowledgements that stand together.
//!
//! What the scripts make of them is told in `claim.lua`, `acknowledge.lua`, `sent.lua` and `release.lua`, what they say is
//! read by `reply`; refusals are `burial`'s. Runs on the bookkeeper's thread.

use super::burial::Burial;
use super::connection::Pipeline;
use super::reply::{one_each, read_booked};
use super::{LEAST_HOLD_MS, RedisInbox};
use crate::inbox::{Booked, Claim, Error, Note};
use redis::Value;
use std::slice;
use std::time::Instant;

/// About how many bytes the script is given of an acknowledgement.
const ACK_BYTES: usize = 256;

impl RedisInbox {
    /// One pipeline.
    pub(super) fn book_some(&self, notes: &[Note]) -> Vec<Result<Booked, Error>> {
        let is_ack = |note: &Note| matches!(note, Note::Ack { .. });
        let runs: Vec<&[Note]> = notes.chunk_by(|note, next| is_ack(note) && is_ack(next)).collect();
        let replies = self.call(&self.books, &runs, |pipeline, run| match run {
            [note] => self.push_note(pipeline, note),
            acks => self.push_acks(pipeline, acks),
        });
        let each = runs.iter().zip(replies).flat_map(|(run, reply)| match run {
            [Note::Ack { .. }, ..] => one_each(reply, run.len()),
            _ => vec![reply],
        });
        let booked = |(note, reply): (&Note, Result<Value, Error>)| {
            let reply = reply?;
            self.tell_burial(note, &reply);
            self.note_state(note, &reply);
            read_booked(note, &reply)
        };
        notes.iter().zip(each).map(booked).collect()
    }

    fn push_note(&self, pipeline: &mut Pipeline, note: &Note) {
        match note {
            Note::Claim(claim) => self.push_claim(pipeline, claim),
            Note::Ack { .. } => self.push_acks(pipeline, slice::from_ref(note)),
            Note::Refuse { client, session, mark, reason } => {
                let why = Burial::Nack { session, mark: *mark, reason };
                self.push_burial(pipeline, client, mark.seq, &why);
            }
            Note::Sent { client, session, mark } => {
                let keys = self.names.client(client);
                let (state, inbox) = (keys.key("state"), keys.key("inbox"));
                let numbers = [session.number, session.epoch, mark.seq.0, mark.accepted_at].map(|n| n.to_string());
                let args: Vec<&[u8]> = numbers.iter().map(String::as_bytes).collect();
                self.scripts.sent.call(pipeline, &[state.as_bytes(), inbox.as_bytes()], &args);
            }
            Note::Release { client, session } => {
                let keys = self.names.client(client);
                let (state, beside) = (keys.key("state"), keys.key("beside"));
                let token = session.token.as_str().as_bytes();
                self.scripts.release.call(pipeline, &[state.as_bytes(), beside.as_bytes()], &[token]);
            }
        }
    }

    /// One call for all acknowledgements among these, in `acknowledge.lua`'s words.
    fn push_acks(&self, pipeline: &mut Pipeline, notes: &[Note]) {
        let acks = notes.iter().filter_map(|note| match note {
            Note::Ack { client, session, mark } => Some((self.names.client(client), session, mark)),
            _ => None,
        });
        let count = acks.clone().count();
        pipeline.reserve(count * ACK_BYTES);
        self.scripts.acknowledge.begin(pipeline, 3 * count, 1 + 5 * count);
        for (keys, ..) in acks.clone() {
            ["state", "inbox", "beside"].iter().for_each(|name| pipeline.word(&keys.parts(name).map(str::as_bytes)));
        }
        pipeline.word(&[self.options.node.as_bytes()]);
        for (_, session, mark) in acks {
            pipeline.word(&[session.token.as_str().as_bytes()]);
            for number in [session.number, session.epoch, mark.seq.0, mark.accepted_at] {
                pipeline.number(number);
            }
        }
    }

    fn push_claim(&self, pipeline: &mut Pipeline, claim: &Claim) {
        let keys = self.names.client(&claim.client);
        let (state, inbox, beside) = (keys.key("state"), keys.key("inbox"), keys.key("beside"));
        let left = claim.deadline.saturating_duration_since(Instant::now());
        // The script judges by whole milliseconds: where no time is left, it is late in any case.
        let left = u64::try_from(left.as_millis()).unwrap_or(0);
        let deadline = if left == 0 { 0 } else { self.lease.now_ms() + left }.to_string();
        let args = [
            claim.token.as_str().as_bytes(),
            self.me.as_bytes(),
            claim.client.as_str().as_bytes(),
            claim.address.as_bytes(),
            deadline.as_bytes(),
            LEAST_HOLD_MS,
        ];
        self.scripts.claim.call(pipeline, &[state.as_bytes(), inbox.as_bytes(), beside.as_bytes()], &args);
    }
}
