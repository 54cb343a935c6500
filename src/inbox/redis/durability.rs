//! What a 2xx is worth on this Redis, in words, and whether that is enough.
//!
//! Source of the words: README.md, *What a 2xx is worth*. Values only: who asks Redis is `facts.rs`.

use super::facts::Facts;
use crate::inbox::{Durability, Error};

/// What a node asks of its Redis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demands {
    pub(crate) durability: Durability,
    /// How many replicas must have a payment before its 2xx.
    pub(crate) replicas: usize,
}

/// What Redis' word is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) words: String,
    pub(super) warnings: Vec<String>,
    /// Why payments must not be taken, if so.
    pub(super) refusal: Option<String>,
}

/// How much is lost at most, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing that the disk keeps.
    Always,
    /// A second or two.
    EverySecond,
    /// More.
    Less,
    /// Redis does not say.
    Unknown,
}

/// Judges all of it.
pub(super) fn judge(facts: &Facts, demands: Demands) -> Verdict {
    let refusals = [
        evicts(facts),
        is_full(facts),
        cannot_be_written(facts),
        lacks_replicas(facts, demands.replicas),
        keeps_less(facts, demands.durability),
    ];
    let warnings = has_no_limit(facts).into_iter().collect();
    Verdict { words: words(facts, demands.replicas), warnings, refusal: refusals.into_iter().flatten().next() }
}

/// How well it keeps what it took.
pub(crate) fn level(facts: &Facts) -> Level {
    match (facts.setting("appendonly"), facts.setting("appendfsync")) {
        (Some("yes"), Some("always")) => Level::Always,
        (Some("yes"), Some("everysec")) => Level::EverySecond,
        (None, _) => Level::Unknown,
        _ => Level::Less,
    }
}

/// What a 2xx is worth, for an operator to read.
pub(crate) fn words(facts: &Facts, wait_replicas: usize) -> String {
    let mut words = match level(facts) {
        Level::Always => ALWAYS.to_owned(),
        Level::EverySecond => EVERY_SECOND.to_owned(),
        Level::Unknown => unknown(facts.figure("aof_enabled")),
        Level::Less if facts.setting("appendonly") == Some("yes") => loses("up to about 30 s"),
        Level::Less if takes_snapshots(facts) => loses("all since the last snapshot"),
        Level::Less => NOTHING.to_owned(),
    };
    if weakens_on_rewrite(facts) {
        words.push_str(" Weaker while the file is rewritten.");
    }
    if facts.may_fail_over() || wait_replicas > 0 {
        words.push_str(" A failover can lose payments the new primary had not received.");
    }
    match wait_replicas {
        0 => {}
        1 => words.push_str(" payrelay waits for 1 replica (narrows it, does not close it)."),
        n => words.push_str(&format!(" payrelay waits for {n} replicas (narrows it, does not close it).")),
    }
    words
}

fn takes_snapshots(facts: &Facts) -> bool {
    facts.setting("save").is_some_and(|points| !points.is_empty())
}

/// Whether the fsyncs that were promised stop for a while now and then.
pub(crate) fn weakens_on_rewrite(facts: &Facts) -> bool {
    facts.setting("no-appendfsync-on-rewrite") == Some("yes") && level(facts) < Level::Less
}

/// Whether Redis throws inboxes away where memory is short.
pub(crate) fn evicts(facts: &Facts) -> Option<String> {
    let policy = facts.eviction_policy().filter(|policy| *policy != "noeviction")?;
    Some(format!("Redis may evict inboxes. Set maxmemory-policy noeviction (it is {policy})"))
}

fn is_full(facts: &Facts) -> Option<String> {
    let most = facts.number("maxmemory");
    let full = most > 0 && facts.number("used_memory") >= most;
    full.then(|| format!("{}: Redis has used its maxmemory", Error::StoreFull))
}

fn has_no_limit(facts: &Facts) -> Option<String> {
    let unlimited = facts.figure("maxmemory") == Some("0");
    unlimited.then(|| "maxmemory is not set: Redis may be ended by the system when memory is short".to_owned())
}

/// Whether Redis takes no writes as it is.
pub(crate) fn cannot_be_written(facts: &Facts) -> Option<String> {
    let failed = |figure| facts.figure(figure) == Some("err");
    if facts.is_replica() {
        return Some("this Redis is a replica and takes no writes: point --redis at the primary".into());
    }
    if failed("aof_last_write_status") {
        return Some("Redis could not write its append-only file: see its log, make room on its disk".into());
    }
    let stops = facts.setting("stop-writes-on-bgsave-error") != Some("no") && takes_snapshots(facts);
    (failed("rdb_last_bgsave_status") && stops)
        .then(|| "Redis could not write its last snapshot and takes no writes until it can: see its log".into())
}

/// Whether fewer replicas are in step than each payment has to wait for.
pub(crate) fn lacks_replicas(facts: &Facts, wanted: usize) -> Option<String> {
    let live = facts.live_replicas();
    let enough = live >= u64::try_from(wanted).unwrap_or(u64::MAX);
    (!enough).then(|| {
        format!("{live} of the {wanted} replicas that --wait-replicas asks for are connected: start replicas, or ask for fewer")
    })
}

fn keeps_less(facts: &Facts, required: Durability) -> Option<String> {
    let mend = cure(facts, required)?;
    Some(format!("Redis keeps less than --require-durability {required} asks for: {mend}, or ask for less"))
}

/// How to have it keep what is required, where it keeps less.
pub(crate) fn cure(facts: &Facts, required: Durability) -> Option<&'static str> {
    let (most, mend) = match required {
        Durability::Always => (Level::Always, "set appendonly yes and appendfsync always"),
        Durability::Everysec => (Level::EverySecond, "set appendonly yes and appendfsync everysec (or always)"),
        Durability::Any => return None,
    };
    (level(facts) > most).then_some(mend)
}

const ALWAYS: &str = "durable: a 2xx is on Redis' disk before it is sent. Survives a crash of payrelay, of Redis and \
                      of the machine, as far as the disk keeps its word.";
const EVERY_SECOND: &str = "survives a crash of payrelay, and of the Redis process on a healthy disk. A power cut \
                            loses about the last second; a stalled or full disk can lose about two seconds of \
                            accepted payments, even on a plain Redis crash.";
const NOTHING: &str = "memory only: a restart of Redis loses every pending payment.";

fn loses(what: &str) -> String {
    format!("a Redis crash or power cut loses accepted payments: {what}.")
}

fn unknown(aof_enabled: Option<&str>) -> String {
    let aof = match aof_enabled {
        Some("1") => " The append-only file is on.",
        Some(_) => " The append-only file is off.",
        None => "",
    };
    format!("durability unknown: CONFIG GET is not allowed here.{aof}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYSEC: [(&str, &str); 2] = [("appendonly", "yes"), ("appendfsync", "everysec")];

    fn judged(settings: &[(&str, &str)], figures: &[(&str, &str)], durability: Durability, replicas: usize) -> Verdict {
        judge(&Facts::of(settings, figures), Demands { durability, replicas })
    }

    #[test]
    fn always_is_enough_for_everything() {
        let verdict = judged(&[("appendonly", "yes"), ("appendfsync", "always")], &[], Durability::Always, 0);
        assert!(verdict.words.starts_with("durable"));
        assert_eq!(verdict.refusal, None);
    }

    #[test]
    fn less_than_asked_for_is_refused_with_the_cure() {
        let refusal = |settings: &[_], required| judged(settings, &[], required, 0).refusal;
        assert_eq!(refusal(&EVERYSEC, Durability::Everysec), None);
        assert!(refusal(&EVERYSEC, Durability::Always).is_some_and(|r| r.contains("appendfsync always")));
        let nothing = [("appendonly", "no"), ("save", "")];
        assert!(refusal(&nothing, Durability::Everysec).is_some());
        assert_eq!(refusal(&nothing, Durability::Any), None);
        assert_eq!(judged(&nothing, &[], Durability::Any, 0).words, NOTHING);
    }

    #[test]
    fn the_words_tell_how_much_is_lost() {
        let (yes, no) = (("appendonly", "yes"), ("appendonly", "no"));
        let rewriting = [EVERYSEC[0], EVERYSEC[1], ("no-appendfsync-on-rewrite", "yes")];
        let cases: [(&[_], &[_], &str); 7] = [
            (&[yes, ("appendfsync", "no")], &[], "loses accepted payments: up to about 30 s."),
            (&[no, ("save", "3600 1 300 100 60 10000")], &[], "loses accepted payments: all since the last snapshot."),
            (&[no, ("save", ""), ("no-appendfsync-on-rewrite", "yes")], &[], "every pending payment."),
            (&rewriting, &[], "a plain Redis crash. Weaker while the file is rewritten."),
            (&EVERYSEC, &[("connected_slaves", "1")], "A failover can lose payments the new primary had not received."),
            (&EVERYSEC, &[("cluster_enabled", "1")], "A failover can lose payments the new primary had not received."),
            (&[], &[("aof_enabled", "1")], "CONFIG GET is not allowed here. The append-only file is on."),
        ];
        for (settings, figures, end) in cases {
            let words = judged(settings, figures, Durability::Any, 0).words;
            assert!(words.ends_with(end), "{words}");
        }
    }

    #[test]
    fn replicas_that_are_waited_for_must_be_there() {
        let replica = [("connected_slaves", "1"), ("slave0", "state=online,offset=1,lag=0")];
        let verdict = judged(&EVERYSEC, &replica, Durability::Everysec, 1);
        assert!(verdict.words.ends_with("payrelay waits for 1 replica (narrows it, does not close it)."));
        assert_eq!(verdict.refusal, None);
        let verdict = judged(&EVERYSEC, &replica, Durability::Everysec, 2);
        assert!(verdict.words.ends_with("payrelay waits for 2 replicas (narrows it, does not close it)."));
        assert!(verdict.refusal.is_some_and(|refusal| refusal.starts_with("1 of the 2 replicas")));
    }

    #[test]
    fn a_redis_that_takes_no_writes_is_refused() {
        let points = [EVERYSEC[0], EVERYSEC[1], ("save", "60 1")];
        for (settings, figure) in [
            (&points, ("aof_last_write_status", "err")),
            (&points, ("rdb_last_bgsave_status", "err")),
            (&points, ("role", "slave")),
        ] {
            assert!(judged(settings, &[figure], Durability::Any, 0).refusal.is_some(), "{figure:?}");
        }
        let old_trouble = [("rdb_last_bgsave_status", "err")];
        assert_eq!(judged(&EVERYSEC, &old_trouble, Durability::Any, 0).refusal, None, "no snapshots are asked for");
    }

    #[test]
    fn eviction_is_refused_whatever_was_asked_for() {
        for policy in ["allkeys-lru", "volatile-ttl"] {
            let evicting = [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", policy)];
            let refusal = judged(&evicting, &[], Durability::Any, 0).refusal;
            assert!(refusal.is_some_and(|refusal| refusal.starts_with("Redis may evict inboxes.")));
        }
        let told_by_info = judged(&[], &[("maxmemory_policy", "allkeys-lru")], Durability::Any, 0);
        assert!(told_by_info.refusal.is_some());
    }

    #[test]
    fn what_cannot_be_asked_is_unknown() {
        assert!(judged(&[], &[], Durability::Any, 0).words.starts_with("durability unknown"));
        assert!(judged(&[], &[], Durability::Everysec, 0).refusal.is_some());
    }
}
