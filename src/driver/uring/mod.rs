//! The driver for kernels from 6.1 on: one system call a turn.
//!
//! `wait` submits the turn's sends, rearms the polls that fired, and sleeps, in one `io_uring_enter`. Sends complete
//! inside it and post a completion only if they were not taken whole. A poll ends when it fires, so a socket is paused
//! by not rearming it. Requests are never cancelled: a cancellation searches the kernel's table of requests, which
//! takes a millisecond for a million of them. A socket is closed by shutting it down, which ends its polls, and closing
//! it then.

#![expect(unsafe_code, reason = "sends lend the batch's bytes to the kernel")]

mod probe;
mod ring;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

pub(super) use probe::is_usable;
use ring::{Full, Ring};

use super::readiness::{Polls, Readiness, since_epoch};
use super::socket_table::{ARM_LISTED, BLOCKED, ENDED, PAUSED, READ_ARMED, READABLE, WRITE_ARMED};
use super::{
    Close, Driver, DriverSettings, Event, Late, ListenerId, SendBatch, SendItem, SendResult,
    SocketId, Waker, user_data,
};

/// Sockets through io_uring. It must stay on the thread that made it.
#[derive(Debug)]
pub struct UringDriver {
    ring: Ring,
    readiness: Readiness,
    waker: Waker,
    waker_armed: bool,
    /// Number of the turn, in the completions of its sends, so that none is attributed to another batch.
    turn: u32,
    late: Vec<Late>,
    /// The loop failed. Requests in the queue may point at freed bytes, so the ring is never entered again.
    failed: bool,
    now: Instant,
}

impl UringDriver {
    /// A driver for the calling thread. A thread that gets a private descriptor table must have it before this call.
    pub fn new(
        settings: &DriverSettings,
        listeners: Vec<OwnedFd>,
        waker: Waker,
    ) -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new(SUBMISSION_MAX, COMPLETION_MAX)?,
            readiness: Readiness::new(settings, listeners, Polls::Once),
            waker,
            waker_armed: false,
            turn: 0,
            late: Vec::new(),
            failed: false,
            now: Instant::now(),
        })
    }

    /// Pushes the sends of the batch. A queue that fills up is submitted in between.
    fn push_sends(&mut self, batch: &SendBatch) -> io::Result<()> {
        for (index, item) in (0..).zip(batch.items()) {
            let socket = self.readiness.table.open(item.id).and_then(|entry| entry.socket.as_ref());
            let Some(fd) = socket.map(|socket| socket.as_raw_fd()) else {
                self.late.push(Late { item: index, result: SendResult::Failed });
                continue;
            };
            let data = user_data::send(self.turn, index);
            while push_send(&mut self.ring, fd, batch, item, data).is_err() {
                self.enter(batch, 0, None)?;
            }
        }
        Ok(())
    }

    /// Pushes a poll for each socket, listener and waker that needs one and has none armed.
    fn push_polls(&mut self, batch: &SendBatch) -> io::Result<()> {
        let mut to_arm = std::mem::take(&mut self.readiness.to_arm);
        for id in to_arm.drain(..) {
            let Some(entry) = self.readiness.table.open(id) else { continue };
            let Some(fd) = entry.socket.as_ref().map(|socket| socket.as_raw_fd()) else {
                continue;
            };
            entry.clear(ARM_LISTED);
            let reads = !entry.has(READ_ARMED | READABLE | PAUSED | ENDED);
            let writes = entry.has(BLOCKED) && !entry.has(WRITE_ARMED);
            // The bits are set first, because an enter in between may already return completions.
            if reads {
                entry.set(READ_ARMED);
            }
            if writes {
                entry.set(WRITE_ARMED);
            }
            if reads {
                self.poll_once(batch, fd, READ_EVENTS, user_data::poll(id))?;
            }
            if writes {
                self.poll_once(batch, fd, libc::POLLOUT.into(), user_data::room(id))?;
            }
        }
        // An enter above may have listed more sockets; they wait for the next turn, whose wait does not sleep.
        to_arm.append(&mut self.readiness.to_arm);
        self.readiness.to_arm = to_arm;

        while let Some((index, fd)) = self.readiness.listeners.next_to_arm() {
            self.poll_once(batch, fd, libc::POLLIN.into(), user_data::listener(index))?;
        }
        if !self.waker_armed
            && let Some(fd) = self.waker.fd()
        {
            self.waker_armed = true;
            while self.ring.poll_forever(fd, libc::POLLIN.into(), user_data::WAKER).is_err() {
                self.enter(batch, 0, None)?;
            }
        }
        Ok(())
    }

    fn poll_once(&mut self, batch: &SendBatch, fd: i32, events: i32, data: u64) -> io::Result<()> {
        while self.ring.poll_once(fd, events, data).is_err() {
            self.enter(batch, 0, None)?;
        }
        Ok(())
    }

    /// Submits everything that was pushed, waits for `want` completions, and handles those that arrived.
    fn enter(&mut self, batch: &SendBatch, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        self.ring.enter(want, timeout)?;
        self.handle_completions(batch)?;
        for _ in 0..ENTER_RETRIES_MAX {
            if self.ring.is_submitted() {
                return Ok(());
            }
            // The kernel took only a part, because it lacks memory or room for completions. The batch's bytes are lent
            // to it until it has taken the rest.
            std::thread::yield_now();
            self.ring.enter(0, None)?;
            self.handle_completions(batch)?;
        }
        Err(io::Error::from_raw_os_error(libc::EBUSY))
    }

    fn handle_completions(&mut self, batch: &SendBatch) -> io::Result<()> {
        loop {
            while let Some(completion) = self.ring.pop() {
                let data = completion.user_data;
                match user_data::kind(data) {
                    user_data::Kind::Poll => {
                        let id = user_data::socket_id(data);
                        if self.readiness.handle_disarmed(id, READ_ARMED) {
                            // A poll that failed is handled like one that fired: receiving returns the reason.
                            let hangup =
                                completion.result > 0 && completion.result & HANGUP_EVENTS != 0;
                            self.readiness.handle_readable(id, hangup);
                        }
                    }
                    user_data::Kind::Room => {
                        let id = user_data::socket_id(data);
                        if self.readiness.handle_disarmed(id, WRITE_ARMED) {
                            self.readiness.handle_sendable(id);
                        }
                    }
                    user_data::Kind::Send => self.handle_late(batch, data, completion.result),
                    user_data::Kind::Listener => {
                        self.readiness.listeners.handle_ready(user_data::index(data));
                    }
                    user_data::Kind::Waker => {
                        self.readiness.woken = true;
                        self.waker_armed = completion.more;
                    }
                }
            }
            if !self.ring.is_overflowed() {
                return Ok(());
            }
            // The completions that overflowed may include this batch's late sends.
            self.ring.enter(0, None)?;
        }
    }

    fn handle_late(&mut self, batch: &SendBatch, data: u64, result: i32) {
        let index = user_data::index(data);
        let item = batch.items().get(index as usize);
        let Some(item) = item.filter(|_| user_data::generation(data) == self.turn) else {
            debug_assert!(false, "sends complete within their turn");
            return;
        };
        let result = match u32::try_from(result) {
            Ok(sent) if sent >= item.bytes => return,
            Ok(sent) => SendResult::Short(sent),
            Err(_) => SendResult::of_error(&io::Error::from_raw_os_error(-result), 0),
        };
        match result {
            SendResult::Short(_) => self.readiness.handle_blocked(item.id),
            SendResult::Failed => self.readiness.handle_broken(item.id),
        }
        self.late.push(Late { item: index, result });
    }

    fn submit_and_sleep(&mut self, batch: &SendBatch, timeout: Option<Duration>) -> io::Result<()> {
        self.push_sends(batch)?;
        self.push_polls(batch)?;
        let sleeps = timeout != Some(Duration::ZERO)
            && self.late.is_empty()
            && self.readiness.to_arm.is_empty()
            && !self.readiness.has_leftovers();
        if sleeps {
            self.enter(batch, 1, timeout)?;
        }
        // An enter returns about twenty polls, in the order in which they fired. If the rest were left to later turns,
        // sockets with bytes to read would wait for all sockets that were closed before.
        for _ in 0..ENTERS_PER_TURN_MAX {
            if !self.ring.needs_enter() {
                break;
            }
            self.enter(batch, 0, None)?;
        }
        Ok(())
    }
}

impl Driver for UringDriver {
    type Socket = OwnedFd;

    fn now(&self) -> Instant {
        self.now
    }

    fn read_clock(&self) -> Instant {
        Instant::now()
    }

    fn wall_clock(&self) -> Duration {
        since_epoch()
    }

    fn attach(&mut self, id: SocketId, socket: OwnedFd) {
        self.readiness.attach(id, socket);
    }

    fn wait(&mut self, batch: &mut SendBatch, timeout: Option<Duration>) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("the ring failed before"));
        }
        self.turn = self.turn.wrapping_add(1);
        self.late = std::mem::take(&mut batch.late);
        self.late.clear();
        let result = self.submit_and_sleep(batch, timeout);
        self.failed = result.is_err();
        batch.late = std::mem::take(&mut self.late);
        self.readiness.begin_turn();
        self.now = Instant::now();
        result
    }

    fn next_event(&mut self) -> Option<Event<'_, OwnedFd>> {
        self.readiness.next_event()
    }

    fn pause(&mut self, id: SocketId) {
        self.readiness.pause(id);
    }

    fn resume(&mut self, id: SocketId) {
        self.readiness.resume(id);
    }

    fn acknowledge(&mut self, id: SocketId) {
        self.readiness.acknowledge(id);
    }

    fn shutdown_write(&mut self, id: SocketId) {
        self.readiness.shutdown_write(id);
    }

    fn close(&mut self, id: SocketId, how: Close) {
        self.readiness.close(id, how);
    }

    fn resume_accepting(&mut self, listener: ListenerId) {
        self.readiness.listeners.resume(listener);
    }

    fn stop_listening(&mut self) {
        self.readiness.listeners.stop();
    }
}

#[inline]
fn push_send(
    ring: &mut Ring,
    fd: i32,
    batch: &SendBatch,
    item: &SendItem,
    data: u64,
) -> Result<(), Full> {
    let count = batch.segment_count(item);
    let mut slices = batch.slices(item);
    if count == 1 {
        let bytes = slices.next().unwrap_or_default();
        // SAFETY: the batch is borrowed until `wait` returns, and `wait` returns without an error only after the
        // kernel took all that was pushed; after an error the ring is never entered again.
        unsafe { ring.send(fd, bytes, data) }
    } else {
        // SAFETY: as above.
        unsafe { ring.send_vectored(fd, slices, count, data) }
    }
}

/// Requests submitted by one enter; a larger batch takes several.
const SUBMISSION_MAX: u32 = 1024;
/// Enters of one turn, apart from the one that sleeps and those that make room in the queues.
const ENTERS_PER_TURN_MAX: usize = 256;
/// Completions that fit into the queue; the kernel keeps those beyond it aside.
const COMPLETION_MAX: u32 = 32_768;
/// Events of a poll for bytes: data, or the peer's FIN. HUP and ERR are always reported.
const READ_EVENTS: i32 = (libc::POLLIN | libc::POLLRDHUP) as i32;
const HANGUP_EVENTS: i32 = (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) as i32;
/// Enters without progress after which the loop fails.
const ENTER_RETRIES_MAX: usize = 100_000;
