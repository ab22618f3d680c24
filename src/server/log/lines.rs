//! Lines on their way to the standard error stream.
//!
//! A thread writes them. Whoever logs never waits for whoever reads: a pipe that nobody empties, a disk that hangs, a
//! reader that is gone. What the queue has no room for meanwhile is left out and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::limits::{LOG_FLUSH_TIMEOUT, LOG_LINES_WAITING_MAX};
use crate::server::{StartError, spawn};

/// The queue's end that takes lines.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Taken and not written yet.
    waiting: AtomicUsize,
    /// Not taken since this was last told.
    left_out: AtomicU64,
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

    /// Waits until what was logged is written, but not long.
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

/// A line at a time: the layer that writes events hands each over whole.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(line.to_vec()).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.left_out.fetch_add(1, Ordering::Relaxed);
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

/// The queue's other end.
struct Written {
    lines: Receiver<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Written {
    /// Writes until no thread logs any more. Once the queue is empty, `tell` hears how many lines it had no room for.
    fn write_to(&self, out: &mut impl Write, tell: impl Fn(u64)) {
        loop {
            let next = self.lines.try_recv().or_else(|_| {
                let left_out = self.counts.left_out.swap(0, Ordering::Relaxed);
                if left_out > 0 {
                    tell(left_out);
                }
                self.lines.recv()
            });
            let Ok(line) = next else { return };
            // The fault cannot be reported: the stream itself is broken.
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
    fn what_the_queue_has_no_room_for_is_counted_and_told_once() {
        let (lines, written) = Lines::new();
        for index in 0..LOG_LINES_WAITING_MAX + 7 {
            (&lines).write_all(format!("{index}\n").as_bytes()).unwrap();
        }
        drop(lines.queue);
        let (mut out, told) = (Vec::new(), Cell::new(0));
        written.write_to(&mut out, |count| told.set(told.get() + count));
        let expected: String =
            (0..LOG_LINES_WAITING_MAX).map(|index| format!("{index}\n")).collect();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(told.get(), 7);
        assert_eq!(lines.counts.waiting.load(Ordering::Relaxed), 0, "a flush would return");
    }
}
