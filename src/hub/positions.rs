//! The positions of channels that are gone: where numbering goes on when they come back, so that a client that missed
//! nothing recovers however long ago its channel's history was removed.
//!
//! A position costs a few dozen bytes, because the channel's name is not kept: it is found by the secret hash of the
//! name. Two of a million channels have the same hash with a probability of 3 in 10^8. Those that were parked first are
//! the first to expire, and the first to be removed where there are too many.

use hashbrown::HashTable;
use slab::Slab;

use super::name_table::{SHARDS, shard};
use super::slots::{NONE, is_sparse, slot, some};
use crate::config::limits::OVERDUE_PER_TURN_MAX;
use crate::message::{Epoch, Position};

/// The positions of channels that are gone whose home is this worker.
#[derive(Debug)]
pub(super) struct Positions {
    entries: Slab<Parked>,
    shards: Vec<HashTable<u32>>,
    oldest: u32,
    newest: u32,
}

#[derive(Debug)]
struct Parked {
    /// The hash of the channel's name.
    hash: u64,
    offset: u64,
    epoch: Epoch,
    /// When the channel was gone, in seconds of the workers' clock.
    at_s: u32,
    newer: u32,
    older: u32,
}

/// How many positions are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct PositionLimits {
    /// Bytes of all positions.
    pub bytes_max: u64,
    /// In seconds; 0 keeps none.
    pub ttl_s: u64,
}

impl Positions {
    pub(super) fn new() -> Self {
        let shards = std::iter::repeat_with(HashTable::new).take(SHARDS).collect();
        Self { entries: Slab::new(), shards, oldest: NONE, newest: NONE }
    }

    /// Keeps the position of a channel that is gone. Others are removed to stay within the limits.
    pub(super) fn park(&mut self, hash: u64, at: Position, limits: PositionLimits, now_ms: u64) {
        if limits.ttl_s == 0 || limits.bytes_max < POSITION_BYTES {
            return;
        }
        while self.bytes() + POSITION_BYTES > limits.bytes_max {
            self.remove(self.oldest);
        }
        let Position { epoch, offset } = at;
        let (at_s, older) = (seconds(now_ms), self.newest);
        let parked = Parked { hash, offset, epoch, at_s, newer: NONE, older };
        let key = slot(self.entries.insert(parked));
        match some(self.newest) {
            Some(newest) => self.entries[newest as usize].newer = key,
            None => self.oldest = key,
        }
        self.newest = key;
        let Self { entries, shards, .. } = self;
        shards[shard(hash)].insert_unique(hash, key, |key| entries[*key as usize].hash);
    }

    /// Takes the position of a channel that comes back, unless it has expired.
    pub(super) fn take(
        &mut self,
        hash: u64,
        limits: PositionLimits,
        now_ms: u64,
    ) -> Option<Position> {
        let Self { entries, shards, .. } = self;
        let found = shards[shard(hash)].find(hash, |key| entries[*key as usize].hash == hash);
        let key = *found?;
        let Parked { offset, epoch, at_s, .. } = self.remove(key);
        let is_fresh = u64::from(at_s) + limits.ttl_s > u64::from(seconds(now_ms));
        is_fresh.then_some(Position { epoch, offset })
    }

    /// Removes positions that have expired or whose memory is needed, a few in each turn. Returns whether there may be
    /// more.
    pub(super) fn expire(&mut self, limits: PositionLimits, now_ms: u64) -> bool {
        for _ in 0..OVERDUE_PER_TURN_MAX {
            let Some(oldest) = some(self.oldest) else { return false };
            let at_s = self.entries[oldest as usize].at_s;
            let is_overdue = u64::from(at_s) + limits.ttl_s <= u64::from(seconds(now_ms));
            if !is_overdue && self.bytes() <= limits.bytes_max {
                return false;
            }
            self.remove(oldest);
        }
        true
    }

    /// Releases the memory of removed positions, if most were removed.
    pub(super) fn shrink(&mut self) {
        if is_sparse(self.entries.len(), self.entries.capacity()) {
            self.entries.shrink_to_fit();
            let Self { entries, shards, .. } = self;
            for shard in shards {
                shard.shrink_to_fit(|key| entries[*key as usize].hash);
            }
        }
    }

    /// Bytes of all positions.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.len() as u64 * POSITION_BYTES
    }

    fn remove(&mut self, key: u32) -> Parked {
        let parked = self.entries.remove(key as usize);
        let Parked { hash, newer, older, .. } = parked;
        match some(older) {
            Some(older) => self.entries[older as usize].newer = newer,
            None => self.oldest = newer,
        }
        match some(newer) {
            Some(newer) => self.entries[newer as usize].older = older,
            None => self.newest = older,
        }
        let entry = self.shards[shard(hash)].find_entry(hash, |other| *other == key);
        entry.expect("every entry is in the table").remove();
        parked
    }
}

fn seconds(now_ms: u64) -> u32 {
    u32::try_from(now_ms / 1000).expect("a process runs for less than a century")
}

/// The bytes of a position: 40 in the slab, and its place in a table that may be half empty.
pub(super) const POSITION_BYTES: u64 = 56;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PositionLimits = PositionLimits { bytes_max: 3 * POSITION_BYTES, ttl_s: 10 };

    fn at(offset: u64) -> Position {
        Position { epoch: Epoch(7), offset }
    }

    fn parked(hashes: std::ops::RangeInclusive<u64>) -> Positions {
        let mut positions = Positions::new();
        for hash in hashes {
            positions.park(hash, at(hash), LIMITS, hash * 1000);
        }
        positions
    }

    #[test]
    fn a_channel_that_comes_back_takes_its_position_once() {
        let mut positions = parked(1..=3);
        assert_eq!(positions.take(2, LIMITS, 3000), Some(at(2)));
        assert_eq!(positions.take(2, LIMITS, 3000), None);
        assert_eq!(positions.take(9, LIMITS, 3000), None);
        positions.park(2, at(20), LIMITS, 4000);
        assert_eq!([1, 2, 3].map(|hash| positions.take(hash, LIMITS, 5000)), {
            [Some(at(1)), Some(at(20)), Some(at(3))]
        });
        assert_eq!((positions.bytes(), positions.oldest, positions.newest), (0, NONE, NONE));
    }

    #[test]
    fn positions_expire_in_the_order_in_which_their_channels_went() {
        let mut positions = parked(1..=3);
        // The first one was parked at 1 s.
        assert_eq!(positions.take(1, LIMITS, 10_999), Some(at(1)));
        positions.park(1, at(1), LIMITS, 1000);
        assert_eq!(positions.take(1, LIMITS, 11_000), None);
        assert!(!positions.expire(LIMITS, 11_999));
        assert_eq!(positions.bytes(), 2 * POSITION_BYTES);
        assert!(!positions.expire(LIMITS, 12_000));
        assert_eq!(positions.bytes(), POSITION_BYTES);
        assert!(!positions.expire(LIMITS, 13_000));
        assert_eq!(positions.bytes(), 0);
    }

    #[test]
    fn the_oldest_are_removed_at_the_limit_and_none_is_kept_without_a_time() {
        let mut positions = parked(1..=5);
        assert_eq!(positions.bytes(), 3 * POSITION_BYTES);
        let mut take = |hash| positions.take(hash, LIMITS, 5000);
        assert_eq!([take(1), take(2), take(3), take(4)], [None, None, Some(at(3)), Some(at(4))]);
        let less = PositionLimits { bytes_max: 0, ..LIMITS };
        assert!(!positions.expire(less, 5000));
        assert_eq!(positions.bytes(), 0);
        positions.park(1, at(1), less, 5000);
        positions.park(1, at(1), PositionLimits { ttl_s: 0, ..LIMITS }, 5000);
        assert_eq!(positions.bytes(), 0);
    }

    #[test]
    fn memory_is_released_once_most_positions_are_removed() {
        let mut positions = Positions::new();
        let limits = PositionLimits { bytes_max: u64::MAX, ttl_s: 10 };
        let hash = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for n in 0..10_000 {
            positions.park(hash(n), at(n), limits, 0);
        }
        assert!(positions.entries.capacity() as u64 * 40 <= 2 * positions.bytes());
        positions.park(1, at(1), limits, 5000);
        while positions.expire(limits, 10_000) {}
        positions.shrink();
        assert!(positions.entries.capacity() < 20_000 && positions.bytes() == POSITION_BYTES);
        assert_eq!(positions.take(1, limits, 10_000), Some(at(1)));
    }

    #[test]
    fn a_position_is_small() {
        assert!(size_of::<Option<Parked>>() <= 40, "{}", size_of::<Option<Parked>>());
    }
}
