//! Mutated requests and posts against the decoders, without a socket. What is accepted is judged by rules of its own.

use super::batch::lines_of;
use super::body::Body;
use super::payments::Envelope;
use super::request::{Framing, Head, HeadEnd};
use crate::framing::Framing as Frames;
use crate::hostile::framing;
use crate::hostile::json;
use crate::hostile::judge::{self, Json};
use crate::hostile::mutation::{Plan, Random, mutated, run};
use crate::payment::{Channel, ClientId, Content, Entry, InvalidMessage, Mark, Parcel, Payment, Seq};
use serde_json::value::RawValue;
use std::collections::HashMap;

const SHORT: u64 = 2_000;
/// The strict door's.
const HEAD_LIMIT: usize = 16 << 10;
const BODY_LIMIT: usize = 256 << 10;

/// A request that was read whole.
struct Whole {
    head: Head,
    body: Vec<u8>,
    used: usize,
}

/// Reads a request as the strict door does, as its bytes come in pieces of these sizes; `None` where more has to come.
fn read(input: &[u8], mut piece: impl FnMut() -> usize) -> Result<Option<Whole>, ()> {
    let (mut end, mut come) = (HeadEnd::default(), 0);
    let mut more = || {
        let before = come;
        come = input.len().min(come + piece());
        (before < input.len()).then_some(come)
    };
    let (head, mut used, mut come) = loop {
        let Some(come) = more() else { return Ok(None) };
        if let Some(length) = end.find(&input[..come], HEAD_LIMIT).or(Err(()))? {
            break (Head::parse(&input[..length]).or(Err(()))?, length, come);
        }
    };
    if head.lacks_length() {
        return Err(());
    }
    let mut body = Body::new(head.framing(), BODY_LIMIT).or(Err(()))?;
    loop {
        used += body.take(&input[used..come]).or(Err(()))?;
        if body.is_whole() {
            return Ok(Some(Whole { head, body: body.into_bytes(), used }));
        }
        match more() {
            Some(more) => come = more,
            None => return Ok(None),
        }
    }
}

/// An accepted head is beyond doubt, and so is where its body ends.
fn expect_strict(input: &[u8], whole: &Whole) {
    let strict = judge::head(input).unwrap_or_else(|why| panic!("accepted, and yet: {why}"));
    let behind = &input[strict.head_bytes..];
    let (body, used) = match (&strict.length, whole.head.framing()) {
        (Some(digits), Framing::Length(length)) => {
            assert_eq!(digits.trim_start_matches('0').parse().unwrap_or(0), length);
            let length = usize::try_from(length).expect("it was there whole");
            (behind[..length].to_vec(), length)
        }
        (None, Framing::Chunked) if strict.chunked => judge::dechunked(behind).expect("chunks"),
        (None, Framing::None) if !strict.chunked => (Vec::new(), 0),
        other => panic!("two views of its length: {other:?}"),
    };
    assert_eq!((&whole.body, whole.used), (&body, strict.head_bytes + used));
    assert!(whole.body.capacity() <= 2 * input.len() + 64, "a buffer for what never came");
}

fn look_at_everything(head: &Head) {
    let _ = (head.path_segments(), head.query_pairs().count(), head.keep_alive(), head.expects_continue());
    let text: usize = head.headers().map(|(name, value)| name.len() + value.len()).sum();
    // A byte that is no text becomes three.
    assert!(text + head.path().len() <= 3 * HEAD_LIMIT);
}

#[test]
fn requests_are_beyond_doubt_or_refused() {
    let seeds = by_verdict(framing::cases(), |case| (case.verdict.goes_on, case.bytes));
    let words: [&[u8]; 24] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"Content-Length: 23\r\n",
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Host: y\r\n",
        b"chunked",
        b" ",
        b": ",
        b"0\r\n\r\n",
        b"17\r\n",
        b"5;a=b\r\n",
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"GET / ",
        b"POST /v1/payments ",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"\0",
        b"%00",
        b"\xff",
    ];
    let make = |random: &mut Random| nearly(random, &seeds, &words);
    run("requests", Plan::of(SHORT), make, |input, random| {
        let at_once = read(input, || usize::MAX / 2);
        let in_pieces = read(input, || 1 + random.below(if input.len() > 2_000 { 3_000 } else { 40 }));
        let shape = |read: &Result<Option<Whole>, ()>| {
            read.as_ref().map(|whole| whole.as_ref().map(|whole| (whole.body.clone(), whole.used))).copied_err()
        };
        assert_eq!(shape(&at_once), shape(&in_pieces), "read otherwise when it comes in pieces");
        let Ok(Some(whole)) = at_once else { return false };
        expect_strict(input, &whole);
        look_at_everything(&whole.head);
        true
    });
}

trait CopiedErr<T> {
    fn copied_err(self) -> Result<T, ()>;
}

impl<T> CopiedErr<T> for Result<T, &()> {
    fn copied_err(self) -> Result<T, ()> {
        self.or(Err(()))
    }
}

/// The line that a client gets.
fn line_of(payment: &Payment) -> Vec<u8> {
    let stored = Parcel::parse(payment.parcel.as_bytes()).expect("what was made can be read");
    let mut frame = Vec::new();
    Entry { mark: Mark { seq: Seq(7), accepted_at: 9 }, expires_at: 0, parcel: stored }.write_frame(&mut frame);
    let line = Frames::Lines.wrap(&frame).expect("lines have no limit");
    assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1, "one line feed, at its end");
    assert!(!line.contains(&b'\r'));
    // A message of 64 levels makes a line of 65.
    assert!(matches!(judge::json(&frame), Json::Valid | Json::TooDeep), "{}", frame.escape_ascii());
    line
}

/// The line that an envelope must become, put together without a word of the program's.
fn line_for(envelope: &str) -> String {
    let fields: HashMap<String, &RawValue> = serde_json::from_str(envelope).expect("it was accepted");
    let text = |name: &str| {
        fields.get(name).and_then(|raw| serde_json::from_str::<Option<String>>(raw.get()).expect("a text"))
    };
    let channel = text("channel").unwrap_or_else(|| "payments".into());
    let id = text("payment_id").map(|id| format!(",\"payment_id\":\"{id}\"")).unwrap_or_default();
    let msg = judge::delivered(fields["msg"].get());
    format!("{{\"type\":\"payment\",\"seq\":7,\"channel\":\"{channel}\"{id},\"accepted_at\":9,\"msg\":{msg}}}\n")
}

/// Whether an envelope is accepted; it is judged whether that is right.
fn take_envelope(text: &[u8]) -> bool {
    let judged = judge::json(text);
    match Envelope::parse(text).and_then(|envelope| envelope.payment(None)) {
        Ok(payment) => {
            assert_ne!(judged, Json::No, "what is no JSON was accepted");
            let text = std::str::from_utf8(text).expect("JSON is");
            let line = line_of(&payment);
            assert_eq!(String::from_utf8_lossy(&line), line_for(text));
            assert!(line.len() <= 6 * text.len() + 4096);
            true
        }
        Err(problem) => {
            assert_eq!(problem.status(), 400);
            // What has to be a text or a number of ours may be none, though JSON allows it.
            let is_ours_to_refuse =
                text.windows(2).any(|two| two == b"\\u") || text.iter().any(|byte| b"eE".contains(byte));
            assert!(problem.code() != "bad_json" || judged == Json::No || is_ours_to_refuse, "JSON was called none");
            false
        }
    }
}

/// A body that must be JSON.
fn take_json(body: &[u8]) -> bool {
    let judged = judge::json(body);
    match Content::json_text(body) {
        Ok(content) => {
            assert_eq!(judged, Json::Valid);
            let msg = judge::delivered(std::str::from_utf8(body).expect("JSON is"));
            assert_eq!(String::from_utf8_lossy(content.as_bytes()), format!("\"msg\":{msg}"));
            true
        }
        Err(InvalidMessage::Json(_)) => {
            assert_eq!(judged, Json::No);
            false
        }
        // Which is found first is not said.
        Err(InvalidMessage::TooDeep | InvalidMessage::NumberTooLong) => {
            assert!(matches!(judged, Json::TooDeep | Json::LongNumber), "{judged:?}");
            false
        }
    }
}

/// A body of any other kind: always a payment, and given back byte for byte.
fn take_body(body: &[u8]) {
    let client = ClientId::parse("01").expect("valid");
    let kind = String::from_utf8_lossy(&body[..body.len().min(40)]);
    let payment = Payment::new(client, None, &Channel::default(), &Content::body(body, &kind));
    let line = line_of(&payment);
    assert!(line.len() <= 6 * body.len() + 4096);
    let fields: HashMap<String, serde_json::Value> = serde_json::from_slice(&line).expect("JSON");
    assert_eq!(fields["content_type"], *kind);
    let text = |name: &str| fields.get(name).and_then(serde_json::Value::as_str);
    match (text("msg"), text("msg_base64")) {
        (Some(text), None) => assert_eq!(text.as_bytes(), body),
        (None, Some(base64)) => assert_eq!(data_encoding::BASE64.decode(base64.as_bytes()).as_deref(), Ok(body)),
        other => panic!("{other:?}"),
    }
}

const WORDS: [&[u8]; 22] = [
    b"\"client\":\"02\"",
    b"\"msg\":",
    b",\"msg\":2",
    b"\"payment_id\":\"a\",",
    b"\"channel\":\"c\",",
    b"\"expires_in\":1,",
    b"null",
    b"1e999",
    b"\\u0000",
    b"\\ud800",
    b"\n",
    b"\r\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\xff",
    b"\xef\xbb\xbf",
    b",",
    b":",
];

/// What is taken as it is, and what is not.
type Seeds = (Vec<Vec<u8>>, Vec<Vec<u8>>);

/// Two in three were good before they were changed.
fn nearly(random: &mut Random, (good, bad): &Seeds, words: &[&[u8]]) -> Vec<u8> {
    let seeds = if random.one_in(3) { bad } else { good };
    mutated(random, seeds, words)
}

/// Cases by what becomes of them; large ones are left out.
fn by_verdict<T>(cases: Vec<T>, split: impl Fn(T) -> (bool, Vec<u8>)) -> Seeds {
    let small = cases.into_iter().map(split).filter(|(_, text)| text.len() < 20_000);
    let (good, bad): (Vec<_>, Vec<_>) = small.partition(|(taken, _)| *taken);
    let texts = |cases: Vec<(bool, Vec<u8>)>| cases.into_iter().map(|(_, text)| text).collect();
    (texts(good), texts(bad))
}

fn messages() -> Seeds {
    by_verdict(json::messages(), |case| (case.verdict == Json::Valid, case.text))
}

fn envelopes() -> Seeds {
    let wrap = |msgs: Vec<Vec<u8>>| {
        msgs.into_iter().map(|msg| [b"{\"client\":\"01\",\"msg\":", msg.as_slice(), b"}"].concat())
    };
    let (mut good, mut bad) = by_verdict(json::posts(), |(text, code)| (code.is_empty(), text));
    let (good_msgs, bad_msgs) = messages();
    good.extend(wrap(good_msgs));
    bad.extend(wrap(bad_msgs));
    (good, bad)
}

#[test]
fn posts_arrive_as_they_were_sent_or_are_refused() {
    let seeds = envelopes();
    let make = |random: &mut Random| nearly(random, &seeds, &WORDS);
    run("posts, one payment", Plan::of(SHORT), make, |input, _| take_envelope(input));
}

#[test]
fn raw_posts_arrive_as_they_were_sent_or_are_refused() {
    let seeds = messages();
    let make = |random: &mut Random| nearly(random, &seeds, &WORDS);
    run("posts, raw", Plan::of(SHORT), make, |input, _| {
        take_body(input);
        take_json(input)
    });
}

#[test]
fn batches_arrive_line_by_line_or_are_refused() {
    let (good, bad) = envelopes();
    let mixed: Vec<_> =
        good.iter().zip(bad.iter().cycle()).flat_map(|(good, bad)| [good.clone(), bad.clone()]).collect();
    let seeds: Vec<_> = mixed.chunks(5).map(|lines| lines.join(&b"\n"[..])).collect();
    let make = |random: &mut Random| mutated(random, &seeds, &WORDS);
    run("posts, batches", Plan::of(SHORT), make, |input, _| {
        let blank = |line: &&[u8]| line.iter().all(|byte| b" \t\r\x0c".contains(byte));
        let expected: Vec<_> = input.split(|&byte| byte == b'\n').filter(|line| !blank(line)).collect();
        let Ok(lines) = lines_of(input) else {
            assert!(expected.is_empty() || expected.len() > 10_000);
            return false;
        };
        assert_eq!(lines.len(), expected.len());
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(*line, expected.strip_suffix(b"\r").unwrap_or(expected));
        }
        lines.into_iter().map(take_envelope).fold(false, |any, taken| any | taken)
    });
}
