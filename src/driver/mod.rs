//! Sockets and the kernel: the only room with system calls.
//!
//! **What it is.** One small completion-shaped contract, [`Driver`], and three implementations: io_uring
//! ([`UringDriver`]), epoll ([`EpollDriver`]) and a seeded simulation ([`SimulatedDriver`]). A worker is generic
//! over the contract and never knows which one it has.
//!
//! **In and out.** In: sockets to attach, a [`SendBatch`] with each wait, pauses, closes. Out: [`Event`]s. Received
//! bytes are a slice of the driver's one receive buffer, to be decoded and unmasked in place.
//!
//! **Always true.** A send is settled when `wait` returns: sent whole, or listed in the batch's `late`. A batch
//! has at most one item per socket. Every event of a socket carries the id it was attached with; [`Event::Closed`]
//! is the last one, and the id's index may be used again from there. A socket that is not paused and has
//! something to read is reported again in a later turn without being asked for. `next_event` yields a bounded
//! number of events a turn; what is left over makes the next `wait` return at once.
//!
//! **Must not know.** Protocols, connections, channels, limits on peers.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::limits;

mod epoll;
mod fd_table;
mod heap;
mod listeners;
mod probe;
mod readiness;
mod send_batch;
mod simulated;
mod socket;
mod socket_table;
mod turn;
mod uring;
mod user_data;
mod waker;

pub use epoll::EpollDriver;
pub use fd_table::{RESERVED_DESCRIPTORS, make_private, open_files_max, raise_limit};
pub use heap::{map_large_blocks, trim_heap};
pub use probe::{Kind, choose};
pub use send_batch::{Late, SendBatch, SendItem, SendResult};
pub use simulated::{Faults, PeerId, SimulatedDriver, SimulatedNetwork, SimulatedSocket};
pub use socket::{HeldPort, Keepalive, bind_listener, bind_probe, hold_free_port};
pub use uring::UringDriver;
pub use waker::Waker;

/// What a driver is built with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverSettings {
    /// Sockets attached at once: address space for their table, of which only what is used is touched.
    pub sockets_max: u32,
    /// The one receive buffer; also the most that one socket receives in a turn.
    pub receive_buffer_bytes: usize,
    /// Events of sockets in one turn. Accepts come on top.
    pub events_per_turn_max: usize,
    /// Sockets that come or go in one turn, of each kind: accepted for one listener, heard for the first time, hung up.
    pub churn_per_turn_max: usize,
    /// The same in a turn that has something of the sockets that stay, and while a crowd comes or goes.
    pub churn_per_shared_turn_max: usize,
    /// Bytes received in one turn, by one receive buffer more at the most: what decoding them takes is how long
    /// everything else waits.
    pub received_bytes_per_turn_max: usize,
    /// Bytes received in one call while other sockets wait.
    pub receive_share_bytes: usize,
    /// Bytes of one receive up to which its socket is heard before those that sent more.
    pub sparse_receive_bytes_max: usize,
}

impl Default for DriverSettings {
    fn default() -> Self {
        Self {
            sockets_max: 1 << 20,
            receive_buffer_bytes: limits::RECEIVE_BUFFER_BYTES,
            events_per_turn_max: limits::EVENTS_PER_TURN_MAX,
            churn_per_turn_max: limits::CHURN_PER_TURN_MAX,
            churn_per_shared_turn_max: limits::CHURN_PER_SHARED_TURN_MAX,
            received_bytes_per_turn_max: limits::RECEIVED_BYTES_PER_TURN_MAX,
            receive_share_bytes: limits::RECEIVE_SHARE_BYTES,
            sparse_receive_bytes_max: limits::SPARSE_RECEIVE_BYTES_MAX,
        }
    }
}

/// What the worker asks of the kernel.
pub trait Driver {
    /// An accepted socket that has no id yet; dropping it closes it.
    type Socket;

    /// The time as of the return of the last `wait`: one clock read a turn.
    fn now(&self) -> Instant;

    /// Reads the clock: for whoever is about to sleep, at most once a turn.
    fn read_clock(&self) -> Instant;

    /// Reads the calendar's clock: the time since the beginning of 1970.
    fn wall_clock(&self) -> Duration;

    /// Gives a socket its id and begins to watch it. The id's index must be free: never used, or reported
    /// [`Event::Closed`] since.
    fn attach(&mut self, id: SocketId, socket: Self::Socket);

    /// Sends the batch, then gathers events. Sleeps at most `timeout` (`None`: until something happens) and not at
    /// all while events are left over from the last turn or a send came late. Clears and refills `batch.late`;
    /// leaves the items to the caller.
    ///
    /// Errors are those of the loop itself, never of one socket.
    fn wait(&mut self, batch: &mut SendBatch, timeout: Option<Duration>) -> io::Result<()>;

    /// The next event of this turn. `None` ends the turn: nothing is left, or the turn's bound is reached.
    fn next_event(&mut self) -> Option<Event<'_, Self::Socket>>;

    /// Stops receiving on a socket until `resume`: backpressure. At most the bytes already handed out arrive.
    fn pause(&mut self, id: SocketId);

    /// Receives again; what arrived meanwhile is reported.
    fn resume(&mut self, id: SocketId);

    /// Half-closes: the peer reads to the end of what was sent, then end of stream. Receiving goes on. It takes
    /// effect now: what is in a batch that `wait` has not had fails.
    fn shutdown_write(&mut self, id: SocketId);

    /// Ends a socket. No event but [`Event::Closed`] follows, and that one always does, in this turn or a later
    /// one. It takes effect now, for the first caller: what is in a batch that `wait` has not had comes back as
    /// [`SendResult::Failed`].
    fn close(&mut self, id: SocketId, how: Close);

    /// Accepts again on a listener that reported [`Event::AcceptFailed`].
    fn resume_accepting(&mut self, listener: ListenerId);

    /// Closes all listeners. Connections waiting in their backlogs are refused by the kernel.
    fn stop_listening(&mut self);
}

/// A socket's name: the index of its slot, and the generation that tells it from earlier users of that slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// Slot, dense from 0.
    pub index: u32,
    /// Any but `u32::MAX`.
    pub generation: u32,
}

/// Names a listener: its place in the list given to the driver when it was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u8);

/// How to end a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// What was sent is still delivered, then FIN.
    Orderly,
    /// RST: what the kernel still holds for the peer is dropped.
    Abort,
}

/// Why a peer's bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN: the peer will send no more, and may still read.
    Eof,
    /// RST, timeout or another error: nothing can be sent either.
    Reset,
}

/// Something finished.
#[derive(Debug)]
pub enum Event<'a, S> {
    /// A new connection. Attach it, or drop it to refuse it.
    Accepted {
        /// Where it came in.
        listener: ListenerId,
        /// The socket.
        socket: S,
        /// The other end's address.
        peer: SocketAddr,
    },
    /// Accepting failed for want of descriptors or memory (EMFILE, ENFILE, ENOBUFS, ENOMEM). The listener is paused
    /// until `resume_accepting`; connections wait in its backlog.
    AcceptFailed {
        /// Which.
        listener: ListenerId,
        /// Why.
        error: io::Error,
    },
    /// Bytes from a peer, never empty. The slice may be written to and dies with the event.
    Received {
        /// Whose.
        id: SocketId,
        /// The bytes.
        bytes: &'a mut [u8],
    },
    /// Nothing more will be received. The socket stays attached until `close`. Reported once.
    Ended {
        /// Whose.
        id: SocketId,
        /// Why.
        end: End,
    },
    /// A socket whose last send came late has room again.
    Sendable {
        /// Which.
        id: SocketId,
    },
    /// The last event of this id.
    Closed {
        /// Which.
        id: SocketId,
    },
    /// Another thread called the waker. Several calls may make one event.
    Woken,
}
