#!/usr/bin/env bash
# A ring that is entered continuously, but never waited on, never completes a read of available bytes.
#
# The Rust crate io-uring 0.7.15, Linux 6.18. A read is queued, a byte is written to the other end, and then
# `submit_and_wait(0)` is called in a loop for a second, followed by a check of the completion queue: once with
# IORING_SETUP_DEFER_TASKRUN, once with that and IORING_SETUP_TASKRUN_FLAG.
#
# Expected: every call is an io_uring_enter, and the completion is visible after the first one.
# Observed: this holds with the second flag, which the crate documents for COOP_TASKRUN, and for checks of the queue
# without a call. Without it, a million calls complete nothing, and a following `submit_and_wait(1)` returns the byte at
# once: the crate sets IORING_ENTER_GETEVENTS only if it waits or the flags of the ring require it, and deferred work
# runs in no other call. A loop that waits when it is idle, and only submits when it is busy, starves while it is busy.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2021"

[dependencies]
io-uring = "=0.7.15"
TOML
cat >"$folder/src/main.rs" <<'RS'
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use io_uring::{opcode, types, IoUring};

/// Returns the calls without a wait until the read completed, whether it completed within a second, and after a wait.
fn calls_until_read(taskrun_flag: bool) -> (u64, bool, bool) {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    if taskrun_flag {
        builder.setup_taskrun_flag();
    }
    let mut ring: IoUring = builder.build(8).expect("io_uring of Linux 6.1 or later");
    let (mut writer, reader) = UnixStream::pair().unwrap();
    let mut byte = [0];
    let read = opcode::Read::new(types::Fd(reader.as_raw_fd()), byte.as_mut_ptr(), 1).build();
    // SAFETY: the socket and the byte outlive the read, whose completion is awaited below.
    unsafe { ring.submission().push(&read).unwrap() };
    ring.submit().unwrap();
    writer.write_all(b"x").unwrap();

    let end = Instant::now() + Duration::from_secs(1);
    let mut calls = 0;
    while Instant::now() < end {
        ring.submit_and_wait(0).unwrap();
        calls += 1;
        if ring.completion().next().is_some() {
            return (calls, true, true);
        }
    }
    ring.submit_and_wait(1).unwrap();
    let is_read = ring.completion().next().is_some();
    (calls, false, is_read)
}

fn main() {
    let (calls, not_waiting, waiting) = calls_until_read(false);
    println!("DEFER_TASKRUN: read in {calls} calls: {not_waiting}; after a wait for one: {waiting}");
    let (calls_with, with_flag, _) = calls_until_read(true);
    println!("and TASKRUN_FLAG: read in {calls_with} calls: {with_flag}");
    std::process::exit(i32::from(calls < 1000 || not_waiting || !waiting || !with_flag));
}
RS
cd "$folder"
cargo build --quiet
timeout 60 target/debug/finding
