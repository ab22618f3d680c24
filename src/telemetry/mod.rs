//! The server's metrics: one table.
//!
//! **What it is.** [`Counters`]: one set per worker, written by that worker alone and read by any thread, without
//! locks. [`METRICS`]: the table of names, types and help texts. [`render`]: all sets as Prometheus text;
//! [`write_statistics`]: a part of them as JSON.
//!
//! **Always true.** Counting is a plain load and store of the worker's own cache line, never a locked instruction:
//! each counter has one writer. Names carry their unit: `_bytes`, `_seconds`, `_total`.
//!
//! **Must not know.** The rooms that count, and what the numbers mean to them.

mod counter;
mod histogram;
mod metrics;
mod statistics;

pub use counter::{Counter, Family, Grid};
pub use histogram::Histogram;
pub use metrics::{Counters, Labels, METRICS, Metric, render};
pub use statistics::write_statistics;
