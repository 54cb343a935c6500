//! A real redis-server of the test's own: on a free port, in a temporary directory, killed when it is dropped.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, READ_LIMIT, TempDir, eventually, free_port, pause};

/// One redis-server. Durable to the last write (`appendfsync always`) unless told otherwise.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    dir: TempDir,
    args: Vec<String>,
    child: Mutex<Option<Child>>,
}

/// What Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Int(i64),
    Nil,
    List(Vec<Reply>),
    Error(String),
}

impl Redis {
    /// A Redis as payments need it: append-only file, synced at every write.
    pub fn start() -> Arc<Redis> {
        Redis::with(&[])
    }

    /// The same with further settings, which win: `&["--appendfsync", "everysec"]`.
    pub fn with(args: &[&str]) -> Arc<Redis> {
        for _ in 0..5 {
            let redis = Redis::stopped(args);
            if redis.try_start() {
                return Arc::new(redis);
            }
        }
        panic!("redis-server does not start");
    }

    /// Nothing on disk at all.
    pub fn without_persistence() -> Arc<Redis> {
        Redis::with(&["--appendonly", "no"])
    }

    /// A replica of the Redis that listens on `port` (a proxy, for a test that cuts the two apart).
    pub fn replica_of(port: u16) -> Arc<Redis> {
        Redis::with(&["--replicaof", "127.0.0.1", &port.to_string()])
    }

    /// A port on which Redis will come up once it is told to: [`Redis::restart`].
    pub fn away() -> Arc<Redis> {
        Arc::new(Redis::stopped(&[]))
    }

    fn stopped(args: &[&str]) -> Redis {
        Redis {
            port: free_port(),
            dir: TempDir::new(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            child: Mutex::new(None),
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Kills it as a crash would (SIGKILL).
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Brings it up on the same port and the same files; returns once it answers.
    pub fn restart(&self) {
        self.kill();
        eventually("redis-server comes back on its port", || self.try_start());
    }

    /// Freezes it: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The append-only file as it is now, to come back to with [`Redis::restart_from`].
    pub fn backup(&self) -> TempDir {
        let copy = TempDir::new();
        copy_files(&self.append_only(), copy.path());
        copy
    }

    /// A crash, and then a start from an older backup: all writes since are lost.
    pub fn restart_from(&self, backup: &TempDir) {
        self.kill();
        fs::remove_dir_all(self.append_only()).expect("the append-only directory");
        copy_files(backup.path(), &self.append_only());
        self.restart();
    }

    fn append_only(&self) -> PathBuf {
        self.dir.join("appendonlydir")
    }

    /// One command, as redis-cli would send it.
    pub fn cli(&self, words: &[&str]) -> Reply {
        self.try_cli(words).unwrap_or_else(|e| panic!("{words:?} to Redis: {e}"))
    }

    pub fn try_cli(&self, words: &[&str]) -> io::Result<Reply> {
        self.session(READ_LIMIT)?.ask(words)
    }

    /// A connection of one's own, on which a reply may take so long.
    pub fn session(&self, limit: Duration) -> io::Result<Session> {
        let stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], self.port)), limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Session(BufReader::new(stream)))
    }

    /// One figure of `INFO`, such as `used_memory`.
    pub fn info(&self, field: &str) -> u64 {
        let all = self.cli(&["INFO", "everything"]).text();
        let found = all.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let figure = found.unwrap_or_else(|| panic!("INFO has no {field}"));
        figure.trim().parse().unwrap_or_else(|e| panic!("{field}: {figure}: {e}"))
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = self.child().as_ref() {
            kill_process(Pid::from_child(child), signal).expect("a signal to our own redis-server");
        }
    }

    /// Starts it and waits until it answers. False if another process has the port.
    fn try_start(&self) -> bool {
        self.launch(&[]).expect("redis-server (Debian: apt-get install redis-server)");
        let deadline = Instant::now() + PATIENCE;
        while !self.is_up() {
            if self.has_ended() {
                return false;
            }
            if Instant::now() > deadline {
                self.kill();
                panic!("redis-server does not answer: {}", self.log());
            }
            pause();
        }
        true
    }

    /// Starts its process with further settings, on the same port and files, and does not wait until it answers.
    pub fn launch(&self, further: &[&str]) -> io::Result<()> {
        self.kill();
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"])
            .args(["--loglevel", "notice", "--logfile", "redis.log", "--repl-diskless-sync-delay", "0"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.args)
            .args(further)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        *self.child() = Some(command.spawn()?);
        Ok(())
    }

    /// Its process answers, and has loaded everything. Another Redis on this port does not count.
    pub fn is_up(&self) -> bool {
        let Some(own) = self.pid().map(|pid| format!("process_id:{pid}\r")) else { return false };
        let asked = self.session(Duration::from_secs(1)).and_then(|mut session| session.ask(&["INFO"]));
        matches!(asked, Ok(Reply::Text(info)) if info.contains(&own) && info.contains("loading:0"))
    }

    /// Its process was not killed by us, and is no more.
    pub fn has_ended(&self) -> bool {
        let mut child = self.child();
        let ended = child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            *child = None;
        }
        ended
    }

    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// One figure of `INFO`, where Redis answers and knows it: `errorstat_OOM` is a count too.
    pub fn try_info(&self, field: &str) -> Option<u64> {
        let mut session = self.session(Duration::from_secs(2)).ok()?;
        let Ok(Reply::Text(all)) = session.ask(&["INFO", "everything"]) else { return None };
        let figure = all.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        figure.strip_prefix("count=").unwrap_or(figure).trim().parse().ok()
    }

    /// How often its log has these words.
    pub fn logged(&self, words: &str) -> u64 {
        self.log().matches(words).count().try_into().expect("fewer than the log has bytes")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("redis.log")).unwrap_or_default()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(15).collect();
            eprintln!("--- redis-server on port {}, last lines", self.port);
            tail.into_iter().rev().for_each(|line| eprintln!("{line}"));
        }
        self.kill();
    }
}

/// One connection to Redis that nobody else uses.
#[derive(Debug)]
pub struct Session(BufReader<TcpStream>);

impl Session {
    /// Sends a command and waits for its reply. After an error the connection is of no use any more.
    pub fn ask<T: AsRef<[u8]>>(&mut self, words: &[T]) -> io::Result<Reply> {
        self.tell(words)?;
        self.hear()
    }

    /// Sends a command, and leaves its reply for [`Session::hear`].
    pub fn tell<T: AsRef<[u8]>>(&mut self, words: &[T]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words.iter().map(AsRef::as_ref) {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&request)
    }

    /// The next reply, or the next message of a subscription.
    pub fn hear(&mut self) -> io::Result<Reply> {
        Reply::read(&mut self.0)
    }
}

impl Reply {
    pub fn text(self) -> String {
        match self {
            Reply::Text(text) => text,
            other => panic!("a text was expected of Redis, not {other:?}"),
        }
    }

    #[track_caller]
    pub fn expect_ok(self) {
        assert_eq!(self, Reply::Text("OK".into()));
    }

    fn read(from: &mut impl BufRead) -> io::Result<Reply> {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let Some(kind) = line.chars().next() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let rest = line[1..].trim_end();
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        match kind {
            '+' => Ok(Reply::Text(rest.to_owned())),
            '-' => Ok(Reply::Error(rest.to_owned())),
            ':' => Ok(Reply::Int(number()?)),
            '$' => match usize::try_from(number()?) {
                Err(_) => Ok(Reply::Nil),
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    from.read_exact(&mut bytes)?;
                    bytes.truncate(length);
                    Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
                }
            },
            '*' => (0..number()?).map(|_| Reply::read(from)).collect::<Result<_, _>>().map(Reply::List),
            _ => Err(io::Error::other(format!("not a reply of Redis: {line}"))),
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory for the copy");
    for entry in fs::read_dir(from).expect("a directory to copy") {
        let entry = entry.expect("a directory entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copied file");
    }
}

/// Waits until a replica has everything that its primary has.
#[track_caller]
pub fn caught_up(primary: &Redis, replica: &Redis) {
    // Something to send, which leaves no key: a primary sends nothing to a new replica before it has heard from it once,
    // and tells that only by how far that one says it is.
    primary.cli(&["PUBLISH", "nobody", "are you there?"]);
    eventually("the replica is in step with its primary", || {
        let state = replica.cli(&["INFO", "replication"]).text();
        let up = state.contains("master_link_status:up") && state.contains("master_sync_in_progress:0");
        // After a first copy it writes its own file anew, and answers late meanwhile.
        let settled = replica.info("aof_rewrite_in_progress") + replica.info("aof_rewrite_scheduled") == 0;
        let sent = primary.info("master_repl_offset");
        let known = primary.cli(&["INFO", "replication"]).text();
        let heard =
            known.split([',', '\r', '\n']).filter_map(|field| field.strip_prefix("offset=")?.parse::<u64>().ok());
        up && settled && heard.max().is_some_and(|heard| heard >= sent)
    });
}
