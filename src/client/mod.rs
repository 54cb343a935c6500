//! The clients that are connected here: the map, and what belongs to one connection.

pub(crate) mod catch_up;
pub(crate) mod close_reason;
pub(crate) mod connection;
pub(crate) mod delivery;
pub(crate) mod door;
mod owed;
pub(crate) mod pinger;
pub(crate) mod reader;
mod sent_before;
pub(crate) mod words;

use crate::framing::Framing;
use crate::payment::ClientId;
use crate::seldom::Seldom;
use close_reason::CloseReason;
use connection::Connection;
use parking_lot::{Condvar, Mutex, RwLock};
use sent_before::SentBefore;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The least time between two connections of one client that enter the map.
pub(crate) const LEAST_HOLD: Duration = Duration::from_millis(100);
/// From so many remembered turns on, those that have passed are forgotten.
const MANY_TURNS: usize = 1024;

/// Who has connected, before anything was said.
pub(crate) struct Caller {
    pub(crate) stream: Arc<TcpStream>,
    pub(crate) peer: SocketAddr,
    /// The listener's.
    pub(crate) framing: Framing,
}

/// Who is connected to this node. A connection is here from before its claim until it ends.
#[derive(Default)]
pub(crate) struct Clients {
    map: RwLock<HashMap<ClientId, Arc<Connection>>>,
    /// Told of everyone that leaves, for who waits until nobody is left.
    left: (Mutex<()>, Condvar),
    /// When a client's next hello may enter.
    turns: Mutex<HashMap<ClientId, Instant>>,
    fights: Seldom,
    sent_before: SentBefore,
}

impl Clients {
    /// The connection of a client; never a guard.
    pub(crate) fn get(&self, client: &ClientId) -> Option<Arc<Connection>> {
        self.map.read().get(client).cloned()
    }

    /// Puts a connection in. The one that was there is over.
    pub(crate) fn enter(&self, connection: &Arc<Connection>) {
        let before = self.map.write().insert(connection.client().clone(), Arc::clone(connection));
        if let Some(before) = before {
            before.close(CloseReason::Replaced);
            // Before the claim of the new one, which ends its session.
            before.hand_over_words();
            connection.follows(before.sent_up_to());
        } else if let Some(sent) = self.sent_before.take(connection.client()) {
            connection.follows(sent);
        }
    }

    /// Takes a connection out, unless a newer one stands in its place.
    pub(crate) fn leave(&self, connection: &Arc<Connection>) {
        let mut map = self.map.write();
        if map.get(connection.client()).is_some_and(|there| Arc::ptr_eq(there, connection)) {
            map.remove(connection.client());
            // Under the lock: who enters next must find it.
            if let Some(sent) = connection.sent_in_vain() {
                self.sent_before.note(connection.client(), sent);
            }
        }
        drop(map);
        let _guard = self.left.0.lock();
        self.left.1.notify_all();
    }

    /// Waits until nobody is connected, or the deadline comes.
    pub(crate) fn wait_until_empty(&self, deadline: Instant) {
        let mut guard = self.left.0.lock();
        while !self.map.read().is_empty() {
            if self.left.1.wait_until(&mut guard, deadline).timed_out() {
                return;
            }
        }
    }

    /// Takes a hello's turn, or says how long it has to wait before it asks again: two programs
    /// that fight for one client id must not keep the node busy with it.
    pub(crate) fn turn(&self, client: &ClientId) -> Option<Duration> {
        let now = Instant::now();
        let mut turns = self.turns.lock();
        if let Some(wait) = turns.get(client).map(|next| next.saturating_duration_since(now)).filter(|w| !w.is_zero()) {
            drop(turns);
            self.fights.warn(|| format!("{client}: several programs say hello with this id, or one does all the time"));
            return Some(wait);
        }
        if turns.len() >= MANY_TURNS {
            turns.retain(|_, next| *next > now);
        }
        turns.insert(client.clone(), now + LEAST_HOLD);
        None
    }

    /// Everybody, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.map.read().values().cloned().collect()
    }

    /// Has everybody compared with the store: bells may have been missed.
    pub(crate) fn check_all(&self) {
        self.all().iter().for_each(|connection| connection.wish_check());
    }

    /// How many they are whose claim is stored.
    pub(crate) fn count_online(&self) -> usize {
        self.all().iter().filter(|connection| connection.is_online()).count()
    }

    /// Those whose claim is stored, by client id, after the given one; at most so many.
    pub(crate) fn online(&self, after: Option<&ClientId>, most: usize) -> Vec<Arc<Connection>> {
        let mut online = self.all();
        online.retain(|c| c.is_online() && after.is_none_or(|after| c.client() > after));
        online.sort_unstable_by(|a, b| a.client().cmp(b.client()));
        online.truncate(most);
        online
    }
}
