//! The program under test as a process: started, listened to, signalled, and ended when it is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, pause};

/// One running program, and everything it writes.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Exit {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// The program with a clean environment.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payrelay"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PAYRELAY_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG");
    // To look closer at a failure: TEST_LOG=debug cargo test …
    if let Some(level) = std::env::var_os("TEST_LOG") {
        command.env("RUST_LOG", level);
    }
    command
}

impl Program {
    pub fn start(args: &[&str], env: &[(&str, &str)]) -> Program {
        Program::start_with_input(args, env, None)
    }

    pub fn start_with_input(args: &[&str], env: &[(&str, &str)], input: Option<&str>) -> Program {
        let mut command = command();
        command.args(args).envs(env.iter().copied());
        Program::spawn(command, input)
    }

    /// Another program than payrelay.
    pub fn spawn(mut command: Command, input: Option<&str>) -> Program {
        let mut child = command
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program under test");
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(text.as_bytes()).expect("input for the program");
        }
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take().expect("a pipe"), Arc::clone(&stdout)),
            collect(child.stderr.take().expect("a pipe"), Arc::clone(&stderr)),
        ];
        Program { child, stdout, stderr, readers }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(args: &[&str]) -> Exit {
        Program::start(args, &[]).wait()
    }

    pub fn stdout(&self) -> String {
        lock(&self.stdout).clone()
    }

    pub fn stderr(&self) -> String {
        lock(&self.stderr).clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Kills it as a crash would (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("our own child").is_some()
    }

    /// Waits for its end, which must come within [`PATIENCE`].
    #[track_caller]
    pub fn wait(mut self) -> Exit {
        let start = Instant::now();
        let status = self.wait_within(PATIENCE);
        let took = start.elapsed();
        // Its pipes end with it: so nothing that it wrote is missed.
        self.readers.drain(..).for_each(|reader| reader.join().expect("a reader of a pipe"));
        Exit { code: status.code(), stdout: self.stdout(), stderr: self.stderr(), took }
    }

    #[track_caller]
    pub fn wait_within(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the program did not end within {limit:?}:\n{}", self.stderr());
            pause();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(pipe: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            lock(&into).push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

impl Exit {
    /// The lines on standard error that say something.
    pub fn error_lines(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| !line.trim().is_empty()).collect()
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
