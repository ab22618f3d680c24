//! What follows once the kernel has taken a turn's sends.

use crate::connection::{Pause, Stage};
use crate::driver::Close;
use crate::message::CloseReason;

use super::connections::Connections;
use super::tls;

impl Connections {
    /// Takes back what the kernel did not take, and resumes what waited for the rest to leave.
    pub fn settle(&mut self) {
        if self.outbox.batch.is_empty() {
            // What was written for connections that are gone.
            self.outbox.batch.clear();
            return;
        }
        self.counters.sends.add(self.outbox.batch.items().len() as u64);
        self.counters.sends_partial.add(self.outbox.batch.late.len() as u64);
        let mut failed = Vec::new();
        let sent_bytes = self.outbox.settle(&mut self.table, &mut failed);
        self.counters.sent_bytes.add(sent_bytes);
        for index in failed {
            self.kill(index, CloseReason::ClientGone, Close::Orderly);
        }
        for index in self.outbox.take_unsettled() {
            self.resume_drained(index);
        }
        self.drain_hub_outputs();
    }

    /// Resumes what waited for a connection's queue to drain: reading from it, its requests, its backlog in the hub.
    fn resume_drained(&mut self, index: u32) {
        if tls::is_used_up(index, self) {
            self.close(index, CloseReason::Expired);
        }
        let connection = self.table.at(index);
        if connection.flags.is_blocked() || connection.flags.stage() == Stage::Dead {
            return;
        }
        if connection.queue.bytes() <= self.settings.send_queue_bytes_high / 2 {
            self.table.unpause(index, Pause::Queue, self.turn.tick);
            self.deferred.wake(self.table.session(index));
            if self.table.at(index).traits().awaits_drain {
                self.step_connection(index, |connection, context| connection.drained(context));
            }
        }
        let connection = self.table.at(index);
        if !connection.queue.is_empty() || connection.flags.stage() == Stage::Closing {
            self.outbox.mark(connection, index);
        } else if connection.flags.is_behind() {
            let session = self.table.session(index);
            let is_behind = self.hub.catch_up(session, &mut self.hub_outputs);
            self.table.at(index).flags.set_behind(is_behind);
        }
    }
}
