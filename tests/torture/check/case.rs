//! Everything a run left, read and put in order once: posts with their answers, payments, connections, fault windows.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::windows::{SECOND, Window, Windows};
use crate::fault::Kind as Fault;
use crate::history::{Kind, Record, Status, Story, Way, What};
use crate::options::{Options, Profile};
use crate::plan::Plan;
use crate::roster::{self, Duty};

/// A time that never came.
pub(super) const NEVER: u64 = u64::MAX;
/// More connections of one client than a run can make: beyond it a record is nonsense.
const MOST_CONNECTIONS: u32 = 10_000_000;

/// How far the replica may be behind when it is cut off: a few writes, which a busy machine has not carried over yet.
const REPLICA_BEHIND: u64 = SECOND;

/// What a post came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Outcome {
    Ok,
    /// Nothing may be stored by it.
    Fail,
    Unknown,
}

/// One post of one payment, from its beginning to its answer.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) begin: u64,
    /// [`NEVER`] if the history ends before its answer.
    pub(super) end: u64,
    pub(super) uid: u64,
    pub(super) payment_id: u64,
    pub(super) digest: u64,
    pub(super) seq: u64,
    pub(super) client: u32,
    pub(super) actor: u16,
    pub(super) code: u16,
    pub(super) node: u8,
    way: u8,
    status: u8,
    pub(super) outcome: Outcome,
    pub(super) duplicate: bool,
    pub(super) online: bool,
}

/// One message for one client, however often it was posted.
#[derive(Clone, Debug)]
pub(super) struct Payment {
    pub(super) client: u32,
    pub(super) digest: u64,
    /// Where its first post began.
    pub(super) first_begin: u64,
    /// The first 2xx for it, and the seq in it; [`NEVER`] and 0 without one.
    pub(super) first_ok: u64,
    pub(super) seq: u64,
    /// How its posts ended.
    pub(super) ok: u32,
    pub(super) failed: u32,
    pub(super) unknown: u32,
    /// Posts without a payment id: each may store it once more.
    pub(super) without_id: u32,
    /// Deliveries, repeats included, and the first of them.
    pub(super) received: u32,
    pub(super) received_at: u64,
    pub(super) received_seq: u64,
}

/// One connection of a client.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) node: u8,
    pub(super) hello_at: u64,
    /// [`NEVER`] if it was not welcomed.
    pub(super) welcome_at: u64,
    pub(super) acked: u64,
    pub(super) pending: u64,
    pub(super) window: u64,
    pub(super) first_receive: u64,
    /// That one was read late on purpose.
    pub(super) dawdled: bool,
    /// [`NEVER`] if the history does not tell.
    pub(super) closed_at: u64,
}

/// What stands under one number of one client; in the profile `rollback` a number can be given twice, and only
/// together with the time of acceptance it means one payment.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Place {
    pub(super) client: u32,
    pub(super) seq: u64,
    pub(super) accepted_at: u64,
}

/// A whole run.
pub(super) struct Case {
    pub(super) options: Options,
    pub(super) plan: Plan,
    pub(super) story: Story,
    pub(super) windows: Windows,
    pub(super) attempts: Vec<Attempt>,
    pub(super) payments: HashMap<u64, Payment>,
    pub(super) connections: BTreeMap<u32, Vec<Connection>>,
    /// Numbers that left an inbox unacknowledged, or may have: a gap there is none.
    pub(super) dead: HashSet<(u32, u64)>,
    /// When no more was posted; `None` if the history ends before.
    pub(super) drain: Option<u64>,
    pub(super) end: u64,
    /// Answers to posts that never began: the harness is at fault.
    pub(super) strays: u64,
    pub(super) logs: Vec<PathBuf>,
}

impl Case {
    /// Reads what a run left in its directory.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is not what it should be.
    pub(super) fn read(dir: &Path) -> io::Result<Case> {
        let options: Options = serde_json::from_reader(BufReader::new(File::open(dir.join("options.json"))?))?;
        let plan = read_plan(&dir.join("plan.jsonl"))?;
        let story = Story::read(dir)?;
        let last_record = story.records.last().map_or(0, |record| record.at);
        let end = story.events.last().map_or(0, |event| event.at).max(last_record);
        let drain = story.events.iter().find(|event| matches!(event.what, What::Drain)).map(|event| event.at);
        let windows = Windows::read(&story.events, &plan, options.nodes, end);
        let mut case = Case {
            options,
            plan,
            story,
            windows,
            attempts: Vec::new(),
            payments: HashMap::new(),
            connections: BTreeMap::new(),
            dead: HashSet::new(),
            drain,
            end,
            strays: 0,
            logs: logs(dir)?,
        };
        case.pair_posts();
        case.collect_payments();
        case.collect_dead();
        case.collect_receives();
        case.collect_connections()?;
        Ok(case)
    }

    pub(super) fn duty(&self, client: u32) -> Duty {
        roster::duty(&self.options, client)
    }

    pub(super) fn is_rollback(&self) -> bool {
        self.options.profile == Profile::Rollback
    }

    /// Which life of the store this was in: one more after each failover; `None` while what is written may be lost.
    pub(super) fn era(&self, from: u64, to: u64) -> Option<usize> {
        if !self.is_rollback() {
            return Some(0);
        }
        if self.is_cut_off(from, to) {
            return None;
        }
        Some(self.failovers().filter(|window| window.end < from).count())
    }

    /// Whether replication was cut in this time, or had not carried over what was written then.
    pub(super) fn is_cut_off(&self, from: u64, to: u64) -> bool {
        self.is_rollback() && self.failovers().any(|window| window.touches(from, to.saturating_add(REPLICA_BEHIND)))
    }

    pub(super) fn failovers(&self) -> impl Iterator<Item = &Window> {
        self.windows.all.iter().filter(|window| window.kind == Fault::F38)
    }

    /// Where a received payment stands.
    pub(super) fn place(&self, receive: &Record) -> Place {
        let accepted_at = if self.is_rollback() { receive.extra } else { 0 };
        Place { client: receive.client, seq: receive.seq, accepted_at }
    }

    pub(super) fn receives(&self) -> impl Iterator<Item = &Record> {
        self.story.records.iter().filter(|record| record.kind == Kind::Receive)
    }

    /// The connection a record belongs to.
    pub(super) fn connection(&self, record: &Record) -> Option<&Connection> {
        let place = usize::try_from(record.connection).ok()?.checked_sub(1)?;
        self.connections.get(&record.client)?.get(place)
    }

    /// Whether a post is a further one of its payment.
    pub(super) fn is_again(&self, attempt: &Attempt) -> bool {
        self.payments.get(&attempt.uid).is_some_and(|payment| payment.first_begin < attempt.begin)
    }

    /// Whether this number, not received, can be a gap.
    pub(super) fn is_dead(&self, client: u32, seq: u64) -> bool {
        self.dead.contains(&(client, seq))
    }

    /// Joins posts and their answers: an answer ends the oldest post of its thread and uid that has none.
    fn pair_posts(&mut self) {
        let mut open: HashMap<(u16, u64), VecDeque<usize>> = HashMap::new();
        for record in &self.story.records {
            let outcome = match record.kind {
                Kind::Post => {
                    open.entry((record.actor, record.uid)).or_default().push_back(self.attempts.len());
                    self.attempts.push(Attempt::begin(record));
                    continue;
                }
                Kind::PostOk => Outcome::Ok,
                Kind::PostFail => Outcome::Fail,
                Kind::PostUnknown => Outcome::Unknown,
                _ => continue,
            };
            let key = (record.actor, record.uid);
            let Some(waiting) = open.get_mut(&key) else {
                self.strays += 1;
                continue;
            };
            if let Some(place) = waiting.pop_front() {
                self.attempts[place].end_with(record, outcome);
            }
            if waiting.is_empty() {
                open.remove(&key);
            }
        }
    }

    fn collect_payments(&mut self) {
        for attempt in &self.attempts {
            let payment = self.payments.entry(attempt.uid).or_insert_with(|| Payment::of(attempt));
            payment.without_id += u32::from(attempt.payment_id == 0);
            match attempt.outcome {
                Outcome::Fail => payment.failed += 1,
                Outcome::Unknown => payment.unknown += 1,
                Outcome::Ok => {
                    payment.ok += 1;
                    if attempt.end < payment.first_ok {
                        (payment.first_ok, payment.seq) = (attempt.end, attempt.seq);
                    }
                }
            }
        }
    }

    /// A nack may be lost on its way, so its number may be delivered again as well.
    fn collect_dead(&mut self) {
        for record in &self.story.records {
            let dead = match record.kind {
                Kind::Nack => true,
                Kind::ProbePayment => left_unacknowledged(record.note),
                _ => false,
            };
            if dead {
                self.dead.insert((record.client, record.seq));
            }
        }
        let answers = self.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ok);
        let dead = answers.filter(|attempt| left_unacknowledged(attempt.status));
        self.dead.extend(dead.map(|attempt| (attempt.client, attempt.seq)));
    }

    fn collect_receives(&mut self) {
        for record in self.story.records.iter().filter(|record| record.kind == Kind::Receive) {
            let Some(payment) = self.payments.get_mut(&record.uid) else { continue };
            payment.received += 1;
            if payment.received == 1 {
                (payment.received_at, payment.received_seq) = (record.at, record.seq);
            }
        }
    }

    fn collect_connections(&mut self) -> io::Result<()> {
        let of_connections =
            |kind| matches!(kind, Kind::Hello | Kind::Welcome | Kind::Receive | Kind::Ack | Kind::Nack | Kind::Closed);
        for record in self.story.records.iter().filter(|record| of_connections(record.kind)) {
            if record.connection == 0 || record.connection > MOST_CONNECTIONS {
                return Err(io::Error::other(format!("not the number of a connection: {record:?}")));
            }
            let all = self.connections.entry(record.client).or_default();
            let place = record.connection as usize - 1;
            if all.len() <= place {
                all.resize(place + 1, Connection::default());
            }
            all[place].learn(record);
        }
        Ok(())
    }
}

impl Attempt {
    fn begin(record: &Record) -> Attempt {
        Attempt {
            begin: record.at,
            end: NEVER,
            uid: record.uid,
            payment_id: record.payment_id,
            digest: record.digest,
            seq: 0,
            client: record.client,
            actor: record.actor,
            code: 0,
            node: record.node,
            way: record.note,
            status: 0,
            outcome: Outcome::Unknown,
            duplicate: false,
            online: false,
        }
    }

    fn end_with(&mut self, answer: &Record, outcome: Outcome) {
        self.end = answer.at;
        self.outcome = outcome;
        self.code = answer.code;
        if outcome == Outcome::Ok {
            self.seq = answer.seq;
            self.status = answer.note;
            self.duplicate = answer.flag;
            self.online = answer.extra == 1;
        }
    }

    pub(super) fn is(&self, way: Way) -> bool {
        self.way == way as u8
    }

    pub(super) fn says(&self, status: Status) -> bool {
        self.status == status as u8
    }

    /// The time its answer took.
    pub(super) fn took(&self) -> u64 {
        self.end - self.begin
    }

    /// Answered with a 5xx, whether it stored something or not.
    pub(super) fn is_5xx(&self) -> bool {
        self.outcome != Outcome::Ok && self.code >= 500
    }
}

impl Payment {
    fn of(first: &Attempt) -> Payment {
        Payment {
            client: first.client,
            digest: first.digest,
            first_begin: first.begin,
            first_ok: NEVER,
            seq: 0,
            ok: 0,
            failed: 0,
            unknown: 0,
            without_id: 0,
            received: 0,
            received_at: NEVER,
            received_seq: 0,
        }
    }

    pub(super) fn was_accepted(&self) -> bool {
        self.ok > 0
    }

    pub(super) fn was_refused(&self) -> bool {
        self.ok == 0 && self.unknown == 0
    }
}

impl Default for Connection {
    fn default() -> Connection {
        Connection {
            node: 0,
            hello_at: NEVER,
            welcome_at: NEVER,
            acked: 0,
            pending: 0,
            window: 0,
            first_receive: NEVER,
            dawdled: false,
            closed_at: NEVER,
        }
    }
}

impl Connection {
    fn learn(&mut self, record: &Record) {
        match record.kind {
            Kind::Hello => (self.hello_at, self.node) = (record.at, record.node),
            Kind::Welcome => {
                (self.welcome_at, self.acked) = (record.at, record.seq);
                (self.pending, self.window) = (record.uid, record.extra);
            }
            Kind::Receive if record.at < self.first_receive => {
                (self.first_receive, self.dawdled) = (record.at, record.flag);
            }
            Kind::Closed => self.closed_at = self.closed_at.min(record.at),
            _ => {}
        }
    }
}

/// Whether a payment of this status left the inbox without having been acknowledged.
fn left_unacknowledged(status: u8) -> bool {
    [Status::Refused, Status::Expired, Status::Retried, Status::Purged].iter().any(|dead| *dead as u8 == status)
}

/// A step a line. A run without faults has no plan.
fn read_plan(path: &Path) -> io::Result<Plan> {
    let mut plan = Plan::default();
    if !path.exists() {
        return Ok(plan);
    }
    for line in BufReader::new(File::open(path)?).lines() {
        let line = line?;
        if !line.trim().is_empty() {
            plan.steps.push(serde_json::from_str(&line)?);
        }
    }
    Ok(plan)
}

/// What the nodes logged.
fn logs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('n') && name.ends_with(".log") {
            logs.push(path);
        }
    }
    logs.sort();
    Ok(logs)
}
