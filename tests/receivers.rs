//! Every receiver in scripts/clients does each payment once, in order, and then acknowledges it, whatever is killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::iter;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::node::{JSON, envelope};
use crate::harness::{
    Exit, Home, Http, Mode, Node, PATIENCE, Program, Proxy, QUIET, READ_LIMIT, TempDir, Way, eventually,
    eventually_some, free_port, json, on_both_inboxes, pause,
};

/// What a receiver is run with.
struct Receiver {
    name: &'static str,
    /// Before the address in `--tcp`.
    framing: &'static str,
    /// The beginning of its command line, or what this machine lacks.
    command: fn(&TempDir) -> Result<Vec<String>, &'static str>,
}

const LUA: Receiver = Receiver { name: "lua", framing: "", command: |_| in_lua(&["scripts/clients/receiver.lua"]) };
const SKYNET: Receiver = Receiver {
    name: "skynet",
    framing: "u16be@",
    command: |_| in_lua(&["tests/receivers/skynet_shim.lua", "scripts/clients/skynet_receiver.lua"]),
};
const PYTHON: Receiver = Receiver {
    name: "python",
    framing: "",
    command: |_| interpreter(&["python3"], &["-c", ""], &["scripts/clients/receiver.py"]).ok_or("python3"),
};
const NODE_JS: Receiver = Receiver {
    name: "node_js",
    framing: "",
    command: |_| interpreter(&["node", "nodejs"], &["-e", ""], &["scripts/clients/receiver.js"]).ok_or("node"),
};
const C: Receiver = Receiver { name: "c", framing: "", command: compiled };

fn in_lua(scripts: &[&str]) -> Result<Vec<String>, &'static str> {
    // 5.3 at least, for skynet's string.pack.
    let check = ["-e", r#"require "socket"; assert(string.pack)"#];
    interpreter(&["lua5.4", "lua5.3", "lua"], &check, scripts).ok_or("lua5.4 with lua-socket")
}

/// The first of these programs that runs `check`, told to run these scripts.
fn interpreter(names: &[&str], check: &[&str], scripts: &[&str]) -> Option<Vec<String>> {
    let name = names.iter().find(|name| Command::new(name).args(check).output().is_ok_and(|o| o.status.success()))?;
    let scripts = scripts.iter().map(|script| in_repository(script));
    Some(iter::once((*name).to_owned()).chain(scripts).collect())
}

fn compiled(dir: &TempDir) -> Result<Vec<String>, &'static str> {
    let program = dir.join("receiver").to_str().expect("a path of UTF-8").to_owned();
    let source = in_repository("scripts/clients/receiver.c");
    let made = Command::new("cc").args(["-O2", "-Wall", "-Wextra", "-o", &program, &source]).output();
    let made = made.map_err(|_| "cc")?;
    assert!(made.status.success(), "cc refuses receiver.c: {}", String::from_utf8_lossy(&made.stderr));
    Ok(vec![program])
}

fn in_repository(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// A receiver that this machine can run, with a directory for what it remembers.
struct Runnable {
    command: Vec<String>,
    dir: TempDir,
    port: u16,
}

impl Runnable {
    /// Says so in the test's output where this machine cannot run it.
    fn find(receiver: &Receiver, port: u16) -> Option<Runnable> {
        let dir = TempDir::new();
        match (receiver.command)(&dir) {
            Ok(command) => Some(Runnable { command, dir, port }),
            Err(lacking) => {
                // Not by a macro: the output of a test that passes would not be shown.
                let name = receiver.name;
                let _ = writeln!(io::stderr(), "skipped: the {name} receiver, for this machine has no {lacking}");
                None
            }
        }
    }

    /// It remembers in the file of this name.
    fn command(&self, state: &str, token: Option<&str>) -> Command {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).args(["127.0.0.1", &self.port.to_string(), "01"]).arg(self.dir.join(state));
        match token {
            Some(token) => command.env("PAYRELAY_TOKEN", token),
            None => command.env_remove("PAYRELAY_TOKEN"),
        };
        command
    }

    fn start(&self, token: Option<&str>) -> Program {
        Program::spawn(self.command("state", token), None)
    }

    /// Another one of the same client id, on another machine as it were.
    fn start_stranger(&self, token: Option<&str>) -> Program {
        Program::spawn(self.command("state-of-a-stranger", token), None)
    }

    /// Whether it has noted that it did this payment.
    fn remembers(&self, payment: &Printed) -> bool {
        let file = fs::read(self.dir.join("state")).unwrap_or_default();
        let record = format!(" {} {} ", payment.seq, payment.accepted_at);
        file.windows(record.len()).any(|window| window == record.as_bytes())
    }
}

/// One line that a receiver printed.
#[derive(Debug, PartialEq, Eq)]
struct Printed {
    seq: u64,
    accepted_at: u64,
    msg: String,
}

impl Printed {
    fn all(output: &str) -> Vec<Printed> {
        output.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(Printed::parse).collect()
    }

    fn parse(line: &str) -> Printed {
        let mut fields: BTreeMap<_, _> = json::fields(line).expect("a line of JSON").into_iter().collect();
        let mut field = |name: &str| fields.remove(name).unwrap_or_else(|| panic!("no {name}: {line}"));
        let mut number = |name: &str| field(name).parse().expect("a number");
        Printed { seq: number("seq"), accepted_at: number("accepted_at"), msg: field("msg") }
    }
}

/// Kills it as a crash would, and tells all that it printed.
fn killed(mut program: Program) -> Exit {
    program.kill();
    program.wait()
}

// --- With a node of our own that says what the test wants.

/// Stands where a node would.
struct Peer {
    listener: TcpListener,
    framing: &'static str,
}

/// One connection to it.
struct Link {
    stream: TcpStream,
    framing: &'static str,
}

impl Peer {
    fn for_receiver(receiver: &Receiver) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket option");
        Peer { listener, framing: receiver.framing }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("its address").port()
    }

    /// The next connection, its hello heard.
    #[track_caller]
    fn connection(&self) -> Link {
        let (stream, _) = eventually_some("the receiver connects", || self.listener.accept().ok());
        stream.set_nonblocking(false).expect("a socket option");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(READ_LIMIT)).expect("a socket option");
        stream.set_write_timeout(Some(READ_LIMIT)).expect("a socket option");
        let mut link = Link { stream, framing: self.framing };
        assert_eq!(link.hear(), r#"{"type":"hello","client":"01"}"#);
        link
    }

    /// The same, and welcomed.
    #[track_caller]
    fn welcomed(&self, epoch: u64, heartbeat: u64) -> Link {
        let mut link = self.connection();
        link.say(&format!(
            r#"{{"type":"welcome","client":"01","node":"n1","epoch":{epoch},"acked":0,"pending":1,"heartbeat":{heartbeat},"window":256}}"#
        ));
        link
    }
}

impl Link {
    fn say(&mut self, frame: &str) {
        let bytes = match self.framing {
            "" => format!("{frame}\n").into_bytes(),
            _ => {
                let length = u16::try_from(frame.len()).expect("a short frame");
                [&length.to_be_bytes(), frame.as_bytes()].concat()
            }
        };
        // In pieces, as networks do: the first ends within the length or the first word.
        for piece in [&bytes[..1], &bytes[1..8], &bytes[8..]] {
            self.stream.write_all(piece).expect("the receiver takes it");
        }
    }

    fn try_hear(&mut self) -> io::Result<String> {
        let mut frame = Vec::new();
        if self.framing.is_empty() {
            let mut byte = [0];
            loop {
                self.stream.read_exact(&mut byte)?;
                match byte {
                    [b'\n'] => break,
                    [other] => frame.push(other),
                }
            }
        } else {
            let mut length = [0; 2];
            self.stream.read_exact(&mut length)?;
            frame.resize(usize::from(u16::from_be_bytes(length)), 0);
            self.stream.read_exact(&mut frame)?;
        }
        // Where spaces stand in its JSON is the receiver's own affair.
        Ok(json::tokens(&String::from_utf8(frame).expect("UTF-8")))
    }

    #[track_caller]
    fn hear(&mut self) -> String {
        self.try_hear().expect("the receiver says something")
    }

    /// The next thing but pings, which a receiver may send when it likes.
    #[track_caller]
    fn hear_but_pings(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let frame = self.hear();
            if frame != PING {
                return frame;
            }
            assert!(Instant::now() < deadline, "the receiver says nothing but pings");
        }
    }

    #[track_caller]
    fn expect_ack(&mut self, seq: u64) {
        assert_eq!(self.hear_but_pings(), format!(r#"{{"type":"ack","seq":{seq}}}"#));
    }

    fn pay(&mut self, seq: u64, accepted_at: u64, msg: &str) {
        self.say(&format!(
            r#"{{"type":"payment","seq":{seq},"channel":"payments","accepted_at":{accepted_at},"msg":{msg}}}"#
        ));
    }

    /// Fails if the receiver says anything within [`QUIET`].
    #[track_caller]
    fn expect_quiet(&mut self) {
        self.stream.set_read_timeout(Some(QUIET)).expect("a socket option");
        let heard = self.try_hear();
        self.stream.set_read_timeout(Some(READ_LIMIT)).expect("a socket option");
        let silent = |e: &io::Error| matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        assert!(heard.as_ref().is_err_and(silent), "quiet was expected: {heard:?}");
    }
}

const PING: &str = r#"{"type":"ping"}"#;

/// Turns functions that take a [`Receiver`] into tests, one for each receiver.
macro_rules! for_every_receiver {
    ($($name:ident),+ $(,)?) => {
        mod lua { $( #[test] fn $name() { super::$name(&super::LUA); } )+ }
        mod skynet { $( #[test] fn $name() { super::$name(&super::SKYNET); } )+ }
        mod python { $( #[test] fn $name() { super::$name(&super::PYTHON); } )+ }
        mod node_js { $( #[test] fn $name() { super::$name(&super::NODE_JS); } )+ }
        mod c { $( #[test] fn $name() { super::$name(&super::C); } )+ }
    };
}

for_every_receiver!(
    knows_a_repeat_by_epoch_seq_and_accepted_at,
    acknowledges_only_after_the_work,
    leaves_a_silent_server,
    ends_where_it_shall_not_come_again,
);

fn knows_a_repeat_by_epoch_seq_and_accepted_at(receiver: &Receiver) {
    let peer = Peer::for_receiver(receiver);
    let Some(runnable) = Runnable::find(receiver, peer.port()) else { return };
    let first = runnable.start(None);

    let mut link = peer.welcomed(7, 30);
    link.pay(1, 100, "1");
    link.expect_ack(1);
    link.say(PING);
    assert_eq!(link.hear_but_pings(), r#"{"type":"pong"}"#);
    drop(link);

    let mut link = peer.welcomed(7, 30);
    link.pay(1, 100, r#""a repeat""#);
    link.expect_ack(1);
    link.pay(1, 101, "2");
    link.expect_ack(1);
    link.say(r#"{"type":"news","of":"a later version"}"#);
    drop(link);

    let mut link = peer.welcomed(8, 30);
    link.pay(1, 101, "3");
    link.expect_ack(1);
    let before = killed(first);

    let second = runnable.start(None);
    let mut link = peer.welcomed(8, 30);
    link.pay(1, 101, r#""a repeat""#);
    link.expect_ack(1);
    link.pay(2, 102, "4");
    link.expect_ack(2);
    let after = killed(second);

    let printed = Printed::all(&format!("{}{}", before.stdout, after.stdout));
    let printed: Vec<_> = printed.iter().map(|p| (p.seq, p.accepted_at, p.msg.as_str())).collect();
    assert_eq!(printed, [(1, 100, "1"), (1, 101, "2"), (1, 101, "3"), (2, 102, "4")]);
}

/// A child that is killed when it is dropped.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn acknowledges_only_after_the_work(receiver: &Receiver) {
    let peer = Peer::for_receiver(receiver);
    let Some(runnable) = Runnable::find(receiver, peer.port()) else { return };
    let mut command = runnable.command("state", None);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = Guarded(child.expect("the receiver"));
    let mut output = child.0.stdout.take().expect("a pipe");

    // A pipe holds 64 KiB: one of these can be printed, and the second only once we read.
    let long = format!("{:?}", "x".repeat(48 << 10));
    let mut link = peer.welcomed(7, 30);
    link.pay(1, 100, &long);
    link.expect_ack(1);
    link.pay(2, 101, &long);
    link.expect_quiet();
    let printed = thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    link.expect_ack(2);
    drop(child);
    let printed = Printed::all(&printed.join().expect("a reader").expect("what it printed"));
    assert_eq!(printed.iter().map(|p| p.seq).collect::<Vec<_>>(), [1, 2]);
    assert!(printed.iter().all(|p| p.msg == long));
}

fn leaves_a_silent_server(receiver: &Receiver) {
    let peer = Peer::for_receiver(receiver);
    let Some(runnable) = Runnable::find(receiver, peer.port()) else { return };
    let _program = runnable.start(None);
    let mut link = peer.welcomed(7, 1);
    // It asks whether the server is there, but not for ever.
    for _ in 0..2 {
        assert_eq!(link.hear(), PING);
    }
    let more = (0..4).take_while(|_| link.try_hear().is_ok_and(|frame| frame == PING)).count();
    assert!(more < 4, "it hangs on to a server that says nothing");
    peer.connection();
}

fn ends_where_it_shall_not_come_again(receiver: &Receiver) {
    for code in ["replaced", "unauthorized"] {
        let peer = Peer::for_receiver(receiver);
        let Some(runnable) = Runnable::find(receiver, peer.port()) else { return };
        let program = runnable.start(None);
        // It comes again after an error that passes.
        peer.connection().say(r#"{"type":"error","code":"shutting_down","message":"this node is stopping"}"#);
        peer.connection().say(&format!(r#"{{"type":"error","code":"{code}","message":"no"}}"#));
        let exit = program.wait();
        assert_eq!(exit.code, Some(1), "{}", exit.stderr);
        assert!(exit.stderr.contains(code), "it says why: {}", exit.stderr);
        assert!(peer.listener.accept().is_err(), "it does not come again");
    }
}

// --- With a real node.

on_both_inboxes!(lua, skynet, python, node_js, c);

fn lua(home: Home) {
    does_every_payment_once_through_kills(&LUA, home);
}

fn skynet(home: Home) {
    does_every_payment_once_through_kills(&SKYNET, home);
}

fn python(home: Home) {
    does_every_payment_once_through_kills(&PYTHON, home);
}

fn node_js(home: Home) {
    does_every_payment_once_through_kills(&NODE_JS, home);
}

fn c(home: Home) {
    does_every_payment_once_through_kills(&C, home);
}

/// Posts payments with ids, each again until it is known to be stored, and notes what was accepted.
struct Sender {
    http: SocketAddr,
    /// The longest text that its payments have.
    longest: usize,
    connection: Mutex<Option<Http>>,
    /// By seq.
    accepted: Mutex<BTreeMap<u64, String>>,
}

impl Sender {
    fn new(http: SocketAddr, longest: usize) -> Sender {
        Sender { http, longest, connection: Mutex::default(), accepted: Mutex::default() }
    }

    fn count(&self) -> usize {
        self.accepted.lock().expect("no sender has failed").len()
    }

    fn post(&self) {
        let n = self.count();
        // What a scanner could take for a field, what a parser could round, and now and then a long one.
        let length = if n % 40 == 20 { self.longest } else { n };
        let long = "x".repeat(length);
        let msg =
            format!(r#"{{"accepted_at":1,"text":"\",\"seq\":9,\"accepted_at\":2","amount":10.00,"{n}":"{long}"}}"#);
        let body = envelope("01", &msg, Some(&format!("wx-{n}")));
        let answer = eventually_some("a payment is accepted", || self.try_post(&body));
        let earlier = self.accepted.lock().expect("no sender has failed").insert(answer, msg);
        assert_eq!(earlier, None, "seq {answer} was given once");
    }

    fn try_post(&self, body: &str) -> Option<u64> {
        let mut connection = self.connection.lock().expect("no sender has failed");
        let mut http = connection.take().or_else(|| Http::try_connect(self.http).ok())?;
        let answer = http.try_send("POST", "/v1/payments", &[JSON], body.as_bytes()).ok()?;
        *connection = Some(http);
        answer.is_success().then(|| answer.seq())
    }

    /// Goes on until `stop` is set; with a pause after each, for the receivers are to keep up.
    fn post_until(&self, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            self.post();
            thread::sleep(Duration::from_millis(5));
        }
    }
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn does_every_payment_once_through_kills(receiver: &Receiver, home: Home) {
    let (http, tcp) = (free_port(), free_port());
    let proxy = Proxy::to(tcp);
    let Some(runnable) = Runnable::find(receiver, proxy.port()) else { return };
    let secret = runnable.dir.file("secret", "a-secret-of-this-test\n");
    let token = Program::run(&["token", "01", "--client-secret-file", &secret]).stdout;
    let token = Some(token.trim());
    let (http, tcp) = (format!("127.0.0.1:{http}"), format!("{}127.0.0.1:{tcp}", receiver.framing));
    let node = Node::with(home, &["--http", &http, "--tcp", &tcp, "--client-secret-file", &secret]);
    // A packet of u16be holds no more than 64 KiB.
    let longest = if receiver.framing == "u16be@" { 60 << 10 } else { 200 << 10 };
    let sender = Sender::new(node.http(), longest);

    // The node is killed while payments come in.
    let first = runnable.start(token);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| sender.post_until(&stop));
        expect_printed(&first, 30);
        node.kill();
        node.restart();
        let before = printed_by(&first);
        expect_printed(&first, before + 30);
    });
    expect_nothing_pending(&node);

    // What it did is done, and its acknowledgements are on the way for ever: then both are killed.
    proxy.set(Way::Up, Mode::Swallow);
    (0..5).for_each(|_| sender.post());
    expect_printed(&first, sender.count());
    let last = Printed::all(&first.stdout()).pop().expect("payments were printed");
    eventually("it has noted what it did", || runnable.remembers(&last));
    assert_eq!(node.about("01")["pending"], 5);
    let first = killed(first);
    node.restart();

    // So all five come again, to a receiver that has to know them.
    proxy.set(Way::Up, Mode::Pass);
    let second = runnable.start(token);
    (0..5).for_each(|_| sender.post());
    expect_nothing_pending(&node);

    // A second one of the same name throws it out; one with a wrong token is not let in.
    let stranger = runnable.start_stranger(token);
    let second = second.wait();
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("replaced"), "{}", second.stderr);
    let refused = runnable.start_stranger(Some("no token")).wait();
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("unauthorized"), "{}", refused.stderr);
    assert_eq!(killed(stranger).stdout, "", "nothing was left for it");

    let printed = Printed::all(&format!("{}{}", first.stdout, second.stdout));
    let printed: Vec<_> = printed.into_iter().map(|p| (p.seq, p.msg)).collect();
    let accepted: Vec<_> = sender.accepted.into_inner().expect("no sender has failed").into_iter().collect();
    assert!(accepted.iter().map(|(seq, _)| *seq).eq(1..=accepted.len() as u64), "numbers without gaps");
    assert_eq!(printed, accepted, "every payment once, in order, as it was sent");
}

#[track_caller]
fn expect_printed(receiver: &Program, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while printed_by(receiver) < count {
        let printed = printed_by(receiver);
        assert!(Instant::now() < deadline, "{printed} of {count} payments are printed:\n{}", receiver.stderr());
        pause();
    }
}

fn printed_by(receiver: &Program) -> usize {
    receiver.stdout().matches('\n').count()
}

#[track_caller]
fn expect_nothing_pending(node: &Node) {
    eventually("everything is acknowledged", || node.about("01")["pending"] == 0);
}
