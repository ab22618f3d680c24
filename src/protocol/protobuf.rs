//! The [command protocol](super::command) in Protobuf: `client.proto` of github.com/centrifugal/protocol.
//!
//! A message follows its length, which is a varint; one of length 0 is a ping or a pong. Payloads are bytes, whatever
//! they are.

use prost::bytes::Buf;

mod commands;
mod replies;
pub mod schema;
mod tags_filter;

pub use commands::{decode_command, decode_emulation};
pub use replies::{List, write_delta_list, write_list, write_push, write_sent};

/// The bytes are not messages that each follow their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidFrame;

/// Takes the next message off the front of `bytes`; `None` if there is none.
pub fn next_message<'b>(bytes: &mut &'b [u8]) -> Result<Option<&'b [u8]>, InvalidFrame> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let len = prost::decode_length_delimiter(&mut *bytes).map_err(|_| InvalidFrame)?;
    if len > bytes.remaining() {
        return Err(InvalidFrame);
    }
    let (message, rest) = bytes.split_at(len);
    *bytes = rest;
    Ok(Some(message))
}

#[cfg(test)]
mod tests;
