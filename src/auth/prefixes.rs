//! Limits of the connections that the addresses of one network prefix have together, on all workers.
//!
//! The counts are in a table of fixed size, so that no flood from many prefixes makes it grow, and are atomic, so that
//! no worker waits for another one. A prefix is counted in one slot in each of two rows, which a hash with a secret key
//! chooses; its count is the lower of the two. Prefixes that meet in a slot are counted together there, so that a count
//! is never too low. A row has a slot for each connection that may be open, up to [`PREFIX_SLOTS_MAX`]: the connections
//! of others in one slot are one on average. By Markov's inequality in each row, a prefix is then counted too high by
//! `k` with a probability of at most 1/k². The same holds for rates as long as fewer connections come in a second than
//! a row has slots.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::config::limits::{PREFIX_SLOTS_MAX, PREFIX_SLOTS_MIN, PREFIX_WARNING_INTERVAL};
use crate::config::{Config, Network};

/// What one network prefix may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimits {
    v4_bits: u8,
    v6_bits: u8,
    rate_max: Option<u32>,
    connections_max: Option<u32>,
    handshakes_max: Option<u32>,
}

impl PrefixLimits {
    /// The limits of a configuration.
    pub fn new(config: &Config) -> Self {
        let bits = |bits: usize| u8::try_from(bits).unwrap_or(u8::MAX);
        let max = |max: Option<usize>| max.map(|max| u32::try_from(max).unwrap_or(u32::MAX));
        Self {
            v4_bits: bits(config.prefix_v4_bits),
            v6_bits: bits(config.prefix_v6_bits),
            rate_max: max(config.prefix_connection_rate_max),
            connections_max: max(config.prefix_connections_max),
            handshakes_max: max(config.prefix_handshakes_max),
        }
    }

    /// Whether there is a limit.
    pub fn are_set(&self) -> bool {
        self.rate_max.or(self.connections_max).or(self.handshakes_max).is_some()
    }

    /// The prefix of an address.
    pub fn prefix_of(&self, address: IpAddr) -> Network {
        Network::of(address, self.v4_bits, self.v6_bits)
    }
}

/// Why a prefix gets no further connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixRefusal {
    /// It has `limits.prefix_connections_max` of them.
    Connections,
    /// `limits.prefix_handshakes_max` of them have not completed their handshake.
    Handshakes,
    /// `limits.prefix_connection_rate_max` came in the last second.
    Rate,
}

/// The slots of a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixKey(NonZeroU64);

/// The connections of all prefixes, which all workers count.
pub struct PrefixTable {
    hash: RandomState,
    /// Both rows, one behind the other; there are none before the first connection is counted.
    slots: OnceLock<Box<[Slot]>>,
    slots_per_row: usize,
    /// Microseconds until which no refusal is logged again.
    quiet_until_us: AtomicU64,
}

/// The connections of the prefixes that meet here.
#[derive(Debug, Default)]
struct Slot {
    /// When a connection may come again, in microseconds, if one was to come after each interval of the maximum rate.
    /// A second's worth may come early.
    next_at_us: AtomicU64,
    connections: AtomicU32,
    handshakes: AtomicU32,
}

const ORDER: Ordering = Ordering::Relaxed;
const SECOND_US: u64 = 1_000_000;

/// A table of the smallest size, for tests.
impl Default for PrefixTable {
    fn default() -> Self {
        Self::new(0)
    }
}

impl PrefixTable {
    /// A table for as many connections as may be open.
    pub fn new(connections_max: usize) -> Self {
        let slots = connections_max.clamp(PREFIX_SLOTS_MIN, PREFIX_SLOTS_MAX);
        Self {
            hash: RandomState::new(),
            slots: OnceLock::new(),
            slots_per_row: slots.next_power_of_two(),
            quiet_until_us: AtomicU64::new(0),
        }
    }

    /// Counts a new connection of a prefix, whose handshake begins. The microseconds are the same for all workers.
    pub fn enter(
        &self,
        prefix: Network,
        limits: &PrefixLimits,
        now_us: u64,
    ) -> Result<PrefixKey, PrefixRefusal> {
        let key = self.key_of(prefix);
        let slots = self.slots(key);
        if !count(slots.map(|slot| &slot.connections), limits.connections_max) {
            return Err(PrefixRefusal::Connections);
        }
        if !count(slots.map(|slot| &slot.handshakes), limits.handshakes_max) {
            uncount(slots.map(|slot| &slot.connections));
            return Err(PrefixRefusal::Handshakes);
        }
        if limits.rate_max.is_some_and(|max| !take(slots.map(|slot| &slot.next_at_us), max, now_us))
        {
            uncount(slots.map(|slot| &slot.connections));
            uncount(slots.map(|slot| &slot.handshakes));
            return Err(PrefixRefusal::Rate);
        }
        Ok(key)
    }

    fn key_of(&self, prefix: Network) -> PrefixKey {
        PrefixKey(NonZeroU64::new(self.hash.hash_one(prefix)).unwrap_or(NonZeroU64::MIN))
    }

    /// The handshake of a connection is complete.
    pub fn complete_handshake(&self, key: PrefixKey) {
        uncount(self.slots(key).map(|slot| &slot.handshakes));
    }

    /// A connection has ended, or belongs to another prefix from now on.
    pub fn leave(&self, key: PrefixKey, is_in_handshake: bool) {
        if is_in_handshake {
            self.complete_handshake(key);
        }
        uncount(self.slots(key).map(|slot| &slot.connections));
    }

    /// Whether a refusal is to be logged: at most one in a second, of all workers.
    pub fn takes_warning(&self, now_us: u64) -> bool {
        let until = self.quiet_until_us.load(ORDER);
        let next = now_us + PREFIX_WARNING_INTERVAL.as_micros() as u64;
        now_us >= until && self.quiet_until_us.compare_exchange(until, next, ORDER, ORDER).is_ok()
    }

    fn slots(&self, PrefixKey(key): PrefixKey) -> [&Slot; 2] {
        let count = self.slots_per_row;
        let slots = self.slots.get_or_init(|| (0..2 * count).map(|_| Slot::default()).collect());
        let [low, high] = [key.get() as u32, (key.get() >> 32) as u32];
        [&slots[low as usize % count], &slots[count + high as usize % count]]
    }
}

/// Adds one to both counts, unless the lower of them is at the maximum.
fn count(counts: [&AtomicU32; 2], max: Option<u32>) -> bool {
    // Added first, so that workers that count at the same time do not exceed the maximum together.
    let [first, second] = counts.map(|count| count.fetch_add(1, ORDER));
    let is_counted = max.is_none_or(|max| first.min(second) < max);
    if !is_counted {
        uncount(counts);
    }
    is_counted
}

fn uncount(counts: [&AtomicU32; 2]) {
    for count in counts {
        count.fetch_sub(1, ORDER);
    }
}

/// Takes one connection of a rate. Workers that take one at the same moment may exceed a second's worth by one each.
fn take(times: [&AtomicU64; 2], rate_max: u32, now_us: u64) -> bool {
    let interval = SECOND_US / u64::from(rate_max.max(1));
    let latest = now_us + SECOND_US;
    let [first, second] = times.map(|at| at.load(ORDER));
    if first.min(second).max(now_us) + interval > latest {
        return false;
    }
    for at in times {
        let next = |at: u64| Some((at.max(now_us) + interval).min(latest));
        // It always has a next value.
        let _ = at.fetch_update(ORDER, ORDER, next);
    }
    true
}

impl fmt::Debug for PrefixTable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("PrefixTable").finish_non_exhaustive()
    }
}

/// The clients of a connection of a trusted proxy, which name themselves in its requests.
#[derive(Debug)]
pub struct Gate<'a> {
    /// The connections of all prefixes.
    pub table: &'a PrefixTable,
    /// What one prefix may have.
    pub limits: PrefixLimits,
    /// The prefix that has the connection now.
    pub current: Option<PrefixKey>,
    /// Microseconds of a clock that all workers share.
    pub now_us: u64,
}

impl Gate<'_> {
    /// The connection serves this client from now on. It counts as a new connection of the client's prefix, unless the
    /// prefix has it already.
    pub fn enter(&mut self, client: IpAddr) -> Result<(), (PrefixRefusal, Network)> {
        if !self.limits.are_set() {
            return Ok(());
        }
        let prefix = self.limits.prefix_of(client);
        if self.current == Some(self.table.key_of(prefix)) {
            return Ok(());
        }
        self.leave();
        let entered = self.table.enter(prefix, &self.limits, self.now_us);
        let key = entered.map_err(|refusal| (refusal, prefix))?;
        // The request that names the client is complete.
        self.table.complete_handshake(key);
        self.current = Some(key);
        Ok(())
    }

    /// The connection serves no client.
    pub fn leave(&mut self) {
        if let Some(key) = self.current.take() {
            self.table.leave(key, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut Config)) -> PrefixLimits {
        let mut config = Config::default();
        change(&mut config);
        PrefixLimits::new(&config)
    }

    fn prefix(index: u32) -> Network {
        Network::of(IpAddr::from(index.to_be_bytes()), 32, 64)
    }

    #[test]
    fn a_prefix_has_connections_up_to_the_maximum() {
        let (table, limits) =
            (PrefixTable::new(0), limits(|it| it.prefix_connections_max = Some(3)));
        let keys = [0; 3].map(|_| table.enter(prefix(1), &limits, 0).unwrap());
        assert_eq!(table.enter(prefix(1), &limits, 0), Err(PrefixRefusal::Connections));
        assert!(table.enter(prefix(2), &limits, 0).is_ok(), "another prefix");
        table.complete_handshake(keys[0]);
        assert_eq!(table.enter(prefix(1), &limits, 0), Err(PrefixRefusal::Connections));
        table.leave(keys[0], false);
        assert!(table.enter(prefix(1), &limits, 0).is_ok());
        assert!(table.enter(prefix(1), &limits, 0).is_err());
    }

    #[test]
    fn a_prefix_has_unfinished_handshakes_up_to_the_maximum() {
        let (table, limits) =
            (PrefixTable::new(0), limits(|it| it.prefix_handshakes_max = Some(2)));
        let keys = [0; 2].map(|_| table.enter(prefix(1), &limits, 0).unwrap());
        for _ in 0..9 {
            assert_eq!(table.enter(prefix(1), &limits, 0), Err(PrefixRefusal::Handshakes));
        }
        table.complete_handshake(keys[0]);
        assert!(table.enter(prefix(1), &limits, 0).is_ok());
        assert!(table.enter(prefix(1), &limits, 0).is_err());
        table.leave(keys[1], true);
        assert!(table.enter(prefix(1), &limits, 0).is_ok());
    }

    #[test]
    fn a_seconds_worth_of_connections_may_come_at_once_and_then_one_after_each_interval() {
        let limits = limits(|it| it.prefix_connection_rate_max = Some(4));
        let table = PrefixTable::new(0);
        let mut come =
            |now_us| (0..9).filter(|_| table.enter(prefix(1), &limits, now_us).is_ok()).count();
        let counts = [7, 250_006, 250_007, 750_007, 9_000_000].map(&mut come);
        assert_eq!(counts, [4, 0, 1, 2, 4]);
        let slots = table.slots.get().unwrap();
        let open: u32 = slots.iter().map(|slot| slot.connections.load(ORDER)).sum();
        assert_eq!(open, 2 * 11, "refused connections are not counted");
    }

    #[test]
    fn prefixes_that_share_a_slot_of_one_row_are_counted_apart_in_the_other() {
        let limits = limits(|it| it.prefix_connections_max = Some(8));
        let table = PrefixTable::new(PREFIX_SLOTS_MIN);
        // As many connections as a row has slots, of as many prefixes: the bound says at most 1/64 of them refused.
        let others = (0..PREFIX_SLOTS_MIN as u32)
            .filter(|index| table.enter(prefix(*index), &limits, 0).is_err());
        assert!(others.count() < PREFIX_SLOTS_MIN / 64);
    }

    #[test]
    fn all_workers_together_stay_within_the_maximum() {
        let limits = limits(|it| it.prefix_connections_max = Some(100));
        let table = PrefixTable::new(0);
        let entered = std::thread::scope(|scope| {
            let enter = || (0..500).filter(|_| table.enter(prefix(1), &limits, 0).is_ok()).count();
            let threads = [0; 4].map(|_| scope.spawn(enter));
            threads.map(|thread| thread.join().unwrap()).iter().sum::<usize>()
        });
        assert_eq!(entered, 100);
    }

    #[test]
    fn a_connection_of_a_proxy_counts_for_the_client_that_it_serves() {
        let (table, limits) =
            (PrefixTable::new(0), limits(|it| it.prefix_connections_max = Some(1)));
        let gate = || Gate { table: &table, limits, current: None, now_us: 0 };
        let (mut one, mut other) = (gate(), gate());
        let [first, second] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
        assert_eq!((one.enter(first), one.enter(first)), (Ok(()), Ok(())));
        let prefix = limits.prefix_of(first);
        assert_eq!(other.enter(first), Err((PrefixRefusal::Connections, prefix)));
        assert_eq!(one.enter(second), Ok(()));
        assert_eq!(other.enter(first), Ok(()), "the first connection serves another client");
        assert!(one.enter(first).is_err() && one.current.is_none());
        other.leave();
        other.leave();
        assert_eq!(one.enter(first), Ok(()));
    }

    #[test]
    fn one_warning_a_second_is_logged() {
        let table = PrefixTable::new(0);
        let warned = [5, 6, 1_000_004, 1_000_005, 1_000_006].map(|now| table.takes_warning(now));
        assert_eq!(warned, [true, false, false, true, false]);
    }
}
