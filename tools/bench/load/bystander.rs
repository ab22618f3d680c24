//! Bystander: measures how long a publication takes to reach subscribers of another channel while the server is busy.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::Connector;
use super::lines::{Line, LineClient, parse_line, publish_line};
use super::sockets::Sockets;
use super::streams::{Arrival, Faults, Stream, payload};
use crate::instrument::{Histogram, preempt_others};

/// A thread that publishes on a fixed schedule and receives its publications.
pub struct Bystander {
    phase: Arc<AtomicU8>,
    thread: JoinHandle<io::Result<Value>>,
}

impl Bystander {
    /// Starts with `count` subscribers, which the kernel distributes over the workers.
    pub fn start(address: SocketAddr, count: usize) -> io::Result<Self> {
        let mut connector = Connector::new(address, String::new());
        let publisher = LineClient::connect(&mut connector)?;
        let sockets = Sockets::new()?;
        let mut subscribers = Vec::with_capacity(count);
        for index in 0..count {
            let client = LineClient::subscribe(&mut connector, CHANNEL)?;
            sockets.add(&client.stream, index)?;
            subscribers.push((client, Stream::default()));
        }
        let phase = Arc::new(AtomicU8::new(BEFORE));
        let shared = Arc::clone(&phase);
        let thread = thread::spawn(move || {
            // The load on the same core must not delay the measurement.
            preempt_others()?;
            let began = Instant::now();
            let state = Loop {
                publisher,
                subscribers,
                sockets,
                began,
                published: VecDeque::new(),
                faults: Faults::default(),
                latency: Histogram::new(),
                buffer: vec![0; 1 << 16],
            };
            state.run(&shared)
        });
        Ok(Self { phase, thread })
    }

    /// Starts to measure: publications from now on count.
    pub fn open(&self) {
        self.phase.store(INSIDE, Ordering::Relaxed);
    }

    /// Waits for outstanding publications and returns the report.
    pub fn finish(self) -> io::Result<Value> {
        self.phase.store(CLOSED, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the bystander panicked"))?
    }
}

struct Loop {
    publisher: LineClient,
    subscribers: Vec<(LineClient, Stream)>,
    sockets: Sockets,
    began: Instant,
    /// When each publication was sent, and whether it counts.
    published: VecDeque<(Duration, bool)>,
    faults: Faults,
    latency: Histogram,
    buffer: Vec<u8>,
}

impl Loop {
    fn run(mut self, phase: &AtomicU8) -> io::Result<Value> {
        let mut due = Duration::ZERO;
        let mut closed_at = None;
        let left = loop {
            let now = self.began.elapsed();
            let phase = phase.load(Ordering::Relaxed);
            if phase == CLOSED {
                let closed_at = *closed_at.get_or_insert(now);
                let left = self.published.len() as u64 * self.subscribers.len() as u64
                    - self.subscribers.iter().map(|(_, stream)| stream.count()).sum::<u64>();
                if left == 0 || now > closed_at + FINISH_TIMEOUT {
                    break left;
                }
            } else if now >= due {
                let text = payload(self.published.len() as u64, 64);
                self.publisher.stream.write_all(&publish_line(CHANNEL, &text))?;
                self.published.push_back((now, phase == INSIDE));
                due += PUBLISH_INTERVAL;
            }
            // `poll` rounds its timeout up to milliseconds.
            let timeout = if phase == CLOSED { PUBLISH_INTERVAL } else { due.saturating_sub(now) };
            self.sockets.poll(timeout)?;
            self.receive()?;
        };
        self.faults.lost = left;
        Ok(json!({
            "subscribers": self.subscribers.len(),
            "publications": self.published.len(),
            "latency": self.latency.to_json(),
            "faults": self.faults.to_json(),
        }))
    }

    fn receive(&mut self) -> io::Result<()> {
        let Self { sockets, subscribers, began, published, faults, latency, buffer, .. } = self;
        for index in sockets.ready() {
            let (client, stream) = &mut subscribers[index];
            let is_open = client.receive(buffer, |line| {
                if let Line::Publication { data, .. } = parse_line(line)
                    && let Arrival::New(number) = stream.receive(data.as_bytes(), faults)
                    && let Some(&(published_at, true)) = published.get(number as usize)
                {
                    latency.record((began.elapsed() - published_at).as_nanos() as u64);
                }
            })?;
            if !is_open {
                return Err(io::Error::other("the server closed a bystander"));
            }
        }
        Ok(())
    }
}

const CHANNEL: &str = "bystander";
const PUBLISH_INTERVAL: Duration = Duration::from_millis(10);
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

const BEFORE: u8 = 0;
const INSIDE: u8 = 1;
const CLOSED: u8 = 2;
