//! Decodes lines and length-prefixed frames, whole and split: frames and faults must be the same.
#![no_main]

use fantail::protocol::length_prefix::LengthPrefixDecoder;
use fantail::protocol::line::LineDecoder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (piece_bytes, stream) = input;
    let pieces = || stream.chunks(usize::from(piece_bytes).max(1));
    assert_eq!(lines([stream].into_iter()), lines(pieces()));
    assert_eq!(payloads([stream].into_iter()), payloads(pieces()));
});

fn lines<'s>(pieces: impl Iterator<Item = &'s [u8]>) -> Vec<Option<Vec<u8>>> {
    let mut decoder = LineDecoder::new();
    let mut lines = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = bytes.as_mut_slice();
        loop {
            match decoder.next(&mut input, 20) {
                Ok(Some(line)) => lines.push(Some(line.to_vec())),
                Ok(None) => break,
                Err(_) => lines.push(None),
            }
        }
    }
    lines
}

fn payloads<'s>(pieces: impl Iterator<Item = &'s [u8]>) -> Vec<Option<Vec<u8>>> {
    let mut decoder = LengthPrefixDecoder::new();
    let mut payloads = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = bytes.as_mut_slice();
        loop {
            match decoder.next(&mut input, 300) {
                Ok(Some(payload)) => payloads.push(Some(payload.to_vec())),
                Ok(None) => break,
                Err(_) => {
                    payloads.push(None);
                    return payloads;
                }
            }
        }
    }
    payloads
}
