//! Whether the ports are free, or taken by a node that already runs.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::finding::Finding;
use crate::args::{ServeArgs, TcpAddress};
use crate::commands::http_client::HttpClient;
use crate::commands::{connect, plainly};
use crate::frame::PING;
use crate::framing::Framing;

/// How long whoever has the port may take to show what it is.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// More than a node says to who does not say hello.
const MAX_ANSWER_BYTES: u64 = 1024;

/// Looks at each of them.
pub(super) fn examine(args: &ServeArgs) -> Vec<Finding> {
    let http = look("HTTP port", "--http", args.http, speaks_http);
    let tcp = args.tcp.iter().map(|TcpAddress { framing, address }| {
        look("TCP port", "--tcp", *address, |address| meets_node(*framing, address))
    });
    std::iter::once(http).chain(tcp).collect()
}

/// Who has a port that is taken.
enum Holder {
    Node,
    /// A node as well, but it speaks another framing there.
    NodeSpeaking(Framing),
    Another,
}

fn look(what: &'static str, flag: &str, address: SocketAddr, meet: impl Fn(SocketAddr) -> Holder) -> Finding {
    match try_to_bind(address) {
        Ok(()) => Finding::ok(what, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match meet(reachable(address)) {
            Holder::Node => Finding::ok(what, format!("{address} is taken by a payrelay that runs already")),
            Holder::NodeSpeaking(framing) => {
                let theirs = TcpAddress { framing, address };
                let who = format!("{address} is taken by a payrelay that speaks {framing} there");
                Finding::fail(what, format!("{who}; give it as {flag} {theirs}, or choose another"))
            }
            Holder::Another => Finding::fail(
                what,
                format!("{address} is taken by another program; stop it, or choose another with {flag}"),
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::fail(
            what,
            format!("cannot listen on {address}: permission denied; choose a port above 1023 with {flag}"),
        ),
        Err(error) => {
            Finding::fail(what, format!("cannot listen on {address}: {}; choose another with {flag}", plainly(&error)))
        }
    }
}

/// Takes the port, as a node does, and gives it back without having listened.
fn try_to_bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Where to connect to what listens on every address.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn speaks_http(address: SocketAddr) -> Holder {
    let url = format!("http://{address}");
    let answer = HttpClient::new(&url, None).and_then(|node| node.get("/healthz"));
    match answer {
        Ok(answer) if answer.status == 200 && answer.body == br#"{"alive":true}"# => Holder::Node,
        _ => Holder::Another,
    }
}

/// A node asks for a hello in its own framing.
fn meets_node(framing: Framing, address: SocketAddr) -> Holder {
    if asks_for_hello(framing, address) {
        return Holder::Node;
    }
    let mut others = Framing::ALL.into_iter().filter(|other| *other != framing);
    others.find(|other| asks_for_hello(*other, address)).map_or(Holder::Another, Holder::NodeSpeaking)
}

/// Whether it asks for a hello in this framing, as a node does.
fn asks_for_hello(framing: Framing, address: SocketAddr) -> bool {
    let Ok(ping) = framing.wrap(PING) else { return false };
    let ask = || {
        let stream = connect(&address.to_string())?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        stream.set_write_timeout(Some(ANSWER_TIME))?;
        (&stream).write_all(&ping)?;
        let mut answer = Vec::new();
        (&stream).take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
        io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| String::from_utf8_lossy(&answer).contains("\"hello_required\""))
}
