//! What a Redis tells of itself: settings by `CONFIG GET`, figures by `INFO`. Asks, and changes
//! nothing. What follows from it is `durability.rs`' to say.

use super::Replies;
use super::connection::Pipeline;
use super::reply::{senseless, text, texts};
use crate::inbox::Error;
use std::collections::HashMap;

/// The settings that are asked for.
const SETTINGS: [&str; 8] = [
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "save",
    "stop-writes-on-bgsave-error",
    "maxmemory-policy",
    "client-output-buffer-limit",
    "min-replicas-to-write",
];
/// A replica that has said nothing for longer is not counted. It speaks once a second.
const MAX_SILENCE_SECS: u64 = 3;

/// What it told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    settings: HashMap<String, String>,
    figures: HashMap<String, String>,
}

impl Facts {
    /// Asks it. That `CONFIG GET` is forbidden is no error: then no setting is known.
    pub(super) fn learn(ask: impl FnOnce(&Pipeline) -> Replies) -> Result<Facts, Error> {
        let mut pipeline = Pipeline::default();
        pipeline.command(&[b"INFO"]);
        for name in SETTINGS {
            pipeline.command(&[b"CONFIG", b"GET", name.as_bytes()]);
        }
        let mut replies = ask(&pipeline).into_iter();
        let info = replies.next().unwrap_or_else(|| Err(senseless("no reply")))?;
        let info = text(&info).ok_or_else(|| senseless("INFO is no text"))?;
        let figures = info.lines().filter_map(|line| line.split_once(':'));
        let figures = figures.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        let value = |reply: Result<_, Error>| texts(&reply.ok()?).into_iter().nth(1);
        let settings = SETTINGS.iter().zip(replies);
        let settings = settings.filter_map(|(name, reply)| Some(((*name).to_owned(), value(reply)?))).collect();
        Ok(Facts { settings, figures })
    }

    /// A setting, where `CONFIG GET` told it.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// A line of `INFO`.
    pub(crate) fn figure(&self, name: &str) -> Option<&str> {
        self.figures.get(name).map(String::as_str)
    }

    /// The same as a number; 0 where there is none.
    pub(crate) fn number(&self, name: &str) -> u64 {
        self.figure(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// What is done when memory is short, which `INFO` tells where `CONFIG GET` is forbidden.
    pub(crate) fn eviction_policy(&self) -> Option<&str> {
        self.setting("maxmemory-policy").or(self.figure("maxmemory_policy"))
    }

    /// How many replicas have everything but the last moments.
    pub(crate) fn live_replicas(&self) -> u64 {
        let replicas = (0..self.number("connected_slaves")).filter_map(|n| self.figure(&format!("slave{n}")));
        let is_live = |line: &&str| {
            let field = |name: &str| line.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            let lag = field("lag").and_then(|lag| lag.parse::<u64>().ok());
            field("state") == Some("online") && lag.is_some_and(|lag| lag <= MAX_SILENCE_SECS)
        };
        u64::try_from(replicas.filter(is_live).count()).unwrap_or(0)
    }

    /// Whether another Redis may take this one's place, or this one is none to write to.
    pub(crate) fn may_fail_over(&self) -> bool {
        self.number("connected_slaves") > 0 || self.is_replica() || self.is_cluster()
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.figure("role") == Some("slave")
    }

    pub(crate) fn is_cluster(&self) -> bool {
        self.figure("cluster_enabled") == Some("1")
    }

    /// For tests: these and nothing else.
    #[cfg(test)]
    pub(crate) fn of(settings: &[(&str, &str)], figures: &[(&str, &str)]) -> Facts {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Facts { settings: owned(settings), figures: owned(figures) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_counts_while_it_is_in_step() {
        let figures = [
            ("connected_slaves", "4"),
            ("slave0", "ip=10.0.0.2,port=6379,state=online,offset=50,lag=1"),
            ("slave1", "ip=10.0.0.3,port=6379,state=online,offset=50,lag=4"),
            ("slave2", "ip=10.0.0.4,port=6379,state=wait_bgsave,offset=0,lag=0"),
            ("slave3", "ip=10.0.0.5,port=6379,state=online,offset=50,lag=0"),
        ];
        assert_eq!(Facts::of(&[], &figures).live_replicas(), 2);
        assert_eq!(Facts::default().live_replicas(), 0);
    }
}
