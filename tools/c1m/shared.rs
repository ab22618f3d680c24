//! What the threads and their coordinator share: the step to do, what each has counted, latencies, causes.
//!
//! Each thread writes its own tally and its own recorder; the coordinator reads them. Nobody waits for anybody.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fantail::telemetry::Counter;

use crate::instrument::Histogram;
use crate::stream::Faults;

/// What all share.
pub struct Shared {
    /// The beginning of all times that payloads carry.
    pub epoch: Instant,
    step: AtomicU32,
    /// One for each thread.
    pub threads: Box<[PerThread]>,
    causes: Mutex<Causes>,
    /// By channel.
    pub channels: Box<[Channel]>,
    awaited: Box<[AtomicU32]>,
    /// When somebody was served last, and the longest time before that in which nobody was.
    served_last_ns: AtomicU64,
    served_gap_ns: AtomicU64,
}

/// One thread's part, on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
pub struct PerThread {
    pub tally: Tally,
    recorder: Mutex<Recorder>,
    faults: Mutex<[Faults; 2]>,
}

/// What a thread counts.
#[derive(Default)]
pub struct Tally {
    /// The last step that it began.
    pub step: Counter,
    /// Connections that were served, again after a drop included.
    pub opened: Counter,
    /// Connections that are served now.
    pub open: Counter,
    /// Attempts that were never served.
    pub failed: Counter,
    /// Connections that were served and ended without being asked to.
    pub lost: Counter,
    /// Pings of the server that were answered.
    pub pongs: Counter,
    /// Messages that were sent.
    pub sent: Counter,
    /// Messages that came for the first time.
    pub received: Counter,
    /// The same, of those that stopped reading.
    pub received_slow: Counter,
    /// Messages to those that echo that came again, or that they did not send.
    pub not_echoed: Counter,
    /// Connections that the server closed for being slow, or while they were.
    pub closed_slow: Counter,
    /// Stayers' pings that were due while the last one was unanswered.
    pub pings_skipped: Counter,
    /// Nanoseconds of CPU that it has had, and that it was ready but had none.
    pub cpu_ns: Counter,
    pub waited_ns: Counter,
}

/// One channel.
#[derive(Default)]
pub struct Channel {
    /// Its last number.
    pub published: AtomicU32,
    /// Who is subscribed and not slow on purpose.
    pub subscribers: AtomicU32,
}

/// Latencies, in nanoseconds.
pub struct Recorder {
    /// From sent to received.
    pub latency: Histogram,
    /// From sent to received by the last subscriber.
    pub last: Histogram,
    /// From `connect` to served.
    pub opening: Histogram,
    /// How long the events of one turn took: the last of them waited so long for us.
    pub turn: Histogram,
}

/// What went wrong how often.
#[derive(Clone, Default)]
pub struct Causes {
    pub failed: BTreeMap<String, u64>,
    pub lost: BTreeMap<String, u64>,
}

/// What the threads are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open connections; read what comes.
    Open,
    /// Send: echoes, pings of stayers. The slow do not read.
    Work,
    /// Send nothing new.
    Rest,
    /// Close all but the stayers at once, then come back.
    Drop,
    /// Open and send nothing new. The slow read again.
    Read,
    /// End.
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
            served_last_ns: AtomicU64::new(0),
            served_gap_ns: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The step to do and its number, which grows with each.
    pub fn step(&self) -> (Step, u32) {
        let bits = self.step.load(Ordering::Acquire);
        (Step::of_bits(bits), bits)
    }

    /// Orders the next step. Only the coordinator does.
    pub fn order(&self, step: Step) {
        let number = self.step.load(Ordering::Relaxed) >> STEP_BITS;
        self.step.store((number + 1) << STEP_BITS | step.bits(), Ordering::Release);
    }

    /// A counter, all threads together.
    pub fn sum(&self, counter: impl Fn(&Tally) -> &Counter) -> u64 {
        self.threads.iter().map(|thread| counter(&thread.tally).value()).sum()
    }

    /// Whether each thread has begun the present step.
    pub fn all_follow(&self) -> bool {
        let (_, number) = self.step();
        self.threads.iter().all(|thread| thread.tally.step.value() == u64::from(number))
    }

    /// What came between this call and the one before.
    pub fn take_latencies(&self) -> Recorder {
        let mut sum = Recorder::default();
        for thread in &self.threads {
            let mut recorder = thread.recorder();
            sum.add(&recorder);
            recorder.clear();
        }
        sum
    }

    /// Faults of those that always read, and of those that did not.
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

    /// Notes that a publication is about to leave.
    pub fn publishing(&self, channel: u32, sequence: u32) {
        let entry = &self.channels[channel as usize];
        if let Some(awaited) = self.awaited(channel, sequence) {
            awaited.store(entry.subscribers.load(Ordering::Acquire), Ordering::Release);
        }
        entry.published.store(sequence, Ordering::Release);
    }

    /// Notes that one more subscriber has a publication; whether it was the last one.
    pub fn delivered(&self, channel: u32, sequence: u32) -> bool {
        self.awaited(channel, sequence)
            .is_some_and(|awaited| awaited.fetch_sub(1, Ordering::AcqRel) == 1)
    }

    /// Publications so far.
    pub fn published(&self) -> u64 {
        let of = |channel: &Channel| u64::from(channel.published.load(Ordering::Acquire));
        self.channels.iter().map(of).sum()
    }

    /// Deliveries that all publications so far make.
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

    /// Notes that somebody was served just now.
    pub fn served(&self, now_ns: u64) {
        let before = self.served_last_ns.fetch_max(now_ns, Ordering::Relaxed);
        self.served_gap_ns.fetch_max(now_ns.saturating_sub(before), Ordering::Relaxed);
    }

    /// Begins to look for the longest time in which nobody is served. What this thread did until now is not counted.
    pub fn watch_gaps_from(&self, now_ns: u64) {
        self.served_last_ns.fetch_max(now_ns, Ordering::Relaxed);
        self.served_gap_ns.store(0, Ordering::Relaxed);
    }

    /// When somebody was served last, and the longest gap: nanoseconds.
    pub fn gaps(&self) -> (u64, u64) {
        (self.served_last_ns.load(Ordering::Relaxed), self.served_gap_ns.load(Ordering::Relaxed))
    }
}

impl PerThread {
    /// The owner holds it for a turn; the coordinator, for a moment once a second.
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

/// An error of the kernel as a cause that a person can act on.
pub fn cause_of(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "connection refused".to_owned(),
        Some(libc::ECONNRESET | libc::EPIPE) => "reset by the server".to_owned(),
        Some(libc::ETIMEDOUT) => "connecting took too long".to_owned(),
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

/// A thread that panicked ends the run; what it had counted is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Low bits of the step's number that say what it is.
const STEP_BITS: u32 = 3;

/// Publications whose last delivery is timed: four bytes each.
pub const PUBLICATIONS_TRACKED_MAX: usize = 1 << 20;
