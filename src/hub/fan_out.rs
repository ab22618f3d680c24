//! Handing publications to all local subscribers of a channel, one bounded slice at a time.
//!
//! A channel has at most one fan-out in progress. What is published meanwhile waits behind it and then leaves as
//! one batch: the more a channel is behind, the more publications share one send. Subscribers are visited in the
//! order in which they joined; each knows the number of the first arrival that is for it.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use super::backlog::first_missed;
use super::local::{LocalChannel, Subscription};
use super::{NONE, index};
use crate::config::limits::{FAN_OUT_BLOCK_BYTES_MAX, PUBLICATIONS_PER_FAN_OUT_MAX};
use crate::message::Publication;

/// Publications of one channel on their way to each of its subscribers.
#[derive(Clone, Copy, Debug)]
pub struct FanOutBatch<'a> {
    /// Names the fan-out while it is in progress; small, dense, used again later.
    pub key: u32,
    /// Differs between two batches of one key.
    pub serial: u32,
    /// In order; at least one.
    pub publications: &'a [Arc<Publication>],
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
        /// Number of the first publication of the batch that is for it.
        first: usize,
        /// Whether it may lag: see [`Visit::Lags`].
        may_lag: bool,
    },
    /// The batch with this key went to everyone.
    Done {
        /// May name another batch from here on.
        key: u32,
    },
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// It cost this, in units of a small delivery.
    Cost(usize),
    /// The subscriber's socket takes no more: it is left out until [`super::Hub::catch_up`].
    Lags,
}

#[derive(Debug, Default)]
pub(super) struct FanOuts {
    entries: Slab<FanOut>,
    /// Those in progress, the next one first, and perhaps some that have ended.
    turns: VecDeque<Turn>,
    serial: u32,
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
    /// Empty between two batches.
    batch: Vec<Arc<Publication>>,
    batch_serial: u32,
    /// Number of the batch's first publication.
    batch_start: u64,
    /// The subscriber to visit next.
    cursor: u32,
    pending: VecDeque<Arc<Publication>>,
    /// Number of the first pending publication.
    pending_start: u64,
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
        self.entries.is_empty()
    }

    /// The fan-out whose turn it is; it goes to the end of the line.
    pub(super) fn next(&mut self) -> Option<u32> {
        while let Some(turn) = self.turns.pop_front() {
            let entry = self.entries.get(turn.key as usize);
            if entry.is_some_and(|fan_out| fan_out.life == turn.life) {
                self.turns.push_back(turn);
                return Some(turn.key);
            }
        }
        None
    }

    /// A publication that arrived as number `arrival`.
    pub(super) fn add(
        &mut self,
        channel: u32,
        local: &mut LocalChannel,
        arrival: u64,
        publication: Arc<Publication>,
    ) {
        self.waiting += 1;
        self.waiting_bytes += publication.payload.bytes.len();
        if local.fan_out == NONE {
            self.lives += 1;
            let fan_out = FanOut {
                channel,
                life: self.lives,
                batch: Vec::new(),
                batch_serial: 0,
                batch_start: 0,
                cursor: NONE,
                pending: VecDeque::new(),
                pending_start: arrival,
            };
            local.fan_out = index(self.entries.insert(fan_out));
            self.turns.push_back(Turn { key: local.fan_out, life: self.lives });
        }
        let fan_out = &mut self.entries[local.fan_out as usize];
        debug_assert_eq!(fan_out.pending_start + fan_out.pending.len() as u64, arrival);
        fan_out.pending.push_back(publication);
    }

    /// Visits subscribers until that has cost `cost_max`; returns what it cost. Ends the fan-out when all was
    /// delivered.
    pub(super) fn slice(
        &mut self,
        key: u32,
        cost_max: usize,
        channels: &mut Slab<LocalChannel>,
        subscriptions: &mut Slab<Subscription>,
        step: &mut impl FnMut(FanOutStep<'_>) -> Visit,
    ) -> usize {
        let fan_out = &mut self.entries[key as usize];
        let channel = &mut channels[fan_out.channel as usize];
        if fan_out.batch.is_empty() {
            self.serial = self.serial.wrapping_add(1);
            fan_out.begin_batch(self.serial, channel.first());
        }
        let batch = FanOutBatch { key, serial: fan_out.batch_serial, publications: &fan_out.batch };
        let may_lag = channel.backlog.as_ref().is_some_and(|backlog| backlog.keeps());
        let mut cost = 0;
        while cost < cost_max && fan_out.cursor != NONE {
            let at = fan_out.cursor;
            let subscriber = &subscriptions[at as usize];
            let first = subscriber.joined_at().saturating_sub(fan_out.batch_start) as usize;
            if first >= batch.publications.len() {
                // It joined after the batch, and so did all behind it.
                fan_out.cursor = NONE;
                break;
            }
            fan_out.cursor = subscriber.next();
            let session = subscriber.session;
            match step(FanOutStep::Deliver { batch, session, first, may_lag }) {
                Visit::Cost(worth) => cost += worth.max(1),
                Visit::Lags => {
                    let missed = first_missed(&batch.publications[first]);
                    channel.lag(at, missed, subscriptions);
                    cost += 1;
                }
            }
        }
        if fan_out.cursor == NONE {
            self.waiting -= fan_out.batch.len();
            self.waiting_bytes -= bytes_of(&fan_out.batch);
            fan_out.batch.clear();
            step(FanOutStep::Done { key });
            if fan_out.pending.is_empty() {
                channel.fan_out = NONE;
                self.entries.remove(key as usize);
            }
        }
        // A visit is charged even where nobody was there, so that the caller's loop is bounded.
        cost.max(1)
    }

    /// A subscriber is about to leave: whoever comes next is visited instead.
    pub(super) fn skip(
        &mut self,
        local: &LocalChannel,
        subscription: u32,
        subscriptions: &Slab<Subscription>,
    ) {
        if local.fan_out != NONE {
            let fan_out = &mut self.entries[local.fan_out as usize];
            if fan_out.cursor == subscription {
                fan_out.cursor = subscriptions[subscription as usize].next();
            }
        }
    }

    /// The channel lost its last subscriber.
    pub(super) fn end(&mut self, local: &LocalChannel) {
        if local.fan_out != NONE {
            let fan_out = &self.entries[local.fan_out as usize];
            self.waiting -= fan_out.batch.len() + fan_out.pending.len();
            self.waiting_bytes -= bytes_of(&fan_out.batch) + bytes_of(&fan_out.pending);
            self.entries.remove(local.fan_out as usize);
        }
    }
}

impl FanOut {
    /// Takes what waits, as much as may leave together.
    fn begin_batch(&mut self, serial: u32, first: u32) {
        let mut bytes = 0;
        while let Some(publication) = self.pending.front() {
            bytes += publication.payload.bytes.len();
            let full =
                self.batch.len() == PUBLICATIONS_PER_FAN_OUT_MAX || bytes > FAN_OUT_BLOCK_BYTES_MAX;
            if full && !self.batch.is_empty() {
                break;
            }
            self.batch.extend(self.pending.pop_front());
        }
        self.batch_serial = serial;
        self.batch_start = self.pending_start;
        self.pending_start += self.batch.len() as u64;
        self.cursor = first;
    }
}

fn bytes_of<'a>(publications: impl IntoIterator<Item = &'a Arc<Publication>>) -> usize {
    publications.into_iter().map(|publication| publication.payload.bytes.len()).sum()
}
