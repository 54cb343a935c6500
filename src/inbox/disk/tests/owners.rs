//! The newest session owns an inbox: its acks count, and no other's.

use super::*;
use std::thread;

#[test]
fn acks_only_rise_and_only_the_owners_count() {
    let dir = Dir::new();
    let home = dir.open();
    let sent: Vec<Mark> = (0..3).map(|_| mark_of(post(&home, "01", None, "1"))).collect();
    let session = home.claim("01").session;
    let stranger = Session { token: Token::random(), ..session.clone() };
    assert_eq!(home.ack("01", &stranger, sent[2]), Ok(Booked::Replaced));
    assert_eq!(home.ack("01", &session, sent[1]), Ok(Booked::Acknowledged(Seq(2))));
    assert_eq!(home.ack("01", &session, sent[0]), Ok(Booked::Acknowledged(Seq(2))));
    assert_eq!(home.ack("01", &session, mark(4, 0)), Ok(Booked::RolledBack));
    assert_eq!(home.ack("01", &session, mark(3, 1)), Ok(Booked::RolledBack));
    let record = home.record_of("01").expect("known");
    assert_eq!((record.acked, record.pending, record.oldest_pending_at), (Seq(2), 1, Some(BEGIN)));
    assert_eq!(marks(home.read_after("01", &session, Mark::default(), 10)), [sent[2]]);
}

#[test]
fn the_newest_session_owns_the_inbox_and_its_end_is_its_own() {
    let dir = Dir::new();
    let home = dir.open();
    let old = home.claim("01").session;
    let Ok(Booked::TooSoon(wait)) = home.book(&[claim("01")]).remove(0) else { panic!("changed hands at once") };
    assert!(wait <= Duration::from_millis(100));
    assert_eq!(home.read_after("01", &old, Mark::default(), 0), Ok(slice_of_none()));
    thread::sleep(wait);
    let new = home.claim("01").session;
    assert!(new.number > old.number);
    assert_eq!(home.read_after("01", &old, Mark::default(), 0), Ok(Reading::Replaced));
    assert_eq!(home.release("01", &old), Ok(Booked::Replaced));
    assert!(home.record_of("01").expect("known").owner.is_some());
    assert_eq!(home.release("01", &new), Ok(Booked::Released));
    assert_eq!(home.record_of("01").expect("known").owner, None);
    // Nobody holds it: no wait.
    home.claim("01");
}

fn slice_of_none() -> Reading {
    Reading::Slice(Slice { entries: Vec::new(), upto: Mark::default(), acked: Seq(0), last: Mark::default() })
}

#[test]
fn a_claim_past_its_deadline_changes_nothing() {
    let dir = Dir::new();
    let home = dir.open();
    let Note::Claim(late) = claim("01") else { unreachable!("it is one") };
    let late = Note::Claim(Claim { deadline: Instant::now(), ..late });
    assert_eq!(home.book(&[late]), [Err(Error::away("too late"))]);
    assert_eq!(home.record_of("01"), None);
}
