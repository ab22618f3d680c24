//! A client of the command protocol over HTTP, as SDKs fall back to it: replies and pushes are the answer to a request,
//! later commands come in requests of their own.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Client, Response};

/// An answer of replies and pushes.
#[derive(Debug)]
pub struct CommandStream {
    pub client: Client,
    pub head: Response,
    /// What was received of its body, without what delimits chunks.
    body: Vec<u8>,
    has_ended: bool,
}

/// The three requests that begin such an answer.
pub const STREAM_REQUESTS: [StreamRequest; 3] =
    [StreamRequest::HttpStream, StreamRequest::SsePost, StreamRequest::SseGet];

/// How a client asks for such an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamRequest {
    HttpStream,
    SsePost,
    SseGet,
}

impl StreamRequest {
    /// The request with these commands, a line each.
    pub fn text(self, headers: &str, commands: &str) -> String {
        let len = commands.len();
        let post = |path: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: {len}\r\n\r\n{commands}"
            )
        };
        match self {
            Self::HttpStream => post("/connection/http_stream"),
            Self::SsePost => post("/connection/sse"),
            Self::SseGet => {
                let escaped: String = commands.bytes().map(|byte| format!("%{byte:02x}")).collect();
                format!(
                    "GET /connection/sse?cf_connect={escaped} HTTP/1.1\r\nHost: t\r\n{headers}\r\n"
                )
            }
        }
    }
}

impl CommandStream {
    /// Asks for an answer, whose head has come.
    #[track_caller]
    pub fn open(address: SocketAddr, request: StreamRequest, commands: &str) -> Self {
        Self::over(Client::connect(address), request.text("", commands))
    }

    /// The same with a request as it is.
    #[track_caller]
    pub fn over(mut client: Client, request: impl AsRef<[u8]>) -> Self {
        client.send(request);
        Self::answered(client)
    }

    /// The same for a client that has sent its request.
    #[track_caller]
    pub fn answered(mut client: Client) -> Self {
        let head = client.read_response_head();
        assert_eq!(head.status, 200, "{head:?}");
        let mut stream = Self { client, head, body: Vec::new(), has_ended: false };
        if stream.is_events() {
            assert_eq!(stream.read_part(b"\r\n"), b"\r\n", "the first bytes");
        }
        stream
    }

    /// Connects, with parameters; returns the reply too.
    #[track_caller]
    pub fn connect(
        address: SocketAddr,
        request: StreamRequest,
        parameters: &Value,
    ) -> (Self, Value) {
        let command = json!({"id": 1, "connect": parameters}).to_string();
        let mut stream = Self::open(address, request, &command);
        let mut reply = stream.read();
        (stream, reply["connect"].take())
    }

    fn is_events(&self) -> bool {
        self.head.header("content-type").is_some_and(|it| it.starts_with("text/event-stream"))
    }

    /// Receives one message; `None` at the end of the body.
    #[track_caller]
    pub fn try_read(&mut self) -> Option<Value> {
        let end: &[u8] = if self.is_events() { b"\n\n" } else { b"\n" };
        let part = self.read_part(end);
        if part.is_empty() {
            return None;
        }
        let text = std::str::from_utf8(&part).expect("text").trim_end();
        let text = if self.is_events() { text.strip_prefix("data: ").expect("data") } else { text };
        Some(serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}")))
    }

    /// Receives the next message.
    #[track_caller]
    pub fn read(&mut self) -> Value {
        self.try_read().expect("the body has not ended")
    }

    /// Receives the push that ends the connection, the end of the body, and that of the connection.
    #[track_caller]
    pub fn expect_disconnect(&mut self, code: u64) {
        let push = self.read();
        assert_eq!(push["push"]["disconnect"]["code"], code, "{push}");
        self.expect_end();
    }

    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.try_read(), None);
        self.client.expect_end();
    }

    /// Takes the front of the body, up to an end that it includes; nothing once the body has ended.
    #[track_caller]
    fn read_part(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            let found = self.body.windows(end.len()).position(|piece| piece == end);
            if let Some(at) = found {
                return self.body.drain(..at + end.len()).collect();
            }
            if self.has_ended {
                assert!(self.body.is_empty(), "{:?}", self.body);
                return Vec::new();
            }
            self.receive();
        }
    }

    #[track_caller]
    fn receive(&mut self) {
        if self.head.header("transfer-encoding").is_none() {
            self.body.extend(self.client.read_to_end());
            self.has_ended = true;
            return;
        }
        let size = self.client.read_until(b"\r\n");
        let size = std::str::from_utf8(&size).expect("a size is text").trim_end();
        let size = usize::from_str_radix(size, 16).expect("a size is a number");
        let mut chunk = self.client.read_exactly(size + 2);
        assert_eq!(chunk.split_off(size), b"\r\n");
        self.body.extend(chunk);
        self.has_ended = size == 0;
    }
}

/// Sends commands, a line each, for the session of a reply to `connect`; returns the answer.
#[track_caller]
pub fn emulate(client: &mut Client, connected: &Value, commands: &str) -> Response {
    let (session, node) = (&connected["session"], &connected["node"]);
    let body = json!({"session": session, "node": node, "data": commands}).to_string();
    let len = body.len();
    client.send(format!(
        "POST /emulation HTTP/1.1\r\nHost: t\r\nContent-Length: {len}\r\n\r\n{body}"
    ));
    client.read_response()
}
