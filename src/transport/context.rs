//! What a conversation may touch, what it asks of the worker, and what it wants next.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tracing::debug;

use super::answers::Answers;
use super::handshake_failure::HandshakeFailure;
use super::settings::TransportSettings;
use crate::auth::{Allowance, ApiRefusal, Gate, PrefixRefusal, Rate, RateVerdict};
use crate::config::Network;
use crate::message::{
    Actor, ClientId, CloseReason, ForwardedHeaders, NodeInfo, Origin, Request, SessionRequest,
    Ticket,
};
use crate::protocol::websocket::Inflater;

/// What a conversation may touch.
#[derive(Debug)]
pub struct Context<'a> {
    /// The bytes for the peer: conversations only append.
    pub out: &'a mut Vec<u8>,
    /// What the worker has to do: conversations only append.
    pub outputs: &'a mut Vec<Output>,
    /// The same for all connections.
    pub settings: &'a TransportSettings,
    /// Encoded recoveries and histories that are kept for other clients.
    pub answers: &'a mut Answers,
    /// What inflates compressed messages.
    pub inflater: &'a mut Inflater,
    /// The id of the client.
    pub client: ClientId,
    /// What the client may ask for at the moment; `None` without limits.
    pub rates: Option<Allowance<'a>>,
    /// The clients of a connection of a trusted proxy; `None` for other connections, whose headers name no client.
    pub gate: Option<Gate<'a>>,
    /// Whether fan-outs are behind, so that no more publications are taken.
    pub congested: bool,
    /// Whether the server is low on memory, so that no new subscriber is served.
    pub overloaded: bool,
    /// Whether the listener offers compression to WebSockets.
    pub offers_deflate: bool,
    /// Whether the connection is beyond the maximum, so that only health checks and metrics are answered.
    pub is_spare: bool,
    /// Whether the peer has closed its end: it sends no more.
    pub has_ended: bool,
    /// Whether a peer that has closed its end has subscriptions, or waits for an answer.
    pub expects_more: bool,
    /// Messages of this step, for the worker to count: conversations only add.
    pub messages: MessageCount,
    /// Length of `out` from which on nothing is written that can wait: the peer has much to read already.
    pub out_bytes_high: usize,
}

/// Messages of a step: of a WebSocket, commands and their replies, requests and their answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCount {
    /// From the peer.
    pub received: u32,
    /// To the peer; publications are counted where they are delivered.
    pub sent: u32,
    /// Whether a message or a command came to its end, one that is invalid or empty included. What is unfinished after
    /// such a step began in it.
    pub any_ended: bool,
}

/// What a conversation asks of the worker.
#[derive(Debug)]
pub enum Output {
    /// The headers of the client's HTTP request that callbacks send on; they replace those of its last one.
    Forwarded(Box<ForwardedHeaders>),
    /// Ask the hub; the session is opened by the first request.
    Request(SessionRequest),
    /// Nothing more will be read: send what is written, then close.
    Close(CloseReason),
    /// The next deadline is this far away.
    Deadline(Duration),
    /// The next deadline is at most this far away, because a client gives up by then.
    DeadlineWithin(Duration),
    /// An HTTP error was answered.
    HttpError,
    /// A request to the server API was refused for lack of a key or a right.
    ApiRefused(ApiRefusal),
    /// A client that a proxy names is rejected, because its network prefix has as many connections as it may.
    ClientRejected(PrefixRefusal, Network),
    /// A trusted proxy names the client of the request, or no client.
    ClientNamed(Option<IpAddr>),
    /// A client asked for more than its rate allows.
    RateExceeded(Rate),
    /// A new subscriber was refused because the server is low on memory.
    Refused,
    /// End the session: its subscriptions are gone, and the next request opens a new one.
    Leave,
    /// End all subscriptions. The session stays, and who its client is.
    LeaveChannels,
    /// A handshake failed for this cause.
    HandshakeFailed(HandshakeFailure),
    /// A proxy in front of the server is misconfigured: the message for the operator.
    ProxyFault(&'static str),
    /// The first request came through a proxy to a server that took this host to be alone with it.
    BehindProxy,
    /// A question to the worker: the [`Answer`] comes before the end of the turn or in the next one.
    Ask(Question),
}

/// A question that the worker answers, and no hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The metrics of all workers.
    Metrics,
    /// What a node reports about itself.
    NodeInfo,
    /// Whether all workers accept connections.
    Readiness,
}

/// The worker's answer to a [`Question`].
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// The metrics, in Prometheus' text format.
    Metrics(&'a str),
    /// What the node reports about itself.
    NodeInfo(&'a NodeInfo),
    /// Whether all workers accept connections.
    Readiness(bool),
}

/// What a conversation wants next. `N` are the conversations that it may turn into.
#[derive(Debug, PartialEq, Eq)]
pub enum Flow<N = Infallible> {
    /// More bytes. The worker receives again if it was paused for a reply.
    Receive,
    /// No bytes until a reply or an answer came.
    AwaitReply,
    /// No bytes until most of the send queue has left; then
    /// [`Transport::drained`](super::contract::Transport::drained) is to be called.
    AwaitDrain,
    /// The conversation is over: [`Output::Close`] was pushed.
    Closed,
    /// Nothing until fan-outs have caught up: this many bytes, the last ones, were not processed.
    Hold(usize),
    /// The client talks in another way from here on.
    Become {
        /// The conversation that goes on.
        next: N,
        /// The bytes that came for it already.
        rest: Vec<u8>,
    },
}

impl<N> Flow<N> {
    /// The same, with the next conversation as another type.
    pub(super) fn map_next<M>(self, map: impl FnOnce(N) -> M) -> Flow<M> {
        match self {
            Flow::Receive => Flow::Receive,
            Flow::AwaitReply => Flow::AwaitReply,
            Flow::AwaitDrain => Flow::AwaitDrain,
            Flow::Closed => Flow::Closed,
            Flow::Hold(count) => Flow::Hold(count),
            Flow::Become { next, rest } => Flow::Become { next: map(next), rest },
        }
    }
}

impl<'a> Context<'a> {
    /// The context of an open connection without a session, on a server that is neither behind nor low on memory.
    pub fn new(
        client: ClientId,
        settings: &'a TransportSettings,
        (answers, inflater): (&'a mut Answers, &'a mut Inflater),
        out: &'a mut Vec<u8>,
        outputs: &'a mut Vec<Output>,
    ) -> Self {
        Self {
            out,
            outputs,
            settings,
            answers,
            inflater,
            client,
            rates: None,
            gate: None,
            congested: false,
            overloaded: false,
            offers_deflate: false,
            is_spare: false,
            has_ended: false,
            expects_more: false,
            messages: MessageCount::default(),
            out_bytes_high: usize::MAX,
        }
    }
}

impl Context<'_> {
    /// Asks the hub. Without a ticket, no reply is wanted.
    pub(super) fn request(&mut self, ticket: Option<Ticket>, by: Actor, request: Request) {
        let origin = ticket.map(Origin::Client);
        self.outputs.push(Output::Request(SessionRequest { origin, by, request }));
    }

    /// Decides whether the client may ask for so much now, by the rates that it may have. A refusal is counted.
    pub(super) fn take_rate(&mut self, rate: Rate, count: usize) -> RateVerdict {
        let Some(rates) = &mut self.rates else { return RateVerdict::Allow };
        let verdict = rates.take(rate, u32::try_from(count).unwrap_or(u32::MAX));
        if verdict != RateVerdict::Allow {
            self.outputs.push(Output::RateExceeded(rate));
        }
        verdict
    }

    /// Protocol errors are logged at debug: a misbehaving peer must not fill the log.
    pub(super) fn log_refusal(&self, reason: &str, what: &str) {
        let ClientId { worker, session, .. } = self.client;
        debug!(reason, worker = worker.0, connection = session.index, "{what}");
    }

    /// A request came through a proxy. Without an API key, what was open because only this host is served is closed
    /// from now on; with one, the operator has configured the server for other hosts.
    pub(super) fn note_proxy(&mut self) {
        let settings = self.settings;
        if !settings.api_keys.are_required()
            && settings.serves_this_host_only()
            && !settings.now.is_behind_proxy.swap(true, Ordering::Relaxed)
        {
            self.outputs.push(Output::BehindProxy);
        }
    }

    pub(super) fn fail_handshake(&mut self, cause: HandshakeFailure) {
        self.outputs.push(Output::HandshakeFailed(cause));
    }

    pub(super) fn close<N>(&mut self, reason: CloseReason) -> Flow<N> {
        self.outputs.push(Output::Close(reason));
        Flow::Closed
    }
}
