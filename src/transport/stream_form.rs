//! How HTTP answers that go on are delimited.

use crate::protocol::http1::{Head, Version, write_chunk};
use crate::protocol::line::write_line;

/// How the body of an HTTP answer that goes on is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamForm {
    /// What delimits one message from the next.
    pub kind: StreamKind,
    /// What delimits the body.
    pub framing: StreamFraming,
}

/// What delimits the messages of such a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// A line feed behind each of them.
    Lines,
    /// Nothing: each says how long it is.
    Messages,
    /// Each is the data of an event (WHATWG HTML 9.2.6).
    Events,
}

impl StreamForm {
    /// A small number that no other form has.
    pub const fn index(self) -> usize {
        self.kind as usize * FRAMINGS + self.framing as usize
    }

    /// Appends a message that `write` appends, delimited.
    pub(super) fn write(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let message = |out: &mut Vec<u8>| match self.kind {
            StreamKind::Lines => write_line(out, write),
            StreamKind::Messages => write(out),
            StreamKind::Events => {
                out.extend_from_slice(b"data: ");
                write_line(out, write);
                out.push(b'\n');
            }
        };
        self.framing.write(out, message);
    }
}

/// What delimits the bytes of a stream (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFraming {
    /// Chunks, one for each event.
    Chunked,
    /// The end of the connection: for HTTP/1.0, and for clients that say `Connection: close`.
    Close,
}

impl StreamFraming {
    /// What the client of a request understands.
    pub fn of(head: &Head<'_>) -> Self {
        match head.keep_alive && head.version == Version::Http11 {
            true => Self::Chunked,
            false => Self::Close,
        }
    }

    /// Appends an event, or a line, that `write` writes.
    pub(super) fn write(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        match self {
            StreamFraming::Chunked => write_chunk(out, write),
            StreamFraming::Close => write(out),
        }
    }
}

const KINDS: usize = 3;

const FRAMINGS: usize = 2;

/// How many forms there are.
pub(super) const STREAM_FORMS: usize = KINDS * FRAMINGS;
