//! The connections of one worker, by slot.

use slab::Slab;

use crate::connection::{Connection, Service};
use crate::driver::SocketId;

/// All connections of a worker, and the deadline of each.
///
/// Address space for as many as there may be is reserved at the start and its pages are touched as they are used:
/// growing moves nothing. Deadlines stand apart, four bytes each, so that the sweep reads only them.
#[derive(Debug)]
pub struct Table {
    connections: Slab<Connection>,
    deadlines: Vec<u32>,
    /// Of the connection that came last: a connection's place and generation, which name it, come together again after
    /// four thousand million others at the earliest.
    generation: u32,
}

/// No deadline.
pub const NEVER: u32 = WATCHED - 1;

/// The bit of a deadline that says that the sweep lists the connection in each pass.
const WATCHED: u32 = 1 << 31;

impl Table {
    /// A table for as many connections as it has `places`.
    pub fn new(places: usize) -> Self {
        Self {
            connections: Slab::with_capacity(places),
            deadlines: Vec::with_capacity(places),
            generation: 0,
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
}
