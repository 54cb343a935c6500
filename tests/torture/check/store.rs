//! What the store keeps: C1 lost, C2 phantom, C4 agreement, C5 bytes, C10 payment ids, C11 real-time order, C12 mixed
//! replies, C15 gaps. (C3, what was recovered although nobody was told, is a figure and no rule.)

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::case::{Attempt, Case, NEVER, Outcome, Payment, Place};
use super::findings::Findings;
use crate::history::{Kind, Record, uid_text};
use crate::roster::{self, Duty};

/// Numbers of accepted payments that C1 lists: C15 does not list them again. And how many a failover took.
#[derive(Default)]
pub(super) struct Lost {
    pub(super) seqs: HashSet<(u32, u64)>,
    pub(super) rolled_back: u64,
}

/// C1: every payment that got a 2xx was received, or became a dead letter. Not for `"ack":"auto"`, where the promise
/// ends at the socket. A client that acknowledges more than it received loses nothing by it either.
/// In the profile `rollback`, what was accepted while replication was cut may be gone.
pub(super) fn c1_lost(case: &Case, findings: &mut Findings<'_>) -> Lost {
    let mut lost = Lost::default();
    if case.drain.is_none() {
        return lost;
    }
    let received = ranges_received(case);
    for (uid, payment) in in_order(case) {
        let was_due = payment.was_accepted() && payment.received == 0 && case.duty(payment.client) != Duty::Auto;
        if !was_due || case.is_dead(payment.client, payment.seq) {
            continue;
        }
        if case.is_cut_off(payment.first_begin, payment.first_ok) {
            lost.rolled_back += 1;
            continue;
        }
        lost.seqs.insert((payment.client, payment.seq));
        findings.add("C1", payment.first_ok, roster::id(payment.client), || {
            let part = part_of(&received, uid, payment.client);
            format!(
                "{} was accepted as seq {} and never came ({part} of its sender's to it)",
                uid_text(uid),
                payment.seq
            )
        });
    }
    lost
}

/// C2: what is received was posted, to this client, before; and not all of its posts were definitely refused.
pub(super) fn c2_phantom(case: &Case, findings: &mut Findings<'_>) {
    for record in case.receives() {
        let who = roster::id(record.client);
        let seq = record.seq;
        let name = uid_text(record.uid);
        match case.payments.get(&record.uid) {
            None => findings.add("C2", record.at, who, || format!("seq {seq}, {name}, was posted by nobody")),
            Some(payment) if payment.client != record.client => findings.add("C2", record.at, who, || {
                format!("seq {seq}, {name}, was posted to {}", roster::id(payment.client))
            }),
            Some(payment) if payment.first_begin > record.at => {
                findings.add("C2", record.at, who, || format!("seq {seq}, {name}, came before it was posted"));
            }
            Some(payment) if payment.was_refused() => {
                findings.add("C2", record.at, who, || format!("seq {seq}, {name}, came although it was refused"));
            }
            Some(_) => {}
        }
    }
}

/// C4: one seq is one payment with one time of acceptance, in every delivery; a payment that was posted so many times
/// without a payment id has so many seqs at most. (Payments with one: C10. What answers say: C12.)
pub(super) fn c4_agreement(case: &Case, findings: &mut Findings<'_>) -> HashMap<Place, u64> {
    let mut places: HashMap<Place, (u64, u64)> = HashMap::new();
    let mut further: BTreeMap<u64, u32> = BTreeMap::new();
    for record in case.receives() {
        let who = roster::id(record.client);
        let seq = record.seq;
        let (uid, accepted_at) = match places.entry(case.place(record)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(place) => {
                if case.payments.get(&record.uid).is_some_and(|payment| is_further_copy(case, payment, record)) {
                    *further.entry(record.uid).or_default() += 1;
                }
                *place.insert((record.uid, record.extra))
            }
        };
        if uid != record.uid {
            findings.add("C4", record.at, who, || {
                format!("seq {seq} was {} and is now {}", uid_text(uid), uid_text(record.uid))
            });
        } else if accepted_at != record.extra {
            let now = record.extra;
            findings.add("C4", record.at, who, || format!("seq {seq}: accepted_at was {accepted_at} and is now {now}"));
        }
    }
    for (uid, copies) in further {
        let Some(payment) = case.payments.get(&uid) else { continue };
        if payment.without_id > 0 && copies >= payment.without_id {
            findings.add("C4", payment.first_begin, roster::id(payment.client), || {
                let posts = payment.without_id;
                format!("{} was posted {posts} times and came under {} seqs", uid_text(uid), copies + 1)
            });
        }
    }
    places.into_iter().map(|(place, (uid, _))| (place, uid)).collect()
}

/// C5: what is delivered is, byte for byte, what was posted. (The envelope is looked at where it is read.)
pub(super) fn c5_bytes(case: &Case, findings: &mut Findings<'_>) {
    for record in case.receives() {
        if case.payments.get(&record.uid).is_some_and(|payment| payment.digest != record.digest) {
            findings.add("C5", record.at, roster::id(record.client), || {
                format!("seq {}, {}, has other bytes than were posted", record.seq, uid_text(record.uid))
            });
        }
    }
}

/// C10: one payment id is one payment: one seq in all answers and deliveries, one answer at most that does not say
/// `duplicate`, a 422 for another body and for nothing else.
pub(super) fn c10_ids(case: &Case, findings: &mut Findings<'_>) {
    let mut with_id: Vec<&Attempt> = case.attempts.iter().filter(|attempt| attempt.payment_id != 0).collect();
    with_id.sort_by_key(|attempt| (attempt.payment_id, attempt.client));
    for group in with_id.chunk_by(|a, b| (a.payment_id, a.client) == (b.payment_id, b.client)) {
        if let Some((at, what)) = c10_answers(case, group).or_else(|| c10_refusals(group)) {
            let (client, id) = (group[0].client, group[0].payment_id);
            findings.add("C10", at, roster::id(client), || format!("payment id {}: {what}", uid_text(id)));
        }
    }
    c10_deliveries(case, findings);
}

/// What is wrong with the 2xx answers to posts of one payment id.
fn c10_answers(case: &Case, group: &[&Attempt]) -> Option<(u64, String)> {
    let mut answers: Vec<(usize, &Attempt)> = Vec::new();
    for attempt in group.iter().filter(|attempt| attempt.outcome == Outcome::Ok) {
        // What was told while writes were being lost holds for that time only.
        if let Some(era) = case.era(attempt.begin, attempt.end) {
            answers.push((era, attempt));
        }
    }
    answers.sort_by_key(|(era, attempt)| (*era, attempt.end));
    for life in answers.chunk_by(|(a, _), (b, _)| a == b) {
        let first = life[0].1;
        let mut new = 0;
        for (_, answer) in life {
            new += u64::from(!answer.duplicate);
            let what = if answer.digest != first.digest {
                format!("{} and {} are two bodies, both accepted", uid_text(first.uid), uid_text(answer.uid))
            } else if answer.seq != first.seq {
                format!("seq {} and seq {}", first.seq, answer.seq)
            } else if new > 1 {
                format!("seq {} is said to be new {new} times", answer.seq)
            } else if !answer.duplicate && answer.begin > first.end {
                format!("seq {} is said to be new after it was known", answer.seq)
            } else {
                continue;
            };
            return Some((answer.end, what));
        }
    }
    None
}

/// A 422 is right only if another body may have been stored under the payment id.
fn c10_refusals(group: &[&Attempt]) -> Option<(u64, String)> {
    let refused = group.iter().find(|refused| {
        let another = |other: &&&Attempt| {
            other.digest != refused.digest && other.outcome != Outcome::Fail && other.begin < refused.end
        };
        refused.code == 422 && !group.iter().any(|other| another(&other))
    })?;
    Some((refused.end, format!("{} is a 422 although no other body was ever accepted", uid_text(refused.uid))))
}

fn c10_deliveries(case: &Case, findings: &mut Findings<'_>) {
    let mut first: HashMap<(u32, u64), Place> = HashMap::new();
    for record in case.receives().filter(|record| record.payment_id != 0) {
        let place = case.place(record);
        let known = *first.entry((record.client, record.payment_id)).or_insert(place);
        // Put back, a dead letter has a new seq; after a failover a payment may have one.
        let may_move = case.is_dead(record.client, known.seq) || case.is_rollback();
        if known != place && !may_move {
            findings.add("C10", record.at, roster::id(record.client), || {
                format!(
                    "payment id {}: came as seq {} and as seq {}",
                    uid_text(record.payment_id),
                    known.seq,
                    place.seq
                )
            });
        }
    }
}

/// C11: a payment that was answered before another was posted has the lower seq. Walking up the seqs of a client, no
/// lower one may have been posted later than this one was answered.
pub(super) fn c11_real_time(case: &Case, findings: &mut Findings<'_>) {
    struct Stored {
        life: (u32, usize),
        seq: u64,
        uid: u64,
        begin: u64,
        ok: u64,
    }
    let mut stored: Vec<Stored> = Vec::new();
    for (uid, payment) in &case.payments {
        let seq = if payment.received > 0 { payment.received_seq } else { payment.seq };
        let until = if payment.first_ok == NEVER { payment.first_begin } else { payment.first_ok };
        let era = case.era(payment.first_begin, until);
        // Without a payment id, a second post of it has a seq of its own.
        if let Some(era) = era.filter(|_| seq != 0 && payment.without_id <= 1) {
            let (begin, ok) = (payment.first_begin, payment.first_ok);
            stored.push(Stored { life: (payment.client, era), seq, uid: *uid, begin, ok });
        }
    }
    stored.sort_unstable_by_key(|stored| (stored.life, stored.seq));
    for life in stored.chunk_by(|a, b| a.life == b.life) {
        let mut latest = &life[0];
        for this in life {
            if latest.begin > this.ok {
                findings.add("C11", this.ok, roster::id(this.life.0), || {
                    let (later, earlier) = (uid_text(latest.uid), uid_text(this.uid));
                    let gap = (latest.begin - this.ok) as f64 / 1e6;
                    format!(
                        "{later} has seq {}, and {earlier}, answered {gap:.1} ms before, seq {}",
                        latest.seq, this.seq
                    )
                });
            }
            if this.begin > latest.begin {
                latest = this;
            }
        }
    }
}

/// C12: the seq in an answer is the one under which the payment came, and no two payments are told the same one. A
/// reply that reached the wrong request would break this. (The names in an answer are looked at where it is read.)
pub(super) fn c12_mixed(case: &Case, places: &HashMap<Place, u64>, findings: &mut Findings<'_>) {
    let mut told: HashMap<(u32, usize, u64), u64> = HashMap::new();
    let mut doubtful: Vec<&Attempt> = Vec::new();
    for answer in case.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ok) {
        let Some(era) = case.era(answer.begin, answer.end) else { continue };
        let who = roster::id(answer.client);
        let (seq, name) = (answer.seq, uid_text(answer.uid));
        let known = *told.entry((answer.client, era, seq)).or_insert(answer.uid);
        let at_place = places.get(&Place { client: answer.client, seq, accepted_at: 0 });
        if known != answer.uid {
            findings.add("C12", answer.end, who, || format!("seq {seq} was told for {} and {name}", uid_text(known)));
        } else if case.payments.get(&answer.uid).is_some_and(|payment| payment.received > 0) {
            doubtful.extend((case.payments[&answer.uid].received_seq != seq).then_some(answer));
        } else if let Some(came) = at_place {
            findings
                .add("C12", answer.end, who, || format!("seq {seq} was told for {name} and is {}", uid_text(*came)));
        }
    }
    if !doubtful.is_empty() {
        c12_elsewhere(case, &doubtful, findings);
    }
}

/// Of payments that first came under another seq than was told: those that never came under it.
fn c12_elsewhere(case: &Case, doubtful: &[&Attempt], findings: &mut Findings<'_>) {
    let uids: HashSet<u64> = doubtful.iter().map(|answer| answer.uid).collect();
    let received = case.receives().filter(|record| uids.contains(&record.uid));
    let came: HashSet<(u64, u64)> = received.map(|record| (record.uid, record.seq)).collect();
    for answer in doubtful.iter().filter(|answer| !came.contains(&(answer.uid, answer.seq))) {
        findings.add("C12", answer.end, roster::id(answer.client), || {
            let came = case.payments[&answer.uid].received_seq;
            format!("{} was told seq {} and came as {came}", uid_text(answer.uid), answer.seq)
        });
    }
}

/// C15: after the drain, what a client received and its dead letters are 1 to the last seq without a gap; everything
/// is acknowledged, nothing pending. What C1 lists is not listed again.
pub(super) fn c15_gaps(case: &Case, lost: &Lost, places: &HashMap<Place, u64>, findings: &mut Findings<'_>) {
    let Some(drain) = case.drain else { return };
    let mut last_probes: BTreeMap<u32, &Record> = BTreeMap::new();
    for probe in case.story.records.iter().filter(|record| record.kind == Kind::Probe && record.at >= drain) {
        last_probes.insert(probe.client, probe);
    }
    let mut seqs: Vec<(u32, u64)> = places.keys().map(|place| (place.client, place.seq)).collect();
    seqs.extend(case.dead.iter().chain(&lost.seqs));
    seqs.sort_unstable();
    seqs.dedup();
    let mut known: HashMap<u32, Vec<u64>> = HashMap::new();
    for (client, seq) in seqs {
        known.entry(client).or_default().push(seq);
    }
    for client in 0..roster::count(&case.options) {
        let who = roster::id(client);
        let seqs = known.remove(&client).unwrap_or_default();
        match last_probes.get(&client) {
            None if seqs.is_empty() => {}
            None => findings.add("C15", case.end, who, || "no node was asked for it after the drain".into()),
            Some(probe) => {
                if let Some(what) = c15_end(case, lost, client, &seqs, probe) {
                    findings.add("C15", probe.at, who, || what);
                }
            }
        }
    }
}

/// What is wrong with how a client ended.
fn c15_end(case: &Case, lost: &Lost, client: u32, seqs: &[u64], probe: &Record) -> Option<String> {
    let (last, acked, pending) = (probe.seq, probe.uid, probe.extra);
    let above = seqs.iter().rev().take_while(|seq| **seq > last).count();
    if above > 0 && !case.is_rollback() {
        return Some(format!("the store says {last} is its last seq, and {} was seen", seqs[seqs.len() - 1]));
    }
    // The payments of an auto client end at the socket: numbers may be missing there.
    let missing = first_missing(seqs, last).filter(|_| case.duty(client) != Duty::Auto);
    if let Some(seq) = missing {
        return Some(format!("seq {seq} of {last} was never seen, nor is it a dead letter"));
    }
    let settled = (acked + 1..=last).all(|seq| case.is_dead(client, seq) || lost.seqs.contains(&(client, seq)));
    (pending != 0 || !settled)
        .then(|| format!("after the drain {pending} are pending; acked is {acked}, the last seq {last}"))
}

fn first_missing(seqs: &[u64], last: u64) -> Option<u64> {
    let mut next = 1;
    for seq in seqs {
        if *seq > next {
            break;
        }
        next = seq + 1;
    }
    (next <= last).then_some(next)
}

/// A delivery of a payment under another seq than its first, which was no dead letter either.
fn is_further_copy(case: &Case, payment: &Payment, record: &Record) -> bool {
    payment.received_seq != record.seq && !case.is_dead(record.client, payment.received_seq)
}

/// In the order of senders and their counters, so that two checks of one history say the same.
fn in_order(case: &Case) -> Vec<(u64, &Payment)> {
    let mut payments: Vec<(u64, &Payment)> = case.payments.iter().map(|(uid, payment)| (*uid, payment)).collect();
    payments.sort_unstable_by_key(|(uid, _)| *uid);
    payments
}

/// The first and the last payment that came of each sender to each client.
fn ranges_received(case: &Case) -> HashMap<(u64, u32), (u64, u64)> {
    let mut ranges: HashMap<(u64, u32), (u64, u64)> = HashMap::new();
    for (uid, payment) in case.payments.iter().filter(|(_, payment)| payment.received > 0) {
        let range = ranges.entry((uid >> 32, payment.client)).or_insert((*uid, *uid));
        *range = (range.0.min(*uid), range.1.max(*uid));
    }
    ranges
}

/// Where among its sender's payments to its client a lost one lies.
fn part_of(received: &HashMap<(u64, u32), (u64, u64)>, uid: u64, client: u32) -> &'static str {
    match received.get(&(uid >> 32, client)) {
        None => "all",
        Some((first, _)) if uid < *first => "the prefix",
        Some((_, last)) if uid > *last => "the postfix",
        Some(_) => "the middle",
    }
}
