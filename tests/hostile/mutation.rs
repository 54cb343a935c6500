//! Inputs that are nearly right, drawn from a seed, and the loop that tries them.
//!
//! `HOSTILE_SEED` (1), `HOSTILE_COUNT` (short) and `HOSTILE_FROM` (0) say which are tried. Each is made from the seed
//! and its own number alone, so one that failed is made again without those before it.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No input may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);
/// The most bytes of an input. Some reach the limits of a head, a frame and a body.
const MOST_BYTES: usize = 80_000;

/// Numbers from a seed: SplitMix64.
// Source: G. L. Steele, D. Lea and C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub(crate) struct Random(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The numbers of one input.
    pub(crate) fn of(seed: u64, number: u64) -> Random {
        let mut one = Random::new(seed);
        Random::new(one.next() ^ number.wrapping_mul(STEP))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to, and without, `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end as u64).max(1)).expect("below a usize")
    }

    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// A part of so many bytes: mostly a short one.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = if self.one_in(4) { length - start } else { (length - start).min(12) };
        start..start + self.below(most + 1)
    }
}

/// One of the seeds, changed a few times; one in sixteen as it is. `words` are what is put in whole.
pub(crate) fn mutated(random: &mut Random, seeds: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = random.pick(seeds).clone();
    if random.one_in(16) {
        return bytes;
    }
    // Mostly one change: of many, the first already has it refused.
    let changes = if random.one_in(2) { 1 } else { 1 + random.below(4) };
    for _ in 0..changes {
        change(random, &mut bytes, seeds, words);
        bytes.truncate(MOST_BYTES);
    }
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&[u8]]) {
    let at = random.below(bytes.len() + 1);
    let part = random.part(bytes.len());
    match random.below(12) {
        // A bit, a byte.
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = any_byte(random),
        2 => bytes.insert(at, any_byte(random)),
        // Less.
        3 => drop(bytes.drain(part)),
        4 => bytes.truncate(at),
        // More, seldom very much more.
        5 => {
            let times = if random.one_in(40) { random.below(2_000) } else { random.below(4) };
            let again = bytes[part.clone()].repeat(times.min(MOST_BYTES / part.len().max(1)));
            bytes.splice(part.end..part.end, again);
        }
        6 if random.one_in(10) => {
            let flood = vec![any_byte(random); random.below(MOST_BYTES)];
            bytes.splice(at..at, flood);
        }
        // Two parts in each other's place.
        7 => {
            let (middle, other) = (part.end, random.part(bytes.len() - part.end));
            let (start, end) = (middle + other.start, middle + other.end);
            let swapped = [&bytes[start..end], &bytes[middle..start], &bytes[part.clone()]].concat();
            bytes.splice(part.start..end, swapped);
        }
        // The end, or a part, of another.
        8 => {
            let other = random.pick(seeds);
            let from = random.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        9 => {
            let other = random.pick(seeds);
            let theirs = random.part(other.len());
            bytes.splice(at..at, other[theirs].iter().copied());
        }
        // A word, in between or in another's place.
        10 if !words.is_empty() => drop(bytes.splice(at..at, random.pick(words).iter().copied())),
        _ if !words.is_empty() => drop(bytes.splice(part, random.pick(words).iter().copied())),
        _ => bytes.insert(at, any_byte(random)),
    }
}

/// Mostly one that means something to somebody.
fn any_byte(random: &mut Random) -> u8 {
    match random.one_in(3) {
        true => u8::try_from(random.below(256)).expect("a byte"),
        false => *random.pick(b"\0\t\n\r \"\\,:;{}[]()=/?#%+-.09aAeEfFzZ\x0b\x0c\x1b\x7f\x80\xc3\xed\xff"),
    }
}

/// What of the loop is run.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) from: u64,
    pub(crate) count: u64,
}

impl Plan {
    /// As the environment says; else so many.
    pub(crate) fn of(short: u64) -> Plan {
        let number = |name: &str, other: u64| match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")),
            Err(_) => other,
        };
        Plan { seed: number("HOSTILE_SEED", 1), from: number("HOSTILE_FROM", 0), count: number("HOSTILE_COUNT", short) }
    }
}

/// Tries inputs of one kind. `make` draws one, `take` says whether it was accepted, and fails where a promise is
/// broken. Prints what was done, or how to do again what failed.
///
/// Fails also where nearly all are accepted, or nearly none: such a loop would show nothing.
pub(crate) fn run(
    kind: &str,
    plan: Plan,
    make: impl Fn(&mut Random) -> Vec<u8>,
    mut take: impl FnMut(&[u8], &mut Random) -> bool,
) {
    let (mut accepted, mut longest) = (0, Duration::ZERO);
    let watch = Watch::default();
    std::thread::scope(|scope| {
        scope.spawn(|| watch.guard(kind, plan.seed));
        let _ends = Ends(&watch);
        for number in plan.from..plan.from + plan.count {
            let mut random = Random::of(plan.seed, number);
            let input = make(&mut random);
            let begun = Instant::now();
            watch.number.store(number, Ordering::SeqCst);
            watch.tried.fetch_add(1, Ordering::SeqCst);
            match catch_unwind(AssertUnwindSafe(|| take(&input, &mut random))) {
                Ok(taken) => accepted += u64::from(taken),
                Err(panic) => {
                    eprintln!("{}", how_to_repeat(kind, plan.seed, number));
                    eprintln!("the input, {} bytes: b\"{}\"", input.len(), input.escape_ascii());
                    resume_unwind(panic);
                }
            }
            longest = longest.max(begun.elapsed());
        }
    });
    let mut line = String::new();
    let refused = plan.count - accepted;
    let _ = write!(line, "hostile: {kind}: {} tried, {accepted} accepted, {refused} refused", plan.count);
    println!("{line}; seed {}, the longest took {} ms", plan.seed, longest.as_millis());
    assert!(plan.count < 500 || accepted.min(refused) > plan.count / 100, "nothing is shown by this: {line}");
}

fn how_to_repeat(kind: &str, seed: u64, number: u64) -> String {
    format!("hostile: {kind}: failed; again with HOSTILE_SEED={seed} HOSTILE_FROM={number} HOSTILE_COUNT=1")
}

/// Ends the process where an input does not end: a test that hangs says nothing.
#[derive(Default)]
struct Watch {
    number: AtomicU64,
    tried: AtomicU64,
    over: AtomicBool,
}

impl Watch {
    fn guard(&self, kind: &str, seed: u64) {
        let (mut seen, mut since) = (0, Instant::now());
        while !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
            let tried = self.tried.load(Ordering::SeqCst);
            if tried != seen {
                (seen, since) = (tried, Instant::now());
            } else if since.elapsed() > LIMIT {
                eprintln!("{}", how_to_repeat(kind, seed, self.number.load(Ordering::SeqCst)));
                eprintln!("it took longer than {LIMIT:?}");
                std::process::exit(101);
            }
        }
    }
}

struct Ends<'a>(&'a Watch);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}
