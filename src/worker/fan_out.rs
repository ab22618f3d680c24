//! The fan-outs of a turn, and what follows for the subscribers that they reached.

use crate::config::limits::DELIVERY_COST_PER_TURN_MAX;
use crate::message::CloseReason;

use super::connections::Connections;
use super::deliveries::Bounds;

impl Connections {
    /// The next slice of the fan-outs in progress. Slow consumers are closed; connections whose polls were answered
    /// take their next request.
    pub fn fan_out(&mut self) {
        if !self.hub.wants_fan_out() {
            return;
        }
        let Self { hub, table, outbox, deliveries, settings, budget, .. } = self;
        let bounds = Bounds {
            bytes_high: settings.send_queue_bytes_high,
            bytes_max: budget.queue_bytes_max(settings.send_queue_bytes_max),
            transport: &settings.transport,
        };
        hub.fan_out(DELIVERY_COST_PER_TURN_MAX, |step| {
            deliveries.take(step, table, outbox, bounds)
        });
        let count = std::mem::take(&mut self.deliveries.count);
        self.counters.deliveries.add(count);
        self.counters.sent_messages.add(count);
        for index in std::mem::take(&mut self.deliveries.slow) {
            if self.table.at(index).flags.is_open() {
                self.close_now(index, CloseReason::SlowConsumer);
            }
        }
        self.drain_hub_outputs();
        for index in std::mem::take(&mut self.deliveries.answered) {
            if self.table.at(index).flags.is_open() {
                self.step_connection(index, |connection, context| connection.drained(context));
            }
        }
        self.drain_hub_outputs();
    }
}
