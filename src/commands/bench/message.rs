//! What a payment of a run says: whose it is, which one, when it was to be sent, and filling.
//!
//! The filling follows from the rest, so a receiver can tell whether it got what was sent: it
//! writes the same message again and compares.

use std::io::Write;

use serde::Deserialize;
use serde_json::Value;

/// Fillings begin at so many different places.
const OFFSETS: u64 = 997;

/// Writes and reads the messages of one run.
#[derive(Clone)]
pub(super) struct Messages {
    run: String,
    size: usize,
    filling: Vec<u8>,
    again: Vec<u8>,
}

/// What a message said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// This client's payment `number`, as it was sent, and when it was to be sent.
    Whole { number: u64, at_us: u64 },
    /// A whole one, but another client's.
    WrongClient,
    /// It is not this run's: an earlier one had the same client ids.
    Foreign,
    /// It is no message that was sent.
    Altered,
}

#[derive(Deserialize)]
struct Fields<'a> {
    run: &'a str,
    to: &'a str,
    n: u64,
    at: u64,
}

impl Messages {
    /// Messages of `size` bytes. `run` tells this run from every other.
    pub(super) fn new(run: &str, size: usize) -> Messages {
        let mut state = 1u32;
        let mut letter = || {
            // Letters without a pattern, so that nothing on the way can squeeze them.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"[(state >> 27) as usize]
        };
        let filling = (0..size + OFFSETS as usize).map(|_| letter()).collect();
        Messages { run: run.to_owned(), size, filling, again: Vec::new() }
    }

    /// The smallest size that has room for a client id of so many bytes, and for any number and time.
    pub(super) fn least_size(run: &str, longest_id: usize) -> usize {
        let mut bytes = Vec::new();
        Messages::new(run, 0).write(&mut bytes, "", 9_999_999_999, 9_999_999_999);
        bytes.len() + longest_id
    }

    /// Appends a message: client `to`'s payment `number`, to be sent at `at_us`.
    pub(super) fn write(&self, out: &mut Vec<u8>, to: &str, number: u64, at_us: u64) {
        let begin = out.len();
        let run = &self.run;
        write!(out, r#"{{"run":"{run}","to":"{to}","n":{number},"at":{at_us},"pad":""#)
            .expect("a Vec takes everything");
        let room = self.size.saturating_sub(out.len() - begin + r#""}"#.len());
        let offset = (number.wrapping_mul(31).wrapping_add(at_us) % OFFSETS) as usize;
        out.extend_from_slice(&self.filling[offset..offset + room]);
        out.extend_from_slice(br#""}"#);
    }

    /// Reads what the client `mine` got as `msg`.
    pub(super) fn read(&mut self, msg: &str, mine: &str) -> Said {
        let Ok(Fields { run, to, n: number, at: at_us }) = serde_json::from_str(msg) else {
            return Said::Altered;
        };
        if run != self.run {
            return Said::Foreign;
        }
        let mut again = std::mem::take(&mut self.again);
        again.clear();
        self.write(&mut again, to, number, at_us);
        // Other servers may write the same JSON in other bytes.
        let is_whole = again == msg.as_bytes() || same_json(&again, msg.as_bytes());
        self.again = again;
        match is_whole {
            false => Said::Altered,
            true if to != mine => Said::WrongClient,
            true => Said::Whole { number, at_us },
        }
    }
}

fn same_json(one: &[u8], other: &[u8]) -> bool {
    let read = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    read(one).is_some_and(|value| Some(value) == read(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(messages: &Messages, number: u64) -> String {
        let mut out = Vec::new();
        messages.write(&mut out, "bench-7", number, 12_345);
        String::from_utf8(out).expect("letters")
    }

    #[test]
    fn a_message_has_the_size_asked_for_and_says_what_it_is() {
        let mut messages = Messages::new("r1", 256);
        let text = written(&messages, 42);
        assert_eq!(text.len(), 256);
        let whole = Said::Whole { number: 42, at_us: 12_345 };
        assert_eq!(messages.read(&text, "bench-7"), whole);
        let spaced = text.replace(':', ": ").replace(',', ", ");
        assert_eq!(messages.read(&spaced, "bench-7"), whole, "the same JSON in other bytes");
        assert_eq!(messages.read(&text, "bench-77"), Said::WrongClient);
    }

    #[test]
    fn the_least_size_is_enough() {
        let least = Messages::least_size("r1", 7);
        let mut out = Vec::new();
        Messages::new("r1", least).write(&mut out, "bench-7", 9_999_999_999, 9_999_999_999);
        assert_eq!(out.len(), least);
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let mut messages = Messages::new("r1", 256);
        let text = written(&messages, 42);
        let at = text.rfind(r#""}"#).expect("its end") - 5;
        let mut other_letter = text.clone();
        other_letter.replace_range(at..=at, "#");
        let mut shorter = text.clone();
        shorter.remove(at);
        for altered in [
            text.replace(r#""n":42"#, r#""n":43"#),
            text.replace("12345", "12346"),
            text.replace("bench-7", "bench-77"),
            text.replace(r#","pad""#, r#","x":1,"pad""#),
            other_letter,
            shorter,
            text[..100].to_owned(),
            "null".to_owned(),
            r#""text""#.to_owned(),
        ] {
            assert_eq!(messages.read(&altered, "bench-7"), Said::Altered, "{altered}");
        }
    }

    #[test]
    fn another_run_is_not_ours() {
        let text = written(&Messages::new("r2", 256), 42);
        assert_eq!(Messages::new("r1", 256).read(&text, "bench-7"), Said::Foreign);
    }
}
