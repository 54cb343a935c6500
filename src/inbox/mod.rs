//! The inbox: the durable queue of every client, and which connection owns it now.
//!
//! Two homes keep the same promises: [`redis`] for several nodes, [`disk`] for one node alone.
//! What is promised here is README.md's, *Promises*; how each home keeps it is told in its own file.
//!
//! A payment becomes a *dead letter* where it is refused or expires. Its place in the inbox stays as a tombstone until
//! everything before it is gone; the payment itself is kept aside. Expiry is judged by the store's clock whenever a
//! payment is looked at, and by two rules:
//!
//! - A session that owns the inbox reads on behind what it has sent: what it finds past its time there, it did not
//!   send, and that is a dead letter at once. A bell is judged by the node's view of that clock.
//! - Whoever else looks (a status, a repeat, a wait) leaves a payment alone that the present session has sent, which
//!   the entry says (`Note::Sent`, only for what can expire), and for [`EXPIRY_GRACE`] what it may have sent; after an
//!   outage, until all nodes have had time to be heard again. Once that session is over, or its node is dead, nothing
//!   protects it any more; the dead letter then says `maybe_delivered`.
//!
//! A session that ended without a release, for its node was killed, may have sent what it could not write down any
//! more: its payments count as maybe delivered too. Until it
//! is known to be dead it counts as living: what it sent within its last moments, and what expires before its lease has
//! lapsed, may lack that word.
//!
//! Dead letters count towards an inbox's limits, so that expiry alone makes no room.
//!
//! Callers: HTTP threads and the committer (`accept`), the bookkeeper (`book`), catch-up and the
//! timer (`read`), HTTP threads (the rest). No method is called under a lock, none waits longer
//! than [`CALL_LIMIT`] for each 128 of what it was given; `accept` once more, for what others gave.

#[cfg(test)]
mod contract;
pub(crate) mod disk;
pub(crate) mod group;
pub(crate) mod letter;
pub(crate) mod redis;

use crate::metrics::InboxMeters;
use crate::payment::{ClientId, Entry, Mark, Payment, PaymentId, Seq};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// The most time one round trip to the store may take, whatever it carries.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(1);
/// The most that is put into one round trip.
pub(crate) const MAX_PER_CALL: usize = 128;

/// How long after its time a payment of a connected client is left to the node that holds it: word of what was sent in
/// time may still be on its way. Longer than a store may be held up without anybody's taking notice.
pub(crate) const EXPIRY_GRACE: Duration = Duration::from_secs(3);

/// The most bytes that wait in one inbox, or are held as its dead letters.
pub(crate) const MAX_INBOX_BYTES: u64 = 256 << 20;

/// The most inboxes that [`Inbox::backlog`] looks into.
pub(crate) const MAX_COUNTED: usize = 10_000;

/// The durable queue of every client.
pub(crate) trait Inbox: Send + Sync {
    /// Stores payments, in their order, and hands each one's `done` what became of it, exactly
    /// once, from whichever thread leads the commit. Returns at once or after the rounds that it
    /// led itself: two at most.
    ///
    /// Once `done` hears `Ok`, the payment is as durable as this home makes it. A payment id seen
    /// within the dedup window stores nothing and names the first one's seq.
    fn accept_all(&self, deposits: Vec<Deposit>);

    /// The same for one.
    fn accept(&self, deposit: Deposit) {
        self.accept_all(vec![deposit]);
    }

    /// Claims, acknowledgements and releases, in their order. One answer each. An error of one
    /// leaves the others' answers true.
    fn book(&self, notes: &[Note]) -> Vec<Result<Booked, Error>>;

    /// What lies behind given places, for sessions that own their inboxes. One answer each.
    fn read(&self, asks: &[Ask]) -> Vec<Result<Reading, Error>>;

    /// What became of payments. One answer each; `None`: no such payment is known.
    fn look_up(&self, queries: &[Query]) -> Vec<Result<Option<Found>, Error>>;

    /// The store's word on clients. One answer each; `None`: never had a payment or connection.
    fn records(&self, clients: &[ClientId]) -> Vec<Result<Option<Record>, Error>>;

    /// Clients whose inboxes stay non-empty, by client id, after the given one.
    fn waiting(&self, after: Option<&ClientId>, most: usize) -> Result<Vec<ClientId>, Error>;

    /// What waits in all inboxes, for `/metrics`: bounded in time however many there are.
    fn backlog(&self) -> Result<Backlog, Error>;

    /// The store's clock, Unix ms, as far as this node knows it. Asks nobody.
    fn now_ms(&self) -> u64;

    /// Jobs that wait for a commit.
    fn uncommitted(&self) -> usize;

    /// What it measures of itself.
    fn meters(&self) -> InboxMeters;

    /// An operator's way past a payment: it becomes a dead letter, if it waits. What it is now, and whether this call
    /// made it so; `None`: no such payment is known.
    fn refuse(&self, client: &ClientId, seq: Seq, reason: &str) -> Result<Option<(Status, bool)>, Error>;

    /// A client's dead letters behind a seq, in order; stops after the one that goes past so many bytes. `None`: the
    /// client is unknown.
    fn dead_letters(&self, client: &ClientId, after: Seq, most: usize, bytes: usize) -> Result<Option<Letters>, Error>;

    /// Puts a dead letter back into its inbox, as a new payment without expiry.
    fn retry(&self, client: &ClientId, seq: Seq) -> Result<Retry, Error>;

    /// Throws a dead letter away. What it was, or is where it was none; `None`: no such dead letter is known.
    fn purge(&self, client: &ClientId, seq: Seq) -> Result<Option<Status>, Error>;

    /// Forgets a client with all that is stored for it.
    fn retire(&self, client: &ClientId, discard: bool) -> Result<Retired, Error>;

    /// What must be done once a second: keeping the lease, learning the clock and who is alive.
    fn tend(&self) -> Tended;

    /// The names of all nodes that live, this one too.
    fn nodes(&self) -> Vec<String>;

    /// Whether payments can be accepted now, and what a 2xx is worth, in words.
    fn health(&self) -> Health;

    /// The thread body of `committer`: leads commits while work is left over.
    fn commit(&self);

    /// The store was lost for others: connections to it that lie idle may be dead, and a payment
    /// sent on one would have an unknown outcome without need.
    fn distrust(&self);

    /// Ends `commit` once the list is empty. Payments that are handed in after this are refused,
    /// unstored.
    fn close(&self);

    /// Gives up what other nodes take for a sign of life.
    fn leave(&self);
}

/// A payment on its way into an inbox.
pub(crate) struct Deposit {
    pub(crate) payment: Payment,
    /// Somebody waits for the acknowledgement: the node that stores it is to send a receipt here.
    pub(crate) receipt: bool,
    /// Past this it is not tried any more.
    pub(crate) deadline: Instant,
    pub(crate) done: Done,
}

/// Who hears what became of a deposit: exactly once, even where the deposit is dropped.
pub(crate) struct Done(Option<Hear>);

type Hear = Box<dyn FnOnce(Result<Accepted, Error>) + Send>;

impl Done {
    pub(crate) fn new(hear: impl FnOnce(Result<Accepted, Error>) + Send + 'static) -> Done {
        Done(Some(Box::new(hear)))
    }

    /// Says it. A panic of the hearer is its own: it does not reach who commits for others.
    pub(crate) fn say(mut self, outcome: Result<Accepted, Error>) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Result<Accepted, Error>) {
        let Some(hear) = self.0.take() else { return };
        if catch_unwind(AssertUnwindSafe(|| hear(outcome))).is_err() {
            log::error!("a panic while a payment was answered; the payment itself is as it is");
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        let why = "the commit was interrupted".to_owned();
        self.tell(Err(Error::Unavailable { stored: Stored::Unknown, why }));
    }
}

impl group::Job for Deposit {
    fn bytes(&self) -> usize {
        self.payment.parcel.as_bytes().len() + 256
    }

    fn refuse(self, why: &str) {
        self.done.say(Err(Error::away(why)));
    }
}

/// It is in the inbox, or was already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) mark: Mark,
    /// This payment id was there before; nothing was stored.
    pub(crate) duplicate: bool,
    pub(crate) status: Status,
    /// Whether the client had a connection, on a node that lives.
    pub(crate) online: bool,
}

pub(crate) use crate::payment::Status;

/// Whether a payment may have been stored though it was answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    No,
    Unknown,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// The client's inbox holds as many payments as it may. Nothing was stored.
    InboxFull,
    /// The payment id belongs to another payment. Nothing was stored.
    IdReused,
    /// The store has no room. Nothing was stored; what takes room away still works.
    StoreFull,
    /// The store cannot be reached, is busy, or did not answer in time.
    Unavailable { stored: Stored, why: String },
    /// What is stored for this client makes no sense. Nothing was changed.
    Corrupt(String),
}

impl Error {
    /// Unreachable, and certain that nothing was changed.
    pub(crate) fn away(why: impl Into<String>) -> Error {
        Error::Unavailable { stored: Stored::No, why: why.into() }
    }

    /// Whether the same call can be expected to work later.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Error::Unavailable { .. } | Error::StoreFull)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InboxFull => f.write_str("the client's inbox is full"),
            Error::IdReused => f.write_str("this payment id was used for another payment"),
            Error::StoreFull => f.write_str("the store is full"),
            Error::Unavailable { why, .. } => write!(f, "the store is unavailable: {why}"),
            Error::Corrupt(why) => write!(f, "what is stored makes no sense: {why}"),
        }
    }
}

impl std::error::Error for Error {}

/// One ownership of an inbox: from a claim to its release, or to the next claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    /// Rises with every claim of this client: says which of two is newer.
    pub(crate) number: u64,
    /// Drawn at random by the claimer: says whether it still is the owner.
    pub(crate) token: Token,
    /// Of the numbering that this session saw.
    pub(crate) epoch: u64,
}

/// 16 random bytes in hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token([u8; 32]);

impl Token {
    /// Draws one.
    pub(crate) fn random() -> Token {
        let bytes: [u8; 16] = crate::auth::random();
        let mut text = [0; 32];
        data_encoding::HEXLOWER.encode_mut(&bytes, &mut text);
        Token(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the bookkeeper has stored.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// A connection said hello.
    Claim(Claim),
    /// Everything up to this payment is done. A lower one than before changes nothing.
    Ack { client: ClientId, session: Session, mark: Mark },
    /// The client, or whoever speaks for its connection, can't process this one: it becomes a dead letter.
    Refuse { client: ClientId, session: Session, mark: Mark, reason: String },
    /// A payment that can expire was sent.
    Sent { client: ClientId, session: Session, mark: Mark },
    /// The connection ended.
    Release { client: ClientId, session: Session },
}

/// A connection that wants an inbox.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) client: ClientId,
    pub(crate) token: Token,
    /// Of the client, for the operator to see.
    pub(crate) address: String,
    /// A claim that the store gets to see only after this is refused: its connection is gone.
    pub(crate) deadline: Instant,
}

/// What a note did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Booked {
    Claimed(Claimed),
    /// The client changed hands too short a time ago; ask again after this.
    TooSoon(Duration),
    /// Stored: everything up to this seq is acknowledged.
    Acknowledged(Seq),
    /// The same, of a client with dead letters: what left the inbox need not all be acknowledged.
    Passed(Seq),
    /// It is a dead letter.
    Refused,
    /// It was acknowledged, or is dead for another reason: nothing was changed.
    Settled,
    /// That it was sent is written down, as far as it matters.
    Noted,
    Released,
    /// A newer session owns the inbox. Nothing was changed.
    Replaced,
    /// The store came back without writes that this session saw. It must claim anew.
    RolledBack,
}

/// The inbox as a claim found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) session: Session,
    pub(crate) acked: Mark,
    pub(crate) last: Mark,
    pub(crate) pending: u64,
}

/// What lies behind a place?
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) client: ClientId,
    pub(crate) session: Session,
    /// What was sent last.
    pub(crate) after: Mark,
    /// At most so many; 0 only checks that session and place are still true.
    pub(crate) payments: usize,
    /// Stops after the payment that goes past this; at least one comes.
    pub(crate) bytes: usize,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// In order, without gaps but for dead letters.
    Slice(Slice),
    /// A newer session owns the inbox.
    Replaced,
    /// The store came back without writes that this session saw.
    RolledBack,
}

/// A part of an inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) entries: Vec<Entry>,
    /// Up to here it was looked: behind the last entry there may be dead letters' places.
    pub(crate) upto: Mark,
    /// Everything up to here has left the inbox.
    pub(crate) acked: Seq,
    /// What was accepted last.
    pub(crate) last: Mark,
}

/// A page of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letters {
    pub(crate) letters: Vec<Letter>,
    /// Behind the last of them there are more.
    pub(crate) more: bool,
}

/// A payment that left the inbox unacknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub(crate) status: Status,
    /// Unix ms.
    pub(crate) dead_at: u64,
    /// It expired after it had been sent.
    pub(crate) maybe_delivered: bool,
    /// Why it was refused.
    pub(crate) reason: String,
    pub(crate) entry: Entry,
}

/// What came of putting a dead letter back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It is in the inbox, with the payment id that it has.
    Accepted(Accepted, Option<String>),
    /// It is held no more; what became of it.
    Gone(Status),
    /// No such dead letter is known.
    Unknown,
}

/// A payment that somebody asks for.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    pub(crate) client: ClientId,
    pub(crate) which: Which,
}

/// By what.
#[derive(Clone, Debug)]
pub(crate) enum Which {
    Seq(Seq),
    PaymentId(PaymentId),
}

/// A payment that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) seq: Seq,
    pub(crate) status: Status,
    /// Where it was asked by it, or the payment is still held.
    pub(crate) payment_id: Option<String>,
    /// When it is worth asking again: it may be past its time then, and a dead letter soon after.
    pub(crate) due_in: Option<Duration>,
}

/// The store's word on one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) last: Seq,
    pub(crate) acked: Seq,
    pub(crate) pending: u64,
    pub(crate) oldest_pending_at: Option<u64>,
    /// How many dead letters are held.
    pub(crate) dead_letters: u64,
    pub(crate) owner: Option<Owner>,
}

/// Where a client is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) node: String,
    /// Unix ms.
    pub(crate) since: u64,
    pub(crate) address: String,
}

/// What waits in all inboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Inboxes with payments in them; on Redis those that stay so.
    pub(crate) inboxes: u64,
    /// The payments in at most [`MAX_COUNTED`] of them.
    pub(crate) payments: u64,
    /// When the oldest of these was accepted, Unix ms.
    pub(crate) oldest_at: Option<u64>,
}

/// What came of retiring a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retired {
    Done,
    Unknown,
    /// It has payments waiting, and they were not to be discarded.
    Pending(u64),
}

/// How much a node asks of its store before it takes payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Always,
    Everysec,
    Any,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Always => "always",
            Durability::Everysec => "everysec",
            Durability::Any => "any",
        })
    }
}

/// What `tend` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tended {
    Fine,
    /// The lease had lapsed: others may have thought this node dead.
    Lapsed,
    /// Another process runs under this node's name.
    Ousted,
}

/// Whether payments can be accepted, and what a 2xx is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// Why not, where it is not ready.
    pub(crate) ready: Result<(), String>,
    /// `redis` or `embedded`.
    pub(crate) store: &'static str,
    /// In words.
    pub(crate) durability: String,
    /// What an operator should mend though the node is ready.
    pub(crate) warnings: Vec<String>,
}
