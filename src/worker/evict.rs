//! What this worker holds, and what it gives back when memory is low.
//!
//! * **Tight**: histories shrink to half, slow consumers are closed at a quarter of the maximum, channels keep shorter
//!   backlogs for slow subscribers.
//! * **Critical**: connections that hold most are evicted, then those that hold half of that, and so on down to a fair
//!   share of the budget; backlogs shrink to the newest publication; new connections and handshakes are refused.
//! * **Full**: publishers are paused; slow subscribers are evicted too.
//!
//! A connection holds what waits in its send queue, its unfinished message, its requests that wait, and what it sent
//! before it was paused. The fair share is a part of the budget divided by all connections: connections that hold less
//! cannot use it up together, so evicting the others always helps.

use tracing::{info, warn};

use crate::config::limits::{EVICTION_ENTRIES_PER_TURN_MAX, PUBLICATION_BYTES};
use crate::driver::{map_large_blocks, trim_heap};
use crate::message::CloseReason;

use super::budget::Level;
use super::connections::Connections;
use super::eviction::{Cause, Eviction, Holding};

impl Connections {
    /// Everything that grows with what clients do, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        let (waiting, waiting_bytes) = self.hub.fan_out_backlog();
        let measures = self.hub.measures();
        self.outbox.memory_bytes()
            + self.unfinished_bytes as u64
            + self.paused.bytes() as u64
            + self.relays.bytes() as u64
            + self.tls.bytes() as u64
            + self.deferred.bytes() as u64
            + self.logins.bytes() as u64
            + measures.identity_bytes as u64
            + measures.history_bytes
            + measures.key_bytes
            + measures.position_bytes
            + measures.channel_backlog_bytes as u64
            + self.held.bytes() as u64
            + waiting as u64 * PUBLICATION_BYTES
            + waiting_bytes as u64
            + self.mesh.waiting_bytes() as u64
    }

    /// Adds what this worker holds to the budget, and does what follows from what all workers hold.
    pub fn account(&mut self) {
        let now_ms = self.turn.began_us / 1000;
        let before = self.budget.settle(self.memory_bytes(), now_ms);
        let level = self.budget.level();
        if let Some(are_mapped) = self.budget.changes_mapping() {
            map_large_blocks(are_mapped);
        }
        let is_urgent = before.is_some_and(|before| level > before);
        let is_idle = self.turn.is_idle() && !self.is_urgent();
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
            self.eviction = Eviction::new(largest.into_iter().max().expect("there are three"));
        }
        self.hub.set_limits(self.budget.hub_limits(self.settings.hub.limits));
    }

    /// While memory is low: the next slice of the search for the connections that hold most.
    pub fn evict(&mut self) {
        if !self.budget.is_critical() {
            return;
        }
        let channel = self.eviction.channel;
        self.eviction.channel = self.hub.shed_backlogs(channel, EVICTION_ENTRIES_PER_TURN_MAX);
        let fair_share = self.budget.fair_share(self.admission.open());
        for _ in 0..self.paused.len().min(EVICTION_ENTRIES_PER_TURN_MAX) {
            let at = self.eviction.next_publisher(self.paused.len());
            let threshold = self.eviction.threshold(fair_share);
            let Some(id) = self.paused.drop_larger(at, threshold) else { continue };
            if self.table.is_open(id) {
                self.counters.evicted_paused_publishers.add(1);
                self.close_now(id.index, CloseReason::Overloaded);
                self.account();
            }
            if !self.budget.is_critical() {
                break;
            }
        }
        let slots = self.table.slots();
        for _ in 0..slots.min(EVICTION_ENTRIES_PER_TURN_MAX) {
            let index = self.eviction.next_slot(slots, fair_share);
            let Some(connection) = self.table.get(index) else { continue };
            let (queue_bytes, held_bytes) = (connection.queue.bytes(), connection.heap_bytes());
            let is_behind = connection.flags.is_behind();
            let request_bytes = held_bytes + self.deferred.bytes_of(self.table.session(index));
            let holding = Holding { queue_bytes, request_bytes, is_behind };
            let is_full = self.budget.is_full();
            let Some(cause) = self.eviction.cause(holding, fair_share, is_full) else { continue };
            match cause {
                Cause::SendQueue => self.counters.evicted_send_queues.add(1),
                Cause::Requests => self.counters.evicted_unfinished_messages.add(1),
                Cause::SlowSubscriber => self.counters.evicted_slow_subscribers.add(1),
            }
            self.close_now(index, CloseReason::Overloaded);
            self.account();
            if !self.budget.is_critical() {
                break;
            }
        }
        self.drain_hub_outputs();
    }
}
