//! Delivers what arrives for the channels of this worker, at once or paced as the channels' options say. An item starts
//! or joins the fan-out of its channel, or waits in the channel's backlog until that is released.

use std::collections::BTreeSet;

use slab::Slab;

use super::backlog::{Drops, Pace, missed_before};
use super::fan_out::{Audience, FanOutStep, FanOuts, Visit};
use super::local_channel::{LocalChannel, Subscription};
use super::settings::HubSettings;
use crate::config::limits::CATCH_UP_BYTES_MAX;
use crate::message::{ClientId, Item};

/// The fan-outs in progress, and the channels whose backlog is delivered later.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    fan_outs: FanOuts,
    /// When backlogs are to be released, in milliseconds, with the slots of their channels.
    due: BTreeSet<(u64, u32)>,
    /// Bytes of all backlogs.
    backlog_bytes: usize,
    drops: Drops,
    now_ms: u64,
    /// The server is shutting down: backlogs are released at once.
    is_unpaced: bool,
}

impl Delivery {
    /// Delivers an item to the subscribers of the channel in slot `key`, or puts it into the channel's backlog.
    pub(super) fn deliver(
        &mut self,
        key: u32,
        item: Item,
        channels: &mut Slab<LocalChannel>,
        settings: &HubSettings,
    ) {
        let local = &mut channels[key as usize];
        let Some(backlog) = &mut local.backlog else {
            return self.start_fan_out(key, item, local, settings);
        };
        let before = backlog.bytes();
        let pace = backlog.add(settings.options(local.namespace), item, self.now_ms);
        self.backlog_bytes = self.backlog_bytes + backlog.bytes() - before;
        self.drops.rate += backlog.take_dropped();
        match pace {
            _ if self.is_unpaced => self.release(key, channels, settings),
            Pace::Wait => {}
            Pace::WaitUntil(due_ms) => drop(self.due.insert((due_ms, key))),
            Pace::Release => self.release(key, channels, settings),
        }
    }

    /// Releases the backlogs that are due.
    pub(super) fn tick(
        &mut self,
        now_ms: u64,
        channels: &mut Slab<LocalChannel>,
        settings: &HubSettings,
    ) {
        self.now_ms = now_ms;
        while let Some(&(due_ms, key)) = self.due.first()
            && due_ms <= now_ms
        {
            self.due.pop_first();
            self.release(key, channels, settings);
        }
    }

    /// The time at which [`Delivery::tick`] has something to do, in milliseconds.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// Releases all backlogs, and delivers at once from now on. Publications that a rate dropped stay dropped.
    pub(super) fn stop_pacing(
        &mut self,
        channels: &mut Slab<LocalChannel>,
        settings: &HubSettings,
    ) {
        self.is_unpaced = true;
        // A rate limits each release: the rest is due again.
        while let Some((_, key)) = self.due.pop_first() {
            self.release(key, channels, settings);
        }
    }

    /// Releases a channel's whole backlog, at any rate.
    pub(super) fn release_all(
        &mut self,
        key: u32,
        channels: &mut Slab<LocalChannel>,
        settings: &HubSettings,
    ) {
        while channels[key as usize].backlog.as_ref().is_some_and(|backlog| backlog.has_waiting()) {
            self.release(key, channels, settings);
        }
    }

    /// Drops publications from a channel's backlog as far as its options allow, because memory is low.
    pub(super) fn shed(&mut self, local: &mut LocalChannel, settings: &HubSettings) {
        let has_slow = local.has_apart();
        let Some(backlog) = &mut local.backlog else { return };
        let before = backlog.bytes();
        backlog.shed(settings.options(local.namespace), has_slow);
        self.drops.memory += backlog.take_dropped();
        self.backlog_bytes = self.backlog_bytes + backlog.bytes() - before;
    }

    /// The next items for a slow subscriber that has received everything before offset `from`, and the offset at which
    /// the rest begins. `None` if there is nothing left.
    pub(super) fn catch_up(
        &mut self,
        from: u64,
        local: &LocalChannel,
        settings: &HubSettings,
    ) -> (Vec<Item>, Option<u64>) {
        let Some(backlog) = &local.backlog else { return (Vec::new(), None) };
        let options = settings.options(local.namespace);
        let (items, next) = backlog.catch_up(options, from, CATCH_UP_BYTES_MAX);
        self.drops.slow_subscriber += missed_before(from, &items);
        (items, next)
    }

    /// The items of the fan-out in progress that a subscriber has not received when it leaves, at most one block.
    pub(super) fn rest(&mut self, local: &LocalChannel, subscriber: &Subscription) -> Vec<Item> {
        self.fan_outs.rest(local, subscriber)
    }

    /// Ends the fan-out and the backlog of the channel in slot `key`, which lost its last subscriber.
    pub(super) fn end(&mut self, key: u32, local: &LocalChannel) {
        self.fan_outs.end(local);
        if let Some(backlog) = &local.backlog {
            self.backlog_bytes -= backlog.bytes();
            if let Some(due_ms) = backlog.due_ms() {
                self.due.remove(&(due_ms, key));
            }
        }
    }

    /// Runs the fan-outs in progress until that has cost `cost_max`.
    pub(super) fn fan_out(
        &mut self,
        cost_max: usize,
        audience: Audience<'_, impl Fn(u32) -> ClientId>,
        step: &mut impl FnMut(FanOutStep<'_>) -> Visit,
    ) {
        self.fan_outs.run(cost_max, audience, step);
    }

    /// The fan-outs in progress.
    pub(super) fn fan_outs(&self) -> &FanOuts {
        &self.fan_outs
    }

    /// Bytes of all backlogs.
    pub(super) fn backlog_bytes(&self) -> usize {
        self.backlog_bytes
    }

    /// Publications dropped since the server started.
    pub(super) fn drops(&self) -> Drops {
        self.drops
    }

    /// Releases a channel's backlog, or as much of it as its rate allows.
    fn release(&mut self, key: u32, channels: &mut Slab<LocalChannel>, settings: &HubSettings) {
        let Some(local) = channels.get_mut(key as usize) else { return };
        let Some(backlog) = &mut local.backlog else { return };
        if let Some(due_ms) = backlog.due_ms() {
            self.due.remove(&(due_ms, key));
        }
        let before = backlog.bytes();
        let released = backlog.release(settings.options(local.namespace), self.now_ms);
        self.backlog_bytes = self.backlog_bytes + backlog.bytes() - before;
        if let Some(due_ms) = backlog.due_ms() {
            self.due.insert((due_ms, key));
        }
        for item in released {
            self.start_fan_out(key, item, local, settings);
        }
    }

    /// Adds an item to the channel's fan-out, which delivers it to all current subscribers.
    fn start_fan_out(
        &mut self,
        key: u32,
        item: Item,
        local: &mut LocalChannel,
        settings: &HubSettings,
    ) {
        if let Item::Publication(publication) = &item
            && publication.in_stream
        {
            local.advance(publication.position);
            if let Some(backlog) = &mut local.backlog {
                let bytes_max = settings.limits.backlog_bytes_max;
                let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
                let before = backlog.bytes();
                backlog.keep(settings.options(local.namespace), publication, bytes_max);
                self.backlog_bytes = self.backlog_bytes + backlog.bytes() - before;
            }
        }
        let arrival = local.arrivals;
        local.arrivals += 1;
        self.fan_outs.add(key, local, arrival, item);
    }
}
