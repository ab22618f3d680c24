//! Server API: each connection keeps `depth` calls outstanding.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::sockets::Sockets;
use super::target::Target;
use super::window::{Phase, Window};
use crate::instrument::Wire;

/// Options of the server API load.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Number of connections
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Outstanding calls on each connection
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// Number of channels to publish to, in turn
    #[arg(long, default_value_t = 1000)]
    channels: usize,
    /// Payload size in bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Method of the calls
    #[arg(long, value_enum, default_value_t = Shape::Publish)]
    shape: Shape,
    /// Publications in one broadcast or batch
    #[arg(long, default_value_t = 100)]
    many: usize,
    /// Length of the measurement, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Warm-up before it, in seconds
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// One publication per call
    Publish,
    /// One call publishes to many channels
    Broadcast,
    /// One call with many publish commands
    Batch,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let mut load = Load::open(arguments)?;
    let mut window = Window::new(&arguments.target, arguments.warm_up, arguments.seconds)?;
    load.start(arguments.depth)?;
    loop {
        load.turn()?;
        match window.phase(Instant::now())? {
            Phase::WarmUp | Phase::Inside => {}
            Phase::Opened => load.answers = 0,
            Phase::Closed(length, spent) => {
                let publications = load.answers * load.publications_per_call;
                return Ok(json!({
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
                    "server": spent.map(|spent| spent.to_json(publications)),
                }));
            }
        }
    }
}

struct Load {
    sockets: Sockets,
    spin: bool,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    /// The encoded calls, each for another set of channels.
    requests: Vec<Vec<u8>>,
    publications_per_call: u64,
    answers: u64,
}

struct Connection {
    stream: TcpStream,
    /// Received bytes of answers that are not complete.
    rest: Vec<u8>,
    calls: Calls,
}

/// What one connection sends.
struct Calls {
    /// Index of the next one in `Load::requests`.
    next: usize,
    outgoing: Vec<u8>,
}

impl Load {
    fn open(arguments: &Arguments) -> io::Result<Self> {
        let sockets = Sockets::new()?;
        let mut connector = arguments.target.connector();
        let mut connections = Vec::with_capacity(arguments.connections);
        let requests = requests(arguments);
        for index in 0..arguments.connections {
            let stream = connector.connect()?;
            sockets.add(&stream, index)?;
            // Connections start at different channels.
            let next = index * requests.len() / arguments.connections;
            let calls = Calls { next, outgoing: Vec::new() };
            connections.push(Connection { stream, rest: Vec::new(), calls });
        }
        let publications_per_call =
            if arguments.shape == Shape::Publish { 1 } else { arguments.many as u64 };
        Ok(Self {
            sockets,
            spin: arguments.target.spin,
            connections,
            buffer: vec![0; 1 << 18],
            requests,
            publications_per_call,
            answers: 0,
        })
    }

    fn start(&mut self, depth: usize) -> io::Result<()> {
        for Connection { stream, calls, .. } in &mut self.connections {
            calls.send(stream, &self.requests, depth)?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        if !self.sockets.wait(self.spin)? {
            return Err(io::Error::other("the server stopped answering"));
        }
        let Self { sockets, connections, buffer, requests, answers, .. } = self;
        for index in sockets.ready() {
            let Connection { stream, rest, calls } = &mut connections[index];
            Wire::read_plain(stream, buffer, |bytes| {
                rest.extend_from_slice(bytes);
                let answered = count_answers(rest)?;
                *answers += answered as u64;
                calls.send(stream, requests, answered)
            })?;
        }
        Ok(())
    }
}

impl Calls {
    fn send(
        &mut self,
        mut stream: &TcpStream,
        requests: &[Vec<u8>],
        count: usize,
    ) -> io::Result<()> {
        self.outgoing.clear();
        for _ in 0..count {
            self.outgoing.extend_from_slice(&requests[self.next]);
            self.next = (self.next + 1) % requests.len();
        }
        // Outstanding calls must fit the socket's buffers: this measures servers, not backpressure.
        if count > 0 && stream.write(&self.outgoing)? < self.outgoing.len() {
            return Err(io::Error::other("outstanding calls exceed the send buffer"));
        }
        Ok(())
    }
}

/// Removes the complete answers and counts them. One that reports a failure is an error.
fn count_answers(received: &mut Vec<u8>) -> io::Result<usize> {
    let (mut used, mut count) = (0, 0);
    while let Some((length, is_success)) = answer(&received[used..]) {
        if !is_success {
            let answer = String::from_utf8_lossy(&received[used..used + length]).into_owned();
            return Err(io::Error::other(format!("a call failed: {answer}")));
        }
        used += length;
        count += 1;
    }
    received.drain(..used);
    Ok(count)
}

/// Length of the first response, if it is complete, and whether it reports success.
fn answer(bytes: &[u8]) -> Option<(usize, bool)> {
    let head_bytes = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_bytes]).ok()?;
    let (_, length) = head.split_once("Content-Length: ")?;
    let length: usize = length.split_once("\r\n")?.0.parse().ok()?;
    let body = bytes.get(head_bytes..head_bytes + length)?;
    let has_error = body.windows(8).any(|piece| piece == b"\"error\":");
    Some((head_bytes + length, head.starts_with("HTTP/1.1 200 ") && !has_error))
}

/// Encodes one call per channel, or per set of channels.
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
