//! An `EventSource`: an event stream's client, as the WHATWG describes it.

use std::net::SocketAddr;

use super::{Client, Response};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `message` if it has no type.
    pub kind: String,
    pub data: String,
}

/// One event stream.
#[derive(Debug)]
pub struct EventStream {
    pub client: Client,
    pub head: Response,
    /// What would be sent as `Last-Event-ID`.
    pub last_id: String,
    /// Milliseconds.
    pub retry: Option<u64>,
    /// That of the first block, which has one only to tell of a loss.
    first: Option<Event>,
}

impl EventStream {
    #[track_caller]
    pub fn connect(address: SocketAddr, target: &str) -> Self {
        Self::connect_with(address, target, "")
    }

    /// As a client comes back.
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
        let mut stream = Self { client, head, last_id: String::new(), retry: None, first: None };
        stream.first = stream.block();
        stream
    }

    /// The next event.
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

    /// Lines up to an empty one; an event if they have data.
    fn block(&mut self) -> Option<Event> {
        let (mut kind, mut data, mut id) = ("message".to_owned(), Vec::new(), None);
        loop {
            let line = String::from_utf8(self.client.read_until(b"\n")).expect("a stream is text");
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
