//! The connections that a thread has still to open, and its attempts in flight.

use std::collections::VecDeque;
use std::time::Instant;

/// Connections to open and attempts in flight.
pub struct Attempts {
    /// Index of the thread.
    pub thread: usize,
    /// Connections below this index were attempted once.
    pub tried: usize,
    /// Connections to retry, and when, in milliseconds since the start of the run.
    pub retries: VecDeque<(u32, u32)>,
    /// Attempts in the order of their start, with the time; some may have been completed since.
    pub started: VecDeque<(u32, u32)>,
    /// Attempts that have neither succeeded nor failed.
    pub in_flight: usize,
    /// Number of attempts so far.
    pub attempts: u64,
    /// Tokens of the rate limit: one per attempt.
    pub allowance: f64,
    pub allowed_at: Instant,
}

impl Attempts {
    pub fn new(thread: usize) -> Self {
        Self {
            thread,
            tried: 0,
            retries: VecDeque::new(),
            started: VecDeque::new(),
            in_flight: 0,
            attempts: 0,
            allowance: 0.0,
            allowed_at: Instant::now(),
        }
    }

    /// The next connection to open, first attempts before retries.
    pub fn next(&mut self, connections: usize, now_ms: u32) -> Option<usize> {
        if self.tried < connections {
            self.tried += 1;
            return Some(self.tried - 1);
        }
        if self.retries.front()?.1 > now_ms {
            return None;
        }
        self.retries.pop_front().map(|(index, _)| index as usize)
    }

    /// Whether no connection is left to open.
    pub fn is_done(&self, connections: usize) -> bool {
        self.tried == connections && self.retries.is_empty()
    }
}
