//! Reading what Redis and our scripts reply.

use crate::doorbell::parse_entry;
use crate::inbox::{
    Booked, Claimed, Error, Found, Letters, Note, Query, Reading, Session, Slice, Status, Which, letter,
};
use crate::payment::{Mark, Seq};
use redis::Value;
use std::borrow::Cow;
use std::time::Duration;

/// The reply of a script that speaks of many clients, taken apart: what was said of each, or of all together.
pub(super) fn one_each(reply: Result<Value, Error>, count: usize) -> Vec<Result<Value, Error>> {
    let error = match reply {
        Ok(Value::Array(replies)) if replies.len() == count => return replies.into_iter().map(alone).collect(),
        Ok(_) => senseless("something else than was asked"),
        Err(error) => error,
    };
    vec![Err(error); count]
}

/// What was said of one client; `alone.lua` has how trouble is told.
fn alone(reply: Value) -> Result<Value, Error> {
    match bytes(&reply).and_then(|line| line.strip_prefix(b"error ")) {
        Some(why) => Err(Error::Corrupt(String::from_utf8_lossy(why).chars().take(200).collect())),
        None => Ok(reply),
    }
}

/// What a note did.
pub(super) fn read_booked(note: &Note, reply: &Value) -> Result<Booked, Error> {
    let line = text(reply).unwrap_or_default();
    if let Some(rest) = line.strip_prefix("acknowledged ") {
        let (acked, _state) = rest.split_once(' ').unwrap_or((rest, ""));
        return Ok(Booked::Acknowledged(Seq(number(acked)?)));
    }
    let words: Vec<&str> = line.split(' ').collect();
    match (note, &words[..]) {
        (_, ["replaced"]) => Ok(Booked::Replaced),
        (_, ["rolled_back"]) => Ok(Booked::RolledBack),
        (_, ["released"]) => Ok(Booked::Released),
        (_, ["passed", acked]) => Ok(Booked::Passed(Seq(number(acked)?))),
        (_, ["noted"]) => Ok(Booked::Noted),
        (_, ["buried" | "kept", "refused"]) => Ok(Booked::Refused),
        (_, ["kept", _]) => Ok(Booked::Settled),
        (_, ["soon", ms]) => Ok(Booked::TooSoon(Duration::from_millis(number(ms)?))),
        (_, ["late"]) => Err(Error::away("no time was left")),
        (Note::Claim(claim), ["claimed", session, acked, acked_at, last, last_at, epoch, pending]) => {
            let session = Session { number: number(session)?, token: claim.token, epoch: number(epoch)? };
            let (acked, last) = (mark(acked, acked_at)?, mark(last, last_at)?);
            Ok(Booked::Claimed(Claimed { session, acked, last, pending: number(pending)? }))
        }
        _ => Err(senseless(&line)),
    }
}

/// What lies behind a place, and what of it is past its time.
pub(super) fn read_slice(reply: &Value) -> Result<(Reading, Vec<Seq>), Error> {
    let Value::Array(parts) = reply else { return Err(senseless("not a slice")) };
    let word = |i: usize| parts.get(i).and_then(text).unwrap_or_default();
    match &*word(0) {
        "replaced" => Ok((Reading::Replaced, Vec::new())),
        "rolled_back" => Ok((Reading::RolledBack, Vec::new())),
        "slice" => {
            let (last, upto, acked) = (mark(&word(1), &word(2))?, mark(&word(4), &word(5))?, Seq(number(&word(3))?));
            let due = word(6).split_ascii_whitespace().map(|seq| number(seq).map(Seq)).collect::<Result<_, _>>()?;
            let entries = parts.iter().skip(7).map(|part| bytes(part).and_then(parse_entry).map(|e| e.entry));
            let entries: Option<Vec<_>> = entries.collect();
            let entries = entries.ok_or_else(|| senseless("an entry is not readable"))?;
            Ok((Reading::Slice(Slice { entries, upto, acked, last }), due))
        }
        other => Err(senseless(other)),
    }
}

/// A payment that was looked up.
pub(super) struct Looked {
    pub(super) found: Found,
    /// Its client's `node/boot`, or `-`.
    pub(super) owner: String,
    /// It is past its time, and no dead letter yet.
    pub(super) due: bool,
}

/// What became of a payment.
pub(super) fn read_found(query: &Query, reply: &Value) -> Result<Option<Looked>, Error> {
    let Value::Array(parts) = reply else { return Err(senseless("not an answer")) };
    let word = |i: usize| parts.get(i).and_then(text).unwrap_or_default();
    if word(0) == "none" {
        return Ok(None);
    }
    let held = parts.get(3).and_then(bytes);
    let held = held.and_then(|text| parse_entry(text).or_else(|| letter::parse(text).map(|(_, stored)| stored)));
    let payment_id = match &query.which {
        Which::PaymentId(id) => Some(id.as_str().to_owned()),
        Which::Seq(_) => held.and_then(|e| e.entry.parcel.payment_id().map(str::to_owned)),
    };
    let due = word(2) == "due";
    let status = if due { Some(Status::Accepted) } else { Status::parse(&word(2)) };
    let status = status.ok_or_else(|| senseless(&word(2)))?;
    let due_in = word(5).parse().ok().map(Duration::from_millis);
    let found = Found { seq: Seq(number(&word(1))?), status, payment_id, due_in };
    Ok(Some(Looked { found, owner: word(4).into_owned(), due }))
}

/// What a burial came to: the status now, and whether it was this that made it so.
pub(super) fn read_burial(reply: &Value) -> Result<Option<(Status, bool)>, Error> {
    let line = text(reply).unwrap_or_default();
    let status = |word| Status::parse(word).ok_or_else(|| senseless(&line));
    match line.split_once(' ') {
        Some(("buried", word)) => Ok(Some((status(word)?, true))),
        Some(("kept", word)) => Ok(Some((status(word)?, false))),
        None if line == "none" => Ok(None),
        _ => Err(senseless(&line)),
    }
}

/// A page of dead letters.
pub(super) fn read_letters(reply: &Value) -> Result<Option<Letters>, Error> {
    let Value::Array(parts) = reply else { return Err(senseless("no letters")) };
    match parts.first().and_then(text).as_deref() {
        Some("none") => return Ok(None),
        Some("letters") => {}
        other => return Err(senseless(other.unwrap_or_default())),
    }
    let more = parts.get(1).and_then(text).as_deref() == Some("1");
    let letters = parts.iter().skip(2).map(|part| Some(letter::parse(bytes(part)?)?.0)).collect::<Option<Vec<_>>>();
    Ok(Some(Letters { letters: letters.ok_or_else(|| senseless("a dead letter is not readable"))?, more }))
}

/// A reply that none of our scripts gives.
pub(super) fn senseless(what: &str) -> Error {
    Error::Corrupt(format!("Redis says {:?}", what.chars().take(100).collect::<String>()))
}

/// What a client's state and the length of its inbox tell of its payments; `state.lua` has the order of the fields.
pub(super) struct Counts<'a> {
    pub(super) acked: u64,
    /// How many places the inbox has.
    held: u64,
    gone: u64,
    tombs: u64,
    /// `node/boot`, or `-`.
    pub(super) owner: &'a str,
}

impl Counts<'_> {
    pub(super) fn read(state: &str, held: u64) -> Result<Counts<'_>, Error> {
        let words: Vec<&str> = state.split(' ').collect();
        let ["3", acked, _, _, gone, _, tombs, _, _, _, _, _, owner] = words[..] else {
            return Err(senseless(state));
        };
        Ok(Counts { acked: number(acked)?, held, gone: number(gone)?, tombs: number(tombs)?, owner })
    }

    pub(super) fn last(&self) -> u64 {
        self.acked.saturating_add(self.held)
    }

    pub(super) fn pending(&self) -> u64 {
        self.held.saturating_sub(self.tombs)
    }

    pub(super) fn dead_letters(&self) -> u64 {
        self.acked.saturating_add(self.tombs).saturating_sub(self.gone)
    }
}

/// A number of a reply.
pub(super) fn number(text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| senseless(text))
}

/// A place of a reply.
pub(super) fn mark(seq: &str, at: &str) -> Result<Mark, Error> {
    Ok(Mark { seq: Seq(number(seq)?), accepted_at: number(at)? })
}

/// The bytes of a reply, where it has any.
pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// The text of a reply, where it is one.
pub(super) fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::Int(n) => Some(n.to_string().into()),
        Value::VerbatimString { text, .. } => Some(text.into()),
        other => std::str::from_utf8(bytes(other)?).ok().map(Cow::from),
    }
}

/// The texts of a list; what is none is passed over.
pub(super) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(parts) | Value::Set(parts) => parts.iter().filter_map(text).map(Cow::into_owned).collect(),
        _ => Vec::new(),
    }
}
