//! The configuration of a hub, and what can be computed from it alone.

use std::sync::Arc;
use std::time::Duration;

use super::message::Receipt;
use super::name_table::ChannelHash;
use crate::config::limits::{CONNECTIONS_PER_WORKER_MAX, SPARE_CONNECTIONS, WORKERS_MAX};
use crate::config::{ChannelOptions, NamespaceId, Namespaces};
use crate::message::{ChannelName, ClientId, NodeId, RequestId, SessionId, WorkerId};

/// The configuration of a hub.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// The id of this node.
    pub node: NodeId,
    /// The id of this worker.
    pub worker: WorkerId,
    /// The number of workers.
    pub workers: u16,
    /// Maximum number of sessions of this worker, for which address space is reserved.
    pub sessions_max: usize,
    /// The limits that a reload may change.
    pub limits: HubLimits,
    /// Chooses a channel's home; the same for all workers.
    pub hash: ChannelHash,
    /// The options of all channels; the same for all workers.
    pub namespaces: Arc<Namespaces>,
}

/// Limits that a reload may change. They are replaced as a whole and read where they are needed, so that no part of the
/// hub keeps an older value.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// Maximum number of subscriptions of one session. A session that already has more keeps them.
    pub subscriptions_max: usize,
    /// Maximum bytes of publications in one reply; one publication may exceed it.
    pub answer_bytes_max: u64,
    /// Maximum payload bytes kept for the slow subscribers of one channel; one publication may exceed it.
    pub backlog_bytes_max: u64,
    /// Maximum bytes of all histories of this worker. Beyond it, whole histories are removed, a few in each turn.
    pub history_bytes_max: u64,
    /// How long the position of a channel is kept after its history; zero for no longer.
    pub position_ttl: Duration,
    /// How long a subscription that has expired goes on, so that its client can refresh it.
    pub expired_close_delay: Duration,
}

impl HubSettings {
    /// The id of the client with this session of this worker.
    pub fn client_id(&self, session: SessionId) -> ClientId {
        ClientId { node: self.node, worker: self.worker, session }
    }

    /// The receipt of a request that a session of this worker makes.
    pub(super) fn receipt(&self, session: SessionId, id: RequestId) -> Receipt {
        Receipt { worker: self.worker, session, id }
    }

    /// The worker that numbers a channel's publications.
    pub(super) fn home_of(&self, channel: &ChannelName) -> WorkerId {
        let hash = self.hash.of(channel.as_str());
        // The low bits choose the shard of a name table; the high ones the home.
        let home = (hash >> 32) % u64::from(self.workers);
        WorkerId(u16::try_from(home).expect("a remainder of 16 bits"))
    }

    /// The options of a namespace.
    pub(super) fn options(&self, namespace: NamespaceId) -> &ChannelOptions {
        self.namespaces.options(namespace)
    }

    /// Whether subscribers of a channel may filter its publications.
    pub(super) fn allows_filters(&self, channel: &ChannelName) -> bool {
        let namespace = self.namespaces.find(channel.as_str());
        namespace.is_some_and(|id| self.options(id).allow_tags_filter)
    }

    /// Whether a channel delivers join and leave events.
    pub(super) fn has_join_leave(&self, channel: &ChannelName) -> bool {
        self.namespaces.find(channel.as_str()).is_some_and(|id| self.options(id).join_leave)
    }
}

// A client's id has room for every worker and session.
const _: () = assert!(WORKERS_MAX <= 1 << ClientId::WORKER_BITS);
const _: () = assert!(CONNECTIONS_PER_WORKER_MAX + SPARE_CONNECTIONS <= 1 << ClientId::INDEX_BITS);
