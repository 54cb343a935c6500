//! What happens to Redis itself: killed, frozen, loading, busy, out of memory or connections, read-only, forgetful.
//!
//! Everything is said to it past the proxies, and nothing here minds that it does not answer.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Fault, Repeated, Skipped};
use crate::harness::redis::Session;
use crate::harness::{Redis, Reply, eventually_true};
use crate::history::What;
use crate::plan::Step;
use crate::world::World;

/// How long Redis may take to say something when nothing is wrong with it.
const CALL_LIMIT: Duration = Duration::from_secs(3);
/// How long it may take to come back.
const BACK_LIMIT: Duration = Duration::from_secs(60);
/// Nobody listens there.
const DEAD_PORT: &str = "1";

/// One command on a connection of its own.
pub fn ask<T: AsRef<[u8]>>(redis: &Redis, words: &[T]) -> io::Result<Reply> {
    redis.session(CALL_LIMIT)?.ask(words)
}

/// The same until Redis says OK (or that it is so already), or for [`BACK_LIMIT`].
pub fn insist(world: &World, redis: &Redis, words: &[&str]) {
    let is_ok = || matches!(ask(redis, words), Ok(Reply::Text(text)) if text.starts_with("OK"));
    if !eventually_true(BACK_LIMIT, is_ok) {
        world.history.event(What::Remark { text: format!("Redis does not take {words:?}") });
    }
}

/// Starts its process, and does not wait until it answers.
pub fn launch(world: &World, redis: &Redis) {
    if let Err(cause) = redis.launch(&[]) {
        world.history.event(What::Remark { text: format!("redis-server does not start: {cause}") });
    }
}

/// Waits until it answers and takes a write; starts it where it does not run.
pub fn bring_back(world: &World, redis: &Redis) {
    let is_back = || {
        if redis.has_ended() || redis.pid().is_none() {
            launch(world, redis);
        }
        takes_writes(redis)
    };
    if !eventually_true(BACK_LIMIT, is_back) {
        world.history.event(What::Remark { text: "Redis does not come back".into() });
    }
}

fn takes_writes(redis: &Redis) -> bool {
    let written = ask(redis, &["SET", "torture:probe", "1", "PX", "1"]);
    redis.is_up() && matches!(written, Ok(Reply::Text(text)) if text == "OK")
}

/// Everything as it was at the start, whatever a fault left.
pub fn mend(world: &World) {
    let redis = world.redis();
    redis.resume();
    if redis.has_ended() || redis.pid().is_none() {
        launch(world, redis);
    }
    let _ = ask(redis, &["SCRIPT", "KILL"]);
    let _ = ask(redis, &["REPLICAOF", "NO", "ONE"]);
    let defaults = [
        ("maxmemory", "0"),
        ("key-load-delay", "0"),
        ("busy-reply-threshold", "5000"),
        ("client-output-buffer-limit", "pubsub 32mb 8mb 60"),
    ];
    for (name, value) in defaults {
        insist(world, redis, &["CONFIG", "SET", name, value]);
    }
    bring_back(world, redis);
}

struct Killed {
    pid: Option<u32>,
}

/// F20: kill -9; started again on the same data at the end.
pub fn kill(world: &World) -> Box<dyn Fault> {
    let redis = world.redis();
    let pid = redis.pid();
    redis.kill();
    Box::new(Killed { pid })
}

impl Fault for Killed {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        bring_back(world, world.redis());
        u64::from(self.pid.is_some() && world.redis().pid() != self.pid)
    }
}

struct Frozen {
    /// How long one that asked at the beginning had to wait.
    waited: JoinHandle<Duration>,
    length: Duration,
}

/// F22: SIGSTOP, and SIGCONT at the end. `amount` 1: CLIENT PAUSE instead, for as long.
pub fn freeze(world: &World, step: &Step) -> Box<dyn Fault> {
    let (redis, length) = (world.redis(), Duration::from_millis(step.length_ms));
    let session = redis.session(length + BACK_LIMIT);
    match step.amount {
        0 => redis.pause(),
        _ => drop(ask(redis, &["CLIENT", "PAUSE", &step.length_ms.to_string(), "ALL"])),
    }
    let waited = thread::spawn(move || {
        let start = Instant::now();
        let answer = session.and_then(|mut session| session.ask(&["PING"]));
        answer.map_or(Duration::ZERO, |_| start.elapsed())
    });
    Box::new(Frozen { waited, length })
}

impl Fault for Frozen {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        world.redis().resume();
        bring_back(world, world.redis());
        let waited = self.waited.join().unwrap_or_default();
        u64::from(waited >= self.length / 2)
    }
}

struct Loading {
    seen: Repeated,
}

/// F29: started anew, and `amount` µs slower for every command it reads from its file.
pub fn load_slowly(world: &Arc<World>, step: &Step) -> Box<dyn Fault> {
    let redis = Arc::clone(world.redis());
    let slow = ["--key-load-delay", &step.amount.to_string(), "--loading-process-events-interval-bytes", "65536"];
    if let Err(cause) = redis.launch(&slow) {
        world.history.event(What::Remark { text: format!("redis-server does not start: {cause}") });
    }
    let seen = Repeated::start(move || {
        let answer = ask(&redis, &["PING"]);
        let is_loading = matches!(answer, Ok(Reply::Error(error)) if error.starts_with("LOADING"));
        (u64::from(is_loading), Duration::from_millis(20))
    });
    Box::new(Loading { seen })
}

impl Fault for Loading {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        insist(world, world.redis(), &["CONFIG", "SET", "key-load-delay", "0"]);
        let seen = self.seen.stop();
        bring_back(world, world.redis());
        seen
    }
}

/// A fault whose effect Redis counts itself.
struct Counted {
    figure: &'static str,
    before: u64,
    /// What keeps it in force.
    repeated: Option<Repeated>,
    /// What ends it.
    cure: Cure,
}

enum Cure {
    Nothing,
    Command(&'static [&'static str]),
    KillScript,
}

impl Counted {
    fn new(redis: &Redis, figure: &'static str, cure: Cure) -> Counted {
        Counted { figure, before: redis.try_info(figure).unwrap_or(0), repeated: None, cure }
    }
}

impl Fault for Counted {
    fn heal(self: Box<Self>, world: &World) -> u64 {
        let redis = world.redis();
        if let Some(repeated) = self.repeated {
            repeated.stop();
        }
        match self.cure {
            Cure::Nothing => {}
            Cure::Command(words) => insist(world, redis, words),
            Cure::KillScript => kill_script(world, redis),
        }
        bring_back(world, redis);
        redis.try_info(self.figure).unwrap_or(0).saturating_sub(self.before)
    }
}

/// F30: a script without an end, which writes nothing.
pub fn keep_busy(world: &World) -> Box<dyn Fault> {
    let redis = world.redis();
    let counted = Counted::new(redis, "errorstat_BUSY", Cure::KillScript);
    insist(world, redis, &["CONFIG", "SET", "busy-reply-threshold", "100"]);
    // Its reply is the error of having been killed, and nobody waits for it.
    let session = redis.session(BACK_LIMIT);
    let sent = session.and_then(|mut session| session.tell(&["EVAL", "while true do end", "0"]).map(|()| session));
    thread::spawn(move || sent.and_then(|mut session| session.hear()));
    Box::new(counted)
}

fn kill_script(world: &World, redis: &Redis) {
    let is_killed = || match ask(redis, &["SCRIPT", "KILL"]) {
        Ok(Reply::Text(text)) => text == "OK",
        Ok(Reply::Error(error)) => error.starts_with("NOTBUSY"),
        _ => false,
    };
    if !eventually_true(BACK_LIMIT, is_killed) {
        world.history.event(What::Remark { text: "the endless script cannot be killed".into() });
    }
    insist(world, redis, &["CONFIG", "SET", "busy-reply-threshold", "5000"]);
}

/// F31: the limit of its memory is `amount` % below what it uses, however that falls meanwhile.
pub fn run_out_of_memory(world: &Arc<World>, step: &Step) -> Box<dyn Fault> {
    let (redis, less) = (Arc::clone(world.redis()), step.amount);
    let mut counted = Counted::new(&redis, "errorstat_OOM", Cure::Command(&["CONFIG", "SET", "maxmemory", "0"]));
    counted.repeated = Some(Repeated::start(move || {
        if let Some(used) = redis.try_info("used_memory") {
            let limit = (used - used * less / 100 - 1).to_string();
            let _ = ask(&redis, &["CONFIG", "SET", "maxmemory", &limit]);
        }
        (0, Duration::from_millis(200))
    }));
    Box::new(counted)
}

/// F33: the replica of a primary that does not exist; it takes no writes, and keeps all that it has.
pub fn demote(world: &World) -> Box<dyn Fault> {
    let redis = world.redis();
    let counted = Counted::new(redis, "errorstat_READONLY", Cure::Command(&["REPLICAOF", "NO", "ONE"]));
    insist(world, redis, &["REPLICAOF", "127.0.0.1", DEAD_PORT]);
    Box::new(counted)
}

/// F36: SCRIPT FLUSH every `amount` ms.
pub fn forget_scripts(world: &Arc<World>, step: &Step) -> Box<dyn Fault> {
    let (redis, pause) = (Arc::clone(world.redis()), Duration::from_millis(step.amount.max(1)));
    let mut counted = Counted::new(&redis, "errorstat_NOSCRIPT", Cure::Nothing);
    counted.repeated = Some(Repeated::start(move || {
        let _ = ask(&redis, &["SCRIPT", "FLUSH"]);
        (0, pause)
    }));
    Box::new(counted)
}

struct Full {
    /// Ours stays: with all places taken there is no other way in.
    session: Session,
    /// What it was.
    limit: String,
    before: u64,
}

/// F37: `amount` connections and no more, one of them ours; all others are closed and may try for the rest.
pub fn run_out_of_connections(world: &World, step: &Step) -> Result<Box<dyn Fault>, Skipped> {
    let redis = world.redis();
    let before = redis.try_info("rejected_connections").unwrap_or(0);
    let failed = |cause: io::Error| Skipped(format!("Redis cannot be told: {cause}"));
    let mut session = redis.session(CALL_LIMIT).map_err(failed)?;
    let limit = match session.ask(&["CONFIG", "GET", "maxclients"]).map_err(failed)? {
        Reply::List(found) => match found.as_slice() {
            [_, Reply::Text(limit)] => limit.clone(),
            other => return Err(Skipped(format!("Redis says of maxclients {other:?}"))),
        },
        other => return Err(Skipped(format!("Redis says of maxclients {other:?}"))),
    };
    let commands: [&[&str]; 3] = [
        &["CONFIG", "SET", "maxclients", &step.amount.max(2).to_string()],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["CLIENT", "KILL", "TYPE", "pubsub"],
    ];
    for command in commands {
        if let Err(cause) = session.ask(command) {
            world.history.event(What::Remark { text: format!("{command:?}: {cause}") });
        }
    }
    Ok(Box::new(Full { session, limit, before }))
}

impl Fault for Full {
    fn heal(mut self: Box<Self>, world: &World) -> u64 {
        let redis = world.redis();
        let command = ["CONFIG", "SET", "maxclients", &self.limit];
        if !matches!(self.session.ask(&command), Ok(Reply::Text(text)) if text == "OK") {
            // A place becomes free for whoever is quick.
            world.nodes.iter().for_each(|node| node.redis.cut());
            insist(world, redis, &command);
        }
        bring_back(world, redis);
        redis.try_info("rejected_connections").unwrap_or(0).saturating_sub(self.before)
    }
}
