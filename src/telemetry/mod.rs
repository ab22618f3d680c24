//! What the server counts: one table.
//!
//! **What it is.** [`Counters`]: one set per worker, written by that worker alone and read by anyone, without locks.
//! [`METRICS`]: the table, for whoever wants to know what there is. [`render`]: all sets as Prometheus text.
//!
//! **Always true.** Counting is a plain load and store of the worker's own cache line, never a locked instruction:
//! each counter has one writer. Names carry their unit: `_bytes`, `_seconds`, `_total`.
//!
//! **Must not know.** What the numbers mean to the rooms that count them.

mod counter;
mod histogram;
mod metrics;

pub use counter::{Counter, Family};
pub use histogram::Histogram;
pub use metrics::{Counters, Labels, METRICS, Metric, render};
