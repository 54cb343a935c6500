//! SIGTERM and SIGINT: the first stops the node in order, the second ends it at once.

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::time::{Duration, Instant};

/// Signals so close together are one.
const SAME: Duration = Duration::from_millis(300);

/// Listens on a thread of its own; the queue brings the first signal.
///
/// # Errors
///
/// The system lets nobody listen.
pub(crate) fn listen() -> io::Result<Receiver<()>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let (stop_tx, stop_rx) = bounded(1);
    crate::thread::essential("signals", move || {
        let mut arrived = signals.forever();
        if arrived.next().is_some() {
            let _ = stop_tx.send(());
        }
        // Some senders signal a process and then its whole group: that is one request to stop.
        let first = Instant::now();
        if arrived.any(|_| first.elapsed() > SAME) {
            log::warn!("a second signal: ending at once");
            std::process::exit(1);
        }
    })?;
    Ok(stop_rx)
}
