//! Who is online, who has payments waiting, what is known of one client; and how a client is retired.

use crate::harness::line_client::hello;
use crate::harness::node::envelope;
use crate::harness::{Answer, Deployment, Home, Line, Node, eventually, now_ms, on_both_inboxes};
use serde_json::Value;

on_both_inboxes!(
    who_is_online_is_listed_on_every_node,
    one_client_is_told_with_all_its_fields,
    who_has_payments_waiting_is_listed,
    a_list_is_read_in_pages,
    those_online_are_read_in_pages,
    a_client_that_never_was_is_404,
    a_client_with_payments_is_not_retired,
    a_retired_client_starts_anew,
);

fn ids(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let clients = json["clients"].as_array().unwrap_or_else(|| panic!("no clients in {json}"));
    clients.iter().map(|client| client["client"].as_str().unwrap_or_default().to_owned()).collect()
}

fn who_is_online_is_listed_on_every_node(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let last = nodes.last().expect("at least one node");
    assert_eq!(ids(&nodes[0].get("/v1/clients").expect(200)), Vec::<String>::new());
    let _a = nodes[0].client("a");
    let _c = last.client("c");
    let b = nodes[0].client("b");
    last.accept("offline", "1");
    for node in &nodes {
        eventually("all who are online are listed, in order", || {
            ids(&node.get("/v1/clients").expect(200)) == ["a", "b", "c"]
        });
        let all = node.get("/v1/clients").json();
        assert!(all["next"].is_null(), "{all}");
        let where_they_are: Vec<_> = (0..3).map(|n| all["clients"][n]["node"].clone()).collect();
        assert_eq!(where_they_are, ["n1", "n1", last.name()], "{all}");
    }
    drop(b);
    for node in &nodes {
        eventually("who left is not listed", || ids(&node.get("/v1/clients").expect(200)) == ["a", "c"]);
    }
    assert_eq!(ids(&last.get("/v1/clients?after=a").expect(200)), ["c"]);
    assert_eq!(ids(&last.get("/v1/clients?after=b").expect(200)), ["c"]);
    assert_eq!(ids(&last.get("/v1/clients?after=c").expect(200)), Vec::<String>::new());
}

fn one_client_is_told_with_all_its_fields(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let last = nodes.last().expect("at least one node");
    let mut client = last.client("01");
    for n in 1..=3 {
        nodes[0].accept("01", &n.to_string());
    }
    let payments = client.expect_seqs(1..=3);
    client.ack(2);
    nodes[0].expect_acknowledged("01", 2);
    for node in &nodes {
        node.expect_online("01", true);
        let about = node.about("01");
        assert_eq!(about["client"], "01");
        assert_eq!(about["node"], last.name());
        assert_eq!(about["last_seq"], 3);
        assert_eq!(about["acked"], 2);
        assert_eq!(about["pending"], 1);
        assert_eq!(about["oldest_pending_at"], payments[2].accepted_at);
        assert!(about["since"].as_u64().is_some_and(|since| since.abs_diff(now_ms()) < 60_000), "{about}");
        assert!(about["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")), "{about}");
    }
    drop(client);
    for node in &nodes {
        node.expect_online("01", false);
        assert_eq!(node.about("01")["pending"], 1);
    }
}

fn who_has_payments_waiting_is_listed(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let last = nodes.last().expect("at least one node");
    let at = nodes[0].post("offline", "1").expect(202);
    assert_eq!(at.json()["online"], false);
    let mut lazy = last.client("lazy");
    nodes[0].accept("lazy", "1");
    let mut eager = nodes[0].client("eager");
    last.accept("eager", "1");
    eager.expect_payment(1, "1");
    eager.ack(1);
    lazy.expect_payment(1, "1");
    for node in &nodes {
        eventually("both who have payments waiting are listed", || {
            ids(&node.get("/v1/clients?pending=true").expect(200)) == ["lazy", "offline"]
        });
        let all = node.get("/v1/clients?pending=true").json();
        assert_eq!(all["clients"][1]["pending"], 1, "{all}");
        assert!(all["clients"][1]["oldest_pending_at"].is_u64(), "{all}");
        eventually("one of them is online", || {
            let all = node.get("/v1/clients?pending=true").json();
            all["clients"][0]["online"] == true && all["clients"][1]["online"] == false
        });
    }
    lazy.ack(1);
    for node in &nodes {
        eventually("who has none any more is not listed", || {
            ids(&node.get("/v1/clients?pending=true").expect(200)) == ["offline"]
        });
    }
}

/// The whole list, page by page.
fn all_pages(node: &Node, path: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let answer = node.get(&format!("{path}{after}")).expect(200);
        let page = ids(&answer);
        assert!(page.len() <= 1000, "a page of {}", page.len());
        let next = answer.json()["next"].clone();
        if let Value::String(next) = &next {
            after = format!("&after={next}");
        }
        all.extend(page);
        if next.is_null() {
            return all;
        }
    }
}

fn a_list_is_read_in_pages(home: Home) {
    let node = Node::start(home);
    let expected: Vec<String> = (0..1005).map(|n| format!("c{n:04}")).collect();
    let batch: String = expected.iter().map(|id| envelope(id, "1", None) + "\n").collect();
    node.post_batch(&batch).expect(200);
    eventually("all of them are listed, each once, in order", || {
        all_pages(&node, "/v1/clients?pending=true") == expected
    });
}

fn those_online_are_read_in_pages(home: Home) {
    let nodes = Deployment::at(home, &[]);
    let expected: Vec<String> = (0..1005).map(|n| format!("c{n:04}")).collect();
    // By turns on each of the nodes.
    let mut lines: Vec<Line> = (0..expected.len()).map(|n| Line::connect(nodes[n % nodes.len()].tcp())).collect();
    for (line, id) in lines.iter_mut().zip(&expected) {
        line.send_line(&hello(id, ""));
    }
    for line in &mut lines {
        line.expect_welcome();
    }
    for node in &nodes {
        eventually("all of them are listed, each once, in order", || all_pages(node, "/v1/clients?") == expected);
        let first = node.get("/v1/clients").expect(200);
        assert_eq!((ids(&first).len(), first.field("next")), (1000, "c0999".to_owned()));
    }
}

fn a_client_that_never_was_is_404(home: Home) {
    let node = Node::start(home);
    node.expect_unknown("01");
    let client = node.client("01");
    eventually("who has connected is known", || node.get("/v1/clients/01").status == 200);
    drop(client);
    node.accept("02", "1");
    node.get("/v1/clients/02").expect(200);
}

fn a_client_with_payments_is_not_retired(home: Home) {
    let node = Node::start(home);
    node.accept("01", "1");
    node.delete("/v1/clients/01").expect_problem(409, "conflict");
    assert_eq!(node.about("01")["pending"], 1);
    let mut client = node.client("01");
    client.expect_payment(1, "1");
    client.ack(1);
    node.expect_acknowledged("01", 1);
    client.send_line(r#"{"type":"bye"}"#);
    client.expect_closed();
    node.expect_online("01", false);
    let answer = node.delete("/v1/clients/01");
    assert!(answer.is_success(), "{}", answer.show());
    node.expect_unknown("01");
}

fn a_retired_client_starts_anew(home: Home) {
    let node = Node::start(home);
    for n in 1..=3 {
        node.post_with_id("01", &n.to_string(), &format!("wx-{n}")).expect(202);
    }
    let answer = node.delete("/v1/clients/01?discard=true");
    assert!(answer.is_success(), "{}", answer.show());
    node.expect_unknown("01");
    node.get("/v1/clients/01/payments/1").expect_problem(404, "not_found");
    eventually("it is not listed", || ids(&node.get("/v1/clients?pending=true").expect(200)).is_empty());

    assert_eq!(node.accept("01", "\"new\""), 1);
    let mut client = node.client("01");
    assert_eq!((client.welcome.acked, client.welcome.pending), (0, 1));
    client.expect_payment(1, "\"new\"");
}
