//! Which connections are evicted while memory is low: those that hold most first.
//!
//! A pass over all connections evicts those that hold more than a threshold; the next pass halves it, down to the fair
//! share.

/// Where the search for the connections that hold most is.
#[derive(Debug, Default)]
pub struct Eviction {
    threshold: u64,
    /// The next slot of the table.
    slot: usize,
    /// The next paused publisher.
    publisher: usize,
    /// The next channel; the hub moves it.
    pub channel: usize,
}

/// What one connection holds.
#[derive(Clone, Copy, Debug)]
pub struct Holding {
    /// Bytes in its send queue.
    pub queue_bytes: u32,
    /// Bytes of its unfinished message, and of its requests that wait.
    pub request_bytes: usize,
    /// Whether it is a slow subscriber.
    pub is_behind: bool,
}

/// Why a connection is evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its send queue.
    SendQueue,
    /// What it sent: an unfinished message, requests that wait.
    Requests,
    /// It is a slow subscriber, for which channels keep a backlog.
    SlowSubscriber,
}

impl Eviction {
    /// A search that begins with the connections that hold more than half of the most that one may hold.
    pub fn new(largest_bytes: u32) -> Self {
        Self { threshold: u64::from(largest_bytes) / 2, ..Self::default() }
    }

    /// Bytes past which a connection is evicted.
    pub fn threshold(&self, fair_share: u64) -> u64 {
        self.threshold.max(fair_share)
    }

    /// The next slot to look at, of a table with `slots` slots.
    pub fn next_slot(&mut self, slots: usize, fair_share: u64) -> u32 {
        if self.slot >= slots {
            self.slot = 0;
            self.threshold = (self.threshold / 2).max(fair_share);
        }
        self.slot += 1;
        u32::try_from(self.slot - 1).expect("slots are 32 bits")
    }

    /// The place of the next paused publisher to look at, of `count`.
    pub fn next_publisher(&mut self, count: usize) -> usize {
        if self.publisher >= count {
            self.publisher = 0;
        }
        self.publisher += 1;
        self.publisher - 1
    }

    /// Whether a connection is evicted. Slow subscribers are where the budget is full and no connection holds more than
    /// the fair share.
    pub fn cause(&self, holding: Holding, fair_share: u64, is_full: bool) -> Option<Cause> {
        let threshold = self.threshold(fair_share);
        if u64::from(holding.queue_bytes) > threshold {
            Some(Cause::SendQueue)
        } else if holding.request_bytes as u64 > threshold {
            Some(Cause::Requests)
        } else if is_full && threshold <= fair_share && holding.is_behind {
            Some(Cause::SlowSubscriber)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAIR_SHARE: u64 = 100;

    fn holding(queue_bytes: u32, request_bytes: usize) -> Holding {
        Holding { queue_bytes, request_bytes, is_behind: true }
    }

    #[test]
    fn each_pass_evicts_what_holds_more_than_half_of_the_last_down_to_the_fair_share() {
        let mut eviction = Eviction::new(1600);
        let mut thresholds = Vec::new();
        for _ in 0..6 {
            assert_eq!([0; 3].map(|_: u32| eviction.next_slot(3, FAIR_SHARE)), [0, 1, 2]);
            thresholds.push(eviction.threshold(FAIR_SHARE));
        }
        assert_eq!(thresholds, [800, 400, 200, 100, 100, 100]);
        assert_eq!(eviction.cause(holding(101, 0), FAIR_SHARE, false), Some(Cause::SendQueue));
        assert_eq!(eviction.cause(holding(100, 101), FAIR_SHARE, false), Some(Cause::Requests));
        assert_eq!(eviction.cause(holding(100, 100), FAIR_SHARE, false), None);
    }

    #[test]
    fn slow_subscribers_are_evicted_last_and_only_where_the_budget_is_full() {
        let slow = holding(0, 0);
        let first = Eviction::new(1600);
        assert_eq!(first.cause(slow, FAIR_SHARE, true), None);
        let last = Eviction::default();
        assert_eq!(last.cause(slow, FAIR_SHARE, false), None);
        assert_eq!(last.cause(slow, FAIR_SHARE, true), Some(Cause::SlowSubscriber));
        let fast = Holding { is_behind: false, ..slow };
        assert_eq!(last.cause(fast, FAIR_SHARE, true), None);
    }

    #[test]
    fn publishers_are_looked_at_in_turns_while_their_number_changes() {
        let mut eviction = Eviction::default();
        let looked = [2, 2, 2, 5, 5, 1].map(|count| eviction.next_publisher(count));
        assert_eq!(looked, [0, 1, 0, 1, 2, 0]);
    }
}
