//! Every payment is answered once, behind its bell, whatever becomes of it or of the others' answers.

use super::*;

#[test]
fn bells_ring_before_the_answers_and_only_for_who_is_connected() {
    let dir = Dir::new();
    let home = dir.open();
    home.claim("on");
    let send = |name: &str| {
        let heard = home.heard.clone();
        let done = move |result: Result<Accepted, Error>| {
            let accepted = result.expect("accepted");
            heard.lock().push(format!("answer {} {}", accepted.online, accepted.mark.seq));
        };
        let pending = Pending::new(deposit(payment(name, None, "1"), done));
        DiskJob::Deposit { pending, answer: None }
    };
    home.run(vec![send("on"), send("off"), send("on")]);
    assert_eq!(*home.heard.lock(), ["bell on 1", "bell on 2", "answer true 1", "answer false 1", "answer true 2"]);
}

#[test]
fn a_bell_names_the_payment_before() {
    let dir = Dir::new();
    let bells = Arc::new(Mutex::new(Vec::new()));
    let ring = bells.clone();
    let ring = Box::new(move |hint: Hint| {
        if let Hint::Bells(bells) = hint {
            ring.lock().extend(bells.iter().map(|bell| bell.previous()));
        }
    });
    let inbox = DiskInbox::open(&dir.0, options(10), ring, fail_loudly()).expect("opens");
    inbox.book(&[claim("01")]).remove(0).expect("claimed");
    let first = mark_of(post(&inbox, "01", None, "1"));
    post(&inbox, "01", None, "2").expect("accepted");
    assert_eq!(*bells.lock(), [Mark::default(), first]);
}

#[test]
fn a_panic_in_one_answer_hurts_no_other() {
    let dir = Dir::new();
    let home = dir.open();
    let (tx, rx) = mpsc::channel();
    let job = |payment, done: Box<dyn FnOnce(Result<Accepted, Error>) + Send>| DiskJob::Deposit {
        pending: Pending::new(deposit(payment, done)),
        answer: None,
    };
    let bad = job(payment("01", None, "1"), Box::new(|_| panic!("on purpose")));
    let good = job(payment("01", None, "2"), Box::new(move |result| tx.send(result).expect("the test waits")));
    home.run(vec![bad, good]);
    assert_eq!(mark_of(rx.recv().expect("an answer")).seq, Seq(2));
}

#[test]
fn a_payment_that_is_dropped_says_that_nobody_knows() {
    let (tx, rx) = mpsc::channel();
    let pending = Pending::new(deposit(payment("01", None, "1"), move |result| tx.send(result).expect("heard")));
    // Even while its thread unwinds, and though the answer itself panics.
    let other = Pending::new(deposit(payment("01", None, "1"), |_| panic!("on purpose")));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _both = (pending, other);
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    let answers: Vec<_> = rx.iter().collect();
    assert!(matches!(answers[..], [Err(Error::Unavailable { stored: Stored::Unknown, .. })]));
}

#[test]
fn after_the_close_nothing_is_stored() {
    let dir = Dir::new();
    let home = dir.open();
    home.close();
    home.commit();
    assert!(matches!(post(&home, "01", None, "1"), Err(Error::Unavailable { stored: Stored::No, .. })));
    assert!(matches!(home.book(&[claim("01")])[..], [Err(Error::Unavailable { stored: Stored::No, .. })]));
    assert_eq!(home.record_of("01"), None);
}
