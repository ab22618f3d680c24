//! TLS between the sockets of a thread and what its connections send and receive.

use super::state::Engine;
use crate::connection::State;
use crate::instrument::tls::TlsProgress;
use crate::shared::{Recorder, cause_of};

impl Engine {
    /// Sends the first message of the TLS handshake.
    pub(super) fn begin_tls(&mut self, index: usize) {
        let Some(encryption) = &mut self.encryption else { return };
        match encryption.begin(index, &mut self.out) {
            Ok(()) => self.send(index),
            Err(error) => self.fail(index, &cause_of(&error)),
        }
    }

    /// Takes bytes of an encrypted connection.
    pub(super) fn take_sealed(&mut self, index: usize, bytes: &mut [u8], recorder: &mut Recorder) {
        let Some(encryption) = &mut self.encryption else { return };
        let Some(handshake) = encryption.handshakes.remove(&index) else {
            return self.take_records(index, bytes, recorder);
        };
        match handshake.receive(bytes, &mut self.out) {
            Ok(TlsProgress::More(handshake)) => {
                encryption.handshakes.insert(index, handshake);
                self.send(index);
            }
            Ok(TlsProgress::Done(session, mut rest)) => {
                // The last message of the handshake is sent as it is.
                self.send(index);
                if let Some(encryption) = &mut self.encryption {
                    encryption.sessions[index] = Some(session);
                }
                self.begin_protocol(index, recorder);
                self.take_records(index, &mut rest, recorder);
            }
            Err(error) => self.ended(index, &format!("TLS: {error}")),
        }
    }

    fn take_records(&mut self, index: usize, received: &mut [u8], recorder: &mut Recorder) {
        let Some(encryption) = &mut self.encryption else { return };
        let mut part = encryption.parts.remove(&index);
        let bytes = match &mut part {
            None => received,
            Some(part) => {
                part.extend_from_slice(received);
                part.as_mut_slice()
            }
        };
        let Some(session) = &mut encryption.sessions[index] else { return };
        let opened = match session.open(bytes) {
            Ok(opened) => opened,
            Err(error) => return self.ended(index, &format!("TLS: {error}")),
        };
        if opened.taken < bytes.len() {
            encryption.parts.insert(index, bytes[opened.taken..].to_vec());
        }
        if !opened.data.is_empty() {
            self.take(index, &mut bytes[opened.data], recorder);
        }
        if opened.is_end && self.connections[index].state != State::Gone {
            self.ended(index, "closed by the server");
        }
    }
}
