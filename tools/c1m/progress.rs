//! A progress line: updated in place on a terminal, printed every ten seconds elsewhere.

use std::fmt;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use fantail::server::host::Grouped;

/// Writes the progress line.
pub struct Progress {
    terminal: bool,
    every: Duration,
    wrote_at: Instant,
    wrote: bool,
}

impl Progress {
    pub fn new() -> Self {
        let terminal = stderr().is_terminal();
        let every = if terminal { ON_TERMINAL } else { NOT_ON_TERMINAL };
        Self { terminal, every, wrote_at: Instant::now(), wrote: false }
    }

    /// Writes `line` if it is due.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        if self.wrote_at.elapsed() < self.every {
            return;
        }
        self.wrote_at = Instant::now();
        self.wrote = true;
        // Without wrapping, so that a line longer than the terminal leaves nothing behind.
        let (start, end) =
            if self.terminal { ("\r\x1b[K\x1b[?7l", "\x1b[?7h") } else { ("", "\n") };
        // Standard error may be closed.
        let _ = write!(stderr(), "{start}{}{end}", line());
    }

    /// Clears the line on a terminal.
    pub fn finish(&mut self) {
        if self.terminal && self.wrote {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

/// The completed share of a step.
#[derive(Clone, Copy)]
pub struct Share {
    pub done: u64,
    pub of: u64,
    pub unit: &'static str,
}

impl fmt::Display for Share {
    /// Formats a bar and the numbers.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, of, unit } = *self;
        let filled = (done.min(of) * BAR_CELLS).checked_div(of).unwrap_or(0);
        let cells = (0..BAR_CELLS).map(|cell| if cell < filled { '#' } else { '.' });
        let bar: String = cells.collect();
        write!(out, "[{bar}] {} of {} {unit}", Grouped(done), Grouped(of))
    }
}

const BAR_CELLS: u64 = 24;
const ON_TERMINAL: Duration = Duration::from_millis(200);
const NOT_ON_TERMINAL: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_filled_in_proportion_to_its_share() {
        let bar = |done, of| Share { done, of, unit: "open" }.to_string();
        assert_eq!(bar(0, 0), "[........................] 0 of 0 open");
        assert_eq!(bar(500, 1000), "[############............] 500 of 1,000 open");
        assert_eq!(bar(7, 7), "[########################] 7 of 7 open");
        assert_eq!(bar(9, 7), "[########################] 9 of 7 open");
    }
}
