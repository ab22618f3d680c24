//! How replies and pushes of the command protocol are delimited.

use crate::protocol::length_prefix::write_length_prefixed;
use crate::protocol::line::write_line;
use crate::protocol::websocket::{OpCode, write_frame_of};

/// What delimits the replies and pushes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandFraming {
    /// A line feed behind each of them.
    Line,
    /// Its length in front of each of them, as 32 bits in network order.
    LengthPrefix,
    /// A WebSocket text message for each of them.
    Message,
}

/// Appends what `write` appends, delimited.
pub(super) fn write_framed(
    framing: CommandFraming,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>),
) {
    match framing {
        CommandFraming::Line => write_line(out, write),
        CommandFraming::LengthPrefix => write_length_prefixed(out, write),
        CommandFraming::Message => write_frame_of(out, OpCode::Text, write),
    }
}
