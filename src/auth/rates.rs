//! What one client may ask per second: commands, publications, subscriptions, bytes.
//!
//! Each limit is a bucket that holds a second's worth and is refilled at the maximum rate. A client has buckets only
//! while one of them may not be full: they are dropped after [`RATE_EXCESS_MAX`] to twice as long without a request, so
//! that an idle client owns none.

use std::collections::HashMap;

use crate::config::Config;
use crate::config::limits::RATE_EXCESS_MAX;

/// A thing that clients ask for, and whose rate may be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Commands of the command protocol, apart from answers to pings.
    Commands,
    /// Publications that the client makes, by whatever transport.
    Publications,
    /// Subscriptions to channels.
    Subscriptions,
    /// Bytes received from the client. Past the limit, it is not read for a while.
    Bytes,
}

impl Rate {
    /// The labels that metrics have for them.
    pub const LABELS: &'static [&'static str] =
        &["commands", "publications", "subscriptions", "bytes"];
}

/// The maximum rates of one client, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    commands: Option<u32>,
    publications: Option<u32>,
    subscriptions: Option<u32>,
    bytes: Option<u64>,
}

impl RateLimits {
    /// The limits of a configuration.
    pub fn new(config: &Config) -> Self {
        let max = |max: Option<usize>| max.map(|max| u32::try_from(max).unwrap_or(u32::MAX));
        Self {
            commands: max(config.client_command_rate_max),
            publications: max(config.client_publication_rate_max),
            subscriptions: max(config.client_subscription_rate_max),
            bytes: config.client_byte_rate_max,
        }
    }

    /// Whether there is a limit of what clients ask for.
    pub fn limits_requests(&self) -> bool {
        self.commands.or(self.publications).or(self.subscriptions).is_some()
    }

    /// Whether there is a limit of bytes.
    pub fn limits_bytes(&self) -> bool {
        self.bytes.is_some()
    }

    /// The time after which one more is refilled, in microseconds.
    fn interval_us(&self, rate: Rate) -> Option<u64> {
        let max = match rate {
            Rate::Commands => self.commands,
            Rate::Publications => self.publications,
            Rate::Subscriptions => self.subscriptions,
            Rate::Bytes => None,
        };
        max.map(|max| SECOND_US / u64::from(max.max(1)))
    }
}

/// Whether a client may have what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateVerdict {
    /// It may have it, which is counted.
    Allow,
    /// It may not have it now.
    Refuse,
    /// It has asked for more than it may for [`RATE_EXCESS_MAX`]: its connection is to be closed.
    Close,
}

/// The buckets of clients, each named by a number.
#[derive(Debug)]
pub struct ClientRates {
    /// A hash table moves all of its entries when it grows; small ones grow one at a time.
    shards: Box<[Shard]>,
    /// The shard to be looked through next for buckets that are full.
    next_shard: usize,
}

/// What one client may have at the moment.
#[derive(Debug)]
pub struct Allowance<'a> {
    /// The buckets of all clients.
    pub rates: &'a mut ClientRates,
    /// The number of this client.
    pub client: u32,
    /// The limits of each client.
    pub limits: RateLimits,
    /// Microseconds of a clock that is always the same.
    pub now_us: u64,
}

impl Allowance<'_> {
    /// Decides on requests that the client makes together: see [`ClientRates::take`].
    pub fn take(&mut self, rate: Rate, count: u32) -> RateVerdict {
        self.rates.take(self.client, rate, count, &self.limits, self.now_us)
    }
}

/// The clients with requests in this period and in the one before.
#[derive(Debug, Default)]
struct Shard {
    recent: HashMap<u32, Buckets>,
    older: HashMap<u32, Buckets>,
    began_us: u64,
}

/// The buckets of one client.
#[derive(Clone, Copy, Debug, Default)]
struct Buckets {
    requests: [Bucket; 3],
    /// When all bytes that were received would have been allowed, in microseconds.
    bytes_until_us: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// When all that was allowed would be due if one came after each interval, in microseconds.
    allowed_until_us: u64,
    /// The same of all that was asked for.
    asked_until_us: u64,
}

const SECOND_US: u64 = 1_000_000;
const EXCESS_US: u64 = RATE_EXCESS_MAX.as_micros() as u64;
const SHARDS: usize = 64;

impl Default for ClientRates {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Shard::default()).collect();
        Self { shards, next_shard: 0 }
    }
}

impl ClientRates {
    /// Decides on a number of requests that a client makes together, and counts them. The last one may exceed the
    /// limit.
    pub fn take(
        &mut self,
        client: u32,
        rate: Rate,
        count: u32,
        limits: &RateLimits,
        now_us: u64,
    ) -> RateVerdict {
        let Some(interval) = limits.interval_us(rate) else { return RateVerdict::Allow };
        let cost = interval * u64::from(count);
        let bucket = &mut self.buckets(client, now_us).requests[rate as usize];
        let asked_until = bucket.asked_until_us.max(now_us) + cost;
        bucket.asked_until_us = asked_until.min(now_us + 2 * EXCESS_US);
        let allowed_until = bucket.allowed_until_us.max(now_us);
        if allowed_until + interval <= now_us + SECOND_US {
            bucket.allowed_until_us = (allowed_until + cost).min(now_us + EXCESS_US);
            return RateVerdict::Allow;
        }
        if asked_until > now_us + EXCESS_US { RateVerdict::Close } else { RateVerdict::Refuse }
    }

    /// Counts bytes that were received. If they exceed the limit, returns the moment before which nothing more is to be
    /// received, in microseconds.
    pub fn take_bytes(
        &mut self,
        client: u32,
        count: usize,
        limits: &RateLimits,
        now_us: u64,
    ) -> Option<u64> {
        let bytes_max = limits.bytes?;
        let until = &mut self.buckets(client, now_us).bytes_until_us;
        *until = (*until).max(now_us) + count as u64 * SECOND_US / bytes_max.max(1);
        Some(until.saturating_sub(SECOND_US)).filter(|resume| *resume > now_us)
    }

    /// Forgets a client.
    pub fn remove(&mut self, client: u32) {
        let shard = &mut self.shards[client as usize % SHARDS];
        for buckets in [&mut shard.recent, &mut shard.older] {
            if !buckets.is_empty() {
                buckets.remove(&client);
            }
        }
    }

    /// Drops buckets that are full by now, of one shard at a time.
    pub fn tidy(&mut self, now_us: u64) {
        self.shards[self.next_shard].begin(now_us);
        self.next_shard = (self.next_shard + 1) % SHARDS;
    }

    fn buckets(&mut self, client: u32, now_us: u64) -> &mut Buckets {
        let shard = &mut self.shards[client as usize % SHARDS];
        shard.begin(now_us);
        let Shard { recent, older, .. } = shard;
        recent.entry(client).or_insert_with(|| older.remove(&client).unwrap_or_default())
    }
}

impl Shard {
    /// Begins a period, if the last one is over. A client without a request in a whole period has full buckets.
    fn begin(&mut self, now_us: u64) {
        let age = now_us.saturating_sub(self.began_us);
        if age < EXCESS_US {
            return;
        }
        let ended = std::mem::take(&mut self.recent);
        self.older = if age < 2 * EXCESS_US { ended } else { HashMap::new() };
        self.began_us = now_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(change: impl FnOnce(&mut Config)) -> RateLimits {
        let mut config = Config::default();
        change(&mut config);
        RateLimits::new(&config)
    }

    #[test]
    fn a_seconds_worth_may_come_at_once_and_then_one_after_each_interval() {
        let limits = limits(|it| it.client_command_rate_max = Some(4));
        let mut rates = ClientRates::default();
        let mut allowed = |client, now_us| {
            let all = (0..9).map(|_| rates.take(client, Rate::Commands, 1, &limits, now_us));
            all.filter(|verdict| *verdict == RateVerdict::Allow).count()
        };
        assert_eq!([5, 250_004, 250_005, 750_005].map(|now| allowed(1, now)), [4, 0, 1, 2]);
        assert_eq!((allowed(2, 750_005), allowed(1, 2_000_000)), (4, 4));
    }

    #[test]
    fn several_requests_at_once_are_allowed_if_one_is_and_count_all() {
        let limits = limits(|it| it.client_subscription_rate_max = Some(2));
        let mut rates = ClientRates::default();
        let mut take = |count, now_us| rates.take(1, Rate::Subscriptions, count, &limits, now_us);
        assert_eq!(take(1, 0), RateVerdict::Allow);
        assert_eq!(take(5, 0), RateVerdict::Allow);
        assert_eq!(take(1, 2_400_000), RateVerdict::Refuse);
        assert_eq!(take(1, 2_500_000), RateVerdict::Allow);
    }

    #[test]
    fn a_client_that_goes_on_past_the_limit_is_to_be_closed() {
        let limits = limits(|it| it.client_publication_rate_max = Some(10));
        let mut rates = ClientRates::default();
        let verdicts: Vec<_> =
            (0..101).map(|_| rates.take(1, Rate::Publications, 1, &limits, 0)).collect();
        assert!(verdicts[..10].iter().all(|verdict| *verdict == RateVerdict::Allow));
        assert!(verdicts[10..100].iter().all(|verdict| *verdict == RateVerdict::Refuse));
        assert_eq!(verdicts[100], RateVerdict::Close);
        // One that asks for twice as much as it may, for as long as the excess is tolerated.
        let closes = (0..400).position(|half| {
            let now_us = half * SECOND_US / 20;
            rates.take(2, Rate::Publications, 1, &limits, now_us) == RateVerdict::Close
        });
        assert_eq!(closes, Some(199));
    }

    #[test]
    fn bytes_past_a_seconds_worth_have_to_wait() {
        let limits = limits(|it| it.client_byte_rate_max = Some(1000));
        let mut rates = ClientRates::default();
        assert_eq!(rates.take_bytes(1, 1000, &limits, 0), None);
        assert_eq!(rates.take_bytes(1, 1, &limits, 0), Some(1000));
        assert_eq!(rates.take_bytes(1, 2000, &limits, 1000), Some(2_001_000));
        assert_eq!(rates.take_bytes(1, 1, &limits, 9_000_000), None);
        assert_eq!(rates.take(1, Rate::Commands, 1, &limits, 0), RateVerdict::Allow, "no limit");
    }

    #[test]
    fn idle_and_closed_clients_have_no_buckets() {
        let limits = limits(|it| it.client_command_rate_max = Some(4));
        let mut rates = ClientRates::default();
        let count = |rates: &ClientRates| {
            rates.shards.iter().map(|shard| shard.recent.len() + shard.older.len()).sum::<usize>()
        };
        for client in 0..1000 {
            rates.take(client, Rate::Commands, 1, &limits, 0);
        }
        rates.remove(7);
        assert_eq!(count(&rates), 999);
        for (now_us, left) in [(EXCESS_US - 1, 999), (EXCESS_US, 999), (2 * EXCESS_US, 0)] {
            (0..SHARDS).for_each(|_| rates.tidy(now_us));
            assert_eq!(count(&rates), left, "{now_us}");
        }
    }
}
