//! Flood: a few sockets send one-byte publications as fast as the server accepts them, while other clients connect and
//! disconnect and idle connections are pinged.
//!
//! The flooders use large prepared writes, which block when the socket is full. Their thread runs only when the core is
//! otherwise idle, and new clients and pings preempt everything, so that the server is measured and not the scheduling of
//! the load's core.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use clap::Args;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use super::client::{Connector, frame};
use super::metrics::Metrics;
use super::probe::{Probe, ProbeKind};
use super::target::Target;
use crate::instrument::{Histogram, preempt_others};
use crate::system::run_when_idle;

/// Options of the flood load.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Number of sockets that flood; each publishes to a channel of its own, the path followed by its number
    #[arg(long, default_value_t = 8)]
    flooders: usize,
    /// Number of connections opened one after another during the measurement, and closed after the handshake
    #[arg(long, default_value_t = 1000)]
    new_clients: u32,
    /// Number of idle connections, which are pinged one after another
    #[arg(long, default_value_t = 20)]
    idle: usize,
    /// Length of the measurement, in seconds
    #[arg(long, default_value_t = 30.0)]
    seconds: f64,
    /// Warm-up before it, in seconds, in which the flood starts
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let target = &arguments.target;
    let turns_full_before = turns_full(target.address);
    let probe = Probe::start(target.address, &target.path, ProbeKind::Ping, arguments.idle)?;
    let flood = Flood::start(target, arguments.flooders)?;
    sleep(Duration::from_secs_f64(arguments.warm_up));
    let meter = target.meter()?;
    let (began, echoed) = (Instant::now(), flood.echoed());
    probe.open();
    let length = Duration::from_secs_f64(arguments.seconds);
    let new_clients = NewClients::new(target.connector(), arguments.new_clients, length);
    let new_clients = new_clients.connect_all()?;
    let length = began.elapsed();
    let spent = meter.spent()?;
    let published: Vec<u64> =
        flood.echoed().iter().zip(&echoed).map(|(after, before)| after - before).collect();
    let ping = probe.finish();
    let disconnected = flood.finish()?;
    let ping = ping?;
    let turns_full_after = turns_full(target.address);
    let operations: u64 = published.iter().sum();
    let per_second = |count: u64| count as f64 / length.as_secs_f64();
    Ok(json!({
        "kind": "flood",
        "seconds": length.as_secs_f64(),
        "new_clients": {
            "requested": arguments.new_clients,
            "served": new_clients.accept.count(),
            "unserved": u64::from(arguments.new_clients) - new_clients.accept.count(),
            "fault": new_clients.fault,
        },
        "accept": new_clients.accept.to_json(),
        "ping": ping.to_json(),
        "flooders": {
            "count": arguments.flooders,
            "disconnected": disconnected,
            "slowest_per_second": published.iter().min().map(|&count| per_second(count)),
            "fastest_per_second": published.iter().max().map(|&count| per_second(count)),
        },
        "turns_full": {
            "before": turns_full_before,
            "after": turns_full_after,
            "more": turns_full_after.zip(turns_full_before).map(|(after, before)| after - before),
        },
        "ops": operations,
        "ops_per_second": per_second(operations),
        "server": spent.map(|spent| spent.to_json(operations)),
    }))
}

/// Connections that are opened and closed one after another.
pub(super) struct NewClients {
    connector: Connector,
    count: u32,
    length: Duration,
    /// Time from the call of `connect` to the end of the handshake response.
    pub accept: Histogram,
    /// Cause of the last failed connection.
    pub fault: Option<String>,
}

impl NewClients {
    pub fn new(connector: Connector, count: u32, length: Duration) -> Self {
        Self { connector, count, length, accept: Histogram::new(), fault: None }
    }

    /// Connects at regular intervals. A slow handshake delays the next ones; connections that were not attempted in time
    /// do not count as served. The thread is preempted by nothing from then on.
    pub fn connect_all(mut self) -> io::Result<Self> {
        let began = Instant::now();
        preempt_others()?;
        for number in 0..self.count {
            let due = self.length.mul_f64(f64::from(number) / f64::from(self.count));
            sleep(due.saturating_sub(began.elapsed()));
            if began.elapsed() > self.length {
                break;
            }
            let connects = Instant::now();
            match self.connector.open(1) {
                Ok(_) => self.accept.record(connects.elapsed().as_nanos() as u64),
                Err(error) => self.fault = Some(error.to_string()),
            }
        }
        sleep(self.length.saturating_sub(began.elapsed()));
        Ok(self)
    }
}

/// The thread with all flooders.
struct Flood {
    /// Number of its own publications that each flooder received.
    echoed: Arc<[AtomicU64]>,
    is_done: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<usize>>,
}

impl Flood {
    fn start(target: &Target, count: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut flooders = Vec::with_capacity(count);
        for number in 0..count {
            let path = format!("{}{number}", target.path);
            let (stream, _) = Connector::new(target.address, path).open(1)?.remove(0);
            stream.tcp.set_nonblocking(true)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(
                &mut SourceFd(&stream.tcp.as_raw_fd()),
                Token(number),
                both,
            )?;
            flooders.push(Flooder { stream: Some(stream.tcp), position: 0, received: 0 });
        }
        let echoed: Arc<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let is_done = Arc::new(AtomicBool::new(false));
        let shared = (Arc::clone(&echoed), Arc::clone(&is_done));
        let thread = thread::spawn(move || {
            run_when_idle()?;
            flood(poll, &mut flooders, &shared.0, &shared.1)
        });
        Ok(Self { echoed, is_done, thread })
    }

    fn echoed(&self) -> Vec<u64> {
        self.echoed.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Ends the flood; returns how many flooders the server disconnected.
    fn finish(self) -> io::Result<usize> {
        self.is_done.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the flooders panicked"))?
    }
}

/// Writes and reads on each flooder in turn, as much as its socket allows.
fn flood(
    mut poll: Poll,
    flooders: &mut [Flooder],
    echoed: &[AtomicU64],
    is_done: &AtomicBool,
) -> io::Result<usize> {
    let block = frame(TEXT, b"x").repeat(BLOCK_FRAMES);
    let mut buffer = vec![0; 1 << 18];
    let mut events = Events::with_capacity(flooders.len().max(1));
    while !is_done.load(Ordering::Relaxed) {
        let mut is_moving = false;
        for (flooder, echoed) in flooders.iter_mut().zip(echoed) {
            is_moving |= flooder.turn(&block, &mut buffer);
            echoed.store(flooder.received / ECHO_BYTES, Ordering::Relaxed);
        }
        // All sockets would block, so every change triggers an event.
        if !is_moving
            && let Err(error) = poll.poll(&mut events, Some(CHECK_INTERVAL))
            && error.kind() != ErrorKind::Interrupted
        {
            return Err(error);
        }
    }
    Ok(flooders.iter().filter(|flooder| flooder.stream.is_none()).count())
}

struct Flooder {
    /// `None` once the server has closed it.
    stream: Option<TcpStream>,
    /// Offset in the block that is being written.
    position: usize,
    received: u64,
}

impl Flooder {
    /// Writes once and reads once; returns false if neither transferred any bytes.
    fn turn(&mut self, block: &[u8], buffer: &mut [u8]) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let read = match stream.read(buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        let written = stream.write(&block[self.position..]);
        let mut is_moving = false;
        match (&read, &written) {
            (Err(error), _) | (_, Err(error)) if error.kind() != ErrorKind::WouldBlock => {
                self.stream = None;
            }
            _ => {}
        }
        if let Ok(count) = read {
            self.received += count as u64;
            is_moving = true;
        }
        if let Ok(count) = written {
            self.position = (self.position + count) % block.len();
            is_moving = true;
        }
        is_moving
    }
}

/// Number of turns in which the server reached its limits; `None` if it has no such metric.
fn turns_full(address: SocketAddr) -> Option<u64> {
    Metrics::of(address)?.sum("fantail_turns_budget_exhausted_total")
}

const TEXT: u8 = 1;
/// Frames per write, of 7 bytes each.
const BLOCK_FRAMES: usize = 9362;
/// Size of a received publication: a header of two bytes, and one byte of payload.
const ECHO_BYTES: u64 = 3;
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
