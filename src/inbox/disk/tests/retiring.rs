//! Of a retired client nothing is left, and its next life is another.

use super::*;
use crate::inbox::disk::tables::IDS;
use redb::ReadableTableMetadata;

#[test]
fn a_retired_client_is_unknown_and_its_next_life_is_newer() {
    let dir = Dir::new();
    let home = dir.open();
    let session = home.claim("01").session;
    post(&home, "01", Some("wx-1"), "1").expect("accepted");
    post(&home, "02", Some("wx-1"), "1").expect("accepted");
    assert_eq!(home.retire(&client("01"), false), Ok(Retired::Pending(1)));
    assert_eq!(home.retire(&client("01"), true), Ok(Retired::Done));
    assert_eq!(home.retire(&client("01"), true), Ok(Retired::Unknown));
    assert_eq!((home.record_of("01"), home.find_id("01", "wx-1")), (None, None));
    assert_eq!(home.ack("01", &session, mark(1, 0)), Ok(Booked::Replaced));
    assert_eq!(home.waiting(None, 9), Ok(vec![client("02")]));

    let anew = post(&home, "01", Some("wx-1"), "2").expect("accepted");
    assert_eq!((anew.mark.seq, anew.duplicate, anew.online), (Seq(1), false, false));
    let claimed = home.claim("01");
    assert!(claimed.session.epoch > session.epoch && claimed.session.number > session.number);
    assert!(post(&home, "02", Some("wx-1"), "1").expect("known").duplicate);
}

#[test]
fn a_retired_clients_payment_ids_go_however_many_there_are() {
    let dir = Dir::new();
    let home = dir.open();
    let drop_it = |_: Result<Accepted, Error>| ();
    for some in 0..21 {
        let one = |n| Pending::new(deposit(payment("01", Some(&format!("wx-{some}-{n}")), "1"), drop_it));
        home.run((0..100).map(|n| DiskJob::Deposit { pending: one(n), answer: None }).collect());
    }
    assert_eq!(home.retire(&client("01"), true), Ok(Retired::Done));
    let at = home.file().expect("open").begin_read().expect("reads");
    for rows in [at.open_table(IDS).expect("is there").len(), at.open_table(tables::ENTRIES).expect("is there").len()] {
        assert_eq!(rows.expect("reads"), 0);
    }
    assert_eq!(at.open_table(tables::EXPIRIES).expect("is there").len().expect("reads"), 0);
}
