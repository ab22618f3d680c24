//! How connections begin and end in the table.

use crate::connection::Service;
use crate::driver::SocketId;
use crate::message::CloseReason;

use super::admission::{Place, Rejection};
use super::connections::Connections;

impl Connections {
    /// Finds a place for a new connection; `None` if there is none.
    pub fn admit(&mut self, service: Service) -> Option<(SocketId, Place)> {
        // An echo of bytes has no form in which to refuse.
        let can_refuse = service != Service::EchoTcp;
        let (here, here_max) = (self.table.len(), self.settings.connections_max);
        let place = self.admission.admit(here, here_max, can_refuse);
        if place != Some(Place::Regular) {
            self.counters.connections_rejected[Rejection::ConnectionLimit as usize].add(1);
        }
        let place = place?;
        let id = self.table.insert(service, self.turn.tick);
        let flags = &mut self.table.at(id.index).flags;
        flags.set_place(place == Place::Spare, service == Service::Admin);
        self.counters.connections_accepted.add(1);
        self.counters.connections[flags.counted()].add(1);
        if service != Service::EchoTcp {
            let timeout = self.settings.transport.handshake_timeout;
            self.table.set_deadline_after(id.index, self.turn.tick, timeout);
        }
        Some((id, place))
    }

    /// Closes a connection that is spare, or that came while memory is low, with the reason, if its protocol
    /// begins without a request. HTTP requests are refused one by one, and those that need neither a place nor memory
    /// are answered.
    pub fn turn_away(&mut self, id: SocketId, service: Service) {
        match service {
            Service::Edge | Service::Public | Service::Admin | Service::EchoWebSocket => {}
            Service::Commands(_) | Service::EchoTcp => {
                if !self.table.at(id.index).flags.is_spare() {
                    self.counters.rejected_low_memory.add(1);
                }
                self.close(id.index, CloseReason::Overloaded);
                self.drain_hub_outputs();
            }
        }
    }

    /// The socket is closed: its slot is free.
    pub fn remove(&mut self, id: SocketId) {
        let flags = self.table.at(id.index).flags;
        self.counters.connections[flags.counted()].subtract(1);
        if flags.awaits_proxy_header() {
            self.proxy_headers.remove(id.index);
        }
        self.arrivals.remove(id);
        self.prefixes.remove(id.index, flags);
        self.rates.remove(id.index);
        self.tls.remove(id.index, self.table.at(id.index));
        self.admission.release(flags.is_spare());
        self.table.remove(id.index);
    }
}
