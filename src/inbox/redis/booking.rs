//! The bookkeeper's notes on Redis: a script call for each, and one for all acknowledgements that stand together.

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

/// What one script call says.
enum Call<'a> {
    /// Acknowledgements only.
    Acks(&'a [Note]),
    One(&'a Note),
}

/// The calls that say all of it, in its order.
fn calls(notes: &[Note]) -> Vec<Call<'_>> {
    let is_ack = |note: &Note| matches!(note, Note::Ack { .. });
    let mut calls = Vec::new();
    for run in notes.chunk_by(|note, next| is_ack(note) && is_ack(next)) {
        match run {
            [Note::Ack { .. }, ..] => calls.push(Call::Acks(run)),
            _ => calls.extend(run.iter().map(Call::One)),
        }
    }
    calls
}

impl RedisInbox {
    /// One pipeline.
    pub(super) fn book_some(&self, notes: &[Note]) -> Vec<Result<Booked, Error>> {
        let calls = calls(notes);
        let replies = self.call(&self.books, &calls, |pipeline, call| match call {
            Call::Acks(notes) => self.push_acks(pipeline, notes),
            Call::One(note) => self.push_note(pipeline, note),
        });
        let each = calls.iter().zip(replies).flat_map(|(call, reply)| match call {
            Call::Acks(notes) => one_each(reply, notes.len()),
            Call::One(_) => vec![reply],
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

    /// One call for all of them, in `acknowledge.lua`'s words; what is no acknowledgement is none of them.
    fn push_acks(&self, pipeline: &mut Pipeline, notes: &[Note]) {
        let acks = notes.iter().filter_map(|note| match note {
            Note::Ack { client, session, mark } => Some((self.names.client(client), session, mark)),
            _ => None,
        });
        pipeline.reserve(notes.len() * ACK_BYTES);
        self.scripts.acknowledge.begin(pipeline, 3 * notes.len(), 1 + 5 * notes.len());
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
