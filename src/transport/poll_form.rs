//! Which of some publications an answer to a poll has.

use std::sync::Arc;

use crate::message::{PayloadKind, Publication};
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
    /// Those of some publications that an answer has. News is not among them.
    pub fn of<'p>(
        self,
        publications: impl Iterator<Item = &'p Arc<Publication>>,
    ) -> Vec<Arc<Publication>> {
        let count_max = match self {
            PollForm::Batch => usize::MAX,
            PollForm::One => 1,
        };
        publications.filter(|item| !item.payload.kind.is_news()).take(count_max).cloned().collect()
    }

    /// Whether some were dropped before the last one that [`PollForm::of`] takes, or before the next one if it takes
    /// none. A position says nothing about those behind it.
    pub fn has_gap(self, publications: &[Arc<Publication>]) -> bool {
        let is_news = |item: &Arc<Publication>| item.payload.kind.is_news();
        let last = match self {
            PollForm::Batch => publications.iter().rposition(|item| !is_news(item)),
            PollForm::One => publications.iter().position(|item| !is_news(item)),
        };
        let before = &publications[..last.unwrap_or(publications.len())];
        before.iter().any(|item| item.payload.kind == PayloadKind::Gap)
    }

    /// The cookie that keeps the position.
    pub fn cookie<'a>(self, channels: impl IntoIterator<Item = &'a str>) -> Option<CookieName> {
        match self {
            PollForm::Batch => None,
            PollForm::One => Some(CookieName::of(channels)),
        }
    }
}
