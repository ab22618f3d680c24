//! Reads the facts about the host: `/proc`, `/sys`, and the limits of the process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::Host;
use super::recommended::numbers;
use crate::config::DriverChoice;
use crate::driver::open_files_max;

impl Host {
    /// Reads this host, in well under a millisecond, without trying io_uring. The error names what cannot be read.
    pub fn read() -> Result<Host, String> {
        let descriptors_max =
            open_files_max().map_err(|error| format!("the limit on open files: {error}"))?;
        let cores = core_affinity::get_core_ids().map_or(0, |cores| cores.len());
        read_below(Path::new("/"), descriptors_max, cores)
    }

    /// Tries io_uring as a server does at its start: sets up a ring and tests it over loopback.
    pub fn try_io_uring(&mut self) {
        let tried = crate::server::probe(DriverChoice::IoUring);
        self.io_uring = Some(tried.map(|_| ()).map_err(|error| error.0));
    }
}

/// Reads the files below `root`. It is an error if a file is missing that every kernel has.
pub(super) fn read_below(root: &Path, descriptors_max: u64, cores: usize) -> Result<Host, String> {
    let read = |path: &str| {
        let path = root.join(path);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let memory = read("proc/meminfo")?;
    let memory_available =
        field(&memory, "MemAvailable:").ok_or("/proc/meminfo has no MemAvailable")? * 1024;
    let files = numbers(&read("proc/sys/fs/file-nr")?);
    let status = read("proc/self/status")?;
    let groups = ControlGroups::of(root, &read("proc/self/cgroup").unwrap_or_default());
    let cpus = |file: &str| read(&format!("sys/devices/system/cpu/{file}")).unwrap_or_default();
    Ok(Host {
        descriptors_max,
        settings: settings(root),
        files_open: *files.first().ok_or("/proc/sys/fs/file-nr is empty")?,
        is_exempt_from_file_max: capabilities(&status) & CAP_SYS_ADMIN != 0,
        memory_available,
        cgroup_memory_left: groups.memory_left(),
        threads_left: groups.threads_left().into_iter().chain(threads_of_user(root, &status)).min(),
        cores: cores.max(1),
        cores_online: cores_listed(&cpus("online")).unwrap_or(cores).max(1),
        cores_isolated: cpus("isolated").trim().to_owned(),
        cores_quota: groups.cores_quota(),
        io_uring: None,
    })
}

/// The kernel settings of [`KEYS`] that exist.
fn settings(root: &Path) -> BTreeMap<String, Vec<u64>> {
    let read = |key: &&str| {
        let path = root.join("proc/sys").join(key.replace('.', "/"));
        let value = numbers(&fs::read_to_string(path).ok()?);
        (!value.is_empty()).then(|| ((*key).to_owned(), value))
    };
    KEYS.iter().filter_map(read).collect()
}

/// The number that follows a name: "MemAvailable:   1024 kB".
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The effective capabilities, as bits.
fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or(0)
}

/// The number of cores in a list: "0-3,8" has five.
fn cores_listed(list: &str) -> Option<usize> {
    list.trim().split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        Some(sum + (last + 1).checked_sub(first)?)
    })
}

/// Threads that the user may still start under RLIMIT_NPROC. `None` where it does not apply: the kernel exempts root
/// and processes with CAP_SYS_ADMIN or CAP_SYS_RESOURCE (kernel/fork.c, copy_process). `None` too for a limit so high
/// that it is never reached, which saves counting all threads.
fn threads_of_user(root: &Path, status: &str) -> Option<u64> {
    let user = field(status, "Uid:")?;
    if user == 0 || capabilities(status) & (CAP_SYS_ADMIN | CAP_SYS_RESOURCE) != 0 {
        return None;
    }
    let limits = fs::read_to_string(root.join("proc/self/limits")).ok()?;
    let max = field(&limits, "Max processes").filter(|max| *max < NPROC_NEVER_MET)?;
    let processes = fs::read_dir(root.join("proc")).ok()?.flatten();
    let threads = processes.filter_map(|process| {
        process.file_name().to_str()?.parse::<u32>().ok()?;
        let status = fs::read_to_string(process.path().join("status")).ok()?;
        (field(&status, "Uid:") == Some(user)).then(|| field(&status, "Threads:")).flatten()
    });
    Some(max.saturating_sub(threads.sum()))
}

/// The control groups that contain the process, innermost first, for each hierarchy that is read.
#[derive(Default)]
struct ControlGroups {
    unified: Vec<PathBuf>,
    memory: Vec<PathBuf>,
    cpu: Vec<PathBuf>,
    pids: Vec<PathBuf>,
}

impl ControlGroups {
    /// Parses `/proc/self/cgroup`: "0::/a/b", and "4:memory:/a/b" for version 1.
    fn of(root: &Path, text: &str) -> Self {
        let mut groups = Self::default();
        for line in text.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(kinds), Some(path)) = (parts.next(), parts.next()) else { continue };
            if kinds.is_empty() {
                groups.unified = chain(&root.join("sys/fs/cgroup"), path);
            }
            for kind in kinds.split(',') {
                match kind {
                    "memory" => groups.memory = chain(&root.join("sys/fs/cgroup/memory"), path),
                    "pids" => groups.pids = chain(&root.join("sys/fs/cgroup/pids"), path),
                    "cpu" => groups.cpu = chain(&root.join("sys/fs/cgroup/cpu"), path),
                    _ => {}
                }
            }
        }
        groups
    }

    /// Bytes left in the group with the least; page cache that the kernel can reclaim counts as left.
    fn memory_left(&self) -> Option<u64> {
        let unified = self.unified.iter().filter_map(|group| {
            memory_left(group, "memory.max", "memory.current", "inactive_file ")
        });
        let first = self.memory.iter().filter_map(|group| {
            let limit = "memory.limit_in_bytes";
            memory_left(group, limit, "memory.usage_in_bytes", "total_inactive_file ")
        });
        unified.chain(first).min()
    }

    /// Threads left in the group with the fewest.
    fn threads_left(&self) -> Option<u64> {
        let left = |group: &PathBuf| {
            let number =
                |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok();
            let (max, current): (u64, u64) = (number("pids.max")?, number("pids.current")?);
            Some(max.saturating_sub(current))
        };
        self.unified.iter().chain(&self.pids).filter_map(left).min()
    }

    fn cores_quota(&self) -> Option<f64> {
        // Without a quota, the text is "max 100000", or "-1" in version 1.
        let quota = |text: String| match numbers(&text)[..] {
            [quota, period] if period > 0 => Some(quota as f64 / period as f64),
            _ => None,
        };
        let read = |group: &Path, file: &str| fs::read_to_string(group.join(file)).ok();
        let unified = self.unified.iter().filter_map(|group| read(group, "cpu.max"));
        let first = self.cpu.iter().filter_map(|group| {
            Some(read(group, "cpu.cfs_quota_us")? + &read(group, "cpu.cfs_period_us")?)
        });
        unified.chain(first).filter_map(quota).min_by(f64::total_cmp)
    }
}

/// The folders of a group and of its ancestors. A group outside this namespace, "/../…", is not visible.
fn chain(mount: &Path, group: &str) -> Vec<PathBuf> {
    let below = group.trim_start_matches('/');
    let below = if below.starts_with("..") { "" } else { below };
    Path::new(below).ancestors().map(|group| mount.join(group)).collect()
}

fn memory_left(group: &Path, limit: &str, usage: &str, cache: &str) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok();
    // Without a limit, the text is "max", or the largest number of whole pages in version 1.
    let limit: u64 = number(limit).filter(|limit| *limit < NO_LIMIT)?;
    let usage: u64 = number(usage)?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    Some(limit.saturating_sub(usage.saturating_sub(field(&stat, cache).unwrap_or(0))))
}

const KEYS: &[&str] = &[
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
];

const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_RESOURCE: u64 = 1 << 24;
const NPROC_NEVER_MET: u64 = 16 * 1024;
const NO_LIMIT: u64 = 1 << 62;
