//! A TCP proxy that can be told to misbehave: between a node and its Redis, or between a client and its node.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Every piece comes so much later.
    Delay(Duration),
    /// Nothing is read: the sender's buffers fill.
    Hold,
    /// Everything is read and thrown away: the sender believes it arrived.
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
    links: Mutex<Vec<Weak<Link>>>,
    /// Bytes held back, thrown away, and links cut: whether a fault had an effect at all.
    effects: AtomicU64,
}

#[derive(Debug)]
struct Link {
    near: TcpStream,
    far: TcpStream,
    cut: AtomicBool,
    ended: AtomicBool,
    pubsub: AtomicBool,
}

/// How often a proxy looks whether it was told something new.
const LOOK: Duration = Duration::from_millis(20);

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
        std::thread::spawn(move || accept(&listener, &acceptor));
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
    }

    pub fn set_both(&self, mode: Mode) {
        self.set(Way::Up, mode);
        self.set(Way::Down, mode);
    }

    /// What happens to connections on which a SUBSCRIBE was seen, in both directions.
    pub fn set_pubsub(&self, mode: Option<Mode>) {
        *lock(&self.shared.pubsub) = mode;
    }

    /// New connections are reset at once; the ones there are go on.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuse.store(refuse, Ordering::SeqCst);
    }

    /// Resets every connection there is.
    pub fn cut(&self) {
        for link in lock(&self.shared.links).drain(..).filter_map(|link| link.upgrade()) {
            link.cut();
            self.shared.effects.fetch_add(1, Ordering::SeqCst);
        }
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
}

impl Link {
    /// Both ends see a reset once the pumps have let go.
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for stream in [&self.near, &self.far] {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    fn is_over(&self) -> bool {
        self.cut.load(Ordering::SeqCst) || self.ended.load(Ordering::SeqCst)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for near in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(near) = near else { continue };
        let target = ("127.0.0.1", shared.target.load(Ordering::SeqCst));
        let far = match shared.refuse.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::ConnectionRefused.into()),
            false => TcpStream::connect(target),
        };
        let Ok(far) = far else {
            let _ = socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO));
            shared.effects.fetch_add(1, Ordering::SeqCst);
            continue;
        };
        let link = Arc::new(Link {
            near,
            far,
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            pubsub: AtomicBool::new(false),
        });
        for stream in [&link.near, &link.far] {
            stream.set_nodelay(true).expect("a socket option");
            stream.set_read_timeout(Some(LOOK)).expect("a socket option");
            stream.set_write_timeout(Some(LOOK)).expect("a socket option");
        }
        let mut links = lock(&shared.links);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&link));
        drop(links);
        for way in [Way::Up, Way::Down] {
            let (link, shared) = (Arc::clone(&link), Arc::clone(shared));
            std::thread::spawn(move || {
                let _ = pump(&link, way, &shared);
                link.ended.store(true, Ordering::SeqCst);
                // The other direction may be blocked in a read: its time limit ends that.
            });
        }
    }
}

/// Carries the bytes of one direction until the connection is over.
fn pump(link: &Link, way: Way, shared: &Shared) -> io::Result<()> {
    let (mut from, to) = match way {
        Way::Up => (&link.near, &link.far),
        Way::Down => (&link.far, &link.near),
    };
    let mut buffer = vec![0; 16 << 10];
    // Counted from the moment the mode was set.
    let mut budget: Option<(u64, u64)> = None;
    while !link.is_over() && !shared.stop.load(Ordering::SeqCst) {
        if shared.mode_of(link, way) == Mode::Hold {
            hold(link, way, shared);
            continue;
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            Err(e) => return Err(e),
        };
        let mut bytes = &buffer[..count];
        if way == Way::Up && contains_subscribe(bytes) {
            link.pubsub.store(true, Ordering::SeqCst);
        }
        // It may have been told something else while it waited for these bytes.
        hold(link, way, shared);
        match shared.mode_of(link, way) {
            Mode::Swallow => {
                shared.effects.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            Mode::Delay(time) => std::thread::sleep(time),
            Mode::CutAfter(limit) => {
                let left = match budget {
                    Some((set, left)) if set == limit => left,
                    _ => limit,
                };
                let piece = u64::try_from(bytes.len()).expect("a small buffer");
                if piece >= left {
                    bytes = &bytes[..usize::try_from(left).expect("below the buffer's size")];
                    write_all(link, to, bytes)?;
                    link.cut();
                    shared.effects.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                budget = Some((limit, left - piece));
            }
            Mode::Pass | Mode::Hold => {}
        }
        write_all(link, to, bytes)?;
    }
    Ok(())
}

/// Waits as long as this direction is held.
fn hold(link: &Link, way: Way, shared: &Shared) {
    while shared.mode_of(link, way) == Mode::Hold && !link.is_over() && !shared.stop.load(Ordering::SeqCst) {
        shared.effects.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(LOOK);
    }
}

fn write_all(link: &Link, mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() && !link.is_over() {
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
