//! One frame: its header on the wire, read and written.

use super::{Fault, unmask};

/// The longest header: two bytes, a 64-bit length, a mask.
pub const HEADER_BYTES_MAX: usize = 14;

/// The largest payload of a control frame (RFC 6455 5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// The kind of a frame (RFC 6455 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpCode {
    /// A further fragment of the message in progress.
    Continuation,
    /// A message of UTF-8 text, or its first fragment.
    Text,
    /// A message of bytes, or its first fragment.
    Binary,
    /// The sender's last frame.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping, or is sent unsolicited.
    Pong,
}

impl OpCode {
    /// The four bits on the wire.
    pub const fn bits(self) -> u8 {
        match self {
            OpCode::Continuation => 0x0,
            OpCode::Text => 0x1,
            OpCode::Binary => 0x2,
            OpCode::Close => 0x8,
            OpCode::Ping => 0x9,
            OpCode::Pong => 0xA,
        }
    }

    /// The opcode of four bits; `None` for those that RFC 6455 reserves.
    pub const fn of_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(OpCode::Continuation),
            0x1 => Some(OpCode::Text),
            0x2 => Some(OpCode::Binary),
            0x8 => Some(OpCode::Close),
            0x9 => Some(OpCode::Ping),
            0xA => Some(OpCode::Pong),
            _ => None,
        }
    }

    /// Whether the frame concerns the connection and is not part of a message.
    pub const fn is_control(self) -> bool {
        matches!(self, OpCode::Close | OpCode::Ping | OpCode::Pong)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether this is the last fragment of its message.
    pub fin: bool,
    /// The kind of the frame.
    pub opcode: OpCode,
    /// The key that the payload is masked with.
    pub mask: Option<[u8; 4]>,
    /// Whether its message is compressed (RFC 7692 6): the first reserved bit of its first frame.
    pub is_compressed: bool,
    /// Length of the payload in bytes; less than 2^63.
    pub payload_len: u64,
}

/// Decodes a header at the front of `bytes` and returns it with its size; `None` if more bytes are needed.
///
/// Each rule is checked on the first byte that can violate it, so that a hostile header cannot make the decoder wait
/// for bytes that it would refuse. `has_compression` tells whether permessage-deflate was negotiated.
#[inline]
pub fn decode_header(
    bytes: &[u8],
    has_compression: bool,
) -> Result<Option<(Header, usize)>, Fault> {
    let [first, rest @ ..] = bytes else { return Ok(None) };
    let reserved = first & RESERVED_BITS;
    // RFC 7692 6: the bit is that of a message, and not of its further fragments or of control frames.
    let is_message =
        [OpCode::Text, OpCode::Binary].iter().any(|it| it.bits() == first & OPCODE_BITS);
    let is_compressed = has_compression && reserved == COMPRESSED_BIT && is_message;
    // RFC 6455 5.2: reserved bits must be zero unless a negotiated extension defines them.
    if reserved != 0 && !is_compressed {
        return Err(Fault::ReservedBits);
    }
    let opcode = OpCode::of_bits(first & OPCODE_BITS).ok_or(Fault::OpCodeReserved)?;
    let fin = first & FIN_BIT != 0;
    // RFC 6455 5.5: control frames are never fragmented.
    if opcode.is_control() && !fin {
        return Err(Fault::ControlFragmented);
    }
    let [second, rest @ ..] = rest else { return Ok(None) };
    let short_len = second & LENGTH_BITS;
    // RFC 6455 5.5: at most 125 bytes, which are also all lengths without an extended length field.
    if opcode.is_control() && short_len as usize > CONTROL_PAYLOAD_BYTES_MAX {
        return Err(Fault::ControlTooLarge);
    }
    let Some((payload_len, rest)) = decode_length(short_len, rest)? else { return Ok(None) };
    let (mask, rest) = if second & MASK_BIT == 0 {
        (None, rest)
    } else {
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        (Some(*mask), rest)
    };
    Ok(Some((Header { fin, opcode, mask, is_compressed, payload_len }, bytes.len() - rest.len())))
}

/// RFC 6455 5.2: seven bits, or 126 and two bytes, or 127 and eight; always the shortest form.
#[inline]
fn decode_length(short_len: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, Fault> {
    match short_len {
        LENGTH_IS_U16 => {
            let Some((len, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            let len = u64::from(u16::from_be_bytes(*len));
            if len < u64::from(LENGTH_IS_U16) {
                return Err(Fault::LengthNotMinimal);
            }
            Ok(Some((len, rest)))
        }
        LENGTH_IS_U64 => {
            // The top bit is in the first of eight bytes, so there is no need to wait for the others.
            if rest.first().is_some_and(|byte| byte & 0x80 != 0) {
                return Err(Fault::LengthOutOfRange);
            }
            let Some((len, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            let len = u64::from_be_bytes(*len);
            if len <= u64::from(u16::MAX) {
                return Err(Fault::LengthNotMinimal);
            }
            Ok(Some((len, rest)))
        }
        _ => Ok(Some((u64::from(short_len), rest))),
    }
}

/// Length of the header of an unmasked frame with a payload of `payload_len` bytes.
pub const fn header_bytes(payload_len: usize) -> usize {
    if payload_len < LENGTH_IS_U16 as usize {
        2
    } else if payload_len <= u16::MAX as usize {
        4
    } else {
        10
    }
}

/// Appends the header of an unmasked frame.
pub fn write_header(out: &mut Vec<u8>, opcode: OpCode, fin: bool, payload_len: usize) {
    append_header(out, opcode, fin, payload_len, 0);
}

/// Appends an unfragmented, unmasked frame.
pub fn write_frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    append_header(out, opcode, true, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Appends the bytes that `write` appends, as the payload of an unfragmented, unmasked frame.
pub fn write_frame_of(out: &mut Vec<u8>, opcode: OpCode, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    // The size of the header is known only now: it is written after its payload and rotated to the front.
    let payload_len = out.len() - start;
    append_header(out, opcode, true, payload_len, 0);
    let header_len = out.len() - start - payload_len;
    out[start..].rotate_right(header_len);
}

/// Appends an unfragmented frame masked with `mask`, as a client sends it (RFC 6455 5.3).
pub fn write_masked_frame(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8], mask: [u8; 4]) {
    out.reserve(HEADER_BYTES_MAX + payload.len());
    append_header(out, opcode, true, payload.len(), MASK_BIT);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[start..], mask, 0);
}

/// Appends an unmasked close frame. The reason is cut between characters so that it fits a control frame.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut reason_len = reason.len().min(CONTROL_PAYLOAD_BYTES_MAX - 2);
    while !reason.is_char_boundary(reason_len) {
        reason_len -= 1;
    }
    append_header(out, OpCode::Close, true, 2 + reason_len, 0);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..reason_len]);
}

/// Whether a close frame may carry `code`: the codes of RFC 6455 7.4.1 that may be sent, those that IANA registered
/// since (1012..=1014), and the ranges for libraries and applications (RFC 6455 7.4.2).
pub const fn close_code_is_valid(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends the header of the only frame of a compressed message.
pub(super) fn append_compressed_header(out: &mut Vec<u8>, opcode: OpCode, payload_len: usize) {
    append(out, FIN_BIT | COMPRESSED_BIT | opcode.bits(), payload_len, 0);
}

fn append_header(out: &mut Vec<u8>, opcode: OpCode, fin: bool, payload_len: usize, mask_bit: u8) {
    debug_assert!(!opcode.is_control() || payload_len <= CONTROL_PAYLOAD_BYTES_MAX);
    append(out, if fin { FIN_BIT } else { 0 } | opcode.bits(), payload_len, mask_bit);
}

#[inline]
fn append(out: &mut Vec<u8>, first: u8, payload_len: usize, mask_bit: u8) {
    if let Ok(short) = u8::try_from(payload_len)
        && short < LENGTH_IS_U16
    {
        out.extend_from_slice(&[first, mask_bit | short]);
    } else if let Ok(len) = u16::try_from(payload_len) {
        let [high, low] = len.to_be_bytes();
        out.extend_from_slice(&[first, mask_bit | LENGTH_IS_U16, high, low]);
    } else {
        out.extend_from_slice(&[first, mask_bit | LENGTH_IS_U64]);
        out.extend_from_slice(&(payload_len as u64).to_be_bytes());
    }
}

const FIN_BIT: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const COMPRESSED_BIT: u8 = 0x40;
const OPCODE_BITS: u8 = 0x0F;
const MASK_BIT: u8 = 0x80;
const LENGTH_BITS: u8 = 0x7F;
const LENGTH_IS_U16: u8 = 126;
const LENGTH_IS_U64: u8 = 127;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_written_in_place_equals_the_frame_of_its_payload() {
        for payload_len in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let payload: Vec<u8> = (0..payload_len).map(|index: u32| index as u8).collect();
            let mut expected = b"before".to_vec();
            let mut out = expected.clone();
            write_frame(&mut expected, OpCode::Text, &payload);
            write_frame_of(&mut out, OpCode::Text, |out| out.extend_from_slice(&payload));
            assert!(out == expected, "{payload_len}");
        }
    }

    #[test]
    fn each_of_the_256_first_bytes_is_accepted_or_a_specific_fault() {
        for first in 0..=u8::MAX {
            let control = first & 0x08 != 0;
            let expected = if first & 0x70 != 0 {
                Err(Fault::ReservedBits)
            } else if !matches!(first & 0x0F, 0..=2 | 8..=10) {
                Err(Fault::OpCodeReserved)
            } else if control && first & 0x80 == 0 {
                Err(Fault::ControlFragmented)
            } else {
                Ok(None)
            };
            assert_eq!(decode_header(&[first], false), expected, "{first:#04x}");
            // Where messages may be compressed, the first frame of one may say that it is.
            let is_compressed = first & 0x70 == 0x40 && matches!(first & 0x0F, 1 | 2);
            let expected = if is_compressed { Ok(None) } else { expected };
            assert_eq!(decode_header(&[first], true), expected, "{first:#04x}");
        }
    }

    #[test]
    fn each_of_the_256_second_bytes_is_accepted_or_a_specific_fault() {
        for second in 0..=u8::MAX {
            let control = decode_header(&[0x89, second], false);
            let len = second & 0x7F;
            if len > 125 {
                assert_eq!(control, Err(Fault::ControlTooLarge), "{second:#04x}");
                assert_eq!(decode_header(&[0x81, second], false), Ok(None), "{second:#04x}");
            } else if second & 0x80 != 0 {
                assert_eq!(control, Ok(None), "a mask must follow {second:#04x}");
            } else {
                let header = Header {
                    fin: true,
                    opcode: OpCode::Ping,
                    mask: None,
                    is_compressed: false,
                    payload_len: len.into(),
                };
                assert_eq!(control, Ok(Some((header, 2))), "{second:#04x}");
            }
        }
    }

    #[test]
    fn lengths_round_trip_at_each_boundary_and_right_after_it() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
            let mut out = Vec::new();
            write_header(&mut out, OpCode::Binary, false, len);
            assert_eq!(out.len(), header_bytes(len));
            let header = Header {
                fin: false,
                opcode: OpCode::Binary,
                mask: None,
                is_compressed: false,
                payload_len: len as u64,
            };
            assert_eq!(decode_header(&out, false), Ok(Some((header, out.len()))));
            for end in 0..out.len() {
                assert_eq!(decode_header(&out[..end], false), Ok(None), "{end} of {}", out.len());
            }
        }
    }

    #[test]
    fn lengths_not_in_their_shortest_form_are_faults() {
        assert_eq!(decode_header(&[0x82, 126, 0, 125], false), Err(Fault::LengthNotMinimal));
        assert!(decode_header(&[0x82, 126, 0, 126], false).is_ok_and(|header| header.is_some()));
        let mut long = [0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF];
        assert_eq!(decode_header(&long, false), Err(Fault::LengthNotMinimal));
        long[7] = 1;
        assert!(decode_header(&long, false).is_ok_and(|header| header.is_some()));
    }

    #[test]
    fn the_top_bit_of_a_length_is_a_fault_on_its_first_byte() {
        assert_eq!(decode_header(&[0x82, 127, 0x80], false), Err(Fault::LengthOutOfRange));
        let largest = [0x82, 127, 0x7F, 255, 255, 255, 255, 255, 255, 255];
        let header = decode_header(&largest, false).unwrap().unwrap().0;
        assert_eq!(header.payload_len, u64::MAX >> 1);
    }

    #[test]
    fn a_masked_frame_unmasks_to_its_payload() {
        let mut out = Vec::new();
        write_masked_frame(&mut out, OpCode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        // The example of RFC 6455 5.7.
        let expected = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(out, expected);
    }

    #[test]
    fn a_long_close_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        write_close(&mut out, 1000, &"€".repeat(50));
        assert_eq!(&out[..4], &[0x88, 2 + 123, 0x03, 0xE8]);
        let mut out = Vec::new();
        write_close(&mut out, 1000, &format!("a{}", "€".repeat(50)));
        assert_eq!(out[1], 2 + 121);
        assert!(std::str::from_utf8(&out[4..]).is_ok());
    }

    #[test]
    fn valid_close_codes_are_those_that_may_be_sent() {
        let valid: Vec<u16> = (0..=u16::MAX).filter(|&code| close_code_is_valid(code)).collect();
        let expected: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
        assert_eq!(valid, expected);
    }
}
