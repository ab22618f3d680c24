//! Decodes frames of either role, whole and split: messages and faults must be the same.
#![no_main]

use fantail::protocol::websocket::{Limits, MessageDecoder, Role};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_server, piece_bytes, stream) = input;
    let role = if is_server { Role::Server } else { Role::Client };
    let limits = Limits { role, message_bytes_max: 300, fragments_max: 8, has_compression: false };
    let pieces = stream.chunks(usize::from(piece_bytes).max(1));
    assert_eq!(said([stream].into_iter(), &limits), said(pieces, &limits));
});

fn said<'s>(pieces: impl Iterator<Item = &'s [u8]>, limits: &Limits) -> Vec<String> {
    let mut decoder = MessageDecoder::new();
    let mut said = Vec::new();
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let mut input = bytes.as_mut_slice();
        loop {
            match decoder.next(&mut input, limits) {
                Ok(Some(message)) => said.push(format!("{message:?}")),
                Ok(None) => break,
                Err(fault) => {
                    said.push(format!("{fault:?}"));
                    return said;
                }
            }
        }
        assert!(decoder.buffered_bytes() < 1000);
    }
    said
}
