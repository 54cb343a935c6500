//! C16, cleanliness: nothing panicked, no secret was logged, nobody ended unasked, nothing was kept; and what was seen
//! to be broken where it happened.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::case::Case;
use super::findings::Findings;
use crate::history::What;
use crate::roster;
use crate::verdict::Gravity;

/// Begins the padding of every message: a log that has it has a message.
const SECRET: &str = "SECRET-";
/// What a client may keep open on a node after the drain: its socket, and the thread that reads it.
const KEPT_FOR_A_CLIENT: u64 = 2;
/// What comes and goes besides: connections of senders and to Redis, and threads that linger for the next request.
const KEPT_BESIDES: u64 = 64;
/// An allocator gives back to the system only a part of what a flood of messages of 256 KiB took, so memory is bounded
/// by what a node may use at all, and, where it started large, by a multiple of that.
const RSS_KIB: u64 = 512 << 10;
const RSS_GROWTH: u64 = 4;
/// How much of a log line is shown.
const SHOWN: usize = 240;

/// C16: what the nodes logged has no panic and no message in it.
///
/// # Errors
///
/// A log that cannot be read.
pub(super) fn c16_logs(case: &Case, findings: &mut Findings<'_>) -> io::Result<()> {
    for log in &case.logs {
        let name = log.file_name().unwrap_or_default().to_string_lossy();
        for_each_line(log, |number, line| {
            let place = || format!("{name}:{number}");
            if line.contains("panicked") {
                findings.add("C16", case.end, place(), || line.chars().take(SHOWN).collect());
            }
            // The line itself is not repeated: it is what must not be read.
            if line.contains(SECRET) {
                findings.add("C16", case.end, place(), || "a message is in the log".into());
            }
        })?;
    }
    Ok(())
}

/// C16: no node's process ended unless it was made to.
pub(super) fn c16_ends(case: &Case, findings: &mut Findings<'_>) {
    for event in &case.story.events {
        if let What::Ended { node, expected: false, status } = &event.what {
            findings.add("C16", event.at, format!("node {}", node + 1), || format!("ended by itself: {status}"));
        }
    }
}

/// C16: after the drain, descriptors, threads and memory are back where they were. Returns first and last levels.
pub(super) fn c16_levels(case: &Case, findings: &mut Findings<'_>) -> BTreeMap<String, (u64, u64)> {
    let mut levels: BTreeMap<(u8, &str), (u64, u64, u64)> = BTreeMap::new();
    for event in &case.story.events {
        if let What::Level { node, what, value } = &event.what {
            let level = levels.entry((*node, what)).or_insert((*value, *value, event.at));
            (level.1, level.2) = (*value, event.at);
        }
    }
    for ((node, what), (first, last, at)) in &levels {
        let most = most(case, what, *first);
        if case.drain.is_some_and(|drain| *at >= drain) && *last > most {
            findings.add_as(Gravity::Bound, "C16", *at, format!("node {}", node + 1), || {
                format!("{what}: {first} at the start, {last} after the drain, at most {most} expected")
            });
        }
    }
    let named = |((node, what), (first, last, _)): ((u8, &str), _)| (format!("n{} {what}", node + 1), (first, last));
    levels.into_iter().map(named).collect()
}

fn most(case: &Case, what: &str, first: u64) -> u64 {
    if what == "rss_kib" {
        return RSS_KIB.max(first * RSS_GROWTH);
    }
    first + u64::from(roster::count(&case.options)) * KEPT_FOR_A_CLIENT + KEPT_BESIDES
}

/// What was seen to be broken where it happened, under the check that it breaks.
pub(super) fn seen_broken(case: &Case, findings: &mut Findings<'_>) {
    for event in &case.story.events {
        if let What::Broken { check, what } = &event.what {
            findings.add(check, event.at, "seen where it happened", || what.clone());
        }
    }
}

/// Whether any node's log has this.
///
/// # Errors
///
/// A log that cannot be read.
pub(super) fn is_logged(case: &Case, words: &str) -> io::Result<bool> {
    let mut found = false;
    for log in &case.logs {
        for_each_line(log, |_, line| found |= line.contains(words))?;
    }
    Ok(found)
}

fn for_each_line(path: &Path, mut look: impl FnMut(usize, &str)) -> io::Result<()> {
    let mut log = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if log.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        look(number, String::from_utf8_lossy(&line).trim_end());
    }
    Ok(())
}
