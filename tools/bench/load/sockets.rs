//! The sockets of one load and their readiness.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// Nonblocking sockets, each known by an index of the load's own.
pub struct Sockets {
    poll: Poll,
    events: Events,
}

impl Sockets {
    pub fn new() -> io::Result<Self> {
        Ok(Self { poll: Poll::new()?, events: Events::with_capacity(EVENTS_PER_TURN_MAX) })
    }

    /// Makes a socket nonblocking and watches it for data to read.
    pub fn add(&self, stream: &TcpStream, index: usize) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let source = &mut SourceFd(&stream.as_raw_fd());
        self.poll.registry().register(source, Token(index), Interest::READABLE)
    }

    /// Stops watching a socket.
    pub fn remove(&self, stream: &TcpStream) -> io::Result<()> {
        self.poll.registry().deregister(&mut SourceFd(&stream.as_raw_fd()))
    }

    /// Waits at most `timeout` for sockets to become readable.
    pub fn poll(&mut self, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    /// Waits until a socket is readable; returns false after [`STALL_TIMEOUT`] without one.
    ///
    /// With `spin` it does not sleep. Waking a load that sleeps is work on the server's core, and how often the load
    /// sleeps depends on the timing of both sides, so spinning removes that noise.
    pub fn wait(&mut self, spin: bool) -> io::Result<bool> {
        let began = Instant::now();
        loop {
            self.poll(if spin { Duration::ZERO } else { STALL_TIMEOUT })?;
            if !self.events.is_empty() {
                return Ok(true);
            }
            if began.elapsed() > STALL_TIMEOUT {
                return Ok(false);
            }
        }
    }

    /// Indexes of the sockets that the last wait found readable.
    pub fn ready(&self) -> impl Iterator<Item = usize> {
        self.events.iter().map(|event| event.token().0)
    }
}

const EVENTS_PER_TURN_MAX: usize = 1024;

/// A load that sees no event for this long reports that the server stopped.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
