//! Publications, their payloads and their positions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use super::{ChannelName, ClientId, ClientInfo, Tags};

/// What the bytes of a payload are, determined once when it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// The bytes are a JSON value.
    Json,
    /// The bytes are other UTF-8 text.
    Text,
    /// The bytes may be anything.
    Binary,
}

/// The bytes of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// What the bytes are.
    pub kind: PayloadKind,
    /// The bytes, shared by reference between workers.
    pub bytes: Bytes,
    /// The tags, if there are any.
    pub tags: Option<Arc<Tags>>,
    /// Whether subscribers that take deltas may be sent what differs from the publication before it.
    pub is_delta_allowed: bool,
}

/// Identifies the stream that an offset belongs to: a channel that is removed and created again has a new epoch.
/// Written as eight hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u32);

/// A position in a channel's stream. Written as `OFFSET:EPOCH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epoch of the stream.
    pub epoch: Epoch,
    /// The offset of the last publication that was received. The first publication has offset 1.
    pub offset: u64,
}

/// The text is not an epoch or a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionError;

/// A publication, numbered by the home worker of its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The channel to which it was published.
    pub channel: ChannelName,
    /// Its position in the channel's stream.
    pub position: Position,
    /// What was published.
    pub payload: Payload,
    /// The client that published it, as others see it; `None` if the server API did. All who deliver it share it.
    pub info: Option<Arc<ClientInfo>>,
    /// When the home worker accepted it, in microseconds of the workers' clock. Wraps around every 71 minutes.
    pub accepted_us: u32,
    /// A subscriber that does not receive it when it is published: its publisher, or a client that the server API
    /// names. Recoveries and histories have it for every client.
    pub excludes: Option<ClientId>,
    /// Whether it is a part of the stream. One that is not is in no history, and has the position of the last one
    /// before it that is: a client that has received both goes on from there.
    pub in_stream: bool,
}

impl Payload {
    /// Creates a payload without tags.
    pub fn new(kind: PayloadKind, bytes: impl Into<Bytes>) -> Self {
        Self { kind, bytes: bytes.into(), tags: None, is_delta_allowed: false }
    }

    /// The type of event, which is a tag.
    pub fn event(&self) -> Option<&str> {
        self.tags.as_ref()?.event()
    }

    /// Bytes of heap that the payload takes, those of its tags included.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.len() + self.tags.as_ref().map_or(0, |tags| tags.heap_bytes())
    }
}

impl Publication {
    /// Bytes of what clients gave: its payload, and the texts of its publisher.
    pub fn heap_bytes(&self) -> usize {
        self.payload.heap_bytes() + self.info.as_ref().map_or(0, |info| info.text_bytes())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:08x}", self.0)
    }
}

impl Epoch {
    /// An epoch that no stream has.
    pub const NONE: Epoch = Epoch(0);

    /// Matches every epoch, for clients that keep offsets only. It has no text.
    pub const ANY: Epoch = Epoch(u32::MAX);

    /// Whether a client's position of this epoch is a position in the stream of epoch `stream`.
    pub fn fits(self, stream: Epoch) -> bool {
        self == Epoch::ANY || self == stream
    }
}

impl Position {
    /// A position in no stream: that of a client that received it from another server. It cannot be recovered from.
    pub const NOWHERE: Position = Position { epoch: Epoch::NONE, offset: 0 };

    /// The position that a client sends as an offset and an epoch. An empty epoch matches every one.
    pub fn since(offset: u64, epoch: &str) -> Position {
        match epoch.parse() {
            _ if epoch.is_empty() => Position { epoch: Epoch::ANY, offset },
            Ok(epoch) => Position { epoch, offset },
            Err(PositionError) => Position::NOWHERE,
        }
    }
}

impl FromStr for Epoch {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let is_hex = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let epoch = u32::from_str_radix(text, 16).ok().filter(|_| is_hex);
        epoch.map(Epoch).filter(|epoch| *epoch != Epoch::ANY).ok_or(PositionError)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.offset, self.epoch)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (offset, epoch) = text.split_once(':').ok_or(PositionError)?;
        if !offset.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PositionError);
        }
        let offset = offset.parse().map_err(|_| PositionError)?;
        Ok(Self { epoch: epoch.parse()?, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position = Position { epoch: Epoch(0xab), offset: 17 };
        assert_eq!(position.to_string(), "17:000000ab");
        assert_eq!("17:000000ab".parse(), Ok(position));
        for bad in
            ["", ":", "17", "17:", "17:ab", ":000000ab", "-1:000000ab", "+1:000000ab", "1:0000-0ab"]
        {
            assert_eq!(bad.parse::<Position>(), Err(PositionError), "{bad}");
        }
        assert_eq!("99999999999999999999:000000ab".parse::<Position>(), Err(PositionError));
    }
}
