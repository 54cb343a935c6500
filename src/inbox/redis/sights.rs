//! Which owners of inboxes can be judged: of whom all word has come by now, and who is dead for certain.
//!
//! When Redis comes back, or one node's way to it does, leases have lapsed of nodes that live, and word of what they
//! sent is still on its way. So a lease that is missing says little by itself, and neither does one that was taken a
//! moment ago: only who was seen the same for a while, look after look, is judged.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Looks that lie further apart have an outage between them; so has a lease that was not renewed for so long.
const GAP: Duration = Duration::from_millis(1750);
/// How long it takes a node that lives, at most, to renew its lease and store what it has to say once it can.
const SETTLING: Duration = Duration::from_secs(5);

/// What may be said of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It lives, and what it had to say some seconds ago is stored.
    Steady,
    /// It is gone.
    Dead,
    /// Its lease lapsed or was renewed again just now, or we could not look ourselves.
    Unsure,
}

/// What the looks at all leases, one a second, have shown.
#[derive(Default)]
pub(super) struct Sights {
    /// Since when, and until when, look followed look without a gap.
    span: Option<(Instant, Instant)>,
    /// By `node/boot`; forgotten once it was not seen for long.
    owners: HashMap<String, Sight>,
}

struct Sight {
    /// Its lease held at the last look.
    holds: bool,
    seen: Instant,
    steady_since: Instant,
}

impl Sights {
    /// Takes in a look: the owners of all leases that hold, and how long ago each was renewed.
    pub(super) fn look(&mut self, now: Instant, leases: Vec<(String, Duration)>) {
        match &mut self.span {
            Some((_, until)) if now.saturating_duration_since(*until) <= GAP => *until = now,
            span => {
                *span = Some((now, now));
                self.owners.clear();
            }
        }
        self.owners.values_mut().for_each(|sight| sight.holds = false);
        for (owner, age) in leases {
            let before = self.owners.get(&owner).map(|sight| sight.steady_since);
            let steady_since = before.filter(|_| age <= GAP).unwrap_or(now);
            self.owners.insert(owner, Sight { holds: true, seen: now, steady_since });
        }
        self.owners.retain(|_, sight| now.saturating_duration_since(sight.seen) < SETTLING);
    }

    /// Whose leases held at the last look.
    pub(super) fn holding(&self) -> impl Iterator<Item = &str> {
        self.owners.iter().filter(|(_, sight)| sight.holds).map(|(owner, _)| owner.as_str())
    }

    pub(super) fn holds(&self, owner: &str) -> bool {
        self.owners.get(owner).is_some_and(|sight| sight.holds)
    }

    pub(super) fn standing(&self, owner: &str, now: Instant) -> Standing {
        let settled = |since: Instant| now.saturating_duration_since(since) >= SETTLING;
        let Some((since, _)) = self.span.filter(|(_, until)| now.saturating_duration_since(*until) <= GAP) else {
            return Standing::Unsure;
        };
        match self.owners.get(owner) {
            Some(sight) if sight.holds && settled(sight.steady_since) => Standing::Steady,
            None if settled(since) => Standing::Dead,
            _ => Standing::Unsure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N1: &str = "n1/00";
    const N2: &str = "n2/00";
    const FRESH: Duration = Duration::from_millis(900);

    /// Looks once a second, from one second on up to another, at leases of this age.
    fn look_on(sights: &mut Sights, start: Instant, from: u64, upto: u64, leases: &[(&str, Duration)]) {
        for second in from..=upto {
            let leases = leases.iter().map(|&(owner, age)| (owner.to_owned(), age)).collect();
            sights.look(start + Duration::from_secs(second), leases);
        }
    }

    #[test]
    fn who_was_seen_long_enough_is_judged() {
        let (mut sights, start) = (Sights::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(sights.standing(N1, start), Standing::Unsure, "nobody has looked yet");
        look_on(&mut sights, start, 0, 4, &[(N1, FRESH)]);
        assert!(sights.holds(N1) && !sights.holds(N2));
        assert_eq!((sights.standing(N1, at(4)), sights.standing(N2, at(4))), (Standing::Unsure, Standing::Unsure));
        look_on(&mut sights, start, 5, 5, &[(N1, FRESH)]);
        assert_eq!((sights.standing(N1, at(5)), sights.standing(N2, at(5))), (Standing::Steady, Standing::Dead));
        assert_eq!(sights.holding().collect::<Vec<_>>(), [N1]);
    }

    #[test]
    fn a_lease_that_lapsed_makes_nobody_dead_at_once() {
        let (mut sights, start) = (Sights::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        look_on(&mut sights, start, 0, 20, &[(N1, FRESH), (N2, FRESH)]);
        look_on(&mut sights, start, 21, 24, &[(N1, FRESH)]);
        assert!(!sights.holds(N2));
        assert_eq!((sights.standing(N1, at(24)), sights.standing(N2, at(24))), (Standing::Steady, Standing::Unsure));
        look_on(&mut sights, start, 25, 25, &[(N1, FRESH)]);
        assert_eq!(sights.standing(N2, at(25)), Standing::Dead);
        look_on(&mut sights, start, 26, 26, &[(N1, FRESH), (N2, FRESH)]);
        assert_eq!(sights.standing(N2, at(26)), Standing::Unsure, "it was cut off, and is here again");
    }

    #[test]
    fn a_lease_that_is_not_renewed_in_time_leaves_doubt() {
        let (mut sights, start) = (Sights::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        look_on(&mut sights, start, 0, 20, &[(N1, FRESH)]);
        look_on(&mut sights, start, 21, 21, &[(N1, Duration::from_millis(1900))]);
        assert_eq!(sights.standing(N1, at(21)), Standing::Unsure);
        look_on(&mut sights, start, 22, 25, &[(N1, FRESH)]);
        assert_eq!(sights.standing(N1, at(25)), Standing::Unsure);
        look_on(&mut sights, start, 26, 26, &[(N1, FRESH)]);
        assert_eq!(sights.standing(N1, at(26)), Standing::Steady);
    }

    #[test]
    fn after_an_outage_nobody_is_judged_for_a_while() {
        let (mut sights, start) = (Sights::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        look_on(&mut sights, start, 0, 20, &[(N1, FRESH), (N2, FRESH)]);
        assert_eq!(sights.standing(N1, at(22)), Standing::Unsure, "already while it lasts");
        look_on(&mut sights, start, 30, 34, &[(N1, FRESH)]);
        assert_eq!((sights.standing(N1, at(34)), sights.standing(N2, at(34))), (Standing::Unsure, Standing::Unsure));
        look_on(&mut sights, start, 35, 35, &[(N1, FRESH)]);
        assert_eq!((sights.standing(N1, at(35)), sights.standing(N2, at(35))), (Standing::Steady, Standing::Dead));
    }
}
