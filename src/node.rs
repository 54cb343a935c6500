//! A running node: binds, connects, starts the threads, and stops them in the order of the data.
//!
//! The only file that knows all the others. Runs on the main thread, which waits for a signal.

use crate::args::{GatewayAnswer, HttpServer, ServeArgs, TcpAddress, default_node_name};
use crate::bookkeeper::{self, Book, Bookkeeper, Item};
use crate::broadcast::Broadcasts;
use crate::bus::{Bus, To};
use crate::capacity::{self, Capacity};
use crate::client::close_reason::CloseReason;
use crate::client::connection::{Connection, Shared};
use crate::client::reader::Reception;
use crate::client::{Clients, catch_up, door, pinger};
use crate::doorbell::{Hint, topic};
use crate::drainer::{self, Drainer};
use crate::framing::Framing;
use crate::gate::Gate;
use crate::gauges::Gauges;
use crate::http::gateways::Gateways;
use crate::http::routes::Routes;
use crate::http::{door as http_door, tiny};
use crate::inbox::disk::{DiskInbox, DiskOptions};
use crate::inbox::redis::durability::Demands;
use crate::inbox::redis::{Options, RedisInbox, Target};
use crate::inbox::{Durability, Inbox};
use crate::metrics::{DeadLetters, Metrics};
use crate::receipts::Receipts;
use crate::router::Bells;
use crate::socket::SEND_BUFFER;
use crate::tender::{self, Tender};
use crate::{args, hearing, signals, thread};
use crossbeam_channel::{Receiver, Sender, bounded};
use socket2::{Domain, Socket, Type};
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections that wait to be accepted. With std's 128, ten thousand clients that come back at
/// once need a minute.
const BACKLOG: i32 = 4096;
/// Threads that bring clients up to date.
const CATCH_UPS: usize = 2;
/// How often a client may stand in the queue of catch-up, and in the bookkeeper's, at most; so nobody waits to enter.
const IN_CATCH_UP: usize = 2;
const IN_BOOK: usize = 4;
/// Places in these queues for who has just left.
const PLACES_BESIDES: usize = 64;
/// How long the ports stay closed for the store to be reached first.
const STORE_PATIENCE: Duration = Duration::from_secs(2);
/// The share of each step of stopping. The last word is [`STOP_LIMIT`]'s.
const HTTP_SHARE: Duration = Duration::from_secs(3);
const GOODBYE_SHARE: Duration = Duration::from_secs(1);
const BOOK_SHARE: Duration = Duration::from_secs(2);
/// A stop takes no longer, whatever hangs.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(8);

/// Why a node does not run.
#[derive(Debug)]
pub enum StartError {
    /// A file that the configuration names is not usable: exit status 2.
    Configuration(String),
    /// Something that should be there is not: exit status 1.
    Failed(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (StartError::Configuration(line) | StartError::Failed(line)) = self;
        f.write_str(line)
    }
}

impl std::error::Error for StartError {}

/// Runs a node until a signal stops it.
///
/// # Errors
///
/// [`StartError`]: nothing was taken from anybody.
pub fn serve(args: ServeArgs) -> Result<(), StartError> {
    let gate = Gate::open(args.api_keys_file.as_deref(), args.client_secret_file.as_deref());
    let gate = Arc::new(gate.map_err(|error| StartError::Configuration(error.to_string()))?);
    // Several SIGHUPs while the files are being read are one.
    let (read_again_tx, read_again) = bounded(1);
    let stop = signals::listen(Some(read_again_tx))
        .map_err(|e| StartError::Failed(format!("cannot listen for signals: {e}")))?;
    let capacity = capacity::find(args.max_clients, args.max_http);
    let http = bind(args.http, "choose another with --http")?;
    let tcp = args.tcp.iter().map(|tcp| Ok((tcp.framing, bind(tcp.address, "choose another with --tcp")?)));
    let tcp: Vec<(Framing, TcpListener)> = tcp.collect::<Result<_, _>>()?;
    let node = Node::start(&args, gate, read_again, capacity, http, tcp)?;
    // Main has nothing else to do.
    let _ = stop.recv();
    node.stop();
    Ok(())
}

fn bind(addr: SocketAddr, mend: &str) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    };
    listen().map_err(|e: std::io::Error| StartError::Failed(format!("cannot listen on {addr}: {e}; {mend}")))
}

/// A running node.
struct Node {
    parts: Parts,
    http: HttpDoor,
    door: Arc<door::Door>,
    tcp: Vec<(Framing, Arc<TcpListener>)>,
    threads: Vec<(&'static str, JoinHandle<()>)>,
}

enum HttpDoor {
    Strict(Arc<http_door::Door>),
    Tiny(Arc<tiny::SideDoor>),
}

/// Starts essential threads and keeps their handles.
struct Threads(Vec<(&'static str, JoinHandle<()>)>);

impl Threads {
    fn start(&mut self, name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
        let handle = thread::essential(name, body)
            .map_err(|e| StartError::Failed(format!("cannot start the thread {name}: {e}")))?;
        self.0.push((name, handle));
        Ok(())
    }
}

/// Both ends of a queue.
type Queue<T> = (Sender<T>, Receiver<T>);

/// The parts that threads share, and the ends of queues that only one thread takes.
struct Parts {
    name: String,
    inbox: Arc<dyn Inbox>,
    bus: Bus,
    bells: Arc<Bells>,
    clients: Arc<Clients>,
    receipts: Arc<Receipts>,
    metrics: Arc<Metrics>,
    broadcasts: Arc<Broadcasts>,
    drainer: Arc<Drainer>,
    catch_up: Queue<Option<Arc<Connection>>>,
    book: (Arc<Book>, Receiver<Item>),
    stop: Queue<()>,
}

impl Parts {
    fn make(args: &ServeArgs, name: String, max_clients: usize) -> Result<Parts, StartError> {
        let clients = Arc::new(Clients::default());
        let bells = Arc::new(Bells::new(Arc::clone(&clients)));
        let here = Arc::clone(&clients);
        let drainer = Drainer::new().map_err(|e| StartError::Failed(format!("cannot watch sockets: {e}")))?;
        let dead_letters = DeadLetters::default();
        let (inbox, bus) = open_store(args, &name, &bells, &dead_letters)?;
        let metrics = Arc::new(Metrics::new(inbox.meters(), dead_letters));
        Ok(Parts {
            name,
            inbox,
            receipts: Receipts::new(bus.clone(), move |client| {
                here.get(client).iter().for_each(|connection| connection.wake());
            }),
            bus,
            bells,
            broadcasts: Arc::new(Broadcasts::new(Arc::clone(&clients), Arc::clone(&metrics))),
            clients,
            metrics,
            drainer: Arc::new(drainer),
            catch_up: bounded(IN_CATCH_UP * max_clients + PLACES_BESIDES),
            book: Book::new(IN_BOOK * max_clients + PLACES_BESIDES),
            stop: bounded(1),
        })
    }

    fn reception(&self, args: &ServeArgs, gate: Arc<Gate>) -> Reception {
        let inbox = Arc::clone(&self.inbox);
        let shared = Shared {
            node: self.name.clone(),
            heartbeat_secs: args.heartbeat.as_secs().max(1),
            catch_up: self.catch_up.0.clone(),
            book: Arc::clone(&self.book.0),
            receipts: Arc::clone(&self.receipts),
            drainer: Arc::clone(&self.drainer),
            metrics: Arc::clone(&self.metrics),
            clock: Box::new(move || inbox.now_ms()),
        };
        Reception {
            clients: Arc::clone(&self.clients),
            shared: Arc::new(shared),
            gate,
            window: args.window,
            heartbeat: args.heartbeat,
        }
    }

    fn routes(&self, args: &ServeArgs, gate: Arc<Gate>) -> Routes {
        Routes {
            node: self.name.clone(),
            inbox: Arc::clone(&self.inbox),
            bus: self.bus.clone(),
            broadcasts: Arc::clone(&self.broadcasts),
            receipts: Arc::clone(&self.receipts),
            metrics: Arc::clone(&self.metrics),
            gauges: self.gauges(),
            gate,
            gateways: Gateways::new(&args.gateways, args.gateway_answer == GatewayAnswer::Acknowledged),
            body_limit: args.body_limit,
        }
    }

    fn gauges(&self) -> Gauges {
        Gauges {
            inbox: Arc::clone(&self.inbox),
            clients: Arc::clone(&self.clients),
            bells: Arc::clone(&self.bells),
            broadcasts: Arc::clone(&self.broadcasts),
            book: Arc::clone(&self.book.0),
            catch_up: self.catch_up.0.clone(),
            drainer: Arc::clone(&self.drainer),
        }
    }

    /// Starts what works behind the doors.
    fn start(&self, args: &ServeArgs, threads: &mut Threads) -> Result<(), StartError> {
        let questions =
            hearing::subscribe(&self.bus, &self.bells, &self.clients, &self.receipts, &self.inbox, &self.broadcasts);
        let (bus, clients, name) = (self.bus.clone(), Arc::clone(&self.clients), self.name.clone());
        threads.start("answers", move || hearing::answer(&questions, &bus, &clients, &name))?;
        let drainer = Arc::clone(&self.drainer);
        threads.start("drainer", move || drainer::run(&drainer))?;
        let bells = Arc::clone(&self.bells);
        threads.start("router", move || bells.route())?;
        let broadcasts = Arc::clone(&self.broadcasts);
        threads.start("broadcasts", move || broadcasts.run())?;
        for _ in 0..CATCH_UPS {
            let ((again, queue), inbox) = (self.catch_up.clone(), Arc::clone(&self.inbox));
            threads.start("catch-up", move || catch_up::run(&queue, &again, &*inbox))?;
        }
        let bookkeeper = Bookkeeper {
            book: Arc::clone(&self.book.0),
            queue: self.book.1.clone(),
            inbox: Arc::clone(&self.inbox),
            receipts: Arc::clone(&self.receipts),
            metrics: Arc::clone(&self.metrics),
        };
        threads.start("bookkeeper", move || bookkeeper::run(&bookkeeper))?;
        let inbox = Arc::clone(&self.inbox);
        threads.start("committer", move || inbox.commit())?;
        let (receipts, inbox) = (Arc::clone(&self.receipts), Arc::clone(&self.inbox));
        threads.start("timer", move || receipts.run(&*inbox))?;
        if args.redis.is_some() {
            hearing::count_reconnects(&self.bus, self.inbox.meters().lines.reconnects("listening"));
            let bus = self.bus.clone();
            threads.start("subscriber", move || bus.run())?;
            let (bus, stop) = (self.bus.clone(), self.stop.1.clone());
            threads.start("beat", move || tender::beat(&bus, &stop))?;
        }
        // Listen first, then say that we are ready.
        wait_for_store(&*self.inbox, &self.bus);
        let tender = Tender {
            inbox: Arc::clone(&self.inbox),
            bus: self.bus.clone(),
            clients: Arc::clone(&self.clients),
            heartbeat_secs: args.heartbeat.as_secs().max(1),
            stop: self.stop.1.clone(),
        };
        threads.start("tender", move || tender::run(&tender))?;
        let (clients, heartbeat, stop) = (Arc::clone(&self.clients), args.heartbeat, self.stop.1.clone());
        threads.start("pinger", move || pinger::run(&clients, heartbeat, &stop))
    }
}

impl Node {
    fn start(
        args: &ServeArgs,
        gate: Arc<Gate>,
        read_again: Receiver<()>,
        capacity: Capacity,
        http: TcpListener,
        tcp: Vec<(Framing, TcpListener)>,
    ) -> Result<Node, StartError> {
        let name = args.node.clone().unwrap_or_else(|| default_node_name(local(&http).port()));
        let parts = Parts::make(args, name, capacity.clients)?;
        let mut threads = Threads(Vec::new());
        parts.start(args, &mut threads)?;
        let http_addr = local(&http);
        let routes = Arc::new(parts.routes(args, Arc::clone(&gate)));
        let http = open_http(args.http_server, http, routes, &parts.drainer, capacity.http, &mut threads)?;
        let door = door::Door::new(Arc::new(parts.reception(args, Arc::clone(&gate))), capacity.clients);
        let tcp: Vec<_> = tcp.into_iter().map(|(framing, listener)| (framing, Arc::new(listener))).collect();
        for (framing, listener) in &tcp {
            let (door, listener, framing) = (Arc::clone(&door), Arc::clone(listener), *framing);
            threads.start("tcp-accept", move || door.accept(&listener, framing))?;
        }
        threads.start("keys", move || read_again.iter().for_each(|()| gate.read_again()))?;
        announce(&parts.name, http_addr, &tcp, &*parts.inbox, capacity);
        Ok(Node { parts, http, door, tcp, threads: threads.0 })
    }

    /// Stops in the order of the data: what comes in first, what was promised last.
    fn stop(self) {
        log::info!("stopping");
        let started = Instant::now();
        thread::expect_ends();
        // Whatever hangs, the process ends; what is not stored then comes again.
        let end_all_the_same = || {
            std::thread::sleep(STOP_LIMIT);
            log::warn!("stopping took too long; ending all the same");
            std::process::exit(0);
        };
        if let Err(error) = std::thread::Builder::new().name("stop-limit".into()).spawn(end_all_the_same) {
            log::warn!("nobody watches how long stopping takes: {error}");
        }
        self.tcp.iter().for_each(|(_, listener)| self.door.stop(listener));
        self.parts.receipts.stop();
        match &self.http {
            HttpDoor::Strict(door) => {
                door.stop();
                if !door.drained(started + HTTP_SHARE) {
                    log::warn!("some HTTP requests did not come to their end");
                }
            }
            HttpDoor::Tiny(door) => {
                door.stop();
                self.join(&["http-worker"], HTTP_SHARE);
                door.drained(started + HTTP_SHARE);
            }
        }
        self.parts.bells.stop();
        self.parts.broadcasts.stop();
        let _ = self.parts.catch_up.0.try_send(None);
        self.join(&["router", "catch-up", "broadcasts"], HTTP_SHARE);
        // Nobody sends any more; what clients still acknowledge is taken.
        let connections = self.parts.clients.all();
        connections.iter().for_each(|connection| connection.say_goodbye());
        let goodbye = Instant::now() + GOODBYE_SHARE;
        self.parts.clients.wait_until_empty(goodbye);
        connections.iter().for_each(|connection| connection.close(CloseReason::Left));
        self.parts.clients.wait_until_empty(Instant::now() + GOODBYE_SHARE);
        self.parts.book.0.stop(BOOK_SHARE);
        self.join(&["bookkeeper"], BOOK_SHARE);
        self.parts.inbox.close();
        self.join(&["committer"], BOOK_SHARE);
        self.parts.drainer.stop();
        self.parts.bus.stop();
        // Ends `tender`, `pinger` and `beat`.
        drop(self.parts.stop.0);
        self.parts.inbox.leave();
        log::info!("stopped after {:.1} s", started.elapsed().as_secs_f64());
    }

    /// Waits for threads of these names, no longer than their share.
    fn join(&self, names: &[&str], share: Duration) {
        let deadline = Instant::now() + share;
        for (name, handle) in self.threads.iter().filter(|(name, _)| names.contains(name)) {
            while !handle.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            if !handle.is_finished() {
                log::warn!("the thread {name} is left behind");
            }
        }
    }
}

fn local(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// The inbox, and the bus that goes with it.
fn open_store(
    args: &ServeArgs,
    name: &str,
    bells: &Arc<Bells>,
    dead_letters: &DeadLetters,
) -> Result<(Arc<dyn Inbox>, Bus), StartError> {
    let (bells, dead_letters) = (Arc::clone(bells), dead_letters.clone());
    let take_hint = move |hint: Hint| {
        if let Hint::Died(_, _, status) = &hint {
            dead_letters.died(*status);
        }
        bells.hint(hint);
    };
    let inbox_limit = u64::try_from(args.inbox_limit).unwrap_or(u64::MAX);
    let node = name.to_owned();
    let Some(url) = &args.redis else {
        let options = DiskOptions { inbox_limit, dedup_window: args.dedup_window, node };
        let fatal = Box::new(|why: String| {
            log::error!("{why}; a restart is safer than going on");
            std::process::exit(1);
        });
        let bus = Bus::local(name);
        let (own_bus, own_name) = (bus.clone(), name.to_owned());
        let hint = Box::new(move |hint: Hint| {
            // On Redis the script says this to every node that waits.
            if let Hint::Died(client, seq, status) = &hint {
                let topic = topic::receipt(client, *seq);
                if let Err(error) = own_bus.emit(To::Node(&own_name), &topic, status.as_str().as_bytes()) {
                    log::debug!("{client}: no word that {seq} is {}: {error}", status.as_str());
                }
            }
            take_hint(hint);
        });
        let inbox = DiskInbox::open(&args.data_dir, options, hint, fatal);
        let inbox = inbox.map_err(|e| StartError::Failed(e.to_string()))?;
        return Ok((Arc::new(inbox), bus));
    };
    let failed = |why: String| StartError::Configuration(format!("--redis {url}: {why}"));
    let target = Target::parse(url.expose()).map_err(failed)?;
    let bus = Bus::redis(url.expose(), name).map_err(|e| failed(e.to_string()))?;
    let options = Options { node, inbox_limit, dedup_window: args.dedup_window, demands: demands(args) };
    Ok((Arc::new(RedisInbox::new(&target, options, Box::new(take_hint))), bus))
}

/// What is asked of a Redis.
pub(crate) fn demands(args: &ServeArgs) -> Demands {
    let durability = match args.require_durability {
        args::Durability::Always => Durability::Always,
        args::Durability::Everysec => Durability::Everysec,
        args::Durability::Any => Durability::Any,
    };
    Demands { durability, replicas: args.wait_replicas }
}

/// Gives the store a moment before the ports open. A node starts without it all the same.
fn wait_for_store(inbox: &dyn Inbox, bus: &Bus) {
    let deadline = Instant::now() + STORE_PATIENCE;
    loop {
        inbox.tend();
        if bus.is_up() && inbox.health().ready.is_ok() {
            return;
        }
        if Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let why = inbox.health().ready.err().unwrap_or_else(|| "other nodes are not heard yet".into());
    log::warn!("starting, but not ready: {why}");
}

fn open_http(
    kind: HttpServer,
    listener: TcpListener,
    routes: Arc<Routes>,
    drainer: &Arc<Drainer>,
    max_connections: usize,
    threads: &mut Threads,
) -> Result<HttpDoor, StartError> {
    let limits = http_door::Limits { max_connections, ..http_door::Limits::default() };
    match kind {
        HttpServer::Strict => {
            let door = Arc::new(http_door::Door::new(listener, routes, Arc::clone(drainer), limits));
            let door2 = Arc::clone(&door);
            threads.start("http-accept", move || door2.accept())?;
            Ok(HttpDoor::Strict(door))
        }
        HttpServer::TinyHttp => {
            let door = tiny::SideDoor::new(listener, routes, limits.head_bytes)
                .map_err(|e| StartError::Failed(format!("cannot open the HTTP port: {e}")))?;
            let door = Arc::new(door);
            for _ in 0..tiny::WORKERS {
                let door2 = Arc::clone(&door);
                threads.start("http-worker", move || door2.work())?;
            }
            Ok(HttpDoor::Tiny(door))
        }
    }
}

fn announce(name: &str, http: SocketAddr, tcp: &[(Framing, Arc<TcpListener>)], inbox: &dyn Inbox, capacity: Capacity) {
    let health = inbox.health();
    let tcp = tcp.iter().map(|(framing, listener)| TcpAddress { framing: *framing, address: local(listener) });
    let tcp: Vec<String> = tcp.map(|address| address.to_string()).collect();
    let Capacity { clients, http: connections, bound } = capacity;
    log::info!(
        "ready http={http} tcp={} node={name} store={} max_clients={clients} max_http={connections} \
         (bounded by {bound}); {}",
        tcp.join(","),
        health.store,
        health.durability
    );
}
