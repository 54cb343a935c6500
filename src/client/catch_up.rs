//! Thread body of `catch-up`: brings clients that are behind up to date from the inbox.
//!
//! Works in slices, several clients a round trip, and puts a client that is not done at the end
//! of its queue again: nobody waits for another's backlog. Sends without waiting, like everybody.

use super::close_reason::CloseReason;
use super::connection::Connection;
use crate::inbox::{Ask, Error, Inbox, Reading};
use crossbeam_channel::{Receiver, Sender};
use std::sync::Arc;
use std::time::Duration;

/// The most clients of one round trip.
const MAX_CLIENTS: usize = 32;
/// The most payments of one slice of one client.
const MAX_SLICE: usize = 64;
/// The bytes after which a slice ends.
const SLICE_BYTES: usize = 128 * 1024;
/// How long nothing is read after the store was away.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Runs until a `None` comes through the queue; it is passed on to the next of these threads.
pub(crate) fn run(
    queue: &Receiver<Option<Arc<Connection>>>,
    again: &Sender<Option<Arc<Connection>>>,
    inbox: &dyn Inbox,
) {
    while let Ok(Some(first)) = queue.recv() {
        let mut stop = false;
        let mut clients = vec![first];
        while clients.len() < MAX_CLIENTS {
            match queue.try_recv() {
                Ok(Some(client)) => clients.push(client),
                Ok(None) => {
                    stop = true;
                    break;
                }
                Err(_) => break,
            }
        }
        round(clients, inbox);
        if stop {
            break;
        }
    }
    let _ = again.try_send(None);
}

fn round(clients: Vec<Arc<Connection>>, inbox: &dyn Inbox) {
    let mut asking = Vec::with_capacity(clients.len());
    let mut asks = Vec::with_capacity(clients.len());
    for client in clients {
        if let Some((session, wanted)) = client.wanted() {
            asks.push(Ask {
                client: client.client().clone(),
                session,
                after: wanted.after,
                payments: wanted.payments.min(MAX_SLICE),
                bytes: wanted.bytes.min(SLICE_BYTES),
            });
            asking.push(client);
        }
    }
    let mut away = false;
    for (client, reading) in asking.iter().zip(inbox.read(&asks)) {
        match reading {
            Ok(Reading::Slice(slice)) => client.catch_up(&slice),
            Ok(Reading::Replaced) => client.close(CloseReason::Replaced),
            Ok(Reading::RolledBack) => client.close(rolled_back(client)),
            Err(Error::Unavailable { .. } | Error::StoreFull) => {
                away = true;
                client.catch_up_again();
            }
            Err(error) => {
                log::error!("{}: {error}; this client is not served", client.client());
                client.close(CloseReason::Unavailable("this client's inbox cannot be read".into()));
            }
        }
    }
    if away {
        std::thread::sleep(BACK_OFF);
    }
}

/// Says loudly that the store lost writes that a client of ours had seen.
pub(crate) fn rolled_back(client: &Connection) -> CloseReason {
    log::error!(
        "{}: the store came back without its last writes (a failover, a power cut, a restored backup); \
         its numbering begins anew under a higher epoch",
        client.client()
    );
    client.note_roll_back();
    CloseReason::Unavailable("the store came back without its last writes; connect again".into())
}
