//! What has to happen in time: L1 liveness, L2 isolation, L3 the bounds from the end of a fault. Each time is measured
//! and reported, and a violation only beyond [`NOISE`].

use super::case::{Attempt, Case, Connection, NEVER, Outcome};
use super::findings::Findings;
use super::windows::{MS, SECOND, Window};
use crate::fault::Kind as Fault;
use crate::history::{Kind, Way, What, uid_text};
use crate::roster;
use crate::verdict::Measure;

/// What every bound is widened by: nodes, Redis, senders, receivers and proxies all share this machine's few cores, and
/// one that stands still for a moment is no bug of payrelay.
const NOISE: u64 = SECOND;

/// L1: how long everything must have been healthy, and how long a post and its delivery may then take.
const HEALTHY_FOR: u64 = 5 * SECOND;
const ALIVE_WITHIN: u64 = 5 * SECOND;

/// L2: what one node's trouble may cost the others; of a thousand posts, and a multiple of the quiet p99.
const FAILED_OF_THOUSAND: usize = 1;
const SLOWER: u64 = 2;
const SLOWER_THAN: u64 = 50 * MS;
/// Below this no share of a thousandth can be judged.
const SAMPLE: usize = 1_000;
/// A node that restarts, or two thousand connections that knock, use the same few cores: a p99 within this multiple of
/// its bound is the machine's doing, beyond it somebody waited for the troubled node.
const CROWDED: u64 = 10;
/// What the others need to notice that clients came over to them.
const SETTLE: u64 = SECOND;

/// L3.
const FIRST_PENDING: u64 = 200 * MS;
const FIRST_ACCEPTED: u64 = SECOND;
const FIRST_DELIVERED: u64 = 2 * SECOND;
const ANSWER_P99: u64 = 2 * SECOND;
const ANSWER_MOST: u64 = 3 * SECOND;
/// A Redis that is frozen answers nothing, so every limit on the way is used up.
const ANSWER_MOST_FROZEN: u64 = 5 * SECOND;
const WITHOUT_DOORBELL: u64 = 3 * SECOND;

/// What is measured where it happens, and its limit: a crowd that comes back, a payment beside a siege, service after a
/// shortage is over.
const MEASURED: [(&str, u64); 5] = [
    ("reconnect storm", 10 * SECOND),
    ("canary under siege", 250 * MS),
    ("descriptors back", 2 * SECOND),
    ("threads back", 2 * SECOND),
    ("accept back", 2 * SECOND),
];

/// Those during which no node can store anything.
const REDIS_AWAY: [Fault; 7] = [Fault::F20, Fault::F22, Fault::F29, Fault::F30, Fault::F31, Fault::F33, Fault::F37];
/// Those that are one node's own.
const LOCAL: [Fault; 9] =
    [Fault::F1, Fault::F2, Fault::F3, Fault::F6, Fault::F7, Fault::F12, Fault::F56, Fault::F57, Fault::F58];

/// Times taken, of one kind.
#[derive(Default)]
struct Sample(Vec<u64>);

impl Sample {
    /// The time that so many of a thousand are not above.
    fn of_thousand(&mut self, share: usize) -> u64 {
        self.0.sort_unstable();
        let place = (self.0.len() * share).div_ceil(1_000).saturating_sub(1);
        self.0.get(place).copied().unwrap_or(0)
    }

    fn most(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    fn measure(&mut self, name: &str, limit: Option<u64>) -> Measure {
        let (p50, p99, most) = (self.of_thousand(500), self.of_thousand(990), self.most());
        let ms = |time| time as f64 / MS as f64;
        Measure {
            name: name.to_owned(),
            count: self.0.len(),
            p50_ms: ms(p50),
            p99_ms: ms(p99),
            max_ms: ms(most),
            limit_ms: limit.map(ms),
        }
    }
}

/// L1: where no fault is in force and none was for 5 s, what is posted to the canary is accepted and delivered within
/// 5 s, whichever node took it in the end.
pub(super) fn l1_alive(case: &Case, findings: &mut Findings<'_>) -> Vec<Measure> {
    let healthy = case.windows.gaps(case.drain.unwrap_or(case.end));
    let is_healthy = |begin: u64| {
        healthy.iter().any(|(from, to)| begin >= since_healthy(*from) && begin + ALIVE_WITHIN + NOISE <= *to)
    };
    let canary = roster::canary(&case.options);
    let first_posts = case.attempts.iter().filter(|attempt| attempt.client == canary && !case.is_again(attempt));
    let mut answered = Sample::default();
    let mut delivered = Sample::default();
    for post in first_posts.filter(|post| is_healthy(post.begin)) {
        let payment = &case.payments[&post.uid];
        let mut within = |at: u64, into: &mut Sample, what: &str| {
            let took = at.saturating_sub(post.begin);
            if at == NEVER || took > ALIVE_WITHIN + NOISE {
                findings.add("L1", post.begin, "the canary", || {
                    let secs = ALIVE_WITHIN / SECOND;
                    format!("{} is not {what} within {secs} s while all is well", uid_text(post.uid))
                });
            } else {
                into.0.push(took);
            }
        };
        within(payment.first_ok, &mut answered, "accepted");
        within(payment.received_at, &mut delivered, "delivered");
    }
    vec![
        answered.measure("canary: post to answer, all well", Some(ALIVE_WITHIN)),
        delivered.measure("canary: post to delivery, all well", Some(ALIVE_WITHIN)),
    ]
}

/// From when on everything has been healthy for long enough, if it is since then. Before the run nothing was wrong.
fn since_healthy(from: u64) -> u64 {
    if from == 0 { 0 } else { from + HEALTHY_FOR }
}

/// L2: while a fault is one node's own, posts to the others succeed and are not much slower than in quiet.
pub(super) fn l2_isolated(case: &Case, findings: &mut Findings<'_>) -> Vec<Measure> {
    let mut quiet = Sample::default();
    for attempt in case.attempts.iter().filter(|attempt| is_plain(attempt) && attempt.outcome == Outcome::Ok) {
        if case.windows.calm(attempt.begin.saturating_sub(SETTLE), attempt.end) {
            quiet.0.push(attempt.took());
        }
    }
    let (mut others, mut failed, mut worst) = (Sample::default(), 0, 0);
    for window in case.windows.all.iter().filter(|window| LOCAL.contains(&window.kind)) {
        for attempt in posted_during(case, window).iter().filter(|attempt| attempt.node != window.node) {
            let is_only_its = is_plain(attempt) && only_this_node(case, window, attempt.begin, attempt.end);
            match attempt.outcome {
                _ if !is_only_its => {}
                Outcome::Ok => others.0.push(attempt.took()),
                Outcome::Fail if (400..500).contains(&attempt.code) => {}
                _ => {
                    failed += 1;
                    worst = attempt.begin;
                }
            }
        }
    }
    let limit = (quiet.of_thousand(990) * SLOWER).max(SLOWER_THAN);
    let posts = others.0.len() + failed;
    if posts >= SAMPLE && failed * 1_000 > posts * FAILED_OF_THOUSAND {
        findings.add("L2", worst, "the other nodes", || {
            format!("{failed} of {posts} posts failed while a fault was one node's own")
        });
    }
    if posts >= SAMPLE && others.of_thousand(990) > limit * CROWDED {
        let p99 = others.of_thousand(990) / MS;
        findings.add("L2", case.end, "the other nodes", || {
            format!("p99 {p99} ms while a fault was one node's own, {} ms expected", limit / MS)
        });
    }
    vec![
        quiet.measure("a post in quiet", None),
        others.measure("a post to another node, a fault being one node's own", Some(limit)),
    ]
}

/// L3: a node is killed: a client that comes to another one gets the first of its pending payments soon after its
/// welcome. Those that read slowly on purpose are left out.
pub(super) fn l3_node_killed(case: &Case, findings: &mut Findings<'_>) -> Measure {
    let mut sample = Sample::default();
    let mut last = 0;
    for window in case.windows.all.iter().filter(|window| window.kind == Fault::F1) {
        let connections = case.connections.values().flatten();
        for connection in connections.filter(|connection| is_refuge(connection, window)) {
            let came = connection.first_receive;
            if came != NEVER && !connection.dawdled && case.windows.alone(window, connection.hello_at, came) {
                sample.0.push(came - connection.welcome_at);
                last = came;
            }
        }
    }
    let p99 = sample.of_thousand(990);
    if p99 > FIRST_PENDING + NOISE {
        let expected = FIRST_PENDING / MS;
        findings.add("L3", last, "clients of a killed node", || {
            format!("p99 of welcome to first pending payment is {} ms, {expected} expected", p99 / MS)
        });
    }
    sample.measure("node killed: welcome elsewhere to the first pending payment", Some(FIRST_PENDING))
}

/// A connection to another node, made after one was killed, for which payments were waiting.
fn is_refuge(connection: &Connection, killed: &Window) -> bool {
    connection.hello_at != NEVER
        && connection.hello_at >= killed.begin
        && connection.welcome_at != NEVER
        && connection.welcome_at <= killed.end
        && connection.node != killed.node
        && connection.pending > 0
}

/// L3: Redis is back, and nothing else is wrong: a post is accepted within 1 s, and something is delivered within 2 s.
pub(super) fn l3_redis_back(case: &Case, findings: &mut Findings<'_>) -> Vec<Measure> {
    let (mut accepted, mut delivered) = (Sample::default(), Sample::default());
    let mut oks: Vec<u64> =
        case.attempts.iter().filter(|attempt| attempt.outcome == Outcome::Ok).map(|ok| ok.end).collect();
    oks.sort_unstable();
    let mut news: Vec<u64> = case.payments.values().map(|payment| payment.received_at).collect();
    news.sort_unstable();
    for window in case.windows.all.iter().filter(|window| REDIS_AWAY.contains(&window.kind)) {
        let what = window.kind.words();
        let mut measure = |times: &[u64], limit: u64, into: &mut Sample, what: String| {
            let until = window.end + limit + NOISE;
            if window.effect.is_none()
                || until > case.drain.unwrap_or(case.end)
                || !case.windows.alone(window, window.end, until)
            {
                return;
            }
            let first = times[times.partition_point(|at| *at < window.end)..].first().copied();
            into.0.push(first.map_or(limit + NOISE, |at| at - window.end));
            if first.is_none_or(|at| at > until) {
                findings.add("L3", window.end, "everybody", || what);
            }
        };
        let late = format!("{what}, and back: no post is accepted within {} s", FIRST_ACCEPTED / SECOND);
        measure(&oks, FIRST_ACCEPTED, &mut accepted, late);
        let late = format!("{what}, and back: nothing is delivered within {} s", FIRST_DELIVERED / SECOND);
        measure(&news, FIRST_DELIVERED, &mut delivered, late);
    }
    vec![
        accepted.measure("Redis back: to the first 2xx", Some(FIRST_ACCEPTED)),
        delivered.measure("Redis back: to the first delivery", Some(FIRST_DELIVERED)),
    ]
}

/// L3: while the store is away, a post that cannot be stored hears so soon.
pub(super) fn l3_answers(case: &Case, findings: &mut Findings<'_>) -> Measure {
    let mut sample = Sample::default();
    let mut last = 0;
    for window in case.windows.all.iter().filter(|window| REDIS_AWAY.contains(&window.kind)) {
        let most = if window.kind == Fault::F22 { ANSWER_MOST_FROZEN } else { ANSWER_MOST };
        for attempt in posted_during(case, window) {
            let is_it = attempt.is_5xx() && is_plain(attempt) && case.windows.alone(window, attempt.begin, attempt.end);
            if !is_it {
                continue;
            }
            sample.0.push(attempt.took());
            last = attempt.end;
            if attempt.took() > most + NOISE {
                findings.add("L3", attempt.end, format!("node {}", attempt.node + 1), || {
                    let (took, what) = (attempt.took() / MS, window.kind.words());
                    format!("{what}: a {} took {took} ms, at most {} expected", attempt.code, most / MS)
                });
            }
        }
    }
    if sample.of_thousand(990) > ANSWER_P99 + NOISE {
        let p99 = sample.of_thousand(990) / MS;
        findings.add("L3", last, "senders", || {
            format!("the store is away: p99 of a 5xx is {p99} ms, {} expected", ANSWER_P99 / MS)
        });
    }
    sample.measure("the store is away: post to 5xx", Some(ANSWER_P99))
}

/// L3: without doorbells, what is accepted for a client that is connected and reads is delivered by the catch-up.
pub(super) fn l3_without_doorbell(case: &Case, findings: &mut Findings<'_>) -> Measure {
    let canary = roster::canary(&case.options);
    let mut sample = Sample::default();
    for window in case.windows.all.iter().filter(|window| window.kind == Fault::F26) {
        for attempt in posted_during(case, window) {
            let until = attempt.end.saturating_add(WITHOUT_DOORBELL + NOISE);
            let is_it = attempt.client == canary && attempt.outcome == Outcome::Ok && !attempt.duplicate;
            if !is_it || until > case.end || !case.windows.alone(window, attempt.begin, until) {
                continue;
            }
            let came = case.payments[&attempt.uid].received_at;
            sample.0.push(came.saturating_sub(attempt.end).min(WITHOUT_DOORBELL + NOISE));
            if came > until {
                findings.add("L3", attempt.end, "the canary", || {
                    let secs = WITHOUT_DOORBELL / SECOND;
                    format!("seq {} is not delivered within {secs} s without doorbells", attempt.seq)
                });
            }
        }
    }
    sample.measure("no doorbell: accepted to delivered", Some(WITHOUT_DOORBELL))
}

/// L3: what was measured where it happened, judged where only one fault was in force.
pub(super) fn l3_measured(case: &Case, findings: &mut Findings<'_>) -> Vec<Measure> {
    let mut names: Vec<(&str, Sample)> = Vec::new();
    for event in &case.story.events {
        let What::Measured { bound, ms } = &event.what else { continue };
        let took = (ms * MS as f64) as u64;
        let place = names.iter().position(|(name, _)| name == bound);
        let place = place.unwrap_or_else(|| {
            names.push((bound, Sample::default()));
            names.len() - 1
        });
        names[place].1.0.push(took);
        let limit = limit_of(bound).filter(|limit| took > limit + NOISE);
        let in_force = |window: &&Window| window.touches(event.at.saturating_sub(took), event.at);
        if let Some(limit) = limit.filter(|_| case.windows.all.iter().filter(in_force).count() <= 1) {
            findings.add("L3", event.at, bound.clone(), || format!("took {ms:.0} ms, {} expected", limit / MS));
        }
    }
    names.iter_mut().map(|(name, sample)| sample.measure(name, limit_of(name))).collect()
}

fn limit_of(bound: &str) -> Option<u64> {
    MEASURED.iter().find(|(name, _)| *name == bound).map(|(_, limit)| *limit)
}

/// Attempts that began during a fault: they are in the order of their beginning.
fn posted_during<'a>(case: &'a Case, window: &Window) -> &'a [Attempt] {
    let from = case.attempts.partition_point(|attempt| attempt.begin < window.begin);
    let to = case.attempts.partition_point(|attempt| attempt.begin < window.end);
    &case.attempts[from..to]
}

/// A post whose time says something about the node: it is not meant to wait, to be cut, or to be long.
fn is_plain(attempt: &Attempt) -> bool {
    attempt.end != NEVER && [Way::Single, Way::Raw, Way::Canary].iter().any(|way| attempt.is(*way))
}

/// Whether every fault in force in this time is local to the node of `window`.
fn only_this_node(case: &Case, window: &Window, from: u64, to: u64) -> bool {
    let mut others = case.windows.all.iter().filter(|other| other.touches(from.saturating_sub(SETTLE), to));
    others.all(|other| LOCAL.contains(&other.kind) && other.node == window.node)
}

/// Whether the canary was there at all: without it neither L1 nor a bound of delivery is judged.
pub(super) fn canary_received(case: &Case) -> bool {
    let canary = roster::canary(&case.options);
    case.story.records.iter().any(|record| record.kind == Kind::Receive && record.client == canary)
}
