//! Slots of tables: entries refer to each other by slots of 32 bits.

use crate::config::limits::SPARSE_ENTRIES_MIN;

/// A slot that no entry has.
pub(super) const NONE: u32 = u32::MAX;

/// The slot, or `None` for [`NONE`].
pub(super) fn some(slot: u32) -> Option<u32> {
    (slot != NONE).then_some(slot)
}

/// Converts the key of a slab to a slot.
pub(super) fn slot(key: usize) -> u32 {
    u32::try_from(key).expect("fewer than 2^32 entries")
}

/// Whether most entries of a table have been removed, so that it should release memory.
pub(super) fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > SPARSE_ENTRIES_MIN && len <= capacity / 4
}
