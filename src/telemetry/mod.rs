//! What the server counts: one table.
//!
//! **What it is.** [`Counters`]: one set per worker, written by that worker alone and read by anyone, without locks.
//! [`METRICS`]: the table, for whoever wants to know what there is. [`render`]: all sets as Prometheus text;
//! [`write_statistics`]: a part of them as JSON.
//!
//! **Always true.** Counting is a plain load and store of the worker's own cache line, never a locked instruction:
//! each counter has one writer. Names carry their unit: `_bytes`, `_seconds`, `_total`.
//!
//! **Must not know.** What the numbers mean to the rooms that count them.

mod counter;
mod histogram;
mod metrics;
mod statistics;

pub use counter::{Counter, Family};
pub use histogram::Histogram;
pub use metrics::{Counters, Labels, METRICS, Metric, render};
pub use statistics::write_statistics;
