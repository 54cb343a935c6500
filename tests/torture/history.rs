//! What happened, written down as it happens: one file of fixed records for each thread, and one of rare events.
//!
//! A record is 64 bytes, so a million payments make a few hundred MB and are read in seconds. Every thread has a file of
//! its own and a buffer that goes to it every tenth of a second: so recording waits for nobody, and after a crash of
//! the harness the history is there but for that tenth. All times are nanoseconds since the start of the run.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::fault::Kind as Fault;

/// What a record says. In the comments: what its fields mean there; a field that is not named is 0.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Kind {
    /// Nothing; never written.
    #[default]
    Nothing = 0,
    /// A post begins. `client`, `node`, `uid`, `digest` of what is to be delivered, `payment_id`, `note`: [`Way`].
    /// A post sent again is another `Post` with the same uid and payment id.
    Post = 1,
    /// It got a 2xx. `seq`, `code`: HTTP status, `note`: [`Status`], `flag`: duplicate; `extra`: 1 if `online` was true.
    PostOk,
    /// It was refused, or never reached a node: nothing may be stored. `code`: HTTP status, 0 if not connected.
    PostFail,
    /// Its outcome is unknown. `code`: HTTP status, 0 if there was no answer.
    PostUnknown,
    /// A receiver connected and said hello. `client`, `node`, `connection`.
    Hello,
    /// It was welcomed. `seq`: acked, `uid`: pending, `digest`: epoch, `extra`: window.
    Welcome,
    /// A payment came. `seq`, `uid`, `digest`, `payment_id`, `extra`: accepted_at; `flag`: this connection was not read
    /// as fast as it could be, on purpose.
    Receive,
    /// An acknowledgement was handed to the socket (written down before). `seq`: how far it can count; `extra`: what it
    /// said, where that was more.
    Ack,
    /// A nack was handed to the socket. `seq`.
    Nack,
    /// A connection ended. `note`: [`End`].
    Closed,
    /// What a node said of a client. `seq`: last_seq, `uid`: acked, `extra`: pending, `flag`: online.
    Probe,
    /// What a node said of one payment. `seq`, `note`: [`Status`], `payment_id` if it was asked by it.
    ProbePayment,
    /// `/readyz`. `node`, `code`.
    Ready,
}

/// How a post goes out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Way {
    Single = 1,
    Batch,
    Raw,
    Wait,
    /// One of two at once, to two nodes, with one payment id.
    Twin,
    /// An earlier payment id again with the same body.
    Repeat,
    /// An earlier payment id again with another body: must be refused.
    Reused,
    /// Cut on purpose before the answer.
    Cut,
    /// The canary's: nothing is done to it directly.
    Canary,
}

/// What became of a payment, as an answer says it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Status {
    Accepted = 1,
    Acknowledged,
    Refused,
    Expired,
    Retried,
    Purged,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum End {
    /// We ended it.
    Own = 1,
    /// It ended without a word, or could not be made.
    Silent,
    Replaced,
    ShuttingDown,
    Unavailable,
    IdleTimeout,
    TooSlow,
    TooManyClients,
    /// Any other error code; an event says which.
    Other,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Record {
    /// Nanoseconds since the start.
    pub at: u64,
    pub kind: Kind,
    pub note: u8,
    pub flag: bool,
    pub node: u8,
    /// HTTP status.
    pub code: u16,
    /// Who wrote it: the number of its thread.
    pub actor: u16,
    pub client: u32,
    /// Of this client, counted from 1, all receivers of the id together.
    pub connection: u32,
    pub seq: u64,
    /// Sender's number in the upper 32 bits, its counter in the lower; 0 is none.
    pub uid: u64,
    /// Of the bytes a receiver must see.
    pub digest: u64,
    /// The uid whose name is the payment id; 0 is none.
    pub payment_id: u64,
    pub extra: u64,
}

/// Something rare, as a line of JSON in `events.jsonl`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Event {
    /// Nanoseconds since the start.
    pub at: u64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum What {
    /// A planned fault begins: step so many of the plan.
    FaultBegin { step: usize, kind: Fault },
    /// It is healed: from here bounds are measured. `effect`: how often something happened that its target must have noticed.
    FaultEnd { step: usize, kind: Fault, effect: u64 },
    /// A behaviour that counts as a fault had its effect once.
    Behaved { kind: Fault },
    /// This machine cannot do it.
    Skipped { kind: Fault, why: String },
    /// From here on no fault is in force, until the next one begins.
    Quiet,
    /// No more posts; receivers go on until their inboxes are empty.
    Drain,
    /// A node's process came up.
    Started { node: u8 },
    /// A node's process ended. `expected`: we did it.
    Ended { node: u8, expected: bool, status: String },
    /// A broken promise, seen where it happened. `check`: C5, C7, …
    Broken { check: String, what: String },
    /// What a bound was measured at, in milliseconds.
    Measured { bound: String, ms: f64 },
    /// One of a process' figures: `fds`, `threads`, `rss_kib`.
    Level { node: u8, what: String, value: u64 },
    /// For who reads the file.
    Remark { text: String },
}

/// Where a run writes; shared by all its threads.
#[derive(Debug)]
pub struct History {
    dir: PathBuf,
    start: Instant,
    events: Mutex<File>,
}

impl History {
    pub fn create(dir: &Path) -> io::Result<Arc<History>> {
        fs::create_dir_all(dir)?;
        let events = Mutex::new(File::create(dir.join("events.jsonl"))?);
        Ok(Arc::new(History { dir: dir.to_owned(), start: Instant::now(), events }))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a run of less than 500 years")
    }

    /// The file of one thread. `actor` is its number, and no other's.
    pub fn writer(self: &Arc<History>, actor: u16) -> io::Result<Writer> {
        let file = File::create(self.dir.join(format!("records-{actor:05}.bin")))?;
        let file = BufWriter::with_capacity(64 << 10, file);
        Ok(Writer { history: Arc::clone(self), actor, file, flushed: Instant::now() })
    }

    pub fn event(&self, what: What) {
        if let What::Broken { check, what } = &what {
            eprintln!("BROKEN {check}: {what}");
        }
        let line = serde_json::to_string(&Event { at: self.now(), what }).expect("plain data");
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(events, "{line}").expect("a file of our own on a disk with room");
    }
}

/// The file of one thread.
#[derive(Debug)]
pub struct Writer {
    history: Arc<History>,
    actor: u16,
    file: BufWriter<File>,
    flushed: Instant,
}

impl Writer {
    /// Writes a record down; the time and who it is from are filled in here. Returns its time.
    pub fn record(&mut self, record: Record) -> u64 {
        let record = Record { at: self.history.now(), actor: self.actor, ..record };
        let written = self.file.write_all(&record.encode());
        written.expect("a file of our own on a disk with room");
        if self.flushed.elapsed() > Duration::from_millis(100) {
            self.flush();
        }
        record.at
    }

    /// To be called before a wait that may be long.
    pub fn flush(&mut self) {
        self.file.flush().expect("a file of our own on a disk with room");
        self.flushed = Instant::now();
    }
}

/// A whole history, in the order of time.
#[derive(Clone, Debug, Default)]
pub struct Story {
    pub records: Vec<Record>,
    pub events: Vec<Event>,
}

impl Story {
    /// Reads what a run left. A last record or event that is cut short is left out: the harness was killed there.
    pub fn read(dir: &Path) -> io::Result<Story> {
        let mut records = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "bin") {
                read_records(&path, &mut records)?;
            }
        }
        records.sort_by_key(|record| record.at);
        let text = fs::read_to_string(dir.join("events.jsonl"))?;
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let events = whole.map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Story { records, events })
    }
}

fn read_records(path: &Path, into: &mut Vec<Record>) -> io::Result<()> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    for chunk in bytes.as_chunks::<{ Record::BYTES }>().0 {
        let record = Record::decode(chunk);
        into.push(record.ok_or_else(|| io::Error::other(format!("{}: not a record", path.display())))?);
    }
    Ok(())
}

impl Record {
    pub const BYTES: usize = 64;

    pub fn encode(&self) -> [u8; Record::BYTES] {
        let mut bytes = [0; Record::BYTES];
        let small = [self.kind as u8, self.note, u8::from(self.flag), self.node];
        bytes[0..8].copy_from_slice(&self.at.to_le_bytes());
        bytes[8..12].copy_from_slice(&small);
        bytes[12..14].copy_from_slice(&self.code.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.actor.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.client.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.connection.to_le_bytes());
        let large = [self.seq, self.uid, self.digest, self.payment_id, self.extra];
        for (place, number) in bytes[24..].chunks_exact_mut(8).zip(large) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8; Record::BYTES]) -> Option<Record> {
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"));
        Some(Record {
            at: u64_at(0),
            kind: Kind::of(bytes[8])?,
            note: bytes[9],
            flag: bytes[10] == 1,
            node: bytes[11],
            code: u16_at(12),
            actor: u16_at(14),
            client: u32_at(16),
            connection: u32_at(20),
            seq: u64_at(24),
            uid: u64_at(32),
            digest: u64_at(40),
            payment_id: u64_at(48),
            extra: u64_at(56),
        })
    }
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::Post,
        Kind::PostOk,
        Kind::PostFail,
        Kind::PostUnknown,
        Kind::Hello,
        Kind::Welcome,
        Kind::Receive,
        Kind::Ack,
        Kind::Nack,
        Kind::Closed,
        Kind::Probe,
        Kind::ProbePayment,
        Kind::Ready,
    ];

    fn of(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// What identifies the bytes a receiver must see: FNV-1a over words instead of bytes, for nobody here wants to forge
/// one, and there are many bytes.
pub fn digest(parts: &[&[u8]]) -> u64 {
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(23);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            hash = mix(hash, u64::from_le_bytes(*word));
        }
        for byte in rest {
            hash = mix(hash, u64::from(*byte));
        }
        // Else the end of one part could pass for the beginning of the next.
        hash = mix(hash, part.len() as u64);
    }
    hash
}

/// How a uid is written in a payment: `s03-0000001A`.
pub fn uid_text(uid: u64) -> String {
    format!("s{:02}-{:08X}", uid >> 32, uid & 0xffff_ffff)
}

/// The uid of such a text.
pub fn parse_uid(text: &str) -> Option<u64> {
    let (sender, counter) = text.strip_prefix('s')?.split_once('-')?;
    let (sender, counter) = (sender.parse::<u32>().ok()?, u32::from_str_radix(counter, 16).ok()?);
    Some((u64::from(sender) << 32) | u64::from(counter))
}
