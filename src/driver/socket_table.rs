//! The state that a kernel driver keeps for each socket: twelve bytes, in one dense table.

use std::os::fd::OwnedFd;

use super::SocketId;

/// The sockets of one driver, by the index of their ids.
#[derive(Debug)]
pub(super) struct SocketTable {
    entries: Vec<Entry>,
}

/// One socket, or a free slot.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None` in a free slot, and between the closing of a socket and the report of it.
    pub socket: Option<OwnedFd>,
    generation: u32,
    state: u16,
}

/// The kernel reported bytes to receive, and no receive since found the socket empty.
pub(super) const READABLE: u16 = 1;
/// The worker has paused receiving.
pub(super) const PAUSED: u16 = 1 << 1;
/// The end of the peer's bytes was reported.
pub(super) const ENDED: u16 = 1 << 2;
/// FIN or RST follows the bytes that can be received: receiving continues until it shows, even after a short read.
pub(super) const HANGUP: u16 = 1 << 3;
/// A send failed: the end is reported as a reset, whatever receiving returns.
pub(super) const BROKEN: u16 = 1 << 4;
/// A send was not taken whole, and room has not been reported since.
pub(super) const BLOCKED: u16 = 1 << 5;
/// There is room again, and it has not been reported to the worker yet.
pub(super) const SENDABLE: u16 = 1 << 6;
/// The socket is in a list of ready sockets.
pub(super) const LISTED: u16 = 1 << 7;
/// The worker closed it, and only the report of that is left.
pub(super) const CLOSING: u16 = 1 << 8;
/// The ring holds a poll for bytes (io_uring only, as are the next two).
pub(super) const READ_ARMED: u16 = 1 << 9;
/// The ring holds a poll for room.
pub(super) const WRITE_ARMED: u16 = 1 << 10;
/// The socket is in the list of sockets to arm with the next submission.
pub(super) const ARM_LISTED: u16 = 1 << 11;
/// Nothing was received from the socket yet.
pub(super) const NEW: u16 = 1 << 12;
/// The last receive was a long one.
pub(super) const BULKY: u16 = 1 << 13;

impl SocketTable {
    /// A table with address space for `sockets_max` entries; a page is touched when its first socket is attached,
    /// and growing up to there copies nothing.
    pub fn with_capacity(sockets_max: u32) -> Self {
        Self { entries: Vec::with_capacity(sockets_max as usize) }
    }

    /// Puts a socket into the slot of its id. Panics if the slot is taken: the worker must not reuse an id in use.
    pub fn attach(&mut self, id: SocketId, socket: OwnedFd) {
        let index = id.index as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, Entry::free);
        }
        let entry = &mut self.entries[index];
        assert!(entry.generation == FREE, "an index is used again only after Closed");
        *entry = Entry { socket: Some(socket), generation: id.generation, state: NEW };
    }

    /// The entry of an id that has not been reported closed.
    #[inline]
    pub fn entry(&mut self, id: SocketId) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(id.index as usize)?;
        (entry.generation == id.generation).then_some(entry)
    }

    /// The entry of an id that the worker has not closed.
    #[inline]
    pub fn open(&mut self, id: SocketId) -> Option<&mut Entry> {
        self.entry(id).filter(|entry| !entry.has(CLOSING))
    }

    /// Frees the slot of an id.
    pub fn free(&mut self, id: SocketId) {
        if let Some(entry) = self.entry(id) {
            *entry = Entry::free();
        }
    }
}

impl Entry {
    const fn free() -> Self {
        Self { socket: None, generation: FREE, state: 0 }
    }

    /// Whether any of these bits is set.
    #[inline]
    pub fn has(&self, bits: u16) -> bool {
        self.state & bits != 0
    }

    /// Sets these state bits.
    #[inline]
    pub fn set(&mut self, bits: u16) {
        self.state |= bits;
    }

    /// Clears these state bits.
    #[inline]
    pub fn clear(&mut self, bits: u16) {
        self.state &= !bits;
    }

    /// Whether the socket is readable and the worker wants its bytes.
    #[inline]
    pub fn wants_receive(&self) -> bool {
        self.state & (READABLE | PAUSED | ENDED) == READABLE
    }
}

/// The generation of a free slot, which no id has.
const FREE: u32 = u32::MAX;

const _: () = assert!(size_of::<Entry>() == 12, "a million sockets are 12 MB of table");
