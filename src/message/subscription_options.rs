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
    /// Replaces options of the namespace.
    pub overrides: Overrides,
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
    /// Approximate number of bytes that they take on the heap.
    pub fn heap_bytes(&self) -> usize {
        let Self { info, data, .. } = self;
        size_of::<Self>() + [info, data].into_iter().flatten().map(Bytes::len).sum::<usize>()
    }
}
