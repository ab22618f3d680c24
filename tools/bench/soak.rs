//! Soak: many deliveries between two workers while clients come and go, every stream checked.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::load::client::{Connector, FrameReader};
use crate::load::fanout::Load;
use crate::load::streams::{Faults, Stream};

use crate::process::{Server, free_address, sibling};
use fantail::driver::{make_private, raise_limit};

/// Count what is lost, duplicated and reordered while clients come and go.
#[derive(Args)]
pub struct Arguments {
    /// A server that runs already; without it, fantail is started
    #[arg(long)]
    address: Option<SocketAddr>,
    /// The program to start; by default `fantail` beside this one
    #[arg(long)]
    server: Option<PathBuf>,
    /// Its driver
    #[arg(long, default_value = "auto")]
    driver: String,
    /// Its workers
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Path and query of the handshake
    #[arg(long, default_value = "/ws?channel=soak")]
    path: String,
    /// End after so many deliveries to those who stay
    #[arg(long, default_value_t = 10_000_000)]
    deliveries: u64,
    /// Subscribers who stay
    #[arg(long, default_value_t = 500)]
    subscribers: usize,
    /// Publications under way
    #[arg(long, default_value_t = 8)]
    outstanding: usize,
    /// Clients a second who come, subscribe, listen a while and leave
    #[arg(long, default_value_t = 1000)]
    visitors: u32,
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
    let visitors = {
        let (over, rate, connector) = (Arc::clone(&over), arguments.visitors, connector());
        thread::spawn(move || visit(connector, rate, &over))
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
    let visitors = visitors.join().map_err(|_| io::Error::other("the visitors panicked"))??;
    let mut faults = load.faults;
    faults.add(&visitors.faults);
    let report = json!({
        "kind": "soak",
        "driver": arguments.driver,
        "workers": arguments.workers,
        "seconds": seconds,
        "deliveries": load.deliveries,
        "deliveries_per_second": load.deliveries as f64 / seconds,
        "visitors": visitors.count,
        "visitors_per_second": visitors.count as f64 / seconds,
        "visitor_deliveries": visitors.deliveries,
        "faults": faults.to_json(),
        "stalled": stalled.as_ref().map(io::Error::to_string),
    });
    println!("{report}");
    let asked_for = f64::from(arguments.visitors) * seconds;
    let enough_came = visitors.count as f64 >= asked_for * VISITORS_SHARE_MIN;
    if !enough_came {
        eprintln!("bench: {} visitors in {seconds:.1} s are too few", visitors.count);
    }
    let passed = !faults.any() && stalled.is_none() && enough_came;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn start(arguments: &Arguments, address: SocketAddr) -> io::Result<Server> {
    let program = arguments.server.clone().map_or_else(|| sibling("fantail"), Ok)?;
    let tcp = free_address()?.to_string();
    let (listen, workers) = (address.to_string(), arguments.workers.to_string());
    let driver = arguments.driver.as_str();
    let words =
        ["serve", "--listen", &listen, "--tcp", &tcp, "--workers", &workers, "--driver", driver];
    Server::start(&program, &words.map(str::to_owned), None, address)
}

struct Visitors {
    count: u64,
    deliveries: u64,
    faults: Faults,
}

struct Visitor {
    stream: TcpStream,
    reader: FrameReader,
    check: Stream,
    came: Instant,
}

/// Sends clients in groups; each stays `STAY`, and its stream must have no hole between its ends.
fn visit(mut connector: Connector, rate: u32, over: &AtomicBool) -> io::Result<Visitors> {
    make_private()?;
    let mut visitors = Visitors { count: 0, deliveries: 0, faults: Faults::default() };
    if rate == 0 {
        return Ok(visitors);
    }
    let began = Instant::now();
    let mut present: VecDeque<Visitor> = VecDeque::new();
    while !over.load(Ordering::Relaxed) {
        let came = Instant::now();
        // Who is late sends more at once: a server that answers slowly must not get fewer.
        let due = (came.duration_since(began).as_secs_f64() * f64::from(rate)) as u64;
        let group = due.saturating_sub(visitors.count).clamp(GROUP_MIN, GROUP_MAX);
        for (stream, rest) in connector.open(group as usize)? {
            stream.set_nonblocking(true)?;
            let mut visitor =
                Visitor { stream, reader: FrameReader::default(), check: Stream::default(), came };
            visitor.take(&rest, &mut visitors);
            present.push_back(visitor);
        }
        visitors.count += group;
        while present.front().is_some_and(|visitor| visitor.came.elapsed() > STAY) {
            if let Some(mut visitor) = present.pop_front() {
                visitor.listen(&mut visitors)?;
            }
        }
        let due = Duration::from_secs_f64(visitors.count as f64 / f64::from(rate));
        sleep(due.saturating_sub(began.elapsed()));
    }
    Ok(visitors)
}

impl Visitor {
    /// Everything that has come so far.
    fn listen(&mut self, visitors: &mut Visitors) -> io::Result<()> {
        let mut buffer = vec![0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("the server closed a visitor")),
                Ok(count) => self.take(&buffer[..count], visitors),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], visitors: &mut Visitors) {
        let Self { reader, check, .. } = self;
        reader.read(bytes, |opcode, payload| {
            if opcode <= BINARY {
                visitors.deliveries += 1;
                check.receive(payload, &mut visitors.faults);
            }
        });
    }
}

const BINARY: u8 = 2;
const PAYLOAD_BYTES: usize = 64;
const GROUP_MIN: u64 = 10;
const GROUP_MAX: u64 = 250;

/// A run in which fewer came than this share of the rate does not show what it is meant to.
const VISITORS_SHARE_MIN: f64 = 0.9;

const STAY: Duration = Duration::from_millis(100);
