//! Backpressure: publishers are paused while this worker or another one is behind with its fan-outs.

use crate::config::limits::{
    FAN_OUT_BACKLOG_BYTES_HIGH, FAN_OUT_BACKLOG_HIGH, FAN_OUT_BACKLOG_LOW_DIVISOR,
};
use crate::connection::Pause;
use crate::driver::SocketId;

use super::connections::Connections;

impl Connections {
    /// Receives nothing more from a publisher until fan-outs have caught up. `rest` are the bytes that were received
    /// and not looked at.
    pub(super) fn pause_publisher(&mut self, id: SocketId, rest: &[u8]) {
        if self.table.is_open(id) {
            self.counters.publishers_paused.add(1);
            self.table.pause(id.index, Pause::Congestion);
            self.paused.push(id, rest);
        }
    }

    /// Counts this worker as behind or not, and resumes publishers once no worker is behind. Clients that sent too fast
    /// are read again when their time has come.
    pub fn regulate(&mut self) {
        self.rates.resume(self.turn.began_us, self.turn.tick, &mut self.table);
        let (count, bytes) = self.hub.fan_out_backlog();
        let divisor = if self.mesh.is_congested() { FAN_OUT_BACKLOG_LOW_DIVISOR } else { 1 };
        let bytes_high = FAN_OUT_BACKLOG_BYTES_HIGH.min(self.budget.fan_out_bytes_max());
        let behind = count > FAN_OUT_BACKLOG_HIGH / divisor || bytes > bytes_high / divisor;
        let behind = behind || self.budget.is_full();
        self.mesh.set_congested(behind || self.paused.pauses_all());
        while !self.mesh.is_congested()
            && !self.turn.is_full()
            && let Some((id, mut rest)) = self.paused.pop()
        {
            if self.table.is_open(id) {
                self.table.unpause(id.index, Pause::Congestion, self.turn.tick);
                if !rest.is_empty() {
                    self.receive_open(id, &mut rest);
                }
            }
        }
    }
}
