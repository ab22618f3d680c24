//! The PROXY protocol (HAProxy, proxy-protocol.txt, sections 2.1 and 2.2): a header that a proxy sends before the bytes
//! of its client. [`parse_header`] is for the listeners that expect it. On others it is recognized in each framing, so
//! that it can be distinguished from other faults.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

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

/// A header at the front of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The address of the client; `None` if the connection is the proxy's own, as a health check is, or if the client's
    /// address is of another kind.
    pub client: Option<SocketAddr>,
    /// The length of the header in bytes; the client's bytes begin there.
    pub header_bytes: usize,
}

/// Why the first bytes of a connection are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// They are something else.
    Missing,
    /// They begin like a header, and what follows breaks its format.
    Malformed,
    /// The header is longer than the limit.
    TooLong,
}

/// Parses the header at the front of a connection, of either version; `None` if its end has not arrived. Call it again
/// with the same bytes followed by more. A header of version 2 has at most `bytes_max` bytes, its extensions (TLVs)
/// included, which are skipped.
pub fn parse_header(bytes: &[u8], bytes_max: usize) -> Result<Option<ProxyHeader>, HeaderFault> {
    if begins_like(bytes, SIGNATURE) {
        return parse_binary(bytes, bytes_max);
    }
    if begins_like(bytes, TEXT) {
        return parse_text(bytes);
    }
    Err(HeaderFault::Missing)
}

/// Whether the bytes are the beginning of a text, or begin with it.
fn begins_like(bytes: &[u8], text: &[u8]) -> bool {
    let count = bytes.len().min(text.len());
    bytes[..count] == text[..count]
}

fn parse_binary(bytes: &[u8], bytes_max: usize) -> Result<Option<ProxyHeader>, HeaderFault> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Ok(None) };
    let [version_and_command, family, high, low] = fixed[SIGNATURE.len()..] else {
        return Err(HeaderFault::Malformed);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_local = match version_and_command {
        LOCAL => true,
        PROXY => false,
        _ => return Err(HeaderFault::Malformed),
    };
    if FIXED_BYTES + length > bytes_max {
        return Err(HeaderFault::TooLong);
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    // The addresses of a connection that is the proxy's own are to be ignored, whatever they are.
    let client = if is_local { None } else { binary_client(family, body)? };
    Ok(Some(ProxyHeader { client, header_bytes: FIXED_BYTES + length }))
}

/// The address of the client: addresses of both ends, then both ports, then extensions.
fn binary_client(family: u8, body: &[u8]) -> Result<Option<SocketAddr>, HeaderFault> {
    let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let client = match family {
        TCP_IPV4 => port(8)
            .zip(body.first_chunk::<4>())
            .filter(|_| body.len() >= 12)
            .map(|(port, ip)| SocketAddr::from((Ipv4Addr::from(*ip), port))),
        TCP_IPV6 => port(32)
            .zip(body.first_chunk::<16>())
            .filter(|_| body.len() >= 36)
            .map(|(port, ip)| SocketAddr::new(Ipv6Addr::from(*ip).to_canonical(), port)),
        UNIX_STREAM if body.len() >= UNIX_BYTES => return Ok(None),
        UNSPECIFIED => return Ok(None),
        _ => None,
    };
    client.map(Some).ok_or(HeaderFault::Malformed)
}

fn parse_text(bytes: &[u8]) -> Result<Option<ProxyHeader>, HeaderFault> {
    let within = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < TEXT_BYTES_MAX { Ok(None) } else { Err(HeaderFault::TooLong) };
    };
    let line = std::str::from_utf8(&within[TEXT.len()..end]).map_err(|_| HeaderFault::Malformed)?;
    let client = text_client(line).ok_or(HeaderFault::Malformed)?;
    Ok(Some(ProxyHeader { client, header_bytes: end + 2 }))
}

/// The client of a line such as `TCP4 192.0.2.1 192.0.2.2 50000 80`, without its `PROXY `.
fn text_client(line: &str) -> Option<Option<SocketAddr>> {
    let (protocol, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut parts = rest.split(' ');
    let [source, target] = [parts.next()?, parts.next().unwrap_or_default()];
    let ips = match protocol {
        // What follows is to be ignored.
        "UNKNOWN" => return Some(None),
        "TCP4" => both::<Ipv4Addr>(source, target).map(IpAddr::from),
        "TCP6" => both::<Ipv6Addr>(source, target).map(|ip| ip.to_canonical()),
        _ => None,
    };
    let [port, target_port] = [parts.next()?, parts.next()?];
    let ports = text_port(port).filter(|_| text_port(target_port).is_some());
    if parts.next().is_some() {
        return None;
    }
    ips.zip(ports).map(|(ip, port)| Some(SocketAddr::new(ip, port)))
}

/// The first of two addresses of one kind.
fn both<T: FromStr>(first: &str, second: &str) -> Option<T> {
    second.parse::<T>().ok()?;
    first.parse().ok()
}

/// A decimal port without leading zeros.
fn text_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_plain = is_number && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
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

/// What a header of version 2 begins with; its first bytes are [`BINARY`].
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, the command, the family, and the length of what follows.
const FIXED_BYTES: usize = 16;

/// The longest line of version 1, with its line end.
const TEXT_BYTES_MAX: usize = 107;

// Version 2 with each command, and the address families with their transport.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP_IPV4: u8 = 0x11;
const TCP_IPV6: u8 = 0x21;
const UNIX_STREAM: u8 = 0x31;

/// Two paths of Unix sockets.
const UNIX_BYTES: usize = 216;

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

    const BYTES_MAX: usize = 300;

    fn parsed(bytes: &[u8]) -> Result<Option<ProxyHeader>, HeaderFault> {
        let whole = parse_header(bytes, BYTES_MAX);
        for count in 0..bytes.len() {
            match parse_header(&bytes[..count], BYTES_MAX) {
                Ok(None) => {}
                early => assert_eq!(early, whole, "after {count} bytes of {bytes:?}"),
            }
        }
        whole
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, body].concat()
    }

    /// The client that a header names; the header must end where it says.
    fn client(header: &[u8]) -> Option<SocketAddr> {
        let behind = [header, b"GET / HTTP/1.1\r\n"].concat();
        let parsed = parsed(&behind).unwrap().unwrap();
        assert_eq!(parsed.header_bytes, header.len());
        parsed.client
    }

    #[test]
    fn a_line_names_the_client() {
        let address = |text: &str| Some(text.parse().unwrap());
        for (line, expected) in [
            ("TCP4 192.0.2.1 198.51.100.1 50000 443", address("192.0.2.1:50000")),
            ("TCP4 255.255.255.255 0.0.0.0 65535 0", address("255.255.255.255:65535")),
            ("TCP6 2001:db8::1 2001:db8::2 1 2", address("[2001:db8::1]:1")),
            ("TCP6 ::ffff:192.0.2.1 ::1 1 2", address("192.0.2.1:1")),
            ("UNKNOWN", None),
            ("UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535", None),
        ] {
            assert_eq!(client(format!("PROXY {line}\r\n").as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_line_in_any_other_form_is_malformed() {
        for line in [
            "TCP4 192.0.2.1 198.51.100.1 50000",
            "TCP4 192.0.2.1 198.51.100.1 50000 443 1",
            "TCP4  192.0.2.1 198.51.100.1 50000 443",
            "TCP4 192.0.2.1 198.51.100.1 50000 443 ",
            "TCP4 192.0.2.1 198.51.100.1 65536 443",
            "TCP4 192.0.2.1 198.51.100.1 05000 443",
            "TCP4 192.0.2.1 198.51.100.1 +5000 443",
            "TCP4 192.0.2.01 198.51.100.1 50000 443",
            "TCP4 192.0.2.1 ::1 50000 443",
            "TCP4 2001:db8::1 2001:db8::2 1 2",
            "TCP6 192.0.2.1 198.51.100.1 50000 443",
            "TCP 192.0.2.1 198.51.100.1 50000 443",
            "UDP4 192.0.2.1 198.51.100.1 50000 443",
            "UNKNOWNX",
            "tcp4 192.0.2.1 198.51.100.1 50000 443",
            "TCP4",
            "",
        ] {
            let line = format!("PROXY {line}\r\n");
            assert_eq!(parsed(line.as_bytes()), Err(HeaderFault::Malformed), "{line}");
        }
        assert_eq!(parsed(b"PROXY TCP4 \xff\r\n"), Err(HeaderFault::Malformed));
    }

    #[test]
    fn a_line_has_at_most_107_bytes() {
        let line = |bytes: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(bytes - 16));
        assert_eq!(client(line(TEXT_BYTES_MAX).as_bytes()), None);
        let past = line(TEXT_BYTES_MAX + 1);
        assert_eq!(parse_header(past.as_bytes(), BYTES_MAX), Err(HeaderFault::TooLong));
    }

    #[test]
    fn a_binary_header_names_the_client_and_its_extensions_are_skipped() {
        let ipv4 = [192, 0, 2, 1, 198, 51, 100, 1, 0xc3, 0x50, 0x01, 0xbb];
        let expected = Some("192.0.2.1:50000".parse().unwrap());
        assert_eq!(client(&binary(PROXY, TCP_IPV4, &ipv4)), expected);
        let extended = [&ipv4[..], &[0x01, 0, 2, b'h', b'2', 0x20, 0, 9, 1]].concat();
        assert_eq!(client(&binary(PROXY, TCP_IPV4, &extended)), expected);
        let mut ipv6 = [0; 36];
        ipv6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        ipv6[32..].copy_from_slice(&[0, 1, 0, 2]);
        let expected = Some("[2001:db8::]:1".parse().unwrap());
        assert_eq!(client(&binary(PROXY, TCP_IPV6, &ipv6)), expected);
        for (command, family, bytes) in [
            (LOCAL, UNSPECIFIED, 0),
            (LOCAL, TCP_IPV4, 12),
            (LOCAL, 0xff, 3),
            (PROXY, UNSPECIFIED, 0),
            (PROXY, UNSPECIFIED, 9),
            (PROXY, UNIX_STREAM, UNIX_BYTES),
        ] {
            assert_eq!(client(&binary(command, family, &vec![7; bytes])), None, "{family}");
        }
    }

    #[test]
    fn a_binary_header_in_any_other_form_is_malformed_or_too_long() {
        for (command, family, bytes) in [
            (0x11, TCP_IPV4, 12),
            (0x22, TCP_IPV4, 12),
            (PROXY, TCP_IPV4, 11),
            (PROXY, TCP_IPV6, 35),
            (PROXY, UNIX_STREAM, UNIX_BYTES - 1),
            (PROXY, 0x12, 12),
            (PROXY, 0x22, 36),
            (PROXY, 0x41, 12),
        ] {
            let header = binary(command, family, &vec![0; bytes]);
            assert_eq!(parsed(&header), Err(HeaderFault::Malformed), "{command} {family} {bytes}");
        }
        let extended = |bytes: usize| binary(PROXY, UNSPECIFIED, &vec![0; bytes - FIXED_BYTES]);
        assert_eq!(client(&extended(BYTES_MAX)), None);
        assert_eq!(parsed(&extended(BYTES_MAX + 1)), Err(HeaderFault::TooLong));
        assert_eq!(parsed(b"GET / HTTP/1.1\r\n\r\n"), Err(HeaderFault::Missing));
        assert_eq!(parsed(b"\r\n\r\nGET"), Err(HeaderFault::Missing));
        assert_eq!(parsed(b"{\"id\":1}\n"), Err(HeaderFault::Missing));
    }
}
