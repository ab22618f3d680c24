//! Ends a worker's sleep from another thread.

#![expect(unsafe_code, reason = "eventfd has no safe wrapper")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Makes a driver's `wait` return with [`super::Event::Woken`]. Wakes add up: several may make one event.
///
/// A waker is made before any worker leaves the shared descriptor table: it is an eventfd, and its number must
/// mean the same in the sleeper's table and in the caller's. A wake costs about 8 µs when the sleeper is on
/// another core, so callers keep a "sleeping" flag and spare a driver that is awake.
#[derive(Clone, Debug)]
pub struct Waker {
    eventfd: Option<Arc<File>>,
}

impl Waker {
    /// A waker for one driver.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let number = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened just now and nobody else knows of it.
        let eventfd = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Self { eventfd: Some(Arc::new(File::from(eventfd))) })
    }

    /// A waker that does nothing: in a simulation there is one thread, and nobody sleeps.
    pub fn none() -> Self {
        Self { eventfd: None }
    }

    /// Wakes the driver, or keeps it from falling asleep.
    pub fn wake(&self) {
        if let Some(eventfd) = &self.eventfd {
            // Nobody reads the count: both drivers watch for its changes. It fails only when 2^64 wakes have
            // been counted.
            let _ = (&**eventfd).write(&1_u64.to_ne_bytes());
        }
    }

    /// The eventfd's number, for the driver to watch.
    pub(super) fn number(&self) -> Option<RawFd> {
        self.eventfd.as_ref().map(|eventfd| eventfd.as_raw_fd())
    }
}
