//! The state of one connection: no buffer, and no heap memory unless a message is incomplete.

use std::os::fd::OwnedFd;

use fantail::protocol::line::LineDecoder;
use fantail::protocol::websocket::MessageDecoder;

use crate::stream::Stream;

/// The state of one connection.
#[derive(Debug)]
pub struct Connection {
    pub socket: Option<OwnedFd>,
    pub state: State,
    pub role: Role,
    /// Whether it was open at some time: only then are messages expected to reach it.
    pub was_open: bool,
    /// Number of the channel that it subscribes to.
    pub channel: u32,
    pub decoder: Decoder,
    pub stream: Stream,
    /// Number of messages that it sent.
    pub sent: u32,
    /// When it started to connect, in milliseconds since the start of the run.
    pub began_ms: u32,
}

/// The stages of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not started, or to be started again.
    New,
    /// The TCP connection is being established.
    Connecting,
    /// The protocol handshake is in flight.
    Handshaking,
    /// The handshake is complete.
    Open,
    /// Failed to open, or closed by the server.
    Gone,
}

/// The purpose of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Stays open and answers pings.
    Idle,
    /// Sends messages and expects their echoes.
    Echo,
    /// Receives the publications of its channel.
    Subscriber,
    /// Receives publications, but stops reading for a while.
    Slow,
    /// Pings the server to measure latency, and stays open when the others drop.
    Canary,
}

/// Decoder of incomplete messages, by protocol.
#[derive(Debug)]
pub enum Decoder {
    WebSocket(MessageDecoder),
    Lines(LineDecoder),
}

impl Connection {
    /// A connection that has not been started.
    pub fn new(role: Role, channel: u32) -> Self {
        Self {
            socket: None,
            state: State::New,
            role,
            was_open: false,
            channel,
            decoder: Decoder::Lines(LineDecoder::new()),
            stream: Stream::default(),
            sent: 0,
            began_ms: 0,
        }
    }

    /// Whether it holds a descriptor but is not open yet.
    pub fn is_opening(&self) -> bool {
        matches!(self.state, State::Connecting | State::Handshaking)
    }
}

/// Size of one connection's state; reports measure the total, threads and tables included.
const CONNECTION_BYTES_MAX: usize = 64;
const _: () = assert!(size_of::<Connection>() <= CONNECTION_BYTES_MAX);
