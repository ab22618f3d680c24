//! The part of a turn that both kernel drivers share: from the kernel's report that a socket is ready to an event.
//!
//! [`Turn`] decides which sockets a turn serves, and in which order.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::listeners::Listeners;
use super::socket_table::{
    ARM_LISTED, BLOCKED, BROKEN, BULKY, CLOSING, ENDED, Entry, HANGUP, LISTED, NEW, PAUSED,
    READ_ARMED, READABLE, SENDABLE, SocketTable, WRITE_ARMED,
};
use super::turn::{Turn, Waiting};
use super::{Close, DriverSettings, End, Event, SocketId, socket};

/// The ready sockets and listeners of one driver, and the events that a turn makes of them.
#[derive(Debug)]
pub(super) struct Readiness {
    pub table: SocketTable,
    pub listeners: Listeners,
    /// The waker was called.
    pub woken: bool,
    /// Sockets that need a poll; drained by the driver whose polls fire once.
    pub to_arm: Vec<SocketId>,
    waiting: Waiting,
    turn: Turn,
    closed: VecDeque<SocketId>,
    polls: Polls,
    buffer: Box<[u8]>,
}

/// How the kernel reports that a socket is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polls {
    /// On every change, after one registration.
    Edge,
    /// Once for each poll that is armed.
    Once,
}

/// An event before it borrows the buffer.
enum Step {
    Received(usize),
    Ended(End),
    Sendable,
}

/// The time since the Unix epoch; zero if the clock is set to an earlier time.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Readiness {
    pub fn new(settings: &DriverSettings, listeners: Vec<OwnedFd>, polls: Polls) -> Self {
        Self {
            table: SocketTable::with_capacity(settings.sockets_max),
            listeners: Listeners::new(listeners),
            woken: false,
            to_arm: Vec::new(),
            waiting: Waiting::default(),
            turn: Turn::new(settings),
            closed: VecDeque::new(),
            polls,
            buffer: vec![0; settings.receive_buffer_bytes].into_boxed_slice(),
        }
    }

    /// Whether there are events to report without asking the kernel for more.
    pub fn has_leftovers(&self) -> bool {
        self.woken
            || !self.waiting.is_empty()
            || !self.closed.is_empty()
            || self.listeners.has_ready()
    }

    pub fn begin_turn(&mut self) {
        let accepts_per_turn_max = self.turn.begin(&self.waiting);
        self.listeners.begin_turn(accepts_per_turn_max);
    }

    pub fn next_event(&mut self) -> Option<Event<'_, OwnedFd>> {
        if self.woken {
            self.woken = false;
            return Some(Event::Woken);
        }
        while self.turn.has_room() {
            if let Some(id) = self.closed.pop_front() {
                self.turn.count_event();
                self.finish_close(id);
                return Some(Event::Closed { id });
            }
            if let Some(event) = self.listeners.next_event() {
                return Some(event);
            }
            let Some(id) = self.turn.next(&mut self.waiting) else { break };
            if let Some(step) = self.step(id) {
                self.turn.count_event();
                return Some(match step {
                    Step::Received(count) => {
                        self.turn.count_received(count);
                        Event::Received { id, bytes: &mut self.buffer[..count] }
                    }
                    Step::Ended(end) => Event::Ended { id, end },
                    Step::Sendable => Event::Sendable { id },
                });
            }
        }
        self.listeners.next_event()
    }

    /// Reports that a socket has room to send, or receives from it once.
    fn step(&mut self, id: SocketId) -> Option<Step> {
        let entry = self.table.open(id)?;
        entry.clear(LISTED);
        if entry.has(SENDABLE) {
            entry.clear(SENDABLE);
            if entry.wants_receive() {
                entry.set(LISTED);
                self.turn.put_back(&mut self.waiting, id, entry.has(BULKY));
            }
            return Some(Step::Sendable);
        }
        if !entry.wants_receive() {
            return None;
        }
        let socket = entry.socket.as_ref()?;
        let is_alone = self.waiting.is_empty() && !self.listeners.has_ready();
        let window = self.turn.receive_bytes_max(is_alone);
        let received = loop {
            match socket::receive(socket, &mut self.buffer[..window]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        match received {
            Ok(0) => {
                entry.set(ENDED);
                Some(Step::Ended(if entry.has(BROKEN) { End::Reset } else { End::Eof }))
            }
            Ok(count) => {
                entry.clear(NEW | BULKY);
                if self.turn.is_bulky(count) {
                    entry.set(BULKY);
                }
                if count == window || entry.has(HANGUP) {
                    list(self.waiting.staying(entry.has(BULKY)), id, entry);
                } else {
                    entry.clear(READABLE);
                    list_to_arm(self.polls, &mut self.to_arm, id, entry);
                }
                Some(Step::Received(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                entry.clear(READABLE | HANGUP);
                list_to_arm(self.polls, &mut self.to_arm, id, entry);
                None
            }
            Err(_) => {
                entry.set(ENDED);
                Some(Step::Ended(End::Reset))
            }
        }
    }

    /// Handles the kernel's report that a socket is readable; `hangup`: its peer has sent FIN or RST.
    #[inline]
    pub fn handle_readable(&mut self, id: SocketId, hangup: bool) {
        if let Some(entry) = self.table.open(id) {
            entry.set(if hangup { READABLE | HANGUP } else { READABLE });
            if entry.wants_receive() {
                if hangup {
                    list(&mut self.waiting.hung_up, id, entry);
                } else if entry.has(NEW) {
                    list(&mut self.waiting.accepted, id, entry);
                } else {
                    list(self.waiting.staying(entry.has(BULKY)), id, entry);
                }
            }
        }
    }

    /// Handles the kernel's report that a socket has room to send. It matters only after a send that was not taken
    /// whole.
    #[inline]
    pub fn handle_sendable(&mut self, id: SocketId) {
        if let Some(entry) = self.table.open(id)
            && entry.has(BLOCKED)
        {
            entry.clear(BLOCKED);
            entry.set(SENDABLE);
            list(self.waiting.staying(entry.has(BULKY)), id, entry);
        }
    }

    /// Handles the end of a poll that fires once. Returns whether its result matters: not for a socket that was closed
    /// and only waited for its polls to end.
    #[inline]
    pub fn handle_disarmed(&mut self, id: SocketId, armed: u16) -> bool {
        let Some(entry) = self.table.entry(id) else { return false };
        entry.clear(armed);
        if !entry.has(CLOSING) {
            return true;
        }
        if !entry.has(READ_ARMED | WRITE_ARMED) {
            self.closed.push_back(id);
        }
        false
    }

    /// Handles a send that was not taken whole: the socket is reported once it has room.
    pub fn handle_blocked(&mut self, id: SocketId) {
        if let Some(entry) = self.table.open(id) {
            entry.set(BLOCKED);
            list_to_arm(self.polls, &mut self.to_arm, id, entry);
        }
    }

    /// Handles a send that failed for good.
    pub fn handle_broken(&mut self, id: SocketId) {
        if let Some(entry) = self.table.open(id) {
            entry.set(BROKEN);
        }
    }

    /// Adds a socket. Where polls fire once, the first receive is attempted before one is armed.
    pub fn attach(&mut self, id: SocketId, socket: OwnedFd) {
        self.table.attach(id, socket);
        if self.polls == Polls::Once {
            // Most clients send as soon as they connect: an attempt to receive costs less than a poll.
            self.handle_readable(id, false);
        }
    }

    /// Handles the kernel's refusal to watch a socket: the worker sees a connection that was reset at once.
    pub fn handle_unwatched(&mut self, id: SocketId) {
        if let Some(entry) = self.table.open(id) {
            if let Some(socket) = &entry.socket {
                socket::end(socket, Close::Orderly);
            }
            entry.set(BROKEN);
        }
        self.handle_readable(id, true);
    }

    pub fn pause(&mut self, id: SocketId) {
        if let Some(entry) = self.table.open(id) {
            entry.set(PAUSED);
        }
    }

    pub fn resume(&mut self, id: SocketId) {
        if let Some(entry) = self.table.open(id) {
            entry.clear(PAUSED);
            if entry.wants_receive() {
                list(self.waiting.staying(entry.has(BULKY)), id, entry);
            } else {
                list_to_arm(self.polls, &mut self.to_arm, id, entry);
            }
        }
    }

    pub fn acknowledge(&mut self, id: SocketId) {
        if let Some(Entry { socket: Some(socket), .. }) = self.table.open(id) {
            socket::acknowledge(socket);
        }
    }

    pub fn shutdown_write(&mut self, id: SocketId) {
        if let Some(Entry { socket: Some(socket), .. }) = self.table.open(id) {
            socket::shutdown_write(socket);
        }
    }

    pub fn close(&mut self, id: SocketId, how: Close) {
        let Some(entry) = self.table.open(id) else { return };
        entry.set(CLOSING);
        if entry.has(READ_ARMED | WRITE_ARMED) {
            // Ending the connection ends its polls; `handle_disarmed` sees the last of them.
            if let Some(socket) = &entry.socket {
                socket::end(socket, how);
            }
        } else {
            let has_ended = entry.has(ENDED);
            match entry.socket.take() {
                // After the end of the stream there are no unread bytes to discard.
                Some(socket) if has_ended && how == Close::Orderly => drop(socket),
                Some(socket) => socket::close(socket, how),
                None => {}
            }
            self.closed.push_back(id);
        }
    }

    /// Closes a socket that waited for its polls to end, and frees its slot.
    fn finish_close(&mut self, id: SocketId) {
        if let Some(entry) = self.table.entry(id)
            && let Some(socket) = entry.socket.take()
        {
            // The connection was ended before, orderly or not; only unread bytes may remain to be discarded.
            socket::close(socket, Close::Orderly);
        }
        self.table.free(id);
    }
}

#[inline]
fn list(list: &mut VecDeque<SocketId>, id: SocketId, entry: &mut Entry) {
    if !entry.has(LISTED) {
        entry.set(LISTED);
        list.push_back(id);
    }
}

#[inline]
fn list_to_arm(polls: Polls, to_arm: &mut Vec<SocketId>, id: SocketId, entry: &mut Entry) {
    if polls == Polls::Once && !entry.has(ARM_LISTED) {
        entry.set(ARM_LISTED);
        to_arm.push(id);
    }
}
