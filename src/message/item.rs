//! What a channel delivers to its subscribers.

use std::sync::Arc;

use super::{ClientInfo, Publication};

/// One item of what a channel delivers, in order. Only publications have a position, and only they are kept in a
/// history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A publication, shared by all of its subscribers.
    Publication(Arc<Publication>),
    /// A client subscribed.
    Joined(Arc<ClientInfo>),
    /// A client unsubscribed, or its session ended.
    Left(Arc<ClientInfo>),
    /// The channel's delivery policy dropped so many publications in front of the next one.
    Gap(u64),
}

/// A fan-out in progress holds its items by value.
const _: () = assert!(size_of::<Item>() <= 16);

/// About what the JSON of a join, a leave or a gap takes.
const NOTICE_BYTES: usize = 32;

impl Item {
    /// The publication, if it is one.
    pub fn publication(&self) -> Option<&Arc<Publication>> {
        match self {
            Item::Publication(publication) => Some(publication),
            Item::Joined(_) | Item::Left(_) | Item::Gap(_) => None,
        }
    }

    /// Bytes of a publication's payload, and about as many as the others take on the wire.
    pub fn bytes(&self) -> usize {
        self.publication().map_or(NOTICE_BYTES, |publication| publication.payload.bytes.len())
    }
}
