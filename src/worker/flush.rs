//! The turn's sends: filling the batch, and settling it.

use crate::config::limits::{SEGMENTS_PER_SEND_MAX, SENDS_PER_TURN_MAX, SENT_BYTES_PER_TURN_MAX};
use crate::connection::{Pause, Stage};
use crate::driver::{Close, SendResult};
use crate::message::{CloseReason, SessionId};

use super::connections::Connections;

impl Connections {
    /// Fills the batch: one item for each connection with something to send.
    pub fn fill_batch(&mut self) {
        let mut bytes = 0;
        while self.batch.items().len() < SENDS_PER_TURN_MAX && bytes < SENT_BYTES_PER_TURN_MAX {
            let Some(index) = self.dirty.pop_front() else { break };
            // It may have left since, and its slot may be another's by now.
            let Some(connection) = self.table.get(index) else { continue };
            if !connection.flags.is_dirty() {
                continue;
            }
            connection.flags.set_dirty(false);
            let id = self.table.id(index);
            let connection = self.table.at(index);
            if connection.flags.is_blocked() || connection.flags.stage() == Stage::Dead {
                continue;
            }
            let Some(first) = self.queues.pop(&mut connection.queue) else {
                if connection.flags.stage() == Stage::Closing {
                    self.finish(index);
                }
                continue;
            };
            self.batch.begin(id, first);
            connection.flags.set_split(false);
            for _ in 1..SEGMENTS_PER_SEND_MAX {
                let Some(segment) = self.queues.pop(&mut connection.queue) else { break };
                self.batch.extend(segment);
            }
            bytes += self.batch.items().last().map_or(0, |item| u64::from(item.bytes));
            let is_plain = connection.queue.is_empty()
                && !connection.flags.is_behind()
                && connection.flags.is_open()
                && !connection.flags.is_paused_by(Pause::Queue);
            if !is_plain {
                self.unsettled.push(index);
            }
        }
        for index in &self.dirty {
            // They leave with a later batch.
            if let Some(connection) = self.table.get(*index) {
                self.queues.keep_turn(&connection.queue, &self.batch.turn);
            }
        }
    }

    /// Takes back what the kernel did not take, and looks after those who waited for that.
    pub fn settle(&mut self) {
        if self.batch.is_empty() {
            // What was written for connections that are gone.
            self.batch.clear();
            return;
        }
        let mut bytes: u64 = self.batch.items().iter().map(|item| u64::from(item.bytes)).sum();
        self.counters.sends.add(self.batch.items().len() as u64);
        self.counters.sends_partial.add(self.batch.late.len() as u64);
        for at in 0..self.batch.late.len() {
            let late = self.batch.late[at];
            let item = self.batch.items()[late.item as usize].clone();
            let connection = self.table.at(item.id.index);
            match late.result {
                SendResult::Short(sent) => {
                    bytes -= u64::from(item.bytes - sent);
                    for frame in self.batch.unsent(&item, sent) {
                        self.queues.push_front(&mut connection.queue, frame);
                    }
                    connection.flags.set_blocked(true);
                    // Something of the first frame may be on the wire already; it must be finished.
                    connection.flags.set_split(true);
                }
                SendResult::Failed => {
                    bytes -= u64::from(item.bytes);
                    self.kill(item.id.index, CloseReason::ClientGone, Close::Orderly);
                }
            }
        }
        self.counters.sent_bytes.add(bytes);
        self.batch.clear();
        for index in std::mem::take(&mut self.unsettled) {
            self.look_after(index);
        }
        self.carry();
    }

    /// A connection whose sends are settled and which was not plain when they were made.
    pub(super) fn look_after(&mut self, index: u32) {
        let connection = self.table.at(index);
        if connection.flags.is_blocked() || connection.flags.stage() == Stage::Dead {
            return;
        }
        if connection.queue.bytes() <= self.settings.send_queue_bytes_high / 2 {
            self.unpause(index, Pause::Queue);
            let generation = self.table.at(index).generation;
            self.deferred.wake(SessionId { index, generation });
            if self.table.at(index).traits().awaits_drain {
                self.converse(index, |connection, context| connection.drained(context));
            }
        }
        let connection = self.table.at(index);
        if !connection.queue.is_empty() || connection.flags.stage() == Stage::Closing {
            self.mark_dirty(index);
        } else if connection.flags.is_behind() {
            let session = SessionId { index, generation: connection.generation };
            let lags = self.hub.catch_up(session, &mut self.hub_outputs);
            self.table.at(index).flags.set_behind(lags);
        }
    }
}
