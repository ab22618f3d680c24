//! A flood from one address, a network prefix of its own, while clients of others connect and are pinged.
//!
//! Its sockets connect again as soon as the server closes them. The thread runs only when the load's core is otherwise
//! idle, and new clients and pings preempt everything.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use clap::{Args, ValueEnum};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

use super::client::frame;
use super::flood::NewClients;
use super::metrics::Metrics;
use super::probe::{Probe, ProbeKind};
use super::target::Target;
use crate::instrument::bind_address_no_port;
use crate::system::run_when_idle;

/// Options of the flood from one prefix.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// What the flood consists of
    #[arg(long, value_enum)]
    kind: FloodKind,
    /// Token that the flood shows, which the server refuses
    #[arg(long, default_value = "")]
    token: String,
    /// Number of sockets that flood
    #[arg(long, default_value_t = 256)]
    flooders: usize,
    /// Number of connections of other prefixes that are opened one after another, before the flood and in it
    #[arg(long, default_value_t = 500)]
    new_clients: u32,
    /// Length of each of the two measurements, in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FloodKind {
    /// Connections that say nothing
    Connections,
    /// Handshakes that are begun and not completed
    Handshakes,
    /// Requests with a token that the server refuses
    Tokens,
    /// Commands over WebSocket
    Commands,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let Arguments { target, seconds, new_clients, .. } = arguments;
    let length = Duration::from_secs_f64(*seconds);
    let mut connector = target.connector();
    connector.set_connections_per_address(CONNECTIONS_PER_ADDRESS);
    let probe = Probe::over(connector, ProbeKind::Ping, PINGED, None)?;
    let others = || -> io::Result<NewClients> {
        let mut connector = target.connector();
        connector.set_connections_per_address(CONNECTIONS_PER_ADDRESS);
        let clients = NewClients::new(connector, *new_clients, length);
        // The thread that connects them is preempted by nothing, the others are not to be.
        thread::spawn(move || clients.connect_all()).join().expect("no panic")
    };
    probe.open();
    let quiet = others()?;
    let metrics = || Metrics::of(target.address);
    let before = metrics();
    let flood = Flood::start(arguments);
    sleep(WARM_UP);
    let meter = target.meter()?;
    let begun = flood.counts();
    probe.open();
    let crowded = others()?;
    let ended = flood.counts();
    let spent = meter.spent()?;
    flood.finish()?;
    let pings = probe.windows()?;
    let rejected = |metrics: Metrics| metrics.sum("fantail_connections_rejected_total");
    let rejected = metrics().and_then(rejected).zip(before.and_then(rejected));
    let per_second = |before: u64, after: u64| (after - before) as f64 / seconds;
    let over = |quantile| {
        crowded.accept.quantile(quantile) as f64 / quiet.accept.quantile(quantile) as f64
    };
    Ok(json!({
        "kind": format!("{:?}", arguments.kind),
        "accept_quiet": quiet.accept.to_json(),
        "accept": crowded.accept.to_json(),
        "accept_p50_over_quiet": over(0.5),
        "accept_p99_over_quiet": over(0.99),
        "unserved": u64::from(2 * new_clients) - crowded.accept.count() - quiet.accept.count(),
        "fault": crowded.fault,
        "pings": pings.iter().map(|ping| ping.to_json()).collect::<Vec<_>>(),
        "attempts_per_second": per_second(begun.0, ended.0),
        "bytes_per_second": per_second(begun.1, ended.1),
        "rejected_per_second": rejected.map(|(after, before)| (after - before) as f64 / seconds),
        "server": spent.map(|spent| spent.to_json(ended.0 - begun.0)),
    }))
}

/// The thread with all flooders.
struct Flood {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

#[derive(Default)]
struct Shared {
    attempts: AtomicU64,
    written_bytes: AtomicU64,
    is_done: AtomicBool,
}

impl Flood {
    fn start(arguments: &Arguments) -> Self {
        let shared = Arc::<Shared>::default();
        let address = arguments.target.address;
        let upgrade = format!(
            "GET /connection/websocket HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n"
        );
        let refused = format!(
            "GET /poll?channel=bench HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n",
            arguments.token
        );
        let connect = frame(TEXT, b"{\"id\":1,\"connect\":{}}");
        let command = frame(TEXT, b"{\"id\":2,\"history\":{\"channel\":\"bench\",\"limit\":0}}");
        let (first, then) = match arguments.kind {
            FloodKind::Connections => (Vec::new(), Vec::new()),
            FloodKind::Handshakes => (upgrade.into_bytes(), Vec::new()),
            FloodKind::Tokens => (Vec::new(), refused.into_bytes()),
            FloodKind::Commands => {
                ([upgrade.as_bytes(), b"\r\n", &connect].concat(), command.repeat(COMMANDS))
            }
        };
        let flooders = (0..arguments.flooders).map(|_| Flooder::default()).collect();
        let state = Flooders { address, first, then, flooders, shared: Arc::clone(&shared) };
        let thread = thread::spawn(move || {
            run_when_idle()?;
            state.run()
        });
        Self { shared, thread }
    }

    /// Connections that were tried, and bytes that were sent.
    fn counts(&self) -> (u64, u64) {
        let Shared { attempts, written_bytes, .. } = &*self.shared;
        (attempts.load(Ordering::Relaxed), written_bytes.load(Ordering::Relaxed))
    }

    fn finish(self) -> io::Result<()> {
        self.shared.is_done.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the flooders panicked"))?
    }
}

struct Flooders {
    address: SocketAddr,
    /// What each socket sends once, and then again and again.
    first: Vec<u8>,
    then: Vec<u8>,
    flooders: Vec<Flooder>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Flooder {
    socket: Option<TcpStream>,
    /// Bytes that were sent.
    sent: usize,
}

impl Flooders {
    fn run(mut self) -> io::Result<()> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; 1 << 16];
        for index in 0..self.flooders.len() {
            self.connect(index, &poll)?;
        }
        while !self.shared.is_done.load(Ordering::Relaxed) {
            match poll.poll(&mut events, Some(CHECK_INTERVAL)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            for event in &events {
                let index = event.token().0;
                if self.turn(index, &mut buffer).is_err() {
                    self.connect(index, &poll)?;
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize, poll: &Poll) -> io::Result<()> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::from((SOURCE, 0)).into())?;
        socket.set_linger(Some(Duration::ZERO))?;
        match socket.connect(&self.address.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other?,
        }
        let mut socket = TcpStream::from_std(socket.into());
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut socket, Token(index), both)?;
        self.flooders[index] = Flooder { socket: Some(socket), sent: 0 };
        self.shared.attempts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Reads and writes all that a socket allows; an error is its end.
    fn turn(&mut self, index: usize, buffer: &mut [u8]) -> io::Result<()> {
        let Flooder { socket: Some(socket), sent } = &mut self.flooders[index] else {
            return Ok(());
        };
        for _ in 0..STEPS_PER_TURN_MAX {
            let mut is_moving = false;
            match socket.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => is_moving = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(error),
            }
            let left = match self.first.get(*sent..) {
                Some(left @ [_, ..]) => left,
                _ if self.then.is_empty() => return Ok(()),
                _ => &self.then[(*sent - self.first.len()) % self.then.len()..],
            };
            match socket.write(left) {
                Ok(count) => {
                    *sent += count;
                    self.shared.written_bytes.fetch_add(count as u64, Ordering::Relaxed);
                    is_moving = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if !is_moving {
                break;
            }
        }
        Ok(())
    }
}

const TEXT: u8 = 1;

/// Where the flood comes from.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 9, 9, 9);

/// Other clients are of many prefixes.
const CONNECTIONS_PER_ADDRESS: u32 = 10;

/// Connections that are pinged one after another.
const PINGED: usize = 20;

/// Commands of one write.
const COMMANDS: usize = 1000;

const STEPS_PER_TURN_MAX: usize = 16;
const WARM_UP: Duration = Duration::from_millis(500);
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
