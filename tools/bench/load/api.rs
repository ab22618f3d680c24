//! The server API: each connection keeps `depth` calls under way.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Instant;

use clap::{Args, ValueEnum};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

use super::{Phase, Target, Window, add_cost, wait};

/// Calls of the server API.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Connections that call
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Calls under way on each
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// Channels published to, in turns
    #[arg(long, default_value_t = 1000)]
    channels: usize,
    /// Payload bytes of one publication
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// How publications are put into calls
    #[arg(long, value_enum, default_value_t = Shape::Publish)]
    shape: Shape,
    /// Publications in one broadcast or batch
    #[arg(long, default_value_t = 100)]
    many: usize,
    /// Length of the interval that counts
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Time before it
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// One in each call
    Publish,
    /// The same to many channels
    Broadcast,
    /// Many in a batch
    Batch,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut load = Load::open(arguments)?;
    let cpu = arguments.target.server_cpu()?;
    let mut window = Window::new(cpu, arguments.warm_up, arguments.seconds);
    load.start(arguments.depth)?;
    loop {
        load.turn()?;
        match window.phase(Instant::now())? {
            Phase::WarmUp | Phase::Inside => {}
            Phase::Opened => load.answers = 0,
            Phase::Closed(length, spent) => {
                let publications = load.answers * load.publications_per_call;
                let mut report = json!({
                    "kind": "api",
                    "shape": format!("{:?}", arguments.shape).to_lowercase(),
                    "connections": arguments.connections,
                    "depth": arguments.depth,
                    "channels": arguments.channels,
                    "size": arguments.size,
                    "seconds": length.as_secs_f64(),
                    "calls": load.answers,
                    "publications": publications,
                    "publications_per_second": publications as f64 / length.as_secs_f64(),
                });
                add_cost(&mut report, spent.as_ref(), publications);
                return Ok(report);
            }
        }
    }
}

struct Load {
    poll: Poll,
    spin: bool,
    events: Events,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    /// Each another set of channels.
    requests: Vec<Vec<u8>>,
    publications_per_call: u64,
    answers: u64,
}

struct Connection {
    stream: TcpStream,
    /// Received and not counted yet.
    rest: Vec<u8>,
    /// Of `requests`.
    next: usize,
    outgoing: Vec<u8>,
}

impl Load {
    fn open(arguments: &Arguments) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut connector = arguments.target.connector();
        let mut connections = Vec::with_capacity(arguments.connections);
        let requests = requests(arguments);
        for index in 0..arguments.connections {
            let stream = connector.connect()?;
            stream.set_nonblocking(true)?;
            poll.registry().register(
                &mut SourceFd(&stream.as_raw_fd()),
                Token(index),
                Interest::READABLE,
            )?;
            // So that they do not all publish to one channel at a time.
            let next = index * requests.len() / arguments.connections;
            connections.push(Connection { stream, rest: Vec::new(), next, outgoing: Vec::new() });
        }
        let publications_per_call =
            if arguments.shape == Shape::Publish { 1 } else { arguments.many as u64 };
        Ok(Self {
            poll,
            spin: arguments.target.spin,
            events: Events::with_capacity(1024),
            connections,
            buffer: vec![0; 1 << 18],
            requests,
            publications_per_call,
            answers: 0,
        })
    }

    fn start(&mut self, depth: usize) -> io::Result<()> {
        for connection in &mut self.connections {
            connection.send(&self.requests, depth)?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        if !wait(&mut self.poll, &mut self.events, self.spin)? {
            return Err(io::Error::other("the server stopped answering"));
        }
        let Self { events, connections, buffer, requests, answers, .. } = self;
        for event in events.iter() {
            let connection = &mut connections[event.token().0];
            loop {
                let count = match connection.stream.read(buffer) {
                    Ok(0) => return Err(io::Error::other("the server closed a connection")),
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                connection.rest.extend_from_slice(&buffer[..count]);
                let answered = connection.count_answers()?;
                *answers += answered as u64;
                connection.send(requests, answered)?;
                if count < buffer.len() {
                    break;
                }
            }
        }
        Ok(())
    }
}

impl Connection {
    fn send(&mut self, requests: &[Vec<u8>], count: usize) -> io::Result<()> {
        self.outgoing.clear();
        for _ in 0..count {
            self.outgoing.extend_from_slice(&requests[self.next]);
            self.next = (self.next + 1) % requests.len();
        }
        // What is under way is meant to fit the socket's buffers: this measures servers, not backpressure.
        if count > 0 && self.stream.write(&self.outgoing)? < self.outgoing.len() {
            return Err(io::Error::other("calls under way exceed the send buffer"));
        }
        Ok(())
    }

    /// Takes the whole answers; each must be a success.
    fn count_answers(&mut self) -> io::Result<usize> {
        let (mut used, mut count) = (0, 0);
        while let Some((length, is_fine)) = answer(&self.rest[used..]) {
            if !is_fine {
                let answer = String::from_utf8_lossy(&self.rest[used..used + length]).into_owned();
                return Err(io::Error::other(format!("a call failed: {answer}")));
            }
            used += length;
            count += 1;
        }
        self.rest.drain(..used);
        Ok(count)
    }
}

/// The length of the answer in front, if it is there, and whether it is a success.
fn answer(bytes: &[u8]) -> Option<(usize, bool)> {
    let head_bytes = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_bytes]).ok()?;
    let (_, length) = head.split_once("Content-Length: ")?;
    let length: usize = length.split_once("\r\n")?.0.parse().ok()?;
    let body = bytes.get(head_bytes..head_bytes + length)?;
    let has_error = body.windows(8).any(|piece| piece == b"\"error\":");
    Some((head_bytes + length, head.starts_with("HTTP/1.1 200 ") && !has_error))
}

/// One call for each channel, or for each set of them.
fn requests(arguments: &Arguments) -> Vec<Vec<u8>> {
    let data = json!({"text": "x".repeat(arguments.size.saturating_sub(11))});
    let many = if arguments.shape == Shape::Publish { 1 } else { arguments.many };
    let channels: Vec<_> =
        (0..arguments.channels).map(|index| format!("channel-{index}")).collect();
    let calls = arguments.channels.div_ceil(many).max(1);
    (0..calls)
        .map(|call| {
            let channels: Vec<_> = channels.iter().cycle().skip(call * many).take(many).collect();
            let (method, body) = match arguments.shape {
                Shape::Publish => ("publish", json!({"channel": channels[0], "data": data})),
                Shape::Broadcast => ("broadcast", json!({"channels": channels, "data": data})),
                Shape::Batch => {
                    let commands: Vec<_> = channels
                        .iter()
                        .map(|channel| json!({"publish": {"channel": channel, "data": data}}))
                        .collect();
                    ("batch", json!({"commands": commands}))
                }
            };
            let (body, address) = (body.to_string(), arguments.target.address);
            let head = format!(
                "POST /api/{method} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n",
                body.len()
            );
            (head + &body).into_bytes()
        })
        .collect()
}
