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
    /// The channel's delivery policy dropped this number of publications before the next one.
    Gap(u64),
}

// A fan-out in progress holds its items by value.
const _: () = assert!(size_of::<Item>() <= 16);

/// What a join, a leave or a gap counts as in limits of bytes, where publications count their payloads. Less than its
/// JSON takes: it is never what reaches such a limit, because limits on the number of items apply first.
const NOTICE_BYTES: usize = 32;

impl Item {
    /// The publication, if it is one.
    pub fn publication(&self) -> Option<&Arc<Publication>> {
        match self {
            Item::Publication(publication) => Some(publication),
            Item::Joined(_) | Item::Left(_) | Item::Gap(_) => None,
        }
    }

    /// The bytes that count towards limits: the payload's of a publication, a fixed number for other items.
    pub fn bytes(&self) -> usize {
        self.publication().map_or(NOTICE_BYTES, |publication| publication.heap_bytes())
    }
}
