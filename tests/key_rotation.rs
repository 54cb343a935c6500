//! SIGHUP reads keys and secrets again: either is changed without a gap, and a file that is no good changes nothing.
//! A gateway's notify URLs follow the secret.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::harness::line_client::hello;
use crate::harness::node::envelope;
use crate::harness::{Client, Home, Http, Node, Program, TempDir, eventually};
use rustix::process::Signal;

const OLD: &str = "the-old-one-of-this-test";
const NEW: &str = "the-new-one-of-this-test";

struct Scene {
    dir: TempDir,
    node: Node,
}

impl Scene {
    /// A node whose files both hold [`OLD`].
    fn new() -> Scene {
        let dir = TempDir::new();
        let (keys, secrets) = (dir.file("keys", OLD), dir.file("secrets", OLD));
        let files = ["--api-keys-file", &keys, "--client-secret-file", &secrets];
        let node = Node::with(Home::Embedded, &[&files[..], &["--gateways", "stripe"]].concat());
        Scene { dir, node }
    }

    /// Writes this into a file, asks the node to read it again, and waits until it has.
    #[track_caller]
    fn change(&self, file: &str, content: &[u8]) -> String {
        fs::write(self.dir.join(file), content).expect("our own file");
        self.read_again()
    }

    /// What the log says to a SIGHUP, of both files.
    #[track_caller]
    fn read_again(&self) -> String {
        let before = self.node.log().len();
        self.node.signal(Signal::HUP);
        eventually("both files are read again", || self.node.log()[before..].matches("SIGHUP:").count() == 2);
        self.node.log()[before..].to_owned()
    }

    fn status(&self, key: &str) -> u16 {
        list(&mut self.node.http_client(), key)
    }

    /// What is said to client 01 with a token made of this secret.
    fn greeting(&self, secret: &str) -> String {
        let mut line = self.node.connect_raw();
        line.send_line(&hello("01", &token_of(secret)));
        let frame = line.expect_frame();
        frame.text("code").unwrap_or(frame.kind())
    }
}

fn list(http: &mut Http, key: &str) -> u16 {
    let bearer = format!("Bearer {key}");
    http.send("GET", "/v1/clients", &[("Authorization", &bearer)], b"").status
}

fn token_of(secret: &str) -> String {
    let dir = TempDir::new();
    let exit = Program::run(&["token", "01", "--client-secret-file", &dir.file("secret", secret)]);
    format!(r#""token":"{}""#, exit.stdout.trim())
}

/// The path that a gateway is given for client 01 while this file is the node's.
fn notify_url(secrets: &str) -> String {
    Program::run(&["notify-url", "stripe", "01", "--client-secret-file", secrets]).stdout.trim().to_owned()
}

/// Whether it leads somewhere, asked without a body, so that the connection stays open.
fn is_right(http: &mut Http, url: &str) -> bool {
    http.send("GET", url, &[], b"").status != 404
}

/// A sender that goes on posting under one key; it ends with what it was told that was no 202.
struct Sender {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u16>>,
}

impl Sender {
    fn start(node: &Node, key: &'static str) -> Sender {
        let (stop, mut http) = (Arc::new(AtomicBool::new(false)), node.http_client());
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let bearer = format!("Bearer {key}");
            let headers = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
            let body = envelope("02", "1", None);
            let mut wrong = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let status = http.send("POST", "/v1/payments", &headers, body.as_bytes()).status;
                wrong.extend(Some(status).filter(|&status| status != 202));
            }
            wrong
        });
        Sender { stop, thread }
    }

    #[track_caller]
    fn expect_content(self) {
        self.stop.store(true, Ordering::Relaxed);
        let wrong = self.thread.join().expect("a sender");
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

#[test]
fn an_api_key_is_changed_without_a_gap() {
    let scene = Scene::new();
    assert_eq!((scene.status(OLD), scene.status(NEW)), (200, 401));
    let old = Sender::start(&scene.node, OLD);
    // A connection that is open now, and stays so: each of its requests is judged by its key.
    let mut open = scene.node.http_client();
    assert_eq!(list(&mut open, OLD), 200);

    let said = scene.change("keys", format!("{NEW}\n{OLD}\n").as_bytes());
    assert!(said.contains("API keys read again") && said.contains(": 2 in force"), "{said}");
    let new = Sender::start(&scene.node, NEW);
    for _ in 0..10 {
        scene.read_again();
    }
    assert_eq!((scene.status(OLD), scene.status(NEW)), (200, 200));
    old.expect_content();

    scene.change("keys", NEW.as_bytes());
    assert_eq!((scene.status(OLD), scene.status(NEW)), (401, 200));
    assert_eq!((list(&mut open, OLD), list(&mut open, NEW)), (401, 200));
    new.expect_content();
}

#[test]
fn what_a_key_may_do_is_changed_too() {
    let scene = Scene::new();
    scene.change("keys", format!("{OLD} send").as_bytes());
    assert_eq!(scene.status(OLD), 403);
    scene.change("keys", format!("{OLD} read").as_bytes());
    assert_eq!(scene.status(OLD), 200);
}

#[test]
fn a_client_secret_is_changed_without_a_gap() {
    let scene = Scene::new();
    let mut till = Client::hello(scene.node.tcp(), "till", &till_token(OLD));
    assert_eq!((scene.greeting(OLD).as_str(), scene.greeting(NEW).as_str()), ("welcome", "unauthorized"));
    let said = scene.change("secrets", format!("{NEW}\n{OLD}\n").as_bytes());
    assert!(said.contains("client secrets read again") && said.contains(": 2 in force"), "{said}");
    assert_eq!((scene.greeting(OLD).as_str(), scene.greeting(NEW).as_str()), ("welcome", "welcome"));
    scene.change("secrets", NEW.as_bytes());
    assert_eq!((scene.greeting(OLD).as_str(), scene.greeting(NEW).as_str()), ("unauthorized", "welcome"));
    // Who is connected stays so, whatever its token was made of.
    let bearer = format!("Bearer {OLD}");
    let headers = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    scene.node.request("POST", "/v1/payments", &headers, envelope("till", "1", None).as_bytes()).expect(202);
    till.expect_payment(1, "1");
}

fn till_token(secret: &str) -> String {
    let dir = TempDir::new();
    let exit = Program::run(&["token", "till", "--client-secret-file", &dir.file("secret", secret)]);
    format!(r#""token":"{}""#, exit.stdout.trim())
}

#[test]
fn notify_urls_follow_the_client_secret() {
    let scene = Scene::new();
    let mut open = scene.node.http_client();
    let secrets = scene.dir.join("secrets").display().to_string();
    let old = notify_url(&secrets);
    let new = notify_url(&TempDir::new().file("secrets", NEW));
    assert_ne!(old, new);
    let notify = |url: &str| scene.node.request("POST", url, &[], b"{\"id\":\"evt_1\"}").status;
    let mut expect = |of_old: u16, of_new: u16| {
        assert_eq!((notify(&old), notify(&new)), (of_old, of_new));
        // On a connection that was open all the time it is the same.
        assert_eq!((is_right(&mut open, &old), is_right(&mut open, &new)), (of_old == 200, of_new == 200));
    };
    expect(200, 404);
    scene.change("secrets", format!("{NEW}\n{OLD}\n").as_bytes());
    assert_eq!(notify_url(&secrets), new, "the first secret makes URLs");
    expect(200, 200);
    scene.change("secrets", b"hunter2");
    expect(200, 200);
    scene.change("secrets", NEW.as_bytes());
    expect(404, 200);
}

#[test]
fn a_file_that_is_no_good_leaves_the_old_in_force() {
    let scene = Scene::new();
    let long = "x".repeat(600);
    let bad: [(&str, &[u8], &str); 9] = [
        ("keys", b"", "no line to use"),
        ("keys", b"# nothing\n\n", "no line to use"),
        ("keys", b"the-new-one-of-this-test\nhunter2\n", "line 2: shorter than 16"),
        ("keys", b"the-new-one-of-this-test reed\n", "line 1: behind the API key"),
        ("keys", b"the-new-one-of-this-test\xff\n", "not a text file"),
        ("keys", long.as_bytes(), "longer than 512"),
        ("secrets", b"", "no line to use"),
        ("secrets", b"the-new-one-of-this-test\nhunter2", "line 2: shorter than 16"),
        ("secrets", b"\xff\xfe", "not a text file"),
    ];
    let expect_old = || {
        assert_eq!((scene.status(OLD), scene.status(NEW)), (200, 401));
        assert_eq!((scene.greeting(OLD).as_str(), scene.greeting(NEW).as_str()), ("welcome", "unauthorized"));
    };
    for (file, content, says) in bad {
        let said = scene.change(file, content);
        let line = said.lines().find(|line| line.contains("ERROR")).unwrap_or_else(|| panic!("no error: {said}"));
        assert!(line.contains(says) && line.contains("stay in force"), "{line}");
        assert!(line.contains(scene.dir.join(file).to_str().expect("UTF-8")), "it names the file: {line}");
        assert!(!said.contains("hunter2") && !said.contains(NEW), "it shows no secret: {said}");
        expect_old();
        fs::write(scene.dir.join(file), OLD).expect("our own file");
    }
    for file in ["keys", "secrets"] {
        fs::remove_file(scene.dir.join(file)).expect("our own file");
    }
    let said = scene.read_again();
    assert_eq!(said.matches("cannot read the").count(), 2, "{said}");
    expect_old();
    // One that is good again is taken, whatever the other is.
    scene.change("keys", NEW.as_bytes());
    assert_eq!((scene.status(OLD), scene.status(NEW)), (401, 200));
    assert_eq!(scene.greeting(OLD), "welcome");
}

#[test]
fn a_node_without_files_survives_a_sighup() {
    let node = Node::start(Home::Embedded);
    node.signal(Signal::HUP);
    node.expect_log("there is no file of keys or secrets to read again");
    node.get("/v1/clients").expect(200);
    assert_eq!(node.terminate().code, Some(0));
}

#[test]
fn a_file_that_never_ends_holds_nobody_up() {
    let scene = Scene::new();
    let keys = scene.dir.join("keys");
    fs::remove_file(&keys).expect("our own file");
    // Opening a pipe waits until somebody writes into it.
    assert!(Command::new("mkfifo").arg(&keys).status().expect("mkfifo").success());
    for _ in 0..3 {
        scene.node.signal(Signal::HUP);
    }
    assert_eq!((scene.status(OLD), scene.greeting(OLD).as_str()), (200, "welcome"));
    assert_eq!(scene.node.terminate().code, Some(0));
}
