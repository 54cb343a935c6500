//! One round of the embedded home: what its jobs do within one write transaction.
//!
//! A job that is refused has changed nothing. Who owns which inbox is kept beside the transaction
//! and becomes true with it. Runs on the thread that leads the commit.

use super::job::Pending;
use super::tables::{
    ENTRIES, EXPIRIES, Fault, IDS, LETTERS, META, PENDING, Place, STATES, Seen, State, WORDS, place_of, seen, state_of,
};
use super::{DiskOptions, Holder, Holders};
use crate::doorbell::{Bell, Hint, StoredEntry};
use crate::inbox::{Accepted, Booked, Claim, Claimed, Error, Note, Retired, Session, Status};
use crate::payment::{ClientId, Entry, Mark, Seq};
use parking_lot::Mutex;
use redb::{ReadableTable, StorageError, Table, TableError, WriteTransaction};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A client changes hands at most once in this time.
const HANDS_APART: Duration = Duration::from_millis(100);
/// How many expired payment ids a round removes beyond those it adds: so they never pile up.
const EXPIRED_AT_ONCE: usize = 64;
/// How many of a retired client's payment ids go in one round.
const FORGOTTEN_AT_ONCE: usize = 1_000;

/// What a round looks at besides the file.
pub(super) struct Setting<'a> {
    pub(super) options: &'a DiskOptions,
    pub(super) holders: &'a Mutex<Holders>,
    pub(super) sessions: &'a AtomicU64,
    /// Unix ms.
    pub(super) now: u64,
    /// Payments from before this may have been sent by a process that was killed.
    pub(super) doubt_before: u64,
    /// The disk has no room for further payments.
    pub(super) full: bool,
}

impl Setting<'_> {
    /// How long a payment id, and what became of a dead letter, is remembered.
    pub(super) fn window_ms(&self) -> u64 {
        u64::try_from(self.options.dedup_window.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Where a retired client's payment ids are to be removed further.
pub(super) struct Cursor {
    client: ClientId,
    /// Those of numberings that began before this.
    before: u64,
    after: String,
}

/// What came of retiring a client, and where the removal of its payment ids begins.
pub(super) type Retirement = (Retired, Option<Cursor>);

/// What became true with the transaction.
pub(super) struct Outcome {
    /// Otherwise there is nothing to commit.
    pub(super) written: bool,
    pub(super) holders: HashMap<ClientId, Option<Arc<Holder>>>,
    /// What is told to this node: first these.
    pub(super) bells: Vec<Bell>,
    pub(super) hints: Vec<Hint>,
}

struct Known {
    stored: Option<State>,
    state: Option<State>,
}

pub(super) struct Round<'t> {
    pub(super) setting: Setting<'t>,
    meta: Table<'t, &'static str, u64>,
    states: Table<'t, &'static str, &'static [u8]>,
    pub(super) entries: Table<'t, (&'static str, u64), &'static [u8]>,
    ids: Table<'t, (&'static str, &'static str), &'static [u8]>,
    expiries: Table<'t, (u64, &'static str, &'static str), ()>,
    pending: Table<'t, &'static str, ()>,
    pub(super) letters: Table<'t, (&'static str, u64), &'static [u8]>,
    pub(super) words: Table<'t, (u64, &'static str, u64), ()>,
    /// Of the clients that this round deals with; written once, at its end.
    known: HashMap<ClientId, Known>,
    ids_added: usize,
    pub(super) outcome: Outcome,
}

impl<'t> Round<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction, setting: Setting<'t>) -> Result<Round<'t>, TableError> {
        Ok(Round {
            setting,
            meta: transaction.open_table(META)?,
            states: transaction.open_table(STATES)?,
            entries: transaction.open_table(ENTRIES)?,
            ids: transaction.open_table(IDS)?,
            expiries: transaction.open_table(EXPIRIES)?,
            pending: transaction.open_table(PENDING)?,
            letters: transaction.open_table(LETTERS)?,
            words: transaction.open_table(WORDS)?,
            known: HashMap::new(),
            ids_added: 0,
            outcome: Outcome { written: false, holders: HashMap::new(), bells: Vec::new(), hints: Vec::new() },
        })
    }

    /// Runs one job's share: its own refusals are its answer, the file's errors are everybody's.
    pub(super) fn for_itself<T>(
        &mut self,
        job: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<Result<T, Error>, StorageError> {
        match job(self) {
            Ok(answer) => Ok(Ok(answer)),
            Err(Fault::Job(error)) => Ok(Err(error)),
            Err(Fault::Store(error)) => Err(error),
        }
    }

    /// Writes what is left to write.
    pub(super) fn finish(mut self) -> Result<Outcome, StorageError> {
        self.forget_expired()?;
        self.forget_words()?;
        for (client, Known { stored, state }) in std::mem::take(&mut self.known) {
            if state == stored {
                continue;
            }
            self.outcome.written = true;
            match state {
                Some(state) => drop(self.states.insert(client.as_str(), state.to_bytes().as_slice())?),
                None => drop(self.states.remove(client.as_str())?),
            }
            let waits = |state: Option<State>| state.is_some_and(|state| state.pending() > 0);
            match (waits(stored), waits(state)) {
                (false, true) => drop(self.pending.insert(client.as_str(), ())?),
                (true, false) => drop(self.pending.remove(client.as_str())?),
                _ => {}
            }
        }
        Ok(self.outcome)
    }

    pub(super) fn state(&mut self, client: &ClientId) -> Result<Option<State>, Fault> {
        if let Some(known) = self.known.get(client) {
            return Ok(known.state);
        }
        let state = state_of(&self.states, client)?;
        self.known.insert(client.clone(), Known { stored: state, state });
        Ok(state)
    }

    pub(super) fn set_state(&mut self, client: &ClientId, state: State) {
        let known = self.known.get_mut(client).expect("a state is looked at before it is changed");
        known.state = Some(state);
    }

    /// The state of a client that is heard of for the first time.
    fn newborn(&self) -> Result<State, StorageError> {
        let floor = self.meta.get("born_floor")?.map_or(0, |floor| floor.value());
        Ok(State::new(self.setting.now.max(floor)))
    }

    pub(super) fn holder(&self, client: &ClientId) -> Option<Arc<Holder>> {
        let changed = self.outcome.holders.get(client);
        changed.cloned().unwrap_or_else(|| self.setting.holders.lock().get(client).cloned())
    }

    pub(super) fn holds(&self, client: &ClientId, session: &Session) -> bool {
        self.holder(client).is_some_and(|holder| holder.session.token == session.token)
    }

    pub(super) fn accept(&mut self, pending: &Pending) -> Result<Accepted, Fault> {
        if Instant::now() >= pending.deadline {
            return Err(Error::away("it was not its turn in time").into());
        }
        let client = &pending.payment.client;
        let state = self.state(client)?;
        let online = self.holder(client).is_some();
        if let Some(state) = state
            && let Some(first) = self.first(pending, &state)?
        {
            let status = self.present_status(client, &state, first.mark.seq)?;
            return Ok(Accepted { mark: first.mark, duplicate: true, status, online });
        }
        let state = self.room_for(pending, state)?;
        let mark = self.append(pending, state, online)?;
        Ok(Accepted { mark, duplicate: false, status: Status::Accepted, online })
    }

    /// The payment that used this one's payment id first.
    fn first(&self, pending: &Pending, state: &State) -> Result<Option<Seen>, Fault> {
        let Some(id) = &pending.payment.payment_id else { return Ok(None) };
        let first = seen(&self.ids, &pending.payment.client, id.as_str(), state.born, self.setting.now)?;
        match first {
            Some(first) if pending.fingerprint.as_ref() != Some(&first.fingerprint) => Err(Error::IdReused.into()),
            first => Ok(first),
        }
    }

    fn room_for(&self, pending: &Pending, state: Option<State>) -> Result<State, Fault> {
        if self.setting.full {
            return Err(Error::StoreFull.into());
        }
        let state = state.map_or_else(|| self.newborn(), Ok)?;
        let (payments, bytes) = state.held();
        let bytes = bytes + pending.payment.parcel.as_bytes().len() as u64;
        if payments >= self.setting.options.inbox_limit || bytes > crate::inbox::MAX_INBOX_BYTES {
            return Err(Error::InboxFull.into());
        }
        Ok(state)
    }

    fn append(&mut self, pending: &Pending, mut state: State, online: bool) -> Result<Mark, StorageError> {
        let (client, parcel) = (&pending.payment.client, &pending.payment.parcel);
        let previous_at = state.last.accepted_at;
        let mark = Mark { seq: state.last.seq.next(), accepted_at: self.setting.now.max(previous_at) };
        state.last = mark;
        state.bytes_in += parcel.as_bytes().len() as u64;
        let life = pending.payment.expires_in.map(|life| u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
        let expires_at = life.map_or(0, |life| mark.accepted_at.saturating_add(life));
        let entry = Entry { mark, expires_at, parcel: parcel.clone() };
        let stored = StoredEntry { entry, sent_by: 0, bytes: state.bytes_in };
        self.entries.insert((client.as_str(), mark.seq.0), stored.to_bytes().as_slice())?;
        if let (Some(id), Some(fingerprint)) = (&pending.payment.payment_id, &pending.fingerprint) {
            let expires_at = self.setting.now.saturating_add(self.setting.window_ms());
            let seen = Seen { mark, expires_at, born: state.born, fingerprint: fingerprint.clone() };
            self.ids.insert((client.as_str(), id.as_str()), seen.to_bytes().as_slice())?;
            self.expiries.insert((expires_at, client.as_str(), id.as_str()), ())?;
            self.ids_added += 1;
        }
        self.set_state(client, state);
        if online {
            let (client, awaited) = (client.clone(), pending.awaited);
            let bell = Bell { client, previous_at, awaited, entry: stored.entry };
            self.outcome.bells.push(bell);
        }
        Ok(mark)
    }

    pub(super) fn book(&mut self, note: &Note) -> Result<Booked, Fault> {
        match note {
            Note::Claim(claim) => self.claim(claim),
            Note::Ack { client, session, mark } if self.holds(client, session) => self.acknowledge(client, *mark),
            Note::Release { client, session } if self.holds(client, session) => {
                self.outcome.holders.insert(client.clone(), None);
                Ok(Booked::Released)
            }
            Note::Refuse { client, session, mark, reason } if self.holds(client, session) => {
                self.nack(client, *mark, reason)
            }
            Note::Sent { client, session, mark } => self.note_sent(client, session, *mark),
            Note::Ack { .. } | Note::Refuse { .. } | Note::Release { .. } => Ok(Booked::Replaced),
        }
    }

    fn claim(&mut self, claim: &Claim) -> Result<Booked, Fault> {
        let now = Instant::now();
        if now >= claim.deadline {
            return Err(Error::away("too late").into());
        }
        let held_for = self.holder(&claim.client).map(|holder| now.saturating_duration_since(holder.claimed_at));
        if let Some(wait) = held_for.and_then(|held_for| HANDS_APART.checked_sub(held_for)).filter(|w| !w.is_zero()) {
            return Ok(Booked::TooSoon(wait));
        }
        let state = self.state(&claim.client)?.map_or_else(|| self.newborn(), Ok)?;
        self.set_state(&claim.client, state);
        let number = self.setting.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let session = Session { number, token: claim.token, epoch: state.born };
        let address = claim.address.clone();
        let holder = Holder { session: session.clone(), since: self.setting.now, claimed_at: now, address };
        self.outcome.holders.insert(claim.client.clone(), Some(Arc::new(holder)));
        Ok(Booked::Claimed(Claimed { session, acked: state.acked, last: state.last, pending: state.pending() }))
    }

    fn acknowledge(&mut self, client: &ClientId, mark: Mark) -> Result<Booked, Fault> {
        let Some(mut state) = self.state(client)? else { return Ok(Booked::RolledBack) };
        let plain = state.is_plain();
        let told = |acked| if plain { Booked::Acknowledged(acked) } else { Booked::Passed(acked) };
        if mark.seq <= state.acked.seq {
            return Ok(told(state.acked.seq));
        }
        if mark.seq > state.last.seq || place_of(&self.entries, client, mark.seq)?.mark() != mark {
            return Ok(Booked::RolledBack);
        }
        let mut places = Vec::new();
        for seq in state.acked.seq.next().0..=mark.seq.0 {
            places.push(match place_of(&self.entries, client, Seq(seq))? {
                Place::Payment(stored) => Some(stored.entry.parcel.as_bytes().len() as u64),
                Place::Tomb(_) => None,
            });
        }
        for (seq, bytes) in (state.acked.seq.next().0..).zip(places) {
            self.entries.remove((client.as_str(), seq))?;
            match bytes {
                Some(bytes) => {
                    state.gone += 1;
                    // Never above what came in, whatever was in the entry.
                    state.bytes_gone = (state.bytes_gone + bytes).min(state.bytes_in);
                }
                None => state.tombs = state.tombs.saturating_sub(1),
            }
        }
        state.acked = mark;
        self.drop_tombs(client, &mut state)?;
        self.set_state(client, state);
        Ok(told(state.acked.seq))
    }

    /// Removes a client with its payments, at once: their number is bounded. Its payment ids may
    /// be many more; they mean nothing from now on and are removed in steps.
    pub(super) fn retire(&mut self, client: &ClientId, discard: bool) -> Result<Retirement, Fault> {
        let born = match self.state(client) {
            Ok(None) => return Ok((Retired::Unknown, None)),
            Ok(Some(state)) if state.pending() > 0 && !discard => return Ok((Retired::Pending(state.pending()), None)),
            Ok(Some(state)) => state.born,
            // What cannot be read can at least be thrown away.
            Err(Fault::Job(_)) if discard => self.setting.now,
            Err(fault) => return Err(fault),
        };
        let name = client.as_str();
        self.entries.retain_in((name, 0)..=(name, u64::MAX), |_, _| false)?;
        self.letters.retain_in((name, 0)..=(name, u64::MAX), |_, _| false)?;
        self.states.remove(name)?;
        self.pending.remove(name)?;
        self.known.insert(client.clone(), Known { stored: None, state: None });
        let floor = self.newborn()?.born.max(born.saturating_add(1));
        self.meta.insert("born_floor", floor)?;
        self.outcome.holders.insert(client.clone(), None);
        self.outcome.written = true;
        Ok((Retired::Done, Some(Cursor { client: client.clone(), before: floor, after: String::new() })))
    }

    /// Removes some of a retired client's payment ids; says where to go on.
    pub(super) fn forget_ids(&mut self, cursor: &Cursor) -> Result<Option<Cursor>, StorageError> {
        let client = cursor.client.as_str();
        let mut rows = Vec::new();
        for row in self.ids.range((client, cursor.after.as_str())..)?.take(FORGOTTEN_AT_ONCE) {
            let (key, text) = row?;
            if key.value().0 != client {
                break;
            }
            rows.push((key.value().1.to_owned(), Seen::parse(text.value())));
        }
        let next = (rows.len() == FORGOTTEN_AT_ONCE).then(|| rows[rows.len() - 1].0.clone() + "\0");
        for (id, seen) in rows {
            if seen.as_ref().is_some_and(|seen| seen.born >= cursor.before) {
                continue;
            }
            self.ids.remove((client, id.as_str()))?;
            if let Some(seen) = seen {
                self.expiries.remove((seen.expires_at, client, id.as_str()))?;
            }
            self.outcome.written = true;
        }
        Ok(next.map(|after| Cursor { client: cursor.client.clone(), before: cursor.before, after }))
    }

    fn forget_expired(&mut self) -> Result<(), StorageError> {
        let most = EXPIRED_AT_ONCE + self.ids_added;
        let mut expired = Vec::new();
        for row in self.expiries.range(..(self.setting.now.saturating_add(1), "", ""))?.take(most) {
            let (key, _) = row?;
            let (at, client, id) = key.value();
            expired.push((at, client.to_owned(), id.to_owned()));
        }
        for (at, client, id) in expired {
            self.expiries.remove((at, client.as_str(), id.as_str()))?;
            // The id may have been used anew since.
            let stored = self.ids.get((client.as_str(), id.as_str()))?.and_then(|text| Seen::parse(text.value()));
            if stored.is_some_and(|seen| seen.expires_at == at) {
                self.ids.remove((client.as_str(), id.as_str()))?;
            }
            self.outcome.written = true;
        }
        Ok(())
    }
}
