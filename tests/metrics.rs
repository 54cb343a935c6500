//! `/metrics` counts what happened, in Prometheus' words, without naming clients.

mod openmetrics;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::harness::{self, Deployment, Home, Line, Node, PATIENCE, eventually, now_ms, on_both_inboxes};

on_both_inboxes!(
    what_happened_is_counted,
    live_and_caught_up_deliveries_are_told_apart,
    what_is_sent_again_on_a_later_connection_is_a_repeat,
    the_time_to_an_acknowledgement_is_measured,
    what_waits_and_for_how_long_is_told,
    rounds_are_measured_by_their_jobs,
    open_and_refused_connections_are_counted,
    a_full_socket_is_told,
    the_text_is_openmetrics,
    clients_are_not_named,
    a_hundred_thousand_clients_make_the_answer_no_longer,
);

/// Every sample: `name{labels}` and its value.
fn samples(node: &Node) -> BTreeMap<String, f64> {
    let answer = node.get("/metrics").expect(200);
    let kind = answer.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("text/plain") || kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = answer.text();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let parse = |line: &str| -> Option<(String, f64)> {
        let end = line.rfind('}').map_or_else(|| line.find(' '), |brace| Some(brace + 1))?;
        let value = line[end..].split_whitespace().next()?;
        Some((line[..end].to_owned(), value.parse().ok()?))
    };
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect()
}

fn value(node: &Node, sample: &str) -> f64 {
    samples(node).get(sample).copied().unwrap_or(0.0)
}

#[track_caller]
fn expect(node: &Node, sample: &str, expected: f64) {
    eventually(&format!("{sample} is {expected}"), || (value(node, sample) - expected).abs() < 0.5);
}

fn what_happened_is_counted(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    expect(&node, "payrelay_clients_online", 1.0);
    node.post_with_id("01", "1", "wx-1").expect(202);
    node.post_with_id("01", "1", "wx-1").expect(200);
    node.post("01", "2").expect(202);
    node.post_body("{").expect_problem(400, "bad_json");
    node.post("a b", "1").expect_problem(400, "invalid_client_id");
    node.post("a b", "1").expect_problem(400, "invalid_client_id");
    client.expect_seqs(1..=2);
    client.ack(2);
    node.expect_acknowledged("01", 2);

    expect(&node, "payrelay_payments_accepted_total", 2.0);
    expect(&node, "payrelay_payments_duplicate_total", 1.0);
    expect(&node, "payrelay_payments_acknowledged_total", 2.0);
    expect(&node, r#"payrelay_requests_refused_total{code="bad_json"}"#, 1.0);
    expect(&node, r#"payrelay_requests_refused_total{code="invalid_client_id"}"#, 2.0);
    eventually("both were delivered, one way or the other", || {
        let live = value(&node, r#"payrelay_payments_delivered_total{way="live"}"#);
        let caught_up = value(&node, r#"payrelay_payments_delivered_total{way="catch_up"}"#);
        (live + caught_up - 2.0).abs() < 0.5
    });
    client.send_line(r#"{"type":"bye"}"#);
    client.expect_closed();
    expect(&node, "payrelay_clients_online", 0.0);
}

fn live_and_caught_up_deliveries_are_told_apart(home: Home) {
    let node = Node::start(home);
    node.accept("01", "1");
    let mut client = node.client("01");
    client.expect_payment(1, "1");
    eventually("the one that waited was caught up with", || {
        value(&node, r#"payrelay_payments_delivered_total{way="catch_up"}"#) >= 1.0
    });
    client.ack(1);
    let mut seq = 1;
    eventually("one that came while the client was idle went live", || {
        seq += 1;
        assert_eq!(node.accept("01", "1"), seq);
        client.expect_payment(seq, "1");
        client.ack(seq);
        value(&node, r#"payrelay_payments_delivered_total{way="live"}"#) >= 1.0
    });
}

fn what_is_sent_again_on_a_later_connection_is_a_repeat(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    (1..=3).for_each(|seq| assert_eq!(node.accept("01", "1"), seq));
    client.expect_seqs(1..=3);
    client.ack(1);
    node.expect_acknowledged("01", 1);
    expect(&node, "payrelay_payments_repeated_total", 0.0);
    drop(client);

    node.expect_online("01", false);
    assert_eq!(node.accept("01", "1"), 4);
    let mut again = node.client("01");
    again.expect_seqs(2..=4);
    // The fourth is sent for the first time.
    expect(&node, "payrelay_payments_repeated_total", 2.0);

    expect(&node, "payrelay_takeovers_total", 0.0);
    let mut newer = node.client("01");
    again.expect_error("replaced");
    newer.expect_seqs(2..=4);
    expect(&node, "payrelay_payments_repeated_total", 5.0);
    expect(&node, "payrelay_takeovers_total", 1.0);
    newer.ack(4);
    node.expect_acknowledged("01", 4);
    drop(newer);
    let mut last = node.client("01");
    assert_eq!(node.accept("01", "1"), 5);
    last.expect_seqs(5..=5);
    expect(&node, "payrelay_payments_repeated_total", 5.0);
}

#[test]
fn a_takeover_by_another_node_is_counted_where_it_was_lost() {
    let nodes = Deployment::redis(2);
    let mut old = nodes[0].client("01");
    let _new = nodes[1].client("01");
    old.expect_error("replaced");
    expect(&nodes[0], "payrelay_takeovers_total", 1.0);
    expect(&nodes[1], "payrelay_takeovers_total", 0.0);
}

fn the_time_to_an_acknowledgement_is_measured(home: Home) {
    let node = Node::start(home);
    let accepted_at = now_ms();
    node.accept("01", "1");
    node.accept("01", "2");
    let both_at = now_ms();
    let mut client = node.client("01");
    client.expect_seqs(1..=2);
    // Long enough for the bucket of a payment that was acknowledged at once to stay empty.
    eventually("half a second has passed", || now_ms() >= both_at + 500);
    client.ack(2);
    node.expect_acknowledged("01", 2);
    expect(&node, "payrelay_acknowledgement_latency_seconds_count", 2.0);
    expect(&node, r#"payrelay_acknowledgement_latency_seconds_bucket{le="+Inf"}"#, 2.0);
    expect(&node, r#"payrelay_acknowledgement_latency_seconds_bucket{le="0.2"}"#, 0.0);
    let sum = value(&node, "payrelay_acknowledgement_latency_seconds_sum");
    let most = 2.0 * (now_ms() - accepted_at) as f64 / 1000.0 + 0.1;
    assert!((0.8..most).contains(&sum), "{sum} s of at most {most}");
    client.ack(2);
    assert_eq!(node.accept("01", "3"), 3);
    client.expect_seqs(3..=3);
    expect(&node, "payrelay_acknowledgement_latency_seconds_count", 2.0);
}

fn what_waits_and_for_how_long_is_told(home: Home) {
    let node = Node::start(home);
    expect(&node, "payrelay_payments_pending", 0.0);
    let accepted_at = now_ms();
    (1..=3).for_each(|seq| assert_eq!(node.accept("01", "1"), seq));
    node.accept("02", "1");
    // On Redis a payment has to lie for five seconds before its inbox is looked at.
    expect(&node, "payrelay_inboxes_waiting", 2.0);
    expect(&node, "payrelay_payments_pending", 4.0);
    let age = value(&node, "payrelay_oldest_pending_age_seconds");
    let most = (now_ms() - accepted_at) as f64 / 1000.0 + 0.1;
    assert!(age > 0.0 && age <= most, "{age} s of at most {most}");
    eventually("the age grows", || value(&node, "payrelay_oldest_pending_age_seconds") > age);
    expect(&node, "payrelay_store_up", 1.0);

    let mut client = node.client("01");
    client.expect_seqs(1..=3);
    client.ack(2);
    node.expect_acknowledged("01", 2);
    expect(&node, "payrelay_payments_pending", 2.0);
    client.ack(3);
    let mut other = node.client("02");
    other.expect_seqs(1..=1);
    other.ack(1);
    expect(&node, "payrelay_payments_pending", 0.0);
    expect(&node, "payrelay_inboxes_waiting", 0.0);
    assert_eq!(samples(&node).get("payrelay_oldest_pending_age_seconds"), Some(&0.0));
}

fn rounds_are_measured_by_their_jobs(home: Home) {
    let node = Node::start(home);
    let lines: String = (0..500).map(|n| format!("{{\"client\":\"{n}\",\"msg\":1}}\n")).collect();
    node.post_batch(&lines).expect(200);
    expect(&node, "payrelay_commit_jobs_sum", 500.0);
    let rounds = value(&node, "payrelay_commit_jobs_count");
    // A batch has at most 32 jobs out at a time.
    assert!((500.0 / 32.0..500.0).contains(&rounds), "{rounds} rounds");
    expect(&node, r#"payrelay_commit_jobs_bucket{le="32.0"}"#, rounds);
}

fn open_and_refused_connections_are_counted(home: Home) {
    let node = Node::with(home, &["--max-clients", "2", "--max-http", "4"]);
    // All is asked on one connection: others would stand in the count.
    let mut asker = node.http_client();
    let mut told = |sample: &str| {
        let text = asker.send("GET", "/metrics", &[], b"").expect(200).text();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse::<u32>().ok());
        value.unwrap_or_else(|| panic!("no {sample} in\n{text}"))
    };
    let (http, tcp) = (r#"payrelay_connections_open{door="http"}"#, r#"payrelay_connections_open{door="tcp"}"#);
    eventually("only who asks is there", || told(http) == 1);
    // Each has asked something: of one that is silent for half a second a newcomer may get the place.
    let one_more = || {
        let mut http = node.http_client();
        http.send("GET", "/healthz", &[], b"").expect(200);
        http
    };
    let mut held = vec![one_more(), one_more()];
    eventually("three are open", || told(http) == 3);

    let clients = [node.client("01"), node.client("02")];
    assert_eq!(told(tcp), 2);
    node.connect_raw().expect_error("too_many_clients");
    assert_eq!(told(r#"payrelay_connections_refused_total{door="tcp"}"#), 1);
    drop(clients);
    eventually("both have left", || told(tcp) == 0);

    assert_eq!(told(r#"payrelay_connections_refused_total{door="http"}"#), 0);
    held.push(one_more());
    eventually("four are open", || told(http) == 4);
    let refused = node.http_client().answer();
    assert_eq!(refused.status, 503, "{}", refused.show());
    assert_eq!(told(r#"payrelay_connections_refused_total{door="http"}"#), 1);
    drop(held);
    eventually("only who asks is left", || told(http) == 1);
}

fn a_full_socket_is_told(home: Home) {
    let parked = r#"payrelay_queue_length{queue="parked_sockets"}"#;
    let node = Node::start(home);
    let line = Line::connect_with_small_buffer(node.tcp());
    let mut client = harness::Client::hello_on(line, "01", "");
    let large = format!("\"{}\"", "x".repeat(200_000));
    (1..=4).for_each(|seq| assert_eq!(node.accept("01", &large), seq));
    expect(&node, parked, 1.0);
    client.expect_seqs(1..=4);
    expect(&node, parked, 0.0);
}

#[test]
fn round_trips_to_redis_and_reconnects_are_counted_by_purpose() {
    let node = Node::start(Home::Redis);
    let trips = |purpose: &str| format!("payrelay_redis_round_trip_seconds_count{{purpose=\"{purpose}\"}}");
    let reconnects = |purpose: &str| format!("payrelay_redis_reconnects_total{{purpose=\"{purpose}\"}}");
    node.accept("01", "1");
    let mut client = node.client("01");
    client.expect_seqs(1..=1);
    client.ack(1);
    node.expect_acknowledged("01", 1);
    for purpose in ["commits", "books", "readings", "questions", "tending"] {
        let count = value(&node, &trips(purpose));
        assert!(count >= 1.0, "{purpose}: {count}");
        let sum = value(&node, &format!("payrelay_redis_round_trip_seconds_sum{{purpose=\"{purpose}\"}}"));
        assert!(sum > 0.0 && sum < count, "{purpose}: {sum} s for {count} round trips");
        expect(&node, &reconnects(purpose), 0.0);
    }
    let before = value(&node, &trips("commits"));
    node.accept("02", "1");
    expect(&node, &trips("commits"), before + 1.0);

    node.redis().kill();
    eventually("the node says that it is not ready", || !node.is_ready());
    node.redis().restart();
    node.expect_ready();
    node.accept("02", "1");
    for purpose in ["commits", "tending", "listening"] {
        eventually(&format!("{purpose} connects again"), || value(&node, &reconnects(purpose)) >= 1.0);
    }
}

#[test]
fn a_scrape_is_answered_while_redis_is_away() {
    let node = Node::start(Home::Redis);
    node.accept("01", "1");
    expect(&node, "payrelay_payments_pending", 1.0);
    let scrape = |what: &str| {
        let start = Instant::now();
        let samples = samples(&node);
        // Each round trip has a second; the rest is for a slow machine.
        assert!(start.elapsed() < Duration::from_secs(8), "{what}: after {:?}", start.elapsed());
        samples
    };
    let told = |samples: &BTreeMap<String, f64>| {
        assert_eq!(samples.get("payrelay_payments_accepted_total"), Some(&1.0));
        let backlog = samples.contains_key("payrelay_payments_pending");
        assert_eq!(backlog, samples.contains_key("payrelay_oldest_pending_age_seconds"));
        assert_eq!(backlog, samples.get("payrelay_store_up") == Some(&1.0), "unknown, and not 0");
        backlog
    };
    node.redis().pause();
    eventually("a frozen Redis is told", || !told(&scrape("frozen")));
    node.redis().resume();
    eventually("it is back", || told(&scrape("resumed")));
    node.redis().kill();
    eventually("a dead Redis is told", || !told(&scrape("dead")));
    node.redis().restart();
    eventually("it is back", || told(&scrape("restarted")));
}

fn the_text_is_openmetrics(home: Home) {
    let node = Node::start(home);
    let mut client = node.client("01");
    node.accept("01", "1");
    client.expect_seqs(1..=1);
    client.ack(1);
    node.expect_acknowledged("01", 1);
    node.post_body("{").expect_problem(400, "bad_json");
    let text = node.get("/metrics").expect(200).text();
    let families = openmetrics::check(&text).unwrap_or_else(|fault| panic!("{fault}\n{text}"));
    assert!(families.iter().all(|name| name.starts_with("payrelay_")), "{families:?}");
    let store = if home == Home::Redis { "redis" } else { "embedded" };
    let build = format!("payrelay_build_info{{version=\"{}\",store=\"{store}\"}}", env!("CARGO_PKG_VERSION"));
    expect(&node, &build, 1.0);
    let start = value(&node, "payrelay_process_start_time_seconds");
    let age = now_ms() as f64 / 1000.0 - start;
    assert!((0.0..PATIENCE.as_secs_f64() * 4.0).contains(&age), "{age} s old");
}

fn clients_are_not_named(home: Home) {
    let node = Node::start(home);
    let size = |node: &Node| samples(node).len();
    node.accept("a-client-of-this-test", "1");
    let _client = node.client("a-client-of-this-test");
    let before = size(&node);
    for n in 0..20 {
        node.accept(&format!("another-client-{n}"), "1");
    }
    let text = node.get("/metrics").expect(200).text();
    assert!(!text.contains("a-client-of-this-test") && !text.contains("another-client"), "{text}");
    assert_eq!(size(&node), before, "as many samples as before");
}

fn a_hundred_thousand_clients_make_the_answer_no_longer(home: Home) {
    let node = Node::start(home);
    let names = |node: &Node| samples(node).into_keys().collect::<Vec<_>>();
    node.post_batch("{\"client\":\"c\",\"msg\":1}").expect(200);
    expect(&node, "payrelay_inboxes_waiting", 1.0);
    let before = (names(&node), node.get("/metrics").expect(200).text().len());
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let lines: String = (0..10_000).map(|n| format!("{{\"client\":\"c{thread}-{n}\",\"msg\":1}}\n")).collect();
            let node = &node;
            scope.spawn(move || node.post_batch(&lines).expect(200));
        }
    });
    expect(&node, "payrelay_payments_accepted_total", 100_001.0);
    let start = Instant::now();
    let after = (names(&node), node.get("/metrics").expect(200).text().len());
    assert!(start.elapsed() < Duration::from_secs(10), "two scrapes took {:?}", start.elapsed());
    assert_eq!(before.0, after.0, "the same samples");
    // Only their values have more digits.
    let digits = 20 * after.0.len();
    assert!(after.1 <= before.1 + digits, "{} bytes, and then {}", before.1, after.1);
}
