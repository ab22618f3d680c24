//! The default of the memory budget.

use std::fs;

use crate::config::limits::MEMORY_BYTES_FLOOR;

/// The memory budget, in bytes, if it is not set: [`BUDGET_PERCENT`] of the memory available on the host or left in the
/// control group of this process, whichever is less, and at least [`MEMORY_BYTES_FLOOR`].
pub fn bytes_by_default() -> u64 {
    let host = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = group_folders(&groups).into_iter().filter_map(|folder| left_in_group(&folder));
    let bytes = left.chain(host).min().unwrap_or(UNKNOWN_BYTES);
    (bytes / 100 * BUDGET_PERCENT).max(MEMORY_BYTES_FLOOR)
}

/// The rest is for memory that is not accounted for: tables, buffers, the allocator, the kernel's part of each socket.
const BUDGET_PERCENT: u64 = 60;

/// The memory that is assumed where neither the host nor a control group can be read.
const UNKNOWN_BYTES: u64 = 1024 * 1024 * 1024;

/// The bytes that new programs can use without swapping, by the kernel's estimate.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The folders that may have the limits of this process's control groups: its own group and each of its ancestors, for
/// cgroup v2 and v1. In a container, the root of the tree is the container's own group.
fn group_folders(groups: &str) -> Vec<String> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let root = match controllers {
            "" => "/sys/fs/cgroup",
            _ if controllers.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        folders.push(format!("{root}{path}"));
        while let Some((above, _)) = path.rsplit_once('/') {
            folders.push(format!("{root}{above}"));
            path = above;
        }
    }
    folders
}

/// The bytes that a group may still use; `None` without a limit.
fn left_in_group(folder: &str) -> Option<u64> {
    let number = |name: &str| {
        let text = fs::read_to_string(format!("{folder}/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let files =
        [("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")];
    // Without a limit, the file contains "max", or in version 1 a number larger than the memory of any host.
    files
        .into_iter()
        .find_map(|(limit, used)| Some(number(limit)?.saturating_sub(number(used).unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_parsed_from_meminfo() {
        let text = "MemTotal:       24689200 kB\nMemAvailable:    1000 kB\nBuffers: 1 kB\n";
        assert_eq!(available(text), Some(1_024_000));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(available("MemAvailable: many kB\n"), None);
    }

    #[test]
    fn folders_of_both_cgroup_versions_are_listed_up_to_their_roots() {
        assert_eq!(group_folders("0::/\n"), ["/sys/fs/cgroup"]);
        assert_eq!(
            group_folders("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup"]
        );
        assert_eq!(
            group_folders("5:cpu,memory:/x\n4:pids:/y\nnonsense\n"),
            ["/sys/fs/cgroup/memory/x", "/sys/fs/cgroup/memory"]
        );
    }

    #[test]
    fn the_default_budget_is_less_than_the_available_memory() {
        let bytes = bytes_by_default();
        assert!(bytes >= MEMORY_BYTES_FLOOR);
        let host = available(&fs::read_to_string("/proc/meminfo").expect("Linux")).expect("a line");
        assert!(bytes < host, "{bytes} of {host}");
    }
}
