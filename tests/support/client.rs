//! A client that sends raw bytes and reads HTTP responses and lines.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::PATIENCE;

/// A connection, shut down in both directions on drop. Closing would not suffice: a worker that was started meanwhile
/// has copies of all descriptors of this process.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream, received: Vec::new() }
    }

    /// A client with an address of its own, such as 127.0.0.2.
    #[track_caller]
    pub fn connect_from(source: impl Into<IpAddr>, address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            None,
        )
        .expect("a socket");
        socket.bind(&SocketAddr::new(source.into(), 0).into()).expect("an address of this host");
        socket.connect(&address.into()).expect("connects");
        let stream: TcpStream = socket.into();
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream, received: Vec::new() }
    }

    /// A client of a Unix socket. What the standard library does with a stream of TCP, it does with this one too.
    #[track_caller]
    pub fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream: OwnedFd::from(stream).into(), received: Vec::new() }
    }

    /// A client with small kernel buffers, so that the server detects soon that it does not read.
    #[track_caller]
    pub fn connect_narrow(address: SocketAddr) -> Self {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            None,
        )
        .expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        // The server's kernel makes room for a few segments: of this size, not of loopback's 64 KiB.
        socket.set_tcp_mss(536).expect("small segments");
        socket.connect(&address.into()).expect("connects");
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream, received: Vec::new() }
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes it");
    }

    /// Sends every byte in a write of its own.
    #[track_caller]
    pub fn send_bytewise(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
        }
    }

    /// Sends what the kernel accepts without blocking; returns the number of bytes.
    pub fn send_some(&mut self, bytes: &[u8]) -> usize {
        self.stream.set_nonblocking(true).expect("a socket");
        let mut sent = 0;
        let quiet_since = Instant::now();
        while sent < bytes.len() && quiet_since.elapsed() < PATIENCE {
            match self.stream.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("sending: {error}"),
            }
        }
        self.stream.set_nonblocking(false).expect("a socket");
        sent
    }

    /// Closes the sending half.
    pub fn end(&mut self) {
        self.stream.shutdown(Shutdown::Write).expect("shuts down");
    }

    /// Resets the connection, even if other processes have copies of its descriptor.
    #[expect(unsafe_code, reason = "disconnecting has no safe wrapper")]
    pub fn reset(self) {
        let unspecified =
            libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        let len = libc::socklen_t::try_from(size_of_val(&unspecified)).expect("small");
        // SAFETY: the descriptor is open, and the address is valid for the length given with it.
        let result = unsafe { libc::connect(self.stream.as_raw_fd(), &raw const unspecified, len) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Receives more bytes; returns false at the end.
    #[track_caller]
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 64 * 1024];
        let received = loop {
            match self.stream.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        let count = received.unwrap_or_else(|error| {
            let so_far = String::from_utf8_lossy(&self.received);
            panic!("receiving: {error}; so far: {}", &so_far[..so_far.len().min(500)])
        });
        self.received.extend_from_slice(&buffer[..count]);
        count > 0
    }

    #[track_caller]
    fn receive_more(&mut self, for_what: &str) {
        if !self.receive() {
            let so_far = String::from_utf8_lossy(&self.received);
            panic!(
                "the server closed before {for_what}; so far: {}",
                &so_far[..so_far.len().min(500)]
            );
        }
    }

    #[track_caller]
    pub fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.received.len() < count {
            self.receive_more("all bytes came");
        }
        self.received.drain(..count).collect()
    }

    /// Receives the next bytes, at least one.
    #[track_caller]
    pub fn read_some(&mut self) -> Vec<u8> {
        if self.received.is_empty() {
            self.receive_more("anything came");
        }
        std::mem::take(&mut self.received)
    }

    /// Receives the available bytes without waiting.
    #[track_caller]
    pub fn read_available(&mut self) -> Vec<u8> {
        self.stream.set_nonblocking(true).expect("a socket");
        let mut buffer = [0; 64 * 1024];
        // A bounded number, so that a caller can serve several clients in turn.
        for _ in 0..4 {
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the server closed"),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("receiving: {error}"),
            }
        }
        self.stream.set_nonblocking(false).expect("a socket");
        std::mem::take(&mut self.received)
    }

    /// Receives up to and including a terminator.
    #[track_caller]
    pub fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut searched = 0;
        loop {
            let found = self.received[searched..].windows(end.len()).position(|piece| piece == end);
            if let Some(at) = found {
                return self.read_exactly(searched + at + end.len());
            }
            searched = (self.received.len() + 1).saturating_sub(end.len());
            self.receive_more("what ends it came");
        }
    }

    /// Receives one line as JSON.
    #[track_caller]
    pub fn read_json(&mut self) -> Value {
        let line = self.read_until(b"\n");
        serde_json::from_slice(&line)
            .unwrap_or_else(|error| panic!("{error} in {}", String::from_utf8_lossy(&line)))
    }

    /// Receives everything until the server closes with a FIN.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while self.receive() {}
        std::mem::take(&mut self.received)
    }

    /// Asserts that the server closes without sending more.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "before the end came: {}", String::from_utf8_lossy(&rest));
    }

    /// Waits for the end of the connection, by FIN or reset; received bytes are ignored.
    #[track_caller]
    pub fn expect_gone(&mut self) {
        let mut buffer = [0; 64 * 1024];
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "bytes keep coming");
            match self.stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    panic!("the server keeps the connection")
                }
                Err(_) => return,
            }
        }
    }

    /// Receives an HTTP response with its body.
    #[track_caller]
    pub fn read_response(&mut self) -> Response {
        let response = self.read_response_head();
        let length = response
            .header("content-length")
            .map_or(0, |length| length.parse().expect("a length is a number"));
        Response { body: self.read_exactly(length), ..response }
    }

    /// Receives an HTTP response without a body: interim, to HEAD, or an upgrade.
    #[track_caller]
    pub fn read_response_head(&mut self) -> Response {
        let head = String::from_utf8(self.read_until(b"\r\n\r\n")).expect("a head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().expect("a status line");
        assert!(status_line.starts_with("HTTP/1.1 "), "{head}");
        let status = status_line[9..12].parse().expect("a status");
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").expect("a header");
                (name.to_ascii_lowercase(), value.to_owned())
            })
            .collect();
        Response { status, headers, body: Vec::new() }
    }

    /// Sends a GET on a persistent connection.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: t\r\n\r\n"));
        self.read_response()
    }

    /// Sends bytes and receives the head of an HTTP response, or `None` if the server closes without one, as it does
    /// with a connection that it rejects.
    #[track_caller]
    pub fn try_request(&mut self, bytes: impl AsRef<[u8]>) -> Option<Response> {
        self.stream.write_all(bytes.as_ref()).ok()?;
        let mut first = [0];
        match self.stream.read(&mut first) {
            Ok(1) => self.received.push(first[0]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the server says nothing")
            }
            Ok(_) | Err(_) => return None,
        }
        Some(self.read_response())
    }

    /// Publishes through HTTP and waits for the response.
    #[track_caller]
    pub fn publish(&mut self, channel: &str, payload: impl AsRef<[u8]>) -> Value {
        let payload = payload.as_ref();
        let len = payload.len();
        self.send(format!(
            "POST /publish?channel={channel} HTTP/1.1\r\nHost: t\r\nContent-Length: {len}\r\n\r\n"
        ));
        self.send(payload);
        let response = self.read_response();
        assert_eq!(response.status, 200, "{response:?}");
        response.json()
    }

    /// Calls a method of the server API, with headers beside the usual ones.
    #[track_caller]
    pub fn call_with(&mut self, method: &str, headers: &str, body: impl AsRef<[u8]>) -> Response {
        let body = body.as_ref();
        let len = body.len();
        let head = format!(
            "POST /api/{method} HTTP/1.1\r\nHost: t\r\n{headers}Content-Length: {len}\r\n\r\n"
        );
        self.send([head.as_bytes(), body].concat());
        self.read_response()
    }

    /// Calls a method of the server API; returns the response.
    #[track_caller]
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        let response = self.call_with(method, "", parameters.to_string());
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(response.header("content-type"), Some("application/json"));
        response.json()
    }

    /// Sends a command; returns the next line.
    #[track_caller]
    pub fn command(&mut self, command: &Value) -> Value {
        self.send(format!("{command}\n"));
        self.read_json()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It fails if the connection has ended already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    /// The value of `Retry-After`, in seconds.
    pub fn retry_after(&self) -> Option<u32> {
        self.header("retry-after").map(|seconds| seconds.parse().expect("a number of seconds"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body is text")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}
