//! SIGTERM and SIGINT: the first stops the node in order, the second ends it at once.

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;

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
        if arrived.next().is_some() {
            log::warn!("a second signal: ending at once");
            std::process::exit(1);
        }
    })?;
    Ok(stop_rx)
}
