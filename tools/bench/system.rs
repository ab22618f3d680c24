//! System calls of the benchmarks that no dependency wraps.
#![expect(unsafe_code, reason = "each call is one line of libc behind a safe function")]

use std::io;
use std::mem::{size_of, zeroed};

/// Pins the calling thread, and threads and processes that it starts, to one core.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    pin_thread_to_core(0, core)
}

/// Pins a thread of any process to one core; 0 is the calling thread.
pub fn pin_thread_to_core(thread: u32, core: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set; `core` is checked by CPU_SET's own bound.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(core, &mut set);
        check(libc::sched_setaffinity(
            thread as libc::pid_t,
            size_of::<libc::cpu_set_t>(),
            &raw const set,
        ))
    }
}

/// Runs the calling thread only while its core is otherwise idle, so that it delays not even a kernel thread.
pub fn run_when_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameters` is valid for the call.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) })
}

/// Gives a thread of another process real-time priority (SCHED_FIFO), below that of measurements.
pub fn prioritize(thread: u32) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 1 };
    let thread = thread as libc::pid_t;
    // SAFETY: `parameters` is valid for the call.
    check(unsafe { libc::sched_setscheduler(thread, libc::SCHED_FIFO, &raw const parameters) })
}

/// Sends SIGTERM to a child process.
pub fn terminate(pid: u32) {
    // SAFETY: no pointers; the pid is of a child that has not been waited for, so it cannot be another's.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
