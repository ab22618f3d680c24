//! Whether freed memory returns to the system.
//!
//! By default, glibc serves blocks of a size from the heap once a large block of that size was freed. That is fast,
//! because pages that were touched once stay mapped. But messages that grow while they arrive leave holes that are too
//! small for the next one, and a process whose queues keep to their budget grows half as large again, or more. Blocks
//! that are mapped one by one grow without being copied and return to the system when they are freed, but a message of
//! 256 KiB then costs four times as much.

#![expect(unsafe_code, reason = "the allocator's settings have no safe wrapper")]

/// Switches the mapping of large blocks one by one on or off, for all threads.
#[cfg(target_env = "gnu")]
pub fn map_large_blocks(are_mapped: bool) {
    // Smaller blocks leave small holes. The heap keeps at most twice the size of the blocks it serves at its end, which
    // is the ratio that glibc uses when it adapts by itself.
    let (mapped_from_bytes, kept_bytes) =
        if are_mapped { (64 * 1024, 128 * 1024) } else { (32 << 20, 64 << 20) };
    // SAFETY: mallopt takes numbers, under the allocator's own lock; a value that it rejects changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, mapped_from_bytes);
        libc::mallopt(libc::M_TRIM_THRESHOLD, kept_bytes);
        // Half of what a process may map on Linux: past it, blocks come from the heap.
        libc::mallopt(libc::M_MMAP_MAX, 32 * 1024);
    }
}

/// Returns the free pages of the heap to the system. It takes milliseconds if there are many, and other threads that
/// allocate wait meanwhile.
#[cfg(target_env = "gnu")]
pub fn trim_heap() {
    // SAFETY: malloc_trim takes a number, and the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Does nothing: other allocators have no such settings.
#[cfg(not(target_env = "gnu"))]
pub fn map_large_blocks(_are_mapped: bool) {}

/// Does nothing: other allocators return memory by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn trim_heap() {}
