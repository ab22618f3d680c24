//! Makes a delta from one version to another: another implementation makes the second version of it again, it is shorter,
//! and it is text if the second version is.
#![no_main]

use fantail::protocol::fossil::write_delta;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], u8)| {
    let (source, rest, share) = input;
    // Versions have something in common: the target has pieces of the source between its own.
    let piece = 1 + usize::from(share);
    let pieces = source.chunks(piece).zip(rest.chunks(piece));
    let mixed: Vec<u8> = pieces.flat_map(|(ours, own)| [ours, own].concat()).collect();
    for target in [rest, &mixed] {
        let mut delta = Vec::new();
        if write_delta(&mut delta, source, target) {
            assert!(delta.len() < target.len());
            assert_eq!(fossil_delta::apply(source, &delta).expect("it fits the source"), target);
            assert!(std::str::from_utf8(target).is_err() || std::str::from_utf8(&delta).is_ok());
        } else {
            assert!(delta.is_empty());
        }
    }
});
