//! The PROXY protocol (HAProxy, proxy-protocol.txt, sections 2.1 and 2.2): a header that a proxy sends before the bytes
//! of its client. No address expects it. It is recognized in each framing so that it can be distinguished from other
//! faults.

/// The code of the refusal.
pub const CODE: &str = "proxy_protocol_unexpected";

/// The reason of the refusal, for people.
pub const REASON: &str = "a proxy in front of this server sends the PROXY protocol, which is not \
    expected at this address";

/// The two versions of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Version 1: a line of text.
    Text,
    /// Version 2: binary, with its length.
    Binary,
}

/// Whether the bytes of a connection begin with a PROXY protocol header.
pub fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(TEXT) || bytes.starts_with(BINARY)
}

/// The version of the header whose first line this is; the binary one has a zero byte between its first line ends.
pub fn of_line(line: &[u8]) -> Option<Header> {
    match line {
        [0] => Some(Header::Binary),
        _ => line.starts_with(TEXT).then_some(Header::Text),
    }
}

/// Whether a header begins with these bytes, which are a length otherwise.
pub fn is_length(prefix: [u8; 4]) -> bool {
    TEXT.starts_with(&prefix) || BINARY.starts_with(&prefix)
}

const TEXT: &[u8] = b"PROXY ";

const BINARY: &[u8] = b"\r\n\r\n\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_recognized_in_every_framing() {
        let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c";
        assert!(begins(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n") && begins(binary));
        assert!(!begins(b"PROXY") && !begins(b"\r\n\r\n") && !begins(b"PROXIES "));
        assert_eq!(of_line(b"PROXY UNKNOWN"), Some(Header::Text));
        assert_eq!(of_line(b"\0"), Some(Header::Binary));
        for line in [&b"{}"[..], b"", b"\0\0", b"proxy x", b"QUIT"] {
            assert_eq!(of_line(line), None, "{line:?}");
        }
        assert!(is_length(*b"PROX") && is_length(*b"\r\n\r\n"));
        assert!(!is_length([0, 0, 1, 0]) && !is_length(*b"GET "));
    }
}
