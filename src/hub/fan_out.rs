//! Fan-outs: the delivery of items to all subscribers of a channel on this worker, one bounded slice at a time.
//!
//! A channel's subscribers form a ring, and a cursor moves round it for as long as items are in flight. A visit
//! delivers all items in flight that the subscriber has not received, as one block: however many items are in flight, a
//! subscriber is visited once a round. An item is done when the cursor has gone once round the ring since the item
//! arrived.
//!
//! Invariant: [`Subscription::given`] never decreases from the cursor on round the ring. So the subscriber at the
//! cursor has received the least, and what it has received is done.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use super::backlog::first_missed;
use super::filters::{self, Selected, remove_excluded};
use super::forms::Forms;
use super::local_channel::{LocalChannel, Subscription};
use super::slots::{NONE, slot, some};
use crate::config::limits::{
    FAN_OUT_BLOCK_BYTES_MAX, FAN_OUT_SLICE_COST_MAX, FIRST_SLICE_COST_MAX,
    FIRST_SLICES_COST_DIVISOR, PUBLICATIONS_PER_FAN_OUT_MAX,
};
use crate::message::{ChannelName, ClientId, Item, Publication, Rendition};

/// Comparisons of filters that cost as much as a delivery, see [`crate::message::TagsFilter::work`].
const FILTER_COST_WORK: usize = 256;

/// Items of one channel for one of its subscribers.
#[derive(Clone, Copy, Debug)]
pub struct FanOutBatch<'a> {
    /// Identifies the fan-out while it is in progress: dense from 0, used again afterwards.
    pub key: u32,
    /// Distinguishes fan-outs with the same key.
    pub life: u64,
    /// The arrival number of the first item within the channel.
    pub start: u64,
    /// The channel of the items.
    pub channel: &'a ChannelName,
    /// The items in order, at least one.
    pub items: &'a [Item],
    /// The bytes of the items, see [`Item::bytes`].
    pub bytes: usize,
    /// Whether other subscribers receive the same items. Otherwise this subscriber does not receive one between them.
    pub is_shared: bool,
    /// How publications are written for this subscriber.
    pub rendition: Rendition,
    /// For deltas, the publication before the items, if it is known.
    pub predecessor: Option<&'a Arc<Publication>>,
}

/// What fan-outs visit.
#[derive(Debug)]
pub(super) struct Audience<'a, C> {
    pub channels: &'a mut Slab<LocalChannel>,
    pub subscriptions: &'a mut Slab<Subscription>,
    pub forms: &'a mut Forms,
    /// Knows the client of the session at an index.
    pub client_of: C,
}

/// A step of a fan-out, for the caller to carry out.
#[derive(Clone, Copy, Debug)]
pub enum FanOutStep<'a> {
    /// Deliver a batch to a subscriber.
    Deliver {
        /// The items to deliver.
        batch: FanOutBatch<'a>,
        /// The index of the subscriber's session.
        session: u32,
        /// Whether the caller may return [`Visit::Behind`]: the channel keeps publications for slow subscribers.
        may_fall_behind: bool,
        /// The number of turns for which the fan-out has waited for this subscriber, see [`Visit::Full`].
        turns_waited: u16,
    },
    /// A fan-out has ended: what the caller keeps for its key can be released.
    Done {
        /// The key of the fan-out, which another one may have from now on.
        key: u32,
    },
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// The batch was delivered. The cost, where a small delivery costs 1.
    Cost(usize),
    /// Nothing was delivered, because the subscriber's send queue holds as much as one send takes. The fan-out
    /// continues with this subscriber in the next turn. All subscribers after it wait as well, so the caller should
    /// exceed that limit for a subscriber for which the fan-out has waited.
    Full,
    /// Nothing was delivered, because the subscriber's socket accepts no more bytes, or others have waited for it
    /// without effect. Fan-outs do not visit it until it has caught up, see [`super::Hub::catch_up`].
    Behind,
}

/// The fan-outs in progress on one worker.
#[derive(Debug, Default)]
pub(super) struct FanOuts {
    entries: Slab<FanOut>,
    /// Fan-outs without a slice so far. They are first, so that a publication to a few subscribers does not wait for a
    /// slice of every large fan-out: the scheduling of new and old flows of RFC 8290 4.2.
    new: VecDeque<Turn>,
    /// The other fan-outs, the next one first. Both queues may contain fan-outs that have ended.
    old: VecDeque<Turn>,
    /// Fan-outs that wait for a full send queue until the next turn.
    full: Vec<Turn>,
    /// Keys of fan-outs that ended between slices, for which [`FanOutStep::Done`] is pending.
    ended: Vec<u32>,
    lives: u64,
    waiting: usize,
    waiting_bytes: usize,
}

/// A fan-out in a queue. Whether it is still in progress is checked when its turn comes, so that a fan-out can end
/// without a search for it.
#[derive(Clone, Copy, Debug)]
struct Turn {
    key: u32,
    life: u64,
}

/// The fan-out of one channel.
#[derive(Debug)]
struct FanOut {
    channel: u32,
    /// Distinguishes fan-outs with the same key.
    life: u64,
    /// Items that some subscribers have not received.
    in_flight: VecDeque<Item>,
    /// The arrival number of the first of them.
    start: u64,
    /// The number of turns for which it has waited for the subscriber at the cursor.
    turns_waited: u16,
    /// Whether it has begun: the caller may keep something for its key.
    has_begun: bool,
}

/// The state of a fan-out after a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Continues,
    Full,
    Done,
}

impl<'a> FanOutBatch<'a> {
    /// What identifies its items.
    fn block(&self) -> filters::Block {
        let FanOutBatch { life, start, items, .. } = *self;
        filters::Block { life, start, len: items.len() }
    }

    /// Delivers to a subscriber what its filter selects, without what excludes the client if there may be something.
    /// Returns also whether it got all items.
    fn deliver_to(
        self,
        at: u32,
        subscriber: &Subscription,
        client: Option<ClientId>,
        forms: &mut Forms,
        deliver: impl FnOnce(FanOutBatch<'_>) -> Visit,
    ) -> (Visit, bool) {
        let mut own = Vec::new();
        let (batch, work) = if client.is_none() && !subscriber.is_filtered() {
            (self, 0)
        } else {
            let (selected, work) = forms.select(at, subscriber, self.block(), self.items);
            (self.refine(selected, client, &mut own), work / FILTER_COST_WORK)
        };
        // A subscriber that joined after all of these items is skipped.
        let visit = if batch.items.is_empty() { Visit::Cost(1) } else { deliver(batch) };
        let visit = match visit {
            Visit::Cost(cost) => Visit::Cost(cost.max(1) + work),
            visit => visit,
        };
        (visit, batch.is_shared)
    }

    /// The items that are selected, without those that exclude the client. `own` has room for them if they are not all.
    fn refine(
        self,
        selected: &Selected,
        client: Option<ClientId>,
        own: &'a mut Vec<Item>,
    ) -> FanOutBatch<'a> {
        match selected {
            Selected::All if client.is_none() => return self,
            Selected::All => own.extend_from_slice(self.items),
            Selected::Some(marks) => {
                let marked = self.items.iter().zip(marks).filter(|(_, is_marked)| **is_marked);
                own.extend(marked.map(|(item, _)| item.clone()));
            }
        }
        if let Some(client) = client {
            remove_excluded(own, client);
        }
        if own.len() == self.items.len() {
            return self;
        }
        let rendition = match self.rendition {
            Rendition::Delta => Rendition::Whole,
            rendition => rendition,
        };
        let (items, bytes) = (&own[..], bytes_of(&own[..]));
        FanOutBatch { items, bytes, is_shared: false, rendition, predecessor: None, ..self }
    }
}

impl FanOuts {
    /// The number of items in flight, and their bytes.
    pub(super) fn backlog(&self) -> (usize, usize) {
        (self.waiting, self.waiting_bytes)
    }

    /// The number of fan-outs in progress.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.ended.is_empty()
    }

    #[cfg(test)]
    pub(super) fn line_len(&self) -> usize {
        self.new.len() + self.old.len() + self.full.len()
    }

    /// Adds an item with arrival number `arrival`; starts a fan-out of its channel if none is in progress.
    pub(super) fn add(&mut self, channel: u32, local: &mut LocalChannel, arrival: u64, item: Item) {
        self.waiting += 1;
        self.waiting_bytes += item.bytes();
        if local.fan_out == NONE {
            self.lives += 1;
            let fan_out = FanOut {
                channel,
                life: self.lives,
                in_flight: VecDeque::new(),
                start: arrival,
                turns_waited: 0,
                has_begun: false,
            };
            local.fan_out = slot(self.entries.insert(fan_out));
            self.new.push_back(Turn { key: local.fan_out, life: self.lives });
        }
        let fan_out = &mut self.entries[local.fan_out as usize];
        debug_assert_eq!(fan_out.start + fan_out.in_flight.len() as u64, arrival);
        fan_out.in_flight.push_back(item);
    }

    /// Runs one slice of a fan-out after the other, until that has cost `cost_max`.
    pub(super) fn run(
        &mut self,
        cost_max: usize,
        mut audience: Audience<'_, impl Fn(u32) -> ClientId>,
        step: &mut impl FnMut(FanOutStep<'_>) -> Visit,
    ) {
        for key in self.ended.drain(..) {
            step(FanOutStep::Done { key });
        }
        let (mut cost, mut cost_of_new, mut without_progress) = (0, 0, 0);
        while cost < cost_max {
            let may_be_new = cost_of_new < cost_max.div_ceil(FIRST_SLICES_COST_DIVISOR);
            let Some((turn, is_new)) = self.next(may_be_new) else { break };
            self.entries[turn.key as usize].has_begun = true;
            let slice_max = if is_new { FIRST_SLICE_COST_MAX } else { FAN_OUT_SLICE_COST_MAX };
            let slice_max = slice_max.min(cost_max - cost);
            let (spent, progress) = self.slice(turn.key, slice_max, &mut audience, step);
            // A slice is charged even where there was nothing to deliver, so that this loop is bounded.
            cost += spent.max(1);
            cost_of_new += if is_new { spent.max(1) } else { 0 };
            match progress {
                Progress::Continues => self.old.push_back(turn),
                // Fan-outs that wait for the same subscriber alternate.
                Progress::Full if spent == 0 => {
                    self.full.insert(without_progress, turn);
                    without_progress += 1;
                }
                Progress::Full => {
                    self.entries[turn.key as usize].turns_waited = 1;
                    self.full.push(turn);
                }
                Progress::Done => {}
            }
        }
        self.old.extend(self.full.drain(..));
    }

    /// Removes the next fan-out from its queue. Returns also whether it is new.
    fn next(&mut self, may_be_new: bool) -> Option<(Turn, bool)> {
        let Self { entries, new, old, .. } = self;
        let first = |line: &mut VecDeque<Turn>| {
            std::iter::from_fn(|| line.pop_front()).find(|turn| {
                let entry = entries.get(turn.key as usize);
                entry.is_some_and(|fan_out| fan_out.life == turn.life)
            })
        };
        if may_be_new && let Some(turn) = first(new) {
            return Some((turn, true));
        }
        first(old).map(|turn| (turn, false)).or_else(|| first(new).map(|turn| (turn, true)))
    }

    /// Continues one fan-out until that has cost `cost_max`. Ends it when everything is delivered.
    fn slice(
        &mut self,
        key: u32,
        cost_max: usize,
        audience: &mut Audience<'_, impl Fn(u32) -> ClientId>,
        step: &mut impl FnMut(FanOutStep<'_>) -> Visit,
    ) -> (usize, Progress) {
        let Audience { channels, subscriptions, forms, client_of } = audience;
        let fan_out = &mut self.entries[key as usize];
        let channel = &mut channels[fan_out.channel as usize];
        let may_fall_behind = channel.backlog.as_ref().is_some_and(|backlog| backlog.has_recent());
        let FanOut { start, life, turns_waited, .. } = *fan_out;
        fan_out.turns_waited = 0;
        let in_flight: &[_] = fan_out.in_flight.make_contiguous();
        // The low 32 bits of arrival numbers suffice, because few items are in flight together.
        let place = |arrival: u32| arrival.wrapping_sub(start as u32) as usize;
        let (mut cost, mut progress) = (0, Progress::Continues);
        let mut block = Block::default();
        let last = if channel.has_deltas { forms.last(fan_out.channel) } else { None };
        while cost < cost_max && channel.cursor() != NONE {
            let at = channel.cursor();
            let subscriber = &mut subscriptions[at as usize];
            let given = place(subscriber.given());
            if given == in_flight.len() {
                break;
            }
            let first = given.max(place(subscriber.joined_at()));
            block.begin(given, in_flight);
            let (end, bytes) = block.from(first, in_flight);
            let (session, rendition) = (subscriber.session, subscriber.rendition());
            let batch = FanOutBatch {
                key,
                life,
                start: start + first as u64,
                channel: &channel.name,
                items: in_flight.get(first..end).unwrap_or_default(),
                bytes,
                is_shared: true,
                rendition,
                predecessor: block.predecessor(rendition, in_flight, last.as_ref()),
            };
            let client = block.excludes.then(|| client_of(session));
            let (visit, has_all) = batch.deliver_to(at, subscriber, client, forms, |batch| {
                step(FanOutStep::Deliver { batch, session, may_fall_behind, turns_waited })
            });
            match visit {
                Visit::Cost(worth) => {
                    cost += worth;
                    block.record(first, has_all, subscriber);
                    subscriber.give((start + block.end as u64) as u32);
                    channel.move_cursor(subscriptions);
                }
                Visit::Full => {
                    fan_out.turns_waited = turns_waited.saturating_add(1);
                    progress = Progress::Full;
                    break;
                }
                Visit::Behind => {
                    let from = first_missed(&in_flight[first..], channel.next_offset());
                    channel.fall_behind(at, from, subscriptions);
                    cost += 1;
                }
            }
        }
        if self.remove_done(key, channel, subscriptions, forms) {
            step(FanOutStep::Done { key });
            progress = Progress::Done;
        }
        (cost, progress)
    }

    /// Removes the first items of a fan-out, which all subscribers have received. Returns whether that was all, and so
    /// the end of the fan-out.
    fn remove_done(
        &mut self,
        key: u32,
        channel: &mut LocalChannel,
        subscriptions: &Slab<Subscription>,
        forms: &mut Forms,
    ) -> bool {
        let fan_out = &mut self.entries[key as usize];
        let done = some(channel.cursor()).map_or(fan_out.in_flight.len(), |at| {
            subscriptions[at as usize].given().wrapping_sub(fan_out.start as u32) as usize
        });
        if channel.has_deltas
            && let Some(last) = fan_out.in_flight.range(..done).rev().find_map(Item::publication)
        {
            forms.set_last(fan_out.channel, Some(last.clone()));
        }
        self.waiting -= done;
        self.waiting_bytes -=
            fan_out.in_flight.drain(..done).map(|item| item.bytes()).sum::<usize>();
        fan_out.start += done as u64;
        let is_done = fan_out.in_flight.is_empty();
        if is_done {
            channel.fan_out = NONE;
            self.entries.remove(key as usize);
        }
        is_done
    }

    /// The items that a subscriber has not received, at most one block.
    pub(super) fn rest(&mut self, local: &LocalChannel, subscriber: &Subscription) -> Vec<Item> {
        if local.fan_out == NONE || !subscriber.is_joined() {
            return Vec::new();
        }
        let fan_out = &mut self.entries[local.fan_out as usize];
        let start = fan_out.start as u32;
        let place = |arrival: u32| arrival.wrapping_sub(start) as usize;
        let first = place(subscriber.given()).max(place(subscriber.joined_at()));
        let in_flight = fan_out.in_flight.make_contiguous();
        let mut block = Block::default();
        block.begin(first, in_flight);
        in_flight[first..block.end].to_vec()
    }

    /// Ends the fan-out of a channel that lost its last subscriber.
    pub(super) fn end(&mut self, local: &LocalChannel) {
        if local.fan_out != NONE {
            let fan_out = self.entries.remove(local.fan_out as usize);
            self.waiting -= fan_out.in_flight.len();
            self.waiting_bytes -= bytes_of(&fan_out.in_flight);
            if fan_out.has_begun {
                self.ended.push(local.fan_out);
            }
        }
        // Ended fan-outs are removed from the queues by later slices, of which there are none now.
        if self.entries.is_empty() {
            self.new.clear();
            self.old.clear();
        }
    }
}

/// The items that are delivered together: the same for all subscribers that have received the same.
#[derive(Debug, Default)]
struct Block {
    start: usize,
    end: usize,
    /// The bytes of its items.
    bytes: usize,
    /// Whether some client does not receive all of them.
    excludes: bool,
    /// The place of its last publication.
    last: Option<usize>,
    /// The place of the last publication before it, if that is still in flight.
    before: Option<usize>,
}

impl Block {
    /// Computes the block that begins at `start`, unless this is it.
    fn begin(&mut self, start: usize, in_flight: &[Item]) {
        if self.start == start && self.end > start {
            return;
        }
        *self = Self { start, end: start, ..Self::default() };
        self.before = in_flight[..start].iter().rposition(|item| item.publication().is_some());
        for (at, item) in
            in_flight.iter().enumerate().skip(start).take(PUBLICATIONS_PER_FAN_OUT_MAX)
        {
            let bytes = self.bytes + item.bytes();
            if self.end > start && bytes > FAN_OUT_BLOCK_BYTES_MAX {
                break;
            }
            (self.end, self.bytes) = (self.end + 1, bytes);
            if let Some(publication) = item.publication() {
                self.last = Some(at);
                self.excludes |= publication.excludes.is_some();
            }
        }
    }

    /// Records whether a subscriber that got the part of it that begins at `first` has its last publication.
    fn record(&self, first: usize, has_all: bool, subscriber: &mut Subscription) {
        if self.last >= Some(first) || !has_all {
            subscriber.set_predecessor(has_all);
        }
    }

    /// For deltas, the publication before it. `last` is the one before all that is in flight.
    fn predecessor<'a>(
        &self,
        rendition: Rendition,
        in_flight: &'a [Item],
        last: Option<&'a Arc<Publication>>,
    ) -> Option<&'a Arc<Publication>> {
        let before = || self.before.and_then(|at| in_flight[at].publication()).or(last);
        (rendition == Rendition::Delta).then(before).flatten()
    }

    /// The end of the part of the block that begins at `first`, and its bytes.
    fn from(&self, first: usize, in_flight: &[Item]) -> (usize, usize) {
        let before = bytes_of(&in_flight[self.start..first.min(self.end)]);
        (self.end, self.bytes - before)
    }
}

fn bytes_of<'a>(items: impl IntoIterator<Item = &'a Item>) -> usize {
    items.into_iter().map(Item::bytes).sum()
}
