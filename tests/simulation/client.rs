//! The clients of the simulated world.

use fantail::driver::{PeerId, SimulatedNetwork};
use fantail::protocol::websocket::{
    Limits, Message, MessageDecoder, OpCode, Role, write_masked_frame,
};

/// What a client speaks.
pub enum Speech {
    WebSocket { decoder: MessageDecoder, head: Vec<u8>, is_open: bool },
    Commands { line: Vec<u8>, next_offset: Option<u64> },
}

/// One client.
pub struct Client {
    pub peer: PeerId,
    pub channel: &'static str,
    pub speech: Speech,
    /// Publications in the order in which they came.
    pub seen: Vec<String>,
    /// Reads nothing.
    pub is_stalled: bool,
    /// The server said why it ends this.
    pub goodbye: Option<u16>,
    /// The client left, or its connection ended.
    pub is_gone: bool,
    /// It may not be dropped or stalled.
    pub is_observer: bool,
}

const WINDOW: usize = 16 * 1024;

impl Client {
    pub fn websocket(network: &SimulatedNetwork, peer: PeerId, channel: &'static str) -> Self {
        let request = format!(
            "GET /ws?channel={channel} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        network.write(peer, request.as_bytes());
        let decoder = MessageDecoder::new();
        Self::new(
            network,
            peer,
            channel,
            Speech::WebSocket { decoder, head: Vec::new(), is_open: false },
        )
    }

    pub fn commands(network: &SimulatedNetwork, peer: PeerId, channel: &'static str) -> Self {
        let lines = format!(
            "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}\n"
        );
        network.write(peer, lines.as_bytes());
        Self::new(network, peer, channel, Speech::Commands { line: Vec::new(), next_offset: None })
    }

    fn new(
        network: &SimulatedNetwork,
        peer: PeerId,
        channel: &'static str,
        speech: Speech,
    ) -> Self {
        network.set_window(peer, WINDOW);
        Self {
            peer,
            channel,
            speech,
            seen: Vec::new(),
            is_stalled: false,
            goodbye: None,
            is_gone: false,
            is_observer: false,
        }
    }

    /// Whether its subscription was answered.
    pub fn is_subscribed(&self) -> bool {
        match &self.speech {
            Speech::WebSocket { is_open, .. } => *is_open,
            Speech::Commands { next_offset, .. } => next_offset.is_some(),
        }
    }

    /// Hands a publication to the server. Returns whether all of it was written.
    pub fn publish(&self, network: &SimulatedNetwork, data: &str) -> bool {
        let bytes = match &self.speech {
            Speech::WebSocket { .. } => {
                let mut frame = Vec::new();
                write_masked_frame(&mut frame, OpCode::Text, data.as_bytes(), [1, 2, 3, 4]);
                frame
            }
            Speech::Commands { .. } => {
                let channel = self.channel;
                format!(
                    "{{\"id\":3,\"publish\":{{\"channel\":\"{channel}\",\"data\":\"{data}\"}}}}\n"
                )
                .into_bytes()
            }
        };
        network.write(self.peer, &bytes) == bytes.len()
    }

    /// Takes what the server sent.
    pub fn read(&mut self, network: &SimulatedNetwork) {
        if self.is_stalled || self.is_gone {
            return;
        }
        let mut bytes = network.read(self.peer);
        match &mut self.speech {
            Speech::Commands { .. } => self.read_lines(&bytes),
            Speech::WebSocket { head, is_open: false, .. } => {
                head.append(&mut bytes);
                let end = head.windows(4).position(|window| window == b"\r\n\r\n");
                if let Some(end) = end {
                    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", head.escape_ascii());
                    let mut rest = head.split_off(end + 4);
                    head.clear();
                    if let Speech::WebSocket { is_open, .. } = &mut self.speech {
                        *is_open = true;
                    }
                    self.read_frames(network, &mut rest);
                }
            }
            Speech::WebSocket { .. } => self.read_frames(network, &mut bytes),
        }
        if network.ended(self.peer).is_some() {
            self.is_gone = true;
            network.close(self.peer);
        }
    }

    fn read_frames(&mut self, network: &SimulatedNetwork, bytes: &mut [u8]) {
        let Speech::WebSocket { decoder, .. } = &mut self.speech else { unreachable!() };
        let limits = Limits { role: Role::Client, message_bytes_max: 1 << 20 };
        let mut rest = bytes;
        while let Some(message) = decoder.next(&mut rest, &limits).expect("the server speaks well")
        {
            match message {
                Message::Text(text) => {
                    // What was published as a JSON string is one: here its bytes arrive as they are.
                    let text = std::str::from_utf8(text).expect("text");
                    self.seen.push(text.trim_matches('"').to_owned());
                }
                Message::Ping(payload) => {
                    let mut pong = Vec::new();
                    write_masked_frame(&mut pong, OpCode::Pong, payload, [9, 9, 9, 9]);
                    network.write(self.peer, &pong);
                }
                Message::Close { code, .. } => self.goodbye = code,
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    fn read_lines(&mut self, bytes: &[u8]) {
        let Speech::Commands { line, next_offset } = &mut self.speech else { unreachable!() };
        line.extend_from_slice(bytes);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let rest = line.split_off(end + 1);
            let one = std::mem::replace(line, rest);
            let value: serde_json::Value = serde_json::from_slice(&one).expect("a line is JSON");
            if let Some(offset) = value["subscribe"]["offset"].as_u64() {
                *next_offset = Some(offset + 1);
            } else if let Some(data) = value["push"]["pub"]["data"].as_str() {
                let expected = next_offset.as_mut().expect("subscribed before the first push");
                let offset = value["push"]["pub"]["offset"].as_u64().expect("an offset");
                assert_eq!(offset, *expected, "offsets grow by one");
                *expected += 1;
                self.seen.push(data.to_owned());
            } else if let Some(code) = value["push"]["disconnect"]["code"].as_u64() {
                self.goodbye = Some(code as u16);
            }
            assert!(value.get("error").is_none(), "{value}");
        }
    }
}
