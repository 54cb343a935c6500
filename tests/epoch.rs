//! The epoch stays what it was as long as the store loses nothing: whoever leaves, whenever, and however often the way to the store is cut.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use crate::harness::node::envelope;
use crate::harness::{self, Client, Home, Line, Mode, Node, Proxy, Redis, Way, eventually, eventually_some};

/// So that a cut falls into the middle of many answers.
const CLIENTS: usize = 8;

/// Neither the log nor the metrics speak of lost writes.
#[track_caller]
fn expect_nothing_lost(node: &Node) {
    let log = node.log();
    assert!(!log.contains("came back without"), "the log speaks of lost writes");
    let metrics = node.get("/metrics").expect(200).text();
    let mut counts = metrics.lines().filter(|line| line.starts_with("payrelay_") && line.contains("rollback"));
    assert!(counts.all(|line| line.ends_with(" 0")), "the metrics speak of lost writes");
}

/// Comes in as soon as the node finds its Redis again.
#[track_caller]
fn come_in(node: &Node, id: &str) -> Client {
    eventually_some(&format!("client {id} is welcomed"), || Client::try_hello(node.tcp(), id))
}

/// Says ack and bye in one breath and waits until the node has read both.
fn leave_with(mut client: Client, acked: u64) {
    let words = format!("{{\"type\":\"ack\",\"seq\":{acked}}}\n{{\"type\":\"bye\"}}\n");
    let _ = client.try_send_bytes(words.as_bytes());
    client.read_to_the_end();
}

/// The node behind a proxy, and another one that looks at Redis past the proxy.
fn behind_a_proxy() -> (Proxy, Node, Node) {
    let redis = Redis::start();
    let proxy = Proxy::to(redis.port());
    let node = Node::on_url(&redis, &proxy.redis_url(), "n1", &[]);
    node.expect_ready();
    let watcher = Node::on(&redis, "n2", &[]);
    (proxy, node, watcher)
}

/// Rounds in which every client gets a payment, acknowledges it and leaves at once, while `trouble` is at work.
fn leave_in_trouble(rounds: usize, trouble: impl Fn(usize, &Proxy), calm: impl Fn(&Proxy, &dyn Fn() -> bool)) {
    let (proxy, node, watcher) = behind_a_proxy();
    let ids: Vec<String> = (0..CLIENTS).map(|n| format!("c{n}")).collect();
    let mut epochs: HashMap<&str, u64> = HashMap::new();
    for round in 0..rounds {
        let seq = round as u64 + 1;
        let payment_id = format!("round-{round}");
        let line = |id: &String| envelope(id, &seq.to_string(), Some(&payment_id)) + "\n";
        let lines: String = ids.iter().map(line).collect();
        // A disk that stalls for a second is no fault here, and by its id a payment is stored once.
        eventually("everybody's payment is stored", || {
            let answer = watcher.post_batch(&lines);
            answer.status == 200 && !answer.text().contains("\"code\"")
        });
        let mut inside: Vec<Client> = Vec::new();
        for id in &ids {
            let mut client = come_in(&node, id);
            let epoch = *epochs.entry(id).or_insert(client.welcome.epoch);
            assert_eq!(client.welcome.epoch, epoch, "client {id}, round {round}");
            // The acknowledgement before it is stored before this hello is looked at.
            assert_eq!((client.welcome.acked, client.welcome.pending), (seq - 1, 1), "client {id}, round {round}");
            client.expect_payment(seq, &seq.to_string());
            inside.push(client);
        }
        trouble(round, &proxy);
        thread::scope(|scope| {
            for client in inside {
                scope.spawn(move || leave_with(client, seq));
            }
        });
        calm(&proxy, &|| ids.iter().all(|id| watcher.about(id)["acked"] == seq));
    }
    for id in &ids {
        watcher.expect_acknowledged(id, rounds as u64);
        assert_eq!(come_in(&node, id).welcome.epoch, epochs[id.as_str()], "client {id}");
    }
    assert!(proxy.effects() > 0, "the proxy did cut something");
    expect_nothing_lost(&node);
    expect_nothing_lost(&watcher);
}

#[test]
fn it_stays_when_answers_to_an_ack_and_a_bye_are_lost() {
    // The answers of a new connection's first calls come first; somewhere behind them the notes' are cut.
    let trouble = |round: usize, proxy: &Proxy| {
        proxy.set(Way::Down, Mode::CutAfter(50 * (round as u64 % 20)));
        proxy.cut();
    };
    let calm = |proxy: &Proxy, stored: &dyn Fn() -> bool| {
        // Stored and cut again, so that it was said twice; or never stored, for the cut comes too early.
        let before = proxy.effects();
        eventually("it was tried a few times", || stored() || proxy.effects() >= before + 5);
        let before = proxy.effects();
        harness::pause();
        let deadline = std::time::Instant::now() + Duration::from_millis(300);
        while proxy.effects() < before + 2 && std::time::Instant::now() < deadline {
            harness::pause();
        }
        proxy.set(Way::Down, Mode::Pass);
        proxy.cut();
    };
    leave_in_trouble(20, trouble, calm);
}

#[test]
fn it_stays_when_the_connection_is_cut_between_an_ack_and_a_bye() {
    let trouble = |round: usize, proxy: &Proxy| {
        let way = if round.is_multiple_of(2) { Way::Up } else { Way::Down };
        proxy.set(way, Mode::Delay(Duration::from_millis(7 * (round as u64 % 5))));
        proxy.cut();
    };
    let calm = |proxy: &Proxy, stored: &dyn Fn() -> bool| {
        proxy.cut();
        proxy.set_both(Mode::Pass);
        eventually("it is stored", stored);
    };
    leave_in_trouble(20, trouble, calm);
}

#[test]
fn it_stays_when_redis_is_slow() {
    let trouble = |_: usize, proxy: &Proxy| proxy.set(Way::Down, Mode::Delay(Duration::from_millis(40)));
    let calm = |proxy: &Proxy, stored: &dyn Fn() -> bool| {
        eventually("it is stored", stored);
        proxy.set(Way::Down, Mode::Pass);
        proxy.cut();
    };
    leave_in_trouble(8, trouble, calm);
}

/// Comes in, reads a little of the backlog, acknowledges some of it now and then, and leaves with a reset.
fn leave_in_the_middle(node: &Node, id: &str, rounds: u64) {
    let (mut epoch, mut read) = (None, 0);
    for round in 0..rounds {
        let mut client = Client::hello_on(Line::connect_with_small_buffer(node.tcp()), id, "");
        let first = *epoch.get_or_insert(client.welcome.epoch);
        assert_eq!(client.welcome.epoch, first, "client {id}, round {round}");
        let acked = client.welcome.acked;
        assert!(acked <= read, "client {id}, round {round}: {acked} acknowledged, {read} read");
        for seq in acked + 1..=acked + round % 4 {
            client.expect_seqs([seq]);
            read = read.max(seq);
        }
        if round.is_multiple_of(3) {
            let _ = client.try_ack(read);
        }
        client.into_line().reset();
    }
    let mut client = node.client(id);
    assert_eq!(Some(client.welcome.epoch), epoch, "client {id}");
    let first = client.welcome.acked + 1;
    client.expect_seqs([first]);
}

/// Many at once: so that what is read for one is still on its way when it has gone.
fn all_leave_in_the_middle(node: &Node, rounds: u64) {
    let msg = format!("\"{}\"", "x".repeat(4000));
    let ids: Vec<String> = (0..24).map(|n| format!("c{n}")).collect();
    for id in &ids {
        node.post_batch(&(envelope(id, &msg, None) + "\n").repeat(200)).expect(200);
    }
    thread::scope(|scope| {
        for id in &ids {
            scope.spawn(move || leave_in_the_middle(node, id, rounds));
        }
    });
    expect_nothing_lost(node);
}

#[test]
fn it_stays_when_clients_leave_in_the_middle_of_a_backlog() {
    all_leave_in_the_middle(&Node::start(Home::Embedded), 15);
}

#[test]
fn it_stays_when_clients_leave_in_the_middle_of_a_backlog_and_redis_is_slow() {
    let (proxy, node, _watcher) = behind_a_proxy();
    proxy.set(Way::Down, Mode::Delay(Duration::from_millis(2)));
    all_leave_in_the_middle(&node, 15);
}
