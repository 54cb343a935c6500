//! The auditor: asks every node what it knows of clients and payments, how it is, and what it uses.

use std::fs;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::post::{Doors, byte, status};
use super::{AUDITORS, Shared, spawn};
use crate::history::{Kind, Record, What, Writer, uid_text};
use crate::options::Profile;
use crate::random::Random;
use crate::roster;
use crate::world::World;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
const ROUND: Duration = Duration::from_secs(2);
const LEVELS: Duration = Duration::from_secs(5);
/// Clients and payments that are asked about in a round.
const SAMPLE: usize = 4;
/// So many rounds to a look at the metrics.
const METRICS_ROUNDS: u64 = 5;

#[derive(Deserialize)]
struct Shown {
    client: String,
    online: bool,
    last_seq: u64,
    acked: u64,
    pending: u64,
}

#[derive(Deserialize)]
struct ShownPayment {
    client: String,
    seq: u64,
    status: String,
}

/// One thread for each node, so that one that does not answer hides no other; and one for the levels.
pub fn start(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let nodes = 0..u16::from(byte(shared.world.nodes.len()));
    let mut threads = Vec::new();
    for node in nodes {
        let (writer, random) =
            (shared.world.history.writer(AUDITORS + node)?, shared.random(&format!("auditor/{node}")));
        let shared = Arc::clone(shared);
        threads.push(spawn(format!("auditor-{node}"), move || audit(&shared, node.into(), random, writer))?);
    }
    let shared = Arc::clone(shared);
    threads.push(spawn("levels".into(), move || {
        while !shared.is_over() {
            note_levels(&shared.world);
            nap(&shared, Instant::now() + LEVELS);
        }
    })?);
    Ok(threads)
}

fn nap(shared: &Shared, until: Instant) {
    while !shared.is_over() && Instant::now() < until {
        shared.sleep(until);
    }
}

fn audit(shared: &Shared, node: usize, mut random: Random, mut writer: Writer) {
    let mut doors = Doors::new(shared, ANSWER_LIMIT);
    let mut round = 0;
    while !shared.is_over() {
        let next = Instant::now() + ROUND;
        if let Some(answer) = doors.get(node, "/readyz") {
            writer.record(Record { kind: Kind::Ready, node: byte(node), code: answer.status, ..Record::default() });
        }
        for _ in 0..SAMPLE {
            let client = random.below(roster::count(&shared.world.options).into());
            probe(shared, &mut doors, node, u32::try_from(client).expect("a number of clients"), &mut writer);
            probe_payment(shared, &mut doors, node, &mut random, &mut writer);
        }
        if round % METRICS_ROUNDS == 0
            && let Some(answer) = doors.get(node, "/metrics")
            && answer.status == 200
            && !answer.text().contains("payrelay_")
        {
            shared.broken("C14", format!("node {node} shows no metrics: {}", answer.show()));
        }
        round += 1;
        writer.flush();
        nap(shared, next);
    }
}

/// What the node says of a client: its last seq and how many are pending.
fn probe(shared: &Shared, doors: &mut Doors, node: usize, client: u32, writer: &mut Writer) -> Option<(u64, u64)> {
    let id = &shared.tills[client as usize].id;
    let answer = doors.get(node, &format!("/v1/clients/{id}"))?;
    if answer.status != 200 {
        return None;
    }
    match serde_json::from_slice::<Shown>(&answer.body) {
        Ok(shown) if shown.client == *id => {
            let Shown { online, last_seq, acked, pending, .. } = shown;
            let said = Record { seq: last_seq, uid: acked, extra: pending, flag: online, ..Record::default() };
            writer.record(Record { kind: Kind::Probe, client, node: byte(node), ..said });
            Some((last_seq, pending))
        }
        _ => {
            shared.broken("C12", format!("asked for {id}, told {}", answer.show()));
            None
        }
    }
}

/// What became of a payment that was accepted: by its seq, or by its payment id.
fn probe_payment(shared: &Shared, doors: &mut Doors, node: usize, random: &mut Random, writer: &mut Writer) {
    let Some(known) = shared.draw_known(random) else { return };
    let id = &shared.tills[known.client as usize].id;
    let payment_id = known.payment_id.filter(|_| random.percent(50));
    let path = match payment_id {
        Some(uid) => format!("/v1/clients/{id}/payments?payment_id={}", uid_text(uid)),
        None => format!("/v1/clients/{id}/payments/{}", known.seq),
    };
    let Some(answer) = doors.get(node, &path) else { return };
    // In this profile what was accepted may be lost, and its seq be another payment's.
    let may_be_lost = shared.world.options.profile == Profile::Rollback;
    if !matches!(answer.status, 200 | 404) || (answer.status == 404 && may_be_lost) {
        return;
    }
    let shown = serde_json::from_slice::<ShownPayment>(&answer.body).ok();
    let shown = shown.filter(|shown| shown.client == *id && (shown.seq == known.seq || may_be_lost));
    let Some((shown, status)) = shown.and_then(|shown| status(&shown.status).map(|status| (shown, status))) else {
        return shared.broken("C4", format!("asked for {path}, seq {}, told {}", known.seq, answer.show()));
    };
    writer.record(Record {
        kind: Kind::ProbePayment,
        node: byte(node),
        client: known.client,
        seq: shown.seq,
        note: status as u8,
        payment_id: payment_id.unwrap_or_default(),
        ..Record::default()
    });
}

/// Waits until no client has anything pending and each has read its last payment. The last word of a node on each
/// client is in the history then.
pub fn wait_until_empty(shared: &Shared, writer: &mut Writer, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    let mut doors = Doors::new(shared, ANSWER_LIMIT);
    let mut random = shared.random("drain");
    let mut open: Vec<u32> = (0..roster::count(&shared.world.options)).collect();
    loop {
        open.retain(|client| {
            let node = shared.draw_node(&mut random);
            let Some((last_seq, pending)) = probe(shared, &mut doors, node, *client, writer) else { return true };
            pending > 0 || !has_read(shared, *client, last_seq)
        });
        writer.flush();
        if open.is_empty() || Instant::now() > deadline {
            return open.is_empty();
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// A client that leaves its acknowledging to the socket may have missed some: it was told so.
fn has_read(shared: &Shared, client: u32, last_seq: u64) -> bool {
    let is_auto = roster::duty(&shared.world.options, client) == roster::Duty::Auto;
    is_auto || shared.tills[client as usize].books().highest >= last_seq
}

/// What each node uses now.
pub fn note_levels(world: &World) {
    for node in &world.nodes {
        let Some(pid) = node.pid() else { continue };
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).map(|entries| entries.count() as u64).ok();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let levels = [("fds", fds), ("threads", field(&status, "Threads:")), ("rss_kib", field(&status, "VmRSS:"))];
        for (what, value) in levels {
            if let Some(value) = value {
                world.history.event(What::Level { node: byte(node.number), what: what.into(), value });
            }
        }
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}
