//! The driver for kernels without io_uring and for containers that forbid it, as most do.
//!
//! Sockets are registered once, edge-triggered, for both directions, and need no further call: closing a socket ends
//! its registration as well. Sends are made one by one before the wait.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::readiness::{Polls, Readiness, since_epoch};
use super::{
    Close, Driver, DriverSettings, Event, Late, ListenerId, SendBatch, SendItem, SendResult,
    SocketId, Waker, socket, user_data,
};

/// Sockets through epoll.
#[derive(Debug)]
pub struct EpollDriver {
    poll: Poll,
    events: Events,
    readiness: Readiness,
    /// Keeps the registered eventfd open.
    _waker: Waker,
    now: Instant,
}

impl EpollDriver {
    /// A driver for the calling thread. A thread that gets a private descriptor table must have it before this call.
    pub fn new(
        settings: &DriverSettings,
        listeners: Vec<OwnedFd>,
        waker: Waker,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let readiness = Readiness::new(settings, listeners, Polls::Edge);
        for (index, fd) in (0..).zip(readiness.listeners.fds()) {
            register(&poll, fd, user_data::listener(index), Interest::READABLE)?;
        }
        if let Some(fd) = waker.fd() {
            register(&poll, fd, user_data::WAKER, Interest::READABLE)?;
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(settings.events_per_turn_max),
            readiness,
            _waker: waker,
            now: Instant::now(),
        })
    }

    fn send(&mut self, batch: &mut SendBatch) {
        let mut late = std::mem::take(&mut batch.late);
        late.clear();
        for (index, item) in (0..).zip(batch.items()) {
            let result = match self.readiness.table.open(item.id) {
                Some(entry) => match &entry.socket {
                    Some(socket) => send_item(socket, batch, item),
                    None => Some(SendResult::Failed),
                },
                None => Some(SendResult::Failed),
            };
            let Some(result) = result else { continue };
            match result {
                SendResult::Short(_) => self.readiness.handle_blocked(item.id),
                SendResult::Failed => self.readiness.handle_broken(item.id),
            }
            late.push(Late { item: index, result });
        }
        batch.late = late;
    }

    fn handle_events(&mut self) {
        for event in &self.events {
            let token = event.token().0 as u64;
            match user_data::kind(token) {
                user_data::Kind::Poll => {
                    let id = user_data::socket_id(token);
                    let hangup = event.is_read_closed() || event.is_error();
                    // There is room, or an error that a blocked sender would otherwise never see.
                    if event.is_writable() || event.is_write_closed() || event.is_error() {
                        self.readiness.handle_sendable(id);
                    }
                    if event.is_readable() || hangup {
                        self.readiness.handle_readable(id, hangup);
                    }
                }
                user_data::Kind::Listener => {
                    self.readiness.listeners.handle_ready(user_data::index(token));
                }
                // Edge-triggered: every wake is reported, so the count need not be read back to zero.
                user_data::Kind::Waker => self.readiness.woken = true,
                user_data::Kind::Room | user_data::Kind::Send => {
                    unreachable!("only the ring has requests of this kind")
                }
            }
        }
    }
}

impl Driver for EpollDriver {
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
        let fd = socket.as_raw_fd();
        self.readiness.attach(id, socket);
        let both = Interest::READABLE | Interest::WRITABLE;
        if register(&self.poll, fd, user_data::poll(id), both).is_err() {
            self.readiness.handle_unwatched(id);
        }
    }

    fn wait(&mut self, batch: &mut SendBatch, timeout: Option<Duration>) -> io::Result<()> {
        self.send(batch);
        let sleeps = batch.late.is_empty() && !self.readiness.has_leftovers();
        let timeout = if sleeps { timeout } else { Some(Duration::ZERO) };
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => self.handle_events(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        self.readiness.begin_turn();
        self.now = Instant::now();
        Ok(())
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

/// Sends one item. `None` if the kernel took it whole.
fn send_item(socket: &OwnedFd, batch: &SendBatch, item: &SendItem) -> Option<SendResult> {
    let mut slices = batch.slices(item);
    let mut sent = 0;
    while sent < item.bytes {
        let result = if batch.segment_count(item) == 1 {
            socket::send(socket, slices.next().unwrap_or_default())
        } else {
            let mut vector = [IoSlice::new(&[]); SLICES_PER_SEND_MAX];
            let mut count = 0;
            for (place, slice) in vector.iter_mut().zip(&mut slices) {
                *place = IoSlice::new(slice);
                count += 1;
            }
            let wanted: usize = vector[..count].iter().map(|slice| slice.len()).sum();
            match socket::send_vectored(socket, &vector[..count]) {
                Ok(bytes) if bytes == wanted => {
                    sent += u32::try_from(bytes).expect("an item is under 4 GiB");
                    continue;
                }
                result => result,
            }
        };
        return match result {
            Ok(bytes) => {
                sent += u32::try_from(bytes).expect("an item is under 4 GiB");
                (sent < item.bytes).then_some(SendResult::Short(sent))
            }
            Err(error) => Some(SendResult::of_error(&error, sent)),
        };
    }
    None
}

fn register(poll: &Poll, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
    let token = usize::try_from(token).expect("a 64-bit host");
    poll.registry().register(&mut SourceFd(&fd), Token(token), interest)
}

/// Slices gathered on the stack for one call; a longer item takes several.
const SLICES_PER_SEND_MAX: usize = 64;
