//! When a load counts: after a warm-up, for the length of one window.

use std::io;
use std::time::{Duration, Instant};

use super::target::Target;
use crate::server_cpu::{Meter, Spent};

/// A warm-up, then the window that counts.
pub struct Window {
    meter: Meter,
    opens: Instant,
    length: Duration,
    opened: Option<Instant>,
}

/// Where a load stands in its window.
pub enum Phase {
    WarmUp,
    /// The window begins with this turn: reset all counters.
    Opened,
    Inside,
    /// Length of the window, and the CPU time that the server used in it.
    Closed(Duration, Option<Spent>),
}

impl Window {
    /// Begins the warm-up. Both times are in seconds.
    pub fn new(target: &Target, warm_up: f64, seconds: f64) -> io::Result<Self> {
        Ok(Self {
            meter: target.meter()?,
            opens: Instant::now() + Duration::from_secs_f64(warm_up),
            length: Duration::from_secs_f64(seconds),
            opened: None,
        })
    }

    pub fn phase(&mut self, now: Instant) -> io::Result<Phase> {
        let Some(opened) = self.opened else {
            if now < self.opens {
                return Ok(Phase::WarmUp);
            }
            self.opened = Some(now);
            self.meter.restart()?;
            return Ok(Phase::Opened);
        };
        if now < opened + self.length {
            return Ok(Phase::Inside);
        }
        Ok(Phase::Closed(now - opened, self.meter.spent()?))
    }
}
