//! The alerts that end a connection: RFC 8446 section 6.

/// Why a connection ends, as its peer is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// Nothing more is sent.
    CloseNotify = 0,
    /// A message that has no place here.
    UnexpectedMessage = 10,
    /// A record that was not sealed with the peer's key, or not with its number.
    BadRecordMac = 20,
    /// A record that is too long.
    RecordOverflow = 22,
    /// A value that does not exist.
    IllegalParameter = 47,
    /// A message that has another length.
    DecodeError = 50,
    /// The server cannot go on.
    InternalError = 80,
    /// A second handshake.
    NoRenegotiation = 100,
}

impl Alert {
    /// Its level: a warning, or fatal.
    pub(super) fn level(self) -> u8 {
        if self == Self::CloseNotify { 1 } else { 2 }
    }

    /// Its number on the wire.
    pub(super) fn code(self) -> u8 {
        self as u8
    }
}
