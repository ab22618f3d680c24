//! What sessions ask of the hub, and what they are answered.

use super::{ChannelName, Payload, Position};

/// A worker of this server, dense from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// A client's identity within its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// Dense from 0, used again after the session's end.
    pub index: u32,
    /// Tells it from earlier sessions of that index.
    pub generation: u32,
}

/// Ties a reply to its request. The client's number where its protocol has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u32);

/// What a client asks of the hub.
#[derive(Clone, Debug)]
pub enum Request {
    /// Receive a channel.
    Subscribe {
        /// Answered with [`Reply::Subscribed`] or [`Reply::Refused`].
        ticket: Ticket,
        /// Which.
        channel: ChannelName,
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
    },
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
    },
    /// Nothing of the channel will be delivered any more.
    Unsubscribed,
    /// The publication was accepted and has this place in its stream.
    Published {
        /// Its place.
        position: Position,
    },
    /// It was not done.
    Refused(Refusal),
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
}
