//! Mutated replies of Redis against their decoders: what lies there, and what the scripts say of it.

use super::guesses::Guess;
use super::reply::{Counts, one_each, read_booked, read_burial, read_found, read_letters, read_slice, texts};
use crate::doorbell::hostile::expect_one_line;
use crate::hostile::mutation::{Plan, Random, mutated, run};
use crate::inbox::{Note, Query, Reading, Session, Token, Which};
use crate::payment::{ClientId, Mark, PaymentId, Seq};
use redis::Value;

const SHORT: u64 = 2_000;
/// Stands between the parts of a reply.
const APART: char = '\x1e';

fn replies() -> Vec<Vec<u8>> {
    let entry = r#"7 1732330000123 0 25 20 "channel":"payments""msg":1"#;
    let sent = r#"8 1732330000124 1732330060123/7 45 20 "channel":"payments""msg":{"a":"b c"}"#;
    let letter = format!("refused 5 0 13 unknown order {entry}");
    let replies = [
        "replaced".into(),
        "rolled_back".into(),
        "released".into(),
        "noted".into(),
        "late".into(),
        "none".into(),
        "purged".into(),
        "acknowledged 7".into(),
        "acknowledged 4 3 4 1732330000100 300 4 300 0 0 1 1 3 token n1/1".into(),
        "passed 7".into(),
        "buried refused".into(),
        "kept expired".into(),
        "kept retried/9".into(),
        "soon 100".into(),
        "claimed 3 4 1732330000100 9 1732330000123 1732330000000 5".into(),
        format!("slice|9|1732330000123|6|8|1732330000124|8 9|{entry}|{sent}"),
        "slice|0|0|0|0|0|".into(),
        format!("found|7|accepted|{entry}|n1/1|1000"),
        format!("found|7|due|{sent}|-|"),
        format!("found|7|refused|{letter}|-|"),
        "found|7|acknowledged||n1/1|".into(),
        format!("letters|0|{letter}|{letter}"),
        format!("letters|1|{letter}"),
        "letters|0".into(),
        "acknowledged 7|error ERR not a list|passed 7".into(),
        "3 4 1732330000100 400 3 300 1 0 1 1 3 token n1/1".into(),
        "9 1732330000123 0 900 3 4 1732330000100 400 3 300 1 0 1 1 3 token n1/1".into(),
        entry.into(),
        sent.into(),
        letter.clone(),
    ];
    replies.map(|reply: String| reply.replace('|', &APART.to_string()).into_bytes()).to_vec()
}

/// A reply of several parts, or of one.
fn value(input: &[u8]) -> Value {
    let mut parts: Vec<_> =
        input.split(|&byte| char::from(byte) == APART).map(|part| Value::BulkString(part.to_vec())).collect();
    if parts.len() == 1 { parts.remove(0) } else { Value::Array(parts) }
}

fn take(reply: &Value, note: &Note, client: &ClientId) -> bool {
    let mut any = read_booked(note, reply).is_ok() | read_burial(reply).is_ok();
    if let Ok((reading, _due)) = read_slice(reply) {
        if let Reading::Slice(slice) = reading {
            slice.entries.iter().for_each(expect_one_line);
        }
        any = true;
    }
    for reply in one_each(Ok(reply.clone()), 3).into_iter().flatten() {
        any |= read_booked(note, &reply).is_ok();
    }
    if let Ok(letters) = read_letters(reply) {
        letters.iter().flat_map(|letters| &letters.letters).for_each(|letter| expect_one_line(&letter.entry));
        any = true;
    }
    for which in [Which::Seq(Seq(7)), Which::PaymentId(PaymentId::parse("a").expect("valid"))] {
        any |= read_found(&Query { client: client.clone(), which }, reply).is_ok();
    }
    any
}

#[test]
fn replies_are_understood_or_cannot_be_read() {
    let seeds = replies();
    let words: [&[u8]; 14] = [
        b" ",
        b"0",
        b"-",
        b"+1",
        b"18446744073709551615",
        b"18446744073709551616",
        b"/",
        b"\n",
        b"\x1e",
        b"slice\x1e",
        b"found\x1e",
        b"letters\x1e",
        b"\xff",
        b"retried/",
    ];
    let client = ClientId::parse("01").expect("valid");
    let session = Session { number: 3, token: Token::random(), epoch: 5 };
    let note = Note::Ack { client: client.clone(), session, mark: Mark { seq: Seq(7), accepted_at: 9 } };
    let make = |random: &mut Random| mutated(random, &seeds, &words);
    run("stored frames, in Redis", Plan::of(SHORT), make, |input, random| {
        let reply = value(input);
        let _ = texts(&reply);
        let counts = std::str::from_utf8(input).ok().and_then(|line| Counts::read(line, random.next()).ok());
        if let Some(counts) = &counts {
            assert!(counts.pending() <= counts.last());
            let _ = counts.dead_letters();
        }
        if let Some(guess) = std::str::from_utf8(input).ok().and_then(Guess::parse_accepted) {
            let mut line = Vec::new();
            guess.write_newest(&mut line);
            line.extend_from_slice(guess.state.as_bytes());
            let line = String::from_utf8_lossy(&line);
            let again = Guess::parse_accepted(&line).or_else(|| Guess::parse(&line)).expect("what is sent can be read");
            assert_eq!(again.state, guess.state, "what is sent is what was meant");
        }
        // Of a kind that nobody expects, as well.
        let other =
            [Value::Nil, Value::Int(-1), Value::Array(vec![reply.clone(), Value::Nil, Value::Int(7)]), Value::Okay];
        take(random.pick(&other), &note, &client);
        take(&reply, &note, &client) || counts.is_some()
    });
}
