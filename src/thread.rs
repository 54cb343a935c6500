//! Starting threads: by name, with a bounded stack, and with a word on how an essential one ends.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

/// Enough for a reader or an HTTP connection that leads a commit; only touched pages cost memory.
pub(crate) const SMALL_STACK: usize = 256 * 1024;

/// Set once the node stops on purpose: from then on, threads may end.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// From here on an essential thread's end is no failure.
pub(crate) fn expect_ends() {
    STOPPING.store(true, Ordering::Release);
}

/// Starts a thread without which the node is worse than a restarted one: when it ends before the
/// node stops, by a panic or not, the process ends with status 1.
///
/// # Errors
///
/// The system has no thread to give.
pub(crate) fn essential(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let named = name.to_owned();
    Builder::new().name(named.clone()).spawn(move || {
        let panicked = catch_unwind(AssertUnwindSafe(body)).is_err();
        if panicked || !STOPPING.load(Ordering::Acquire) {
            log::error!("the thread {named} ended; a restart is safer than half a node");
            std::process::exit(1);
        }
    })
}

/// Starts a connection's thread; its end, whatever it is, is its own.
///
/// # Errors
///
/// The system has no thread to give: that one connection is refused.
pub(crate) fn connection(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name(name).stack_size(SMALL_STACK).spawn(body).map(drop)
}
