//! What every test stands on: real nodes, a real Redis, clients that speak the protocol, and a proxy that misbehaves.
//!
//! Nothing here sleeps and hopes: a test waits for a condition with a deadline, every read has a time limit, and
//! what was started is killed when it is dropped.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "the torture test compiles the harness as well, and either uses a part of it"
)]

pub mod http;
pub mod json;
pub mod limits;
pub mod line_client;
pub mod node;
pub mod program;
pub mod proxy;
pub mod redis;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use http::{Answer, Http};
pub use limits::limit;
pub use line_client::{Client, Frame, Framing, Line, Next, Payment};
pub use node::{Deployment, Home, Node};
pub use program::{Exit, Program};
pub use proxy::{Mode, Proxy, Way};
pub use redis::{Redis, Reply};

/// How long a test waits for what must happen. Far more than it takes: a slow machine is no fault.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a read waits before the test gives up.
pub const READ_LIMIT: Duration = Duration::from_secs(15);

/// How long we listen to be content that nothing comes.
pub const QUIET: Duration = Duration::from_millis(700);

/// Turns functions that take a [`Home`] into tests, one for each inbox: `embedded::name` and `redis::name`.
macro_rules! on_both_inboxes {
    ($($name:ident),+ $(,)?) => {
        mod embedded {
            $( #[test] fn $name() { super::$name($crate::harness::Home::Embedded); } )+
        }
        mod redis {
            $( #[test] fn $name() { super::$name($crate::harness::Home::Redis); } )+
        }
    };
}
pub(crate) use on_both_inboxes;

/// Waits until `condition` holds, and fails with `what` where it does not within [`PATIENCE`].
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, condition);
}

/// Waits until `condition` holds, and fails with `what` where it does not within `limit`.
#[track_caller]
pub fn eventually_within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        pause();
    }
}

/// Waits until `condition` holds, for `limit` at most. Whether it does.
pub fn eventually_true(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        pause();
    }
}

/// Waits until `find` finds something, and fails with `what` where it does not within [`PATIENCE`].
#[track_caller]
pub fn eventually_some<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    eventually(what, || {
        found = find();
        found.is_some()
    });
    found.expect("the condition held")
}

/// Takes turns until so many in a row took less than `limit`, and fails with `what` where that is not soon.
///
/// For what must not wait, where a test cannot tell how fast the machine is: a busy one makes some turns slow, a fault
/// of the program all of them, or every second.
#[track_caller]
pub fn eventually_quick(what: &str, limit: Duration, in_a_row: usize, mut turn: impl FnMut() -> Duration) {
    let deadline = Instant::now() + PATIENCE * 2;
    let mut took = Vec::new();
    while took.len() < in_a_row || took[took.len() - in_a_row..].iter().any(|&time| time >= limit) {
        assert!(Instant::now() < deadline, "never {in_a_row} times in a row within {limit:?}: {what}: {took:?}");
        took.push(turn());
    }
}

/// The moment between two looks at a condition.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("before the year 584,000,000")
}

/// A directory of its own, removed when it is dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        TempDir::within(&std::env::temp_dir())
    }

    /// One that is not in memory, where the system's own are.
    pub fn on_disk() -> TempDir {
        TempDir::within(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    fn within(parent: &Path) -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("payrelay-test-{}-{number}-{}", process::id(), now_ms());
        let path = parent.join(name);
        fs::create_dir_all(&path).expect("a temporary directory");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file into it and returns its path as text, for a command line.
    pub fn file(&self, name: &str, content: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.join(name);
        fs::write(&path, content).expect("a file in a temporary directory");
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&path, private).expect("our own file");
        path.to_str().expect("a path of UTF-8").to_owned()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A port that nobody listens on.
///
/// Below the range from which the kernel takes the ports of outgoing connections: so nobody else gets it while a
/// server that is to come back on it is down, and a connection to it cannot meet itself.
pub fn free_port() -> u16 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let start = process::id().wrapping_mul(7919).wrapping_add(u32::try_from(now_ms() % 10_007).expect("small"));
    for _ in 0..1000 {
        let step = COUNT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + u16::try_from(start.wrapping_add(step.wrapping_mul(37)) % 20_000).expect("below 20,000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 12,000 and 32,000");
}
