//! Reads the headers in which proxies name clients: a trusted address is never a client's, and what a client sends
//! itself does not matter once a proxy has appended its address.
#![no_main]

use std::net::IpAddr;

use fantail::protocol::http1::{HeadLimits, forwarded, parse_head, x_forwarded_for};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|value: &[u8]| {
    // These would end the header, or the head.
    if value.contains(&b'\r') || value.contains(&b'\n') {
        return;
    }
    for (name, appended) in [("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1")] {
        let head = |lines: &[&[u8]]| {
            let lines = lines.iter().map(|line| [name.as_bytes(), b": ", line, b"\r\n"].concat());
            [
                b"GET / HTTP/1.1\r\nHost: t\r\n".to_vec(),
                lines.collect::<Vec<_>>().concat(),
                b"\r\n".to_vec(),
            ]
            .concat()
        };
        let client = |bytes: &[u8]| {
            let head = parse_head(bytes, &HeadLimits::default()).ok()??;
            let is_trusted = |address: IpAddr| address.is_loopback();
            let found = match name {
                "Forwarded" => forwarded(&head, is_trusted),
                _ => x_forwarded_for(&head, is_trusted),
            };
            Some(found)
        };
        if let Some(Some(found)) = client(&head(&[value])) {
            assert!(!found.is_loopback());
        }
        let line = [value, b", ", appended.as_bytes()].concat();
        for lines in [&[value, appended.as_bytes()][..], &[&line]] {
            let named = client(&head(lines)).flatten();
            let is_whole = client(&head(lines)).is_some();
            assert!(!is_whole || named == Some(IpAddr::from([192, 0, 2, 1])), "{named:?}");
        }
    }
});
