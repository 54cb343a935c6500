//! The bus over a real Redis: messages arrive as they were emitted, and a lost line is said and mends itself.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::program::lock;
use crate::harness::{self, Mode, PATIENCE, Proxy, Redis, eventually, eventually_within};
use payrelay::bus::{Bus, Event, Subscription, To};

/// A bus with its subscriber thread, stopped when it is dropped.
struct Node {
    bus: Bus,
    subscriber: Option<JoinHandle<()>>,
}

/// What one handler heard, in order. `None`: the line was lost or restored.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<Heard>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Message(Vec<u8>),
    Lost,
    Restored,
}

impl Node {
    fn on(url: &str, name: &str) -> Node {
        let bus = Bus::redis(url, name).expect("a URL");
        let listening = bus.clone();
        let subscriber = Some(std::thread::spawn(move || listening.run()));
        eventually("the bus listens", || bus.is_up());
        Node { bus, subscriber }
    }

    #[track_caller]
    fn emit(&self, to: To<'_>, topic: &str, message: &[u8]) {
        self.bus.emit(to, topic, message).unwrap_or_else(|e| panic!("{e}"));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.bus.stop();
        if let Some(subscriber) = self.subscriber.take() {
            let ended = subscriber.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the subscriber ends in order");
        }
    }
}

impl Ear {
    fn on(&self, bus: &Bus, topic: &str) -> Subscription {
        bus.on(topic, self.handler())
    }

    fn once(&self, bus: &Bus, topic: &str) -> Subscription {
        bus.once(topic, self.handler())
    }

    fn handler(&self) -> impl Fn(Event<'_>) + Send + Sync + 'static {
        let heard = Arc::clone(&self.0);
        move |event| {
            lock(&heard).push(match event {
                Event::Message(message) => Heard::Message(message.bytes.to_vec()),
                Event::Lost(_) => Heard::Lost,
                Event::Restored => Heard::Restored,
            });
        }
    }

    fn all(&self) -> Vec<Heard> {
        lock(&self.0).clone()
    }

    fn messages(&self) -> Vec<Vec<u8>> {
        let message = |heard| match heard {
            Heard::Message(bytes) => Some(bytes),
            Heard::Lost | Heard::Restored => None,
        };
        self.all().into_iter().filter_map(message).collect()
    }

    fn has(&self, what: &Heard) -> bool {
        lock(&self.0).contains(what)
    }

    fn forget(&self) {
        lock(&self.0).clear();
    }

    /// Waits for these messages, the only ones.
    #[track_caller]
    fn expect(&self, messages: &[&[u8]]) {
        eventually(&format!("{} messages", messages.len()), || self.messages().len() >= messages.len());
        assert_eq!(self.messages(), messages);
    }
}

/// The connections to this Redis that subscribe.
fn subscribers(redis: &Redis) -> usize {
    redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).text().lines().count()
}

#[test]
fn a_message_goes_to_one_node_or_to_all() {
    let redis = Redis::without_persistence();
    let (a, b) = (Node::on(&redis.url(), "a"), Node::on(&redis.url(), "b"));
    let (at_a, at_b, elsewhere) = (Ear::default(), Ear::default(), Ear::default());
    at_a.on(&a.bus, "paid");
    at_b.on(&b.bus, "paid");
    elsewhere.on(&a.bus, "other");
    a.emit(To::Node("a"), "paid", b"to myself");
    a.emit(To::Node("b"), "paid", b"to b");
    a.emit(To::Node("nobody"), "paid", b"to nobody");
    a.emit(To::All, "paid", b"to all");
    a.emit(To::All, "other", b"end");
    at_a.expect(&[b"to myself", b"to all"]);
    at_b.expect(&[b"to b", b"to all"]);
    elsewhere.expect(&[b"end"]);
}

#[test]
fn once_hears_one_message_and_off_ends_it() {
    let redis = Redis::without_persistence();
    let node = Node::on(&redis.url(), "a");
    let (all, first, none, end) = (Ear::default(), Ear::default(), Ear::default(), Ear::default());
    let subscription = all.on(&node.bus, "t");
    first.once(&node.bus, "t");
    let never = none.once(&node.bus, "t");
    end.on(&node.bus, "end");
    node.bus.off(never);
    node.emit(To::All, "t", b"1");
    node.emit(To::All, "t", b"2");
    all.expect(&[b"1", b"2"]);
    node.bus.off(subscription.clone());
    node.bus.off(subscription);
    node.emit(To::All, "t", b"3");
    node.emit(To::All, "end", b"");
    end.expect(&[b""]);
    all.expect(&[b"1", b"2"]);
    first.expect(&[b"1"]);
    none.expect(&[]);
}

#[test]
fn bytes_arrive_as_they_were_emitted() {
    let redis = Redis::without_persistence();
    let (a, b) = (Node::on(&redis.url(), "a"), Node::on(&redis.url(), "b"));
    let heard = Ear::default();
    heard.on(&b.bus, "t");
    let every: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = every.iter().copied().cycle().take(1 << 20).collect();
    let messages: [&[u8]; 8] = [b"", b" ", b"  a b ", b"\r\n$5\r\n", &every, b"\xff\xfe", b"{\"a\":1.10}", &large];
    messages.iter().for_each(|message| a.emit(To::Node("b"), "t", message));
    heard.expect(&messages);
}

#[test]
fn messages_of_one_sender_keep_their_order() {
    let redis = Redis::without_persistence();
    let (a, b) = (Node::on(&redis.url(), "a"), Node::on(&redis.url(), "b"));
    let heard = Ear::default();
    heard.on(&b.bus, "t");
    let messages: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    for (n, message) in messages.iter().enumerate() {
        let to = if n % 2 == 0 { To::Node("b") } else { To::All };
        a.emit(to, "t", message.as_bytes());
    }
    heard.expect(&messages.iter().map(|message| message.as_bytes()).collect::<Vec<_>>());
}

#[test]
fn there_is_one_subscriber_connection_however_many_handlers() {
    let redis = Redis::without_persistence();
    let node = Node::on(&redis.url(), "a");
    let ears: Vec<Ear> = (0..300).map(|_| Ear::default()).collect();
    ears.iter().enumerate().for_each(|(n, ear)| drop(ear.on(&node.bus, &format!("t{}", n % 100))));
    assert_eq!(subscribers(&redis), 1);
    let channels = redis.cli(&["PUBSUB", "NUMSUB", "payrelay:0:node:a", "payrelay:0:all"]);
    let text = |text: &str| harness::Reply::Text(text.into());
    let one = harness::Reply::Int(1);
    assert_eq!(
        channels,
        harness::Reply::List(vec![text("payrelay:0:node:a"), one.clone(), text("payrelay:0:all"), one])
    );
    (0..100).for_each(|n| node.emit(To::All, &format!("t{n}"), b"x"));
    ears.iter().for_each(|ear| ear.expect(&[b"x"]));
    assert_eq!(subscribers(&redis), 1);
    drop(node);
    eventually("its connection ends with it", || subscribers(&redis) == 0);
}

#[test]
fn a_cut_line_is_said_and_messages_arrive_again() {
    let redis = Redis::without_persistence();
    let (a, b) = (Node::on(&redis.url(), "a"), Node::on(&redis.url(), "b"));
    let (heard, other) = (Ear::default(), Ear::default());
    heard.on(&b.bus, "t");
    other.on(&b.bus, "another topic");
    for round in 0..3 {
        heard.forget();
        other.forget();
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        for ear in [&heard, &other] {
            eventually("it is lost and restored", || ear.all() == [Heard::Lost, Heard::Restored]);
        }
        assert!(b.bus.is_up());
        let message = format!("after {round}");
        a.emit(To::Node("b"), "t", message.as_bytes());
        heard.expect(&[message.as_bytes()]);
    }
}

#[test]
fn a_restarted_redis_is_found_again() {
    let redis = Redis::without_persistence();
    let (a, b) = (Node::on(&redis.url(), "a"), Node::on(&redis.url(), "b"));
    let (heard, waits) = (Ear::default(), Ear::default());
    heard.on(&b.bus, "t");
    waits.once(&b.bus, "t");
    redis.kill();
    eventually("the loss is heard", || heard.has(&Heard::Lost));
    assert!(!b.bus.is_up());
    let refused = a.bus.emit(To::Node("b"), "t", b"nobody hears this").expect_err("there is no Redis");
    assert!(refused.to_string().starts_with("not emitted: "), "{refused}");
    assert_eq!(heard.all(), [Heard::Lost], "it is said once");

    redis.restart();
    eventually("it is restored", || heard.has(&Heard::Restored));
    // Who spoke on the lost connection finds that out by speaking.
    eventually("messages are taken again", || a.bus.emit(To::Node("b"), "t", b"again").is_ok());
    heard.expect(&[b"again"]);
    waits.expect(&[b"again"]);
    eventually("each listens on one connection", || subscribers(&redis) == 2);
}

#[test]
fn a_bus_that_finds_no_redis_waits_for_it() {
    let redis = Redis::away();
    let bus = Bus::redis(&redis.url(), "a").expect("a URL");
    let heard = Ear::default();
    heard.on(&bus, "t");
    let listening = bus.clone();
    let node = Node { bus, subscriber: Some(std::thread::spawn(move || listening.run())) };
    eventually("the loss is heard", || heard.has(&Heard::Lost));
    assert!(!node.bus.is_up());
    redis.restart();
    eventually("it is there", || heard.has(&Heard::Restored));
    eventually("messages are taken", || node.bus.emit(To::All, "t", b"1").is_ok());
    heard.expect(&[b"1"]);
}

#[test]
fn a_silent_line_is_noticed_by_the_nodes_own_beat() {
    let redis = Redis::without_persistence();
    let proxy = Proxy::to(redis.port());
    let node = Node::on(&proxy.redis_url(), "a");
    let heard = Ear::default();
    heard.on(&node.bus, "t");
    let mut last = Instant::now();
    let mut beat = || {
        if last.elapsed() >= Duration::from_secs(1) {
            last = Instant::now();
            node.bus.beat();
        }
    };
    // While it is heard, nothing happens.
    let calm = Instant::now() + Duration::from_secs(4);
    while Instant::now() < calm {
        beat();
        harness::pause();
    }
    assert_eq!(heard.all(), []);

    proxy.set_pubsub(Some(Mode::Swallow));
    // Three seconds by its own clock; the rest is for a slow machine.
    eventually_within(Duration::from_secs(6), "the silence is noticed", || {
        beat();
        heard.has(&Heard::Lost)
    });
    assert!(proxy.effects() > 0, "the proxy did swallow something");
    assert!(!node.bus.is_up());
    proxy.set_pubsub(None);
    eventually_within(PATIENCE, "it is restored", || {
        beat();
        heard.has(&Heard::Restored)
    });
    node.emit(To::Node("a"), "t", b"again");
    heard.expect(&[b"again"]);
}

#[test]
fn two_databases_do_not_hear_each_other() {
    let redis = Redis::without_persistence();
    let url = |database: u32| format!("{}{database}", redis.url());
    let (zero, one) = (Node::on(&url(0), "a"), Node::on(&url(1), "a"));
    let (at_zero, at_one) = (Ear::default(), Ear::default());
    at_zero.on(&zero.bus, "t");
    at_one.on(&one.bus, "t");
    for (node, word) in [(&zero, "0"), (&one, "1")] {
        node.emit(To::All, "t", format!("all of {word}").as_bytes());
        node.emit(To::Node("a"), "t", format!("a of {word}").as_bytes());
    }
    at_zero.expect(&[b"all of 0", b"a of 0"]);
    at_one.expect(&[b"all of 1", b"a of 1"]);
}
