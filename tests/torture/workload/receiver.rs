//! Receivers: each reads, remembers and acknowledges, and every few seconds takes up another way of being difficult.
//!
//! What the protocol forbids is left to `liar`. A thread for each, and one more while a client is there twice.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::line::{Came, Frame, Line, Payment};
use super::post::byte;
use super::till::Till;
use super::{NAP, Shared, spawn};
use crate::fault::Kind as Fault;
use crate::history::{End, Kind, Record, What, Writer};
use crate::random::Random;
use crate::roster::{self, Duty};

/// How long a node may take to welcome us before we try another.
const WELCOME_LIMIT: Duration = Duration::from_secs(3);
/// Of silence, before we ask whether there is still somebody.
const PING_AFTER: Duration = Duration::from_secs(3);
/// Of silence, before we believe that there is nobody.
const DEAF_AFTER: Duration = Duration::from_secs(9);
/// The same for who must know sooner: the canary, and everybody in the drain.
const ALERT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(1500));
/// One payment of so many is refused.
const NACK_ONE_IN: u64 = 2000;
/// How often a client that is there twice comes back at once when it is replaced.
const MAX_FLAPS: u32 = 20;
/// So many acknowledgements may be due before one is sent though more payments are here already.
const MAX_OWED: u64 = 16;

/// One connection of a client at a time.
pub struct Receiver {
    shared: Arc<Shared>,
    client: u32,
    duty: Duty,
    /// Further fields of its hello.
    hello: String,
    pub random: Random,
    pub writer: Writer,
    pub link: Option<Link>,
    /// Not before this does it connect again.
    back_off: Instant,
    /// Where it goes next, if that is decided.
    pub next_node: Option<usize>,
    /// How its last connection ended.
    last_end: Option<End>,
    twin: Option<Box<Receiver>>,
}

/// A connection that was welcomed.
pub struct Link {
    pub line: Line,
    pub node: usize,
    pub connection: u32,
    /// The highest seq that came on it.
    pub received: u64,
    /// The highest that was acknowledged on it.
    pub acked: u64,
    window: u64,
    pinged: bool,
    /// When we last wrote.
    spoke: Instant,
    /// To be acknowledged later.
    due: VecDeque<(u64, Instant)>,
    /// On purpose it was not read as fast as it could be.
    dawdled: bool,
}

/// When it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Acks {
    Prompt,
    Every(u64),
    After(Duration),
    /// When nothing more can come without.
    AtWindowEnd,
    Never,
}

/// How it is difficult.
#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Acks(Acks),
    Slow(u64),
    Stalls,
    NeverAcks,
    Vanishes,
    Leaves(Leave),
    Twin,
    /// Ends within a frame.
    Cut,
}

/// How it ends a connection.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Reset,
    HalfClose,
    Bye,
    /// To another node.
    Moves,
    /// With payments that it processed and did not acknowledge.
    Amnesia,
}

/// Starts a client. `twin` numbers its second connections.
pub fn start(shared: &Arc<Shared>, client: u32, actor: u16, twin: u16) -> io::Result<JoinHandle<()>> {
    let mut receiver = Receiver::new(shared, client, actor, "receiver")?;
    receiver.twin = Some(Box::new(Receiver::new(shared, client, twin, "twin")?));
    spawn(format!("receiver-{client}"), move || receiver.live())
}

impl Receiver {
    pub fn new(shared: &Arc<Shared>, client: u32, actor: u16, role: &str) -> io::Result<Receiver> {
        let duty = roster::duty(&shared.world.options, client);
        Ok(Receiver {
            shared: Arc::clone(shared),
            client,
            duty,
            hello: if duty == Duty::Auto { r#","ack":"auto""#.into() } else { String::new() },
            random: shared.random(&format!("{role}/{client}")),
            writer: shared.world.history.writer(actor)?,
            link: None,
            back_off: Instant::now(),
            next_node: None,
            last_end: None,
            twin: None,
        })
    }

    /// With further fields in its hello, each after a comma.
    pub fn saying(mut self, fields: &str) -> Receiver {
        fields.clone_into(&mut self.hello);
        self
    }

    fn till(&self) -> &Till {
        &self.shared.tills[self.client as usize]
    }

    fn live(mut self) {
        while !self.shared.is_over() {
            if self.shared.is_draining() {
                self.step(Acks::Prompt);
                continue;
            }
            let (behaviour, length) = self.draw_behaviour();
            let until = Instant::now() + length;
            self.behave(behaviour, until);
        }
        self.close(End::Own);
        self.writer.flush();
    }

    fn draw_behaviour(&mut self) -> (Behaviour, Duration) {
        let brisk = self.shared.is_brisk();
        let (low, high) = if brisk { (2_000, 6_000) } else { (10_000, 40_000) };
        let mut length = self.random.within(low, high);
        let weights: &[u64] = match self.duty {
            // What it does not acknowledge itself it cannot acknowledge late.
            Duty::Auto => &[30, 0, 0, 0, 5, 0, 0, 0, 10, 10, 10, 10, 0, 0, 5],
            _ => &[20, 8, 8, 6, 6, 6, 6, 6, 6, 6, 5, 6, 6, 7, 6],
        };
        let behaviour = match self.random.weighted(weights) {
            0 => Behaviour::Acks(Acks::Prompt),
            1 => Behaviour::Acks(Acks::Every(self.random.within(2, 40))),
            2 => Behaviour::Acks(Acks::After(Duration::from_millis(self.random.log_within(5, 1500)))),
            3 => Behaviour::Acks(Acks::AtWindowEnd),
            4 => Behaviour::Slow(self.random.log_within(1_000, 50_000)),
            5 => {
                length = if brisk { length } else { self.random.log_within(5_000, 60_000) };
                Behaviour::Stalls
            }
            6 => Behaviour::NeverAcks,
            7 => Behaviour::Vanishes,
            8 => Behaviour::Leaves(Leave::Reset),
            9 => Behaviour::Leaves(Leave::HalfClose),
            10 => Behaviour::Leaves(Leave::Bye),
            11 => Behaviour::Leaves(Leave::Moves),
            12 => Behaviour::Leaves(Leave::Amnesia),
            13 => Behaviour::Twin,
            _ => Behaviour::Cut,
        };
        (behaviour, Duration::from_millis(length))
    }

    fn behave(&mut self, behaviour: Behaviour, until: Instant) {
        match behaviour {
            Behaviour::Acks(acks) => self.steps(acks, until),
            Behaviour::Slow(rate) => self.be_slow(rate, until),
            Behaviour::Stalls => self.stall(until),
            Behaviour::NeverAcks => {
                self.steps(Acks::Never, until);
                if self.link.as_ref().is_some_and(|link| link.received > link.acked) {
                    self.shared.behaved(Fault::F52);
                }
            }
            Behaviour::Vanishes => self.vanish(until),
            Behaviour::Leaves(leave) => {
                while self.goes_on(until) {
                    let moment = Instant::now() + Duration::from_millis(self.random.within(50, 1500));
                    self.leave(leave, moment.min(until));
                }
            }
            Behaviour::Twin => self.be_twice(until),
            Behaviour::Cut => {
                while self.goes_on(until) {
                    let moment = Instant::now() + Duration::from_millis(self.random.within(200, 1500));
                    self.cut(moment.min(until));
                }
            }
        }
    }

    fn goes_on(&self, until: Instant) -> bool {
        Instant::now() < until && !self.shared.is_over() && !self.shared.is_draining()
    }

    pub fn steps(&mut self, acks: Acks, until: Instant) {
        while self.goes_on(until) {
            self.step(acks);
        }
    }

    fn be_slow(&mut self, rate: u64, until: Instant) {
        while self.goes_on(until) {
            if let Some(link) = &mut self.link {
                link.line.rate = Some(rate);
                link.dawdled = true;
            }
            self.step(Acks::Prompt);
        }
        if let Some(link) = &mut self.link {
            link.line.rate = None;
        }
    }

    /// Does nothing at all for a while, and goes on then where it was.
    fn stall(&mut self, until: Instant) {
        self.writer.flush();
        self.shared.sleep(until);
        if let Some(link) = &mut self.link {
            // The silence was ours.
            link.line.heard = Instant::now();
            link.dawdled = true;
            self.shared.behaved(Fault::F51);
        }
    }

    /// Is gone, and its connection stays as it is; comes back on another.
    fn vanish(&mut self, until: Instant) {
        let Some(link) = self.close(End::Own) else { return self.steps(Acks::Prompt, until) };
        self.writer.flush();
        self.shared.sleep(until);
        self.shared.behaved(Fault::F50);
        self.step(Acks::Prompt);
        drop(link);
    }

    fn leave(&mut self, leave: Leave, moment: Instant) {
        let acks = if matches!(leave, Leave::Amnesia) { Acks::Never } else { Acks::Prompt };
        self.steps(acks, moment);
        let Some(link) = &mut self.link else { return };
        match leave {
            Leave::HalfClose => {
                link.line.half_close();
                self.hear_out();
            }
            Leave::Bye => {
                self.say("{\"type\":\"bye\"}\n");
                self.hear_out();
            }
            Leave::Moves => self.next_node = Some(self.shared.draw_other_node(&mut self.random, link.node)),
            Leave::Reset | Leave::Amnesia => {}
        }
        let Some(link) = self.close(End::Own) else { return };
        if matches!(leave, Leave::Reset) {
            link.line.reset();
        }
    }

    /// What was under way when we said that we leave is read, and not acknowledged.
    fn hear_out(&mut self) {
        let until = Instant::now() + Duration::from_secs(1);
        while self.link.is_some() && Instant::now() < until {
            self.hear(Acks::Never);
        }
    }

    /// Two connections of the same id, each of which wants to be the one.
    fn be_twice(&mut self, until: Instant) {
        let Some(mut twin) = self.twin.take() else { return self.steps(Acks::Prompt, until) };
        twin.next_node = self.link.as_ref().map(|link| self.shared.draw_other_node(&mut self.random, link.node));
        thread::scope(|scope| {
            scope.spawn(|| {
                twin.flap(until);
                twin.close(End::Own);
                twin.writer.flush();
            });
            self.flap(until);
        });
        self.twin = Some(twin);
    }

    /// Comes back at once when it is replaced, but not for ever.
    fn flap(&mut self, until: Instant) {
        let mut flaps = 0;
        while self.goes_on(until) {
            self.step(Acks::Prompt);
            if self.link.is_none() && self.last_end.take() == Some(End::Replaced) {
                self.shared.behaved(Fault::F54);
                flaps += 1;
                self.back_off = if flaps <= MAX_FLAPS { Instant::now() } else { until };
            }
        }
        self.back_off = Instant::now();
    }

    fn cut(&mut self, moment: Instant) {
        let budget = self.random.log_within(1, 200_000);
        while self.goes_on(moment) {
            if let Some(link) = &mut self.link {
                link.line.budget.get_or_insert(usize::try_from(budget).expect("a small number"));
            }
            self.step(Acks::Prompt);
        }
        if let Some(link) = &mut self.link {
            link.line.budget = None;
        }
    }

    /// Reads one frame and does what is due; or connects, if there is no connection.
    pub fn step(&mut self, acks: Acks) {
        if self.link.is_some() {
            return self.hear(acks);
        }
        let left = self.back_off.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.connect();
        } else {
            thread::sleep(left.min(NAP));
        }
    }

    fn hear(&mut self, acks: Acks) {
        let Some(link) = &mut self.link else { return };
        match link.line.read() {
            Came::Frame => self.take_frame(acks),
            Came::Nothing => self.check_silence(),
            Came::Closed => drop(self.close(End::Silent)),
            Came::UsedUp => self.end_cut(),
        }
        self.settle(acks);
    }

    fn take_frame(&mut self, acks: Acks) {
        let Some(link) = &mut self.link else { return };
        link.pinged = false;
        match link.line.frame() {
            Frame::Payment(payment) => self.take_payment(payment, acks),
            Frame::Ping => self.say("{\"type\":\"pong\"}\n"),
            Frame::Error(end, code) => {
                if end == End::Other {
                    let text = format!("{} was told {code}", self.shared.tills[self.client as usize].id);
                    self.shared.world.history.event(What::Remark { text });
                }
                self.close(end);
            }
            Frame::Pong | Frame::Broadcast => {}
            Frame::Welcome { .. } | Frame::Odd => {
                let what = format!("{} cannot read {}", self.shared.tills[self.client as usize].id, link.line.show());
                self.shared.broken("C5", what);
            }
        }
    }

    fn take_payment(&mut self, payment: Payment, acks: Acks) {
        let Some(link) = &mut self.link else { return };
        let Payment { seq, uid, digest, payment_id, accepted_at } = payment;
        let (flag, of) = (link.dawdled, link.blank(self.client));
        let record = Record { kind: Kind::Receive, flag, seq, uid, digest, payment_id, extra: accepted_at, ..of };
        self.writer.record(record);
        link.received = link.received.max(seq);
        if let Acks::After(time) = acks {
            link.due.push_back((seq, Instant::now() + time));
        }
        if uid == 0 {
            let what =
                format!("{} got what nobody posted: {}", self.shared.tills[self.client as usize].id, link.line.show());
            self.shared.broken("C5", what);
        }
        self.till().enter(seq, accepted_at);
        let may_refuse = self.duty == Duty::Acks && acks != Acks::Never && !self.shared.is_draining();
        if may_refuse && self.random.below(NACK_ONE_IN) == 0 {
            self.nack(seq);
        }
    }

    fn check_silence(&mut self) {
        let (ping_after, deaf_after) = match self.duty == Duty::Canary || self.shared.is_draining() {
            true => ALERT,
            false => (PING_AFTER, DEAF_AFTER),
        };
        let Some(link) = &mut self.link else { return };
        let silence = link.line.heard.elapsed();
        let is_quiet = link.line.rate.is_some() && link.spoke.elapsed() > PING_AFTER;
        if silence > deaf_after && link.pinged {
            self.next_node = Some(self.shared.draw_other_node(&mut self.random, link.node));
            self.close(End::Own);
        } else if (silence > ping_after && !link.pinged) || is_quiet {
            link.pinged = true;
            self.say("{\"type\":\"ping\"}\n");
        }
        self.writer.flush();
    }

    fn end_cut(&mut self) {
        let Some(link) = self.close(End::Own) else { return };
        if link.line.is_within_a_frame() {
            self.shared.behaved(Fault::F53);
        }
        if self.random.percent(50) {
            link.line.reset();
        }
    }

    /// Acknowledges what it is time for.
    fn settle(&mut self, acks: Acks) {
        let Some(link) = &mut self.link else { return };
        let owed = link.received.saturating_sub(link.acked);
        if owed == 0 || self.duty == Duty::Auto {
            return;
        }
        let quiet_for = |limit| link.line.heard.elapsed() > limit;
        let upto = match acks {
            Acks::Prompt => (owed >= MAX_OWED || !link.line.has_more()).then_some(link.received),
            Acks::Every(count) => (owed >= count || quiet_for(Duration::from_secs(1))).then_some(link.received),
            Acks::AtWindowEnd => {
                (owed >= link.window || quiet_for(Duration::from_millis(300))).then_some(link.received)
            }
            Acks::After(time) => {
                let now = Instant::now();
                if link.due.is_empty() {
                    link.due.push_back((link.received, now + time));
                }
                let mut upto = None;
                while let Some((seq, _)) = link.due.front().filter(|(_, due)| *due <= now) {
                    upto = Some(*seq);
                    link.due.pop_front();
                }
                upto
            }
            Acks::Never => None,
        };
        if let Some(seq) = upto {
            self.ack(seq);
        }
    }

    pub fn ack(&mut self, seq: u64) {
        let Some(link) = &mut self.link else { return };
        link.acked = link.acked.max(seq);
        self.writer.record(Record { kind: Kind::Ack, seq, ..link.blank(self.client) });
        self.say(&format!("{{\"type\":\"ack\",\"seq\":{seq}}}\n"));
    }

    fn nack(&mut self, seq: u64) {
        let Some(link) = &mut self.link else { return };
        self.writer.record(Record { kind: Kind::Nack, seq, ..link.blank(self.client) });
        self.say(&format!("{{\"type\":\"nack\",\"seq\":{seq},\"reason\":\"drawn\"}}\n"));
    }

    /// Hands a line to the socket; what cannot be written ends the connection.
    pub fn say(&mut self, line: &str) {
        let Some(link) = &mut self.link else { return };
        link.spoke = Instant::now();
        if link.line.write(line).is_err() {
            self.close(End::Silent);
        }
    }

    fn connect(&mut self) {
        let node = self.next_node.take().unwrap_or_else(|| self.shared.draw_node(&mut self.random));
        let pause = if self.shared.is_draining() { 20 } else { self.random.within(50, 300) };
        self.back_off = Instant::now() + Duration::from_millis(pause);
        let Ok(line) = Line::connect(self.shared.world.nodes[node].tcp.addr()) else { return };
        let connection = self.till().next_connection();
        let link = Link::new(line, node, connection);
        self.writer.record(Record { kind: Kind::Hello, ..link.blank(self.client) });
        self.link = Some(link);
        let hello = format!("{{\"type\":\"hello\",\"client\":\"{}\"{}}}\n", self.till().id, self.hello);
        self.say(&hello);
        let until = Instant::now() + if self.duty == Duty::Canary { ALERT.1 } else { WELCOME_LIMIT };
        while self.await_welcome() {
            if Instant::now() > until || self.shared.is_over() {
                self.next_node = Some(self.shared.draw_other_node(&mut self.random, node));
                self.close(End::Own);
            }
        }
    }

    /// Whether it is still to be waited for.
    fn await_welcome(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        match link.line.read() {
            Came::Frame => {}
            Came::Nothing => return true,
            Came::Closed | Came::UsedUp => {
                self.close(End::Silent);
                return false;
            }
        }
        let till = &self.shared.tills[self.client as usize];
        match link.line.frame() {
            Frame::Welcome { client, acked, pending, epoch, window } => {
                if client != till.id {
                    self.shared.broken("C12", format!("{} was welcomed as {client}", till.id));
                }
                (link.received, link.acked, link.window) = (acked, acked, window);
                till.welcome(epoch, acked);
                let blank = link.blank(self.client);
                let said = Record { seq: acked, uid: pending, digest: epoch, extra: window, ..blank };
                self.writer.record(Record { kind: Kind::Welcome, ..said });
                false
            }
            Frame::Ping => {
                self.say("{\"type\":\"pong\"}\n");
                true
            }
            Frame::Error(end, code) => {
                if end == End::Other {
                    let text = format!("{} was told {code} instead of a welcome", till.id);
                    self.shared.world.history.event(What::Remark { text });
                }
                self.close(end);
                false
            }
            _ => {
                self.shared.broken("C5", format!("{} was welcomed with {}", till.id, link.line.show()));
                true
            }
        }
    }

    /// Writes down that the connection ended, and hands it over to be ended.
    pub fn close(&mut self, end: End) -> Option<Link> {
        let link = self.link.take()?;
        self.note_closed(&link, end);
        self.last_end = Some(end);
        Some(link)
    }

    fn note_closed(&mut self, link: &Link, end: End) {
        self.writer.record(Record { kind: Kind::Closed, note: end as u8, ..link.blank(self.client) });
    }
}

impl Link {
    fn new(line: Line, node: usize, connection: u32) -> Link {
        Link {
            line,
            node,
            connection,
            received: 0,
            acked: 0,
            window: 1,
            pinged: false,
            spoke: Instant::now(),
            due: VecDeque::new(),
            dawdled: false,
        }
    }

    /// A record that says where it was.
    pub fn blank(&self, client: u32) -> Record {
        Record { client, node: byte(self.node), connection: self.connection, ..Record::default() }
    }
}
