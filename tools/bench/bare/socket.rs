//! Safe wrappers of the socket calls of the bare loops.
#![expect(
    unsafe_code,
    reason = "recv, send, accept4 and close on plain descriptors, without the cost of a library"
)]

use std::io;
use std::os::fd::RawFd;

/// Receives without blocking; `Ok(0)` is the end of the stream.
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one exclusive slice.
    let count =
        unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

/// Returns how many bytes the kernel took, 0 if its buffer is full.
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: pointer and length are those of one slice.
    let count = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    if count >= 0 {
        return Ok(count as usize);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(0) } else { Err(error) }
}

/// The next connection in the backlog, if any.
pub fn accept(listener: RawFd) -> Option<RawFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let none = std::ptr::null_mut();
    // SAFETY: accept4 allows null for an address that is not wanted.
    let fd = unsafe { libc::accept4(listener, none, std::ptr::null_mut(), flags) };
    (fd >= 0).then_some(fd)
}

/// Closes a connection without an armed poll.
pub fn close(fd: RawFd) {
    // SAFETY: no pointers. The loops own every descriptor that they accepted and close it once.
    unsafe {
        libc::close(fd);
    }
}

/// Shuts down and closes a connection: an armed poll would keep the socket alive after a mere close.
pub fn end(fd: RawFd) {
    // SAFETY: no pointers.
    unsafe {
        libc::shutdown(fd, libc::SHUT_RDWR);
    }
    close(fd);
}

/// Connections accepted per turn.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;
