//! How refusals are reported to clients, over HTTP and in the command protocol: one row each.

use crate::message::Refusal;
use crate::protocol::json::CommandError;

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
        Refusal::PermissionDenied => (
            403,
            "permission_denied",
            Error::PermissionDenied,
            "the channel's options do not allow it",
        ),
        Refusal::NotAvailable => {
            (403, "not_available", Error::NotAvailable, "the channel's options do not offer it")
        }
        Refusal::PositionUnrecoverable => (
            410,
            "position_unrecoverable",
            Error::UnrecoverablePosition,
            "the publications after this position are no longer kept",
        ),
        Refusal::Overloaded => (503, "overloaded", Error::TooManyRequests, LOW_ON_MEMORY),
        Refusal::BackendUnavailable => (
            503,
            "backend_unavailable",
            Error::Internal,
            "the backend does not answer, try again later",
        ),
    };
    RefusalRow { status, code, error, sentence }
}

impl RefusalRow {
    /// The reason in words where the error of the command protocol says too little by itself.
    pub fn detail(self) -> Option<&'static str> {
        let is_general =
            matches!(self.error, CommandError::BadRequest | CommandError::TooManyRequests);
        is_general.then_some(self.sentence)
    }
}

/// The reason for which a client is refused what it asks for too often.
pub(super) const RATE_EXCEEDED: &str = "too many requests from this client, try again later";

/// The reason for which the server refuses whatever needs memory.
pub(super) const LOW_ON_MEMORY: &str = "server is low on memory, try again later";
