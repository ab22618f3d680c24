//! Traffic of open connections: answers pings, checks payloads, sends echoes again.

use std::io::{self, Read};
use std::sync::atomic::Ordering;

use fantail::protocol::websocket::Message;
use mio::event::Event;
use socket2::SockRef;

use super::state::Engine;
use crate::connection::{Decoder, Role, State};
use crate::endpoint::{LIMITS, LINE_BYTES_MAX, WireProtocol};
use crate::payload::{self, Stamp};
use crate::shared::{Recorder, Step, cause_of};

/// One message from the server.
enum Incoming<'a> {
    Payload(&'a [u8]),
    Ping(&'a [u8]),
    Pong,
    Close(String),
    /// A line of an event stream that carries no payload.
    Other,
}

impl Engine {
    pub(super) fn handle(&mut self, event: &Event, recorder: &mut Recorder) {
        let index = event.token().0;
        if self.connections[index].state == State::Connecting {
            if event.is_writable() || event.is_error() {
                self.connected(index, recorder);
            }
            return;
        }
        if event.is_writable() && self.unsent.contains_key(&index) {
            self.send(index);
        }
        let ended = event.is_read_closed() || event.is_error();
        if event.is_readable() || ended {
            self.receive(index, ended, recorder);
        }
    }

    /// Reads the available data. Unless the event reported an `end`, a read that leaves room in the buffer is the last
    /// one: later data triggers another edge.
    pub(super) fn receive(&mut self, index: usize, end: bool, recorder: &mut Recorder) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let connection = &self.connections[index];
            let is_stalled = connection.role == Role::Slow
                && connection.state == State::Open
                && matches!(self.step, Step::Work | Step::Rest);
            let Some(socket) = connection.socket.as_ref().filter(|_| !is_stalled) else { break };
            match (&*SockRef::from(socket)).read(&mut buffer) {
                Ok(0) => {
                    self.ended(index, "closed by the server");
                    break;
                }
                Ok(count) => {
                    match self.encryption {
                        None => self.take(index, &mut buffer[..count], recorder),
                        Some(_) => self.take_sealed(index, &mut buffer[..count], recorder),
                    }
                    if count < buffer.len() && !end {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.ended(index, &cause_of(&error));
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Takes what the server sent.
    pub(super) fn take(&mut self, index: usize, bytes: &mut [u8], recorder: &mut Recorder) {
        let result = if self.connections[index].state == State::Handshaking {
            let mut rest = self.continue_handshake(index, bytes, recorder);
            self.decode(index, &mut rest, recorder)
        } else {
            self.decode(index, bytes, recorder)
        };
        match result {
            Ok(()) => self.send(index),
            Err(cause) => self.ended(index, &cause),
        }
    }

    /// Decodes and handles messages. The error is the reason to end the connection.
    fn decode(
        &mut self,
        index: usize,
        mut bytes: &mut [u8],
        recorder: &mut Recorder,
    ) -> Result<(), String> {
        if bytes.is_empty() {
            return Ok(());
        }
        let protocol = self.endpoint(index).protocol;
        let placeholder = Decoder::Lines(Default::default());
        let mut decoder = std::mem::replace(&mut self.connections[index].decoder, placeholder);
        loop {
            let incoming = match &mut decoder {
                Decoder::WebSocket(decoder) => match decoder.next(&mut bytes, &LIMITS) {
                    Ok(Some(message)) => classify_message(message),
                    Ok(None) => break,
                    Err(fault) => return Err(format!("protocol fault: {}", fault.reason())),
                },
                Decoder::Lines(decoder) => match decoder.next(&mut bytes, LINE_BYTES_MAX) {
                    Ok(Some(line)) => classify_line(protocol, line),
                    Ok(None) => break,
                    Err(_) => return Err("protocol fault: a line is too long".to_owned()),
                },
            };
            self.handle_incoming(index, incoming, recorder)?;
        }
        self.connections[index].decoder = decoder;
        Ok(())
    }

    fn handle_incoming(
        &mut self,
        index: usize,
        incoming: Incoming<'_>,
        recorder: &mut Recorder,
    ) -> Result<(), String> {
        let role = self.connections[index].role;
        match incoming {
            Incoming::Payload(payload) => match role {
                Role::Echo | Role::Subscriber | Role::Slow => {
                    self.arrived(index, payload, recorder);
                }
                // Another program publishes to its channel.
                Role::Idle | Role::Canary => self.faults[0].unexpected += 1,
            },
            Incoming::Ping(payload) => {
                self.endpoint(index).write_pong(&mut self.out, payload);
                self.shared.threads[self.index].tally.pongs.add(1);
            }
            Incoming::Pong => {
                if let Some(pinged_ns) = self.canaries.pinged_ns.remove(&index) {
                    recorder.latency.record(self.shared.now_ns() - pinged_ns);
                }
            }
            Incoming::Close(cause) => return Err(cause),
            Incoming::Other => {}
        }
        Ok(())
    }

    fn arrived(&mut self, index: usize, payload: &[u8], recorder: &mut Recorder) {
        let connection = &mut self.connections[index];
        let slow = connection.role == Role::Slow;
        let faults = &mut self.faults[usize::from(slow)];
        let last = match connection.role {
            Role::Echo => connection.sent,
            _ => {
                let channel = &self.shared.channels[connection.channel as usize];
                channel.published.load(Ordering::Acquire)
            }
        };
        let stamp = payload::read(payload)
            .filter(|stamp| stamp.channel == connection.channel && stamp.sequence <= last);
        let tally = &self.shared.threads[self.index].tally;
        let is_new = match &stamp {
            Some(stamp) => connection.stream.receive(stamp.sequence, faults),
            None => {
                faults.unexpected += 1;
                false
            }
        };
        let Some(stamp) = stamp.filter(|_| is_new) else {
            if connection.role == Role::Echo {
                tally.not_echoed.add(1);
            }
            return;
        };
        if slow {
            tally.received_slow.add(1);
            return;
        }
        tally.received.add(1);
        let latency_ns = self.shared.now_ns().saturating_sub(stamp.sent_ns);
        recorder.latency.record(latency_ns);
        if connection.role == Role::Subscriber {
            if self.shared.delivered(stamp.channel, stamp.sequence) {
                recorder.last.record(latency_ns);
            }
        } else if self.step == Step::Work {
            self.write_echo(index);
        }
    }

    /// Appends the next message on an echo connection.
    pub(super) fn write_echo(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        connection.sent += 1;
        let stamp = Stamp {
            sequence: connection.sent,
            sent_ns: self.shared.now_ns(),
            channel: connection.channel,
        };
        self.payload.clear();
        payload::write(&mut self.payload, stamp, self.settings.size);
        self.endpoint.write_message(&mut self.out, &self.payload);
        self.shared.threads[self.index].tally.sent.add(1);
    }

    /// Appends a ping.
    pub(super) fn write_ping(&mut self, index: usize) {
        self.endpoint(index).write_ping(&mut self.out, b"c1m");
    }

    /// Sends the appended bytes; what the kernel does not take is kept for later.
    pub(super) fn send(&mut self, index: usize) {
        let unsent = self.unsent.remove(&index);
        if self.out.is_empty() && unsent.is_none() {
            return;
        }
        let connection = &self.connections[index];
        let Some(socket) = &connection.socket else {
            self.out.clear();
            return;
        };
        if let Some(encryption) = self.encryption.as_mut().filter(|_| !self.out.is_empty()) {
            encryption.seal(index, &mut self.out);
        }
        let bytes = match unsent {
            Some(mut unsent) => {
                unsent.append(&mut self.out);
                unsent
            }
            None => std::mem::take(&mut self.out),
        };
        let sent = match SockRef::from(socket).send_with_flags(&bytes, libc::MSG_NOSIGNAL) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            // The next read returns the cause.
            Err(_) => bytes.len(),
        };
        if sent < bytes.len() {
            if bytes.len() - sent > self.unsent_bytes_max() {
                return self.ended(index, "the server does not read");
            }
            self.unsent.insert(index, bytes[sent..].to_vec());
        }
        self.out = bytes;
        self.out.clear();
    }

    /// A server that pings but does not read must not fill our memory.
    fn unsent_bytes_max(&self) -> usize {
        UNSENT_BYTES_MAX + 2 * self.settings.depth * self.settings.size
    }

    /// Handles the end of a connection that the server closed or that violated the protocol.
    pub(super) fn ended(&mut self, index: usize, cause: &str) {
        self.out.clear();
        let connection = &self.connections[index];
        if connection.is_opening() {
            return self.fail(index, cause);
        }
        if connection.state != State::Open {
            return;
        }
        let tally = &self.shared.threads[self.index].tally;
        tally.open.set(tally.open.value() - 1);
        if connection.role == Role::Slow {
            tally.closed_slow.add(1);
        } else {
            tally.lost.add(1);
            self.shared.add_loss(&self.located(index, cause));
        }
        self.canaries.pinged_ns.remove(&index);
        self.end(index);
    }
}

fn classify_message(message: Message<'_>) -> Incoming<'_> {
    match message {
        Message::Text(payload) | Message::Binary(payload) | Message::Compressed { payload, .. } => {
            Incoming::Payload(payload)
        }
        Message::Ping(payload) => Incoming::Ping(payload),
        Message::Pong(_) => Incoming::Pong,
        Message::Close { code: Some(code), .. } => {
            Incoming::Close(format!("closed by the server with code {code}"))
        }
        Message::Close { code: None, .. } => {
            Incoming::Close("closed by the server without a code".to_owned())
        }
    }
}

/// Classifies a line. Publications are the most frequent, so they are recognized by their prefix.
fn classify_line(protocol: WireProtocol, line: &[u8]) -> Incoming<'_> {
    match protocol {
        WireProtocol::Lines => return Incoming::Payload(line),
        WireProtocol::Events => return classify_event_line(line),
        WireProtocol::Commands | WireProtocol::WebSocket => {}
    }
    if line == b"{}" {
        return Incoming::Ping(b"");
    }
    if line.starts_with(b"{\"push\":{\"channel\"") {
        let data = line.windows(DATA.len()).position(|window| window == DATA);
        return Incoming::Payload(data.map_or(line, |at| &line[at + DATA.len()..]));
    }
    let value: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    match value.pointer("/push/disconnect/code") {
        Some(code) => Incoming::Close(format!("closed by the server with code {code}")),
        None if value.get("ping").is_some() => Incoming::Pong,
        // A payload without a stamp is counted as unexpected.
        None => Incoming::Payload(line),
    }
}

/// Classifies a line of an event stream (WHATWG HTML, 9.2.6) or of its chunked encoding. Payloads of c1m have one line.
fn classify_event_line(line: &[u8]) -> Incoming<'_> {
    match line.strip_prefix(b"data: ") {
        Some(payload) => Incoming::Payload(payload),
        None if line.starts_with(b"retry: ") => Incoming::Ping(b""),
        None => Incoming::Other,
    }
}

const DATA: &[u8] = b"\"data\":";
const UNSENT_BYTES_MAX: usize = 1 << 20;
