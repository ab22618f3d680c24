//! Bytes that wait to be sent.
//!
//! **What it is.** [`SharedFrame`]: immutable bytes, encoded once and held by many send queues of one worker.
//! [`SendQueue`]: the bytes to be sent to one socket, twelve bytes while empty; its segments live in the worker's
//! [`QueueArena`]. [`Segment`]: either a shared frame or a range of the bytes written in this turn.
//!
//! **In and out.** Deliveries and replies go in; whole segments come out, in order, for the driver's next batch. Bytes
//! that the kernel did not take are put back at the front.
//!
//! **Always true.** An empty queue owns no memory. `bytes` is the cost of its segments, so a watermark on it bounds
//! memory. A range of the turn's bytes is always the first segment, and never outlives its turn.
//!
//! **Must not know.** Sockets, protocols, recipients, and what happens when a queue grows too long.

mod send_queue;
mod shared_frame;

pub use send_queue::{QueueArena, SEGMENT_BYTES, Segment, SendQueue};
pub use shared_frame::SharedFrame;
