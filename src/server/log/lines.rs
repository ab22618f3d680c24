//! The queue of log lines for the standard error stream.
//!
//! A thread of its own writes them, so that a thread that logs never waits for a reader: a pipe that is not read, a
//! disk that hangs, a reader that has exited. Lines that do not fit into the queue are dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::limits::{LOG_FLUSH_TIMEOUT, LOG_LINES_WAITING_MAX};
use crate::server::{StartError, spawn};

/// The sending half of the queue.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines queued and not yet written.
    waiting: AtomicUsize,
    /// Lines dropped since the last report.
    dropped: AtomicU64,
}

impl Lines {
    /// Starts the thread that writes.
    pub(super) fn start() -> Result<Self, StartError> {
        let (lines, written) = Self::new();
        spawn("fantail-lines", move || {
            written.write_to(&mut io::stderr(), |lines| {
                warn!(
                    lines,
                    "log lines were dropped: the standard error stream is not read fast enough"
                );
            });
        })?;
        Ok(lines)
    }

    fn new() -> (Self, Written) {
        let (queue, lines) = sync_channel(LOG_LINES_WAITING_MAX);
        let counts = Arc::new(Counts::default());
        (Self { queue, counts: counts.clone() }, Written { lines, counts })
    }

    /// Waits until all queued lines are written, for at most [`LOG_FLUSH_TIMEOUT`].
    pub(super) fn flush(&self) {
        const STEPS: u32 = 1000;
        for _ in 0..STEPS {
            if self.counts.waiting.load(Ordering::Acquire) == 0 {
                return;
            }
            thread::sleep(LOG_FLUSH_TIMEOUT / STEPS);
        }
    }
}

/// Each write is one whole line: the layer that formats events passes each in one call.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(line.to_vec()).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

/// The receiving half of the queue.
struct Written {
    lines: Receiver<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Written {
    /// Writes lines until the sending half is dropped. When the queue becomes empty, calls `report` with the number of
    /// lines that were dropped, unless it is 0.
    fn write_to(&self, out: &mut impl Write, report: impl Fn(u64)) {
        loop {
            let next = self.lines.try_recv().or_else(|_| {
                let dropped = self.counts.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    report(dropped);
                }
                self.lines.recv()
            });
            let Ok(line) = next else { return };
            // An error cannot be reported, because this is the stream for reports.
            let _ = out.write_all(&line);
            self.counts.waiting.fetch_sub(1, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn lines_that_do_not_fit_the_queue_are_counted_and_reported_once() {
        let (lines, written) = Lines::new();
        for index in 0..LOG_LINES_WAITING_MAX + 7 {
            (&lines).write_all(format!("{index}\n").as_bytes()).unwrap();
        }
        drop(lines.queue);
        let (mut out, reported) = (Vec::new(), Cell::new(0));
        written.write_to(&mut out, |count| reported.set(reported.get() + count));
        let expected: String =
            (0..LOG_LINES_WAITING_MAX).map(|index| format!("{index}\n")).collect();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(reported.get(), 7);
        assert_eq!(lines.counts.waiting.load(Ordering::Relaxed), 0, "a flush would return");
    }
}
