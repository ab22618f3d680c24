//! From a channel's name to its entry.
//!
//! A hash table that doubles moves everything it holds, at a million channels for tens of milliseconds. Many small
//! tables, chosen by the name's hash, double one at a time.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

use crate::message::ChannelName;

/// Hashes channel names under a secret key, the same for all workers: they agree on a channel's home, and peers cannot
/// choose names that collide.
#[derive(Clone, Copy, Debug)]
pub struct ChannelHash {
    key: u64,
}

#[derive(Debug)]
pub(super) struct NameTable {
    hash: ChannelHash,
    shards: Vec<HashMap<ChannelName, u32, ChannelHash>>,
}

const SHARDS: usize = 256;

impl ChannelHash {
    /// A hash with a given key, for runs that are to be repeated.
    pub fn with_key(key: u64) -> Self {
        Self { key }
    }

    /// The hash of a name.
    pub fn of(&self, name: &str) -> u64 {
        self.hash_one(name)
    }
}

impl Default for ChannelHash {
    /// A key drawn at random.
    fn default() -> Self {
        Self::with_key(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for ChannelHash {
    type Hasher = DefaultHasher;

    /// SipHash, whose state no peer knows once it has taken in the key.
    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.key);
        hasher
    }
}

impl NameTable {
    pub(super) fn new(hash: &ChannelHash) -> Self {
        let shards = (0..SHARDS).map(|_| HashMap::with_hasher(*hash)).collect();
        Self { hash: *hash, shards }
    }

    pub(super) fn find(&self, name: &ChannelName) -> Option<u32> {
        self.shards[self.shard(name)].get(name).copied()
    }

    pub(super) fn insert(&mut self, name: ChannelName, key: u32) {
        let shard = self.shard(&name);
        let before = self.shards[shard].insert(name, key);
        assert!(before.is_none(), "a name has one entry");
    }

    pub(super) fn remove(&mut self, name: &ChannelName) {
        let shard = self.shard(name);
        let removed = self.shards[shard].remove(name);
        assert!(removed.is_some(), "only an entry's owner removes it");
    }

    fn shard(&self, name: &ChannelName) -> usize {
        // Bits that neither choose the home (the high half) nor the bucket within the shard (the lowest).
        (self.hash.of(name.as_str()) >> 20) as usize % SHARDS
    }
}
