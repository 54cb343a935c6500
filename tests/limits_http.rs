//! Every limit on a request is the README's figure: one below it and as much are taken, one more is refused.

use crate::harness::node::{JSON, envelope};
use crate::harness::{self, Answer, Home, Node, TempDir, http, limit, on_both_inboxes};
use serde_json::Value;

on_both_inboxes!(a_page_of_dead_letters_has_so_many);

/// What is around a limit: whether so much is taken.
fn around(limit: usize) -> [(usize, bool); 3] {
    [(limit - 1, true), (limit, true), (limit + 1, false)]
}

/// Sends bytes of which not all need be read.
fn say(node: &Node, text: &str) -> Answer {
    http::raw(node.http(), text.as_bytes()).only_answer()
}

#[track_caller]
fn expect(answer: Answer, taken: bool, status: u16, code: &str) {
    match taken {
        true => drop(answer.expect(202)),
        false => drop(answer.expect_problem(status, code)),
    }
}

/// A post of one payment with these fields in its head.
fn post(fields: &str) -> String {
    let body = envelope("01", "1", None);
    let length = body.len();
    format!(
        "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n{fields}\r\n{body}"
    )
}

#[test]
fn a_head_has_so_many_bytes_and_fields() {
    let node = Node::start(Home::Embedded);
    let plain = post("").find("\r\n\r\n").expect("its end") + 4;
    for (bytes, taken) in around(limit("head of a request")) {
        let field = format!("X-Pad: {}\r\n", "x".repeat(bytes - plain - "X-Pad: \r\n".len()));
        expect(say(&node, &post(&field)), taken, 431, "head_too_large");
    }
    for (fields, taken) in around(limit("header fields")) {
        // Four are there already.
        let more: String = (0..fields - 4).map(|n| format!("X-{n}: 1\r\n")).collect();
        expect(say(&node, &post(&more)), taken, 431, "head_too_large");
    }
    assert_eq!(node.about("01")["last_seq"], 4);
}

#[test]
fn a_body_has_so_many_bytes_however_it_comes() {
    let node = Node::start(Home::Embedded);
    let body = |bytes: usize| {
        let text = "x".repeat(bytes - envelope("01", "\"\"", None).len());
        envelope("01", &format!("\"{text}\""), None)
    };
    for (bytes, taken) in around(limit("body, or line of a batch")) {
        expect(node.post_body(&body(bytes)), taken, 413, "body_too_large");
        let whole = body(bytes);
        let (first, rest) = whole.split_at(1000);
        let head = "POST /v1/payments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n";
        let chunks = format!("3e8\r\n{first}\r\n{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len());
        expect(say(&node, &format!("{head}\r\n{chunks}")), taken, 413, "body_too_large");
        let line = node.post_batch(&body(bytes)).expect(200).json_lines().remove(0);
        assert_eq!(line["status"] == "accepted", taken, "{line}");
        assert_eq!(line["code"] == "body_too_large", !taken, "{line}");
    }
    assert_eq!(node.about("01")["last_seq"], 6);
}

#[test]
fn what_stands_between_chunks_is_short() {
    let node = Node::start(Home::Embedded);
    let body = envelope("01", "1", None);
    let chunked = |size: &str, trailers: &str| {
        let head = "POST /v1/payments HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        say(&node, &format!("{head}{size}\r\n{body}\r\n0\r\n{trailers}\r\n"))
    };
    for (digits, taken) in around(limit("digits of a chunk's size")) {
        expect(chunked(&format!("{:0digits$x}", body.len()), ""), taken, 400, "bad_request");
    }
    for (bytes, taken) in around(limit("extensions of a chunk")) {
        let extension = format!(";{}", "e".repeat(bytes - 1));
        expect(chunked(&format!("{:x}{extension}", body.len()), ""), taken, 400, "bad_request");
    }
    for (bytes, taken) in around(limit("trailers")) {
        let trailer = format!("A: {}\r\n", "x".repeat(bytes - 3));
        expect(chunked(&format!("{:x}", body.len()), &trailer), taken, 400, "bad_request");
    }
}

#[test]
fn a_batch_has_so_many_bytes() {
    let node = Node::start(Home::Embedded);
    let line = envelope("01", "1", None);
    for (bytes, taken) in around(limit("batch")) {
        // Blank lines are no payments.
        let batch = format!("{line}{}", "\n".repeat(bytes - line.len()));
        let answer = node.post_batch(&batch);
        match taken {
            true => assert_eq!(answer.expect(200).json_lines().len(), 1),
            false => drop(answer.expect_problem(413, "body_too_large")),
        }
    }
    assert_eq!(node.about("01")["last_seq"], 2);
}

#[test]
fn a_batch_has_so_many_lines() {
    let node = Node::start(Home::Embedded);
    for (lines, taken) in around(limit("lines of a batch")) {
        // None of them is a payment, so that nothing is stored either way.
        let answer = node.post_batch(&"{}\n".repeat(lines));
        match taken {
            true => assert_eq!(answer.expect(200).json_lines().len(), lines),
            false => drop(answer.expect_problem(400, "bad_request")),
        }
    }
}

#[test]
fn a_key_is_neither_short_nor_long() {
    let files = TempDir::new();
    let (least, most) = (limit("key or secret, at least"), limit("key or secret"));
    for length in [least, most] {
        let key = "k".repeat(length);
        let node = Node::with(Home::Embedded, &["--api-keys-file", &files.file("keys", &format!("{key}\n"))]);
        let ask = |shown: &str| node.request("GET", "/v1/clients", &[("Authorization", shown)], b"");
        ask(&format!("Bearer {key}")).expect(200);
        ask(&format!("Bearer {key}k")).expect_problem(401, "unauthorized");
        // Far more than a key has is not even looked at.
        ask(&format!("Bearer {}", "k".repeat(limit("`Authorization`")))).expect_problem(401, "unauthorized");
    }
    for length in [least - 1, most + 1] {
        let keys = files.file("keys", &format!("{}\n", "k".repeat(length)));
        for flag in ["--api-keys-file", "--client-secret-file"] {
            let data = files.join("data").to_str().expect("UTF-8").to_owned();
            let args = ["serve", "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--data-dir", &data, flag, &keys];
            let exit = harness::Program::run(&args);
            assert_eq!(exit.code, Some(2), "{flag}, {length} characters: {}", exit.stderr);
        }
    }
}

#[test]
fn waiting_and_expiry_have_their_range() {
    let node = Node::start(Home::Embedded);
    let _client = node.client_with("01", "\"ack\":\"auto\"");
    let (wait, life) = (limit("`?wait`"), limit("`expires_in`"));
    let body = envelope("01", "1", None);
    for (secs, taken) in [(0, false), (1, true), (wait - 1, true), (wait, true), (wait + 1, false)] {
        let answer = node.request("POST", &format!("/v1/payments?wait={secs}"), &[JSON], body.as_bytes());
        match taken {
            true => assert_eq!(answer.expect(200).field("status"), "acknowledged"),
            false => drop(answer.expect_problem(400, "bad_request")),
        }
    }
    for (secs, taken) in [(0, false), (1, true), (life - 1, true), (life, true), (life + 1, false)] {
        let answer = node.post_body(&format!(r#"{{"client":"01","msg":1,"expires_in":{secs}}}"#));
        expect(answer, taken, 400, "bad_request");
    }
}

#[test]
fn a_page_of_clients_has_so_many() {
    let node = Node::start(Home::Embedded);
    let most = limit("page of clients");
    let post = |range: std::ops::RangeInclusive<usize>| {
        let lines: Vec<String> = range.map(|n| envelope(&format!("c{n:06}"), "1", None)).collect();
        node.post_batch(&lines.join("\n")).expect(200);
    };
    let page = || {
        let page = node.get("/v1/clients?pending=true").expect(200).json();
        (page["clients"].as_array().map(Vec::len), page["next"] == Value::Null)
    };
    post(1..=most - 1);
    assert_eq!(page(), (Some(most - 1), true));
    post(most..=most);
    assert_eq!(page(), (Some(most), true));
    post(most + 1..=most + 1);
    assert_eq!(page(), (Some(most), false));
}

fn a_page_of_dead_letters_has_so_many(home: Home) {
    let node = Node::start(home);
    let most = limit("page of dead letters");
    let mut client = node.client("01");
    let mut refuse = |seqs: std::ops::RangeInclusive<usize>| {
        let lines = vec![envelope("01", "1", None); seqs.clone().count()];
        node.post_batch(&lines.join("\n")).expect(200);
        for seq in seqs.clone() {
            client.expect_payment(seq as u64, "1");
            client.send_line(&format!(r#"{{"type":"nack","seq":{seq}}}"#));
        }
        harness::eventually("all are dead", || node.about("01")["dead_letters"] == *seqs.end());
        let page = node.get("/v1/clients/01/dead-letters").expect(200).json();
        (page["dead_letters"].as_array().map(Vec::len), page["next"] == Value::Null)
    };
    assert_eq!(refuse(1..=most - 1), (Some(most - 1), true));
    assert_eq!(refuse(most..=most), (Some(most), true));
    assert_eq!(refuse(most + 1..=most + 1), (Some(most), false));
}
