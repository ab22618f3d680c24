//! What sessions ask of the hub, and what they are answered.

use std::sync::Arc;

use super::{ChannelName, ClientId, ClientInfo, Farewell, Payload, Position, Publication};

/// Ties a reply to its request. The client's number where its protocol has one; 0 is what nobody asked for: a reply
/// with it tells what the server API did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u32);

/// What a client, or the server API, asks of the hub.
#[derive(Clone, Debug)]
pub enum Request {
    /// Receive a channel.
    Subscribe {
        /// Answered with [`Reply::Subscribed`] or [`Reply::Refused`].
        ticket: Ticket,
        /// Which.
        channel: ChannelName,
        /// The last publication that the client has seen: it wants what followed. `None` begins now.
        since: Option<Position>,
        /// Whether it is refused where what followed that cannot be had. A channel that recovers nothing has none of
        /// it to begin with, and refuses nothing.
        needs_all: bool,
        /// Whose right it takes.
        by: Actor,
    },
    /// Receive it no more.
    Unsubscribe {
        /// Answered with [`Reply::Unsubscribed`] or [`Reply::Refused`].
        ticket: Ticket,
        /// Which.
        channel: ChannelName,
    },
    /// Hand a payload to a channel's subscribers.
    Publish {
        /// Answered with [`Reply::Published`] or [`Reply::Refused`] when given.
        ticket: Option<Ticket>,
        /// Which; `None` is the channel that the session subscribed to first.
        channel: Option<ChannelName>,
        /// What.
        payload: Payload,
        /// Whose right it is.
        by: Actor,
        /// Within five minutes, a second publication of this key is answered as the first was, and not delivered.
        idempotency_key: Option<Arc<str>>,
    },
    /// Read what a channel keeps.
    History {
        /// Answered with [`Reply::History`] or [`Reply::Refused`].
        ticket: Ticket,
        /// Which.
        channel: ChannelName,
        /// What of it.
        query: HistoryQuery,
        /// Whose right it is.
        by: Actor,
    },
    /// Forget what a channel keeps; its offsets go on.
    HistoryRemove {
        /// Answered with [`Reply::Done`] or [`Reply::Refused`].
        ticket: Ticket,
        /// Which.
        channel: ChannelName,
    },
    /// Who is subscribed to a channel.
    Presence {
        /// Answered with [`Reply::Presence`] or [`Reply::Refused`].
        ticket: Ticket,
        /// Which.
        channel: ChannelName,
        /// Clients to name; 0 asks for their number only.
        list_max: u32,
        /// Whose right it is.
        by: Actor,
    },
    /// Channels with subscribers.
    Channels {
        /// Answered with [`Reply::Channels`].
        ticket: Ticket,
        /// A name in which each `*` stands for any bytes; empty for all.
        pattern: Arc<str>,
    },
    /// Do something with another client.
    Control {
        /// Answered with [`Reply::Done`], also where there is no such client, or with [`Reply::Refused`] where there
        /// is no such namespace or the client's transport cannot be told.
        ticket: Ticket,
        /// Whom.
        client: ClientId,
        /// What.
        control: Control,
    },
}

impl Request {
    /// Ties the answer to it; `None` if nobody wants one.
    pub fn ticket(&self) -> Option<Ticket> {
        match self {
            Request::Publish { ticket, .. } => *ticket,
            Request::Subscribe { ticket, .. }
            | Request::Unsubscribe { ticket, .. }
            | Request::History { ticket, .. }
            | Request::HistoryRemove { ticket, .. }
            | Request::Presence { ticket, .. }
            | Request::Channels { ticket, .. }
            | Request::Control { ticket, .. } => Some(*ticket),
        }
    }

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
            Request::Channels { pattern, .. } => pattern.len(),
            Request::Control { control, .. } => match control {
                Control::Subscribe { channel, .. } | Control::Unsubscribe { channel } => {
                    channel.as_str().len()
                }
                Control::Disconnect(Farewell { text, .. }) => {
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
            Request::Subscribe { .. }
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
    Disconnect(Farewell),
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
