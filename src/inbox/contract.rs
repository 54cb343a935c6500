//! What both homes promise, through the trait alone: the same tests over a data directory and over a real Redis.
//!
//! Here payments and who owns them; dead letters and what expires stand in `dead_letters`, and what only Redis can do to
//! us (junk, forgotten scripts, another node) in `redis_only`.

mod dead_letters;
mod redis_only;
pub(in crate::inbox) mod world;

use super::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use world::*;

macro_rules! on_both_homes {
    ($($name:ident),+ $(,)?) => {
        mod disk {
            $( #[test] fn $name() { super::$name(super::Home::Disk); } )+
        }
        mod redis {
            $( #[test] fn $name() { super::$name(super::Home::Redis); } )+
        }
    };
}
use on_both_homes;

on_both_homes!(
    seqs_have_no_gaps_and_accepted_at_never_falls,
    a_payment_id_is_one_payment,
    after_its_window_a_payment_id_is_new,
    the_inbox_limit_is_exact_for_many_threads,
    a_full_inbox_names_the_first_of_a_repeat_and_takes_more_after_an_ack,
    the_newest_session_owns_the_inbox,
    a_session_that_was_released_is_over_and_nothing_was_lost,
    notes_of_one_call_are_stored_in_their_order,
    acks_only_rise,
    an_ack_of_what_never_was_is_a_roll_back,
    a_reading_keeps_its_limits,
    a_reading_behind_what_never_was_is_a_roll_back,
    a_client_changes_hands_ten_times_a_second_at_most,
    a_claim_past_its_deadline_is_not_run,
    a_payment_is_found_by_number_and_by_id,
    a_record_says_what_is_there,
    who_keeps_payments_waiting_is_listed_by_client_id,
    a_retired_clients_next_life_is_newer_and_knows_no_old_payment_id,
    bells_ring_before_the_answers_and_only_for_who_is_here,
    a_payment_past_its_deadline_is_not_stored,
    a_panic_in_one_answer_hurts_no_other,
    every_payment_of_many_threads_is_answered_once,
    more_than_one_call_takes_is_answered_in_order,
    after_the_close_payments_are_refused,
);

fn seqs_have_no_gaps_and_accepted_at_never_falls(home: Home) {
    let world = World::open(home);
    let marks: Vec<Mark> = (0..20).map(|_| world.post("01")).collect();
    assert!(marks.iter().zip(1..).all(|(mark, n)| mark.seq == Seq(n)), "{marks:?}");
    assert!(marks.windows(2).all(|two| two[0].accepted_at <= two[1].accepted_at), "{marks:?}");
    assert_eq!(world.post("02").seq, Seq(1), "every client has its own numbers");
}

fn a_payment_id_is_one_payment(home: Home) {
    let world = World::open(home);
    let first = world.try_post("01", Some("wx-1"), "1").expect("accepted");
    assert!(!first.duplicate);
    let again = world.try_post("01", Some("wx-1"), "1").expect("known");
    assert_eq!((again.mark, again.duplicate, again.status), (first.mark, true, Status::Accepted));
    assert_eq!(world.try_post("01", Some("wx-1"), "2"), Err(Error::IdReused));
    assert_eq!(world.record("01").expect("known").last, Seq(1), "a repeat stores nothing");
    let other = world.try_post("02", Some("wx-1"), "2").expect("accepted");
    assert!(!other.duplicate, "payment ids are a client's own");

    let session = world.claim("01").session;
    assert_eq!(world.ack("01", &session, first.mark), Ok(Booked::Acknowledged(Seq(1))));
    let late = world.try_post("01", Some("wx-1"), "1").expect("known");
    assert_eq!((late.mark, late.duplicate, late.status), (first.mark, true, Status::Acknowledged));
    assert_eq!(world.try_post("01", Some("wx-1"), "2"), Err(Error::IdReused));
}

fn after_its_window_a_payment_id_is_new(home: Home) {
    let world = World::with(home, 10, Duration::from_millis(50));
    world.try_post("01", Some("wx-1"), "1").expect("accepted");
    eventually("the payment id is forgotten", || world.find_id("01", "wx-1").is_none());
    let anew = world.try_post("01", Some("wx-1"), "2").expect("accepted");
    assert_eq!((anew.mark.seq, anew.duplicate), (Seq(2), false));
}

fn the_inbox_limit_is_exact_for_many_threads(home: Home) {
    let world = World::with(home, 50, SECOND);
    let full = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    if let Err(error) = world.try_post("01", None, "1") {
                        assert_eq!(error, Error::InboxFull);
                        full.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(full.into_inner(), 30);
    let record = world.record("01").expect("known");
    assert_eq!((record.last, record.pending), (Seq(50), 50));
}

fn a_full_inbox_names_the_first_of_a_repeat_and_takes_more_after_an_ack(home: Home) {
    let world = World::with(home, 1, 3600 * SECOND);
    let first = world.try_post("01", Some("wx-1"), "1").expect("accepted").mark;
    assert_eq!(world.try_post("01", Some("wx-2"), "1"), Err(Error::InboxFull));
    assert!(world.try_post("01", Some("wx-1"), "1").expect("known").duplicate);
    assert_eq!(world.find_id("01", "wx-2"), None, "what was refused left nothing");
    assert_eq!(world.post("02").seq, Seq(1), "the limit is of one client");
    let session = world.claim("01").session;
    world.ack("01", &session, first).expect("acknowledged");
    let second = world.try_post("01", Some("wx-2"), "1").expect("accepted");
    assert_eq!((second.mark.seq, second.duplicate), (Seq(2), false));
}

fn the_newest_session_owns_the_inbox(home: Home) {
    let world = World::open(home);
    let (first, second) = (world.post("01"), world.post("01"));
    let old = world.claim("01");
    let new = world.claim("01");
    assert!(new.session.number > old.session.number);
    assert_eq!((new.session.epoch, new.acked, new.last, new.pending), (old.session.epoch, old.acked, second, 2));

    assert_eq!(world.ack("01", &old.session, second), Ok(Booked::Replaced));
    assert_eq!(world.read("01", &old.session, Mark::default(), 9, 9), Ok(Reading::Replaced));
    assert_eq!(world.read("01", &old.session, Mark::default(), 0, 0), Ok(Reading::Replaced));
    world.release("01", &old.session).expect("an answer");
    let record = world.record("01").expect("known");
    assert_eq!((record.acked, record.pending), (Seq(0), 2), "a stale ack changes nothing");
    assert!(record.owner.is_some(), "the end of the old session is not the end of the new one");

    assert_eq!(world.ack("01", &new.session, first), Ok(Booked::Acknowledged(Seq(1))));
    assert_eq!(world.release("01", &new.session), Ok(Booked::Released));
    assert_eq!(world.record("01").expect("known").owner, None);
}

/// Catch-up reads on a line of its own: its question may come after the release.
fn a_session_that_was_released_is_over_and_nothing_was_lost(home: Home) {
    let world = World::open(home);
    let first = world.post("01");
    let before = world.claim("01");
    world.release("01", &before.session).expect("released");
    assert_eq!(world.read("01", &before.session, Mark::default(), 9, 9), Ok(Reading::Replaced));
    assert_eq!(world.ack("01", &before.session, first), Ok(Booked::Replaced));
    let after = world.claim("01");
    assert_eq!(after.session.epoch, before.session.epoch, "the store lost nothing");
    assert_eq!((after.acked, after.pending), (Mark::default(), 1));
}

fn notes_of_one_call_are_stored_in_their_order(home: Home) {
    let world = World::open(home);
    let first = world.post("01");
    let session = world.claim("01").session;
    let notes = [
        ack("01", &session, first),
        Note::Release { client: client("01"), session: session.clone() },
        claim("01"),
        claim("02"),
    ];
    let booked = world.inbox.book(&notes);
    let [
        Ok(Booked::Acknowledged(Seq(1))),
        Ok(Booked::Released),
        Ok(Booked::Claimed(again)),
        Ok(Booked::Claimed(other)),
    ] = &booked[..]
    else {
        panic!("not in order: {booked:?}");
    };
    assert_eq!((again.acked, again.last, again.pending), (first, first, 0));
    assert!(again.session.number > session.number);
    assert_eq!((other.acked, other.last, other.pending), (Mark::default(), Mark::default(), 0));
}

fn acks_only_rise(home: Home) {
    let world = World::open(home);
    let sent: Vec<Mark> = (0..3).map(|_| world.post("01")).collect();
    let session = world.claim("01").session;
    assert_eq!(world.ack("01", &session, sent[1]), Ok(Booked::Acknowledged(Seq(2))));
    assert_eq!(world.ack("01", &session, sent[0]), Ok(Booked::Acknowledged(Seq(2))));
    assert_eq!(world.ack("01", &session, sent[1]), Ok(Booked::Acknowledged(Seq(2))));
    assert_eq!(world.slice("01", &session, sent[1], 9, 9999), (vec![sent[2]], sent[2]));
    assert_eq!(world.ack("01", &session, sent[2]), Ok(Booked::Acknowledged(Seq(3))));
    let record = world.record("01").expect("known");
    assert_eq!((record.acked, record.pending, record.oldest_pending_at), (Seq(3), 0, None));
}

fn an_ack_of_what_never_was_is_a_roll_back(home: Home) {
    let world = World::open(home);
    for name in ["another-time", "another-number"] {
        let first = world.post(name);
        let session = world.claim(name).session;
        let wrong = match name {
            "another-time" => Mark { accepted_at: first.accepted_at + 1, ..first },
            _ => Mark { seq: Seq(2), ..first },
        };
        assert_eq!(world.ack(name, &session, wrong), Ok(Booked::RolledBack), "{name}");
        let record = world.record(name).expect("known");
        assert_eq!((record.acked, record.pending), (Seq(0), 1), "{name}");
        let session = world.claim(name).session;
        assert_eq!(world.slice(name, &session, Mark::default(), 9, 9999), (vec![first], first), "{name}");
        assert_eq!(world.ack(name, &session, first), Ok(Booked::Acknowledged(Seq(1))), "{name}");
    }
}

fn a_reading_keeps_its_limits(home: Home) {
    let world = World::open(home);
    let sent: Vec<Mark> = (0..40).map(|_| world.post("01")).collect();
    let (session, last) = (world.claim("01").session, sent[39]);
    let start = Mark::default();
    assert_eq!(world.slice("01", &session, start, 100, usize::MAX), (sent.clone(), last));
    for payments in [1, 15, 16, 17, 33, 39] {
        assert_eq!(world.slice("01", &session, start, payments, usize::MAX), (sent[..payments].to_vec(), last));
    }
    assert_eq!(world.slice("01", &session, sent[2], 2, usize::MAX), (sent[3..5].to_vec(), last));
    assert_eq!(world.slice("01", &session, start, 0, usize::MAX), (vec![], last), "0 only checks");
    assert_eq!(world.slice("01", &session, last, 9, usize::MAX), (vec![], last));
    assert_eq!(world.slice("01", &session, start, 9, 1), (sent[..1].to_vec(), last), "at least one comes");
    let (some, _) = world.slice("01", &session, start, 100, 400);
    assert!(some.len() > 1 && some.len() < 20 && sent.starts_with(&some), "{some:?}");

    assert_eq!(world.ack("01", &session, sent[9]), Ok(Booked::Acknowledged(Seq(10))));
    assert_eq!(world.slice("01", &session, sent[9], 3, usize::MAX), (sent[10..13].to_vec(), last));
    let (rest, _) = world.slice("01", &session, sent[4], 3, usize::MAX);
    assert_eq!(rest, sent[10..13], "what left the inbox does not come again");
}

fn a_reading_behind_what_never_was_is_a_roll_back(home: Home) {
    let world = World::open(home);
    for (name, payments) in [("another-time", 9), ("another-number", 9), ("only-a-check", 0)] {
        let sent = [world.post(name), world.post(name)];
        let session = world.claim(name).session;
        let after = match name {
            "another-number" => Mark { seq: Seq(3), ..sent[1] },
            _ => Mark { accepted_at: sent[0].accepted_at + 1, ..sent[0] },
        };
        assert_eq!(world.read(name, &session, after, payments, 99), Ok(Reading::RolledBack), "{name}");
        let session = world.claim(name).session;
        assert_eq!(world.slice(name, &session, Mark::default(), 9, 9999).0, sent, "{name}");
    }
}

fn a_client_changes_hands_ten_times_a_second_at_most(home: Home) {
    let world = World::open(home);
    // A claim of another may come so late that it has its turn: then the next one is too soon.
    let (held, wait) = (0..50)
        .find_map(|_| {
            let held = world.claim("01").session;
            match world.book_one(claim("01")) {
                Ok(Booked::TooSoon(wait)) => Some((held, wait)),
                _ => None,
            }
        })
        .expect("two claims within 100 ms");
    assert!(!wait.is_zero() && wait <= Duration::from_millis(100), "{wait:?}");
    assert_eq!(world.slice("01", &held, Mark::default(), 0, 0).0, [], "who waits takes nothing away");
    thread::sleep(wait);
    let Ok(Booked::Claimed(next)) = world.book_one(claim("01")) else { panic!("its turn has come") };
    assert!(next.session.number > held.number);
    world.release("01", &next.session).expect("released");
    assert!(matches!(world.book_one(claim("01")), Ok(Booked::Claimed(_))), "nobody holds it: no wait");
}

fn a_claim_past_its_deadline_is_not_run(home: Home) {
    let world = World::open(home);
    for round in 0..20 {
        let late = claim_until("01", Instant::now());
        assert!(not_stored(&world.book_one(late)), "round {round}");
        assert_eq!(world.record("01"), None, "round {round}");
    }
}

fn a_payment_is_found_by_number_and_by_id(home: Home) {
    let world = World::open(home);
    let first = world.try_post("01", Some("wx-1"), "1").expect("accepted").mark;
    world.post("01");
    let found = |seq, status, id: Option<&str>| {
        let payment_id = id.map(str::to_owned);
        Some(Found { seq: Seq(seq), status, payment_id, due_in: None })
    };
    assert_eq!(world.find("01", seq(1)), found(1, Status::Accepted, Some("wx-1")));
    assert_eq!(world.find("01", seq(2)), found(2, Status::Accepted, None));
    assert_eq!(world.find_id("01", "wx-1"), found(1, Status::Accepted, Some("wx-1")));
    let session = world.claim("01").session;
    world.ack("01", &session, first).expect("acknowledged");
    assert_eq!(world.find("01", seq(1)), found(1, Status::Acknowledged, None));
    assert_eq!(world.find_id("01", "wx-1"), found(1, Status::Acknowledged, Some("wx-1")));
    for unknown in [0, 3, u64::MAX] {
        assert_eq!(world.find("01", seq(unknown)), None, "{unknown}");
    }
    assert_eq!(
        (world.find("02", seq(1)), world.find_id("02", "wx-1"), world.find_id("01", "wx-2")),
        (None, None, None)
    );
}

fn a_record_says_what_is_there(home: Home) {
    let world = World::open(home);
    assert_eq!(world.record("01"), None);
    let session = world.claim("01").session;
    let owner = world.record("01").and_then(|record| record.owner).expect("connected");
    assert_eq!((owner.node.as_str(), owner.address.as_str()), ("n1", "10.0.0.7:51312"));
    assert!(owner.since > 1_700_000_000_000, "Unix ms: {}", owner.since);
    let sent = [world.post("01"), world.post("01"), world.post("01")];
    world.ack("01", &session, sent[0]).expect("acknowledged");
    world.release("01", &session).expect("released");
    let expected = Record {
        last: Seq(3),
        acked: Seq(1),
        pending: 2,
        oldest_pending_at: Some(sent[1].accepted_at),
        dead_letters: 0,
        owner: None,
    };
    assert_eq!(world.record("01"), Some(expected));
    world.post("never-connected");
    assert_eq!(world.record("never-connected").expect("known").pending, 1);
}

fn who_keeps_payments_waiting_is_listed_by_client_id(home: Home) {
    let world = World::open(home);
    let marks = ["b", "a", "c"].map(|name| (name, world.post(name)));
    world.claim("nothing-waits");
    world.expect_waiting(&["a", "b", "c"]);
    assert_eq!(world.inbox.waiting(None, 2), Ok(vec![client("a"), client("b")]));
    assert_eq!(world.inbox.waiting(Some(&client("a")), 9), Ok(vec![client("b"), client("c")]));
    let session = world.claim("b").session;
    world.ack("b", &session, marks[0].1).expect("acknowledged");
    world.expect_waiting(&["a", "c"]);
}

fn a_retired_clients_next_life_is_newer_and_knows_no_old_payment_id(home: Home) {
    let world = World::open(home);
    world.try_post("01", Some("wx-1"), "1").expect("accepted");
    world.try_post("02", Some("wx-1"), "1").expect("accepted");
    let before = world.claim("01").session;
    // Epochs are milliseconds: a life lasts at least one.
    eventually("a millisecond is over", || world.post("01").accepted_at > before.epoch);
    let pending = world.record("01").expect("known").pending;
    assert_eq!(world.inbox.retire(&client("01"), false), Ok(Retired::Pending(pending)));
    assert_eq!(world.inbox.retire(&client("01"), true), Ok(Retired::Done));
    assert_eq!(world.inbox.retire(&client("01"), true), Ok(Retired::Unknown));
    assert_eq!((world.record("01"), world.find_id("01", "wx-1")), (None, None));

    let anew = world.try_post("01", Some("wx-1"), "2").expect("accepted");
    assert_eq!((anew.mark.seq, anew.duplicate, anew.online), (Seq(1), false, false));
    let after = world.claim("01");
    assert!(after.session.epoch > before.epoch, "{} > {}", after.session.epoch, before.epoch);
    assert_eq!((after.acked, after.pending), (Mark::default(), 1));
    // The old life's connection can do nothing to the new one.
    assert_ne!(world.ack("01", &before, anew.mark), Ok(Booked::Acknowledged(Seq(1))));
    world.release("01", &before).expect("an answer");
    let record = world.record("01").expect("known");
    assert!((record.acked, record.pending) == (Seq(0), 1) && record.owner.is_some(), "{record:?}");
    assert!(world.try_post("02", Some("wx-1"), "1").expect("known").duplicate, "another's payment ids stay");

    let session = world.claim("03").session;
    world.release("03", &session).expect("released");
    assert_eq!(world.inbox.retire(&client("03"), false), Ok(Retired::Done), "nothing was pending");
}

fn bells_ring_before_the_answers_and_only_for_who_is_here(home: Home) {
    let world = World::open(home);
    let session = world.claim("01").session;
    let post = |name: &'static str| {
        let (heard, (tx, rx)) = (Arc::clone(&world.heard), mpsc::channel());
        world.inbox.accept(deposit(payment(name, Some("wx-1"), "1"), move |result| {
            let accepted = result.expect("accepted");
            heard.lock().push(format!("answer {name} {} {}", accepted.mark.seq, accepted.online));
            let _ = tx.send(());
        }));
        rx.recv_timeout(LONG).expect("an answer");
    };
    post("01");
    post("02");
    post("01");
    world.release("01", &session).expect("released");
    world.post("01");
    let expected = ["bell 01 1", "answer 01 1 true", "answer 02 1 false", "answer 01 1 true"];
    assert_eq!(*world.heard.lock(), expected, "a repeat rings no bell, nor does what nobody here waits for");
}

fn a_payment_past_its_deadline_is_not_stored(home: Home) {
    let world = World::open(home);
    let (tx, rx) = mpsc::channel();
    let mut late = deposit(payment("01", Some("wx-1"), "1"), move |result| drop(tx.send(result)));
    late.deadline = Instant::now();
    world.inbox.accept(late);
    assert!(not_stored(&rx.recv_timeout(LONG).expect("an answer")));
    assert_eq!((world.record("01"), world.find_id("01", "wx-1")), (None, None));
}

fn a_panic_in_one_answer_hurts_no_other(home: Home) {
    let world = World::open(home);
    let (inbox, (held_tx, held), (go, go_rx)) = (Arc::clone(&world.inbox), mpsc::channel(), mpsc::channel::<()>());
    let leader = thread::spawn(move || {
        inbox.accept(deposit(payment("01", None, "1"), move |_| {
            let _ = held_tx.send(());
            let _ = go_rx.recv_timeout(LONG);
        }));
    });
    held.recv_timeout(LONG).expect("a round is led");
    // These are one round, the committer's.
    let (tx, rx) = mpsc::channel();
    for n in 2..=6 {
        let tx = tx.clone();
        world.inbox.accept(deposit(payment("01", None, "1"), move |result| {
            assert!(n % 2 == 1, "on purpose");
            drop(tx.send(result));
        }));
    }
    go.send(()).expect("the leader waits");
    leader.join().expect("no panic");
    let answers: Vec<Seq> =
        (0..2).map(|_| rx.recv_timeout(LONG).expect("an answer").expect("accepted").mark.seq).collect();
    assert_eq!(answers, [Seq(3), Seq(5)]);
    assert_eq!(world.post("01").seq, Seq(7), "who panicked had its payment stored, and others go on");
}

fn every_payment_of_many_threads_is_answered_once(home: Home) {
    const CLIENTS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let world = World::open(home);
    let (tx, rx) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..16 {
            let (tx, inbox) = (tx.clone(), &world.inbox);
            scope.spawn(move || {
                for n in 0..200 {
                    let (tx, name) = (tx.clone(), CLIENTS[n % CLIENTS.len()]);
                    inbox.accept(deposit(payment(name, None, "1"), move |result| drop(tx.send((name, result)))));
                }
            });
        }
    });
    drop(tx);
    let mut seqs: HashMap<&str, Vec<u64>> = HashMap::new();
    // It ends with the last of the senders: a second answer would be counted, a missing one too.
    while let Ok((name, result)) = rx.recv_timeout(LONG) {
        seqs.entry(name).or_default().push(result.expect("accepted").mark.seq.0);
    }
    for name in CLIENTS {
        let mut all = seqs.remove(name).unwrap_or_default();
        all.sort_unstable();
        assert!(all.iter().copied().eq(1..=640), "{name}: {} answers", all.len());
        assert_eq!(world.record(name).expect("known").last, Seq(640));
    }
}

fn more_than_one_call_takes_is_answered_in_order(home: Home) {
    let world = World::open(home);
    let names: Vec<String> = (0..300).map(|n| format!("c{n}")).collect();
    let clients: Vec<ClientId> = names.iter().map(|name| client(name)).collect();
    // As many payments as its name has letters: so no two answers look alike by chance.
    let post_some = |name: &String| {
        (1..name.len()).for_each(|_| drop(world.try_post(name, None, "1")));
        world.post(name)
    };
    let marks: Vec<Mark> = names.iter().map(post_some).collect();
    let notes: Vec<Note> = names.iter().map(|name| claim(name)).collect();
    let sessions: Vec<Session> = world
        .inbox
        .book(&notes)
        .into_iter()
        .zip(&marks)
        .map(|(booked, mark)| match booked {
            Ok(Booked::Claimed(claimed)) if claimed.last == *mark => claimed.session,
            other => panic!("not claimed: {other:?}"),
        })
        .collect();
    assert_eq!(sessions.len(), names.len());
    let ask = |(client, session): (&ClientId, &Session)| {
        let (client, session) = (client.clone(), session.clone());
        Ask { client, session, after: Mark::default(), payments: 9, bytes: usize::MAX }
    };
    let asks: Vec<Ask> = clients.iter().zip(&sessions).map(ask).collect();
    let lasts = world.inbox.read(&asks).into_iter().map(|reading| match reading {
        Ok(Reading::Slice(Slice { entries, .. })) => entries.last().map(|entry| entry.mark).expect("some"),
        other => panic!("no slice: {other:?}"),
    });
    assert!(lasts.eq(marks.iter().copied()));
    let queries: Vec<Query> = clients.iter().map(|c| Query { client: c.clone(), which: seq(3) }).collect();
    let found = world.inbox.look_up(&queries).into_iter().map(|found| found.expect("a word").is_some());
    assert!(found.eq(names.iter().map(|name| name.len() >= 3)));
    let records = world.inbox.records(&clients).into_iter().map(|r| r.expect("a word").expect("known").last);
    assert!(records.eq(marks.iter().map(|mark| mark.seq)));
}

fn after_the_close_payments_are_refused(home: Home) {
    let world = World::open(home);
    world.post("01");
    world.inbox.close();
    assert!(not_stored(&world.try_post("01", None, "1")));
    assert_eq!(world.record("01").expect("known").last, Seq(1));
}
