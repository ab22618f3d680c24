//! Who came and went, gathered for a moment before it is told: whoever leaves again at once is not mentioned, unless
//! somebody was told meanwhile that they are there.

use std::collections::{HashMap, VecDeque};

use crate::config::limits::NEWS_PER_CHANNEL_MAX;
use crate::message::{ChannelName, ClientInfo, Item};

/// News of the channels whose home is this worker.
#[derive(Debug, Default)]
pub(super) struct News {
    channels: HashMap<ChannelName, Gathered>,
    /// Channels in `channels`, by when they are due.
    due: VecDeque<(u64, ChannelName)>,
}

/// What has yet to be told of one channel.
#[derive(Debug, Default)]
struct Gathered {
    items: Vec<Item>,
    /// The first so many were there when subscribers were named.
    named: usize,
}

/// How long news is gathered.
pub(super) const NEWS_DELAY_MS: u64 = 1000;

impl News {
    pub(super) fn add(&mut self, channel: ChannelName, item: Item, now_ms: u64) {
        let Gathered { items, named } = self.channels.entry(channel.clone()).or_insert_with(|| {
            self.due.push_back((now_ms + NEWS_DELAY_MS, channel));
            Gathered::default()
        });
        if let Item::Left(left) = &item
            && let Some(at) = items[*named..].iter().rposition(|other| has_joined(other, left))
        {
            items.remove(*named + at);
        } else if items.len() < NEWS_PER_CHANNEL_MAX {
            items.push(item);
        }
    }

    /// A worker named its subscribers of a channel: of those who are among them, the leaving is told too.
    pub(super) fn name(&mut self, channel: &ChannelName) {
        if let Some(gathered) = self.channels.get_mut(channel) {
            gathered.named = gathered.items.len();
        }
    }

    /// The next channel whose news is due.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<(ChannelName, Vec<Item>)> {
        if self.next_due()? > now_ms {
            return None;
        }
        let (_, channel) = self.due.pop_front()?;
        let Gathered { items, .. } = self.channels.remove(&channel)?;
        Some((channel, items))
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.front().map(|(due, _)| *due)
    }
}

/// Whether an item is the join of this client.
fn has_joined(item: &Item, client: &ClientInfo) -> bool {
    matches!(item, Item::Joined(info) if info.client == client.client)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::{ClientId, NodeId, SessionId, WorkerId};

    fn item(index: u32, has_joined: bool) -> Item {
        let session = SessionId { index, generation: 1 };
        let client = ClientId { node: NodeId::new(1), worker: WorkerId(0), session };
        let info = Arc::new(ClientInfo::anonymous(client));
        if has_joined { Item::Joined(info) } else { Item::Left(info) }
    }

    #[test]
    fn who_leaves_at_once_is_not_mentioned() {
        let mut news = News::default();
        let channel = ChannelName::new("a").unwrap();
        for (index, has_joined) in [(1, true), (2, true), (3, false), (1, false)] {
            news.add(channel.clone(), item(index, has_joined), 50);
        }
        assert_eq!(news.next_due(), Some(50 + NEWS_DELAY_MS));
        assert_eq!(news.take_due(49 + NEWS_DELAY_MS), None);
        let due = news.take_due(50 + NEWS_DELAY_MS);
        assert_eq!(due, Some((channel, vec![item(2, true), item(3, false)])));
        assert_eq!(news.next_due(), None);
    }

    #[test]
    fn who_was_named_is_told_to_leave() {
        let mut news = News::default();
        let channel = ChannelName::new("a").unwrap();
        // There is nothing yet.
        news.name(&channel);
        news.add(channel.clone(), item(1, true), 0);
        news.name(&channel);
        for (index, has_joined) in [(2, true), (1, false), (2, false), (1, true), (1, false)] {
            news.add(channel.clone(), item(index, has_joined), 0);
        }
        let due = news.take_due(NEWS_DELAY_MS);
        assert_eq!(due, Some((channel, vec![item(1, true), item(1, false)])));
    }

    #[test]
    fn news_of_a_channel_is_bounded() {
        let mut news = News::default();
        let channel = ChannelName::new("a").unwrap();
        for index in 0..=NEWS_PER_CHANNEL_MAX as u32 {
            news.add(channel.clone(), item(index, true), 0);
        }
        let (_, items) = news.take_due(NEWS_DELAY_MS).unwrap();
        assert_eq!(items.len(), NEWS_PER_CHANNEL_MAX);
    }
}
