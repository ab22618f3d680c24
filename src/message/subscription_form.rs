//! What a subscriber gets of a channel, and in which form.

use std::sync::Arc;

use super::{Payload, Position, TagsFilter};

/// What a client asks for when it subscribes, beside the channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionForm {
    /// Whether it takes deltas: publications as what differs from the one before.
    pub takes_deltas: bool,
    /// The publications that it wants; `None` for all.
    pub filter: Option<Arc<TagsFilter>>,
    /// What it says to the backend that decides about it.
    pub data: Option<Box<Payload>>,
}

/// What a client asks for when it connects, of a channel that the server may subscribe it to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionWish {
    /// Where it was in the channel when it was connected before.
    pub since: Option<Position>,
    /// Whether it takes deltas.
    pub takes_deltas: bool,
}

/// How a publication is written for a subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rendition {
    /// As it is.
    #[default]
    Plain,
    /// As it is, for a subscriber that takes deltas and does not have the publication before it.
    Whole,
    /// As what differs from the publication before it, if that is shorter.
    Delta,
}

impl SubscriptionForm {
    /// Bytes that it takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let filter =
            self.filter.as_ref().map_or(0, |filter| size_of::<TagsFilter>() + filter.heap_bytes());
        filter + self.data.as_ref().map_or(0, |data| size_of::<Payload>() + data.heap_bytes())
    }
}
