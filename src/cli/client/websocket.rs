//! The client's end of a WebSocket.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};

use fantail::config::Secret;
use fantail::config::limits::{FRAGMENTS_PER_MESSAGE_MAX, MESSAGE_BYTES_CEILING};
use fantail::protocol::websocket::{
    Limits, Message, MessageDecoder, OpCode, Role, handshake, write_masked_frame,
};

use super::{Arrival, Head, Server, Trouble, Wire, error_of};

/// A WebSocket after its handshake.
#[derive(Debug)]
pub struct WebSocket {
    wire: Wire,
    decoder: MessageDecoder,
    frames: VecDeque<Frame>,
    /// Whether nothing has been received since the last ping.
    awaits_pong: bool,
}

/// A message or close frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Close { code: Option<u16>, reason: String },
}

const LIMITS: Limits = Limits {
    role: Role::Client,
    message_bytes_max: {
        // A push is a payload as JSON, where a byte may become six.
        assert!(6 * MESSAGE_BYTES_CEILING + 65_536 <= u32::MAX as u64, "a length in 32 bits");
        (6 * MESSAGE_BYTES_CEILING + 65_536) as u32
    },
    fragments_max: FRAGMENTS_PER_MESSAGE_MAX,
    has_compression: false,
};

impl WebSocket {
    /// Upgrades a connection to a WebSocket, for the client whose token this is.
    pub fn open(mut wire: Wire, target: &str, token: Option<&Secret>) -> Result<Self, Trouble> {
        let key = random();
        let mut request = Vec::new();
        handshake::write_client_request(&mut request, &wire.server().to_string(), target, &key);
        if let Some(token) = token {
            // In front of the empty line.
            request.truncate(request.len() - 2);
            let token: String = token.expose().chars().filter(|c| !c.is_control()).collect();
            request.extend_from_slice(format!("Authorization: Bearer {token}\r\n\r\n").as_bytes());
        }
        wire.send(&request)?;
        loop {
            match handshake::check_server_response(&wire.received, &key) {
                Ok(Some(head_bytes)) => drop(wire.received.drain(..head_bytes)),
                Ok(None) => {
                    wire.receive_more()?;
                    continue;
                }
                Err(_) => {
                    let head = Head::read(&mut wire)?;
                    let body = head.read_body(&mut wire)?;
                    return Err(error_of(wire.server(), head.status, &body));
                }
            }
            let decoder = MessageDecoder::default();
            let mut socket = Self { wire, decoder, frames: VecDeque::new(), awaits_pong: false };
            socket.decode()?;
            return Ok(socket);
        }
    }

    pub fn server(&self) -> &Server {
        self.wire.server()
    }

    pub fn send_text(&mut self, text: &str) -> Result<(), Trouble> {
        self.send(OpCode::Text, text.as_bytes())
    }

    /// Waits for the next message. Pings a server that sends nothing for the timeout of the connection.
    pub fn next(&mut self) -> Result<Frame, Trouble> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            match self.wire.receive()? {
                Arrival::Bytes => self.awaits_pong = false,
                Arrival::End => return Err(self.wire.ended()),
                Arrival::Silence if self.awaits_pong => {
                    return Err(Trouble::Lost(format!("{} does not respond", self.wire.server())));
                }
                Arrival::Silence => {
                    self.awaits_pong = true;
                    self.send(OpCode::Ping, b"")?;
                }
            }
            self.decode()?;
        }
    }

    fn send(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), Trouble> {
        let mut frame = Vec::new();
        let [a, b, c, d, ..] = random();
        write_masked_frame(&mut frame, opcode, payload, [a, b, c, d]);
        self.wire.send(&frame)
    }

    /// Decodes the received bytes, and answers pings.
    fn decode(&mut self) -> Result<(), Trouble> {
        let mut bytes = std::mem::take(&mut self.wire.received);
        let mut left = bytes.as_mut_slice();
        let mut pongs: Vec<Vec<u8>> = Vec::new();
        loop {
            let message = self.decoder.next(&mut left, &LIMITS).map_err(|fault| {
                let server = self.wire.server();
                Trouble::Refused(format!("{server} sent an invalid frame: {}", fault.reason()))
            })?;
            match message {
                None => break,
                Some(Message::Text(text)) => self.frames.push_back(Frame::Text(text.to_vec())),
                Some(Message::Binary(payload)) => {
                    self.frames.push_back(Frame::Binary(payload.to_vec()));
                }
                Some(Message::Ping(payload)) => pongs.push(payload.to_vec()),
                // Compression is not offered.
                Some(Message::Pong(_) | Message::Compressed { .. }) => {}
                Some(Message::Close { code, reason }) => {
                    let reason = reason.to_owned();
                    self.frames.push_back(Frame::Close { code, reason });
                    break;
                }
            }
        }
        for payload in pongs {
            self.send(OpCode::Pong, &payload)?;
        }
        Ok(())
    }
}

/// Random bytes for keys and masks, which intermediaries must not be able to predict (RFC 6455 10.3). The keys of the
/// hasher come from the system's source of randomness.
fn random() -> [u8; 16] {
    let half = || {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u8(0);
        hasher.finish()
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&half().to_ne_bytes());
    bytes[8..].copy_from_slice(&half().to_ne_bytes());
    bytes
}
