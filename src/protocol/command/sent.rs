//! What the server sends to a client.

use std::sync::Arc;

use crate::message::{
    BackendError, ChannelName, ClientId, ClientInfo, Disconnect, Item, Payload, Position,
    Publication, Publications, ServerSubscription, Welcome,
};
use crate::protocol::command::CommandError;

/// A message to a client.
#[derive(Clone, Copy, Debug)]
pub enum Sent<'a> {
    /// A ping, which is an empty message.
    Ping,
    /// The reply to the command with this id; 0 if that has none.
    Reply(u32, Answer<'a>),
    /// What a channel delivers, or what has become of the subscription to it.
    Push(&'a ChannelName, Push<'a>),
    /// The end of the connection.
    Disconnect(&'a Disconnect),
}

/// The content of a reply.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// The command is refused, with more words than the error has.
    Refused(CommandError, Option<&'a str>),
    /// The backend rejected the command.
    Rejected(&'a BackendError),
    /// The answer to `connect`.
    Connected(&'a Connected<'a>),
    /// The answer to `subscribe`, with the publications that are recovered.
    Subscribed(&'a Subscribed<'a>, &'a Publications),
    /// The answer to `unsubscribe`.
    Unsubscribed,
    /// The answer to `publish`.
    Published,
    /// The answer to `ping`.
    Pinged,
    /// The answer to `history`: the position of the channel's stream, and publications.
    History(Position, &'a Publications),
    /// The answer to `presence`: the subscribers of a channel.
    Presence(&'a [ClientInfo]),
    /// The answer to `presence_stats`.
    PresenceStats {
        /// The number of subscribers of the channel.
        client_count: u64,
        /// The number of their users.
        user_count: u64,
    },
    /// The answer to `rpc`, with what the backend returned.
    Returned(Option<&'a Payload>),
    /// The answer to `refresh`.
    Refreshed {
        /// The id of the client.
        client: ClientId,
        /// Seconds until the connection expires; `None` if it does not expire.
        ttl_seconds: Option<u64>,
    },
    /// The answer to `sub_refresh`.
    SubscriptionRefreshed {
        /// Seconds until the subscription expires; `None` if it does not expire.
        ttl_seconds: Option<u64>,
    },
}

/// The content of a push.
#[derive(Clone, Copy, Debug)]
pub enum Push<'a> {
    /// The channel delivers it.
    Item(&'a Item),
    /// The channel delivers it, or delivered it before the client was subscribed.
    Publication(&'a Publication),
    /// The channel delivers it to a client that takes deltas: as one from this payload, if that is shorter.
    Delta(&'a Publication, Option<&'a Payload>),
    /// The server API has subscribed the client.
    Subscribed(&'a Subscribed<'a>),
    /// The subscription has ended.
    Unsubscribed(UnsubscribeReason),
}

/// Why a subscription ends without a request of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsubscribeReason {
    /// The server API has ended it: the client must not subscribe again.
    Server,
    /// The client subscribes again, from its current position.
    InsufficientState,
    /// It has expired: the client subscribes again, with a new token.
    Expired,
}

/// The content of the reply to `connect`.
#[derive(Clone, Copy, Debug)]
pub struct Connected<'a> {
    /// The id of the client.
    pub client: ClientId,
    /// The name of its session, with which it sends commands in requests of their own; `None` if it does not.
    pub session: Option<&'a str>,
    /// The interval between the server's pings, in seconds.
    pub ping_seconds: u64,
    /// Whether the client must answer pings.
    pub wants_pong: bool,
    /// What else the client is sent.
    pub welcome: &'a Welcome,
    /// No delta is made of a recovered payload of more bytes.
    pub delta_bytes_max: usize,
}

/// The content of the reply to `subscribe`.
#[derive(Clone, Copy, Debug)]
pub struct Subscribed<'a> {
    /// The position from which the client receives, after the recovered publications.
    pub position: Position,
    /// Whether the client may recover from a position later.
    pub is_recoverable: bool,
    /// If the client asked for recovery: whether all publications after its position were recovered.
    pub recovered: Option<bool>,
    /// Seconds until the subscription expires; `None` if it does not expire.
    pub ttl_seconds: Option<u64>,
    /// What the backend says to the client about the subscription, a JSON value.
    pub data: Option<&'a [u8]>,
    /// Whether the client gets deltas.
    pub delta: bool,
}

impl<'a> Subscribed<'a> {
    /// What a client is sent about a subscription that the server made when it connected, with the recovered
    /// publications.
    pub fn by_server(subscription: &'a ServerSubscription) -> (Self, &'a [Arc<Publication>]) {
        let ServerSubscription { position, recoverable, recovery, data, delta, .. } = subscription;
        let missed = recovery.as_ref().filter(|recovery| recovery.is_complete);
        let publications = missed.map_or(&[][..], |recovery| &recovery.publications);
        // As in the reply to `subscribe`: a client that reads only some of them comes back from the last one.
        let first = publications.first().map(|first| first.position.offset.saturating_sub(1));
        let position = Position { offset: first.unwrap_or(position.offset), ..*position };
        let subscribed = Self {
            position,
            is_recoverable: *recoverable,
            recovered: recovery.as_ref().map(|recovery| recovery.is_complete),
            ttl_seconds: None,
            data: data.as_deref(),
            delta: *delta,
        };
        (subscribed, publications)
    }
}

impl UnsubscribeReason {
    /// The code on the wire. From 2500 on, clients subscribe again by themselves.
    pub fn code(self) -> u32 {
        match self {
            UnsubscribeReason::Server => 2000,
            UnsubscribeReason::InsufficientState => 2500,
            UnsubscribeReason::Expired => 2501,
        }
    }

    /// The text that goes with the code.
    pub fn text(self) -> &'static str {
        match self {
            UnsubscribeReason::Server => "server unsubscribe",
            UnsubscribeReason::InsufficientState => "insufficient state",
            UnsubscribeReason::Expired => "subscription expired",
        }
    }
}

/// The name and the version of the server, for clients.
pub const SERVER_VERSION: &str = concat!("fantail ", env!("CARGO_PKG_VERSION"));
