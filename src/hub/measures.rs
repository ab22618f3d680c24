//! Measurements of a hub, for metrics and for the memory budget.

use super::backlog::Drops;
use super::dispatch::Hub;

/// What a hub has at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Measures {
    /// The number of channels whose fan-out is in progress.
    pub fan_outs: usize,
    /// Publications that were dropped as the options of their channels say.
    pub drops: Drops,
    /// The number of channels with subscribers of this worker.
    pub channels: usize,
    /// The number of subscriptions of this worker's sessions.
    pub subscriptions: usize,
    /// The number of users with sessions of this worker.
    pub users: usize,
    /// The number of these sessions.
    pub user_sessions: usize,
    /// Bytes of what is known about clients and about their subscriptions, filters included.
    pub identity_bytes: usize,
    /// Bytes in channel backlogs: items that wait for their release, those kept for slow subscribers, and the ones that
    /// the next deltas are made from.
    pub channel_backlog_bytes: usize,
    /// Bytes of the histories of channels whose home is this worker.
    pub history_bytes: u64,
    /// The number of publications in these histories.
    pub history_publications: usize,
    /// Bytes of the idempotency keys of these channels.
    pub key_bytes: u64,
    /// Bytes of the positions of channels that are gone.
    pub position_bytes: u64,
}

impl Hub {
    /// What the hub has now.
    pub fn measures(&self) -> Measures {
        let Self { subscribers, streams, .. } = self;
        let (delivery, clients) = (subscribers.delivery(), subscribers.clients());
        Measures {
            fan_outs: delivery.fan_outs().len(),
            drops: delivery.drops(),
            channels: subscribers.channel_count(),
            subscriptions: subscribers.subscription_count(),
            users: clients.identities().user_count(),
            user_sessions: clients.identities().user_session_count(),
            identity_bytes: clients.bytes() + subscribers.forms().filter_bytes(),
            channel_backlog_bytes: delivery.backlog_bytes() + subscribers.forms().kept_bytes(),
            history_bytes: streams.history_bytes(),
            history_publications: streams.history_publications(),
            key_bytes: streams.key_bytes(),
            position_bytes: streams.position_bytes(),
        }
    }

    /// Items whose fan-out is in progress, and their bytes.
    pub fn fan_out_backlog(&self) -> (usize, usize) {
        self.subscribers.delivery().fan_outs().backlog()
    }

    /// Whether histories or idempotency keys have expired that the next [`Hub::tick`] will remove: the worker should
    /// not sleep before.
    pub fn has_overdue(&self) -> bool {
        self.has_overdue
    }
}
