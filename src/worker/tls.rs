//! Encrypted connections: what follows from what their sockets receive.
//!
//! A handshake costs as much as some echoes, and they come in storms, so a turn does one step of one handshake, the one
//! that has waited longest. A connection whose step waits is not read.

use std::sync::Arc;

use tracing::debug;

use crate::buffer::SharedFrame;
use crate::connection::tls::{
    Alert, Completed, Fault, Handshake, HandshakeFault, Progress, Session, Terms,
};
use crate::connection::{Pause, Stage};
use crate::driver::{Close, SocketId};
use crate::message::{CloseReason, TransportKind};

use super::connections::{Connections, receive_data};
use super::table::{Action, NEVER};
use super::tls_sessions::TlsFailure;

impl Connections {
    /// Has an open connection that is encrypted take bytes of its socket.
    pub(super) fn receive_encrypted(&mut self, id: SocketId, bytes: &mut [u8]) {
        TlsStep { connections: self, id }.receive(bytes);
        self.drain_hub_outputs();
    }
}

/// An encrypted connection that something has come for.
struct TlsStep<'a> {
    connections: &'a mut Connections,
    id: SocketId,
}

impl TlsStep<'_> {
    /// Takes bytes that the socket of an open connection received.
    fn receive(&mut self, bytes: &mut [u8]) {
        let connection = self.connections.table.at(self.id.index);
        if connection.flags.awaits_tls() {
            self.receive_handshake(bytes);
        } else {
            self.receive_records(bytes);
        }
    }

    fn receive_records(&mut self, received: &mut [u8]) {
        let (id, index) = (self.id, self.id.index);
        let Connections { tls, table, outbox, .. } = &mut *self.connections;
        let mut part = tls.take_part(index);
        let bytes = match &mut part {
            None => &mut *received,
            Some(part) => {
                part.extend_from_slice(received);
                part.as_mut_slice()
            }
        };
        let connection = table.at(index);
        let session = &mut tls.sessions[connection.session_place as usize];
        let had_closed = session.has_peer_closed();
        let opened = session.open(bytes);
        let has_closed = session.has_peer_closed() && !had_closed;
        if session.is_urgent() {
            outbox.mark(connection, index);
        }
        if opened.fault.is_none() && opened.taken == 0 {
            // A part that grows stays where it is.
            return tls.put_part(index, part.unwrap_or_else(|| received.to_vec()));
        }
        if opened.fault.is_none() && opened.taken < bytes.len() {
            tls.put_part(index, bytes[opened.taken..].to_vec());
        }
        if !opened.data.is_empty() {
            receive_data(self.connections, id, &mut bytes[opened.data]);
        }
        if !self.connections.table.is_open(id) {
            return;
        }
        match opened.fault {
            Some(Fault::Ours(alert)) => self.fail(alert),
            Some(Fault::Peers(code)) => {
                let worker = self.connections.settings.hub.worker.0;
                debug!(worker, connection = index, code, "the client ends TLS with an alert");
                self.count(TlsFailure::Alert);
                self.connections.kill(index, CloseReason::ClientGone, Close::Orderly);
            }
            None if has_closed => {
                self.connections.table.at(index).flags.set_ended();
                self.connections
                    .step_connection(index, |connection, context| connection.end(context));
            }
            None => {}
        }
    }

    /// Ends the connection with an alert.
    fn fail(&mut self, alert: Alert) {
        let index = self.id.index;
        let worker = self.connections.settings.hub.worker.0;
        debug!(worker, connection = index, ?alert, "TLS of a connection ends with an alert");
        self.count(TlsFailure::Record);
        self.connections.tls.alerts.insert(index, alert);
        self.connections.outbox.drop_waiting(self.connections.table.at(index));
        self.connections.end_conversation(index, CloseReason::ProtocolError);
    }

    fn receive_handshake(&mut self, bytes: &[u8]) {
        let index = self.id.index;
        let tls = &mut self.connections.tls;
        let handshake = match tls.take_handshake(index) {
            Some(handshake) => handshake,
            None => match self.begin(bytes) {
                Some(handshake) => handshake,
                None => return,
            },
        };
        self.take(handshake, bytes);
    }

    fn take(&mut self, mut handshake: Box<Handshake>, bytes: &[u8]) {
        let (id, index) = (self.id, self.id.index);
        match handshake.receive(bytes) {
            Ok(has_record) => {
                let Connections { tls, table, .. } = &mut *self.connections;
                tls.put_handshake(index, handshake);
                if has_record {
                    tls.waiting.push_back(id);
                    table.pause(index, Pause::Handshake);
                }
            }
            Err(fault) => self.fail_handshake(&fault),
        }
    }

    /// Begins a handshake. `None` if the connection ends instead.
    fn begin(&mut self, bytes: &[u8]) -> Option<Box<Handshake>> {
        let index = self.id.index;
        let connections = &mut *self.connections;
        let kind = connections.table.at(index).traits().kind;
        let has_tickets = !connections.tls.without_tickets.remove(&index);
        let is_http = !matches!(kind, TransportKind::CommandsTcp | TransportKind::EchoTcp);
        if is_http && bytes.first().is_some_and(u8::is_ascii_uppercase) {
            self.count(TlsFailure::NotTls);
            self.send(NOT_TLS);
            self.connections.end_conversation(index, CloseReason::ProtocolError);
            return None;
        }
        let is_full = connections.tls.is_full();
        let identity = connections.tls.identity.clone();
        let Some(identity) = identity.filter(|_| !is_full && !connections.budget.is_critical())
        else {
            self.count(TlsFailure::Overloaded);
            self.connections.kill(index, CloseReason::Overloaded, Close::Orderly);
            return None;
        };
        match Handshake::new(&identity, Terms { is_http, has_tickets }) {
            Ok(handshake) => Some(handshake),
            Err(fault) => {
                self.fail_handshake(&fault);
                None
            }
        }
    }

    /// A step of the handshake, whose turn has come.
    fn step(&mut self) {
        let index = self.id.index;
        let Some(handshake) = self.connections.tls.take_handshake(index) else { return };
        let mut out = Vec::new();
        let now = self.connections.turn.unix_seconds;
        let progress = handshake.step(now, &mut out);
        self.send(&out);
        match progress {
            Ok(Progress::More(handshake)) => {
                self.connections.tls.put_handshake(index, handshake);
                let Connections { table, turn, .. } = &mut *self.connections;
                table.unpause(index, Pause::Handshake, turn.tick);
            }
            Ok(Progress::Done(Completed { session, user, mut rest })) => {
                self.complete(session, user, out.is_empty());
                if !rest.is_empty() {
                    self.receive_records(&mut rest);
                }
            }
            Err(fault) => self.fail_handshake(&fault),
        }
        self.connections.drain_hub_outputs();
    }

    /// The conversation begins. `is_silent` if nothing is sent that acknowledges what came.
    fn complete(&mut self, session: Session, user: Option<Arc<str>>, is_silent: bool) {
        let index = self.id.index;
        let Connections { tls, table, turn, settings, counters, .. } = &mut *self.connections;
        counters.tls_handshakes.add(1);
        let place = tls.add(session);
        if let Some(user) = user {
            tls.users.insert(index, user);
        }
        let connection = table.at(index);
        connection.session_place = place;
        connection.flags.set_awaits_tls(false);
        if connection.traits().kind == TransportKind::EchoTcp {
            table.set_deadline(index, NEVER);
        } else {
            let timeout = settings.transport.handshake_timeout;
            table.set_deadline_after(index, turn.tick, timeout);
        }
        table.unpause(index, Pause::Handshake, turn.tick);
        if is_silent {
            table.actions.push(Action::Acknowledge(self.id));
        }
    }

    fn fail_handshake(&mut self, fault: &HandshakeFault) {
        let worker = self.connections.settings.hub.worker.0;
        debug!(worker, connection = self.id.index, reason = fault.0, "a TLS handshake fails");
        self.count(TlsFailure::Handshake);
        self.connections.end_conversation(self.id.index, CloseReason::ProtocolError);
    }

    fn send(&mut self, bytes: &[u8]) {
        let Connections { outbox, table, .. } = &mut *self.connections;
        let connection = table.at(self.id.index);
        outbox.push_sealed(connection, SharedFrame::copy_of(bytes));
        outbox.mark(connection, self.id.index);
    }

    fn count(&self, failure: TlsFailure) {
        self.connections.counters.tls_failed[failure as usize].add(1);
    }
}

/// One step of the handshake that has waited longest.
pub fn step_handshake(connections: &mut Connections) {
    while let Some(id) = connections.tls.waiting.pop_front() {
        if connections.table.is_open(id) {
            return TlsStep { connections, id }.step();
        }
    }
}

/// Whether a connection cannot go on because its keys are used up, which TLS 1.2 cannot replace.
pub fn is_used_up(index: u32, connections: &mut Connections) -> bool {
    let Connections { tls, table, .. } = connections;
    let connection = table.at(index);
    let is_open = connection.flags.stage() == Stage::Open;
    is_open && tls.session(index, connection).is_some_and(|(session, _)| session.is_used_up())
}

/// What a client gets that sends a request without TLS.
const NOT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 48\r\n\
    Connection: close\r\n\r\nThis address speaks TLS: use https:// or wss://\n";
