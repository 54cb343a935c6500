//! Mutated lines and frames of clients against their reader, without a socket.

use super::*;
use crate::hostile::judge::{self, Json};
use crate::hostile::mutation::{Plan, Random, mutated, run};
use crate::payment::Seq;
use serde_json::value::RawValue;
use std::collections::HashMap;

const SHORT: u64 = 2_000;

/// What is said in a stream until something is wrong, or its end.
struct Said {
    frames: Vec<Vec<u8>>,
    heard: Vec<ClientFrame>,
    /// The code of what was wrong.
    wrong: Option<&'static str>,
}

/// Cuts and reads a stream that comes in pieces of these sizes.
fn listen(framing: Framing, input: &[u8], piece: &mut dyn FnMut() -> usize) -> Said {
    let (mut frames, mut rest) = (Frames::new(framing), input);
    let mut said = Said { frames: Vec::new(), heard: Vec::new(), wrong: None };
    loop {
        let one = match frames.next() {
            Ok(Some(frame)) => {
                said.frames.push(frame.to_vec());
                ClientFrame::parse(frame).map_err(reason_of)
            }
            Ok(None) => {
                let now = rest.len().min(piece().max(1));
                if now == 0 {
                    return said;
                }
                let mut coming = &rest[..now];
                frames.fill(&mut coming);
                let left = coming.len();
                rest = &rest[now - left..];
                assert!(frames.buffer.len() <= MAX_FRAME_BYTES + READ_BYTES + 4, "a buffer without bound");
                continue;
            }
            Err(reason) => Err(reason),
        };
        match one {
            Ok(heard) => said.heard.push(heard),
            Err(reason) => {
                said.wrong = reason.code();
                return said;
            }
        }
    }
}

/// Where frames lie, by the rule of the contract alone.
fn frames_in(framing: Framing, mut stream: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    let prefix = match framing {
        Framing::Lines => {
            let lines = stream.split_inclusive(|&byte| byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
            return lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
        }
        Framing::U16be => 2,
        Framing::U32be => 4,
    };
    while stream.len() >= prefix {
        let length = stream[..prefix].iter().fold(0, |length, &byte| length * 256 + usize::from(byte));
        let Some(frame) = stream.get(prefix..prefix + length) else { break };
        frames.push(frame);
        stream = &stream[prefix + length..];
    }
    frames
}

/// A frame that was understood is JSON, and says what was heard.
fn expect_said(frame: &[u8], heard: &ClientFrame) {
    assert_ne!(judge::json(frame), Json::No, "what is no JSON was understood");
    let fields: HashMap<String, &RawValue> = serde_json::from_slice(frame).expect("an object");
    let number = |name: &str| Seq(fields[name].get().parse().expect("a number"));
    let text = |name: &str| {
        fields.get(name).and_then(|raw| serde_json::from_str::<Option<String>>(raw.get()).expect("a text"))
    };
    let kind = match heard {
        ClientFrame::Hello(hello) => {
            assert_eq!(hello.client, text("client").or(text("id")));
            assert_ne!(hello.window, Some(0));
            "hello"
        }
        ClientFrame::Ack(seq) => {
            assert_eq!(*seq, number("seq"));
            "ack"
        }
        ClientFrame::Nack(seq, reason) => {
            assert_eq!((*seq, reason.len() <= 256), (number("seq"), true));
            "nack"
        }
        ClientFrame::Ping => "ping",
        ClientFrame::Pong => "pong",
        ClientFrame::Bye => "bye",
    };
    assert_eq!(text("type").as_deref(), Some(kind));
}

/// What is JSON is not called none, but for texts and numbers that JSON allows and nobody can hold.
fn expect_judged(frame: &[u8], code: &str) {
    let judged = judge::json(frame);
    let odd = frame.windows(2).any(|two| two == b"\\u") || frame.iter().any(|byte| b"eE".contains(byte));
    match code {
        "bad_json" => assert!(judged == Json::No || odd, "JSON was called none: {}", frame.escape_ascii()),
        // Also where a field is wrong before it ends to be JSON.
        "bad_frame" => {}
        other => panic!("{other}"),
    }
}

const TEXTS: [&str; 22] = [
    r#"{"type":"hello","client":"01"}"#,
    r#"{"type":"hello","client":"01","token":"t","window":16,"ack":"auto"}"#,
    r#"{"type":"hello","id":"01","client":"01"}"#,
    r#"{"type":"ack","seq":42}"#,
    r#"{"type":"ack","seq":0}"#,
    r#"{"seq":1,"type":"ack"}"#,
    r#"{"type":"ack","seq":18446744073709551615}"#,
    r#"{"type":"ack","seq":9999999999999999999}"#,
    r#"{"type":"nack","seq":43,"reason":"unknown order"}"#,
    r#"{"type":"nack","seq":1}"#,
    r#"{"type":"ping"}"#,
    r#"{"type":"pong"}"#,
    r#"{"type":"bye"}"#,
    r#"{"type":"ping","x":{"a":[1,{"b":null}]},"x":"é"}"#,
    " { \"type\" : \"pong\" } \r",
    r#"{"type":"what"}"#,
    r#"["ack",1]"#,
    "{}",
    "",
    "null",
    r#"{"type":"ack","seq":1,"seq":2}"#,
    r#"{"t\u0079pe":"p\u0069ng"}"#,
];

/// Streams of a few frames each.
fn streams(framing: Framing) -> Vec<Vec<u8>> {
    let wrap = |text: &&str| framing.wrap(text.as_bytes()).expect("it is short");
    let mut streams: Vec<Vec<u8>> = TEXTS.iter().map(wrap).collect();
    streams.extend(TEXTS[..15].windows(4).map(|texts| texts.iter().map(wrap).collect::<Vec<_>>().concat()));
    let long = format!("{{\"type\":\"ping\",\"x\":\"{}\"}}", "x".repeat(60_000));
    streams.push(wrap(&long.as_str()));
    streams.push(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
    streams.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    streams
}

fn try_framing(kind: &str, framing: Framing) {
    let seeds = streams(framing);
    let words: [&[u8]; 18] = [
        b"\n",
        b"\r\n",
        b"\0\x0f{\"type\":\"ping\"}",
        b"\0\0\0\x0f{\"type\":\"ping\"}",
        b"{\"type\":\"ping\"}\n",
        b"\"seq\":2,",
        b"\"type\":\"ack\",",
        b"\"client\":\"02\",",
        b"\"",
        b"{",
        b"}",
        b"null",
        b"\\ud800",
        b"\xff",
        b"\xff\xff",
        b"\0\0",
        b"1e999",
        b"-1",
    ];
    let make = |random: &mut Random| mutated(random, &seeds, &words);
    run(kind, Plan::of(SHORT), make, |input, random| {
        let at_once = listen(framing, input, &mut || usize::MAX / 2);
        let in_pieces = listen(framing, input, &mut || 1 + random.below(if input.len() > 2_000 { 300 } else { 20 }));
        assert_eq!(at_once.heard, in_pieces.heard, "heard otherwise when it comes in pieces");
        assert_eq!(at_once.wrong.is_some(), in_pieces.wrong.is_some(), "{:?} {:?}", at_once.wrong, in_pieces.wrong);
        let expected = frames_in(framing, input);
        assert!(at_once.frames.len() <= expected.len());
        for (frame, expected) in at_once.frames.iter().zip(expected) {
            assert_eq!(frame, expected);
            assert!(frame.len() <= MAX_FRAME_BYTES);
        }
        at_once.frames.iter().zip(&at_once.heard).for_each(|(frame, heard)| expect_said(frame, heard));
        match at_once.wrong {
            Some(code) if at_once.frames.len() > at_once.heard.len() => {
                expect_judged(at_once.frames.last().expect("there is one more"), code);
            }
            Some(code) => assert!(["line_too_long", "bad_frame"].contains(&code), "{code}"),
            None => {}
        }
        at_once.wrong.is_none() && !at_once.heard.is_empty()
    });
}

#[test]
fn lines_say_what_was_heard_or_are_refused() {
    try_framing("lines", Framing::Lines);
}

#[test]
fn frames_behind_two_bytes_say_what_was_heard_or_are_refused() {
    try_framing("lines, as u16be", Framing::U16be);
}

#[test]
fn frames_behind_four_bytes_say_what_was_heard_or_are_refused() {
    try_framing("lines, as u32be", Framing::U32be);
}
