//! What is JSON arrives as it was sent, what is not is refused, and what JSON leaves open is decided once, for all ways in.

use std::time::Instant;

use crate::harness::{self, Answer, Client, Home, Http, Node};
use crate::hostile::judge::{self, Json, delivered};
use crate::hostile::{json, mutation};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// Posts a body, and fails if the answer takes too long.
#[track_caller]
fn post(http: &mut Http, path: &str, body: &[u8]) -> Answer {
    let begun = Instant::now();
    let answer = http.send("POST", path, &[JSON], body);
    assert!(begun.elapsed() < mutation::LIMIT, "{}", body.escape_ascii());
    answer
}

/// The answer's status and code.
fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, answer.field("code"))
}

fn expected(verdict: Json) -> (u16, String) {
    match verdict {
        Json::Valid => (202, String::new()),
        Json::No => (400, "bad_json".into()),
        Json::TooDeep | Json::LongNumber => (400, "bad_request".into()),
    }
}

/// The next payment, acknowledged, has this message, byte for byte.
#[track_caller]
fn expect_delivered(client: &mut Client, msg: &str) {
    let payment = client.expect_any_payment();
    assert_eq!(payment.msg.as_deref(), Some(msg));
    client.ack(payment.seq);
}

#[test]
fn the_verdicts_are_those_of_the_grammar() {
    let messages = json::messages();
    println!("{} messages, {} posts", messages.len(), json::posts().len());
    assert!(messages.len() >= 300, "{}", messages.len());
    for case in messages {
        let shown = case.text[..case.text.len().min(200)].escape_ascii();
        assert_eq!(judge::json(&case.text), case.verdict, "{shown}");
    }
}

#[test]
fn a_message_is_judged_alike_in_an_envelope_and_alone() {
    let node = Node::start(Home::Embedded);
    let (mut client, mut http) = (node.client("01"), node.http_client());
    let mut wrong = Vec::new();
    for case in json::messages() {
        let envelope = [b"{\"client\":\"01\",\"msg\":", case.text.as_slice(), b"}"].concat();
        for (path, body) in [("/v1/payments", &envelope), ("/v1/clients/01/payments", &case.text)] {
            let answer = post(&mut http, path, body);
            if outcome(&answer) != expected(case.verdict) {
                let shown = body[..body.len().min(200)].escape_ascii();
                wrong.push(format!("{path}: {shown}: {:?}: {}", case.verdict, answer.show()));
            }
            if answer.status == 202 {
                let text = String::from_utf8_lossy(&case.text);
                expect_delivered(&mut client, &delivered(&text));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    client.expect_nothing_but_pings(harness::QUIET);
}

#[test]
fn a_message_is_judged_alike_in_a_batch() {
    let node = Node::start(Home::Embedded);
    let mut client = node.client("01");
    // A line break would end its line.
    let fits = |case: &json::Case| !case.text.contains(&b'\n');
    let cases: Vec<_> = json::messages().into_iter().filter(fits).collect();
    let mut batch = Vec::new();
    for case in &cases {
        batch.extend([b"{\"client\":\"01\",\"msg\":", case.text.as_slice(), b"}\n"].concat());
    }
    let mut http = node.http_client();
    let answer = http.send("POST", "/v1/payments", &[("Content-Type", "application/x-ndjson")], &batch).expect(200);
    let lines = answer.json_lines();
    assert_eq!(lines.len(), cases.len());
    let mut taken: Vec<_> = Vec::new();
    for (line, case) in lines.iter().zip(&cases) {
        let shown = || format!("{}: {line}", case.text[..case.text.len().min(200)].escape_ascii());
        assert_eq!(line["code"].as_str().unwrap_or_default(), expected(case.verdict).1, "{}", shown());
        if case.verdict == Json::Valid {
            assert_eq!(line["status"], "accepted", "{}", shown());
            taken.push(delivered(&String::from_utf8_lossy(&case.text)));
        }
    }
    for msg in taken {
        expect_delivered(&mut client, &msg);
    }
    client.expect_nothing_but_pings(harness::QUIET);
}

#[test]
fn an_envelope_is_one_object_of_known_fields_each_once() {
    let node = Node::start(Home::Embedded);
    let (mut http, mut wrong, mut stored) = (node.http_client(), Vec::new(), 0);
    for (body, code) in json::posts() {
        let answer = post(&mut http, "/v1/payments", &body);
        let status = if code.is_empty() { 202 } else { 400 };
        stored += u64::from(answer.status == 202);
        if outcome(&answer) != (status, code.to_owned()) {
            wrong.push(format!("{}: {code:?}: {}", body.escape_ascii(), answer.show()));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(node.about("01")["last_seq"], stored);
    let all = node.get("/v1/clients?pending=true").expect(200).json();
    assert_eq!(all["clients"].as_array().map(Vec::len), Some(1), "nothing is stored for anybody else: {all}");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}
