//! What requests are answered.

use super::body::Body;
use super::cors::Cors;
use super::{HttpConversation, HttpFlow, Next};
use crate::message::{CloseReason, Refusal};
use crate::protocol::http1::{
    BodyDecoder, BodyLength, Head, HeadLimits, HttpFault, Method, Response, write_continue,
    write_error,
};
use crate::transport::context::{Context, Output};
use crate::transport::handshake_failure::HandshakeFailure;
use crate::transport::refusal::{LOW_ON_MEMORY, RefusalRow, row_of};
use crate::transport::settings::TransportSettings;
use crate::transport::sse::{EventStream, StreamFraming};

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
    /// Of a request behind whose head so many bytes have come.
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
        let out = &mut *context.out;
        // Not `Connection: close`: undici, which is Node's fetch, takes a chunked answer that says so for whole
        // wherever it ends. HEAD is answered without a stream, and then the connection ends.
        let is_chunked = framing == StreamFraming::Chunked;
        self.write_begin(is_chunked && !self.is_head, out, context.settings);
        if framing == StreamFraming::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        out.extend_from_slice(b"Content-Type: text/event-stream\r\n");
        out.extend_from_slice(
            b"Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n\r\n",
        );
    }

    /// Answers a request for an event stream that cannot begin now: its client is to come back.
    pub(super) fn refuse_stream(self, framing: StreamFraming, context: &mut Context<'_>) {
        context.messages.sent += 1;
        self.write_stream_head(framing, context);
        if !self.is_head {
            EventStream::refuse(framing, context);
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
        for (name, value) in self.cors.headers(settings) {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
    }
}

impl HttpConversation {
    pub(super) fn refuse_method(
        &mut self,
        exchange: Exchange,
        allow: &str,
        context: &mut Context<'_>,
    ) -> Next {
        let message = format!("allowed methods: {allow}");
        self.refuse(405, "method_not_allowed", &message, &[("Allow", allow)], exchange, context)
    }

    /// The page that asks is of an origin that is not listed.
    pub(super) fn refuse_origin(&mut self, exchange: Exchange, context: &mut Context<'_>) -> Next {
        let message = "origin not allowed (http.origins)";
        self.refuse(403, HandshakeFailure::OriginRefused.label(), message, &[], exchange, context)
    }

    pub(super) fn refuse_body(&mut self, exchange: Exchange, context: &mut Context<'_>) -> Next {
        let message = "a body is not allowed with this request";
        self.refuse(400, "body_unexpected", message, &[], exchange, context)
    }

    /// Answers with an error. A request that has come whole leaves the connection as it is; else it closes, because
    /// what follows would have to be received to be passed over.
    pub(super) fn refuse(
        &mut self,
        status: u16,
        code: &str,
        message: &str,
        headers: &[(&str, &str)],
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Next {
        self.refuse_with(exchange, context, |exchange, context| {
            fail(exchange, status, code, message, headers, context);
        })
    }

    /// The same with an answer that the caller writes.
    pub(super) fn refuse_with(
        &mut self,
        exchange: Exchange,
        context: &mut Context<'_>,
        write: impl FnOnce(Exchange, &mut Context<'_>),
    ) -> Next {
        if let Some(body) = self.pending.as_mut().and_then(|pending| pending.expected.take())
            && let Ok(decoder) = BodyDecoder::new(body, context.settings.body_bytes_max)
        {
            // Java's HttpClient and Jetty's show no other answer than 100 to a request that expects it: the body is
            // asked for and passed over.
            write_continue(context.out);
            let start = context.out.len();
            write(exchange, context);
            let answer = context.out.split_off(start);
            let body = Body::passed_over(decoder, answer, exchange);
            self.pending.get_or_insert_default().body = Some(body);
            return Next::Request;
        }
        let keep_alive = exchange.keep_alive && exchange.is_whole;
        let exchange = Exchange { keep_alive, ..exchange };
        write(exchange, context);
        self.finish(exchange, context)
    }

    /// Answers a request that breaks the protocol, whether or not its head was understood; the connection ends.
    pub(super) fn refuse_fault(
        &mut self,
        fault: HttpFault,
        received: &[u8],
        context: &mut Context<'_>,
    ) -> HttpFlow {
        let body = self.pending.as_ref().and_then(|pending| pending.body.as_ref());
        let cors = match body {
            Some(body) => body.cors(),
            None => Cors::of_unparsed(received, context.settings),
        };
        let HeadLimits { head_bytes_max, uri_bytes_max, headers_max } = context.settings.head;
        let message = match fault {
            HttpFault::BodyTooLarge => format!(
                "a body has at most {} bytes (limits.message_bytes_max)",
                context.settings.body_bytes_max
            ),
            HttpFault::UriTooLong => format!("a request target has at most {uri_bytes_max} bytes"),
            HttpFault::HeadTooLarge => format!("a request head has at most {head_bytes_max} bytes"),
            HttpFault::TooManyHeaders => format!("a request has at most {headers_max} headers"),
            _ => fault.reason().to_owned(),
        };
        if fault == HttpFault::ProxyProtocol {
            context.outputs.push(Output::ProxyFault(fault.reason()));
        }
        let exchange = Exchange { cors, ..Exchange::last() };
        fail(exchange, fault.status(), fault.code(), &message, &[], context);
        close(context)
    }

    /// After an answer: the next request, or the end.
    pub(super) fn finish(&mut self, exchange: Exchange, context: &mut Context<'_>) -> Next {
        self.has_answered = true;
        if let Some(pending) = &mut self.pending {
            pending.has_deadline = false;
        }
        if !exchange.keeps_alive(context.settings) {
            return Next::Flow(close(context));
        }
        context.outputs.push(Output::Deadline(context.settings.http_idle_timeout));
        Next::Request
    }
}

pub(super) fn close(context: &mut Context<'_>) -> HttpFlow {
    context.outputs.push(Output::Close(CloseReason::HttpDone));
    HttpFlow::Closed
}

pub(super) fn write_ok(
    exchange: Exchange,
    content_type: &str,
    body: &[u8],
    context: &mut Context<'_>,
) {
    write_response(exchange, 200, &[], content_type, body, context);
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

/// Answers a request that the hub refuses.
pub(super) fn fail_refused(exchange: Exchange, refusal: Refusal, context: &mut Context<'_>) {
    let RefusalRow { status, code, sentence, .. } = row_of(refusal);
    let headers: &[_] = if status == 503 { &[("Retry-After", "1")] } else { &[] };
    fail(exchange, status, code, sentence, headers, context);
}

pub(super) fn refuse_congested(exchange: Exchange, context: &mut Context<'_>) {
    let message = "publications arrive faster than they are delivered, try again later";
    fail(exchange, 503, "congested", message, &[("Retry-After", "1")], context);
}

pub(super) fn refuse_overloaded(exchange: Exchange, context: &mut Context<'_>) {
    // Most causes are over within that time.
    let retry = [("Retry-After", "5")];
    fail(exchange, 503, "overloaded", LOW_ON_MEMORY, &retry, context);
}

/// To a connection beyond the maximum.
pub(super) fn refuse_beyond_max(exchange: Exchange, context: &mut Context<'_>) {
    let message = "connection limit reached (limits.connections_max)";
    fail(exchange, 503, "connections_exhausted", message, &[("Retry-After", "5")], context);
}

pub(super) fn fail(
    exchange: Exchange,
    status: u16,
    code: &str,
    message: &str,
    headers: &[(&str, &str)],
    context: &mut Context<'_>,
) {
    let Exchange { is_head: head_only, cors, .. } = exchange;
    let keep_alive = exchange.keeps_alive(context.settings);
    let headers = &[headers, &cors.headers(context.settings)].concat();
    let (content_type, body) = ("", &b""[..]);
    let date = &context.settings.now.date;
    let response = Response { status, date, headers, content_type, body, keep_alive, head_only };
    context.log_refusal(code, "an HTTP request is refused");
    context.messages.sent += 1;
    write_error(context.out, &response, code, message);
    context.outputs.push(Output::HttpError);
}
