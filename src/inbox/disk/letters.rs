//! Dead letters of the embedded home: how a payment becomes one, and what an operator does with it.
//!
//! Runs within a round, on the thread that leads the commit.

use super::round::Round;
use super::tables::{Fault, Place, State, letter_of, place_of};
use super::view::is_due;
use crate::doorbell::{Bell, Hint, StoredEntry};
use crate::inbox::{Accepted, Booked, EXPIRY_GRACE, Error, Session, Status, letter};
use crate::payment::{ClientId, Entry, Mark, Seq};
use redb::{ReadableTable, StorageError};

/// How many of the words for dead letters a round forgets beyond those it adds.
const FORGOTTEN_AT_ONCE: usize = 64;

/// What is done to a payment other than by its own session's notes.
pub(super) enum Act {
    /// An operator refuses it.
    Refuse {
        client: ClientId,
        seq: Seq,
        reason: String,
    },
    /// Somebody found it past its time; the session that owns the inbox, behind what it has sent.
    Expire {
        client: ClientId,
        seq: Seq,
        session: Option<Session>,
    },
    Retry {
        client: ClientId,
        seq: Seq,
    },
    Purge {
        client: ClientId,
        seq: Seq,
    },
}

/// What came of it.
pub(super) enum Acted {
    /// It is this now, by this act.
    Became(Status),
    /// It was this already, and still is.
    Is(Status),
    /// It is in the inbox again, with its payment id.
    PutBack(Accepted, Option<String>),
    /// There is none.
    Unknown,
}

impl Round<'_> {
    pub(super) fn act(&mut self, act: &Act) -> Result<Acted, Fault> {
        match act {
            Act::Refuse { client, seq, reason } => match self.waiting(client, *seq)? {
                Ok((state, stored)) => self.bury(client, state, &stored, Status::Refused, reason),
                Err(acted) => Ok(acted),
            },
            Act::Expire { client, seq, session } => self.expire(client, *seq, session.as_ref()),
            Act::Retry { client, seq } => self.put_back(client, *seq),
            Act::Purge { client, seq } => self.throw_away(client, *seq),
        }
    }

    pub(super) fn nack(&mut self, client: &ClientId, mark: Mark, reason: &str) -> Result<Booked, Fault> {
        match self.waiting(client, mark.seq)? {
            Ok((_, stored)) if stored.entry.mark != mark => Ok(Booked::RolledBack),
            Ok((state, stored)) => {
                self.bury(client, state, &stored, Status::Refused, reason)?;
                Ok(Booked::Refused)
            }
            Err(Acted::Is(Status::Refused)) => Ok(Booked::Refused),
            Err(Acted::Unknown) => Ok(Booked::RolledBack),
            Err(_) => Ok(Booked::Settled),
        }
    }

    /// Writes down that a session sent a payment which can expire. What an older session sent was sent as well.
    pub(super) fn note_sent(&mut self, client: &ClientId, session: &Session, mark: Mark) -> Result<Booked, Fault> {
        if let Ok((state, mut stored)) = self.waiting(client, mark.seq)?
            && state.born == session.epoch
            && stored.entry.mark == mark
            && stored.entry.expires_at > 0
            && stored.sent_by < session.number
        {
            stored.sent_by = session.number;
            self.entries.insert((client.as_str(), mark.seq.0), stored.to_bytes().as_slice())?;
            self.outcome.written = true;
        }
        Ok(Booked::Noted)
    }

    /// What became of a payment that is there, after a look at its time.
    pub(super) fn present_status(&mut self, client: &ClientId, state: &State, seq: Seq) -> Result<Status, Fault> {
        if let Some((status, _)) = letter_of(&self.letters, client, seq)? {
            return Ok(status);
        }
        match self.expire(client, seq, None)? {
            Acted::Became(status) | Acted::Is(status) => Ok(status),
            Acted::PutBack(..) | Acted::Unknown => Ok(state.status(seq)),
        }
    }

    /// A payment that waits, or else what it is.
    fn waiting(&mut self, client: &ClientId, seq: Seq) -> Result<Result<(State, StoredEntry), Acted>, Fault> {
        let Some(state) = self.state(client)? else { return Ok(Err(Acted::Unknown)) };
        if seq == Seq(0) || seq > state.last.seq {
            return Ok(Err(Acted::Unknown));
        }
        if let Some((status, _)) = letter_of(&self.letters, client, seq)? {
            return Ok(Err(Acted::Is(status)));
        }
        if seq <= state.acked.seq {
            return Ok(Err(Acted::Is(Status::Acknowledged)));
        }
        match place_of(&self.entries, client, seq)? {
            Place::Payment(stored) => Ok(Ok((state, stored))),
            Place::Tomb(_) => Err(Error::Corrupt(format!("client {client}: dead letter {seq} is missing")).into()),
        }
    }

    fn expire(&mut self, client: &ClientId, seq: Seq, session: Option<&Session>) -> Result<Acted, Fault> {
        let (state, stored) = match self.waiting(client, seq)? {
            Ok(waiting) => waiting,
            Err(acted) => return Ok(acted),
        };
        let holder = self.holder(client).map(|holder| holder.session.clone());
        let mine = session.is_some_and(|session| holder.as_ref().is_some_and(|h| h.token == session.token));
        let others = holder.filter(|_| !mine);
        // What was sent in time waits for the end of that connection; word of what was sent may still be on its way.
        let protected = others.as_ref().is_some_and(|holder| holder.number == stored.sent_by);
        let grace = others.map_or(0, |_| u64::try_from(EXPIRY_GRACE.as_millis()).unwrap_or(0));
        if protected || !is_due(stored.entry.expires_at, self.setting.now.saturating_sub(grace)) {
            return Ok(Acted::Is(Status::Accepted));
        }
        self.bury(client, state, &stored, Status::Expired, "")
    }

    fn bury(
        &mut self,
        client: &ClientId,
        mut state: State,
        stored: &StoredEntry,
        status: Status,
        reason: &str,
    ) -> Result<Acted, Fault> {
        let Mark { seq, accepted_at } = stored.entry.mark;
        let may_be_sent = stored.sent_by > 0 || accepted_at < self.setting.doubt_before;
        let maybe_delivered = status == Status::Expired && may_be_sent;
        let letter = letter::held(status, self.setting.now, maybe_delivered, reason, stored);
        let place = format!("{seq} {accepted_at} 0 {} -", stored.bytes);
        self.letters.insert((client.as_str(), seq.0), letter.as_slice())?;
        self.entries.insert((client.as_str(), seq.0), place.as_bytes())?;
        state.tombs += 1;
        self.drop_tombs(client, &mut state)?;
        self.set_state(client, state);
        self.outcome.hints.push(Hint::Died(client.clone(), seq, status));
        Ok(Acted::Became(status))
    }

    /// Lets the places of dead letters go that have come to stand at the head: so the head is always a payment.
    pub(super) fn drop_tombs(&mut self, client: &ClientId, state: &mut State) -> Result<(), Fault> {
        while state.tombs > 0 && state.acked.seq < state.last.seq {
            let seq = state.acked.seq.next();
            let Place::Tomb(mark) = place_of(&self.entries, client, seq)? else { return Ok(()) };
            self.entries.remove((client.as_str(), seq.0))?;
            state.acked = mark;
            state.tombs -= 1;
        }
        Ok(())
    }

    /// A dead letter that is held, or else what it is.
    fn held(&mut self, client: &ClientId, seq: Seq) -> Result<Result<(State, StoredEntry), Acted>, Fault> {
        let Some(state) = self.state(client)? else { return Ok(Err(Acted::Unknown)) };
        Ok(match letter_of(&self.letters, client, seq)? {
            Some((_, Some(stored))) => Ok((state, stored)),
            Some((status, None)) => Err(Acted::Is(status)),
            None => Err(Acted::Unknown),
        })
    }

    /// Leaves a word of a dead letter that is held no more.
    fn let_go(&mut self, client: &ClientId, seq: Seq, retried_as: Option<Seq>) -> Result<(), StorageError> {
        let (now, name) = (self.setting.now, client.as_str());
        self.letters.insert((name, seq.0), letter::gone(now, retried_as).as_slice())?;
        self.words.insert((now.saturating_add(self.setting.window_ms()), name, seq.0), ())?;
        Ok(())
    }

    fn throw_away(&mut self, client: &ClientId, seq: Seq) -> Result<Acted, Fault> {
        let (mut state, stored) = match self.held(client, seq)? {
            Ok(held) => held,
            Err(acted) => return Ok(acted),
        };
        self.let_go(client, seq, None)?;
        state.gone += 1;
        state.bytes_gone = (state.bytes_gone + stored.entry.parcel.as_bytes().len() as u64).min(state.bytes_in);
        self.set_state(client, state);
        Ok(Acted::Became(Status::Purged))
    }

    fn put_back(&mut self, client: &ClientId, seq: Seq) -> Result<Acted, Fault> {
        let (mut state, stored) = match self.held(client, seq)? {
            Ok(held) => held,
            Err(acted) => return Ok(acted),
        };
        if self.setting.full {
            return Err(Error::StoreFull.into());
        }
        let parcel = stored.entry.parcel;
        let (bytes, previous_at) = (parcel.as_bytes().len() as u64, state.last.accepted_at);
        let mark = Mark { seq: state.last.seq.next(), accepted_at: self.setting.now.max(previous_at) };
        self.let_go(client, seq, Some(mark.seq))?;
        state.last = mark;
        // It counted before and counts now: what is gone is its old place.
        state.bytes_in += bytes;
        state.gone += 1;
        state.bytes_gone += bytes;
        let payment_id = parcel.payment_id().map(str::to_owned);
        let entry = Entry { mark, expires_at: 0, parcel };
        let again = StoredEntry { entry: entry.clone(), sent_by: 0, bytes: state.bytes_in };
        self.entries.insert((client.as_str(), mark.seq.0), again.to_bytes().as_slice())?;
        self.set_state(client, state);
        let online = self.holder(client).is_some();
        if online {
            let bell = Bell { client: client.clone(), previous_at, awaited: false, entry };
            self.outcome.bells.push(bell);
        }
        let accepted = Accepted { mark, duplicate: false, status: Status::Accepted, online };
        Ok(Acted::PutBack(accepted, payment_id))
    }

    /// Forgets some of what was said of dead letters that are held no more.
    pub(super) fn forget_words(&mut self) -> Result<(), StorageError> {
        let mut over = Vec::new();
        for row in self.words.range(..(self.setting.now.saturating_add(1), "", 0))?.take(FORGOTTEN_AT_ONCE) {
            let (key, _) = row?;
            let (at, client, seq) = key.value();
            over.push((at, client.to_owned(), seq));
        }
        for (at, client, seq) in over {
            self.words.remove((at, client.as_str(), seq))?;
            // A retired client's number may be another dead letter by now.
            let place = (client.as_str(), seq);
            let held = self.letters.get(place)?.and_then(|text| letter::status(text.value()));
            if held.is_some_and(|status| !status.is_dead_letter()) {
                let state = ClientId::parse(&client).ok().and_then(|id| self.state(&id).ok().flatten());
                if state.is_none_or(|state| seq <= state.acked.seq.0) {
                    self.letters.remove(place)?;
                } else {
                    // Its place in the inbox says nothing by itself.
                    let later = self.setting.now.saturating_add(self.setting.window_ms());
                    self.words.insert((later, client.as_str(), seq), ())?;
                }
            }
            self.outcome.written = true;
        }
        Ok(())
    }
}
