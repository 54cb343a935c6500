//! Senders: each posts at random times, one way or another, to one node or another, and follows up what is unknown.
//!
//! A sender is a few lanes, each a thread that has one request under way: so a node that does not answer holds up a
//! lane, and the others go on as if nothing were (an open loop, as far as it goes).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::payload::{Mint, Route};
use super::post::{Doors, Outcome, Post, batch, judge_batch, send_cut};
use super::{Known, NAP, Phase, Shared, spawn};
use crate::fault::Kind as Fault;
use crate::history::{Way, Writer};
use crate::options::Profile;
use crate::random::Random;
use crate::roster;

/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The same in a sender's last lane, which posts again while the first post is still under way.
const IMPATIENT_LIMIT: Duration = Duration::from_secs(2);
/// Lanes of a sender.
const LANES: u16 = 4;
/// Posts of a sender that wait for an acknowledgement at once.
const WAITERS: u16 = 4;
/// Seconds that they wait.
const WAIT_SECS: u64 = 3;
/// How many payments a lane remembers, to post them again.
const REMEMBERED: usize = 64;
/// The most payments of which a lane does not know what became; past it, it posts nothing new.
const MAX_OPEN: usize = 500;
/// The most lines of a batch.
const MAX_LINES: u64 = 100;
/// The payments of an arrival in the mean: 0.85 single ones, and a tenth of the mean length of a batch.
const PAYMENTS_AN_ARRIVAL: f64 = 0.85 + 0.1 * 21.5;
/// The lanes that have a favourite client, to which they post one after another.
const FAITHFUL: u16 = 3;

/// One thread of a sender.
struct Lane {
    shared: Arc<Shared>,
    /// Of all lanes of this sender.
    uids: Arc<Uids>,
    random: Random,
    mint: Mint,
    writer: Writer,
    doors: Doors,
    limit: Duration,
    home: usize,
    favourite: Option<u32>,
    waiting: Sender<(Post, usize)>,
    /// Accepted, with a payment id.
    remembered: Vec<Post>,
    open: Vec<Open>,
}

/// A payment to be posted again, since nobody knows whether it was stored.
struct Open {
    post: Post,
    node: usize,
    due: Instant,
    /// The first post may still be under way.
    is_under_way: bool,
}

/// Gives a sender's uids.
#[derive(Debug)]
pub struct Uids {
    sender: u32,
    counter: AtomicU32,
}

impl Uids {
    pub fn new(sender: u32) -> Uids {
        Uids { sender, counter: AtomicU32::new(0) }
    }

    pub fn next(&self) -> u64 {
        // From 1, for 0 is none.
        let count = self.counter.fetch_add(1, Ordering::SeqCst) + 1;
        (u64::from(self.sender) << 32) | u64::from(count)
    }
}

/// Starts all senders.
pub fn start(shared: &Arc<Shared>) -> io::Result<Vec<JoinHandle<()>>> {
    let options = &shared.world.options;
    let senders = u16::try_from(options.senders).map_err(io::Error::other)?;
    let rate = options.rate as f64 / PAYMENTS_AN_ARRIVAL / f64::from(senders.max(1) * LANES);
    let mut threads = Vec::new();
    let mut actors = 0..super::RECEIVERS;
    let mut actor = || actors.next().ok_or_else(|| io::Error::other("too many senders"));
    for sender in 0..senders {
        let uids = Arc::new(Uids::new(sender.into()));
        // Without a queue: a post waits only if somebody is free to do it now.
        let (wait_tx, wait_rx) = bounded(0);
        for waiter in 0..WAITERS {
            let (shared, wait_rx, writer) =
                (Arc::clone(shared), wait_rx.clone(), shared.world.history.writer(actor()?)?);
            threads.push(spawn(format!("wait-{sender}-{waiter}"), move || wait(&shared, writer, &wait_rx))?);
        }
        for lane in 0..LANES {
            let role = format!("sender/{sender}/{lane}");
            let mut random = shared.random(&role);
            let limit = if lane == LANES - 1 { IMPATIENT_LIMIT } else { ANSWER_LIMIT };
            let lane = Lane {
                shared: Arc::clone(shared),
                uids: Arc::clone(&uids),
                mint: Mint::new(shared.random(&format!("payload/{sender}/{lane}")), options.rate),
                writer: shared.world.history.writer(actor()?)?,
                doors: Doors::new(shared, limit),
                limit,
                home: shared.draw_node(&mut random),
                favourite: (lane == 0 && sender < FAITHFUL).then(|| u32::from(sender)),
                waiting: wait_tx.clone(),
                remembered: Vec::new(),
                open: Vec::new(),
                random,
            };
            threads.push(spawn(role, move || lane.run(rate))?);
        }
    }
    Ok(threads)
}

impl Lane {
    fn run(mut self, rate: f64) {
        let mut next = Instant::now() + self.random.arrival(rate);
        loop {
            let (now, posting) = (Instant::now(), self.shared.phase() == Phase::Posting);
            if self.shared.is_resolved() || (!posting && self.open.is_empty()) {
                return;
            }
            if let Some(due) = self.open.iter().position(|open| open.due <= now) {
                self.ask_again(due);
            } else if posting && next <= now {
                if self.open.len() < MAX_OPEN {
                    self.arrive();
                }
                // What could not be posted in time is not made up for.
                next = (next + self.random.arrival(rate)).max(now - Duration::from_secs(1));
            } else {
                self.rest(next, posting);
            }
        }
    }

    /// Until there is something to do, or somebody to listen to.
    fn rest(&mut self, next: Instant, posting: bool) {
        let wake = self.open.iter().map(|open| open.due).chain(posting.then_some(next)).min();
        let left = wake.map_or(NAP, |wake| wake.saturating_duration_since(Instant::now()));
        if left >= NAP {
            self.writer.flush();
        }
        thread::sleep(left.min(NAP));
    }

    fn arrive(&mut self) {
        if !self.random.percent(80) {
            self.home = self.shared.draw_node(&mut self.random);
        }
        match self.random.weighted(&[60, 10, 10, 5, 5, 5, 5]) {
            0 => self.single(Way::Single),
            1 => self.batch(),
            2 => self.single(Way::Raw),
            3 => self.wait(),
            4 => self.twin(),
            5 => self.repeat(),
            _ => self.cut(),
        }
    }

    fn draw(&mut self, way: Way) -> Post {
        let route = match way {
            Way::Raw => Route::Raw,
            Way::Batch => Route::Line,
            _ => Route::Envelope,
        };
        let client = match self.favourite {
            Some(client) if self.random.percent(40) => client,
            _ => {
                let canary = roster::canary(&self.shared.world.options);
                u32::try_from(self.random.below(canary.into())).expect("a number of clients")
            }
        };
        let uid = self.uids.next();
        let payload = self.mint.draw(uid, &self.shared.tills[client as usize].id, route);
        let with_id = payload.is_anonymous || self.random.percent(50);
        Post { payload: Arc::new(payload), client, way, payment_id: with_id.then_some(uid) }
    }

    fn single(&mut self, way: Way) {
        let post = self.draw(way);
        self.send(post, self.home);
    }

    fn send(&mut self, post: Post, node: usize) {
        let begun = Instant::now();
        let outcome = self.ask(&post, node);
        self.settle(post, node, outcome, begun);
    }

    fn ask(&mut self, post: &Post, node: usize) -> Outcome {
        let request = post.request(None);
        post.begin(&mut self.writer, node);
        let reply = self.doors.send(node, &request);
        let outcome = post.judge(&self.shared, &reply);
        post.end(&mut self.writer, node, outcome);
        outcome
    }

    /// What follows from an outcome.
    fn settle(&mut self, post: Post, node: usize, outcome: Outcome, begun: Instant) {
        match outcome {
            Outcome::Ok { seq, .. } => {
                if self.random.below(16) == 0 {
                    let Post { client, payment_id, .. } = post;
                    self.shared.know(Known { client, seq, payment_id });
                }
                self.remember(post);
            }
            Outcome::Fail(_) => {}
            Outcome::Unknown(code) => {
                if post.payment_id.is_some() {
                    let due = Instant::now() + Duration::from_millis(self.random.within(50, 500));
                    // Who was cut or killed has nothing under way any more.
                    let is_under_way = code == 503 || begun.elapsed() >= self.limit;
                    self.open.push(Open { post, node, due, is_under_way });
                }
            }
        }
    }

    fn remember(&mut self, post: Post) {
        let is_first = !matches!(post.way, Way::Repeat | Way::Reused);
        if post.payment_id.is_none() || !is_first || post.payload.content_type.is_some() {
            return;
        }
        if self.remembered.len() < REMEMBERED {
            self.remembered.push(post);
        } else {
            // Some grow old here.
            let place = self.random.below(REMEMBERED as u64);
            self.remembered[usize::try_from(place).expect("a small number")] = post;
        }
    }

    fn ask_again(&mut self, index: usize) {
        let Open { mut post, node, is_under_way, .. } = self.open.swap_remove(index);
        if post.way != Way::Raw {
            post.way = Way::Single;
        }
        if is_under_way {
            self.shared.behaved(Fault::F72);
        }
        let other = self.shared.draw_other_node(&mut self.random, node);
        let begun = Instant::now();
        let outcome = self.ask(&post, other);
        let known = match outcome {
            Outcome::Fail(code) if !is_final(outcome) => Outcome::Unknown(code),
            known => known,
        };
        self.settle(post, other, known, begun);
    }

    fn batch(&mut self) {
        let lines = self.random.log_within(1, MAX_LINES);
        let posts: Vec<Post> = (0..lines).map(|_| self.draw(Way::Batch)).collect();
        let (node, request, begun) = (self.home, batch(&posts), Instant::now());
        posts.iter().for_each(|post| post.begin(&mut self.writer, node));
        let reply = self.doors.send(node, &request);
        let outcomes = judge_batch(&self.shared, &posts, &reply);
        for (post, outcome) in posts.iter().zip(&outcomes) {
            post.end(&mut self.writer, node, *outcome);
        }
        for (post, outcome) in posts.into_iter().zip(outcomes) {
            self.settle(post, node, outcome, begun);
        }
    }

    /// Hands it to who has the time to wait; with nobody there it is posted like others.
    fn wait(&mut self) {
        let post = self.draw(Way::Wait);
        if let Err(refused) = self.waiting.try_send((post, self.home)) {
            let post = Post { way: Way::Single, ..refused.into_inner().0 };
            self.send(post, self.home);
        }
    }

    fn twin(&mut self) {
        let mut post = self.draw(Way::Twin);
        post.payment_id = Some(post.payload.uid);
        let nodes = [self.home, self.shared.draw_other_node(&mut self.random, self.home)];
        if nodes[0] == nodes[1] {
            return self.send(post, self.home);
        }
        let (request, begun) = (post.request(None), Instant::now());
        nodes.iter().for_each(|node| post.begin(&mut self.writer, *node));
        let asked = nodes.map(|node| self.doors.ask(node, &request));
        self.shared.behaved(Fault::F71);
        let outcomes = [0, 1].map(|i| {
            let reply = if asked[i] { self.doors.answer(nodes[i]) } else { super::post::Reply::NotSent };
            let outcome = post.judge(&self.shared, &reply);
            post.end(&mut self.writer, nodes[i], outcome);
            outcome
        });
        let is_ok = |outcome: &&Outcome| matches!(outcome, Outcome::Ok { .. });
        let is_unknown = |outcome: &&Outcome| matches!(outcome, Outcome::Unknown(_));
        let worth = outcomes.iter().find(is_ok).or_else(|| outcomes.iter().find(is_unknown));
        self.settle(post, nodes[0], *worth.unwrap_or(&outcomes[0]), begun);
    }

    fn repeat(&mut self) {
        if self.remembered.is_empty() {
            return self.single(Way::Single);
        }
        let earlier = self.random.pick(&self.remembered).clone();
        // After a rollback nobody remembers the first body.
        let same = self.random.percent(50) || self.shared.world.options.profile == Profile::Rollback;
        let post = if same {
            Post { way: Way::Repeat, ..earlier }
        } else {
            let payload = loop {
                let uid = self.uids.next();
                let drawn = self.mint.draw(uid, &self.shared.tills[earlier.client as usize].id, Route::Envelope);
                if !drawn.is_anonymous {
                    break Arc::new(drawn);
                }
            };
            Post { way: Way::Reused, payload, ..earlier }
        };
        let node = self.shared.draw_node(&mut self.random);
        // Whatever comes of it: the first post was accepted, and that is known.
        self.ask(&post, node);
    }

    /// Ends the connection before, within or after the request, and does not hear the answer.
    fn cut(&mut self) {
        let post = self.draw(Way::Cut);
        let bytes = post.request(None).bytes();
        let length = match self.random.below(10) {
            0 => 0,
            1..=3 => bytes.len(),
            _ => usize::try_from(self.random.below(bytes.len() as u64)).expect("a length"),
        };
        let addr = self.shared.world.nodes[self.home].http.addr();
        let reset = self.random.percent(50);
        post.begin(&mut self.writer, self.home);
        let sent = send_cut(addr, &bytes, length, reset);
        if sent.is_ok() {
            self.shared.behaved(Fault::F70);
        }
        let outcome = if length == 0 { Outcome::Fail(0) } else { Outcome::Unknown(0) };
        post.end(&mut self.writer, self.home, outcome);
        self.settle(post, self.home, outcome, Instant::now());
    }
}

/// Whether it settles what became of a payment whose earlier post is of unknown outcome. That a later one is refused
/// for the moment does not.
fn is_final(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Ok { .. } | Outcome::Fail(400..=428 | 430..=499))
}

/// Posts what is to wait for its acknowledgement. What is unknown then is asked for again at once, by who waited.
fn wait(shared: &Shared, mut writer: Writer, posts: &Receiver<(Post, usize)>) {
    let mut doors = Doors::new(shared, ANSWER_LIMIT);
    while let Ok((post, mut node)) = posts.recv() {
        let mut was_unknown = false;
        loop {
            let request = post.request(Some(WAIT_SECS));
            post.begin(&mut writer, node);
            let reply = doors.send(node, &request);
            let outcome = post.judge(shared, &reply);
            post.end(&mut writer, node, outcome);
            was_unknown |= matches!(outcome, Outcome::Unknown(_));
            if !was_unknown || is_final(outcome) || post.payment_id.is_none() || shared.is_resolved() {
                break;
            }
            shared.sleep(Instant::now() + Duration::from_millis(300));
            node = (node + 1) % shared.world.nodes.len();
        }
        writer.flush();
    }
}
