//! Publishes at a steady rate from a thread of its own, over one of three transports.
//!
//! Each publication has a scheduled time, independent of how long the previous ones took. How late it is sent is
//! recorded, because a publisher that falls behind makes a server look better than it is.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use fantail::driver::make_private;
use fantail::protocol::websocket::{Message, MessageDecoder, OpCode, write_masked_frame};

use crate::connection::Decoder;
use crate::endpoint::{Endpoint, Handshake, LIMITS};
use crate::instrument::Histogram;
use crate::instrument::{Opening, Wire};
use crate::payload::{self, Stamp};
use crate::shared::{Shared, cause_of};

/// What to publish, how often and where.
#[derive(Clone, Debug)]
pub struct Publishing {
    pub via: Via,
    /// The server; HTTP and WebSocket share an address.
    pub endpoint: Endpoint,
    pub channels: u32,
    /// Publications per second, over all channels.
    pub rate: f64,
    pub count: u64,
    /// Payload size, in bytes.
    pub size: usize,
    /// Timeout for connecting, and for each response.
    pub timeout: Duration,
}

/// How publications reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// One WebSocket per channel
    Ws,
    /// Commands over raw TCP, to --tcp-target
    Tcp,
    /// POST requests to /publish
    Http,
}

/// The outcome of publishing.
pub struct Published {
    pub count: u64,
    /// Number of times that the server responded 503, try again later.
    pub deferred: u64,
    /// Delay of each publication against its schedule, in nanoseconds.
    pub lag: Histogram,
    pub error: Option<String>,
}

/// Publishes until the count is reached or `stop` is set.
pub fn publish(shared: &Shared, publishing: &Publishing, stop: &AtomicBool) -> Published {
    let mut published = Published { count: 0, deferred: 0, lag: Histogram::new(), error: None };
    let result = make_private()
        .and_then(|()| Connection::open(publishing))
        .and_then(|mut connection| run(shared, publishing, stop, &mut connection, &mut published));
    published.error = result.err().map(|error| cause_of(&error));
    published
}

fn run(
    shared: &Shared,
    publishing: &Publishing,
    stop: &AtomicBool,
    connection: &mut Connection,
    published: &mut Published,
) -> io::Result<()> {
    let began = Instant::now();
    let mut payload = Vec::new();
    while published.count < publishing.count {
        let due = began + Duration::from_secs_f64(published.count as f64 / publishing.rate);
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            connection.receive_pending()?;
            sleep(left.min(RECEIVE_INTERVAL));
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let channel = (published.count % u64::from(publishing.channels)) as u32;
        let sequence = (published.count / u64::from(publishing.channels)) as u32 + 1;
        published.lag.record(due.elapsed().as_nanos() as u64);
        shared.publishing(channel, sequence);
        loop {
            payload.clear();
            let stamp = Stamp { sequence, sent_ns: shared.now_ns(), channel };
            payload::write(&mut payload, stamp, publishing.size);
            if connection.publish(channel, &payload)? {
                break;
            }
            published.deferred += 1;
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            sleep(DEFERRED_PAUSE);
        }
        published.count += 1;
    }
    // Reports an error that the last publication caused.
    connection.receive_pending()
}

/// The connections to the server.
struct Connection {
    endpoint: Endpoint,
    via: Via,
    /// One stream, or for WebSockets one per channel: a WebSocket publishes to the channel of its path.
    streams: Vec<(Wire, Decoder)>,
    timeout: Duration,
    out: Vec<u8>,
    used_at: Instant,
}

impl Connection {
    fn open(publishing: &Publishing) -> io::Result<Self> {
        let Publishing { via, endpoint, timeout, .. } = publishing;
        let count = if *via == Via::Ws { publishing.channels } else { 1 };
        let mut connection = Self {
            endpoint: endpoint.clone(),
            via: *via,
            streams: Vec::new(),
            timeout: *timeout,
            out: Vec::new(),
            used_at: Instant::now(),
        };
        for channel in 0..count {
            let stream = connection.connect(channel)?;
            connection.streams.push((stream, endpoint.decoder()));
        }
        Ok(connection)
    }

    fn connect(&self, channel: u32) -> io::Result<Wire> {
        let tcp = TcpStream::connect_timeout(&self.endpoint.address, self.timeout)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(self.timeout))?;
        tcp.set_write_timeout(Some(self.timeout))?;
        let mut stream = Opening::begin(tcp, self.endpoint.tls.as_ref())?.finish()?;
        match self.via {
            Via::Http => return Ok(stream),
            Via::Tcp => {
                let mut connect = Vec::new();
                self.endpoint.write_connect(&mut connect, u64::MAX);
                stream.write_all(&connect)?;
                expect_reply(&mut stream, 1)?;
            }
            Via::Ws => {
                let mut request = Vec::new();
                self.endpoint.write_handshake(&mut request, channel, u64::MAX);
                stream.write_all(&request)?;
                let mut answer = Vec::new();
                // Byte by byte: the bytes after the response are for the decoder.
                loop {
                    let mut byte = [0];
                    stream.read_exact(&mut byte)?;
                    answer.push(byte[0]);
                    match self.endpoint.check_handshake(&answer, u64::MAX) {
                        Handshake::Incomplete => {}
                        Handshake::Complete(_) => break,
                        Handshake::Refused(cause) => return Err(io::Error::other(cause)),
                    }
                }
                stream.tcp.set_nonblocking(true)?;
            }
        }
        Ok(stream)
    }

    /// Publishes; returns false if the server asks to try again later.
    fn publish(&mut self, channel: u32, payload: &[u8]) -> io::Result<bool> {
        self.out.clear();
        match self.via {
            Via::Ws => {
                self.endpoint.write_message(&mut self.out, payload);
                self.send_websocket(channel as usize)?;
                Ok(true)
            }
            Via::Tcp => {
                let name = self.endpoint.channel(channel);
                let head = format!("{{\"id\":4,\"publish\":{{\"channel\":\"{name}\",\"data\":\"");
                self.out.extend_from_slice(head.as_bytes());
                self.out.extend_from_slice(payload);
                self.out.extend_from_slice(b"\"}}\n");
                let (stream, _) = &mut self.streams[0];
                stream.write_all(&self.out)?;
                expect_reply(stream, 4)?;
                Ok(true)
            }
            Via::Http => self.post(channel, payload),
        }
    }

    /// Sends and receives in turn: the server stops reading from a client that does not read.
    fn send_websocket(&mut self, index: usize) -> io::Result<()> {
        let began = Instant::now();
        let mut sent = 0;
        while sent < self.out.len() {
            match self.streams[index].0.write(&self.out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if began.elapsed() > self.timeout {
                        return Err(io::Error::other("the server does not accept publications"));
                    }
                    sleep(DEFERRED_PAUSE);
                }
                Err(error) => return Err(error),
            }
            receive_on(&mut self.streams[index])?;
        }
        Ok(())
    }

    fn post(&mut self, channel: u32, payload: &[u8]) -> io::Result<bool> {
        if self.used_at.elapsed() > HTTP_REUSED_WITHIN {
            self.streams[0].0 = self.connect(0)?;
        }
        self.used_at = Instant::now();
        let (host, name, length) =
            (self.endpoint.address, self.endpoint.channel(channel), payload.len());
        let token = self.endpoint.header_of_token(u64::MAX);
        let head = format!(
            "POST /publish?channel={name} HTTP/1.1\r\nHost: {host}\r\n{token}Content-Length: {length}\r\n\r\n"
        );
        self.out.extend_from_slice(head.as_bytes());
        self.out.extend_from_slice(payload);
        let (stream, _) = &mut self.streams[0];
        stream.write_all(&self.out)?;
        match read_status(stream)? {
            200 => Ok(true),
            503 => Ok(false),
            status => Err(io::Error::other(format!("refused with HTTP status {status}"))),
        }
    }

    /// Handles incoming data: pings, and publications of this run.
    fn receive_pending(&mut self) -> io::Result<()> {
        if self.via == Via::Ws {
            self.streams.iter_mut().try_for_each(receive_on)?;
        }
        Ok(())
    }
}

/// Reads the available data of a WebSocket and answers pings.
fn receive_on((stream, decoder): &mut (Wire, Decoder)) -> io::Result<()> {
    let Decoder::WebSocket(decoder) = decoder else { return Ok(()) };
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("closed by the server")),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        answer(stream, decoder, &mut buffer[..count])?;
    }
}

fn answer(stream: &mut Wire, decoder: &mut MessageDecoder, mut bytes: &mut [u8]) -> io::Result<()> {
    loop {
        match decoder.next(&mut bytes, &LIMITS) {
            Ok(None) => return Ok(()),
            Ok(Some(Message::Ping(payload))) => {
                let mut pong = Vec::new();
                write_masked_frame(&mut pong, OpCode::Pong, payload, [0; 4]);
                // A pong is a few bytes; one that finds no room is made up for by the next.
                let _ = stream.write(&pong)?;
            }
            Ok(Some(Message::Close { code, .. })) => {
                let code = code.map_or("no code".to_owned(), |code| format!("code {code}"));
                return Err(io::Error::other(format!("closed by the server with {code}")));
            }
            Ok(Some(
                Message::Text(_)
                | Message::Binary(_)
                | Message::Compressed { .. }
                | Message::Pong(_),
            )) => {}
            Err(fault) => return Err(io::Error::other(fault.reason())),
        }
    }
}

/// Waits for the reply with an id. Pings in between need not be answered while publishing.
fn expect_reply(stream: &mut Wire, id: u64) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        if byte[0] != b'\n' {
            line.push(byte[0]);
            if line.len() > REPLY_BYTES_MAX {
                return Err(io::Error::other("a reply is too long"));
            }
            continue;
        }
        let reply: serde_json::Value = serde_json::from_slice(&line).unwrap_or_default();
        line.clear();
        if let Some(code) = reply.pointer("/error/code") {
            return Err(io::Error::other(format!("refused with command error {code}")));
        }
        if let Some(code) = reply.pointer("/push/disconnect/code") {
            return Err(io::Error::other(format!("closed by the server with code {code}")));
        }
        if reply.get("id").and_then(serde_json::Value::as_u64) == Some(id) {
            return Ok(());
        }
    }
}

/// Reads one HTTP response and returns its status.
fn read_status(stream: &mut Wire) -> io::Result<u16> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other("closed by the server"));
        }
        answer.extend_from_slice(&buffer[..count]);
        if answer.len() > REPLY_BYTES_MAX {
            return Err(io::Error::other("an HTTP response is too long"));
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&answer).map_err(io::Error::other)?;
        let httparse::Status::Complete(head) = parsed else { continue };
        let length = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok())
            .unwrap_or(0);
        if answer.len() - head >= length {
            return Ok(response.code.unwrap_or(0));
        }
    }
}

/// Time between two reads while no publication is due; pings are answered within this time.
const RECEIVE_INTERVAL: Duration = Duration::from_millis(20);
const DEFERRED_PAUSE: Duration = Duration::from_millis(1);

/// Servers close idle HTTP connections; one that has been idle for longer than this is reopened.
const HTTP_REUSED_WITHIN: Duration = Duration::from_secs(10);
const REPLY_BYTES_MAX: usize = 16 * 1024;
