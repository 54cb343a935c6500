//! A request whose end is in doubt is refused, stores nothing and ends its connection; one that is beyond doubt is read.

use std::time::{Duration, Instant};

use crate::harness::node::envelope;
use crate::harness::{self, Home, Node, http};
use crate::hostile::framing::{Case, cases};

/// What follows each request. Where that is the last one, this must never be seen.
fn follower() -> String {
    let body = envelope("follower", "1", None);
    format!(
        "POST /v1/payments HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// How many payments a client was ever sent.
fn stored(node: &Node, client: &str) -> u64 {
    let answer = node.get(&format!("/v1/clients/{client}"));
    if answer.status == 404 { 0 } else { answer.json()["last_seq"].as_u64().expect("a number") }
}

/// What is wrong with what became of it, if anything is.
fn judge(node: &Node, case: &Case, before: (u64, u64)) -> Result<(u64, u64), String> {
    let verdict = case.verdict;
    let begun = Instant::now();
    let raw = match verdict.waits {
        true => http::raw_half_closed(node.http(), &case.bytes),
        false => http::raw(node.http(), &[&case.bytes, follower().as_bytes()].concat()),
    };
    let took = begun.elapsed();
    let answers = raw.answers();
    let shown = || answers.iter().map(harness::Answer::show).collect::<Vec<_>>().join("\n");
    if !raw.closed || took > Duration::from_secs(5) {
        return Err(format!("not closed, but after {took:?}: {}", shown()));
    }
    let first = answers.first().ok_or("no answer")?;
    if first.status != verdict.status || (!verdict.code.is_empty() && first.field("code") != verdict.code) {
        return Err(shown());
    }
    if answers.len() != 1 + usize::from(verdict.goes_on) {
        return Err(format!("{} answers: {}", answers.len(), shown()));
    }
    let now = (stored(node, "01"), stored(node, "follower"));
    let expected = (before.0 + u64::from(verdict.stored), before.1 + u64::from(verdict.goes_on));
    if now == expected { Ok(now) } else { Err(format!("stored are {now:?} and not {expected:?}: {}", shown())) }
}

#[test]
fn a_request_is_read_as_it_was_meant_or_not_at_all() {
    let node = Node::start(Home::Embedded);
    let (cases, mut counts, mut wrong) = (cases(), (0, 0), Vec::new());
    assert!(cases.len() >= 400, "{}", cases.len());
    for case in &cases {
        match judge(&node, case, counts) {
            Ok(now) => counts = now,
            Err(why) => {
                wrong.push(format!("{}\n  {:?}\n  {why}", case.name, case.verdict));
                counts = (stored(&node, "01"), stored(&node, "follower"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    println!("{} cases", cases.len());
    assert!(!node.log().contains("panicked"), "{}", node.log());
    node.accept("01", "1");
}
