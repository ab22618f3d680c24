//! Requests of sessions, and the replies to them.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;

use super::{
    ChannelName, ChannelPattern, ClientId, ClientInfo, ConnectionInfo, Control, Login, Payload,
    Position, Publication, PublishOptions, Selection, SubscriptionForm, SubscriptionOptions, Token,
    UserCommand,
};

/// A client's own number for a request, which its reply repeats. A client may use a number more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(NonZeroU32);

/// Which side made a request for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The client itself, with its own number for the request.
    Client(Ticket),
    /// The server API, on behalf of the client. The client is notified of the result, but not of a refusal.
    Server,
}

/// Identifies a request that gets a reply, within its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// Distinguishes the request from the others of its worker, until 2^32 more were made.
    pub serial: u32,
    /// The side that made the request.
    pub origin: Origin,
}

// A subscription stores it, while it waits for the reply, in a word that has another use later.
const _: () = assert!(size_of::<RequestId>() == 8);

/// A request of a session, on its way to the hub.
#[derive(Clone, Debug)]
pub struct SessionRequest {
    /// The side that made it; `None` if no reply is wanted.
    pub origin: Option<Origin>,
    /// The actor whose permissions apply.
    pub by: Actor,
    /// The request itself.
    pub request: Request,
}

/// A request of a client, or of the server API, to the hub.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum Request {
    /// Connect to the server: the first request of a client, and the first of each HTTP request where clients have to
    /// say who they are. The reply is [`Reply::Connected`] or [`Reply::Refused`].
    Connect(Box<Login>),
    /// Go on with a new token, when the one before is about to expire. The reply is [`Reply::Refreshed`] or
    /// [`Reply::Refused`].
    Refresh {
        /// The new token, of the same user.
        token: Token,
    },
    /// Go on with a new token for a subscription. The reply is [`Reply::SubscriptionRefreshed`] or [`Reply::Refused`].
    RefreshSubscription {
        channel: ChannelName,
        /// The new token, of the same user and channel.
        token: Token,
    },
    /// Subscribe to a channel. The reply is [`Reply::Subscribed`] or [`Reply::Refused`].
    Subscribe {
        channel: ChannelName,
        /// The position after which the client wants all publications. `None` subscribes from now on.
        since: Option<Position>,
        /// Whether the request is refused if the publications after `since` cannot be recovered. Without effect on
        /// channels without recovery.
        needs_all: bool,
        /// The token that allows it, if the client shows one.
        token: Option<Token>,
        /// What the client wants of the channel.
        form: SubscriptionForm,
        /// What the backend says about the subscription, if it says anything.
        options: Option<Box<SubscriptionOptions>>,
    },
    /// End a subscription. The reply is [`Reply::Unsubscribed`] or [`Reply::Refused`].
    Unsubscribe { channel: ChannelName },
    /// Publish to a channel. The reply is [`Reply::Published`], [`Reply::Outdated`] or [`Reply::Refused`].
    Publish {
        /// The channel; `None` for the one that the session subscribed to first.
        channel: Option<ChannelName>,
        /// The payload to publish.
        payload: Payload,
        /// What else it asks for, if anything.
        options: Option<Arc<PublishOptions>>,
    },
    /// Read the history of a channel. The reply is [`Reply::History`] or [`Reply::Refused`].
    History {
        channel: ChannelName,
        /// The part of the history that is wanted.
        query: HistoryQuery,
    },
    /// Remove the history of a channel; its offsets go on. The reply is [`Reply::Done`] or [`Reply::Refused`].
    HistoryRemove { channel: ChannelName },
    /// List the subscribers of a channel. The reply is [`Reply::Presence`], [`Reply::PresenceStats`] or
    /// [`Reply::Refused`].
    Presence {
        channel: ChannelName,
        /// The maximum number of clients to list; 0 for their number, and that of their users.
        list_max: u32,
    },
    /// List channels with subscribers. The reply is [`Reply::Channels`].
    Channels {
        /// What their names match.
        pattern: Arc<ChannelPattern>,
    },
    /// Call a procedure of the backend. The reply is [`Reply::Returned`], [`Reply::Rejected`] or [`Reply::Refused`].
    Call {
        /// Its name, which may be empty.
        procedure: Arc<str>,
        /// What it is given; `None` for nothing.
        data: Option<Payload>,
    },
    /// Control another client. The reply is [`Reply::Done`], also if there is no such client, or [`Reply::Refused`] if
    /// the namespace does not exist, the client's transport has no way to announce the change, or its worker has no
    /// room for what it is to take.
    Control {
        /// The other client.
        client: ClientId,
        /// The user that it must act for, empty if it must be anonymous; `None` for whichever.
        user: Option<Arc<str>>,
        /// What to do with it.
        control: Control,
    },
    /// Control the clients of a user, as far as their transports have a way to announce the change. The reply is
    /// [`Reply::Done`], or [`Reply::Refused`] if the namespace does not exist.
    ControlUser(Box<UserCommand>),
    /// List connections. The reply is [`Reply::Connections`].
    Connections {
        /// The connections to list.
        selection: Selection,
        /// Whether the channels of each are listed too.
        with_channels: bool,
    },
    /// Close the connections of a user, and refuse others until a time. The reply is [`Reply::Done`] or
    /// [`Reply::Refused`].
    Block {
        user: Arc<str>,
        /// In seconds since the Unix epoch; 0 accepts them again.
        until: u64,
    },
}

impl Ticket {
    /// The ticket of a client that has one request at a time.
    pub const FIRST: Ticket = Ticket(NonZeroU32::MIN);

    /// A ticket with this number; `None` for 0, which is not valid.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number on the wire.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

impl Request {
    /// Subscribes to a channel from a position on, or from now on, and asks for nothing else.
    pub fn subscribe(channel: ChannelName, since: Option<Position>) -> Self {
        Self::Subscribe {
            channel,
            since,
            needs_all: false,
            token: None,
            form: SubscriptionForm::default(),
            options: None,
        }
    }

    /// The same request to subscribe, with the token that allows it.
    pub fn with_token(mut self, shown: Option<Token>) -> Self {
        if let Self::Subscribe { token, .. } = &mut self {
            *token = shown;
        }
        self
    }

    /// Approximate number of bytes that it owns on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Request::Publish { channel, payload, options } => {
                let name = channel.as_ref().map_or(0, |channel| channel.as_str().len());
                let options = options.as_ref().map_or(0, |options| options.heap_bytes());
                name + payload.heap_bytes() + options
            }
            Request::Subscribe { channel, token, options, form, .. } => {
                let token = token.as_ref().map_or(0, Token::heap_bytes);
                let options = options.as_ref().map_or(0, |options| options.heap_bytes());
                channel.as_str().len() + token + options + form.heap_bytes()
            }
            Request::RefreshSubscription { channel, token } => {
                channel.as_str().len() + token.heap_bytes()
            }
            Request::Refresh { token } => token.heap_bytes(),
            Request::Unsubscribe { channel, .. }
            | Request::History { channel, .. }
            | Request::HistoryRemove { channel, .. }
            | Request::Presence { channel, .. } => channel.as_str().len(),
            Request::Connect(login) => size_of::<Login>() + login.heap_bytes(),
            Request::Channels { pattern } => size_of::<ChannelPattern>() + pattern.heap_bytes(),
            Request::Call { procedure, data } => {
                procedure.len() + data.as_ref().map_or(0, Payload::heap_bytes)
            }
            Request::Control { user, control, .. } => {
                user.as_ref().map_or(0, |user| user.len()) + control.heap_bytes()
            }
            Request::ControlUser(command) => command.heap_bytes(),
            Request::Connections { selection, .. } => selection.heap_bytes(),
            Request::Block { user, .. } => user.len(),
        }
    }

    /// The token that it carries.
    pub fn token(&self) -> Option<&Token> {
        match self {
            Request::Connect(login) => login.token.as_ref(),
            Request::Subscribe { token, .. } => token.as_ref(),
            Request::Refresh { token } | Request::RefreshSubscription { token, .. } => Some(token),
            _ => None,
        }
    }

    /// Whether it affects other clients, and not the session that makes it.
    pub fn is_for_others(&self) -> bool {
        match self {
            Request::Publish { .. }
            | Request::HistoryRemove { .. }
            | Request::Control { .. }
            | Request::ControlUser(_)
            | Request::Block { .. } => true,
            Request::Connect(_)
            | Request::Refresh { .. }
            | Request::RefreshSubscription { .. }
            | Request::Subscribe { .. }
            | Request::Unsubscribe { .. }
            | Request::History { .. }
            | Request::Presence { .. }
            | Request::Channels { .. }
            | Request::Connections { .. }
            | Request::Call { .. } => false,
        }
    }
}

/// The actor whose permissions apply to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A client, with the permissions that the channel's options give to clients.
    Client,
    /// The server API, with all permissions.
    Server,
}

/// Selects a part of a channel's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HistoryQuery {
    /// Only publications after this position, or before it with `reverse`.
    pub since: Option<Position>,
    /// The maximum number of publications; 0 for the position only, `None` for as many as one reply may have.
    pub limit: Option<u32>,
    /// Whether the newest come first.
    pub reverse: bool,
}

impl HistoryQuery {
    /// Whether it asks for publications before the first possible offset.
    pub fn is_before_all(self) -> bool {
        self.reverse && self.since.is_some_and(|since| since.offset == 0)
    }
}

/// The reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum Reply {
    /// The client is connected.
    Connected(Box<Welcome>),
    /// The client goes on.
    Refreshed {
        /// Seconds until its identity expires; `None` if it does not expire.
        ttl_seconds: Option<u64>,
    },
    /// The subscription goes on.
    SubscriptionRefreshed {
        /// Seconds until the subscription expires; `None` if it does not expire.
        ttl_seconds: Option<u64>,
    },
    /// The session is subscribed: publications after `position` will be delivered.
    Subscribed {
        channel: ChannelName,
        /// The position of the channel's stream.
        position: Position,
        /// Whether a client that reconnects can recover from a position in this channel.
        recoverable: bool,
        /// The recovery, if the request had a position.
        recovery: Option<Recovery>,
        /// Whether the client gets deltas.
        delta: bool,
        /// What the backend says about the subscription, if it says anything.
        options: Option<Box<SubscriptionOptions>>,
    },
    /// The subscription has ended: nothing of the channel will be delivered after this reply.
    Unsubscribed { channel: ChannelName },
    /// The subscription has expired, without a request of the client.
    SubscriptionExpired { channel: ChannelName },
    /// The publication was accepted.
    Published {
        /// Its position in the channel's stream.
        position: Position,
    },
    /// The publication was dropped, because its version is not newer than that of the channel.
    Outdated {
        /// The position of the channel's stream.
        position: Position,
    },
    /// The history of a channel.
    History {
        /// The position of the channel's stream.
        position: Position,
        /// The selected publications, in the requested order.
        publications: Publications,
    },
    /// The subscribers of a channel.
    Presence {
        /// Some of them, up to the requested number.
        clients: Vec<ClientInfo>,
        /// The number of all subscribers.
        client_count: u64,
    },
    /// The number of subscribers of a channel.
    PresenceStats {
        client_count: u64,
        /// The number of their users, among which all anonymous ones are one.
        user_count: u64,
    },
    /// Channels with subscribers.
    Channels {
        /// Each channel with its number of subscribers.
        channels: Vec<(ChannelName, u64)>,
    },
    /// The connections that a call of the server API selects.
    Connections {
        /// Some of them.
        connections: Vec<ConnectionInfo>,
        /// Whether there are more.
        is_truncated: bool,
    },
    /// The request was carried out.
    Done,
    /// What a procedure of the backend returned.
    Returned(Option<Payload>),
    /// The request was refused.
    Refused(Refusal),
    /// The backend rejected the request.
    Rejected(BackendError),
}

/// An error that a backend answers, for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendError {
    /// The code; those of applications are 400..=1999.
    pub code: u32,
    /// A text for people.
    pub message: Arc<str>,
    /// Whether the client may try again.
    pub is_temporary: bool,
}

/// What a client is sent when it is connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Seconds until its identity expires, unless it is refreshed; `None` if it does not expire.
    pub ttl_seconds: Option<u64>,
    /// What the backend says to it, a JSON value.
    pub data: Option<Bytes>,
    /// The channels that the server has subscribed it to.
    pub subscriptions: Vec<ServerSubscription>,
}

/// A subscription that the server made when a client connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSubscription {
    /// The channel that is delivered.
    pub channel: ChannelName,
    /// The position of the channel's stream: publications after it are delivered.
    pub position: Position,
    /// Whether a client that reconnects can recover from a position in this channel.
    pub recoverable: bool,
    /// The recovery, if the client had a position in the channel.
    pub recovery: Option<Recovery>,
    /// Whether the client gets deltas.
    pub delta: bool,
    /// What the backend says to the client about it, a JSON value.
    pub data: Option<Bytes>,
}

/// Publications in order, shared by reference.
pub type Publications = Arc<[Arc<Publication>]>;

/// The result of a recovery: publications after the position of a subscriber.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Whether no publication is missing after that position. Otherwise `publications` is the newest part of the
    /// history that fits one reply, and the client has to reset its state.
    pub is_complete: bool,
    /// The publications, in order.
    pub publications: Publications,
    /// Whether these are only the first part. Then the session is not subscribed: it has to subscribe again from the
    /// position of the last of them.
    pub has_more: bool,
}

impl Recovery {
    /// A recovery of a subscriber that has received all publications.
    pub fn of_nothing() -> Self {
        Self { is_complete: true, publications: Arc::new([]), has_more: false }
    }

    /// A recovery that is not possible, of a channel that keeps no publications.
    pub fn impossible() -> Self {
        Self { is_complete: false, ..Self::of_nothing() }
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The session is already subscribed to the channel.
    AlreadySubscribed,
    /// The session is not subscribed to the channel.
    NotSubscribed,
    /// The session has reached its maximum number of subscriptions.
    SubscriptionsExhausted,
    /// The session unsubscribed while its request to subscribe was pending.
    Withdrawn,
    /// The part of the channel name before its first `:` does not name a namespace of this server.
    NamespaceUnknown,
    /// Clients may not use a channel of this name.
    ChannelInvalid,
    /// The channel's options do not permit it to clients.
    PermissionDenied,
    /// The channel's options do not enable the feature.
    NotAvailable,
    /// The position belongs to another stream, or publications after it are no longer in the history.
    PositionUnrecoverable,
    /// The channel's options do not permit filters.
    FilterNotAllowed,
    /// The client has to show a token.
    TokenMissing,
    /// The token is not one of this server, or is for another user, channel or client.
    TokenInvalid,
    /// The token has expired, or is not valid yet: the client needs a new one.
    TokenExpired,
    /// The user of the client is blocked.
    UserBlocked,
    /// The client goes on with a token that has expired.
    ConnectionExpired,
    /// The user has as many connections as it may.
    UserConnectionsExhausted,
    /// As many users are blocked as may be.
    BlockedUsersExhausted,
    /// The server is low on memory; the client may try again later.
    Overloaded,
    /// The backend that decides did not answer; the client may try again later.
    BackendUnavailable,
}
