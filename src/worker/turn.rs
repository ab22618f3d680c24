//! One turn: its time, and how much was done in it.

use std::time::Duration;

use crate::config::limits::{
    CALLBACK_ANSWERS_PER_TURN_MAX, REQUESTS_PER_TURN_MAX, WRITTEN_BYTES_PER_TURN_MAX,
};

/// The time of a turn, and what conversations did in it.
#[derive(Debug, Default)]
pub struct Turn {
    /// The tick in which it began.
    pub tick: u32,
    /// When it began, in microseconds since the workers' clock started.
    pub began_us: u64,
    /// When the next second of the calendar begins, on the same scale.
    second_ends_us: u64,
    /// The time of the calendar, in seconds since 1970.
    pub unix_seconds: u64,
    /// Requests that were made.
    pub requests: usize,
    /// Bytes that conversations wrote.
    pub written_bytes: usize,
    /// Answers of the backend that were taken.
    pub answers: usize,
}

impl Turn {
    /// A turn begins. What was done in the last one stands until [`Turn::begin_work`].
    pub fn begin(&mut self, tick: u32, now_us: u64) {
        (self.tick, self.began_us) = (tick, now_us);
    }

    /// From now on, what is done counts as this turn's.
    pub fn begin_work(&mut self) {
        (self.requests, self.written_bytes, self.answers) = (0, 0, 0);
    }

    /// The time since the epoch, once in each second of the calendar.
    pub fn new_second(&mut self, wall_clock: impl FnOnce() -> Duration) -> Option<Duration> {
        if self.began_us < self.second_ends_us {
            return None;
        }
        let since_epoch = wall_clock();
        let rest_us = 1_000_000 - since_epoch.subsec_micros();
        self.second_ends_us = self.began_us + u64::from(rest_us);
        self.unix_seconds = since_epoch.as_secs();
        Some(since_epoch)
    }

    /// Whether as much was done as one turn may take, so that other work comes first.
    pub fn is_full(&self) -> bool {
        self.requests >= REQUESTS_PER_TURN_MAX || self.written_bytes >= WRITTEN_BYTES_PER_TURN_MAX
    }

    /// Whether as many answers of the backend were taken as one turn may take.
    pub fn has_enough_answers(&self) -> bool {
        self.answers >= CALLBACK_ANSWERS_PER_TURN_MAX
    }

    /// Whether no conversation did anything.
    pub fn is_idle(&self) -> bool {
        self.requests == 0 && self.written_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_full_at_either_limit_and_begins_empty() {
        let mut turn = Turn::default();
        for (requests, bytes, is_full) in [
            (REQUESTS_PER_TURN_MAX - 1, WRITTEN_BYTES_PER_TURN_MAX - 1, false),
            (REQUESTS_PER_TURN_MAX, 0, true),
            (0, WRITTEN_BYTES_PER_TURN_MAX, true),
        ] {
            (turn.requests, turn.written_bytes) = (requests, bytes);
            assert_eq!((turn.is_full(), turn.is_idle()), (is_full, false));
        }
        for (answers, is_enough) in
            [(CALLBACK_ANSWERS_PER_TURN_MAX - 1, false), (CALLBACK_ANSWERS_PER_TURN_MAX, true)]
        {
            turn.answers = answers;
            assert_eq!(turn.has_enough_answers(), is_enough);
        }
        turn.begin(1, 64_000);
        assert!(!turn.is_idle());
        turn.begin_work();
        assert_eq!((turn.is_full(), turn.is_idle()), (false, true));
        assert!(!turn.has_enough_answers());
    }

    #[test]
    fn the_wall_clock_is_read_once_in_each_of_its_seconds() {
        let mut turn = Turn::default();
        let mut read = |now_us| {
            turn.begin(0, now_us);
            turn.new_second(|| Duration::from_micros(7_400_000 + now_us)).is_some()
        };
        let times = [0, 599_999, 600_000, 1_599_999, 1_600_000];
        assert_eq!(times.map(&mut read), [true, false, true, false, true]);
    }
}
