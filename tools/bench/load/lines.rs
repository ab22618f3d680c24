//! The client's side of the command protocol over raw TCP: one JSON object a line.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::client::Connector;

/// One client.
pub struct LineClient {
    pub stream: TcpStream,
    /// Received, and no whole line yet.
    rest: Vec<u8>,
}

/// What a line says, as far as a subscriber cares.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// A publication.
    Publication { offset: u64, data: String },
    /// So many publications were dropped before the next one.
    Gap(u64),
    /// Why the server is about to close.
    Disconnect(u64),
    /// Pings, and replies that are no errors.
    Other,
    /// A command failed, or it is no JSON.
    Fault(String),
}

impl LineClient {
    /// A session without subscriptions, blocking.
    pub fn connect(connector: &mut Connector) -> io::Result<Self> {
        let mut client = Self { stream: connector.connect()?, rest: Vec::new() };
        client.ask(&json!({"id": 1, "connect": {}}))?;
        Ok(client)
    }

    /// A subscriber of one channel, blocking.
    pub fn subscribe(connector: &mut Connector, channel: &str) -> io::Result<Self> {
        let mut client = Self::connect(connector)?;
        client.ask(&json!({"id": 2, "subscribe": {"channel": channel}}))?;
        Ok(client)
    }

    /// Sends a command and waits for the line that answers it; blocking.
    pub fn ask(&mut self, command: &Value) -> io::Result<Value> {
        self.stream.write_all(format!("{command}\n").as_bytes())?;
        let mut buffer = [0; 1 << 16];
        let mut answer = None;
        while answer.is_none() {
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::Error::other(format!("closed instead of an answer to {command}")));
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

    /// Takes what has come to a stream that does not block; returns whether it is still open.
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

/// A publication of text, as a command that is not answered.
pub fn publish_line(channel: &str, text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    format!("{}\n", json!({"publish": {"channel": channel, "data": text}})).into_bytes()
}

/// What a line says.
pub fn said(line: &[u8]) -> Said {
    let Ok(value) = serde_json::from_slice::<Value>(line) else {
        return Said::Fault(String::from_utf8_lossy(line).into_owned());
    };
    let push = &value["push"];
    if let (Some(offset), Some(data)) =
        (push["pub"]["offset"].as_u64(), push["pub"]["data"].as_str())
    {
        return Said::Publication { offset, data: data.to_owned() };
    }
    if let Some(dropped) = push["gap"]["dropped"].as_u64() {
        return Said::Gap(dropped);
    }
    if let Some(code) = push["disconnect"]["code"].as_u64() {
        return Said::Disconnect(code);
    }
    if value["error"].is_null() { Said::Other } else { Said::Fault(value.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_subscriber_hears_is_told_apart() {
        let publication = br#"{"push":{"channel":"a","pub":{"data":"x","offset":7}}}"#;
        assert_eq!(said(publication), Said::Publication { offset: 7, data: "x".to_owned() });
        assert_eq!(said(br#"{"push":{"channel":"a","gap":{"dropped":12}}}"#), Said::Gap(12));
        assert_eq!(said(br#"{"push":{"disconnect":{"code":3008}}}"#), Said::Disconnect(3008));
        assert_eq!(said(b"{}"), Said::Other);
        assert_eq!(said(br#"{"id":1,"connect":{}}"#), Said::Other);
        assert!(matches!(said(br#"{"id":1,"error":{"code":107}}"#), Said::Fault(_)));
        assert!(matches!(said(b"{"), Said::Fault(_)));
    }
}
