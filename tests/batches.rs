//! A batch: one payment a line, one result line each, in the same order; a bad line harms no other.

use crate::harness::node::envelope;
use crate::harness::{self, Answer, Home, Node, on_both_inboxes};
use serde_json::{Value, json};

on_both_inboxes!(
    every_line_has_its_answer_in_order,
    a_bad_line_harms_no_other,
    line_ends_of_all_kinds,
    a_repeat_within_a_batch_is_stored_once,
    a_batch_goes_to_several_clients,
    the_body_limit_counts_for_a_line,
    ten_thousand_lines_and_no_more,
    eight_mebibytes_and_no_more,
    a_batch_may_be_sent_again,
    of_a_batch_that_is_cut_off_nothing_is_stored,
    a_batch_whose_answer_is_lost_may_be_sent_again,
);

#[track_caller]
fn lines_of(answer: Answer) -> Vec<Value> {
    let answer = answer.expect(200);
    let kind = answer.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("application/x-ndjson"), "{}", answer.show());
    answer.json_lines()
}

#[track_caller]
fn expect_code(line: &Value, code: &str) {
    assert_eq!(line["code"], code, "{line}");
    assert!(line["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{line}");
    assert!(line["seq"].is_null(), "{line}");
}

fn every_line_has_its_answer_in_order(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    let batch: String = (1..=500).map(|n| envelope("01", &n.to_string(), Some(&format!("wx-{n}"))) + "\n").collect();
    let answers = lines_of(node.post_batch(&batch));
    assert_eq!(answers.len(), 500);
    for (n, answer) in (1..).zip(&answers) {
        let expected =
            json!({"status": "accepted", "client": "01", "seq": n, "payment_id": format!("wx-{n}"), "online": true});
        assert_eq!(*answer, expected);
    }
    for n in 1..=500 {
        client.expect_payment(n, &n.to_string());
        if n % 100 == 0 {
            client.ack(n);
        }
    }
    node.expect_acknowledged("01", 500);
}

fn a_bad_line_harms_no_other(home: Home) {
    let node = Node::start(home);
    let batch = [
        r#"{"client":"01","msg":1}"#,
        r#"{"client":"01","msg":"#,
        r#"{"client":"01","msg":2}"#,
        r#"{"client":"a b","msg":3}"#,
        r#"{"client":"01","msg":4,"channel":"NO"}"#,
        r#"{"client":"01","msg":5,"payment_id":"no no"}"#,
        r#"{"client":"01"}"#,
        r#"[1]"#,
        r#"{"client":"01","msg":6,"expires_in":0}"#,
        r#"{"client":"01","msg":7}"#,
    ];
    let answers = lines_of(node.post_batch(&batch.join("\n")));
    assert_eq!(answers.len(), batch.len());
    for (line, seq) in [(0, 1), (2, 2), (9, 3)] {
        assert_eq!(answers[line]["status"], "accepted", "{}", answers[line]);
        assert_eq!(answers[line]["seq"], seq, "{}", answers[line]);
    }
    // Where all are bad it is no failure of the store.
    let all_bad = lines_of(node.post_batch(&batch[3..9].join("\n")));
    assert_eq!(all_bad, answers[3..9]);
    expect_code(&answers[1], "bad_json");
    expect_code(&answers[3], "invalid_client_id");
    expect_code(&answers[4], "invalid_channel");
    expect_code(&answers[5], "invalid_payment_id");
    for line in [6, 7, 8] {
        let code = answers[line]["code"].as_str().unwrap_or_default().to_owned();
        expect_code(&answers[line], &code);
        assert!(["bad_request", "bad_json"].contains(&code.as_str()), "{}", answers[line]);
    }
    let mut client = node.client("01");
    client.expect_payment(1, "1");
    client.expect_payment(2, "2");
    client.expect_payment(3, "7");
    client.expect_nothing_but_pings(harness::QUIET);
}

fn line_ends_of_all_kinds(home: Home) {
    let node = Node::start(home);
    let one = |n: u32| envelope("01", &n.to_string(), None);
    let crlf = lines_of(node.post_batch(&format!("{}\r\n{}\r\n", one(1), one(2))));
    assert_eq!(crlf.len(), 2);
    let no_last = lines_of(node.post_batch(&format!("{}\n{}", one(3), one(4))));
    assert_eq!(no_last.len(), 2);
    // A blank line is no payment.
    let blank = lines_of(node.post_batch(&format!("{}\n\n{}\n", one(5), one(6))));
    let accepted = blank.iter().filter(|line| line["status"] == "accepted").count();
    assert_eq!(accepted, 2, "{blank:?}");
    let mut client = node.client("01");
    for n in 1..=6 {
        client.expect_payment(n, &n.to_string());
    }
}

fn a_repeat_within_a_batch_is_stored_once(home: Home) {
    let node = Node::start(home);
    let lines = [
        envelope("01", "1", Some("a")),
        envelope("01", "2", Some("b")),
        envelope("01", "1", Some("a")),
        envelope("01", "3", Some("b")),
    ];
    let answers = lines_of(node.post_batch(&lines.join("\n")));
    assert_eq!(answers.len(), 4);
    assert_eq!((&answers[0]["seq"], &answers[1]["seq"]), (&json!(1), &json!(2)));
    assert_eq!(answers[2]["duplicate"], true, "{}", answers[2]);
    assert_eq!(answers[2]["seq"], 1, "{}", answers[2]);
    expect_code(&answers[3], "payment_id_reused");
    let mut client = node.client("01");
    client.expect_payment(1, "1");
    client.expect_payment(2, "2");
    client.expect_nothing_but_pings(harness::QUIET);
}

fn a_batch_goes_to_several_clients(home: Home) {
    let node = Node::start(home);
    let mut clients: Vec<_> = (0..5).map(|n| node.client(&format!("c{n}"))).collect();
    let batch: String = (0..50).map(|n| envelope(&format!("c{}", n % 5), &n.to_string(), None) + "\n").collect();
    let answers = lines_of(node.post_batch(&batch));
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer["client"], format!("c{}", n % 5));
        assert_eq!(answer["seq"], n / 5 + 1);
    }
    for (id, client) in clients.iter_mut().enumerate() {
        for turn in 0..10 {
            client.expect_payment(turn + 1, &(turn * 5 + id as u64).to_string());
        }
    }
}

fn the_body_limit_counts_for_a_line(home: Home) {
    let node = Node::with(home, &["--body-limit", "1000"]);
    let long = envelope("01", &format!("\"{}\"", "x".repeat(1000)), None);
    let full = envelope("01", &format!("\"{}\"", "x".repeat(1000 - envelope("01", "\"\"", None).len())), None);
    assert_eq!(full.len(), 1000);
    let answers = lines_of(node.post_batch(&[full.as_str(), &long, &full].join("\n")));
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0]["seq"], 1, "{}", answers[0]);
    expect_code(&answers[1], "body_too_large");
    assert_eq!(answers[2]["seq"], 2, "{}", answers[2]);
}

fn ten_thousand_lines_and_no_more(home: Home) {
    let node = Node::start(home);
    let line = envelope("01", "1", None) + "\n";
    let answer = node.post_batch(&line.repeat(10_001));
    assert!(matches!(answer.status, 400 | 413), "{}", answer.show());
    node.expect_unknown("01");

    let answers = lines_of(node.post_batch(&line.repeat(10_000)));
    assert_eq!(answers.len(), 10_000);
    assert!((1..).zip(&answers).all(|(n, answer)| answer["seq"] == n), "in order");
    assert_eq!(node.about("01")["last_seq"], 10_000);
}

fn eight_mebibytes_and_no_more(home: Home) {
    let node = Node::start(home);
    let line = envelope("01", &format!("\"{}\"", "x".repeat(200_000)), None) + "\n";
    let answer = node.post_batch(&line.repeat(43));
    assert!(matches!(answer.status, 400 | 413), "{} bytes: {}", line.len() * 43, answer.show());
    node.expect_unknown("01");
    let answers = lines_of(node.post_batch(&line.repeat(41)));
    assert!(answers.iter().all(|answer| answer["status"] == "accepted"));
    assert_eq!(answers.len(), 41);
}

fn a_batch_may_be_sent_again(home: Home) {
    let node = Node::start(home);
    let batch: String = (1..=20).map(|n| envelope("01", &n.to_string(), Some(&format!("wx-{n}"))) + "\n").collect();
    let first = lines_of(node.post_batch(&batch));
    let second = lines_of(node.post_batch(&batch));
    for (first, second) in first.iter().zip(&second) {
        assert_eq!(first["seq"], second["seq"]);
        assert_eq!(second["duplicate"], true, "{second}");
    }
    assert_eq!(node.about("01")["last_seq"], 20);
}

/// What goes over the wire for a batch, whole or as one chunk after another.
fn request(batch: &str, chunked: bool) -> Vec<u8> {
    let head = "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n";
    if !chunked {
        return format!("{head}Content-Length: {}\r\n\r\n{batch}", batch.len()).into_bytes();
    }
    let chunks = batch.split_inclusive('\n').map(|line| format!("{:x}\r\n{line}\r\n", line.len()));
    format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks.collect::<String>()).into_bytes()
}

fn of_a_batch_that_is_cut_off_nothing_is_stored(home: Home) {
    let node = Node::start(home);
    let batch: String = (1..=100).map(|n| envelope("01", &n.to_string(), None) + "\n").collect();
    for chunked in [false, true] {
        let request = request(&batch, chunked);
        let half = request.len() / 2;
        let line_end = request[half..].iter().position(|&byte| byte == b'\n').expect("more lines");
        let middle = half + line_end + 1;
        // At the end of a line, in the midst of one, and short of the last byte.
        for cut in [middle, middle + 7, request.len() - 1] {
            let mut reset = node.http_client();
            reset.write(&request[..cut]);
            reset.reset();
            // The other end may as well just say no more, and wait for an answer.
            let mut silent = node.http_client();
            silent.write(&request[..cut]);
            silent.half_close();
            assert!(silent.try_answer(false).is_ok_and(|answer| answer.status == 400) || silent.is_closed());
        }
    }
    // Whoever comes after them finds nothing of them.
    assert_eq!(node.accept("01", "0"), 1);
    let mut client = node.client("01");
    client.expect_payment(1, "0");
    client.expect_nothing_but_pings(harness::QUIET);
    assert_eq!(node.about("01")["last_seq"], 1);
}

fn a_batch_whose_answer_is_lost_may_be_sent_again(home: Home) {
    let node = Node::start(home);
    for round in 0..10 {
        let client = format!("c{round}");
        let line = |n: u32| envelope(&client, &n.to_string(), Some(&format!("wx-{n}"))) + "\n";
        let batch: String = (1..=50).map(line).collect();
        let mut http = node.http_client();
        http.write(&request(&batch, round % 2 == 1));
        http.reset();
        // It may be under way still, or not have been taken at all: each payment is there once, in its place.
        let answers = lines_of(node.post_batch(&batch));
        let expected: Vec<u64> = (1..=50).collect();
        let seqs: Vec<u64> = answers.iter().map(|answer| answer["seq"].as_u64().unwrap_or(0)).collect();
        assert_eq!(seqs, expected, "{answers:?}");
        let again = lines_of(node.post_batch(&batch));
        assert!(again.iter().all(|answer| answer["duplicate"] == true), "{again:?}");
        assert_eq!(node.about(&client)["last_seq"], 50);
    }
}

#[test]
fn a_batch_of_which_nothing_was_stored_is_a_503() {
    let node = Node::start(Home::Redis);
    node.redis().kill();
    let batch: String = (1..=3).map(|n| envelope("01", &n.to_string(), Some(&format!("wx-{n}"))) + "\n").collect();
    let answer = node.post_batch(&batch).expect_any_problem(503);
    assert!(answer.header("Retry-After").is_some(), "{}", answer.show());
}
