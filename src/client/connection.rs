//! One client's connection: what is known of it, and what happens to it from its claim to its end.
//!
//! Whatever thread tells it something takes its lock for that, and never waits under it. The thread that reads is in
//! `reader` and its naps in `nap`, what is sent when in `delivery` and how in `sending`, the client's own words in
//! `booking`.

mod booking;
mod nap;
mod sending;

pub(crate) use booking::Ended;

use super::Caller;
use super::close_reason::CloseReason;
use super::delivery::{Delivery, Next, Offer, Ring, Wanted};
use super::owed::Owed;
use super::pinger;
use super::words::Words;
use crate::bookkeeper::Book;
use crate::doorbell::Bell;
use crate::drainer::Drainer;
use crate::frame::Welcome;
use crate::framing::Framing;
use crate::inbox::{Claim, Claimed, Error, Session, Slice, Stored, Token};
use crate::metrics::{Metrics, Way};
use crate::payment::{ClientId, Mark, Seq};
use crate::receipts::Receipts;
use crate::socket::send_now;
use booking::Booking;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::Thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What every connection of a node shares.
pub(crate) struct Shared {
    pub(crate) node: String,
    pub(crate) heartbeat_secs: u64,
    pub(crate) catch_up: Sender<Option<Arc<Connection>>>,
    pub(crate) book: Arc<Book>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) drainer: Arc<Drainer>,
    pub(crate) metrics: Arc<Metrics>,
    /// The store's clock, Unix ms.
    pub(crate) clock: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// One client's connection.
pub(crate) struct Connection {
    client: ClientId,
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    framing: Framing,
    since_ms: u64,
    token: Token,
    window: usize,
    auto_ack: bool,
    /// Its claim was sent to the store.
    claimed: Arc<AtomicBool>,
    shared: Arc<Shared>,
    reader: Thread,
    /// A nap is over, and not all that came in it is handled.
    reading: AtomicBool,
    /// Rounds of the pinger since a byte came.
    silent_rounds: AtomicU32,
    inner: Mutex<Inner>,
}

struct Inner {
    delivery: Delivery,
    session: Option<Session>,
    /// What is owed of a frame.
    rest: Owed,
    /// The drainer has it.
    parked: bool,
    closed: Option<CloseReason>,
    /// A claim was sent of which nobody knows whether it was stored.
    claim_unknown: bool,
    /// Goodbye was said: nothing goes out any more.
    leaving: bool,
    /// The newest payment that this node had sent on an earlier connection.
    sent_before: Mark,
    /// Everything up to here is stored as acknowledged.
    acked: Seq,
    /// What the client said and is not stored yet, in its order.
    to_book: Words,
    /// How far the bookkeeper knows of it.
    booked: Booking,
    /// The newest payment that was known to be waited for when its bell rang; 0 once it is acknowledged.
    awaited: Seq,
    /// Its reader naps.
    napping: bool,
    /// More is sent at once: the kernel may hold back what is sent until then.
    holding: bool,
    /// It may have.
    held_back: bool,
}

impl Connection {
    /// A connection that has said hello, for the thread that reads it.
    // Not inlined: with these values on its stack, the reader's thread, of which there is one for each client, would
    // touch a third page of it for good.
    #[inline(never)]
    pub(crate) fn new(
        client: ClientId,
        caller: Caller,
        window: usize,
        auto_ack: bool,
        shared: Arc<Shared>,
    ) -> Arc<Connection> {
        let inner = Inner {
            delivery: Delivery::new(window),
            session: None,
            rest: Owed::default(),
            parked: false,
            closed: None,
            claim_unknown: false,
            leaving: false,
            sent_before: Mark::default(),
            acked: Seq(0),
            to_book: Words::default(),
            booked: Booking::No,
            awaited: Seq(0),
            napping: false,
            holding: false,
            held_back: false,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since_ms = u64::try_from(now.as_millis()).unwrap_or(0);
        let (token, inner) = (Token::random(), Mutex::new(inner));
        let Caller { stream, peer, framing } = caller;
        let claimed = Arc::new(AtomicBool::new(false));
        Arc::new(Connection {
            client,
            stream,
            peer,
            framing,
            since_ms,
            token,
            window,
            auto_ack,
            claimed,
            shared,
            reader: std::thread::current(),
            reading: AtomicBool::new(false),
            silent_rounds: AtomicU32::new(0),
            inner,
        })
    }

    pub(crate) fn client(&self) -> &ClientId {
        &self.client
    }

    /// Unix ms, this node's clock.
    pub(crate) fn since_ms(&self) -> u64 {
        self.since_ms
    }

    pub(crate) fn framing(&self) -> Framing {
        self.framing
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Its claim is stored, and it has not ended.
    pub(crate) fn is_online(&self) -> bool {
        let inner = self.inner.lock();
        inner.session.is_some() && inner.closed.is_none()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.lock().closed.is_some()
    }

    /// A byte came from the client.
    pub(crate) fn heard(&self) {
        self.silent_rounds.store(0, Ordering::Relaxed);
    }

    /// A round of the pinger: in how many, with this one, no byte has come.
    pub(crate) fn one_more_silent_round(&self) -> u32 {
        self.silent_rounds.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whether every ping of this silence was due.
    pub(crate) fn was_asked(&self) -> bool {
        self.silent_rounds.load(Ordering::Relaxed) >= pinger::LAST_PING
    }

    /// Whether somebody is at it just now: who rings would have to wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.inner.is_locked()
    }

    /// What the bookkeeper is to claim, unless the connection has ended.
    pub(crate) fn claim(&self, deadline: Instant) -> Option<Claim> {
        let inner = self.inner.lock();
        if inner.closed.is_some() {
            return None;
        }
        self.claimed.store(true, Ordering::Relaxed);
        Some(Claim { client: self.client.clone(), token: self.token, address: self.peer.to_string(), deadline })
    }

    /// The claim was not stored, or nobody knows; it will be tried again.
    pub(crate) fn claim_refused(&self, error: &Error) {
        let mut inner = self.inner.lock();
        inner.claim_unknown |= matches!(error, Error::Unavailable { stored: Stored::Unknown, .. });
        self.claimed.store(inner.claim_unknown, Ordering::Relaxed);
        drop(inner);
        log::debug!("{}: its claim waits: {error}", self.client);
    }

    /// The claim is stored: says welcome and begins to deliver.
    pub(crate) fn claimed(self: &Arc<Self>, claimed: &Claimed) {
        let mut inner = self.inner.lock();
        if inner.closed.is_some() {
            return;
        }
        inner.session = Some(claimed.session.clone());
        inner.acked = claimed.acked.seq;
        let Ok(next) = inner.delivery.claimed(claimed.session.number, claimed.acked, claimed.last) else {
            return self.close_locked(&mut inner, CloseReason::Replaced);
        };
        let welcome = Welcome {
            client: &self.client,
            node: &self.shared.node,
            epoch: claimed.session.epoch,
            acked: claimed.acked.seq,
            pending: claimed.pending,
            heartbeat_secs: self.shared.heartbeat_secs,
            window: self.window,
        };
        log::debug!(
            "{}: connected from {}; acked {}, pending {}",
            self.client,
            self.peer,
            claimed.acked.seq,
            claimed.pending
        );
        self.write_all(&mut inner, welcome.json().as_bytes());
        self.go(next);
    }

    fn go(self: &Arc<Self>, next: Next) {
        if next == Next::CatchUp {
            // A client is in this queue at most once, and the queue has a place for each.
            let _ = self.shared.catch_up.try_send(Some(Arc::clone(self)));
        }
    }

    /// Its doorbell rang, so often. Whether a bell was kept ahead of its turn: see [`Connection::gap`].
    pub(crate) fn ring(self: &Arc<Self>, bells: impl ExactSizeIterator<Item = Bell>) -> bool {
        let mut inner = self.inner.lock();
        inner.holding = bells.len() > 1;
        let mut was_kept = false;
        for bell in bells {
            if inner.closed.is_some() {
                break;
            }
            if bell.awaited {
                inner.awaited = inner.awaited.max(bell.entry.mark.seq);
            }
            was_kept |= self.ring_locked(&mut inner, bell);
        }
        self.let_go(&mut inner);
        self.wake_if_pressing(&mut inner);
        was_kept
    }

    fn ring_locked(self: &Arc<Self>, inner: &mut Inner, bell: Bell) -> bool {
        let mut bell = Some(bell);
        while let Some(rung) = bell.take() {
            let expires_at = rung.entry.expires_at;
            if expires_at > 0 && expires_at <= (self.shared.clock)() {
                // Catch-up finds it, and makes it a dead letter.
                if inner.delivery.wish_check() {
                    self.go(Next::CatchUp);
                }
                return false;
            }
            match inner.delivery.ring(rung) {
                Ring::Send(entry) => {
                    self.send_payment(inner, &entry, Way::Live);
                    bell = inner.delivery.next_kept();
                }
                Ring::Kept => return true,
                Ring::CatchUp => self.go(Next::CatchUp),
                Ring::Nothing => {}
            }
        }
        false
    }

    /// A moment after a bell was kept: if the gap before it stands, catch-up fills it.
    pub(crate) fn gap(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        if inner.closed.is_none() && inner.delivery.gap_stands() {
            self.go(Next::CatchUp);
        }
    }

    /// Has this client compared with the store, for something may have been missed.
    pub(crate) fn wish_check(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        self.wake_locked(&mut inner);
        if inner.closed.is_none() && inner.delivery.wish_check() {
            self.go(Next::CatchUp);
        }
    }

    /// What catch-up is to read for it, and as which session. `None`: it is no longer catch-up's.
    pub(crate) fn wanted(&self) -> Option<(Session, Wanted)> {
        let mut inner = self.inner.lock();
        if inner.closed.is_some() {
            return None;
        }
        let session = inner.session.clone()?;
        let wanted = inner.delivery.wanted();
        self.wake_if_pressing(&mut inner);
        Some((session, wanted?))
    }

    /// Sends what was read, as far as window and socket go.
    pub(crate) fn catch_up(self: &Arc<Self>, slice: &Slice) {
        let mut inner = self.inner.lock();
        inner.delivery.left_inbox(slice.acked);
        inner.holding = slice.entries.len() > 1;
        let mut whole = true;
        for entry in &slice.entries {
            if inner.closed.is_some() {
                return;
            }
            match inner.delivery.offer(entry) {
                Offer::Skip => {}
                Offer::WindowFull => {
                    inner.delivery.window_full();
                    whole = false;
                    break;
                }
                Offer::Send => {
                    if !self.send_payment(&mut inner, entry, Way::CatchUp) {
                        whole = false;
                        break;
                    }
                }
            }
        }
        self.let_go(&mut inner);
        if whole {
            inner.delivery.passed(slice.upto);
        }
        let next = inner.delivery.finish_slice(slice.last);
        self.wake_if_pressing(&mut inner);
        self.go(next);
    }

    /// Catch-up could not read for it: it is to try again.
    pub(crate) fn catch_up_again(self: &Arc<Self>) {
        let next = self.inner.lock().delivery.read_again();
        self.go(next);
    }

    /// Everything up to this payment had been sent on an earlier connection. Said before the claim is.
    pub(crate) fn follows(&self, sent: Mark) {
        self.inner.lock().sent_before = sent;
    }

    /// The newest payment that was sent, here or on an earlier connection.
    pub(crate) fn sent_up_to(&self) -> Mark {
        let inner = self.inner.lock();
        // A store that lost writes gives seqs again, but its clock goes on.
        std::cmp::max_by_key(inner.sent_before, inner.delivery.newest_sent(), |mark| (mark.accepted_at, mark.seq))
    }

    /// The same, where something of it is not known to be stored as acknowledged.
    pub(crate) fn sent_in_vain(&self) -> Option<Mark> {
        Some(self.sent_up_to()).filter(|sent| sent.seq > self.inner.lock().acked)
    }

    /// For the operator: the store lost writes that this connection had seen.
    pub(crate) fn note_roll_back(&self) {
        self.shared.metrics.rolled_back();
    }

    /// A payment became a dead letter by another's word.
    pub(crate) fn died(self: &Arc<Self>, seq: Seq) {
        let mut inner = self.inner.lock();
        if inner.closed.is_none() && inner.delivery.died(seq) {
            self.go(Next::CatchUp);
        }
    }

    /// A newer session of this client was made on another node.
    pub(crate) fn taken_over(self: &Arc<Self>, by: u64) {
        let mut inner = self.inner.lock();
        if inner.closed.is_none() && inner.delivery.taken_over(by) {
            self.close_locked(&mut inner, CloseReason::Replaced);
        }
    }

    /// The node stops: says so and sends nothing more. Acknowledgements are still taken, for
    /// what is stored now does not come again.
    pub(crate) fn say_goodbye(&self) {
        let mut inner = self.inner.lock();
        if inner.closed.is_some() || inner.leaving {
            return;
        }
        inner.leaving = true;
        self.wake_locked(&mut inner);
        // Behind a half frame nothing can be said; the drainer may still send its rest.
        if let Some(last_word) = CloseReason::ShuttingDown.last_word(self.framing).filter(|_| inner.rest.is_empty()) {
            let _ = send_now(&self.stream, &last_word);
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Ends the connection: says why, as far as the socket takes it now, and wakes its reader.
    /// Only the first call counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        self.close_locked(&mut self.inner.lock(), reason);
    }

    fn close_locked(&self, inner: &mut Inner, reason: CloseReason) {
        if inner.closed.is_some() {
            return;
        }
        // Behind a half frame nothing can be said.
        if inner.rest.is_empty()
            && !inner.leaving
            && let Some(last_word) = reason.last_word(self.framing)
        {
            let _ = send_now(&self.stream, &last_word);
        }
        let (sent, unacked) = inner.delivery.sent();
        let code = reason.code().unwrap_or("left");
        log::debug!("{}: {code}, closing; sent up to {sent}, {unacked} of it not acknowledged", self.client);
        self.shared.metrics.closed(code);
        if reason == CloseReason::Replaced {
            self.shared.metrics.taken_over();
        }
        inner.closed = Some(reason);
        inner.rest = Owed::default();
        let _ = self.stream.shutdown(Shutdown::Both);
        self.wake_locked(inner);
    }
}
