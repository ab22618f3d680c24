//! What the machine allows: how many connections it holds, what stops it first, what would raise that.
//!
//! Reading and judging stand apart: [`Host`] is what was read, plain data; [`judge`] is pure, so that it is tested with
//! made-up hosts. What a host should have stands in `sysctl/90-fantail.conf` and nowhere else.

use std::collections::BTreeMap;

use super::OWN_THREADS;

mod capacity;
mod facts;
mod judgement;
mod read;
mod recommended;
#[cfg(test)]
mod tests;

pub use capacity::Bottleneck;
pub use facts::{Fact, Fix, Verdict};
pub use judgement::{Grouped, Judgement, Plan, judge};

/// A machine as this process sees it: its own limits, its control group, its network namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Open files, per descriptor table: what the process may raise itself to, and each worker has a table.
    pub descriptors_max: u64,
    /// Kernel settings by name, each one or more numbers. What is missing is not to be seen from here: an older
    /// kernel, a module that is not loaded, a namespace that hides it.
    pub settings: BTreeMap<String, Vec<u64>>,
    /// Files open on the whole machine.
    pub files_open: u64,
    /// Whether the process has CAP_SYS_ADMIN, which `fs.file-max` does not bind.
    pub is_exempt_from_file_max: bool,
    /// Bytes that can be had without swapping.
    pub memory_available: u64,
    /// Bytes left in the tightest control group around the process.
    pub cgroup_memory_left: Option<u64>,
    /// Threads that the process may have beside those that it has, by its control groups and its user's limit; `None`
    /// for no limit.
    pub threads_left: Option<u64>,
    /// Cores that the process may run on.
    pub cores: usize,
    /// Cores that are online.
    pub cores_online: usize,
    /// Cores that the scheduler leaves alone, as the kernel lists them; empty for none.
    pub cores_isolated: String,
    /// Cores' worth of time that the control group grants.
    pub cores_quota: Option<f64>,
    /// Whether io_uring works here, else why not. `None`: it was not tried.
    pub io_uring: Option<Result<(), String>>,
}

impl Host {
    /// A kernel setting's first number.
    fn number(&self, key: &str) -> Option<u64> {
        self.settings.get(key)?.first().copied()
    }
}
