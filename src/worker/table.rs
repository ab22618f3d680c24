//! The connections of one worker, by slot.

use std::time::Duration;

use slab::Slab;

use crate::config::limits::SPARE_CONNECTION_TIME;
use crate::connection::{Connection, Pause, Service, Stage};
use crate::driver::{Close, SocketId};
use crate::message::SessionId;

/// All connections of a worker, the deadline of each, and what the driver is to do with their sockets.
///
/// Address space for as many as there may be is reserved at the start and its pages are touched as they are used:
/// growing moves nothing. Deadlines stand apart, four bytes each, so that the sweep reads only them.
#[derive(Debug)]
pub struct Table {
    connections: Slab<Connection>,
    deadlines: Vec<u32>,
    /// The generation of the newest connection. A slot and a generation, which together name a connection, repeat
    /// after four thousand million other connections at the earliest.
    generation: u32,
    /// What the driver is to do; the worker carries it out after each step.
    pub actions: Vec<Action>,
}

/// What the driver is to do with a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Receive nothing from it.
    Pause(SocketId),
    /// Receive from it again.
    Resume(SocketId),
    /// Acknowledge at once what it received.
    Acknowledge(SocketId),
    /// Close our end.
    ShutdownWrite(SocketId),
    /// Close the socket.
    Close(SocketId, Close),
}

/// A deadline that does not come.
pub const NEVER: u32 = WATCHED - 1;

/// The bit of a deadline that says that the sweep lists the connection in each pass.
const WATCHED: u32 = 1 << 31;

/// Milliseconds of a tick: 31 bits of them last for four years.
pub const TICK_MS: u64 = 64;

/// Ticks in a duration, rounded up.
pub fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_millis().div_ceil(u128::from(TICK_MS));
    u32::try_from(ticks).unwrap_or(NEVER / 2)
}

/// The time of a number of ticks.
pub fn duration_of(ticks: u32) -> Duration {
    Duration::from_millis(u64::from(ticks) * TICK_MS)
}

/// The socket of a session. A session that has a socket of its own is named like it: its index is the slot in the
/// table, which is below the maximum of connections, and its generation is the connection's.
pub fn socket_of(session: SessionId) -> SocketId {
    SocketId { index: session.index, generation: session.generation }
}

/// The session of a socket: see [`socket_of`].
pub fn session_of(socket: SocketId) -> SessionId {
    SessionId { index: socket.index, generation: socket.generation }
}

impl Table {
    /// A table for as many connections as it has `places`.
    pub fn new(places: usize) -> Self {
        Self {
            connections: Slab::with_capacity(places),
            deadlines: Vec::with_capacity(places),
            generation: 0,
            actions: Vec::new(),
        }
    }

    /// Connections, the closing ones included.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Slots that the sweep looks at.
    pub fn slots(&self) -> usize {
        self.deadlines.len()
    }

    /// A new connection's place. The caller knows that there is one.
    pub fn insert(&mut self, service: Service, tick: u32) -> SocketId {
        // The driver has a use of its own for `u32::MAX`.
        self.generation = (self.generation + 1) % u32::MAX;
        let generation = self.generation;
        let slot = self.connections.insert(Connection::new(service, generation, tick));
        if slot == self.deadlines.len() {
            self.deadlines.push(NEVER);
        }
        self.deadlines[slot] = NEVER;
        let index = u32::try_from(slot).expect("fewer than 2^32 connections");
        SocketId { index, generation }
    }

    /// Frees a slot.
    pub fn remove(&mut self, index: u32) {
        self.connections.remove(index as usize);
        self.deadlines[index as usize] = NEVER;
    }

    /// The connection in a slot that is known to be in use.
    pub fn at(&mut self, index: u32) -> &mut Connection {
        &mut self.connections[index as usize]
    }

    /// The connection in a slot, if there is one.
    pub fn get(&mut self, index: u32) -> Option<&mut Connection> {
        self.connections.get_mut(index as usize)
    }

    /// The socket id of the connection in a slot.
    pub fn id(&self, index: u32) -> SocketId {
        SocketId { index, generation: self.connections[index as usize].generation }
    }

    /// The session of the connection in a slot.
    pub fn session(&self, index: u32) -> SessionId {
        session_of(self.id(index))
    }

    /// Whether the socket is that of an open connection, and not of an earlier one in its slot.
    pub fn is_open(&self, id: SocketId) -> bool {
        self.connections.get(id.index as usize).is_some_and(|connection| {
            connection.generation == id.generation && connection.flags.is_open()
        })
    }

    /// Receives nothing more from a peer, for one more reason.
    pub fn pause(&mut self, index: u32, pause: Pause) {
        let id = self.id(index);
        let flags = &mut self.connections[index as usize].flags;
        if !flags.is_paused() && flags.is_open() {
            self.actions.push(Action::Pause(id));
        }
        flags.set_paused_by(pause, true);
    }

    /// Takes a reason back; without another one, the peer is read again from now on.
    pub fn unpause(&mut self, index: u32, pause: Pause, tick: u32) {
        let connection = self.at(index);
        if !connection.flags.is_paused_by(pause) {
            return;
        }
        connection.flags.set_paused_by(pause, false);
        if !connection.flags.is_paused() && connection.flags.stage() != Stage::Dead {
            connection.restart_message(tick);
            let id = self.id(index);
            self.actions.push(Action::Resume(id));
        }
    }

    /// Everything was sent to a closing connection: closes our end, and the socket once the peer's end is closed too.
    pub fn finish(&mut self, index: u32) {
        let id = self.id(index);
        let flags = &mut self.at(index).flags;
        if flags.has_ended() {
            flags.set_stage(Stage::Dead);
            self.set_deadline(index, NEVER);
            self.actions.push(Action::Close(id, Close::Orderly));
        } else if !flags.has_finished() {
            flags.set_finished();
            self.actions.push(Action::ShutdownWrite(id));
        }
    }

    /// Sets a connection's deadline a time from `now`. A spare connection has little time.
    pub fn set_deadline_after(&mut self, index: u32, now: u32, after: Duration) {
        let is_spare = self.at(index).flags.is_spare();
        let after = if is_spare { after.min(SPARE_CONNECTION_TIME) } else { after };
        self.set_deadline(index, now.saturating_add(ticks(after)));
    }

    /// Sets a connection's deadline, in ticks.
    pub fn set_deadline(&mut self, index: u32, tick: u32) {
        let deadline = &mut self.deadlines[index as usize];
        *deadline = *deadline & WATCHED | tick.min(NEVER);
    }

    /// Has the sweep list a connection in each pass, whatever its deadline, or no more.
    pub fn watch(&mut self, index: u32, is_watched: bool) {
        let deadline = &mut self.deadlines[index as usize];
        *deadline = *deadline & !WATCHED | if is_watched { WATCHED } else { 0 };
    }

    /// Whether the sweep lists the connection of a slot in each pass.
    pub fn is_watched(&self, slot: usize) -> bool {
        self.deadlines[slot] & WATCHED != 0
    }

    /// The deadline of a slot.
    pub fn deadline(&self, slot: usize) -> u32 {
        self.deadlines[slot] & !WATCHED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_does_not_come_back_with_its_slot() {
        // At 24 bits, where it came back once; at 32, where a life in one slot may come back after all of them.
        for (before, after) in [((1 << 24) - 2, (1 << 24) + 1), (u32::MAX - 3, 0)] {
            let mut table = Table::new(2);
            table.generation = before;
            let names: Vec<SocketId> = (0..3)
                .map(|_| {
                    let id = table.insert(Service::EchoTcp, 0);
                    assert_eq!(table.id(id.index), id);
                    table.remove(id.index);
                    id
                })
                .collect();
            assert!(names.iter().all(|id| id.index == 0 && id.generation != u32::MAX), "{names:?}");
            let generations: Vec<u32> = names.iter().map(|id| id.generation).collect();
            assert_eq!(table.generation, after, "{generations:?}");
            assert!(generations[0] != generations[1] && generations[1] != generations[2]);
        }
    }

    #[test]
    fn a_peer_is_read_again_once_its_last_pause_is_over() {
        let mut table = Table::new(1);
        let id = table.insert(Service::EchoTcp, 0);
        table.pause(id.index, Pause::Queue);
        table.pause(id.index, Pause::Reply);
        assert_eq!(std::mem::take(&mut table.actions), [Action::Pause(id)]);
        table.unpause(id.index, Pause::Queue, 1);
        table.unpause(id.index, Pause::Queue, 1);
        table.unpause(id.index, Pause::Congestion, 1);
        assert_eq!(table.actions, []);
        table.unpause(id.index, Pause::Reply, 1);
        assert_eq!(table.actions, [Action::Resume(id)]);
    }

    #[test]
    fn a_socket_is_closed_once_both_ends_are() {
        let mut table = Table::new(1);
        let id = table.insert(Service::EchoTcp, 0);
        table.at(id.index).flags.set_stage(Stage::Closing);
        assert!(!table.is_open(id));
        table.finish(id.index);
        table.finish(id.index);
        assert_eq!(std::mem::take(&mut table.actions), [Action::ShutdownWrite(id)]);
        table.at(id.index).flags.set_ended();
        table.finish(id.index);
        assert_eq!(table.actions, [Action::Close(id, Close::Orderly)]);
        assert_eq!(table.at(id.index).flags.stage(), Stage::Dead);
    }

    #[test]
    fn a_spare_connection_has_little_time() {
        let mut table = Table::new(1);
        let id = table.insert(Service::EchoTcp, 0);
        let long = SPARE_CONNECTION_TIME * 10;
        table.set_deadline_after(id.index, 5, long);
        assert_eq!(table.deadline(0), 5 + ticks(long));
        table.at(id.index).flags.set_place(true, false);
        table.set_deadline_after(id.index, 5, long);
        assert_eq!(table.deadline(0), 5 + ticks(SPARE_CONNECTION_TIME));
    }

    #[test]
    fn a_connection_is_not_taken_for_an_earlier_one_in_its_slot() {
        let mut table = Table::new(1);
        let first = table.insert(Service::EchoTcp, 0);
        assert!(table.is_open(first));
        table.remove(first.index);
        assert!(!table.is_open(first));
        let second = table.insert(Service::EchoTcp, 0);
        assert_eq!(first.index, second.index);
        assert!(table.is_open(second) && !table.is_open(first));
        assert_eq!(socket_of(session_of(second)), second);
        assert_eq!(table.session(second.index), session_of(second));
    }
}
