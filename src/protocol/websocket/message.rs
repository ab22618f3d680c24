//! The decoder of each connection, which joins frames into messages.

use super::frame::{HEADER_BYTES_MAX, Header, OpCode, close_code_is_valid, decode_header};
use super::{Fault, Utf8Check, is_utf8, unmask};
use crate::protocol::take_front;

/// The end of the connection on which the decoder runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Frames come from a client: each must be masked.
    Server,
    /// Frames come from a server: none may be masked.
    Client,
}

/// The limits of the decoder. They are passed with each call, so that a million idle decoders need not store them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The end of the connection on which the decoder runs.
    pub role: Role,
    /// Most bytes of a message, all fragments together. Control frames have their own limit, 125 bytes.
    pub message_bytes_max: u32,
    /// Most fragments of a message.
    pub fragments_max: u32,
    /// Whether messages may be compressed: permessage-deflate was negotiated.
    pub has_compression: bool,
}

/// A whole message or control frame, which borrows from the input or, if it was assembled, from the decoder.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'m> {
    /// Valid UTF-8, as bytes: the check for short ASCII cannot return a `str` without checking again.
    Text(&'m mut [u8]),
    /// A message of any bytes.
    Binary(&'m mut [u8]),
    /// A message that is compressed, which only a decoder with that limit lets through.
    Compressed {
        /// Whether it is text, which has not been checked.
        is_text: bool,
        /// What an [`Inflater`](super::Inflater) takes.
        payload: &'m mut [u8],
    },
    /// A ping, to be answered by a pong with the same payload.
    Ping(&'m [u8]),
    /// A pong: the answer to a ping, or unsolicited.
    Pong(&'m [u8]),
    /// The peer's last frame.
    Close {
        /// The close code; `None` if the frame is empty.
        code: Option<u16>,
        /// The reason, for the log; often empty.
        reason: &'m str,
    },
}

/// Decodes one direction of a connection.
///
/// A frame that is whole in the input is unmasked in place. Only an unfinished message moves to the heap, and that
/// memory is freed by the call after the message was returned.
#[derive(Debug, Default)]
pub struct MessageDecoder {
    partial: Option<Box<Partial>>,
}

impl MessageDecoder {
    /// A decoder without an unfinished message; it owns no heap.
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// Takes bytes from the front of `input` up to the end of the next message or control frame. `None`: all of the
    /// input was taken and more is needed. After a fault framing is lost: close the connection, and do not call again.
    #[inline]
    pub fn next<'m, 'i: 'm>(
        &'m mut self,
        input: &mut &'i mut [u8],
        limits: &Limits,
    ) -> Result<Option<Message<'m>>, Fault> {
        if self.partial.is_none()
            && let Some((header, header_len)) = decode_header(input, limits.has_compression)?
            && header.is_whole_message()
            && header.payload_len <= (input.len() - header_len) as u64
        {
            self.check_header(&header, limits)?;
            let frame = take_front(input, header_len + header.payload_len as usize);
            return decode_whole(&header, &mut frame[header_len..]).map(Some);
        }
        self.next_unfinished(input, limits)
    }

    /// Whether no frame and no message is unfinished.
    pub fn is_between_messages(&self) -> bool {
        self.partial.as_ref().is_none_or(|partial| !partial.is_unfinished())
    }

    /// Bytes of heap that the decoder owns.
    pub fn buffered_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>() + partial.bytes.capacity() + partial.control.capacity()
        })
    }

    fn next_unfinished<'m, 'i: 'm>(
        &'m mut self,
        input: &mut &'i mut [u8],
        limits: &Limits,
    ) -> Result<Option<Message<'m>>, Fault> {
        let step = self.advance(input, limits)?;
        let assembled = match step {
            Step::NeedMore => return Ok(None),
            Step::Whole(message) => return Ok(Some(message)),
            Step::Assembled(assembled) => assembled,
        };
        let partial = self.partial.as_mut().expect("an assembled message is in the box");
        partial.delivered = Some(assembled);
        match assembled {
            Assembled::Text | Assembled::Binary if partial.is_compressed => {
                let is_text = matches!(assembled, Assembled::Text);
                Ok(Some(Message::Compressed { is_text, payload: &mut partial.bytes }))
            }
            Assembled::Text => Ok(Some(Message::Text(&mut partial.bytes))),
            Assembled::Binary => Ok(Some(Message::Binary(&mut partial.bytes))),
            Assembled::Close => decode_close(&partial.control).map(Some),
            Assembled::Ping => Ok(Some(Message::Ping(&partial.control))),
            Assembled::Pong => Ok(Some(Message::Pong(&partial.control))),
        }
    }

    fn advance<'i>(
        &mut self,
        input: &mut &'i mut [u8],
        limits: &Limits,
    ) -> Result<Step<'i>, Fault> {
        self.release_delivered();
        loop {
            let mut frame = match self.partial.as_mut().and_then(|partial| partial.frame.take()) {
                Some(frame) => frame,
                None => {
                    let Some(header) = self.take_header(input, limits)? else {
                        return Ok(Step::NeedMore);
                    };
                    self.check_header(&header, limits)?;
                    if header.is_whole_message() && header.payload_len <= input.len() as u64 {
                        self.release_if_idle();
                        let payload = take_front(input, header.payload_len as usize);
                        return decode_whole(&header, payload).map(Step::Whole);
                    }
                    Frame { header, received: 0 }
                }
            };
            let partial = self.partial.get_or_insert_default();
            partial.absorb(&mut frame, input, limits)?;
            if frame.received < frame.header.payload_len {
                partial.frame = Some(frame);
                return Ok(Step::NeedMore);
            }
            if let Some(assembled) = partial.finish_frame(&frame.header)? {
                return Ok(Step::Assembled(assembled));
            }
        }
    }

    /// Decodes a header that may have begun in an earlier input.
    fn take_header(
        &mut self,
        input: &mut &mut [u8],
        limits: &Limits,
    ) -> Result<Option<Header>, Fault> {
        let has_compression = limits.has_compression;
        let stored_len = self.partial.as_ref().map_or(0, |partial| partial.header_len as usize);
        if stored_len == 0
            && let Some((header, header_len)) = decode_header(input, has_compression)?
        {
            take_front(input, header_len);
            return Ok(Some(header));
        }
        if input.is_empty() {
            return Ok(None);
        }
        let partial = self.partial.get_or_insert_default();
        let count = input.len().min(HEADER_BYTES_MAX - stored_len);
        partial.header[stored_len..stored_len + count].copy_from_slice(&input[..count]);
        match decode_header(&partial.header[..stored_len + count], has_compression)? {
            Some((header, header_len)) => {
                take_front(input, header_len - stored_len);
                partial.header_len = 0;
                Ok(Some(header))
            }
            None => {
                // The buffer holds the longest header, so all of the input fitted.
                take_front(input, count);
                partial.header_len = (stored_len + count) as u8;
                Ok(None)
            }
        }
    }

    /// Checks the rules that depend on the role, the limits and the previous frames.
    #[inline]
    fn check_header(&self, header: &Header, limits: &Limits) -> Result<(), Fault> {
        // RFC 6455 5.1: a client masks every frame, and a server masks none.
        match (limits.role, header.mask) {
            (Role::Server, None) => return Err(Fault::MaskMissing),
            (Role::Client, Some(_)) => return Err(Fault::MaskUnexpected),
            (Role::Server, Some(_)) | (Role::Client, None) => {}
        }
        if header.opcode.is_control() {
            return Ok(());
        }
        // RFC 6455 5.4: a message is one frame with an opcode, then continuations; messages do not
        // interleave.
        let (in_progress, assembled, fragments) = match &self.partial {
            Some(partial) => (partial.message.is_some(), partial.bytes.len(), partial.fragments),
            None => (false, 0, 0),
        };
        match (header.opcode == OpCode::Continuation, in_progress) {
            (true, false) => return Err(Fault::ContinuationUnexpected),
            (false, true) => return Err(Fault::MessageInterrupted),
            (true, true) | (false, false) => {}
        }
        // The declared length is checked, so that the decoder does not wait for bytes that it would refuse.
        if assembled as u64 + header.payload_len > u64::from(limits.message_bytes_max) {
            return Err(Fault::MessageTooLarge);
        }
        // RFC 6455 5.4 permits empty fragments, so a limit on bytes does not limit their number.
        if fragments >= limits.fragments_max {
            return Err(Fault::FragmentsTooMany);
        }
        Ok(())
    }

    /// Frees the message that the last call returned.
    fn release_delivered(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        match partial.delivered.take() {
            None => return,
            Some(Assembled::Text | Assembled::Binary) => {
                partial.message = None;
                partial.is_compressed = false;
                partial.bytes = Vec::new();
                partial.fragments = 0;
                partial.utf8 = Utf8Check::new();
            }
            Some(Assembled::Close | Assembled::Ping | Assembled::Pong) => {
                partial.control = Vec::new();
            }
        }
        self.release_if_idle();
    }

    fn release_if_idle(&mut self) {
        if self.is_between_messages() {
            self.partial = None;
        }
    }
}

/// An unfinished message, which is on the heap.
#[derive(Debug, Default)]
struct Partial {
    /// The first bytes of an unfinished header.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    /// The payloads of the message in progress so far, joined.
    message: Option<Kind>,
    is_compressed: bool,
    bytes: Vec<u8>,
    /// The number of its frames that have arrived whole.
    fragments: u32,
    utf8: Utf8Check,
    /// The payload of an unfinished control frame, separate from the message that it may interrupt.
    control: Vec<u8>,
    /// The part that the last call returned; the next one frees it.
    delivered: Option<Assembled>,
}

#[derive(Debug)]
struct Frame {
    header: Header,
    received: u64,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Binary,
}

#[derive(Clone, Copy, Debug)]
enum Assembled {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

enum Step<'i> {
    NeedMore,
    Whole(Message<'i>),
    Assembled(Assembled),
}

impl Partial {
    fn is_unfinished(&self) -> bool {
        let message_is_unfinished = self.message.is_some()
            && !matches!(self.delivered, Some(Assembled::Text | Assembled::Binary));
        self.header_len > 0 || self.frame.is_some() || message_is_unfinished
    }

    /// Moves the available bytes of the frame's payload to the heap, unmasked and checked.
    fn absorb(
        &mut self,
        frame: &mut Frame,
        input: &mut &mut [u8],
        limits: &Limits,
    ) -> Result<(), Fault> {
        let remaining = frame.header.payload_len - frame.received;
        let count = remaining.min(input.len() as u64) as usize;
        let piece = take_front(input, count);
        if let Some(mask) = frame.header.mask {
            unmask(piece, mask, (frame.received & 3) as usize);
        }
        frame.received += count as u64;
        match frame.header.opcode {
            OpCode::Close | OpCode::Ping | OpCode::Pong => {
                self.control.extend_from_slice(piece);
                return Ok(());
            }
            OpCode::Text => self.message = Some(Kind::Text),
            OpCode::Binary => self.message = Some(Kind::Binary),
            OpCode::Continuation => {}
        }
        self.is_compressed |= frame.header.is_compressed;
        // RFC 6455 8.1. Text is checked before the frame ends, so that invalid text takes no memory.
        let is_text = matches!(self.message, Some(Kind::Text)) && !self.is_compressed;
        if is_text && !self.utf8.push(piece) {
            return Err(Fault::Utf8Invalid);
        }
        self.reserve(count, &frame.header, remaining, limits);
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Memory at most doubles as bytes arrive; the declared length only limits that growth.
    fn reserve(&mut self, count: usize, header: &Header, remaining: u64, limits: &Limits) {
        let needed = self.bytes.len() + count;
        if needed <= self.bytes.capacity() {
            return;
        }
        let bytes_max = if header.fin {
            self.bytes.len() as u64 + remaining
        } else {
            u64::from(limits.message_bytes_max)
        };
        let grown = (self.bytes.capacity() * 2).max(ASSEMBLY_BYTES_MIN) as u64;
        let capacity = needed.max(grown.min(bytes_max) as usize);
        self.bytes.reserve_exact(capacity - self.bytes.len());
    }

    /// Handles the last byte of a frame, and returns the part that is complete, if any.
    fn finish_frame(&mut self, header: &Header) -> Result<Option<Assembled>, Fault> {
        match header.opcode {
            OpCode::Close => return Ok(Some(Assembled::Close)),
            OpCode::Ping => return Ok(Some(Assembled::Ping)),
            OpCode::Pong => return Ok(Some(Assembled::Pong)),
            OpCode::Continuation | OpCode::Text | OpCode::Binary => self.fragments += 1,
        }
        match self.message {
            Some(_) if !header.fin => Ok(None),
            Some(Kind::Text) if !self.utf8.is_complete() => Err(Fault::Utf8Invalid),
            Some(Kind::Text) => Ok(Some(Assembled::Text)),
            Some(Kind::Binary) => Ok(Some(Assembled::Binary)),
            // `check_header` has refused it.
            None => Err(Fault::ContinuationUnexpected),
        }
    }
}

impl Header {
    #[inline]
    fn is_whole_message(&self) -> bool {
        self.fin && self.opcode != OpCode::Continuation
    }
}

/// Unmasks and checks a payload that needs no other frame.
#[inline]
fn decode_whole<'i>(header: &Header, payload: &'i mut [u8]) -> Result<Message<'i>, Fault> {
    if let Some(mask) = header.mask {
        unmask(payload, mask, 0);
    }
    match header.opcode {
        OpCode::Text | OpCode::Binary if header.is_compressed => {
            Ok(Message::Compressed { is_text: header.opcode == OpCode::Text, payload })
        }
        OpCode::Text if is_utf8(payload) => Ok(Message::Text(payload)),
        OpCode::Text => Err(Fault::Utf8Invalid),
        OpCode::Binary | OpCode::Continuation => Ok(Message::Binary(payload)),
        OpCode::Close => decode_close(payload),
        OpCode::Ping => Ok(Message::Ping(payload)),
        OpCode::Pong => Ok(Message::Pong(payload)),
    }
}

/// Decodes the payload of a close frame: nothing, or a code and a reason in UTF-8 (RFC 6455 5.5.1).
fn decode_close(payload: &[u8]) -> Result<Message<'_>, Fault> {
    let (code, reason) = match payload {
        [] => return Ok(Message::Close { code: None, reason: "" }),
        [_] => return Err(Fault::CloseTruncated),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !close_code_is_valid(code) {
        return Err(Fault::CloseCodeInvalid);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Fault::Utf8Invalid)?;
    Ok(Message::Close { code: Some(code), reason })
}

/// The first allocation for an unfinished message, so that small messages need no second one.
const ASSEMBLY_BYTES_MIN: usize = 64;

const _: () = assert!(size_of::<MessageDecoder>() == 8, "an idle decoder is one empty pointer");
const _: () = assert!(size_of::<Partial>() <= 128, "a cut frame costs a small box");

#[cfg(test)]
mod tests;
