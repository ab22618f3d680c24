//! What a channel carries.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use super::ChannelName;

/// What a publication's bytes are, settled once when it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// A JSON value.
    Json,
    /// Other UTF-8.
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
    /// Event type of the publication, for clients that tell events apart (SSE's `event:`). 1..=255 bytes without line
    /// ends and NUL: see [`Payload::event_of`].
    pub event: Option<Arc<str>>,
}

/// Which life of a channel's stream an offset belongs to. Two lives of one channel have different epochs.
/// Written as eight hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u32);

/// A place in a channel's stream. Written as `OFFSET:EPOCH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which life of the stream.
    pub epoch: Epoch,
    /// Number of the publication last seen; the first is 1.
    pub offset: u64,
}

/// The text is not an epoch or a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionError;

/// The text is not a type of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventError;

/// An item of a channel, numbered by the channel's home worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Where it was published.
    pub channel: ChannelName,
    /// Its number.
    pub position: Position,
    /// Its bytes.
    pub payload: Payload,
    /// When its home worker accepted it: microseconds of the workers' clock, of which 32 bits are kept: 71 minutes.
    pub accepted_us: u32,
}

impl Payload {
    /// Bytes of the longest type of event.
    pub const EVENT_BYTES_MAX: usize = 255;

    /// Types of event that are the server's own: a publication cannot pass for one.
    pub const OWN_EVENTS: [&str; 5] = ["gap", "join", "leave", "position", "disconnect"];

    /// Checks a type of event.
    pub fn event_of(text: &str) -> Result<Arc<str>, EventError> {
        let ends_line = |byte: u8| matches!(byte, b'\r' | b'\n' | 0);
        if !(1..=Self::EVENT_BYTES_MAX).contains(&text.len())
            || text.bytes().any(ends_line)
            || Self::OWN_EVENTS.contains(&text)
        {
            return Err(EventError);
        }
        Ok(Arc::from(text))
    }

    /// A payload without a type of event.
    pub fn new(kind: PayloadKind, bytes: impl Into<Bytes>) -> Self {
        Self { kind, bytes: bytes.into(), event: None }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = Payload::OWN_EVENTS.join(", ");
        write!(
            out,
            "a type of event has 1 to 255 bytes, without CR, LF and NUL; {own} are the server's own"
        )
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:08x}", self.0)
    }
}

impl Epoch {
    /// Of no life of any channel.
    pub const NONE: Epoch = Epoch(0);

    /// Of whichever life: what a client says that keeps offsets only. It cannot be written.
    pub const ANY: Epoch = Epoch(u32::MAX);

    /// Whether a position of this epoch is one of a life's.
    pub fn fits(self, life: Epoch) -> bool {
        self == Epoch::ANY || self == life
    }
}

impl Position {
    /// A position in no stream: what a client has that names another server's. What follows it cannot be had.
    pub const NOWHERE: Position = Position { epoch: Epoch::NONE, offset: 0 };

    /// Where a client says that it is; an empty epoch is whichever.
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
    fn a_type_of_event_has_1_to_255_bytes_and_ends_no_line() {
        assert_eq!(Payload::event_of("é b").as_deref(), Ok("é b"));
        assert!(Payload::event_of(&"x".repeat(255)).is_ok());
        for bad in [
            "",
            "a\nb",
            "a\r",
            "\0",
            "gap",
            "join",
            "leave",
            "position",
            "disconnect",
            &"x".repeat(256),
        ] {
            assert_eq!(Payload::event_of(bad), Err(EventError), "{bad:?}");
        }
    }

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
