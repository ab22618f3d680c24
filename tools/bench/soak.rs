//! Soak test: many deliveries between two workers while clients connect and disconnect, with every stream checked.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::instrument::Wire;
use crate::load::client::{Connector, FrameReader};
use crate::load::fanout::Load;
use crate::load::streams::{Faults, Stream};

use crate::process::{Server, free_address, sibling};
use fantail::driver::{make_private, raise_limit};

/// Options of the soak test.
#[derive(Args)]
pub struct Arguments {
    /// Address of a running server; without it, fantail is started
    #[arg(long)]
    address: Option<SocketAddr>,
    /// Program to start; by default `fantail` in the directory of this one
    #[arg(long)]
    server: Option<PathBuf>,
    /// Driver of the server
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Number of workers of the server
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Path and query of the WebSocket handshake
    #[arg(long, default_value = "/ws?channel=soak")]
    path: String,
    /// Number of deliveries to permanent subscribers after which the test ends
    #[arg(long, default_value_t = 10_000_000)]
    deliveries: u64,
    /// Number of permanent subscribers
    #[arg(long, default_value_t = 500)]
    subscribers: usize,
    /// Number of outstanding publications
    #[arg(long, default_value_t = 8)]
    outstanding: usize,
    /// Clients per second that connect, subscribe, stay for 100 ms and disconnect
    #[arg(long, default_value_t = 1000)]
    churn: u32,
}

pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    raise_limit()?;
    let (address, _server) = match arguments.address {
        Some(address) => (address, None),
        None => {
            let address = free_address()?;
            (address, Some(start(arguments, address)?))
        }
    };
    let connector = || Connector::new(address, arguments.path.clone());
    let mut load = Load::open(&mut connector(), arguments.subscribers, PAYLOAD_BYTES)?;
    sleep(Duration::from_millis(500));
    let over = Arc::new(AtomicBool::new(false));
    let churn = {
        let (over, rate, connector) = (Arc::clone(&over), arguments.churn, connector());
        thread::spawn(move || connect_and_leave(connector, rate, &over))
    };
    let began = Instant::now();
    load.publish(arguments.outstanding)?;
    let mut stalled = None;
    while load.deliveries < arguments.deliveries && stalled.is_none() {
        stalled = load.turn().err();
    }
    load.finish();
    let seconds = began.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    let churn = churn.join().map_err(|_| io::Error::other("the churn thread panicked"))??;
    let mut faults = load.faults;
    faults.add(&churn.faults);
    let report = json!({
        "kind": "soak",
        "driver": arguments.driver,
        "workers": arguments.workers,
        "seconds": seconds,
        "deliveries": load.deliveries,
        "deliveries_per_second": load.deliveries as f64 / seconds,
        "churn_clients": churn.count,
        "churn_clients_per_second": churn.count as f64 / seconds,
        "churn_deliveries": churn.deliveries,
        "faults": faults.to_json(),
        "stalled": stalled.as_ref().map(io::Error::to_string),
    });
    println!("{report}");
    let expected = f64::from(arguments.churn) * seconds;
    let is_enough = churn.count as f64 >= expected * CHURN_SHARE_MIN;
    if !is_enough {
        eprintln!("bench: only {} churn clients in {seconds:.1} s", churn.count);
    }
    let passed = !faults.any() && stalled.is_none() && is_enough;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(arguments: &Arguments, address: SocketAddr) -> io::Result<Server> {
    let program = arguments.server.clone().map_or_else(|| sibling("fantail"), Ok)?;
    let tcp = free_address()?.to_string();
    let (receive, workers) = (address.to_string(), arguments.workers.to_string());
    let driver = arguments.driver.as_str();
    let words =
        ["serve", "--listen", &receive, "--tcp", &tcp, "--workers", &workers, "--driver", driver];
    Server::start(&program, &words.map(str::to_owned), None, address)
}

struct Churn {
    count: u64,
    deliveries: u64,
    faults: Faults,
}

struct ChurnClient {
    stream: Wire,
    reader: FrameReader,
    check: Stream,
    connected_at: Instant,
}

/// Connects clients in groups. Each stays for `STAY`, and its stream must have no gap.
fn connect_and_leave(mut connector: Connector, rate: u32, over: &AtomicBool) -> io::Result<Churn> {
    make_private()?;
    let mut churn = Churn { count: 0, deliveries: 0, faults: Faults::default() };
    if rate == 0 {
        return Ok(churn);
    }
    let began = Instant::now();
    let mut connected: VecDeque<ChurnClient> = VecDeque::new();
    while !over.load(Ordering::Relaxed) {
        let connected_at = Instant::now();
        // A late group is larger, so that a slow server gets as many clients as a fast one.
        let due = (connected_at.duration_since(began).as_secs_f64() * f64::from(rate)) as u64;
        let group = due.saturating_sub(churn.count).clamp(GROUP_MIN, GROUP_MAX);
        for (stream, rest) in connector.open(group as usize)? {
            stream.tcp.set_nonblocking(true)?;
            let mut client = ChurnClient {
                stream,
                reader: FrameReader::default(),
                check: Stream::default(),
                connected_at,
            };
            client.take(&rest, &mut churn);
            connected.push_back(client);
        }
        churn.count += group;
        while connected.front().is_some_and(|client| client.connected_at.elapsed() > STAY) {
            if let Some(mut client) = connected.pop_front() {
                client.receive(&mut churn)?;
            }
        }
        let due = Duration::from_secs_f64(churn.count as f64 / f64::from(rate));
        sleep(due.saturating_sub(began.elapsed()));
    }
    Ok(churn)
}

impl ChurnClient {
    /// Receives the available data.
    fn receive(&mut self, churn: &mut Churn) -> io::Result<()> {
        let mut buffer = vec![0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("the server closed a churn client")),
                Ok(count) => self.take(&buffer[..count], churn),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], churn: &mut Churn) {
        let Self { reader, check, .. } = self;
        reader.read(bytes, |opcode, payload| {
            if opcode <= BINARY {
                churn.deliveries += 1;
                check.receive(payload, &mut churn.faults);
            }
        });
    }
}

const BINARY: u8 = 2;
const PAYLOAD_BYTES: usize = 64;
const GROUP_MIN: u64 = 10;
const GROUP_MAX: u64 = 250;

/// A run with a smaller share of the requested churn fails.
const CHURN_SHARE_MIN: f64 = 0.9;

const STAY: Duration = Duration::from_millis(100);
