//! What is sent next, and what an ack may mean, one event after the other.

use super::*;
use crate::payment::{Channel, ClientId, Content, Payment};

const AT: u64 = 1_732_330_000_000;

fn mark(seq: u64) -> Mark {
    if seq == 0 { Mark::default() } else { Mark { seq: Seq(seq), accepted_at: AT + seq } }
}

fn entry(seq: u64, bytes: usize) -> Entry {
    let text = format!("\"{}\"", "x".repeat(bytes));
    let content = Content::json_text(text.as_bytes()).expect("JSON");
    let client = ClientId::parse("01").expect("valid");
    let parcel = Payment::new(client, None, &Channel::default(), &content).parcel;
    Entry { mark: mark(seq), expires_at: 0, parcel }
}

fn bell(seq: u64) -> Bell {
    let client = ClientId::parse("01").expect("valid");
    Bell { client, previous_at: mark(seq - 1).accepted_at, awaited: false, entry: entry(seq, 1) }
}

fn live(window: usize, at: u64) -> Delivery {
    let mut delivery = Delivery::new(window);
    assert_eq!(delivery.claimed(1, mark(at), mark(at)), Ok(Next::Stay));
    delivery
}

/// Rings and lets the socket take what is to be sent.
fn pass(delivery: &mut Delivery, seq: u64) {
    match delivery.ring(bell(seq)) {
        Ring::Send(entry) => delivery.took(entry.mark, entry.frame_bytes()),
        other => panic!("{seq}: {other:?}"),
    }
}

#[test]
fn the_next_bell_is_sent_and_an_old_one_is_not() {
    let mut delivery = live(256, 41);
    pass(&mut delivery, 42);
    assert_eq!(delivery.ring(bell(42)), Ring::Nothing);
    assert_eq!(delivery.ring(bell(7)), Ring::Nothing);
    pass(&mut delivery, 43);
}

#[test]
fn bells_that_overtake_each_other_are_put_in_order() {
    let mut delivery = live(256, 0);
    assert_eq!(delivery.ring(bell(3)), Ring::Kept);
    assert_eq!(delivery.ring(bell(2)), Ring::Kept);
    pass(&mut delivery, 1);
    for seq in [2, 3] {
        let kept = delivery.next_kept().expect("its turn");
        assert_eq!(kept.entry.mark, mark(seq));
        pass(&mut delivery, seq);
    }
    assert!(!delivery.gap_stands());
    pass(&mut delivery, 4);
}

#[test]
fn a_gap_that_stands_goes_to_catch_up() {
    let mut delivery = live(256, 0);
    assert_eq!(delivery.ring(bell(2)), Ring::Kept);
    assert!(delivery.gap_stands());
    assert_eq!(delivery.wanted().expect("catch-up").after, mark(0));
    assert_eq!(delivery.ring(bell(3)), Ring::Nothing);
    for seq in 1..=2 {
        assert_eq!(delivery.offer(&entry(seq, 1)), Offer::Send);
        delivery.took(mark(seq), 100);
    }
    // The bell of 3 rang after the slice was read: it is not lost.
    assert_eq!(delivery.finish_slice(mark(2)), Next::CatchUp);
    delivery.took(mark(3), 100);
    assert_eq!(delivery.finish_slice(mark(3)), Next::Stay);
    pass(&mut delivery, 4);
}

#[test]
fn no_more_bells_are_kept_than_the_bound() {
    let mut delivery = live(256, 0);
    for seq in 2..2 + MAX_EARLY as u64 {
        assert_eq!(delivery.ring(bell(seq)), Ring::Kept);
    }
    assert_eq!(delivery.ring(bell(99)), Ring::CatchUp);
}

#[test]
fn a_kept_bell_that_rings_again_with_a_larger_payment_counts_once() {
    let mut delivery = live(256, 0);
    assert_eq!(delivery.ring(bell(2)), Ring::Kept);
    let larger = || Bell { entry: entry(2, MAX_EARLY_BYTES / 4), ..bell(2) };
    assert_eq!([delivery.ring(larger()), delivery.ring(larger())], [Ring::Kept, Ring::Kept]);
    pass(&mut delivery, 1);
    assert_eq!(delivery.next_kept().map(|kept| kept.entry), Some(larger().entry));
    pass(&mut delivery, 2);
    // All the room is there again.
    for seq in 4..7 {
        assert_eq!(delivery.ring(Bell { entry: entry(seq, MAX_EARLY_BYTES / 4), ..bell(seq) }), Ring::Kept);
    }
}

#[test]
fn who_is_only_looked_at_once_more_is_not_behind_until_something_is_found() {
    let mut delivery = live(2, 0);
    pass(&mut delivery, 1);
    assert!(delivery.wish_check() && !delivery.is_behind());
    assert!(delivery.wanted().is_some() && !delivery.is_behind());
    // Doubted again meanwhile.
    assert!(!delivery.wish_check() && !delivery.is_behind());
    assert_eq!((delivery.finish_slice(mark(1)), delivery.is_behind()), (Next::CatchUp, false));
    assert!(delivery.wanted().is_some());
    assert_eq!((delivery.finish_slice(mark(1)), delivery.is_behind()), (Next::Stay, false));

    // A bell rings while it is looked at.
    assert!(delivery.wish_check() && delivery.wanted().is_some());
    assert_eq!((delivery.ring(bell(2)), delivery.is_behind()), (Ring::Nothing, true));
    assert_eq!(delivery.finish_slice(mark(1)), Next::CatchUp);
    assert!(delivery.wanted().is_some() && delivery.is_behind());
    delivery.took(mark(2), 100);
    // What is found behind it waits for room, and then for catch-up.
    assert_eq!((delivery.finish_slice(mark(3)), delivery.is_behind()), (Next::Stay, true));
    assert!(delivery.wish_check() && delivery.is_behind(), "it was behind before");
    assert!(delivery.wanted().is_some() && delivery.is_behind());
    assert_eq!((delivery.finish_slice(mark(3)), delivery.is_behind()), (Next::Stay, true));
    assert!(delivery.ack(Seq(2)).is_some_and(|acked| acked.resume));
    assert!(delivery.wanted().is_some() && delivery.is_behind());
    delivery.took(mark(3), 100);
    assert_eq!((delivery.finish_slice(mark(3)), delivery.is_behind()), (Next::Stay, false));

    // What was looked at and found to be more than there is room for is behind, also once there is some.
    assert!(delivery.wish_check() && delivery.wanted().is_some());
    delivery.window_full();
    assert!(delivery.is_behind() && delivery.ack(Seq(3)).is_some_and(|acked| acked.resume));
    assert!(delivery.wanted().is_some() && delivery.is_behind());

    let mut delivery = live(2, 0);
    assert!(delivery.wish_check() && delivery.wanted().is_some());
    delivery.took(mark(1), 100);
    assert!(delivery.is_behind(), "in the middle of a slice");
}

#[test]
fn who_has_taken_all_that_is_known_is_not_behind_for_being_looked_at_again() {
    let mut delivery = live(256, 0);
    assert!(delivery.wish_check() && delivery.wanted().is_some());
    assert_eq!((delivery.ring(bell(1)), delivery.is_behind()), (Ring::Nothing, true));
    assert!(!delivery.died(Seq(1)), "catch-up has it already");
    delivery.passed(mark(1));
    assert_eq!((delivery.finish_slice(mark(1)), delivery.is_behind()), (Next::CatchUp, false));
    assert!(delivery.wanted().is_some());
    assert_eq!((delivery.finish_slice(mark(1)), delivery.is_behind()), (Next::Stay, false));
}

#[test]
fn who_is_known_to_have_payments_to_take_is_behind_until_they_are_sent() {
    // A bell rings before its inbox is looked at, or is the reason for it, or the look shows one and is repeated.
    let rung = |delivery: &mut Delivery| assert!(delivery.wish_check() && delivery.ring(bell(1)) == Ring::Nothing);
    let doubted = |delivery: &mut Delivery| {
        assert_eq!(delivery.ring(Bell { previous_at: 7, ..bell(1) }), Ring::CatchUp);
    };
    let shown = |delivery: &mut Delivery| {
        assert!(delivery.wish_check() && delivery.wanted().is_some());
        assert!(!delivery.wish_check() && delivery.finish_slice(mark(1)) == Next::CatchUp);
    };
    for become_behind in [&rung as &dyn Fn(&mut Delivery), &doubted, &shown] {
        let mut delivery = live(2, 0);
        become_behind(&mut delivery);
        assert!(delivery.is_behind());
        assert!(delivery.wanted().is_some() && delivery.is_behind());
        // The inbox cannot be read.
        assert_eq!(delivery.read_again(), Next::CatchUp);
        assert!(delivery.wanted().is_some() && delivery.is_behind());
        delivery.took(mark(1), 100);
        assert_eq!((delivery.finish_slice(mark(1)), delivery.is_behind()), (Next::Stay, false));
    }
}

#[test]
fn a_bell_after_another_predecessor_is_doubted() {
    let mut delivery = live(256, 5);
    let mut bell = bell(6);
    bell.previous_at += 1;
    assert_eq!(delivery.ring(bell), Ring::CatchUp);
    assert_eq!(delivery.wanted().expect("a check").after, mark(5));
}

#[test]
fn a_number_that_was_given_again_is_doubted() {
    let mut delivery = live(256, 5);
    let mut again = bell(5);
    again.entry.mark.accepted_at += 1;
    assert_eq!(delivery.ring(again), Ring::CatchUp);
}

#[test]
fn past_the_window_nothing_is_sent_until_an_ack() {
    let mut delivery = live(2, 0);
    pass(&mut delivery, 1);
    pass(&mut delivery, 2);
    assert_eq!(delivery.ring(bell(3)), Ring::Nothing);
    assert_eq!(delivery.ring(bell(4)), Ring::Nothing);
    assert_eq!(delivery.ack(Seq(1)), Some(Acked { mark: mark(1), resume: true }));
    assert_eq!(delivery.wanted().expect("room").payments, 1);
    assert_eq!(delivery.offer(&entry(3, 1)), Offer::Send);
    delivery.took(mark(3), 100);
    assert_eq!(delivery.offer(&entry(4, 1)), Offer::WindowFull);
    delivery.window_full();
    assert_eq!(delivery.finish_slice(mark(4)), Next::Stay);
    assert_eq!(delivery.ack(Seq(3)), Some(Acked { mark: mark(3), resume: true }));
}

#[test]
fn the_window_has_bytes_too_but_one_payment_always_goes() {
    let mut delivery = live(256, 0);
    let large = entry(1, 2 * MAX_WINDOW_BYTES);
    assert_eq!(delivery.offer(&large), Offer::Send);
    delivery.took(large.mark, large.frame_bytes());
    assert_eq!(delivery.offer(&entry(2, 1)), Offer::WindowFull);
    assert_eq!(delivery.ack(Seq(1)).map(|acked| acked.mark), Some(mark(1)));
    assert_eq!(delivery.offer(&entry(2, 1)), Offer::Send);
}

#[test]
fn an_ack_counts_as_far_as_was_sent() {
    let mut delivery = live(256, 41);
    assert_eq!(delivery.ack(Seq(99)), None);
    pass(&mut delivery, 42);
    pass(&mut delivery, 43);
    assert_eq!(delivery.ack(Seq(41)), None);
    assert_eq!(delivery.ack(Seq(u64::MAX)), Some(Acked { mark: mark(43), resume: false }));
    assert_eq!(delivery.ack(Seq(42)), None);
    pass(&mut delivery, 44);
    assert_eq!(delivery.ack(Seq(44)).map(|acked| acked.mark), Some(mark(44)));
}

#[test]
fn a_frame_counts_as_sent_with_its_last_byte() {
    let mut delivery = live(256, 0);
    let Ring::Send(first) = delivery.ring(bell(1)) else { panic!("the next one") };
    delivery.blocked(Some((first.mark, first.frame_bytes())));
    assert_eq!(delivery.ack(Seq(1)), None);
    assert_eq!(delivery.ring(bell(2)), Ring::Nothing);
    assert_eq!(delivery.drained(), (Some(mark(1)), Next::CatchUp));
    assert_eq!(delivery.ack(Seq(1)).map(|acked| acked.mark), Some(mark(1)));
    assert_eq!(delivery.wanted().expect("catch-up").after, mark(1));
}

#[test]
fn a_drained_client_with_nothing_left_is_live() {
    let mut delivery = live(256, 0);
    let Ring::Send(first) = delivery.ring(bell(1)) else { panic!("the next one") };
    delivery.blocked(Some((first.mark, first.frame_bytes())));
    assert_eq!(delivery.drained(), (Some(mark(1)), Next::Stay));
    pass(&mut delivery, 2);
}

#[test]
fn a_frame_of_which_nothing_was_taken_is_read_again() {
    let mut delivery = live(256, 0);
    assert!(matches!(delivery.ring(bell(1)), Ring::Send(_)));
    delivery.blocked(None);
    assert_eq!(delivery.drained(), (None, Next::CatchUp));
    assert_eq!(delivery.wanted().expect("catch-up").after, mark(0));
}

#[test]
fn acks_are_needed_from_half_a_window_on_or_where_the_next_does_not_fit() {
    let mut delivery = live(8, 0);
    (1..=3).for_each(|seq| pass(&mut delivery, seq));
    assert!(!delivery.needs_acks());
    pass(&mut delivery, 4);
    assert!(delivery.needs_acks());
    assert!(delivery.ack(Seq(4)).is_some());
    assert!(!delivery.needs_acks());
    let large = entry(5, MAX_WINDOW_BYTES / 2);
    delivery.took(large.mark, large.frame_bytes());
    assert!(delivery.needs_acks());

    let mut delivery = live(8, 0);
    pass(&mut delivery, 1);
    let mut larger = bell(2);
    larger.entry = entry(2, MAX_WINDOW_BYTES);
    assert_eq!(delivery.ring(larger), Ring::Nothing);
    assert!(delivery.needs_acks());
}

#[test]
fn what_rings_while_claiming_is_fetched_after_it() {
    let mut delivery = Delivery::new(256);
    assert_eq!(delivery.ring(bell(3)), Ring::Nothing);
    assert_eq!(delivery.claimed(1, mark(2), mark(2)), Ok(Next::CatchUp));
}

#[test]
fn the_higher_session_stays_in_whatever_order_things_arrive() {
    let mut delivery = Delivery::new(256);
    assert!(!delivery.taken_over(7));
    assert_eq!(delivery.claimed(6, mark(0), mark(0)), Err(()));

    let mut delivery = Delivery::new(256);
    assert!(!delivery.taken_over(5));
    assert_eq!(delivery.claimed(6, mark(0), mark(0)), Ok(Next::Stay));
    assert!(!delivery.taken_over(6));
    assert!(delivery.taken_over(7));
}

#[test]
fn a_bell_from_nowhere_costs_one_look() {
    let mut delivery = live(256, 5);
    let mut forged = bell(6);
    forged.entry.mark.seq = Seq(1_000_000);
    assert_eq!(delivery.ring(forged), Ring::Kept);
    assert!(delivery.gap_stands());
    assert!(delivery.wanted().is_some());
    assert_eq!(delivery.finish_slice(mark(5)), Next::Stay);
    pass(&mut delivery, 6);
}

#[test]
fn what_lies_behind_a_slice_may_be_dead_and_is_passed() {
    let mut delivery = live(256, 0);
    assert_eq!(delivery.ring(bell(4)), Ring::Kept);
    assert!(delivery.gap_stands());
    assert!(delivery.wanted().is_some());
    delivery.took(mark(1), 100);
    delivery.passed(mark(3));
    assert_eq!(delivery.finish_slice(mark(3)), Next::Stay);
    pass(&mut delivery, 4);
    assert_eq!(delivery.ack(Seq(2)).map(|acked| acked.mark), Some(mark(1)), "dead ones are never acknowledged");
}

#[test]
fn a_nack_is_for_one_that_was_sent_and_makes_room() {
    let mut delivery = live(2, 0);
    pass(&mut delivery, 1);
    pass(&mut delivery, 2);
    assert_eq!(delivery.ring(bell(3)), Ring::Nothing);
    assert_eq!(delivery.nack(Seq(3)), None);
    assert_eq!(delivery.nack(Seq(2)), Some(Acked { mark: mark(2), resume: true }));
    assert_eq!(delivery.nack(Seq(2)), None, "once");
    assert_eq!(delivery.wanted().expect("room").after, mark(2));
    assert_eq!(delivery.ack(Seq(2)).map(|acked| acked.mark), Some(mark(1)), "those before it stay pending");
}

#[test]
fn one_that_died_elsewhere_is_not_sent_and_holds_no_place() {
    let mut delivery = live(1, 0);
    pass(&mut delivery, 1);
    assert_eq!(delivery.ring(bell(2)), Ring::Nothing);
    assert!(delivery.died(Seq(1)), "there is room again");
    assert!(delivery.wanted().is_some());
    assert_eq!(delivery.finish_slice(mark(1)), Next::Stay);

    let mut delivery = live(2, 0);
    assert!(delivery.died(Seq(1)), "it is looked at");
    assert!(delivery.wanted().is_some());
    assert_eq!(delivery.finish_slice(mark(0)), Next::Stay);
    assert_eq!(delivery.ring(bell(1)), Ring::CatchUp, "its bell comes late");
    assert!(delivery.wanted().is_some());
    delivery.passed(mark(1));
    assert_eq!(delivery.finish_slice(mark(1)), Next::Stay);
    pass(&mut delivery, 2);
}

#[test]
fn what_died_after_it_was_read_is_not_sent() {
    let mut delivery = live(256, 0);
    assert_eq!(delivery.ring(bell(3)), Ring::Kept);
    assert!(delivery.gap_stands());
    assert!(delivery.wanted().is_some());
    // The slice with 1, 2 and 3 is on its way when word of 2 comes.
    assert!(!delivery.died(Seq(2)), "catch-up has it already");
    let offers = [1, 2, 3].map(|seq| {
        let offer = delivery.offer(&entry(seq, 1));
        if offer == Offer::Send {
            delivery.took(mark(seq), 100);
        }
        offer
    });
    assert_eq!(offers, [Offer::Send, Offer::Skip, Offer::Send]);
    delivery.passed(mark(3));
    assert_eq!(delivery.finish_slice(mark(3)), Next::CatchUp, "what was heard is compared with the inbox");
    assert_eq!(delivery.wanted().expect("a check").after, mark(3));
    assert_eq!(delivery.finish_slice(mark(3)), Next::Stay);
    pass(&mut delivery, 4);
}

#[test]
fn what_left_the_inbox_holds_no_place() {
    let mut delivery = live(1, 0);
    pass(&mut delivery, 1);
    assert!(!delivery.wish_check() || delivery.wanted().is_some());
    delivery.left_inbox(Seq(1));
    assert_eq!(delivery.finish_slice(mark(1)), Next::Stay);
    pass(&mut delivery, 2);
}

#[test]
fn a_check_is_made_even_where_the_window_is_full() {
    let mut delivery = live(1, 0);
    pass(&mut delivery, 1);
    assert_eq!(delivery.ring(bell(2)), Ring::Nothing);
    assert!(delivery.wish_check());
    assert!(!delivery.wish_check(), "catch-up has it already");
    assert_eq!(delivery.wanted(), Some(Wanted { after: mark(1), payments: 0, bytes: 0 }));
    assert_eq!(delivery.finish_slice(mark(2)), Next::Stay);
    assert_eq!(delivery.ack(Seq(1)), Some(Acked { mark: mark(1), resume: true }));
}
