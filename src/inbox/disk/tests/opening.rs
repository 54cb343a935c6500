//! A file is its owner's alone, for one process; one that cannot be opened is left as it is, and a line says why.

use super::*;
use redb::TableDefinition;
use std::error::Error as _;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_second_process_is_refused_in_a_line() {
    let dir = Dir::new();
    let _home = dir.open();
    let message = dir.refusal().to_string();
    assert!(message.contains("is in use by another payrelay; "), "{message}");
}

#[test]
fn directory_and_file_are_their_owners_alone() {
    let dir = Dir::new();
    let _home = dir.open();
    let mode = |path: &Path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    assert_eq!((mode(&dir.0), mode(&dir.file())), (0o700, 0o600));
}

#[test]
fn what_cannot_be_opened_says_why() {
    let dir = Dir::new();
    std::fs::write(&dir.0, "").expect("writes");
    assert!(matches!(dir.refusal(), OpenError::NotADirectory(_)));
    let below = Dir(dir.0.join("below"));
    let refusal = below.refusal();
    assert!(matches!(refusal, OpenError::Denied { .. }) && refusal.source().is_some(), "{refusal}");

    for content in [&b"hello"[..], &[7; 100_000]] {
        let dir = Dir::new();
        std::fs::create_dir(&dir.0).expect("makes it");
        std::fs::write(dir.file(), content).expect("writes");
        let refusal = dir.refusal();
        assert!(matches!(refusal, OpenError::Damaged { .. }) && refusal.source().is_some(), "{refusal}");
        assert_eq!(std::fs::read(dir.file()).expect("is still there"), content);
    }
}

#[test]
fn a_file_that_was_cut_short_is_damaged() {
    let dir = Dir::new();
    let home = dir.open();
    (0..50).for_each(|_| drop(post(&home, "01", None, "1")));
    drop(home);
    let file = std::fs::OpenOptions::new().write(true).open(dir.file()).expect("opens");
    file.set_len(file.metadata().expect("is there").len() / 2).expect("cuts");
    let refusal = dir.refusal();
    assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
}

#[test]
fn a_file_of_another_format_is_left_alone() {
    let dir = Dir::new();
    drop(dir.open());
    let file = Database::open(dir.file()).expect("opens");
    let transaction = file.begin_write().expect("writes");
    transaction.open_table(tables::META).expect("is there").insert("format", 9).expect("writes");
    transaction.commit().expect("commits");
    drop(file);
    let refusal = dir.refusal();
    assert!(matches!(refusal, OpenError::Foreign { format: Some(9), .. }), "{refusal}");

    let dir = Dir::new();
    std::fs::create_dir(&dir.0).expect("makes it");
    let file = Database::create(dir.file()).expect("opens");
    let transaction = file.begin_write().expect("writes");
    transaction.open_table(TableDefinition::<u64, u64>::new("theirs")).expect("makes it");
    transaction.commit().expect("commits");
    drop(file);
    let refusal = dir.refusal();
    assert!(matches!(refusal, OpenError::Foreign { format: None, .. }), "{refusal}");
}
