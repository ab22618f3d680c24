//! How connections end: Open → Closing → Dead, gracefully or at once.

use tracing::{debug, info};

use crate::connection::{Pause, Stage};
use crate::driver::Close;
use crate::message::{CloseReason, Disconnect, SessionId, WorkerId};
use crate::telemetry::Counters;
use crate::transport::Flow;

use super::connections::Connections;
use super::events;
use super::table::{Action, NEVER, duration_of, ticks};

impl Connections {
    /// Closes the connections in `count` slots from `from` on, because the server shuts down. Returns how many slots
    /// follow them.
    pub fn close_for_shutdown(&mut self, from: usize, count: usize) -> usize {
        let slots = self.table.slots();
        for index in from..slots.min(from + count) {
            let index = u32::try_from(index).expect("slots are 32 bits");
            if self.table.get(index).is_some_and(|connection| connection.flags.is_open()) {
                self.close(index, CloseReason::Shutdown);
            }
        }
        self.drain_hub_outputs();
        slots.saturating_sub(from + count)
    }

    /// Sends the reason in the client's own protocol, and closes once everything was sent.
    pub(super) fn close(&mut self, index: u32, disconnect: impl Into<Disconnect>) {
        let disconnect = disconnect.into();
        if self.table.at(index).flags.awaits_tls() {
            return self.kill(index, disconnect.reason, Close::Orderly);
        }
        self.step_connection(index, |connection, context| {
            connection.disconnect(&disconnect, false, context);
            Flow::Closed
        });
    }

    /// Closes without sending what waits. Where that leaves something incomplete, the reason may have no place either.
    /// A connection that is closing already is aborted.
    pub(super) fn close_now(&mut self, index: u32, reason: CloseReason) {
        let flags = self.table.at(index).flags;
        if !flags.is_open() || flags.awaits_tls() {
            return self.kill(index, reason, Close::Abort);
        }
        let is_incomplete = self.outbox.drop_waiting(self.table.at(index));
        self.step_connection(index, |connection, context| {
            connection.disconnect(&reason.into(), is_incomplete, context);
            Flow::Closed
        });
    }

    /// Open → Closing: what is queued is sent, and what the peer sends is discarded.
    pub(super) fn end_conversation(&mut self, index: u32, reason: CloseReason) {
        let connection = self.table.at(index);
        if !connection.flags.is_open() {
            return;
        }
        connection.flags.set_stage(Stage::Closing);
        connection.received = 0;
        self.unfinished_bytes -= connection.heap_bytes();
        connection.release();
        self.tls.release(index);
        let session = self.table.session(index);
        count_end(session, reason, self.settings.hub.worker, &self.counters);
        events::disconnected(self, session, reason);
        self.leave(session);
        self.held.forget_headers(session);
        self.table.set_deadline_after(index, self.turn.tick, self.settings.close_timeout);
        for pause in Pause::ALL {
            self.table.unpause(index, pause, self.turn.tick);
        }
        self.outbox.mark(self.table.at(index), index);
    }

    /// Ends a connection at once.
    pub(super) fn kill(&mut self, index: u32, reason: CloseReason, how: Close) {
        let id = self.table.id(index);
        let connection = self.table.at(index);
        let before = connection.flags.set_stage(Stage::Dead);
        self.outbox.clear(connection);
        self.unfinished_bytes -= connection.heap_bytes();
        connection.release();
        self.tls.release(index);
        self.table.set_deadline(index, NEVER);
        match before {
            Stage::Dead => return,
            Stage::Closing => {}
            Stage::Open => {
                let session = self.table.session(index);
                count_end(session, reason, self.settings.hub.worker, &self.counters);
                events::disconnected(self, session, reason);
                self.leave(session);
                self.held.forget_headers(session);
            }
        }
        self.table.actions.push(Action::Close(id, how));
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
                let due = since.saturating_add(ticks(self.settings.message_timeout));
                if self.turn.tick >= due {
                    self.close(index, CloseReason::MessageTimeout);
                }
            }
        }
    }

    pub(super) fn expire(&mut self, index: u32) {
        let Some(connection) = self.table.get(index) else { return };
        let silence = duration_of(self.turn.tick.saturating_sub(connection.received));
        match connection.flags.stage() {
            Stage::Dead => {}
            Stage::Closing => self.kill(index, CloseReason::ClientGone, Close::Abort),
            // A header of the PROXY protocol did not arrive, or no handshake of TLS, so there is no client yet.
            Stage::Open
                if connection.flags.awaits_proxy_header() || connection.flags.awaits_tls() =>
            {
                self.kill(index, CloseReason::HandshakeTimeout, Close::Orderly);
            }
            Stage::Open => {
                if connection.is_busy() {
                    // Under memory pressure the kernel may have refused without ever telling of room: try again.
                    connection.flags.set_blocked(false);
                    self.outbox.mark(connection, index);
                }
                self.step_connection(index, |connection, context| {
                    connection.expire(silence, context)
                });
            }
        }
    }
}

fn count_end(session: SessionId, reason: CloseReason, worker: WorkerId, counters: &Counters) {
    counters.connections_closed[reason as usize].add(1);
    let (worker, connection) = (worker.0, session.index);
    let is_slow = reason == CloseReason::SlowConsumer;
    let reason = reason.label();
    if is_slow {
        info!(reason, worker, connection, "a connection ends");
    } else {
        debug!(reason, worker, connection, "a connection ends");
    }
}
