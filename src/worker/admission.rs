//! How connections come and go: those that have a place, a few beyond the maximum, and those that have none.
//!
//! A server that is full is not dead, and an orchestrator whose health check is not answered would kill it: so a few
//! connections beyond the maximum are answered health checks and metrics. What else they ask is refused, in the
//! protocol's own terms and without the hub, and they have little time.

use std::sync::atomic::Ordering;

use crate::config::limits::SPARE_CONNECTIONS;
use crate::connection::Service;
use crate::driver::SocketId;
use crate::message::CloseReason;

use super::connections::Connections;

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It has a place.
    Place(SocketId),
    /// It is beyond the maximum, and has a place for a moment.
    Spare(SocketId),
    /// There is no place left.
    Refused,
}

impl Connections {
    /// Finds a place for a new connection.
    pub fn admit(&mut self, service: Service) -> Admission {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let open_here = self.table.len() - self.spares;
        if open < self.open_max && open_here < self.settings.connections_max {
            return Admission::Place(self.place(service, false));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.counters.connections_rejected.add(1);
        // An echo of bytes has no words to refuse with.
        if service == Service::EchoTcp || self.spares >= SPARE_CONNECTIONS {
            return Admission::Refused;
        }
        self.spares += 1;
        Admission::Spare(self.place(service, true))
    }

    fn place(&mut self, service: Service, is_spare: bool) -> SocketId {
        let id = self.table.insert(service, self.tick);
        let connection = self.table.at(id.index);
        connection.flags.set_spare(is_spare);
        self.counters.connections_accepted.add(1);
        self.counters.connections[connection.flags.counted()].add(1);
        if service != Service::EchoTcp {
            self.set_deadline(id.index, self.settings.transport.handshake_timeout);
        }
        id
    }

    /// Closes a connection that is spare, or came while memory is nearly used up, with the reason, if what is behind
    /// its listener begins without a request. HTTP requests are refused one by one, and those that need neither a place
    /// nor memory are answered.
    pub fn turn_away(&mut self, id: SocketId, service: Service) {
        match service {
            Service::Edge | Service::EchoWebSocket => {}
            Service::Commands(_) | Service::EchoTcp => {
                if !self.table.at(id.index).flags.is_spare() {
                    self.counters.rejected_low_memory.add(1);
                }
                self.close(id.index, CloseReason::Overloaded);
                self.carry();
            }
        }
    }

    /// The socket is closed: its slot is free.
    pub fn remove(&mut self, id: SocketId) {
        let connection = self.table.at(id.index);
        self.counters.connections[connection.flags.counted()].subtract(1);
        if connection.flags.is_spare() {
            self.spares -= 1;
        } else {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        self.table.remove(id.index);
    }
}
