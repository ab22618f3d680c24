//! Deadlines without timers.
//!
//! A deadline is a tick kept beside the connection; nothing is inserted anywhere when it is set, and traffic does
//! not move it. The sweep looks at a slice of all slots each turn, so that it passes over each of them every
//! [`PASS_MS`] milliseconds, which is how late a deadline may be noticed, and which spreads a million pings evenly.

use std::time::{Duration, Instant};

use super::table::{TICK_MS, Table};
use crate::config::limits::{EXPIRIES_PER_TURN_MAX, SWEEP_ENTRIES_PER_TURN_MAX};

/// Time for a pass over all slots.
pub const PASS_MS: u64 = 500;

/// Between two slices while nothing else happens.
pub const SLICE: Duration = Duration::from_millis(PASS_MS / 8);

/// How late a deadline may be noticed by a worker that has time: a pass, the wait for its next slice, and what is
/// rounded up to ticks.
pub const LATENESS_MAX: Duration = Duration::from_millis(PASS_MS + PASS_MS / 8 + TICK_MS);

/// Walks the deadlines.
#[derive(Debug)]
pub struct Sweep {
    started: Instant,
    cursor: usize,
    /// Milliseconds since the start up to which slots have been looked at, or are owed.
    swept_ms: u64,
    /// Slots whose turn it is and that have not been looked at.
    owed: usize,
}

impl Sweep {
    /// A sweep whose clock began at `started`.
    pub fn new(started: Instant) -> Self {
        Self { started, cursor: 0, swept_ms: 0, owed: 0 }
    }

    /// The tick of a moment.
    pub fn tick(&self, now: Instant) -> u32 {
        let ticks = self.milliseconds(now) / TICK_MS;
        u32::try_from(ticks).expect("four years of ticks")
    }

    /// Looks at the slots whose turn it is and lists those whose deadline has come, for which the caller sets the next
    /// one, and those that are watched. After as many as one turn may take, the others follow in the next ones: clients
    /// that came at once have their deadlines at once.
    pub fn collect(&mut self, now: Instant, table: &mut Table, due: &mut Vec<u32>) {
        let elapsed_ms = self.milliseconds(now) - self.swept_ms;
        let slots = table.slots();
        let quota = (slots as u64 * elapsed_ms / PASS_MS) as usize;
        if quota > 0 || slots == 0 {
            self.swept_ms += elapsed_ms;
        }
        self.owed = (self.owed + quota).min(slots);
        if self.owed == 0 {
            return;
        }
        let tick = self.tick(now);
        for _ in 0..self.owed.min(SWEEP_ENTRIES_PER_TURN_MAX) {
            if due.len() >= EXPIRIES_PER_TURN_MAX {
                break;
            }
            self.owed -= 1;
            if self.cursor >= slots {
                self.cursor = 0;
            }
            if table.deadline(self.cursor) <= tick || table.is_watched(self.cursor) {
                due.push(u32::try_from(self.cursor).expect("slots are 32 bits"));
            }
            self.cursor += 1;
        }
    }

    /// Whether slots are left whose turn it is.
    pub fn is_urgent(&self) -> bool {
        self.owed > 0
    }

    /// Microseconds since the start.
    pub fn microseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        self.microseconds(now) / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::{NEVER, ticks};
    use super::*;
    use crate::connection::Service;

    #[test]
    fn every_deadline_is_found_within_a_pass_and_once() {
        let start = Instant::now();
        let mut table = Table::new(1000);
        let mut sweep = Sweep::new(start);
        for _ in 0..1000 {
            let id = table.insert(Service::EchoTcp, 0);
            table.set_deadline(id.index, ticks(Duration::from_secs(1 + u64::from(id.index % 3))));
        }
        let mut found = vec![0_u64; 1000];
        for ms in (0..5000).step_by(7) {
            let mut due = Vec::new();
            sweep.collect(start + Duration::from_millis(ms), &mut table, &mut due);
            for index in due {
                assert_eq!(
                    found[index as usize], 0,
                    "a deadline that was cleared is not due again"
                );
                found[index as usize] = ms;
                table.set_deadline(index, NEVER);
            }
        }
        for (index, ms) in found.into_iter().enumerate() {
            let deadline = 1000 * (1 + index as u64 % 3);
            assert!((deadline..=deadline + TICK_MS + PASS_MS + 20).contains(&ms), "{index}: {ms}");
        }
    }

    #[test]
    fn deadlines_that_come_at_once_are_spread_over_turns_and_none_is_left_out() {
        let start = Instant::now();
        let slots = 10 * EXPIRIES_PER_TURN_MAX + 7;
        let mut table = Table::new(slots);
        let mut sweep = Sweep::new(start);
        for _ in 0..slots {
            let id = table.insert(Service::EchoTcp, 0);
            table.set_deadline(id.index, ticks(Duration::from_secs(1)));
        }
        let mut lengths = Vec::new();
        for turn in 0..12 {
            let mut due = Vec::new();
            // A worker that was idle for longer than a pass, and does not sleep from then on.
            let now = start + Duration::from_millis(2000) + Duration::from_micros(turn);
            sweep.collect(now, &mut table, &mut due);
            due.iter().for_each(|index| table.set_deadline(*index, NEVER));
            lengths.push((due.len(), sweep.is_urgent()));
        }
        let mut expected = vec![(EXPIRIES_PER_TURN_MAX, true); 10];
        expected.extend([(7, false), (0, false)]);
        assert_eq!(lengths, expected);
    }
}
