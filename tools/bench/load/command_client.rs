//! Subscribers that speak the command protocol over a WebSocket, in JSON or in Protobuf.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use fantail::protocol::protobuf::{next_message, schema};
use prost::Message;
use serde_json::json;

use super::client::{FrameReader, Protocol, frame};

/// Path and query of a handshake after which a client speaks this protocol, if it is the command protocol.
pub fn path(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::Commands => Some("/connection/websocket"),
        Protocol::Protobuf => Some("/connection/websocket?cf_protocol=protobuf"),
        Protocol::Websocket | Protocol::Sse | Protocol::Deflate => None,
    }
}

/// Connects and subscribes over an open WebSocket; blocks until both replies have come.
pub fn subscribe(stream: &mut TcpStream, protocol: Protocol, channel: &str) -> io::Result<()> {
    let message = match protocol {
        Protocol::Protobuf => frame(BINARY, &in_protobuf(channel)),
        _ => {
            let subscribe = json!({"id": 2, "subscribe": {"channel": channel}});
            frame(TEXT, format!("{{\"id\":1,\"connect\":{{}}}}\n{subscribe}").as_bytes())
        }
    };
    stream.write_all(&message)?;
    let (mut reader, mut buffer) = (FrameReader::default(), [0; 4096]);
    let mut replies = 0;
    while replies < 2 {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other("closed before the reply to subscribe"));
        }
        reader.read(&buffer[..count], |_, _| replies += 1);
    }
    Ok(())
}

fn in_protobuf(channel: &str) -> Vec<u8> {
    let connect = Some(schema::ConnectRequest::default());
    let connect = schema::Command { id: 1, connect, ..schema::Command::default() };
    let channel = channel.to_owned();
    let subscribe = Some(schema::SubscribeRequest { channel, ..Default::default() });
    let subscribe = schema::Command { id: 2, subscribe, ..schema::Command::default() };
    [connect, subscribe].iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

/// The text that was published, of a push in JSON.
pub fn text_of_push(push: &[u8]) -> Option<&[u8]> {
    let start = push.windows(DATA.len()).position(|window| window == DATA)? + DATA.len();
    let len = push[start..].iter().position(|byte| *byte == b'"')?;
    Some(&push[start..start + len])
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

const DATA: &[u8] = b"\"data\":\"";

const TEXT: u8 = 1;

const BINARY: u8 = 2;
