//! Spares a backend that is away, and its clients the wait for it.
//!
//! After so many failures in a row the circuit is open: no call is made. After a while one call is let through: if it
//! gets an answer, the circuit is closed, else it is open for twice as long, up to a maximum.

use std::time::Duration;

use crate::config::limits::CALLBACK_CIRCUIT_TIMES;

/// Whether calls are made.
#[derive(Debug)]
pub(super) struct Circuit {
    failures_max: u32,
    /// In a row.
    failures: u32,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Closed,
    /// No call is made until this time, which is on the clock of the caller, after `open_for`.
    Open {
        until: Duration,
        open_for: Duration,
    },
    /// One call is under way.
    Probing {
        open_for: Duration,
    },
}

impl Circuit {
    /// A closed circuit that opens after `failures_max` failures in a row.
    pub(super) fn new(failures_max: u32) -> Self {
        Self { failures_max, failures: 0, state: State::Closed }
    }

    /// Whether no call is made now.
    pub(super) fn is_open(&self, now: Duration) -> bool {
        match self.state {
            State::Closed => false,
            State::Open { until, .. } => now < until,
            State::Probing { .. } => true,
        }
    }

    /// Whether a call may be made now. If so, its end has to be reported by [`Circuit::note`].
    pub(super) fn admits(&mut self, now: Duration) -> bool {
        match self.state {
            State::Closed => true,
            State::Open { until, open_for } if now >= until => {
                self.state = State::Probing { open_for };
                true
            }
            State::Open { .. } | State::Probing { .. } => false,
        }
    }

    /// A call ended. Returns whether the circuit has opened by it.
    pub(super) fn note(&mut self, is_outage: bool, now: Duration) -> bool {
        if !is_outage {
            (self.failures, self.state) = (0, State::Closed);
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        let [first, longest] = CALLBACK_CIRCUIT_TIMES;
        let open_for = match self.state {
            State::Closed if self.failures >= self.failures_max => first,
            State::Probing { open_for } => (open_for * 2).min(longest),
            // Calls that were made before it opened.
            State::Closed | State::Open { .. } => return false,
        };
        let is_new = self.state == State::Closed;
        self.state = State::Open { until: now + open_for, open_for };
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_after_failures_in_a_row_and_not_one_before() {
        let mut circuit = Circuit::new(3);
        for outcome in [true, true, false, true, true] {
            assert!(circuit.admits(SECOND));
            assert!(!circuit.note(outcome, SECOND));
        }
        assert!(circuit.admits(SECOND));
        assert!(circuit.note(true, SECOND));
        assert!(!circuit.admits(SECOND));
        assert!(!circuit.note(true, SECOND), "calls that were under way");
    }

    #[test]
    fn one_call_probes_and_decides() {
        let [first, longest] = CALLBACK_CIRCUIT_TIMES;
        let mut circuit = Circuit::new(1);
        let (mut now, mut open_for) = (SECOND, first);
        circuit.note(true, now);
        for _ in 0..10 {
            assert!(!circuit.admits(now + open_for - Duration::from_millis(1)));
            now += open_for;
            assert!(circuit.admits(now));
            assert!(!circuit.admits(now), "one at a time");
            assert!(!circuit.note(true, now), "it was open before");
            open_for = (open_for * 2).min(longest);
        }
        now += longest;
        assert!(!circuit.is_open(now));
        assert!(circuit.admits(now) && circuit.is_open(now));
        circuit.note(false, now);
        assert!(circuit.admits(now) && circuit.admits(now));
    }

    #[test]
    fn a_late_answer_closes_it() {
        let mut circuit = Circuit::new(1);
        circuit.note(true, SECOND);
        circuit.note(false, SECOND);
        assert!(circuit.admits(SECOND));
    }
}
