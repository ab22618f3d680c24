//! The part of a turn that both kernel drivers share: from "the kernel says it is ready" to events.
//!
//! A socket that is ready stands in one list, once. A turn takes from its front those that were in it when the
//! turn began: what becomes ready later, or has more than one buffer to give, waits for the next turn, so that
//! no peer can starve another. Sockets that come and sockets that go stand in lists of their own, and a turn takes few
//! of them: when a hundred thousand clients go at once and come back, those who stay hardly notice. It takes those few
//! first: a turn that ends early, because peers send as much as they can, has served them.
//!
//! Behind them come the sockets whose last receive brought little, then those that had more to give, as flows that are
//! sparse go before those that build queues in FQ-CoDel (RFC 8290 section 4.2): who says little waits for a turn, and
//! not for a turn of each peer that floods. A turn in which the latter had nothing is followed by one that begins with
//! one of them, so that many who say little do not starve them either.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::limits::CROWD_MIN;

use super::listeners::Listeners;
use super::socket_table::{
    ARM_LISTED, BLOCKED, BROKEN, BULKY, CLOSING, ENDED, Entry, HANGUP, LISTED, NEW, PAUSED,
    READ_ARMED, READABLE, SENDABLE, SocketTable, WRITE_ARMED,
};
use super::{Close, DriverSettings, End, Event, SocketId, socket};

/// Who is ready, and what the turn makes of it.
#[derive(Debug)]
pub(super) struct Readiness {
    pub table: SocketTable,
    pub listeners: Listeners,
    /// The waker was called.
    pub woken: bool,
    /// Sockets that need a poll; drained by the driver that polls once.
    pub to_arm: Vec<SocketId>,
    /// Those whose last receive brought little.
    ready: VecDeque<SocketId>,
    /// Those that had more to give.
    bulky: VecDeque<SocketId>,
    hung_up: VecDeque<SocketId>,
    newcomers: VecDeque<SocketId>,
    closed: VecDeque<SocketId>,
    polls: Polls,
    buffer: Box<[u8]>,
    events_per_turn_max: usize,
    ready_left: usize,
    bulky_left: usize,
    /// Turns that began with some of them since one of them had its share.
    bulky_waited: u32,
    hung_up_left: usize,
    newcomers_left: usize,
    churn_per_turn_max: usize,
    churn_per_shared_turn_max: usize,
    events_left: usize,
    received_bytes_per_turn_max: usize,
    receive_share_bytes: usize,
    sparse_receive_bytes_max: usize,
    bytes_left: usize,
}

/// How the kernel tells that a socket is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Polls {
    /// Whenever that changes, without being asked again.
    Edge,
    /// Once for each time it is asked.
    Once,
}

/// An event before it borrows the buffer.
enum Step {
    Received(usize),
    Ended(End),
    Sendable,
}

/// The time since the beginning of 1970; nothing where the clock stands before that.
pub fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Readiness {
    pub fn new(settings: &DriverSettings, listeners: Vec<TcpListener>, polls: Polls) -> Self {
        assert!(settings.receive_buffer_bytes > 0, "a receive of nothing looks like the end");
        assert!(settings.events_per_turn_max > 0, "a turn makes progress");
        Self {
            table: SocketTable::with_capacity(settings.sockets_max),
            listeners: Listeners::new(listeners),
            woken: false,
            to_arm: Vec::new(),
            ready: VecDeque::new(),
            bulky: VecDeque::new(),
            hung_up: VecDeque::new(),
            newcomers: VecDeque::new(),
            closed: VecDeque::new(),
            polls,
            buffer: vec![0; settings.receive_buffer_bytes].into_boxed_slice(),
            events_per_turn_max: settings.events_per_turn_max,
            received_bytes_per_turn_max: settings.received_bytes_per_turn_max,
            receive_share_bytes: settings.receive_share_bytes,
            sparse_receive_bytes_max: settings.sparse_receive_bytes_max,
            bytes_left: 0,
            ready_left: 0,
            bulky_left: 0,
            bulky_waited: 0,
            hung_up_left: 0,
            newcomers_left: 0,
            churn_per_turn_max: settings.churn_per_turn_max,
            churn_per_shared_turn_max: settings.churn_per_shared_turn_max,
            events_left: 0,
        }
    }

    /// Whether there are events to report without asking the kernel for more.
    pub fn has_leftovers(&self) -> bool {
        self.woken
            || !self.ready.is_empty()
            || !self.bulky.is_empty()
            || !self.hung_up.is_empty()
            || !self.newcomers.is_empty()
            || !self.closed.is_empty()
            || self.listeners.has_ready()
    }

    pub fn begin_turn(&mut self) {
        self.ready_left = self.ready.len();
        self.bulky_left = self.bulky.len();
        self.bulky_waited = if self.bulky_left > 0 { self.bulky_waited + 1 } else { 0 };
        let others_wait = self.ready_left + self.bulky_left > 0
            || self.hung_up.len() + self.newcomers.len() > CROWD_MIN;
        let churn =
            if others_wait { self.churn_per_shared_turn_max } else { self.churn_per_turn_max };
        self.hung_up_left = self.hung_up.len().min(churn);
        // Also of those that are accepted in this turn.
        self.newcomers_left = churn;
        self.events_left = self.events_per_turn_max;
        self.bytes_left = self.received_bytes_per_turn_max;
        self.listeners.begin_turn(churn);
    }

    pub fn next_event(&mut self) -> Option<Event<'_, OwnedFd>> {
        if self.woken {
            self.woken = false;
            return Some(Event::Woken);
        }
        while self.events_left > 0 && self.bytes_left > 0 {
            if let Some(id) = self.closed.pop_front() {
                self.events_left -= 1;
                self.finish_close(id);
                return Some(Event::Closed { id });
            }
            if let Some(event) = self.listeners.next_event() {
                return Some(event);
            }
            let Some(id) = self.next_ready() else { break };
            if let Some(step) = self.step(id) {
                self.events_left -= 1;
                return Some(match step {
                    Step::Received(count) => {
                        self.bytes_left = self.bytes_left.saturating_sub(count);
                        Event::Received { id, bytes: &mut self.buffer[..count] }
                    }
                    Step::Ended(end) => Event::Ended { id, end },
                    Step::Sendable => Event::Sendable { id },
                });
            }
        }
        self.listeners.next_event()
    }

    fn next_ready(&mut self) -> Option<SocketId> {
        for (left, list) in [
            (&mut self.newcomers_left, &mut self.newcomers),
            (&mut self.hung_up_left, &mut self.hung_up),
        ] {
            if *left > 0
                && let Some(id) = list.pop_front()
            {
                *left -= 1;
                return Some(id);
            }
        }
        if self.ready_left > 0 && self.bulky_waited < 2 {
            self.ready_left -= 1;
            return self.ready.pop_front();
        }
        self.bulky_waited = 0;
        self.bulky_left = self.bulky_left.checked_sub(1)?;
        self.bulky.pop_front()
    }

    /// Reports a socket's room, or receives from it once.
    fn step(&mut self, id: SocketId) -> Option<Step> {
        let entry = self.table.open(id)?;
        entry.clear(LISTED);
        if entry.has(SENDABLE) {
            entry.clear(SENDABLE);
            if entry.wants_receive() {
                entry.set(LISTED);
                if entry.has(BULKY) {
                    self.bulky.push_front(id);
                    self.bulky_left += 1;
                } else {
                    self.ready.push_front(id);
                    self.ready_left += 1;
                }
            }
            return Some(Step::Sendable);
        }
        if !entry.wants_receive() {
            return None;
        }
        let socket = entry.socket.as_ref()?;
        // A buffer of the smallest frames is milliseconds of work: while others wait, each socket has a part of it.
        // Those that were served in this turn and have more wait too: the last has no more than the first.
        let is_alone = [&self.newcomers, &self.hung_up, &self.ready, &self.bulky]
            .iter()
            .all(|list| list.is_empty());
        let window = if !is_alone || self.listeners.has_ready() {
            self.buffer.len().min(self.receive_share_bytes)
        } else {
            self.buffer.len()
        };
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
                if count > self.sparse_receive_bytes_max {
                    entry.set(BULKY);
                }
                if count == window || entry.has(HANGUP) {
                    list_ready(&mut self.ready, &mut self.bulky, id, entry);
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

    /// The kernel says that a socket can be received from; `hangup`: that its end is near.
    #[inline]
    pub fn handle_readable(&mut self, id: SocketId, hangup: bool) {
        if let Some(entry) = self.table.open(id) {
            entry.set(if hangup { READABLE | HANGUP } else { READABLE });
            if entry.wants_receive() {
                if hangup {
                    list(&mut self.hung_up, id, entry);
                } else if entry.has(NEW) {
                    list(&mut self.newcomers, id, entry);
                } else {
                    list_ready(&mut self.ready, &mut self.bulky, id, entry);
                }
            }
        }
    }

    /// The kernel says that a socket has room. That is news only after a send that came late.
    #[inline]
    pub fn handle_sendable(&mut self, id: SocketId) {
        if let Some(entry) = self.table.open(id)
            && entry.has(BLOCKED)
        {
            entry.clear(BLOCKED);
            entry.set(SENDABLE);
            list_ready(&mut self.ready, &mut self.bulky, id, entry);
        }
    }

    /// A poll that was armed once has ended. Whether that means anything: not for a socket that was closed, which
    /// only waited for its polls to end.
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

    /// A send came late: tell when there is room.
    pub fn handle_blocked(&mut self, id: SocketId) {
        if let Some(entry) = self.table.open(id) {
            entry.set(BLOCKED);
            list_to_arm(self.polls, &mut self.to_arm, id, entry);
        }
    }

    /// A send failed for good.
    pub fn handle_broken(&mut self, id: SocketId) {
        if let Some(entry) = self.table.open(id) {
            entry.set(BROKEN);
        }
    }

    /// Takes a socket in. With polls that are asked for, it is received from before the first one.
    pub fn attach(&mut self, id: SocketId, socket: OwnedFd) {
        self.table.attach(id, socket);
        if self.polls == Polls::Once {
            // Most that connect speak at once: trying to receive costs less than a poll.
            self.handle_readable(id, false);
        }
    }

    /// The kernel refused to watch a socket: to the worker it is one that broke at once.
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
                list_ready(&mut self.ready, &mut self.bulky, id, entry);
            } else {
                list_to_arm(self.polls, &mut self.to_arm, id, entry);
            }
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
            // The polls end by themselves; `handle_disarmed` sees the last of them.
            if let Some(socket) = &entry.socket {
                socket::end(socket, how);
            }
        } else {
            let has_ended = entry.has(ENDED);
            match entry.socket.take() {
                // Behind the end there is nothing unread that would have to be thrown away.
                Some(socket) if has_ended && how == Close::Orderly => drop(socket),
                Some(socket) => socket::close(socket, how),
                None => {}
            }
            self.closed.push_back(id);
        }
    }

    /// Closes what had to wait for its polls, and frees the slot.
    fn finish_close(&mut self, id: SocketId) {
        if let Some(entry) = self.table.entry(id)
            && let Some(socket) = entry.socket.take()
        {
            // It was ended before, orderly or not; what is left is what orderly adds.
            socket::close(socket, Close::Orderly);
        }
        self.table.free(id);
    }
}

#[inline]
fn list_ready(
    ready: &mut VecDeque<SocketId>,
    bulky: &mut VecDeque<SocketId>,
    id: SocketId,
    entry: &mut Entry,
) {
    list(if entry.has(BULKY) { bulky } else { ready }, id, entry);
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
