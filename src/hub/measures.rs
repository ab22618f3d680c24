//! What can be measured of a hub.

use super::backlog::Drops;
use super::dispatch::Hub;

impl Hub {
    /// Publications and payload bytes that wait for their fan-out.
    pub fn fan_out_backlog(&self) -> (usize, usize) {
        self.subscribers.delivery().fan_outs().backlog()
    }

    /// Channels whose fan-out is in progress.
    pub fn fan_out_count(&self) -> usize {
        self.subscribers.delivery().fan_outs().len()
    }

    /// Publications dropped by what channels' options say.
    pub fn drops(&self) -> Drops {
        self.subscribers.delivery().drops()
    }

    /// Channels with local subscribers.
    pub fn channel_count(&self) -> usize {
        self.subscribers.channel_count()
    }

    /// Subscriptions of local sessions.
    pub fn subscription_count(&self) -> usize {
        self.subscribers.subscription_count()
    }

    /// Payload bytes that channels hold back: for their moment, and for laggards.
    pub fn channel_backlog_bytes(&self) -> usize {
        self.subscribers.delivery().backlog_bytes()
    }

    /// Bytes that the channels whose home is here keep as their history.
    pub fn history_bytes(&self) -> u64 {
        self.streams.history_bytes()
    }

    /// Bytes of the idempotency keys that they remember.
    pub fn key_bytes(&self) -> u64 {
        self.streams.key_bytes()
    }

    /// Whether the next [`Hub::tick`] has histories to end or keys to forget: their memory is wanted back soon, not
    /// when the worker wakes up next.
    pub fn has_overdue(&self) -> bool {
        self.has_overdue
    }

    /// Publications that they keep.
    pub fn history_publications(&self) -> usize {
        self.streams.history_publications()
    }
}
