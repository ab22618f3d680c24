//! Codecs: bytes ⇄ frames, without sockets and without a clock.
//!
//! **What it is.** One module a format: [`http1`] (request heads, bodies, responses), [`websocket`] (RFC 6455),
//! [`json`] (the command protocol), [`mod@line`] (one frame a line), [`length_prefix`] (a 32-bit length before each
//! frame), [`sse`] (event streams) and [`long_poll`] (answers to polls); [`proxy_protocol`] is only told apart.
//!
//! **In and out.** In: the received bytes, mutable, so that they can be unmasked where they lie.
//! Out: frames that borrow from them, or a fault. Encoders append to a vector that the caller owns
//! and reuses.
//!
//! **Always true.** A decoder gives the same frames and the same fault however its input is split
//! (`tests/chunking.rs`). A frame that lies whole in the input is not copied; a decoder that waits
//! for nothing owns no heap and is eight bytes. Memory grows with the bytes that arrived, never
//! with a length that a peer declared. No input panics: a peer's mistake is a value of the codec's
//! fault enum.
//!
//! **Must not know.** Connections, channels, who the peer is, what a frame means, the time.

pub mod api_json;
pub mod http1;
pub mod json;
pub mod length_prefix;
pub mod line;
pub mod long_poll;
pub mod proxy_protocol;
pub mod sse;
pub mod websocket;

/// Splits the first `count` bytes off `input`: how each decoder takes what it has read.
#[inline]
fn take_front<'i>(input: &mut &'i mut [u8], count: usize) -> &'i mut [u8] {
    let (front, rest) = std::mem::take(input).split_at_mut(count);
    *input = rest;
    front
}
