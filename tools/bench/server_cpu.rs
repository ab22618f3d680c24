//! CPU time of a server: its process and the softirq work on its core.
//!
//! How to add them up depends on the kernel.
//!
//! * Without `CONFIG_IRQ_TIME_ACCOUNTING`, softirq work on top of a task, mainly loopback delivery inside `send`,
//!   is part of that task's CPU clock, exact to the nanosecond. Deferred work runs in `ksoftirqd/N`, a task with a
//!   clock of its own. The sum is process + ksoftirqd; the softirq column of `/proc/stat` would count the same work
//!   again, sampled at ticks.
//! * With it, softirq time is not part of task clocks; it appears, with that of ksoftirqd, in the irq and softirq
//!   columns. The sum is process + those columns of the core.
//!
//! The share of other processes on the core follows from its idle column: a turn with a high share is not reliable.

use std::fs;
use std::io;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::instrument::cpu_clock_nanoseconds;

/// Reads the CPU clocks of one server.
pub struct ServerCpu {
    pid: u32,
    core: usize,
    ksoftirqd: Option<u32>,
    irq_time_accounting: bool,
}

/// The clocks at one instant, in nanoseconds.
pub struct Reading {
    at: Instant,
    process: u64,
    ksoftirqd: u64,
    irq_columns: u64,
    idle_column: u64,
}

/// CPU time between two readings.
pub struct Spent {
    pub total_ns: u64,
    wall_ns: u64,
    process_ns: u64,
    ksoftirqd_ns: u64,
    irq_columns_ns: u64,
    /// Share of the core's time used by other processes.
    pub other_share: f64,
}

impl ServerCpu {
    /// The server must be pinned to `core`.
    pub fn new(pid: u32, core: usize) -> io::Result<Self> {
        cpu_clock_nanoseconds(pid)?;
        let ksoftirqd = find_process(&format!("ksoftirqd/{core}"))?;
        Ok(Self { pid, core, ksoftirqd, irq_time_accounting: has_irq_time_accounting() })
    }

    pub fn read(&self) -> io::Result<Reading> {
        let (idle_column, irq_columns) = core_columns(self.core)?;
        Ok(Reading {
            at: Instant::now(),
            process: cpu_clock_nanoseconds(self.pid)?,
            ksoftirqd: self.ksoftirqd.map_or(Ok(0), cpu_clock_nanoseconds)?,
            irq_columns,
            idle_column,
        })
    }

    pub fn spent(&self, from: &Reading, to: &Reading) -> Spent {
        let process_ns = to.process - from.process;
        let ksoftirqd_ns = to.ksoftirqd - from.ksoftirqd;
        let irq_columns_ns = to.irq_columns - from.irq_columns;
        let softirq_ns = if self.irq_time_accounting { irq_columns_ns } else { ksoftirqd_ns };
        let total_ns = process_ns + softirq_ns;
        let wall_ns = (to.at - from.at).as_nanos() as u64;
        let idle_ns = to.idle_column - from.idle_column;
        let other_ns = wall_ns.saturating_sub(idle_ns).saturating_sub(total_ns);
        let other_share = other_ns as f64 / wall_ns as f64;
        Spent { total_ns, wall_ns, process_ns, ksoftirqd_ns, irq_columns_ns, other_share }
    }
}

/// Measures a server's CPU time over an interval; nothing without a server to measure.
pub struct Meter(Option<(ServerCpu, Reading)>);

impl Meter {
    pub fn start(cpu: Option<ServerCpu>) -> io::Result<Self> {
        let with_reading = |cpu: ServerCpu| cpu.read().map(|reading| (cpu, reading));
        Ok(Self(cpu.map(with_reading).transpose()?))
    }

    /// Begins the interval anew.
    pub fn restart(&mut self) -> io::Result<()> {
        if let Some((cpu, from)) = &mut self.0 {
            *from = cpu.read()?;
        }
        Ok(())
    }

    /// The CPU time since the start of the interval.
    pub fn spent(&self) -> io::Result<Option<Spent>> {
        let Some((cpu, from)) = &self.0 else { return Ok(None) };
        Ok(Some(cpu.spent(from, &cpu.read()?)))
    }
}

impl Spent {
    /// Share of the core's time used by the server.
    pub fn core_share(&self) -> f64 {
        self.total_ns as f64 / self.wall_ns as f64
    }

    pub fn to_json(&self, operations: u64) -> Value {
        let share = |ns: u64| ns as f64 / self.wall_ns as f64;
        json!({
            "cpu_ns_per_op": self.total_ns as f64 / operations.max(1) as f64,
            "core_share": share(self.total_ns),
            "process_share": share(self.process_ns),
            "ksoftirqd_share": share(self.ksoftirqd_ns),
            "irq_columns_share": share(self.irq_columns_ns),
            "other_share": self.other_share,
        })
    }
}

/// Reads (idle + iowait, irq + softirq) of one core.
fn core_columns(core: usize) -> io::Result<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core}");
    let columns: Vec<u64> = text
        .lines()
        .map(|line| line.split_ascii_whitespace())
        .find_map(|mut words| (words.next() == Some(&name)).then_some(words))
        .map(|words| words.filter_map(|word| word.parse().ok()).collect())
        .unwrap_or_default();
    match columns[..] {
        [_user, _nice, _system, idle, iowait, irq, softirq, ..] => {
            Ok(((idle + iowait) * NANOSECONDS_PER_TICK, (irq + softirq) * NANOSECONDS_PER_TICK))
        }
        _ => Err(io::Error::other(format!("/proc/stat has no {name}"))),
    }
}

/// USER_HZ is 100 on every supported architecture, independent of the HZ of the kernel.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

fn find_process(name: &str) -> io::Result<Option<u32>> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse().ok()) else {
            continue;
        };
        // The process may have ended since the directory was read.
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim_end() == name {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Whether the kernel was built with `CONFIG_IRQ_TIME_ACCOUNTING`. False if its configuration
/// cannot be read, which counts nothing twice.
fn has_irq_time_accounting() -> bool {
    let configuration = "zcat -f /proc/config.gz /boot/config-$(uname -r) 2>/dev/null";
    let output = Command::new("sh").args(["-c", configuration]).output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .any(|line| line == "CONFIG_IRQ_TIME_ACCOUNTING=y")
    })
}
