//! `POST /publish`: the body is the payload.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::credentials::{check_shown, token_of};
use super::error::{Early, HttpError};
use super::forwarded::note_headers;
use super::guards::{check_encoding, check_key, refuse_right, shows_key};
use super::parameters::channels_of;
use crate::auth::{Rate, RateVerdict};
use crate::config::ApiRight;
use crate::config::limits::{IDEMPOTENCY_KEY_BYTES_MAX, PAYLOAD_DEPTH_MAX};
use crate::message::{
    Actor, ChannelName, EVENT, Payload, PayloadKind, PublishOptions, Request, Tags, Ticket, Token,
};
use crate::protocol::http1::{Head, HttpFault, query_pairs};
use crate::protocol::json;
use crate::transport::context::Context;

/// Where a payload goes, and as what.
#[derive(Debug)]
pub(super) struct PublishTo {
    channel: ChannelName,
    /// The type of event.
    tags: Option<Arc<Tags>>,
    media_type: MediaType,
    /// The actor whose rights it has.
    pub by: Actor,
    /// The token of the client.
    pub token: Option<Token>,
    idempotency_key: Option<Arc<str>>,
}

/// What the request says of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MediaType {
    /// `application/octet-stream`: binary, whatever the bytes look like.
    Binary,
    /// `text/plain`: text, whatever it looks like.
    Text,
    /// A JSON MIME type (WHATWG MIME Sniffing 4.6): an error if it is not.
    Json,
    /// Anything else, which senders say by themselves: the body shows what it is.
    Other,
}

impl MediaType {
    fn of(head: &Head<'_>) -> Self {
        let value = head.header("content-type").next().unwrap_or_default();
        // RFC 9110 8.3.1: parameters follow a semicolon.
        let named = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let rows = [
            ("application/octet-stream", Self::Binary),
            ("text/plain", Self::Text),
            ("application/json", Self::Json),
            ("text/json", Self::Json),
        ];
        // RFC 6839 3.1: `application/problem+json` and its like are JSON.
        let suffix = named.len().checked_sub("+json".len()).map(|start| &named[start..]);
        if suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json")) {
            return Self::Json;
        }
        let row = rows.iter().find(|(name, _)| named.eq_ignore_ascii_case(name.as_bytes()));
        row.map_or(Self::Other, |(_, media_type)| *media_type)
    }

    /// What a body of this type is; `None` if it is not what the type says.
    fn kind_of(self, bytes: &[u8]) -> Option<PayloadKind> {
        let kind = json::kind_of_bytes(bytes, PAYLOAD_DEPTH_MAX);
        match (self, kind) {
            (Self::Binary, _) => Some(PayloadKind::Binary),
            (Self::Text, PayloadKind::Json) => Some(PayloadKind::Text),
            (Self::Json, kind) => (kind == PayloadKind::Json).then_some(kind),
            (Self::Text | Self::Other, kind) => Some(kind),
        }
    }
}

impl PublishTo {
    /// Reads a request that may publish, as far as its key and its token say. A request that shows a key has the rights
    /// of the server API, as far as the key allows it; where there are keys, one that shows none needs a token.
    pub(super) fn allowed(head: &Head<'_>, context: &mut Context<'_>) -> Result<Self, Early> {
        let settings = context.settings;
        let token = token_of(head, settings)?;
        let is_client = !settings.api_keys.are_required() || token.is_some() && !shows_key(head);
        if is_client {
            check_shown(token.as_ref(), settings)?;
            note_headers(head, context);
            return Self::of(head, Actor::Client, token);
        }
        let grant = check_key(head, context)?;
        let to = Self::of(head, Actor::Server, None)?;
        if !grant.allows_on(ApiRight::Publish, to.channel.as_str()) {
            return Err(refuse_right(context).into());
        }
        Ok(to)
    }

    /// Reads the query and the headers of a request.
    fn of(head: &Head<'_>, by: Actor, token: Option<Token>) -> Result<Self, Early> {
        let mut channels = channels_of(head, 1)?
            .map_err(|message| HttpError::new(400, "channel_invalid", message))?;
        let channel = channels.pop().expect("there is always one");
        let tags =
            event_of(head)?.map_err(|message| HttpError::new(400, "event_invalid", message))?;
        check_encoding(head)?;
        let idempotency_key = idempotency_key_of(head)
            .map_err(|message| HttpError::new(400, "idempotency_key_invalid", message))?;
        Ok(Self { channel, tags, media_type: MediaType::of(head), by, token, idempotency_key })
    }

    /// Counts a publication of a client. This comes before its token is verified, so that the rate limits that, too.
    pub(super) fn check_rate(&self, context: &mut Context<'_>) -> Result<(), HttpError> {
        match context.take_rate(Rate::Publications, 1) {
            RateVerdict::Allow => Ok(()),
            RateVerdict::Refuse | RateVerdict::Close => Err(HttpError::rate_exceeded()),
        }
    }

    /// Asks the hub to publish a body.
    pub(super) fn publish(
        self,
        bytes: Cow<'_, [u8]>,
        context: &mut Context<'_>,
    ) -> Result<(), HttpError> {
        if context.congested {
            return Err(HttpError::congested());
        }
        let Self { channel, tags, media_type, by, idempotency_key, .. } = self;
        let Some(kind) = media_type.kind_of(&bytes) else {
            let message = format!(
                "the body is not JSON that nests {PAYLOAD_DEPTH_MAX} deep at most, as its type says"
            );
            return Err(HttpError::new(400, "json_invalid", message));
        };
        let bytes = match bytes {
            Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        let (channel, payload) = (Some(channel), Payload { tags, ..Payload::new(kind, bytes) });
        let options = idempotency_key.map(|key| {
            Arc::new(PublishOptions { idempotency_key: Some(key), ..PublishOptions::default() })
        });
        let request = Request::Publish { channel, payload, options };
        context.request(Some(Ticket::FIRST), by, request);
        Ok(())
    }
}

/// The type of event that the query names, as a tag. The inner error is a sentence.
fn event_of(head: &Head<'_>) -> Result<Result<Option<Arc<Tags>>, String>, HttpFault> {
    let mut event = None;
    for pair in query_pairs(head.query) {
        if pair.name != "event" {
            continue;
        }
        match Tags::new([(EVENT, &*pair.value()?)]) {
            Ok(_) if event.is_some() => {
                return Ok(Err("event: only one is allowed".to_owned()));
            }
            Ok(found) => event = found,
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    Ok(Ok(event))
}

/// The `Idempotency-Key` header: a repeated request with the same key is answered with the position of the first one.
/// An error is a sentence.
fn idempotency_key_of(head: &Head<'_>) -> Result<Option<Arc<str>>, String> {
    let mut keys = head.header("idempotency-key");
    let Some(key) = keys.next() else { return Ok(None) };
    let text = std::str::from_utf8(key).ok().filter(|text| !text.is_empty());
    match text {
        Some(text) if keys.next().is_none() && text.len() <= IDEMPOTENCY_KEY_BYTES_MAX => {
            Ok(Some(text.into()))
        }
        _ => Err(format!(
            "one Idempotency-Key of 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes of UTF-8 is taken"
        )),
    }
}
