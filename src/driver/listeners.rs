//! Accepting, the same for both kernel drivers.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::{Event, ListenerId, socket};

/// The listeners of one driver.
#[derive(Debug)]
pub(super) struct Listeners {
    listeners: Vec<Listener>,
    /// Index of the listener to accept from next in this turn.
    current: usize,
    accepts_left: usize,
    /// Most connections accepted on each listener in this turn.
    accepts_per_turn_max: usize,
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    /// Other workers accept from the same socket, and may have stopped it.
    is_shared: bool,
    /// Connections may be waiting.
    ready: bool,
    /// Accepting failed, and the worker has not resumed it since.
    paused: bool,
    /// The ring holds a poll for it (io_uring only).
    armed: bool,
}

impl Listeners {
    pub fn new(sockets: Vec<OwnedFd>) -> Self {
        assert!(sockets.len() <= usize::from(u8::MAX) + 1, "listeners are named by a u8");
        let listeners = sockets
            .into_iter()
            .map(|socket| {
                let is_shared = socket::is_unix(&socket);
                Listener { socket, is_shared, ready: false, paused: false, armed: false }
            })
            .collect();
        Self { listeners, current: 0, accepts_left: 0, accepts_per_turn_max: 0 }
    }

    /// The listeners' descriptors, in the order of their ids.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> {
        self.listeners.iter().map(|listener| listener.socket.as_raw_fd())
    }

    /// The kernel says that connections wait, and that its poll has ended.
    pub fn handle_ready(&mut self, index: u32) {
        if let Some(listener) = self.listeners.get_mut(index as usize) {
            listener.ready = true;
            listener.armed = false;
        }
    }

    /// A listener that needs a poll, because no connection waits and no poll is armed. The caller arms one.
    pub fn next_to_arm(&mut self) -> Option<(u32, RawFd)> {
        let mut indexed = (0..).zip(&mut self.listeners);
        let (index, listener) = indexed.find(|(_, l)| !l.armed && !l.ready)?;
        listener.armed = true;
        Some((index, listener.socket.as_raw_fd()))
    }

    /// Whether a connection may be accepted without waiting.
    pub fn has_ready(&self) -> bool {
        self.listeners.iter().any(|listener| listener.ready && !listener.paused)
    }

    pub fn begin_turn(&mut self, accepts_per_turn_max: usize) {
        self.accepts_per_turn_max = accepts_per_turn_max;
        self.current = 0;
        self.accepts_left = accepts_per_turn_max;
    }

    /// The next connection, or the failure to get one.
    pub fn next_event<'a>(&mut self) -> Option<Event<'a, OwnedFd>> {
        while let Some(listener) = self.listeners.get_mut(self.current) {
            if !listener.ready || listener.paused || self.accepts_left == 0 {
                self.current += 1;
                self.accepts_left = self.accepts_per_turn_max;
                continue;
            }
            self.accepts_left -= 1;
            let id = ListenerId(u8::try_from(self.current).expect("checked when built"));
            let error = match socket::accept(&listener.socket) {
                Ok((socket, peer)) => return Some(Event::Accepted { listener: id, socket, peer }),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EAGAIN) => listener.ready = false,
                // The server stops, and another worker was the first to stop it.
                Some(libc::EINVAL) if listener.is_shared => listener.paused = true,
                // The queue is not empty, so without the pause the same error would return every turn. The last four
                // mean that the descriptor is not a listening socket; retrying will not help.
                Some(
                    libc::EMFILE
                    | libc::ENFILE
                    | libc::ENOBUFS
                    | libc::ENOMEM
                    | libc::EINVAL
                    | libc::EBADF
                    | libc::ENOTSOCK
                    | libc::EOPNOTSUPP,
                ) => {
                    listener.paused = true;
                    return Some(Event::AcceptFailed { listener: id, error });
                }
                // ECONNABORTED and the network errors that accept(2) passes on concern one connection, which is gone.
                // They count against the turn's limit, so a flood of them does not delay it.
                _ => {}
            }
        }
        None
    }

    pub fn resume(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(usize::from(id.0)) {
            listener.paused = false;
        }
    }

    pub fn stop(&mut self) {
        for listener in self.listeners.drain(..) {
            socket::stop_listening(listener.socket);
        }
    }
}
