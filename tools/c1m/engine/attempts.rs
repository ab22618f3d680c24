//! Which connections a thread has still to open, and which of its attempts are under way.

use std::collections::VecDeque;
use std::time::Instant;

/// What is to be opened, and what is under way.
pub struct Attempts {
    pub thread: usize,
    /// Connections below this have had their first try.
    pub tried: usize,
    /// To be tried again, and when, in milliseconds since the start.
    pub again: VecDeque<(u32, u32)>,
    /// Begun, in order; those that were served since are still in it.
    pub begun: VecDeque<(u32, u32)>,
    pub in_flight: usize,
    pub attempts: u64,
    pub allowance: f64,
    pub allowed_at: Instant,
}

impl Attempts {
    pub fn new(thread: usize) -> Self {
        Self {
            thread,
            tried: 0,
            again: VecDeque::new(),
            begun: VecDeque::new(),
            in_flight: 0,
            attempts: 0,
            allowance: 0.0,
            allowed_at: Instant::now(),
        }
    }

    /// The next connection to open at this time.
    pub fn next(&mut self, connections: usize, now_ms: u32) -> Option<usize> {
        if self.tried < connections {
            self.tried += 1;
            return Some(self.tried - 1);
        }
        if self.again.front()?.1 > now_ms {
            return None;
        }
        self.again.pop_front().map(|(index, _)| index as usize)
    }

    /// Whether no connection is left to open.
    pub fn is_done(&self, connections: usize) -> bool {
        self.tried == connections && self.again.is_empty()
    }
}
