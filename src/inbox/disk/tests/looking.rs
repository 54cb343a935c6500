//! Whoever looks finds what is there, within the limits asked for, and hears of what never was.

use super::*;

#[test]
fn a_client_is_known_once_it_had_a_payment_or_a_connection() {
    let dir = Dir::new();
    let home = dir.open();
    assert_eq!(home.record_of("01"), None);
    let session = home.claim("01").session;
    let record = home.record_of("01").expect("known");
    assert_eq!((record.last, record.pending, record.oldest_pending_at), (Seq(0), 0, None));
    let owner = record.owner.expect("connected");
    assert_eq!((owner.node.as_str(), owner.since, owner.address.as_str()), ("n1", BEGIN, "10.0.0.7:51312"));
    home.release("01", &session).expect("released");
    drop(home);
    assert!(dir.open().record_of("01").is_some_and(|record| record.owner.is_none()));
}

#[test]
fn a_reading_keeps_its_limits_and_notices_what_never_was() {
    let dir = Dir::new();
    let home = dir.open();
    let sent: Vec<Mark> = (0..4).map(|_| mark_of(post(&home, "01", None, "1"))).collect();
    let session = home.claim("01").session;
    assert_eq!(marks(home.read_after("01", &session, sent[0], 2)), sent[1..3]);
    assert_eq!(marks(home.read_after("01", &session, sent[3], 2)), []);
    assert_eq!(marks(home.read_after("01", &session, Mark::default(), 0)), []);
    let (client, after) = (client("01"), Mark::default());
    let ask = Ask { client, session: session.clone(), after, payments: 9, bytes: 1 };
    assert_eq!(marks(home.read(&[ask]).remove(0)), sent[..1]);
    assert_eq!(home.read_after("01", &session, mark(5, 0), 1), Ok(Reading::RolledBack));
    assert_eq!(home.read_after("01", &session, mark(2, 1), 0), Ok(Reading::RolledBack));
}

#[test]
fn a_payment_is_found_by_number_and_by_id() {
    let dir = Dir::new();
    let home = dir.open();
    let first = mark_of(post(&home, "01", Some("wx-1"), "1"));
    post(&home, "01", None, "1").expect("accepted");
    let found = |seq, status, id: Option<&str>| {
        Some(Found { seq: Seq(seq), status, payment_id: id.map(str::to_owned), due_in: None })
    };
    assert_eq!(home.find("01", Which::Seq(Seq(1))), found(1, Status::Accepted, Some("wx-1")));
    assert_eq!(home.find("01", Which::Seq(Seq(2))), found(2, Status::Accepted, None));
    let session = home.claim("01").session;
    home.ack("01", &session, first).expect("acknowledged");
    assert_eq!(home.find("01", Which::Seq(Seq(1))), found(1, Status::Acknowledged, None));
    assert_eq!(home.find_id("01", "wx-1"), found(1, Status::Acknowledged, Some("wx-1")));
    assert_eq!((home.find("01", Which::Seq(Seq(0))), home.find("01", Which::Seq(Seq(3)))), (None, None));
    assert_eq!((home.find_id("01", "wx-2"), home.find_id("02", "wx-1")), (None, None));
}

#[test]
fn who_has_payments_waiting_is_listed_by_client_id() {
    let dir = Dir::new();
    let home = dir.open();
    for name in ["b", "a", "c"] {
        post(&home, name, None, "1").expect("accepted");
    }
    home.claim("nothing-waits");
    assert_eq!(home.waiting(None, 2), Ok(vec![client("a"), client("b")]));
    let session = home.claim("b").session;
    home.ack("b", &session, mark(1, 0)).expect("acknowledged");
    assert_eq!(home.waiting(None, 9), Ok(vec![client("a"), client("c")]));
    assert_eq!(home.waiting(Some(&client("a")), 9), Ok(vec![client("c")]));
}
