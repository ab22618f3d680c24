//! What a thread has of the TLS of its connections.

use std::collections::HashMap;
use std::io;

use crate::instrument::tls::{Tls, TlsHandshake, TlsSession};

/// What a thread has of the TLS of its connections.
pub struct Encryption {
    tls: Tls,
    /// One for each connection whose handshake is complete.
    pub sessions: Vec<Option<TlsSession>>,
    pub handshakes: HashMap<usize, Box<TlsHandshake>>,
    /// Records whose end has not come, by connection.
    pub parts: HashMap<usize, Vec<u8>>,
    /// Records to be sent.
    sealed: Vec<u8>,
}

impl Encryption {
    /// No connections yet; there will be so many.
    pub fn new(tls: Tls, connections: usize) -> Self {
        let mut sessions = Vec::new();
        sessions.resize_with(connections, || None);
        let (handshakes, parts) = (HashMap::new(), HashMap::new());
        Self { tls, sessions, handshakes, parts, sealed: Vec::new() }
    }

    /// A connection has ended.
    pub fn remove(&mut self, index: usize) {
        self.sessions[index] = None;
        self.handshakes.remove(&index);
        self.parts.remove(&index);
    }

    /// Seals what is to be sent, once the handshake is complete.
    pub fn seal(&mut self, index: usize, out: &mut Vec<u8>) {
        let Some(session) = &mut self.sessions[index] else { return };
        session.seal(out, &mut self.sealed);
        std::mem::swap(out, &mut self.sealed);
        self.sealed.clear();
    }

    /// Begins a handshake, and appends its first message.
    pub fn begin(&mut self, index: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let handshake = self.tls.begin(out)?;
        self.handshakes.insert(index, handshake);
        Ok(())
    }
}
