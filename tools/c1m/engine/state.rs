//! The state of one engine thread, and the settings that all threads share.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::Poll;

use super::attempts::Attempts;
use super::encryption::Encryption;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::plan::Sources;
use crate::shared::{Shared, Step};
use crate::stream::Faults;

/// Settings of all threads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server of all connections but idle ones.
    pub endpoint: Endpoint,
    /// The server of idle connections.
    pub idle_endpoint: Endpoint,
    pub sources: Sources,
    /// Connections per second and thread; 0 means as fast as possible.
    pub rate: f64,
    /// Maximum number of handshakes in flight on a thread.
    pub in_flight_max: usize,
    /// Timeout of a connection attempt.
    pub opening_timeout: Duration,
    /// Payload size, in bytes.
    pub size: usize,
    /// Messages in flight on each echo connection.
    pub depth: usize,
    /// Time between two pings of one canary.
    pub ping_interval: Duration,
    /// Core of the canary thread; `None` means any.
    pub canary_core: Option<usize>,
    /// Receive buffer of slow subscribers, in bytes.
    pub slow_receive_buffer: usize,
    /// Whether a drop sends a reset (RST) instead of a FIN.
    pub drop_resets: bool,
}

/// The state of one thread.
pub struct Engine {
    pub shared: Arc<Shared>,
    pub settings: Arc<Settings>,
    /// Copies of this thread: a reference count shared by all threads would be contended.
    pub endpoint: Rc<Endpoint>,
    pub idle_endpoint: Rc<Endpoint>,
    pub index: usize,
    pub poll: Poll,
    pub connections: Vec<Connection>,
    pub attempts: Attempts,
    /// Incomplete handshake responses, by connection.
    pub unread: HashMap<usize, Vec<u8>>,
    /// If connections are encrypted.
    pub encryption: Option<Encryption>,
    /// Bytes that the kernel did not take yet, by connection.
    pub unsent: HashMap<usize, Vec<u8>>,
    pub buffer: Vec<u8>,
    /// Bytes to send on the connection being handled.
    pub out: Vec<u8>,
    pub payload: Vec<u8>,
    pub canaries: Canaries,
    pub step: Step,
    pub step_number: u32,
    pub faults: [Faults; 2],
    pub accounted_ns: u64,
}

/// The connections of this thread that measure latency by pings.
#[derive(Default)]
pub struct Canaries {
    pub indexes: Vec<usize>,
    pub next: usize,
    pub due_ns: u64,
    /// When the ping was sent, for connections whose pong is outstanding.
    pub pinged_ns: HashMap<usize, u64>,
}
