//! Frames that follow a 32-bit big-endian length.

use super::{proxy_protocol, take_front};

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthPrefixFault {
    /// The declared length exceeds the limit. Framing is lost, so the caller closes the connection.
    TooLong,
    /// The declared length exceeds the limit and is the beginning of a PROXY protocol header.
    ProxyProtocol,
}

/// Decodes a stream into frames.
///
/// A frame that is whole in the input is not copied. Only the start of an unfinished frame moves to the heap.
#[derive(Debug, Default)]
pub struct LengthPrefixDecoder {
    partial: Option<Box<Partial>>,
}

impl LengthPrefixDecoder {
    /// A decoder without an unfinished frame; it owns no heap.
    pub const fn new() -> Self {
        Self { partial: None }
    }

    /// Takes bytes from the front of `input` up to the end of the next frame, and returns its payload. `None`: all of
    /// the input was taken. After a fault framing is lost: close the connection, and do not call again.
    pub fn next<'m, 'i: 'm>(
        &'m mut self,
        input: &mut &'i mut [u8],
        payload_bytes_max: u32,
    ) -> Result<Option<&'m mut [u8]>, LengthPrefixFault> {
        if self.partial.as_ref().is_some_and(|partial| partial.delivered) {
            self.partial = None;
        }
        if self.partial.is_none()
            && let Some((prefix, rest)) = input.split_first_chunk::<PREFIX_BYTES>()
        {
            let payload_len = checked_len(*prefix, payload_bytes_max)?;
            if payload_len <= rest.len() {
                let frame = take_front(input, PREFIX_BYTES + payload_len);
                return Ok(Some(&mut frame[PREFIX_BYTES..]));
            }
        }
        self.next_unfinished(input, payload_bytes_max)
    }

    /// Whether no frame is unfinished.
    pub fn is_between_frames(&self) -> bool {
        self.partial.as_ref().is_none_or(|partial| partial.delivered)
    }

    /// Bytes of heap that the decoder owns.
    pub fn buffered_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| size_of::<Partial>() + partial.bytes.capacity())
    }

    fn next_unfinished<'m, 'i: 'm>(
        &'m mut self,
        input: &mut &'i mut [u8],
        payload_bytes_max: u32,
    ) -> Result<Option<&'m mut [u8]>, LengthPrefixFault> {
        if input.is_empty() && self.partial.is_none() {
            return Ok(None);
        }
        let partial = self.partial.get_or_insert_default();
        if partial.prefix_len < PREFIX_BYTES {
            let count = input.len().min(PREFIX_BYTES - partial.prefix_len);
            let piece = take_front(input, count);
            partial.prefix[partial.prefix_len..][..count].copy_from_slice(piece);
            partial.prefix_len += count;
            if partial.prefix_len < PREFIX_BYTES {
                return Ok(None);
            }
        }
        let payload_len = checked_len(partial.prefix, payload_bytes_max)?;
        if partial.bytes.is_empty() && payload_len <= input.len() {
            self.partial = None;
            return Ok(Some(take_front(input, payload_len)));
        }
        let partial = self.partial.get_or_insert_default();
        let piece = take_front(input, input.len().min(payload_len - partial.bytes.len()));
        partial.append(piece, payload_len);
        if partial.bytes.len() < payload_len {
            return Ok(None);
        }
        partial.delivered = true;
        Ok(Some(&mut partial.bytes))
    }
}

/// An unfinished frame, which is on the heap.
#[derive(Debug, Default)]
struct Partial {
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    bytes: Vec<u8>,
    /// Whether `bytes` are a whole payload that was returned; the next call frees it.
    delivered: bool,
}

impl Partial {
    /// Memory at most doubles as bytes arrive; the declared length only limits that growth.
    fn append(&mut self, piece: &[u8], payload_len: usize) {
        let needed = self.bytes.len() + piece.len();
        if needed > self.bytes.capacity() {
            let capacity = (self.bytes.capacity() * 2).max(needed).min(payload_len);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
    }
}

/// Appends the bytes that `write` appends, as a frame. Panics if they exceed 4 GiB, which no limit allows.
pub fn write_length_prefixed(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let payload_start = start + PREFIX_BYTES;
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    write(out);
    let payload_len = out.len() - payload_start;
    let payload_len = u32::try_from(payload_len).expect("limits keep a frame under 4 GiB");
    out[start..payload_start].copy_from_slice(&payload_len.to_be_bytes());
}

fn checked_len(prefix: [u8; 4], payload_bytes_max: u32) -> Result<usize, LengthPrefixFault> {
    let payload_len = u32::from_be_bytes(prefix);
    if payload_len > payload_bytes_max {
        return Err(match proxy_protocol::is_length(prefix) {
            true => LengthPrefixFault::ProxyProtocol,
            false => LengthPrefixFault::TooLong,
        });
    }
    Ok(payload_len as usize)
}

const PREFIX_BYTES: usize = 4;

const _: () =
    assert!(size_of::<LengthPrefixDecoder>() == 8, "an idle decoder is one empty pointer");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_at_the_limit_passes_and_a_longer_one_is_refused_on_its_prefix() {
        let mut bytes = b"\0\0\0\x04abcd\0\0\0\0\0\0\0\x05".to_vec();
        let mut input = bytes.as_mut_slice();
        let mut decoder = LengthPrefixDecoder::new();
        assert_eq!(decoder.next(&mut input, 4), Ok(Some(b"abcd".to_vec().as_mut_slice())));
        assert_eq!(decoder.next(&mut input, 4), Ok(Some([].as_mut_slice())));
        assert_eq!(decoder.next(&mut input, 4), Err(LengthPrefixFault::TooLong));
    }

    #[test]
    fn a_frame_in_pieces_is_assembled_and_freed() {
        let mut bytes = Vec::new();
        write_length_prefixed(&mut bytes, |out| out.extend_from_slice(b"payload"));
        let mut decoder = LengthPrefixDecoder::new();
        for byte in &mut bytes[..10] {
            assert_eq!(decoder.next(&mut std::slice::from_mut(byte), 7), Ok(None));
            assert!(!decoder.is_between_frames());
        }
        let mut last = [b'd', 0];
        let mut input = last.as_mut_slice();
        assert_eq!(decoder.next(&mut input, 7), Ok(Some(b"payload".to_vec().as_mut_slice())));
        assert!(decoder.is_between_frames());
        assert_eq!(decoder.next(&mut input, 7), Ok(None), "a prefix began");
        assert!(!decoder.is_between_frames());
    }

    #[test]
    fn memory_grows_with_the_bytes_received_not_with_the_declared_length() {
        let mut bytes = vec![0xFF; 1000];
        let mut decoder = LengthPrefixDecoder::new();
        assert_eq!(decoder.next(&mut bytes.as_mut_slice(), u32::MAX), Ok(None));
        assert!(decoder.buffered_bytes() < 2100, "{}", decoder.buffered_bytes());
    }
}
