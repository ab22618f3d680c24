//! What a request must show before its body is received.

use std::sync::Arc;

use super::error::HttpError;
use super::origin;
use crate::auth::{ApiGrant, ApiRefusal};
use crate::protocol::http1::{BodyLength, Head, Method};
use crate::protocol::websocket::handshake;
use crate::transport::context::{Context, Output};

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

/// Checks a request that writes: its method and its origin.
pub(super) fn check_write(
    head: &Head<'_>,
    methods: &'static str,
    context: &Context<'_>,
) -> Result<(), HttpError> {
    if head.method != Method::Post {
        return Err(HttpError::method(methods));
    }
    if !origin::is_allowed(head, context.settings) {
        return Err(HttpError::origin());
    }
    Ok(())
}

/// Whether a request shows an API key, be it a valid one or not.
pub(super) fn shows_key(head: &Head<'_>) -> bool {
    shown_keys(head).next().is_some()
}

/// Checks the API key of a request. Returns what it allows.
pub(super) fn check_key(
    head: &Head<'_>,
    context: &mut Context<'_>,
) -> Result<Arc<ApiGrant>, HttpError> {
    context.settings.api_keys.admit(shown_keys(head)).map_err(|refusal| {
        context.outputs.push(Output::ApiRefused(refusal));
        let message = "an API key is required: X-API-Key: KEY, or Authorization: apikey KEY";
        let headers = &[("WWW-Authenticate", "apikey")];
        HttpError { headers, ..HttpError::new(401, "unauthorized", message) }
    })
}

/// Refuses a request whose key does not allow it.
pub(super) fn refuse_right(context: &mut Context<'_>) -> HttpError {
    context.outputs.push(Output::ApiRefused(ApiRefusal::RightMissing));
    HttpError::new(403, "permission_denied", "the API key does not allow it")
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

/// The API keys that a request shows.
fn shown_keys<'h>(head: &Head<'h>) -> impl Iterator<Item = &'h [u8]> {
    head.header("x-api-key").chain(head.header("authorization").filter_map(|value| {
        let (scheme, key) = value.split_at_checked(API_KEY_SCHEME.len())?;
        scheme.eq_ignore_ascii_case(API_KEY_SCHEME).then(|| key.trim_ascii_start())
    }))
}

const API_KEY_SCHEME: &[u8] = b"apikey ";
