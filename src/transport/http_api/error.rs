//! Requests that are refused: the errors, and how they are answered.

use std::borrow::Cow;

use super::answer::{Exchange, write_json};
use super::cors::Cors;
use crate::message::{BackendError, Disconnect, Refusal};
use crate::protocol::http1::{HeadLimits, HttpFault, Response, write_error};
use crate::transport::context::{Context, Output};
use crate::transport::refusal::{LOW_ON_MEMORY, RATE_EXCEEDED, RefusalRow, row_of};
use crate::transport::retry::Retry;

/// An error that a request is answered with.
#[derive(Clone, Debug)]
pub(super) struct HttpError {
    pub status: u16,
    /// The code, for programs.
    pub code: &'static str,
    /// The sentence, for people.
    pub message: Cow<'static, str>,
    pub headers: &'static [(&'static str, &'static str)],
    /// When the client is to come back, where the status is 429 or 503.
    pub retry: Retry,
    /// The methods of the address, where the request has another one.
    pub allow: Option<&'static str>,
    /// The whole answer, where it has a form of its own.
    pub body: Option<Vec<u8>>,
    /// A handshake that failed ends the connection, and says nothing to scripts.
    pub is_handshake: bool,
    /// The connection ends with it.
    pub is_last: bool,
}

/// Why a request goes no further than its head.
#[derive(Debug)]
pub(super) enum Early {
    /// It breaks the protocol.
    Fault(HttpFault),
    /// It is refused.
    Error(HttpError),
    /// It is answered.
    Answered,
    /// It is answered, and the connection ends.
    Closed,
}

impl From<HttpFault> for Early {
    fn from(fault: HttpFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<HttpError> for Early {
    fn from(error: HttpError) -> Self {
        Self::Error(error)
    }
}

impl HttpError {
    pub fn new(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: &[],
            retry: Retry::Soon,
            allow: None,
            body: None,
            is_handshake: false,
            is_last: false,
        }
    }

    /// The method is not one of the address.
    pub fn method(allow: &'static str) -> Self {
        let message = format!("allowed methods: {allow}");
        Self { allow: Some(allow), ..Self::new(405, "method_not_allowed", message) }
    }

    /// The page that asks belongs to an origin that is not listed.
    pub fn origin() -> Self {
        let message = "origin not allowed (http.origins)";
        Self::new(403, "origin_refused", message)
    }

    /// The request has a body, which nothing would read.
    pub fn body() -> Self {
        Self::new(400, "body_unexpected", "a body is not allowed with this request")
    }

    /// More is published than delivered.
    pub fn congested() -> Self {
        let message = "publications arrive faster than they are delivered, try again later";
        Self::new(503, "congested", message)
    }

    /// The server is low on memory. Most causes are over within the time after which the client is to retry.
    pub fn overloaded() -> Self {
        Self { retry: Retry::Later, ..Self::new(503, "overloaded", LOW_ON_MEMORY) }
    }

    /// A client is not read, and too much that it sent by other requests waits already.
    pub fn relays_exhausted() -> Self {
        let message = "the session has too many commands that wait, try again later";
        Self::new(503, "session_busy", message)
    }

    /// The client asks for more than its rate allows.
    pub fn rate_exceeded() -> Self {
        Self::new(429, "rate_exceeded", RATE_EXCEEDED)
    }

    /// The network prefix of the client has as many connections as it may.
    pub fn prefix_exhausted() -> Self {
        let message = "too many connections from this network, try again later";
        Self::new(429, "prefix_exhausted", message)
    }

    /// The connection is beyond the maximum.
    pub fn beyond_max() -> Self {
        let message = "connection limit reached (limits.connections_max)";
        Self { retry: Retry::Later, ..Self::new(503, "connections_exhausted", message) }
    }

    /// The hub refuses what the request asks for.
    pub fn refused(refusal: Refusal) -> Self {
        let RefusalRow { status, code, sentence, .. } = row_of(refusal);
        let headers: &[_] = match (status, refusal) {
            // RFC 6750 3.1: a request that shows nothing is answered without an error code.
            (401, Refusal::TokenMissing) => &[("WWW-Authenticate", "Bearer")],
            (401, _) => &[("WWW-Authenticate", "Bearer error=\"invalid_token\"")],
            _ => &[],
        };
        let retry = match refusal {
            // Those that come back are more load for a backend that has too much already.
            Refusal::BackendUnavailable => Retry::Later,
            _ => Retry::Soon,
        };
        // Else one connection could have any number of signatures verified for nothing.
        let is_last = refusal == Refusal::TokenInvalid;
        Self { headers, retry, is_last, ..Self::new(status, code, sentence) }
    }

    /// The backend rejects what the request asks for.
    pub fn rejected(error: &BackendError) -> Self {
        let BackendError { code, message, is_temporary } = error;
        let message = format!("{message} ({code})");
        match is_temporary {
            false => Self::new(403, "rejected", message),
            true => Self::new(503, "rejected", message),
        }
    }

    /// The backend disconnects the client because of its request.
    pub fn disconnected(disconnect: &Disconnect) -> Self {
        let message = format!("{} ({})", disconnect.text(), disconnect.disconnect_code());
        match disconnect.may_return() {
            false => Self::new(403, "disconnected", message),
            true => Self::new(503, "disconnected", message),
        }
    }

    /// The request breaks the protocol.
    pub fn of_fault(fault: HttpFault, context: &Context<'_>) -> Self {
        let HeadLimits { head_bytes_max, uri_bytes_max, headers_max } = context.settings.head;
        let body_bytes_max = context.settings.body_bytes_max;
        let message = match fault {
            HttpFault::BodyTooLarge => {
                format!("a body has at most {body_bytes_max} bytes (limits.message_bytes_max)")
                    .into()
            }
            HttpFault::UriTooLong => {
                format!("a request target has at most {uri_bytes_max} bytes").into()
            }
            HttpFault::HeadTooLarge => {
                format!("a request head has at most {head_bytes_max} bytes").into()
            }
            HttpFault::TooManyHeaders => {
                format!("a request has at most {headers_max} headers").into()
            }
            _ => Cow::Borrowed(fault.reason()),
        };
        Self::new(fault.status(), fault.code(), message)
    }

    /// The exchange as this error leaves it.
    pub fn exchange(&self, exchange: Exchange) -> Exchange {
        match self.is_handshake {
            true => Exchange { is_head: exchange.is_head, ..Exchange::last() },
            false => Exchange { keep_alive: exchange.keep_alive && !self.is_last, ..exchange },
        }
    }

    /// Appends the answer.
    pub fn write(&self, exchange: Exchange, context: &mut Context<'_>) {
        context.outputs.push(Output::HttpError);
        if let Some(body) = &self.body {
            return write_json(exchange, self.status, body, context);
        }
        let Exchange { is_head: head_only, cors, .. } = exchange;
        let keep_alive = exchange.keeps_alive(context.settings);
        let retry_after = [429, 503]
            .contains(&self.status)
            .then(|| self.retry.after_seconds(context.client).to_string());
        let mut headers = self.headers.to_vec();
        headers.extend(retry_after.as_deref().map(|seconds| ("Retry-After", seconds)));
        headers.extend(self.allow.map(|methods| ("Allow", methods)));
        let headers = &[&headers[..], &cors.headers(context.settings)].concat();
        let (status, content_type, body) = (self.status, "", &b""[..]);
        let date = &context.settings.now.date;
        let response =
            Response { status, date, headers, content_type, body, keep_alive, head_only };
        context.log_refusal(self.code, "an HTTP request is refused");
        context.messages.sent += 1;
        write_error(context.out, &response, self.code, &self.message);
    }

    /// The same as the last answer of a connection, to a request of which nothing else is known.
    pub fn write_last(&self, cors: Cors, context: &mut Context<'_>) {
        self.write(Exchange { cors, ..Exchange::last() }, context);
    }
}
