//! `POST /publish`: the body is the payload.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::answer::{Exchange, refuse_congested};
use super::body::Target;
use super::{HttpConversation, HttpFlow, Next, channels_of};
use crate::config::limits::PAYLOAD_DEPTH_MAX;
use crate::message::{Actor, ChannelName, Payload, PayloadKind, Request, Ticket};
use crate::protocol::http1::{Head, HttpFault, Method, query_pairs};
use crate::protocol::json;
use crate::transport::Context;

/// Where a payload goes, and as what.
#[derive(Debug)]
pub(super) struct PublishTo {
    channel: ChannelName,
    event: Option<Arc<str>>,
    is_binary: bool,
    by: Actor,
}

impl HttpConversation {
    pub(super) fn publish(
        &mut self,
        head: &Head<'_>,
        rest: &mut &[u8],
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        if head.method != Method::Post {
            return Ok(self.refuse_method(exchange, "POST, OPTIONS", context));
        }
        if !context.settings.admits_to_api(head) {
            return Ok(self.refuse_key(exchange, context));
        }
        let channel = match channels_of(head, 1)? {
            Ok(mut channels) => channels.pop().expect("there is always one"),
            Err(message) => {
                let code = "channel_invalid";
                return Ok(self.refuse(400, code, &message, &[], exchange, context));
            }
        };
        let event = match event_of(head)? {
            Ok(event) => event,
            Err(message) => {
                return Ok(self.refuse(400, "event_invalid", &message, &[], exchange, context));
            }
        };
        let is_binary = head
            .header("content-type")
            .any(|value| value.eq_ignore_ascii_case(b"application/octet-stream"));
        // Whoever showed the key may do what the server API may.
        let by = match context.settings.api_key {
            Some(_) => Actor::Server,
            None => Actor::Client,
        };
        let to = PublishTo { channel, event, is_binary, by };
        self.begin_body(head, rest, Target::Publish(to), exchange, context)
    }

    /// The body is whole: asks the hub, and waits for its answer.
    pub(super) fn take_publication(
        &mut self,
        to: PublishTo,
        bytes: Cow<'_, [u8]>,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Next {
        if context.congested {
            refuse_congested(exchange, context);
            return self.finish(exchange, context);
        }
        let PublishTo { channel, event, is_binary, by } = to;
        let kind = if is_binary {
            PayloadKind::Binary
        } else {
            json::kind_of_bytes(&bytes, PAYLOAD_DEPTH_MAX)
        };
        let bytes = match bytes {
            Cow::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        self.pending.get_or_insert_default().awaits = Some(exchange);
        context.request(Request::Publish {
            ticket: Some(Ticket(1)),
            channel: Some(channel),
            payload: Payload { kind, bytes, event },
            by,
            idempotency_key: None,
        });
        Next::Flow(HttpFlow::AwaitReply)
    }
}

/// The type of event that the query names. The inner error is a sentence.
fn event_of(head: &Head<'_>) -> Result<Result<Option<Arc<str>>, String>, HttpFault> {
    let mut event = None;
    for pair in query_pairs(head.query) {
        let (name, value) = pair?;
        if name != "event" {
            continue;
        }
        match Payload::event_of(&value) {
            Ok(_) if event.is_some() => {
                return Ok(Err("a payload is one type of event".to_owned()));
            }
            Ok(found) => event = Some(found),
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
    Ok(Ok(event))
}
