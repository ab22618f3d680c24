//! Which origins may use what a form or a WebSocket reaches without CORS.
//!
//! Browsers let any page open a WebSocket to any host and post a form to it: CORS guards neither, so the server looks
//! at `Origin` itself (RFC 6455 10.2). A request without one comes from no page.

use crate::protocol::http1::Head;
use crate::transport::settings::{Origins, TransportSettings};

/// Whether the origin of a request may have a WebSocket, or post: one that is listed, or the server's own, which
/// clients other than browsers send (Netty, Vert.x, Spring, Tyrus, Go's x/net/websocket).
pub(super) fn is_allowed(head: &Head<'_>, settings: &TransportSettings) -> bool {
    let Origins::Listed(list) = settings.origins() else { return true };
    head.header("origin").all(|origin| {
        let is_listed = list.iter().any(|listed| listed.as_bytes() == origin);
        is_listed || head.header("host").any(|host| is_of_host(origin, host))
    })
}

/// Whether an origin names a host as a `Host` header does: whatever the scheme, the case, and whether a default port is
/// written.
fn is_of_host(origin: &[u8], host: &[u8]) -> bool {
    let Some(at) = origin.windows(3).position(|part| part == b"://") else { return false };
    let authority = &origin[at + 3..];
    let authority = authority.strip_suffix(b"/").unwrap_or(authority);
    let (authority, host) = (without_default_port(authority), without_default_port(host));
    !host.is_empty() && authority.eq_ignore_ascii_case(host)
}

fn without_default_port(authority: &[u8]) -> &[u8] {
    let without = authority.strip_suffix(b":80").or_else(|| authority.strip_suffix(b":443"));
    // Not the end of an IPv6 address that has no brackets: no host is written so.
    without.unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_of_a_host_whatever_its_scheme_its_case_and_its_default_port() {
        for (origin, host) in [
            ("http://a.example", "a.example"),
            ("https://A.example:443", "a.Example"),
            ("ws://a.example", "a.example:80"),
            ("http://localhost/", "localhost"),
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("http://[::1]:8000", "[::1]:8000"),
            ("http://[::1]", "[::1]:80"),
        ] {
            assert!(is_of_host(origin.as_bytes(), host.as_bytes()), "{origin} {host}");
        }
        for (origin, host) in [
            ("null", "a"),
            ("", ""),
            ("http://", ""),
            ("http://a.example:8000", "a.example"),
            ("http://a.example", "a.example:8000"),
            ("http://a.example.evil", "a.example"),
            ("http://evil/a.example", "a.example"),
            ("http://a.example//", "a.example"),
            ("a.example", "a.example"),
        ] {
            assert!(!is_of_host(origin.as_bytes(), host.as_bytes()), "{origin} {host}");
        }
    }
}
