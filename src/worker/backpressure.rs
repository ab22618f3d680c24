//! Backpressure: who is read more slowly, and why.

use crate::config::limits::{
    FAN_OUT_BACKLOG_BYTES_HIGH, FAN_OUT_BACKLOG_HIGH, FAN_OUT_BACKLOG_LOW_DIVISOR,
};
use crate::connection::{Pause, Stage};
use crate::driver::SocketId;

use super::connections::{Action, Connections};

/// A publisher that is held back, and what it sent that was not looked at yet.
#[derive(Debug)]
pub(super) struct Held {
    pub id: SocketId,
    pub rest: Vec<u8>,
}

impl Connections {
    /// Reads nothing more from a publisher until fan-outs have caught up, and keeps what it sent already as it came:
    /// bytes are smaller than what is made of them.
    pub(super) fn hold(&mut self, id: SocketId, rest: &[u8]) {
        if self.is_open(id) {
            self.counters.publishers_paused.add(1);
            self.pause(id.index, Pause::Congestion);
            self.held_bytes += rest.len();
            self.held.push_back(Held { id, rest: rest.to_vec() });
        }
    }

    /// Counts this worker as behind or not, and lets publishers go on once none is.
    pub fn regulate(&mut self) {
        let (count, bytes) = self.hub.backlog();
        let divisor = if self.mesh.is_congested() { FAN_OUT_BACKLOG_LOW_DIVISOR } else { 1 };
        let bytes_high = FAN_OUT_BACKLOG_BYTES_HIGH.min(self.fan_out_bytes_max());
        let behind = count > FAN_OUT_BACKLOG_HIGH / divisor || bytes > bytes_high / divisor;
        let behind = behind || self.is_full();
        self.mesh.set_congested(behind || self.holds_all_publishers);
        while !self.mesh.is_congested()
            && !self.is_turn_full()
            && let Some(Held { id, mut rest }) = self.held.pop_front()
        {
            self.held_bytes -= rest.len();
            if self.is_open(id) {
                self.unpause(id.index, Pause::Congestion);
                if !rest.is_empty() {
                    self.listen(id, &mut rest);
                }
            }
        }
    }

    /// Takes no more publications, and lets go those that channels' options have wait: fan-outs come to an end.
    pub fn hold_publishers(&mut self) {
        self.holds_all_publishers = true;
        self.hub.stop_pacing();
    }

    /// Whether a fan-out is in progress.
    pub fn wants_fan_out(&self) -> bool {
        self.hub.wants_fan_out()
    }

    /// Whether someone waits for fan-outs, perhaps those of another worker, to catch up.
    pub fn holds_publishers(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn pause(&mut self, index: u32, pause: Pause) {
        let id = self.table.id(index);
        let connection = self.table.at(index);
        if !connection.flags.is_paused() && connection.flags.is_open() {
            self.actions.push(Action::Pause(id));
        }
        connection.flags.set_paused_by(pause, true);
    }

    pub(super) fn unpause(&mut self, index: u32, pause: Pause) {
        let tick = self.tick;
        let connection = self.table.at(index);
        if !connection.flags.is_paused_by(pause) {
            return;
        }
        connection.flags.set_paused_by(pause, false);
        if !connection.flags.is_paused() && connection.flags.stage() != Stage::Dead {
            connection.restart_message(tick);
            let id = self.table.id(index);
            self.actions.push(Action::Resume(id));
        }
    }
}
