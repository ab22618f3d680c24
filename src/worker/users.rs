//! The users of a worker's connections, where there is a limit of the connections that one has.

use std::sync::Arc;

use crate::auth::{UserKey, UserTable};

/// The users of a worker's connections.
#[derive(Debug)]
pub struct Users {
    table: Arc<UserTable>,
    /// By the slot of the connection, eight bytes each; none before the first connection is counted.
    keys: Vec<Option<UserKey>>,
    /// The number of slots, for which address space is reserved at once.
    places: usize,
}

impl Users {
    /// No connections yet; there may be as many as there are places.
    pub fn new(table: Arc<UserTable>, places: usize) -> Self {
        Self { table, keys: Vec::new(), places }
    }

    /// Counts a connection for its user. Returns false if the user has as many as it may; then the connection counts
    /// for the user that it had before, if any.
    pub fn enter(&mut self, index: u32, user: Option<&str>, connections_max: usize) -> bool {
        let key = user.map(|user| self.table.key_of(user));
        let index = index as usize;
        if self.keys.get(index).copied().flatten() == key {
            return true;
        }
        if key.is_some_and(|key| !self.table.enter(key, connections_max)) {
            return false;
        }
        if self.keys.len() <= index {
            self.keys.reserve_exact(self.places.max(index + 1) - self.keys.len());
            self.keys.resize(index + 1, None);
        }
        if let Some(before) = std::mem::replace(&mut self.keys[index], key) {
            self.table.leave(before);
        }
        true
    }

    /// A connection has no user any more.
    pub fn leave(&mut self, index: u32) {
        if let Some(key) = self.keys.get_mut(index as usize).and_then(Option::take) {
            self.table.leave(key);
        }
    }
}
