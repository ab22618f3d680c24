//! The WebSocket protocol, RFC 6455, of both roles, and permessage-deflate, RFC 7692.
//!
//! **What it is.** [`handshake`]: the HTTP upgrade. [`MessageDecoder`]: joins frames into messages, one per connection.
//! [`Header`] and the `write_*` functions: single frames. [`unmask`] and [`Utf8Check`]: the two loops over payload
//! bytes.
//!
//! [`Agreement`], [`Deflater`] and [`Inflater`]: compressed messages.
//!
//! **In and out.** In: received bytes and [`Limits`]. Out: [`Message`]s, unmasked in place and
//! validated, or a [`Fault`] that names its close code. Frames to send are appended to the caller's
//! vector.
//!
//! **Always true.** Text that leaves the decoder is valid UTF-8, and text that cannot become valid is a fault on the
//! first byte that proves it. A fault ends the stream: framing is lost, and the caller closes the connection.
//!
//! **Must not know.** When to ping, whether a close was answered, and the meaning of messages.

mod deflate;
mod fault;
mod frame;
pub mod handshake;
mod mask;
mod message;
mod utf8;

pub use deflate::{Agreement, Deflate, Deflater, Inflater};
pub use fault::Fault;
pub use frame::{
    CONTROL_PAYLOAD_BYTES_MAX, HEADER_BYTES_MAX, Header, OpCode, close_code_is_valid,
    decode_header, header_bytes, write_close, write_frame, write_frame_of, write_header,
    write_masked_frame,
};
pub use mask::unmask;
pub use message::{Limits, Message, MessageDecoder, Role};
pub use utf8::{Utf8Check, is_utf8};
