//! What this worker holds, and what it gives back when the memory budget is nearly used up.
//!
//! * **Tight**: histories shrink to half, slow consumers are closed at a quarter of the maximum, channels keep less for
//!   laggards.
//! * **Critical**: who holds most is closed, then who holds half of that, and so on down to a fair share of the budget;
//!   channels keep only the newest publication, for laggards; new connections and handshakes are refused.
//! * **Full**: publishers are held back; laggards are closed too.
//!
//! What a client keeps busy is what waits for it, the message that it has not finished, what it asked that waits for
//! others, or what it sent while it was held back. The fair share is a part of the budget divided by all connections:
//! those who hold less cannot use it up together, so closing the others always helps.

use std::sync::atomic::Ordering;

use tracing::{info, warn};

use super::budget::Level;
use crate::config::limits::{
    EVICTION_ENTRIES_PER_TURN_MAX, FAIR_SHARE_BYTES_MIN, FAIR_SHARE_DIVISOR, FAN_OUT_SHARE_DIVISOR,
    HISTORY_SHARE_DIVISOR, PUBLICATION_BYTES, TIGHT_QUEUE_DIVISOR,
};
use crate::driver::{Close, map_large_blocks, trim_heap};
use crate::hub::HubLimits;
use crate::message::{CloseReason, SessionId};

use super::connections::Connections;

/// Where the search for those who hold most is.
#[derive(Debug, Default)]
pub(super) struct Eviction {
    /// Who holds more is closed.
    threshold: u64,
    /// The next slot of the table.
    slot: usize,
    /// The next held publisher.
    held: usize,
    /// The next channel.
    channel: usize,
}

impl Connections {
    /// Tells the budget what this worker holds, and does what follows from what all of them hold.
    pub fn account(&mut self) {
        let now_ms = self.began_us / 1000;
        let before = self.budget.settle(self.memory_bytes(), now_ms);
        let level = self.budget.level();
        if let Some(are_mapped) = self.budget.changes_mapping() {
            map_large_blocks(are_mapped);
        }
        let is_urgent = before.is_some_and(|before| level > before);
        let is_idle = self.requests == 0 && self.written == 0 && !self.is_urgent();
        if self.budget.takes_trim(now_ms, is_urgent, is_idle) {
            trim_heap();
        }
        let Some(before) = before else { return };
        if self.budget.announces() {
            let (used, max) = (self.budget.used_bytes(), self.budget.bytes_max());
            if level > before {
                warn!(level = level.name(), bytes = used, bytes_max = max, "memory pressure rises");
            } else {
                info!(
                    level = level.name(),
                    bytes = used,
                    bytes_max = max,
                    "memory pressure is over"
                );
            }
        }
        if before < Level::Critical && level >= Level::Critical {
            let transport = &self.settings.transport;
            let largest = [
                self.settings.send_queue_bytes_max,
                transport.messages.message_bytes_max,
                transport.echo_messages.message_bytes_max,
            ];
            let largest = largest.into_iter().max().expect("there are some");
            self.eviction = Eviction { threshold: u64::from(largest) / 2, ..Eviction::default() };
        }
        self.set_hub_limits();
    }

    /// Has the hub keep what the level and the settings allow.
    pub(super) fn set_hub_limits(&mut self) {
        let level = self.budget.level();
        let of_budget = self.budget.share_bytes() / HISTORY_SHARE_DIVISOR;
        let set = self.settings.hub.limits;
        let history = set.history_bytes_max.min(of_budget);
        self.hub.set_limits(HubLimits {
            history_bytes_max: if level == Level::Calm { history } else { history / 2 },
            backlog_bytes_max: match level {
                Level::Calm => set.backlog_bytes_max,
                Level::Tight => set.backlog_bytes_max / u64::from(TIGHT_QUEUE_DIVISOR),
                Level::Critical | Level::Full => 0,
            },
            ..set
        });
    }

    /// Bytes waiting for one client at which it is a slow consumer.
    pub(super) fn queue_bytes_max(&self) -> u32 {
        let divisor = if self.budget.level() == Level::Calm { 1 } else { TIGHT_QUEUE_DIVISOR };
        self.settings.send_queue_bytes_max / divisor
    }

    /// Payload bytes waiting for their fan-out at which publishers are held back, if the budget is small.
    pub(super) fn fan_out_bytes_max(&self) -> usize {
        let share = self.budget.share_bytes() / FAN_OUT_SHARE_DIVISOR;
        usize::try_from(share).unwrap_or(usize::MAX)
    }

    /// Everything that grows with what clients do.
    pub(super) fn memory_bytes(&self) -> u64 {
        let (waiting, waiting_bytes) = self.hub.backlog();
        self.queues.memory_bytes()
            + self.unfinished_bytes as u64
            + self.held_bytes as u64
            + self.deferred.bytes() as u64
            + self.hub.history_bytes()
            + self.hub.key_bytes()
            + self.hub.held_back_bytes() as u64
            + waiting as u64 * PUBLICATION_BYTES
            + waiting_bytes as u64
            + self.mesh.waiting_bytes() as u64
    }

    /// Whether nobody new is served.
    pub fn is_overloaded(&self) -> bool {
        self.budget.level() >= Level::Critical
    }

    /// Whether the time has to be looked at because of what is held, here or by other workers.
    pub fn watches_memory(&self) -> bool {
        self.budget.is_unsettled()
    }

    /// Whether nothing more is taken from publishers.
    pub(super) fn is_full(&self) -> bool {
        self.budget.level() == Level::Full
    }

    /// Whether this worker keeps something without a connection that would have it look at the time.
    pub fn keeps_history(&self) -> bool {
        self.hub.history_bytes() > 0 || self.hub.key_bytes() > 0
    }

    /// While memory is nearly used up: the next slice of the search for those who hold most.
    pub fn evict(&mut self) {
        if !self.is_overloaded() {
            return;
        }
        let channel = self.eviction.channel;
        self.eviction.channel = self.hub.shed_backlogs(channel, EVICTION_ENTRIES_PER_TURN_MAX);
        self.evict_held();
        self.evict_connections();
        self.carry();
    }

    fn evict_connections(&mut self) {
        let fair_share = self.fair_share();
        let slots = self.table.slots();
        for _ in 0..slots.min(EVICTION_ENTRIES_PER_TURN_MAX) {
            if self.eviction.slot >= slots {
                self.eviction.slot = 0;
                self.eviction.threshold = (self.eviction.threshold / 2).max(fair_share);
            }
            let threshold = self.eviction.threshold.max(fair_share);
            let takes_laggards = self.is_full() && threshold <= fair_share;
            let index = u32::try_from(self.eviction.slot).expect("slots are 32 bits");
            self.eviction.slot += 1;
            let Some(connection) = self.table.get(index) else { continue };
            let session = SessionId { index, generation: connection.generation };
            let held = connection.heap_bytes() + self.deferred.bytes_of(session);
            let cause = if u64::from(connection.queue.bytes()) > threshold {
                &self.counters.evicted_send_queues
            } else if held as u64 > threshold {
                &self.counters.evicted_unfinished_messages
            } else if takes_laggards && connection.flags.is_behind() {
                &self.counters.evicted_slow_subscribers
            } else {
                continue;
            };
            cause.add(1);
            self.give_up(index);
            if !self.is_overloaded() {
                break;
            }
        }
    }

    /// What publishers sent before they were held back.
    fn evict_held(&mut self) {
        let threshold = self.eviction.threshold.max(self.fair_share());
        for _ in 0..self.held.len().min(EVICTION_ENTRIES_PER_TURN_MAX) {
            if self.eviction.held >= self.held.len() {
                self.eviction.held = 0;
            }
            let held = &mut self.held[self.eviction.held];
            self.eviction.held += 1;
            if held.rest.len() as u64 <= threshold {
                continue;
            }
            let id = held.id;
            self.held_bytes -= std::mem::take(&mut held.rest).len();
            if self.is_open(id) {
                self.counters.evicted_paused_publishers.add(1);
                self.give_up(id.index);
            }
            if !self.is_overloaded() {
                break;
            }
        }
    }

    /// Closes a connection for want of memory; one that is closing already has had its time.
    fn give_up(&mut self, index: u32) {
        if self.table.at(index).flags.is_open() {
            self.close_at_once(index, CloseReason::Overloaded);
        } else {
            self.kill(index, CloseReason::Overloaded, Close::Abort);
        }
        self.account();
    }

    /// What each connection may hold unharmed.
    fn fair_share(&self) -> u64 {
        let connections = self.open.load(Ordering::Relaxed).max(1) as u64;
        (self.budget.bytes_max() / FAIR_SHARE_DIVISOR / connections).max(FAIR_SHARE_BYTES_MIN)
    }
}
