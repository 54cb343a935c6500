//! What a 2xx is worth on this Redis, in words, and whether that is enough.

use super::connection::{Lines, Pipeline};
use super::reply::{text, texts};
use crate::inbox::{Durability, Error};
use std::collections::HashMap;

/// What Redis says of how it keeps things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) words: String,
    pub(super) warnings: Vec<String>,
    /// Why payments must not be taken, if so.
    pub(super) refusal: Option<String>,
}

/// Asks Redis. `None`: it did not answer.
pub(super) fn ask(lines: &Lines, required: Durability) -> Option<Verdict> {
    let mut pipeline = Pipeline::default();
    let settings = ["appendonly", "appendfsync", "save", "maxmemory-policy", "no-appendfsync-on-rewrite"];
    for name in settings {
        pipeline.command(&[b"CONFIG", b"GET", name.as_bytes()]);
    }
    pipeline.command(&[b"INFO"]);
    let mut replies = lines.call(&pipeline);
    let info = parse_info(&text(&replies.pop()?.ok()?)?);
    let mut config = HashMap::new();
    for (name, reply) in settings.into_iter().zip(replies) {
        if let Some(value) = reply.ok().and_then(|reply| texts(&reply).into_iter().nth(1)) {
            config.insert(name, value);
        }
    }
    Some(judge(&config, &info, required))
}

fn parse_info(text: &str) -> HashMap<String, String> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// How much is lost at most, from least to most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Always,
    EverySecond,
    Less,
}

fn judge(config: &HashMap<&str, String>, info: &HashMap<String, String>, required: Durability) -> Verdict {
    let get = |name: &str| config.get(name).map(String::as_str);
    let told = |name: &str| info.get(name).map(String::as_str);
    let (level, mut words) = match (get("appendonly"), get("appendfsync")) {
        (Some("yes"), Some("always")) => (Level::Always, ALWAYS.to_owned()),
        (Some("yes"), Some("everysec")) => (Level::EverySecond, EVERY_SECOND.to_owned()),
        (Some("yes"), _) => (Level::Less, loses("up to about 30 s")),
        (Some(_), _) if get("save").is_some_and(|save| !save.is_empty()) => {
            (Level::Less, loses("all since the last snapshot"))
        }
        (Some(_), _) => (Level::Less, NOTHING.to_owned()),
        (None, _) => (Level::Less, unknown(told("aof_enabled"))),
    };
    if get("no-appendfsync-on-rewrite") == Some("yes") && level < Level::Less {
        words.push_str(" Weaker while the file is rewritten.");
    }
    let mut warnings = Vec::new();
    if told("connected_slaves").is_some_and(|n| n != "0") || told("role") == Some("slave") {
        warnings.push("a failover can lose payments that the new primary had not received".to_owned());
    }
    if told("maxmemory") == Some("0") {
        warnings.push("maxmemory is not set: Redis may be ended by the system when memory is short".to_owned());
    }
    let policy = get("maxmemory-policy").or(told("maxmemory_policy"));
    let bytes = |name| told(name).and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0);
    let full = bytes("maxmemory") > 0 && bytes("used_memory") >= bytes("maxmemory");
    Verdict { words, warnings, refusal: refusal(level, required, policy, told("role"), full) }
}

fn refusal(level: Level, required: Durability, policy: Option<&str>, role: Option<&str>, full: bool) -> Option<String> {
    let enough = match required {
        Durability::Always => level <= Level::Always,
        Durability::Everysec => level <= Level::EverySecond,
        Durability::Any => true,
    };
    if let Some(policy) = policy.filter(|policy| *policy != "noeviction") {
        return Some(format!("Redis may evict inboxes: set maxmemory-policy noeviction (it is {policy})"));
    }
    if full {
        return Some(format!("{}: Redis has used its maxmemory", Error::StoreFull));
    }
    if role == Some("slave") {
        return Some("this Redis is a replica and takes no writes: point --redis at the primary".into());
    }
    (!enough).then(|| {
        let mend = match required {
            Durability::Always => "set appendonly yes and appendfsync always, or ask for less",
            _ => "set appendonly yes and appendfsync everysec (or always), or ask for less",
        };
        format!("Redis keeps less than --require-durability {required} asks for: {mend}")
    })
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

    fn judged(config: &[(&'static str, &str)], required: Durability) -> Verdict {
        let config = config.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        judge(&config, &HashMap::new(), required)
    }

    #[test]
    fn always_is_enough_for_everything() {
        let verdict = judged(&[("appendonly", "yes"), ("appendfsync", "always")], Durability::Always);
        assert!(verdict.words.starts_with("durable"));
        assert_eq!(verdict.refusal, None);
    }

    #[test]
    fn less_than_asked_for_is_refused_with_the_cure() {
        let everysec = [("appendonly", "yes"), ("appendfsync", "everysec")];
        assert_eq!(judged(&everysec, Durability::Everysec).refusal, None);
        assert!(judged(&everysec, Durability::Always).refusal.is_some_and(|r| r.contains("appendfsync always")));
        let nothing = [("appendonly", "no"), ("save", "")];
        assert!(judged(&nothing, Durability::Everysec).refusal.is_some());
        assert_eq!(judged(&nothing, Durability::Any).refusal, None);
        assert_eq!(judged(&nothing, Durability::Any).words, NOTHING);
    }

    #[test]
    fn eviction_is_refused_whatever_was_asked_for() {
        let evicting = [("appendonly", "yes"), ("appendfsync", "always"), ("maxmemory-policy", "allkeys-lru")];
        assert!(judged(&evicting, Durability::Any).refusal.is_some_and(|r| r.contains("evict")));
    }

    #[test]
    fn what_cannot_be_asked_is_unknown() {
        assert!(judged(&[], Durability::Any).words.starts_with("durability unknown"));
        assert!(judged(&[], Durability::Everysec).refusal.is_some());
    }
}
