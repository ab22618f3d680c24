//! Clients of every kind, from one thread that a server cannot easily outrun.
//!
//! Each kind of load prints one JSON object. Given the server's pid, it reads the server's CPU clock at the edges of
//! its own window, so that operations and cost belong to the same interval.

mod accept;
mod api;
mod bystander;
mod client;
mod cycle;
mod echo;
pub mod fanout;
mod flood;
mod idle;
mod lines;
mod poll;
mod probe;
mod recover;
mod slow_reader;
pub mod streams;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use mio::{Events, Poll};

pub use client::{Connector, EventReader, FrameReader, Protocol, frame};

use crate::server_cpu::{Reading, ServerCpu, Spent};
use fantail::driver::raise_limit;

use crate::system::pin_to_core;

/// Put load on a server and print one JSON object.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Subcommand)]
enum Kind {
    /// Frames that come back
    Echo(echo::Arguments),
    /// One publisher, many subscribers, every stream checked
    Fanout(fanout::Arguments),
    /// Handshakes at full speed
    Accept(accept::Arguments),
    /// Connections that are opened and closed again
    Cycle(cycle::Arguments),
    /// Publications through the server API
    Api(api::Arguments),
    /// A few sockets that send as much as they can, beside newcomers and idle connections
    Flood(flood::Arguments),
    /// Connections that stay and say nothing
    Idle(idle::Arguments),
    /// Long polls: all answered by one publication, again and again
    Poll(poll::Arguments),
    /// Clients that come back at once and want what they missed
    Recover(recover::Arguments),
    /// One subscriber that stops reading for a while
    SlowReader(slow_reader::Arguments),
}

/// What every kind of load wants to know.
#[derive(Args)]
pub struct Target {
    /// The server's address
    #[arg(long)]
    address: SocketAddr,
    /// Path and query of the WebSocket handshake
    #[arg(long, default_value = "/")]
    path: String,
    /// The server's process, to report its cost
    #[arg(long)]
    server_pid: Option<u32>,
    /// The core that the server is pinned to
    #[arg(long, default_value_t = 0)]
    server_core: usize,
    /// The core to run on
    #[arg(long)]
    core: Option<usize>,
    /// Look for events without sleeping
    #[arg(long)]
    spin: bool,
}

pub fn run(arguments: &Arguments) -> io::Result<ExitCode> {
    raise_limit()?;
    let target = match &arguments.kind {
        Kind::Echo(echo) => &echo.target,
        Kind::Fanout(fanout) => &fanout.target,
        Kind::Accept(accept) => &accept.target,
        Kind::Cycle(cycle) => &cycle.target,
        Kind::Api(api) => &api.target,
        Kind::Flood(flood) => &flood.target,
        Kind::Idle(idle) => &idle.target,
        Kind::Poll(poll) => &poll.target,
        Kind::Recover(recover) => &recover.target,
        Kind::SlowReader(slow_reader) => &slow_reader.target,
    };
    if let Some(core) = target.core {
        pin_to_core(core)?;
    }
    let report = match &arguments.kind {
        Kind::Echo(arguments) => echo::run(arguments)?,
        Kind::Fanout(arguments) => fanout::run(arguments)?,
        Kind::Accept(arguments) => accept::run(arguments)?,
        Kind::Cycle(arguments) => cycle::run(arguments)?,
        Kind::Api(arguments) => api::run(arguments)?,
        Kind::Flood(arguments) => flood::run(arguments)?,
        Kind::Idle(arguments) => idle::run(arguments)?,
        Kind::Poll(arguments) => poll::run(arguments)?,
        Kind::Recover(arguments) => recover::run(arguments)?,
        Kind::SlowReader(arguments) => slow_reader::run(arguments)?,
    };
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}

impl Target {
    fn connector(&self) -> Connector {
        Connector::new(self.address, self.path.clone())
    }

    fn server_cpu(&self) -> io::Result<Option<ServerCpu>> {
        self.server_pid.map(|pid| ServerCpu::new(pid, self.server_core)).transpose()
    }
}

/// Warm-up, then the interval that counts.
struct Window {
    cpu: Option<ServerCpu>,
    opens: Instant,
    length: Duration,
    opened: Option<(Instant, Option<Reading>)>,
}

enum Phase {
    WarmUp,
    /// The interval begins with this turn: forget what was counted.
    Opened,
    Inside,
    /// Its length, and what the server spent.
    Closed(Duration, Option<Spent>),
}

impl Window {
    fn new(cpu: Option<ServerCpu>, warm_up: f64, seconds: f64) -> Self {
        Self {
            cpu,
            opens: Instant::now() + Duration::from_secs_f64(warm_up),
            length: Duration::from_secs_f64(seconds),
            opened: None,
        }
    }

    fn read_cpu(&self) -> io::Result<Option<Reading>> {
        self.cpu.as_ref().map(ServerCpu::read).transpose()
    }

    fn phase(&mut self, now: Instant) -> io::Result<Phase> {
        let Some((opened, from)) = &self.opened else {
            if now < self.opens {
                return Ok(Phase::WarmUp);
            }
            self.opened = Some((now, self.read_cpu()?));
            return Ok(Phase::Opened);
        };
        if now < *opened + self.length {
            return Ok(Phase::Inside);
        }
        let to = self.read_cpu()?;
        let spent = match (&self.cpu, from, &to) {
            (Some(cpu), Some(from), Some(to)) => Some(cpu.spent(from, to)),
            _ => None,
        };
        Ok(Phase::Closed(now - *opened, spent))
    }
}

/// Waits for events; false when none came for long. Spinning takes wake-ups out of the picture: waking a load that
/// sleeps is work of the server's core, and how often it sleeps depends on both sides' timing.
fn wait(poll: &mut Poll, events: &mut Events, spin: bool) -> io::Result<bool> {
    let timeout = if spin { Duration::ZERO } else { STALL_TIMEOUT };
    let mut began = None;
    loop {
        match poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
        if !events.is_empty() {
            return Ok(true);
        }
        if !spin || began.get_or_insert_with(Instant::now).elapsed() > STALL_TIMEOUT {
            return Ok(false);
        }
    }
}

const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Puts the cost per operation into a report.
fn add_cost(report: &mut serde_json::Value, spent: Option<&Spent>, operations: u64) {
    report["server"] = spent.map_or(serde_json::Value::Null, |spent| spent.to_json(operations));
}
