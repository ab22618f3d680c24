//! What one thread of the engine holds, and the settings that all threads share.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::Poll;

use super::attempts::Attempts;
use crate::connection::Connection;
use crate::door::Door;
use crate::plan::Sources;
use crate::shared::{Shared, Step};
use crate::stream::Faults;

/// What all threads do alike.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where connections go.
    pub door: Door,
    /// Where those go that only stay.
    pub idle_door: Door,
    pub sources: Sources,
    /// Connections a second and thread; 0 is as fast as possible.
    pub rate: f64,
    /// Handshakes under way at once on a thread.
    pub in_flight_max: usize,
    /// For connecting, and again for the handshake's answer.
    pub opening_timeout: Duration,
    /// Bytes of a payload.
    pub size: usize,
    /// Messages under way on each echo connection.
    pub depth: usize,
    /// Between two pings of one stayer.
    pub ping_every: Duration,
    /// Core of the thread that pings; any if `None`.
    pub stayers_core: Option<usize>,
    /// Receive buffer of those that stop reading, in bytes.
    pub slow_receive_buffer: usize,
    /// Whether a drop is a reset, or a close as when a process ends.
    pub drop_resets: bool,
}

/// One thread's state.
pub struct Engine {
    pub shared: Arc<Shared>,
    pub settings: Arc<Settings>,
    /// Copies of this thread's own: a count that threads share would cost more than what it counts.
    pub door: Rc<Door>,
    pub idle_door: Rc<Door>,
    pub index: usize,
    pub poll: Poll,
    pub connections: Vec<Connection>,
    pub attempts: Attempts,
    /// Answers to greetings that came in part.
    pub unread: HashMap<usize, Vec<u8>>,
    /// What the kernel did not take yet.
    pub unsent: HashMap<usize, Vec<u8>>,
    pub buffer: Vec<u8>,
    /// What is said in this turn on the connection at hand.
    pub out: Vec<u8>,
    pub payload: Vec<u8>,
    pub stayers: Stayers,
    pub step: Step,
    pub step_number: u32,
    pub faults: [Faults; 2],
    pub accounted_ns: u64,
}

#[derive(Default)]
pub struct Stayers {
    pub indexes: Vec<usize>,
    pub next: usize,
    pub due_ns: u64,
    /// When those that wait for an answer asked.
    pub asked_ns: HashMap<usize, u64>,
}
