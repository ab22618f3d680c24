//! Conversations: the ways a client talks.
//!
//! **What it is.** One machine per transport, peers of one shape: the HTTP exchange that most of them begin with, and
//! that long polls are ([`HttpConversation`]), WebSocket with plain messages or commands ([`WebSocketConversation`]),
//! SSE ([`EventStream`]), the command protocol over raw TCP ([`CommandConversation`]), and the raw echo. [`Prepared`]
//! holds a publication's encodings, one per [`WireForm`]; [`Answers`] what many are answered.
//!
//! **In and out.** In: bytes, to be decoded in place; replies; deadlines. Out: bytes appended to
//! [`Context::out`], [`Output`]s for the hub and the worker.
//!
//! **Always true.** An idle conversation owns no heap memory, whole messages are decoded where they were received, and
//! whatever a peer sends ends in a message, in the protocol's own error, or in a wait for more that is bounded.
//!
//! **Must not know.** Sockets, the hub, the clock, other connections.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::debug;

use crate::config::Config;
use crate::config::limits::FRAGMENTS_PER_MESSAGE_MAX;
use crate::message::{ClientName, CloseReason, Request, SessionId};
use crate::protocol::http1::HeadLimits;
use crate::protocol::websocket;

mod api_call;
mod commands;
mod http_api;
mod places;
mod prepared;
mod sse;
mod tcp;
mod websocket_conversation;

pub use http_api::{HttpConversation, HttpFlow, HttpService, PollForm};
pub use prepared::{Answers, Batch, Delivered, Prepared};
pub use sse::{EventStream, StreamFraming};
pub use tcp::CommandConversation;
pub use websocket_conversation::{WebSocketConversation, WebSocketService};

/// Why handshakes fail, as it is counted; the last one is for causes that have no row.
pub const HANDSHAKE_FAILURES: &[&str] = &[
    HANDSHAKE_TIMEOUT,
    BAD_REQUEST,
    CHANNEL_INVALID,
    SUBSCRIPTION_REFUSED,
    OVERLOADED,
    "method_not_get",
    "http_version_too_old",
    "body_unexpected",
    "upgrade_missing",
    "upgrade_removed",
    ORIGIN_REFUSED,
    SUBPROTOCOL_UNSUPPORTED,
    "websocket_version_unsupported",
    "websocket_key_missing",
    "websocket_key_duplicate",
    "websocket_key_invalid",
    "other",
];

/// It was not finished in time.
const HANDSHAKE_TIMEOUT: &str = "timeout";
/// A connection's first bytes are no HTTP.
const BAD_REQUEST: &str = "bad_request";
/// The name of a channel is none, or there are too many.
const CHANNEL_INVALID: &str = "channel_invalid";
/// Memory is nearly used up.
const OVERLOADED: &str = "overloaded";
/// The hub refuses a channel.
const SUBSCRIPTION_REFUSED: &str = "subscription_refused";

/// The page that asks is of an origin that is not listed.
const ORIGIN_REFUSED: &str = "origin_refused";
/// The client speaks only subprotocols that the server does not.
const SUBPROTOCOL_UNSUPPORTED: &str = "subprotocol_unsupported";

/// Where a client that names no channel goes.
pub const LOBBY: &str = "lobby";

/// What a conversation may touch.
#[derive(Debug)]
pub struct Context<'a> {
    /// Bytes for the peer are appended here.
    pub out: &'a mut Vec<u8>,
    /// What the worker has to do.
    pub outputs: &'a mut Vec<Output>,
    /// The same for all connections.
    pub settings: &'a TransportSettings,
    /// What others were answered.
    pub answers: &'a mut Answers,
    /// Whose conversation it is.
    pub client: ClientName,
    /// Whether publications wait in such numbers that no more are taken.
    pub congested: bool,
    /// Whether memory is nearly used up, so that nobody new is served.
    pub overloaded: bool,
    /// Whether the connection is beyond the maximum, so that only health checks and metrics are answered.
    pub is_spare: bool,
    /// What was received and said, for the worker to count.
    pub messages: MessageCount,
    /// Length of `out` from which on nothing more is said that can wait: the peer has much to read already.
    pub out_bytes_high: usize,
}

/// Messages of a step: of a WebSocket, commands and their replies, requests and their answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageCount {
    /// From the peer.
    pub received: u32,
    /// To the peer; publications are counted where they are delivered.
    pub sent: u32,
}

/// What a conversation asks of the worker.
#[derive(Debug)]
pub enum Output {
    /// Ask the hub; the session is opened by the first request.
    Request(Request),
    /// Nothing more will be read: send what is written, then close.
    Close(CloseReason),
    /// The next deadline is this far away.
    Deadline(Duration),
    /// The next deadline is at most this far away: whoever waits for an answer by then gives up.
    DeadlineWithin(Duration),
    /// An HTTP error was answered.
    HttpError,
    /// A new subscriber was refused because memory is nearly used up.
    Refused,
    /// End the session: its subscriptions are gone, and the next request opens a new one.
    Leave,
    /// A handshake failed: one of [`HANDSHAKE_FAILURES`].
    HandshakeFailed(&'static str),
    /// A proxy in front of the server is not set up for it: what an operator should read.
    ProxyFault(&'static str),
    /// The first request came through a proxy to a server that took this host to be alone with it.
    BehindProxy,
    /// Append the metrics page's body and finish the exchange: see [`HttpConversation::answer`].
    Metrics,
    /// Tell what runs here: see [`HttpConversation::answer_info`].
    Info,
    /// Tell whether connections are accepted: see [`HttpConversation::answer_ready`].
    Ready,
}

/// What a conversation wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More bytes.
    Receive,
    /// No bytes until a reply came.
    AwaitReply,
    /// No bytes until most of what is queued has left; then [`HttpConversation::go_on_with_room`] is to be called.
    AwaitRoom,
    /// It is over.
    Closed,
    /// Nothing until fan-outs have caught up: this many bytes, the last ones, were not looked at.
    Hold(usize),
}

/// How a publication looks on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireForm {
    /// Its payload, one WebSocket message.
    WebSocket,
    /// A push of the command protocol, one line.
    CommandLine,
    /// The same behind its length.
    CommandLengthPrefixed,
    /// The same, one WebSocket message.
    CommandMessage,
    /// An event of an event stream.
    EventStream,
    /// The same as a chunk.
    EventStreamChunk,
    /// An event without its id, which stands in front of it.
    EventStreamRest,
    /// The same as the end of a chunk.
    EventStreamChunkRest,
}

/// Scripts of which origins may use what is served here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Any, without cookies.
    Any,
    /// These.
    Listed(Vec<String>),
}

/// What all conversations of a worker share.
#[derive(Clone, Debug)]
pub struct TransportSettings {
    /// Of HTTP requests.
    pub head: HeadLimits,
    /// What calls of the server API must show, if anything.
    pub api_key: Option<String>,
    /// Of one HTTP body.
    pub body_bytes_max: u64,
    /// Of a WebSocket that publishes and subscribes.
    pub messages: websocket::Limits,
    /// Of a WebSocket that is echoed.
    pub echo_messages: websocket::Limits,
    /// Of one command.
    pub command_bytes_max: u32,
    /// Of one session.
    pub subscriptions_max: usize,
    /// From the first byte of a request to its last; from the connection's start to the end of its handshake.
    pub handshake_timeout: Duration,
    /// Between two requests of a connection.
    pub http_idle_timeout: Duration,
    /// Silence after which a peer is pinged.
    pub keepalive_interval: Duration,
    /// Silence after the ping.
    pub keepalive_timeout: Duration,
    /// The longest life of an event stream.
    pub stream_time: Duration,
    /// Bytes of missed publications in one answer, by one publication more at the most.
    pub recovery_bytes_max: usize,
    /// Whose scripts may use it, if that is set: see [`TransportSettings::origins`].
    pub origins: Option<Origins>,
    /// Whether the page is at `/`, if that is set: see [`TransportSettings::serves_page`].
    pub page: Option<bool>,
    /// Whether nothing but loopback addresses is listened on.
    pub is_loopback: bool,
    /// What the worker keeps up to date.
    pub now: Now,
}

/// What changes while a worker runs, and no configuration says.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The time, as answers say it. Empty where it is not known.
    pub date: String,
    /// The server is to stop: no connection is kept for another request.
    pub is_stopping: bool,
    /// A proxy on this host brings requests of others. The same for all workers.
    pub is_behind_proxy: Arc<AtomicBool>,
}

impl TransportSettings {
    /// The part of a configuration that conversations need.
    pub fn new(config: &Config) -> Self {
        let messages = |bytes_max| websocket::Limits {
            message_bytes_max: u32::try_from(bytes_max).expect("checked with the configuration"),
            fragments_max: FRAGMENTS_PER_MESSAGE_MAX,
            role: websocket::Role::Server,
        };
        Self {
            head: HeadLimits::default(),
            api_key: config.api_key.clone(),
            body_bytes_max: config.message_bytes_max,
            messages: messages(config.message_bytes_max),
            echo_messages: messages(config.echo_message_bytes_max),
            command_bytes_max: u32::try_from(config.message_bytes_max)
                .expect("checked with the configuration"),
            subscriptions_max: config.subscriptions_max,
            handshake_timeout: config.handshake_timeout,
            http_idle_timeout: config.http_idle_timeout,
            keepalive_interval: config.keepalive_interval,
            keepalive_timeout: config.keepalive_timeout,
            stream_time: config.stream_time,
            // What is published meanwhile has room behind it.
            recovery_bytes_max: usize::try_from(config.send_queue_bytes_max / 2)
                .expect("checked with the configuration"),
            origins: config.allows_any_origin().map(|any| match any {
                true => Origins::Any,
                false => Origins::Listed(config.origins.clone()),
            }),
            page: config.page,
            is_loopback: config.is_loopback(),
            now: Now::default(),
        }
    }

    /// Whose scripts may use what is served: those that are listed; without a list, any where only this host is served.
    pub fn origins(&self) -> &Origins {
        match &self.origins {
            Some(origins) => origins,
            None if self.serves_this_host_only() => &Origins::Any,
            None => &NO_ORIGINS,
        }
    }

    /// Whether the page is at `/`; else there is plain text. Where it is not set: if only this host is served.
    pub fn serves_page(&self) -> bool {
        self.page.unwrap_or_else(|| self.serves_this_host_only())
    }

    /// A proxy makes a loopback address one for everybody.
    fn serves_this_host_only(&self) -> bool {
        self.is_loopback && !self.now.is_behind_proxy.load(Ordering::Relaxed)
    }
}

static NO_ORIGINS: Origins = Origins::Listed(Vec::new());

impl Context<'_> {
    fn request(&mut self, request: Request) {
        self.outputs.push(Output::Request(request));
    }

    /// What a peer does wrong is its own affair, until someone looks for it.
    fn log_refusal(&self, cause: &str, what: &str) {
        let ClientName { worker, session } = self.client;
        debug!(cause, worker = worker.0, connection = session.index, "{what}");
    }

    /// A request came through a proxy. Without a key, what is open because only this host is served is closed from now
    /// on; with one, an operator has thought of strangers.
    fn hear_of_proxy(&mut self) {
        let settings = self.settings;
        if settings.api_key.is_none()
            && settings.serves_this_host_only()
            && !settings.now.is_behind_proxy.swap(true, Ordering::Relaxed)
        {
            self.outputs.push(Output::BehindProxy);
        }
    }

    fn fail_handshake(&mut self, cause: &'static str) {
        self.outputs.push(Output::HandshakeFailed(cause));
    }

    fn close(&mut self, reason: CloseReason) -> Flow {
        self.outputs.push(Output::Close(reason));
        Flow::Closed
    }
}

/// A number of milliseconds that differs from client to client, so that those that come together go apart.
fn spread_ms(client: ClientName, range: RangeInclusive<u32>) -> u32 {
    let (from, to) = range.into_inner();
    // Fibonacci hashing: neighbours in the table, and lives of one place in it, land far from each other.
    let SessionId { index, generation } = client.session;
    let mixed = (index ^ generation.rotate_left(16)).wrapping_mul(0x9E37_79B1);
    from + ((u64::from(mixed) * u64::from(to - from + 1)) >> 32) as u32
}
