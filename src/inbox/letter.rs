//! A dead letter as both homes keep it: `status dead_at maybe_delivered length reason entry`. Once it is held no more,
//! only a word of what became of it: `purged at` or `retried at seq`.

use super::{Letter, Status};
use crate::doorbell::{StoredEntry, parse_entry};
use crate::payment::Seq;

/// The text of one that is held; the entry as it lay in the inbox.
pub(super) fn held(status: Status, dead_at: u64, maybe_delivered: bool, reason: &str, entry: &StoredEntry) -> Vec<u8> {
    let (status, length) = (status.as_str(), reason.len());
    let head = format!("{status} {dead_at} {} {length} {reason} ", u8::from(maybe_delivered));
    [head.as_bytes(), &entry.to_bytes()].concat()
}

/// The word of one that was put back under a new seq, or else thrown away.
pub(super) fn gone(at: u64, retried_as: Option<Seq>) -> Vec<u8> {
    match retried_as {
        Some(seq) => format!("retried {at} {seq}").into_bytes(),
        None => format!("purged {at}").into_bytes(),
    }
}

/// What became of it; `None` if the text is none.
pub(super) fn status(text: &[u8]) -> Option<Status> {
    let mut words = text.splitn(3, |&b| b == b' ').map(std::str::from_utf8);
    match words.next()?.ok()? {
        "retried" => Some(Status::Retried(Seq(words.nth(1)?.ok()?.parse().ok()?))),
        word => Status::parse(word).filter(|status| status.is_dead_letter() || *status == Status::Purged),
    }
}

/// Reads one that is held; `None` if it is none.
pub(super) fn parse(text: &[u8]) -> Option<(Letter, StoredEntry)> {
    let status = status(text).filter(|status| status.is_dead_letter())?;
    let mut words = text.splitn(5, |&b| b == b' ').skip(1);
    let mut number = || std::str::from_utf8(words.next()?).ok()?.parse::<u64>().ok();
    let (dead_at, maybe, length) = (number()?, number()?, usize::try_from(number()?).ok()?);
    let (reason, entry) = words.next()?.split_at_checked(length)?;
    let reason = String::from_utf8(reason.to_vec()).ok()?;
    let stored = parse_entry(entry.strip_prefix(b" ")?)?;
    let entry = stored.entry.clone();
    Some((Letter { status, dead_at, maybe_delivered: maybe == 1, reason, entry }, stored))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &[u8] = b"7 1732330000123 0 25 20 \"channel\":\"payments\"\"msg\":1";

    #[test]
    fn a_letter_survives_its_text_whatever_its_reason() {
        let entry = parse_entry(ENTRY).expect("an entry");
        for reason in ["", "unknown order", " 3 4 ", "é\n\"x\" -"] {
            let text = held(Status::Refused, 5, false, reason, &entry);
            let (letter, stored) = parse(&text).expect("a letter");
            assert_eq!((letter.status, letter.dead_at, letter.maybe_delivered), (Status::Refused, 5, false));
            assert_eq!((letter.reason.as_str(), &letter.entry, &stored), (reason, &entry.entry, &entry));
        }
    }

    #[test]
    fn a_word_is_no_letter_but_says_what_became_of_it() {
        let put_back = gone(5, Some(Seq(57)));
        assert_eq!((status(&put_back), parse(&put_back)), (Some(Status::Retried(Seq(57))), None));
        assert_eq!(status(&gone(5, None)), Some(Status::Purged));
        for junk in [&b""[..], b"accepted 1", b"retried 5", b"refuse 1", b"\xff"] {
            assert_eq!(status(junk), None);
        }
        assert_eq!(parse(b"refused 5 0 99 short 7"), None);
    }
}
