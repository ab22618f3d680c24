//! The opening handshake, RFC 6455 4: an HTTP/1.1 request for an upgrade, and its answer.
//!
//! Extensions other than permessage-deflate are ignored, as RFC 6455 9.1 allows.

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{Engine, alphabet};
use sha1::{Digest, Sha1};

use super::deflate::Agreement;
use crate::protocol::http1::{BodyLength, Head, Method, Version, is_token};

/// A valid request for an upgrade. Its origin is not checked yet (RFC 6455 10.2).
#[derive(Clone, Debug)]
pub struct Upgrade<'h, 'b> {
    /// The value of `Sec-WebSocket-Key`, for [`write_accept_response`].
    pub key: &'b [u8],
    head: &'h Head<'b>,
}

impl<'b> Upgrade<'_, 'b> {
    /// The subprotocols that the client offers, in order of preference (RFC 6455 4.1 item 10).
    pub fn subprotocols(&self) -> impl Iterator<Item = &'b str> {
        let offered = self.head.header_list("sec-websocket-protocol");
        offered.filter(|name| is_token(name)).filter_map(|name| std::str::from_utf8(name).ok())
    }

    /// The compression that the client offers, if that can be accepted.
    pub fn compression(&self) -> Option<Agreement> {
        Agreement::of(self.head)
    }
}

/// Why a request cannot be upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFault {
    /// The method is not GET.
    MethodNotGet,
    /// The version is not HTTP/1.1.
    HttpVersionTooOld,
    /// The request has a body.
    BodyUnexpected,
    /// `Connection` does not list `upgrade`, or `Upgrade` does not list `websocket`.
    UpgradeMissing,
    /// The same, or HTTP/1.0, with a `Sec-WebSocket-Key`: a proxy removed the upgrade.
    UpgradeRemoved,
    /// `Sec-WebSocket-Version` is not 13, or is missing.
    VersionUnsupported,
    /// `Sec-WebSocket-Key` is missing.
    KeyMissing,
    /// There are several `Sec-WebSocket-Key` headers.
    KeyDuplicate,
    /// `Sec-WebSocket-Key` is not 16 bytes in base64.
    KeyInvalid,
    /// The server's answer is not an HTTP response.
    ResponseInvalid,
    /// The server's answer is not 101, lacks headers, or has the wrong `Sec-WebSocket-Accept`.
    ResponseRefused,
}

impl HandshakeFault {
    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            HandshakeFault::MethodNotGet => 405,
            HandshakeFault::UpgradeMissing
            | HandshakeFault::UpgradeRemoved
            | HandshakeFault::VersionUnsupported => 426,
            HandshakeFault::HttpVersionTooOld
            | HandshakeFault::BodyUnexpected
            | HandshakeFault::KeyMissing
            | HandshakeFault::KeyDuplicate
            | HandshakeFault::KeyInvalid
            | HandshakeFault::ResponseInvalid
            | HandshakeFault::ResponseRefused => 400,
        }
    }

    /// One word, for programs.
    pub const fn code(self) -> &'static str {
        match self {
            HandshakeFault::MethodNotGet => "method_not_get",
            HandshakeFault::HttpVersionTooOld => "http_version_too_old",
            HandshakeFault::BodyUnexpected => "body_unexpected",
            HandshakeFault::UpgradeMissing => "upgrade_missing",
            HandshakeFault::UpgradeRemoved => "upgrade_removed",
            HandshakeFault::VersionUnsupported => "websocket_version_unsupported",
            HandshakeFault::KeyMissing => "websocket_key_missing",
            HandshakeFault::KeyDuplicate => "websocket_key_duplicate",
            HandshakeFault::KeyInvalid => "websocket_key_invalid",
            HandshakeFault::ResponseInvalid => "response_invalid",
            HandshakeFault::ResponseRefused => "response_refused",
        }
    }

    /// A sentence, for people.
    pub const fn reason(self) -> &'static str {
        match self {
            HandshakeFault::MethodNotGet => "a WebSocket handshake is a GET request",
            HandshakeFault::HttpVersionTooOld => "a WebSocket handshake needs HTTP/1.1",
            HandshakeFault::BodyUnexpected => "a WebSocket handshake has no body",
            HandshakeFault::UpgradeMissing => "this is a WebSocket address; ask for an upgrade",
            HandshakeFault::UpgradeRemoved => {
                "a proxy in front of this server removed the WebSocket upgrade: it must speak HTTP/1.1 and pass the \
                 headers Upgrade and Connection on"
            }
            HandshakeFault::VersionUnsupported => "the only Sec-WebSocket-Version is 13",
            HandshakeFault::KeyMissing => {
                "Sec-WebSocket-Key is missing: a proxy that forwards a WebSocket from HTTP/2 must add it"
            }
            HandshakeFault::KeyDuplicate => "there are several Sec-WebSocket-Key headers",
            HandshakeFault::KeyInvalid => "Sec-WebSocket-Key is not 16 bytes in base64",
            HandshakeFault::ResponseInvalid => "the server's answer is not an HTTP response",
            HandshakeFault::ResponseRefused => "the server did not accept the WebSocket handshake",
        }
    }

    /// Headers of the answer that tell what is supported.
    pub const fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            HandshakeFault::MethodNotGet => &[("Allow", "GET")],
            // RFC 6455 4.2.2 item 4 for the version, RFC 9110 15.5.22 and 7.8 for the upgrade.
            HandshakeFault::UpgradeMissing
            | HandshakeFault::UpgradeRemoved
            | HandshakeFault::VersionUnsupported => &[
                ("Connection", "Upgrade"),
                ("Upgrade", "websocket"),
                ("Sec-WebSocket-Version", "13"),
            ],
            HandshakeFault::HttpVersionTooOld
            | HandshakeFault::BodyUnexpected
            | HandshakeFault::KeyMissing
            | HandshakeFault::KeyDuplicate
            | HandshakeFault::KeyInvalid
            | HandshakeFault::ResponseInvalid
            | HandshakeFault::ResponseRefused => &[],
        }
    }
}

/// Whether the request asks for a WebSocket, which selects the transport at an address with several.
pub fn wants_upgrade(head: &Head<'_>) -> bool {
    head.header_has("upgrade", "websocket") && head.header_has("connection", "upgrade")
}

/// Checks the requirements of RFC 6455 4.2.1 on a client. [`parse_head`](crate::protocol::http1::parse_head) requires
/// `Host`.
pub fn check_upgrade<'h, 'b>(head: &'h Head<'b>) -> Result<Upgrade<'h, 'b>, HandshakeFault> {
    if head.method != Method::Get {
        return Err(HandshakeFault::MethodNotGet);
    }
    let has_key = head.header("sec-websocket-key").next().is_some();
    if has_key && (head.version != Version::Http11 || !wants_upgrade(head)) {
        return Err(HandshakeFault::UpgradeRemoved);
    }
    if head.version != Version::Http11 {
        return Err(HandshakeFault::HttpVersionTooOld);
    }
    if !wants_upgrade(head) {
        return Err(HandshakeFault::UpgradeMissing);
    }
    if !matches!(head.body, BodyLength::None | BodyLength::Length(0)) {
        return Err(HandshakeFault::BodyUnexpected);
    }
    let mut versions = head.header("sec-websocket-version");
    if versions.next() != Some(b"13") || versions.next().is_some() {
        return Err(HandshakeFault::VersionUnsupported);
    }
    let mut keys = head.header("sec-websocket-key");
    let key = keys.next().ok_or(HandshakeFault::KeyMissing)?;
    if keys.next().is_some() {
        return Err(HandshakeFault::KeyDuplicate);
    }
    if !is_key(key) {
        return Err(HandshakeFault::KeyInvalid);
    }
    Ok(Upgrade { key, head })
}

/// The `Sec-WebSocket-Accept` for a key (RFC 6455 4.2.2 item 5.4).
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_GUID);
    let mut accept = [0; 28];
    let written = STANDARD.encode_slice(hash.finalize(), &mut accept);
    debug_assert_eq!(written, Ok(28));
    accept
}

/// Appends the answer that upgrades the connection; frames follow it. `subprotocol` must be one that the client
/// offered, and `compression` the answer to one of its offers.
pub fn write_accept_response(
    out: &mut Vec<u8>,
    key: &[u8],
    subprotocol: Option<&str>,
    compression: Option<Agreement>,
) {
    out.reserve(RESPONSE_BYTES_ESTIMATE);
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept_key(key));
    // A name that is not a token was not offered, and must not end its line.
    if let Some(name) = subprotocol.filter(|name| is_token(name.as_bytes())) {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(name.as_bytes());
    }
    if let Some(agreement) = compression {
        out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
        out.extend_from_slice(agreement.answer().as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a client's request. `key` is 16 random bytes.
pub fn write_client_request(out: &mut Vec<u8>, host: &str, path: &str, key: &[u8; 16]) {
    for part in ["GET ", path, " HTTP/1.1\r\nHost: ", host, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    out.extend_from_slice(
        b"Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Version: 13\r\n\
          Sec-WebSocket-Key: ",
    );
    out.extend_from_slice(&encoded_key(key));
    out.extend_from_slice(b"\r\n\r\n");
}

/// Checks a server's answer (RFC 6455 4.1) and returns its size; `None` if its end has not arrived.
pub fn check_server_response(
    bytes: &[u8],
    key: &[u8; 16],
) -> Result<Option<usize>, HandshakeFault> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|_| HandshakeFault::ResponseInvalid)?;
    let httparse::Status::Complete(head_bytes) = parsed else {
        return if bytes.len() < RESPONSE_BYTES_MAX {
            Ok(None)
        } else {
            Err(HandshakeFault::ResponseInvalid)
        };
    };
    let has = |name: &str, expected: &[u8], equal: fn(&[u8], &[u8]) -> bool| {
        let mut named =
            response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.any(|header| {
            header.value.split(|&b| b == b',').any(|v| equal(v.trim_ascii(), expected))
        })
    };
    let accepted = response.code == Some(101)
        && has("upgrade", b"websocket", <[u8]>::eq_ignore_ascii_case)
        && has("connection", b"upgrade", <[u8]>::eq_ignore_ascii_case)
        && has("sec-websocket-accept", &accept_key(&encoded_key(key)), <[u8]>::eq);
    if accepted { Ok(Some(head_bytes)) } else { Err(HandshakeFault::ResponseRefused) }
}

/// Whether this is the base64 of 16 bytes: 22 digits and two characters of padding (RFC 6455 4.2.1 item 5).
fn is_key(key: &[u8]) -> bool {
    let mut decoded = [0; 18];
    key.len() == KEY_BYTES && LENIENT.decode_slice(key, &mut decoded) == Ok(16)
}

fn encoded_key(key: &[u8; 16]) -> [u8; KEY_BYTES] {
    let mut encoded = [0; KEY_BYTES];
    let written = STANDARD.encode_slice(key, &mut encoded);
    debug_assert_eq!(written, Ok(KEY_BYTES));
    encoded
}

/// The GUID of RFC 6455 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Keys are decoded leniently, as other servers do: unused bits of the last character may be set.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Length of a key in base64.
const KEY_BYTES: usize = 24;

/// Size of the response with a short subprotocol.
const RESPONSE_BYTES_ESTIMATE: usize = 192;

/// The largest response that a client accepts.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http1::{HeadLimits, parse_head};

    const REQUEST: &str = "GET /chat HTTP/1.1\r\n\
        Host: server.example.com\r\n\
        Upgrade: WebSocket\r\n\
        Connection: keep-alive, upGrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: chat, superchat, no token\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    fn check(request: &str) -> Result<Vec<u8>, HandshakeFault> {
        let head = parse_head(request.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
        check_upgrade(&head).map(|upgrade| upgrade.key.to_vec())
    }

    fn check_with(from: &str, to: &str) -> Option<HandshakeFault> {
        assert!(REQUEST.contains(from));
        check(&REQUEST.replace(from, to)).err()
    }

    #[test]
    fn the_request_of_the_rfc_is_accepted_with_the_answer_of_the_rfc() {
        let key = check(REQUEST).unwrap();
        assert_eq!(&accept_key(&key), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut out = Vec::new();
        write_accept_response(&mut out, &key, Some("chat"), None);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: chat\r\n\r\n"
        );
    }

    #[test]
    fn each_violation_by_a_request_is_a_specific_fault() {
        let cases = [
            ("GET", "POST", HandshakeFault::MethodNotGet),
            ("HTTP/1.1", "HTTP/1.0", HandshakeFault::UpgradeRemoved),
            ("upGrade", "close", HandshakeFault::UpgradeRemoved),
            ("Connection: keep-alive, upGrade\r\n", "", HandshakeFault::UpgradeRemoved),
            ("WebSocket\r\n", "h2c\r\n", HandshakeFault::UpgradeRemoved),
            ("Upgrade: WebSocket\r\n", "", HandshakeFault::UpgradeRemoved),
            (": 13", ": 8", HandshakeFault::VersionUnsupported),
            (": 13", ": 13, 8", HandshakeFault::VersionUnsupported),
            ("Sec-WebSocket-Version: 13\r\n", "", HandshakeFault::VersionUnsupported),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", HandshakeFault::KeyMissing),
            ("Host", "Sec-WebSocket-Key: a\r\nHost", HandshakeFault::KeyDuplicate),
            ("dGhlIHNhbXBsZSBub25jZQ==", "", HandshakeFault::KeyInvalid),
            ("ZQ==", "Z===", HandshakeFault::KeyInvalid),
            ("ZQ==", "ZQ", HandshakeFault::KeyInvalid),
            ("ZQ==", "ZQAA", HandshakeFault::KeyInvalid),
            ("ZQ==", "Z?==", HandshakeFault::KeyInvalid),
            ("Host", "Content-Length: 1\r\nHost", HandshakeFault::BodyUnexpected),
        ];
        for (from, to, fault) in cases {
            assert_eq!(check_with(from, to), Some(fault), "{from:?} to {to:?}");
        }
        // Without a key it was not a WebSocket client that asked.
        let plain = REQUEST.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "");
        let old = plain.replace("HTTP/1.1", "HTTP/1.0");
        assert_eq!(check(&old), Err(HandshakeFault::HttpVersionTooOld));
        let plain = plain.replace("Upgrade: WebSocket\r\n", "");
        assert_eq!(check(&plain), Err(HandshakeFault::UpgradeMissing));
    }

    #[test]
    fn the_answer_to_an_unsupported_version_has_the_supported_one() {
        let headers = HandshakeFault::VersionUnsupported.headers();
        assert!(headers.contains(&("Sec-WebSocket-Version", "13")));
    }

    #[test]
    fn a_subprotocol_that_is_not_a_token_is_omitted() {
        let mut out = Vec::new();
        write_accept_response(&mut out, b"key", Some("a\r\nX: b"), None);
        assert!(!String::from_utf8(out).unwrap().contains("Protocol:"));
    }

    #[test]
    fn a_client_and_a_server_agree() {
        let key = *b"sixteen bytes ok";
        let mut request = Vec::new();
        write_client_request(&mut request, "a:80", "/ws?channel=b", &key);
        let read_key = check(std::str::from_utf8(&request).unwrap()).unwrap();
        let mut response = Vec::new();
        write_accept_response(&mut response, &read_key, None, None);
        let len = response.len();
        response.extend_from_slice(&[0x81, 0]);
        assert_eq!(check_server_response(&response, &key), Ok(Some(len)));
        for end in 0..len {
            assert_eq!(check_server_response(&response[..end], &key), Ok(None));
        }
        let wrong = check_server_response(&response, b"another 16 bytes");
        assert_eq!(wrong, Err(HandshakeFault::ResponseRefused));
        let refused = check_server_response(b"HTTP/1.1 200 OK\r\n\r\n", &key);
        assert_eq!(refused, Err(HandshakeFault::ResponseRefused));
        let other = check_server_response(b"SSH-2.0", &key);
        assert_eq!(other, Err(HandshakeFault::ResponseInvalid));
    }
}
