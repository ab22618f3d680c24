//! Fan-out: one publisher, many subscribers, with every stream checked.
//!
//! A publication is complete once every subscriber has received it; `outstanding` of them are kept in flight. Each is
//! sent in a write of its own, the first ones one after another while the previous one is in flight, so the server
//! decides whether publications are joined. The publisher is the first subscriber and receives its own publications.
//!
//! With a channel all of them speak the command protocol, so that any server that speaks it gets the same bytes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use fantail::protocol::websocket::Inflater;
use serde_json::{Value, json};

use super::client::{COMPRESSED, Connector, EventReader, FrameReader, Protocol, frame};
use super::command_client::{self, Subscribing};
use super::probe::{Probe, ProbeKind};
use super::sockets::Sockets;
use super::streams::{Arrival, Faults, Stream, document, payload, prices};
use super::target::Target;
use super::versions::Latest;
use super::window::{Phase, Window};
use crate::instrument::{Histogram, Wire};

/// Options of the fan-out load.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Number of subscribers, including the publisher
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Number of outstanding publications
    #[arg(long, default_value_t = 1)]
    outstanding: usize,
    /// Payload size in bytes, at least 16
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Fill payloads with prices in JSON rather than with dots
    #[arg(long)]
    prices: bool,
    /// Length of the measurement, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Warm-up before it, in seconds
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
    /// Protocol of the subscribers; the publisher uses a WebSocket, if there is no --channel
    #[arg(long, value_enum, default_value = "websocket")]
    protocol: Protocol,
    /// Path of the subscribers, if other than that of the publisher
    #[arg(long)]
    subscribers_path: Option<String>,
    /// Channel in which all of them, the publisher too, speak the command protocol
    #[arg(long)]
    channel: Option<String>,
    /// Publish documents in JSON that differ in one member
    #[arg(long, requires = "channel")]
    documents: bool,
    /// Subscribers take deltas
    #[arg(long, requires = "documents")]
    delta: bool,
    /// Measure pings on a connection to another channel meanwhile
    #[arg(long)]
    probe_ping: bool,
    /// Measure echoes of this echo service meanwhile
    #[arg(long)]
    probe_echo: Option<SocketAddr>,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let probe = start_probe(arguments)?;
    let mut connector = arguments.target.connector();
    let path = arguments.subscribers_path.as_deref();
    let path = path.or(command_client::path(arguments.protocol)).unwrap_or(&arguments.target.path);
    let others = (arguments.protocol, path);
    let mut load = match &arguments.channel {
        Some(channel) => Load::open_commands(&mut connector, channel, arguments)?,
        None => Load::open_with(&mut connector, others, arguments.subscribers, arguments.size)?,
    };
    load.spin = arguments.target.spin;
    load.payload = if arguments.prices { prices } else { payload };
    // The last subscription may still be in flight between workers.
    sleep(SETTLING);
    let mut window = Window::new(&arguments.target, arguments.warm_up, arguments.seconds)?;
    load.publish(1)?;
    loop {
        load.turn()?;
        if load.outstanding.len() < arguments.outstanding {
            load.publish(1)?;
        }
        match window.phase(Instant::now())? {
            Phase::WarmUp | Phase::Inside => {}
            Phase::Opened => {
                load.deliveries = 0;
                load.bytes = 0;
                load.latency.clear();
                if let Some(probe) = &probe {
                    probe.open();
                }
            }
            Phase::Closed(length, spent) => {
                let deliveries = load.deliveries;
                let probed = probe.map(Probe::finish).transpose()?;
                return Ok(json!({
                    "kind": "fanout",
                    "subscribers": arguments.subscribers,
                    "outstanding": arguments.outstanding,
                    "size": arguments.size,
                    "seconds": length.as_secs_f64(),
                    "ops": deliveries,
                    "ops_per_second": deliveries as f64 / length.as_secs_f64(),
                    "bytes_per_op": load.bytes as f64 / deliveries as f64,
                    "latency": load.latency.to_json(),
                    "faults": load.faults.to_json(),
                    "probe": probed.map(|histogram| histogram.to_json()),
                    "server": spent.map(|spent| spent.to_json(deliveries)),
                }));
            }
        }
    }
}

fn start_probe(arguments: &Arguments) -> io::Result<Option<Probe>> {
    let (address, path, kind) = match arguments.probe_echo {
        _ if arguments.probe_ping => {
            (arguments.target.address, "/ws?channel=probe", ProbeKind::Ping)
        }
        Some(address) => (address, "/", ProbeKind::Echo),
        None => return Ok(None),
    };
    let connector = arguments.target.connector_to(address, path);
    Probe::over(connector, kind, 1, None).map(Some)
}

/// The subscribers and the outstanding publications.
pub struct Load {
    sockets: Sockets,
    spin: bool,
    subscribers: Vec<Subscriber>,
    publishing: Publishing,
    buffer: Vec<u8>,
    size: usize,
    /// Makes the payload of a number.
    payload: fn(u64, usize) -> Vec<u8>,
    began: Instant,
    /// Number of the first outstanding publication.
    first: u64,
    outstanding: VecDeque<Publication>,
    /// Whether publishing has ended.
    ending: bool,
    pub deliveries: u64,
    /// Bytes received, with the headers of frames.
    bytes: u64,
    pub faults: Faults,
    latency: Histogram,
}

/// How the first subscriber publishes.
enum Publishing {
    /// Each message is a publication.
    Messages,
    Commands {
        protocol: Protocol,
        channel: String,
        documents: bool,
    },
}

impl Publishing {
    fn frame(&self, number: u64, size: usize, payload: fn(u64, usize) -> Vec<u8>) -> Vec<u8> {
        let Publishing::Commands { protocol, channel, documents } = self else {
            return frame(TEXT, &payload(number, size));
        };
        let data = match protocol {
            _ if *documents => document(number, size),
            Protocol::Protobuf => payload(number, size),
            _ => [b"\"", &payload(number, size)[..], b"\""].concat(),
        };
        // Those of connect and subscribe come before.
        let id = 3 + (number % u64::from(u16::MAX)) as u32;
        command_client::publish_frame(*protocol, id, channel, &data)
    }
}

struct Subscriber {
    stream: Wire,
    reader: Reader,
    check: Stream,
}

enum Reader {
    Frames(FrameReader),
    Events(EventReader),
    Commands(FrameReader),
    Protobuf(FrameReader),
    Deflated(FrameReader),
    Deltas(FrameReader, Latest),
    ProtobufDeltas(FrameReader, Latest),
}

/// The last message that was inflated. The subscribers are sent the same bytes, one after another.
#[derive(Default)]
struct Inflated {
    inflater: Inflater,
    compressed: Vec<u8>,
    message: Vec<u8>,
}

thread_local! {
    static INFLATED: RefCell<Inflated> = RefCell::default();
}

impl Inflated {
    fn of(&mut self, compressed: &[u8]) -> &[u8] {
        if self.compressed != compressed {
            self.compressed = compressed.to_vec();
            self.message.clear();
            // A message that is not sound counts as one with no number.
            let _ = self.inflater.inflate(compressed, 1 << 24, &mut self.message);
        }
        &self.message
    }
}

impl Reader {
    fn of_commands(protocol: Protocol, delta: bool) -> Self {
        let frames = FrameReader::default();
        match (protocol, delta) {
            (Protocol::Protobuf, false) => Reader::Protobuf(frames),
            (Protocol::Protobuf, true) => Reader::ProtobufDeltas(frames, Latest::default()),
            (_, false) => Reader::Commands(frames),
            (_, true) => Reader::Deltas(frames, Latest::default()),
        }
    }

    /// Calls `take` with each complete publication.
    fn read(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8])) {
        match self {
            Reader::Events(events) => events.read(bytes, take),
            Reader::Commands(frames) => frames.read(bytes, |_, message| {
                command_client::publications_in_json(message, &mut take);
            }),
            Reader::Deltas(frames, latest) => {
                frames.read(bytes, |_, message| latest.read_json(message, &mut take));
            }
            Reader::ProtobufDeltas(frames, latest) => {
                frames.read(bytes, |_, message| latest.read_protobuf(message, &mut take));
            }
            Reader::Protobuf(frames) => frames.read(bytes, |_, message| {
                command_client::publications(message, &mut take);
            }),
            Reader::Deflated(frames) => frames.read(bytes, |opcode, payload| match opcode {
                TEXT | BINARY => take(payload),
                _ if opcode & COMPRESSED != 0 => {
                    INFLATED.with_borrow_mut(|inflated| take(inflated.of(payload)));
                }
                _ => {}
            }),
            Reader::Frames(frames) => frames.read(bytes, |opcode, payload| {
                if opcode == TEXT || opcode == BINARY {
                    take(payload);
                }
            }),
        }
    }
}

struct Publication {
    published_at: u64,
    /// Number of subscribers that have not received it.
    awaited: usize,
}

impl Load {
    /// Opens WebSocket subscribers.
    pub fn open(connector: &mut Connector, count: usize, size: usize) -> io::Result<Self> {
        let opened = connector.open(count)?;
        Self::over(opened, Protocol::Websocket, size)
    }

    /// Opens subscribers with another protocol, except for the first one, the publisher.
    fn open_with(
        connector: &mut Connector,
        (protocol, path): (Protocol, &str),
        count: usize,
        size: usize,
    ) -> io::Result<Self> {
        let mut opened = connector.open(1)?;
        let channel = connector.channel();
        connector.set_protocol(protocol, path);
        if command_client::path(protocol).is_some() {
            let ask = Subscribing { protocol, channel: &channel, delta: false };
            opened.extend(ask.open(connector, count - 1)?.into_iter().map(|one| (one, Vec::new())));
        } else {
            opened.append(&mut connector.open(count - 1)?);
        }
        Self::over(opened, protocol, size)
    }

    /// Opens subscribers of which the first one publishes by a command.
    fn open_commands(
        connector: &mut Connector,
        channel: &str,
        arguments: &Arguments,
    ) -> io::Result<Self> {
        let Arguments { protocol, delta, documents, .. } = *arguments;
        let ask = Subscribing { protocol, channel, delta };
        let opened = ask.connect(connector, arguments.subscribers)?;
        let opened = opened.into_iter().map(|stream| (stream, Vec::new())).collect();
        let mut load = Self::over(opened, protocol, arguments.size)?;
        for subscriber in &mut load.subscribers {
            subscriber.reader = Reader::of_commands(protocol, delta);
        }
        let channel = channel.to_owned();
        load.publishing = Publishing::Commands { protocol, channel, documents };
        Ok(load)
    }

    fn over(opened: Vec<(Wire, Vec<u8>)>, protocol: Protocol, size: usize) -> io::Result<Self> {
        let sockets = Sockets::new()?;
        let mut subscribers = Vec::with_capacity(opened.len());
        for (index, (stream, rest)) in opened.into_iter().enumerate() {
            sockets.add(&stream.tcp, index)?;
            let mut reader = match protocol {
                _ if index == 0 => Reader::Frames(FrameReader::default()),
                Protocol::Websocket => Reader::Frames(FrameReader::default()),
                Protocol::Sse => Reader::Events(EventReader::default()),
                Protocol::Commands | Protocol::Protobuf => Reader::of_commands(protocol, false),
                Protocol::Deflate => Reader::Deflated(FrameReader::default()),
            };
            reader.read(&rest, |_| {});
            subscribers.push(Subscriber { stream, reader, check: Stream::default() });
        }
        Ok(Self {
            sockets,
            spin: false,
            subscribers,
            publishing: Publishing::Messages,
            buffer: vec![0; 1 << 18],
            size,
            payload,
            began: Instant::now(),
            first: 0,
            outstanding: VecDeque::new(),
            ending: false,
            deliveries: 0,
            bytes: 0,
            faults: Faults::default(),
            latency: Histogram::new(),
        })
    }

    pub fn publish(&mut self, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let published_at = self.began.elapsed().as_nanos() as u64;
            let number = self.first + self.outstanding.len() as u64;
            let frame = self.publishing.frame(number, self.size, self.payload);
            self.outstanding
                .push_back(Publication { published_at, awaited: self.subscribers.len() });
            self.subscribers[0].stream.write_all(&frame)?;
        }
        Ok(())
    }

    pub fn turn(&mut self) -> io::Result<()> {
        if !self.sockets.wait(self.spin)? {
            let mut missing = self.outstanding.iter().map(|publication| publication.awaited);
            let missing = missing.next().unwrap_or(0);
            return Err(io::Error::other(format!(
                "publication {} has not reached {missing} subscribers",
                self.first
            )));
        }
        self.receive()?;
        let mut completed = 0;
        let now = self.began.elapsed().as_nanos() as u64;
        while self.outstanding.front().is_some_and(|publication| publication.awaited == 0) {
            if let Some(publication) = self.outstanding.pop_front() {
                self.latency.record(now - publication.published_at);
            }
            self.first += 1;
            completed += 1;
        }
        if completed > 0 && !self.ending { self.publish(completed) } else { Ok(()) }
    }

    /// Waits for outstanding publications and counts the missing deliveries.
    pub fn finish(&mut self) {
        self.ending = true;
        let end = self.first + self.outstanding.len() as u64;
        while !self.outstanding.is_empty() && self.turn().is_ok() {}
        for subscriber in &mut self.subscribers {
            subscriber.check.finish(end, &mut self.faults);
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let Self { sockets, subscribers, buffer, outstanding, .. } = self;
        let Self { faults, deliveries, bytes: received, first, .. } = self;
        for index in sockets.ready() {
            let Subscriber { stream, reader, check } = &mut subscribers[index];
            stream.read_available(buffer, |bytes| {
                *received += bytes.len() as u64;
                reader.read(bytes, |payload| {
                    *deliveries += 1;
                    if let Arrival::New(number) = check.receive(payload, faults)
                        && let Some(place) = number.checked_sub(*first)
                        && let Some(publication) = outstanding.get_mut(place as usize)
                    {
                        publication.awaited -= 1;
                    }
                });
                Ok(())
            })?;
        }
        Ok(())
    }
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const SETTLING: Duration = Duration::from_millis(300);
