//! How refusals are reported to clients, over HTTP and in the command protocol: one row each.

use crate::message::{CloseReason, Refusal};
use crate::protocol::command::CommandError;

/// How a refusal is reported.
#[derive(Clone, Copy, Debug)]
pub(super) struct RefusalRow {
    /// The status of an HTTP answer.
    pub status: u16,
    /// The code of an HTTP error.
    pub code: &'static str,
    /// The error of the command protocol and of the server API.
    pub error: CommandError,
    /// The reason in words.
    pub sentence: &'static str,
    /// In the command protocol, the reason for which the client is disconnected instead of being sent the error.
    pub close: Option<CloseReason>,
}

/// The row of a refusal.
pub(super) fn row_of(refusal: Refusal) -> RefusalRow {
    use CommandError as Error;
    let (status, code, error, sentence) = match refusal {
        Refusal::AlreadySubscribed => (
            400,
            "already_subscribed",
            Error::AlreadySubscribed,
            "the client is subscribed to this channel already",
        ),
        Refusal::NotSubscribed => (400, "not_subscribed", Error::BadRequest, "not subscribed"),
        Refusal::SubscriptionsExhausted => (
            400,
            "subscriptions_exhausted",
            Error::LimitExceeded,
            "subscription limit reached (limits.subscriptions_max)",
        ),
        Refusal::Withdrawn => (
            400,
            "withdrawn",
            Error::BadRequest,
            "the client unsubscribed before the subscription was made",
        ),
        Refusal::NamespaceUnknown => {
            (404, "namespace_unknown", Error::UnknownChannel, "the server has no such namespace")
        }
        Refusal::ChannelInvalid => (
            400,
            "channel_invalid",
            Error::BadRequest,
            "a channel cannot have this name (channel_regex, limits.channel_bytes_max)",
        ),
        Refusal::PermissionDenied => {
            (403, "permission_denied", Error::PermissionDenied, NOT_ALLOWED)
        }
        Refusal::NotAvailable => {
            (403, "not_available", Error::NotAvailable, "the channel's options do not offer it")
        }
        Refusal::PositionUnrecoverable => (
            410,
            "position_unrecoverable",
            Error::UnrecoverablePosition,
            "the publications after this position are no longer kept",
        ),
        Refusal::FilterNotAllowed => {
            (400, "filter_not_allowed", Error::BadRequest, FILTER_NOT_ALLOWED)
        }
        Refusal::TokenMissing => {
            (401, "token_missing", Error::BadRequest, "a token is needed, and none was sent")
        }
        Refusal::TokenInvalid => (401, "token_invalid", Error::PermissionDenied, "invalid token"),
        Refusal::TokenExpired | Refusal::ConnectionExpired => (
            401,
            "token_expired",
            Error::TokenExpired,
            "the token has expired, or is not valid yet",
        ),
        Refusal::UserConnectionsExhausted => {
            (429, "user_connections_exhausted", Error::LimitExceeded, USER_CONNECTIONS_EXHAUSTED)
        }
        Refusal::UserBlocked => (403, "user_blocked", Error::PermissionDenied, "user is blocked"),
        Refusal::BlockedUsersExhausted => {
            (503, "blocked_users_exhausted", Error::LimitExceeded, BLOCKED_USERS_EXHAUSTED)
        }
        Refusal::Overloaded => (503, "overloaded", Error::TooManyRequests, LOW_ON_MEMORY),
        Refusal::BackendUnavailable => {
            (503, "backend_unavailable", Error::Internal, BACKEND_UNAVAILABLE)
        }
    };
    RefusalRow { status, code, error, sentence, close: close_of(refusal) }
}

fn close_of(refusal: Refusal) -> Option<CloseReason> {
    match refusal {
        Refusal::TokenMissing => Some(CloseReason::ProtocolError),
        Refusal::TokenInvalid => Some(CloseReason::TokenInvalid),
        Refusal::UserConnectionsExhausted => Some(CloseReason::ConnectionLimit),
        Refusal::ConnectionExpired => Some(CloseReason::Expired),
        Refusal::UserBlocked => Some(CloseReason::UserBlocked),
        _ => None,
    }
}

impl RefusalRow {
    /// The reason in words where the error of the command protocol says too little by itself.
    pub fn detail(self) -> Option<&'static str> {
        let is_general =
            matches!(self.error, CommandError::BadRequest | CommandError::TooManyRequests);
        is_general.then_some(self.sentence)
    }
}

const NOT_ALLOWED: &str = "the channel's options do not allow it";

const FILTER_NOT_ALLOWED: &str = "the channel's options do not allow filters (allow_tags_filter)";

const USER_CONNECTIONS_EXHAUSTED: &str =
    "the user has as many connections as it may (limits.user_connections_max)";

const BLOCKED_USERS_EXHAUSTED: &str = "as many users are blocked as may be";

const BACKEND_UNAVAILABLE: &str = "the backend does not answer, try again later";

/// The reason for which a client is refused what it asks for too often.
pub(super) const RATE_EXCEEDED: &str = "too many requests from this client, try again later";

/// The reason for which the server refuses whatever needs memory.
pub(super) const LOW_ON_MEMORY: &str = "server is low on memory, try again later";
