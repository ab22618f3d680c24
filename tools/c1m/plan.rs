//! How many threads, who gets which connections, which addresses they leave from; and whether this host has enough of
//! what that takes, said before anything is opened.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::connection::Role;

/// Connections of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub role: Role,
    pub count: usize,
}

/// A thread's part of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub role: Role,
    /// Place of its first one in the group.
    first: usize,
    count: usize,
    /// All channels; the connections of a group take them in turn.
    channel_count: u32,
}

/// Who opens what.
#[derive(Debug)]
pub struct Plan {
    /// By thread.
    pub parts: Vec<Vec<Part>>,
    pub sources: Sources,
}

/// What there is to plan with.
#[derive(Clone, Debug)]
pub struct Means {
    /// Descriptors of one table.
    pub descriptors: u64,
    /// Threads that were asked for.
    pub threads: Option<usize>,
    /// Cores to run on.
    pub cores: usize,
    /// Ports of one address.
    pub ports: u32,
    /// Addresses that were given to leave from.
    pub sources: Vec<IpAddr>,
}

/// The addresses that connections leave from.
#[derive(Clone, Debug)]
pub enum Sources {
    /// As the kernel chooses.
    Any,
    /// One after the other.
    Given(Vec<IpAddr>),
    /// All of 127.0.0.0/8: each thread has a range of its own, and takes the next address after so many attempts. A
    /// port that is still waiting to be free again is never looked at.
    Loopback { attempts_per_address: u64 },
}

impl Sources {
    /// The address for the n-th attempt of a thread.
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
    /// The channel of each of its connections.
    pub fn channels(&self) -> impl Iterator<Item = u32> + use<> {
        let channel_count = self.channel_count as usize;
        (self.first..self.first + self.count).map(move |place| (place % channel_count) as u32)
    }
}

impl Means {
    /// Those of this process. `descriptors` is the limit on open files.
    pub fn of_this_host(descriptors: u64, threads: Option<usize>, sources: Vec<IpAddr>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { descriptors, threads, cores, ports: port_range(), sources }
    }

    /// Deals the groups out, or says what is missing.
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
                "too few file descriptors: the limit is {}, and each thread needs {DESCRIPTORS_RESERVED} for itself",
                self.descriptors
            ));
        }
        let stayers: usize = count_of(groups, |role| role == Role::Stayer);
        let needed = (total - stayers).div_ceil(per_thread).max(1);
        let threads = self.threads.unwrap_or(self.cores).max(needed);
        if threads > THREADS_MAX || stayers > per_thread {
            return Err(format!(
                "too few file descriptors: {total} connections at {per_thread} a thread take {threads} threads, and \
                 {THREADS_MAX} is the most; raise the hard limit on open files (ulimit -Hn)"
            ));
        }
        let sources = self.sources(total, target)?;
        let mut parts: Vec<Vec<Part>> = vec![Vec::new(); threads];
        for group in groups.iter().filter(|group| group.count > 0) {
            if group.role == Role::Stayer {
                // On a thread of their own: what they feel must not be our own work.
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
        // A port range that is nearly used up is searched slowly, and some ports are always taken.
        let usable = u64::from(self.ports) * 4 / 5;
        let given = self.sources.len() as u64;
        let local = target.ip().is_loopback() && target.is_ipv4();
        if let Some(source) =
            self.sources.iter().find(|source| source.is_ipv4() != target.is_ipv4())
        {
            return Err(format!(
                "nobody gets from {source} to {target}: one is IPv4, the other IPv6"
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
                 widen it, or give more addresses with --source ({} would do)",
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

/// Ports that the kernel may choose; its default, if that cannot be read.
fn port_range() -> u32 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().filter_map(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if last >= first => last - first + 1,
        _ => 28_232,
    }
}

/// Of each thread's table, for what is not a connection: those of the process, epoll, files opened for a moment.
const DESCRIPTORS_RESERVED: u64 = 64;

const THREADS_MAX: usize = 250;
const LOOPBACK_RANGES: usize = 250;

/// Beyond this, more addresses are better than more ports of one.
const ATTEMPTS_PER_ADDRESS_MAX: u64 = 20_000;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn means() -> Means {
        Means { descriptors: 20_000, threads: None, cores: 2, ports: 28_232, sources: vec![] }
    }

    fn target() -> SocketAddr {
        "127.0.0.1:8000".parse().unwrap()
    }

    fn group(role: Role, count: usize) -> Group {
        Group { role, count }
    }

    #[test]
    fn a_million_fit_under_a_small_limit_and_each_has_its_place() {
        let groups = [group(Role::Idle, 1_000_000), group(Role::Stayer, 100)];
        let plan = means().plan(&groups, 7, target()).unwrap();
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
    fn addresses_of_threads_are_apart_and_change_before_their_ports_run_out() {
        let sources = means().plan(&[group(Role::Idle, 9)], 1, target()).unwrap().sources;
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
    fn what_is_missing_is_said_before_anything_is_opened() {
        let idle = |count| [group(Role::Idle, count)];
        let few = Means { descriptors: 64, ..means() };
        assert!(few.plan(&idle(1), 1, target()).unwrap_err().contains("descriptors"));
        let few = Means { descriptors: 65, ..means() };
        assert!(few.plan(&idle(250), 1, target()).is_ok());
        assert!(few.plan(&idle(251), 1, target()).unwrap_err().contains("ulimit"));
        let one = Means { sources: vec!["127.0.0.1".parse().unwrap()], ..means() };
        assert!(one.plan(&idle(22_585), 1, target()).is_ok());
        let error = one.plan(&idle(22_586), 1, target()).unwrap_err();
        assert!(error.contains("ip_local_port_range") && error.contains("(2 would do)"), "{error}");
        let other = Means { sources: vec!["::1".parse().unwrap()], ..means() };
        assert!(other.plan(&idle(1), 1, target()).unwrap_err().contains("IPv6"));
        let far = "192.0.2.1:80".parse().unwrap();
        assert!(means().plan(&idle(22_586), 1, far).unwrap_err().contains("--source"));
    }
}
