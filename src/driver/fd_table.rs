//! A private descriptor table for each worker.
//!
//! Threads share one table, and every accept and close takes its lock. A worker with a private table does not contend
//! for that lock, and the limit on open files then applies per worker rather than per process: a host whose hard limit
//! is 20,000 can still hold a million connections.
//!
//! In return, a descriptor is valid only in the table in which it was opened, and in copies made later. Descriptors
//! that workers share (a [`super::Waker`]) are therefore opened before the first worker leaves the shared table.

#![expect(unsafe_code, reason = "unshare and the limits have no safe wrapper")]

use std::io;

use crate::config::limits::{SPARE_CONNECTIONS, WORKERS_MAX};

/// Gives the calling thread a private copy of the process's descriptor table. Call it before the thread opens any
/// descriptor.
pub fn make_private() -> io::Result<()> {
    // SAFETY: the call takes no pointers; it changes only which table this thread's descriptors are looked up
    // in, and the copy holds every descriptor that is open now under the same number.
    let result = unsafe { libc::unshare(libc::CLONE_FILES) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises the limit on open files to the hard limit and returns it. It is the number of descriptors per table.
pub fn raise_limit() -> io::Result<u64> {
    let mut limit = open_files_limit()?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: setrlimit reads the struct it is given.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

/// Descriptors of a worker's table that are not connections: those copied from the process, listeners, the ring or
/// epoll, the waker, a backplane's, files that are open briefly, and connections beyond the maximum.
pub const RESERVED_DESCRIPTORS: u64 = 256;

const _: () = assert!(
    SPARE_CONNECTIONS + WORKERS_MAX < RESERVED_DESCRIPTORS as usize,
    "the spare connections and every waker have a descriptor"
);

/// The hard limit on open files, to which [`raise_limit`] raises the soft one.
pub fn open_files_max() -> io::Result<u64> {
    Ok(open_files_limit()?.rlim_max)
}

fn open_files_limit() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit through the pointer, which is valid for that.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let raised = raise_limit().unwrap();
        assert_eq!(open_files_max().unwrap(), raised);
        let limit = open_files_limit().unwrap();
        assert_eq!((raised, limit.rlim_cur), (limit.rlim_max, limit.rlim_max));
    }

    #[test]
    fn a_private_table_keeps_what_is_closed_elsewhere() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let fd = file.as_raw_fd();
        let (unshared, is_unshared) = std::sync::mpsc::channel();
        let (closed, is_closed) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            make_private().unwrap();
            unshared.send(()).unwrap();
            is_closed.recv().unwrap();
            std::fs::read_link(format!("/proc/thread-self/fd/{fd}")).unwrap()
        });
        is_unshared.recv().unwrap();
        drop(file);
        closed.send(()).unwrap();
        assert_eq!(thread.join().unwrap().to_str(), Some("/dev/null"));
    }
}
