//! fantail: an edge fan-out server.

pub mod buffer;
pub mod config;
pub mod driver;
pub mod hub;
pub mod message;
pub mod protocol;
