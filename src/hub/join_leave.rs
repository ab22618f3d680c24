//! Join and leave events of the channels whose home is this worker, debounced: a client that joins and leaves within
//! the delay produces no event, unless a presence reply has listed it meanwhile. Events of all workers come in; after
//! the delay, those that are left go out to the channel's subscribers.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::message::{HubOutput, StreamMessage};
use super::settings::HubSettings;
use crate::config::limits::JOIN_LEAVE_PER_CHANNEL_MAX;
use crate::message::{ChannelName, ClientInfo, Item};

/// Joins and leaves of the channels whose home is this worker.
#[derive(Debug, Default)]
pub(super) struct JoinLeave {
    channels: HashMap<ChannelName, Gathered>,
    /// The channels in `channels`, with the times at which they are due in milliseconds.
    due: VecDeque<(u64, ChannelName)>,
}

/// Joins and leaves of one channel that are not delivered yet.
#[derive(Debug, Default)]
struct Gathered {
    items: Vec<Item>,
    /// The number of items that precede the last presence reply.
    listed: usize,
}

/// How long joins and leaves are gathered, in milliseconds.
pub(super) const JOIN_LEAVE_DELAY_MS: u64 = 1000;

impl JoinLeave {
    /// Adds a join or a leave. A leave cancels the client's join, unless a presence reply may have listed the client.
    pub(super) fn add(&mut self, channel: ChannelName, item: Item, now_ms: u64) {
        let Gathered { items, listed } =
            self.channels.entry(channel.clone()).or_insert_with(|| {
                self.due.push_back((now_ms + JOIN_LEAVE_DELAY_MS, channel));
                Gathered::default()
            });
        if let Item::Left(left) = &item
            && let Some(at) = items[*listed..].iter().rposition(|other| has_joined(other, left))
        {
            items.remove(*listed + at);
        } else if items.len() < JOIN_LEAVE_PER_CHANNEL_MAX {
            items.push(item);
        }
    }

    /// A presence reply listed subscribers of a channel: leaves of clients that joined before it are delivered.
    pub(super) fn mark_listed(&mut self, channel: &ChannelName) {
        if let Some(gathered) = self.channels.get_mut(channel) {
            gathered.listed = gathered.items.len();
        }
    }

    /// Removes the next channel whose joins and leaves are due.
    pub(super) fn take_due(&mut self, now_ms: u64) -> Option<(ChannelName, Vec<Item>)> {
        if self.next_due()? > now_ms {
            return None;
        }
        let (_, channel) = self.due.pop_front()?;
        let Gathered { items, .. } = self.channels.remove(&channel)?;
        Some((channel, items))
    }

    /// The time at which joins and leaves are due, in milliseconds.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.front().map(|(due, _)| *due)
    }
}

/// Whether an item is the join of this client.
fn has_joined(item: &Item, client: &ClientInfo) -> bool {
    matches!(item, Item::Joined(info) if info.client == client.client)
}

/// Notifies a channel's home that a client joined or left.
pub(super) fn send_join_leave(
    channel: ChannelName,
    client: Arc<ClientInfo>,
    item: fn(Arc<ClientInfo>) -> Item,
    settings: &HubSettings,
    out: &mut VecDeque<HubOutput>,
) {
    let to = settings.home_of(&channel);
    let item = item(client);
    out.push_back(HubOutput::send(to, StreamMessage::JoinLeave { channel, item }));
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
    fn a_client_that_leaves_at_once_produces_no_event() {
        let mut events = JoinLeave::default();
        let channel = ChannelName::new("a").unwrap();
        for (index, has_joined) in [(1, true), (2, true), (3, false), (1, false)] {
            events.add(channel.clone(), item(index, has_joined), 50);
        }
        assert_eq!(events.next_due(), Some(50 + JOIN_LEAVE_DELAY_MS));
        assert_eq!(events.take_due(49 + JOIN_LEAVE_DELAY_MS), None);
        let due = events.take_due(50 + JOIN_LEAVE_DELAY_MS);
        assert_eq!(due, Some((channel, vec![item(2, true), item(3, false)])));
        assert_eq!(events.next_due(), None);
    }

    #[test]
    fn a_leave_is_delivered_for_every_client_listed_in_a_presence_reply() {
        let mut events = JoinLeave::default();
        let channel = ChannelName::new("a").unwrap();
        // There are no events yet.
        events.mark_listed(&channel);
        events.add(channel.clone(), item(1, true), 0);
        events.mark_listed(&channel);
        for (index, has_joined) in [(2, true), (1, false), (2, false), (1, true), (1, false)] {
            events.add(channel.clone(), item(index, has_joined), 0);
        }
        let due = events.take_due(JOIN_LEAVE_DELAY_MS);
        assert_eq!(due, Some((channel, vec![item(1, true), item(1, false)])));
    }

    #[test]
    fn events_of_a_channel_are_bounded() {
        let mut events = JoinLeave::default();
        let channel = ChannelName::new("a").unwrap();
        for index in 0..=JOIN_LEAVE_PER_CHANNEL_MAX as u32 {
            events.add(channel.clone(), item(index, true), 0);
        }
        let (_, items) = events.take_due(JOIN_LEAVE_DELAY_MS).unwrap();
        assert_eq!(items.len(), JOIN_LEAVE_PER_CHANNEL_MAX);
    }
}
