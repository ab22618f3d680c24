//! Sockets and the kernel: the only room with system calls.
//!
//! **What it is.** One small completion-shaped contract, [`Driver`], and three implementations: io_uring
//! ([`UringDriver`]), epoll ([`EpollDriver`]) and a seeded simulation ([`SimulatedDriver`]). A worker is generic over
//! the contract and does not know which implementation it runs on.
//!
//! **In and out.** In: sockets to attach, a [`SendBatch`] with each wait, pauses, closes. Out: [`Event`]s. Received
//! bytes are a slice of the driver's one receive buffer, to be decoded and unmasked in place.
//!
//! **Always true.** A send is settled when `wait` returns: sent whole, or listed in the batch's `late`. A batch has at
//! most one item per socket. Every event of a socket carries the id it was attached with; [`Event::Closed`] is the last
//! one, and the id's index may be reused after it. A socket that is not paused and has something to read is reported
//! again in a later turn without another request. `next_event` yields a bounded number of events a turn; events that
//! are left over make the next `wait` return at once.
//!
//! **Must not know.** Protocols, connections, channels, limits on peers.

use std::io;
use std::time::{Duration, Instant};

use crate::config::limits;

mod epoll;
mod event;
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
mod unix_socket;
mod uring;
mod user_data;
mod waker;

pub use epoll::EpollDriver;
pub use event::{Close, End, Event, ListenerId, SocketId};
pub use fd_table::{RESERVED_DESCRIPTORS, make_private, open_files_max, raise_limit};
pub use heap::{map_large_blocks, trim_heap};
pub use probe::{DriverKind, choose};
pub use readiness::since_epoch;
pub use send_batch::{Late, SendBatch, SendItem, SendResult};
pub use simulated::{Faults, PeerId, SimulatedDriver, SimulatedNetwork, SimulatedSocket};
pub use socket::{HeldPort, Keepalive, bind_listener, bind_probe, hold_free_port};
pub use unix_socket::UnixSocket;
pub use uring::UringDriver;
pub use waker::Waker;

/// The settings of a driver, fixed when it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverSettings {
    /// Most sockets attached at once. Their table reserves address space for all of them and touches only what it uses.
    pub sockets_max: u32,
    /// Size of the one receive buffer, which is also the most that one socket receives in a turn.
    pub receive_buffer_bytes: usize,
    /// Most socket events in one turn. Accepted connections are not counted.
    pub events_per_turn_max: usize,
    /// Most sockets in one turn of each of three kinds: accepted on one listener, received from for the first time, and
    /// closed by their peers.
    pub churn_per_turn_max: usize,
    /// The same limit for a turn in which established sockets are ready as well, and during a mass connect or
    /// disconnect.
    pub churn_per_shared_turn_max: usize,
    /// Most bytes received in one turn, which may be exceeded by one receive buffer. Everything else waits while they
    /// are decoded.
    pub received_bytes_per_turn_max: usize,
    /// Most bytes received in one call while other sockets are ready.
    pub receive_share_bytes: usize,
    /// A socket whose last receive brought at most this many bytes is served before those that sent more.
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

/// The kernel as a worker sees it: sockets, sends, events and the clock.
pub trait Driver {
    /// An accepted socket that has no id yet; dropping it closes it.
    type Socket;

    /// The time as of the return of the last `wait`: one clock read a turn.
    fn now(&self) -> Instant;

    /// Reads the monotonic clock. Called at most once a turn, before sleeping.
    fn read_clock(&self) -> Instant;

    /// Reads the wall clock: the time since the Unix epoch.
    fn wall_clock(&self) -> Duration;

    /// Gives a socket its id and begins to watch it. The id's index must be free: never used, or reported as
    /// [`Event::Closed`] since.
    fn attach(&mut self, id: SocketId, socket: Self::Socket);

    /// Sends the batch, then collects events. Sleeps for at most `timeout` (`None`: until something happens), and not
    /// at all while events are left over from the last turn or an item could not be sent whole. Clears and refills
    /// `batch.late`; the caller clears the items.
    ///
    /// Errors concern the loop itself, never a single socket.
    fn wait(&mut self, batch: &mut SendBatch, timeout: Option<Duration>) -> io::Result<()>;

    /// The next event of this turn. `None` ends the turn: no event is left, or the turn's limit is reached.
    fn next_event(&mut self) -> Option<Event<'_, Self::Socket>>;

    /// Stops receiving on a socket until `resume`, for backpressure. No bytes arrive beyond those already reported.
    fn pause(&mut self, id: SocketId);

    /// Receives again, beginning with the bytes that arrived meanwhile.
    fn resume(&mut self, id: SocketId);

    /// Acknowledges at once what the socket received, where the kernel would wait for something to send along. A peer
    /// under Nagle's algorithm (RFC 9293 3.7.4) sends nothing more until then.
    fn acknowledge(&mut self, id: SocketId);

    /// Half-closes: the peer reads everything that was sent, then end of stream. Receiving continues. It takes effect
    /// immediately, so items of a batch that has not been passed to `wait` yet fail.
    fn shutdown_write(&mut self, id: SocketId);

    /// Closes a socket. The only event that follows is [`Event::Closed`], in this turn or a later one. The first call
    /// takes effect immediately, and later ones do nothing; items of a batch that has not been passed to `wait` yet
    /// come back as [`SendResult::Failed`].
    fn close(&mut self, id: SocketId, how: Close);

    /// Accepts again on a listener that reported [`Event::AcceptFailed`].
    fn resume_accepting(&mut self, listener: ListenerId);

    /// Closes all listeners. Connections waiting in their backlogs are refused by the kernel.
    fn stop_listening(&mut self);
}
