//! Limits of the connections that one user has, on all workers together.
//!
//! The counts are atomic words in a table of fixed size, as those of network prefixes are, but here each word has the
//! user beside its count: a user that may have few connections must not be refused because of others. A hash with a
//! secret key chooses a bucket of 16 words, in one of which the user is by 40 further bits of the hash. On a full
//! server a bucket has four users on average, and less than one in a million overflows: a user that finds no word there
//! is not counted.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::limits::{USER_WORDS_MAX, USER_WORDS_MIN};

/// The connections of each user, which all workers count.
#[derive(Debug)]
pub struct UserTable {
    hash: RandomState,
    /// There are none before the first connection is counted.
    words: OnceLock<Box<[AtomicU64]>>,
    count: usize,
}

/// A user in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserKey(NonZeroU64);

// What each connection keeps.
const _: () = assert!(size_of::<Option<UserKey>>() == 8);

const BUCKET_WORDS: usize = 16;
const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// Two workers that add the same user at the same moment must not miss each other.
const ORDER: Ordering = Ordering::SeqCst;

impl Default for UserTable {
    fn default() -> Self {
        Self::new(0)
    }
}

impl UserTable {
    /// A table for as many connections as may be open.
    pub fn new(connections_max: usize) -> Self {
        let count = connections_max.saturating_mul(4).clamp(USER_WORDS_MIN, USER_WORDS_MAX);
        let (hash, words) = (RandomState::new(), OnceLock::new());
        Self { hash, words, count: count.next_multiple_of(BUCKET_WORDS) }
    }

    /// Counts a connection of a user, unless it has as many as it may.
    pub fn enter(&self, key: UserKey, connections_max: usize) -> bool {
        let bucket = self.bucket(key);
        loop {
            if let Some((word, value)) = find(bucket, key) {
                if value & COUNT_MAX >= (connections_max as u64).min(COUNT_MAX) {
                    return false;
                }
                if word.compare_exchange(value, value + 1, ORDER, ORDER).is_ok() {
                    return true;
                }
                continue;
            }
            let Some(word) = bucket.iter().find(|word| word.load(ORDER) == 0) else { return true };
            if word.compare_exchange(0, key.tag() | 1, ORDER, ORDER).is_err() {
                continue;
            }
            let is_here = |other: &&AtomicU64| other.load(ORDER) & !COUNT_MAX == key.tag();
            if bucket.iter().filter(is_here).count() == 1 {
                return true;
            }
            // Another worker added the user too: one of the two words goes.
            release(word);
        }
    }

    /// A connection of a user has ended.
    pub fn leave(&self, key: UserKey) {
        if let Some((word, _)) = find(self.bucket(key), key) {
            release(word);
        }
    }

    /// The entry of a user.
    pub fn key_of(&self, user: &str) -> UserKey {
        UserKey(NonZeroU64::new(self.hash.hash_one(user)).unwrap_or(NonZeroU64::MIN))
    }

    fn bucket(&self, UserKey(hash): UserKey) -> &[AtomicU64] {
        let words = self.words.get_or_init(|| (0..self.count).map(|_| AtomicU64::new(0)).collect());
        let bucket = (hash.get() & COUNT_MAX) as usize % (self.count / BUCKET_WORDS);
        &words[bucket * BUCKET_WORDS..][..BUCKET_WORDS]
    }
}

impl UserKey {
    /// The upper bits of its word, which are not all 0.
    fn tag(self) -> u64 {
        (self.0.get() & !COUNT_MAX).max(1 << COUNT_BITS)
    }
}

/// The word of a user, and what it was.
fn find(bucket: &[AtomicU64], key: UserKey) -> Option<(&AtomicU64, u64)> {
    let mut words = bucket.iter().map(|word| (word, word.load(ORDER)));
    words.find(|(_, value)| value & !COUNT_MAX == key.tag())
}

/// Takes a connection away; a word without connections is free.
fn release(word: &AtomicU64) {
    // It always has a next value.
    let _ = word.fetch_update(ORDER, ORDER, |value| {
        Some(if value & COUNT_MAX <= 1 { 0 } else { value - 1 })
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_empty(table: &UserTable) -> bool {
        table.words.get().unwrap().iter().all(|word| word.load(ORDER) == 0)
    }

    #[test]
    fn a_user_has_connections_up_to_the_maximum() {
        let table = UserTable::default();
        let [one, other] = ["one", "other"].map(|user| table.key_of(user));
        assert_eq!([0; 3].map(|_| table.enter(one, 2)), [true, true, false]);
        assert!(table.enter(other, 2), "another user has connections of its own");
        table.leave(one);
        assert_eq!([0; 2].map(|_| table.enter(one, 2)), [true, false]);
        for key in [one, one, other] {
            table.leave(key);
        }
        assert!(is_empty(&table));
    }

    #[test]
    fn users_of_a_full_server_are_counted_apart() {
        let connections = 10_000;
        let table = UserTable::new(connections);
        let keys = || (0..connections).map(|user| table.key_of(&user.to_string()));
        assert!(keys().all(|key| table.enter(key, 1)));
        assert!(keys().filter(|key| table.enter(*key, 1)).count() < 3, "a bucket may overflow");
        keys().for_each(|key| table.leave(key));
        assert!(is_empty(&table));
    }

    #[test]
    fn all_workers_together_stay_within_the_maximum() {
        for _ in 0..200 {
            let table = UserTable::default();
            let key = table.key_of("one");
            let entered = std::thread::scope(|scope| {
                let enter = || (0..20).filter(|_| table.enter(key, 10)).count();
                let threads = [0; 4].map(|_| scope.spawn(enter));
                threads.map(|thread| thread.join().unwrap()).iter().sum::<usize>()
            });
            assert_eq!(entered, 10);
            (0..10).for_each(|_| table.leave(key));
            assert!(is_empty(&table));
        }
    }
}
