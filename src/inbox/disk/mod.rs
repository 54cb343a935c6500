//! The embedded home of the inbox: one file, `inbox.redb`, for one node alone.
//!
//! The file is a [redb] database: transactions, checksums and a free list in pure Rust, one
//! dependency, no background threads to tune, and a lock that keeps a second process out. Group
//! commit is ours ([`Group`]). Measured with 256-byte payments on two cores, each fsynced before it
//! is answered, a plain table of redb's takes 10–14,000 a second from 8 threads and 16–27,000 from
//! 64; SQLite about as many, in C; fjall 23–33,000 and 67–99,000, for 42 crates. This home, with
//! all its tables: for 1,000 clients, with payment ids and acknowledgements, 10,000 and 15–19,000;
//! for one client without ids 14,000 and 65,000. After a crash redb reads the whole file to check
//! it: 0.25 s for 325,000 payments.
//!
//! Whatever writes goes through one list, so payments and acknowledgements share transactions and
//! fsyncs, and there is one writer. Who owns an inbox is this process's memory only: all
//! connections are here, and none outlives the process. Answers wait for the fsync; a failed one
//! is never repeated, for nobody knows then what the disk holds: the process ends.

#[cfg(test)]
mod hostile;
mod job;
mod letters;
pub(crate) mod look;
mod open;
mod round;
mod tables;
mod view;

pub(crate) use open::OpenError;

use super::group::Group;
use super::{
    Ask, Backlog, Booked, Deposit, Error, Found, Health, Inbox, Letters, MAX_COUNTED, MAX_PER_CALL, Note, Owner, Query,
    Reading, Record, Retired, Retry, Session, Status, Tended,
};
use crate::doorbell::Hint;
use crate::metrics::{InboxMeters, LineMeters};
use crate::payment::{ClientId, Seq};
use crate::seldom::Seldom;
use crossbeam_channel::bounded;
use job::{Asked, DiskJob, Pending, unknown};
use letters::{Act, Acted};
use open::Opened;
use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, StorageError, WriteTransaction};
use round::{Outcome, Round, Setting};
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};
use tables::{Fault, begin_error, entry_of, state_of, table_error};
use view::{Looked, View};

/// While less is free on the disk, no payment is accepted: claims and acknowledgements need room
/// too, and a file system that is full to the last block would end the process.
pub(crate) const KEEP_FREE_BYTES: u64 = 64 << 20;

/// How the embedded home is to keep its promises.
#[derive(Clone, Debug)]
pub(crate) struct DiskOptions {
    /// The most payments that may wait for one client.
    pub(crate) inbox_limit: u64,
    /// How long a payment id is remembered.
    pub(crate) dedup_window: Duration,
    /// This node's name, for the operator to see.
    pub(crate) node: String,
}

/// The session that owns an inbox.
struct Holder {
    session: Session,
    /// Unix ms.
    since: u64,
    claimed_at: Instant,
    address: String,
}

type Holders = HashMap<ClientId, Arc<Holder>>;

/// What tests set: the time (Unix ms), and the bytes that are free on the disk, if known.
struct World {
    now: Box<dyn Fn() -> u64 + Send + Sync>,
    free_bytes: Box<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl World {
    fn real(dir: &Path) -> World {
        let dir = dir.to_owned();
        let since_1970 = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        World {
            now: Box::new(move || u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)),
            free_bytes: Box::new(move || {
                let disk = rustix::fs::statvfs(&dir).ok()?;
                disk.f_bavail.checked_mul(disk.f_frsize)
            }),
        }
    }

    fn full(&self) -> bool {
        (self.free_bytes)().is_some_and(|free| free < KEEP_FREE_BYTES)
    }
}

/// The inboxes of a node without Redis.
pub(crate) struct DiskInbox {
    /// None once the node has left: then the file is closed in order, and opens at once again.
    file: Mutex<Option<Arc<Database>>>,
    options: DiskOptions,
    world: World,
    /// Of payments from before this (Unix ms) nobody knows whether the process that was killed had sent them.
    doubt_before: u64,
    group: Group<DiskJob>,
    /// Changed only by whoever leads a round, after its commit.
    holders: Mutex<Holders>,
    sessions: AtomicU64,
    hint: Box<dyn Fn(Hint) + Send + Sync>,
    no_room: Seldom,
    fatal: Box<dyn Fn(String) + Send + Sync>,
}

/// Why a round came to nothing.
struct Failure {
    /// What its jobs are told.
    answer: Error,
    /// Why this process must not go on.
    fatal: Option<String>,
}

impl DiskInbox {
    /// Opens the inboxes under a data directory, which is created if need be.
    ///
    /// `hint` hears of every payment for a connected client, before its sender does, and of every dead letter. `fatal` is
    /// told why the process must end: the disk failed, and nobody knows what it holds.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says what is wrong with the directory or the file, and how to mend it.
    pub(crate) fn open(
        dir: &Path,
        options: DiskOptions,
        hint: Box<dyn Fn(Hint) + Send + Sync>,
        fatal: Box<dyn Fn(String) + Send + Sync>,
    ) -> Result<DiskInbox, OpenError> {
        let world = World::real(dir);
        DiskInbox::open_in(world, dir, options, hint, fatal)
    }

    fn open_in(
        world: World,
        dir: &Path,
        options: DiskOptions,
        hint: Box<dyn Fn(Hint) + Send + Sync>,
        fatal: Box<dyn Fn(String) + Send + Sync>,
    ) -> Result<DiskInbox, OpenError> {
        let Opened { database, in_order } = open::open(dir)?;
        let file = Mutex::new(Some(Arc::new(database)));
        let doubt_before = if in_order { 0 } else { (world.now)() };
        // An entry says which session sent it: so numbers are not given again after a restart.
        let (group, holders, sessions) = (Group::new(), Mutex::default(), AtomicU64::new((world.now)()));
        Ok(DiskInbox {
            file,
            options,
            world,
            doubt_before,
            group,
            holders,
            sessions,
            hint,
            no_room: Seldom::default(),
            fatal,
        })
    }

    fn file(&self) -> Result<Arc<Database>, StorageError> {
        self.file.lock().clone().ok_or(StorageError::DatabaseClosed)
    }

    fn put(&self, jobs: impl IntoIterator<Item = DiskJob>) {
        self.group.put_all(jobs, |jobs| self.run(jobs));
    }

    /// Puts a question into the list and waits for the answer.
    fn ask<Q, A>(&self, question: Q, job: fn(Asked<Q, A>) -> DiskJob) -> Result<A, Error> {
        let (reply, replies) = bounded(1);
        self.put([job(Asked { question, answer: None, reply })]);
        replies.recv().unwrap_or_else(|_| Err(unknown("its commit was not finished")))
    }

    /// One round: bells before answers, and both after the fsync.
    fn run(&self, mut jobs: Vec<DiskJob>) {
        let failure = match self.transact(&mut jobs) {
            Ok(Outcome { holders, bells, hints, .. }) => {
                self.change_hands(holders);
                (self.hint)(Hint::Bells(bells));
                hints.into_iter().for_each(&self.hint);
                None
            }
            Err(failure) => Some(failure),
        };
        let error = failure.as_ref().map(|failure| &failure.answer);
        jobs.into_iter().for_each(|job| job.finish(error));
        if let Some(why) = failure.and_then(|failure| failure.fatal) {
            (self.fatal)(why);
        }
    }

    fn change_hands(&self, changed: HashMap<ClientId, Option<Arc<Holder>>>) {
        let mut holders = self.holders.lock();
        for (client, holder) in changed {
            match holder {
                Some(holder) => drop(holders.insert(client, holder)),
                None => drop(holders.remove(&client)),
            }
        }
    }

    fn transact(&self, jobs: &mut [DiskJob]) -> Result<Outcome, Failure> {
        let transaction = self.file().map_err(failed)?.begin_write().map_err(|error| failed(begin_error(error)))?;
        let outcome = self.work(&transaction, jobs).map_err(failed)?;
        if !outcome.written {
            // Only looked: what was found there was fsynced before. Dropped, nothing is left of it.
            return Ok(outcome);
        }
        transaction.commit().map_err(|error| Failure {
            answer: unknown(&error.to_string()),
            fatal: Some(format!("a commit to inbox.redb failed, and what it holds now is unknown: {error}")),
        })?;
        Ok(outcome)
    }

    fn is_full(&self) -> bool {
        let full = self.world.full();
        if full {
            self.no_room.warn(|| format!("payments cannot be stored: {}", no_room()));
        }
        full
    }

    fn work(&self, transaction: &WriteTransaction, jobs: &mut [DiskJob]) -> Result<Outcome, StorageError> {
        let setting = Setting {
            options: &self.options,
            holders: &self.holders,
            sessions: &self.sessions,
            now: (self.world.now)(),
            doubt_before: self.doubt_before,
            full: self.is_full(),
        };
        let mut round = Round::open(transaction, setting).map_err(table_error)?;
        jobs.iter_mut().try_for_each(|job| job.work(&mut round))?;
        round.finish()
    }

    fn view(&self) -> Result<View, Fault> {
        let transaction = self.file()?.begin_read().map_err(begin_error)?;
        Ok(View::open(&transaction).map_err(table_error)?)
    }

    /// Answers each of many from one and the same moment.
    fn each<Q, A>(&self, all: &[Q], answer: impl Fn(&View, &Q) -> Result<A, Fault>) -> Vec<Result<A, Error>> {
        match self.view() {
            Ok(view) => all.iter().map(|one| Ok(answer(&view, one)?)).collect(),
            Err(fault) => {
                let error = Error::from(fault);
                all.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }

    fn read_one(&self, view: &View, ask: &Ask, now: u64) -> Result<(Reading, Vec<Seq>), Fault> {
        let owns = |holder: &Arc<Holder>| holder.session.token == ask.session.token;
        if !self.holders.lock().get(&ask.client).is_some_and(owns) {
            return Ok((Reading::Replaced, Vec::new()));
        }
        let lost = || (Reading::RolledBack, Vec::new());
        let Some(state) = state_of(&view.states, &ask.client)? else { return Ok(lost()) };
        if view.fits(&state, &ask.client, ask.after)? { view.slice(&state, ask, now) } else { Ok(lost()) }
    }

    fn record(&self, view: &View, client: &ClientId) -> Result<Option<Record>, Fault> {
        let Some(state) = state_of(&view.states, client)? else { return Ok(None) };
        let oldest = (state.pending() > 0).then(|| entry_of(&view.entries, client, state.acked.seq.next()));
        let oldest_pending_at = oldest.transpose()?.map(|oldest| oldest.entry.mark.accepted_at);
        let owner = self.holders.lock().get(client).map(|holder| Owner {
            node: self.options.node.clone(),
            since: holder.since,
            address: holder.address.clone(),
        });
        let (last, acked, pending) = (state.last.seq, state.acked.seq, state.pending());
        let dead_letters = state.dead_letters();
        Ok(Some(Record { last, acked, pending, oldest_pending_at, dead_letters, owner }))
    }

    fn act(&self, act: Act) -> Result<Acted, Error> {
        self.ask(act, DiskJob::Act)?
    }

    /// Does many, in as few commits as hold them; what came of them nobody here needs to know.
    /// Whether all were done.
    fn act_all(&self, acts: Vec<Act>) -> bool {
        let (jobs, replies): (Vec<_>, Vec<_>) = acts
            .into_iter()
            .map(|question| {
                let (reply, replies) = bounded(1);
                (DiskJob::Act(Asked { question, answer: None, reply }), replies)
            })
            .unzip();
        self.put(jobs);
        let mut done = true;
        for reply in replies {
            if let Err(error) = reply.recv().unwrap_or_else(|_| Err(unknown("its commit was not finished"))) {
                log::debug!("a payment past its time stays for now: {error}");
                done = false;
            }
        }
        done
    }

    /// Somebody looks at a payment past its time: what it is then. Where that cannot be stored, it stays what it was.
    fn expire(&self, client: &ClientId, seq: Seq, session: Option<Session>) -> Status {
        match self.act(Act::Expire { client: client.clone(), seq, session }) {
            Ok(Acted::Became(status) | Acted::Is(status)) => status,
            Ok(_) => Status::Accepted,
            Err(error) => {
                log::debug!("{client}: payment {seq} is past its time, but stays for now: {error}");
                Status::Accepted
            }
        }
    }
}

impl Inbox for DiskInbox {
    fn accept_all(&self, deposits: Vec<Deposit>) {
        let job = |deposit| DiskJob::Deposit { pending: Pending::new(deposit), answer: None };
        self.put(deposits.into_iter().map(job));
    }

    fn book(&self, notes: &[Note]) -> Vec<Result<Booked, Error>> {
        let mut answers = Vec::with_capacity(notes.len());
        for some in notes.chunks(MAX_PER_CALL) {
            match self.ask(some.to_vec(), DiskJob::Notes) {
                Ok(booked) => answers.extend(booked),
                Err(error) => answers.extend(some.iter().map(|_| Err(error.clone()))),
            }
        }
        answers
    }

    fn read(&self, asks: &[Ask]) -> Vec<Result<Reading, Error>> {
        let now = (self.world.now)();
        let mut readings = Vec::with_capacity(asks.len());
        for (ask, reading) in asks.iter().zip(self.each(asks, |view, ask| self.read_one(view, ask, now))) {
            readings.push(reading.and_then(|(reading, due)| {
                let act = |seq| Act::Expire { client: ask.client.clone(), seq, session: Some(ask.session.clone()) };
                // What lies behind one that could not be buried must not be sent: its ack would pass over it.
                let buried = due.is_empty() || self.act_all(due.into_iter().map(act).collect());
                if buried { Ok(reading) } else { Err(Error::away("a payment past its time could not be put aside")) }
            }));
        }
        readings
    }

    fn look_up(&self, queries: &[Query]) -> Vec<Result<Option<Found>, Error>> {
        let now = (self.world.now)();
        let looked = self.each(queries, |view, query| view.look_up(query, now));
        let judged = |(query, looked): (&Query, Looked)| {
            let Looked { mut found, due } = looked;
            if due {
                found.status = self.expire(&query.client, found.seq, None);
                found.due_in = found.due_in.filter(|_| found.status == Status::Accepted);
            }
            found
        };
        queries.iter().zip(looked).map(|(query, looked)| Ok(looked?.map(|looked| judged((query, looked))))).collect()
    }

    fn records(&self, clients: &[ClientId]) -> Vec<Result<Option<Record>, Error>> {
        self.each(clients, |view, client| self.record(view, client))
    }

    fn waiting(&self, after: Option<&ClientId>, most: usize) -> Result<Vec<ClientId>, Error> {
        Ok(self.view()?.waiting(after, most)?)
    }

    fn backlog(&self) -> Result<Backlog, Error> {
        Ok(self.view()?.backlog(MAX_COUNTED)?)
    }

    fn now_ms(&self) -> u64 {
        (self.world.now)()
    }

    fn uncommitted(&self) -> usize {
        self.group.waiting()
    }

    fn meters(&self) -> InboxMeters {
        InboxMeters { store: "embedded", rounds: self.group.rounds().clone(), lines: LineMeters::new() }
    }

    fn retire(&self, client: &ClientId, discard: bool) -> Result<Retired, Error> {
        let (retired, mut ids) = self.ask((client.clone(), discard), DiskJob::Retire)??;
        while let Some(cursor) = ids {
            ids = self.ask(cursor, DiskJob::Forget)?;
        }
        Ok(retired)
    }

    fn refuse(&self, client: &ClientId, seq: Seq, reason: &str) -> Result<Option<(Status, bool)>, Error> {
        let acted = self.act(Act::Refuse { client: client.clone(), seq, reason: reason.into() })?;
        Ok(match acted {
            Acted::Became(status) => Some((status, true)),
            Acted::Is(status) => Some((status, false)),
            Acted::PutBack(..) | Acted::Unknown => None,
        })
    }

    fn dead_letters(&self, client: &ClientId, after: Seq, most: usize, bytes: usize) -> Result<Option<Letters>, Error> {
        Ok(self.view()?.dead_letters(client, after, most, bytes)?)
    }

    fn retry(&self, client: &ClientId, seq: Seq) -> Result<Retry, Error> {
        Ok(match self.act(Act::Retry { client: client.clone(), seq })? {
            Acted::PutBack(accepted, payment_id) => Retry::Accepted(accepted, payment_id),
            Acted::Is(status) => Retry::Gone(status),
            Acted::Became(_) | Acted::Unknown => Retry::Unknown,
        })
    }

    fn purge(&self, client: &ClientId, seq: Seq) -> Result<Option<Status>, Error> {
        Ok(match self.act(Act::Purge { client: client.clone(), seq })? {
            Acted::Became(status) | Acted::Is(status) => Some(status),
            Acted::PutBack(..) | Acted::Unknown => None,
        })
    }

    fn tend(&self) -> Tended {
        Tended::Fine
    }

    fn nodes(&self) -> Vec<String> {
        vec![self.options.node.clone()]
    }

    fn health(&self) -> Health {
        let durability = "durable: a 2xx is on this machine's disk (fsync) before it is sent; survives a crash of \
                          payrelay and of the machine, as far as the disk keeps its word";
        let ready = if self.is_full() { Err(no_room()) } else { Ok(()) };
        Health { ready, store: "embedded", durability: durability.into(), warnings: Vec::new() }
    }

    fn commit(&self) {
        self.group.commit(|jobs| self.run(jobs));
    }

    fn distrust(&self) {}

    fn close(&self) {
        self.group.close();
    }

    fn leave(&self) {
        drop(self.file.lock().take());
    }
}

fn no_room() -> String {
    format!("less than {} MiB are free for inbox.redb; free some", KEEP_FREE_BYTES >> 20)
}

/// A round that failed before its commit: certainly nothing was stored.
fn failed(error: StorageError) -> Failure {
    // After an I/O error redb takes no further transaction, so waiting does not help.
    let over = matches!(error, StorageError::Io(_) | StorageError::PreviousIo);
    let fatal = over.then(|| format!("inbox.redb cannot be used any more: {error}"));
    let no_room = matches!(&error, StorageError::Io(cause) if cause.kind() == ErrorKind::StorageFull);
    Failure { answer: if no_room { Error::StoreFull } else { Error::away(error.to_string()) }, fatal }
}

#[cfg(test)]
mod tests;
