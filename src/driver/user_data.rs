//! What a completion or an epoll event is about, in 64 bits: kind (3), generation (32), index (29).

use super::SocketId;

/// What the kernel speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A socket: the poll for bytes, or its registration.
    Poll,
    /// A socket: the poll for room. (io_uring only.)
    Room,
    /// An item of the batch. (io_uring only.)
    Send,
    /// A listener.
    Listener,
    /// The eventfd.
    Waker,
}

/// The waker.
pub(super) const WAKER: u64 = pack(Kind::Waker, 0, 0);

/// A socket.
#[inline]
pub(super) fn poll(id: SocketId) -> u64 {
    pack(Kind::Poll, id.generation, id.index)
}

/// A socket that waits for room.
#[inline]
pub(super) fn room(id: SocketId) -> u64 {
    pack(Kind::Room, id.generation, id.index)
}

/// An item, by its index in the batch of a turn.
#[inline]
pub(super) fn send(turn: u32, item: u32) -> u64 {
    pack(Kind::Send, turn, item)
}

/// A listener.
pub(super) fn listener(index: u32) -> u64 {
    pack(Kind::Listener, 0, index)
}

/// What it is about.
#[inline]
pub(super) fn kind(data: u64) -> Kind {
    match data >> KIND_SHIFT {
        0 => Kind::Poll,
        1 => Kind::Room,
        2 => Kind::Send,
        3 => Kind::Listener,
        4 => Kind::Waker,
        other => unreachable!("the kernel hands back what it was given, not {other}"),
    }
}

/// The socket, for `Poll` and `Room`.
#[inline]
pub(super) fn socket_id(data: u64) -> SocketId {
    SocketId { index: index(data), generation: generation(data) }
}

/// The index of a socket, an item or a listener.
#[inline]
pub(super) fn index(data: u64) -> u32 {
    data as u32 & INDEX_MASK
}

/// The generation of a socket, or the turn of an item.
#[inline]
pub(super) fn generation(data: u64) -> u32 {
    (data >> INDEX_BITS) as u32
}

#[inline]
const fn pack(kind: Kind, generation: u32, index: u32) -> u64 {
    debug_assert!(index <= INDEX_MASK);
    (kind as u64) << KIND_SHIFT | (generation as u64) << INDEX_BITS | index as u64
}

/// An index is below the connections that a worker reserves address space for, four million.
const INDEX_BITS: u32 = 29;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const KIND_SHIFT: u32 = INDEX_BITS + u32::BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_with_all_of_their_generation() {
        for (index, generation) in [(0, 0), (INDEX_MASK, u32::MAX), (1, 1 << 24), (7, u32::MAX - 1)]
        {
            let id = SocketId { index, generation };
            assert_eq!((kind(poll(id)), socket_id(poll(id))), (Kind::Poll, id));
            assert_eq!((kind(room(id)), socket_id(room(id))), (Kind::Room, id));
            let item = send(generation, index);
            assert_eq!((kind(item), self::generation(item)), (Kind::Send, generation));
            assert_eq!(self::index(item), index);
        }
        assert_eq!((kind(listener(255)), index(listener(255))), (Kind::Listener, 255));
        assert_eq!(kind(WAKER), Kind::Waker);
    }
}
