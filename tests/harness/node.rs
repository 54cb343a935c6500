//! A real `payrelay` process of the test's own, its log kept for the failure message.

use std::net::SocketAddr;
use std::ops::Index;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::Value;

use super::program::lock;
use super::{Answer, Client, Exit, Framing, Http, Line, PATIENCE, Program, Redis, TempDir, eventually, http, pause};

/// Where a node keeps its inboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// In its data directory.
    Embedded,
    /// In a Redis that the node has for itself.
    Redis,
}

/// One node: a `payrelay serve` on free ports.
#[derive(Debug)]
pub struct Node {
    name: String,
    args: Vec<String>,
    env: &'static [(&'static str, &'static str)],
    running: Mutex<Running>,
    /// The logs of its earlier lives.
    earlier: Mutex<String>,
    /// After the process, so that it is dropped later.
    redis: Option<Arc<Redis>>,
    _dir: Arc<TempDir>,
}

#[derive(Debug)]
struct Running {
    program: Program,
    http: SocketAddr,
    tcp: Vec<(Framing, SocketAddr)>,
}

/// Several nodes, n1 and on, over one Redis.
#[derive(Debug)]
pub struct Deployment {
    pub nodes: Vec<Node>,
    pub redis: Arc<Redis>,
}

impl Node {
    /// A node that is ready, with its inboxes at `home`.
    #[track_caller]
    pub fn start(home: Home) -> Node {
        Node::with(home, &[])
    }

    /// The same with further flags.
    #[track_caller]
    pub fn with(home: Home, args: &[&str]) -> Node {
        match home {
            Home::Embedded => Node::embedded(args),
            Home::Redis => Node::on(&Redis::start(), "n1", args),
        }
    }

    #[track_caller]
    fn embedded(args: &[&str]) -> Node {
        let dir = Arc::new(TempDir::new());
        let data = dir.join("data").to_str().expect("a path of UTF-8").to_owned();
        let mut all = vec!["--data-dir", &data];
        all.extend_from_slice(args);
        let node = Node::launch("n1", &all, &[], None, dir);
        node.expect_ready();
        node
    }

    /// A node that logs everything there is, embedded or over a Redis under this address; it need not become ready.
    #[track_caller]
    pub fn talkative(redis: Option<(&Arc<Redis>, &str)>, args: &[&str]) -> Node {
        let dir = Arc::new(TempDir::new());
        let data = dir.join("data").to_str().expect("a path of UTF-8").to_owned();
        let mut all = match redis {
            Some((_, url)) => vec!["--redis", url],
            None => vec!["--data-dir", &data],
        };
        all.extend_from_slice(args);
        let redis = redis.map(|(redis, _)| Arc::clone(redis));
        Node::launch("n1", &all, &[("RUST_LOG", "trace")], redis, dir)
    }

    /// A node over this Redis; ready.
    #[track_caller]
    pub fn on(redis: &Arc<Redis>, name: &str, args: &[&str]) -> Node {
        let node = Node::on_url(redis, &redis.url(), name, args);
        node.expect_ready();
        node
    }

    /// A node that reaches its Redis under another address (a proxy's), and need not become ready.
    #[track_caller]
    pub fn on_url(redis: &Arc<Redis>, url: &str, name: &str, args: &[&str]) -> Node {
        let mut all = vec!["--redis", url];
        all.extend_from_slice(args);
        Node::launch(name, &all, &[], Some(Arc::clone(redis)), Arc::new(TempDir::new()))
    }

    #[track_caller]
    fn launch(
        name: &str,
        args: &[&str],
        env: &'static [(&'static str, &'static str)],
        redis: Option<Arc<Redis>>,
        dir: Arc<TempDir>,
    ) -> Node {
        let mut all = vec!["serve", "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--node", name];
        // A test may name another address.
        if args.contains(&"--http") {
            all.drain(1..3);
        }
        if args.contains(&"--tcp") {
            let at = all.iter().position(|&arg| arg == "--tcp").expect("just written");
            all.drain(at..at + 2);
        }
        all.extend_from_slice(args);
        let args: Vec<String> = all.iter().map(|&arg| arg.to_owned()).collect();
        let running = Running::start(&args, env);
        Node {
            name: name.to_owned(),
            args,
            env,
            running: Mutex::new(running),
            earlier: Mutex::default(),
            redis,
            _dir: dir,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn http(&self) -> SocketAddr {
        lock(&self.running).http
    }

    pub fn tcp(&self) -> SocketAddr {
        lock(&self.running).tcp[0].1
    }

    /// Where this framing is spoken.
    pub fn tcp_in(&self, framing: Framing) -> SocketAddr {
        let running = lock(&self.running);
        let found = running.tcp.iter().find(|(spoken, _)| *spoken == framing);
        found.unwrap_or_else(|| panic!("node {} does not speak {framing:?}", self.name)).1
    }

    pub fn http_url(&self) -> String {
        format!("http://{}", self.http())
    }

    /// The Redis that it was started on.
    pub fn redis(&self) -> &Arc<Redis> {
        self.redis.as_ref().expect("a node over Redis")
    }

    pub fn log(&self) -> String {
        lock(&self.running).program.stderr()
    }

    #[track_caller]
    pub fn expect_log(&self, text: &str) {
        eventually(&format!("the log says {text:?}"), || self.log().contains(text));
    }

    /// Waits until it accepts payments.
    #[track_caller]
    pub fn expect_ready(&self) {
        eventually("the node is ready", || self.is_ready());
    }

    pub fn is_ready(&self) -> bool {
        let asked = Http::try_connect(self.http()).and_then(|mut h| h.try_send("GET", "/readyz", &[], b""));
        asked.is_ok_and(|answer| answer.status == 200)
    }

    /// Kills it as a crash would (SIGKILL).
    pub fn kill(&self) {
        lock(&self.running).program.kill();
    }

    /// The same node again: same name, same inboxes, other ports. What still runs is killed.
    #[track_caller]
    pub fn restart(&self) {
        self.kill();
        lock(&self.earlier).push_str(&format!("{}--- restarted\n", self.log()));
        let next = Running::start(&self.args, self.env);
        *lock(&self.running) = next;
        self.expect_ready();
    }

    /// Asks it to stop (SIGTERM) and waits for the end.
    #[track_caller]
    pub fn terminate(&self) -> Exit {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits until the process has ended by itself.
    #[track_caller]
    pub fn wait(&self) -> Exit {
        let start = Instant::now();
        let status = lock(&self.running).program.wait_within(PATIENCE);
        Exit { code: status.code(), stdout: String::new(), stderr: self.log(), took: start.elapsed() }
    }

    pub fn has_ended(&self) -> bool {
        lock(&self.running).program.has_ended()
    }

    pub fn signal(&self, signal: Signal) {
        lock(&self.running).program.signal(signal);
    }

    /// Runs as this user, under limits that a shell sets, which hold for it as for any service. Its inboxes must be where that user may write.
    #[track_caller]
    pub fn under_user(uid: u32, limits: &str, args: &[&str], redis: Option<Arc<Redis>>, dir: Arc<TempDir>) -> Node {
        let program = dir.join("payrelay");
        // Not by this process: what another test starts meanwhile would hold the copy open for writing, and it could not run.
        let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_payrelay")).arg(&program).status();
        assert!(copied.expect("cp runs").success(), "a copy that this user may run");
        let args = ["serve", "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0", "--node", "n1"].iter().chain(args);
        let args: Vec<String> = args.map(|&arg| arg.to_owned()).collect();
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")]).arg(&program).args(&args);
        command.env_remove("RUST_LOG").current_dir("/");
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        let running = Running::of(Program::spawn(command, None), &args);
        let node = Node {
            name: "n1".to_owned(),
            args,
            env: &[],
            running: Mutex::new(running),
            earlier: Mutex::default(),
            redis,
            _dir: dir,
        };
        node.expect_ready();
        node
    }

    /// How many descriptors its process has open.
    pub fn descriptors(&self) -> usize {
        self.count_in_proc("fd")
    }

    /// Lets the process have at most so many descriptors from now on; what it has, it keeps.
    pub fn limit_descriptors(&self, most: usize) {
        self.limit(Resource::Nofile, most);
    }

    /// Lets it have at most so much of something from now on; what it has, it keeps.
    pub fn limit(&self, resource: Resource, most: usize) {
        let pid = i32::try_from(lock(&self.running).program.pid()).ok().and_then(rustix::process::Pid::from_raw);
        let most = u64::try_from(most).expect("a small number");
        let limit = Rlimit { current: Some(most), maximum: getrlimit(resource).maximum };
        prlimit(pid, resource, limit).expect("our own child");
    }

    /// The processor time that it has taken.
    pub fn cpu_time(&self) -> Duration {
        let stat = self.read_in_proc("stat");
        // Behind the name, which may hold blanks: the twelfth and thirteenth field there, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields[field].parse::<u64>().expect("a number");
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }

    /// The bytes of memory that it has.
    pub fn memory(&self) -> usize {
        let status = self.read_in_proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a living process");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    }

    fn read_in_proc(&self, what: &str) -> String {
        let path = format!("/proc/{}/{what}", lock(&self.running).program.pid());
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// How many threads its process has.
    pub fn threads(&self) -> usize {
        self.count_in_proc("task")
    }

    fn count_in_proc(&self, what: &str) -> usize {
        let path = format!("/proc/{}/{what}", lock(&self.running).program.pid());
        std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{path}: {e}")).count()
    }

    /// How much memory its process has, in KiB.
    pub fn memory_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", lock(&self.running).program.pid());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = rss.and_then(|rss| rss.trim().strip_suffix(" kB")?.parse().ok());
        kib.unwrap_or_else(|| panic!("no VmRSS in {path}"))
    }

    /// Freezes it.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// A client that has said hello and was welcomed.
    #[track_caller]
    pub fn client(&self, id: &str) -> Client {
        Client::hello(self.tcp(), id, "")
    }

    /// The same with further fields in the hello, such as `"window":2`.
    #[track_caller]
    pub fn client_with(&self, id: &str, extra: &str) -> Client {
        Client::hello(self.tcp(), id, extra)
    }

    /// A client that speaks this framing, was welcomed, and said these further fields in its hello.
    #[track_caller]
    pub fn client_in(&self, framing: Framing, id: &str, extra: &str) -> Client {
        Client::hello_on(self.connect_in(framing), id, extra)
    }

    /// A connection that speaks this framing and has said nothing yet.
    #[track_caller]
    pub fn connect_in(&self, framing: Framing) -> Line {
        Line::connect(self.tcp_in(framing)).speaking(framing)
    }

    /// A connection to the TCP port that has said nothing yet.
    #[track_caller]
    pub fn connect_raw(&self) -> Line {
        Line::connect(self.tcp())
    }

    /// A connection to the HTTP port, kept alive.
    #[track_caller]
    pub fn http_client(&self) -> Http {
        Http::connect(self.http())
    }

    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        http::request(self.http(), method, path, headers, body)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], b"")
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path, &[], b"")
    }

    /// Posts this body to `/v1/payments`.
    #[track_caller]
    pub fn post_body(&self, body: &str) -> Answer {
        self.request("POST", "/v1/payments", &[JSON], body.as_bytes())
    }

    /// Posts a payment for a client; `msg` is JSON text.
    #[track_caller]
    pub fn post(&self, client: &str, msg: &str) -> Answer {
        self.post_body(&envelope(client, msg, None))
    }

    /// The same with a payment id.
    #[track_caller]
    pub fn post_with_id(&self, client: &str, msg: &str, payment_id: &str) -> Answer {
        self.post_body(&envelope(client, msg, Some(payment_id)))
    }

    /// Posts a payment that must be accepted anew; its seq.
    #[track_caller]
    pub fn accept(&self, client: &str, msg: &str) -> u64 {
        self.post(client, msg).expect(202).seq()
    }

    /// Posts a batch; the body is lines of JSON.
    #[track_caller]
    pub fn post_batch(&self, lines: &str) -> Answer {
        let headers = [("Content-Type", "application/x-ndjson")];
        let mut http = self.http_client().patient(Duration::from_secs(120));
        http.send("POST", "/v1/payments", &headers, lines.as_bytes())
    }

    /// What `GET /v1/clients/{client}` tells.
    #[track_caller]
    pub fn about(&self, client: &str) -> Value {
        self.get(&format!("/v1/clients/{client}")).expect(200).json()
    }

    /// The status of one payment: `accepted`, `acknowledged`, …
    #[track_caller]
    pub fn status(&self, client: &str, seq: u64) -> String {
        self.get(&format!("/v1/clients/{client}/payments/{seq}")).expect(200).field("status")
    }

    /// Waits until a payment is known to be acknowledged.
    #[track_caller]
    pub fn expect_acknowledged(&self, client: &str, seq: u64) {
        let what = format!("payment {seq} of client {client} is acknowledged");
        eventually(&what, || {
            let answer = self.get(&format!("/v1/clients/{client}/payments/{seq}"));
            answer.status == 200 && answer.field("status") == "acknowledged"
        });
    }

    /// Waits until the node knows that a client is online, or is not.
    #[track_caller]
    pub fn expect_online(&self, client: &str, online: bool) {
        eventually(&format!("client {client} is online: {online}"), || {
            let answer = self.get(&format!("/v1/clients/{client}"));
            answer.status == 200 && answer.json()["online"] == online
        });
    }

    /// Fails unless this client id has never had a payment or a connection.
    #[track_caller]
    pub fn expect_unknown(&self, client: &str) {
        self.get(&format!("/v1/clients/{client}")).expect_problem(404, "not_found");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (earlier, last) = (lock(&self.earlier), self.log());
            eprintln!("--- the log of node {}\n{earlier}{last}---", self.name);
        }
    }
}

impl Running {
    #[track_caller]
    fn start(args: &[String], env: &[(&str, &str)]) -> Running {
        let flags: Vec<&str> = args.iter().map(String::as_str).collect();
        Running::of(Program::start(&flags, env), args)
    }

    #[track_caller]
    fn of(mut program: Program, args: &[String]) -> Running {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((http, tcp)) = addresses(&program.stderr()) {
                return Running { program, http, tcp };
            }
            let ended = program.has_ended();
            assert!(!ended, "payrelay {args:?} ended:\n{}", program.stderr());
            assert!(Instant::now() < deadline, "no ready line of payrelay {args:?}:\n{}", program.stderr());
            pause();
        }
    }
}

/// The addresses in `ready http=127.0.0.1:8080 tcp=127.0.0.1:7070 …`, as soon as the whole line is there.
pub fn ready_line(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (http, tcp) = addresses(log)?;
    Some((http, tcp[0].1))
}

/// The same with every TCP address and what is spoken there: `tcp=127.0.0.1:7070,u16be@127.0.0.1:7071`.
fn addresses(log: &str) -> Option<(SocketAddr, Vec<(Framing, SocketAddr)>)> {
    let line = log.split_inclusive('\n').find(|line| line.contains("ready http=") && line.ends_with('\n'))?;
    let address = |name: &str| {
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(name));
        word.unwrap_or_else(|| panic!("no {name} in the ready line: {line}"))
    };
    let parse = |text: &str| text.parse().unwrap_or_else(|e| panic!("{text} in the ready line ({e}): {line}"));
    let listener = |text| match str::split_once(text, '@') {
        None => (Framing::Lines, parse(text)),
        Some(("u16be", rest)) => (Framing::U16be, parse(rest)),
        Some(("u32be", rest)) => (Framing::U32be, parse(rest)),
        Some(_) => panic!("a framing that is none in the ready line: {line}"),
    };
    Some((parse(address("http=")), address("tcp=").split(',').map(listener).collect()))
}

impl Deployment {
    /// So many nodes over one Redis, all ready: n1, n2, …
    #[track_caller]
    pub fn redis(nodes: usize) -> Deployment {
        Deployment::with(nodes, &[])
    }

    #[track_caller]
    pub fn with(nodes: usize, args: &[&str]) -> Deployment {
        let redis = Redis::start();
        let nodes = (1..=nodes).map(|n| Node::on(&redis, &format!("n{n}"), args)).collect();
        Deployment { nodes, redis }
    }

    /// What a test that runs on both inboxes takes: two nodes on Redis, the one there is else.
    #[track_caller]
    pub fn at(home: Home, args: &[&str]) -> Vec<Node> {
        match home {
            Home::Embedded => vec![Node::with(home, args)],
            Home::Redis => Deployment::with(2, args).nodes,
        }
    }
}

impl Index<usize> for Deployment {
    type Output = Node;

    fn index(&self, number: usize) -> &Node {
        &self.nodes[number]
    }
}

/// The content type of a payment.
pub const JSON: (&str, &str) = ("Content-Type", "application/json");

/// The body of a POST of one payment.
pub fn envelope(client: &str, msg: &str, payment_id: Option<&str>) -> String {
    match payment_id {
        None => format!(r#"{{"client":"{client}","msg":{msg}}}"#),
        Some(id) => format!(r#"{{"client":"{client}","msg":{msg},"payment_id":"{id}"}}"#),
    }
}
