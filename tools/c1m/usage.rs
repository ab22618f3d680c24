//! Resources used on this host: memory of the server, of c1m and of the kernel, and CPU time of both processes.

use std::fs;
use std::io;
use std::time::Instant;

use serde::Serialize;

use crate::instrument::{Resident, cpu_clock_nanoseconds, kernel_slab_bytes};

/// Memory at one instant, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    /// Resident memory of the server; 0 without its process id.
    pub server: u64,
    /// Resident memory of c1m.
    pub own: u64,
    /// Object caches of the kernel: sockets, descriptors, epoll entries.
    pub kernel_objects: u64,
    /// Buffers of TCP: data in flight.
    pub kernel_tcp: u64,
    /// Memory available to new allocations.
    pub available: u64,
}

/// The CPU clocks at one instant.
#[derive(Clone, Copy)]
pub struct Clocks {
    pub at: Instant,
    /// CPU time of the server; `None` without its process id.
    pub server_ns: Option<u64>,
    /// CPU time of c1m.
    pub own_ns: u64,
}

impl Memory {
    pub fn read(server_pid: Option<u32>) -> io::Result<Self> {
        Ok(Self {
            server: server_pid.map_or(Ok(0), |pid| Resident::of(pid).map(|memory| memory.all))?,
            own: Resident::of(std::process::id())?.all,
            kernel_objects: kernel_slab_bytes()?,
            kernel_tcp: tcp_bytes()?,
            available: available_bytes()?,
        })
    }

    /// Object caches and TCP buffers together.
    pub fn kernel(&self) -> u64 {
        self.kernel_objects + self.kernel_tcp
    }
}

impl Clocks {
    pub fn read(server_pid: Option<u32>) -> io::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            server_ns: server_pid.map(cpu_clock_nanoseconds).transpose()?,
            own_ns: cpu_clock_nanoseconds(std::process::id())?,
        })
    }
}

/// Reads `/proc/net/sockstat`; the last number of its TCP line is in pages.
fn tcp_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let line = text.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages = line.rsplit_once("mem ").and_then(|(_, pages)| pages.trim().parse::<u64>().ok());
    Ok(pages.unwrap_or(0) * PAGE_BYTES)
}

fn available_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.unwrap_or(0) * 1024)
}

const PAGE_BYTES: u64 = 4096;
