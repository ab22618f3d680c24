//! The log: one line per event on the standard error stream, a level per room, and a rate limit per cause.
//!
//! Peers must not be able to fill a disk: of events with the same cause, [`LOG_LINES_PER_SECOND_MAX`] are written per
//! second; the others are counted, and one line reports their number. A cause is a place in the source, together with
//! the field `reason` or `setting` if the event has one; so each fault of peers has its own allowance.
//!
//! Logging takes no lock: the levels are one atomic word, read once for each place that logs, and counts are atomic. A
//! thread sleeps until an event is logged, waits a second, and resets the allowance of every cause. Another thread
//! writes the lines: see [`lines`].

use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber, warn};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::{Registry, fmt as format};

use crate::config::limits::{LOG_CAUSES_MAX, LOG_LINES_PER_SECOND_MAX};
use crate::config::{Config, LogFormat, LogLevel, LogLevels};

use super::{StartError, spawn};

mod lines;

use lines::Lines;

/// The log of the process.
#[derive(Clone, Debug)]
pub struct Log {
    gate: Arc<Gate>,
    lines: Lines,
}

/// Decides which events are written.
#[derive(Debug)]
struct Gate {
    /// [`LogLevels::pack`] of the levels in effect.
    levels: AtomicU64,
    causes: [Cause; LOG_CAUSES_MAX],
    /// The thread that resets the allowances every second.
    thread: OnceLock<Thread>,
}

/// The events of one cause.
#[derive(Debug, Default)]
struct Cause {
    /// The hash of the place in the source and the field of [`KEYS`]; 0 for a free entry.
    key: AtomicU64,
    /// Events of this second, including the suppressed ones.
    count: AtomicU32,
    /// The message of the first event.
    text: OnceLock<String>,
}

/// The period of an allowance.
const SECOND: Duration = Duration::from_secs(1);

impl Log {
    /// Starts the log of the process. This can be done once.
    pub fn start(config: &Config) -> Result<Log, StartError> {
        let gate = Arc::new(Gate::new(config.log_levels));
        let lines = Lines::start()?;
        let layer = format::layer().with_writer(lines.clone());
        match config.log_format {
            LogFormat::Text => {
                install(layer.with_ansi(io::stderr().is_terminal()), gate.clone())?;
            }
            LogFormat::Json => {
                let layer = layer.json().flatten_event(true);
                install(layer.with_current_span(false).with_span_list(false), gate.clone())?;
            }
        }
        let watched = gate.clone();
        let thread = spawn("fantail-log", move || watched.watch())?;
        gate.thread.get_or_init(|| thread.thread().clone());
        Ok(Log { gate, lines })
    }

    /// Waits until all events are written, for at most a second. A program calls this before it ends.
    pub fn flush(&self) {
        self.lines.flush();
    }

    /// Changes the levels.
    pub fn set_levels(&self, levels: LogLevels) {
        self.gate.levels.store(levels.pack(), Ordering::Relaxed);
        // Each place that logs has cached whether it is enabled.
        tracing::callsite::rebuild_interest_cache();
    }
}

fn install<L>(layer: L, gate: Arc<Gate>) -> Result<(), StartError>
where
    L: Layer<Registry> + Send + Sync,
{
    let subscriber = tracing_subscriber::registry().with(layer).with(Guard(gate));
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|error| StartError(error.to_string()))
}

impl Gate {
    fn new(levels: LogLevels) -> Self {
        Self {
            levels: AtomicU64::new(levels.pack()),
            causes: std::array::from_fn(|_| Cause::default()),
            thread: OnceLock::new(),
        }
    }

    fn levels(&self) -> LogLevels {
        LogLevels::unpack(self.levels.load(Ordering::Relaxed))
    }

    /// Whether an event of this cause may be written; `text` describes the cause, and is called for its first event.
    fn admit(&self, key: u64, text: impl Fn() -> String) -> bool {
        let cause = self.cause(key);
        cause.text.get_or_init(text);
        let before = cause.count.fetch_add(1, Ordering::Relaxed);
        if before == 0
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
        before < LOG_LINES_PER_SECOND_MAX
    }

    /// The entry that counts events of this cause. If all entries are taken, further causes share the last one.
    fn cause(&self, key: u64) -> &Cause {
        let key = key.max(1);
        let start = (key % LOG_CAUSES_MAX as u64) as usize;
        let places = (0..LOG_CAUSES_MAX).map(|step| &self.causes[(start + step) % LOG_CAUSES_MAX]);
        let mut places = places.filter(|place| {
            let is = place.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed);
            is.is_ok() || is == Err(key)
        });
        places.next().unwrap_or(&self.causes[LOG_CAUSES_MAX - 1])
    }

    /// Begins a new second. Returns the number of events of each cause that were suppressed in the last one.
    fn settle(&self) -> impl Iterator<Item = (u32, &str)> {
        self.causes.iter().filter_map(|cause| {
            let count = cause.count.swap(0, Ordering::Relaxed);
            let suppressed =
                count.checked_sub(LOG_LINES_PER_SECOND_MAX).filter(|count| *count > 0)?;
            Some((suppressed, cause.text.get().map_or("", String::as_str)))
        })
    }

    /// The main loop of the thread that resets the allowances.
    fn watch(&self) {
        loop {
            thread::park();
            thread::sleep(SECOND);
            for (lines, like) in self.settle() {
                warn!(lines, like, "log lines were dropped: too many in one second");
            }
        }
    }
}

/// The gate as the log's outermost layer.
struct Guard(Arc<Gate>);

impl<S: Subscriber> Layer<S> for Guard {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match filter(self.0.levels().of(metadata.target())) >= *metadata.level() {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        filter(self.0.levels().of(metadata.target())) >= *metadata.level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(filter(self.0.levels().highest()))
    }

    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        // Events of this module need no limit: they are at most one per second and cause, and one per emptied queue.
        if event.metadata().target().starts_with(module_path!()) {
            return true;
        }
        let mut key = Key(DefaultHasher::new());
        event.metadata().callsite().hash(&mut key.0);
        event.record(&mut key);
        self.0.admit(key.0.finish(), || {
            let mut text = Text::default();
            event.record(&mut text);
            text.0
        })
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Computes the hash of an event's cause.
struct Key(DefaultHasher);

impl Visit for Key {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if KEYS.contains(&field.name()) {
            // Hashing cannot fail.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl Write for Key {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// The message of an event and its fields of [`KEYS`], as one text.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" || KEYS.contains(&field.name()) {
            let space = if self.0.is_empty() { "" } else { ": " };
            // Writing to a String cannot fail.
            let _ = write!(self.0, "{space}{value:?}");
        }
    }
}

/// The fields that distinguish the events logged by one place in the source.
const KEYS: [&str; 2] = ["reason", "setting"];

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(LogLevels::all(LogLevel::Info))
    }

    fn admitted(gate: &Gate, key: u64, events: usize) -> usize {
        (0..events).filter(|_| gate.admit(key, || format!("event {key}"))).count()
    }

    #[test]
    fn each_cause_has_an_allowance_per_second_and_suppressed_events_are_counted() {
        let gate = gate();
        let max = LOG_LINES_PER_SECOND_MAX as usize;
        for second in 0..3 {
            assert_eq!(admitted(&gate, 7, max), max, "{second}");
            assert_eq!(admitted(&gate, 7, 1000), 0, "{second}");
            assert_eq!(admitted(&gate, 8, max), max, "another cause has its own allowance");
            let left_out: Vec<_> = gate.settle().collect();
            assert_eq!(left_out, [(1000, "event 7")]);
            assert_eq!(gate.settle().count(), 0);
        }
    }

    #[test]
    fn causes_beyond_the_table_share_one_allowance() {
        let gate = gate();
        let causes = LOG_CAUSES_MAX as u64;
        for key in 1..=causes {
            assert_eq!(admitted(&gate, key, 1), 1);
        }
        let max = LOG_LINES_PER_SECOND_MAX as usize;
        let shared: usize = (0..1000).map(|key| admitted(&gate, 1000 + key, 1)).sum();
        assert!((max - 1..=max).contains(&shared), "{shared}");
    }

    #[test]
    fn events_logged_by_several_threads_are_all_counted() {
        let gate = gate();
        let written: usize = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| admitted(&gate, 3, 10_000))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(written, LOG_LINES_PER_SECOND_MAX as usize);
        let left_out: u32 = gate.settle().map(|(count, _)| count).sum();
        assert_eq!(left_out, 40_000 - LOG_LINES_PER_SECOND_MAX);
    }
}
