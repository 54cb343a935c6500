//! A TCP proxy that can be told to misbehave: between a node and its Redis, or between a client and its node.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Every piece comes so much later.
    Delay(Duration),
    /// The same, each time another time between these two.
    Jitter(Duration, Duration),
    /// Not more than so many bytes a second.
    Throttle(u64),
    /// Nothing more is read: the sender's buffers fill.
    Hold,
    /// Everything is read and thrown away, the end of the connection too: the sender believes it arrived. A connection
    /// that lost bytes so is reset once this is over, for a stream with a hole is none.
    Swallow,
    /// After so many more bytes of a connection it is reset, in both directions.
    CutAfter(u64),
}

/// The direction of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From who connected.
    Up,
    /// From the server behind the proxy.
    Down,
}

/// A proxy in front of one address.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: AtomicU16,
    up: Mutex<Mode>,
    down: Mutex<Mode>,
    /// Instead of the two above, for connections on which a SUBSCRIBE was seen.
    pubsub: Mutex<Option<Mode>>,
    refuse: AtomicBool,
    stop: AtomicBool,
    links: Mutex<Links>,
    /// Pieces held back, slowed, thrown away, and links cut: whether a fault had an effect at all.
    effects: AtomicU64,
}

#[derive(Debug, Default)]
struct Links {
    /// How often all were cut: a link that was on its way then is cut as soon as it is here.
    cuts: u64,
    all: Vec<Weak<Link>>,
}

#[derive(Debug)]
struct Link {
    near: TcpStream,
    far: TcpStream,
    cut: AtomicBool,
    pubsub: AtomicBool,
    up: Side,
    down: Side,
}

/// One direction of a link.
#[derive(Debug, Default)]
struct Side {
    fuse: Fuse,
    /// Bytes were thrown away.
    has_hole: AtomicBool,
}

/// How many bytes of one direction still pass before the link is cut; [`Fuse::NONE`]: all of them.
#[derive(Debug)]
struct Fuse(AtomicU64);

/// How often a direction that is held looks whether it still is.
const LOOK: Duration = Duration::from_millis(20);
/// How long a connection to the server behind may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// In so many bytes of a connection a SUBSCRIBE is looked for.
const SUBSCRIBES_WITHIN: usize = 4 << 10;

impl Proxy {
    /// A proxy to a port of this machine; passes everything at first.
    pub fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port for the proxy");
        let addr = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            target: AtomicU16::new(port),
            up: Mutex::new(Mode::Pass),
            down: Mutex::new(Mode::Pass),
            pubsub: Mutex::new(None),
            refuse: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            links: Mutex::default(),
            effects: AtomicU64::new(0),
        });
        let acceptor = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &acceptor));
        Proxy { addr, shared }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    pub fn redis_url(&self) -> String {
        format!("redis://{}/", self.addr)
    }

    /// What happens from now on to the bytes of one direction, on connections old and new.
    pub fn set(&self, way: Way, mode: Mode) {
        *lock(self.shared.mode(way)) = mode;
        self.shared.reset_holed();
    }

    pub fn set_both(&self, mode: Mode) {
        self.set(Way::Up, mode);
        self.set(Way::Down, mode);
    }

    /// What happens to connections on which a SUBSCRIBE was seen, in both directions.
    pub fn set_pubsub(&self, mode: Option<Mode>) {
        *lock(&self.shared.pubsub) = mode;
        self.shared.reset_holed();
    }

    /// New connections are reset at once; the ones there are go on.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuse.store(refuse, Ordering::SeqCst);
    }

    /// Resets every connection there is.
    pub fn cut(&self) {
        let mut links = lock(&self.shared.links);
        links.cuts += 1;
        for link in links.all.drain(..).filter_map(|link| link.upgrade()) {
            link.cut();
            self.shared.effect();
        }
    }

    /// Resets every connection there is as soon as it has carried so many more bytes that way, each its own number;
    /// new ones are left alone.
    pub fn cut_each_after(&self, way: Way, mut bytes: impl FnMut() -> u64) {
        let links = lock(&self.shared.links);
        for link in links.all.iter().filter_map(Weak::upgrade) {
            link.side(way).fuse.set(bytes());
        }
    }

    /// Forgets [`Proxy::cut_each_after`] where it has not come to that.
    pub fn spare_all(&self, way: Way) {
        self.cut_each_after(way, || Fuse::NONE);
    }

    /// Where new connections go from now on.
    pub fn retarget(&self, port: u16) {
        self.shared.target.store(port, Ordering::SeqCst);
    }

    /// How often something was done that a user could notice.
    pub fn effects(&self) -> u64 {
        self.shared.effects.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn mode(&self, way: Way) -> &Mutex<Mode> {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    fn mode_of(&self, link: &Link, way: Way) -> Mode {
        if link.pubsub.load(Ordering::SeqCst)
            && let Some(mode) = *lock(&self.pubsub)
        {
            return mode;
        }
        *lock(self.mode(way))
    }

    /// Resets what has lost bytes and loses no more.
    fn reset_holed(&self) {
        let links = lock(&self.links);
        for link in links.all.iter().filter_map(Weak::upgrade) {
            let ways = [Way::Up, Way::Down].into_iter().filter(|way| link.side(*way).has_hole.load(Ordering::SeqCst));
            for way in ways {
                if self.mode_of(&link, way) != Mode::Swallow {
                    link.cut();
                }
            }
        }
    }

    fn effect(&self) {
        self.effects.fetch_add(1, Ordering::SeqCst);
    }

    fn is_over(&self, link: &Link) -> bool {
        link.cut.load(Ordering::SeqCst) || self.stop.load(Ordering::SeqCst)
    }
}

impl Link {
    /// Both ends see a reset once the pumps have let go.
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in [&self.near, &self.far] {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
            // Tells the other end nothing, but wakes a pump that reads.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    fn side(&self, way: Way) -> &Side {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }
}

impl Default for Fuse {
    fn default() -> Fuse {
        Fuse(AtomicU64::new(Fuse::NONE))
    }
}

impl Fuse {
    const NONE: u64 = u64::MAX;

    fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }

    /// How many of so many bytes may pass before it blows, if it does.
    fn burn(&self, bytes: u64) -> Option<u64> {
        let left = self.0.load(Ordering::SeqCst);
        if left == Fuse::NONE {
            return None;
        }
        if bytes >= left {
            return Some(left);
        }
        // One that was set anew in this moment counts from there.
        let _ = self.0.compare_exchange(left, left - bytes, Ordering::SeqCst, Ordering::SeqCst);
        None
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(near) = near else { continue };
        // Taken now: what is cut from here on is cut for this one too.
        let (cuts, shared) = (lock(&shared.links).cuts, Arc::clone(shared));
        // A server that is frozen takes its time to let us in: others need not wait for that.
        spawn(move || {
            let _ = connect(near, cuts, &shared);
        });
    }
}

/// A machine without another thread has no use for another link.
fn spawn(body: impl FnOnce() + Send + 'static) {
    let _ = thread::Builder::new().name("proxy".into()).stack_size(128 << 10).spawn(body);
}

/// Connects what came to the server behind, and carries their bytes.
fn connect(near: TcpStream, cuts: u64, shared: &Arc<Shared>) -> io::Result<()> {
    let target = SocketAddr::from(([127, 0, 0, 1], shared.target.load(Ordering::SeqCst)));
    let far = match shared.refuse.load(Ordering::SeqCst) {
        true => Err(io::ErrorKind::ConnectionRefused.into()),
        false => TcpStream::connect_timeout(&target, CONNECT_LIMIT),
    };
    let Ok(far) = far else {
        shared.effect();
        return socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO));
    };
    for stream in [&near, &far] {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(LOOK))?;
    }
    let (cut, pubsub) = (AtomicBool::new(false), AtomicBool::new(false));
    let link = Arc::new(Link { near, far, cut, pubsub, up: Side::default(), down: Side::default() });
    let mut links = lock(&shared.links);
    if links.cuts == cuts {
        links.all.retain(|link| link.strong_count() > 0);
        links.all.push(Arc::downgrade(&link));
    } else {
        link.cut();
    }
    drop(links);
    let (other, sharing) = (Arc::clone(&link), Arc::clone(shared));
    spawn(move || carry(&other, Way::Down, &sharing));
    carry(&link, Way::Up, shared);
    Ok(())
}

/// Carries the bytes of one direction until it ends, and passes its end on.
fn carry(link: &Link, way: Way, shared: &Shared) {
    let to = match way {
        Way::Up => &link.far,
        Way::Down => &link.near,
    };
    match pump(link, way, shared) {
        // The other direction may have something to say still.
        Ok(()) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => link.cut(),
    }
}

/// Carries the bytes of one direction until there are no more; an error is for the link to be reset.
fn pump(link: &Link, way: Way, shared: &Shared) -> io::Result<()> {
    let (mut from, to) = match way {
        Way::Up => (&link.near, &link.far),
        Way::Down => (&link.far, &link.near),
    };
    let mut buffer = vec![0; 16 << 10];
    // Who subscribes does it at once; looking through all that others say would take long.
    let mut looked_at = 0;
    // Counted from the moment the mode was set.
    let mut budget: Option<(u64, u64)> = None;
    let side = link.side(way);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if way == Way::Up && looked_at < SUBSCRIBES_WITHIN {
            looked_at += count;
            if contains_subscribe(&buffer[..count]) {
                link.pubsub.store(true, Ordering::SeqCst);
            }
        }
        // It may have been told something else while it waited for these bytes.
        hold(link, way, shared);
        if shared.is_over(link) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let mode = shared.mode_of(link, way);
        if count == 0 {
            return end(link, way, shared);
        }
        let bytes = &buffer[..count];
        let piece = u64::try_from(count).expect("a small buffer");
        match mode {
            Mode::Swallow => {
                shared.effect();
                side.has_hole.store(true, Ordering::SeqCst);
                continue;
            }
            _ if side.has_hole.load(Ordering::SeqCst) => return Err(io::ErrorKind::ConnectionReset.into()),
            Mode::Delay(time) => slow(link, time, shared),
            Mode::Jitter(low, high) => slow(link, low + high.saturating_sub(low).mul_f64(chance()), shared),
            Mode::Throttle(rate) => slow(link, Duration::from_secs_f64(piece as f64 / rate.max(1) as f64), shared),
            Mode::CutAfter(limit) => {
                let left = match budget {
                    Some((set, left)) if set == limit => left,
                    _ => limit,
                };
                if piece >= left {
                    return cut_short(link, to, bytes, left, shared);
                }
                budget = Some((limit, left - piece));
            }
            Mode::Pass | Mode::Hold => {}
        }
        if let Some(left) = side.fuse.burn(piece) {
            return cut_short(link, to, bytes, left, shared);
        }
        write_all(link, to, bytes, shared)?;
    }
}

/// The last bytes of a link.
fn cut_short(link: &Link, to: &TcpStream, bytes: &[u8], left: u64, shared: &Shared) -> io::Result<()> {
    let some = &bytes[..usize::try_from(left).expect("below the buffer's size")];
    shared.effect();
    write_all(link, to, some, shared)?;
    Err(io::ErrorKind::ConnectionReset.into())
}

/// Nothing more comes. Who is cut off from the other end does not hear of that either.
fn end(link: &Link, way: Way, shared: &Shared) -> io::Result<()> {
    let mut unheard = link.side(way).has_hole.load(Ordering::SeqCst);
    while shared.mode_of(link, way) == Mode::Swallow && !shared.is_over(link) {
        unheard = true;
        thread::sleep(LOOK);
    }
    if unheard { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
}

/// Waits as long as this direction is held.
fn hold(link: &Link, way: Way, shared: &Shared) {
    while shared.mode_of(link, way) == Mode::Hold && !shared.is_over(link) {
        shared.effect();
        thread::sleep(LOOK);
    }
}

/// Waits for so long, unless the link is cut meanwhile.
fn slow(link: &Link, time: Duration, shared: &Shared) {
    shared.effect();
    let until = Instant::now() + time;
    while !shared.is_over(link) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(LOOK));
    }
}

/// From 0 to 1. Needs not be good.
fn chance() -> f64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    (RandomState::new().build_hasher().finish() >> 11) as f64 / (1_u64 << 53) as f64
}

fn write_all(link: &Link, mut to: &TcpStream, mut bytes: &[u8], shared: &Shared) -> io::Result<()> {
    while !bytes.is_empty() && !shared.is_over(link) {
        match to.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn contains_subscribe(bytes: &[u8]) -> bool {
    bytes.windows(9).any(|window| window.eq_ignore_ascii_case(b"SUBSCRIBE"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
