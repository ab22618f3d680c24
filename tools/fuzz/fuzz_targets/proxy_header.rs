//! Parses headers of the PROXY protocol, whole and after every byte: what is decided early stays.
#![no_main]

use fantail::protocol::proxy_protocol::parse_header;
use libfuzzer_sys::fuzz_target;

const BYTES_MAX: usize = 300;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse_header(bytes, BYTES_MAX);
    for count in 0..bytes.len() {
        let early = parse_header(&bytes[..count], BYTES_MAX);
        assert!(early == Ok(None) || early == whole, "after {count} bytes");
    }
    if let Ok(Some(header)) = whole {
        assert!(header.header_bytes <= bytes.len().min(BYTES_MAX));
    }
});
