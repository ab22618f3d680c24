//! What subscribers want of a channel beside all of it as it is: deltas, or only the publications that fit a filter.
//! Subscribers that want neither cost nothing here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::filters::{Block, Filters, Selected, remove_excluded};
use super::local_channel::{Form, LocalChannel, Subscription};
use super::message::HubOutput;
use crate::config::limits::PUBLICATION_BYTES;
use crate::message::{ChannelName, ClientId, Item, Publication, Rendition, TagsFilter};

/// The forms in which the subscribers of this worker get publications.
#[derive(Debug, Default)]
pub(super) struct Forms {
    filters: Filters,
    /// By the slots of channels, those with subscribers that take deltas.
    deltas: HashMap<u32, Deltas>,
    kept_bytes: usize,
}

/// A channel with subscribers that take deltas.
#[derive(Debug, Default)]
struct Deltas {
    /// The number of these subscribers.
    subscribers: u32,
    /// The last publication that every subscriber has received, if it is kept.
    last: Option<Arc<Publication>>,
}

impl Forms {
    /// A subscription to the channel in slot `key` begins.
    pub(super) fn begin(
        &mut self,
        subscription: u32,
        form: Form,
        filter: Option<&Arc<TagsFilter>>,
        key: u32,
        local: &mut LocalChannel,
    ) {
        if let Some(filter) = filter {
            self.filters.insert(subscription, filter);
        }
        if form == Form::DeltasNext {
            self.deltas.entry(key).or_default().subscribers += 1;
            local.has_deltas = true;
        }
    }

    /// A subscription ends.
    pub(super) fn end(&mut self, subscription: u32, node: &Subscription, local: &mut LocalChannel) {
        if node.is_filtered() {
            self.filters.remove(subscription);
        }
        if node.takes_deltas()
            && let Some(deltas) = self.deltas.get_mut(&node.channel)
        {
            deltas.subscribers -= 1;
            if deltas.subscribers == 0 {
                self.set_last(node.channel, None);
                self.deltas.remove(&node.channel);
                local.has_deltas = false;
            }
        }
    }

    /// What the filter of a subscription selects of a block, and how long that took.
    pub(super) fn select(
        &mut self,
        subscription: u32,
        node: &Subscription,
        block: Block,
        items: &[Item],
    ) -> (&Selected, usize) {
        match node.is_filtered() {
            true => self.filters.select(subscription, block, items),
            false => (&Selected::All, 0),
        }
    }

    /// The last publication that every subscriber of a channel has received, if it is kept.
    pub(super) fn last(&self, key: u32) -> Option<Arc<Publication>> {
        self.deltas.get(&key)?.last.clone()
    }

    /// Keeps the last publication that every subscriber of a channel has received, if some of them take deltas.
    pub(super) fn set_last(&mut self, key: u32, last: Option<Arc<Publication>>) {
        let Some(deltas) = self.deltas.get_mut(&key) else { return };
        let before = std::mem::replace(&mut deltas.last, last);
        self.kept_bytes += deltas.last.as_deref().map_or(0, bytes_of);
        self.kept_bytes -= before.as_deref().map_or(0, bytes_of);
    }

    /// Forgets the last publication of a channel, because memory is low: the next one is sent whole.
    pub(super) fn shed(&mut self, key: u32, local: &LocalChannel) {
        if local.has_deltas {
            self.set_last(key, None);
        }
    }

    /// Has a subscriber get those of these items that are for it, apart from others.
    pub(super) fn deliver(
        &self,
        subscription: u32,
        node: &Subscription,
        client: ClientId,
        channel: &ChannelName,
        mut items: Vec<Item>,
        out: &mut VecDeque<HubOutput>,
    ) {
        remove_excluded(&mut items, client);
        if node.is_filtered() {
            self.filters.retain(subscription, &mut items);
        }
        if !items.is_empty() {
            let rendition = if node.takes_deltas() { Rendition::Whole } else { Rendition::Plain };
            let (session, channel) = (client.session, channel.clone());
            out.push_back(HubOutput::Deliver { session, channel, items, rendition });
        }
    }

    /// Bytes of all filters.
    pub(super) fn filter_bytes(&self) -> usize {
        self.filters.bytes()
    }

    /// Bytes of the publications that the next deltas are made from.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }
}

fn bytes_of(publication: &Publication) -> usize {
    publication.payload.heap_bytes() + PUBLICATION_BYTES as usize
}
