//! What both homes promise of dead letters, and of payments that expire.

use super::on_both_homes;
use super::world::*;
use crate::inbox::*;

on_both_homes!(
    a_refused_payment_is_a_dead_letter_and_those_before_it_stay,
    an_ack_passes_over_dead_letters_and_none_counts_twice,
    a_refusal_is_fenced_like_an_ack,
    an_operator_gets_past_a_payment_once,
    dead_letters_are_listed_in_order_and_in_pages,
    a_dead_letter_put_back_is_a_new_payment,
    a_purged_dead_letter_leaves_a_word_for_the_window,
    behind_what_is_not_acknowledged_words_outlive_the_window_and_payment_ids_do_not,
    dead_letters_fill_the_inbox_until_they_are_purged,
    a_retired_clients_dead_letters_go_with_it,
    an_expired_payment_is_not_read_but_dead,
    whoever_looks_finds_an_expired_payment_dead,
    what_was_sent_in_time_expires_only_with_its_session,
);

const LIFE: Duration = Duration::from_millis(300);

fn a_refused_payment_is_a_dead_letter_and_those_before_it_stay(home: Home) {
    let world = World::open(home);
    let first = world.post("01");
    let second = world.try_post("01", Some("wx-2"), "2").expect("accepted").mark;
    let third = world.post("01");
    let session = world.claim("01").session;
    assert_eq!(world.nack("01", &session, second), Ok(Booked::Refused));
    assert_eq!(world.nack("01", &session, second), Ok(Booked::Refused), "said again after a lost answer");
    let statuses = [1, 2, 3].map(|n| world.status("01", n));
    assert_eq!(statuses, [Status::Accepted, Status::Refused, Status::Accepted]);
    assert_eq!(world.find("01", seq(2)).expect("known").payment_id.as_deref(), Some("wx-2"), "it is still held");
    assert_eq!(world.find_id("01", "wx-2").expect("known").status, Status::Refused);
    let again = world.try_post("01", Some("wx-2"), "2").expect("known");
    assert_eq!((again.mark.seq, again.duplicate, again.status), (Seq(2), true, Status::Refused));
    assert_eq!(world.try_post("01", Some("wx-2"), "3"), Err(Error::IdReused));
    let record = world.record("01").expect("known");
    assert_eq!((record.acked, record.pending, record.dead_letters), (Seq(0), 2, 1));
    assert_eq!(world.slice("01", &session, Mark::default(), 9, 9999), (vec![first, third], third));
    let letters = world.letters("01");
    assert_eq!(letters.len(), 1);
    let Letter { status, dead_at, maybe_delivered, reason, entry } = &letters[0];
    assert_eq!((*status, *maybe_delivered, reason.as_str()), (Status::Refused, false, "unknown order"));
    assert!(*dead_at >= second.accepted_at && entry.mark == second, "{letters:?}");
    assert_eq!(world.heard.lock().iter().filter(|heard| *heard == "refused 01 2").count(), 1);
}

fn an_ack_passes_over_dead_letters_and_none_counts_twice(home: Home) {
    let world = World::with(home, 6, 3600 * SECOND);
    let sent: Vec<Mark> = (0..6).map(|_| world.post("01")).collect();
    let session = world.claim("01").session;
    for n in [1, 3, 4] {
        assert_eq!(world.nack("01", &session, sent[n]), Ok(Booked::Refused));
    }
    assert_eq!(world.ack("01", &session, sent[0]), Ok(Booked::Passed(Seq(2))), "the place behind it goes as well");
    let record = world.record("01").expect("known");
    assert_eq!((record.pending, record.dead_letters), (2, 3));
    assert_eq!(world.slice("01", &session, sent[1], 9, 9999), (vec![sent[2], sent[5]], sent[5]));
    assert_eq!(world.ack("01", &session, sent[5]), Ok(Booked::Passed(Seq(6))));
    let record = world.record("01").expect("known");
    assert_eq!((record.acked, record.pending, record.dead_letters), (Seq(6), 0, 3));
    let statuses: Vec<&str> = (1..=6).map(|n| world.status("01", n).as_str()).collect();
    assert_eq!(statuses, ["acknowledged", "refused", "acknowledged", "refused", "refused", "acknowledged"]);
    assert_eq!(world.nack("01", &session, sent[5]), Ok(Booked::Settled), "what is acknowledged stays so");
    // Three are held, so three more have room; and with the dead ones gone, six.
    for n in 7..=9 {
        assert_eq!(world.post("01").seq, Seq(n));
    }
    assert_eq!(world.try_post("01", None, "1"), Err(Error::InboxFull));
    for n in [2, 4, 5] {
        assert_eq!(world.purge("01", n), Some(Status::Purged));
    }
    let more = [world.post("01"), world.post("01"), world.post("01")];
    assert_eq!(world.try_post("01", None, "1"), Err(Error::InboxFull));
    assert_eq!(world.ack("01", &session, more[2]), Ok(Booked::Acknowledged(Seq(12))), "all is plain again");
    let next = world.post("01");
    assert_eq!(world.ack("01", &session, next), Ok(Booked::Acknowledged(Seq(13))));
    assert_eq!(world.record("01").expect("known").dead_letters, 0);
}

fn a_refusal_is_fenced_like_an_ack(home: Home) {
    let world = World::open(home);
    let sent = [world.post("01"), world.post("01")];
    let old = world.claim("01").session;
    let new = world.claim("01").session;
    assert_eq!(world.nack("01", &old, sent[0]), Ok(Booked::Replaced));
    assert_eq!(world.status("01", 1), Status::Accepted);
    let wrong = Mark { accepted_at: sent[0].accepted_at + 1, ..sent[0] };
    assert_eq!(world.nack("01", &new, wrong), Ok(Booked::RolledBack));
    assert_eq!((world.status("01", 1), world.letters("01")), (Status::Accepted, vec![]));
}

fn an_operator_gets_past_a_payment_once(home: Home) {
    let world = World::open(home);
    let sent = [world.post("01"), world.post("01"), world.post("01")];
    let session = world.claim("01").session;
    assert_eq!(world.refuse("01", 1), Some((Status::Refused, true)));
    assert_eq!(world.refuse("01", 1), Some((Status::Refused, false)));
    assert_eq!(world.record("01").expect("known").acked, Seq(1), "the head is never a dead letter's place");
    assert_eq!(world.slice("01", &session, Mark::default(), 9, 9999).0, sent[1..]);
    assert_eq!(world.ack("01", &session, sent[1]), Ok(Booked::Passed(Seq(2))));
    assert_eq!(world.refuse("01", 2), Some((Status::Acknowledged, false)));
    assert_eq!(world.refuse("01", 3), Some((Status::Refused, true)));
    assert_eq!(world.slice("01", &session, sent[1], 9, 9999), (vec![], sent[2]));
    assert_eq!((world.refuse("01", 4), world.refuse("01", 0), world.refuse("02", 1)), (None, None, None));
    // A place that became a dead letter's is still known as what it was.
    assert_eq!(world.slice("01", &session, sent[2], 9, 9999), (vec![], sent[2]));
    let fourth = world.post("01");
    assert_eq!(world.slice("01", &session, sent[2], 9, 9999), (vec![fourth], fourth));
}

fn dead_letters_are_listed_in_order_and_in_pages(home: Home) {
    let world = World::open(home);
    for _ in 0..12 {
        world.post("01");
    }
    for n in [9, 10, 2, 11, 5] {
        world.refuse("01", n);
    }
    assert_eq!(world.purge("01", 10), Some(Status::Purged));
    let page = |after, most, bytes| {
        let page = world.inbox.dead_letters(&client("01"), Seq(after), most, bytes).expect("a word").expect("known");
        let seqs: Vec<u64> = page.letters.iter().map(|letter| letter.entry.mark.seq.0).collect();
        (seqs, page.more)
    };
    assert_eq!(page(0, 100, usize::MAX), (vec![2, 5, 9, 11], false));
    assert_eq!(page(0, 2, usize::MAX), (vec![2, 5], true));
    assert_eq!(page(5, 2, usize::MAX), (vec![9, 11], false));
    assert_eq!(page(0, 100, 1), (vec![2], true), "at least one comes");
    assert_eq!(page(11, 100, usize::MAX), (vec![], false));
    assert_eq!(world.inbox.dead_letters(&client("02"), Seq(0), 9, 9), Ok(None));
}

fn a_dead_letter_put_back_is_a_new_payment(home: Home) {
    let world = World::with(home, 2, 3600 * SECOND);
    let first = world.try_post("01", Some("wx-1"), "1").expect("accepted").mark;
    let second = world.post("01");
    let session = world.claim("01").session;
    world.nack("01", &session, first).expect("refused");
    let Retry::Accepted(again, id) = world.retry("01", 1) else { panic!("a dead letter") };
    assert_eq!((again.mark.seq, again.duplicate, again.online, id.as_deref()), (Seq(3), false, true, Some("wx-1")));
    assert!(again.mark.accepted_at >= second.accepted_at);
    assert_eq!(world.status("01", 1), Status::Retried(Seq(3)));
    assert_eq!(world.find_id("01", "wx-1").expect("known").status, Status::Retried(Seq(3)));
    let repeat = world.try_post("01", Some("wx-1"), "1").expect("known");
    assert_eq!((repeat.mark.seq, repeat.status), (Seq(1), Status::Retried(Seq(3))));
    assert_eq!(world.letters("01"), vec![]);
    let (entries, last) = world.slice("01", &session, first, 9, 9999);
    assert_eq!((entries, last), (vec![second, again.mark], again.mark));
    assert_eq!(world.retry("01", 1), Retry::Gone(Status::Retried(Seq(3))), "once");
    assert_eq!(
        (world.retry("01", 2), world.retry("01", 9), world.retry("02", 1)),
        (Retry::Unknown, Retry::Unknown, Retry::Unknown)
    );
    assert_eq!(world.try_post("01", None, "1"), Err(Error::InboxFull), "it takes the room that it took before");
    world.ack("01", &session, again.mark).expect("acknowledged");
    assert_eq!(world.record("01").map(|r| (r.pending, r.dead_letters)), Some((0, 0)));
    assert_eq!(world.status("01", 3), Status::Acknowledged);
}

fn a_purged_dead_letter_leaves_a_word_for_the_window(home: Home) {
    let world = World::with(home, 10, Duration::from_millis(200));
    world.post("01");
    world.refuse("01", 1);
    assert_eq!(world.purge("01", 1), Some(Status::Purged));
    assert_eq!((world.status("01", 1), world.letters("01")), (Status::Purged, vec![]));
    assert_eq!(world.purge("01", 1), Some(Status::Purged), "said again after a lost answer");
    assert_eq!(world.retry("01", 1), Retry::Gone(Status::Purged));
    assert_eq!((world.purge("01", 2), world.purge("02", 1)), (None, None));
    // Words go when dead letters are touched, and their time is over.
    eventually("the word is forgotten", || {
        let next = world.post("01").seq.0;
        world.refuse("01", next);
        world.purge("01", next);
        world.purge("01", 1).is_none()
    });
}

fn behind_what_is_not_acknowledged_words_outlive_the_window_and_payment_ids_do_not(home: Home) {
    const WINDOW: Duration = Duration::from_millis(400);
    let world = World::with(home, 200, WINDOW);
    let head = world.post("01");
    let purged = world.try_post("01", Some("wx-purged"), "1").expect("accepted").mark;
    let retried = world.try_post("01", Some("wx-retried"), "1").expect("accepted").mark;
    for n in [2, 3] {
        world.refuse("01", n);
    }
    assert_eq!(world.purge("01", 2), Some(Status::Purged));
    let Retry::Accepted(again, _) = world.retry("01", 3) else { panic!("a dead letter") };
    let ids = ["wx-purged", "wx-retried"];
    assert!(ids.iter().all(|id| world.try_post("01", Some(id), "1").expect("known").duplicate), "within the window");

    // Words go when dead letters are touched, and their time is over; these must not, for their places are still there.
    world.pass_time(again.mark, WINDOW);
    for n in 5..=100 {
        assert_eq!(world.post("01").seq, Seq(n));
        world.refuse("01", n);
        world.purge("01", n);
    }
    let new = ids.map(|id| world.try_post("01", Some(id), "2").expect("accepted"));
    assert!(new.iter().all(|accepted| !accepted.duplicate && accepted.status == Status::Accepted), "{new:?}");
    assert_eq!(new.each_ref().map(|accepted| accepted.mark.seq), [Seq(101), Seq(102)]);
    let statuses = [1, 2, 3, 4].map(|n| world.status("01", n));
    assert_eq!(statuses, [Status::Accepted, Status::Purged, Status::Retried(Seq(4)), Status::Accepted]);
    assert_eq!(ids.map(|id| world.find_id("01", id).expect("known").seq), [Seq(101), Seq(102)]);

    let session = world.claim("01").session;
    let expected = vec![head, again.mark, new[0].mark, new[1].mark];
    let (read, last) = world.slice("01", &session, Mark::default(), 99, 9999);
    assert_eq!((read, last), (expected, new[1].mark));
    for place in [purged, retried] {
        assert_eq!(
            world.slice("01", &session, place, 1, 9999).0,
            [again.mark],
            "a place is still known as what it was"
        );
    }
    assert_eq!(world.ack("01", &session, new[1].mark), Ok(Booked::Passed(Seq(102))));
    assert_eq!(world.record("01").map(|r| (r.pending, r.dead_letters)), Some((0, 0)));
}

fn dead_letters_fill_the_inbox_until_they_are_purged(home: Home) {
    let world = World::with(home, 2, 3600 * SECOND);
    world.post("01");
    world.post("01");
    for n in [1, 2] {
        world.refuse("01", n);
    }
    assert_eq!(world.record("01").map(|r| (r.pending, r.dead_letters)), Some((0, 2)));
    assert_eq!(world.try_post("01", None, "1"), Err(Error::InboxFull));
    world.purge("01", 2);
    assert_eq!(world.post("01").seq, Seq(3));
    assert_eq!(world.try_post("01", None, "1"), Err(Error::InboxFull));
}

fn a_retired_clients_dead_letters_go_with_it(home: Home) {
    let world = World::open(home);
    world.post("01");
    world.post("01");
    for n in [1, 2] {
        world.refuse("01", n);
    }
    world.purge("01", 2);
    assert_eq!(world.inbox.retire(&client("01"), false), Ok(Retired::Done), "nothing is pending");
    world.post("01");
    assert_eq!((world.letters("01"), world.status("01", 1)), (vec![], Status::Accepted));
    if home == Home::Redis {
        let keys: Vec<String> = world.server().ask(&["KEYS", "payrelay:{01}:*"]);
        assert_eq!(keys.len(), 2, "{keys:?}");
    }
}

fn an_expired_payment_is_not_read_but_dead(home: Home) {
    let world = World::open(home);
    let first = world.post("01");
    let second = world.post_expiring("01", None, LIFE);
    let third = world.post_expiring("01", None, 3600 * SECOND);
    let session = world.claim("01").session;
    assert_eq!(world.slice("01", &session, Mark::default(), 9, 9999).0, [first, second, third]);
    world.pass_time(second, LIFE);
    // Only what lies behind the place was not sent.
    assert_eq!(world.slice("01", &session, first, 9, 9999), (vec![third], third));
    assert_eq!((world.status("01", 2), world.status("01", 3)), (Status::Expired, Status::Accepted));
    let letters = world.letters("01");
    assert!(letters.len() == 1 && !letters[0].maybe_delivered && letters[0].reason.is_empty(), "{letters:?}");
    assert_eq!(*world.heard.lock(), ["expired 01 2"]);
    assert_eq!(world.ack("01", &session, third), Ok(Booked::Passed(Seq(3))));
    assert_eq!(world.status("01", 2), Status::Expired);
}

fn whoever_looks_finds_an_expired_payment_dead(home: Home) {
    let world = World::open(home);
    world.post_expiring("01", Some("wx-1"), LIFE);
    world.post_expiring("02", Some("wx-1"), LIFE);
    let third = world.post_expiring("03", None, LIFE);
    let left = world.find("01", seq(1)).expect("known").due_in.expect("it will expire");
    assert!(left <= LIFE + EXPIRY_GRACE, "{left:?}");
    let held = world.claim("03").session;
    world.pass_time(third, LIFE);
    assert_eq!((world.status("01", 1), world.letters("01").len()), (Status::Expired, 1));
    let again = world.try_post("02", Some("wx-1"), "1").expect("known");
    assert_eq!((again.duplicate, again.status), (true, Status::Expired));
    assert_eq!(world.find("01", seq(1)).expect("known").due_in, None);
    // Of a connected client the holder's word may still be on its way; a moment later it is not.
    world.expect_expired_though_held("03", 1);
    assert!(!world.letters("03")[0].maybe_delivered);
    assert_eq!(world.slice("03", &held, Mark::default(), 9, 99), (vec![], third));
}

fn what_was_sent_in_time_expires_only_with_its_session(home: Home) {
    let world = World::open(home);
    let sent = ["acked", "left", "taken"].map(|name| world.post_expiring(name, None, LIFE));
    let sessions = ["acked", "left", "taken"].map(|name| world.claim(name).session);
    (0..3).for_each(|n| world.sent(["acked", "left", "taken"][n], &sessions[n], sent[n]));
    world.post_expiring("unsent", None, LIFE);
    world.claim("unsent");
    world.expect_expired_though_held("unsent", 1);
    for name in ["acked", "left", "taken"] {
        assert_eq!(world.status(name, 1), Status::Accepted, "its connection lives");
    }
    assert_eq!(world.ack("acked", &sessions[0], sent[0]), Ok(Booked::Acknowledged(Seq(1))));
    assert_eq!(world.status("acked", 1), Status::Acknowledged);

    world.release("left", &sessions[1]).expect("released");
    assert_eq!(world.status("left", 1), Status::Expired);
    assert!(world.letters("left")[0].maybe_delivered);

    let next = world.claim("taken").session;
    assert_eq!(world.slice("taken", &next, Mark::default(), 9, 99).0, []);
    assert_eq!(world.status("taken", 1), Status::Expired);
    assert!(world.letters("taken")[0].maybe_delivered);
    // What is said too late of it changes nothing.
    world.sent("taken", &sessions[2], sent[2]);
    assert_eq!(world.status("taken", 1), Status::Expired);
}
