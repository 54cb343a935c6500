//! Bells to sockets. Whoever routes waits for nothing.
//!
//! One thread routes at a time. A bell that comes alone while nobody does is routed by who brings it: waking a thread for
//! it would cost more than sending it. All others wait for the thread `router`, which takes them together, and what is
//! for one client goes out as one: so the more it is behind, the less each costs.

use crate::client::Clients;
use crate::client::connection::Connection;
use crate::doorbell::{Bell, Hint};
use crate::payment::ClientId;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the gap before a bell that came ahead of its turn may stand.
const GAP: Duration = Duration::from_millis(5);
/// So long after the last was routed a bell comes alone. Of those that come faster, more are at hand soon.
const APART: Duration = Duration::from_micros(20);
/// How often the thread lets others go first before it sleeps: where they have more to bring, it need not be woken.
const YIELDS: u32 = 8;
/// The most bells that wait.
pub(crate) const MAX_BELLS: usize = 16 * 1024;
/// The most bytes of them, and of those that were taken and are not sent yet.
pub(crate) const MAX_BELL_BYTES: usize = 64 << 20;
/// The most that are taken together.
pub(crate) const MAX_TAKEN: usize = 4 * 1024;

/// The bells that wait, and who routes.
pub(crate) struct Bells {
    clients: Arc<Clients>,
    state: Mutex<State>,
    /// There may be something to do for the thread `router`.
    work: Condvar,
    bytes: AtomicUsize,
    /// How many are in the hands of who routes.
    taken: AtomicUsize,
}

struct State {
    waiting: VecDeque<Bell>,
    /// Somebody routes.
    routed: bool,
    /// The thread `router` sleeps: whoever leaves something to it wakes it.
    sleeps: bool,
    /// When the last one that routed had done so.
    routed_at: Instant,
    /// Who has a gap before a bell, until when. All are equally long, so they end in the order in which they began.
    gaps: VecDeque<(Instant, Arc<Connection>)>,
    over: bool,
}

/// Somebody's turn at routing; it ends with this. A panic in it ends the process, whichever thread it is on.
struct Turn<'a>(&'a Bells);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            log::error!("a panic while payments were sent; a restart is safer than half a node");
            std::process::exit(1);
        }
        let mut state = self.0.state.lock();
        state.routed = false;
        state.routed_at = Instant::now();
        if !state.waiting.is_empty() || state.over {
            self.0.wake(state);
        }
    }
}

impl Bells {
    pub(crate) fn new(clients: Arc<Clients>) -> Bells {
        let [bytes, taken] = [0; 2].map(AtomicUsize::new);
        let (waiting, gaps) = Default::default();
        let state =
            Mutex::new(State { waiting, routed: false, sleeps: false, routed_at: Instant::now(), gaps, over: false });
        Bells { clients, state, work: Condvar::new(), bytes, taken }
    }

    /// Takes a hint from the inbox. Never waits.
    pub(crate) fn hint(&self, hint: Hint) {
        match hint {
            Hint::Bells(bells) => self.ring(bells),
            Hint::Check(client) => self.check(&client),
            Hint::Died(client, seq, _) => {
                if let Some(connection) = self.clients.get(&client) {
                    connection.died(seq);
                }
            }
        }
    }

    fn check(&self, client: &ClientId) {
        if let Some(connection) = self.clients.get(client) {
            connection.wish_check();
        }
    }

    /// Rings. Never waits: where there is no room, the client is compared with its inbox instead.
    pub(crate) fn ring(&self, bells: Vec<Bell>) {
        if bells.is_empty() {
            return;
        }
        // Who brings it must not wait for another that is at its client.
        let may_be_sent =
            bells.len() == 1 && self.clients.get(&bells[0].client).is_none_or(|connection| !connection.is_busy());
        let mut missed = Vec::new();
        let mut state = self.state.lock();
        if state.over {
            return;
        }
        let is_idle = state.sleeps && state.waiting.is_empty() && !state.routed;
        for bell in bells {
            let bytes = bell.entry.frame_bytes();
            if state.waiting.len() >= MAX_BELLS || self.bytes.load(Ordering::Relaxed) + bytes > MAX_BELL_BYTES {
                missed.push(bell.client);
            } else {
                self.bytes.fetch_add(bytes, Ordering::Relaxed);
                state.waiting.push_back(bell);
            }
        }
        if is_idle && may_be_sent && state.routed_at.elapsed() > APART {
            self.take_turn(state, &mut VecDeque::new());
        } else {
            self.wake(state);
        }
        missed.iter().for_each(|client| self.check(client));
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let slept = std::mem::take(&mut state.sleeps);
        drop(state);
        if slept {
            self.work.notify_one();
        }
    }

    /// How many bells are not sent yet.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len() + self.taken.load(Ordering::Relaxed)
    }

    /// Has [`Bells::route`] end behind what waits. What rings from now on is not heard.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.over = true;
        self.wake(state);
    }

    /// The thread body of `router`: until [`Bells::stop`].
    pub(crate) fn route(&self) {
        let mut taken = VecDeque::new();
        let mut yields = 0;
        loop {
            let mut state = self.state.lock();
            if !state.routed && !state.waiting.is_empty() {
                self.take_turn(state, &mut taken);
                state = self.state.lock();
                yields = 0;
            } else if !state.routed && state.over {
                return;
            } else if yields < YIELDS {
                yields += 1;
                MutexGuard::unlocked(&mut state, std::thread::yield_now);
            } else {
                state.sleeps = true;
                match state.gaps.front().map(|(end, _)| *end) {
                    None => self.work.wait(&mut state),
                    Some(end) => drop(self.work.wait_until(&mut state, end)),
                }
                state.sleeps = false;
            }
            while state.gaps.front().is_some_and(|(end, _)| *end <= Instant::now()) {
                if let Some((_, connection)) = state.gaps.pop_front() {
                    MutexGuard::unlocked(&mut state, || connection.gap());
                }
            }
        }
    }

    /// Routes what waits. `taken` is empty before and after.
    fn take_turn(&self, mut state: MutexGuard<'_, State>, taken: &mut VecDeque<Bell>) {
        state.routed = true;
        if state.waiting.len() > MAX_TAKEN {
            taken.extend(state.waiting.drain(..MAX_TAKEN));
        } else {
            std::mem::swap(taken, &mut state.waiting);
        }
        self.taken.store(taken.len(), Ordering::Relaxed);
        drop(state);
        let _turn = Turn(self);
        self.send_all(taken);
    }

    /// Rings at each client, which sends what the bells brought.
    fn send_all(&self, taken: &mut VecDeque<Bell>) {
        // Those of one client stay in their order.
        taken.make_contiguous().sort_by(|a, b| a.client.cmp(&b.client));
        while let Some(first) = taken.front() {
            let connection = self.clients.get(&first.client);
            let count = taken.iter().take_while(|bell| bell.client == first.client).count();
            let bytes = taken.iter().take(count).map(|bell| bell.entry.frame_bytes()).sum();
            let bells = taken.drain(..count);
            if let Some(connection) = connection
                && connection.ring(bells)
            {
                let mut state = self.state.lock();
                let is_first = state.gaps.is_empty();
                if state.gaps.len() < MAX_BELLS {
                    state.gaps.push_back((Instant::now() + GAP, connection));
                }
                if is_first {
                    // The thread is to keep its time.
                    self.wake(state);
                }
            }
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.taken.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::{Channel, Content, Entry, Mark, Payment, Seq};
    use std::thread;

    const LONG: Duration = Duration::from_secs(20);

    fn bells(count: u64) -> Vec<Bell> {
        let client = ClientId::parse("01").expect("valid");
        let content = Content::json_text(b"1").expect("JSON");
        let parcel = Payment::new(client.clone(), None, &Channel::default(), &content).parcel;
        let mark = |seq| Mark { seq: Seq(seq), accepted_at: seq };
        let entry = |seq| Entry { mark: mark(seq), expires_at: 0, parcel: parcel.clone() };
        (1..=count).map(|n| Bell { client: client.clone(), previous_at: 0, awaited: false, entry: entry(n) }).collect()
    }

    fn nobodys() -> Bells {
        Bells::new(Arc::default())
    }

    fn eventually(what: &str, bells: &Bells, is_so: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + LONG;
        while !is_so(&bells.state.lock()) {
            assert!(Instant::now() < deadline, "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn who_brings_a_bell_alone_routes_it_while_the_thread_sleeps() {
        // (is the thread asleep, does somebody route, or did just now, how many bells, how many then wait)
        for (sleeps, routed, lately, count, then) in [
            (true, false, false, 1, 0),
            (true, false, false, 2, 2),
            (true, false, true, 1, 1),
            (false, false, false, 1, 1),
            (true, true, false, 1, 1),
        ] {
            let router = nobodys();
            let routed_at = Instant::now();
            eventually("a moment passes", &router, |_| routed_at.elapsed() > 2 * APART);
            let routed_at = if lately { Instant::now() + LONG } else { routed_at };
            let mut state = router.state.lock();
            (state.sleeps, state.routed, state.routed_at) = (sleeps, routed, routed_at);
            drop(state);
            router.ring(bells(count));
            assert_eq!(router.waiting(), then, "{sleeps} {routed} {lately} {count}");
            assert_eq!(router.state.lock().sleeps, sleeps && then == 0, "what waits, the thread is woken for");
        }
    }

    #[test]
    fn what_came_while_somebody_routed_is_left_to_the_thread() {
        let router = nobodys();
        thread::scope(|scope| {
            scope.spawn(|| router.route());
            eventually("it sleeps", &router, |state| state.sleeps);
            router.state.lock().routed = true;
            router.ring(bells(1));
            eventually("it sleeps again", &router, |state| state.sleeps);
            assert_eq!(router.waiting(), 1);
            drop(Turn(&router));
            eventually("it was woken", &router, |state| state.waiting.is_empty() && !state.routed);
            router.stop();
        });
    }

    #[test]
    fn nothing_stays_behind_whoever_brings_it() {
        let router = nobodys();
        thread::scope(|scope| {
            scope.spawn(|| router.route());
            let ring = |n: u64| (0..2000).for_each(|round| router.ring(bells(1 + (round + n) % 3)));
            let ringing: Vec<_> = (0..4).map(|n| scope.spawn(move || ring(n))).collect();
            ringing.into_iter().for_each(|ringing| ringing.join().expect("no panic"));
            eventually("all is routed", &router, |state| state.waiting.is_empty() && !state.routed);
            assert_eq!((router.waiting(), router.bytes.load(Ordering::Relaxed)), (0, 0));
            router.stop();
        });
        router.ring(bells(1));
        assert_eq!(router.waiting(), 0, "after the end nothing is heard");
    }

    #[test]
    fn more_than_there_is_room_for_is_not_kept() {
        let router = nobodys();
        let most = u64::try_from(MAX_BELLS).expect("small");
        router.ring(bells(most + 1));
        assert_eq!(router.waiting(), MAX_BELLS);
        thread::scope(|scope| {
            router.stop();
            scope.spawn(|| router.route());
        });
        assert_eq!((router.waiting(), router.bytes.load(Ordering::Relaxed)), (0, 0), "the end comes behind what waits");
    }
}
