//! The words of the driver's contract: ids, events, and how sockets end.

use std::io;
use std::net::SocketAddr;

/// The id of a socket: the index of its slot, and a generation that tells it from earlier sockets of that slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// Index of the slot, dense from 0.
    pub index: u32,
    /// Generation of the slot, any number but `u32::MAX`.
    pub generation: u32,
}

/// The id of a listener: its index in the list with which the driver was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// How to close a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Bytes that were sent are still delivered, then FIN.
    Orderly,
    /// RST: bytes that the kernel still holds for the peer are dropped.
    Abort,
}

/// Why a peer's bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN: the peer sends no more, and may still read.
    Eof,
    /// RST, timeout or another error: nothing can be sent either.
    Reset,
}

/// An event of a turn, reported by `next_event`.
#[derive(Debug)]
pub enum Event<'a, S> {
    /// A new connection. Attach it, or drop it to refuse it.
    Accepted {
        /// The listener that accepted it.
        listener: ListenerId,
        /// The socket, which has no id yet.
        socket: S,
        /// The address of the peer; `None` behind a Unix socket.
        peer: Option<SocketAddr>,
    },
    /// Accepting failed for lack of descriptors or memory (EMFILE, ENFILE, ENOBUFS, ENOMEM). The listener is paused
    /// until `resume_accepting`; connections wait in its backlog.
    AcceptFailed {
        /// The listener that is paused.
        listener: ListenerId,
        /// The error of accept(2).
        error: io::Error,
    },
    /// Bytes from a peer, never empty. The slice may be written to and is valid until the next event.
    Received {
        /// The socket that received them.
        id: SocketId,
        /// The bytes, in the driver's receive buffer.
        bytes: &'a mut [u8],
    },
    /// Nothing more will be received. The socket stays attached until `close`. Reported once.
    Ended {
        /// The socket whose peer ended.
        id: SocketId,
        /// Whether the peer may still read.
        end: End,
    },
    /// A socket whose last send was not taken whole has room again.
    Sendable {
        /// The socket that has room.
        id: SocketId,
    },
    /// The last event of this id.
    Closed {
        /// The id whose index is free again.
        id: SocketId,
    },
    /// Another thread called the waker. Several calls may be reported as one event.
    Woken,
}
