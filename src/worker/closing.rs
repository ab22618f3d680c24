//! How connections end: Open → Closing → Dead, politely or at once.

use tracing::{debug, info};

use crate::buffer::Segment;
use crate::connection::{Pause, Stage};
use crate::driver::Close;
use crate::message::{CloseReason, Farewell, SessionId};
use crate::transport::Flow;

use super::connections::{Action, Connections};
use super::sweep::Sweep;
use super::table::NEVER;

impl Connections {
    /// Says goodbye to the connections in some slots, because the server shuts down. Returns how many slots are left
    /// behind `from`.
    pub fn say_goodbye(&mut self, from: usize, count: usize) -> usize {
        let slots = self.table.slots();
        for index in from..slots.min(from + count) {
            let index = u32::try_from(index).expect("slots are 32 bits");
            if self.table.get(index).is_some_and(|connection| connection.flags.is_open()) {
                self.close(index, CloseReason::Shutdown);
            }
        }
        self.carry();
        slots.saturating_sub(from + count)
    }

    pub(super) fn close_slow(&mut self) {
        for index in std::mem::take(&mut self.slow) {
            let connection = self.table.at(index);
            if !connection.flags.is_open() {
                continue;
            }
            self.close_at_once(index, CloseReason::SlowConsumer);
        }
        self.carry();
    }

    /// Closes without sending what waits. Where that leaves something incomplete, the client may be told nothing more.
    pub(super) fn close_at_once(&mut self, index: u32, reason: CloseReason) {
        let is_incomplete = self.make_way(index);
        self.close_behind(index, &reason.into(), is_incomplete);
    }

    /// What is on its way must be finished; what waits behind it gives way to the goodbye. Returns whether something
    /// was dropped.
    fn make_way(&mut self, index: u32) -> bool {
        let connection = self.table.at(index);
        let begun = match connection.flags.is_split() {
            true => self.queues.pop(&mut connection.queue),
            false => None,
        };
        let has_dropped = !connection.queue.is_empty();
        self.queues.clear(&mut connection.queue);
        if let Some(Segment::Shared(frame)) = begun {
            self.queues.push(&mut connection.queue, frame);
        }
        has_dropped
    }

    /// Says goodbye and closes.
    pub(super) fn close(&mut self, index: u32, farewell: impl Into<Farewell>) {
        self.close_behind(index, &farewell.into(), false);
    }

    fn close_behind(&mut self, index: u32, farewell: &Farewell, is_incomplete: bool) {
        self.converse(index, |connection, context| {
            connection.disconnect(farewell, is_incomplete, context);
            Flow::Closed
        });
    }

    /// Open → Closing: what is queued is sent, nothing more is listened to.
    pub(super) fn end_conversation(&mut self, index: u32, reason: CloseReason) {
        let connection = self.table.at(index);
        if !connection.flags.is_open() {
            return;
        }
        connection.flags.set_stage(Stage::Closing);
        connection.received = 0;
        self.release(index);
        self.leave_hub(index, reason);
        self.set_deadline(index, self.settings.close_timeout);
        for pause in Pause::ALL {
            self.unpause(index, pause);
        }
        self.mark_dirty(index);
    }

    /// Everything is sent: closes our end, and the socket once the peer's end is closed too.
    pub(super) fn finish(&mut self, index: u32) {
        let id = self.table.id(index);
        let connection = self.table.at(index);
        if connection.flags.has_ended() {
            connection.flags.set_stage(Stage::Dead);
            self.table.set_deadline(index, NEVER);
            self.actions.push(Action::Close(id, Close::Orderly));
        } else if !connection.flags.has_finished() {
            connection.flags.set_finished();
            self.actions.push(Action::ShutdownWrite(id));
        }
    }

    /// Ends a connection at once.
    pub(super) fn kill(&mut self, index: u32, reason: CloseReason, how: Close) {
        let id = self.table.id(index);
        let connection = self.table.at(index);
        let before = connection.flags.set_stage(Stage::Dead);
        self.queues.clear(&mut connection.queue);
        self.release(index);
        self.table.set_deadline(index, NEVER);
        match before {
            Stage::Dead => return,
            Stage::Closing => {}
            Stage::Open => self.leave_hub(index, reason),
        }
        self.actions.push(Action::Close(id, how));
    }

    /// Frees what its conversation keeps: nothing more is listened to.
    fn release(&mut self, index: u32) {
        let connection = self.table.at(index);
        self.unfinished_bytes -= connection.heap_bytes();
        connection.release();
    }

    pub(super) fn leave_hub(&mut self, index: u32, reason: CloseReason) {
        self.counters.connections_closed[reason as usize].add(1);
        let worker = self.settings.hub.worker.0;
        let is_slow = reason == CloseReason::SlowConsumer;
        let reason = reason.label();
        if is_slow {
            info!(reason, worker, connection = index, "a connection ends");
        } else {
            debug!(reason, worker, connection = index, "a connection ends");
        }
        let generation = self.table.at(index).generation;
        self.leave(SessionId { index, generation });
    }

    /// Closes a connection whose message was not finished in time; one without such a message is watched no more.
    pub(super) fn check_message(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        // A client that is not read cannot finish anything.
        let since = match (connection.flags.stage(), connection.flags.is_paused()) {
            (Stage::Open, false) => connection.unfinished_since(),
            (Stage::Open, true) => return,
            (Stage::Closing | Stage::Dead, _) => None,
        };
        match since {
            None => self.table.watch(index, false),
            Some(since) => {
                let due = since.saturating_add(Sweep::ticks(self.settings.message_timeout));
                if self.tick >= due {
                    self.close(index, CloseReason::MessageTimeout);
                }
            }
        }
    }

    pub(super) fn expire(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        let silence = Sweep::duration(self.tick.saturating_sub(connection.received));
        match connection.flags.stage() {
            Stage::Dead => {}
            Stage::Closing => self.kill(index, CloseReason::ClientGone, Close::Abort),
            Stage::Open => {
                if connection.is_busy() {
                    // Under memory pressure the kernel may have refused without ever telling of room: try again.
                    connection.flags.set_blocked(false);
                    self.mark_dirty(index);
                }
                self.converse(index, |connection, context| connection.expire(silence, context));
            }
        }
    }
}
