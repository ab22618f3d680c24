//! The state shared by the threads and the coordinator: current step, counters, latencies, causes of failure.
//!
//! Each thread writes its own tally and its own recorder, and the coordinator reads them; no thread waits for another.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fantail::telemetry::Counter;

use crate::instrument::Histogram;
use crate::stream::Faults;

/// State shared by all threads.
pub struct Shared {
    /// Start of the run: the origin of all times in payloads.
    pub epoch: Instant,
    step: AtomicU32,
    /// One entry per thread.
    pub threads: Box<[PerThread]>,
    causes: Mutex<Causes>,
    /// One entry per channel.
    pub channels: Box<[Channel]>,
    /// Subscribers that each publication has still to reach.
    awaited: Box<[AtomicU32]>,
    /// When a connection was last opened, and the longest time between two openings.
    last_opened_ns: AtomicU64,
    longest_gap_ns: AtomicU64,
}

/// The part of one thread, on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
pub struct PerThread {
    pub tally: Tally,
    recorder: Mutex<Recorder>,
    faults: Mutex<[Faults; 2]>,
}

/// The counters of one thread.
#[derive(Default)]
pub struct Tally {
    /// Number of the last step that it has started.
    pub step: Counter,
    /// Connections opened, including those reopened after a drop.
    pub opened: Counter,
    /// Connections that are open now.
    pub open: Counter,
    /// Attempts that failed.
    pub failed: Counter,
    /// Open connections that the server ended.
    pub lost: Counter,
    /// Server pings that were answered.
    pub pongs: Counter,
    /// Number of messages sent.
    pub sent: Counter,
    /// Messages received, duplicates excluded.
    pub received: Counter,
    /// Messages received by slow subscribers, duplicates excluded.
    pub received_slow: Counter,
    /// Messages to echo connections that were duplicated, or that they did not send.
    pub not_echoed: Counter,
    /// Slow subscribers that the server closed.
    pub closed_slow: Counter,
    /// Canary pings that were due while the previous one was outstanding.
    pub pings_skipped: Counter,
    /// Nanoseconds of CPU time used, and of time spent runnable without a core.
    pub cpu_ns: Counter,
    pub waited_ns: Counter,
}

/// The counters of one channel.
#[derive(Default)]
pub struct Channel {
    /// Sequence number of the last publication.
    pub published: AtomicU32,
    /// Subscribers, slow ones excluded.
    pub subscribers: AtomicU32,
}

/// Histograms of latencies, in nanoseconds.
pub struct Recorder {
    /// From sending to receiving a message.
    pub latency: Histogram,
    /// From sending a publication to its last delivery.
    pub last: Histogram,
    /// From `connect` to the end of the handshake.
    pub opening: Histogram,
    /// Time to handle the events of one turn: the last event waited this long in c1m.
    pub turn: Histogram,
}

/// Number of failures and losses by cause.
#[derive(Clone, Default)]
pub struct Causes {
    pub failed: BTreeMap<String, u64>,
    pub lost: BTreeMap<String, u64>,
}

/// The steps of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open connections and read messages.
    Open,
    /// Send echoes and canary pings. Slow subscribers do not read.
    Work,
    /// Send no new messages.
    Rest,
    /// Close all connections but canaries at once, then reconnect.
    Drop,
    /// Open no connections and send no messages. Slow subscribers read again.
    Read,
    /// End the thread.
    Stop,
}

impl Shared {
    pub fn new(threads: usize, channels: u32, publications: usize) -> Self {
        Self {
            epoch: Instant::now(),
            step: AtomicU32::new(Step::Open.bits()),
            threads: (0..threads).map(|_| PerThread::default()).collect(),
            causes: Mutex::default(),
            channels: (0..channels).map(|_| Channel::default()).collect(),
            awaited: (0..publications.min(PUBLICATIONS_TRACKED_MAX))
                .map(|_| AtomicU32::new(0))
                .collect(),
            last_opened_ns: AtomicU64::new(0),
            longest_gap_ns: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the start of the run.
    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The current step and its number, which increases with every step.
    pub fn step(&self) -> (Step, u32) {
        let bits = self.step.load(Ordering::Acquire);
        (Step::of_bits(bits), bits)
    }

    /// Sets the next step. Called by the coordinator only.
    pub fn set_step(&self, step: Step) {
        let number = self.step.load(Ordering::Relaxed) >> STEP_BITS;
        self.step.store((number + 1) << STEP_BITS | step.bits(), Ordering::Release);
    }

    /// The sum of a counter over all threads.
    pub fn sum(&self, counter: impl Fn(&Tally) -> &Counter) -> u64 {
        self.threads.iter().map(|thread| counter(&thread.tally).value()).sum()
    }

    /// Whether every thread has started the current step.
    pub fn all_at_step(&self) -> bool {
        let (_, number) = self.step();
        self.threads.iter().all(|thread| thread.tally.step.value() == u64::from(number))
    }

    /// Latencies recorded since the previous call.
    pub fn take_latencies(&self) -> Recorder {
        let mut sum = Recorder::default();
        for thread in &self.threads {
            let mut recorder = thread.recorder();
            sum.add(&recorder);
            recorder.clear();
        }
        sum
    }

    /// Message faults of all receivers but slow ones, and of slow ones.
    pub fn faults(&self) -> [Faults; 2] {
        let mut sums = [Faults::default(); 2];
        for thread in &self.threads {
            let faults = lock(&thread.faults);
            sums.iter_mut().zip(faults.iter()).for_each(|(sum, part)| sum.add(part));
        }
        sums
    }

    pub fn causes(&self) -> Causes {
        lock(&self.causes).clone()
    }

    pub fn add_failure(&self, cause: &str) {
        add(&mut lock(&self.causes).failed, cause);
    }

    pub fn add_loss(&self, cause: &str) {
        add(&mut lock(&self.causes).lost, cause);
    }

    /// Records that a publication is about to be sent.
    pub fn publishing(&self, channel: u32, sequence: u32) {
        let entry = &self.channels[channel as usize];
        if let Some(awaited) = self.awaited(channel, sequence) {
            awaited.store(entry.subscribers.load(Ordering::Acquire), Ordering::Release);
        }
        entry.published.store(sequence, Ordering::Release);
    }

    /// Records a delivery; returns whether it was the last one of its publication.
    pub fn delivered(&self, channel: u32, sequence: u32) -> bool {
        self.awaited(channel, sequence)
            .is_some_and(|awaited| awaited.fetch_sub(1, Ordering::AcqRel) == 1)
    }

    /// Number of publications so far.
    pub fn published(&self) -> u64 {
        let of = |channel: &Channel| u64::from(channel.published.load(Ordering::Acquire));
        self.channels.iter().map(of).sum()
    }

    /// Number of deliveries expected for the publications so far.
    pub fn expected(&self) -> u64 {
        let of = |channel: &Channel| {
            u64::from(channel.published.load(Ordering::Acquire))
                * u64::from(channel.subscribers.load(Ordering::Acquire))
        };
        self.channels.iter().map(of).sum()
    }

    fn awaited(&self, channel: u32, sequence: u32) -> Option<&AtomicU32> {
        let place = (sequence as usize - 1).checked_mul(self.channels.len())? + channel as usize;
        self.awaited.get(place)
    }

    /// Records that a connection was opened just now.
    pub fn record_opening(&self, now_ns: u64) {
        let before = self.last_opened_ns.fetch_max(now_ns, Ordering::Relaxed);
        self.longest_gap_ns.fetch_max(now_ns.saturating_sub(before), Ordering::Relaxed);
    }

    /// Starts to measure the longest time between two openings. Time before this call does not count.
    pub fn watch_gaps_from(&self, now_ns: u64) {
        self.last_opened_ns.fetch_max(now_ns, Ordering::Relaxed);
        self.longest_gap_ns.store(0, Ordering::Relaxed);
    }

    /// When a connection was last opened, and the longest gap, in nanoseconds.
    pub fn gaps(&self) -> (u64, u64) {
        (self.last_opened_ns.load(Ordering::Relaxed), self.longest_gap_ns.load(Ordering::Relaxed))
    }
}

impl PerThread {
    /// Locks the histograms: the thread does so for a turn, the coordinator briefly once a second.
    pub fn recorder(&self) -> MutexGuard<'_, Recorder> {
        lock(&self.recorder)
    }

    pub fn set_faults(&self, faults: [Faults; 2]) {
        *lock(&self.faults) = faults;
    }
}

impl Recorder {
    pub fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.last.add(&other.last);
        self.opening.add(&other.opening);
        self.turn.add(&other.turn);
    }

    fn clear(&mut self) {
        self.latency.clear();
        self.last.clear();
        self.opening.clear();
        self.turn.clear();
    }
}

impl Default for Recorder {
    fn default() -> Self {
        let new = Histogram::new;
        Self { latency: new(), last: new(), opening: new(), turn: new() }
    }
}

impl Step {
    const ALL: [Self; 6] = [Step::Open, Step::Work, Step::Rest, Step::Drop, Step::Read, Step::Stop];

    fn bits(self) -> u32 {
        self as u32
    }

    fn of_bits(bits: u32) -> Self {
        Self::ALL[(bits & ((1 << STEP_BITS) - 1)) as usize]
    }
}

/// Describes an error of the kernel so that an operator can act on it.
pub fn cause_of(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "connection refused".to_owned(),
        Some(libc::ECONNRESET | libc::EPIPE) => "reset by the server".to_owned(),
        Some(libc::ETIMEDOUT) => "connect timeout".to_owned(),
        Some(libc::EADDRNOTAVAIL) => "no free port at the source address".to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => "no file descriptor left".to_owned(),
        Some(libc::ENOBUFS | libc::ENOMEM) => "no kernel memory left".to_owned(),
        _ => error.to_string(),
    }
}

fn add(causes: &mut BTreeMap<String, u64>, cause: &str) {
    if let Some(count) = causes.get_mut(cause) {
        *count += 1;
    } else {
        causes.insert(cause.to_owned(), 1);
    }
}

/// Ignores poisoning: a panic ends the run, and the counts until then stay valid.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Low bits of the step number that hold the step itself.
const STEP_BITS: u32 = 3;

/// Maximum number of publications whose last delivery is timed, at four bytes each.
pub const PUBLICATIONS_TRACKED_MAX: usize = 1 << 20;
