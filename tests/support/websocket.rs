//! A WebSocket client that can also violate the protocol.

use std::collections::VecDeque;
use std::net::SocketAddr;

use fantail::protocol::websocket::{
    Inflater, Limits, Message, MessageDecoder, OpCode, Role, write_header, write_masked_frame,
};

use super::{Client, Response};

/// A message or control frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// An open WebSocket.
#[derive(Debug)]
pub struct WebSocket {
    pub client: Client,
    decoder: MessageDecoder,
    received: VecDeque<Received>,
    inflater: Inflater,
    /// How many messages that it has received were compressed.
    pub compressed: usize,
}

const LIMITS: Limits = Limits {
    role: Role::Client,
    message_bytes_max: 64 << 20,
    fragments_max: u32::MAX,
    has_compression: true,
};

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Encodes a masked client frame.
pub fn masked(fin: bool, opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_masked_frame(&mut frame, opcode, payload, MASK);
    if !fin {
        frame[0] &= 0x7f;
    }
    frame
}

/// Encodes an unmasked frame.
pub fn unmasked(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_header(&mut frame, opcode, true, payload.len());
    frame.extend_from_slice(payload);
    frame
}

impl WebSocket {
    #[track_caller]
    pub fn connect(address: SocketAddr, target: &str) -> Self {
        Self::upgrade(Client::connect(address), target)
    }

    /// Performs the handshake on a connection.
    #[track_caller]
    pub fn upgrade(client: Client, target: &str) -> Self {
        let mut socket = Self::over(client);
        socket.client.send(Self::request(target));
        socket.read_upgrade();
        socket
    }

    /// Connects, and offers compression; the server has to accept it.
    #[track_caller]
    pub fn connect_deflated(address: SocketAddr, target: &str) -> Self {
        let mut socket = Self::over(Client::connect(address));
        let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
        socket.client.send(Self::request(target).replace("\r\n\r\n", &format!("\r\n{offer}")));
        let response = socket.read_upgrade();
        let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(response.header("sec-websocket-extensions"), Some(agreed));
        socket
    }

    /// Wraps a connection whose handshake the caller performs.
    pub fn over(client: Client) -> Self {
        Self {
            client,
            decoder: MessageDecoder::new(),
            received: VecDeque::new(),
            inflater: Inflater::default(),
            compressed: 0,
        }
    }

    /// The handshake of RFC 6455 1.3.
    pub fn request(target: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nHost: t\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
    }

    #[track_caller]
    pub fn read_upgrade(&mut self) -> Response {
        let response = self.client.read_response_head();
        assert_eq!(response.status, 101, "{response:?}");
        assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        response
    }

    #[track_caller]
    pub fn send_frame(&mut self, fin: bool, opcode: OpCode, payload: &[u8]) {
        self.client.send(masked(fin, opcode, payload));
    }

    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.send_frame(true, OpCode::Text, text.as_bytes());
    }

    #[track_caller]
    pub fn send_binary(&mut self, bytes: &[u8]) {
        self.send_frame(true, OpCode::Binary, bytes);
    }

    /// Sends a close frame with a code.
    #[track_caller]
    pub fn send_close(&mut self, code: u16) {
        self.send_frame(true, OpCode::Close, &code.to_be_bytes());
    }

    /// Receives the next message or control frame.
    #[track_caller]
    pub fn read(&mut self) -> Received {
        while self.received.is_empty() {
            let mut bytes = self.client.read_some();
            self.decode(&mut bytes);
        }
        self.received.pop_front().expect("there is one")
    }

    fn decode(&mut self, mut bytes: &mut [u8]) {
        while let Some(message) =
            self.decoder.next(&mut bytes, &LIMITS).expect("the server keeps to the protocol")
        {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text is UTF-8");
            self.received.push_back(match message {
                Message::Text(bytes) => Received::Text(text(bytes)),
                Message::Compressed { is_text, payload } => {
                    let mut bytes = Vec::new();
                    self.compressed += 1;
                    self.inflater.inflate(payload, 64 << 20, &mut bytes).expect("sound data");
                    match is_text {
                        true => Received::Text(text(&bytes)),
                        false => Received::Binary(bytes),
                    }
                }
                Message::Binary(bytes) => Received::Binary(bytes.to_vec()),
                Message::Ping(bytes) => Received::Ping(bytes.to_vec()),
                Message::Pong(bytes) => Received::Pong(bytes.to_vec()),
                Message::Close { code, reason } => Received::Close(code, reason.to_owned()),
            });
        }
    }

    #[track_caller]
    pub fn read_text(&mut self) -> String {
        match self.read() {
            Received::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn expect_text(&mut self, text: &str) {
        assert_eq!(self.read(), Received::Text(text.to_owned()));
    }

    /// Asserts that the server sends a close frame next and then closes.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        match self.read() {
            Received::Close(Some(got), reason) => assert_eq!(got, code, "{reason}"),
            other => panic!("{other:?}, not a close with {code}"),
        }
        assert_eq!(self.received, [], "nothing follows a close");
        self.client.expect_end();
    }

    /// Sends a ping and waits for the pong: everything sent before has then been processed.
    #[track_caller]
    pub fn round_trip(&mut self) {
        self.send_frame(true, OpCode::Ping, b"there?");
        assert_eq!(self.read(), Received::Pong(b"there?".to_vec()));
    }
}
