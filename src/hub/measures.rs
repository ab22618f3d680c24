//! Measurements of a hub, for metrics and for the memory budget.

use super::backlog::Drops;
use super::dispatch::Hub;

impl Hub {
    /// Items whose fan-out is in progress, and their bytes.
    pub fn fan_out_backlog(&self) -> (usize, usize) {
        self.subscribers.delivery().fan_outs().backlog()
    }

    /// The number of channels whose fan-out is in progress.
    pub fn fan_out_count(&self) -> usize {
        self.subscribers.delivery().fan_outs().len()
    }

    /// Publications that were dropped as the options of their channels say.
    pub fn drops(&self) -> Drops {
        self.subscribers.delivery().drops()
    }

    /// The number of channels with subscribers of this worker.
    pub fn channel_count(&self) -> usize {
        self.subscribers.channel_count()
    }

    /// The number of subscriptions of this worker's sessions.
    pub fn subscription_count(&self) -> usize {
        self.subscribers.subscription_count()
    }

    /// Bytes in channel backlogs: items that wait for their release, and those kept for slow subscribers.
    pub fn channel_backlog_bytes(&self) -> usize {
        self.subscribers.delivery().backlog_bytes()
    }

    /// Bytes of the histories of channels whose home is this worker.
    pub fn history_bytes(&self) -> u64 {
        self.streams.history_bytes()
    }

    /// Bytes of the idempotency keys of these channels.
    pub fn key_bytes(&self) -> u64 {
        self.streams.key_bytes()
    }

    /// Whether histories or idempotency keys have expired that the next [`Hub::tick`] will remove: the worker should
    /// not sleep before.
    pub fn has_overdue(&self) -> bool {
        self.has_overdue
    }

    /// The number of publications in the histories of these channels.
    pub fn history_publications(&self) -> usize {
        self.streams.history_publications()
    }
}
