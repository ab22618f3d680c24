//! Where the requests of a connection are.

use super::answer::Exchange;
use super::body::Body;
use super::poll::Poll;
use super::publish::PublishTo;
use super::subscribe::Opening;
use super::upgrade::Upgrading;
use crate::transport::api_call::ApiCall;
use crate::transport::stream_form::StreamFraming;

/// Where the requests of a connection are. An idle connection owns no heap memory.
#[derive(Debug)]
pub(super) enum State {
    /// Between two requests.
    Idle,
    /// A part of a head has come.
    Head(Box<Input>),
    /// A part of a body has come.
    Body(Box<Body>),
    /// A request is not answered yet, or the next one is not taken yet.
    Awaiting(Box<Awaiting>),
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Awaiting {
    pub exchange: Exchange,
    pub what: Await,
    /// What is pipelined behind the request.
    pub behind: Option<Box<Input>>,
}

/// What a request waits for.
#[derive(Debug)]
pub(super) enum Await {
    /// The identity of the client: the request is made then.
    Login(Box<AfterLogin>),
    /// The hub's answer to a publication.
    Publish,
    /// Whether the worker of a session takes commands for it.
    Relay,
    /// The answers to a call of the server API.
    Call(Box<ApiCall>),
    /// The subscriptions of a handshake.
    Upgrade(Box<Upgrading>),
    /// The subscriptions of a poll or of an event stream.
    Subscriptions(Box<Opening>),
    /// A publication: the poll is not answered yet.
    Poll(Poll),
    /// The worker's answer to a question.
    Question,
    /// Whether the server is ready, for a proxy that does not speak HTTP here.
    AgentCheck,
    /// Room: most of the send queue has to leave before the next request is taken.
    Drain,
}

/// A request that is made once it is known who its client is.
#[derive(Debug)]
pub(super) enum AfterLogin {
    /// The subscriptions of a handshake.
    Upgrade(Upgrading),
    /// The subscriptions of a poll or of an event stream.
    Subscriptions(Opening),
    /// A publication, and its payload.
    Publish(PublishTo, Vec<u8>),
}

/// Bytes that were received and, from some place on, not used yet. A front that was used stays until more comes:
/// requests pipelined by the hundred are not moved up a hundred times.
#[derive(Debug)]
pub(super) struct Input {
    bytes: Vec<u8>,
    used: usize,
}

impl State {
    pub fn awaiting(exchange: Exchange, what: Await, behind: Option<Box<Input>>) -> Self {
        Self::Awaiting(Box::new(Awaiting { exchange, what, behind }))
    }

    /// Takes the state, and leaves an idle one.
    pub fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Idle)
    }

    /// Takes the request that waits, if one does, and leaves an idle state.
    pub fn take_awaiting(&mut self) -> Option<Awaiting> {
        match self.take() {
            Self::Awaiting(awaiting) => Some(*awaiting),
            Self::Idle | Self::Head(_) | Self::Body(_) => None,
        }
    }

    /// Takes what is pipelined behind a request that waits, and leaves an idle state.
    pub fn take_behind(&mut self) -> Option<Box<Input>> {
        self.take_awaiting()?.behind
    }

    /// Whether an agent check waits.
    pub fn awaits_agent_check(&self) -> bool {
        matches!(self, Self::Awaiting(awaiting) if matches!(awaiting.what, Await::AgentCheck))
    }

    /// The poll that waits.
    pub fn poll(&self) -> Option<(&Poll, Exchange)> {
        match self {
            Self::Awaiting(awaiting) => match &awaiting.what {
                Await::Poll(poll) => Some((poll, awaiting.exchange)),
                _ => None,
            },
            Self::Idle | Self::Head(_) | Self::Body(_) => None,
        }
    }

    /// The framing of an event stream whose first events are written, while what its client missed follows.
    pub fn begun_stream(&self) -> Option<StreamFraming> {
        let Self::Awaiting(awaiting) = self else { return None };
        awaiting.what.begun_stream()
    }

    /// Whether it waits until most of the send queue has left.
    pub fn awaits_drain(&self) -> bool {
        let Self::Awaiting(awaiting) = self else { return false };
        match &awaiting.what {
            Await::Drain => true,
            Await::Subscriptions(opening) => opening.awaits_drain(),
            _ => false,
        }
    }

    /// Bytes of heap: an unfinished request, or what waits for a reply. A poll that waits is not counted.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Idle => 0,
            Self::Head(input) => input.heap_bytes(),
            Self::Body(body) => size_of::<Body>() + body.heap_bytes(),
            Self::Awaiting(awaiting) => {
                let what = match &awaiting.what {
                    Await::Poll(_) => 0,
                    Await::Login(next) => {
                        size_of::<Awaiting>() + size_of::<AfterLogin>() + next.heap_bytes()
                    }
                    Await::Publish
                    | Await::Relay
                    | Await::Question
                    | Await::AgentCheck
                    | Await::Drain => size_of::<Awaiting>(),
                    Await::Call(call) => size_of::<Awaiting>() + call.heap_bytes(),
                    Await::Upgrade(upgrading) => {
                        size_of::<Awaiting>() + size_of::<Upgrading>() + upgrading.heap_bytes()
                    }
                    Await::Subscriptions(opening) => {
                        size_of::<Awaiting>() + size_of::<Opening>() + opening.heap_bytes()
                    }
                };
                what + awaiting.behind.as_ref().map_or(0, |input| input.heap_bytes())
            }
        }
    }
}

impl AfterLogin {
    /// Bytes of heap that it owns.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Upgrade(upgrading) => upgrading.heap_bytes(),
            Self::Subscriptions(opening) => opening.heap_bytes(),
            Self::Publish(_, bytes) => bytes.capacity(),
        }
    }
}

impl Await {
    /// The subscriptions of a poll or of an event stream, if these are what is to be made.
    pub fn opening(&self) -> Option<&Opening> {
        match self {
            Self::Subscriptions(opening) => Some(opening),
            Self::Login(next) => match &**next {
                AfterLogin::Subscriptions(opening) => Some(opening),
                AfterLogin::Upgrade(_) | AfterLogin::Publish(..) => None,
            },
            _ => None,
        }
    }

    /// The framing of an event stream whose first events are written.
    pub fn begun_stream(&self) -> Option<StreamFraming> {
        self.opening().and_then(Opening::begun_stream)
    }
}

impl Awaiting {
    /// Whether nothing is received until a reply or an answer came.
    pub fn awaits_reply(&self) -> bool {
        !matches!(self.what, Await::Poll(_) | Await::Drain)
    }

    /// Keeps what is pipelined behind the request.
    pub fn keep(&mut self, bytes: &[u8]) {
        match &mut self.behind {
            Some(input) => input.extend(bytes),
            None => self.behind = Some(Box::new(Input::new(bytes))),
        }
    }

    /// Bytes that are pipelined behind the request.
    pub fn behind_bytes(&self) -> usize {
        self.behind.as_ref().map_or(0, |input| input.rest().len())
    }
}

impl Input {
    /// Bytes of which none were used.
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), used: 0 }
    }

    /// Drops what was used, and appends what came.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.used));
        self.bytes.extend_from_slice(bytes);
    }

    /// What is not used yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// Takes note that so many bytes more were used; returns whether some are left.
    pub fn use_up(&mut self, count: usize) -> bool {
        self.used += count;
        self.used < self.bytes.len()
    }

    /// What is not used yet, as bytes of its own.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.split_off(self.used)
    }

    fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }
}
