//! Slots of tables, in the 32 bits in which entries refer to each other.

use crate::config::limits::SPARSE_ENTRIES_MIN;

/// The slot of no entry.
pub(super) const NONE: u32 = u32::MAX;

/// A slot, unless it is [`NONE`].
pub(super) fn some(slot: u32) -> Option<u32> {
    (slot != NONE).then_some(slot)
}

/// The slot of a slab's key.
pub(super) fn slot(key: usize) -> u32 {
    u32::try_from(key).expect("fewer than 2^32 entries")
}

/// Whether most of a table's entries are gone, and its memory is worth giving back.
pub(super) fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > SPARSE_ENTRIES_MIN && len <= capacity / 4
}
