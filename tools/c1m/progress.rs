//! One line that says how far it is: on a terminal it is written over, elsewhere it comes every ten seconds.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Writes the line.
pub struct Progress {
    terminal: bool,
    every: Duration,
    wrote_at: Instant,
    wrote: bool,
}

impl Progress {
    pub fn new() -> Self {
        let terminal = stderr().is_terminal();
        let every = if terminal { ON_TERMINAL } else { ELSEWHERE };
        Self { terminal, every, wrote_at: Instant::now(), wrote: false }
    }

    /// Writes `line` if it is time to.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if self.wrote_at.elapsed() < self.every {
            return;
        }
        self.wrote_at = Instant::now();
        self.wrote = true;
        let end = if self.terminal { "" } else { "\n" };
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        // Nobody may be reading.
        let _ = write!(stderr(), "{start}{}{end}", line());
    }

    /// Leaves the terminal's line to others.
    pub fn finish(&mut self) {
        if self.terminal && self.wrote {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

/// `done` of `all`, as a bar.
pub fn bar(done: u64, all: u64) -> String {
    let filled = (done.min(all) * BAR_CELLS).checked_div(all).unwrap_or(0);
    (0..BAR_CELLS).map(|cell| if cell < filled { '#' } else { '.' }).collect()
}

const BAR_CELLS: u64 = 24;
const ON_TERMINAL: Duration = Duration::from_millis(200);
const ELSEWHERE: Duration = Duration::from_secs(10);
