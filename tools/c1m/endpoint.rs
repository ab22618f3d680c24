//! Where connections go and the bytes of each protocol: handshake, ping, pong and message.

use std::net::SocketAddr;

use fantail::protocol::line::{LineDecoder, write_line};
use fantail::protocol::websocket::handshake::{
    HandshakeFault, check_server_response, write_client_request,
};
use fantail::protocol::websocket::{Limits, MessageDecoder, OpCode, Role, write_masked_frame};

use crate::connection::Decoder;
use crate::instrument::{Tls, Tokens};

/// A server address and the protocol to use with it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub protocol: WireProtocol,
    /// Path and query of the request; `{channel}` stands for the channel name.
    pub path: String,
    /// Prefix of channel names; a number follows.
    pub channel_prefix: String,
    /// What the token of each connection is made of; `None` for connections without one.
    pub tokens: Option<Tokens>,
    /// If connections are encrypted.
    pub tls: Option<Tls>,
}

/// Protocol on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireProtocol {
    /// RFC 6455; the request path subscribes.
    WebSocket,
    /// One JSON object per line: connect, subscribe.
    Commands,
    /// Echoed lines, without a handshake.
    Lines,
    /// An event stream; the request path subscribes, and the client sends nothing more.
    Events,
}

/// Progress of a handshake.
#[derive(Debug)]
pub enum Handshake {
    /// More bytes are needed.
    Incomplete,
    /// The connection is open; the response took this many bytes.
    Complete(usize),
    /// The server refused, for this reason.
    Refused(String),
}

impl Endpoint {
    /// The name of a channel.
    pub fn channel(&self, channel: u32) -> String {
        format!("{}-{channel}", self.channel_prefix)
    }

    /// A decoder for a new connection.
    pub fn decoder(&self) -> Decoder {
        match self.protocol {
            WireProtocol::WebSocket => Decoder::WebSocket(MessageDecoder::new()),
            WireProtocol::Commands | WireProtocol::Lines | WireProtocol::Events => {
                Decoder::Lines(LineDecoder::new())
            }
        }
    }

    /// Appends the client's part of the handshake; empty for a protocol without one.
    pub fn write_handshake(&self, out: &mut Vec<u8>, channel: u32, key: u64) {
        let channel = self.channel(channel);
        let path = self.path.replace("{channel}", &channel);
        match self.protocol {
            WireProtocol::WebSocket => {
                write_client_request(out, &self.address.to_string(), &path, &key_bytes(key));
                // Before the blank line.
                out.truncate(out.len() - b"\r\n".len());
                out.extend_from_slice(self.header_of_token(key).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            WireProtocol::Commands => {
                self.write_connect(out, key);
                let subscribe = format!("{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}");
                write_line(out, |out| out.extend_from_slice(subscribe.as_bytes()));
            }
            WireProtocol::Events => {
                let head = format!(
                    "GET {path} HTTP/1.1\r\nHost: {}\r\n{}Accept: text/event-stream\r\n\r\n",
                    self.address,
                    self.header_of_token(key)
                );
                out.extend_from_slice(head.as_bytes());
            }
            WireProtocol::Lines => {}
        }
    }

    /// Appends the first command of the command protocol.
    pub fn write_connect(&self, out: &mut Vec<u8>, key: u64) {
        let token =
            self.tokens.as_ref().map(|tokens| format!("\"token\":\"{}\"", tokens.token(key)));
        let connect = format!("{{\"id\":1,\"connect\":{{{}}}}}", token.unwrap_or_default());
        write_line(out, |out| out.extend_from_slice(connect.as_bytes()));
    }

    /// The header line of a request that shows the token; empty without one.
    pub fn header_of_token(&self, key: u64) -> String {
        let tokens = self.tokens.as_ref();
        let line = tokens.map(|tokens| format!("Authorization: Bearer {}\r\n", tokens.token(key)));
        line.unwrap_or_default()
    }

    /// Checks all bytes received since the handshake was sent.
    pub fn check_handshake(&self, bytes: &[u8], key: u64) -> Handshake {
        match self.protocol {
            WireProtocol::WebSocket => match check_server_response(bytes, &key_bytes(key)) {
                Ok(None) => Handshake::Incomplete,
                Ok(Some(used)) => Handshake::Complete(used),
                Err(fault) => Handshake::Refused(refusal(fault, bytes)),
            },
            WireProtocol::Commands => check_replies(bytes),
            WireProtocol::Events => check_stream_head(bytes),
            WireProtocol::Lines => Handshake::Complete(0),
        }
    }

    /// Appends a payload as a message. Never called for an event stream.
    pub fn write_message(&self, out: &mut Vec<u8>, payload: &[u8]) {
        match self.protocol {
            WireProtocol::WebSocket => write_masked_frame(out, OpCode::Text, payload, MASK),
            WireProtocol::Commands | WireProtocol::Lines => {
                write_line(out, |out| out.extend_from_slice(payload));
            }
            WireProtocol::Events => {}
        }
    }

    /// Appends a ping. Never called for an event stream.
    pub fn write_ping(&self, out: &mut Vec<u8>, payload: &[u8]) {
        match self.protocol {
            WireProtocol::WebSocket => write_masked_frame(out, OpCode::Ping, payload, MASK),
            WireProtocol::Commands | WireProtocol::Lines => {
                write_line(out, |out| out.extend_from_slice(b"{\"id\":3,\"ping\":{}}"));
            }
            WireProtocol::Events => {}
        }
    }

    /// Appends the answer to the server's ping. An event stream sends none.
    pub fn write_pong(&self, out: &mut Vec<u8>, payload: &[u8]) {
        match self.protocol {
            WireProtocol::WebSocket => write_masked_frame(out, OpCode::Pong, payload, MASK),
            WireProtocol::Commands | WireProtocol::Lines => {
                write_line(out, |out| out.extend_from_slice(b"{}"));
            }
            WireProtocol::Events => {}
        }
    }
}

fn refusal(fault: HandshakeFault, bytes: &[u8]) -> String {
    match (fault, status(bytes)) {
        (HandshakeFault::ResponseRefused, Some(status)) if status != 101 => {
            format!("refused with HTTP status {status}")
        }
        _ => fault.reason().to_owned(),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?.parse().ok()
}

/// An event stream is open once its first block, the position, has arrived.
fn check_stream_head(bytes: &[u8]) -> Handshake {
    let end_of = |from: usize, end: &[u8]| {
        let found = bytes[from..].windows(end.len()).position(|window| window == end);
        found.map(|at| from + at + end.len())
    };
    let head = end_of(0, HEAD_END);
    match (head, status(bytes)) {
        (None, _) => {}
        (Some(head), Some(200)) => {
            if let Some(block) = end_of(head, BLOCK_END) {
                return match end_of(head, b"event: disconnect") {
                    Some(at) if at < block => {
                        Handshake::Refused("closed during the handshake".to_owned())
                    }
                    _ => Handshake::Complete(block),
                };
            }
        }
        (_, Some(status)) => {
            return Handshake::Refused(format!("refused with HTTP status {status}"));
        }
        (_, None) => return Handshake::Refused("the answer is not HTTP/1.1".to_owned()),
    }
    match bytes.len() {
        ..=REPLY_BYTES_MAX => Handshake::Incomplete,
        _ => Handshake::Refused("the header of the answer is too long".to_owned()),
    }
}

/// A command connection is open once both commands have been answered.
fn check_replies(bytes: &[u8]) -> Handshake {
    let mut used = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        used += line.len() + 1;
        let Ok(reply) = serde_json::from_slice::<serde_json::Value>(line) else {
            return Handshake::Refused("the answer to a command is not JSON".to_owned());
        };
        if let Some(code) = reply.pointer("/error/code") {
            return Handshake::Refused(format!("refused with command error {code}"));
        }
        if let Some(code) = reply.pointer("/push/disconnect/code") {
            return Handshake::Refused(format!("refused with disconnect code {code}"));
        }
        if reply.get("subscribe").is_some() {
            return Handshake::Complete(used);
        }
    }
    if bytes.len() > REPLY_BYTES_MAX {
        return Handshake::Refused("the answer to a command is too long".to_owned());
    }
    Handshake::Incomplete
}

/// A different key for each connection, so that an answer to another connection is detected.
fn key_bytes(key: u64) -> [u8; 16] {
    let mut bytes = *b"c1m-key-........";
    bytes[8..].copy_from_slice(&key.to_be_bytes());
    bytes
}

/// Limits of the WebSocket decoder.
pub const LIMITS: Limits = Limits {
    role: Role::Client,
    message_bytes_max: 64 << 20,
    fragments_max: u32::MAX,
    has_compression: false,
};

/// Longest line that the line decoder accepts.
pub const LINE_BYTES_MAX: usize = 64 << 20;

const BLOCK_END: &[u8] = b"\n\n";

const REPLY_BYTES_MAX: usize = 16 * 1024;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// A constant mask is enough without a proxy in between, and costs nothing to generate.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(protocol: WireProtocol) -> Endpoint {
        let address = "127.0.0.1:1".parse().unwrap();
        let path = "/ws?channel={channel}".to_owned();
        Endpoint {
            address,
            protocol,
            path,
            channel_prefix: "a".to_owned(),
            tokens: None,
            tls: None,
        }
    }

    #[test]
    fn the_path_names_the_channel_and_a_refusal_names_the_status() {
        let endpoint = endpoint(WireProtocol::WebSocket);
        let mut request = Vec::new();
        endpoint.write_handshake(&mut request, 7, 1);
        assert!(request.starts_with(b"GET /ws?channel=a-7 HTTP/1.1\r\n"));
        let refused = endpoint.check_handshake(b"HTTP/1.1 404 Not Found\r\n\r\n", 1);
        let Handshake::Refused(cause) = refused else { panic!("{refused:?}") };
        assert_eq!(cause, "refused with HTTP status 404");
    }

    #[test]
    fn a_connection_shows_its_token() {
        let tokens = Tokens { secret: "s".into(), users: 100, info_bytes: 0 };
        let token = tokens.token(7);
        for (protocol, expected) in [
            (WireProtocol::WebSocket, format!("\r\nAuthorization: Bearer {token}\r\n\r\n")),
            (WireProtocol::Events, format!("\r\nAuthorization: Bearer {token}\r\nAccept: ")),
            (
                WireProtocol::Commands,
                format!("{{\"id\":1,\"connect\":{{\"token\":\"{token}\"}}}}\n"),
            ),
        ] {
            let endpoint = Endpoint { tokens: Some(tokens.clone()), ..endpoint(protocol) };
            let mut request = Vec::new();
            endpoint.write_handshake(&mut request, 7, 7);
            let request = String::from_utf8(request).unwrap();
            assert!(request.contains(&expected), "{request}");
        }
    }

    #[test]
    fn an_event_stream_is_open_once_its_first_block_is_complete() {
        let mut endpoint = endpoint(WireProtocol::Events);
        endpoint.path = "/events?channel={channel}".to_owned();
        let mut request = Vec::new();
        endpoint.write_handshake(&mut request, 7, 1);
        assert!(request.starts_with(b"GET /events?channel=a-7 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"));
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n26\r\n\
            retry: 1\nevent: position\ndata: {}\n\n\r\n";
        let end = answer.len() - b"\r\n".len();
        for split in 0..end {
            assert!(matches!(endpoint.check_handshake(&answer[..split], 0), Handshake::Incomplete));
        }
        let complete = endpoint.check_handshake(answer, 0);
        assert!(matches!(complete, Handshake::Complete(used) if used == end), "{complete:?}");
        let refused = endpoint.check_handshake(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 0);
        let Handshake::Refused(cause) = refused else { panic!("{refused:?}") };
        assert_eq!(cause, "refused with HTTP status 503");
        let ended = b"HTTP/1.1 200 OK\r\n\r\nretry: 1\nevent: disconnect\ndata: {}\n\n";
        let Handshake::Refused(cause) = endpoint.check_handshake(ended, 0) else {
            panic!("it must be refused")
        };
        assert_eq!(cause, "closed during the handshake");
    }

    #[test]
    fn a_command_connection_is_open_once_it_is_subscribed() {
        let endpoint = endpoint(WireProtocol::Commands);
        let replies = b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{}}\n{}\n";
        let end = replies.len() - 3;
        for split in 0..end {
            assert!(matches!(
                endpoint.check_handshake(&replies[..split], 0),
                Handshake::Incomplete
            ));
        }
        let complete = endpoint.check_handshake(replies, 0);
        assert!(matches!(complete, Handshake::Complete(used) if used == end), "{complete:?}");
        let refused = endpoint.check_handshake(b"{\"id\":2,\"error\":{\"code\":106}}\n", 0);
        let Handshake::Refused(cause) = refused else { panic!("{refused:?}") };
        assert_eq!(cause, "refused with command error 106");
    }
}
