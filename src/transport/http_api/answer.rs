//! Answers: their heads and bodies.

use super::cors::Cors;
use crate::message::CloseReason;
use crate::protocol::http1::{BodyLength, Head, Method, Response};
use crate::transport::context::Context;
use crate::transport::settings::TransportSettings;
use crate::transport::sse::EventStream;
use crate::transport::stream_form::StreamFraming;

/// What an answer needs to know of its request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub keep_alive: bool,
    pub is_head: bool,
    pub cors: Cors,
    /// Whether all of the request has come with its head.
    pub is_whole: bool,
}

impl Exchange {
    /// The exchange of a request behind whose head so many bytes have come.
    pub(super) fn of(head: &Head<'_>, bytes_behind: usize, settings: &TransportSettings) -> Self {
        Self {
            keep_alive: head.keep_alive,
            is_head: head.method == Method::Head,
            cors: Cors::of(head, settings),
            is_whole: match head.body {
                BodyLength::None => true,
                BodyLength::Length(length) => length <= bytes_behind as u64,
                BodyLength::Chunked => false,
            },
        }
    }

    /// An answer that ends its connection, to a request that may not be known.
    pub(super) fn last() -> Self {
        let cors = Cors::Silent;
        Self { keep_alive: false, is_head: false, cors, is_whole: false }
    }

    /// The head of an event stream, whose connection ends with it. Proxies are asked neither to keep, nor to change,
    /// nor to gather what passes.
    pub(super) fn write_stream_head(self, framing: StreamFraming, context: &mut Context<'_>) {
        let headers = [
            ("Content-Type", "text/event-stream"),
            ("Cache-Control", "no-cache, no-transform"),
            ("X-Accel-Buffering", "no"),
        ];
        self.write_endless_head(framing, &headers, context);
    }

    /// The head of an answer that goes on, and whose connection ends with it.
    pub(super) fn write_endless_head(
        self,
        framing: StreamFraming,
        headers: &[(&str, &str)],
        context: &mut Context<'_>,
    ) {
        let out = &mut *context.out;
        // Not `Connection: close`: undici, which is Node's fetch, takes a chunked answer that says so for whole
        // wherever it ends. HEAD is answered without a stream, and then the connection ends.
        let is_chunked = framing == StreamFraming::Chunked;
        self.write_begin(is_chunked && !self.is_head, out, context.settings);
        if framing == StreamFraming::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        write_headers(out, headers);
        out.extend_from_slice(b"\r\n");
    }

    /// Answers a request for an event stream that cannot begin now: its client is to come back.
    pub(super) fn refuse_stream(
        self,
        reason: CloseReason,
        framing: StreamFraming,
        context: &mut Context<'_>,
    ) {
        context.messages.sent += 1;
        self.write_stream_head(framing, context);
        if !self.is_head {
            EventStream::refuse(reason, framing, context);
        }
    }

    /// Whether the connection is kept behind the answer. A server that is to stop says that it is not (RFC 9112 9.6),
    /// so that clients and proxies that keep connections ask elsewhere next.
    pub(super) fn keeps_alive(self, settings: &TransportSettings) -> bool {
        self.keep_alive && !settings.now.is_stopping
    }

    /// The beginning of an answer whose other headers follow.
    pub(super) fn write_status(self, out: &mut Vec<u8>, settings: &TransportSettings) {
        self.write_begin(self.keeps_alive(settings), out, settings);
    }

    fn write_begin(self, keep_alive: bool, out: &mut Vec<u8>, settings: &TransportSettings) {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        let date = &settings.now.date;
        if !date.is_empty() {
            for part in ["Date: ", date, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.extend_from_slice(match keep_alive {
            true => b"Connection: keep-alive\r\n",
            false => b"Connection: close\r\n",
        });
        // Their values come from the configuration.
        write_headers(out, &self.cors.headers(settings));
    }
}

fn write_headers(out: &mut Vec<u8>, headers: &[(&str, &str)]) {
    for (name, value) in headers {
        for part in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
}

pub(super) fn write_ok(
    exchange: Exchange,
    content_type: &str,
    body: &[u8],
    context: &mut Context<'_>,
) {
    write_response(exchange, 200, &[], content_type, body, context);
}

/// An answer without a body, to a request that is done.
pub(super) fn write_nothing(exchange: Exchange, context: &mut Context<'_>) {
    write_response(exchange, 204, &[], "", b"", context);
}

pub(super) fn write_json(exchange: Exchange, status: u16, body: &[u8], context: &mut Context<'_>) {
    write_response(exchange, status, &[], "application/json", body, context);
}

pub(super) fn write_response(
    exchange: Exchange,
    status: u16,
    headers: &[(&str, &str)],
    content_type: &str,
    body: &[u8],
    context: &mut Context<'_>,
) {
    context.messages.sent += 1;
    let Exchange { is_head: head_only, cors, .. } = exchange;
    let keep_alive = exchange.keeps_alive(context.settings);
    let headers = &[headers, &cors.headers(context.settings)].concat();
    let date = &context.settings.now.date;
    let response = Response { status, date, headers, content_type, body, keep_alive, head_only };
    response.write_to(context.out);
}
