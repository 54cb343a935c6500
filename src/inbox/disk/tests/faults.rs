//! What cannot be read is one client's trouble; what cannot be written ends the process, and nobody is told that it is
//! stored.

use super::*;
use crate::inbox::disk::tables::STATES;
use redb::backends::InMemoryBackend;
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::sync::atomic::AtomicBool;

#[test]
fn what_cannot_be_read_is_one_clients_trouble_and_can_be_discarded() {
    let dir = Dir::new();
    let home = dir.open();
    post(&home, "01", None, "1").expect("accepted");
    post(&home, "02", None, "1").expect("accepted");
    let transaction = home.file().expect("open").begin_write().expect("writes");
    transaction.open_table(STATES).expect("is there").insert("01", &b"1 2 3"[..]).expect("writes");
    transaction.commit().expect("commits");
    assert!(matches!(post(&home, "01", None, "1"), Err(Error::Corrupt(_))));
    assert!(matches!(home.book(&[claim("01"), claim("02")])[..], [Err(Error::Corrupt(_)), Ok(Booked::Claimed(_))]));
    assert!(matches!(home.retire(&client("01"), false), Err(Error::Corrupt(_))));
    assert_eq!(home.retire(&client("01"), true), Ok(Retired::Done));
    assert_eq!(mark_of(post(&home, "01", None, "1")).seq, Seq(1));
}

/// A disk that fails from a given moment on.
#[derive(Debug)]
struct Failing {
    memory: InMemoryBackend,
    broken: Arc<AtomicBool>,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.broken.load(Ordering::Relaxed) { Err(io::Error::other("gone")) } else { self.memory.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.memory.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.memory.unlock_range(start, end)
    }
}

#[test]
fn a_failed_fsync_is_unknown_to_all_and_ends_the_process() {
    let broken = Arc::new(AtomicBool::new(false));
    let backend = Failing { memory: InMemoryBackend::new(), broken: broken.clone() };
    let file = Database::builder().create_with_backend(backend).expect("opens");
    let transaction = file.begin_write().expect("writes");
    tables::create(&transaction).expect("makes them");
    transaction.commit().expect("commits");
    let deaths = Arc::new(Mutex::new(Vec::new()));
    let told = deaths.clone();
    let inbox = DiskInbox {
        file: Mutex::new(Some(Arc::new(file))),
        options: options(10),
        world: World::real(&std::env::temp_dir()),
        doubt_before: 0,
        group: Group::new(),
        holders: Mutex::default(),
        sessions: AtomicU64::new(0),
        hint: Box::new(|_| panic!("it was not stored")),
        no_room: Seldom::default(),
        fatal: Box::new(move |why| told.lock().push(why)),
    };
    broken.store(true, Ordering::Relaxed);
    assert!(matches!(inbox.book(&[claim("01")])[..], [Err(Error::Unavailable { stored: Stored::Unknown, .. })]));
    assert_eq!(deaths.lock().len(), 1);
    assert!(inbox.holders.lock().is_empty());
    // Not tried again: redb takes nothing more.
    assert!(matches!(post(&inbox, "01", None, "1"), Err(Error::Unavailable { stored: Stored::No, .. })));
    assert_eq!(deaths.lock().len(), 2);
}
