//! Bodies on their way in.

use super::answer::Exchange;
use super::api::ApiHead;
use super::command_stream::StreamRequest;
use super::publish::PublishTo;
use crate::protocol::http1::{BodyDecoder, BodyLength, BodyPart, HttpFault};

/// A body on its way in.
#[derive(Debug)]
pub(super) struct Body {
    decoder: BodyDecoder,
    bytes: Vec<u8>,
    target: Target,
    pub exchange: Exchange,
}

/// What a body is for.
#[derive(Debug)]
pub(super) enum Target {
    Publish(PublishTo),
    /// A call of the server API.
    Api(ApiHead),
    /// The first commands of a client.
    Stream(StreamRequest),
    /// Commands of a client whose replies go elsewhere, and whether the body is Protobuf.
    Emulation(bool),
    /// Nothing: the request was refused, and this is its answer, which follows the body.
    Refused(Vec<u8>),
}

impl Body {
    /// A body of which nothing has come.
    pub fn new(
        length: BodyLength,
        bytes_max: u64,
        target: Target,
        exchange: Exchange,
    ) -> Result<Self, HttpFault> {
        let decoder = BodyDecoder::new(length, bytes_max)?;
        Ok(Self { decoder, bytes: Vec::new(), target, exchange })
    }

    /// Takes what came of it; returns whether it is complete.
    pub fn receive(&mut self, rest: &mut &[u8]) -> Result<bool, HttpFault> {
        loop {
            match self.decoder.next(rest)? {
                BodyPart::Data(_) if matches!(self.target, Target::Refused(_)) => {}
                BodyPart::Data(data) => self.bytes.extend_from_slice(data),
                BodyPart::NeedMore => return Ok(false),
                BodyPart::End => return Ok(true),
            }
        }
    }

    /// A complete body, and what it is for.
    pub fn into_parts(self) -> (Target, Vec<u8>, Exchange) {
        (self.target, self.bytes, self.exchange)
    }

    /// Bytes of heap that it owns.
    pub fn heap_bytes(&self) -> usize {
        let answer = match &self.target {
            Target::Refused(answer) => answer.capacity(),
            Target::Publish(_) | Target::Api(_) | Target::Stream(_) | Target::Emulation(_) => 0,
        };
        self.bytes.capacity() + answer
    }
}
