//! The command protocol: Centrifuge v2 (github.com/centrifugal/protocol, `client.proto`), apart from its encodings.
//!
//! A client sends commands, and is sent messages: replies, which carry the `id` of their command, and pushes. An empty
//! message is a ping from the server and a pong from the client. [`json`](super::json) and
//! [`protobuf`](super::protobuf) encode them.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::message::{
    FilterError, HistoryQuery, Position, SubscriptionForm, SubscriptionWish, TagsFilter,
};

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
    /// Publishes data to a channel.
    Publish(Cow<'a, str>, Data<'a>),
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
    /// Sends data to the backend. It is the only command without a reply.
    Send(Option<Data<'a>>),
    /// Calls a procedure of the backend, by its name, with data.
    Rpc(Cow<'a, str>, Option<Data<'a>>),
    /// A method that the protocol does not have.
    Unknown,
    /// More than one method, or parameters that do not fit the method.
    Malformed,
    /// A request for something that is not offered and must not be ignored, with the reason.
    Refused(CommandError, &'static str),
    /// A request that the protocol answers by closing the connection for good.
    Fatal,
}

/// Data that a client hands over.
#[derive(Clone, Debug, PartialEq)]
pub enum Data<'a> {
    /// A JSON value, which may be nested too deep.
    Json(&'a [u8]),
    /// Bytes that may be anything.
    Bytes(Bytes),
}

/// The parameters of `subscribe`, as they are sent.
#[derive(Debug, Default)]
pub struct SubscribeParameters<'a> {
    /// The channel to subscribe to.
    pub channel: Cow<'a, str>,
    /// The token for the channel; empty if there is none.
    pub token: Cow<'a, str>,
    /// Whether to recover the publications after a position.
    pub recover: bool,
    /// The offset of that position.
    pub offset: u64,
    /// The epoch of that position.
    pub epoch: Cow<'a, str>,
    /// Features that the client asks for, a bit for each.
    pub flag: i64,
    /// The type of subscription.
    pub kind: i64,
    /// The publications that the client wants; `None` for all.
    pub filter: Option<Result<TagsFilter, FilterError>>,
    /// In which form the client wants to receive what has changed between two publications; empty for none.
    pub delta: Cow<'a, str>,
    /// What the client says to the backend.
    pub data: Option<Data<'a>>,
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
    /// What the client says to the backend.
    pub data: Option<Data<'a>>,
    /// Which publications it wants, and how.
    pub form: SubscriptionForm,
}

/// The bytes are not a command: they are not of its encoding, or the `id` is not a 32-bit number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCommand;

/// The parameters of `connect`. Names of channels are not validated yet.
#[derive(Debug, Default, PartialEq)]
pub struct Connect<'a> {
    /// The token; empty if there is none.
    pub token: Cow<'a, str>,
    /// What the client says to the backend.
    pub data: Option<Data<'a>>,
    /// The name of the client program.
    pub name: Cow<'a, str>,
    /// The version of the client program.
    pub version: Cow<'a, str>,
    /// Channels that a client asks for that sends no other command.
    pub channels: Vec<Cow<'a, str>>,
    /// What the client asks for of channels that the server may subscribe it to.
    pub subs: Vec<(Cow<'a, str>, SubscriptionWish)>,
}

/// What a client asks for of a channel that the server may subscribe it to, if anything. As with Centrifugo, deltas of
/// unknown types are not sent.
pub fn wish(recover: bool, offset: u64, epoch: &str, delta: &str) -> Option<SubscriptionWish> {
    let since = recover.then(|| Position::since(offset, epoch));
    let wish = SubscriptionWish { since, takes_deltas: delta == FOSSIL };
    (wish != SubscriptionWish::default()).then_some(wish)
}

impl<'a> SubscribeParameters<'a> {
    /// Options that would change the messages sent to the client are obeyed or refused, never ignored.
    pub fn method(self) -> Method<'a> {
        let takes_deltas = match &*self.delta {
            "" => false,
            FOSSIL => true,
            _ => return Method::Fatal,
        };
        if self.kind != 0 {
            return Method::Refused(CommandError::NotAvailable, "type: channels are streams here");
        }
        let filter = match self.filter.transpose() {
            Ok(filter) => filter.map(Arc::new),
            Err(error) => return Method::Refused(CommandError::BadRequest, error.text()),
        };
        let since = self.recover.then(|| Position::since(self.offset, &self.epoch));
        let needs_all = self.flag & FLAG_REJECT_UNRECOVERED != 0;
        let (channel, token, data) = (self.channel, self.token, self.data);
        let form = SubscriptionForm { takes_deltas, filter, data: None };
        Method::Subscribe(Subscribe { channel, since, needs_all, token, data, form })
    }
}

impl<'a> Method<'a> {
    /// Reads the history of a channel. A negative limit means none.
    pub fn history(
        channel: Cow<'a, str>,
        limit: i64,
        since: Option<Position>,
        reverse: bool,
    ) -> Self {
        let limit = match limit {
            ..0 => None,
            limit => Some(u32::try_from(limit).unwrap_or(u32::MAX)),
        };
        let query = HistoryQuery { since, limit, reverse };
        if query.is_before_all() {
            return Method::Refused(CommandError::BadRequest, "since: nothing comes before 0");
        }
        Method::History(channel, query)
    }
}

/// The one type of delta.
const FOSSIL: &str = "fossil";

/// A bit of `flag` in a subscribe: refuse it if missed messages cannot be recovered (centrifuge 0.38, client.go).
const FLAG_REJECT_UNRECOVERED: i64 = 2;

/// Commands for a session in a request of their own, which SDKs call emulation.
#[derive(Debug, PartialEq)]
pub struct Emulation<'a> {
    /// The name of the session, as the reply to `connect` has it.
    pub session: Cow<'a, str>,
    /// The node of the session, as the same reply has it.
    pub node: Cow<'a, str>,
    /// The commands, as they would come in one message; `None` if they are not a string where they have to be.
    pub commands: Option<Cow<'a, [u8]>>,
}

/// The bytes are not such a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidEmulation;

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

    /// The message that goes with the code, with more words.
    pub fn text(self, detail: Option<&str>) -> Cow<'static, str> {
        match detail {
            None => Cow::Borrowed(self.message()),
            Some(detail) => Cow::Owned(format!("{}: {detail}", self.message())),
        }
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
