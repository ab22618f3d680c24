//! The system calls of the instruments that no crate of the package wraps.
#![expect(unsafe_code, reason = "each call is one line of libc behind a safe function")]

use std::io;
use std::mem::{size_of, zeroed};

/// Keeps the calling thread, and threads and children that it starts, on one core.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set; `core` is checked by CPU_SET's own bound.
    unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(core, &mut set);
        check(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set))
    }
}

/// Has the calling thread run only while nothing else wants its core: not even a kernel thread waits for it.
pub fn run_when_idle() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: `parameters` is valid for the call.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) })
}

/// Asks a process that we started to end.
pub fn terminate(pid: u32) {
    // SAFETY: no pointers; the pid is of a child that has not been waited for, so it cannot be another's.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
