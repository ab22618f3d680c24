//! Publications that are not to be published again: what a channel's home remembers of the keys they came with.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::slots::is_sparse;
use crate::config::limits::{IDEMPOTENCY_KEYS_MAX, OVERDUE_PER_TURN_MAX};
use crate::message::{ChannelName, Position};

/// The keys of one worker's channels.
#[derive(Debug)]
pub(super) struct Idempotency {
    /// What has the key, and until when it counts.
    seen: HashMap<(ChannelName, Arc<str>), (Position, u64)>,
    /// The oldest first, each with the moment until which it counts.
    order: VecDeque<(u64, ChannelName, Arc<str>)>,
    bytes: u64,
}

impl Idempotency {
    /// No keys.
    pub(super) fn new() -> Self {
        Self { seen: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }

    /// Where the publication is that came with this key.
    pub(super) fn find(&self, name: &ChannelName, key: &Arc<str>, now_ms: u64) -> Option<Position> {
        let (position, until) = self.seen.get(&(name.clone(), key.clone()))?;
        (*until > now_ms).then_some(*position)
    }

    /// Remembers a key that [`Idempotency::find`] does not find. The oldest ones make room.
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

    /// Forgets keys that count no more, or whose memory is needed, a few in each turn. Returns whether there may be
    /// more.
    pub(super) fn expire(&mut self, bytes_max: u64, now_ms: u64) -> bool {
        for _ in 0..OVERDUE_PER_TURN_MAX {
            let is_overdue = self.order.front().is_some_and(|(until, ..)| *until <= now_ms);
            if !(is_overdue || self.bytes > bytes_max) || !self.drop_first() {
                return false;
            }
        }
        true
    }

    /// Gives back the room for keys that are forgotten, if most are.
    pub(super) fn shrink(&mut self) {
        if is_sparse(self.order.len(), self.order.capacity()) {
            self.order.shrink_to_fit();
            self.seen.shrink_to_fit();
        }
    }

    /// What they keep in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn drop_first(&mut self) -> bool {
        let Some((until, name, key)) = self.order.pop_front() else { return false };
        self.bytes -= cost(&name, &key);
        let place = (name, key);
        // A key that counted no more may have come again since.
        if self.seen.get(&place).is_some_and(|(_, of)| *of == until) {
            self.seen.remove(&place);
        }
        true
    }
}

fn cost(name: &ChannelName, key: &str) -> u64 {
    (KEY_BYTES + name.as_str().len() + key.len()) as u64
}

/// What a key costs beside its text and its channel's name: its places in both collections, and what they keep free.
const KEY_BYTES: usize = 200;

/// How long an idempotency key counts: five minutes.
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
    fn a_key_counts_for_five_minutes_and_may_come_again() {
        let mut keys = Idempotency::new();
        insert(&mut keys, "k", 1, 0);
        assert_eq!(find(&keys, "k", IDEMPOTENCY_MS - 1), Some(1));
        assert_eq!(find(&keys, "k", IDEMPOTENCY_MS), None);
        insert(&mut keys, "k", 2, IDEMPOTENCY_MS);
        keys.expire(u64::MAX, IDEMPOTENCY_MS);
        assert_eq!(
            find(&keys, "k", IDEMPOTENCY_MS),
            Some(2),
            "it is the first one that is forgotten"
        );
        assert_eq!(keys.bytes(), cost(&name(), "k"));
        keys.expire(u64::MAX, 2 * IDEMPOTENCY_MS);
        assert_eq!((keys.bytes(), keys.seen.len(), keys.order.len()), (0, 0, 0));
    }

    #[test]
    fn a_turn_forgets_a_few() {
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
    fn the_room_for_keys_is_given_back_once_most_are_forgotten() {
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
    fn the_oldest_make_room() {
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
