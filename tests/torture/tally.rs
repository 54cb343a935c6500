//! Many runs added up: the table that the README shows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fault::Kind;
use crate::verdict::grouped;

/// The sum of the results that were read.
#[derive(Debug, Default)]
pub struct Tally {
    runs: u64,
    valid: u64,
    seconds: f64,
    seeds: BTreeMap<String, Vec<u64>>,
    counts: BTreeMap<&'static str, u64>,
    broken: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    behaviours: BTreeMap<String, u64>,
    bounds: BTreeMap<String, Bound>,
}

/// One measure over all runs.
#[derive(Debug, Default)]
struct Bound {
    count: u64,
    /// Of each run that had any.
    p99_ms: Vec<f64>,
    max_ms: f64,
    limit_ms: f64,
}

/// What is counted of each run.
const COUNTS: [&str; 5] = ["accepted", "deliveries", "repeats", "reconnects", "rolled_back"];

impl Tally {
    /// Adds up the `result.json` of every directory.
    ///
    /// # Errors
    ///
    /// One cannot be read, or is none.
    pub fn of(dirs: &[PathBuf]) -> io::Result<Tally> {
        let mut tally = Tally::default();
        for dir in dirs {
            let result = read(dir).map_err(|cause| io::Error::other(format!("{}: {cause}", dir.display())))?;
            tally.add(&result);
        }
        Ok(tally)
    }

    fn add(&mut self, result: &Value) {
        self.runs += 1;
        self.valid += u64::from(result["gravity"].is_null());
        self.seconds += result["seconds"].as_f64().unwrap_or_default();
        let profile = result["profile"].as_str().unwrap_or_default().to_owned();
        self.seeds.entry(profile).or_default().push(result["seed"].as_u64().unwrap_or_default());
        let figures = &result["figures"];
        for name in COUNTS {
            *self.counts.entry(name).or_default() += figures[name].as_u64().unwrap_or_default();
        }
        add_all(&mut self.broken, &result["broken"], |times| times.as_u64());
        add_all(&mut self.faults, &figures["faults"], |fault| fault["noticed"].as_u64());
        add_all(&mut self.behaviours, &figures["behaviours"], |times| times.as_u64());
        for measure in figures["measures"].as_array().into_iter().flatten() {
            let number = |name: &str| measure[name].as_f64().unwrap_or_default();
            let count = measure["count"].as_u64().unwrap_or_default();
            if count > 0 && !measure["limit_ms"].is_null() {
                let name = measure["name"].as_str().unwrap_or_default();
                let bound = self.bounds.entry(name.to_owned()).or_default();
                bound.count += count;
                bound.p99_ms.push(number("p99_ms"));
                bound.max_ms = bound.max_ms.max(number("max_ms"));
                bound.limit_ms = bound.limit_ms.max(number("limit_ms"));
            }
        }
    }

    /// As Markdown.
    pub fn table(&self) -> String {
        let broken = |checks: &[&str]| -> u64 { checks.iter().filter_map(|check| self.broken.get(*check)).sum() };
        let count = |name| grouped(self.counts.get(name).copied().unwrap_or_default());
        let seeds = self.seeds.iter().map(|(profile, seeds)| format!("`{profile}` {}", spans(seeds)));
        let rows = [
            ("runs, of them valid".to_owned(), format!("{}, {}", self.runs, self.valid)),
            ("seeds".into(), seeds.collect::<Vec<_>>().join("; ")),
            ("hours".into(), format!("{:.1}", self.seconds / 3600.0)),
            ("payments accepted".into(), count("accepted")),
            (
                "deliveries; of them repeats, on a new connection".into(),
                format!("{}; {}", count("deliveries"), count("repeats")),
            ),
            ("connections made anew".into(), count("reconnects")),
            (
                "lost · reordered · altered · stored twice".into(),
                format!(
                    "{} · {} · {} · {}",
                    broken(&["C1"]),
                    broken(&["C6", "C11"]),
                    broken(&["C5"]),
                    broken(&["C10"])
                ),
            ),
            ("gone with a failover that lost writes, as told".into(), count("rolled_back")),
            (
                format!("faults, {} of {} kinds", grouped(self.faults.values().sum()), self.faults.len()),
                by_kind(&self.faults),
            ),
            (
                format!(
                    "misdeeds of clients and senders, {} of {} kinds",
                    grouped(self.behaviours.values().sum()),
                    self.behaviours.len()
                ),
                by_kind(&self.behaviours),
            ),
        ];
        let rows = rows.iter().map(|(what, value)| format!("| {what} | {value} |\n"));
        format!("| | |\n|---|---|\n{}", rows.collect::<String>())
    }

    /// What was measured against a limit, as Markdown.
    pub fn bounds(&self) -> String {
        let row = |(name, bound): (&String, &Bound)| {
            let mut p99_ms = bound.p99_ms.clone();
            p99_ms.sort_by(f64::total_cmp);
            let middle = p99_ms[p99_ms.len() / 2];
            let times = grouped(bound.count);
            format!("| {name} | {times} | {middle:.0} | {:.0} | {:.0} |\n", bound.max_ms, bound.limit_ms)
        };
        let head = "| | times | p99, the median of all runs, ms | longest, ms | limit, ms |\n|---|---|---|---|---|\n";
        head.to_owned() + &self.bounds.iter().map(row).collect::<String>()
    }
}

fn read(dir: &Path) -> io::Result<Value> {
    Ok(serde_json::from_slice(&fs::read(dir.join("result.json"))?)?)
}

fn add_all(sums: &mut BTreeMap<String, u64>, of: &Value, number: impl Fn(&Value) -> Option<u64>) {
    for (name, value) in of.as_object().into_iter().flatten() {
        *sums.entry(name.clone()).or_default() += number(value).unwrap_or_default();
    }
}

/// `node killed 31, …`, the most frequent first.
fn by_kind(times: &BTreeMap<String, u64>) -> String {
    let mut kinds: Vec<_> = times.iter().collect();
    kinds.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
    let words = |code: &str| Kind::parse(code).map_or(code.to_owned(), |kind| kind.words().to_owned());
    kinds.iter().map(|(code, times)| format!("{} {}", words(code), grouped(**times))).collect::<Vec<_>>().join(", ")
}

/// `1 to 5, 9`.
fn spans(numbers: &[u64]) -> String {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match spans.last_mut() {
            Some((_, last)) if *last == number || *last + 1 == number => *last = number,
            _ => spans.push((number, number)),
        }
    }
    let text =
        |&(first, last): &(u64, u64)| if first == last { first.to_string() } else { format!("{first} to {last}") };
    spans.iter().map(text).collect::<Vec<_>>().join(", ")
}
