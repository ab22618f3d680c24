//! One connection as c1m keeps it: no buffer, no heap while nothing is unfinished.

use std::os::fd::OwnedFd;

use fantail::protocol::line::LineDecoder;
use fantail::protocol::websocket::MessageDecoder;

use crate::stream::Stream;

/// One connection.
#[derive(Debug)]
pub struct Connection {
    pub socket: Option<OwnedFd>,
    pub state: State,
    pub role: Role,
    /// Whether it was open once: only then has it a claim to what is sent.
    pub was_served: bool,
    /// The channel that it subscribes to.
    pub channel: u32,
    pub decoder: Decoder,
    pub stream: Stream,
    /// Messages that it sent.
    pub sent: u32,
    /// When it began to connect, in milliseconds since the start.
    pub began_ms: u32,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not begun, or to begin again.
    New,
    /// The kernel connects.
    Connecting,
    /// The handshake is on its way.
    Greeting,
    /// It is served.
    Open,
    /// Closed by the server, or never served.
    Gone,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Stays and answers pings.
    Idle,
    /// Sends, and expects it back.
    Echo,
    /// Receives what is published.
    Subscriber,
    /// The same, but stops reading for a while.
    Slow,
    /// Pings the server, and stays when the others drop.
    Stayer,
}

/// Unfinished messages, by protocol.
#[derive(Debug)]
pub enum Decoder {
    WebSocket(MessageDecoder),
    Lines(LineDecoder),
}

impl Connection {
    /// A connection that has not begun.
    pub fn new(role: Role, channel: u32) -> Self {
        Self {
            socket: None,
            state: State::New,
            role,
            was_served: false,
            channel,
            decoder: Decoder::Lines(LineDecoder::new()),
            stream: Stream::default(),
            sent: 0,
            began_ms: 0,
        }
    }

    /// Whether it takes a descriptor without being open yet.
    pub fn is_opening(&self) -> bool {
        matches!(self.state, State::Connecting | State::Greeting)
    }
}

/// All that c1m keeps of one connection; what it takes in all, threads and tables included, is measured.
const CONNECTION_BYTES_MAX: usize = 64;
const _: () = assert!(size_of::<Connection>() <= CONNECTION_BYTES_MAX);
