//! Whether the heap gives back what is freed.
//!
//! As glibc comes, a large block that is freed teaches it to take blocks of that size from the heap from then on. That
//! is fast: a page that was touched once is not touched for the first time again. But messages that grow while they
//! come leave holes behind, too small for what the next one needs, and a process whose queues keep to their budget is
//! half as large again, or more. Blocks that are mapped one by one grow without being copied, and are gone when they
//! are freed; a message of 256 KiB costs four times as much with them.

#![expect(unsafe_code, reason = "the allocator's settings have no safe wrapper")]

/// Has large blocks be mapped one by one from now on, or no more. For all threads.
#[cfg(target_env = "gnu")]
pub fn map_large_blocks(are_mapped: bool) {
    // Smaller blocks leave small holes. What the heap may keep at its end is twice the size of what it serves, as glibc
    // has it where it learns.
    let (mapped_from_bytes, kept_bytes) =
        if are_mapped { (64 * 1024, 128 * 1024) } else { (32 << 20, 64 << 20) };
    // SAFETY: mallopt takes numbers, under the allocator's own lock; a value that it does not like changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, mapped_from_bytes);
        libc::mallopt(libc::M_TRIM_THRESHOLD, kept_bytes);
        // Half of what a process may map on Linux: past it, blocks come from the heap.
        libc::mallopt(libc::M_MMAP_MAX, 32 * 1024);
    }
}

/// Gives back the pages of the heap that nothing is on. Takes milliseconds where there are many; others who want memory
/// wait.
#[cfg(target_env = "gnu")]
pub fn trim_heap() {
    // SAFETY: malloc_trim takes a number, and the allocator's own locks.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators have no such settings.
#[cfg(not(target_env = "gnu"))]
pub fn map_large_blocks(_are_mapped: bool) {}

/// Other allocators do as they like.
#[cfg(not(target_env = "gnu"))]
pub fn trim_heap() {}
