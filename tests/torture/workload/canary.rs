//! The canary: one client to which nothing is done, and posts to it that never give up. What a user would feel of a
//! fault is measured with it.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::payload::{Mint, Route};
use super::post::{Doors, Outcome, Post};
use super::receiver::{Acks, Receiver};
use super::sender::Uids;
use super::{CANARY, NAP, Phase, Shared, spawn};
use crate::history::{Way, Writer};
use crate::random::Random;
use crate::roster;

/// Threads that post to it, so that one that waits for a node delays nobody.
const LANES: u16 = 5;
/// Between two posts of a lane: five a second of all.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an answer may take before another node is asked.
const ANSWER_LIMIT: Duration = Duration::from_millis(1600);
/// Between two posts of the same payment.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Starts its receiver.
pub fn receive(shared: &Arc<Shared>, client: u32, actor: u16) -> io::Result<JoinHandle<()>> {
    let mut receiver = Receiver::new(shared, client, actor, "receiver")?;
    let shared = Arc::clone(shared);
    spawn("canary".into(), move || {
        while !shared.is_over() {
            receiver.step(Acks::Prompt);
        }
        receiver.close(crate::history::End::Own);
        receiver.writer.flush();
    })
}

/// Starts the posts to it.
pub fn post(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let sender = u32::try_from(shared.world.options.senders).map_err(io::Error::other)?;
    let uids = Arc::new(Uids::new(sender));
    let lanes = (0..LANES).map(|lane| {
        let writer = shared.world.history.writer(CANARY + lane)?;
        let (shared, uids) = (Arc::clone(shared), Arc::clone(&uids));
        spawn(format!("canary-{lane}"), move || lane_of(&shared, lane, &uids, writer))
    });
    lanes.collect()
}

fn lane_of(shared: &Shared, lane: u16, uids: &Uids, mut writer: Writer) {
    let client = roster::canary(&shared.world.options);
    let mut random = shared.random(&format!("canary/{lane}"));
    // As if everybody posted so much that there is room for small ones only.
    let mut mint = Mint::new(shared.random(&format!("payload/canary/{lane}")), u64::MAX);
    let mut doors = Doors::new(shared, ANSWER_LIMIT);
    let mut next = Instant::now() + PAUSE / LANES.into() * lane.into();
    while shared.phase() == Phase::Posting && !shared.is_over() {
        if next > Instant::now() {
            thread::sleep(next.saturating_duration_since(Instant::now()).min(NAP));
            continue;
        }
        next = (next + PAUSE).max(Instant::now());
        let uid = uids.next();
        let payload = Arc::new(mint.draw(uid, &roster::id(client), Route::Envelope));
        let post = Post { payload, client, way: Way::Canary, payment_id: Some(uid) };
        deliver(shared, &post, &mut doors, &mut random, &mut writer);
        writer.flush();
    }
}

/// Posts it to one node after another until one has it.
fn deliver(shared: &Shared, post: &Post, doors: &mut Doors, random: &mut Random, writer: &mut Writer) {
    let mut node = shared.draw_node(random);
    let request = post.request(None);
    while !shared.is_resolved() {
        post.begin(writer, node);
        let reply = doors.send(node, &request);
        let outcome = post.judge(shared, &reply);
        post.end(writer, node, outcome);
        if matches!(outcome, Outcome::Ok { .. } | Outcome::Fail(400..=428 | 430..=499)) {
            return;
        }
        thread::sleep(RETRY_AFTER);
        node = shared.draw_other_node(random, node);
    }
}
