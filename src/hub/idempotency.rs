//! Idempotency keys of publications, which a channel's home keeps for five minutes. A publication with a known key is
//! not published again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::slots::is_sparse;
use crate::config::limits::{IDEMPOTENCY_KEYS_MAX, OVERDUE_PER_TURN_MAX};
use crate::message::{ChannelName, Position};

/// The keys of the channels whose home is this worker.
#[derive(Debug)]
pub(super) struct Idempotency {
    /// The position of the publication of each key, and the time at which the key expires in milliseconds.
    seen: HashMap<(ChannelName, Arc<str>), (Position, u64)>,
    /// All keys, the oldest first, with the times at which they expire.
    order: VecDeque<(u64, ChannelName, Arc<str>)>,
    bytes: u64,
}

impl Idempotency {
    /// Creates a store without keys.
    pub(super) fn new() -> Self {
        Self { seen: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// The position of the publication with this key.
    pub(super) fn find(&self, name: &ChannelName, key: &Arc<str>, now_ms: u64) -> Option<Position> {
        let (position, until) = self.seen.get(&(name.clone(), key.clone()))?;
        (*until > now_ms).then_some(*position)
    }

    /// Adds a key that [`Idempotency::find`] does not find. The oldest keys are removed to stay within the limits.
    pub(super) fn insert(
        &mut self,
        name: ChannelName,
        key: Arc<str>,
        position: Position,
        bytes_max: u64,
        now_ms: u64,
    ) {
        let bytes = cost(&name, &key);
        while self.order.len() >= IDEMPOTENCY_KEYS_MAX || self.bytes + bytes > bytes_max {
            if !self.drop_first() {
                break;
            }
        }
        let until = now_ms + IDEMPOTENCY_MS;
        self.bytes += bytes;
        self.order.push_back((until, name.clone(), key.clone()));
        self.seen.insert((name, key), (position, until));
    }

    /// Removes keys that have expired or whose memory is needed, a few in each turn. Returns whether there may be more.
    pub(super) fn expire(&mut self, bytes_max: u64, now_ms: u64) -> bool {
        for _ in 0..OVERDUE_PER_TURN_MAX {
            let is_overdue = self.order.front().is_some_and(|(until, ..)| *until <= now_ms);
            if !(is_overdue || self.bytes > bytes_max) || !self.drop_first() {
                return false;
            }
        }
        true
    }

    /// Releases the memory of removed keys, if most were removed.
    pub(super) fn shrink(&mut self) {
        if is_sparse(self.order.len(), self.order.capacity()) {
            self.order.shrink_to_fit();
            self.seen.shrink_to_fit();
        }
    }

    /// Bytes of all keys.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn drop_first(&mut self) -> bool {
        let Some((until, name, key)) = self.order.pop_front() else { return false };
        self.bytes -= cost(&name, &key);
        let place = (name, key);
        // The key may have expired and been added again since.
        if self.seen.get(&place).is_some_and(|(_, of)| *of == until) {
            self.seen.remove(&place);
        }
        true
    }
}

fn cost(name: &ChannelName, key: &str) -> u64 {
    (KEY_BYTES + name.as_str().len() + key.len()) as u64
}

/// Bytes of a key in addition to its text and its channel's name: its entries in both collections, with their spare
/// capacity.
const KEY_BYTES: usize = 200;

/// The lifetime of an idempotency key: five minutes.
const IDEMPOTENCY_MS: u64 = 5 * 60 * 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Epoch;

    fn name() -> ChannelName {
        ChannelName::new("a").unwrap()
    }

    fn insert(keys: &mut Idempotency, key: &str, offset: u64, now_ms: u64) {
        insert_within(keys, key, offset, u64::MAX, now_ms);
    }

    fn insert_within(keys: &mut Idempotency, key: &str, offset: u64, bytes_max: u64, now_ms: u64) {
        let position = Position { epoch: Epoch(1), offset };
        keys.insert(name(), key.into(), position, bytes_max, now_ms);
    }

    fn find(keys: &Idempotency, key: &str, now_ms: u64) -> Option<u64> {
        keys.find(&name(), &key.into(), now_ms).map(|position| position.offset)
    }

    #[test]
    fn a_key_expires_after_five_minutes_and_can_be_used_again() {
        let mut keys = Idempotency::new();
        insert(&mut keys, "k", 1, 0);
        assert_eq!(find(&keys, "k", IDEMPOTENCY_MS - 1), Some(1));
        assert_eq!(find(&keys, "k", IDEMPOTENCY_MS), None);
        insert(&mut keys, "k", 2, IDEMPOTENCY_MS);
        keys.expire(u64::MAX, IDEMPOTENCY_MS);
        assert_eq!(find(&keys, "k", IDEMPOTENCY_MS), Some(2), "only the first one has expired");
        assert_eq!(keys.bytes(), cost(&name(), "k"));
        keys.expire(u64::MAX, 2 * IDEMPOTENCY_MS);
        assert_eq!((keys.bytes(), keys.seen.len(), keys.order.len()), (0, 0, 0));
    }

    #[test]
    fn a_turn_removes_a_few_expired_keys() {
        let mut keys = Idempotency::new();
        for n in 0..OVERDUE_PER_TURN_MAX + 1 {
            insert(&mut keys, &n.to_string(), 1, 0);
        }
        assert!(keys.expire(u64::MAX, IDEMPOTENCY_MS), "there is more");
        assert_eq!(keys.order.len(), 1);
        assert!(!keys.expire(u64::MAX, IDEMPOTENCY_MS));
        assert_eq!(keys.order.len(), 0);
    }

    #[test]
    fn memory_is_released_once_most_keys_are_removed() {
        let mut keys = Idempotency::new();
        for n in 0..10_000 {
            insert(&mut keys, &n.to_string(), n, 0);
        }
        keys.shrink();
        assert!(keys.order.capacity() >= 10_000);
        insert(&mut keys, "late", 7, 1);
        while keys.expire(u64::MAX, IDEMPOTENCY_MS) {}
        keys.shrink();
        assert!(keys.order.capacity() < 10 && keys.seen.capacity() < 10);
        assert_eq!(find(&keys, "late", 1), Some(7));
    }

    #[test]
    fn the_oldest_keys_are_removed_at_the_limits() {
        let mut keys = Idempotency::new();
        for n in 1..=4 {
            insert_within(&mut keys, &n.to_string(), n, 3 * cost(&name(), "1"), 0);
        }
        assert_eq!(["1", "2", "4"].map(|key| find(&keys, key, 0)), [None, Some(2), Some(4)]);
        keys.expire(0, 0);
        assert_eq!(keys.bytes(), 0);
        insert_within(&mut keys, "5", 5, 0, 0);
        assert_eq!(find(&keys, "5", 0), Some(5));
        let mut keys = Idempotency::new();
        for n in 0..=IDEMPOTENCY_KEYS_MAX as u64 {
            insert(&mut keys, &n.to_string(), n, 0);
        }
        assert_eq!(
            (keys.order.len(), keys.seen.len()),
            (IDEMPOTENCY_KEYS_MAX, IDEMPOTENCY_KEYS_MAX)
        );
        assert_eq!((find(&keys, "0", 0), find(&keys, "1", 0)), (None, Some(1)));
    }
}
