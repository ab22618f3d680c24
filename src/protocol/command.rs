//! The command protocol: Centrifuge v2 (github.com/centrifugal/protocol, `client.proto`), apart from its encodings.
//!
//! A client sends commands, and is sent messages: replies, which carry the `id` of their command, and pushes. An empty
//! message is a ping from the server and a pong from the client. [`json`](super::json) encodes them.

use std::borrow::Cow;

use crate::message::{HistoryQuery, Position};

mod sent;

pub use sent::{Answer, Connected, Push, SERVER_VERSION, Sent, Subscribed, UnsubscribeReason};

/// A command of a client.
#[derive(Debug)]
pub struct Command<'a> {
    /// The id that the reply repeats; 0 if absent.
    pub id: u32,
    /// The method with its parameters.
    pub method: Method<'a>,
}

/// A method with its parameters. Channel names are not validated yet. Parameters that are not decoded may be anything.
#[derive(Debug, PartialEq)]
pub enum Method<'a> {
    /// The answer to a ping.
    Pong,
    /// Opens the session; must be the first command.
    Connect(Connect<'a>),
    /// Subscribes to a channel.
    Subscribe(Subscribe<'a>),
    /// Unsubscribes from a channel.
    Unsubscribe(Cow<'a, str>),
    /// Publishes data, any JSON value, to a channel.
    Publish(Cow<'a, str>, &'a [u8]),
    /// Reads a channel's history.
    History(Cow<'a, str>, HistoryQuery),
    /// Lists the clients that are subscribed to a channel.
    Presence(Cow<'a, str>),
    /// Counts the clients that are subscribed to a channel.
    PresenceStats(Cow<'a, str>),
    /// Asks for an empty reply.
    Ping,
    /// Sends a new token for the connection.
    Refresh(Cow<'a, str>),
    /// Sends a new token for the subscription to a channel.
    RefreshSubscription(Cow<'a, str>, Cow<'a, str>),
    /// Sends data, any JSON value, to the backend. It is the only command without a reply.
    Send(Option<&'a [u8]>),
    /// Calls a procedure of the backend, by its name, with data.
    Rpc(Cow<'a, str>, Option<&'a [u8]>),
    /// A method that the protocol does not have.
    Unknown,
    /// More than one method, or parameters that do not fit the method.
    Malformed,
    /// A request for something that is not offered and must not be ignored, with the reason.
    Refused(CommandError, &'static str),
    /// A request that the protocol answers by closing the connection for good.
    Fatal,
}

/// The parameters of `subscribe`.
#[derive(Debug, PartialEq)]
pub struct Subscribe<'a> {
    /// The channel to subscribe to.
    pub channel: Cow<'a, str>,
    /// The position after which publications are recovered first.
    pub since: Option<Position>,
    /// Whether to refuse the subscription if publications after its position cannot be recovered.
    pub needs_all: bool,
    /// The token for the channel; empty if there is none.
    pub token: Cow<'a, str>,
}

/// The bytes are not a command: not a JSON object, or the `id` is not a 32-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCommand;

/// The parameters of `connect`. Names of channels are not validated yet.
#[derive(Debug, Default, PartialEq)]
pub struct Connect<'a> {
    /// The token; empty if there is none.
    pub token: Cow<'a, str>,
    /// What the client says to the backend, any JSON value.
    pub data: Option<&'a [u8]>,
    /// The name of the client program.
    pub name: Cow<'a, str>,
    /// The version of the client program.
    pub version: Cow<'a, str>,
    /// Positions in channels that the server subscribed the client to when it was connected before.
    pub since: Vec<(Cow<'a, str>, Position)>,
}

/// The error codes of the protocol that this server uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// An internal error of this server.
    Internal,
    /// The channel's namespace does not exist.
    UnknownChannel,
    /// The client is not allowed to do it.
    PermissionDenied,
    /// The method does not exist.
    MethodNotFound,
    /// The client is subscribed to the channel already.
    AlreadySubscribed,
    /// A limit is reached.
    LimitExceeded,
    /// The command is invalid, or invalid at this time.
    BadRequest,
    /// The server does not offer it.
    NotAvailable,
    /// The token has expired: the client needs a new one.
    TokenExpired,
    /// The server is overloaded; the client may try again later.
    TooManyRequests,
    /// The position is too old, or of another epoch of the channel.
    UnrecoverablePosition,
}

impl CommandError {
    /// The error code on the wire.
    pub fn code(self) -> u32 {
        match self {
            CommandError::Internal => 100,
            CommandError::UnknownChannel => 102,
            CommandError::PermissionDenied => 103,
            CommandError::MethodNotFound => 104,
            CommandError::AlreadySubscribed => 105,
            CommandError::LimitExceeded => 106,
            CommandError::BadRequest => 107,
            CommandError::NotAvailable => 108,
            CommandError::TokenExpired => 109,
            CommandError::TooManyRequests => 111,
            CommandError::UnrecoverablePosition => 112,
        }
    }

    /// Whether a client may try again what was refused.
    pub fn is_temporary(self) -> bool {
        matches!(self, CommandError::Internal | CommandError::TooManyRequests)
    }

    /// The message that goes with the code.
    pub fn message(self) -> &'static str {
        match self {
            CommandError::Internal => "internal server error",
            CommandError::UnknownChannel => "unknown channel",
            CommandError::PermissionDenied => "permission denied",
            CommandError::MethodNotFound => "method not found",
            CommandError::AlreadySubscribed => "already subscribed",
            CommandError::LimitExceeded => "limit exceeded",
            CommandError::BadRequest => "bad request",
            CommandError::NotAvailable => "not available",
            CommandError::TokenExpired => "token expired",
            CommandError::TooManyRequests => "too many requests",
            CommandError::UnrecoverablePosition => "unrecoverable position",
        }
    }
}
