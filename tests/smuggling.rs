//! A request whose length is in doubt is refused and the connection closed: what follows it is never read as a request.

use crate::harness::node::envelope;
use crate::harness::{Home, Node, http};

/// A request that nobody sent, hidden behind another: it must never be stored.
fn hidden() -> String {
    let body = envelope("evil", "1", None);
    format!(
        "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a head with these lines, then a body of `good`, then the hidden request; expects one refusal and the end.
#[track_caller]
fn expect_refused(node: &Node, lines: &str, body: &str) -> u16 {
    let head = format!("POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{lines}\r\n");
    expect_bytes_refused(node, format!("{head}{body}{}", hidden()).as_bytes())
}

#[track_caller]
fn expect_bytes_refused(node: &Node, bytes: &[u8]) -> u16 {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    let raw = http::raw(node.http(), bytes);
    assert!(raw.closed, "not closed after: {shown}\n{}", String::from_utf8_lossy(&raw.bytes));
    let answer = raw.only_answer();
    assert!((400..600).contains(&answer.status), "{shown}\n{}", answer.show());
    node.expect_unknown("evil");
    node.expect_unknown("01");
    answer.status
}

#[track_caller]
fn expect_all_400(node: &Node, cases: &[(&str, &str)]) {
    for (lines, body) in cases {
        let status = expect_refused(node, lines, body);
        assert_eq!(status, 400, "{lines:?}");
    }
    expect_served(node);
}

/// It still does what it is there for.
#[track_caller]
fn expect_served(node: &Node) {
    node.get("/healthz").expect(200);
    let before = node.get("/v1/clients/good").json()["last_seq"].as_u64().unwrap_or(0);
    assert_eq!(node.accept("good", "1"), before + 1);
}

const GOOD: &str = r#"{"client":"01","msg":1}"#;

#[test]
fn a_monstrous_length_neither_kills_nor_blocks() {
    let node = Node::start(Home::Embedded);
    for length in
        ["40000000000", "100000000000000", "9223372036854775807", "9223372036854775808", "18446744073709551615"]
    {
        let status = expect_refused(&node, &format!("Content-Length: {length}\r\n"), "");
        assert!(matches!(status, 400 | 413), "{length}: {status}");
    }
    for length in ["18446744073709551616", "99999999999999999999999999999999"] {
        let status = expect_refused(&node, &format!("Content-Length: {length}\r\n"), "");
        assert!(matches!(status, 400 | 413), "{length}: {status}");
    }
    expect_served(&node);
}

#[test]
fn a_half_sent_body_that_ends_stores_nothing() {
    let node = Node::start(Home::Embedded);
    let head = "POST /v1/payments HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
    let raw = http::raw_half_closed(node.http(), format!("{head}{GOOD}").as_bytes());
    assert!(raw.closed);
    assert!(raw.answers().iter().all(|answer| answer.status >= 400), "{}", String::from_utf8_lossy(&raw.bytes));
    node.expect_unknown("01");
    expect_served(&node);
}

#[test]
fn other_versions_of_http_are_refused() {
    let node = Node::start(Home::Embedded);
    for version in ["HTTP/2.0", "HTTP/0.9", "HTTP/3", "http/1.1", "HTTP/1", "HTTP/11", "HTPP/1.1"] {
        let request = format!("GET /healthz {version}\r\nHost: x\r\n\r\n{}", hidden());
        let status = expect_bytes_refused(&node, request.as_bytes());
        assert!(matches!(status, 400 | 505), "{version}: {status}");
    }
    expect_served(&node);
}

#[test]
fn doubtful_lengths_are_refused() {
    let node = Node::start(Home::Embedded);
    let length = GOOD.len();
    let own = |value: &str| format!("Content-Length: {value}\r\n");
    let cases = [
        own("abc"),
        own("-5"),
        own(&format!("+{length}")),
        own(&format!("{length}, {length}")),
        own(&format!("{length}x")),
        own(&format!("{length} 0")),
        own(&format!("{length}.0")),
        own("0x17"),
        own(""),
        own("1e1"),
        format!("{}{}", own(&length.to_string()), own("5")),
        format!("{}{}", own("5"), own(&length.to_string())),
        format!("{}{}", own(&length.to_string()), own(&length.to_string())),
        format!("{}content-length: 0\r\n", own(&length.to_string())),
    ];
    let cases: Vec<_> = cases.iter().map(|lines| (lines.as_str(), GOOD)).collect();
    expect_all_400(&node, &cases);
}

#[test]
fn doubtful_transfer_encodings_are_refused() {
    let node = Node::start(Home::Embedded);
    let chunked = format!("{:x}\r\n{GOOD}\r\n0\r\n\r\n", GOOD.len());
    let length = format!("Content-Length: {}\r\n", GOOD.len());
    let cases = [
        format!("Transfer-Encoding: chunked\r\n{length}"),
        format!("{length}Transfer-Encoding: chunked\r\n"),
        format!("{length}Transfer-Encoding: identity\r\n"),
        format!("{length}transfer-encoding: xchunked\r\n"),
    ];
    for lines in &cases {
        assert_eq!(expect_refused(&node, lines, GOOD), 400, "{lines}");
        assert_eq!(expect_refused(&node, lines, &chunked), 400, "{lines}");
    }
    let codings = [
        "identity",
        "xchunked",
        "chunked, chunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked;a=b",
        "\"chunked\"",
        "",
        "chunked,",
        "chun ked",
    ];
    for coding in codings {
        let status = expect_refused(&node, &format!("Transfer-Encoding: {coding}\r\n"), &chunked);
        assert!(matches!(status, 400 | 501), "{coding:?}: {status}");
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    let hidden_twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n";
    for lines in [twice, hidden_twice] {
        let status = expect_refused(&node, lines, &chunked);
        assert!(matches!(status, 400 | 501), "{lines:?}: {status}");
    }
    let old = format!(
        "POST /v1/payments HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}{}",
        hidden()
    );
    assert_eq!(expect_bytes_refused(&node, old.as_bytes()), 400);
    expect_served(&node);
}

#[test]
fn doubtful_chunks_are_refused() {
    let node = Node::start(Home::Embedded);
    let size = GOOD.len();
    let chunks = [
        format!("zz\r\n{GOOD}\r\n0\r\n\r\n"),
        format!("-{size:x}\r\n{GOOD}\r\n0\r\n\r\n"),
        format!("+{size:x}\r\n{GOOD}\r\n0\r\n\r\n"),
        format!("0x{size:x}\r\n{GOOD}\r\n0\r\n\r\n"),
        format!("\r\n{GOOD}\r\n0\r\n\r\n"),
        format!("{size:x}\r\n{GOOD}0\r\n\r\n"),
        format!("{size:x}\r\n{GOOD}XX0\r\n\r\n"),
        format!("{:x}\r\n{GOOD}\r\n0\r\n\r\n", size - 1),
        format!("FFFFFFFFFFFFFFFFF\r\n{GOOD}\r\n0\r\n\r\n"),
        format!("{size:x} {size:x}\r\n{GOOD}\r\n0\r\n\r\n"),
    ];
    for body in chunks {
        let status = expect_refused(&node, "Transfer-Encoding: chunked\r\n", &body);
        assert!(matches!(status, 400 | 413), "{body:?}: {status}");
    }
    for huge in ["FFFFFFFFFFFFFFFF", "7FFFFFFFFFFFFFFF", "FFFFFFFF", "1000000"] {
        let status = expect_refused(&node, "Transfer-Encoding: chunked\r\n", &format!("{huge}\r\n{GOOD}"));
        assert!(matches!(status, 400 | 413), "{huge}: {status}");
    }
    expect_served(&node);
}

#[test]
fn doubtful_header_lines_are_refused() {
    let node = Node::start(Home::Embedded);
    let length = format!("Content-Length: {}\r\n", GOOD.len());
    let cases = [
        format!("{length}Content-Length : 0\r\n"),
        format!("{length}Transfer-Encoding : chunked\r\n"),
        format!("{length}X: a\r\n Transfer-Encoding: chunked\r\n"),
        format!("{length}X: a\r\n\tb\r\n"),
        format!(" {length}"),
        format!("{length}X: a\0b\r\n"),
        format!("{length}X: a\rTransfer-Encoding: chunked\r\n"),
        format!("{length}no colon\r\n"),
        format!("{length}: empty name\r\n"),
        format!("{length}X(): 1\r\n"),
        format!("{length}X\u{e4}: 1\r\n"),
        format!("{length}Host: y\r\n"),
    ];
    let cases: Vec<_> = cases.iter().map(|lines| (lines.as_str(), GOOD)).collect();
    expect_all_400(&node, &cases);

    let no_host = format!("GET /healthz HTTP/1.1\r\n\r\n{}", hidden());
    assert_eq!(expect_bytes_refused(&node, no_host.as_bytes()), 400);
}

#[test]
fn doubtful_request_lines_are_refused() {
    let node = Node::start(Home::Embedded);
    let targets = [
        "GET  /healthz HTTP/1.1",
        "GET /healthz  HTTP/1.1",
        "GET /heal thz HTTP/1.1",
        "GET /heal\0thz HTTP/1.1",
        "GET\t/healthz HTTP/1.1",
    ];
    for line in targets {
        let request = format!("{line}\r\nHost: x\r\n\r\n{}", hidden());
        assert_eq!(expect_bytes_refused(&node, request.as_bytes()), 400, "{line:?}");
    }
    expect_served(&node);
}

#[test]
fn a_head_without_an_end_is_cut_off() {
    let node = Node::start(Home::Embedded);
    let mut request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    request.resize(1 << 20, b'x');
    let raw = http::raw(node.http(), &request);
    assert!(raw.closed);
    raw.only_answer().expect_any_problem(431);
    expect_served(&node);
}

#[test]
fn a_burst_of_connections_is_served_to_the_last() {
    let node = Node::start(Home::Embedded);
    let mut connections: Vec<_> = (0..64).map(|_| node.http_client()).collect();
    for http in &mut connections {
        http.ask("GET", "/healthz", &[], b"");
    }
    for http in &mut connections {
        http.answer().expect(200);
    }
    for http in &mut connections {
        http.send("GET", "/healthz", &[], b"").expect(200);
    }
}
