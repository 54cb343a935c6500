//! The inbox on Redis: for several nodes that share one.
//!
//! All keys of a client carry its id as their hash tag, so that they share a cluster slot, and
//! each operation is one script that touches one client only; but accepting and acknowledging are one for many:
//!
//! | key | holds |
//! |---|---|
//! | `payrelay:{01}:inbox` | list: `seq accepted_at expires_at bytes parcel` of `acked + 1 … last`; a dead letter leaves `… 0 bytes -` |
//! | `payrelay:{01}:state` | one line of fields, told in `state.lua` |
//! | `payrelay:{01}:beside` | hash of what is seldom used: `since`, `address`, `doubt`, `wait:<seq>` |
//! | `payrelay:{01}:id:<payment id>` | `seq accepted_at born fingerprint`, for the dedup window |
//! | `payrelay:{01}:dead` | hash: seq → dead letter, or what became of it; told in `dead.lua` |
//! | `payrelay:{01}:letters`, `payrelay:{01}:words` | sorted set of those that are held; list of those that are not |
//! | `payrelay:<db>:waiting` | sorted set: client → oldest `accepted_at` of inboxes that stay non-empty |
//! | `payrelay:<db>:replicated` | written before each `WAIT`, with `--wait-replicas` only |
//! | `payrelay:<db>:nodes`, `payrelay:<db>:lease:<name>` | set of names; boot id, five seconds long |
//!
//! Payments go through group commit on a connection of their own; so do the bookkeeper's notes,
//! catch-up's readings, questions and the lease, so that none stands in another's way.

mod accepting;
mod booking;
mod burial;
mod connection;
pub(crate) mod durability;
pub(crate) mod facts;
pub(crate) mod guesses;
#[cfg(test)]
mod hostile;
pub(crate) mod inquiry;
mod lease;
mod names;
mod replicas;
mod reply;
mod scripts;
mod sights;
mod waiting;

pub(crate) use connection::{Target, brief, io_cause, jittered};
pub(crate) use names::{all_channel, node_channel};

use super::group::Group;
use super::{
    Ask, Backlog, Booked, Deposit, Error, Found, Health, Inbox, Letters, MAX_PER_CALL, Note, Owner, Query, Reading,
    Record, Retired, Retry, Session, Status, Stored, Tended, Token, Which,
};
use crate::doorbell::Hint;
use crate::metrics::{InboxMeters, LineMeters};
use crate::payment::{ClientId, Seq};
use accepting::is_seen_by_payments_only;
use burial::Burial;
use connection::{Lines, NO_SCRIPT, Outage, Pipeline};
use durability::{Demands, Verdict};
use facts::Facts;
use guesses::Guesses;
use lease::Lease;
use names::Names;
use parking_lot::Mutex;
use redis::Value;
use replicas::Replicas;
use reply::{Counts, Looked, number, read_found, read_slice, senseless, text, texts};
use scripts::{Script, Scripts};
use std::sync::Arc;
use std::time::{Duration, Instant};
use waiting::Touched;

/// The least time between two changes of hands of one client.
pub(crate) const LEAST_HOLD_MS: &[u8] = b"100";
/// How often Redis is asked what its word is worth.
const ASK_DURABILITY: Duration = Duration::from_secs(5);

/// What came back to a pipeline, one for each command.
type Replies = Vec<Result<Value, Error>>;

/// What a node sets.
pub(crate) struct Options {
    pub(crate) node: String,
    /// The most payments one inbox holds.
    pub(crate) inbox_limit: u64,
    pub(crate) dedup_window: Duration,
    pub(crate) demands: Demands,
}

/// The inbox of every client, on Redis.
pub(crate) struct RedisInbox {
    options: Options,
    /// `node/boot`: the owner of what this process claims.
    me: String,
    names: Names,
    scripts: Scripts,
    deposits: Group<Deposit>,
    replicas: Replicas,
    commits: Lines,
    books: Lines,
    readings: Lines,
    questions: Lines,
    tending: Lines,
    meters: LineMeters,
    lease: Lease,
    hint: Box<dyn Fn(Hint) + Send + Sync>,
    touched: Touched,
    guesses: Guesses,
    state: Mutex<State>,
}

struct State {
    verdict: Option<(Instant, Verdict)>,
    /// Why the last commit failed, if it did, and when that was.
    trouble: Option<(Instant, String)>,
}

impl RedisInbox {
    /// Connects to nothing yet: a node starts while Redis is away.
    ///
    /// `hint` hears of every payment that is, or may be, stored for a client of this node.
    pub(crate) fn new(target: &Target, options: Options, hint: Box<dyn Fn(Hint) + Send + Sync>) -> RedisInbox {
        let outage = Arc::new(Outage::default());
        let names = Names::new(target.database());
        let scripts = Scripts::new(options.inbox_limit, &names.node_prefix);
        let meters = LineMeters::new();
        let lines = |purpose, most| {
            let mut greeting = Pipeline::default();
            scripts.load(&mut greeting);
            Lines::new(target.clone(), greeting, most, Arc::clone(&outage), meters.of(purpose))
        };
        let boot = Token::random().as_str()[..16].to_owned();
        let state = State { verdict: None, trouble: None };
        RedisInbox {
            me: format!("{}/{boot}", options.node),
            replicas: Replicas::new(options.demands.replicas, names.replicated()),
            deposits: Group::new(),
            commits: lines("commits", 1),
            books: lines("books", 1),
            readings: lines("readings", 8),
            questions: lines("questions", 16),
            tending: lines("tending", 1),
            meters,
            lease: Lease::new(options.node.clone(), boot),
            hint,
            touched: Touched::default(),
            guesses: Guesses::default(),
            state: Mutex::new(state),
            names,
            scripts,
            options,
        }
    }

    /// Calls a script for each item. One that Redis does not know (it forgot all, or is another
    /// one) was not run: it is loaded and called again.
    fn call<T>(&self, lines: &Lines, items: &[T], push: impl Fn(&mut Pipeline, &T)) -> Replies {
        self.call_and(lines, items, push, |_| {}).0
    }

    /// The same, with something said behind each pipeline; what came back to that stands apart.
    fn call_and<T>(
        &self,
        lines: &Lines,
        items: &[T],
        push: impl Fn(&mut Pipeline, &T),
        push_behind: impl Fn(&mut Pipeline),
    ) -> (Replies, Replies) {
        if items.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let mut pipeline = Pipeline::default();
        items.iter().for_each(|item| push(&mut pipeline, item));
        push_behind(&mut pipeline);
        let mut replies = lines.call(&pipeline);
        let mut behind = replies.split_off(items.len());
        let unknown = |reply: &Result<Value, Error>| matches!(reply, Err(Error::Unavailable { stored: Stored::No, why }) if why == NO_SCRIPT);
        if replies.iter().any(unknown) {
            let mut again = Pipeline::default();
            let loads = self.scripts.load(&mut again);
            let missing: Vec<usize> = (0..items.len()).filter(|&i| unknown(&replies[i])).collect();
            missing.iter().for_each(|&i| push(&mut again, &items[i]));
            push_behind(&mut again);
            let mut answers = lines.call(&again).into_iter().skip(loads);
            missing.into_iter().zip(answers.by_ref()).for_each(|(i, answer)| replies[i] = answer);
            behind.extend(answers);
        }
        (replies, behind)
    }

    fn record_of(&self, reply: &Value) -> Result<Option<Record>, Error> {
        let words = texts(reply);
        let [_, state, held, oldest_at, since, address] = &words[..] else {
            return if words == ["none"] { Ok(None) } else { Err(senseless("no record")) };
        };
        let counts = Counts::read(state, number(held)?)?;
        let owner = counts.owner;
        let owner = owner.split_once('/').filter(|_| self.lease.is_alive(owner)).map(|(node, _)| Owner {
            node: node.to_owned(),
            since: since.parse().unwrap_or(0),
            address: address.clone(),
        });
        Ok(Some(Record {
            last: Seq(counts.last()),
            acked: Seq(counts.acked),
            pending: counts.pending(),
            oldest_pending_at: oldest_at.parse().ok(),
            dead_letters: counts.dead_letters(),
            owner,
        }))
    }

    fn read_with(&self, script: &Script, asks: &[Ask]) -> Vec<Result<Reading, Error>> {
        let push = |pipeline: &mut Pipeline, ask: &Ask| {
            let keys = self.names.client(&ask.client);
            let (state, inbox) = (keys.key("state"), keys.key("inbox"));
            let Session { number, token, epoch } = &ask.session;
            let numbers = [*number, *epoch, ask.after.seq.0, ask.after.accepted_at].map(|n| n.to_string());
            let (payments, bytes) = (ask.payments.to_string(), ask.bytes.to_string());
            let mut args: Vec<&[u8]> = vec![token.as_str().as_bytes()];
            args.extend(numbers.iter().map(String::as_bytes));
            args.extend([payments.as_bytes(), bytes.as_bytes()]);
            script.call(pipeline, &[state.as_bytes(), inbox.as_bytes()], &args);
        };
        let replies = self.call(&self.readings, asks, push);
        let readings: Vec<_> = replies.into_iter().map(|reply| read_slice(&reply?)).collect();
        let due = |(ask, reading): (_, &Result<(_, Vec<Seq>), _>)| {
            let seqs = reading.as_ref().map(|(_, due)| due.clone()).unwrap_or_default();
            seqs.into_iter().map(move |seq| (ask, seq))
        };
        let unburied = self.expire_unsent(&asks.iter().zip(&readings).flat_map(due).collect::<Vec<(&Ask, Seq)>>());
        let read = |(ask, reading): (&Ask, Result<(Reading, Vec<Seq>), Error>)| match reading {
            Ok(_) if unburied.contains(&ask.client) => {
                Err(Error::away("a payment past its time could not be put aside"))
            }
            reading => reading.map(|(reading, _)| reading),
        };
        asks.iter().zip(readings).map(read).collect()
    }

    /// Deletes what a retired client's payments were called by, a slice at a time.
    fn sweep_ids(&self, client: &ClientId) -> Result<(), Error> {
        let pattern = self.names.client(client).id("*");
        let mut cursor = "0".to_owned();
        loop {
            let mut pipeline = Pipeline::default();
            pipeline.command(&[b"SCAN", cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", b"1000"]);
            let Some(Value::Array(parts)) = self.questions.call(&pipeline).pop().transpose()? else { return Ok(()) };
            let keys = parts.get(1).map(texts).unwrap_or_default();
            let state = self.names.client(client).key("state");
            let push = |pipeline: &mut Pipeline, key: &String| {
                self.scripts.forget_id.call(pipeline, &[state.as_bytes(), key.as_bytes()], &[]);
            };
            self.call(&self.questions, &keys, push).into_iter().try_for_each(|reply| reply.map(|_| ()))?;
            cursor = parts.first().and_then(text).unwrap_or_default().into_owned();
            if cursor == "0" || cursor.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Inbox for RedisInbox {
    fn accept_all(&self, deposits: Vec<Deposit>) {
        self.deposits.put_all(deposits, |round| self.store(round));
    }

    fn book(&self, notes: &[Note]) -> Vec<Result<Booked, Error>> {
        notes.chunks(MAX_PER_CALL).flat_map(|notes| self.book_some(notes)).collect()
    }

    fn read(&self, asks: &[Ask]) -> Vec<Result<Reading, Error>> {
        let mut readings = Vec::with_capacity(asks.len());
        for ask in asks.chunks(MAX_PER_CALL) {
            readings.extend(self.read_with(&self.scripts.read, ask));
        }
        // Rare: the one that found a rollback may not write it down.
        for (ask, reading) in asks.iter().zip(&mut readings) {
            if matches!(reading, Ok(Reading::RolledBack)) {
                let mended = self.read_with(&self.scripts.read_and_mend, std::slice::from_ref(ask)).pop();
                *reading = mended.unwrap_or_else(|| Err(senseless("no reply")));
            }
        }
        readings
    }

    fn look_up(&self, queries: &[Query]) -> Vec<Result<Option<Found>, Error>> {
        let push = |pipeline: &mut Pipeline, query: &Query| {
            let keys = self.names.client(&query.client);
            let names = ["state", "inbox", "dead"].map(|name| keys.key(name));
            let mut names: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
            let script = &self.scripts.look_up;
            match &query.which {
                Which::Seq(seq) => script.call(pipeline, &names, &[seq.to_string().as_bytes()]),
                Which::PaymentId(id) => {
                    let id = keys.id(id.as_str());
                    names.push(id.as_bytes());
                    script.call(pipeline, &names, &[b""]);
                }
            }
        };
        let judged = |query: &Query, looked: Looked| {
            let Looked { mut found, owner, due } = looked;
            if due {
                found.status = self.expire(&query.client, found.seq, &owner);
                found.due_in = found.due_in.filter(|_| found.status == Status::Accepted);
            }
            found
        };
        let mut found = Vec::with_capacity(queries.len());
        for queries in queries.chunks(MAX_PER_CALL) {
            let replies = self.call(&self.questions, queries, push);
            found.extend(
                queries
                    .iter()
                    .zip(replies)
                    .map(|(query, reply)| Ok(read_found(query, &reply?)?.map(|looked| judged(query, looked)))),
            );
        }
        found
    }

    fn records(&self, clients: &[ClientId]) -> Vec<Result<Option<Record>, Error>> {
        let push = |pipeline: &mut Pipeline, client: &ClientId| {
            let keys = self.names.client(client);
            let names = ["state", "inbox", "beside"].map(|name| keys.key(name));
            self.scripts.record.call(pipeline, &names.each_ref().map(|name| name.as_bytes()), &[]);
        };
        let record = |reply: Result<Value, Error>| self.record_of(&reply?);
        let calls = clients.chunks(MAX_PER_CALL);
        calls.flat_map(|clients| self.call(&self.questions, clients, push)).map(record).collect()
    }

    fn waiting(&self, after: Option<&ClientId>, most: usize) -> Result<Vec<ClientId>, Error> {
        let mut pipeline = Pipeline::default();
        pipeline.command(&[b"ZRANGE", self.names.waiting.as_bytes(), b"0", b"-1"]);
        let reply = self.questions.call(&pipeline).pop().unwrap_or_else(|| Err(senseless("no reply")))?;
        let mut clients: Vec<ClientId> = texts(&reply).iter().filter_map(|id| ClientId::parse(id).ok()).collect();
        clients.retain(|client| after.is_none_or(|after| client > after));
        clients.sort_unstable();
        clients.truncate(most);
        Ok(clients)
    }

    fn backlog(&self) -> Result<Backlog, Error> {
        waiting::count(self)
    }

    fn refuse(&self, client: &ClientId, seq: Seq, reason: &str) -> Result<Option<(Status, bool)>, Error> {
        self.bury(client, seq, &Burial::Refuse { reason })
    }

    fn dead_letters(&self, client: &ClientId, after: Seq, most: usize, bytes: usize) -> Result<Option<Letters>, Error> {
        self.letters_of(client, after, most, bytes)
    }

    fn retry(&self, client: &ClientId, seq: Seq) -> Result<Retry, Error> {
        self.put_back(client, seq)
    }

    fn purge(&self, client: &ClientId, seq: Seq) -> Result<Option<Status>, Error> {
        self.throw_away(client, seq)
    }

    fn now_ms(&self) -> u64 {
        self.lease.now_ms()
    }

    fn uncommitted(&self) -> usize {
        self.deposits.waiting()
    }

    fn meters(&self) -> InboxMeters {
        InboxMeters { store: "redis", rounds: self.deposits.rounds().clone(), lines: self.meters.clone() }
    }

    fn retire(&self, client: &ClientId, discard: bool) -> Result<Retired, Error> {
        let keys = self.names.client(client);
        let names = ["state", "inbox", "beside", "dead", "letters", "words"].map(|name| keys.key(name));
        let flag: &[u8] = if discard { b"1" } else { b"0" };
        let args = [flag];
        let push = |pipeline: &mut Pipeline, (): &()| {
            let keys: Vec<&[u8]> = names.iter().map(String::as_bytes).collect();
            self.scripts.retire.call(pipeline, &keys, &args);
        };
        let reply = self.call(&self.questions, &[()], push).pop().unwrap_or_else(|| Err(senseless("no reply")))?;
        let line = text(&reply).unwrap_or_default();
        match line.split_once(' ') {
            Some(("pending", n)) => return Ok(Retired::Pending(number(n)?)),
            None if line == "unknown" => return Ok(Retired::Unknown),
            None if line == "retired" => {}
            _ => return Err(senseless(&line)),
        }
        self.sweep_ids(client)?;
        let mut pipeline = Pipeline::default();
        pipeline.command(&[b"ZREM", self.names.waiting.as_bytes(), client.as_str().as_bytes()]);
        self.questions.call(&pipeline);
        Ok(Retired::Done)
    }

    fn tend(&self) -> Tended {
        let tended = match self.lease.renew(&self.tending, &self.names) {
            Ok(tended) => {
                self.note_reached();
                tended
            }
            Err(error) => {
                self.note_trouble(&[Err(error)]);
                return Tended::Fine;
            }
        };
        // What keeps payments out may be mended at any moment: it is asked after at every turn.
        let is_settled =
            |(at, verdict): &(Instant, Verdict)| verdict.refusal.is_none() && at.elapsed() < ASK_DURABILITY;
        let is_known = self.state.lock().verdict.as_ref().is_some_and(is_settled);
        if !is_known && let Ok(facts) = Facts::learn(|pipeline| self.tending.call(pipeline)) {
            let verdict = durability::judge(&facts, self.options.demands);
            self.announce(&verdict);
            self.state.lock().verdict = Some((Instant::now(), verdict));
        }
        if let Err(error) = waiting::correct(self) {
            log::debug!("the list of waiting clients is not corrected now: {error}");
        }
        tended
    }

    fn nodes(&self) -> Vec<String> {
        self.lease.nodes()
    }

    fn health(&self) -> Health {
        // By a script, for who may not call one stores nothing, though PING is answered.
        let answer = self.probe();
        let state = self.state.lock();
        let (words, warnings, refusal) = match &state.verdict {
            Some((_, v)) => (v.words.clone(), v.warnings.clone(), v.refusal.clone()),
            None => ("unknown: Redis was not reached yet".into(), Vec::new(), Some("Redis was not reached yet".into())),
        };
        let ready = match (answer, refusal, &state.trouble) {
            (Err(error), ..) => Err(error.to_string()),
            (_, Some(refusal), _) => Err(refusal),
            // What Redis says of its memory and replicas is up to so old; until then the last payment says it.
            (_, _, Some((at, why))) if at.elapsed() < ASK_DURABILITY && is_seen_by_payments_only(why) => {
                Err(why.clone())
            }
            _ if !self.lease.holds() => Err(match &state.trouble {
                Some((at, why)) if at.elapsed() < ASK_DURABILITY => {
                    format!("the lease of this node is not renewed: {why}")
                }
                _ => "the lease of this node is not renewed".into(),
            }),
            _ => Ok(()),
        };
        Health { ready, store: "redis", durability: words, warnings }
    }

    fn commit(&self) {
        self.deposits.commit(|round| self.store(round));
    }

    fn distrust(&self) {
        for lines in [&self.commits, &self.books, &self.readings, &self.questions, &self.tending] {
            lines.distrust();
        }
    }

    fn close(&self) {
        self.deposits.close();
    }

    fn leave(&self) {
        self.lease.end(&self.tending, &self.names);
    }
}

impl RedisInbox {
    /// Whether Redis answers, and runs our scripts: asks after a payment that no client has.
    fn probe(&self) -> Result<Value, Error> {
        let push = |pipeline: &mut Pipeline, (): &()| {
            self.scripts.look_up.call(
                pipeline,
                &[b"payrelay:{}:state", b"payrelay:{}:inbox", b"payrelay:{}:dead"],
                &[b"1"],
            );
        };
        self.call(&self.questions, &[()], push).pop().unwrap_or_else(|| Err(senseless("no reply")))
    }

    /// Says what Redis' word is worth whenever that changes.
    fn announce(&self, verdict: &Verdict) {
        let same = matches!(&self.state.lock().verdict, Some((_, before)) if before == verdict);
        if same {
            return;
        }
        let was_refused = matches!(&self.state.lock().verdict, Some((_, before)) if before.refusal.is_some());
        log::info!("Redis: {}", verdict.words);
        verdict.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        if let Some(refusal) = &verdict.refusal {
            log::error!("not ready: {refusal}");
        } else if was_refused {
            log::info!("ready again");
        }
    }
}
