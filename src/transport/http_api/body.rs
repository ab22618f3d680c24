//! Bodies: received, then handed to what they are for.

use std::borrow::Cow;

use super::answer::Exchange;
use super::cors::Cors;
use super::publish::PublishTo;
use super::{HttpConversation, HttpFlow, Next};
use crate::protocol::http1::{BodyDecoder, BodyLength, BodyPart, Head, HttpFault, write_continue};
use crate::transport::api_call::ApiRoute;
use crate::transport::context::Context;

/// A body on its way in.
#[derive(Debug)]
pub(super) struct Body {
    decoder: BodyDecoder,
    bytes: Vec<u8>,
    target: Target,
    exchange: Exchange,
}

impl Body {
    /// One that is received for nothing but the end of its request, which is answered then.
    pub(super) fn passed_over(decoder: BodyDecoder, answer: Vec<u8>, exchange: Exchange) -> Self {
        Self { decoder, bytes: Vec::new(), target: Target::Refused(answer), exchange }
    }

    /// What an answer says about the origin of its request.
    pub(super) fn cors(&self) -> Cors {
        self.exchange.cors
    }

    /// Bytes of heap that it owns.
    pub(super) fn heap_bytes(&self) -> usize {
        let answer = match &self.target {
            Target::Refused(answer) => answer.capacity(),
            Target::Publish(_) | Target::Api(_) => 0,
        };
        self.bytes.capacity() + answer
    }
}

/// What a body is for.
#[derive(Debug)]
pub(super) enum Target {
    Publish(PublishTo),
    Api(ApiRoute),
    /// Nothing: the request was refused, and this is its answer.
    Refused(Vec<u8>),
}

/// Whether a body is encoded, which nothing here undoes.
pub(super) fn is_encoded(head: &Head<'_>) -> bool {
    head.header_list("content-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity"))
}

impl HttpConversation {
    pub(super) fn refuse_encoding(
        &mut self,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Next {
        // RFC 9110 15.5.16: what would be understood.
        let headers = [("Accept-Encoding", "identity")];
        let message = "Content-Encoding is not supported";
        self.refuse(415, "content_encoding_unsupported", message, &headers, exchange, context)
    }

    /// Takes the body of a request whose head was understood.
    pub(super) fn begin_body(
        &mut self,
        head: &Head<'_>,
        rest: &mut &[u8],
        target: Target,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        if head.body == BodyLength::None {
            // RFC 9112 6.3: a request without a length has a body of no bytes.
            return Ok(self.take_body(target, Cow::Borrowed(b""), exchange, context));
        }
        let decoder = BodyDecoder::new(head.body, context.settings.body_bytes_max)?;
        // As a rule all of it is here already.
        if let BodyLength::Length(length) = head.body
            && length <= rest.len() as u64
        {
            let (body, behind) = rest.split_at(length as usize);
            *rest = behind;
            return Ok(self.take_body(target, Cow::Borrowed(body), exchange, context));
        }
        let pending = self.pending.get_or_insert_default();
        if pending.expected.take().is_some() {
            write_continue(context.out);
        }
        let body = Body { decoder, bytes: Vec::new(), target, exchange };
        pending.body = Some(body);
        Ok(Next::Request)
    }

    pub(super) fn receive_body(
        &mut self,
        rest: &mut &[u8],
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        let pending = self.pending.get_or_insert_default();
        let body = pending.body.as_mut().expect("the caller looked");
        loop {
            match body.decoder.next(rest)? {
                BodyPart::Data(_) if matches!(body.target, Target::Refused(_)) => {}
                BodyPart::Data(data) => body.bytes.extend_from_slice(data),
                BodyPart::NeedMore => return Ok(Next::Flow(HttpFlow::Receive)),
                BodyPart::End => break,
            }
        }
        let Body { bytes, target, exchange, .. } =
            pending.body.take().expect("it is there until here");
        Ok(self.take_body(target, Cow::Owned(bytes), exchange, context))
    }

    fn take_body(
        &mut self,
        target: Target,
        bytes: Cow<'_, [u8]>,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Next {
        match target {
            Target::Publish(to) => self.take_publication(to, bytes, exchange, context),
            Target::Api(route) => self.take_call(route, &bytes, exchange, context),
            Target::Refused(answer) => {
                context.out.extend_from_slice(&answer);
                self.finish(exchange, context)
            }
        }
    }
}
