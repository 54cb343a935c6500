//! What only Redis can do to us.

use super::world::*;
use crate::doorbell::Bell;
use crate::inbox::*;
use rustix::process::Signal;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;

/// Another's text in the list, though as many as there should be.
const FOREIGN: [&str; 2] = ["RPUSH", "not an entry"];

#[test]
fn junk_in_a_clients_keys_is_that_clients_trouble_alone() {
    let world = World::open(Home::Redis);
    let server = Arc::clone(world.server());
    // Which key, what stands there instead, and which calls are to say so.
    let cases: [(&str, &[&str], &[&str]); 19] = [
        ("state", &["SET", "junk"], &["post", "await", "claim", "ack", "read", "find", "record", "release"]),
        ("state", &["SET", ""], &["post", "await", "claim", "ack", "read", "find", "record", "release"]),
        ("state", &["SET", "2 0 0 0 0 0 0 0 1 1 1 x n1/x"], &["post", "claim", "ack", "read", "find", "record"]),
        ("state", &["SET", "3 -1 0 0 0 0 0 0 1 1 1 x n1/x"], &["post", "claim", "ack", "read", "find", "record"]),
        ("state", &["HSET", "a", "b"], &["post", "await", "claim", "ack", "read", "find", "record", "release"]),
        ("inbox", &["SET", "junk"], &["post", "await", "claim", "ack", "read", "find", "record"]),
        ("inbox", &["HSET", "a", "b"], &["post", "await", "claim", "ack", "read", "find", "record"]),
        ("inbox", &FOREIGN, &["post", "await", "claim", "ack", "read", "find"]),
        ("inbox", &["RPUSH", "9 1 0 9 20 x"], &["post", "await", "claim", "ack", "read", "find"]),
        ("inbox", &["RPUSH", "a", "b"], &["post", "await", "claim", "ack", "read", "find"]),
        ("beside", &["SET", "junk"], &["await", "claim", "ack", "record", "release"]),
        ("beside", &["HSET", "since", "lately"], &["claim"]),
        ("id:wx-1", &["HSET", "a", "b"], &["repeat", "find id"]),
        ("id:wx-1", &["SET", "junk"], &[]),
        ("dead", &["SET", "junk"], &["repeat", "find", "find id", "refuse", "purge", "retry"]),
        ("dead", &["HSET", "1", "junk"], &["repeat", "find", "find id", "refuse", "purge", "retry"]),
        ("letters", &["SET", "junk"], &["refuse", "list"]),
        ("letters", &["ZADD", "1", "1"], &["list"]),
        ("words", &["SET", "junk"], &["refuse"]),
    ];
    for (number, (key, junk, troubled)) in cases.into_iter().enumerate() {
        let (name, other) = (format!("c{number}"), format!("other-{number}"));
        let (name, other) = (name.as_str(), other.as_str());
        let mark = world.try_post_awaited(name, "wx-1").expect("accepted").mark;
        let session = world.claim(name).session;
        let others = world.post(other);
        let others_session = world.claim(other).session;
        server.spoil(name, key, junk);

        let check = |what: &str, call: &mut dyn FnMut() -> Result<(), Error>| {
            let before = server.image(name);
            let outcome = call();
            let case = format!("{key} {junk:?}: {what}: {outcome:?}");
            if troubled.contains(&what) {
                assert!(matches!(outcome, Err(Error::Corrupt(_))), "{case}");
            }
            if outcome.is_err() {
                assert_eq!(server.image(name), before, "{case}: half-changed");
            }
        };
        let some = |outcome: Result<Accepted, Error>| outcome.map(|_| ());
        check("post", &mut || some(world.try_post(name, None, "1")));
        check("await", &mut || some(world.try_post_awaited(name, "wx-2")));
        check("repeat", &mut || some(world.try_post(name, Some("wx-1"), "1")));
        check("find", &mut || {
            let query = Query { client: client(name), which: seq(1) };
            world.inbox.look_up(&[query]).remove(0).map(|_| ())
        });
        check("find id", &mut || {
            let query = Query { client: client(name), which: Which::PaymentId(payment_id("wx-1")) };
            world.inbox.look_up(&[query]).remove(0).map(|_| ())
        });
        check("record", &mut || world.inbox.records(&[client(name)]).remove(0).map(|_| ()));
        check("read", &mut || world.read(name, &session, Mark::default(), 9, usize::MAX).map(|_| ()));
        check("list", &mut || world.inbox.dead_letters(&client(name), Seq(0), 9, 99).map(|_| ()));
        check("purge", &mut || world.inbox.purge(&client(name), Seq(1)).map(|_| ()));
        check("retry", &mut || world.inbox.retry(&client(name), Seq(1)).map(|_| ()));
        check("refuse", &mut || world.inbox.refuse(&client(name), Seq(1), "operator").map(|_| ()));
        check("ack", &mut || world.ack(name, &session, mark).map(|_| ()));
        check("claim", &mut || world.book_one(claim(name)).map(|_| ()));
        check("release", &mut || world.release(name, &session).map(|_| ()));

        let notes = [claim(name), ack(name, &session, mark), ack(other, &others_session, others)];
        let booked = world.inbox.book(&notes);
        assert_eq!(booked[2], Ok(Booked::Acknowledged(Seq(1))), "{key} {junk:?}: others go on");
        assert_eq!(world.post(other).seq, Seq(2), "{key} {junk:?}: others go on");
        assert_eq!(world.inbox.retire(&client(name), true), Ok(Retired::Done), "{key} {junk:?}: it can be discarded");
        assert_eq!(world.post(name).seq, Seq(1), "{key} {junk:?}: and begins anew");
    }
}

#[test]
fn junk_of_one_client_is_no_trouble_of_another_in_the_same_round() {
    let world = World::open(Home::Redis);
    assert_eq!([world.post("bad").seq, world.post("good").seq], [Seq(1); 2]);
    // With the first the state is another than the node thinks; with the second only the inbox.
    for (number, (key, junk)) in [("state", ["SET", "junk"]), ("inbox", ["SET", "junk"])].into_iter().enumerate() {
        world.server().spoil("bad", key, &junk);
        let before = world.server().image("bad");
        let (tx, rx) = mpsc::channel();
        let deposits = ["good", "bad", "good"].map(|name| {
            let tx = tx.clone();
            deposit(payment(name, None, "1"), move |result| drop(tx.send((name, result))))
        });
        world.inbox.accept_all(deposits.into());
        let outcomes: Vec<_> = (0..3).map(|_| rx.recv_timeout(LONG).expect("an answer")).collect();
        let seqs: Vec<_> =
            outcomes.iter().filter_map(|(_, result)| result.as_ref().ok().map(|a| a.mark.seq.0)).collect();
        let first = 2 + 2 * number as u64;
        assert_eq!(seqs, [first, first + 1], "{key}: {outcomes:?}");
        assert!(matches!(&outcomes[1], ("bad", Err(Error::Corrupt(_)))), "{key}: {outcomes:?}");
        assert_eq!(world.server().image("bad"), before, "{key}: half-changed");
        world.inbox.retire(&client("bad"), true).expect("discarded");
        world.post("bad");
    }
}

#[test]
fn an_inbox_that_is_gone_is_a_store_that_lost_its_writes() {
    let world = World::open(Home::Redis);
    let marks = [world.post("01"), world.post("01")];
    let session = world.claim("01").session;
    world.ack("01", &session, marks[0]).expect("acknowledged");
    world.server().ask::<()>(&["DEL", &Server::key("01", "inbox")]);
    assert_eq!(world.ack("01", &session, marks[1]), Ok(Booked::RolledBack));
    let next = world.claim("01");
    assert!(next.session.epoch > session.epoch, "numbers are given again, and not taken for the old ones");
    assert_eq!((next.acked, next.last, next.pending), (marks[0], marks[0], 0));
    assert_eq!(world.post("01").seq, Seq(2));
}

#[test]
fn what_a_lost_payment_was_called_is_not_another_ones_name() {
    let world = World::open(Home::Redis);
    world.try_post("01", Some("wx-1"), "1").expect("accepted");
    let lost = world.try_post("01", Some("wx-2"), "1").expect("accepted").mark;
    world.server().ask::<()>(&["DEL", &Server::key("01", "inbox")]);
    eventually("the store's clock goes on", || world.inbox.now_ms() > lost.accepted_at);
    let others = [world.post("01"), world.post("01")];
    assert_eq!(others[1].seq, lost.seq);
    let query = || Query { client: client("01"), which: Which::PaymentId(payment_id("wx-2")) };
    assert_eq!(world.inbox.look_up(&[query()]).remove(0), Ok(None));
    let again = world.try_post("01", Some("wx-2"), "1").expect("accepted");
    assert_eq!((again.duplicate, again.mark.seq), (false, others[1].seq.next()));
    assert_eq!(world.inbox.look_up(&[query()]).remove(0).expect("an answer").expect("known").seq, again.mark.seq);
}

#[test]
fn an_inbox_without_its_dead_letters_places_stops_its_client() {
    let world = World::open(Home::Redis);
    let [_, second] = [world.post("01"), world.post("01")];
    world.inbox.refuse(&client("01"), second.seq, "operator").expect("refused");
    world.server().ask::<()>(&["DEL", &Server::key("01", "inbox")]);
    let before = world.server().image("01");
    let outcomes = [world.try_post("01", None, "1").map(|_| ()), world.book_one(claim("01")).map(|_| ())];
    for outcome in outcomes.into_iter().chain([world.inbox.retire(&client("01"), false).map(|_| ())]) {
        assert!(matches!(outcome, Err(Error::Corrupt(_))), "{outcome:?}");
    }
    assert_eq!(world.server().image("01"), before, "half-changed");
    assert_eq!(world.inbox.retire(&client("01"), true), Ok(Retired::Done), "it can be discarded");
}

#[test]
fn junk_that_ends_like_a_dead_letters_place_is_none() {
    let world = World::open(Home::Redis);
    let marks = [world.post("01"), world.post("01"), world.post("01")];
    world.server().ask::<()>(&["LSET", &Server::key("01", "inbox"), "1", "junk -"]);
    let outcome = world.inbox.refuse(&client("01"), marks[0].seq, "operator");
    assert_eq!(outcome, Ok(Some((Status::Refused, true))));
    assert_eq!(world.record("01").expect("known").pending, 2);
}

#[test]
fn what_is_no_payment_of_ours_is_not_acknowledged_away() {
    let world = World::open(Home::Redis);
    // As many as there should be, but others.
    for (number, junk) in ["not an entry", "9 1 0 9 20 x"].into_iter().enumerate() {
        let name = format!("c{number}");
        let mark = world.post(&name);
        let session = world.claim(&name).session;
        world.server().spoil(&name, "inbox", &["RPUSH", junk]);
        let before = world.server().image(&name);
        let outcome = world.ack(&name, &session, mark);
        assert!(matches!(outcome, Err(Error::Corrupt(_))), "{junk}: {outcome:?}");
        assert_eq!(world.server().image(&name), before, "{junk}");
    }
}

#[test]
fn acknowledgements_stored_together_say_what_they_say_one_by_one() {
    let world = World::open(Home::Redis);
    // Of clients in every state that an acknowledgement can meet, by their names.
    let notes = |set: &str| -> Vec<Note> {
        let named = |what: &str| format!("{what}-{set}");
        let with_three = |what: &str| {
            let name = named(what);
            let marks = [(); 3].map(|()| world.post(&name));
            (world.claim(&name).session, marks)
        };
        let (all, all_marks) = with_three("all");
        let (part, part_marks) = with_three("part");
        let (junk, junk_marks) = with_three("junk");
        world.server().spoil(&named("junk"), "state", &["SET", "junk"]);
        let (old, old_marks) = with_three("taken");
        world.claim(&named("taken"));
        let (back, back_marks) = with_three("rolled-back");
        let elsewhen = Mark { accepted_at: back_marks[1].accepted_at + 1, ..back_marks[1] };
        let (dead, dead_marks) = with_three("dead");
        world.inbox.refuse(&client(&named("dead")), Seq(2), "no").expect("refused");
        vec![
            ack(&named("all"), &all, all_marks[2]),
            ack(&named("junk"), &junk, junk_marks[0]),
            ack(&named("part"), &part, part_marks[0]),
            ack(&named("part"), &part, part_marks[1]),
            ack(&named("part"), &part, part_marks[0]),
            ack(&named("taken"), &old, old_marks[2]),
            ack(&named("rolled-back"), &back, elsewhen),
            ack(&named("dead"), &dead, dead_marks[2]),
            ack(&named("never-seen"), &all, all_marks[0]),
        ]
    };
    let singly: Vec<_> = notes("singly").into_iter().map(|note| world.book_one(note)).collect();
    let good = |seq| Ok(Booked::Acknowledged(Seq(seq)));
    let expected = [
        good(3),
        Err(()),
        good(1),
        good(2),
        good(2),
        Ok(Booked::Replaced),
        Ok(Booked::RolledBack),
        Ok(Booked::Passed(Seq(3))),
        Ok(Booked::RolledBack),
    ];
    let seen: Vec<_> = singly.iter().map(|outcome| outcome.clone().map_err(|_| ())).collect();
    assert_eq!(seen, expected, "{singly:?}");

    let together = notes("together");
    assert_eq!(world.inbox.book(&together), singly);
    let forgotten = notes("forgotten");
    world.server().ask::<()>(&["SCRIPT", "FLUSH"]);
    assert_eq!(world.inbox.book(&forgotten), singly, "where Redis forgot the script");
    for what in ["all", "part", "taken", "rolled-back", "dead"] {
        let place = |set| world.record(&format!("{what}-{set}")).map(|record| (record.acked, record.pending));
        assert_eq!((place("together"), place("forgotten")), (place("singly"), place("singly")), "{what}");
    }
}

#[test]
fn junk_of_one_client_hides_no_other_that_waits() {
    let world = World::open(Home::Redis);
    let marks = ["a", "b", "c"].map(|name| world.post(name));
    world.expect_waiting(&["a", "b", "c"]);
    world.server().spoil("a", "state", &["SET", "junk"]);
    world.post("d");
    let session = world.claim("b").session;
    world.ack("b", &session, marks[1]).expect("acknowledged");
    eventually("c and d wait, and b does not", || {
        world.inbox.tend();
        let listed = world.inbox.waiting(None, 100).expect("a list");
        listed.iter().filter(|c| c.as_str() != "a").map(ClientId::as_str).eq(["c", "d"])
    });
}

#[test]
fn who_waits_is_listed_though_redis_was_away_when_it_was_looked_at() {
    let world = World::open(Home::Redis);
    world.inbox.tend();
    world.post("01");
    let server = world.server();
    server.signal(Signal::STOP);
    // It is looked at after five seconds; by then nothing is answered.
    let until = Instant::now() + 6 * SECOND;
    while Instant::now() < until {
        world.inbox.tend();
        thread::sleep(Duration::from_millis(50));
    }
    server.signal(Signal::CONT);
    world.expect_waiting(&["01"]);
}

#[test]
fn scripts_that_redis_forgot_are_no_error() {
    let world = World::open(Home::Redis);
    let server = Arc::clone(world.server());
    let flush = || server.ask::<()>(&["SCRIPT", "FLUSH"]);
    flush();
    let session = world.claim("01").session;
    flush();
    let first = world.try_post("01", Some("wx-1"), "1").expect("accepted").mark;
    flush();
    assert!(world.try_post("01", Some("wx-1"), "1").expect("known").duplicate);
    flush();
    assert_eq!(world.slice("01", &session, Mark::default(), 9, 99), (vec![first], first));
    flush();
    assert_eq!(world.find("01", seq(1)).expect("known").status, Status::Accepted);
    flush();
    let booked = world.inbox.book(&[ack("01", &session, first), claim("02"), claim("03")]);
    assert!(booked[0] == Ok(Booked::Acknowledged(Seq(1))) && booked.iter().all(Result::is_ok), "{booked:?}");
    flush();
    assert_eq!(world.release("01", &session), Ok(Booked::Released));
    flush();
    assert_eq!(world.inbox.tend(), Tended::Fine);
    flush();
    assert_eq!(world.inbox.retire(&client("01"), false), Ok(Retired::Done));
    flush();
    assert_eq!(world.post("01").seq, Seq(1));
}

#[test]
fn payments_are_stored_once_while_scripts_are_forgotten_all_the_time() {
    let world = World::open(Home::Redis);
    let server = Arc::clone(world.server());
    let over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                server.ask::<()>(&["SCRIPT", "FLUSH"]);
            }
        });
        // One that was forgotten again between its loading and its call was not run, and says so.
        let accepted = |_| match world.try_post("01", None, "1") {
            Ok(_) => 1,
            outcome if not_stored(&outcome) => 0,
            outcome => panic!("neither stored nor certainly not: {outcome:?}"),
        };
        let senders: Vec<_> = (0..4).map(|_| scope.spawn(move || (0..100).map(accepted).sum::<u64>())).collect();
        let outcomes: Vec<_> = senders.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::Relaxed);
        let accepted: u64 = outcomes.into_iter().map(|sender| sender.expect("no panic")).sum();
        assert!(accepted >= 100, "{accepted} of 400");
        assert_eq!(world.record("01").expect("known").last, Seq(accepted), "none is stored twice");
    });
}

#[test]
fn large_numbers_stay_exact() {
    const AT: u64 = (1 << 53) - 1000;
    let world = World::open(Home::Redis);
    for n in [(1 << 31) - 2, (1 << 32) - 2, 99_999_999_999_999, 999_999_999_999_998, (1 << 53) - 9] {
        let name = format!("c{n}");
        let name = name.as_str();
        let bytes = n.min(AT) - 60;
        let state = format!("3 {n} {AT} {bytes} {n} {bytes} 0 0 {n} {n} {n} - -");
        world.server().spoil(name, "state", &["SET", &state]);
        let fields = || -> Vec<u64> {
            let text: String = world.server().ask(&["GET", &Server::key(name, "state")]);
            text.split(' ').filter_map(|word| word.parse().ok()).collect()
        };
        let at = |seq| Mark { seq: Seq(seq), accepted_at: AT };

        let claimed = world.claim(name);
        assert_eq!((claimed.session.number, claimed.session.epoch), (n + 1, n));
        assert_eq!((claimed.acked, claimed.last, claimed.pending), (at(n), at(n), 0));
        let sent = [world.try_post_awaited(name, "wx-1").expect("accepted").mark, world.post(name), world.post(name)];
        assert_eq!(sent, [at(n + 1), at(n + 2), at(n + 3)]);
        let again = world.try_post(name, Some("wx-1"), "1").expect("known");
        assert_eq!((again.mark, again.duplicate), (at(n + 1), true));
        assert_eq!(world.slice(name, &claimed.session, at(n), 9, 9999), (sent.to_vec(), sent[2]));
        assert_eq!(world.find(name, seq(n + 2)).expect("known").seq, Seq(n + 2));
        assert_eq!(world.find(name, seq(n + 4)), None);
        assert_eq!(world.ack(name, &claimed.session, sent[1]), Ok(Booked::Acknowledged(Seq(n + 2))));
        let record = world.record(name).expect("known");
        assert_eq!((record.last, record.acked, record.pending), (Seq(n + 3), Seq(n + 2), 1));
        let parcel = payment(name, None, "1").parcel.as_bytes().len() as u64;
        let first = payment(name, Some("wx-1"), "1").parcel.as_bytes().len() as u64;
        let gone = bytes + first + parcel;
        assert_eq!(fields(), [3, n + 2, AT, gone, n + 2, gone, 0, 0, n, n, n + 1]);
        let newest: String = world.server().ask(&["LINDEX", &Server::key(name, "inbox"), "-1"]);
        assert!(newest.starts_with(&format!("{} {AT} 0 {} ", n + 3, gone + parcel)), "{newest}");
        let wrong = Mark { accepted_at: AT - 1, ..sent[2] };
        assert_eq!(world.ack(name, &claimed.session, wrong), Ok(Booked::RolledBack));
        let epoch = world.claim(name).session.epoch;
        assert!(epoch > n && (n < AT || epoch == n + 1), "{epoch} after {n}");
        let heard: Vec<String> = (1..=3).map(|more| format!("bell {name} {}", n + more)).collect();
        assert!(world.heard.lock().ends_with(&heard), "{heard:?}");
    }
}

#[test]
fn a_roll_back_ends_the_session_and_raises_the_epoch() {
    let world = World::open(Home::Redis);
    let first = world.post("01");
    let session = world.claim("01").session;
    let wrong = Mark { accepted_at: first.accepted_at + 1, ..first };
    assert_eq!(world.ack("01", &session, wrong), Ok(Booked::RolledBack));
    assert_ne!(world.ack("01", &session, first), Ok(Booked::Acknowledged(Seq(1))), "it must claim anew");
    assert_eq!(world.record("01").expect("known").acked, Seq(0));
    let anew = world.claim("01");
    assert!(anew.session.epoch > session.epoch && anew.session.number > session.number);
    assert_eq!(world.ack("01", &anew.session, first), Ok(Booked::Acknowledged(Seq(1))));
}

#[test]
fn a_claim_that_redis_sees_too_late_does_not_run() {
    let world = World::open(Home::Redis);
    world.claim("warm");
    let server = world.server();
    server.signal(Signal::STOP);
    let outcome = world.book_one(claim_until("01", Instant::now() + SECOND / 5));
    server.signal(Signal::CONT);
    assert!(matches!(outcome, Err(Error::Unavailable { stored: Stored::Unknown, .. })), "{outcome:?}");
    // By the second answer Redis has read all that had come before the first.
    (0..3).for_each(|_| server.ask::<()>(&["PING"]));
    assert_eq!(world.record("01"), None);
}

#[test]
fn another_nodes_client_is_rung_there_and_its_receipt_comes_here() {
    let here = World::open(Home::Redis);
    let there = here.beside("n2");
    there.inbox.tend();
    here.inbox.tend();
    let session = there.claim("01").session;
    let (tx, rx) = mpsc::channel();
    let mut subscriber = ::redis::Client::open(here.server().url()).expect("a URL").get_connection().expect("connects");
    subscriber.set_read_timeout(Some(LONG)).expect("a time limit");
    let mut subscriber = subscriber.as_pubsub();
    subscriber.psubscribe("payrelay:0:node:*").expect("subscribes");
    thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(message) = subscriber.get_message() {
                let text = String::from_utf8_lossy(message.get_payload_bytes()).into_owned();
                if tx.send((message.get_channel_name().to_owned(), text)).is_err()
                    || message.get_payload_bytes() == b"end"
                {
                    return;
                }
            }
        });
        let accepted = here.try_post_awaited("01", "wx-1").expect("accepted");
        assert!(accepted.online, "the other node lives");
        let (channel, text) = rx.recv_timeout(LONG).expect("a doorbell");
        assert_eq!(channel, "payrelay:0:node:n2");
        let bell = text.strip_prefix("doorbell ").and_then(|text| Bell::parse(text.as_bytes())).expect("a bell");
        assert_eq!((bell.client.as_str(), bell.previous_at, bell.entry.mark), ("01", 0, accepted.mark));
        // By now this node knows the client's state, and Redis need not do the sum.
        let second = here.post("01");
        let (channel, text) = rx.recv_timeout(LONG).expect("a doorbell");
        assert_eq!(channel, "payrelay:0:node:n2");
        let bell = text.strip_prefix("doorbell ").and_then(|text| Bell::parse(text.as_bytes())).expect("a bell");
        assert_eq!((bell.previous_at, bell.awaited, bell.entry.mark), (accepted.mark.accepted_at, false, second));
        assert!(here.heard.lock().is_empty() && there.heard.lock().is_empty(), "nobody is rung twice");

        let booked = there.ack("01", &session, accepted.mark);
        assert_eq!(booked, Ok(Booked::Acknowledged(Seq(1))));
        let receipt = ("payrelay:0:node:n1".to_owned(), "receipt/01/1 1".to_owned());
        assert_eq!(rx.recv_timeout(LONG).expect("a receipt"), receipt);

        // Taken over from here: the other node is told.
        let taken = here.claim("01").session;
        assert_eq!(there.ack("01", &session, accepted.mark), Ok(Booked::Replaced));
        let takeover = ("payrelay:0:node:n2".to_owned(), format!("takeover 01 {}", taken.number));
        assert_eq!(rx.recv_timeout(LONG).expect("a takeover"), takeover);
        here.server().ask::<i64>(&["PUBLISH", "payrelay:0:node:end", "end"]);
    });
}

#[test]
fn a_dead_nodes_clients_are_not_online() {
    let here = World::open(Home::Redis);
    let there = here.beside("n2");
    there.inbox.tend();
    here.inbox.tend();
    there.claim("01");
    assert!(here.try_post("01", None, "1").expect("accepted").online);
    there.inbox.leave();
    here.inbox.tend();
    assert!(!here.try_post("01", None, "1").expect("accepted").online);
    assert_eq!(here.record("01").expect("known").owner, None);
    assert_eq!(here.inbox.nodes(), ["n1"]);
}
