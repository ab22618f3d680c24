//! The subject of a completion or an epoll event, in 64 bits: kind (3), generation (32), index (29).

use super::SocketId;

/// The kind of object that an event concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A socket: its poll for bytes, or its registration with epoll.
    Poll,
    /// A socket: its poll for room in the send buffer (io_uring only).
    Room,
    /// An item of the send batch (io_uring only).
    Send,
    /// A listening socket.
    Listener,
    /// The eventfd of the waker.
    Waker,
}

/// The data of the waker's poll.
pub(super) const WAKER: u64 = pack(Kind::Waker, 0, 0);

/// The data of a socket's poll for bytes.
#[inline]
pub(super) fn poll(id: SocketId) -> u64 {
    pack(Kind::Poll, id.generation, id.index)
}

/// The data of a socket's poll for room.
#[inline]
pub(super) fn room(id: SocketId) -> u64 {
    pack(Kind::Room, id.generation, id.index)
}

/// The data of a send, by the item's index in the batch of a turn.
#[inline]
pub(super) fn send(turn: u32, item: u32) -> u64 {
    pack(Kind::Send, turn, item)
}

/// The data of a listener's poll.
pub(super) fn listener(index: u32) -> u64 {
    pack(Kind::Listener, 0, index)
}

/// The kind of object that the data names.
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

/// Bits of an index. They hold the four million connections for which a worker reserves address space.
const INDEX_BITS: u32 = 29;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;
const KIND_SHIFT: u32 = INDEX_BITS + u32::BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_returned_with_all_bits_of_their_generation() {
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
