//! `POST /publish`: the body is the payload.

use bytes::Bytes;

use super::answer::{Exchange, refuse_congested};
use super::{Body, HttpConversation, HttpFlow, Next, channels_of};
use crate::message::{Actor, Payload, PayloadKind, Request, Ticket};
use crate::protocol::http1::{BodyDecoder, BodyLength, Head, HttpFault, Method, write_continue};
use crate::protocol::json;
use crate::transport::Context;

impl HttpConversation {
    pub(super) fn publish(
        &mut self,
        head: &Head<'_>,
        rest: &[u8],
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        if head.method != Method::Post {
            return Ok(self.refuse_method(exchange, "POST", context));
        }
        if head.body == BodyLength::None {
            let message = "a publication has a Content-Length or is sent in chunks";
            return Ok(self.refuse(411, "length_required", message, &[], exchange, context));
        }
        let channel = match channels_of(head, 1)? {
            Ok(mut channels) => channels.pop().expect("there is always one"),
            Err(message) => {
                let code = "channel_invalid";
                return Ok(self.refuse(400, code, &message, &[], exchange, context));
            }
        };
        let decoder = BodyDecoder::new(head.body, context.settings.body_bytes_max)?;
        let is_binary = head
            .header("content-type")
            .any(|value| value.eq_ignore_ascii_case(b"application/octet-stream"));
        if head.expect_continue && rest.is_empty() {
            write_continue(context.out);
        }
        let body = Body { decoder, bytes: Vec::new(), channel, is_binary, exchange };
        self.pending.get_or_insert_default().body = Some(body);
        Ok(Next::Request)
    }

    /// The body is whole: asks the hub, and waits for its answer.
    pub(super) fn take_publication(&mut self, body: Body, context: &mut Context<'_>) -> Next {
        let Body { bytes, channel, is_binary, exchange, .. } = body;
        if context.congested {
            refuse_congested(exchange, context);
            return self.finish(exchange, context);
        }
        let kind = if is_binary { PayloadKind::Binary } else { json::kind_of_bytes(&bytes) };
        self.pending.get_or_insert_default().awaits = Some(exchange);
        context.request(Request::Publish {
            ticket: Some(Ticket(0)),
            channel: Some(channel),
            payload: Payload::new(kind, Bytes::from(bytes)),
            by: Actor::Client,
            idempotency_key: None,
        });
        Next::Flow(HttpFlow::AwaitReply)
    }
}
