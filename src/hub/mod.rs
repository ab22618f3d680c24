//! Channels, subscriptions and who is told what.
//!
//! **What it is.** One worker's share of the hub. A channel has one *home* worker, chosen by its name's hash, which
//! numbers its publications; every worker with subscribers of it has a *local* part, which knows them. A hub plays
//! both roles and speaks with its peers on other workers in [`HubMessage`]s, which keep their order between any two.
//!
//! **In and out.** In: sessions opened and closed, [`Request`]s, [`HubMessage`]s, the time ([`Hub::tick`]). Out:
//! [`Output`]s, replies for sessions and messages for workers; and, slice by slice, who gets which publications
//! ([`Hub::fan_out`]).
//!
//! **Always true.** Only the home worker numbers a channel's publications. A subscriber gets every publication
//! numbered after the position it was told, in order, once, until it unsubscribes; one that joined after a
//! publication does not get it; where its channel's options let publications be dropped, it is told of the gap. A
//! fan-out holds its worker for one bounded slice at a time. A channel without subscribers and without history owns
//! nothing.
//!
//! **Must not know.** Sockets, transports, encodings, the clock.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use slab::Slab;

use crate::config::limits::SPARSE_ENTRIES_MIN;
use crate::config::{Namespaces, STATISTICS_CHANNEL};
use crate::message::{
    ChannelName, Item, NodeId, Payload, PayloadKind, Refusal, Reply, Request, RequestId, SessionId,
    WorkerId,
};

mod backlog;
mod fan_out;
mod gather;
mod history;
mod idempotency;
mod join_leave;
mod measures;
mod message;
mod name_table;
mod queries;
mod session;
mod streams;
mod subscribers;
mod subscribing;

pub use backlog::Drops;
pub use fan_out::{FanOutBatch, FanOutStep, Visit};
pub use gather::{GatherId, Part};
pub use message::{HubMessage, Output, QueryMessage, Receipt, StreamMessage};
pub use name_table::ChannelHash;
pub use queries::reply_to;

use fan_out::FanOuts;
use gather::Gathers;
use join_leave::News;
use name_table::NameTable;
use queries::refuse;
use session::Sessions;
use streams::{Numbered, Streams};
use subscribers::{LocalChannel, Subscription};

/// What a hub is told at start.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// This node.
    pub node: NodeId,
    /// This worker.
    pub worker: WorkerId,
    /// How many workers there are.
    pub workers: u16,
    /// Sessions this worker may have; address space for them is reserved.
    pub sessions_max: usize,
    /// What it may keep and answer.
    pub limits: HubLimits,
    /// Chooses a channel's home; the same for all workers.
    pub hash: ChannelHash,
    /// What channels do; the same for all workers.
    pub namespaces: Arc<Namespaces>,
}

/// Limits that may change while it runs; handed in whole, so that none keeps an older value.
#[derive(Clone, Copy, Debug)]
pub struct HubLimits {
    /// Subscriptions of one session. Those that have more keep them.
    pub subscriptions_max: usize,
    /// Bytes of publications in one answer.
    pub answer_bytes_max: u64,
    /// Payload bytes kept for the laggards of one channel, by one publication more at the most.
    pub backlog_bytes_max: u64,
    /// Bytes of all histories of this worker; what is too much is forgotten in the turns that follow.
    pub history_bytes_max: u64,
}

/// One worker's share of the hub.
#[derive(Debug)]
pub struct Hub {
    settings: HubSettings,
    sessions: Sessions,
    subscriptions: Slab<Subscription>,
    channels: Slab<LocalChannel>,
    names: NameTable,
    streams: Streams,
    fan_outs: FanOuts,
    news: News,
    gathers: Gathers,
    /// Local channels whose publications wait for their moment, by that.
    timed: BTreeSet<(u64, u32)>,
    /// What channels hold back.
    backlog_bytes: usize,
    /// Slots of `channels` that were ever in use.
    channel_slots: usize,
    now_us: u64,
    now_ms: u64,
    drops: Drops,
    serial: u32,
    /// Some worker has subscribers of the statistics, whose home is this one.
    wants_statistics: bool,
    /// The last tick left histories or keys that are overdue.
    has_overdue: bool,
    /// Whether publications wait for their moment.
    is_pacing: bool,
}

/// No node, no channel, no fan-out.
const NONE: u32 = u32::MAX;

impl Hub {
    /// A hub without channels.
    pub fn new(settings: HubSettings) -> Self {
        Self {
            sessions: Sessions::with_capacity(settings.sessions_max),
            subscriptions: Slab::with_capacity(4 * settings.sessions_max),
            channels: Slab::with_capacity(settings.sessions_max),
            names: NameTable::new(&settings.hash),
            streams: Streams::new(&settings),
            fan_outs: FanOuts::default(),
            news: News::default(),
            gathers: Gathers::default(),
            timed: BTreeSet::new(),
            backlog_bytes: 0,
            channel_slots: 0,
            now_us: 0,
            now_ms: 0,
            drops: Drops::default(),
            serial: 0,
            wants_statistics: false,
            has_overdue: false,
            is_pacing: true,
            settings,
        }
    }

    /// Has other limits from now on.
    pub fn set_limits(&mut self, limits: HubLimits) {
        self.settings.limits = limits;
        self.streams.set_limits(&limits);
    }

    /// Opens a session under a name that the caller chose; its index must be free.
    pub fn open(&mut self, session: SessionId) {
        self.sessions.open(session);
    }

    /// Ends a session and its subscriptions.
    pub fn close(&mut self, session: SessionId, out: &mut VecDeque<Output>) {
        while let Some(subscription) = self.sessions.first(session) {
            self.remove(subscription, out);
        }
        self.sessions.close(session);
    }

    /// Does what a session asks and is allowed to: the namespace of the channel exists. Without an id, there is no
    /// reply.
    pub fn handle(
        &mut self,
        session: SessionId,
        id: Option<RequestId>,
        request: Request,
        out: &mut VecDeque<Output>,
    ) {
        match (id, request) {
            (id, Request::Publish { channel, payload, idempotency_key }) => {
                let Some(channel) = channel else {
                    return refuse(session, id, Refusal::NotSubscribed, out);
                };
                let receipt = id.map(|id| self.receipt(session, id));
                let to = self.home_of(&channel);
                let message = StreamMessage::Publish { channel, payload, receipt, idempotency_key };
                out.push_back(Output::send(to, message));
            }
            (Some(id), Request::Subscribe { channel, since, needs_all }) => {
                let since = since.map(|since| (since, needs_all));
                self.subscribe(session, id, channel, since, out);
            }
            (Some(id), Request::Unsubscribe { channel }) => {
                self.unsubscribe(session, id, channel, out)
            }
            (Some(id), Request::History { channel, query }) => {
                let (to, receipt) = (self.home_of(&channel), self.receipt(session, id));
                out.push_back(Output::send(to, QueryMessage::Read { receipt, channel, query }));
            }
            (Some(id), Request::HistoryRemove { channel }) => {
                let (to, receipt) = (self.home_of(&channel), self.receipt(session, id));
                out.push_back(Output::send(to, QueryMessage::Forget { receipt, channel }));
            }
            (Some(id), Request::Presence { channel, list_max }) => {
                self.count_subscribers(session, id, channel, list_max, out);
            }
            (Some(id), Request::Channels { pattern }) => {
                self.ask_for_channels(session, id, &pattern, out)
            }
            (Some(id), Request::Control { client, control }) => {
                self.control(session, id, client, control, out)
            }
            // Only a publish does something without a reply.
            (None, _) => {}
        }
    }

    /// Does what another worker's hub, or this one, asks or tells.
    pub fn handle_message(&mut self, message: HubMessage, out: &mut VecDeque<Output>) {
        match message {
            HubMessage::Stream(message) => self.handle_stream_message(message, out),
            HubMessage::Query(message) => self.handle_query(message, out),
        }
    }

    fn handle_stream_message(&mut self, message: StreamMessage, out: &mut VecDeque<Output>) {
        match message {
            StreamMessage::Interest { from, channel, serial } => {
                let position = self.streams.add_interest(&channel, from);
                self.watch_statistics(&channel);
                let message = StreamMessage::Granted { channel, position, serial };
                out.push_back(Output::send(from, message));
            }
            StreamMessage::Disinterest { from, channel } => {
                self.streams.remove_interest(&channel, from, self.now_ms);
                self.watch_statistics(&channel);
            }
            StreamMessage::Granted { channel, position, serial } => {
                self.grant(&channel, position, serial, out);
            }
            StreamMessage::Recover { from, session, channel, since, needs_all, serial } => {
                let limits = &self.settings.limits;
                let (position, recovery) =
                    self.streams.recover(&channel, since, limits, self.now_ms);
                let is_refused =
                    needs_all && !recovery.is_complete && self.streams.is_recoverable(&channel);
                let recovery = (!is_refused).then_some(recovery);
                let message =
                    StreamMessage::Recovered { session, channel, position, recovery, serial };
                out.push_back(Output::send(from, message));
            }
            StreamMessage::Recovered { session, channel, position, recovery, serial } => {
                self.recovered(session, channel, position, recovery, serial, out);
            }
            StreamMessage::Publish { channel, payload, receipt, idempotency_key } => {
                self.number(channel, payload, receipt, idempotency_key, out);
            }
            StreamMessage::Deliver(publication) => {
                if let Some(key) = self.receiving(&publication.channel) {
                    self.deliver(key, Item::Publication(publication));
                }
            }
            StreamMessage::DeliverJoinLeave { channel, item } => {
                if let Some(key) = self.receiving(&channel) {
                    self.deliver(key, item);
                }
            }
            StreamMessage::JoinLeave { channel, item } => {
                self.news.add(channel, item, self.now_ms);
            }
            StreamMessage::Listed(channel) => self.news.name(&channel),
        }
    }

    /// The time of this turn, in microseconds since the start that all workers count from; and what has to happen by
    /// then.
    pub fn tick(&mut self, now_us: u64, out: &mut VecDeque<Output>) {
        let now_ms = now_us / 1000;
        (self.now_us, self.now_ms) = (now_us, now_ms);
        while let Some(&(due_ms, key)) = self.timed.first()
            && due_ms <= now_ms
        {
            self.timed.pop_first();
            self.release(key);
        }
        while let Some((channel, items)) = self.news.take_due(now_ms) {
            self.tell_news(&channel, items, out);
        }
        let had_overdue = self.has_overdue;
        self.has_overdue = self.streams.expire(&self.settings.limits, now_ms);
        if had_overdue && !self.has_overdue {
            self.streams.shrink();
        }
    }

    /// When [`Hub::tick`] has something to do next, in milliseconds from now.
    pub fn next_tick(&self) -> Option<u64> {
        let timed = self.timed.first().map(|(due_ms, _)| *due_ms);
        let due = [timed, self.news.next_due()].into_iter().flatten().min()?;
        Some(due.saturating_sub(self.now_ms))
    }

    /// Whether this worker is to publish the statistics: it is their home, and someone is subscribed.
    pub fn wants_statistics(&self) -> bool {
        self.wants_statistics && self.settings.namespaces.has_statistics()
    }

    /// Lets nobody subscribe to the statistics any more; those who are subscribed hear nothing more.
    pub fn withdraw_statistics(&mut self) {
        Arc::make_mut(&mut self.settings.namespaces).remove_statistics();
    }

    /// Publishes them.
    pub fn publish_statistics(&mut self, json: String, out: &mut VecDeque<Output>) {
        let channel = ChannelName::new(STATISTICS_CHANNEL).expect("a name");
        let payload = Payload::new(PayloadKind::Json, json);
        self.number(channel, payload, None, None, out);
    }

    /// Whether a fan-out is in progress.
    pub fn wants_fan_out(&self) -> bool {
        !self.fan_outs.is_idle()
    }

    /// A turn's share of the fan-outs in progress: visits subscribers, channel by channel in turns. Each visit costs
    /// what `step` says, at least 1; it ends when `cost_max` is reached.
    pub fn fan_out(&mut self, cost_max: usize, mut step: impl FnMut(FanOutStep<'_>) -> Visit) {
        self.fan_outs.run(cost_max, &mut self.channels, &mut self.subscriptions, &mut step);
    }

    fn number(
        &mut self,
        channel: ChannelName,
        payload: Payload,
        receipt: Option<Receipt>,
        idempotency_key: Option<Arc<str>>,
        out: &mut VecDeque<Output>,
    ) {
        let numbered = self.streams.number(channel, payload, idempotency_key, self.now_us);
        let position = match numbered {
            Numbered::New(publication, interested) => {
                for to in interested.iter() {
                    let message = StreamMessage::Deliver(publication.clone());
                    out.push_back(Output::send(to, message));
                }
                publication.position
            }
            Numbered::Known(position) => position,
        };
        // Behind the publication, so that a publisher that has its answer finds it delivered, or under way.
        if let Some(receipt) = receipt {
            reply_to(receipt, Reply::Published { position }, out);
        }
    }

    /// The interest in a channel has changed.
    fn watch_statistics(&mut self, channel: &ChannelName) {
        if channel.as_str() == STATISTICS_CHANNEL {
            self.wants_statistics = self.streams.interested(channel).len() > 0;
        }
    }

    fn receipt(&self, session: SessionId, id: RequestId) -> Receipt {
        Receipt { worker: self.settings.worker, session, id }
    }

    fn home_of(&self, channel: &ChannelName) -> WorkerId {
        let hash = self.settings.hash.of(channel.as_str());
        // The low bits choose the shard of a name table; the high ones the home.
        let home = (hash >> 32) % u64::from(self.settings.workers);
        WorkerId(u16::try_from(home).expect("a remainder of 16 bits"))
    }

    fn find(&self, session: SessionId, channel: &ChannelName) -> Option<u32> {
        let channel = self.names.find(channel, &self.channels)?;
        let mut at = self.sessions.first(session);
        while let Some(subscription) = at {
            let node = &self.subscriptions[subscription as usize];
            if node.channel == channel {
                return Some(subscription);
            }
            at = some(node.next_in_session);
        }
        None
    }

    /// What channels do.
    pub fn namespaces(&self) -> &Namespaces {
        &self.settings.namespaces
    }

    /// The channel that an open session subscribed to first, if it is subscribed to any.
    pub fn first_channel(&self, session: SessionId) -> Option<ChannelName> {
        let subscription = self.sessions.first(session)?;
        let channel = self.subscriptions[subscription as usize].channel;
        Some(self.channels[channel as usize].name.clone())
    }
}

fn some(index: u32) -> Option<u32> {
    (index != NONE).then_some(index)
}

/// Whether most of a table's entries are gone, and its memory is worth having back.
fn is_sparse(len: usize, capacity: usize) -> bool {
    capacity > SPARSE_ENTRIES_MIN && len <= capacity / 4
}

fn index(key: usize) -> u32 {
    u32::try_from(key).expect("fewer than 2^32 entries")
}

#[cfg(test)]
mod tests;
