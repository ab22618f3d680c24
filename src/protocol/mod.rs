//! Codecs between bytes and frames, without sockets and without a clock.
//!
//! **What it is.** One module for each format: [`http1`] (request heads, bodies, responses), [`websocket`] (RFC 6455),
//! [`command`] (the command protocol) in [`json`] and in [`protobuf`], [`mod@line`] (newline-delimited frames),
//! [`length_prefix`] (a 32-bit length before each frame), [`sse`] (event streams), [`long_poll`] (answers to polls) and
//! [`api_json`] (the server API). [`fossil`] makes deltas of payloads; [`proxy_protocol`] only recognizes its format.
//!
//! **In and out.** In: the received bytes, mutable, so that they can be unmasked in place. Out: frames that borrow from
//! them, or a fault. Encoders append to a vector that the caller owns and reuses.
//!
//! **Always true.** A decoder returns the same frames and the same fault however its input is split
//! (`tests/chunking.rs`). A frame that is whole in the input is not copied. A decoder without an unfinished frame owns
//! no heap and is eight bytes. Memory grows with the bytes received, never with a length that a peer declared. No input
//! panics: a peer's mistake is a value of the codec's fault enum.
//!
//! **Must not know.** Connections, subscriptions, peers, the meaning of a frame, and the time.

pub mod api_json;
pub mod command;
pub mod fossil;
pub mod http1;
pub mod json;
pub mod length_prefix;
pub mod line;
pub mod long_poll;
pub mod protobuf;
pub mod proxy_protocol;
pub mod sse;
pub mod websocket;

/// Takes the first `count` bytes off `input`.
#[inline]
fn take_front<'i>(input: &mut &'i mut [u8], count: usize) -> &'i mut [u8] {
    let (front, rest) = std::mem::take(input).split_at_mut(count);
    *input = rest;
    front
}
