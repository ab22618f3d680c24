//! System calls of `bench` and `c1m` that no dependency wraps.
#![expect(unsafe_code, reason = "each call is one line of libc behind a safe function")]

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

/// Gives the calling thread real-time priority (SCHED_FIFO), so that a measurement is not delayed by other threads, not
/// even by those of a server that has such a priority.
pub fn preempt_others() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 2 };
    // SAFETY: `parameters` is valid for the call.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) })
}

/// CPU time of a process until now, including all threads, those that ended too.
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

/// Defers the choice of the port to `connect`, per destination: one source address then allows 28,000 connections to
/// each server port instead of 28,000 in total.
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

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
