//! Echo: each connection keeps `depth` frames outstanding.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::client::{Connector, FrameReader, frame};
use super::sockets::Sockets;
use super::target::Target;
use super::window::{Phase, Window};
use crate::instrument::{Histogram, Wire};
use fantail::driver::make_private;

/// Options of the echo load.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub target: Target,
    /// Number of connections that send
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Number of idle connections in addition
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Outstanding frames on each connection
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Payload size in bytes
    #[arg(long, default_value_t = 20)]
    size: usize,
    /// Length of the measurement, in seconds
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Warm-up before it, in seconds
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
}

pub fn run(arguments: &Arguments) -> io::Result<Value> {
    let _idle = IdleConnections::open(arguments.target.connector(), arguments.idle)?;
    let mut load = Load::open(arguments)?;
    let mut window = Window::new(&arguments.target, arguments.warm_up, arguments.seconds)?;
    load.start()?;
    loop {
        load.turn()?;
        match window.phase(Instant::now())? {
            Phase::WarmUp | Phase::Inside => {}
            Phase::Opened => {
                load.echoes = 0;
                load.reads = 0;
                load.latency.clear();
            }
            Phase::Closed(length, spent) => {
                return Ok(json!({
                    "kind": "echo",
                    "connections": arguments.connections,
                    "idle": arguments.idle,
                    "depth": arguments.depth,
                    "size": arguments.size,
                    "seconds": length.as_secs_f64(),
                    "ops": load.echoes,
                    "ops_per_second": load.echoes as f64 / length.as_secs_f64(),
                    // How many echoes the server joins, and so shares its system calls between.
                    "echoes_per_read": load.echoes as f64 / load.reads as f64,
                    "latency": load.latency.to_json(),
                    "server": spent.map(|spent| spent.to_json(load.echoes)),
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
    /// `depth` frames, concatenated.
    frames: Vec<u8>,
    frame_bytes: usize,
    payload: Vec<u8>,
    began: Instant,
    echoes: u64,
    reads: u64,
    latency: Histogram,
}

struct Connection {
    stream: Wire,
    reader: FrameReader,
    /// When each outstanding frame was sent, in nanoseconds since `began`.
    sent_at: VecDeque<u64>,
}

impl Load {
    fn open(arguments: &Arguments) -> io::Result<Self> {
        let sockets = Sockets::new()?;
        let mut connections = Vec::with_capacity(arguments.connections);
        let opened = arguments.target.connector().open(arguments.connections)?;
        for (index, (stream, rest)) in opened.into_iter().enumerate() {
            if !rest.is_empty() {
                return Err(io::Error::other("the server sent data before the first frame"));
            }
            sockets.add(&stream.tcp, index)?;
            let sent_at = VecDeque::with_capacity(arguments.depth);
            connections.push(Connection { stream, reader: FrameReader::default(), sent_at });
        }
        let payload: Vec<u8> = (b'a'..=b'z').cycle().take(arguments.size).collect();
        let one = frame(TEXT, &payload);
        Ok(Self {
            sockets,
            spin: arguments.target.spin,
            connections,
            buffer: vec![0; 1 << 18],
            frames: one.repeat(arguments.depth),
            frame_bytes: one.len(),
            payload,
            began: Instant::now(),
            echoes: 0,
            reads: 0,
            latency: Histogram::new(),
        })
    }

    fn start(&mut self) -> io::Result<()> {
        let depth = self.frames.len() / self.frame_bytes;
        let now = self.began.elapsed().as_nanos() as u64;
        for Connection { stream, sent_at, .. } in &mut self.connections {
            send(stream, &self.frames)?;
            sent_at.extend(std::iter::repeat_n(now, depth));
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        if !self.sockets.wait(self.spin)? {
            return Err(io::Error::other("the server stopped echoing"));
        }
        let Self { sockets, connections, buffer, latency, .. } = self;
        for index in sockets.ready() {
            let Connection { stream, reader, sent_at } = &mut connections[index];
            let now = self.began.elapsed().as_nanos() as u64;
            let mut all = 0;
            stream.read_available(buffer, |bytes| {
                let mut echoed = 0;
                let mut differs = false;
                reader.read(bytes, |_, payload| {
                    differs |= payload != self.payload;
                    echoed += 1;
                    let sent_at = sent_at.pop_front().unwrap_or(now);
                    latency.record(now.saturating_sub(sent_at));
                });
                if differs {
                    return Err(io::Error::other("an echo differs from what was sent"));
                }
                self.echoes += echoed as u64;
                self.reads += 1;
                all += echoed;
                Ok(())
            })?;
            send(stream, &self.frames[..all * self.frame_bytes])?;
            sent_at.extend(std::iter::repeat_n(now, all));
        }
        Ok(())
    }
}

fn send(stream: &mut Wire, frames: &[u8]) -> io::Result<()> {
    // Outstanding frames must fit the socket's buffers: this measures servers, not backpressure.
    if !frames.is_empty() && stream.write(frames)? < frames.len() {
        return Err(io::Error::other("outstanding frames exceed the send buffer"));
    }
    Ok(())
}

/// Idle connections, in threads with descriptor tables of their own.
struct IdleConnections {
    _closers: Vec<mpsc::Sender<()>>,
}

impl IdleConnections {
    fn open(mut connector: Connector, mut count: usize) -> io::Result<Self> {
        let mut leave = Vec::new();
        while count > 0 {
            let part = count.min(IDLE_PER_THREAD);
            count -= part;
            let (leave_sender, leave_receiver) = mpsc::channel::<()>();
            let (opened_sender, opened_receiver) = mpsc::channel();
            let thread = move |mut connector: Connector| {
                let opened = make_private().and_then(|()| connector.open(part));
                let (opened, connections) = match opened {
                    Ok(connections) => (Ok(connector), connections),
                    Err(error) => (Err(error), Vec::new()),
                };
                let _ = opened_sender.send(opened);
                // Returns when `IdleConnections` is dropped.
                let _ = leave_receiver.recv();
                drop(connections);
            };
            thread::spawn(move || thread(connector));
            connector = opened_receiver.recv().map_err(io::Error::other)??;
            leave.push(leave_sender);
        }
        Ok(Self { _closers: leave })
    }
}

const TEXT: u8 = 1;
const IDLE_PER_THREAD: usize = 15_000;
