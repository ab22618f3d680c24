//! What a token or a backend says about a subscription.

use bytes::Bytes;

#[cfg(doc)]
use super::INFO_BYTES_MAX;

/// What a backend says about a subscription: in a token, in its answer to a callback, or in a call of the server API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// What others see of the subscriber beside its identity: a JSON value of at most [`INFO_BYTES_MAX`] bytes, on one
    /// line.
    pub info: Option<Bytes>,
    /// What the client gets when it is subscribed, a JSON value on one line.
    pub data: Option<Bytes>,
    /// When the subscription expires, in seconds since 1970.
    pub expires_at: Option<u64>,
    /// Whether the server asks the backend when it expires; otherwise the client prolongs it by a new token.
    pub is_renewed_by_backend: bool,
    /// Replaces options of the namespace.
    pub overrides: Overrides,
}

/// What becomes of an identity, or of a subscription, that has expired and that the backend was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is over: the client is disconnected, or its subscription ends.
    Expired,
    /// It goes on.
    Prolonged {
        /// Until when, in seconds since 1970; `None` if it does not expire any more.
        expires_at: Option<u64>,
        /// Replaces what others see of the client, or of the subscriber: a JSON value on one line.
        info: Option<Bytes>,
    },
}

/// Options of a namespace that are replaced for one subscription; `None` leaves them as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Whether the client is among the subscribers that are listed.
    pub presence: Option<bool>,
    /// Whether others get events when the client joins and leaves.
    pub join_leave: Option<bool>,
    /// Whether the client gets join and leave events without asking for them.
    pub force_push_join_leave: Option<bool>,
    /// Whether the client gets its position in the stream without asking for it.
    pub force_positioning: Option<bool>,
    /// Whether the client recovers what it missed, without asking for it.
    pub force_recovery: Option<bool>,
}

impl SubscriptionOptions {
    /// When the subscription expires, if the client has to prolong it.
    pub fn expiry_for_client(&self) -> Option<u64> {
        self.expires_at.filter(|_| !self.is_renewed_by_backend)
    }

    /// Approximate number of bytes that they take on the heap.
    pub fn heap_bytes(&self) -> usize {
        let Self { info, data, .. } = self;
        size_of::<Self>() + [info, data].into_iter().flatten().map(Bytes::len).sum::<usize>()
    }
}
