//! Probe: measures how long a ping or an echo takes while the worker is busy with other connections.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use super::client::{Connector, FrameReader, frame};
use crate::instrument::{Histogram, Wire, preempt_others};
use crate::system::pin_to_core;

/// A thread that sends a ping or an echo, waits for the answer, and repeats, on each of its connections in turn.
pub struct Probe {
    phase: Arc<AtomicU8>,
    thread: JoinHandle<io::Result<Vec<Histogram>>>,
}

#[derive(Clone, Copy)]
pub enum ProbeKind {
    Ping,
    Echo,
}

impl Probe {
    pub fn start(
        address: SocketAddr,
        path: &str,
        kind: ProbeKind,
        connections: usize,
    ) -> io::Result<Self> {
        Self::over(Connector::new(address, path.to_owned()), kind, connections, None)
    }

    /// Starts with connections that a connector opens, on a core of its own choice.
    pub fn over(
        mut connector: Connector,
        kind: ProbeKind,
        connections: usize,
        core: Option<usize>,
    ) -> io::Result<Self> {
        let opened = connector.open(connections)?;
        let connections =
            opened.into_iter().map(|(stream, _)| (stream, FrameReader::default())).collect();
        let phase = Arc::new(AtomicU8::new(WARM_UP));
        let shared = Arc::clone(&phase);
        let thread = thread::spawn(move || {
            core.map(pin_to_core).transpose()?;
            ask(connections, kind, &shared)
        });
        Ok(Self { phase, thread })
    }

    /// Starts to measure, or ends a window and starts the next one.
    pub fn open(&self) {
        self.phase.fetch_add(1, Ordering::Relaxed);
    }

    /// The latencies of the only window.
    pub fn finish(self) -> io::Result<Histogram> {
        self.windows()?.pop().ok_or_else(|| io::Error::other("the probe measured nothing"))
    }

    /// The latencies of all windows.
    pub fn windows(self) -> io::Result<Vec<Histogram>> {
        self.phase.store(CLOSED, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the probe panicked"))?
    }
}

fn ask(
    mut connections: Vec<(Wire, FrameReader)>,
    kind: ProbeKind,
    phase: &AtomicU8,
) -> io::Result<Vec<Histogram>> {
    // The load on the same core must not delay the measurement.
    preempt_others()?;
    let request = match kind {
        ProbeKind::Ping => frame(PING, b"probe"),
        ProbeKind::Echo => frame(TEXT, b"probe"),
    };
    let mut buffer = [0; 4096];
    let mut windows = Vec::new();
    for index in (0..connections.len()).cycle() {
        let (stream, reader) = &mut connections[index];
        let sent_in = phase.load(Ordering::Relaxed);
        if sent_in == CLOSED {
            break;
        }
        let sent = Instant::now();
        stream.write_all(&request)?;
        let mut answered = false;
        while !answered {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::other("the server closed the probe"));
            }
            reader.read(&buffer[..count], |_, payload| answered |= payload == b"probe");
        }
        if sent_in != WARM_UP {
            windows.resize_with(windows.len().max(sent_in.into()), Histogram::new);
            windows[usize::from(sent_in) - 1].record(sent.elapsed().as_nanos() as u64);
        }
        sleep(PAUSE);
    }
    Ok(windows)
}

const PING: u8 = 9;
const TEXT: u8 = 1;

/// Not a divisor of any regular interval of a server.
const PAUSE: Duration = Duration::from_micros(1_370);

/// Before the first window, which is 1.
const WARM_UP: u8 = 0;
const CLOSED: u8 = u8::MAX;
