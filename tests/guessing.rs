//! An address that only ever shows wrong keys, tokens or notify URLs waits for each answer after the tenth, and nobody else does.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::harness::line_client::hello;
use crate::harness::{Client, Home, Http, Line, Node, Program, TempDir, http};

const KEY: &str = "a-key-of-this-test";
const SECOND: Duration = Duration::from_secs(1);

struct Scene {
    _dir: TempDir,
    token: String,
    notify_url: String,
    node: Node,
}

impl Scene {
    fn new() -> Scene {
        let dir = TempDir::new();
        let file = dir.file("keys", KEY);
        let print = |what: &[&str]| {
            let exit = Program::run(&[what, &["--client-secret-file", &file]].concat());
            exit.stdout.trim().to_owned()
        };
        let (token, notify_url) = (print(&["token", "01"]), print(&["notify-url", "stripe", "01"]));
        let anywhere = ["--http", "0.0.0.0:0", "--tcp", "0.0.0.0:0"];
        let files = ["--api-keys-file", &file, "--client-secret-file", &file];
        let node = Node::with(Home::Embedded, &[&anywhere[..], &files, &["--gateways", "stripe"]].concat());
        Scene { _dir: dir, token, notify_url, node }
    }

    fn http(&self, at: IpAddr) -> SocketAddr {
        SocketAddr::new(at, self.node.http().port())
    }

    fn tcp(&self, at: IpAddr) -> SocketAddr {
        SocketAddr::new(at, self.node.tcp().port())
    }

    fn ask(&self, at: IpAddr, key: &str) -> u16 {
        let bearer = format!("Bearer {key}");
        http::request(self.http(at), "GET", "/v1/clients", &[("Authorization", &bearer)], b"").status
    }

    fn ask_at(&self, at: IpAddr, method: &str, url: &str) -> u16 {
        http::request(self.http(at), method, url, &[], b"").status
    }

    /// Says hello with a wrong token.
    fn knock(&self, at: IpAddr) {
        let mut line = Line::connect(self.tcp(at));
        line.send_line(&hello("01", r#""token":"0123456789abcdef""#));
        line.expect_error("unauthorized");
    }
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An address of this machine that is not loopback, if it has one. Nothing is sent to find it.
fn outside() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

/// From outside a guess waits; a machine that has no outside shows the other half, that one from loopback does not.
/// (That the rule holds for any address is shown beside it, in `gate` and `strangers`.)
fn guesser() -> (IpAddr, bool) {
    match outside() {
        Some(address) => (address, true),
        None => (LOOPBACK, false),
    }
}

fn took(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

#[test]
fn the_eleventh_guess_waits_a_second_until_a_right_key_is_shown() {
    let scene = Scene::new();
    let (at, waits) = guesser();
    for _ in 0..10 {
        assert_eq!(scene.ask(at, "a-wrong-key-of-this-test"), 401);
    }
    let slow = |what: &str, took: Duration| assert_eq!(took >= SECOND, waits, "{what} took {took:?}");
    slow("a key", took(|| assert_eq!(scene.ask(at, "a-wrong-key-of-this-test"), 401)));
    slow("a token", took(|| scene.knock(at)));
    // Else a guesser need not wait to see that it was wrong.
    slow("a right key", took(|| assert_eq!(scene.ask(at, KEY), 200)));
    let swift = took(|| {
        for _ in 0..20 {
            assert_eq!(scene.ask(at, "a-wrong-key-of-this-test"), 401);
            scene.knock(at);
        }
    });
    assert!(swift < 20 * SECOND, "who showed a right key waits no more: {swift:?}");
}

#[test]
fn a_notify_url_is_guessed_no_faster() {
    let scene = Scene::new();
    let (at, waits) = guesser();
    let wrong = "/v1/gateways/stripe/01/0123456789abcdef0123456789abcdef";
    // Each is a guess, and none tells what is wrong with it.
    for url in [wrong, &wrong.replace("01/", "../"), &wrong.replace("stripe", "alipay"), &wrong[..24], wrong] {
        assert_eq!((scene.ask_at(at, "POST", url), scene.ask_at(at, "GET", url)), (404, 404), "{url}");
    }
    let slow = |what: &str, took: Duration| assert_eq!(took >= SECOND, waits, "{what} took {took:?}");
    slow("a wrong URL", took(|| assert_eq!(scene.ask_at(at, "POST", wrong), 404)));
    slow("a profile that is off", took(|| assert_eq!(scene.ask_at(at, "GET", &wrong.replace("stripe", "adyen")), 404)));
    slow("a key", took(|| assert_eq!(scene.ask(at, "a-wrong-key-of-this-test"), 401)));
    slow("a right URL", took(|| assert_eq!(scene.ask_at(at, "GET", &scene.notify_url), 500)));
    let swift = took(|| (0..20).for_each(|_| assert_eq!(scene.ask_at(at, "POST", wrong), 404)));
    assert!(swift < 20 * SECOND, "who showed a right URL waits no more: {swift:?}");
}

#[test]
fn a_right_token_counts_like_a_right_key() {
    let scene = Scene::new();
    let (at, _) = guesser();
    Client::hello(scene.tcp(at), "01", &format!(r#""token":"{}""#, scene.token));
    let swift = took(|| (0..30).for_each(|_| assert_eq!(scene.ask(at, "a-wrong-key-of-this-test"), 401)));
    assert!(swift < 20 * SECOND, "{swift:?}");
}

#[test]
fn guessers_hold_up_nobody() {
    let scene = Scene::new();
    let (at, waits) = guesser();
    for _ in 0..10 {
        scene.knock(at);
    }
    let before = scene.node.threads();
    let wrong = [("Authorization", "Bearer a-wrong-key-of-this-test")];
    let mut guesses: Vec<Http> = (0..100).map(|_| Http::connect(scene.http(at))).collect();
    let begun = Instant::now();
    guesses.iter_mut().for_each(|http| http.ask("GET", "/v1/clients", &wrong, b""));
    let canary = took(|| assert_eq!(scene.ask(LOOPBACK, KEY), 200));
    assert!(!waits || canary < SECOND, "an honest sender was served in {canary:?}");
    assert!(scene.node.threads() <= before + guesses.len() + 2, "no more threads than connections");
    guesses.iter_mut().for_each(|http| drop(http.answer().expect(401)));
    // They waited side by side, not one behind the other.
    let all = begun.elapsed();
    assert!(all < 30 * SECOND && (all >= SECOND) == waits, "{all:?}");
    // A node that stops does not wait for guessers.
    guesses.iter_mut().for_each(|http| http.ask("GET", "/v1/clients", &wrong, b""));
    let exit = scene.node.terminate();
    assert_eq!(exit.code, Some(0));
    assert!(exit.took < 10 * SECOND, "{:?}", exit.took);
}

#[test]
fn loopback_never_waits() {
    let scene = Scene::new();
    let swift = took(|| {
        for _ in 0..15 {
            assert_eq!(scene.ask(LOOPBACK, "a-wrong-key-of-this-test"), 401);
            assert_eq!(scene.ask(IpAddr::from([127, 1, 2, 3]), "a-wrong-key-of-this-test"), 401);
            scene.knock(LOOPBACK);
        }
    });
    assert!(swift < 20 * SECOND, "{swift:?}");
}
