//! The system calls of the instruments that no crate of the package wraps.
#![expect(unsafe_code, reason = "each call is one line of libc behind a safe function")]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::AsRawFd;

/// Lifts the soft limit on open files to the hard one. Children inherit it.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid, exclusive rlimit for both calls.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))
    }
}

/// Gives the calling thread a descriptor table of its own: the limit on open files then holds per thread.
pub fn unshare_descriptors() -> io::Result<()> {
    // SAFETY: no pointers. Descriptors are copied, so nothing that other threads hold is closed.
    check(unsafe { libc::unshare(libc::CLONE_FILES) })
}

/// Keeps the calling thread, and threads and children that it starts, on one core.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set; `core` is checked by CPU_SET's own bound.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(core, &mut set);
        check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))
    }
}

/// Lets the calling thread preempt ordinary ones: a probe must not measure the wait for its own turn on the core.
pub fn preempt_others() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: `parameters` is valid for the call.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) })
}

/// CPU time of a process, all threads, ended ones too, up to this instant.
pub fn cpu_clock_nanoseconds(pid: u32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both out-pointers are valid and exclusive.
    unsafe {
        let error = libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock);
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        check(libc::clock_gettime(clock, &raw mut time))?;
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The port is chosen at `connect`, per destination: one source address serves 28,000 connections to each server
/// port instead of 28,000 in all.
pub fn bind_address_no_port(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is a valid int for the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })
}

/// Asks a process that we started to end.
pub fn terminate(pid: u32) {
    // SAFETY: no pointers; the pid is of a child that has not been waited for, so it cannot be another's.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
