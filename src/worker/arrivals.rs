//! The addresses of clients that came lately, for the log.
//!
//! A connection does not keep its address: that would cost every idle connection its share. A fixed number of the last
//! ones is kept here instead. A client that proves who it is does so soon after it has come.

use std::net::IpAddr;

use crate::config::limits::ARRIVALS_KEPT;
use crate::driver::SocketId;

/// Connections that came lately, with the address of the client of each.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// By the last digits of the index of the connection; none before the first one comes.
    recent: Vec<Option<(SocketId, IpAddr)>>,
}

impl Arrivals {
    /// The client of a connection is at this address, which replaces one that was noted before; `None` if it is not
    /// known.
    pub fn note(&mut self, id: SocketId, client: Option<IpAddr>) {
        if self.recent.is_empty() {
            self.recent = vec![None; ARRIVALS_KEPT];
        }
        self.recent[place(id)] = client.map(|client| (id, client.to_canonical()));
    }

    /// The address of the client of a connection, if it is still known.
    pub fn client(&self, id: SocketId) -> Option<IpAddr> {
        let (of, client) = (*self.recent.get(place(id))?)?;
        (of == id).then_some(client)
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
        let mut arrivals = Arrivals::default();
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
}
