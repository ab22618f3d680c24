//! The filters of subscriptions. Equal ones are kept once, and evaluated once for each block of a fan-out.

use std::collections::HashMap;
use std::sync::Arc;

use slab::Slab;

use super::slots::slot;
use crate::message::{ClientId, Item, TagsFilter};

/// The filters of this worker's subscriptions.
#[derive(Debug, Default)]
pub(super) struct Filters {
    entries: Slab<Entry>,
    slots: HashMap<Arc<TagsFilter>, u32>,
    /// By the slots of subscriptions, the slots of their filters.
    subscriptions: HashMap<u32, u32>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    filter: Arc<TagsFilter>,
    /// The number of subscriptions with this filter.
    subscriptions: u32,
    /// What it last selected: the next subscriber is likely to ask for the same.
    last: Option<(Block, Selected)>,
}

/// Items of a fan-out in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Distinguishes the fan-outs of a worker, see `FanOutBatch::life`.
    pub life: u64,
    /// The arrival number of the first item.
    pub start: u64,
    /// The number of items.
    pub len: usize,
}

/// What a filter selects of the items of a block. Joins, leaves and gaps fit every filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selected {
    /// All of them.
    All,
    /// Only the marked ones, perhaps none.
    Some(Box<[bool]>),
}

impl Filters {
    /// A subscription with a filter begins.
    pub(super) fn insert(&mut self, subscription: u32, filter: &Arc<TagsFilter>) {
        let entries = &mut self.entries;
        let key = *self.slots.entry(filter.clone()).or_insert_with(|| {
            self.bytes += bytes_of(filter);
            slot(entries.insert(Entry { filter: filter.clone(), subscriptions: 0, last: None }))
        });
        entries[key as usize].subscriptions += 1;
        self.bytes += SUBSCRIPTION_BYTES;
        self.subscriptions.insert(subscription, key);
    }

    /// A subscription with a filter ends.
    pub(super) fn remove(&mut self, subscription: u32) {
        if self.subscriptions.is_empty() {
            return;
        }
        let Some(key) = self.subscriptions.remove(&subscription) else { return };
        self.bytes -= SUBSCRIPTION_BYTES;
        let entry = &mut self.entries[key as usize];
        entry.subscriptions -= 1;
        if entry.subscriptions == 0 {
            let Entry { filter, .. } = self.entries.remove(key as usize);
            self.bytes -= bytes_of(&filter);
            self.slots.remove(&filter);
        }
        if self.subscriptions.is_empty() {
            *self = Self::default();
        }
    }

    /// What the filter of a subscription selects of a block, and how long that took, see [`TagsFilter::work`].
    pub(super) fn select(
        &mut self,
        subscription: u32,
        block: Block,
        items: &[Item],
    ) -> (&Selected, usize) {
        let Some(key) = self.subscriptions.get(&subscription) else { return (&Selected::All, 0) };
        let Entry { filter, last, .. } = &mut self.entries[*key as usize];
        let mut work = 0;
        if last.as_ref().is_none_or(|(of, _)| *of != block) {
            work = items.iter().filter_map(Item::publication).map(|it| filter.work(it)).sum();
            *last = Some((block, Selected::by(filter, items)));
        }
        (last.as_ref().map_or(&Selected::All, |(_, selected)| selected), work)
    }

    /// Removes what does not fit the filter of a subscription.
    pub(super) fn retain(&self, subscription: u32, items: &mut Vec<Item>) {
        if let Some(key) = self.subscriptions.get(&subscription) {
            let filter = &self.entries[*key as usize].filter;
            items.retain(|item| fits(filter, item));
        }
    }

    /// Bytes of all filters.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Selected {
    fn by(filter: &TagsFilter, items: &[Item]) -> Self {
        let marks: Box<[bool]> = items.iter().map(|item| fits(filter, item)).collect();
        if marks.iter().all(|fits| *fits) { Selected::All } else { Selected::Some(marks) }
    }
}

/// Removes the publications that a client does not receive when they are published.
pub(super) fn remove_excluded(items: &mut Vec<Item>, client: ClientId) {
    items.retain(|item| {
        item.publication().is_none_or(|publication| publication.excludes != Some(client))
    });
}

fn fits(filter: &TagsFilter, item: &Item) -> bool {
    item.publication().is_none_or(|publication| filter.selects(publication))
}

fn bytes_of(filter: &TagsFilter) -> usize {
    ENTRY_BYTES + filter.heap_bytes()
}

/// Bytes of a filter besides its nodes: its entry, and its place in the table.
const ENTRY_BYTES: usize = size_of::<Entry>() + 2 * size_of::<TagsFilter>();

/// Bytes of a subscription with a filter: its place in the table.
const SUBSCRIPTION_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{
        ChannelName, Epoch, FilterNode, Payload, PayloadKind, Position, Publication, Tags,
    };

    fn filter(text: &str) -> Arc<TagsFilter> {
        let (key, cmp, val) = ("lang".into(), "eq".into(), text.into());
        Arc::new(TagsFilter::new(FilterNode { key, cmp, val, ..Default::default() }).unwrap())
    }

    fn items(languages: &[&str]) -> Vec<Item> {
        let of = |(text, offset): (&&str, u64)| {
            let tags = Tags::new([("lang", *text)]).unwrap();
            Item::Publication(Arc::new(Publication {
                channel: ChannelName::new("a").unwrap(),
                position: Position { epoch: Epoch(1), offset },
                payload: Payload { tags, ..Payload::new(PayloadKind::Text, "x") },
                info: None,
                accepted_us: 0,
                excludes: None,
                in_stream: true,
            }))
        };
        languages.iter().zip(1..).map(of).collect()
    }

    #[test]
    fn equal_filters_are_kept_once_and_evaluated_once_for_a_block() {
        let mut filters = Filters::default();
        filters.insert(1, &filter("en"));
        let one = filters.bytes();
        filters.insert(2, &filter("en"));
        assert_eq!(filters.bytes(), one + SUBSCRIPTION_BYTES);
        filters.insert(3, &filter("de"));
        assert_eq!(filters.entries.len(), 2);
        let (block, both) = (Block { life: 1, start: 7, len: 2 }, items(&["en", "de"]));
        let marked = |marks: &[bool]| Selected::Some(marks.into());
        let (selected, work) = filters.select(1, block, &both);
        assert!(*selected == marked(&[true, false]) && work > 0);
        assert_eq!(filters.select(2, block, &both), (&marked(&[true, false]), 0));
        assert_eq!(filters.select(3, block, &both).0, &marked(&[false, true]));
        // Another block.
        for (block, languages, expected) in [
            (Block { start: 8, len: 1, ..block }, &["en"][..], Selected::All),
            (Block { life: 2, ..block }, &["en", "en"], Selected::All),
            (Block { life: 3, ..block }, &["fr", "de"], marked(&[false, false])),
        ] {
            let (selected, work) = filters.select(1, block, &items(languages));
            assert!(*selected == expected && work > 0, "{languages:?}");
        }
        let mut rest = vec![Item::Gap(3)];
        rest.extend(both);
        filters.retain(3, &mut rest);
        assert!(
            matches!(&rest[..], [Item::Gap(3), Item::Publication(it)] if it.position.offset == 2)
        );
        filters.remove(1);
        assert_eq!(filters.entries.len(), 2, "the second one has it still");
        filters.remove(2);
        filters.remove(3);
        assert!(filters.bytes() == 0 && filters.slots.is_empty() && filters.entries.is_empty());
    }
}
