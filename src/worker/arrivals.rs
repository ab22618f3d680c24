//! The addresses of clients: of those that came lately, for the log; of all, if callbacks send them on.
//!
//! A connection does not keep its address: that would cost every idle connection its share. A fixed number of the last
//! ones is kept here instead. A client that proves who it is does so soon after it has come. Callbacks are made later,
//! too: where they have the address, 17 bytes are kept for each connection.

use std::net::IpAddr;

use crate::config::limits::ARRIVALS_KEPT;
use crate::driver::SocketId;

/// Connections, with the address of the client of each.
#[derive(Debug)]
pub(super) enum Arrivals {
    /// Connections that came lately, by the last digits of their indexes; none before the first one comes.
    Recent(Vec<Option<(SocketId, IpAddr)>>),
    /// All open connections, by their indexes.
    All(Vec<Option<IpAddr>>),
}

impl Arrivals {
    /// No connections yet.
    pub fn new(keeps_all: bool) -> Self {
        if keeps_all { Self::All(Vec::new()) } else { Self::Recent(Vec::new()) }
    }

    /// Keeps all from now on, or only some. Of connections that are open then, no address is known.
    pub fn keep_all(&mut self, keeps_all: bool) {
        if keeps_all != matches!(self, Self::All(_)) {
            *self = Self::new(keeps_all);
        }
    }

    /// The client of a connection is at this address, which replaces one that was noted before; `None` if it is not
    /// known.
    pub fn note(&mut self, id: SocketId, client: Option<IpAddr>) {
        let client = client.map(|client| client.to_canonical());
        match self {
            Self::Recent(recent) => {
                recent.resize(ARRIVALS_KEPT, None);
                recent[place(id)] = client.map(|client| (id, client));
            }
            Self::All(all) => {
                let index = id.index as usize;
                all.resize(all.len().max(index + 1), None);
                all[index] = client;
            }
        }
    }

    /// A connection has ended.
    pub fn remove(&mut self, id: SocketId) {
        if let Self::All(all) = self
            && let Some(client) = all.get_mut(id.index as usize)
        {
            *client = None;
        }
    }

    /// The address of the client of an open connection, if it is still known.
    pub fn client(&self, id: SocketId) -> Option<IpAddr> {
        match self {
            Self::Recent(recent) => {
                let (of, client) = (*recent.get(place(id))?)?;
                (of == id).then_some(client)
            }
            Self::All(all) => *all.get(id.index as usize)?,
        }
    }
}

fn place(id: SocketId) -> usize {
    id.index as usize % ARRIVALS_KEPT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_clients_are_known_by_their_connections() {
        let id = |index, generation| SocketId { index, generation };
        let [one, other] = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap());
        let mut arrivals = Arrivals::new(false);
        assert_eq!(arrivals.client(id(0, 1)), None);
        arrivals.note(id(0, 1), Some(one));
        arrivals.note(id(ARRIVALS_KEPT as u32 - 1, 1), "::ffff:192.0.2.1".parse().ok());
        assert_eq!(arrivals.client(id(0, 1)), Some(one));
        assert_eq!(arrivals.client(id(ARRIVALS_KEPT as u32 - 1, 1)), Some(one));
        assert_eq!(arrivals.client(id(0, 2)), None, "a later connection of the same index");
        // A proxy names another client, and a connection with another index takes the place.
        arrivals.note(id(0, 1), Some(other));
        assert_eq!(arrivals.client(id(0, 1)), Some(other));
        arrivals.note(id(ARRIVALS_KEPT as u32, 1), Some(one));
        assert_eq!(arrivals.client(id(0, 1)), None);
        assert_eq!(arrivals.client(id(ARRIVALS_KEPT as u32, 1)), Some(one));
        arrivals.note(id(ARRIVALS_KEPT as u32, 1), None);
        assert_eq!(arrivals.client(id(ARRIVALS_KEPT as u32, 1)), None);
    }

    #[test]
    fn all_clients_are_known_until_their_connections_end() {
        let id = |index| SocketId { index, generation: 1 };
        let address = |number: u32| Some(IpAddr::from(number.to_be_bytes()));
        let mut arrivals = Arrivals::new(true);
        let count = 2 * ARRIVALS_KEPT as u32;
        (0..count).for_each(|number| arrivals.note(id(number), address(number)));
        assert!((0..count).all(|number| arrivals.client(id(number)) == address(number)));
        arrivals.remove(id(7));
        arrivals.remove(id(count));
        // The next connection of this index may be one whose client is not known.
        assert_eq!((arrivals.client(id(7)), arrivals.client(id(count))), (None, None));
        arrivals.note(id(8), None);
        assert_eq!(arrivals.client(id(8)), None);
    }
}
