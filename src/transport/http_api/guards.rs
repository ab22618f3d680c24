//! What a request must show before its body is received.

use super::error::HttpError;
use super::origin;
use crate::protocol::http1::{BodyLength, Head, Method};
use crate::protocol::websocket::handshake;
use crate::transport::settings::TransportSettings;

/// Checks a request that only reads.
pub(super) fn check_read(head: &Head<'_>, methods: &'static str) -> Result<(), HttpError> {
    if !matches!(head.method, Method::Get | Method::Head) {
        return Err(HttpError::method(methods));
    }
    // RFC 9110 7.8: an upgrade may be ignored, as one to h2c is, which Java's HttpClient asks for with each request.
    // One to a WebSocket would wait for a stream or a poll that its client cannot read.
    if handshake::wants_upgrade(head) {
        let message = "not a WebSocket endpoint: use /ws or /connection/websocket";
        return Err(HttpError::new(400, "not_a_websocket_endpoint", message));
    }
    // The answer would come before the end of a body that was not asked for.
    check_no_body(head)
}

/// Checks a request that writes: its origin, its method, its key.
pub(super) fn check_write(
    head: &Head<'_>,
    methods: &'static str,
    settings: &TransportSettings,
) -> Result<(), HttpError> {
    if head.method != Method::Post {
        return Err(HttpError::method(methods));
    }
    if !origin::is_allowed(head, settings) {
        return Err(HttpError::origin());
    }
    if !settings.admits_to_api(head) {
        let message = "an API key is required: X-API-Key: KEY, or Authorization: apikey KEY";
        let headers = &[("WWW-Authenticate", "apikey")];
        return Err(HttpError { headers, ..HttpError::new(401, "unauthorized", message) });
    }
    Ok(())
}

/// Checks a request that has no body.
pub(super) fn check_no_body(head: &Head<'_>) -> Result<(), HttpError> {
    if head.body == BodyLength::None { Ok(()) } else { Err(HttpError::body()) }
}

/// Checks that a body is not encoded, because no encoding is undone.
pub(super) fn check_encoding(head: &Head<'_>) -> Result<(), HttpError> {
    let mut codings = head.header_list("content-encoding");
    if codings.all(|coding| coding.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let message = "Content-Encoding is not supported";
    // RFC 9110 15.5.16: the codings that would be accepted.
    let headers = &[("Accept-Encoding", "identity")];
    Err(HttpError { headers, ..HttpError::new(415, "content_encoding_unsupported", message) })
}

impl TransportSettings {
    /// Whether a request shows the key that the server API wants.
    fn admits_to_api(&self, head: &Head<'_>) -> bool {
        let Some(key) = &self.api_key else { return true };
        let mut shown =
            head.header("x-api-key").chain(head.header("authorization").filter_map(|value| {
                let (scheme, key) = value.split_at_checked(API_KEY_SCHEME.len())?;
                scheme.eq_ignore_ascii_case(API_KEY_SCHEME).then(|| key.trim_ascii_start())
            }));
        shown.any(|shown| is_same(shown, key.as_bytes()))
    }
}

/// Compares in a time that tells nothing but the length.
fn is_same(shown: &[u8], key: &[u8]) -> bool {
    let differences = shown.iter().zip(key).fold(0, |all, (a, b)| all | (a ^ b));
    shown.len() == key.len() && std::hint::black_box(differences) == 0
}

const API_KEY_SCHEME: &[u8] = b"apikey ";
