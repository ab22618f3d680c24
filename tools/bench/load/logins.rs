//! Logins: a crowd connects at once, beside clients that are in already and are pinged.
//!
//! With a backend, the crowd comes while it answers slowly or not at all; then it recovers. Without one, the crowd has
//! tokens, or nothing to show.

use std::io;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::backend::Backend;
use super::crowd::{Crowd, Manner};
use super::door::Door;
use super::metrics::Metrics;
use super::probe::{Probe, ProbeKind};
use super::target::Target;
use crate::instrument::Resident;
use crate::server_cpu::Meter;

/// Options of the load of logins.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Number of clients that connect at once
    #[arg(long, default_value_t = 50_000)]
    clients: usize,
    /// Ways by which they come, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "websocket,events,commands")]
    doors: Vec<Door>,
    /// Token that each of them shows
    #[arg(long)]
    token: Option<String>,
    /// Address of the backend, `callbacks.connect.endpoint` of the server, which this load plays
    #[arg(long)]
    backend: Option<SocketAddr>,
    /// Answers a second of the backend until it recovers; with 0 it hangs
    #[arg(long, default_value_t = 500)]
    backend_rate: u64,
    /// Seconds until the backend recovers
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before the crowd comes
    #[arg(long, default_value_t = 3.0)]
    quiet: f64,
    /// Number of clients that are in before, which are pinged one after another
    #[arg(long, default_value_t = 100)]
    established: usize,
    /// Longest wait, in seconds, until all are in
    #[arg(long, default_value_t = 60.0)]
    wait: f64,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let target = &arguments.target;
    let backend = arguments.backend.map(Backend::start).transpose()?;
    let mut connector = target.connector();
    connector.set_token(arguments.token.clone());
    // From the server's core: the work of the load would be measured on its own.
    let core = target.core.map(|_| target.server_core);
    let probe = Probe::over(connector, ProbeKind::Ping, arguments.established, core)?;
    let mut phases = Phases { target, meter: target.meter()?, probe: &probe, done: Vec::new() };
    let seconds = Duration::from_secs_f64;
    phases.measure("quiet", seconds(arguments.quiet), || false)?;
    if let Some(backend) = &backend {
        backend.set_rate(Some(arguments.backend_rate));
    }
    let crowd = Crowd::start(&Manner {
        address: target.address,
        clients: arguments.clients,
        doors: arguments.doors.clone(),
        token: arguments.token.clone(),
    });
    let is_all = || crowd.inside() == arguments.clients as u64;
    let mut refused = Value::Null;
    if let Some(backend) = &backend {
        phases.measure("storm", seconds(arguments.seconds), || false)?;
        refused = crowd.to_json();
        backend.set_rate(None);
    }
    phases.measure("until_all_are_in", seconds(arguments.wait), is_all)?;
    let clients = crowd.to_json();
    let mut phases = phases.done;
    for (phase, ping) in phases.iter_mut().zip(probe.windows()?) {
        phase["ping"] = ping.to_json();
    }
    let worst = |path: &str| {
        let of = |phase: &Value| phase.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let quiet = of(&phases[0]);
        (quiet, phases[1..].iter().map(of).fold(f64::NAN, f64::max))
    };
    let (quiet, crowded) = worst("/ping/p99_us");
    let report = json!({
        "kind": "logins",
        "clients": clients,
        "clients_when_the_backend_recovers": refused,
        "refused_without_a_time": clients["refused_without_a_time"],
        "inside": clients["inside"],
        "seconds_until_all_are_in": phases.last().map(|phase| phase["seconds"].clone()),
        "ping_quiet_p99_us": quiet,
        "ping_p99_us": crowded,
        "ping_p99_over_quiet": crowded / quiet,
        "turns_over_4_ms": worst("/turns/over_4_ms").1,
        "longest_turn_at_most_us": worst("/turns/longest_at_most_us").1,
        "rss_bytes_max": worst("/rss_bytes_max").1,
        "backend": backend.as_ref().map(Backend::to_json),
        "phases": phases,
    });
    crowd.finish()?;
    backend.map(Backend::finish).transpose()?;
    Ok(report)
}

/// Parts of a run, each measured for itself.
struct Phases<'a> {
    target: &'a Target,
    /// Made before the crowd: it reads the output of a program, the end of which is not seen while a thread that came
    /// meanwhile has a copy of the descriptors.
    meter: Meter,
    probe: &'a Probe,
    done: Vec<Value>,
}

impl Phases<'_> {
    /// Measures for so long, or until it is over.
    fn measure(
        &mut self,
        name: &str,
        length: Duration,
        is_over: impl Fn() -> bool,
    ) -> io::Result<()> {
        let metrics = || Metrics::of(self.target.address);
        let before = metrics();
        self.meter.restart()?;
        self.probe.open();
        let began = Instant::now();
        let mut rss_max = 0;
        while began.elapsed() < length && !is_over() {
            sleep(SAMPLE_INTERVAL);
            if let Some(pid) = self.target.server_pid {
                rss_max = rss_max.max(Resident::of(pid)?.all);
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let spent = self.meter.spent()?;
        let turns = before.zip(metrics()).map(|(before, after)| after.turns_since(&before));
        self.done.push(json!({
            "phase": name,
            "seconds": seconds,
            "rss_bytes_max": rss_max,
            "turns": turns,
            "server": spent.map(|spent| spent.to_json(1)),
        }));
        Ok(())
    }
}

const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);
