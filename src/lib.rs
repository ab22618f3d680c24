//! fantail: an edge fan-out server.

pub mod buffer;
pub mod driver;
