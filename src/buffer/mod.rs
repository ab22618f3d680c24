//! Bytes that wait to be sent.
//!
//! **What it is.** [`SharedFrame`]: immutable bytes encoded once and held by many send queues of one worker.
//! [`SendQueue`]: the bytes bound for one socket, twelve bytes while empty; its entries live in the worker's
//! [`QueueArena`]. [`Segment`]: one entry, either a shared frame or a range of the bytes written in this turn.
//!
//! **In and out.** Deliveries and replies go in; whole segments come out, in order, for the driver's next batch,
//! and what the kernel did not take is put back in front.
//!
//! **Always true.** An empty queue owns nothing. `bytes` is the sum of its segments. A range of turn bytes never
//! outlives its turn: what is put back has been copied into a frame of its own.
//!
//! **Must not know.** Sockets, protocols, who the bytes are for, what to do when there are too many of them.

mod send_queue;
mod shared_frame;

pub use send_queue::{QueueArena, Segment, SendQueue};
pub use shared_frame::SharedFrame;
