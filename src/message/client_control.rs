//! What the server API asks about connected clients, and does with them.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    ChannelName, ClientId, ClientInfo, Disconnect, Position, SubscriptionOptions, TransportKind,
};

/// What is done with a client: a command of the server API, or what came of the client itself by another connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum Control {
    /// Subscribe the client to a channel.
    Subscribe {
        channel: ChannelName,
        /// The position to recover from; `None` subscribes from now on.
        since: Option<Position>,
        /// What the call says about the subscription, if it says anything.
        options: Option<Box<SubscriptionOptions>>,
    },
    /// End the client's subscription to a channel.
    Unsubscribe { channel: ChannelName },
    /// Close the client's connection.
    Disconnect(Disconnect),
    /// Change when the client's identity expires.
    Refresh {
        /// In seconds since the Unix epoch; `None` if it does not expire.
        expires_at: Option<u64>,
        /// What others see of the client from now on; `None` leaves it as it is.
        info: Option<Bytes>,
    },
    /// Take commands that the client sent with a request of their own, a line each. Without effect on a client whose
    /// transport has no such requests.
    Take(Bytes),
}

/// Connections that a call of the server API concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The connections of a user; with an empty name, all anonymous ones.
    User(Arc<str>),
    /// The connections that are subscribed to a channel.
    Channel(ChannelName),
    /// All connections of clients.
    All,
}

/// A connection, as the server API lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The client, with its user.
    pub client: ClientInfo,
    /// The transport over which the client is connected.
    pub transport: TransportKind,
    /// Whether it speaks Protobuf.
    pub is_protobuf: bool,
    /// The channels that it is subscribed to, if they are to be listed.
    pub channels: Option<Vec<ChannelName>>,
}

/// Clients of a user that a command of the server API concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserCommand {
    /// The user; empty for all anonymous clients.
    pub user: Arc<str>,
    /// Clients that it does not concern.
    pub except: Vec<ClientId>,
    /// What to do with the others.
    pub control: Control,
}

impl Control {
    /// Approximate number of bytes that it owns on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Control::Subscribe { channel, options, .. } => {
                let options = options.as_ref().map_or(0, |options| options.heap_bytes());
                channel.as_str().len() + options
            }
            Control::Unsubscribe { channel } => channel.as_str().len(),
            Control::Disconnect(Disconnect { text, .. }) => {
                text.as_ref().map_or(0, |text| text.len())
            }
            Control::Refresh { info, .. } => info.as_ref().map_or(0, Bytes::len),
            Control::Take(commands) => commands.len(),
        }
    }

    /// The channel that it concerns.
    pub fn channel(&self) -> Option<&ChannelName> {
        match self {
            Control::Subscribe { channel, .. } | Control::Unsubscribe { channel } => Some(channel),
            Control::Disconnect(_) | Control::Refresh { .. } | Control::Take(_) => None,
        }
    }
}

impl UserCommand {
    /// Approximate number of bytes that it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let except = self.except.len() * size_of::<ClientId>();
        size_of::<Self>() + self.user.len() + except + self.control.heap_bytes()
    }
}

impl Selection {
    /// Approximate number of bytes that it owns on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Selection::User(user) => user.len(),
            Selection::Channel(channel) => channel.as_str().len(),
            Selection::All => 0,
        }
    }
}
