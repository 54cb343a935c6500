//! What goes over the sockets of receivers: C6 order, C7 window, C8 acked, C9 repeats, C13 one connection.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::case::{Case, Connection, NEVER};
use super::findings::Findings;
use super::windows::SECOND;
use crate::history::{Kind, Record, uid_text};
use crate::roster::{self, Duty};

/// How long before an answer of a node was written down it may have been true: what a question may take.
const ASKED_BEFORE: u64 = 3 * SECOND;
/// How long an older connection may go on receiving.
const TAKE_OVER: u64 = 2 * SECOND;
/// What a fault may still hold up after it is healed.
const AFTERMATH: u64 = 3 * SECOND;

/// C6: on a connection the first seq is the one after the welcome's acked, and then each is the next. Only a dead letter
/// leaves a gap.
pub(super) fn c6_order(case: &Case, findings: &mut Findings<'_>) {
    let mut last: HashMap<(u32, u32), u64> = HashMap::new();
    for record in &case.story.records {
        let place = (record.client, record.connection);
        match record.kind {
            Kind::Welcome => {
                last.insert(place, record.seq);
            }
            Kind::Receive => {
                let acked = case.connection(record).map_or(0, |connection| connection.acked);
                let Some(before) = last.get_mut(&place) else {
                    findings.add("C6", record.at, name(case, record), || {
                        format!("seq {} came before a welcome", record.seq)
                    });
                    continue;
                };
                // What is not above the welcome's acked is C9's.
                if record.seq > acked {
                    let before = std::mem::replace(before, record.seq);
                    if !follows(case, record, before) {
                        findings.add("C6", record.at, name(case, record), || {
                            format!("seq {} came after {before}", record.seq)
                        });
                    }
                }
            }
            _ => {}
        }
    }
}

fn follows(case: &Case, record: &Record, before: u64) -> bool {
    record.seq > before && (before + 1..record.seq).all(|seq| case.is_dead(record.client, seq))
}

/// C7: never more payments unacknowledged on a connection than the window that the welcome named. An acknowledgement
/// is written down before it goes out and a payment after it came in, so the order of the records judges in the node's
/// favour. (The bound in bytes cannot be seen: a record does not say how long a payment is.)
pub(super) fn c7_window(case: &Case, findings: &mut Findings<'_>) {
    #[derive(Default)]
    struct Open {
        unacknowledged: VecDeque<u64>,
        acked: u64,
    }
    let mut open: HashMap<(u32, u32), Open> = HashMap::new();
    for record in &case.story.records {
        let place = (record.client, record.connection);
        match record.kind {
            Kind::Welcome => {
                open.insert(place, Open { acked: record.seq, ..Open::default() });
            }
            Kind::Closed => {
                open.remove(&place);
            }
            Kind::Ack => {
                let Some(open) = open.get_mut(&place) else { continue };
                open.acked = open.acked.max(record.seq);
                while open.unacknowledged.front().is_some_and(|seq| *seq <= open.acked) {
                    open.unacknowledged.pop_front();
                }
            }
            Kind::Nack => {
                let Some(open) = open.get_mut(&place) else { continue };
                open.unacknowledged.retain(|seq| *seq != record.seq);
            }
            Kind::Receive if case.duty(record.client) != Duty::Auto => {
                let Some(open) = open.get_mut(&place).filter(|open| record.seq > open.acked) else { continue };
                open.unacknowledged.push_back(record.seq);
                let window = case.connection(record).map_or(0, |connection| connection.window);
                let length = open.unacknowledged.len() as u64;
                if length > window {
                    let since = open.acked;
                    findings.add("C7", record.at, name(case, record), || {
                        format!(
                            "seq {} is unacknowledged number {length} after {since}, the window {window}",
                            record.seq
                        )
                    });
                }
            }
            _ => {}
        }
    }
}

/// One word of a node about how far a client has acknowledged.
struct Told {
    asked: u64,
    answered: u64,
    acked: u64,
    by: String,
}

/// C8: what nodes say a client has acknowledged never falls, and is never more than it did acknowledge. Two words are
/// compared only if one was asked for after the other had come.
pub(super) fn c8_acked(case: &Case, findings: &mut Findings<'_>) {
    let acks = acknowledged(case);
    for (client, told) in told(case) {
        let mut eras: BTreeMap<usize, Vec<&Told>> = BTreeMap::new();
        for word in &told {
            if let Some(era) = case.era(word.asked, word.answered) {
                eras.entry(era).or_default().push(word);
            }
        }
        for words in eras.into_values() {
            c8_falls(client, words, findings);
        }
        if case.duty(client) != Duty::Auto {
            let acks = acks.get(&client).map_or(&[][..], Vec::as_slice);
            c8_beyond(case, client, &told, acks, findings);
        }
    }
}

fn told(case: &Case) -> BTreeMap<u32, Vec<Told>> {
    let mut told: BTreeMap<u32, Vec<Told>> = BTreeMap::new();
    for record in &case.story.records {
        let word = match record.kind {
            Kind::Welcome => {
                let hello_at = case.connection(record).map_or(0, |connection| connection.hello_at);
                let asked = hello_at.min(record.at);
                Told { asked, answered: record.at, acked: record.seq, by: format!("welcome {}", record.connection) }
            }
            Kind::Probe => {
                let asked = record.at.saturating_sub(ASKED_BEFORE);
                let by = format!("node {}", record.node + 1);
                Told { asked, answered: record.at, acked: record.uid, by }
            }
            _ => continue,
        };
        told.entry(record.client).or_default().push(word);
    }
    told
}

/// When each client acknowledged how far. (An acknowledgement of more than was sent is written down as what it can
/// count for.)
fn acknowledged(case: &Case) -> HashMap<u32, Vec<(u64, u64)>> {
    let mut acks: HashMap<u32, Vec<(u64, u64)>> = HashMap::new();
    for ack in case.story.records.iter().filter(|record| record.kind == Kind::Ack) {
        acks.entry(ack.client).or_default().push((ack.at, ack.seq));
    }
    acks
}

/// `words` are in the order of their answers.
fn c8_falls(client: u32, words: Vec<&Told>, findings: &mut Findings<'_>) {
    let mut by_question = words.clone();
    by_question.sort_by_key(|word| word.asked);
    let mut answered = words.into_iter().peekable();
    let mut highest: Option<&Told> = None;
    for word in by_question {
        while let Some(earlier) = answered.next_if(|earlier| earlier.answered < word.asked) {
            if highest.is_none_or(|highest| earlier.acked > highest.acked) {
                highest = Some(earlier);
            }
        }
        if let Some(highest) = highest.filter(|highest| highest.acked > word.acked) {
            findings.add("C8", word.answered, roster::id(client), || {
                format!("acked is {} by {} and was {} by {}", word.acked, word.by, highest.acked, highest.by)
            });
        }
    }
}

fn c8_beyond(case: &Case, client: u32, told: &[Told], acks: &[(u64, u64)], findings: &mut Findings<'_>) {
    let mut acks = acks.iter().peekable();
    let mut highest = 0;
    for word in told {
        while let Some((_, seq)) = acks.next_if(|(at, _)| *at <= word.answered) {
            highest = highest.max(*seq);
        }
        // Dead letters count as done once everything before them is.
        while case.is_dead(client, highest + 1) {
            highest += 1;
        }
        if word.acked > highest {
            findings.add("C8", word.answered, roster::id(client), || {
                format!("acked is {} by {}, and no more than {highest} was acknowledged", word.acked, word.by)
            });
        }
    }
}

/// C9: a payment comes again only if it is above the acked of that connection's welcome; and of those that the client
/// had not acknowledged, no more than a window come again.
pub(super) fn c9_repeats(case: &Case, findings: &mut Findings<'_>) {
    #[derive(Default)]
    struct Client {
        received: u64,
        acked: u64,
    }
    let mut clients: HashMap<u32, Client> = HashMap::new();
    let mut repeats: HashMap<(u32, u32), u64> = HashMap::new();
    for record in &case.story.records {
        match record.kind {
            Kind::Ack => {
                let client = clients.entry(record.client).or_default();
                client.acked = client.acked.max(record.seq);
            }
            Kind::Receive => {
                let Some(connection) = case.connection(record) else { continue };
                if record.seq <= connection.acked {
                    let acked = connection.acked;
                    findings.add("C9", record.at, name(case, record), || {
                        format!("seq {} came again, and its welcome said that {acked} is acknowledged", record.seq)
                    });
                }
                let client = clients.entry(record.client).or_default();
                if record.seq > client.received || case.is_rollback() {
                    client.received = client.received.max(record.seq);
                } else if record.seq > client.acked && case.duty(record.client) != Duty::Auto {
                    let times = repeats.entry((record.client, record.connection)).or_default();
                    *times += 1;
                    if *times == connection.window + 1 {
                        let window = connection.window;
                        findings.add("C9", record.at, name(case, record), || {
                            format!("more than {window} came again that were never acknowledged")
                        });
                    }
                }
            }
            _ => {}
        }
    }
}

/// C13: once a newer connection of a client is welcomed, an older one gets no payment that was posted more than 2 s
/// after it, and the time that faults may have held things up. What was posted before may still be on its way to the
/// older one. A connection is newer if it said hello after the older one had been welcomed.
pub(super) fn c13_single(case: &Case, findings: &mut Findings<'_>) {
    let mut welcomes: HashMap<u32, Vec<&Connection>> = HashMap::new();
    for (client, connections) in &case.connections {
        let mut welcomed: Vec<&Connection> =
            connections.iter().filter(|connection| connection.welcome_at != NEVER).collect();
        welcomed.sort_by_key(|connection| connection.hello_at);
        welcomes.insert(*client, welcomed);
    }
    let mut seen: HashSet<(u32, u64)> = HashSet::new();
    for record in case.receives() {
        if !seen.insert((record.client, record.seq)) {
            continue;
        }
        let posted = case.payments.get(&record.uid).map_or(0, |payment| payment.first_begin);
        let Some(connection) = case.connection(record) else { continue };
        if let Some(newer) = welcomed_between(&welcomes[&record.client], connection, posted) {
            let since = newer.welcome_at;
            let excused = case.windows.overlap(since.saturating_sub(SECOND), posted, AFTERMATH);
            if posted - since > TAKE_OVER + excused {
                findings.add("C13", record.at, name(case, record), || {
                    let late = (posted - since) as f64 / 1e9;
                    let uid = uid_text(record.uid);
                    format!("seq {}, {uid}, was posted {late:.1} s after a newer connection was welcomed", record.seq)
                });
            }
        }
    }
}

/// The first connection newer than this one, if it was welcomed long enough before `posted`.
fn welcomed_between<'a>(welcomed: &[&'a Connection], this: &Connection, posted: u64) -> Option<&'a Connection> {
    let newer = welcomed.partition_point(|other| other.hello_at <= this.welcome_at);
    let newer = welcomed[newer..].iter().take_while(|other| other.hello_at < posted);
    newer.min_by_key(|other| other.welcome_at).filter(|other| other.welcome_at + TAKE_OVER < posted).copied()
}

/// Who it happened to.
fn name(case: &Case, record: &Record) -> String {
    let node = case.connection(record).map_or(0, |connection| connection.node) + 1;
    format!("{}, connection {} to node {node}", roster::id(record.client), record.connection)
}
