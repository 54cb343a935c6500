//! Addresses that have only ever shown wrong keys or tokens: how often, and so how long their next answer waits.
//!
//! A memory and a rule, no more: who waits is `gate`'s. Bounded: past [`MOST`] addresses the oldest are forgotten.
//! Used by every thread that judges a key.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

/// How often an address may be wrong before it waits.
pub(crate) const TRIES: u8 = 10;
/// How long each further answer waits.
pub(crate) const WAIT: Duration = Duration::from_secs(1);
/// The most addresses that are remembered, of each kind.
pub(crate) const MOST: usize = 32_768;

/// What is remembered of addresses.
pub(crate) struct Strangers {
    /// Those that showed a right one, once. They never wait: behind one address may be many, and those who know a key
    /// must not pay for one who does not.
    known: RwLock<Recent<()>>,
    /// How often the others were wrong.
    failed: Mutex<Recent<u8>>,
}

/// Where somebody comes from, as far as it says who it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Origin(IpAddr);

impl Strangers {
    pub(crate) fn new() -> Strangers {
        Strangers::that_remember(MOST)
    }

    fn that_remember(most: usize) -> Strangers {
        Strangers { known: RwLock::new(Recent::new(most)), failed: Mutex::new(Recent::new(most)) }
    }

    /// How long the next answer to this address waits.
    pub(crate) fn wait(&self, address: IpAddr) -> Duration {
        let Some(origin) = Origin::of(address) else { return Duration::ZERO };
        if self.known.read().get(origin).is_some() {
            return Duration::ZERO;
        }
        match self.failed.lock().get(origin) {
            Some(&times) if times >= TRIES => WAIT,
            _ => Duration::ZERO,
        }
    }

    /// It showed a wrong one, or none. Whether it waits from now on and did not before.
    pub(crate) fn failed(&self, address: IpAddr) -> bool {
        let Some(origin) = Origin::of(address) else { return false };
        if self.known.read().get(origin).is_some() {
            return false;
        }
        let mut failed = self.failed.lock();
        let times = failed.get(origin).copied().unwrap_or(0).saturating_add(1);
        failed.put(origin, times);
        times == TRIES
    }

    /// It showed a right one.
    pub(crate) fn succeeded(&self, address: IpAddr) {
        let Some(origin) = Origin::of(address) else { return };
        // Nearly always it is known, and then nobody waits for anybody.
        if self.known.read().get(origin).is_none() {
            self.known.write().put(origin, ());
            self.failed.lock().forget(origin);
        }
    }
}

impl Origin {
    /// None for what never waits: this machine, or a socket that could not say whose it is.
    fn of(address: IpAddr) -> Option<Origin> {
        let address = address.to_canonical();
        if address.is_loopback() || address.is_unspecified() {
            return None;
        }
        Some(Origin(match address {
            IpAddr::V4(_) => address,
            // One host may use all addresses of its /64.
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        }))
    }
}

/// A map that forgets: when the younger half is full, the older is thrown away.
struct Recent<V> {
    young: HashMap<Origin, V>,
    old: HashMap<Origin, V>,
    half: usize,
}

impl<V> Recent<V> {
    fn new(most: usize) -> Recent<V> {
        Recent { young: HashMap::new(), old: HashMap::new(), half: most / 2 }
    }

    fn get(&self, origin: Origin) -> Option<&V> {
        self.young.get(&origin).or_else(|| self.old.get(&origin))
    }

    fn put(&mut self, origin: Origin, value: V) {
        self.old.remove(&origin);
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(origin, value);
    }

    fn forget(&mut self, origin: Origin) {
        self.young.remove(&origin);
        self.old.remove(&origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn fail(strangers: &Strangers, from: &str, times: u8) {
        for _ in 0..times {
            strangers.failed(address(from));
        }
    }

    #[test]
    fn the_eleventh_answer_waits() {
        let strangers = Strangers::new();
        for _ in 0..9 {
            assert!(!strangers.failed(address("10.0.0.7")));
            assert_eq!(strangers.wait(address("10.0.0.7")), Duration::ZERO);
        }
        assert!(strangers.failed(address("10.0.0.7")), "from now on");
        assert_eq!(strangers.wait(address("10.0.0.7")), WAIT);
        assert!(!strangers.failed(address("10.0.0.7")), "said once");
        fail(&strangers, "10.0.0.7", u8::MAX);
        assert_eq!(strangers.wait(address("10.0.0.7")), WAIT, "for as long as it goes on");
        assert_eq!(strangers.wait(address("10.0.0.8")), Duration::ZERO, "and nobody else");
    }

    #[test]
    fn who_showed_a_right_key_never_waits_again() {
        let strangers = Strangers::new();
        fail(&strangers, "10.0.0.7", 50);
        strangers.succeeded(address("10.0.0.7"));
        assert_eq!(strangers.wait(address("10.0.0.7")), Duration::ZERO);
        fail(&strangers, "10.0.0.7", 50);
        assert_eq!(strangers.wait(address("10.0.0.7")), Duration::ZERO);
    }

    #[test]
    fn this_machine_never_waits() {
        for from in ["127.0.0.1", "127.200.3.4", "::1", "::ffff:127.0.0.1", "0.0.0.0"] {
            let strangers = Strangers::new();
            fail(&strangers, from, 50);
            assert_eq!(strangers.wait(address(from)), Duration::ZERO, "{from}");
        }
    }

    #[test]
    fn one_host_is_one_address() {
        let strangers = Strangers::new();
        for host in 1..=10 {
            fail(&strangers, &format!("2001:db8:1:2::{host}"), 1);
        }
        assert_eq!(strangers.wait(address("2001:db8:1:2:ffff::1")), WAIT);
        assert_eq!(strangers.wait(address("2001:db8:1:3::1")), Duration::ZERO);
        fail(&strangers, "::ffff:10.0.0.7", 10);
        assert_eq!(strangers.wait(address("10.0.0.7")), WAIT);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let strangers = Strangers::that_remember(100);
        fail(&strangers, "10.1.0.1", 10);
        for host in 0..40 {
            fail(&strangers, &format!("10.2.0.{host}"), 10);
        }
        assert_eq!(strangers.wait(address("10.1.0.1")), WAIT, "there is room for all of these");
        for host in 0..200 {
            fail(&strangers, &format!("10.3.0.{host}"), 10);
            let failed = strangers.failed.lock();
            assert!(failed.young.len() + failed.old.len() <= 100);
        }
        assert_eq!(strangers.wait(address("10.1.0.1")), Duration::ZERO);
        assert_eq!(strangers.wait(address("10.3.0.199")), WAIT);
    }
}
