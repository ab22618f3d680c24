//! This server as one node: what `info` of the server API reports.

use std::time::Duration;

use super::NodeId;

/// A summary of this process.
#[derive(Clone, Copy, Debug)]
pub struct NodeInfo {
    /// Distinguishes this process from others; random at start.
    pub node: NodeId,
    /// Open connections, without those that speak plain HTTP.
    pub clients: u64,
    /// Users of these connections, counted once for each worker that has some; all anonymous ones are one user.
    pub users: u64,
    /// Channels with subscribers, counted once for each worker that has some.
    pub channels: u64,
    /// Subscriptions of all sessions.
    pub subscriptions: u64,
    /// Time since the process began to serve.
    pub uptime: Duration,
}
