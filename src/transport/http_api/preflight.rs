//! What a browser asks before a request that a form could not make (WHATWG Fetch, 3.3.5).

use super::answer::{Exchange, write_response};
use super::cors::Cors;
use crate::transport::context::Context;

/// Answers an OPTIONS request. RFC 9110 9.3.7: also one of a health check, as HAProxy's are by default.
pub(super) fn write_preflight(methods: &str, exchange: Exchange, context: &mut Context<'_>) {
    let mut headers = vec![("Allow", methods)];
    if exchange.cors != Cors::Silent {
        headers.extend([
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", REQUEST_HEADERS),
            ("Access-Control-Max-Age", "600"),
        ]);
    }
    write_response(exchange, 204, &headers, "", b"", context);
}

const REQUEST_HEADERS: &str = "Authorization, Cache-Control, Content-Type, If-None-Match, Idempotency-Key, \
    Last-Event-ID, Subscription-Token, X-API-Key";
