//! A crowd that says nothing locks nobody out: where every place is taken, it makes room, the oldest first.

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::line_client::hello;
use crate::harness::node::{JSON, envelope};
use crate::harness::{self, Client, Home, Http, Line, Node, TempDir, eventually, eventually_some, eventually_within};

const KEY: &str = "a-key-of-this-test-1";

fn open_connections(node: &Node, door: &str) -> usize {
    let text = node.get("/metrics").expect(200).text();
    let name = format!("payrelay_connections_open{{door=\"{door}\"}} ");
    let number = text.lines().find_map(|line| line.strip_prefix(&name)).expect("the gauge");
    number.parse().expect("a number")
}

#[test]
fn the_oldest_silent_connection_makes_room_for_a_client() {
    let node = Node::with(Home::Embedded, &["--max-clients", "6"]);
    let mut inside = node.client("inside");
    let mut silent: Vec<Line> = (0..5).map(|_| node.connect_raw()).collect();
    eventually("every place is taken", || open_connections(&node, "tcp") == 6);

    let mut client = eventually_some("a client is let in", || Client::try_hello(node.tcp(), "01"));
    silent[0].expect_error("too_many_clients");
    node.accept("01", "1");
    client.expect_payment(1, "1");
    // Half a line, or lines that are no hello, are no better.
    silent[1].send_bytes(b"{\"type\":");
    let _other = eventually_some("another is let in", || Client::try_hello(node.tcp(), "02"));
    silent[1].expect_error("too_many_clients");
    // The younger ones had been left alone, and may still say hello.
    silent[4].send_line(&hello("03", ""));
    silent[4].expect_welcome();

    // Who was welcomed keeps its place, whoever comes.
    for _ in 0..20 {
        let _ = node.connect_raw();
    }
    for client in [&mut inside, &mut client] {
        client.expect_nothing_but_pings(harness::QUIET);
    }
}

#[test]
fn who_has_shown_no_key_makes_room_for_a_sender() {
    let files = TempDir::new();
    let keys = files.file("keys", &format!("{KEY}\n"));
    let node = Node::with(Home::Embedded, &["--max-http", "6", "--api-keys-file", &keys]);
    let authorization = format!("Bearer {KEY}");
    let key = ("Authorization", authorization.as_str());
    // What a sender that shows its key is answered; 503 where it is not let in.
    let post = |http: &mut Http| {
        let body = envelope("01", "1", None);
        http.try_send("POST", "/v1/payments", &[JSON, key], body.as_bytes()).map_or(503, |answer| answer.status)
    };
    let sender = |address: SocketAddr| {
        let mut http = Http::try_connect(address).ok()?;
        (post(&mut http) == 202).then_some(http)
    };
    // The one that found the node ready may still have its place.
    let mut inside = eventually_some("a place", || sender(node.http()));
    let gauge = |inside: &mut Http| {
        let text = inside.send("GET", "/metrics", &[key], b"").expect(200).text();
        text.contains("payrelay_connections_open{door=\"http\"} 6\n")
    };
    eventually("nobody else is there", || {
        let text = inside.send("GET", "/metrics", &[key], b"").expect(200).text();
        text.contains("payrelay_connections_open{door=\"http\"} 1\n")
    });
    let mut strangers: Vec<Http> = (0..5).map(|_| node.http_client()).collect();
    strangers[1].write(b"POST /v1/pay");
    strangers[2].send("GET", "/healthz", &[], b"").expect(200);
    strangers[3].send("GET", "/v1/clients", &[], b"").expect_problem(401, "unauthorized");
    eventually("every place is taken", || gauge(&mut inside));

    let mut senders = Vec::new();
    for stranger in &mut strangers {
        senders.push(eventually_some("a sender is let in", || sender(node.http())));
        stranger.answer().expect_problem(503, "too_many_connections");
        assert!(stranger.is_closed());
    }
    // Who showed a key keeps its place.
    let refused = node.request("GET", "/v1/clients", &[key], b"").expect_problem(503, "too_many_connections");
    assert!(refused.header("Retry-After").is_some(), "{}", refused.show());
    senders.push(inside);
    senders.iter_mut().for_each(|sender| assert_eq!(post(sender), 202));
}

#[test]
fn who_asks_without_end_and_reads_no_answer_makes_room_as_well() {
    let files = TempDir::new();
    let keys = files.file("keys", &format!("{KEY}\n"));
    let node = Node::with(Home::Embedded, &["--max-http", "12", "--api-keys-file", &keys]);
    let authorization = format!("Bearer {KEY}");
    let is_let_in = || {
        let asked = Http::try_connect(node.http())
            .and_then(|mut http| http.try_send("GET", "/v1/clients", &[("Authorization", &authorization)], b""));
        asked.is_ok_and(|answer| answer.status == 200)
    };
    // More than the node may have on their way out by far: its thread stands before an answer that nobody reads.
    let requests = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3000);
    let crowd = || {
        let mut stranger = Line::connect_with_small_buffer(node.http());
        let _ = stranger.try_send_bytes(requests.as_bytes());
        stranger
    };
    let mut strangers: Vec<Line> = (0..12).map(|_| crowd()).collect();
    for turn in 0..12 {
        // Far less than the node waits for a peer to read on.
        eventually_within(Duration::from_secs(10), &format!("sender {turn} is let in"), is_let_in);
        strangers.push(crowd());
    }
}
