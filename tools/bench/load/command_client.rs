//! Clients that speak the command protocol over a WebSocket, in JSON or in Protobuf.

use std::io::{self, Read, Write};

use fantail::protocol::protobuf::{next_message, schema};
use prost::Message;
use serde_json::json;

use super::client::{Connector, FrameReader, Protocol, frame};
use crate::instrument::Wire;

/// Path and query of a handshake after which a client speaks this protocol, if it is the command protocol.
pub fn path(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Commands => Some("/connection/websocket"),
        Protocol::Protobuf => Some("/connection/websocket?cf_protocol=protobuf"),
        Protocol::Websocket | Protocol::Sse | Protocol::Deflate => None,
    }
}

/// What a client says first.
#[derive(Clone, Copy)]
pub struct Subscribing<'a> {
    pub protocol: Protocol,
    pub channel: &'a str,
    /// Whether it takes deltas.
    pub delta: bool,
}

impl Subscribing<'_> {
    /// Opens connections that are subscribed, of clients that speak the command protocol.
    pub fn connect(self, connector: &mut Connector, count: usize) -> io::Result<Vec<Wire>> {
        let path = path(self.protocol).ok_or_else(|| {
            io::Error::other("--channel goes with --protocol commands or protobuf")
        })?;
        connector.set_protocol(self.protocol, path);
        self.open(connector, count)
    }

    /// Opens connections that are subscribed; as many at once as handshakes are in flight.
    pub fn open(self, connector: &mut Connector, count: usize) -> io::Result<Vec<Wire>> {
        let message = self.to_frame();
        let mut opened = Vec::with_capacity(count);
        while opened.len() < count {
            let batch = (count - opened.len()).min(AT_ONCE);
            let mut streams = connector.open(batch)?;
            for (stream, _) in &mut streams {
                stream.write_all(&message)?;
            }
            for (mut stream, _) in streams {
                self.read_replies(&mut stream)?;
                opened.push(stream);
            }
        }
        Ok(opened)
    }

    /// A frame with both commands, as SDKs send it.
    fn to_frame(self) -> Vec<u8> {
        match self.protocol {
            Protocol::Protobuf => frame(BINARY, &self.to_protobuf()),
            _ => {
                let mut subscribe = json!({"id": 2, "subscribe": {"channel": self.channel}});
                if self.delta {
                    subscribe["subscribe"]["delta"] = json!("fossil");
                }
                frame(TEXT, format!("{{\"id\":1,\"connect\":{{}}}}\n{subscribe}").as_bytes())
            }
        }
    }

    fn to_protobuf(self) -> Vec<u8> {
        let connect = Some(schema::ConnectRequest::default());
        let connect = schema::Command { id: 1, connect, ..schema::Command::default() };
        let delta = if self.delta { "fossil".to_owned() } else { String::new() };
        let channel = self.channel.to_owned();
        let subscribe = Some(schema::SubscribeRequest { channel, delta, ..Default::default() });
        let subscribe = schema::Command { id: 2, subscribe, ..schema::Command::default() };
        [connect, subscribe].iter().flat_map(Message::encode_length_delimited_to_vec).collect()
    }

    /// Blocks until both replies have come.
    fn read_replies(self, stream: &mut Wire) -> io::Result<()> {
        let (mut reader, mut buffer) = (FrameReader::default(), [0; 4096]);
        let (mut replies, mut refused) = (0, None);
        while replies < 2 {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::other("closed before the reply to subscribe"));
            }
            reader.read(&buffer[..count], |_, message| match self.count_replies(message) {
                Some(count) => replies += count,
                None => refused = Some(String::from_utf8_lossy(message).into_owned()),
            });
            if let Some(reply) = refused {
                return Err(io::Error::other(format!("refused: {reply}")));
            }
        }
        Ok(())
    }

    /// The number of replies in a message; `None` if one is an error.
    fn count_replies(self, mut message: &[u8]) -> Option<usize> {
        if self.protocol != Protocol::Protobuf {
            let text = String::from_utf8_lossy(message);
            let is_refused = text.contains("\"error\"") || text.contains("\"disconnect\"");
            return (!is_refused).then(|| text.matches("{\"id\":").count());
        }
        let mut replies = 0;
        while let Ok(Some(reply)) = next_message(&mut message) {
            let reply = schema::Reply::decode(reply).ok()?;
            replies += usize::from(reply.error.is_none().then_some(reply.id)? > 0);
        }
        Some(replies)
    }
}

/// A frame with a command that publishes what is JSON.
pub fn publish_frame(protocol: Protocol, id: u32, channel: &str, data: &[u8]) -> Vec<u8> {
    if protocol == Protocol::Protobuf {
        let (channel, data) = (channel.to_owned(), data.to_vec().into());
        let publish = Some(schema::PublishRequest { channel, data });
        let command = schema::Command { id, publish, ..schema::Command::default() };
        return frame(BINARY, &command.encode_length_delimited_to_vec());
    }
    let data = String::from_utf8_lossy(data);
    let command = format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{data}}}}}"#);
    frame(TEXT, command.as_bytes())
}

/// Calls `take` with the data of each publication in a message of JSON: its text, or from its first member on.
pub fn publications_in_json(message: &[u8], mut take: impl FnMut(&[u8])) {
    // A message may have several replies, one on each line.
    for line in message.split(|byte| *byte == b'\n') {
        let Some(start) = line.windows(DATA.len()).position(|window| window == DATA) else {
            continue;
        };
        let data = &line[start + DATA.len()..];
        match data.first() {
            Some(b'"') => {
                let text = &data[1..];
                let len = text.iter().position(|byte| *byte == b'"').unwrap_or(text.len());
                take(&text[..len]);
            }
            _ => take(data),
        }
    }
}

/// Calls `take` with the bytes of each publication in a message of Protobuf.
pub fn publications(mut message: &[u8], mut take: impl FnMut(&[u8])) {
    while let Ok(Some(reply)) = next_message(&mut message) {
        let push = schema::Reply::decode(reply).ok().and_then(|reply| reply.push);
        if let Some(publication) = push.and_then(|push| push.publication) {
            take(&publication.data);
        }
    }
}

const DATA: &[u8] = b"\"data\":";

const TEXT: u8 = 1;

const BINARY: u8 = 2;

/// Subscribes in flight.
const AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_have_several_publications() {
        let message = b"{\"push\":{\"channel\":\"a\",\"pub\":{\"data\":\"00..\"}}}\n\
            {\"id\":3,\"publish\":{}}\n\
            {\"push\":{\"channel\":\"a\",\"pub\":{\"data\":{\"n\":7},\"offset\":2}}}";
        let mut taken = Vec::new();
        publications_in_json(message, |data| {
            taken.push(String::from_utf8_lossy(data).into_owned())
        });
        assert_eq!(taken, ["00..", "{\"n\":7},\"offset\":2}}}"]);
    }

    #[test]
    fn a_refusal_is_not_a_reply() {
        let ask = Subscribing { protocol: Protocol::Commands, channel: "a", delta: false };
        let replies = b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{}}";
        assert_eq!(ask.count_replies(replies), Some(2));
        assert_eq!(ask.count_replies(b"{\"id\":2,\"error\":{\"code\":103}}"), None);
    }
}
