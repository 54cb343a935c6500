//! Mutated doorbells, and what else nodes say to each other, against their decoders.

use super::*;
use crate::broadcast::Broadcast;
use crate::framing::Framing;
use crate::hostile::judge::{self, Json};
use crate::hostile::mutation::{Plan, Random, mutated, run};

const SHORT: u64 = 2_000;

const HEAD: &str = "\"channel\":\"payments\"";

fn messages() -> Vec<Vec<u8>> {
    let texts = [
        format!("till-7 1732330000000 1 42 1732330000123 0 900 {} {HEAD}\"msg\":\"a b\"", HEAD.len()),
        format!("01 0 0 1 1 1732330060123 20 {} {HEAD}\"msg\":{{\"a\":[1,2]}}", HEAD.len()),
        format!("01 1 0 2 2 1732330060123/7 20 {} {HEAD},\"payment_id\":\"wx-1\"\"msg\":null", HEAD.len() + 21),
        "till-7 42".into(),
        "01 18446744073709551615".into(),
        "accepted".into(),
        "refused".into(),
        "retried/57".into(),
        "purged".into(),
        r#"{"answer_to":"n2","topic":"online/1","after":"01"}"#.into(),
        r#"{"node":"n1","clients":["01","02"]}"#.into(),
        r#"{"type":"broadcast","channel":"notices","msg":{"a":[1,"b"]}}"#.into(),
        r#"{"type":"broadcast","channel":"payments","msg":null}"#.into(),
    ];
    texts.into_iter().map(String::into_bytes).collect()
}

/// A payment that came from elsewhere makes one line, and no other's.
pub(crate) fn expect_one_line(entry: &Entry) {
    let mut frame = Vec::new();
    entry.write_frame(&mut frame);
    assert!(frame.starts_with(format!("{{\"type\":\"payment\",\"seq\":{},", entry.mark.seq).as_bytes()));
    assert!(frame.len() <= entry.frame_bytes(), "{} of {}", frame.len(), entry.frame_bytes());
    let line = Framing::Lines.wrap(&frame).expect("lines have no limit");
    assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line feed, at its end");
    assert_eq!(entry.parcel.fingerprint().len(), 32);
    let _ = entry.parcel.payment_id();
}

fn take_bell(text: &[u8]) -> bool {
    let Some(bell) = Bell::parse(text) else { return false };
    assert!(bell.previous().seq <= bell.entry.mark.seq);
    expect_one_line(&bell.entry);
    true
}

fn take_broadcast(text: &[u8]) -> bool {
    let Some(broadcast) = Broadcast::parse(text) else { return false };
    assert_eq!(broadcast.as_bytes(), text);
    assert_ne!(judge::json(text), Json::No, "every client would get it");
    assert!(!text.contains(&b'\n'));
    true
}

#[test]
fn doorbells_make_one_line_or_none() {
    let seeds = messages();
    let words: [&[u8]; 16] = [
        b" ",
        b"0",
        b"-1",
        b"+1",
        b"18446744073709551615",
        b"18446744073709551616",
        b"/",
        b"\n",
        b"{\"type\":\"payment\"}",
        b"\"msg\":2",
        b"\"channel\":\"x\"",
        b"\xff",
        b"..",
        b"1 ",
        b"20 ",
        b"\\u0000",
    ];
    let make = |random: &mut Random| mutated(random, &seeds, &words);
    run("doorbells", Plan::of(SHORT), make, |input, _| {
        let _ = std::str::from_utf8(input).ok().and_then(Status::parse);
        let others = [
            Takeover::parse(input).is_some(),
            Gone::parse(input).is_some(),
            serde_json::from_slice::<Question>(input).is_ok(),
            serde_json::from_slice::<Online>(input).is_ok(),
            take_broadcast(input),
        ];
        take_bell(input) || others.contains(&true)
    });
}
