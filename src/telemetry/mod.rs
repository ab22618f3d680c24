//! What the server counts: one table.
//!
//! **What it is.** [`Counters`]: one set per worker, written by that worker alone and read by anyone, without locks.
//! [`render`]: all sets as Prometheus text.
//!
//! **Always true.** Counting is a plain load and store of the worker's own cache line, never a locked instruction:
//! each counter has one writer.
//!
//! **Must not know.** What the numbers mean to the rooms that count them.

mod metrics;

pub use metrics::{Counter, Counters, render};
