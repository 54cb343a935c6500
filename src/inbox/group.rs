//! Group commit: threads that want to store something at the same moment share one round trip to
//! Redis, or one fsync.
//!
//! Who puts a job into the list while nobody leads, leads a round: it takes the list, has the
//! home run it and complete every job. If a few more have gathered by then, and that was soon, it
//! leads these too, once: waking a thread for them costs more. From there on the `committer` leads
//! until the list is empty. So nobody waits for a round that another leads, and nobody leads for
//! long who has a socket to read. Both homes use this; what a round does is theirs.

use crate::metrics::histogram::{self, Histogram};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// The most jobs of one round.
pub(crate) const MAX_JOBS: usize = super::MAX_PER_CALL;
/// The most bytes of one round; one job always fits.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// So many jobs are led behind a round by who led it. Of more, still more gather while the committer wakes.
const FEW: usize = 4;
/// A round that took longer is followed by none: beside it a wake-up costs nothing.
const SOON: Duration = Duration::from_millis(5);
/// The most bytes that may wait in the list.
pub(crate) const MAX_WAITING_BYTES: usize = 64 << 20;

/// Something to be stored together with others.
pub(crate) trait Job: Send {
    /// What it weighs.
    fn bytes(&self) -> usize;
    /// It was not even tried.
    fn refuse(self, why: &str);
}

/// The list, and who leads.
pub(crate) struct Group<J> {
    state: Mutex<State<J>>,
    left_over: Condvar,
    /// How many jobs each round had.
    rounds: Histogram,
}

struct State<J> {
    jobs: Vec<J>,
    bytes: usize,
    led: bool,
    /// The last leader left the list to the committer.
    handed_over: bool,
    closed: bool,
}

impl<J: Job> Group<J> {
    pub(crate) fn new() -> Group<J> {
        let state = State { jobs: Vec::new(), bytes: 0, led: false, handed_over: false, closed: false };
        let rounds = Histogram::new(&histogram::JOBS);
        Group { state: Mutex::new(state), left_over: Condvar::new(), rounds }
    }

    pub(crate) fn rounds(&self) -> &Histogram {
        &self.rounds
    }

    /// How many jobs wait for a round.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().jobs.len()
    }

    /// Has jobs stored, in their order: by this thread, if nobody leads, else by who does. `run`
    /// completes every job it is given; one that it drops completes itself.
    pub(crate) fn put_all(&self, jobs: impl IntoIterator<Item = J>, run: impl Fn(Vec<J>)) {
        let mut refused = Vec::new();
        let mut state = self.state.lock();
        let closed = state.closed;
        for job in jobs {
            if closed || state.bytes + job.bytes() > MAX_WAITING_BYTES {
                refused.push(job);
            } else {
                state.bytes += job.bytes();
                state.jobs.push(job);
            }
        }
        let leads = !state.led && !state.jobs.is_empty();
        state.led |= leads;
        drop(state);
        let why = if closed { "the node is stopping" } else { "too many payments wait for the store" };
        refused.into_iter().for_each(|job| job.refuse(why));
        if leads {
            self.lead(&run);
        }
    }

    /// Leads a round, and gives leadership away.
    fn lead(&self, run: &impl Fn(Vec<J>)) {
        let mut state = self.state.lock();
        let began = Instant::now();
        self.run_round(&mut state, run);
        if (1..=FEW).contains(&state.jobs.len()) && began.elapsed() < SOON {
            self.run_round(&mut state, run);
        }
        state.handed_over = !state.jobs.is_empty();
        state.led = state.handed_over;
        // The committer has nothing to do where nothing is left over, but to end once the group is closed.
        let is_waited_for = state.handed_over || state.closed;
        drop(state);
        if is_waited_for {
            self.left_over.notify_one();
        }
    }

    fn run_round(&self, state: &mut MutexGuard<'_, State<J>>, run: &impl Fn(Vec<J>)) {
        let round = state.take_round();
        self.rounds.observe(u64::try_from(round.len()).unwrap_or(u64::MAX));
        MutexGuard::unlocked(state, || {
            // A panic of one round must not stop all others: its jobs were dropped, and said so.
            if catch_unwind(AssertUnwindSafe(|| run(round))).is_err() {
                log::error!("a panic in a commit; its payments were answered as unknown");
            }
        });
    }

    /// The thread body of `committer`; returns once the group is closed and the list is empty.
    pub(crate) fn commit(&self, run: impl Fn(Vec<J>)) {
        loop {
            let mut state = self.state.lock();
            while !state.handed_over {
                if state.closed && !state.led {
                    return;
                }
                self.left_over.wait(&mut state);
            }
            state.handed_over = false;
            drop(state);
            self.lead(&run);
        }
    }

    /// Refuses further jobs and lets [`Group::commit`] end when all is done.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.left_over.notify_one();
    }
}

impl<J: Job> State<J> {
    fn take_round(&mut self) -> Vec<J> {
        let mut bytes = 0;
        let mut fits = |job: &J| {
            bytes += job.bytes();
            bytes <= MAX_BYTES
        };
        let count = self.jobs.iter().take(MAX_JOBS).take_while(|job| fits(job)).count().max(1).min(self.jobs.len());
        let rest = self.jobs.split_off(count);
        let round = std::mem::replace(&mut self.jobs, rest);
        self.bytes -= round.iter().map(Job::bytes).sum::<usize>();
        round
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, Sender, unbounded};
    use std::collections::HashMap;
    use std::thread;

    const LONG: Duration = Duration::from_secs(20);

    /// Says what became of it; lost, it says so itself, as the homes' jobs do.
    struct Told {
        number: u32,
        weight: usize,
        tell: Option<Sender<(u32, &'static str)>>,
    }

    impl Told {
        fn new(number: u32, tell: &Sender<(u32, &'static str)>) -> Told {
            Told { number, weight: 1, tell: Some(tell.clone()) }
        }

        fn weighing(mut self, bytes: usize) -> Told {
            self.weight = bytes;
            self
        }

        fn finish(mut self, word: &'static str) {
            self.tell(word);
        }

        fn tell(&mut self, word: &'static str) {
            if let Some(tell) = self.tell.take() {
                tell.send((self.number, word)).expect("the test listens");
            }
        }
    }

    impl Drop for Told {
        fn drop(&mut self) {
            self.tell("unknown");
        }
    }

    impl Job for Told {
        fn bytes(&self) -> usize {
            self.weight
        }

        fn refuse(self, _: &str) {
            self.finish("refused");
        }
    }

    fn store(jobs: Vec<Told>) {
        assert!(jobs.len() <= MAX_JOBS);
        jobs.into_iter().for_each(|job| job.finish("stored"));
    }

    fn words(told: &Receiver<(u32, &'static str)>) -> HashMap<(u32, &'static str), u32> {
        let mut words = HashMap::new();
        told.try_iter().for_each(|word| *words.entry(word).or_default() += 1);
        words
    }

    #[test]
    fn every_job_of_many_threads_is_done_exactly_once() {
        let (group, (tell, told)) = (Group::new(), unbounded());
        thread::scope(|scope| {
            let committer = scope.spawn(|| group.commit(store));
            let putters: Vec<_> = (0..16)
                .map(|thread| {
                    let (group, tell) = (&group, &tell);
                    scope
                        .spawn(move || (0..200).for_each(|n| group.put_all([Told::new(thread * 200 + n, tell)], store)))
                })
                .collect();
            putters.into_iter().for_each(|putter| putter.join().expect("no panic"));
            group.close();
            committer.join().expect("no panic");
        });
        let words = words(&told);
        assert_eq!(words.len(), 16 * 200);
        assert!(words.iter().all(|((_, word), times)| (*word, *times) == ("stored", 1)));
    }

    #[test]
    fn what_is_put_together_shares_rounds_and_keeps_its_order() {
        let (group, (tell, told)) = (Group::new(), unbounded());
        let rounds = Mutex::new(Vec::new());
        let counted = |jobs: Vec<Told>| {
            rounds.lock().push(jobs.len());
            store(jobs);
        };
        let jobs = || (0..MAX_JOBS as u32 + 10).map(|n| Told::new(n, &tell));
        group.put_all(jobs(), counted);
        group.close();
        group.commit(counted);
        assert_eq!(*rounds.lock(), [MAX_JOBS, 10]);
        assert!(told.try_iter().map(|(n, _)| n).eq(0..MAX_JOBS as u32 + 10));
    }

    #[test]
    fn a_thread_leads_one_round_and_leaves_many_more_to_the_committer() {
        let (group, (tell, told)) = (Group::new(), unbounded());
        let ((begun_tx, begun), (go, go_rx)) = (unbounded(), unbounded::<()>());
        let slow = |jobs: Vec<Told>| {
            begun_tx.send(thread::current().id()).expect("the test listens");
            go_rx.recv_timeout(LONG).expect("told to go on");
            store(jobs);
        };
        let rest = 2..=2 + FEW as u32;
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                group.put_all([Told::new(1, &tell)], slow);
                thread::current().id()
            });
            let first = begun.recv_timeout(LONG).expect("a round began");
            // These return at once, though a round is under way.
            rest.clone().for_each(|n| group.put_all([Told::new(n, &tell)], slow));
            assert!(told.is_empty());
            go.send(()).expect("the leader waits");
            // There is no committer yet, and the leader returns all the same.
            assert_eq!(leader.join().expect("no panic"), first);
            assert_eq!(words(&told), HashMap::from([((1, "stored"), 1)]));

            let committer = scope.spawn(|| group.commit(slow));
            assert_eq!(begun.recv_timeout(LONG).expect("a round began"), committer.thread().id());
            go.send(()).expect("the committer waits");
            group.close();
            committer.join().expect("no panic");
        });
        assert_eq!(words(&told), rest.map(|n| ((n, "stored"), 1)).collect());
    }

    #[test]
    fn a_few_that_gather_soon_are_led_by_the_same_thread_once() {
        // (how many gather in each round, how long that takes, the rounds that are led)
        for (gather, takes, led) in [
            (0, Duration::ZERO, vec![1]),
            (1, Duration::ZERO, vec![1, 1]),
            (FEW, Duration::ZERO, vec![1, FEW]),
            (FEW + 1, Duration::ZERO, vec![1]),
            (1, SOON, vec![1]),
        ] {
            let rounds_led = || {
                let (group, (tell, told)) = (Group::new(), unbounded());
                let put = || group.put_all([Told::new(1, &tell)], |_| panic!("a round is under way"));
                let rounds = Mutex::new(Vec::new());
                group.put_all([Told::new(1, &tell)], |jobs: Vec<Told>| {
                    rounds.lock().push(jobs.len());
                    store(jobs);
                    (0..gather).for_each(|_| put());
                    thread::sleep(takes);
                });
                let rounds = rounds.into_inner();
                assert_eq!(group.waiting(), gather);
                group.close();
                group.commit(store);
                assert_eq!(told.try_iter().count(), rounds.iter().sum::<usize>() + gather);
                rounds
            };
            // This machine may take its time as well.
            let deadline = Instant::now() + LONG;
            let mut last = rounds_led();
            while last != led && last == [1] && Instant::now() < deadline {
                last = rounds_led();
            }
            assert_eq!(last, led, "{gather} in {takes:?}");
        }
    }

    #[test]
    fn the_committer_ends_behind_a_leader_that_was_at_work_when_the_group_was_closed() {
        let (group, (tell, told)) = (Group::new(), unbounded());
        let ((begun_tx, begun), (go, go_rx)) = (unbounded(), unbounded::<()>());
        let slow = |jobs: Vec<Told>| {
            begun_tx.send(()).expect("the test listens");
            go_rx.recv_timeout(LONG).expect("told to go on");
            store(jobs);
        };
        let (ended_tx, ended) = unbounded();
        thread::scope(|scope| {
            scope.spawn(|| group.put_all([Told::new(1, &tell)], slow));
            begun.recv_timeout(LONG).expect("a round began");
            group.close();
            scope.spawn(|| {
                group.commit(slow);
                ended_tx.send(()).expect("the test listens");
            });
            assert!(ended.recv_timeout(Duration::from_millis(50)).is_err(), "a round is under way");
            go.send(()).expect("the leader waits");
            let has_ended = ended.recv_timeout(LONG);
            // Where it has not, this lets it.
            group.left_over.notify_one();
            has_ended.expect("the committer ends");
        });
        assert_eq!(words(&told), HashMap::from([((1, "stored"), 1)]));
    }

    #[test]
    fn a_round_is_bounded_in_bytes_but_takes_at_least_one_job() {
        let (tell, _told) = unbounded();
        let weights = [MAX_BYTES + 1, MAX_BYTES, 1, MAX_BYTES - 1];
        let jobs: Vec<_> = weights.iter().map(|&weight| Told::new(0, &tell).weighing(weight)).collect();
        let bytes = weights.iter().sum();
        let mut state = State { jobs, bytes, led: false, handed_over: false, closed: false };
        let taken: Vec<usize> = (0..3).map(|_| state.take_round().len()).collect();
        assert_eq!((taken, state.bytes), (vec![1, 1, 2], 0));
    }

    #[test]
    fn a_panic_in_a_round_is_told_to_its_jobs_and_hurts_no_other() {
        let (group, (tell, told)) = (Group::new(), unbounded());
        group.put_all([Told::new(1, &tell)], |_| panic!("on purpose"));
        group.put_all([Told::new(2, &tell)], store);
        assert_eq!(words(&told), HashMap::from([((1, "unknown"), 1), ((2, "stored"), 1)]));
    }

    #[test]
    fn what_comes_after_the_close_or_beyond_the_bound_is_refused() {
        let (group, (tell, told)) = (Group::new(), unbounded());
        group.put_all([Told::new(1, &tell).weighing(MAX_WAITING_BYTES + 1)], store);
        group.close();
        group.put_all([Told::new(2, &tell)], store);
        group.commit(store);
        assert_eq!(words(&told), HashMap::from([((1, "refused"), 1), ((2, "refused"), 1)]));
    }
}
