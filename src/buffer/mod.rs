//! Bytes that wait to be sent.
//!
//! **What it is.** [`SharedFrame`]: immutable bytes encoded once and held by many send queues of one worker.
//! [`SendQueue`]: the bytes bound for one socket, twelve bytes while empty; its entries live in the worker's
//! [`QueueArena`]. [`Segment`]: one entry, either a shared frame or a range of the bytes written in this turn.
//!
//! **In and out.** Deliveries and replies go in; whole segments come out, in order, for the driver's next batch,
//! and what the kernel did not take is put back in front.
//!
//! **Always true.** An empty queue owns nothing. `bytes` is the cost of its segments, so a mark on it bounds memory.
//! A range of the turn's bytes is only ever the first segment, and never outlives its turn.
//!
//! **Must not know.** Sockets, protocols, who the bytes are for, what to do when there are too many of them.

mod send_queue;
mod shared_frame;

pub use send_queue::{QueueArena, SEGMENT_BYTES, Segment, SendQueue};
pub use shared_frame::SharedFrame;
