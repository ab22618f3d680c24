//! The ways into a server: what a client sends, and what the answer means to it.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;

use super::client::{FrameReader, frame};

/// A way into the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Door {
    /// A WebSocket that its path subscribes
    Websocket,
    /// An event stream (SSE)
    Events,
    /// The command protocol over WebSocket
    Commands,
}

/// What a client knows from what it received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Unknown,
    Inside,
    Refused {
        /// Whether the answer says when to come back, or that the cause is temporary.
        has_time: bool,
        /// `None` if that is left to the client.
        delay: Option<Duration>,
    },
}

impl Door {
    /// All that a client sends, until it is in.
    pub fn request(self, address: SocketAddr, token: Option<&str>) -> Vec<u8> {
        let target = match self {
            Self::Websocket => "/ws?channel=bench",
            Self::Events => "/events?channel=bench",
            Self::Commands => "/connection/websocket",
        };
        let upgrade = match self {
            Self::Events => "Accept: text/event-stream\r\n",
            Self::Websocket | Self::Commands => {
                "Upgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            }
        };
        let mut head = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\n{upgrade}");
        if self == Self::Commands {
            let token = token.map(|token| format!("\"token\":\"{token}\"")).unwrap_or_default();
            let connect = format!("{{\"id\":1,\"connect\":{{{token}}}}}");
            // Behind the head, as a client may that expects to be let in.
            return [(head + "\r\n").as_bytes(), &frame(TEXT, connect.as_bytes())].concat();
        }
        if let Some(token) = token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        (head + "\r\n").into_bytes()
    }

    /// Reads what a client received since it connected.
    pub fn judge(self, bytes: &[u8]) -> Verdict {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Verdict::Unknown;
        };
        let (head, rest) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
        match (self, head.get("HTTP/1.1 ".len()..).and_then(|status| status.get(..3))) {
            (Self::Websocket, Some("101")) => Verdict::Inside,
            (Self::Commands, Some("101")) => judge_reply(rest),
            (Self::Events, Some("200")) => judge_events(&String::from_utf8_lossy(rest)),
            _ => {
                let delay = number_behind(&head.to_ascii_lowercase(), "\r\nretry-after: ");
                Verdict::refused(delay.map(Duration::from_secs))
            }
        }
    }
}

impl Verdict {
    fn refused(delay: Option<Duration>) -> Self {
        Self::Refused { has_time: delay.is_some(), delay }
    }
}

fn judge_reply(bytes: &[u8]) -> Verdict {
    let mut verdict = Verdict::Unknown;
    FrameReader::default().read(bytes, |opcode, payload| {
        let reply: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
        verdict = match opcode {
            _ if verdict != Verdict::Unknown => verdict,
            CLOSE => {
                let code = payload.first_chunk().map_or(0, |code| u16::from_be_bytes(*code));
                Verdict::Refused { has_time: (3000..3500).contains(&code), delay: None }
            }
            _ if reply.get("connect").is_some() => Verdict::Inside,
            _ if reply.get("error").is_some() => {
                let has_time = reply["error"]["temporary"] == true;
                Verdict::Refused { has_time, delay: None }
            }
            _ => Verdict::Unknown,
        };
    });
    verdict
}

fn judge_events(text: &str) -> Verdict {
    if text.contains("event: position") {
        Verdict::Inside
    } else if text.contains("event: disconnect") {
        Verdict::refused(number_behind(text, "retry: ").map(Duration::from_millis))
    } else {
        Verdict::Unknown
    }
}

fn number_behind(text: &str, name: &str) -> Option<u64> {
    let rest = text.split(name).nth(1)?;
    rest.split(|byte: char| !byte.is_ascii_digit()).next()?.parse().ok()
}

const TEXT: u8 = 1;
const CLOSE: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_door_has_its_own_way_to_let_in_and_to_refuse() {
        let refused = |has_time, delay: Option<u64>| Verdict::Refused {
            has_time,
            delay: delay.map(Duration::from_millis),
        };
        let reply = |text: &str| {
            let frame = [&[0x81, text.len() as u8][..], text.as_bytes()].concat();
            [&b"HTTP/1.1 101 Switching Protocols\r\n\r\n"[..], &frame].concat()
        };
        let error = reply("{\"id\":1,\"error\":{\"code\":100,\"temporary\":true}}");
        for (door, answer, expected) in [
            (Door::Websocket, b"HTTP/1.1 101 a\r\n".to_vec(), Verdict::Unknown),
            (Door::Websocket, b"HTTP/1.1 101 a\r\n\r\n".to_vec(), Verdict::Inside),
            (
                Door::Websocket,
                b"HTTP/1.1 503 a\r\nRetry-After: 12\r\n\r\n".to_vec(),
                refused(true, Some(12_000)),
            ),
            (Door::Websocket, b"HTTP/1.1 401 a\r\n\r\n".to_vec(), refused(false, None)),
            (Door::Events, b"HTTP/1.1 200 a\r\n\r\nretry: 5\n".to_vec(), Verdict::Unknown),
            (Door::Events, b"HTTP/1.1 200 a\r\n\r\nevent: position\n".to_vec(), Verdict::Inside),
            (
                Door::Events,
                b"HTTP/1.1 200 a\r\n\r\nretry: 7000\nevent: disconnect\n".to_vec(),
                refused(true, Some(7000)),
            ),
            (Door::Commands, b"HTTP/1.1 101 a\r\n\r\n".to_vec(), Verdict::Unknown),
            (Door::Commands, reply("{\"id\":1,\"connect\":{}}"), Verdict::Inside),
            (Door::Commands, error, refused(true, None)),
        ] {
            assert_eq!(door.judge(&answer), expected, "{}", String::from_utf8_lossy(&answer));
        }
    }
}
