//! An event stream client like `EventSource` (WHATWG HTML, 9.2).

use std::net::SocketAddr;

use super::{Client, Response};

/// An event of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `message` if it has no type.
    pub kind: String,
    pub data: String,
}

/// An open event stream.
#[derive(Debug)]
pub struct EventStream {
    pub client: Client,
    pub head: Response,
    /// The value to send as `Last-Event-ID`.
    pub last_id: String,
    /// Reconnection time, in milliseconds.
    pub retry: Option<u64>,
    /// Received chunks, decoded.
    text: Vec<u8>,
    /// That of the first block, unless it only says where the stream begins.
    first: Option<Event>,
}

/// The ways in which a stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// With the last chunk.
    LastChunk,
    /// Where another chunk would begin.
    NoLastChunk,
    /// Where it has no chunks.
    Close,
}

impl EventStream {
    #[track_caller]
    pub fn connect(address: SocketAddr, target: &str) -> Self {
        Self::connect_with(address, target, "")
    }

    /// Reconnects like a client, from an event id.
    #[track_caller]
    pub fn resume(address: SocketAddr, target: &str, last_id: &str) -> Self {
        Self::connect_with(address, target, &format!("Last-Event-ID: {last_id}\r\n"))
    }

    /// Comes back when the stream's first block is there: what is published from then on will come.
    #[track_caller]
    pub fn connect_with(address: SocketAddr, target: &str, headers: &str) -> Self {
        Self::over(Client::connect(address), target, headers)
    }

    #[track_caller]
    pub fn over(mut client: Client, target: &str, headers: &str) -> Self {
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: t\r\nAccept: text/event-stream\r\n{headers}\r\n"
        ));
        let head = client.read_response_head();
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let (last_id, text) = (String::new(), Vec::new());
        let mut stream = Self { client, head, last_id, retry: None, text, first: None };
        // Several libraries would dispatch a block without data as an empty message.
        let first = stream.block().expect("the first block has data");
        let begins = Event { kind: "position".to_owned(), data: "{}".to_owned() };
        stream.first = (first != begins).then_some(first);
        stream
    }

    /// Receives the next event.
    #[track_caller]
    pub fn read(&mut self) -> Event {
        if let Some(event) = self.first.take() {
            return event;
        }
        loop {
            if let Some(event) = self.block() {
                return event;
            }
        }
    }

    #[track_caller]
    pub fn expect(&mut self, data: &str) {
        assert_eq!(self.read(), Event { kind: "message".to_owned(), data: data.to_owned() });
    }

    /// Reads to the end of the stream; returns the decoded data and how the stream ended.
    #[track_caller]
    pub fn read_to_end(&mut self) -> (String, StreamEnd) {
        let mut rest = std::mem::take(&mut self.text);
        let mut received = self.client.read_to_end();
        let end = if !self.is_chunked() {
            rest.append(&mut received);
            StreamEnd::Close
        } else {
            loop {
                if received.is_empty() {
                    break StreamEnd::NoLastChunk;
                }
                let size_end = received.windows(2).position(|pair| pair == b"\r\n");
                let size = size_of_chunk(&received[..size_end.expect("a size line is whole")]);
                received.drain(..size_end.expect("just found") + 2);
                rest.extend(received.drain(..size));
                assert_eq!(received.drain(..2).collect::<Vec<_>>(), b"\r\n");
                if size == 0 {
                    assert!(received.is_empty(), "no data follows the last chunk");
                    break StreamEnd::LastChunk;
                }
            }
        };
        (String::from_utf8(rest).expect("a stream is text"), end)
    }

    /// Receives up to and including a terminator.
    #[track_caller]
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        if !self.is_chunked() {
            return self.client.read_until(end);
        }
        loop {
            let found = self.text.windows(end.len()).position(|piece| piece == end);
            if let Some(at) = found {
                return self.text.drain(..at + end.len()).collect();
            }
            let size_line = self.client.read_until(b"\r\n");
            let size = size_of_chunk(&size_line[..size_line.len() - 2]);
            assert!(size > 0, "the last chunk came");
            self.text.extend(self.client.read_exactly(size));
            assert_eq!(self.client.read_exactly(2), b"\r\n");
        }
    }

    fn is_chunked(&self) -> bool {
        self.head.header("transfer-encoding") == Some("chunked")
    }

    /// Lines up to an empty one; an event if they have data.
    fn block(&mut self) -> Option<Event> {
        let (mut kind, mut data, mut id) = ("message".to_owned(), Vec::new(), None);
        loop {
            let line = String::from_utf8(self.read_until(b"\n")).expect("a stream is text");
            let line = line.strip_suffix('\n').expect("a line ends");
            if line.is_empty() {
                break;
            }
            let (name, value) =
                line.split_once(':').expect("this server writes no field without a value");
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "" => {}
                "id" => id = Some(value.to_owned()),
                "event" => value.clone_into(&mut kind),
                "data" => data.push(value.to_owned()),
                "retry" => self.retry = Some(value.parse().expect("a number")),
                other => panic!("a field {other}"),
            }
        }
        if let Some(id) = id {
            self.last_id = id;
        }
        (!data.is_empty()).then(|| Event { kind, data: data.join("\n") })
    }
}

/// Chunked coding, RFC 9112 7.1.
#[track_caller]
fn size_of_chunk(line: &[u8]) -> usize {
    let text = std::str::from_utf8(line).expect("a size is text");
    usize::from_str_radix(text, 16).expect("hexadecimal digits")
}
