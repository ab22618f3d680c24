//! Distributes connections over threads and source addresses, and checks the limits of this host before anything is
//! opened.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::connection::Role;

/// Connections of one role.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub role: Role,
    pub count: usize,
}

/// The share of a group that one thread opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub role: Role,
    /// Index of its first connection in the group.
    first: usize,
    count: usize,
    /// Number of channels; the connections of a group take them in turn.
    channel_count: u32,
}

/// The connections and source addresses of every thread.
#[derive(Debug)]
pub struct Plan {
    /// One entry per thread.
    pub parts: Vec<Vec<Part>>,
    pub sources: Sources,
}

/// The limits of this host and the options that a plan depends on.
#[derive(Clone, Debug)]
pub struct Resources {
    /// File descriptors per table.
    pub descriptors: u64,
    /// Number of threads, if it was given.
    pub threads: Option<usize>,
    /// Number of cores.
    pub cores: usize,
    /// Number of ports per source address.
    pub ports: u32,
    /// Source addresses that were given.
    pub sources: Vec<IpAddr>,
}

/// The source addresses of connections.
#[derive(Clone, Debug)]
pub enum Sources {
    /// The kernel chooses.
    Any,
    /// The given addresses, in turn.
    Given(Vec<IpAddr>),
    /// All of 127.0.0.0/8: each thread has a range of its own and takes the next address after a number of attempts,
    /// so ports in TIME_WAIT are never tried.
    Loopback { attempts_per_address: u64 },
}

impl Sources {
    /// The source address for an attempt of a thread.
    pub fn address(&self, thread: usize, attempt: u64) -> Option<SocketAddr> {
        let address = match self {
            Sources::Any => return None,
            Sources::Given(addresses) => addresses[attempt as usize % addresses.len()],
            Sources::Loopback { attempts_per_address } => {
                let place = attempt / attempts_per_address;
                let [.., third, fourth] = place.to_be_bytes();
                // Neither the network's address nor its broadcast address: 127.1.0.0 to 127.250.255.255 are all hosts.
                let second = (thread % LOOPBACK_RANGES) as u8 + 1;
                IpAddr::V4(Ipv4Addr::new(127, second, third, fourth))
            }
        };
        Some(SocketAddr::new(address, 0))
    }
}

impl Part {
    /// The channels of its connections, in order.
    pub fn channels(&self) -> impl Iterator<Item = u32> + use<> {
        let channel_count = self.channel_count as usize;
        (self.first..self.first + self.count).map(move |place| (place % channel_count) as u32)
    }
}

impl Resources {
    /// The resources of this host. `descriptors` is the limit on open files.
    pub fn of_this_host(descriptors: u64, threads: Option<usize>, sources: Vec<IpAddr>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { descriptors, threads, cores, ports: port_range(), sources }
    }

    /// Distributes the groups, or returns which limit is too low.
    pub fn plan(
        &self,
        groups: &[Group],
        channel_count: u32,
        target: SocketAddr,
    ) -> Result<Plan, String> {
        let total = groups.iter().map(|group| group.count).sum::<usize>();
        let per_thread = self.descriptors.saturating_sub(DESCRIPTORS_RESERVED) as usize;
        if per_thread == 0 {
            return Err(format!(
                "too few file descriptors: the limit is {}, and each thread reserves {DESCRIPTORS_RESERVED}",
                self.descriptors
            ));
        }
        let canaries: usize = count_of(groups, |role| role == Role::Canary);
        let needed = (total - canaries).div_ceil(per_thread).max(1);
        let threads = self.threads.unwrap_or(self.cores).max(needed);
        if threads > THREADS_MAX || canaries > per_thread {
            return Err(format!(
                "too few file descriptors: {total} connections at {per_thread} per thread need {threads} threads, and \
                 the maximum is {THREADS_MAX}; raise the hard limit on open files (ulimit -Hn)"
            ));
        }
        let sources = self.sources(total, target)?;
        let mut parts: Vec<Vec<Part>> = vec![Vec::new(); threads];
        for group in groups.iter().filter(|group| group.count > 0) {
            if group.role == Role::Canary {
                // On a thread of their own, so that other connections do not add to the measured latency.
                parts.push(vec![Part {
                    role: group.role,
                    first: 0,
                    count: group.count,
                    channel_count,
                }]);
                continue;
            }
            for (thread, parts) in parts[..threads].iter_mut().enumerate() {
                let first = group.count * thread / threads;
                let count = group.count * (thread + 1) / threads - first;
                parts.push(Part { role: group.role, first, count, channel_count });
            }
        }
        Ok(Plan { parts, sources })
    }

    fn sources(&self, total: usize, target: SocketAddr) -> Result<Sources, String> {
        // Searching a nearly full port range is slow, and some ports are always taken.
        let usable = u64::from(self.ports) * 4 / 5;
        let given = self.sources.len() as u64;
        let local = target.ip().is_loopback() && target.is_ipv4();
        if let Some(source) =
            self.sources.iter().find(|source| source.is_ipv4() != target.is_ipv4())
        {
            return Err(format!(
                "--source {source} cannot reach {target}: one is IPv4, the other IPv6"
            ));
        }
        if given == 0 && local {
            return Ok(Sources::Loopback {
                attempts_per_address: usable.clamp(1, ATTEMPTS_PER_ADDRESS_MAX),
            });
        }
        if total as u64 > usable * given.max(1) {
            return Err(format!(
                "too few ports: {total} connections, and net.ipv4.ip_local_port_range has {} for each source address; \
                 widen it, or give more addresses with --source ({} would be enough)",
                self.ports,
                (total as u64).div_ceil(usable.max(1))
            ));
        }
        if given == 0 { Ok(Sources::Any) } else { Ok(Sources::Given(self.sources.clone())) }
    }
}

fn count_of(groups: &[Group], is: impl Fn(Role) -> bool) -> usize {
    groups.iter().filter(|group| is(group.role)).map(|group| group.count).sum()
}

/// Number of ports that the kernel may choose from; its default, if the setting cannot be read.
fn port_range() -> u32 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().filter_map(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if last >= first => last - first + 1,
        _ => 28_232,
    }
}

/// Descriptors of each table that are not for connections: standard streams, epoll, files opened briefly.
const DESCRIPTORS_RESERVED: u64 = 64;

const THREADS_MAX: usize = 250;
const LOOPBACK_RANGES: usize = 250;

/// Attempts per loopback address before the next one is used.
const ATTEMPTS_PER_ADDRESS_MAX: u64 = 20_000;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn resources() -> Resources {
        Resources { descriptors: 20_000, threads: None, cores: 2, ports: 28_232, sources: vec![] }
    }

    fn target() -> SocketAddr {
        "127.0.0.1:8000".parse().unwrap()
    }

    fn group(role: Role, count: usize) -> Group {
        Group { role, count }
    }

    #[test]
    fn a_million_connections_fit_under_a_small_descriptor_limit() {
        let groups = [group(Role::Idle, 1_000_000), group(Role::Canary, 100)];
        let plan = resources().plan(&groups, 7, target()).unwrap();
        assert_eq!(plan.parts.len(), 51 + 1);
        let counts: Vec<usize> =
            plan.parts.iter().map(|parts| parts.iter().map(|part| part.count).sum()).collect();
        assert!(counts.iter().all(|&count| count <= 20_000 - 64), "{counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 1_000_100);
        let idle = plan.parts.iter().flatten().filter(|part| part.role == Role::Idle);
        let mut by_channel = [0; 7];
        idle.flat_map(Part::channels).for_each(|channel| by_channel[channel as usize] += 1);
        assert_eq!(by_channel.iter().sum::<usize>(), 1_000_000);
        assert!(
            by_channel.iter().all(|count| count.abs_diff(1_000_000 / 7) <= 1),
            "{by_channel:?}"
        );
    }

    #[test]
    fn threads_use_different_addresses_and_change_them_before_ports_run_out() {
        let sources = resources().plan(&[group(Role::Idle, 9)], 1, target()).unwrap().sources;
        let first = sources.address(0, 0).unwrap();
        assert_eq!(first.ip().to_string(), "127.1.0.0");
        assert_eq!(sources.address(0, 19_999), Some(first));
        assert_ne!(sources.address(0, 20_000), Some(first));
        let all: HashSet<_> = (0..250)
            .flat_map(|thread| [0, 20_000, 5_000_000].map(|n| sources.address(thread, n)))
            .collect();
        assert_eq!(all.len(), 750);
    }

    #[test]
    fn a_limit_that_is_too_low_is_reported_before_anything_is_opened() {
        let idle = |count| [group(Role::Idle, count)];
        let few = Resources { descriptors: 64, ..resources() };
        assert!(few.plan(&idle(1), 1, target()).unwrap_err().contains("descriptors"));
        let few = Resources { descriptors: 65, ..resources() };
        assert!(few.plan(&idle(250), 1, target()).is_ok());
        assert!(few.plan(&idle(251), 1, target()).unwrap_err().contains("ulimit"));
        let one = Resources { sources: vec!["127.0.0.1".parse().unwrap()], ..resources() };
        assert!(one.plan(&idle(22_585), 1, target()).is_ok());
        let error = one.plan(&idle(22_586), 1, target()).unwrap_err();
        assert!(
            error.contains("ip_local_port_range") && error.contains("(2 would be enough)"),
            "{error}"
        );
        let other = Resources { sources: vec!["::1".parse().unwrap()], ..resources() };
        assert!(other.plan(&idle(1), 1, target()).unwrap_err().contains("IPv6"));
        let far = "192.0.2.1:80".parse().unwrap();
        assert!(resources().plan(&idle(22_586), 1, far).unwrap_err().contains("--source"));
    }
}
