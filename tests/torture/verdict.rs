//! What a run comes to: what was broken, what was counted and measured, the exit status, and one sentence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

/// How bad it is; the worst decides the exit status.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gravity {
    /// The run proves nothing.
    Vacuous,
    /// It took too long, or too much.
    Bound,
    /// A payment, or a word given about one, was wrong.
    Safety,
}

/// One broken rule.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// C1 to C16, L1 to L3, V1.
    pub check: String,
    pub gravity: Gravity,
    pub at_secs: f64,
    /// The client, node or sender it happened to.
    pub who: String,
    pub what: String,
    /// In force then, or just healed.
    pub faults: Vec<String>,
}

/// What happened to one kind of fault.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Tally {
    pub times: u64,
    /// Times that had an effect: the others are no faults.
    pub noticed: u64,
    /// How often something happened that its target must have noticed.
    pub effect: u64,
}

/// A time that was measured against its limit.
#[derive(Clone, Debug, Serialize)]
pub struct Measure {
    pub name: String,
    pub count: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// What is promised; `None` for a figure without a promise.
    pub limit_ms: Option<f64>,
}

/// What can be counted, valid or not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    pub attempts: u64,
    /// Payments that got a 2xx, each counted once.
    pub accepted: u64,
    /// Payments all of whose attempts were refused or never reached a node.
    pub refused: u64,
    /// Payments whose outcome no sender ever learned.
    pub unknown: u64,
    /// Of these, delivered.
    pub recovered: u64,
    /// Answers that said `duplicate`.
    pub duplicates: u64,
    pub deliveries: u64,
    /// Deliveries of what had been delivered before.
    pub repeats: u64,
    pub dead_letters: u64,
    pub connections: u64,
    pub reconnects: u64,
    pub faults: BTreeMap<String, Tally>,
    pub behaviours: BTreeMap<String, u64>,
    pub skipped: BTreeMap<String, String>,
    pub measures: Vec<Measure>,
    /// What the machine itself was kept from doing: levels at the start and after the drain.
    pub levels: BTreeMap<String, (u64, u64)>,
    /// In the profile `rollback`: accepted while replication was cut, and gone with it, as expected.
    pub rolled_back: u64,
}

/// The result of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    pub seed: u64,
    pub profile: String,
    pub seconds: f64,
    /// How often each check was broken, the unlisted ones counted too.
    pub broken: BTreeMap<String, u64>,
    /// The worst of all.
    pub gravity: Option<Gravity>,
    /// At most a handful of each check.
    pub violations: Vec<Violation>,
    pub figures: Figures,
}

impl Verdict {
    /// 0 valid, 1 a promise of safety broken, 3 too long or too much, 2 proves nothing.
    pub fn exit_code(&self) -> u8 {
        match self.gravity {
            None => 0,
            Some(Gravity::Safety) => 1,
            Some(Gravity::Bound) => 3,
            Some(Gravity::Vacuous) => 2,
        }
    }

    /// The last line of a run.
    pub fn sentence(&self) -> String {
        let figures = &self.figures;
        let mut said = format!(
            "{}: seed {}, {}, {:.0} s: {} payments accepted, {} lost, {} reordered, {} altered, {} stored twice, {}",
            self.word(),
            self.seed,
            self.profile,
            self.seconds,
            grouped(figures.accepted),
            self.times(&["C1"]),
            self.times(&["C6", "C11"]),
            self.times(&["C5"]),
            self.times(&["C10"]),
            figures.under_what(),
        );
        if figures.rolled_back > 0 {
            let _ = write!(said, "; {} gone with a failover, as told", grouped(figures.rolled_back));
        }
        if !self.broken.is_empty() {
            let broken: Vec<String> = self.broken.iter().map(|(check, times)| format!("{check} ×{times}")).collect();
            let _ = write!(said, "; broken: {}", broken.join(" "));
        }
        said
    }

    /// Writes `result.json`, for adding up many runs.
    ///
    /// # Errors
    ///
    /// The file could not be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(io::Error::other)?;
        fs::write(dir.join("result.json"), text + "\n")
    }

    fn word(&self) -> &'static str {
        match self.gravity {
            None => "valid",
            Some(Gravity::Safety) => "INVALID",
            Some(Gravity::Bound) => "TOO SLOW OR TOO MUCH",
            Some(Gravity::Vacuous) => "PROVES NOTHING",
        }
    }

    fn times(&self, checks: &[&str]) -> u64 {
        checks.iter().filter_map(|check| self.broken.get(*check)).sum()
    }
}

impl Figures {
    fn under_what(&self) -> String {
        let noticed: Vec<u64> = self.faults.values().map(|tally| tally.noticed).filter(|times| *times > 0).collect();
        let mut said = format!("under {} faults of {} kinds", grouped(noticed.iter().sum()), noticed.len());
        let behaved: u64 = self.behaviours.values().sum();
        if behaved > 0 {
            let kinds = self.behaviours.len();
            let _ = write!(said, " and {} misdeeds of clients and senders of {kinds} kinds", grouped(behaved));
        }
        if !self.skipped.is_empty() {
            let kinds: Vec<&str> = self.skipped.keys().map(String::as_str).collect();
            let reasons: BTreeSet<&str> = self.skipped.values().map(String::as_str).collect();
            let reasons: Vec<&str> = reasons.into_iter().collect();
            let _ = write!(said, " (skipped: {}, {})", kinds.join(" "), reasons.join("; "));
        }
        said
    }
}

/// Everything a person wants to see before the sentence: what was broken, then what was measured.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        for (check, times) in &self.broken {
            let listed = self.violations.iter().filter(|violation| violation.check == *check).count() as u64;
            if *times > listed {
                writeln!(f, "{check}: {} more like these", times - listed)?;
            }
        }
        for measure in &self.figures.measures {
            writeln!(f, "{measure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.3} s, {}: {}", self.check, self.at_secs, self.who, self.what)?;
        if !self.faults.is_empty() {
            write!(f, " [{}]", self.faults.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measure { name, count, p50_ms, p99_ms, max_ms, limit_ms } = self;
        write!(f, "{name}: {count} times, p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, max {max_ms:.1} ms")?;
        limit_ms.map_or(Ok(()), |limit| write!(f, ", limit {limit:.0} ms"))
    }
}

/// 48213 as `48,213`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut said = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            said.push(',');
        }
        said.push(digit);
    }
    said
}
