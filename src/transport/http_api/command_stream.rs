//! Requests whose answers are the replies and pushes of the command protocol.

use std::borrow::Cow;

use super::answer::Exchange;
use super::credentials::token_of;
use super::error::{Early, HttpError};
use super::forwarded::note_headers;
use super::{guards, origin};
use crate::message::Token;
use crate::protocol::command::InvalidCommand;
use crate::protocol::http1::{Head, HttpFault, Method, query_pairs};
use crate::protocol::json;
use crate::transport::command_form::CommandEncoding;
use crate::transport::command_stream::CommandStream;
use crate::transport::context::{Context, Output};
use crate::transport::stream_form::{StreamForm, StreamFraming, StreamKind};

/// A request for such a stream, whose first commands may still be on their way.
#[derive(Debug)]
pub(super) struct StreamRequest {
    encoding: CommandEncoding,
    form: StreamForm,
    token: Option<Token>,
}

impl StreamRequest {
    /// Checks a request.
    pub fn of(
        (kind, sends): (StreamKind, Sends),
        head: &Head<'_>,
        context: &mut Context<'_>,
    ) -> Result<Self, Early> {
        // A page of any origin may have a browser ask for an event stream, and its commands would be done.
        if !origin::is_allowed(head, context.settings) {
            return Err(HttpError::origin().into());
        }
        guards::check_encoding(head)?;
        if context.overloaded {
            context.outputs.push(Output::Refused);
            return Err(HttpError::overloaded().into());
        }
        let (kind, encoding) = match (kind, sends) {
            (kind, Sends::Pushes) => (kind, CommandEncoding::JsonPushes),
            (StreamKind::Lines, _) if is_protobuf(head) => {
                (StreamKind::Messages, CommandEncoding::Protobuf)
            }
            (kind, Sends::RepliesToo) => (kind, CommandEncoding::Json),
        };
        note_headers(head, context);
        let token = token_of(head, context.settings)?;
        Ok(Self { encoding, form: StreamForm { kind, framing: StreamFraming::of(head) }, token })
    }

    /// Checks what a client sends that sends nothing else.
    pub fn check(&self, first: &[u8]) -> Result<(), HttpError> {
        match self.encoding {
            CommandEncoding::JsonPushes => check_connect(first),
            CommandEncoding::Json | CommandEncoding::Protobuf => Ok(()),
        }
    }

    /// Answers the request, whose first commands have come. `None` if the answer is over.
    pub fn open(
        self,
        commands: &[u8],
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Option<CommandStream> {
        let Self { encoding, form, token } = self;
        let content_type = match form.kind {
            StreamKind::Lines => "text/plain; charset=utf-8",
            StreamKind::Messages => "application/octet-stream",
            StreamKind::Events => "text/event-stream; charset=utf-8",
        };
        let headers = [
            ("Content-Type", content_type),
            ("Cache-Control", "private, no-cache, no-store, must-revalidate, max-age=0"),
            ("X-Accel-Buffering", "no"),
        ];
        exchange.write_endless_head(form.framing, &headers, context);
        CommandStream::open(encoding, form, token, commands, context)
    }
}

/// Whether the body of a request is Protobuf rather than JSON.
pub(super) fn is_protobuf(head: &Head<'_>) -> bool {
    let mut types = head.header("content-type");
    types.next().is_some_and(|it| it.eq_ignore_ascii_case(b"application/octet-stream"))
}

/// What an answer that goes on has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sends {
    /// Pushes and no replies.
    Pushes,
    /// The replies to commands, too.
    RepliesToo,
}

/// Checks the parameters of `connect`.
pub(super) fn check_connect(parameters: &[u8]) -> Result<(), HttpError> {
    json::decode_connect(parameters).map(drop).map_err(|InvalidCommand| {
        HttpError::new(400, "connect_invalid", "what connects the client is not a JSON object")
    })
}

/// The first commands in the address of a request, as `EventSource` sends it, which has no body.
pub(super) fn commands_in_query(head: &Head<'_>, sends: Sends) -> Result<Vec<u8>, Early> {
    if head.method != Method::Get {
        return Err(HttpError::method("GET, POST, OPTIONS").into());
    }
    guards::check_no_body(head)?;
    let commands = connect_parameter(head)?;
    if commands.is_empty() && sends == Sends::Pushes {
        return Ok(b"{}".to_vec());
    }
    if commands.is_empty() {
        let message = "the parameter cf_connect, which has the first commands, is missing";
        return Err(HttpError::new(400, "connect_missing", message).into());
    }
    Ok(commands.into_owned().into_bytes())
}

/// What the address of a request has to connect its client with; nothing if it has none.
pub(super) fn connect_parameter<'h>(head: &Head<'h>) -> Result<Cow<'h, str>, HttpFault> {
    let found = query_pairs(head.query).find(|pair| pair.name == CONNECT_PARAMETER);
    Ok(found.map(|pair| pair.value()).transpose()?.unwrap_or_default())
}

const CONNECT_PARAMETER: &str = "cf_connect";
