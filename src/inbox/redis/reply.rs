//! Reading what Redis and our scripts reply.

use crate::doorbell::parse_entry;
use crate::inbox::{Booked, Claimed, Error, Found, Note, Query, Reading, Session, Status, Which};
use crate::payment::{Mark, Seq};
use redis::Value;
use std::borrow::Cow;
use std::time::Duration;

/// What a note did.
pub(super) fn read_booked(note: &Note, reply: &Value) -> Result<Booked, Error> {
    let line = text(reply).unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    match (note, &words[..]) {
        (_, ["replaced"]) => Ok(Booked::Replaced),
        (_, ["rolled_back"]) => Ok(Booked::RolledBack),
        (_, ["released"]) => Ok(Booked::Released),
        (_, ["acknowledged", acked]) => Ok(Booked::Acknowledged(Seq(number(acked)?))),
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

/// What lies behind a place.
pub(super) fn read_slice(reply: &Value) -> Result<Reading, Error> {
    let Value::Array(parts) = reply else { return Err(senseless("not a slice")) };
    let word = |i: usize| parts.get(i).and_then(text).unwrap_or_default();
    match &*word(0) {
        "replaced" => Ok(Reading::Replaced),
        "rolled_back" => Ok(Reading::RolledBack),
        "slice" => {
            let last = mark(&word(1), &word(2))?;
            let entries = parts.iter().skip(3).map(|part| bytes(part).and_then(parse_entry).map(|e| e.entry));
            let entries: Option<Vec<_>> = entries.collect();
            Ok(Reading::Slice { entries: entries.ok_or_else(|| senseless("an entry is not readable"))?, last })
        }
        other => Err(senseless(other)),
    }
}

/// What became of a payment.
pub(super) fn read_found(query: &Query, reply: &Value) -> Result<Option<Found>, Error> {
    let Value::Array(parts) = reply else { return Err(senseless("not an answer")) };
    let word = |i: usize| parts.get(i).and_then(text).unwrap_or_default();
    if word(0) == "none" {
        return Ok(None);
    }
    let held = parts.get(3).and_then(bytes).and_then(parse_entry);
    let payment_id = match &query.which {
        Which::PaymentId(id) => Some(id.as_str().to_owned()),
        Which::Seq(_) => held.and_then(|e| e.entry.parcel.payment_id().map(str::to_owned)),
    };
    let status = if word(2) == "acknowledged" { Status::Acknowledged } else { Status::Accepted };
    Ok(Some(Found { seq: Seq(number(&word(1))?), status, payment_id }))
}

/// A reply that none of our scripts gives.
pub(super) fn senseless(what: &str) -> Error {
    Error::Corrupt(format!("Redis says {:?}", what.chars().take(100).collect::<String>()))
}

/// How many payments wait, by a client's state; 0 where there is none, or none that can be read.
pub(super) fn read_pending(state: &Value) -> u64 {
    let line = text(state).unwrap_or_default();
    let mut words = line.split(' ');
    let mut word = |place| words.nth(place).and_then(|word| word.parse::<u64>().ok());
    // `state.lua` tells the order: the version, last, two others, acked, tombs.
    match (word(0), word(0), word(2), word(0)) {
        (Some(2), Some(last), Some(acked), Some(tombs)) => last.saturating_sub(acked).saturating_sub(tombs),
        _ => 0,
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
