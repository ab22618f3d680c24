//! What a channel carries.

use std::fmt;

use bytes::Bytes;

use super::ChannelName;

/// What a publisher said its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// UTF-8; perhaps JSON.
    Text,
    /// Anything.
    Binary,
}

/// The bytes of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// What they are.
    pub kind: PayloadKind,
    /// The bytes; shared by reference between workers.
    pub bytes: Bytes,
}

/// Which life of a channel's stream an offset belongs to. Two lives of one channel have different epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(pub u32);

/// A place in a channel's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which life of the stream.
    pub epoch: Epoch,
    /// Number of the publication last seen; the first is 1.
    pub offset: u64,
}

/// An item of a channel, numbered by the channel's home worker.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Where it was published.
    pub channel: ChannelName,
    /// Its number.
    pub position: Position,
    /// Its bytes.
    pub payload: Payload,
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:08x}", self.0)
    }
}
