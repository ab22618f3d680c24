//! Where connections go, and what they say there: a greeting, then what each protocol has for ping and payload.

use std::net::SocketAddr;

use fantail::protocol::line::{LineDecoder, write_line};
use fantail::protocol::websocket::handshake::{
    HandshakeFault, check_server_response, write_client_request,
};
use fantail::protocol::websocket::{Limits, MessageDecoder, OpCode, Role, write_masked_frame};

use crate::connection::Decoder;

/// An address and how to talk to it.
#[derive(Clone, Debug)]
pub struct Door {
    pub address: SocketAddr,
    pub speech: Speech,
    /// Path and query of the request; `{channel}` stands for the channel's name.
    pub path: String,
    /// Channels are called so, with a number behind.
    pub channel_prefix: String,
}

/// A protocol, as spoken to a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// RFC 6455; the path subscribes.
    WebSocket,
    /// One JSON object a line: connect, subscribe.
    Commands,
    /// No handshake; what is sent comes back. Messages end in a line feed.
    Lines,
    /// An event stream; the path subscribes, and there is nothing more to say.
    Events,
}

/// How a greeting was answered.
#[derive(Debug)]
pub enum Greeted {
    /// More has to come.
    NotYet,
    /// It is served; so many bytes belonged to the answer.
    Served(usize),
    /// It never will be: why.
    Refused(String),
}

impl Door {
    /// A channel's name.
    pub fn channel(&self, channel: u32) -> String {
        format!("{}-{channel}", self.channel_prefix)
    }

    /// A decoder for a connection that just began.
    pub fn decoder(&self) -> Decoder {
        match self.speech {
            Speech::WebSocket => Decoder::WebSocket(MessageDecoder::new()),
            Speech::Commands | Speech::Lines | Speech::Events => Decoder::Lines(LineDecoder::new()),
        }
    }

    /// Appends what a connection says first; nothing, if it need not say anything to be served.
    pub fn write_greeting(&self, out: &mut Vec<u8>, channel: u32, key: u64) {
        let channel = self.channel(channel);
        let path = self.path.replace("{channel}", &channel);
        match self.speech {
            Speech::WebSocket => {
                write_client_request(out, &self.address.to_string(), &path, &key_bytes(key));
            }
            Speech::Commands => {
                write_line(out, |out| out.extend_from_slice(b"{\"id\":1,\"connect\":{}}"));
                let subscribe = format!("{{\"id\":2,\"subscribe\":{{\"channel\":\"{channel}\"}}}}");
                write_line(out, |out| out.extend_from_slice(subscribe.as_bytes()));
            }
            Speech::Events => {
                let head = format!(
                    "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n\r\n",
                    self.address
                );
                out.extend_from_slice(head.as_bytes());
            }
            Speech::Lines => {}
        }
    }

    /// Judges all that came since the greeting.
    pub fn check_greeting(&self, bytes: &[u8], key: u64) -> Greeted {
        match self.speech {
            Speech::WebSocket => match check_server_response(bytes, &key_bytes(key)) {
                Ok(None) => Greeted::NotYet,
                Ok(Some(used)) => Greeted::Served(used),
                Err(fault) => Greeted::Refused(refusal(fault, bytes)),
            },
            Speech::Commands => check_replies(bytes),
            Speech::Events => check_stream_head(bytes),
            Speech::Lines => Greeted::Served(0),
        }
    }

    /// Appends a payload as a message. Nobody asks that of a stream.
    pub fn write_message(&self, out: &mut Vec<u8>, payload: &[u8]) {
        match self.speech {
            Speech::WebSocket => write_masked_frame(out, OpCode::Text, payload, MASK),
            Speech::Commands | Speech::Lines => {
                write_line(out, |out| out.extend_from_slice(payload));
            }
            Speech::Events => {}
        }
    }

    /// Appends a ping of our own. Nobody asks that of a stream.
    pub fn write_ping(&self, out: &mut Vec<u8>, payload: &[u8]) {
        match self.speech {
            Speech::WebSocket => write_masked_frame(out, OpCode::Ping, payload, MASK),
            Speech::Commands | Speech::Lines => {
                write_line(out, |out| out.extend_from_slice(b"{\"id\":3,\"ping\":{}}"));
            }
            Speech::Events => {}
        }
    }

    /// Appends the answer to the server's ping. A stream's heartbeat has none.
    pub fn write_pong(&self, out: &mut Vec<u8>, payload: &[u8]) {
        match self.speech {
            Speech::WebSocket => write_masked_frame(out, OpCode::Pong, payload, MASK),
            Speech::Commands | Speech::Lines => {
                write_line(out, |out| out.extend_from_slice(b"{}"));
            }
            Speech::Events => {}
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

/// Served is who has the first block of a stream, which says where it begins.
fn check_stream_head(bytes: &[u8]) -> Greeted {
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
                    Some(at) if at < block => Greeted::Refused("closed at once".to_owned()),
                    _ => Greeted::Served(block),
                };
            }
        }
        (_, Some(status)) => {
            return Greeted::Refused(format!("refused with HTTP status {status}"));
        }
        (_, None) => return Greeted::Refused("the answer is no HTTP/1.1".to_owned()),
    }
    match bytes.len() {
        ..=REPLY_BYTES_MAX => Greeted::NotYet,
        _ => Greeted::Refused("the head of the answer has no end".to_owned()),
    }
}

/// Served is who has the answers to both commands.
fn check_replies(bytes: &[u8]) -> Greeted {
    let mut used = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\n") else { break };
        used += line.len() + 1;
        let Ok(reply) = serde_json::from_slice::<serde_json::Value>(line) else {
            return Greeted::Refused("the answer to a command is no JSON".to_owned());
        };
        if let Some(code) = reply.pointer("/error/code") {
            return Greeted::Refused(format!("refused with command error {code}"));
        }
        if let Some(code) = reply.pointer("/push/disconnect/code") {
            return Greeted::Refused(format!("refused with disconnect code {code}"));
        }
        if reply.get("subscribe").is_some() {
            return Greeted::Served(used);
        }
    }
    if bytes.len() > REPLY_BYTES_MAX {
        return Greeted::Refused("the answer to a command has no end".to_owned());
    }
    Greeted::NotYet
}

/// A different key for each connection, so that an answer meant for another one is noticed.
fn key_bytes(key: u64) -> [u8; 16] {
    let mut bytes = *b"c1m-key-........";
    bytes[8..].copy_from_slice(&key.to_be_bytes());
    bytes
}

/// What a client accepts.
pub const LIMITS: Limits =
    Limits { role: Role::Client, message_bytes_max: 64 << 20, fragments_max: u32::MAX };

/// The longest line.
pub const LINE_BYTES_MAX: usize = 64 << 20;

const BLOCK_END: &[u8] = b"\n\n";

const REPLY_BYTES_MAX: usize = 16 * 1024;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// Any key will do where no proxy is in between; a constant one costs nothing to make.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[cfg(test)]
mod tests {
    use super::*;

    fn door(speech: Speech) -> Door {
        let address = "127.0.0.1:1".parse().unwrap();
        let path = "/ws?channel={channel}".to_owned();
        Door { address, speech, path, channel_prefix: "a".to_owned() }
    }

    #[test]
    fn a_path_names_the_channel_and_a_status_is_the_cause() {
        let door = door(Speech::WebSocket);
        let mut greeting = Vec::new();
        door.write_greeting(&mut greeting, 7, 1);
        assert!(greeting.starts_with(b"GET /ws?channel=a-7 HTTP/1.1\r\n"));
        let refused = door.check_greeting(b"HTTP/1.1 404 Not Found\r\n\r\n", 1);
        let Greeted::Refused(cause) = refused else { panic!("{refused:?}") };
        assert_eq!(cause, "refused with HTTP status 404");
    }

    #[test]
    fn streams_are_served_once_their_first_block_is_whole() {
        let mut door = door(Speech::Events);
        door.path = "/events?channel={channel}".to_owned();
        let mut greeting = Vec::new();
        door.write_greeting(&mut greeting, 7, 1);
        assert!(greeting.starts_with(b"GET /events?channel=a-7 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n"));
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n26\r\n\
            retry: 1\nevent: position\ndata: {}\n\n\r\n";
        let end = answer.len() - b"\r\n".len();
        for split in 0..end {
            assert!(matches!(door.check_greeting(&answer[..split], 0), Greeted::NotYet));
        }
        let served = door.check_greeting(answer, 0);
        assert!(matches!(served, Greeted::Served(used) if used == end), "{served:?}");
        let refused = door.check_greeting(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", 0);
        let Greeted::Refused(cause) = refused else { panic!("{refused:?}") };
        assert_eq!(cause, "refused with HTTP status 503");
        let ended = b"HTTP/1.1 200 OK\r\n\r\nretry: 1\nevent: disconnect\ndata: {}\n\n";
        let Greeted::Refused(cause) = door.check_greeting(ended, 0) else { panic!("served") };
        assert_eq!(cause, "closed at once");
    }

    #[test]
    fn commands_are_served_once_they_are_subscribed() {
        let door = door(Speech::Commands);
        let replies = b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{}}\n{}\n";
        let end = replies.len() - 3;
        for split in 0..end {
            assert!(matches!(door.check_greeting(&replies[..split], 0), Greeted::NotYet));
        }
        let served = door.check_greeting(replies, 0);
        assert!(matches!(served, Greeted::Served(used) if used == end), "{served:?}");
        let refused = door.check_greeting(b"{\"id\":2,\"error\":{\"code\":106}}\n", 0);
        let Greeted::Refused(cause) = refused else { panic!("{refused:?}") };
        assert_eq!(cause, "refused with command error 106");
    }
}
