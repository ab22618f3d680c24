//! Client of the command protocol over raw TCP: one JSON object per line.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::client::Connector;

/// A client of the command protocol.
pub struct LineClient {
    pub stream: TcpStream,
    /// Received bytes of an incomplete line.
    rest: Vec<u8>,
}

/// A line from the server, as far as a subscriber needs it.
#[derive(Debug, PartialEq)]
pub enum Line {
    /// A publication in a channel.
    Publication { offset: u64, data: String },
    /// The number of publications dropped before the next one.
    Gap(u64),
    /// The disconnect code, before the server closes the connection.
    Disconnect(u64),
    /// A ping or a successful reply.
    Other,
    /// A failed command, or a line that is not JSON.
    Error(String),
}

impl LineClient {
    /// Opens a blocking connection without subscriptions.
    pub fn connect(connector: &mut Connector) -> io::Result<Self> {
        let mut client = Self { stream: connector.connect()?, rest: Vec::new() };
        client.ask(&json!({"id": 1, "connect": {}}))?;
        Ok(client)
    }

    /// Opens a blocking connection that subscribes to one channel.
    pub fn subscribe(connector: &mut Connector, channel: &str) -> io::Result<Self> {
        let mut client = Self::connect(connector)?;
        client.ask(&json!({"id": 2, "subscribe": {"channel": channel}}))?;
        Ok(client)
    }

    /// Sends a command and blocks until its reply arrives.
    pub fn ask(&mut self, command: &Value) -> io::Result<Value> {
        self.stream.write_all(format!("{command}\n").as_bytes())?;
        let mut buffer = [0; 1 << 16];
        let mut answer = None;
        while answer.is_none() {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::other(format!("closed before the reply to {command}")));
            }
            self.take(&buffer[..count], |line| {
                let value: Value = serde_json::from_slice(line).unwrap_or_default();
                if value["id"] == command["id"] {
                    answer = Some(value);
                }
            });
        }
        match answer {
            Some(answer) if answer["error"].is_null() => Ok(answer),
            answer => Err(io::Error::other(format!("{command} was answered {answer:?}"))),
        }
    }

    /// Reads the available data of a nonblocking stream; returns whether it is still open.
    pub fn receive(&mut self, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> io::Result<bool> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => self.take(&buffer[..count], &mut take),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) {
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.rest.is_empty() {
                take(line);
            } else {
                self.rest.extend_from_slice(line);
                take(&std::mem::take(&mut self.rest));
            }
            bytes = rest;
        }
        self.rest.extend_from_slice(bytes);
    }
}

/// Encodes a publish command without an id, which has no reply.
pub fn publish_line(channel: &str, text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    format!("{}\n", json!({"publish": {"channel": channel, "data": text}})).into_bytes()
}

/// Parses a line.
pub fn parse_line(line: &[u8]) -> Line {
    let Ok(value) = serde_json::from_slice::<Value>(line) else {
        return Line::Error(String::from_utf8_lossy(line).into_owned());
    };
    let push = &value["push"];
    if let (Some(offset), Some(data)) =
        (push["pub"]["offset"].as_u64(), push["pub"]["data"].as_str())
    {
        return Line::Publication { offset, data: data.to_owned() };
    }
    if let Some(dropped) = push["gap"]["dropped"].as_u64() {
        return Line::Gap(dropped);
    }
    if let Some(code) = push["disconnect"]["code"].as_u64() {
        return Line::Disconnect(code);
    }
    if value["error"].is_null() { Line::Other } else { Line::Error(value.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_classified() {
        let publication = br#"{"push":{"channel":"a","pub":{"data":"x","offset":7}}}"#;
        assert_eq!(parse_line(publication), Line::Publication { offset: 7, data: "x".to_owned() });
        assert_eq!(parse_line(br#"{"push":{"channel":"a","gap":{"dropped":12}}}"#), Line::Gap(12));
        assert_eq!(parse_line(br#"{"push":{"disconnect":{"code":3008}}}"#), Line::Disconnect(3008));
        assert_eq!(parse_line(b"{}"), Line::Other);
        assert_eq!(parse_line(br#"{"id":1,"connect":{}}"#), Line::Other);
        assert!(matches!(parse_line(br#"{"id":1,"error":{"code":107}}"#), Line::Error(_)));
        assert!(matches!(parse_line(b"{"), Line::Error(_)));
    }
}
