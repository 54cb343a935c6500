//! The Redis that a node would use: whether it can be reached, keeps what it takes, and has room.

use super::finding::Finding;
use crate::args::{RedisUrl, ServeArgs, default_node_name};
use crate::inbox::redis::Target;
use crate::inbox::redis::durability::{self, Demands, Level};
use crate::inbox::redis::inquiry::{Inquiry, inquire};
use crate::inbox::{Durability, Error};
use crate::node;
use crate::sizing::{Load, shown};

/// The first version that runs scripts with flags.
const LEAST_VERSION: u64 = 7;
/// Nodes take the time from Redis, so only what people read off `accepted_at` would be wrong.
const MOST_CLOCK_DIFFERENCE_MS: u64 = 1000;
/// Below this a burst of doorbells throws a node's subscriber out.
const LEAST_OUTPUT_BUFFER: u64 = 8 << 20;

/// What a check looks at.
struct Case<'a> {
    found: &'a Inquiry,
    args: &'a ServeArgs,
    demands: Demands,
    load: Load,
}

/// Each says one thing.
const CHECKS: [fn(&Case<'_>) -> Finding; 11] =
    [kind, rights, channels, durability, rewriting, writing, eviction, memory, output_buffer, replicas, clock];

/// Asks it, and looks at what it says.
pub(super) fn examine(url: &RedisUrl, args: &ServeArgs, load: Load) -> Vec<Finding> {
    let name = args.node.clone().unwrap_or_else(|| default_node_name(args.http.port()));
    let target = match Target::parse(url.expose()) {
        Ok(target) => target,
        Err(why) => return vec![Finding::fail("redis", format!("--redis {url}: {why}"))],
    };
    let found = match inquire(&target, &name) {
        Ok(found) => found,
        Err(Error::Unavailable { why, .. }) => {
            return vec![Finding::fail("redis", format!("{url}: {why}; start it, or mend --redis"))];
        }
        Err(error) => return vec![Finding::fail("redis", format!("{url}: {error}"))],
    };
    let millis = found.round_trip.as_secs_f64() * 1000.0;
    let case = Case { found: &found, args, demands: node::demands(args), load };
    let reached = match found.facts.figure("loading") {
        Some("1") => Finding::fail("redis", format!("{url} is still loading its data; ask again when it is done")),
        _ => Finding::ok("redis", format!("{url} answers in {millis:.1} ms")),
    };
    // A Sentinel would fail all others for not being a Redis.
    let checks = if is_sentinel(&found) { &CHECKS[..1] } else { &CHECKS[..] };
    std::iter::once(reached).chain(checks.iter().map(|check| check(&case))).collect()
}

fn is_sentinel(found: &Inquiry) -> bool {
    found.facts.figure("redis_mode") == Some("sentinel")
}

fn kind(case: &Case<'_>) -> Finding {
    let facts = &case.found.facts;
    let what = "version";
    if let Some(version) = facts.figure("valkey_version") {
        return Finding::ok(what, format!("Valkey {version}"));
    }
    let version = facts.figure("redis_version").unwrap_or("of no version");
    let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
    if is_sentinel(case.found) {
        return Finding::fail(what, "this is a Sentinel, which keeps nothing; point --redis at the primary");
    }
    if facts.is_cluster() {
        return Finding::fail(
            what,
            format!("Redis {version} as a Cluster, which is not supported; take a single primary"),
        );
    }
    match major {
        Some(major) if major >= LEAST_VERSION => Finding::ok(what, format!("Redis {version}")),
        _ => Finding::fail(what, format!("Redis {version} lacks what our scripts need; take 7.0 or newer, or Valkey")),
    }
}

fn rights(case: &Case<'_>) -> Finding {
    let what = "rights";
    let Some(denied) = &case.found.denied else {
        return Finding::warn(
            what,
            "not tried, for MULTI is refused; allow it, or see that this user has +@all ~payrelay:*",
        );
    };
    if !denied.commands.is_empty() {
        let list = denied.commands.join(", ");
        return Finding::fail(
            what,
            format!("this user may not use {list}; allow it (ACL SETUSER … +@all ~payrelay:*)"),
        );
    }
    if denied.waiting && case.demands.replicas > 0 {
        return Finding::fail(
            what,
            "this user may not use WAIT, which --wait-replicas needs; allow it (ACL SETUSER … +wait)",
        );
    }
    Finding::ok(what, "this user may run scripts, and what they use")
}

fn channels(case: &Case<'_>) -> Finding {
    let what = "channels";
    match &case.found.denied {
        Some(denied) if !denied.channels.is_empty() => {
            let list = denied.channels.join(", ");
            Finding::warn(
                what,
                format!(
                    "this user may not {list}: what comes in on one node reaches clients of another only with their next look; allow it (ACL SETUSER … +@pubsub &payrelay:*)"
                ),
            )
        }
        Some(_) => Finding::ok(what, "this user may publish and subscribe"),
        None => Finding::warn(what, "not tried, as above"),
    }
}

fn durability(case: &Case<'_>) -> Finding {
    let (what, facts) = ("durability", &case.found.facts);
    let words = durability::words(facts, case.demands.replicas);
    let required = match case.demands.durability {
        // Who says `any` knows what a Redis that does not tell is worth.
        Durability::Any if durability::level(facts) == Level::Unknown => return Finding::warn(what, words),
        // But what is known to lose payments is told, whatever was asked for.
        Durability::Any => Durability::Everysec,
        required => required,
    };
    match durability::cure(facts, required) {
        Some(mend) => Finding::fail(what, format!("{words} To mend it, {mend}")),
        None => Finding::ok(what, words),
    }
}

fn rewriting(case: &Case<'_>) -> Finding {
    let (what, facts) = ("rewriting", &case.found.facts);
    if facts.figure("aof_last_bgrewrite_status") == Some("err") {
        return Finding::warn(
            what,
            "the append-only file could not be rewritten and grows: see Redis' log, make room on its disk",
        );
    }
    if durability::weakens_on_rewrite(facts) {
        return Finding::warn(what, "while the file is rewritten nothing is synced: set no-appendfsync-on-rewrite no");
    }
    match facts.setting("no-appendfsync-on-rewrite") {
        Some(_) => Finding::ok(what, "no promise is weaker while the append-only file is rewritten"),
        None => {
            Finding::warn(what, "not known, for CONFIG GET is not allowed here: no-appendfsync-on-rewrite should be no")
        }
    }
}

fn writing(case: &Case<'_>) -> Finding {
    match durability::cannot_be_written(&case.found.facts) {
        Some(why) => Finding::fail("writing", why),
        None => Finding::ok("writing", "a primary whose last write to its disk did not fail"),
    }
}

fn eviction(case: &Case<'_>) -> Finding {
    let what = "eviction";
    match (durability::evicts(&case.found.facts), case.found.facts.eviction_policy()) {
        (Some(why), _) => Finding::fail(what, why),
        (None, Some(policy)) => {
            Finding::ok(what, format!("maxmemory-policy {policy}: Redis refuses before it forgets"))
        }
        (None, None) => Finding::fail(what, "not known: let this user use INFO or CONFIG GET maxmemory-policy"),
    }
}

fn memory(case: &Case<'_>) -> Finding {
    let (what, facts) = ("memory", &case.found.facts);
    let (limit, machine, used) =
        (facts.number("maxmemory"), facts.number("total_system_memory"), facts.number("used_memory"));
    let most = if limit > 0 { limit } else { machine };
    let mut found = match limit {
        0 => format!("maxmemory is not set, the machine has {}; {} used now", shown(machine), shown(used)),
        limit => format!("maxmemory {}, {} used now", shown(limit), shown(used)),
    };
    if limit > 0 && used >= limit {
        return Finding::warn(
            what,
            format!("{found}: full, payments are refused (503); raise maxmemory or let clients drain it"),
        );
    }
    let needed = case.load.redis_bytes();
    if !case.load.is_none() {
        found = format!("{found}, the expected load takes about {}", shown(needed));
    }
    if most > 0 && needed > most {
        return Finding::warn(what, format!("{found}: payments will be refused (503); raise maxmemory"));
    }
    match limit {
        0 => Finding::warn(what, format!("{found}: the system may end Redis when memory is short; set maxmemory")),
        limit if machine > 0 && limit > machine => {
            Finding::warn(what, format!("{found}: more than the machine's {}; lower it", shown(machine)))
        }
        _ if case.load.is_none() => Finding::ok(
            what,
            format!("{found}; compared with a load that --expect-clients, --expect-pending and --expect-ids tell"),
        ),
        _ => Finding::ok(what, found),
    }
}

fn output_buffer(case: &Case<'_>) -> Finding {
    let what = "pub/sub";
    let Some(setting) = case.found.facts.setting("client-output-buffer-limit") else {
        return Finding::warn(
            what,
            "its buffer is not known, for CONFIG GET is not allowed here: 32 MiB, the default, is right",
        );
    };
    let words: Vec<&str> = setting.split_whitespace().collect();
    let hard = words.iter().position(|word| *word == "pubsub").and_then(|at| words.get(at + 1)?.parse::<u64>().ok());
    let body = u64::try_from(case.args.body_limit).unwrap_or(u64::MAX);
    // A doorbell carries the payment, at its longest six times as long as its body.
    let least = body.saturating_mul(12).max(LEAST_OUTPUT_BUFFER);
    let mend = "CONFIG SET client-output-buffer-limit \"pubsub 32mb 8mb 60\"";
    match hard {
        Some(0) => {
            Finding::warn(what, format!("its buffer has no limit, so a node that hangs fills Redis' memory: {mend}"))
        }
        Some(hard) if hard < least => {
            let mend = if least > 32 << 20 { format!("allow {}", shown(least)) } else { mend.to_owned() };
            Finding::warn(
                what,
                format!("a node is thrown out when {} wait for it, and hears payments late: {mend}", shown(hard)),
            )
        }
        Some(hard) => Finding::ok(what, format!("up to {} may wait for a node", shown(hard))),
        None => Finding::warn(what, format!("its buffer is not known; {mend}")),
    }
}

fn replicas(case: &Case<'_>) -> Finding {
    let (what, facts) = ("replicas", &case.found.facts);
    let (live, waits) = (facts.live_replicas(), case.demands.replicas);
    if let Some(why) = durability::lacks_replicas(facts, waits) {
        return Finding::fail(what, why);
    }
    let found = format!("{live} in step, and payrelay waits for {waits}");
    let guarded = facts.setting("min-replicas-to-write").is_some_and(|least| least != "0");
    if live == 0 {
        Finding::ok(what, "none: nothing to fail over to")
    } else if guarded || facts.setting("min-replicas-to-write").is_none() {
        Finding::ok(what, found)
    } else {
        Finding::warn(
            what,
            format!(
                "{found}; a primary that is cut off goes on taking payments which a failover loses: set min-replicas-to-write 1 and min-replicas-max-lag 10"
            ),
        )
    }
}

fn clock(case: &Case<'_>) -> Finding {
    let (what, ahead) = ("clock", case.found.ahead_ms);
    let away = ahead.unsigned_abs();
    match ahead {
        _ if away <= MOST_CLOCK_DIFFERENCE_MS => {
            Finding::ok(what, format!("Redis' and this machine's are {away} ms apart"))
        }
        _ => Finding::warn(
            what,
            format!(
                "Redis' is {} s {} this machine's: accepted_at and the dedup window follow Redis'; run NTP on both",
                away / 1000,
                if ahead > 0 { "ahead of" } else { "behind" }
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;
    use crate::inbox::redis::facts::Facts;
    use clap::Parser;
    use std::time::Duration;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn checked(check: fn(&Case<'_>) -> Finding, facts: Facts, ahead_ms: i64, load: Load) -> Finding {
        let args = Line::parse_from(["doctor"]).serve;
        let found = Inquiry { facts, round_trip: Duration::ZERO, ahead_ms, denied: None };
        check(&Case { found: &found, args: &args, demands: node::demands(&args), load })
    }

    #[test]
    fn the_kind_of_server_is_told_apart() {
        for (figures, grade, says) in [
            (&[("redis_version", "7.0.15")][..], Grade::Ok, "Redis 7.0.15"),
            (&[("redis_version", "10.1")], Grade::Ok, "10.1"),
            (&[("redis_version", "6.2.14")], Grade::Fail, "7.0 or newer"),
            (&[], Grade::Fail, "no version"),
            (&[("redis_version", "7.2.4"), ("valkey_version", "8.0.1")], Grade::Ok, "Valkey 8.0.1"),
            (&[("redis_version", "7.0.15"), ("redis_mode", "sentinel")], Grade::Fail, "the primary"),
            (&[("redis_version", "7.0.15"), ("cluster_enabled", "1")], Grade::Fail, "Cluster"),
        ] {
            let finding = checked(kind, Facts::of(&[], figures), 0, Load::default());
            assert!(finding.grade == grade && finding.to_string().contains(says), "{finding}");
        }
    }

    #[test]
    fn a_clock_that_is_wrong_is_a_warning() {
        for (ahead_ms, grade, says) in [
            (-1000, Grade::Ok, "1000 ms apart"),
            (1001, Grade::Warn, "1 s ahead of"),
            (-86_400_000, Grade::Warn, "86400 s behind"),
            (i64::MIN, Grade::Warn, "behind"),
        ] {
            let finding = checked(clock, Facts::default(), ahead_ms, Load::default());
            assert!(finding.grade == grade && finding.to_string().contains(says), "{finding}");
        }
    }

    #[test]
    fn memory_is_compared_with_the_load() {
        let load = Load { clients: 1000, pending: 1000, ids: 0, message_bytes: 1000 };
        for (figures, load, grade, says) in [
            (&[("maxmemory", "10000000"), ("used_memory", "1000000")][..], load, Grade::Ok, "takes about 1.6 MiB"),
            (&[("maxmemory", "1000000"), ("used_memory", "900000")], load, Grade::Warn, "raise maxmemory"),
            (&[("maxmemory", "1000000"), ("used_memory", "1000000")], load, Grade::Warn, "full"),
            (&[("maxmemory", "0"), ("total_system_memory", "1000000")], load, Grade::Warn, "will be refused"),
            (&[("maxmemory", "0"), ("total_system_memory", "9000000")], load, Grade::Warn, "set maxmemory"),
            (&[("maxmemory", "9000"), ("total_system_memory", "8000")], Load::default(), Grade::Warn, "lower it"),
            (&[("maxmemory", "9000")], Load::default(), Grade::Ok, "--expect-pending"),
        ] {
            let finding = checked(memory, Facts::of(&[], figures), 0, load);
            assert!(finding.grade == grade && finding.to_string().contains(says), "{finding}");
        }
    }
}
