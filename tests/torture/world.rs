//! The deployment under test: one Redis, its replica where the profile has one, the nodes, and a proxy on every way
//! between any two of them.
//!
//! What is called here may be called from any thread. Nothing panics because a node or Redis is away: that is what
//! the run is for.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::program::lock;
use crate::harness::{Http, Proxy, Redis, node};
use crate::history::{History, What};
pub use crate::options::HEARTBEAT;
use crate::options::{Options, Profile};

/// How long a node may take to open its ports on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long it is tried again when it does not.
const REVIVE_LIMIT: Duration = Duration::from_secs(60);
/// What a client gets at most without acknowledging.
pub const WINDOW: u64 = 64;

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    pub options: Options,
    pub history: Arc<History>,
    /// Only in the profile `rollback`.
    pub replica: Option<Replica>,
    pub nodes: Vec<Node>,
    first: Arc<Redis>,
}

/// The second Redis; it and the first change their parts at a failover.
#[derive(Debug)]
pub struct Replica {
    /// On the way from whichever is the replica to its primary.
    pub to_primary: Proxy,
    redis: Arc<Redis>,
    is_primary: AtomicBool,
}

/// One node and the proxies around it.
#[derive(Debug)]
pub struct Node {
    /// Counted from 0; payrelay knows it as `n1` and so on.
    pub number: usize,
    /// Senders reach it here; stays the same when the node is started again.
    pub http: Proxy,
    /// Receivers reach it here.
    pub tcp: Proxy,
    /// It reaches Redis here; [`Proxy::set_pubsub`] is for its subscription alone.
    pub redis: Proxy,
    program: PathBuf,
    log: PathBuf,
    history: Arc<History>,
    /// Held by who starts it; the other one only for an instant, so that nobody waits who asks for its ports.
    starting: Mutex<()>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// We asked it to end.
    is_ending: bool,
    http: SocketAddr,
    tcp: SocketAddr,
}

impl World {
    /// Starts Redis and the nodes, all behind their proxies, and waits until every node is ready.
    ///
    /// # Errors
    ///
    /// What could not be started: a fault of the harness, not of payrelay's promises.
    pub fn start(options: &Options, history: &Arc<History>) -> io::Result<World> {
        let redis = Redis::start();
        let replica = (options.profile == Profile::Rollback).then(|| {
            let to_primary = Proxy::to(redis.port());
            let redis = Redis::replica_of(to_primary.port());
            Replica { to_primary, redis, is_primary: AtomicBool::new(false) }
        });
        let program = options.server.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_payrelay").into());
        let nodes = (0..options.nodes).map(|number| Node {
            number,
            // Nothing listens there yet; the first start tells them where.
            http: Proxy::to(1),
            tcp: Proxy::to(1),
            redis: Proxy::to(redis.port()),
            program: program.clone(),
            log: history.dir().join(format!("n{}.log", number + 1)),
            history: Arc::clone(history),
            starting: Mutex::default(),
            running: Mutex::default(),
        });
        let nodes: Vec<Node> = nodes.collect();
        let (options, history) = (options.clone(), Arc::clone(history));
        let world = World { options, history, replica, nodes, first: redis };
        for node in &world.nodes {
            node.start()?;
        }
        let deadline = Instant::now() + START_LIMIT;
        while !world.nodes.iter().all(Node::is_ready) {
            if Instant::now() > deadline {
                return Err(io::Error::other("the nodes do not become ready over a healthy Redis"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(world)
    }

    /// The Redis that takes the writes; another one after a failover.
    pub fn redis(&self) -> &Arc<Redis> {
        match &self.replica {
            Some(replica) if replica.is_primary.load(Ordering::SeqCst) => &replica.redis,
            _ => &self.first,
        }
    }

    /// The one that follows it.
    pub fn follower(&self) -> Option<&Arc<Redis>> {
        let replica = self.replica.as_ref()?;
        Some(if replica.is_primary.load(Ordering::SeqCst) { &self.first } else { &replica.redis })
    }

    /// The two change their parts, and every node is sent to the new primary.
    pub fn fail_over(&self) {
        let Some(replica) = &self.replica else { return };
        replica.is_primary.fetch_xor(true, Ordering::SeqCst);
        for node in &self.nodes {
            node.redis.retarget(self.redis().port());
            node.redis.cut();
        }
        replica.to_primary.retarget(self.redis().port());
    }
}

impl Node {
    /// Starts its process, and points its proxies at the new ports. Does nothing if it runs.
    ///
    /// # Errors
    ///
    /// It ended at once, or opened no ports within [`START_LIMIT`].
    pub fn start(&self) -> io::Result<()> {
        let _starting = lock(&self.starting);
        if self.is_running() {
            return Ok(());
        }
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let said_before = usize::try_from(log.metadata()?.len()).map_err(io::Error::other)?;
        let mut child = self.command(log).spawn()?;
        let deadline = Instant::now() + START_LIMIT;
        let (http, tcp) = loop {
            let log = std::fs::read(&self.log)?;
            if let Some(ready) = node::ready_line(&String::from_utf8_lossy(&log[said_before..])) {
                break ready;
            }
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!("node {} ended at its start: {status}", self.number)));
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::other(format!("node {} does not open its ports", self.number)));
            }
            thread::sleep(Duration::from_millis(10));
        };
        self.http.retarget(http.port());
        self.tcp.retarget(tcp.port());
        *self.running() = Some(Running { child, is_ending: false, http, tcp });
        self.history.event(What::Started { node: self.byte() });
        Ok(())
    }

    /// Starts it, and goes on trying: a start may come to nothing where the machine is short of everything. Whether it
    /// runs; that it does not is a broken promise, and told as one.
    pub fn revive(&self) -> bool {
        let deadline = Instant::now() + REVIVE_LIMIT;
        while let Err(cause) = self.start() {
            self.history.event(What::Remark { text: cause.to_string() });
            if Instant::now() > deadline {
                let what = format!("node {} cannot be started any more: {cause}", self.number);
                self.history.event(What::Broken { check: "C16".into(), what });
                return false;
            }
            thread::sleep(Duration::from_millis(500));
        }
        true
    }

    fn command(&self, log: File) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--http", "127.0.0.1:0", "--tcp", "127.0.0.1:0"])
            .args(["--node", &format!("n{}", self.number + 1), "--redis", &self.redis.redis_url()])
            .args(["--heartbeat", &HEARTBEAT.as_secs().to_string(), "--window", &WINDOW.to_string()])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    /// Sends it a signal; nothing happens if it does not run.
    pub fn signal(&self, signal: Signal) {
        if let Some(running) = self.running().as_ref() {
            let _ = kill_process(Pid::from_child(&running.child), signal);
        }
    }

    /// Kills it as a crash would. Whether there was one to kill.
    pub fn kill(&self) -> bool {
        let Some(mut running) = self.running().take() else { return false };
        let _ = running.child.kill();
        let status = running.child.wait();
        self.ended(true, &format!("{status:?}"));
        true
    }

    /// Asks it to stop (SIGTERM). Whether there was one to ask.
    pub fn terminate(&self) -> bool {
        let mut running = self.running();
        let Some(running) = running.as_mut() else { return false };
        running.is_ending = true;
        kill_process(Pid::from_child(&running.child), Signal::TERM).is_ok()
    }

    /// Its process has ended, though nobody has waited for it yet.
    pub fn has_stopped(&self) -> bool {
        let mut running = self.running();
        running.as_mut().is_none_or(|running| !matches!(running.child.try_wait(), Ok(None)))
    }

    /// Waits for its end after [`Node::terminate`]; kills it when the time is over, and has no status then.
    pub fn wait(&self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            let mut running = self.running();
            match running.as_mut()?.child.try_wait() {
                Ok(None) if Instant::now() < deadline => drop(running),
                Ok(Some(status)) => {
                    *running = None;
                    drop(running);
                    self.ended(true, &status.to_string());
                    return Some(status);
                }
                _ => {
                    drop(running);
                    self.kill();
                    return None;
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether its process ended without being asked; it is forgotten then, and can be started again.
    pub fn has_died(&self) -> bool {
        let mut running = self.running();
        let unasked = running.as_mut().filter(|running| !running.is_ending);
        let Some(status) = unasked.and_then(|running| running.child.try_wait().ok().flatten()) else { return false };
        *running = None;
        drop(running);
        self.ended(false, &status.to_string());
        true
    }

    pub fn is_running(&self) -> bool {
        self.running().is_some()
    }

    /// It is stopped, as by SIGSTOP.
    pub fn is_frozen(&self) -> bool {
        self.pid().is_some_and(is_frozen)
    }

    pub fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(|running| running.child.id())
    }

    /// Its own ports, HTTP and TCP, past the proxies: for floods that are not to go through our own threads.
    pub fn ports(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.running().as_ref().map(|running| (running.http, running.tcp))
    }

    /// `/readyz` past the proxies says 200.
    pub fn is_ready(&self) -> bool {
        let Some((http, _)) = self.ports() else { return false };
        let asked = Http::try_connect(http)
            .map(|http| http.patient(Duration::from_secs(3)))
            .and_then(|mut http| http.try_send("GET", "/readyz", &[], b""));
        asked.is_ok_and(|answer| answer.status == 200)
    }

    /// Everything its processes have logged.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn byte(&self) -> u8 {
        u8::try_from(self.number).expect("a handful of nodes")
    }

    fn ended(&self, expected: bool, status: &str) {
        let status = status.to_owned();
        self.history.event(What::Ended { node: self.byte(), expected, status });
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        lock(&self.running)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The process is stopped, as by SIGSTOP.
pub fn is_frozen(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in front may hold anything but is in brackets.
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}
