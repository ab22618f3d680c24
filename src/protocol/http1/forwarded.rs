//! The address of the client that proxies name in the headers of a request: `X-Forwarded-For`, `Forwarded` (RFC 7239).
//!
//! Each proxy appends the address that it was connected from, so the list reads from the client to the last proxy. Only
//! its end is known to be true: what precedes the last address that is not trusted may be anything.

use std::net::{IpAddr, SocketAddr};

use super::Head;

/// The last address in `X-Forwarded-For` that is not a trusted proxy's; `None` if there is none, or if something that
/// is not an address follows it.
pub fn x_forwarded_for(head: &Head<'_>, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    client_of(head.header_list("x-forwarded-for").map(address_of), is_trusted)
}

/// The same in `Forwarded`, whose members name it in the parameter `for`.
pub fn forwarded(head: &Head<'_>, is_trusted: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
    let lines = head.header("forwarded");
    let members = lines.flat_map(|line| split_unquoted(line, b',')).map(<[u8]>::trim_ascii);
    let members = members.filter(|member| !member.is_empty());
    client_of(members.map(address_in_member), is_trusted)
}

/// The last address that is not trusted, if only trusted ones follow it.
fn client_of(
    addresses: impl Iterator<Item = Option<IpAddr>>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    addresses.fold(None, |client, address| match address {
        Some(address) if is_trusted(address) => client,
        // Not an address, or a name that hides one: "unknown", "_hidden".
        address => address,
    })
}

/// The value of `for` in a member of `Forwarded`: `for="[2001:db8::1]:4711";proto=https`.
fn address_in_member(member: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    for pair in split_unquoted(member, b';') {
        let (name, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
        if name.trim_ascii().eq_ignore_ascii_case(b"for") {
            if found.is_some() {
                // RFC 7239 4: each parameter occurs at most once.
                return None;
            }
            let value = value[1..].trim_ascii();
            let quoted = value.strip_prefix(b"\"").map(|rest| rest.strip_suffix(b"\""));
            found = Some(quoted.unwrap_or(Some(value)).and_then(address_of));
        }
    }
    found.flatten()
}

/// An address, with a port or without one: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`.
fn address_of(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(bracketed).or_else(with_port);
    address.map(|address: IpAddr| address.to_canonical())
}

/// The parts between separators that are not in quotation marks (RFC 9110 5.6.4). Where a mark is left open, none of
/// them counts: a client could hide what a proxy appends to the header behind one.
fn split_unquoted(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quotes = Quotes::default();
    let has_open_mark = text.iter().fold(false, |_, byte| quotes.contains(*byte));
    quotes = Quotes::default();
    text.split(move |byte| {
        let is_quoted = quotes.contains(*byte);
        *byte == separator && (has_open_mark || !is_quoted)
    })
}

/// Where a text is in quotation marks, byte by byte.
#[derive(Default)]
struct Quotes {
    is_open: bool,
    is_escaped: bool,
}

impl Quotes {
    /// Takes the next byte. Returns whether a mark is open behind it.
    fn contains(&mut self, byte: u8) -> bool {
        let was_escaped = std::mem::replace(&mut self.is_escaped, false);
        match byte {
            b'\\' if self.is_open && !was_escaped => self.is_escaped = true,
            b'"' if !was_escaped => self.is_open = !self.is_open,
            _ => {}
        }
        self.is_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http1::{HeadLimits, parse_head};

    /// The client that headers name to a server that trusts 10.0.0.0/8 and fd00::/8.
    fn client(headers: &str) -> Option<String> {
        let bytes = format!("GET / HTTP/1.1\r\nHost: t\r\n{headers}\r\n");
        let head = parse_head(bytes.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
        let is_trusted = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(address) => address.octets()[0] == 0xfd,
        };
        let found = match headers.starts_with('X') {
            true => x_forwarded_for(&head, is_trusted),
            false => forwarded(&head, is_trusted),
        };
        found.map(|address| address.to_string())
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_last_address_that_is_not_trusted_is_the_clients() {
        for (value, expected) in [
            ("192.0.2.1", some("192.0.2.1")),
            ("192.0.2.1:5000", some("192.0.2.1")),
            ("2001:db8::1", some("2001:db8::1")),
            ("[2001:db8::1]:443", some("2001:db8::1")),
            ("[2001:db8::1]", some("2001:db8::1")),
            ("::ffff:192.0.2.1", some("192.0.2.1")),
            // What a client sent itself comes before what the proxies appended.
            ("198.51.100.7, 192.0.2.1", some("192.0.2.1")),
            ("127.0.0.1, unknown, 192.0.2.1,10.0.0.2 , 10.0.0.1", some("192.0.2.1")),
            ("nonsense, 192.0.2.1", some("192.0.2.1")),
            (", 192.0.2.1, ,", some("192.0.2.1")),
            ("10.0.0.2, 10.0.0.1", None),
            ("192.0.2.1, unknown", None),
            ("192.0.2.1, nonsense, 10.0.0.1", None),
            ("192.0.2.1 192.0.2.2", None),
            ("192.0.2.1:", None),
            ("192.0.2.256", None),
            ("192.0.2.1:99999", None),
            ("[2001:db8::1", None),
            ("[192.0.2.1]", None),
            ("", None),
        ] {
            assert_eq!(client(&format!("X-Forwarded-For: {value}\r\n")), expected, "{value}");
        }
        let lines = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2, 10.0.0.1\r\n";
        assert_eq!(client(lines), some("192.0.2.2"));
        assert_eq!(client("X-Other: 192.0.2.1\r\n"), None);
    }

    #[test]
    fn members_of_forwarded_name_it_by_a_parameter() {
        for (value, expected) in [
            ("for=192.0.2.1", some("192.0.2.1")),
            ("For=192.0.2.1;proto=https;by=10.0.0.1", some("192.0.2.1")),
            ("proto=https; for = \"192.0.2.1:5000\"", some("192.0.2.1")),
            ("for=\"[2001:db8::1]:4711\"", some("2001:db8::1")),
            ("for=198.51.100.7, for=192.0.2.1, for=10.0.0.1", some("192.0.2.1")),
            ("for=198.51.100.7;host=\"a,for=1.2.3.4\", for=192.0.2.1", some("192.0.2.1")),
            ("for=192.0.2.1;host=\"a\\\",;for=1.2.3.4\"", some("192.0.2.1")),
            ("for=unknown, for=192.0.2.1", some("192.0.2.1")),
            // What a client sent may leave a mark open.
            ("for=\", for=192.0.2.1", some("192.0.2.1")),
            ("for=\"a\\, for=192.0.2.1", some("192.0.2.1")),
            ("for=\", for=\"192.0.2.1:80\"", some("192.0.2.1")),
            ("host=\"a,b\";for=\"x, for=\"[2001:db8::1]\"", some("2001:db8::1")),
            ("for=192.0.2.1, for=_hidden", None),
            ("for=192.0.2.1, proto=https", None),
            ("for=192.0.2.1;for=192.0.2.2", None),
            ("for=\"192.0.2.1", None),
            ("for=[2001:db8::1]x", None),
            ("for", None),
            ("=;=", None),
        ] {
            assert_eq!(client(&format!("Forwarded: {value}\r\n")), expected, "{value}");
        }
    }

    #[test]
    fn the_longest_list_that_fits_a_head_is_read() {
        let trusted = ", 10.0.0.1".repeat(1500);
        assert_eq!(client(&format!("X-Forwarded-For: 192.0.2.1{trusted}\r\n")), some("192.0.2.1"));
        let long = "x".repeat(15_000);
        assert_eq!(client(&format!("X-Forwarded-For: {long}\r\n")), None);
        assert_eq!(client(&format!("Forwarded: for={long}\r\n")), None);
    }
}
