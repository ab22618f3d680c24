//! Ends a worker's sleep from another thread.

#![expect(unsafe_code, reason = "eventfd has no safe wrapper")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Makes a driver's `wait` return with [`super::Event::Woken`]. Several wakes may be reported as one event. It may be
/// called from any thread, and is the only part of a driver that may.
///
/// A waker is made before any worker leaves the shared descriptor table: it is an eventfd, and its descriptor must be
/// valid both in the sleeping thread's table and in the caller's. A wake costs about 8 µs if the sleeping thread is on
/// another core, so callers keep a "sleeping" flag and do not wake a driver that is awake.
#[derive(Clone, Debug)]
pub struct Waker {
    eventfd: Option<Arc<File>>,
}

impl Waker {
    /// A waker for one driver.
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened by the call above and has no other owner.
        let eventfd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { eventfd: Some(Arc::new(File::from(eventfd))) })
    }

    /// A waker that does nothing, for simulations: they have one thread, and it never sleeps.
    pub fn none() -> Self {
        Self { eventfd: None }
    }

    /// Wakes the driver, or prevents its next `wait` from sleeping.
    pub fn wake(&self) {
        if let Some(eventfd) = &self.eventfd {
            // The count is never read: both drivers watch for changes of it. The write fails only after 2^64 wakes.
            let _ = (&**eventfd).write(&1_u64.to_ne_bytes());
        }
    }

    /// The eventfd's descriptor, for the driver to watch.
    pub(super) fn fd(&self) -> Option<RawFd> {
        self.eventfd.as_ref().map(|eventfd| eventfd.as_raw_fd())
    }
}
