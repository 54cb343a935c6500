//! The file at one moment, for those who only read it: they wait for no commit.

use super::tables::{ENTRIES, Fault, IDS, PENDING, STATES, State, entry_of, parse_stored, seen, state_of};
use crate::inbox::{Ask, Backlog, Found, Query, Reading, Which};
use crate::payment::{ClientId, Mark, Seq};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata, TableError};
use std::ops::Bound;

/// The tables, as the last commit left them.
pub(super) struct View {
    pub(super) states: ReadOnlyTable<&'static str, &'static [u8]>,
    pub(super) entries: ReadOnlyTable<(&'static str, u64), &'static [u8]>,
    pub(super) ids: ReadOnlyTable<(&'static str, &'static str), &'static [u8]>,
    pub(super) pending: ReadOnlyTable<&'static str, ()>,
}

impl View {
    pub(super) fn open(at: &ReadTransaction) -> Result<View, TableError> {
        Ok(View {
            states: at.open_table(STATES)?,
            entries: at.open_table(ENTRIES)?,
            ids: at.open_table(IDS)?,
            pending: at.open_table(PENDING)?,
        })
    }

    /// Whether a place that a session saw is still what it was.
    pub(super) fn fits(&self, state: &State, client: &ClientId, place: Mark) -> Result<bool, Fault> {
        match place.seq {
            seq if seq > state.last.seq => Ok(false),
            // Acknowledged, or before the first: nothing is left there to compare with.
            seq if seq < state.acked.seq || seq == Seq(0) => Ok(true),
            seq if seq == state.acked.seq => Ok(place == state.acked),
            seq => Ok(entry_of(&self.entries, client, seq)?.entry.mark == place),
        }
    }

    pub(super) fn slice(&self, state: &State, ask: &Ask) -> Result<Reading, Fault> {
        let first = ask.after.seq.max(state.acked.seq).next();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let places = (ask.client.as_str(), first.0)..=(ask.client.as_str(), state.last.seq.0);
        for (place, row) in self.entries.range(places)?.take(ask.payments).enumerate() {
            let (_, text) = row?;
            let entry = parse_stored(&ask.client, Seq(first.0 + place as u64), text.value())?.entry;
            bytes += entry.parcel.as_bytes().len();
            entries.push(entry);
            if bytes > ask.bytes {
                break;
            }
        }
        Ok(Reading::Slice { entries, last: state.last })
    }

    pub(super) fn look_up(&self, query: &Query, now: u64) -> Result<Option<Found>, Fault> {
        let client = &query.client;
        let Some(state) = state_of(&self.states, client)? else { return Ok(None) };
        match &query.which {
            Which::Seq(seq) if *seq == Seq(0) || *seq > state.last.seq => Ok(None),
            Which::Seq(seq) if *seq <= state.acked.seq => {
                Ok(Some(Found { seq: *seq, status: state.status(*seq), payment_id: None }))
            }
            Which::Seq(seq) => {
                let parcel = entry_of(&self.entries, client, *seq)?.entry.parcel;
                let payment_id = parcel.payment_id().map(str::to_owned);
                Ok(Some(Found { seq: *seq, status: state.status(*seq), payment_id }))
            }
            Which::PaymentId(id) => {
                let Some(seen) = seen(&self.ids, client, id.as_str(), state.born, now)? else { return Ok(None) };
                let (seq, payment_id) = (seen.mark.seq, Some(id.as_str().to_owned()));
                Ok(Some(Found { seq, status: state.status(seq), payment_id }))
            }
        }
    }

    pub(super) fn waiting(&self, after: Option<&ClientId>, most: usize) -> Result<Vec<ClientId>, Fault> {
        let start = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.as_str()));
        let mut clients = Vec::new();
        for row in self.pending.range::<&str>((start, Bound::Unbounded))?.take(most) {
            clients.extend(ClientId::parse(row?.0.value()));
        }
        Ok(clients)
    }

    /// What waits, in at most so many inboxes. One that cannot be read is in nobody's way.
    pub(super) fn backlog(&self, most: usize) -> Result<Backlog, Fault> {
        let mut backlog = Backlog { inboxes: self.pending.len()?, ..Backlog::default() };
        for client in self.waiting(None, most)? {
            match self.waiting_of(&client) {
                Ok((payments, oldest_at)) => {
                    backlog.payments += payments;
                    backlog.oldest_at = Some(backlog.oldest_at.map_or(oldest_at, |oldest| oldest.min(oldest_at)));
                }
                Err(Fault::Job(error)) => log::debug!("{client}: {error}"),
                Err(fault) => return Err(fault),
            }
        }
        Ok(backlog)
    }

    /// How many payments wait in an inbox that is not empty, and when the oldest was accepted.
    fn waiting_of(&self, client: &ClientId) -> Result<(u64, u64), Fault> {
        let state = state_of(&self.states, client)?.unwrap_or_else(|| State::new(0));
        let oldest = entry_of(&self.entries, client, state.acked.seq.next())?;
        Ok((state.pending(), oldest.entry.mark.accepted_at))
    }
}
