//! What /proc tells of a node's process: descriptors, threads, memory, and whether it is stopped.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::world::Node;

/// One process. It may end at any time: then nothing is told of it any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// The node's present process.
    pub fn of(node: &Node) -> Option<Process> {
        node.pid().map(|pid| Process { pid })
    }

    pub fn pid(self) -> u32 {
        self.pid
    }

    pub fn descriptors(self) -> Option<u64> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid)).ok()?;
        Some(entries.count() as u64)
    }

    pub fn threads(self) -> Option<u64> {
        self.status("Threads:")?.parse().ok()
    }

    pub fn rss_kib(self) -> Option<u64> {
        self.status("VmRSS:")?.strip_suffix(" kB")?.trim().parse().ok()
    }

    /// By a signal, or by a tracer.
    pub fn is_stopped(self) -> bool {
        self.status("State:").is_some_and(|state| state.starts_with(['T', 't']))
    }

    /// Changes how many descriptors it may have, and returns what it might before.
    ///
    /// # Errors
    ///
    /// It has ended, or is not ours.
    pub fn limit_descriptors(self, limit: Rlimit) -> io::Result<Rlimit> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        Ok(prlimit(pid, Resource::Nofile, limit)?)
    }

    /// How long each of its threads has run so far, or was ready to run, by thread id, with the thread's name.
    pub fn thread_times(self) -> HashMap<u32, (String, Duration)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid));
        let times = tasks.into_iter().flatten().flatten().filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            let times = fs::read_to_string(task.path().join("schedstat")).ok()?;
            // Waiting for a processor counts: on a busy machine a thread that spins does not run all the time.
            let ran: u64 = times.split(' ').take(2).filter_map(|time| time.parse::<u64>().ok()).sum();
            let id = task.file_name().to_str()?.parse().ok()?;
            Some((id, (name.trim().to_owned(), Duration::from_nanos(ran))))
        });
        times.collect()
    }

    /// The process that traces each of its threads of these names; 0 is none.
    pub fn tracers(self, names: &[&str]) -> Vec<u32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid));
        let tracers = tasks.into_iter().flatten().flatten().filter_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            names.contains(&name.trim()).then(|| field(&status, "TracerPid:")?.parse().ok())?
        });
        tracers.collect()
    }

    fn status(self, name: &str) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        field(&status, name).map(str::to_owned)
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// Sees whether a node had the chance to do what is asked of it: one that was stopped or started again meanwhile, as
/// another fault may have done, is not judged.
#[derive(Debug)]
pub struct Watch<'a> {
    node: &'a Node,
    process: Option<Process>,
    looked: Instant,
    disturbed: bool,
    pub most_threads: u64,
    pub most_rss_kib: u64,
}

impl<'a> Watch<'a> {
    /// Between two looks at /proc.
    const BETWEEN: Duration = Duration::from_millis(50);

    pub fn over(node: &'a Node) -> Watch<'a> {
        let process = Process::of(node);
        let mut watch =
            Watch { node, process, looked: Instant::now(), disturbed: false, most_threads: 0, most_rss_kib: 0 };
        watch.look_closely();
        watch
    }

    /// To be called all the time.
    pub fn look(&mut self) {
        if self.looked.elapsed() >= Watch::BETWEEN {
            self.look_closely();
        }
    }

    pub fn process(&self) -> Option<Process> {
        self.process
    }

    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// Nothing happened to the process so far.
    pub fn is_undisturbed(&mut self) -> bool {
        self.look_closely();
        !self.disturbed
    }

    fn look_closely(&mut self) {
        self.looked = Instant::now();
        let Some(process) = self.process.filter(|_| Process::of(self.node) == self.process) else {
            self.disturbed = true;
            return;
        };
        self.disturbed |= process.is_stopped();
        self.most_threads = self.most_threads.max(process.threads().unwrap_or(0));
        self.most_rss_kib = self.most_rss_kib.max(process.rss_kib().unwrap_or(0));
    }
}
