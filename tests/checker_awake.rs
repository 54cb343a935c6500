//! The torture test's checker is awake: it finds what is broken in a history made by hand, and nothing in a sound one.
#![allow(
    unreachable_pub,
    missing_docs,
    dead_code,
    reason = "the modules are the torture test's, and a part of each is used here"
)]

#[path = "torture/check/mod.rs"]
mod check;
#[path = "torture/fault.rs"]
mod fault;
mod harness;
#[path = "torture/history.rs"]
mod history;
#[path = "torture/options.rs"]
mod options;
#[path = "torture/plan.rs"]
mod plan;
#[path = "torture/random.rs"]
mod random;
#[path = "torture/roster.rs"]
mod roster;
#[path = "torture/verdict.rs"]
mod verdict;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command as Process;

use clap::Parser;

use fault::Kind as Fault;
use harness::TempDir;
use history::{Event, Kind, Record, Status, Way, What};
use options::{Cli, Command, Options, Profile};
use plan::Step;
use verdict::Verdict;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Payments for each client while all is well, and one more after Redis was away.
const BEFORE: u64 = 20;
const ALL: u64 = BEFORE + 1;
/// Of these a client has three that acknowledge, two that do not need to, and the canary.
const CLIENTS: u32 = 6;
const CANARY: u32 = 5;
/// Comes late, so that payments wait for it.
const LATE: u32 = 2;
/// Comes back in the middle, with one payment unacknowledged.
const BACK: u32 = 0;
const BACK_AT: u64 = 14;
/// Redis is away from here to there.
const AWAY: u64 = 6 * SECOND;
const HERE_AGAIN: u64 = 8 * SECOND;
const DRAIN: u64 = 12 * SECOND;

/// What a run wrote down, to be changed by hand before it is judged.
struct Book {
    options: Options,
    plan: Vec<Step>,
    records: Vec<Record>,
    events: Vec<Event>,
    log: String,
}

impl Book {
    /// A short run in which all went well: two of everything that may happen.
    fn sound() -> Book {
        let Ok(Cli { command: Command::Run(mut options) }) = Cli::try_parse_from(["torture", "run"]) else {
            panic!("the options have defaults");
        };
        (options.clients, options.duration, options.seed) = (3, 10, 7);
        let step = Step { slice: 0, kind: Fault::F20, at_ms: 6_000, length_ms: 2_000, node: 0, amount: 0 };
        let log = "[INFO  payrelay::node] ready http=127.0.0.1:1 tcp=127.0.0.1:2\n".to_owned();
        let mut book = Book { options, plan: vec![step], records: Vec::new(), events: Vec::new(), log };
        for client in 0..CLIENTS {
            book.client(client);
        }
        book.other_outcomes();
        for at in [2 * SECOND, 4 * SECOND] {
            book.record(Record { at, kind: Kind::Ready, node: 1, code: 200, actor: 90, ..Record::default() });
        }
        book.event(0, What::Started { node: 0 });
        book.event(AWAY, What::FaultBegin { step: 0, kind: Fault::F20 });
        book.event(HERE_AGAIN, What::FaultEnd { step: 0, kind: Fault::F20, effect: 9 });
        book.event(HERE_AGAIN, What::Quiet);
        book.event(DRAIN, What::Drain);
        book
    }

    /// Its payments, each posted, accepted, delivered and acknowledged.
    fn client(&mut self, client: u32) {
        let connects = if client == LATE { 2_500 * MS } else { 10 * MS };
        let mut connection = 1;
        self.connect(client, connection, connects, 0);
        for n in 1..=ALL {
            let posted = posted_at(client, n);
            self.post(client, n);
            let came = (posted + 8 * MS).max(connects + n * MS + 10 * MS);
            self.receive(client, connection, n, came);
            if client == BACK && n == BACK_AT {
                self.closed(client, connection, came + MS);
                connection += 1;
                self.connect(client, connection, came + 2 * MS, n - 1);
                self.receive(client, connection, n, came + 5 * MS);
            }
            if is_acking(client) {
                self.ack(client, connection, n, came + 6 * MS);
            }
        }
        self.probe(client, 11 * SECOND, ALL, ALL, 0);
        self.probe(client, DRAIN + SECOND, ALL, ALL, 0);
    }

    /// What else may become of a post: a repeat, another body under a known id, an answer that never came, a 503.
    fn other_outcomes(&mut self) {
        let first = uid(1, 4);
        let repeat = Record { uid: first, payment_id: first, digest: first, note: Way::Repeat as u8, ..post_of(1) };
        self.answered(repeat, 4 * SECOND, Record { seq: 4, flag: true, code: 200, ..ok() });
        let reused = Record { uid: 901, payment_id: first, digest: 901, note: Way::Reused as u8, ..post_of(1) };
        self.answered(reused, 4_100 * MS, Record { kind: Kind::PostFail, code: 422, ..Record::default() });
        let cut = Record { uid: 902, digest: 902, note: Way::Cut as u8, ..post_of(1) };
        self.answered(cut, 4_200 * MS, Record { kind: Kind::PostUnknown, ..Record::default() });
        let late = Record { uid: 903, digest: 903, note: Way::Single as u8, ..post_of(1) };
        self.answered(late, AWAY + 100 * MS, Record { kind: Kind::PostUnknown, code: 503, ..Record::default() });
    }

    fn post(&mut self, client: u32, n: u64) {
        let uid = uid(client, n);
        let payment_id = if n.is_multiple_of(2) { uid } else { 0 };
        let way = if client == CANARY { Way::Canary } else { Way::Single };
        let post = Record { client, uid, payment_id, digest: uid, note: way as u8, ..post_of(client) };
        self.answered(post, posted_at(client, n), Record { seq: n, code: 202, ..ok() });
    }

    /// A post at this time, and its answer 5 ms later.
    fn answered(&mut self, post: Record, at: u64, answer: Record) {
        self.record(Record { at, kind: Kind::Post, ..post });
        let Record { client, uid, actor, node, .. } = post;
        self.record(Record { at: at + 5 * MS, client, uid, actor, node, ..answer });
    }

    fn connect(&mut self, client: u32, connection: u32, at: u64, acked: u64) {
        let of = Record { client, connection, actor: receiver(client), node: 1, ..Record::default() };
        self.record(Record { at, kind: Kind::Hello, ..of });
        self.record(Record { at: at + MS, kind: Kind::Welcome, seq: acked, digest: 1, extra: 64, ..of });
    }

    fn closed(&mut self, client: u32, connection: u32, at: u64) {
        let actor = receiver(client);
        self.record(Record { at, kind: Kind::Closed, client, connection, actor, ..Record::default() });
    }

    fn receive(&mut self, client: u32, connection: u32, n: u64, at: u64) {
        let uid = uid(client, n);
        let of = Record { client, connection, actor: receiver(client), ..Record::default() };
        let payment_id = if n.is_multiple_of(2) { uid } else { 0 };
        self.record(Record { at, kind: Kind::Receive, seq: n, uid, digest: uid, payment_id, extra: n, ..of });
    }

    fn ack(&mut self, client: u32, connection: u32, seq: u64, at: u64) {
        let actor = receiver(client);
        self.record(Record { at, kind: Kind::Ack, client, connection, actor, seq, ..Record::default() });
    }

    fn probe(&mut self, client: u32, at: u64, last: u64, acked: u64, pending: u64) {
        let said = Record { seq: last, uid: acked, extra: pending, flag: true, ..Record::default() };
        self.record(Record { at, kind: Kind::Probe, client, actor: 90, ..said });
    }

    fn record(&mut self, record: Record) {
        self.records.push(record);
    }

    fn event(&mut self, at: u64, what: What) {
        self.events.push(Event { at, what });
    }

    /// The first record of a kind for this seq of this client.
    #[track_caller]
    fn find(&mut self, kind: Kind, client: u32, seq: u64) -> &mut Record {
        let is_it = |record: &&mut Record| (record.kind, record.client, record.seq) == (kind, client, seq);
        self.records.iter_mut().find(is_it).expect("it is in the book")
    }

    /// Leaves out every record of a kind for this seq of this client.
    fn forget(&mut self, kind: Kind, client: u32, seq: u64) {
        self.records.retain(|record| (record.kind, record.client, record.seq) != (kind, client, seq));
    }

    fn without_faults(&mut self) {
        self.plan.clear();
        self.events.retain(|event| !matches!(event.what, What::FaultBegin { .. } | What::FaultEnd { .. }));
    }

    /// What the store says after the drain.
    fn finally(&mut self, client: u32, last: u64, acked: u64, pending: u64) {
        self.records.retain(|record| (record.kind, record.client) != (Kind::Probe, client));
        self.probe(client, DRAIN + SECOND, last, acked, pending);
    }

    /// Writes it as a run would.
    fn write(&self, dir: &Path) {
        let mut files: BTreeMap<u16, Vec<Record>> = BTreeMap::new();
        for record in &self.records {
            files.entry(record.actor).or_default().push(*record);
        }
        for (actor, mut records) in files {
            records.sort_by_key(|record| record.at);
            let bytes: Vec<u8> = records.iter().flat_map(Record::encode).collect();
            fs::write(dir.join(format!("records-{actor:05}.bin")), bytes).expect("a record file");
        }
        let mut events = self.events.clone();
        events.sort_by_key(|event| event.at);
        write_lines(&dir.join("events.jsonl"), &events);
        write_lines(&dir.join("plan.jsonl"), &self.plan);
        let options = serde_json::to_string(&self.options).expect("plain data");
        fs::write(dir.join("options.json"), options).expect("an options file");
        fs::write(dir.join("n1.log"), &self.log).expect("a log");
    }

    fn judge(&self) -> Verdict {
        let dir = TempDir::new();
        self.write(dir.path());
        check::check(dir.path()).expect("a history that can be read")
    }

    /// Is judged, and broken by this check and no other.
    #[track_caller]
    fn expect_only(&self, check: &str) -> Verdict {
        let verdict = self.judge();
        let broken: Vec<&str> = verdict.broken.keys().map(String::as_str).collect();
        assert_eq!(broken, [check], "{verdict}");
        verdict
    }
}

fn write_lines<T: serde::Serialize>(path: &Path, lines: &[T]) {
    let lines = lines.iter().map(|line| serde_json::to_string(line).expect("plain data") + "\n");
    fs::write(path, lines.collect::<String>()).expect("a file of lines");
}

fn posted_at(client: u32, n: u64) -> u64 {
    let stagger = u64::from(client) * 10 * MS;
    if n > BEFORE { HERE_AGAIN + 300 * MS + stagger } else { n * 100 * MS + 100 * MS + stagger }
}

/// The sender of a client's payments has the number after the client's.
fn uid(client: u32, n: u64) -> u64 {
    (u64::from(client + 1) << 32) | n
}

fn is_acking(client: u32) -> bool {
    client < 3 || client == CANARY
}

fn sender(client: u32) -> u16 {
    u16::try_from(client).expect("a few clients")
}

fn receiver(client: u32) -> u16 {
    50 + sender(client)
}

fn post_of(client: u32) -> Record {
    Record { client, actor: sender(client), node: 1, ..Record::default() }
}

fn ok() -> Record {
    Record { kind: Kind::PostOk, note: Status::Accepted as u8, ..Record::default() }
}

#[test]
fn a_sound_history_is_valid() {
    let verdict = Book::sound().judge();
    assert!(verdict.broken.is_empty(), "{verdict}");
    assert_eq!(verdict.exit_code(), 0);
    let figures = &verdict.figures;
    assert_eq!((figures.accepted, figures.unknown, figures.refused), (u64::from(CLIENTS) * ALL, 2, 1));
    assert_eq!((figures.duplicates, figures.repeats, figures.reconnects), (1, 1, 1));
    assert_eq!(
        verdict.sentence(),
        "valid: seed 7, gate, 13 s: 126 payments accepted, 0 lost, 0 reordered, 0 altered, 0 stored twice, \
         under 1 faults of 1 kinds"
    );
}

#[test]
fn a_lost_payment_is_found() {
    let mut book = Book::sound();
    book.forget(Kind::Receive, 0, ALL);
    book.forget(Kind::Ack, 0, ALL);
    book.finally(0, ALL, ALL - 1, 0);
    let verdict = book.expect_only("C1");
    assert_eq!(verdict.exit_code(), 1);
    assert!(verdict.sentence().contains("1 lost"), "{}", verdict.sentence());
    assert!(verdict.to_string().contains("the postfix of its sender's"), "{verdict}");
    assert!(verdict.to_string().contains("F20 Redis killed"), "{verdict}");
}

#[test]
fn a_dead_letter_is_not_lost() {
    let mut book = Book::sound();
    book.forget(Kind::Receive, 0, ALL);
    book.forget(Kind::Ack, 0, ALL);
    book.finally(0, ALL, ALL - 1, 0);
    let expired = Record { seq: ALL, note: Status::Expired as u8, client: 0, actor: 90, ..Record::default() };
    book.record(Record { at: 11 * SECOND, kind: Kind::ProbePayment, ..expired });
    let verdict = book.judge();
    assert!(verdict.broken.is_empty(), "{verdict}");
}

#[test]
fn a_refused_payment_that_comes_is_found() {
    let mut book = Book::sound();
    let answer = book.find(Kind::PostOk, 1, 5);
    (answer.kind, answer.code, answer.seq, answer.note) = (Kind::PostFail, 400, 0, 0);
    book.expect_only("C2");
}

#[test]
fn a_payment_that_nobody_posted_is_found() {
    let mut book = Book::sound();
    book.records.retain(|record| record.uid != uid(1, 5) || record.kind == Kind::Receive);
    book.expect_only("C2");
}

#[test]
fn a_repeat_with_another_time_of_acceptance_is_found() {
    let mut book = Book::sound();
    book.find(Kind::Receive, BACK, BACK_AT).extra += 1;
    book.expect_only("C4");
}

#[test]
fn a_seq_that_becomes_another_payment_is_found() {
    let mut book = Book::sound();
    let other = uid(BACK, BACK_AT - 1);
    let repeat = book.find(Kind::Receive, BACK, BACK_AT);
    (repeat.uid, repeat.digest) = (other, other);
    repeat.payment_id = 0;
    book.expect_only("C4");
}

#[test]
fn a_payment_without_an_id_that_was_stored_twice_is_found() {
    let mut book = Book::sound();
    let copy = *book.find(Kind::Receive, 1, 5);
    book.record(Record { at: 9 * SECOND, seq: ALL + 1, ..copy });
    book.ack(1, 1, ALL + 1, 9 * SECOND + MS);
    book.finally(1, ALL + 1, ALL + 1, 0);
    book.expect_only("C4");
}

#[test]
fn an_altered_payment_is_found() {
    let mut book = Book::sound();
    book.find(Kind::Receive, 1, 5).digest ^= 1;
    assert!(book.expect_only("C5").sentence().contains("1 altered"));
}

#[test]
fn a_swapped_payment_is_found() {
    let mut book = Book::sound();
    let after = book.find(Kind::Receive, 1, 6).at + MS;
    book.find(Kind::Receive, 1, 5).at = after;
    book.forget(Kind::Ack, 1, 5);
    book.expect_only("C6");
}

#[test]
fn more_than_a_window_is_found() {
    let mut book = Book::sound();
    book.find(Kind::Welcome, 1, 0).extra = 2;
    book.forget(Kind::Ack, 1, 5);
    assert!(book.judge().broken.is_empty(), "two are a window");
    book.forget(Kind::Ack, 1, 6);
    book.expect_only("C7");
}

#[test]
fn an_acknowledgement_that_is_forgotten_is_found() {
    let mut book = Book::sound();
    book.probe(1, 10 * SECOND, ALL, 3, 18);
    book.probe(1, 5 * SECOND, BEFORE, BEFORE, 0);
    book.expect_only("C8");
}

#[test]
fn an_acknowledgement_that_nobody_gave_is_found() {
    let mut book = Book::sound();
    book.probe(1, 1_150 * MS, 15, 15, 0);
    book.expect_only("C8");
}

#[test]
fn a_repeat_of_what_is_acknowledged_is_found() {
    let mut book = Book::sound();
    let repeat = *book.find(Kind::Receive, BACK, 3);
    book.record(Record { at: 5 * SECOND, connection: 2, ..repeat });
    book.expect_only("C9");
}

#[test]
fn a_payment_stored_twice_is_found() {
    let mut book = Book::sound();
    let copy = *book.find(Kind::Receive, 1, 6);
    book.record(Record { at: 9 * SECOND, seq: ALL + 1, ..copy });
    book.ack(1, 1, ALL + 1, 9 * SECOND + MS);
    book.finally(1, ALL + 1, ALL + 1, 0);
    assert!(book.expect_only("C10").sentence().contains("1 stored twice"));
}

#[test]
fn a_repeat_that_is_called_new_is_found() {
    let mut book = Book::sound();
    for record in &mut book.records {
        record.flag &= record.kind != Kind::PostOk;
    }
    book.expect_only("C10");
}

#[test]
fn another_body_under_a_known_id_that_is_accepted_is_found() {
    let mut book = Book::sound();
    for record in book.records.iter_mut().filter(|record| record.uid == 901 && record.kind == Kind::PostFail) {
        (record.kind, record.code, record.seq, record.flag) = (Kind::PostOk, 200, 4, true);
    }
    let verdict = book.judge();
    assert!(verdict.broken.contains_key("C10"), "{verdict}");
}

#[test]
fn a_later_payment_with_a_lower_seq_is_found() {
    let mut book = Book::sound();
    let (earlier, later) = (uid(1, 5), uid(1, 6));
    let at = book.find(Kind::Receive, 1, 6).at;
    book.find(Kind::PostOk, 1, 5).seq = 60;
    book.find(Kind::PostOk, 1, 6).seq = 5;
    book.find(Kind::PostOk, 1, 60).seq = 6;
    book.forget(Kind::Ack, 1, 5);
    let as_fifth = book.find(Kind::Receive, 1, 5);
    (as_fifth.at, as_fifth.uid, as_fifth.digest, as_fifth.payment_id) = (at - MS, later, later, later);
    let as_sixth = book.find(Kind::Receive, 1, 6);
    (as_sixth.uid, as_sixth.digest, as_sixth.payment_id) = (earlier, earlier, 0);
    assert!(book.expect_only("C11").sentence().contains("1 reordered"));
}

#[test]
fn a_reply_that_reached_the_wrong_request_is_found() {
    let mut book = Book::sound();
    book.find(Kind::PostOk, 1, 7).seq = 9;
    book.expect_only("C12");
}

#[test]
fn an_older_connection_that_goes_on_receiving_is_found() {
    let mut book = Book::sound();
    // A fault excuses it, for a while after its end too.
    book.without_faults();
    book.connect(1, 2, 3 * SECOND, BEFORE);
    book.expect_only("C13");
}

#[test]
fn an_early_acknowledged_is_found() {
    let mut book = Book::sound();
    book.find(Kind::PostOk, 1, 5).note = Status::Acknowledged as u8;
    book.expect_only("C14");
}

#[test]
fn online_without_a_connection_is_found() {
    let mut book = Book::sound();
    book.find(Kind::PostOk, LATE, 1).extra = 1;
    book.expect_only("C14");
}

#[test]
fn ready_and_not_able_to_store_is_found() {
    let mut book = Book::sound();
    let post = Record { uid: 910, digest: 910, note: Way::Single as u8, ..post_of(1) };
    book.answered(post, 4_500 * MS, Record { kind: Kind::PostUnknown, code: 503, ..Record::default() });
    book.expect_only("C14");
}

#[test]
fn only_a_store_that_stops_for_everybody_excuses_a_node_that_was_ready() {
    let mut book = Book::sound();
    let post = Record { uid: 910, digest: 910, note: Way::Single as u8, ..post_of(1) };
    let (begin, end) = (950 * MS, 2_100 * MS);
    book.record(Record { at: 900 * MS, kind: Kind::Ready, node: 1, code: 200, actor: 90, ..Record::default() });
    book.record(Record { at: begin, kind: Kind::Post, ..post });
    book.record(Record { at: end, kind: Kind::PostUnknown, code: 503, ..post });
    // Others were served meanwhile.
    book.expect_only("C14");
    let meanwhile = |record: &&mut Record| record.kind == Kind::PostOk && (begin..=end).contains(&record.at);
    book.records.iter_mut().filter(meanwhile).for_each(|record| record.at = end + MS);
    let verdict = book.judge();
    assert!(verdict.broken.is_empty(), "{verdict}");
}

#[test]
fn a_gap_in_the_numbers_is_found() {
    let mut book = Book::sound();
    book.finally(1, ALL + 1, ALL, 1);
    book.expect_only("C15");
}

#[test]
fn a_number_that_was_skipped_is_found() {
    let mut book = Book::sound();
    book.finally(3, ALL + 1, ALL + 1, 0);
    assert!(book.judge().broken.is_empty(), "an auto client's payments end at the socket");
    book.records.retain(|record| record.client != 1 || record.seq != 9);
    let verdict = book.judge();
    assert!(verdict.broken.contains_key("C15"), "{verdict}");
}

#[test]
fn a_panic_is_found() {
    let mut book = Book::sound();
    book.log += "thread 'router' panicked at src/router.rs:1:1:\n";
    book.expect_only("C16");
}

#[test]
fn a_message_in_a_log_is_found_and_not_repeated() {
    let mut book = Book::sound();
    book.log += "[DEBUG payrelay] got {\"pad\":\"SECRET-0815\"}\n";
    assert!(!book.expect_only("C16").to_string().contains("0815"));
}

#[test]
fn a_node_that_ends_unasked_is_found() {
    let mut book = Book::sound();
    book.event(3 * SECOND, What::Ended { node: 0, expected: false, status: "signal: 6".into() });
    book.expect_only("C16");
}

#[test]
fn threads_that_are_never_joined_are_too_much() {
    let mut book = Book::sound();
    book.event(SECOND, What::Level { node: 0, what: "threads".into(), value: 30 });
    book.event(13 * SECOND, What::Level { node: 0, what: "threads".into(), value: 3_000 });
    assert_eq!(book.expect_only("C16").exit_code(), 3);
}

#[test]
fn a_canary_that_is_not_served_is_found() {
    let mut book = Book::sound();
    book.without_faults();
    let answer = book.find(Kind::PostOk, CANARY, 3);
    (answer.kind, answer.code, answer.seq) = (Kind::PostUnknown, 0, 0);
    assert_eq!(book.expect_only("L1").exit_code(), 3);
}

#[test]
fn a_frozen_node_that_holds_up_the_others_is_found() {
    let mut book = Book::sound();
    book.plan.push(Step { slice: 1, kind: Fault::F2, at_ms: 9_000, length_ms: 500, node: 2, amount: 0 });
    book.event(9 * SECOND, What::FaultBegin { step: 1, kind: Fault::F2 });
    book.event(9_500 * MS, What::FaultEnd { step: 1, kind: Fault::F2, effect: 1 });
    for number in 0..1_500 {
        let way = Way::Single as u8;
        let post = Record { uid: 2_000 + number, digest: 1, note: way, ..post_of(1) };
        let failed = number % 300 == 0;
        let answer = Record { kind: Kind::PostFail, code: if failed { 503 } else { 429 }, ..Record::default() };
        book.answered(post, 9 * SECOND + number * MS / 4, answer);
    }
    assert!(book.judge().broken.contains_key("V1"), "refused, and so no sample");
    for record in book.records.iter_mut().filter(|record| record.code == 429) {
        let seq = ALL + record.uid - 1_999;
        (record.kind, record.code, record.seq, record.note) = (Kind::PostOk, 202, seq, Status::Refused as u8);
    }
    let verdict = book.judge();
    assert!(verdict.broken.contains_key("L2"), "{verdict}");
}

#[test]
fn a_client_of_a_killed_node_that_waits_for_its_payments_is_found() {
    let mut book = Book::sound();
    book.plan.push(Step { slice: 0, kind: Fault::F1, at_ms: 900, length_ms: 3_000, node: 0, amount: 0 });
    book.event(900 * MS, What::FaultBegin { step: 1, kind: Fault::F1 });
    book.event(3_900 * MS, What::FaultEnd { step: 1, kind: Fault::F1, effect: 1 });
    book.find(Kind::Hello, LATE, 0).at = SECOND;
    let welcome = book.find(Kind::Welcome, LATE, 0);
    (welcome.at, welcome.uid) = (SECOND + MS, BEFORE);
    book.expect_only("L3");
    // Unless it was slow on purpose.
    let its = |record: &&mut Record| (record.kind, record.client) == (Kind::Receive, LATE);
    book.records.iter_mut().filter(its).for_each(|record| record.flag = true);
    let verdict = book.judge();
    assert!(verdict.broken.is_empty(), "{verdict}");
}

#[test]
fn an_event_that_cannot_be_read_is_not_passed_over() {
    let book = Book::sound();
    let dir = TempDir::new();
    book.write(dir.path());
    let path = dir.path().join("events.jsonl");
    let text = fs::read_to_string(&path).expect("the events");
    fs::write(&path, format!("{text}{{\"at\":1,\"ev")).expect("a line cut short");
    assert!(check::check(dir.path()).is_ok());
    fs::write(&path, format!("{{\"at\":1}}\n{text}")).expect("a line that is no event");
    assert!(check::check(dir.path()).is_err());
}

#[test]
fn a_redis_that_is_back_and_not_used_is_found() {
    let mut book = Book::sound();
    for event in book.events.iter_mut().filter(|event| matches!(event.what, What::FaultEnd { .. })) {
        event.at += SECOND;
    }
    book.expect_only("L3");
}

#[test]
fn an_answer_that_is_long_in_coming_is_found() {
    let mut book = Book::sound();
    for record in book.records.iter_mut().filter(|record| record.uid == 903 && record.kind != Kind::Post) {
        record.at = AWAY + 5 * SECOND;
    }
    book.expect_only("L3");
}

#[test]
fn a_crowd_that_is_long_in_coming_back_is_found() {
    let mut book = Book::sound();
    let welcomed = |ms| What::Measured { bound: "reconnect storm".into(), ms };
    book.event(9 * SECOND, welcomed(9_000.0));
    assert!(book.judge().broken.is_empty(), "within its limit");
    book.event(9 * SECOND, welcomed(11_500.0));
    book.expect_only("L3");
}

#[test]
fn a_fault_that_nobody_noticed_proves_nothing() {
    let mut book = Book::sound();
    for event in &mut book.events {
        if let What::FaultEnd { effect, .. } = &mut event.what {
            *effect = 0;
        }
    }
    let verdict = book.expect_only("V1");
    assert_eq!(verdict.exit_code(), 2);
    assert!(verdict.sentence().contains("under 0 faults of 0 kinds"), "{}", verdict.sentence());
}

#[test]
fn a_fault_that_this_machine_cannot_do_is_named() {
    let mut book = Book::sound();
    book.plan.push(Step { slice: 1, kind: Fault::F7, at_ms: 9_000, length_ms: 500, node: 0, amount: 0 });
    book.expect_only("V1");
    book.event(9 * SECOND, What::Skipped { kind: Fault::F7, why: "no strace".into() });
    let verdict = book.judge();
    assert!(verdict.broken.is_empty(), "{verdict}");
    assert!(verdict.sentence().ends_with("under 1 faults of 1 kinds (skipped: F7, no strace)"));
}

#[test]
fn a_run_without_a_drain_proves_nothing() {
    let mut book = Book::sound();
    book.events.retain(|event| !matches!(event.what, What::Drain));
    book.expect_only("V1");
}

/// A run in which replication is cut from 9 s to 11 s, and one payment that was accepted then is gone, its seq given
/// to another one; for who asks, the node has logged it.
fn failover() -> Book {
    let mut book = Book::sound();
    book.options.profile = Profile::Rollback;
    book.plan.push(Step { slice: 1, kind: Fault::F38, at_ms: 9_000, length_ms: 500, node: 0, amount: 0 });
    book.event(9 * SECOND, What::FaultBegin { step: 1, kind: Fault::F38 });
    book.event(9_500 * MS, What::FaultEnd { step: 1, kind: Fault::F38, effect: 1 });
    for (number, posted, epoch) in [(30, 9_100 * MS, 1), (31, 10 * SECOND, 2)] {
        let came = posted + 30 * MS;
        if epoch == 2 {
            book.closed(1, 1, posted - 20 * MS);
            book.connect(1, 2, posted - 10 * MS, ALL);
            book.find(Kind::Welcome, 1, ALL).digest = epoch;
        }
        let post = Record { uid: uid(1, number), digest: uid(1, number), note: Way::Single as u8, ..post_of(1) };
        book.answered(post, posted, Record { seq: ALL + 1, code: 202, ..ok() });
        book.receive(1, u32::try_from(epoch).expect("small"), number, came);
        let payment = book.find(Kind::Receive, 1, number);
        (payment.seq, payment.payment_id) = (ALL + 1, 0);
        payment.uid = uid(1, number);
        payment.digest = uid(1, number);
        book.ack(1, u32::try_from(epoch).expect("small"), ALL + 1, came + MS);
    }
    book.finally(1, ALL + 1, ALL + 1, 0);
    book
}

#[test]
fn a_failover_may_take_what_was_accepted_while_replication_was_cut() {
    let verdict = failover().judge();
    assert!(verdict.broken.is_empty(), "{verdict}");
    let mut book = failover();
    let gone = Record { uid: 800, digest: 800, note: Way::Single as u8, ..post_of(1) };
    book.answered(gone, 9_200 * MS, Record { seq: ALL + 2, code: 202, ..ok() });
    let verdict = book.judge();
    assert!(verdict.broken.is_empty(), "{verdict}");
    assert!(verdict.sentence().ends_with("; 1 gone with a failover, as told"), "{}", verdict.sentence());
    book.answered(Record { uid: 801, ..gone }, 10_100 * MS, Record { seq: ALL + 2, code: 202, ..ok() });
    assert!(book.judge().broken.contains_key("C1"));
}

#[test]
fn a_failover_that_nobody_is_told_of_is_found() {
    let mut book = failover();
    for record in book.records.iter_mut().filter(|record| record.kind == Kind::Welcome) {
        record.digest = 1;
    }
    book.expect_only("C4");
    book.log += "till-001: the store came back without its last writes (a failover, a power cut, a restored backup)\n";
    assert!(book.judge().broken.is_empty());
}

#[test]
fn a_number_and_a_time_that_are_given_twice_are_found() {
    let mut book = failover();
    for record in book.records.iter_mut().filter(|record| (record.kind, record.seq) == (Kind::Receive, ALL + 1)) {
        record.extra = 77;
    }
    book.expect_only("C4");
}

#[test]
fn what_was_seen_to_be_broken_is_broken() {
    let mut book = Book::sound();
    book.event(SECOND, What::Broken { check: "C12".into(), what: "an answer for till-009".into() });
    assert_eq!(book.expect_only("C12").exit_code(), 1);
}

#[test]
fn a_history_that_was_cut_short_is_read() {
    let book = Book::sound();
    let dir = TempDir::new();
    book.write(dir.path());
    let path = dir.join("records-00001.bin");
    let bytes = fs::read(&path).expect("a record file");
    fs::write(&path, &bytes[..bytes.len() - 17]).expect("a record file");
    let events = fs::read_to_string(dir.join("events.jsonl")).expect("events");
    fs::write(dir.join("events.jsonl"), &events[..events.len() - 5]).expect("events");
    check::check(dir.path()).expect("a history that can be read");
}

#[test]
fn every_deliberate_bug_can_still_be_put_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let patches = fs::read_dir(root.join("tests/torture/mutants")).expect("the directory of mutants");
    let patches: Vec<_> = patches.map(|entry| entry.expect("an entry").path()).collect();
    assert!(patches.len() >= 3, "{patches:?}");
    for patch in patches {
        let check = Process::new("git").current_dir(root).args(["apply", "--check"]).arg(&patch).output();
        let check = check.expect("git is there");
        assert!(check.status.success(), "{}: {}", patch.display(), String::from_utf8_lossy(&check.stderr));
    }
}
