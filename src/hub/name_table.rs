//! From a channel's name to its entry.
//!
//! A hash table that doubles moves everything it holds, at a million channels for tens of milliseconds. Many small
//! tables, chosen by the name's hash, double one at a time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::message::ChannelName;

/// Hashes channel names, keyed at random once per process: peers cannot choose names that collide, and all workers
/// agree on a channel's home.
#[derive(Clone, Debug, Default)]
pub struct ChannelHash(RandomState);

#[derive(Debug)]
pub(super) struct NameTable {
    hash: ChannelHash,
    shards: Vec<HashMap<ChannelName, u32, RandomState>>,
}

const SHARDS: usize = 256;

impl ChannelHash {
    /// The hash of a name.
    pub fn of(&self, name: &str) -> u64 {
        self.0.hash_one(name)
    }
}

impl NameTable {
    pub(super) fn new(hash: &ChannelHash) -> Self {
        let shards = (0..SHARDS).map(|_| HashMap::with_hasher(hash.0.clone())).collect();
        Self { hash: hash.clone(), shards }
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
