//! What a worker keeps of TLS: the sessions of its connections, handshakes, and records whose end has not come.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use slab::Slab;

use crate::connection::tls::{Alert, Handshake, Identity, Session};
use crate::connection::{Connection, Flags};
use crate::driver::SocketId;

/// What a worker has of the TLS of its connections.
#[derive(Debug, Default)]
pub struct Tls {
    /// The certificate of new handshakes. A reload replaces it.
    pub identity: Option<Identity>,
    /// Sessions, by the place that their connections have.
    pub sessions: Slab<Session>,
    /// Address space to be reserved for sessions, once there is one.
    places: usize,
    /// Handshakes under way, by the slot of their connection.
    handshakes: HashMap<u32, Box<Handshake>>,
    /// Connections whose next step waits for its turn, each once.
    pub waiting: VecDeque<SocketId>,
    /// Records whose end has not come, by slot.
    parts: HashMap<u32, Vec<u8>>,
    /// Connections by slot whose handshake is to come, and whose clients get no tickets.
    pub without_tickets: HashSet<u32>,
    /// The users of connections, by slot, whose clients showed a certificate.
    pub users: HashMap<u32, Arc<str>>,
    /// The alerts with which connections end that are closing.
    pub alerts: HashMap<u32, Alert>,
    /// Heap of handshakes and of parts of records.
    bytes: usize,
}

/// Handshakes under way on one worker; further connections are closed. Each takes some kilobytes.
const HANDSHAKES_MAX: usize = 16 * 1024;

/// Why an encrypted connection ended, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The client does not speak TLS.
    NotTls,
    /// The handshake failed.
    Handshake,
    /// Too many handshakes are under way, or memory is low.
    Overloaded,
    /// A record was not what may come.
    Record,
    /// The client sent an alert.
    Alert,
}

impl TlsFailure {
    /// The labels that metrics have for them.
    pub const LABELS: &'static [&'static str] =
        &["not_tls", "handshake", "overloaded", "record", "alert"];
}

impl Tls {
    /// No connections yet; there may be as many as there are places.
    pub fn new(identity: Option<Identity>, places: usize) -> Self {
        Self { identity, places, ..Self::default() }
    }

    /// Heap of handshakes and of records whose end has not come.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a step of a handshake waits for its turn.
    pub fn is_urgent(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The session of a connection, if its handshake is complete, and the alert with which it ends.
    pub fn session(
        &mut self,
        index: u32,
        connection: &Connection,
    ) -> Option<(&mut Session, Alert)> {
        if !has_session(connection.flags) {
            return None;
        }
        let alert = self.alerts.get(&index).copied().unwrap_or(Alert::CloseNotify);
        Some((&mut self.sessions[connection.session_place as usize], alert))
    }

    /// A connection has ended.
    pub fn remove(&mut self, index: u32, connection: &Connection) {
        if !connection.flags.is_encrypted() {
            return;
        }
        if has_session(connection.flags) {
            self.sessions.remove(connection.session_place as usize);
        }
        self.release(index);
        self.alerts.remove(&index);
        self.users.remove(&index);
        self.without_tickets.remove(&index);
    }

    /// Frees the heap of a connection from which nothing more is received.
    pub fn release(&mut self, index: u32) {
        if !self.handshakes.is_empty() {
            self.take_handshake(index);
        }
        if !self.parts.is_empty() {
            self.bytes -= self.parts.remove(&index).map_or(0, |part| part.capacity());
        }
    }

    /// The user that the client of a connection is by its certificate.
    pub fn user(&self, index: u32) -> Option<Arc<str>> {
        self.users.get(&index).cloned()
    }

    /// Whether no more handshakes may be under way.
    pub fn is_full(&self) -> bool {
        self.handshakes.len() >= HANDSHAKES_MAX
    }

    /// Adds the session of a connection, and returns its place.
    pub fn add(&mut self, session: Session) -> u32 {
        if self.sessions.capacity() == 0 {
            self.sessions.reserve(self.places);
        }
        u32::try_from(self.sessions.insert(session)).expect("fewer than 2^32 connections")
    }

    /// Keeps a handshake for its next step.
    pub fn put_handshake(&mut self, index: u32, handshake: Box<Handshake>) {
        self.bytes += handshake.heap_bytes();
        self.handshakes.insert(index, handshake);
    }

    /// Takes the handshake of a connection, if it has one.
    pub fn take_handshake(&mut self, index: u32) -> Option<Box<Handshake>> {
        let handshake = self.handshakes.remove(&index)?;
        self.bytes -= handshake.heap_bytes();
        Some(handshake)
    }

    /// Keeps the beginning of a record.
    pub fn put_part(&mut self, index: u32, part: Vec<u8>) {
        self.bytes += part.capacity();
        self.parts.insert(index, part);
    }

    /// Takes the beginning of a record, if there is one.
    pub fn take_part(&mut self, index: u32) -> Option<Vec<u8>> {
        if self.parts.is_empty() {
            return None;
        }
        let part = self.parts.remove(&index)?;
        self.bytes -= part.capacity();
        Some(part)
    }
}

/// Whether the end of what a peer sends ends an open connection, because it did not say in TLS that it sends no more:
/// what came before may not be all. `None` if it did, and that was taken.
pub fn is_cut_off(flags: Flags) -> Option<bool> {
    match flags.is_encrypted() {
        false => Some(false),
        true if flags.has_ended() => None,
        true => Some(true),
    }
}

fn has_session(flags: Flags) -> bool {
    flags.is_encrypted() && !flags.awaits_tls()
}
