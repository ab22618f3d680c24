//! What sessions ask of the hub, and what they are answered.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::{ChannelName, ClientId, ClientInfo, Disconnect, Payload, Position, Publication};

/// A client's number for a request, which ties the reply to it. A client may use one number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(NonZeroU32);

/// Who made a request, and is told its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The client itself, under its own number.
    Client(Ticket),
    /// The server API, on behalf of the client: the client is told what was done, and nothing if it was refused.
    Server,
}

/// A worker's own name for a request that is replied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Distinguishes the request from the others of its worker, until 2^32 more were made.
    pub serial: u32,
    /// Whose request it is.
    pub origin: Origin,
}

// A subscription that waits for its reply keeps it in a word that it has other uses for later.
const _: () = assert!(size_of::<RequestId>() == 8);

/// A request of a session, on its way to the hub.
#[derive(Clone, Debug)]
pub struct SessionRequest {
    /// Who made it; `None` if no reply is wanted.
    pub origin: Option<Origin>,
    /// Whose rights it has.
    pub by: Actor,
    /// What is asked.
    pub request: Request,
}

/// What a client, or the server API, asks of the hub.
#[derive(Clone, Debug)]
pub enum Request {
    /// Connect to the server: what a client of the command protocol asks first. The reply is [`Reply::Connected`] or
    /// [`Reply::Refused`].
    Connect,
    /// Subscribe to a channel. The reply is [`Reply::Subscribed`] or [`Reply::Refused`].
    Subscribe {
        /// The channel.
        channel: ChannelName,
        /// The last publication that the client has seen: it wants what followed. `None` begins now.
        since: Option<Position>,
        /// Whether it is refused where what followed that cannot be had. A channel that recovers nothing has none of
        /// it to begin with, and refuses nothing.
        needs_all: bool,
    },
    /// End a subscription. The reply is [`Reply::Unsubscribed`] or [`Reply::Refused`].
    Unsubscribe {
        /// The channel.
        channel: ChannelName,
    },
    /// Publish to a channel. The reply is [`Reply::Published`] or [`Reply::Refused`].
    Publish {
        /// The channel; `None` is the one that the session subscribed to first.
        channel: Option<ChannelName>,
        /// What is published.
        payload: Payload,
        /// Within five minutes, a second publication of this key is answered as the first was, and not delivered.
        idempotency_key: Option<Arc<str>>,
    },
    /// Read the history of a channel. The reply is [`Reply::History`] or [`Reply::Refused`].
    History {
        /// The channel.
        channel: ChannelName,
        /// The part of the history that is wanted.
        query: HistoryQuery,
    },
    /// Remove the history of a channel; its offsets go on. The reply is [`Reply::Done`] or [`Reply::Refused`].
    HistoryRemove {
        /// The channel.
        channel: ChannelName,
    },
    /// List the subscribers of a channel. The reply is [`Reply::Presence`] or [`Reply::Refused`].
    Presence {
        /// The channel.
        channel: ChannelName,
        /// Clients to list; 0 asks for their number only.
        list_max: u32,
    },
    /// List channels with subscribers. The reply is [`Reply::Channels`].
    Channels {
        /// A name in which each `*` stands for any bytes; empty for all.
        pattern: Arc<str>,
    },
    /// Do something with another client. The reply is [`Reply::Done`], also where there is no such client, or
    /// [`Reply::Refused`] where there is no such namespace or the client's transport cannot be told.
    Control {
        /// The other client.
        client: ClientId,
        /// What is done with it.
        control: Control,
    },
}

impl Ticket {
    /// Of a request that is its client's only one.
    pub const FIRST: Ticket = Ticket(NonZeroU32::MIN);

    /// A ticket with this number; `None` for 0, which is no number.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

impl Request {
    /// About what it owns on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Request::Publish { channel, payload, idempotency_key, .. } => {
                let name = channel.as_ref().map_or(0, |channel| channel.as_str().len());
                let key = idempotency_key.as_ref().map_or(0, |key| key.len());
                name + payload.bytes.len() + key
            }
            Request::Subscribe { channel, .. }
            | Request::Unsubscribe { channel, .. }
            | Request::History { channel, .. }
            | Request::HistoryRemove { channel, .. }
            | Request::Presence { channel, .. } => channel.as_str().len(),
            Request::Connect => 0,
            Request::Channels { pattern, .. } => pattern.len(),
            Request::Control { control, .. } => match control {
                Control::Subscribe { channel, .. } | Control::Unsubscribe { channel } => {
                    channel.as_str().len()
                }
                Control::Disconnect(Disconnect { text, .. }) => {
                    text.as_ref().map_or(0, |text| text.len())
                }
            },
        }
    }

    /// Whether it does something that others see, and nothing that only its session would.
    pub fn is_for_others(&self) -> bool {
        match self {
            Request::Publish { .. } | Request::HistoryRemove { .. } | Request::Control { .. } => {
                true
            }
            Request::Connect
            | Request::Subscribe { .. }
            | Request::Unsubscribe { .. }
            | Request::History { .. }
            | Request::Presence { .. }
            | Request::Channels { .. } => false,
        }
    }
}

/// Whose right counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A client's: what its channel's options allow.
    Client,
    /// The server API's: everything.
    Server,
}

/// What the server API does with a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Subscribes it.
    Subscribe {
        /// To what.
        channel: ChannelName,
        /// From where.
        since: Option<Position>,
    },
    /// Ends its subscription.
    Unsubscribe {
        /// Of what.
        channel: ChannelName,
    },
    /// Ends its connection.
    Disconnect(Disconnect),
}

/// What of a channel's history is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HistoryQuery {
    /// What follows this position, or with `reverse`, what came before it.
    pub since: Option<Position>,
    /// Publications at most; 0 asks for the position only, `None` for as many as one answer may have.
    pub limit: Option<u32>,
    /// The newest first.
    pub reverse: bool,
}

impl HistoryQuery {
    /// Whether it wants what came before anything could.
    pub fn is_before_all(self) -> bool {
        self.reverse && self.since.is_some_and(|since| since.offset == 0)
    }
}

/// What a client is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The client is connected.
    Connected,
    /// Publications after this position will be delivered.
    Subscribed {
        /// To what.
        channel: ChannelName,
        /// Where its stream stood.
        position: Position,
        /// Whether the channel keeps what a client that comes back will want.
        recoverable: bool,
        /// To a request with a position: what was missed.
        recovery: Option<Recovery>,
    },
    /// Nothing of the channel will be delivered any more.
    Unsubscribed {
        /// Of which.
        channel: ChannelName,
    },
    /// The publication was accepted and has this place in its stream.
    Published {
        /// Its place.
        position: Position,
    },
    /// What a channel keeps.
    History {
        /// Where its stream stands.
        position: Position,
        /// In the order asked for.
        publications: Publications,
    },
    /// Who is subscribed.
    Presence {
        /// Some of them, as many as were asked for; `None` if only their number was.
        clients: Option<Vec<ClientInfo>>,
        /// All of them.
        client_count: u64,
    },
    /// Channels with subscribers.
    Channels {
        /// Each with its subscribers; in no order.
        channels: Vec<(ChannelName, u64)>,
    },
    /// It was done.
    Done,
    /// It was not done.
    Refused(Refusal),
}

/// Publications that are shared, not copied.
pub type Publications = Arc<[Arc<Publication>]>;

/// What a subscriber that named a position missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Whether nothing is missing behind that position. If something is, `publications` is what the channel keeps, as
    /// far as it fits an answer, and the client starts anew.
    pub is_complete: bool,
    /// In order.
    pub publications: Publications,
    /// Whether these are the first part only. Then nothing else will be delivered: there is no subscription, and who
    /// wants the rest subscribes from the last of them.
    pub has_more: bool,
}

impl Recovery {
    /// Nothing was missed.
    pub fn of_nothing() -> Self {
        Self { is_complete: true, publications: Arc::new([]), has_more: false }
    }

    /// The client has to start anew, and nothing is kept for it.
    pub fn impossible() -> Self {
        Self { is_complete: false, ..Self::of_nothing() }
    }
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The session has this channel already.
    AlreadySubscribed,
    /// The session does not have this channel.
    NotSubscribed,
    /// The session has as many subscriptions as it may have.
    SubscriptionsExhausted,
    /// The subscription was ended before it was made.
    Withdrawn,
    /// The part of the name before its first `:` is no namespace of this server.
    NamespaceUnknown,
    /// The channel's options do not allow it to clients.
    PermissionDenied,
    /// The channel's options do not offer it.
    NotAvailable,
    /// The position is not one of this life of the channel, or what followed it is not kept any more.
    PositionUnrecoverable,
    /// Memory is nearly used up: later.
    Overloaded,
}
