//! The plan of faults: drawn whole from the seed before the start, written to `plan.jsonl`, read from there again.
//!
//! Time is cut into slices. A quarter of them is quiet, and so is one at fixed intervals, in which everything must come
//! back to its usual self; in each of the others one to three faults are in force that do not exclude each other
//! ([`excludes`]). A fault ends with its slice, or goes on into the next one.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::fault::Kind;
use crate::options::{Options, Profile};
use crate::random::Random;

/// One fault at its time.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Step {
    /// The slice it belongs to; several faults of a slice overlap.
    pub slice: usize,
    pub kind: Kind,
    /// Milliseconds from the start of the run to its beginning.
    pub at_ms: u64,
    /// How long it lasts; a kind that is over in an instant takes the time until it is mended (a killed node is
    /// started again).
    pub length_ms: u64,
    /// Which node it is for, counted from 0; kinds that hit Redis ignore it.
    pub node: usize,
    /// What else the kind needs, each its own way: bytes, a delay in ms, a number of connections.
    pub amount: u64,
}

/// What a run does, in the order of time.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}

/// How one kind is drawn.
struct Nature {
    kind: Kind,
    /// Of each of so many steps one is of this kind, where the profile draws by weight.
    weight: u64,
    reach: Reach,
    /// Milliseconds, every order of magnitude as likely; what is too long for its slice is cut off there.
    length: (u64, u64),
    /// [`Step::amount`]; every order of magnitude as likely if it starts above 0.
    amount: (u64, u64),
}

/// What a fault takes hold of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reach {
    /// Everything at once.
    All,
    /// Redis as a whole: it is away, silent, or refuses.
    Store,
    /// A setting of Redis, which goes on answering.
    Setting,
    /// One node: its process, its limits, its ports.
    Node,
    /// What goes between one node and Redis; without either of them it would have no effect.
    Line,
}

const fn nature(kind: Kind, weight: u64, reach: Reach, length: (u64, u64), amount: (u64, u64)) -> Nature {
    Nature { kind, weight, reach, length, amount }
}

/// Every kind that is planned. What `amount` means is said where the kind is done.
const NATURES: [Nature; 27] = [
    nature(Kind::F1, 8, Reach::Node, (50, 20_000), (0, 0)),
    nature(Kind::F2, 6, Reach::Node, (200, 60_000), (0, 0)),
    nature(Kind::F3, 3, Reach::Node, (50, 5_000), (0, 3)),
    nature(Kind::F5, 2, Reach::All, (100, 5_000), (0, u32::MAX as u64)),
    nature(Kind::F6, 2, Reach::Node, (1_000, 15_000), (1, 64)),
    nature(Kind::F7, 2, Reach::Node, (1_000, 15_000), (1, 64)),
    nature(Kind::F12, 2, Reach::Node, (1_000, 15_000), (1, 64)),
    nature(Kind::F20, 6, Reach::Store, (100, 15_000), (0, 0)),
    nature(Kind::F22, 4, Reach::Store, (200, 30_000), (0, 1)),
    nature(Kind::F23, 4, Reach::Line, (1_000, 30_000), (0, 599)),
    nature(Kind::F24, 4, Reach::Line, (1_000, 20_000), (1, 400)),
    nature(Kind::F25, 4, Reach::Line, (1_000, 45_000), (0, 11)),
    nature(Kind::F26, 4, Reach::Line, (1_000, 20_000), (0, 500)),
    nature(Kind::F27, 2, Reach::Line, (1_500, 10_000), (0, 1)),
    nature(Kind::F28, 2, Reach::Line, (1_000, 20_000), (10, 1_000)),
    nature(Kind::F29, 2, Reach::Store, (500, 10_000), (100, 1_000)),
    nature(Kind::F30, 2, Reach::Store, (300, 10_000), (0, 0)),
    nature(Kind::F31, 2, Reach::Setting, (500, 20_000), (5, 30)),
    nature(Kind::F33, 2, Reach::Store, (500, 10_000), (0, 0)),
    nature(Kind::F36, 2, Reach::Setting, (1_000, 20_000), (100, 1_000)),
    nature(Kind::F37, 2, Reach::Store, (500, 10_000), (2, 6)),
    nature(Kind::F38, 20, Reach::Store, (500, 5_000), (0, 0)),
    nature(Kind::F56, 3, Reach::Line, (500, 10_000), (1, 64)),
    nature(Kind::F57, 1, Reach::Node, (1_000, 15_000), (200, 2_000)),
    nature(Kind::F58, 1, Reach::Node, (1_000, 15_000), (10, 1_000)),
    nature(Kind::F75, 1, Reach::Line, (1_000, 15_000), (50, 1_000)),
    nature(Kind::F76, 1, Reach::Node, (1_000, 15_000), (200, 2_000)),
];

/// How a profile cuts its time.
struct Rhythm {
    /// A slice's length in milliseconds.
    slice: (u64, u64),
    /// A slice so long is quiet, each time so much time has passed.
    calm: u64,
    calm_every: u64,
}

/// A stretch of time.
struct Slice {
    start: u64,
    end: u64,
    is_quiet: bool,
}

impl Plan {
    /// The plan of a run: always the same one for the same options.
    pub fn draw(options: &Options) -> Plan {
        let mut random = Random::of(options.seed, "plan");
        let slices = slices(options, &mut random);
        let mut deck = Deck::of(options);
        let mut steps: Vec<Step> = Vec::new();
        for (number, slice) in slices.iter().enumerate() {
            if slice.is_quiet {
                continue;
            }
            let kinds = 1 + random.weighted(&[60, 30, 10]);
            for _ in 0..kinds {
                let at_ms = slice.start + random.below((slice.end - slice.start) / 3 + 1);
                let goes_on = slices.get(number + 1).filter(|next| !next.is_quiet && !random.percent(70));
                let limit = goes_on.map_or(slice.end, |next| next.end);
                let fits = |step: &Step| !steps.iter().any(|other| overlaps(other, step) && excludes(other, step));
                let drawn = deck.draw(&mut random, |nature, random| {
                    let step = step(nature, options, number, at_ms..limit, random);
                    fits(&step).then_some(step)
                });
                steps.extend(drawn);
            }
        }
        steps.sort_by_key(|step| step.at_ms);
        Plan { steps }
    }

    /// # Errors
    ///
    /// The file cannot be read, or is no plan.
    pub fn read(path: &Path) -> io::Result<Plan> {
        let text = fs::read_to_string(path)?;
        let steps = text.lines().filter(|line| !line.trim().is_empty());
        let steps = steps.map(|line| Ok(serde_json::from_str(line)?)).collect::<io::Result<_>>()?;
        Ok(Plan { steps })
    }

    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let lines = self.steps.iter().map(|step| Ok(serde_json::to_string(step)? + "\n"));
        fs::write(path, lines.collect::<io::Result<String>>()?)
    }
}

/// Whether two faults must not be in force together, because one would have no effect or could not be healed: with
/// Redis away nothing can be set there and nothing goes to it; with a node away nothing goes from or to it.
pub fn excludes(one: &Step, other: &Step) -> bool {
    use Reach::{All, Line, Node, Setting, Store};
    if one.kind == other.kind && one.node == other.node {
        return true;
    }
    let is_local = |reach| matches!(reach, Node | Line);
    match (reach(one.kind), reach(other.kind)) {
        (All, _) | (_, All) | (Store, Store) => true,
        (Store, Setting | Line) | (Setting | Line, Store) => true,
        // It sets one thing, and each of them another: but the one would undo what the other has set.
        (Setting, Setting) => one.kind == other.kind,
        (here, there) if is_local(here) && is_local(there) => {
            one.node == other.node || (touches_all_lines(one.kind) && touches_all_lines(other.kind))
        }
        _ => false,
    }
}

/// A setting of Redis, or an order to it, that has to do with the subscriptions of every node.
fn touches_all_lines(kind: Kind) -> bool {
    matches!(kind, Kind::F26 | Kind::F27 | Kind::F28)
}

fn overlaps(one: &Step, other: &Step) -> bool {
    one.at_ms < other.at_ms + other.length_ms && other.at_ms < one.at_ms + one.length_ms
}

fn reach(kind: Kind) -> Reach {
    NATURES.iter().find(|nature| nature.kind == kind).map_or(Reach::All, |nature| nature.reach)
}

fn slices(options: &Options, random: &mut Random) -> Vec<Slice> {
    let rhythm = match options.profile {
        Profile::Gate => Rhythm { slice: (2_000, 4_000), calm: 4_000, calm_every: 40_000 },
        _ => Rhythm { slice: (5_000, 30_000), calm: 15_000, calm_every: 120_000 },
    };
    let (mut slices, mut start, mut calm_at) = (Vec::new(), 0, rhythm.calm_every);
    let end = options.duration * 1_000;
    while start < end {
        let is_calm = start >= calm_at;
        let length = if is_calm { rhythm.calm } else { random.within(rhythm.slice.0, rhythm.slice.1) };
        if is_calm {
            calm_at += rhythm.calm_every;
        }
        // What is left at the very end is too short for any fault.
        let is_quiet = random.percent(25) || is_calm || start + rhythm.slice.0 / 2 > end;
        let slice = Slice { start, end: (start + length).min(end), is_quiet };
        start = slice.end;
        slices.push(slice);
    }
    slices
}

/// A step of this kind in a slice, within these milliseconds.
fn step(nature: &Nature, options: &Options, slice: usize, within: Range<u64>, random: &mut Random) -> Step {
    let (at_ms, longest) = (within.start, (within.end - within.start).max(1));
    let (low, high) = nature.length;
    // A frozen node that comes back after minutes is rare, and worth it.
    let drawn = if nature.kind == Kind::F2 && random.percent(5) { 120_000 } else { random.log_within(low, high) };
    let (least, most) = nature.amount;
    let amount = if least == 0 { random.within(least, most) } else { random.log_within(least, most) };
    let node = usize::try_from(random.below(options.nodes as u64)).expect("a handful of nodes");
    Step { slice, kind: nature.kind, at_ms, length_ms: drawn.min(longest), node, amount }
}

/// What is drawn from.
struct Deck {
    natures: Vec<&'static Nature>,
    /// Where each kind is to come once before any comes again: those that have not yet, as indexes.
    left: Option<Vec<usize>>,
}

impl Deck {
    fn of(options: &Options) -> Deck {
        let natures = NATURES.iter().filter(|nature| is_wanted(options, nature.kind)).collect();
        let left = (options.profile == Profile::Gate).then(Vec::new);
        Deck { natures, left }
    }

    /// The next kind of which `make` makes something.
    fn draw<T>(&mut self, random: &mut Random, mut make: impl FnMut(&Nature, &mut Random) -> Option<T>) -> Option<T> {
        let Some(left) = &mut self.left else {
            let weights: Vec<u64> = self.natures.iter().map(|nature| nature.weight).collect();
            // Some draws come to nothing beside what is in force; so many in a row say that nothing fits.
            let mut tries = if weights.is_empty() { 0..0 } else { 0..30 };
            return tries.find_map(|_| make(self.natures[random.weighted(&weights)], random));
        };
        if left.is_empty() {
            left.extend(0..self.natures.len());
            for place in (1..left.len()).rev() {
                left.swap(place, usize::try_from(random.below(place as u64 + 1)).expect("an index"));
            }
        }
        let mut places = left.iter().enumerate();
        let (place, made) = places.find_map(|(place, &index)| Some((place, make(self.natures[index], random)?)))?;
        left.remove(place);
        Some(made)
    }
}

/// Whether a run of these options plans this kind.
fn is_wanted(options: &Options, kind: Kind) -> bool {
    let code = kind.code();
    if options.without.contains(&code) {
        return false;
    }
    let is_named = options.only.contains(&code);
    // It loses payments, and only one profile is told so.
    let loses = kind == Kind::F38;
    match options.profile {
        Profile::Rollback if options.only.is_empty() => {
            use Kind::{F1, F2, F3, F23, F24, F25, F26, F36};
            loses || matches!(kind, F1 | F2 | F3 | F23 | F24 | F25 | F26 | F36)
        }
        _ if loses => is_named && options.profile == Profile::Rollback,
        _ if !options.only.is_empty() => is_named,
        // These two need rights that not every user has.
        Profile::Gate => !matches!(kind, Kind::F7 | Kind::F12),
        Profile::Store => !matches!(reach(kind), Reach::Node) && !matches!(kind, Kind::F56 | Kind::F75),
        _ => true,
    }
}
