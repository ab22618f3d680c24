//! permessage-deflate (RFC 7692): messages that are compressed each by itself.
//!
//! No context outlives a message, in either direction: a connection owns no compressor and no window, and a message
//! that many clients receive is compressed once. RFC 7692 7.1.1.1 and 7.1.1.2 let a server demand that of every client.

use std::fmt::Write;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Fault;
use super::frame::{append_compressed_header, decode_header};
use crate::protocol::http1::{Head, is_token};

/// What a client and the server have agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deflate {
    /// No message is compressed.
    #[default]
    Off,
    /// The client may compress what it sends. Its window is smaller than that of the [`Deflater`], so it is sent plain
    /// messages, which RFC 7692 6 always allows.
    FromClient,
    /// Both ends may compress what they send.
    BothWays,
}

/// The first offer of a client that the server can accept, and the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The largest window for messages of the server, if the client limits it: 8 to 15, the logarithm of its bytes.
    server_window_bits: Option<u8>,
}

impl Agreement {
    /// Chooses among the offers of a request (RFC 7692 5); `None` if it has none that can be accepted.
    pub fn of(head: &Head<'_>) -> Option<Self> {
        head.header_list(EXTENSIONS).find_map(Self::of_offer)
    }

    /// RFC 7692 7.1: an offer with a parameter that is unknown, invalid or repeated is declined.
    fn of_offer(offer: &[u8]) -> Option<Self> {
        let offer = std::str::from_utf8(offer).ok()?;
        let mut parts = offer.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut agreement = Self { server_window_bits: None };
        let mut seen = [false; 4];
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start())?)),
                None => (part, None),
            };
            let names = [NO_SERVER_CONTEXT, NO_CLIENT_CONTEXT, SERVER_WINDOW, CLIENT_WINDOW];
            let at = names.iter().position(|known| *known == name)?;
            if std::mem::replace(&mut seen[at], true) {
                return None;
            }
            match (names[at], value) {
                (NO_SERVER_CONTEXT | NO_CLIENT_CONTEXT, None) | (CLIENT_WINDOW, None) => {}
                (SERVER_WINDOW, Some(bits)) => {
                    agreement.server_window_bits = Some(window_bits(bits)?);
                }
                // The server has room for any window.
                (CLIENT_WINDOW, Some(bits)) => drop(window_bits(bits)?),
                _ => return None,
            }
        }
        Some(agreement)
    }

    /// What follows from it.
    pub fn deflate(self) -> Deflate {
        match self.server_window_bits {
            Some(bits) if bits < WINDOW_BITS => Deflate::FromClient,
            _ => Deflate::BothWays,
        }
    }

    /// The value of the header of the answer.
    pub(super) fn answer(self) -> String {
        let mut answer = format!("{NAME}; {NO_SERVER_CONTEXT}; {NO_CLIENT_CONTEXT}");
        if let Some(bits) = self.server_window_bits {
            let _ = write!(answer, "; {SERVER_WINDOW}={bits}");
        }
        answer
    }
}

/// A value of RFC 7692 7.1.2: 8 to 15, without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    value
        .parse()
        .ok()
        .filter(|bits| (8..=WINDOW_BITS).contains(bits) && !value.starts_with(['0', '+']))
}

/// A token, or a quoted string that is one (RFC 6455 9.1).
fn unquoted(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('"').map_or(Some(value), |rest| rest.strip_suffix('"'))?;
    is_token(inner.as_bytes()).then_some(inner)
}

/// Compresses messages. It owns nothing before the first one.
#[derive(Debug)]
pub struct Deflater {
    compress: Option<Box<Compress>>,
    out: Vec<u8>,
    /// Bytes of the smallest message that it compresses.
    bytes_min: usize,
    level: Compression,
}

impl Default for Deflater {
    fn default() -> Self {
        Self::new(usize::MAX, 1)
    }
}

impl Deflater {
    /// Compresses messages of at least `bytes_min` bytes, at a level of 1, which is fast, to 9. The default one
    /// compresses nothing.
    pub fn new(bytes_min: usize, level: u32) -> Self {
        let level = Compression::new(level.clamp(1, 9));
        Self { compress: None, out: Vec::new(), bytes_min, level }
    }

    /// Compresses the message of the plain, unmasked frame that `out` has from `start` on, if that makes it smaller.
    pub fn deflate_frame(&mut self, out: &mut Vec<u8>, start: usize) {
        let Ok(Some((header, header_bytes))) = decode_header(&out[start..], false) else { return };
        let payload_start = start + header_bytes;
        let payload = &out[payload_start..];
        if payload.len() < self.bytes_min.max(1) || payload.len() as u64 != header.payload_len {
            return;
        }
        let level = self.level;
        let compress = self.compress.get_or_insert_with(|| Box::new(Compress::new(level, false)));
        compress.reset();
        self.out.clear();
        self.out.reserve_exact(payload.len());
        // The flush is complete if there is room left behind it.
        let flush = compress.compress_vec(payload, &mut self.out, FlushCompress::Sync);
        let is_complete = compress.total_in() == payload.len() as u64
            && self.out.len() < self.out.capacity().min(payload.len());
        if flush.is_ok()
            && is_complete
            && let Some(compressed) = self.out.strip_suffix(&FLUSH_TAIL)
        {
            out.truncate(start);
            append_compressed_header(out, header.opcode, compressed.len());
            out.extend_from_slice(compressed);
        }
        self.out.shrink_to(BUFFER_BYTES_KEPT_MAX);
    }
}

/// Inflates messages. It owns nothing before the first one.
#[derive(Debug, Default)]
pub struct Inflater {
    decompress: Option<Box<Decompress>>,
}

impl Inflater {
    /// Appends what the payload of a compressed message says, of at most `bytes_max` bytes, to an empty vector.
    pub fn inflate(
        &mut self,
        payload: &[u8],
        bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if payload.is_empty() {
            return Ok(());
        }
        let decompress = self.decompress.get_or_insert_with(|| Box::new(Decompress::new(false)));
        decompress.reset(false);
        let is_ended = step(decompress, payload, bytes_max, out)?;
        let taken = usize::try_from(decompress.total_in()).unwrap_or(usize::MAX);
        if is_ended {
            // RFC 7692 7.2.3.4: behind a last block, the first byte of an empty one whose rest is the tail.
            return match payload.get(taken..) {
                Some([] | [0]) => Ok(()),
                _ => Err(Fault::DeflateInvalid),
            };
        }
        // A last block behind the tail shows that the tail was not taken for something else.
        match step(decompress, &INFLATE_TAIL, bytes_max, out)? {
            true if decompress.total_in() == (payload.len() + INFLATE_TAIL.len()) as u64 => Ok(()),
            _ => Err(Fault::DeflateInvalid),
        }
    }
}

/// Inflates all of `input`, unless a last block ends before: returns whether that is so.
fn step(
    decompress: &mut Decompress,
    input: &[u8],
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<bool, Fault> {
    let mut input = input;
    loop {
        if out.len() == out.capacity() {
            // A byte more than is allowed, which tells a message that is too large from one that just fits.
            let grown = (out.capacity() * 2).max(input.len() * 4).max(INFLATED_BYTES_MIN);
            out.reserve_exact(grown.min(bytes_max + 1) - out.len());
        }
        let before = decompress.total_in();
        let status = decompress
            .decompress_vec(input, out, FlushDecompress::Sync)
            .map_err(|_| Fault::DeflateInvalid)?;
        if out.len() > bytes_max {
            return Err(Fault::MessageTooLarge);
        }
        input = &input[(decompress.total_in() - before) as usize..];
        match status {
            Status::StreamEnd => return Ok(true),
            // With room left, all of the input was taken.
            Status::Ok | Status::BufError if out.len() < out.capacity() => return Ok(false),
            Status::Ok | Status::BufError => {}
        }
    }
}

/// The header with the offers of a client, and with the server's answer.
pub(super) const EXTENSIONS: &str = "sec-websocket-extensions";

const NAME: &str = "permessage-deflate";
const NO_SERVER_CONTEXT: &str = "server_no_context_takeover";
const NO_CLIENT_CONTEXT: &str = "client_no_context_takeover";
const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";

/// The window of the compressor, 32 KiB.
const WINDOW_BITS: u8 = 15;

/// The end of a flush, which is not sent (RFC 7692 7.2.1).
const FLUSH_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// The same with a last block of RFC 1951 behind it, which has nothing in it.
const INFLATE_TAIL: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];

/// The first allocation for an inflated message.
const INFLATED_BYTES_MIN: usize = 256;

/// Room that survives a large message.
const BUFFER_BYTES_KEPT_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests;
