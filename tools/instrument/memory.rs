//! Memory of a process and of the kernel.

use std::fs;
use std::io;

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy)]
pub struct Resident {
    pub all: u64,
    pub anonymous: u64,
}

impl Resident {
    pub fn of(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
            kilobytes.and_then(|digits| digits.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        Ok(Self { all: field("VmRSS:"), anonymous: field("RssAnon:") })
    }
}

/// Memory in the object caches of the kernel, in bytes: whole slabs, including free objects.
pub fn kernel_slab_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Slab:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.and_then(|digits| digits.trim().parse::<u64>().ok()).unwrap_or(0) * 1024)
}
