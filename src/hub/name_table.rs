//! Finds the entry of a channel, or of a user, by its name.
//!
//! A hash table moves all of its entries when it grows, which takes tens of milliseconds at a million channels. Many
//! small tables, chosen by the hash of the name, grow one at a time.
//!
//! A table holds the slots of entries, not their names: the entry has its name, and is compared anyway. So a name
//! costs five bytes here, plus the table's spare capacity.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

use hashbrown::HashTable;
use slab::Slab;

use crate::message::ChannelName;

/// Hashes channel names with a secret key. All workers have the same one, so that they agree on a channel's home; peers
/// do not know it, so that they cannot choose names that collide.
#[derive(Clone, Copy, Debug)]
pub struct ChannelHash {
    key: u64,
}

/// An entry that is found by the name of its channel.
pub(super) trait Named {
    fn name(&self) -> &ChannelName;
}

/// The slots of a slab's entries by their names.
#[derive(Debug)]
pub(super) struct NameTable {
    hash: ChannelHash,
    shards: Vec<HashTable<u32>>,
}

/// The number of tables.
pub(super) const SHARDS: usize = 256;

impl ChannelHash {
    /// A hash with a fixed key, for reproducible runs.
    pub fn with_key(key: u64) -> Self {
        Self { key }
    }

    /// Computes the hash of a name.
    pub fn of(&self, name: &str) -> u64 {
        self.hash_one(name)
    }
}

impl Default for ChannelHash {
    /// A hash with a random key.
    fn default() -> Self {
        Self::with_key(RandomState::new().hash_one(0))
    }
}

impl BuildHasher for ChannelHash {
    type Hasher = DefaultHasher;

    /// SipHash with the secret key as its first input.
    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.key);
        hasher
    }
}

impl NameTable {
    pub(super) fn new(hash: &ChannelHash) -> Self {
        Self { hash: *hash, shards: vec![HashTable::new(); SHARDS] }
    }

    pub(super) fn find<T: Named>(&self, name: &ChannelName, entries: &Slab<T>) -> Option<u32> {
        self.find_by(name.as_str(), |key| entries[key as usize].name() == name)
    }

    /// The key of this name, which `is_it` recognizes.
    pub(super) fn find_by(&self, name: &str, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = self.hash.of(name);
        self.shards[shard(hash)].find(hash, |key| is_it(*key)).copied()
    }

    /// Adds an entry. Its name must not be in the table.
    pub(super) fn insert<T: Named>(&mut self, key: u32, entries: &Slab<T>) {
        self.insert_by(key, |key| entries[key as usize].name().as_str());
    }

    /// Adds a key. The name that it has by `name_of` must not be in the table.
    pub(super) fn insert_by<'n>(&mut self, key: u32, name_of: impl Fn(u32) -> &'n str) {
        let of = self.hash;
        let hash = of.of(name_of(key));
        self.shards[shard(hash)].insert_unique(hash, key, |key| of.of(name_of(*key)));
    }

    /// Has a key that was added with this name be another one.
    pub(super) fn replace(&mut self, key: u32, by: u32, name: &str) {
        let hash = self.hash.of(name);
        let found = self.shards[shard(hash)].find_mut(hash, |other| *other == key);
        *found.expect("only an entry's owner replaces it") = by;
    }

    /// Removes the entry that was in slot `key`.
    pub(super) fn remove(&mut self, key: u32, name: &str) {
        let hash = self.hash.of(name);
        let entry = self.shards[shard(hash)].find_entry(hash, |other| *other == key);
        entry.expect("only an entry's owner removes it").remove();
    }

    /// Releases the memory of removed entries.
    pub(super) fn shrink<T: Named>(&mut self, entries: &Slab<T>) {
        let of = self.hash;
        for shard in &mut self.shards {
            shard.shrink_to_fit(|key| of.of(entries[*key as usize].name().as_str()));
        }
    }
}

/// The table of a hash.
pub(super) fn shard(hash: u64) -> usize {
    // Other bits than those that choose the home (the high half) and the bucket within the shard (the lowest).
    (hash >> 20) as usize % SHARDS
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for ChannelName {
        fn name(&self) -> &ChannelName {
            self
        }
    }

    #[test]
    fn every_name_is_found_while_tables_grow_and_shrink() {
        let name = |index: usize| ChannelName::new(&format!("channel {index}")).unwrap();
        let (mut entries, mut table) = (Slab::new(), NameTable::new(&ChannelHash::with_key(1)));
        for index in 0..20_000 {
            assert_eq!(table.find(&name(index), &entries), None);
            let key = entries.insert(name(index)) as u32;
            table.insert(key, &entries);
        }
        for index in (0..20_000).step_by(2) {
            let removed = entries.remove(index);
            table.remove(index as u32, removed.as_str());
        }
        for index in 0..20_000 {
            let expected = (index % 2 == 1).then_some(index as u32);
            assert_eq!(table.find(&name(index), &entries), expected);
        }
        table.shrink(&entries);
        for index in 0..20_000 {
            let expected = (index % 2 == 1).then_some(index as u32);
            assert_eq!(table.find(&name(index), &entries), expected);
        }
        // Freed slots are used by other names now.
        for index in 20_000..30_000 {
            let key = entries.insert(name(index)) as u32;
            table.insert(key, &entries);
            assert_eq!(table.find(&name(index), &entries), Some(key));
        }
    }
}
