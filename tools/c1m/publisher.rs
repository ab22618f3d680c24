//! Publications at a steady rate, from a thread of their own, by one of three ways.
//!
//! Each is due at its own time, whatever the ones before took; how late it leaves is recorded, because a publisher that
//! lags makes a server look good.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fantail::driver::make_private;
use fantail::protocol::websocket::{Message, MessageDecoder, OpCode, write_masked_frame};

use crate::connection::Decoder;
use crate::door::{Door, Greeted, LIMITS};
use crate::instrument::Histogram;
use crate::payload::{self, Stamp};
use crate::shared::{Shared, cause_of};

/// What to publish, and how.
#[derive(Clone, Debug)]
pub struct Publishing {
    pub way: Way,
    /// Where to, in the protocol of the way; HTTP and WebSocket have the same.
    pub door: Door,
    pub channels: u32,
    /// Publications a second, all channels together.
    pub rate: f64,
    pub count: u64,
    /// Bytes of a payload.
    pub size: usize,
    /// For connecting, and for each answer.
    pub timeout: Duration,
}

/// How publications reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    WebSocket,
    Commands,
    Http,
}

/// How it went.
pub struct Published {
    pub count: u64,
    /// Times that the server asked to try again later.
    pub deferred: u64,
    /// From due to sent, in nanoseconds.
    pub lag: Histogram,
    pub error: Option<String>,
}

/// Publishes until all is published or `stop` is set.
pub fn publish(shared: &Shared, publishing: &Publishing, stop: &AtomicBool) -> Published {
    let mut published = Published { count: 0, deferred: 0, lag: Histogram::new(), error: None };
    let result = make_private()
        .and_then(|()| Road::open(publishing))
        .and_then(|mut road| run(shared, publishing, stop, &mut road, &mut published));
    published.error = result.err().map(|error| cause_of(&error));
    published
}

fn run(
    shared: &Shared,
    publishing: &Publishing,
    stop: &AtomicBool,
    road: &mut Road,
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
            road.attend()?;
            sleep(left.min(ATTEND_EVERY));
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
            if road.publish(channel, &payload)? {
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
    // What was sent last may still be in our own hands.
    road.attend()
}

/// An open way to the server.
struct Road {
    door: Door,
    way: Way,
    /// For WebSockets, one for each channel: a WebSocket publishes to the channel of its path.
    streams: Vec<(TcpStream, Decoder)>,
    timeout: Duration,
    out: Vec<u8>,
    used_at: Instant,
}

impl Road {
    fn open(publishing: &Publishing) -> io::Result<Self> {
        let Publishing { way, door, timeout, .. } = publishing;
        let count = if *way == Way::WebSocket { publishing.channels } else { 1 };
        let mut road = Self {
            door: door.clone(),
            way: *way,
            streams: Vec::new(),
            timeout: *timeout,
            out: Vec::new(),
            used_at: Instant::now(),
        };
        for channel in 0..count {
            let stream = road.connect(channel)?;
            road.streams.push((stream, door.decoder()));
        }
        Ok(road)
    }

    fn connect(&self, channel: u32) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.door.address, self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        match self.way {
            Way::Http => return Ok(stream),
            Way::Commands => {
                stream.write_all(b"{\"id\":1,\"connect\":{}}\n")?;
                expect_reply(&mut stream, 1)?;
            }
            Way::WebSocket => {
                let mut greeting = Vec::new();
                self.door.write_greeting(&mut greeting, channel, u64::MAX);
                stream.write_all(&greeting)?;
                let mut answer = Vec::new();
                // Byte by byte: what is behind the answer is for the decoder.
                loop {
                    let mut byte = [0];
                    stream.read_exact(&mut byte)?;
                    answer.push(byte[0]);
                    match self.door.check_greeting(&answer, u64::MAX) {
                        Greeted::NotYet => {}
                        Greeted::Served(_) => break,
                        Greeted::Refused(cause) => return Err(io::Error::other(cause)),
                    }
                }
                stream.set_nonblocking(true)?;
            }
        }
        Ok(stream)
    }

    /// Publishes, or returns that the server asks to try again later.
    fn publish(&mut self, channel: u32, payload: &[u8]) -> io::Result<bool> {
        self.out.clear();
        match self.way {
            Way::WebSocket => {
                self.door.write_message(&mut self.out, payload);
                self.send_websocket(channel as usize)?;
                Ok(true)
            }
            Way::Commands => {
                let name = self.door.channel(channel);
                let head = format!("{{\"id\":4,\"publish\":{{\"channel\":\"{name}\",\"data\":\"");
                self.out.extend_from_slice(head.as_bytes());
                self.out.extend_from_slice(payload);
                self.out.extend_from_slice(b"\"}}\n");
                let (stream, _) = &mut self.streams[0];
                stream.write_all(&self.out)?;
                expect_reply(stream, 4)?;
                Ok(true)
            }
            Way::Http => self.post(channel, payload),
        }
    }

    /// Sends while it receives: the server stops reading from who does not.
    fn send_websocket(&mut self, index: usize) -> io::Result<()> {
        let began = Instant::now();
        let mut sent = 0;
        while sent < self.out.len() {
            match self.streams[index].0.write(&self.out[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if began.elapsed() > self.timeout {
                        return Err(io::Error::other("the server does not take publications"));
                    }
                    sleep(DEFERRED_PAUSE);
                }
                Err(error) => return Err(error),
            }
            listen(&mut self.streams[index])?;
        }
        Ok(())
    }

    fn post(&mut self, channel: u32, payload: &[u8]) -> io::Result<bool> {
        if self.used_at.elapsed() > HTTP_REUSED_WITHIN {
            self.streams[0].0 = self.connect(0)?;
        }
        self.used_at = Instant::now();
        let (host, name, length) = (self.door.address, self.door.channel(channel), payload.len());
        let head = format!(
            "POST /publish?channel={name} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"
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

    /// Takes what came on its own: pings, and our own publications.
    fn attend(&mut self) -> io::Result<()> {
        if self.way == Way::WebSocket {
            self.streams.iter_mut().try_for_each(listen)?;
        }
        Ok(())
    }
}

/// Reads all there is on a WebSocket and answers its pings.
fn listen((stream, decoder): &mut (TcpStream, Decoder)) -> io::Result<()> {
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

fn answer(
    stream: &mut TcpStream,
    decoder: &mut MessageDecoder,
    mut bytes: &mut [u8],
) -> io::Result<()> {
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
            Ok(Some(Message::Text(_) | Message::Binary(_) | Message::Pong(_))) => {}
            Err(fault) => return Err(io::Error::other(fault.reason())),
        }
    }
}

/// Waits for the reply with an id; pings in between need no answer from one who publishes.
fn expect_reply(stream: &mut TcpStream, id: u64) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        if byte[0] != b'\n' {
            line.push(byte[0]);
            if line.len() > REPLY_BYTES_MAX {
                return Err(io::Error::other("a reply without end"));
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

/// Reads one HTTP answer and returns its status.
fn read_status(stream: &mut TcpStream) -> io::Result<u16> {
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other("closed by the server"));
        }
        answer.extend_from_slice(&buffer[..count]);
        if answer.len() > REPLY_BYTES_MAX {
            return Err(io::Error::other("an HTTP answer without end"));
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

/// Pings are answered so soon.
const ATTEND_EVERY: Duration = Duration::from_millis(20);
const DEFERRED_PAUSE: Duration = Duration::from_millis(1);

/// Servers close HTTP connections that are silent for long; nothing is sent on one that may be closing.
const HTTP_REUSED_WITHIN: Duration = Duration::from_secs(10);
const REPLY_BYTES_MAX: usize = 16 * 1024;
