//! One client whose keys in Redis hold junk: its posts are refused with a 503, and nobody else notices.

use crate::harness::line_client::hello;
use crate::harness::{self, Answer, Deployment, Node, eventually};

fn ids(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let clients = json["clients"].as_array().unwrap_or_else(|| panic!("no clients in {json}"));
    clients.iter().map(|client| client["client"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What stands where the state of client `b` should.
const JUNK: [(&str, &[&str]); 4] = [
    ("junk", &["SET", "payrelay:{b}:state", "junk"]),
    ("empty", &["SET", "payrelay:{b}:state", ""]),
    ("cut off", &["SETRANGE", "payrelay:{b}:state", "2", "x"]),
    ("of another type", &["RPUSH", "payrelay:{b}:state", "junk"]),
];

#[test]
fn others_are_listed_and_served_beside_a_corrupt_client() {
    let nodes = Deployment::redis(2);
    let redis = &nodes.redis;
    let (here, there) = (&nodes[0], &nodes[1]);
    for id in ["a", "b", "c", "d"] {
        here.post_with_id(id, "1", "wx-1").expect(202);
    }
    let mut a = here.client("a");
    let _b = here.client("b");
    let _c = there.client("c");
    a.expect_payment(1, "1");
    for node in [here, there] {
        eventually("all are online", || ids(&node.get("/v1/clients").expect(200)) == ["a", "b", "c"]);
        eventually("all have payments waiting", || {
            ids(&node.get("/v1/clients?pending=true").expect(200)) == ["a", "b", "c", "d"]
        });
    }
    let state = redis.cli(&["GET", "payrelay:{b}:state"]).text();
    let mut seq = 1;
    for (what, harm) in JUNK {
        redis.cli(&["DEL", "payrelay:{b}:state"]);
        redis.cli(harm);
        for node in [here, there] {
            // One more comes and goes below, and what `a` has it acknowledges.
            let [online, waiting] = ["/v1/clients", "/v1/clients?pending=true"].map(|path| {
                let listed = ids(&node.get(path).expect(200));
                listed.into_iter().filter(|id| id != "other").collect::<Vec<_>>()
            });
            assert_eq!(online, ["a", "c"], "state {what}");
            assert!(waiting.ends_with(&["c".to_owned(), "d".to_owned()]), "state {what}: {waiting:?}");
            assert!(!waiting.contains(&"b".to_owned()), "state {what}: {waiting:?}");
            expect_refused(node, what);
            // Whoever shares a round trip with it is served.
            let lines = ["a", "b", "c"].map(|id| harness::node::envelope(id, "1", None) + "\n").concat();
            let told = node.post_batch(&lines).expect(200).json_lines();
            seq += 1;
            assert_eq!((&told[0]["seq"], &told[2]["seq"]), (&seq.into(), &seq.into()), "state {what}: {told:?}");
            assert!(told[1]["code"].is_string(), "state {what}: {told:?}");
            a.expect_payment(seq, "1");
            a.ack(seq);
            there.expect_acknowledged("a", seq);
            assert!(node.is_ready(), "the node serves all the others");
        }
    }
    redis.cli(&["DEL", "payrelay:{b}:state"]);
    redis.cli(&["SET", "payrelay:{b}:state", &state]).expect_ok();
    assert_eq!(there.accept("b", "2"), 2, "once it is mended, all is there");
    let mut b = there.client("b");
    b.expect_payment(1, "1");
    b.expect_payment(2, "2");
}

#[track_caller]
fn expect_refused(node: &Node, what: &str) {
    for id in [None, Some("wx-1"), Some("wx-new")] {
        let answer = node.post_body(&harness::node::envelope("b", "1", id));
        let answer = answer.expect_any_problem(503);
        assert_eq!(answer.field("stored"), "no", "state {what}: {}", answer.show());
    }
    for path in ["/v1/clients/b", "/v1/clients/b/payments/1", "/v1/clients/b/payments?payment_id=wx-1"] {
        node.get(path).expect_any_problem(503);
    }
    let mut line = node.connect_raw();
    line.send_line(&hello("b", ""));
    line.expect_error("unavailable");
    let mut other = node.client("other");
    other.send_line(r#"{"type":"bye"}"#);
    other.expect_closed();
}
