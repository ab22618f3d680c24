//! Which items of a batch the answer to a poll contains.

use std::sync::Arc;

use crate::message::{Item, Publication};
use crate::protocol::long_poll::CookieName;

/// How a poll is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollForm {
    /// With all there is, to a client that keeps its position.
    Batch,
    /// With one publication, its payload as `data`, and the position in a cookie: for `fetch('/poll')` in a loop.
    One,
}

impl PollForm {
    /// The publications that an answer contains. Joins and leaves are not among them.
    pub fn of(self, items: &[Item]) -> Vec<Arc<Publication>> {
        let count_max = match self {
            PollForm::Batch => usize::MAX,
            PollForm::One => 1,
        };
        items.iter().filter_map(Item::publication).take(count_max).cloned().collect()
    }

    /// Whether publications were dropped in front of the last one that [`PollForm::of`] takes, or in front of the next
    /// one if it takes none. A position says nothing about those behind it.
    pub fn has_gap(self, items: &[Item]) -> bool {
        let is_publication = |item: &Item| item.publication().is_some();
        let last = match self {
            PollForm::Batch => items.iter().rposition(is_publication),
            PollForm::One => items.iter().position(is_publication),
        };
        let before = &items[..last.unwrap_or(items.len())];
        before.iter().any(|item| matches!(item, Item::Gap(_)))
    }

    /// The cookie that keeps the position.
    pub fn cookie<'a>(self, channels: impl IntoIterator<Item = &'a str>) -> Option<CookieName> {
        match self {
            PollForm::Batch => None,
            PollForm::One => Some(CookieName::of(channels)),
        }
    }
}
