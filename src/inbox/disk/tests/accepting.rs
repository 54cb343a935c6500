//! A payment is stored once, with the next seq, and only where there is room and time for it.

use super::*;
use crate::inbox::disk::tables::IDS;
use redb::ReadableTableMetadata;
use std::thread;

#[test]
fn seqs_have_no_gaps_and_accepted_at_stays_over_a_restart() {
    let dir = Dir::new();
    let home = dir.open();
    assert_eq!(mark_of(post(&home, "01", None, "1")), mark(1, 0));
    home.at(5);
    assert_eq!(mark_of(post(&home, "01", None, "2")), mark(2, 5));
    let epoch = home.claim("01").session.epoch;
    drop(home);

    let home = dir.open();
    // The clock went back: what comes later never seems older.
    assert_eq!(mark_of(post(&home, "01", None, "3")), mark(3, 5));
    let claimed = home.claim("01");
    assert_eq!((claimed.session.epoch, claimed.pending, claimed.last), (epoch, 3, mark(3, 5)));
    let read = home.read_after("01", &claimed.session, claimed.acked, 10);
    assert_eq!(marks(read), [mark(1, 0), mark(2, 5), mark(3, 5)]);
}

#[test]
fn a_payment_id_is_stored_once_until_its_window_ends() {
    let dir = Dir::new();
    let home = dir.open();
    let first = post(&home, "01", Some("wx-1"), "1").expect("accepted");
    assert!(!first.duplicate);
    home.at(999);
    let again = post(&home, "01", Some("wx-1"), "1").expect("known");
    assert_eq!((again.mark, again.duplicate, again.status), (first.mark, true, Status::Accepted));
    assert_eq!(post(&home, "01", Some("wx-1"), "2"), Err(Error::IdReused));
    assert_eq!(mark_of(post(&home, "02", Some("wx-1"), "2")).seq, Seq(1));

    let session = home.claim("01").session;
    assert_eq!(home.ack("01", &session, first.mark), Ok(Booked::Acknowledged(Seq(1))));
    assert_eq!(post(&home, "01", Some("wx-1"), "1").expect("known").status, Status::Acknowledged);
    drop(home);

    let home = dir.open();
    assert_eq!(home.find_id("01", "wx-1").expect("known").status, Status::Acknowledged);
    home.at(1_000);
    assert_eq!(home.find_id("01", "wx-1"), None);
    let anew = post(&home, "01", Some("wx-1"), "2").expect("accepted");
    assert_eq!((anew.mark, anew.duplicate), (mark(2, 1_000), false));
}

#[test]
fn expired_payment_ids_leave_the_file_in_small_steps() {
    let dir = Dir::new();
    let home = dir.open();
    (0..200).for_each(|n| assert!(post(&home, "01", Some(&format!("wx-{n}")), "1").is_ok()));
    let rows = |home: &Home| {
        let at = home.file().expect("open").begin_read().expect("reads");
        let (ids, expiries) =
            (at.open_table(IDS).expect("is there"), at.open_table(tables::EXPIRIES).expect("is there"));
        (ids.len().expect("reads"), expiries.len().expect("reads"))
    };
    home.at(1_000);
    // Used anew before its old row is removed: the new one stays.
    assert!(!post(&home, "01", Some("wx-199"), "1").expect("accepted").duplicate);
    assert!(rows(&home).0 >= 135);
    (0..3).for_each(|_| assert!(post(&home, "01", None, "1").is_ok()));
    assert_eq!(rows(&home), (1, 1));
    assert!(post(&home, "01", Some("wx-199"), "1").expect("known").duplicate);
}

#[test]
fn the_inbox_limit_is_exact_for_many_threads() {
    let dir = Dir::new();
    let home = dir.open_with(50);
    let full = AtomicU64::new(0);
    thread::scope(|scope| {
        let committer = scope.spawn(|| home.commit());
        let senders: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..10 {
                        match post(&home, "01", None, "1") {
                            Ok(_) => {}
                            Err(error) => {
                                assert_eq!(error, Error::InboxFull);
                                full.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().expect("no panic"));
        home.close();
        committer.join().expect("no panic");
    });
    assert_eq!(full.into_inner(), 30);
    assert_eq!(home.record_of("01").expect("known").pending, 50);
}

#[test]
fn a_full_inbox_still_names_the_first_of_a_repeat_and_takes_more_after_an_ack() {
    let dir = Dir::new();
    let home = dir.open_with(1);
    let first = mark_of(post(&home, "01", Some("wx-1"), "1"));
    assert_eq!(post(&home, "01", Some("wx-2"), "1"), Err(Error::InboxFull));
    assert!(post(&home, "01", Some("wx-1"), "1").expect("known").duplicate);
    assert_eq!(home.find_id("01", "wx-2"), None);
    let session = home.claim("01").session;
    home.ack("01", &session, first).expect("acknowledged");
    assert_eq!(mark_of(post(&home, "01", Some("wx-2"), "1")).seq, Seq(2));
}

#[test]
fn a_full_disk_refuses_payments_but_not_claims_and_acks() {
    let dir = Dir::new();
    let home = dir.open();
    let first = mark_of(post(&home, "01", None, "1"));
    home.free.store(KEEP_FREE_BYTES - 1, Ordering::Relaxed);
    assert_eq!(post(&home, "01", None, "2"), Err(Error::StoreFull));
    assert!(home.health().ready.is_err());
    let session = home.claim("01").session;
    assert_eq!(home.ack("01", &session, first), Ok(Booked::Acknowledged(Seq(1))));
    home.free.store(KEEP_FREE_BYTES, Ordering::Relaxed);
    assert_eq!(mark_of(post(&home, "01", None, "2")).seq, Seq(2));
    assert_eq!(home.health().ready, Ok(()));
}

#[test]
fn a_payment_whose_time_is_over_is_not_stored() {
    let dir = Dir::new();
    let home = dir.open();
    let (tx, rx) = mpsc::channel();
    let mut late = deposit(payment("01", None, "1"), move |result| tx.send(result).expect("the test waits"));
    late.deadline = Instant::now();
    home.accept(late);
    assert!(matches!(rx.recv().expect("an answer"), Err(Error::Unavailable { stored: Stored::No, .. })));
    assert_eq!(home.record_of("01"), None);
}
