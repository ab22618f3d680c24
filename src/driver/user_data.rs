//! What a completion or an epoll event is about, in 64 bits: kind (8), generation (24), index (32).

use super::SocketId;
use super::socket_table::GENERATION_MASK;

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
    match data >> 56 {
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
    data as u32
}

/// The generation of a socket, or the turn of an item.
#[inline]
pub(super) fn generation(data: u64) -> u32 {
    (data >> 32) as u32 & GENERATION_MASK
}

#[inline]
const fn pack(kind: Kind, generation: u32, index: u32) -> u64 {
    (kind as u64) << 56 | ((generation & GENERATION_MASK) as u64) << 32 | index as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_with_24_bits_of_generation() {
        let id = SocketId { index: u32::MAX, generation: 0xfe12_3456 };
        let kept = SocketId { index: u32::MAX, generation: 0x12_3456 };
        assert_eq!((kind(poll(id)), socket_id(poll(id))), (Kind::Poll, kept));
        assert_eq!((kind(room(id)), socket_id(room(id))), (Kind::Room, kept));
        assert_eq!(
            (kind(send(7, 9)), generation(send(7, 9)), index(send(7, 9))),
            (Kind::Send, 7, 9)
        );
        assert_eq!((kind(listener(255)), index(listener(255))), (Kind::Listener, 255));
        assert_eq!(kind(WAKER), Kind::Waker);
    }
}
