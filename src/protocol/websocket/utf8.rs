//! UTF-8 checks of whole buffers, and of text that arrives in pieces.

/// Whether `bytes` are UTF-8.
///
/// Most messages are short and ASCII. They are checked a word at a time, which takes less than setting up the vectors
/// of `simdutf8`. That library leaves other short text to the standard library as well.
#[inline]
pub fn is_utf8(bytes: &[u8]) -> bool {
    if bytes.len() < SHORT_BYTES_MAX {
        is_short_ascii(bytes) || std::str::from_utf8(bytes).is_ok()
    } else {
        simdutf8::basic::from_utf8(bytes).is_ok()
    }
}

#[inline]
fn is_short_ascii(bytes: &[u8]) -> bool {
    let high_bits = if let Some(last) = bytes.last_chunk() {
        // The last word overlaps the one before it, which is cheaper than a tail of single bytes.
        let words = bytes.as_chunks::<8>().0.iter();
        words.fold(u64::from_ne_bytes(*last), |seen, word| seen | u64::from_ne_bytes(*word))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk::<4>()) {
        // Four to seven bytes: two words that overlap.
        u64::from(u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last))
    } else {
        u64::from(bytes.iter().fold(0, |seen, byte| seen | byte))
    };
    high_bits & 0x8080_8080_8080_8080 == 0
}

/// Validates text that arrives in pieces; between pieces it keeps at most the start of one character.
///
/// Invariant: `pending[..pending_len]` can still become a character.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8Check {
    pending: [u8; 3],
    pending_len: u8,
}

impl Utf8Check {
    /// A check at the start of a text.
    pub const fn new() -> Self {
        Self { pending: [0; 3], pending_len: 0 }
    }

    /// Checks the next piece. Returns false as soon as no further bytes can make the text valid.
    #[must_use]
    pub fn push(&mut self, piece: &[u8]) -> bool {
        let Some(piece) = self.complete_pending(piece) else { return false };
        let (whole, start) = piece.split_at(incomplete_start(piece));
        if !is_utf8(whole) {
            return false;
        }
        if start.is_empty() {
            return true;
        }
        if !can_become_character(start) {
            return false;
        }
        self.pending[..start.len()].copy_from_slice(start);
        self.pending_len = start.len() as u8;
        true
    }

    /// Whether the text may end here.
    pub const fn is_complete(&self) -> bool {
        self.pending_len == 0
    }

    /// Joins the pending start with the front of `piece`, and returns the rest of the piece, or `None` if it is
    /// invalid.
    fn complete_pending<'p>(&mut self, mut piece: &'p [u8]) -> Option<&'p [u8]> {
        while self.pending_len > 0 {
            let Some((&byte, rest)) = piece.split_first() else { break };
            piece = rest;
            let len = usize::from(self.pending_len);
            let mut joined = [0; 4];
            joined[..len].copy_from_slice(&self.pending[..len]);
            joined[len] = byte;
            let joined = &joined[..=len];
            if std::str::from_utf8(joined).is_ok() {
                self.pending_len = 0;
            } else if can_become_character(joined) {
                // At most three bytes: a fourth either completes the character or is invalid.
                self.pending[len] = byte;
                self.pending_len += 1;
            } else {
                return None;
            }
        }
        Some(piece)
    }
}

/// The index at which the last character of `bytes` starts if it is incomplete; otherwise the end.
fn incomplete_start(bytes: &[u8]) -> usize {
    for (back, &byte) in (1..=3).zip(bytes.iter().rev()) {
        let needed = match byte {
            0x00..=0x7F => 1,
            0x80..=0xBF => continue,
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xFF => 4,
        };
        return if needed > back { bytes.len() - back } else { bytes.len() };
    }
    bytes.len()
}

/// Whether `bytes`, which are not a whole character, can be the start of one. The standard library rejects overlong
/// forms, surrogates and values above U+10FFFF on the first byte that proves them, which `error_len` tells.
fn can_become_character(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => false,
        Err(error) => error.valid_up_to() == 0 && error.error_len().is_none(),
    }
}

/// Length from which `simdutf8` uses its vectors.
const SHORT_BYTES_MAX: usize = 64;

const _: () = assert!(size_of::<Utf8Check>() == 4, "the check costs a connection four bytes");

#[cfg(test)]
mod tests {
    use super::*;

    /// The length of the first prefix that cannot become valid, according to the standard library.
    fn first_invalid_prefix(bytes: &[u8]) -> Option<usize> {
        (1..=bytes.len()).find(|&end| {
            std::str::from_utf8(&bytes[..end]).is_err_and(|error| error.error_len().is_some())
        })
    }

    #[test]
    fn every_sequence_of_lead_and_second_byte_fails_on_the_byte_that_proves_it() {
        for lead in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                for tail in [[0x80, 0x80], [0x41, 0x41], [0xBF, 0xC2]] {
                    let bytes = [lead, second, tail[0], tail[1]];
                    let mut check = Utf8Check::new();
                    let failed = (1..=4).find(|&end| !check.push(&bytes[end - 1..end]));
                    assert_eq!(failed, first_invalid_prefix(&bytes), "{bytes:02x?}");
                    if failed.is_none() {
                        assert_eq!(check.is_complete(), std::str::from_utf8(&bytes).is_ok());
                    }
                }
            }
        }
    }

    #[test]
    fn text_in_two_pieces_is_checked_like_the_whole() {
        let texts: [&[u8]; 7] = [
            "κόσμε – naïve 😀 €".as_bytes(),
            b"ascii only, longer than sixty-four bytes, so that the vectors are used as well",
            b"\xED\xA0\x80",
            b"\xF4\x90\x80\x80",
            b"\xC0\xAF",
            b"a\xE2\x82",
            b"\xF0\x9F\x98",
        ];
        for text in texts {
            for middle in 0..=text.len() {
                let mut check = Utf8Check::new();
                let valid = check.push(&text[..middle])
                    && check.push(&text[middle..])
                    && check.is_complete();
                assert_eq!(valid, std::str::from_utf8(text).is_ok(), "{text:02x?} at {middle}");
            }
        }
    }

    #[test]
    fn short_texts_of_each_length_are_checked_at_each_byte() {
        for len in 0..100 {
            let mut text = vec![b'a'; len];
            assert!(is_utf8(&text));
            for index in 0..len {
                text[index] = 0x80;
                assert!(!is_utf8(&text), "length {len}, byte {index}");
                text[index] = b'a';
            }
        }
    }
}
