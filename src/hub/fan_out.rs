//! Handing publications to all local subscribers of a channel, one bounded slice at a time.
//!
//! A channel's subscribers form a ring, and one cursor goes round it for as long as publications are in flight. A visit
//! gives a subscriber everything in flight that it does not have yet, joined into one block: however many publications
//! are under way, a subscriber is sent to once a round. A publication is done when the cursor has been all the way
//! round since it arrived.
//!
//! Invariant: from the cursor on, what subscribers were given never falls ([`Subscription::given`]), so the one at the
//! cursor has been given the least, and what it has is done.

use std::collections::VecDeque;

use slab::Slab;

use super::backlog::first_missed;
use super::local_channel::{LocalChannel, Subscription};
use super::slots::{NONE, slot, some};
use crate::config::limits::{
    FAN_OUT_BLOCK_BYTES_MAX, FAN_OUT_SLICE_COST_MAX, FIRST_SLICE_COST_MAX,
    FIRST_SLICES_COST_DIVISOR, PUBLICATIONS_PER_FAN_OUT_MAX,
};
use crate::message::{ChannelName, Item};

/// Items of one channel on their way to one of its subscribers.
#[derive(Clone, Copy, Debug)]
pub struct FanOutBatch<'a> {
    /// Names the fan-out while it is in progress; small, dense, used again later.
    pub key: u32,
    /// Differs between two fan-outs of one key.
    pub life: u64,
    /// Number of the first item within the channel: they are numbered as they arrived.
    pub start: u64,
    /// Their channel.
    pub channel: &'a ChannelName,
    /// In order; at least one.
    pub items: &'a [Item],
    /// Of their payloads.
    pub bytes: usize,
}

/// What a fan-out's slice has its caller do.
#[derive(Clone, Copy, Debug)]
pub enum FanOutStep<'a> {
    /// Deliver a batch to a subscriber.
    Deliver {
        /// What.
        batch: FanOutBatch<'a>,
        /// Index of the session.
        session: u32,
        /// Whether it may lag: see [`Visit::Behind`].
        may_fall_behind: bool,
        /// Turns for which the fan-out has waited: see [`Visit::Full`].
        turns_waited: u16,
    },
    /// Everything that was in flight went to everyone.
    Done {
        /// May name another fan-out from here on.
        key: u32,
    },
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// It cost this, in units of a small delivery.
    Cost(usize),
    /// Nothing was delivered: as much as fits one send waits for the subscriber already. The fan-out goes on with it
    /// in the next turn. Those behind it wait with it, so one for which the fan-out has waited is to be given more than
    /// that, as far as may be.
    Full,
    /// The subscriber's socket takes no more, or others have waited for it in vain: it is left out until
    /// [`super::Hub::catch_up`].
    Behind,
}

#[derive(Debug, Default)]
pub(super) struct FanOuts {
    entries: Slab<FanOut>,
    /// Those that have not had a slice yet: they go first, so that a publication to a few subscribers does not wait for
    /// a slice of every large fan-out. The scheduling of RFC 8290 4.2, new and old flows.
    new: VecDeque<Turn>,
    /// The others in progress, the next one first. Both may name some that have ended.
    old: VecDeque<Turn>,
    /// Those that can go on in the next turn only.
    full: Vec<Turn>,
    /// Keys of those that had a slice and ended without their last one: of which [`FanOutStep::Done`] is owed.
    ended: Vec<u32>,
    lives: u64,
    waiting: usize,
    waiting_bytes: usize,
}

/// A fan-out's place in the line. Whether it is still in progress is looked at when its turn comes, so that ending
/// one searches nothing.
#[derive(Clone, Copy, Debug)]
struct Turn {
    key: u32,
    life: u64,
}

#[derive(Debug)]
struct FanOut {
    channel: u32,
    /// Differs between two fan-outs of one key.
    life: u64,
    /// Publications that some subscriber may have yet to get.
    in_flight: VecDeque<Item>,
    /// Number of the first of them.
    start: u64,
    /// Turns for which it has waited for the subscriber at the cursor.
    turns_waited: u16,
    /// Whether it had a slice.
    has_begun: bool,
}

/// Where a fan-out stands after a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    GoesOn,
    Full,
    Done,
}

impl FanOuts {
    pub(super) fn backlog(&self) -> (usize, usize) {
        (self.waiting, self.waiting_bytes)
    }

    /// In progress.
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

    /// An item that arrived as number `arrival`.
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

    /// Visits subscribers, channel by channel in turns, until that has cost `cost_max`.
    pub(super) fn run(
        &mut self,
        cost_max: usize,
        channels: &mut Slab<LocalChannel>,
        subscriptions: &mut Slab<Subscription>,
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
            let (spent, progress) = self.slice(turn.key, slice_max, channels, subscriptions, step);
            // A slice is charged even where there was nothing to deliver, so that this loop is bounded.
            cost += spent.max(1);
            cost_of_new += if is_new { spent.max(1) } else { 0 };
            match progress {
                Progress::GoesOn => self.old.push_back(turn),
                // Those that wait for the same subscriber take turns.
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

    /// The fan-out whose turn it is, and whether it is new.
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

    /// Goes on with one fan-out until that has cost `cost_max`. Ends it when everything was delivered.
    fn slice(
        &mut self,
        key: u32,
        cost_max: usize,
        channels: &mut Slab<LocalChannel>,
        subscriptions: &mut Slab<Subscription>,
        step: &mut impl FnMut(FanOutStep<'_>) -> Visit,
    ) -> (usize, Progress) {
        let fan_out = &mut self.entries[key as usize];
        let channel = &mut channels[fan_out.channel as usize];
        let may_fall_behind = channel.backlog.as_ref().is_some_and(|backlog| backlog.keeps());
        let FanOut { start, life, turns_waited, .. } = *fan_out;
        fan_out.turns_waited = 0;
        let in_flight: &[_] = fan_out.in_flight.make_contiguous();
        // The low 32 bits of arrivals are enough: few are in flight together.
        let place = |arrival: u32| arrival.wrapping_sub(start as u32) as usize;
        let (mut cost, mut progress, mut block) = (0, Progress::GoesOn, Block::default());
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
            // One that joined behind all of these is passed over.
            let visit = if first >= end {
                Visit::Cost(1)
            } else {
                let (channel, items) = (&channel.name, &in_flight[first..end]);
                let session = subscriber.session;
                let start = start + first as u64;
                let batch = FanOutBatch { key, life, start, channel, items, bytes };
                step(FanOutStep::Deliver { batch, session, may_fall_behind, turns_waited })
            };
            match visit {
                Visit::Cost(worth) => {
                    cost += worth.max(1);
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
        let done = some(channel.cursor())
            .map_or(in_flight.len(), |at| place(subscriptions[at as usize].given()));
        self.waiting -= done;
        self.waiting_bytes -=
            fan_out.in_flight.drain(..done).map(|item| item.bytes()).sum::<usize>();
        fan_out.start += done as u64;
        if fan_out.in_flight.is_empty() {
            channel.fan_out = NONE;
            self.entries.remove(key as usize);
            step(FanOutStep::Done { key });
            progress = Progress::Done;
        }
        (cost, progress)
    }

    /// What a subscriber has yet to get, as far as it makes one block.
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

    /// The channel lost its last subscriber.
    pub(super) fn end(&mut self, local: &LocalChannel) {
        if local.fan_out != NONE {
            let fan_out = self.entries.remove(local.fan_out as usize);
            self.waiting -= fan_out.in_flight.len();
            self.waiting_bytes -= bytes_of(&fan_out.in_flight);
            if fan_out.has_begun {
                self.ended.push(local.fan_out);
            }
        }
        // Without a fan-out in progress no slice looks at them.
        if self.entries.is_empty() {
            self.new.clear();
            self.old.clear();
        }
    }
}

/// As much as may leave together: the same for all subscribers that were given as much.
#[derive(Debug, Default)]
struct Block {
    start: usize,
    end: usize,
    /// Of the payloads.
    bytes: usize,
}

impl Block {
    /// Makes it the block that begins at `start`.
    fn begin(&mut self, start: usize, in_flight: &[Item]) {
        if self.start == start && self.end > start {
            return;
        }
        *self = Self { start, end: start, bytes: 0 };
        for item in in_flight[start..].iter().take(PUBLICATIONS_PER_FAN_OUT_MAX) {
            let bytes = self.bytes + item.bytes();
            if self.end > start && bytes > FAN_OUT_BLOCK_BYTES_MAX {
                break;
            }
            (self.end, self.bytes) = (self.end + 1, bytes);
        }
    }

    /// The end of the part that begins at `first`, and its bytes.
    fn from(&self, first: usize, in_flight: &[Item]) -> (usize, usize) {
        let before = bytes_of(&in_flight[self.start..first.min(self.end)]);
        (self.end, self.bytes - before)
    }
}

fn bytes_of<'a>(items: impl IntoIterator<Item = &'a Item>) -> usize {
    items.into_iter().map(Item::bytes).sum()
}
