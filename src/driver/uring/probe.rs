//! Whether io_uring works on this host as the driver needs it.
//!
//! Feature bits and operations are checked first. Then the behaviour that the driver relies on is tested, because
//! distributions patch kernels, containers filter system calls, and a send that failed silently would corrupt streams.

#![expect(unsafe_code, reason = "the self-test lends bytes to the kernel")]

use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use io_uring::opcode;

use super::ring::Ring;
use super::{HANGUP_EVENTS, READ_EVENTS};
use crate::driver::{Close, Keepalive, socket};

/// Checks that io_uring works; fails with the reason, worded as the end of a sentence.
pub(in crate::driver) fn is_usable() -> Result<(), String> {
    let mut ring = Ring::new(TEST_SUBMISSION_MAX, TEST_COMPLETION_MAX).map_err(|e| hint(&e))?;
    let features = ring.features();
    for (has, name) in [
        (features.is_feature_ext_arg(), "EXT_ARG"),
        (features.is_feature_nodrop(), "NODROP"),
        (features.is_feature_fast_poll(), "FAST_POLL"),
        (features.is_feature_skip_cqe_on_success(), "CQE_SKIP"),
        (features.is_feature_submit_stable(), "SUBMIT_STABLE"),
    ] {
        if !has {
            return Err(format!("the kernel's io_uring lacks the feature {name}"));
        }
    }
    let operations = ring.operations().map_err(|error| format!("probing failed: {error}"))?;
    for (code, name) in [
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::Send::CODE, "SEND"),
        (opcode::SendMsg::CODE, "SENDMSG"),
    ] {
        if !operations.is_supported(code) {
            return Err(format!("the kernel's io_uring lacks the operation {name}"));
        }
    }
    self_test(&mut ring).map_err(|what| format!("io_uring failed its self-test: {what}"))
}

/// Explains to the operator why a ring could not be set up.
fn hint(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "the kernel has no io_uring, or a seccomp profile hides it (most container runtimes' default does)"
                .into()
        }
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here: see sysctl kernel.io_uring_disabled (0 allows it), or the container's \
             seccomp profile"
                .into()
        }
        Some(libc::EINVAL) => "the kernel's io_uring is older than 6.1".into(),
        Some(libc::ENOMEM) => {
            "there is no memory for a ring: see the container's memory limit and RLIMIT_MEMLOCK".into()
        }
        _ => format!("a ring cannot be set up: {error}"),
    }
}

/// Tests the behaviour that the driver relies on, over a loopback connection.
fn self_test(ring: &mut Ring) -> Result<(), String> {
    let (socket, peer) = loopback_pair().map_err(|error| format!("no loopback: {error}"))?;
    let fd = socket.as_raw_fd();
    let say = |error: io::Error| error.to_string();

    // A poll fires once, both for bytes that arrived before it and for bytes that arrive later.
    for _ in 0..2 {
        socket::send(&peer, b"ping").map_err(say)?;
        ring.poll_once(fd, READ_EVENTS, POLL).map_err(|_| "the queue is full")?;
        let result = completion(ring, POLL)?.ok_or("a poll did not fire")?;
        let mut buffer = [0; 16];
        if result & i32::from(libc::POLLIN) == 0
            || socket::receive(&socket, &mut buffer).map_err(say)? != 4
        {
            return Err(format!("a poll fired with {result:#x}"));
        }
    }

    // A send that fits posts no completion; one that does not posts the number of bytes taken; one to a full socket
    // fails at once.
    let small = [1; 64];
    send(ring, fd, &small)?;
    if let Some(result) = completion_now(ring, SEND)? {
        return Err(format!("a send that fits completed with {result}"));
    }
    let large = vec![2; LARGE_BYTES];
    send(ring, fd, &large)?;
    let sent = completion_now(ring, SEND)?.ok_or("a short send was silent")?;
    if !usize::try_from(sent).is_ok_and(|sent| sent > 0 && sent < LARGE_BYTES) {
        return Err(format!("a short send completed with {sent}"));
    }
    // The kernel may free room while it moves the bytes that were sent, so it may take several sends to fill it.
    let mut result = None;
    for _ in 0..FILL_ROUNDS_MAX {
        send(ring, fd, &large)?;
        result = completion_now(ring, SEND)?;
        if result == Some(-libc::EAGAIN) {
            break;
        }
    }
    if result != Some(-libc::EAGAIN) {
        return Err(format!("a send to a full socket completed with {result:?}"));
    }

    shutdown_test(ring)
}

/// Tests that both ways to end a connection end the polls that are armed on it.
fn shutdown_test(ring: &mut Ring) -> Result<(), String> {
    for how in [Close::Orderly, Close::Abort] {
        let (socket, _peer) = loopback_pair().map_err(|error| format!("no loopback: {error}"))?;
        ring.poll_once(socket.as_raw_fd(), READ_EVENTS, POLL).map_err(|_| "the queue is full")?;
        if let Some(result) = completion_now(ring, POLL)? {
            return Err(format!("a poll on a silent connection fired with {result:#x}"));
        }
        socket::end(&socket, how);
        let result = completion(ring, POLL)?.ok_or("an armed poll outlived its connection")?;
        if result & HANGUP_EVENTS == 0 {
            return Err(format!("a poll on a dead connection fired with {result:#x}"));
        }
    }
    Ok(())
}

fn send(ring: &mut Ring, fd: i32, bytes: &[u8]) -> Result<(), String> {
    // SAFETY: `completion_now` enters before the bytes go away, and if the kernel has not taken the request then, the
    // ring is dropped without another enter.
    unsafe { ring.send(fd, bytes, SEND) }.map_err(|_| "the queue is full".to_owned())
}

/// The completion that arrives with the enter that submits, without waiting.
fn completion_now(ring: &mut Ring, data: u64) -> Result<Option<i32>, String> {
    ring.enter(0, None).map_err(|error| error.to_string())?;
    if !ring.is_submitted() {
        // The caller gives up and drops the ring, which then submits nothing.
        return Err("a request was not taken".into());
    }
    take(ring, data)
}

/// The completion that arrives within the deadline.
fn completion(ring: &mut Ring, data: u64) -> Result<Option<i32>, String> {
    ring.enter(1, Some(TEST_DEADLINE)).map_err(|error| error.to_string())?;
    take(ring, data)
}

fn take(ring: &mut Ring, data: u64) -> Result<Option<i32>, String> {
    match ring.pop() {
        Some(completion) if completion.user_data == data => Ok(Some(completion.result)),
        Some(completion) => Err(format!("completed {} instead of {data}", completion.user_data)),
        None => Ok(None),
    }
}

fn loopback_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let listener = socket::bind_listener((Ipv4Addr::LOCALHOST, 0).into(), Keepalive::Off)?;
    let peer = TcpStream::connect(listener.local_addr()?)?;
    let (socket, _) = socket::accept(&listener.into())?;
    Ok((socket, peer.into()))
}

const POLL: u64 = 1;
const SEND: u64 = 2;
const TEST_SUBMISSION_MAX: u32 = 8;
const TEST_COMPLETION_MAX: u32 = 16;
const TEST_DEADLINE: Duration = Duration::from_secs(2);
/// More bytes than a socket takes at once.
const LARGE_BYTES: usize = 16 << 20;
const FILL_ROUNDS_MAX: usize = 64;
