//! SIGTERM and SIGINT: the first stops the node in order, the second ends it at once. SIGHUP: key files are read again.

use crossbeam_channel::{Receiver, Sender, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::time::{Duration, Instant};

/// Signals so close together are one.
const SAME: Duration = Duration::from_millis(300);

/// Listens on a thread of its own, which waits for nobody. The queue brings the first signal that stops.
///
/// Each SIGHUP is told to `read_again`; several that come while nobody looks are one. Without it, a SIGHUP ends the
/// process as it does by default.
///
/// # Errors
///
/// The system lets nobody listen.
pub(crate) fn listen(read_again: Option<Sender<()>>) -> io::Result<Receiver<()>> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    if read_again.is_some() {
        signals.add_signal(SIGHUP)?;
    }
    let (stop_tx, stop_rx) = bounded(1);
    crate::thread::essential("signals", move || {
        let mut stopping: Option<Instant> = None;
        for signal in signals.forever() {
            match (signal, stopping) {
                (SIGHUP, _) => {
                    let _ = read_again.as_ref().map(|read_again| read_again.try_send(()));
                }
                (_, None) => {
                    stopping = Some(Instant::now());
                    let _ = stop_tx.send(());
                }
                // Some senders signal a process and then its whole group: that is one request to stop.
                (_, Some(first)) if first.elapsed() > SAME => {
                    log::warn!("a second signal: ending at once");
                    std::process::exit(1);
                }
                (_, Some(_)) => {}
            }
        }
    })?;
    Ok(stop_rx)
}
