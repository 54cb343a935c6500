//! A receiver: speaks the protocol in any framing, answers pings by itself, and shows everything else.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use super::{READ_LIMIT, json};

/// How frames are told from each other on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Lines,
    U16be,
    U32be,
}

impl Framing {
    pub const ALL: [Framing; 3] = [Framing::Lines, Framing::U16be, Framing::U32be];

    /// A frame as it goes over the wire.
    pub fn wrap(self, json: &str) -> Vec<u8> {
        let length = json.len();
        match self {
            Framing::Lines => format!("{json}\n").into_bytes(),
            Framing::U16be => [&u16::try_from(length).expect("a short frame").to_be_bytes(), json.as_bytes()].concat(),
            Framing::U32be => [&u32::try_from(length).expect("a short frame").to_be_bytes(), json.as_bytes()].concat(),
        }
    }

    /// Where the first whole frame of what came lies, and how far it goes.
    fn find(self, came: &[u8], searched: usize) -> Option<(std::ops::Range<usize>, usize)> {
        let (prefix, length) = match self {
            Framing::Lines => {
                let end = searched + came[searched..].iter().position(|&byte| byte == b'\n')?;
                return Some((0..end, end + 1));
            }
            Framing::U16be => (2, usize::from(u16::from_be_bytes(*came.first_chunk()?))),
            Framing::U32be => (4, u32::from_be_bytes(*came.first_chunk()?).try_into().expect("64 bits")),
        };
        (came.len() >= prefix + length).then_some((prefix..prefix + length, prefix + length))
    }
}

/// A connection to the TCP port, before or without a hello.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    framing: Framing,
    ahead: Vec<u8>,
    /// How much of `ahead` is known to hold no whole frame.
    searched: usize,
    /// For messages: who this is.
    name: String,
    answers_pings: bool,
}

/// One frame from the server.
#[derive(Clone, Debug)]
pub struct Frame {
    pub line: String,
    /// In the order in which they came, values as raw JSON text.
    pub fields: Vec<(String, String)>,
}

/// What a read brings.
#[derive(Debug)]
pub enum Next {
    Frame(Frame),
    /// The server ended the connection.
    Closed,
    /// Nothing came in time.
    Silence,
}

/// A payment as it arrived.
#[derive(Clone, Debug)]
pub struct Payment {
    pub frame: Frame,
    pub seq: u64,
    pub accepted_at: u64,
    pub channel: String,
    pub payment_id: Option<String>,
    pub content_type: Option<String>,
    /// Raw JSON text.
    pub msg: Option<String>,
    pub msg_base64: Option<String>,
}

/// What the server said to a hello.
#[derive(Clone, Debug)]
pub struct Welcome {
    pub frame: Frame,
    pub client: String,
    pub node: String,
    pub epoch: u64,
    pub acked: u64,
    pub pending: u64,
    pub heartbeat: u64,
    pub window: u64,
}

/// A connection that was welcomed.
#[derive(Debug)]
pub struct Client {
    line: Line,
    pub welcome: Welcome,
}

impl Frame {
    fn parse(line: &str) -> Frame {
        let fields = json::fields(line).unwrap_or_else(|e| panic!("a line that is no JSON object ({e}): {line}"));
        Frame { line: line.to_owned(), fields }
    }

    /// A field's raw JSON text.
    pub fn raw(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self, name: &str) -> Option<String> {
        let raw = self.raw(name)?;
        Some(serde_json::from_str(raw).unwrap_or_else(|e| panic!("{name} is no text ({e}): {}", self.line)))
    }

    pub fn number(&self, name: &str) -> u64 {
        let raw = self.raw(name).unwrap_or_else(|| panic!("no {name} in {}", self.line));
        raw.parse().unwrap_or_else(|e| panic!("{name} is no whole number ({e}): {}", self.line))
    }

    pub fn kind(&self) -> String {
        self.text("type").unwrap_or_default()
    }

    pub fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub fn payment(&self) -> Payment {
        assert_eq!(self.kind(), "payment", "{}", self.line);
        Payment {
            frame: self.clone(),
            seq: self.number("seq"),
            accepted_at: self.number("accepted_at"),
            channel: self.text("channel").unwrap_or_default(),
            payment_id: self.text("payment_id"),
            content_type: self.text("content_type"),
            msg: self.raw("msg").map(str::to_owned),
            msg_base64: self.text("msg_base64"),
        }
    }
}

impl Payment {
    /// The message as a text, for a payment whose message is a JSON string.
    pub fn msg_text(&self) -> String {
        self.frame.text("msg").unwrap_or_else(|| panic!("no msg in {}", self.frame.line))
    }
}

impl Line {
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Line {
        Line::try_connect(addr).unwrap_or_else(|e| panic!("no connection to {addr}: {e}"))
    }

    pub fn try_connect(addr: SocketAddr) -> io::Result<Line> {
        Line::over(TcpStream::connect_timeout(&addr, READ_LIMIT)?)
    }

    /// A connection whose receive buffer is as small as the kernel allows, for a client that does not read.
    pub fn connect_with_small_buffer(addr: SocketAddr) -> Line {
        let domain = socket2::Domain::for_address(addr);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        socket.connect(&addr.into()).expect("a connection");
        Line::over(socket.into()).expect("a connection")
    }

    fn over(stream: TcpStream) -> io::Result<Line> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(READ_LIMIT))?;
        Ok(Line {
            stream,
            framing: Framing::Lines,
            ahead: Vec::new(),
            searched: 0,
            name: "?".into(),
            answers_pings: true,
        })
    }

    /// The same connection, in another framing than lines.
    pub fn speaking(mut self, framing: Framing) -> Line {
        self.framing = framing;
        self
    }

    /// From now on pings are read and not answered.
    pub fn ignore_pings(&mut self) {
        self.answers_pings = false;
    }

    #[track_caller]
    pub fn send_line(&mut self, line: &str) {
        self.send_bytes(&self.framing.wrap(line));
    }

    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).unwrap_or_else(|e| panic!("client {}: cannot send: {e}", self.name));
    }

    /// Sends, where the server may have closed already.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&self.stream).write_all(bytes)
    }

    #[track_caller]
    pub fn ack(&mut self, seq: u64) {
        self.send_line(&format!(r#"{{"type":"ack","seq":{seq}}}"#));
    }

    pub fn try_ack(&mut self, seq: u64) -> io::Result<()> {
        self.try_send_bytes(&self.framing.wrap(&format!(r#"{{"type":"ack","seq":{seq}}}"#)))
    }

    /// We send no more; the server may.
    pub fn half_close(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection without a word, with a reset.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// The next frame that is no ping and no pong. A ping is answered.
    pub fn next(&mut self, limit: Duration) -> Next {
        let deadline = Instant::now() + limit;
        loop {
            match self.next_of_any_kind(deadline) {
                Next::Frame(frame) if frame.kind() == "ping" => {
                    if self.answers_pings {
                        let _ = self.try_send_bytes(&self.framing.wrap(r#"{"type":"pong"}"#));
                    }
                }
                Next::Frame(frame) if frame.kind() == "pong" => {}
                other => return other,
            }
        }
    }

    /// The next frame, a ping or pong too.
    pub fn next_of_any_kind(&mut self, deadline: Instant) -> Next {
        loop {
            if let Some((json, end)) = self.framing.find(&self.ahead, self.searched) {
                let line = String::from_utf8(self.ahead[json].to_vec());
                self.ahead.drain(..end);
                self.searched = 0;
                return Next::Frame(Frame::parse(&line.expect("frames are UTF-8")));
            }
            self.searched = self.ahead.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Silence;
            }
            self.stream.set_read_timeout(Some(left)).expect("a time limit");
            let mut chunk = vec![0; 64 << 10];
            match (&self.stream).read(&mut chunk) {
                Ok(0) => return Next::Closed,
                Ok(count) => self.ahead.extend_from_slice(&chunk[..count]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Next::Closed,
            }
        }
    }

    /// The next frame that is no ping; fails where none comes.
    #[track_caller]
    pub fn expect_frame(&mut self) -> Frame {
        match self.next(READ_LIMIT) {
            Next::Frame(frame) => frame,
            other => panic!("client {}: a frame was expected, not {other:?}", self.name),
        }
    }

    /// The next payment, whatever it is.
    #[track_caller]
    pub fn expect_any_payment(&mut self) -> Payment {
        let frame = self.expect_frame();
        assert_eq!(frame.kind(), "payment", "client {}: {}", self.name, frame.line);
        frame.payment()
    }

    /// The next frame is the payment `seq`, and its message is `msg`, token for token.
    #[track_caller]
    pub fn expect_payment(&mut self, seq: u64, msg: &str) -> Payment {
        let payment = self.expect_any_payment();
        assert_eq!(payment.seq, seq, "client {}: {}", self.name, payment.frame.line);
        let arrived = payment.msg.clone().unwrap_or_else(|| panic!("no msg in {}", payment.frame.line));
        assert_eq!(json::tokens(&arrived), json::tokens(msg), "client {}: payment {seq}", self.name);
        payment
    }

    /// The next frames are the payments of these seqs, in order.
    #[track_caller]
    pub fn expect_seqs(&mut self, seqs: impl IntoIterator<Item = u64>) -> Vec<Payment> {
        let mut payments = Vec::new();
        for seq in seqs {
            let payment = self.expect_any_payment();
            assert_eq!(payment.seq, seq, "client {}: {}", self.name, payment.frame.line);
            payments.push(payment);
        }
        payments
    }

    #[track_caller]
    pub fn expect_welcome(&mut self) -> Welcome {
        let frame = self.expect_frame();
        assert_eq!(frame.kind(), "welcome", "client {}: {}", self.name, frame.line);
        Welcome {
            client: frame.text("client").unwrap_or_default(),
            node: frame.text("node").unwrap_or_default(),
            epoch: frame.number("epoch"),
            acked: frame.number("acked"),
            pending: frame.number("pending"),
            heartbeat: frame.number("heartbeat"),
            window: frame.number("window"),
            frame,
        }
    }

    /// The next frame is this error, and after it the server closes.
    #[track_caller]
    pub fn expect_error(&mut self, code: &str) -> Frame {
        let error = self.expect_any_error();
        assert_eq!(error.text("code").as_deref(), Some(code), "client {}: {}", self.name, error.line);
        error
    }

    /// The next frame is some error, and after it the server closes.
    #[track_caller]
    pub fn expect_any_error(&mut self) -> Frame {
        let frame = self.expect_frame();
        assert_eq!(frame.kind(), "error", "client {}: {}", self.name, frame.line);
        assert!(frame.text("message").is_some_and(|m| !m.is_empty()), "no message: {}", frame.line);
        self.expect_closed();
        frame
    }

    #[track_caller]
    pub fn expect_closed(&mut self) {
        match self.next(READ_LIMIT) {
            Next::Closed => {}
            other => panic!("client {}: the end was expected, not {other:?}", self.name),
        }
    }

    /// For so long nothing comes but pings.
    #[track_caller]
    pub fn expect_nothing_but_pings(&mut self, limit: Duration) {
        match self.next(limit) {
            Next::Silence => {}
            other => panic!("client {}: silence was expected, not {other:?}", self.name),
        }
    }

    /// Reads on to the end: the payments on the way, and the error code if the server gave one.
    #[track_caller]
    pub fn read_to_the_end(&mut self) -> (Vec<Payment>, Option<String>) {
        self.read_to_the_end_within(READ_LIMIT)
    }

    /// The same, where the next thing may take so long to come.
    #[track_caller]
    pub fn read_to_the_end_within(&mut self, limit: Duration) -> (Vec<Payment>, Option<String>) {
        let (mut payments, mut code) = (Vec::new(), None);
        loop {
            match self.next(limit) {
                Next::Frame(frame) if frame.kind() == "payment" => payments.push(frame.payment()),
                Next::Frame(frame) if frame.kind() == "error" => code = frame.text("code"),
                Next::Frame(frame) => panic!("client {}: unexpected: {}", self.name, frame.line),
                Next::Closed => return (payments, code),
                Next::Silence => panic!("client {}: the end was expected, not silence", self.name),
            }
        }
    }
}

impl Client {
    /// Connects and says hello; `extra` are further fields, such as `"window":2`.
    #[track_caller]
    pub fn hello(addr: SocketAddr, id: &str, extra: &str) -> Client {
        Client::hello_on(Line::connect(addr), id, extra)
    }

    #[track_caller]
    pub fn hello_on(mut line: Line, id: &str, extra: &str) -> Client {
        line.name = id.to_owned();
        line.send_line(&hello(id, extra));
        let welcome = line.expect_welcome();
        assert_eq!(welcome.client, id, "{}", welcome.frame.line);
        Client { line, welcome }
    }

    /// The same where it may not work: nothing, if there is no connection or no welcome.
    pub fn try_hello(addr: SocketAddr, id: &str) -> Option<Client> {
        let mut line = Line::try_connect(addr).ok()?;
        line.name = id.to_owned();
        line.try_send_bytes(&line.framing.wrap(&hello(id, ""))).ok()?;
        let Next::Frame(frame) = line.next(READ_LIMIT) else {
            return None;
        };
        if frame.kind() != "welcome" {
            return None;
        }
        line.ahead.splice(0..0, line.framing.wrap(&frame.line));
        line.searched = 0;
        let welcome = line.expect_welcome();
        Some(Client { line, welcome })
    }

    pub fn into_line(self) -> Line {
        self.line
    }
}

impl Deref for Client {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.line
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Line {
        &mut self.line
    }
}

/// The hello line of a client.
pub fn hello(id: &str, extra: &str) -> String {
    let comma = if extra.is_empty() { "" } else { "," };
    format!(r#"{{"type":"hello","client":"{id}"{comma}{extra}}}"#)
}
