//! What is judged: a host, and the server that is to run on it.

use std::collections::BTreeMap;

/// A host as seen by this process: the limits of the process, its control group, its network namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Open files per descriptor table: the hard limit of the process. Each worker has its own table.
    pub descriptors_max: u64,
    /// Kernel settings by name, each with one or more numbers. A missing setting is not visible to this process: the
    /// kernel is older, a module is not loaded, or a namespace hides it.
    pub settings: BTreeMap<String, Vec<u64>>,
    /// Open files of the whole host.
    pub files_open: u64,
    /// Whether the process has CAP_SYS_ADMIN, to which `fs.file-max` does not apply.
    pub is_exempt_from_file_max: bool,
    /// Bytes that are available without swapping.
    pub memory_available: u64,
    /// Bytes left in the tightest control group around the process.
    pub cgroup_memory_left: Option<u64>,
    /// Threads that the process may start in addition to its current ones, by its control groups and its user's limit;
    /// `None` without a limit.
    pub threads_left: Option<u64>,
    /// Cores that the process may run on.
    pub cores: usize,
    /// Cores that are online.
    pub cores_online: usize,
    /// Isolated cores, as the kernel lists them; empty if there are none.
    pub cores_isolated: String,
    /// The CPU quota of the control group, in cores.
    pub cores_quota: Option<f64>,
    /// Whether io_uring works on this host, or the reason why not; `None` if it was not tried.
    pub io_uring: Option<Result<(), String>>,
}

impl Host {
    /// The first number of a kernel setting.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.settings.get(key)?.first().copied()
    }
}

/// The server to judge the host for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The number of workers, 1..=[`WORKERS_MAX`](crate::config::limits::WORKERS_MAX).
    pub workers: usize,
    /// Connections to hold; without a goal, a host is compared to the recommended values.
    pub goal: Option<u64>,
    /// Whether the clients run on this host too, so that both ends of each connection count.
    pub both_ends: bool,
    /// The setting `limits.connections_max`, if it is set.
    pub connections_max: Option<u64>,
}

impl Plan {
    /// The number of ends of each connection on this host.
    pub(super) fn ends(&self) -> u64 {
        if self.both_ends { 2 } else { 1 }
    }
}
