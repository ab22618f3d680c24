//! The number of connections that a host holds: the lowest of its limits.

use serde::Serialize;

use super::{Host, Plan};
use crate::config::limits::CONNECTIONS_PER_WORKER_MAX;
use crate::driver::RESERVED_DESCRIPTORS;
use crate::server::OWN_THREADS;

/// A limit on the number of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bottleneck {
    /// Open files of each worker.
    Descriptors,
    /// The connection table of a worker, which has a maximum size.
    WorkerTable,
    /// `fs.file-max`: open files of the host.
    FileMax,
    /// Memory of the host or of the control group.
    Memory,
    /// `net.netfilter.nf_conntrack_max`: connections that the firewall tracks.
    Conntrack,
    /// Threads: the control group's `pids.max`, or the user's RLIMIT_NPROC.
    Threads,
    /// The setting `limits.connections_max`.
    ConnectionsMax,
}

/// Each limit that applies, with the number of connections that `plan.workers` workers hold under it.
pub(super) fn limits(host: &Host, plan: &Plan) -> impl Iterator<Item = (Bottleneck, u64)> {
    let descriptors = even_share(descriptors_of_worker(host), plan.workers);
    let table = even_share(CONNECTIONS_PER_WORKER_MAX as u64, plan.workers);
    [
        (Bottleneck::Descriptors, Some(descriptors)),
        (Bottleneck::WorkerTable, Some(table)),
        (Bottleneck::FileMax, files_of_host(host, plan)),
        (Bottleneck::Memory, Some(memory(host, plan))),
        (Bottleneck::Conntrack, conntrack(host)),
        (Bottleneck::Threads, threads(host, plan)),
        (Bottleneck::ConnectionsMax, plan.connections_max),
    ]
    .into_iter()
    .filter_map(|(by, limit)| Some((by, limit?)))
}

/// The lowest of the limits.
pub(super) fn capacity(host: &Host, plan: &Plan) -> (Bottleneck, u64) {
    limits(host, plan).min_by_key(|(_, limit)| *limit).expect("descriptors always limit")
}

/// Another number of workers with which the host holds more connections, and how many: the smallest that reaches the
/// goal, or else the one that holds the most. `None` if no number holds more than the plan's.
pub(super) fn better_workers(host: &Host, plan: &Plan, workers_max: usize) -> Option<(usize, u64)> {
    let now = capacity(host, plan).1;
    if plan.goal.is_some_and(|goal| now >= goal) {
        return None;
    }
    let options = (1..=workers_max)
        .map(|workers| (workers, capacity(host, &Plan { workers, ..plan.clone() }).1));
    let reaches = |capacity| plan.goal.is_some_and(|goal| capacity >= goal);
    // `rev`, because `max_by_key` returns the last of equals: the fewest workers are wanted.
    let most = options.clone().rev().max_by_key(|(_, capacity)| *capacity);
    let found = options.clone().find(|(_, capacity)| reaches(*capacity)).or(most);
    found.filter(|(_, capacity)| *capacity > now)
}

/// Descriptors of one worker that are available for connections.
pub(super) fn descriptors_of_worker(host: &Host) -> u64 {
    host.descriptors_max.saturating_sub(RESERVED_DESCRIPTORS)
}

/// Connections that `workers` workers with room for `each` hold before the first of them is full. The kernel assigns
/// connections by hash (SO_REUSEPORT), so a worker gets m = N / workers with a standard deviation of
/// sqrt(m (1 - 1/workers)). Four deviations are left free, which one worker in 30,000 exceeds. A connection to a full
/// worker waits in the backlog of its listener.
pub(super) fn even_share(each: u64, workers: usize) -> u64 {
    let workers = workers as f64;
    let spread = DEVIATIONS * (1.0 - 1.0 / workers).sqrt();
    // The root of m + spread * sqrt(m) = each.
    let root = (spread.mul_add(spread, 4.0 * each as f64).sqrt() - spread) / 2.0;
    (root * root * workers + ROUNDING) as u64
}

fn files_of_host(host: &Host, plan: &Plan) -> Option<u64> {
    let max = host.number("fs.file-max").filter(|_| !host.is_exempt_from_file_max)?;
    let own = OWN_FILES + plan.workers as u64 * OWN_FILES_PER_WORKER;
    Some(max.saturating_sub(host.files_open + own) / plan.ends())
}

fn memory(host: &Host, plan: &Plan) -> u64 {
    let own = PROCESS_BYTES + plan.workers as u64 * WORKER_BYTES;
    let left = memory_left(host);
    left.saturating_sub(left / MEMORY_RESERVE_DIVISOR + own) / connection_bytes(plan.both_ends)
}

/// Bytes that are available on the host and in the control group.
pub(super) fn memory_left(host: &Host) -> u64 {
    host.cgroup_memory_left.unwrap_or(u64::MAX).min(host.memory_available)
}

/// Bytes of memory of one idle, subscribed WebSocket connection.
pub(super) fn connection_bytes(both_ends: bool) -> u64 {
    let server = KERNEL_BYTES_OF_SERVER_END + USER_BYTES_OF_SERVER_END;
    if both_ends { server + BYTES_OF_CLIENT_END } else { server }
}

/// A server that cannot start all of its threads does not start: 0 connections.
fn threads(host: &Host, plan: &Plan) -> Option<u64> {
    let workers = workers_startable(host)?;
    (workers < plan.workers as u64).then_some(0)
}

/// Workers that can be started under the limit on threads; the first thread of this process counts as the server's.
pub(super) fn workers_startable(host: &Host) -> Option<u64> {
    Some((host.threads_left? + 1).saturating_sub(OWN_THREADS))
}

fn conntrack(host: &Host) -> Option<u64> {
    let max = host.number("net.netfilter.nf_conntrack_max")?;
    let count = host.number("net.netfilter.nf_conntrack_count")?;
    // A host in use has connections, so a loaded module that tracks none is not used by any rule.
    (count > 0).then(|| max.saturating_sub(count))
}

const DEVIATIONS: f64 = 4.0;
/// Keeps a root that should be a whole number from being rounded down.
const ROUNDING: f64 = 1e-6;

/// The kernel's part of an accepted connection: `/proc/slabinfo` beside 15,000 idle ones on Linux 6.18, per connection
/// TCP 2368, sock_inode_cache 832, filp 192, dentry 192, two lsm caches 56, packed into slabs with 2% to 7% to spare;
/// io_uring's poll 256 and its entry, or epoll's 128 and its entry, about as much. A control group may be charged with
/// less of it (1.6 KB each in version 1); none is charged with more.
const KERNEL_BYTES_OF_SERVER_END: u64 = 4100;
/// RSS beside 15,000 idle subscribed WebSockets is 121 bytes a connection, and with a million and their tables less
/// than this (`bench run memory`).
const USER_BYTES_OF_SERVER_END: u64 = 200;
/// The client's end on the same host: the same in the kernel, and at most 200 bytes of its own.
const BYTES_OF_CLIENT_END: u64 = 4100 + 200;
/// RSS with one worker, without connections.
const PROCESS_BYTES: u64 = 4 << 20;
/// RSS that each worker adds, 0.7 MB with 128 of them, and its ring.
const WORKER_BYTES: u64 = 1 << 20;
/// A thirty-second of the memory stays free, for the kernel's reserves and for connections that are not idle.
const MEMORY_RESERVE_DIVISOR: u64 = 32;
/// Files that a server opens in addition to its connections.
const OWN_FILES: u64 = 16;
/// The same for each worker; duplicates of descriptors in other tables do not count as files.
const OWN_FILES_PER_WORKER: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_is_filled_completely_and_several_keep_room_for_deviations() {
        assert_eq!(even_share(19_744, 1), 19_744);
        assert_eq!(even_share(0, 4), 0);
        for workers in [2, 8, 56, 128] {
            let all = even_share(19_744, workers) as f64;
            let mean = all / workers as f64;
            let deviation = (mean * (1.0 - 1.0 / workers as f64)).sqrt();
            let fullest = mean + 4.0 * deviation;
            assert!(fullest <= 19_744.01 && fullest > 19_740.0, "{workers}: {fullest}");
        }
    }
}
