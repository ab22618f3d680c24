//! fantail: an edge fan-out server.

pub mod buffer;
pub mod config;
pub mod connection;
pub mod driver;
pub mod hub;
pub mod message;
pub mod protocol;
pub mod server;
pub mod telemetry;
pub mod transport;
pub mod worker;
