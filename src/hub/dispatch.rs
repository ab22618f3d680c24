//! One worker's share of the hub: takes requests and messages, and has its parts handle them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::fan_out::{FanOutStep, Visit};
use super::gather::Gathers;
use super::join_leave::JoinLeave;
use super::message::{HubMessage, Output, QueryMessage, Receipt, StreamMessage, refuse, reply_to};
use super::settings::{HubLimits, HubSettings};
use super::streams::{Numbered, Streams};
use super::subscribers::{Subscribe, Subscribers};
use crate::config::{Namespaces, STATISTICS_CHANNEL};
use crate::message::{
    ChannelName, Item, Payload, PayloadKind, Refusal, Reply, Request, RequestId, SessionId,
};

/// One worker's share of the hub.
#[derive(Debug)]
pub struct Hub {
    pub(super) settings: HubSettings,
    pub(super) subscribers: Subscribers,
    pub(super) streams: Streams,
    join_leave: JoinLeave,
    pub(super) gathers: Gathers,
    now_us: u64,
    pub(super) now_ms: u64,
    /// This worker is the home of the statistics, and a worker has subscribers of them.
    wants_statistics: bool,
    /// The last tick left histories or idempotency keys that are overdue.
    pub(super) has_overdue: bool,
}

impl Hub {
    /// A hub without channels.
    pub fn new(settings: HubSettings) -> Self {
        Self {
            subscribers: Subscribers::new(&settings),
            streams: Streams::new(&settings),
            join_leave: JoinLeave::default(),
            gathers: Gathers::default(),
            now_us: 0,
            now_ms: 0,
            wants_statistics: false,
            has_overdue: false,
            settings,
        }
    }

    /// Replaces the limits.
    pub fn set_limits(&mut self, limits: HubLimits) {
        self.settings.limits = limits;
    }

    /// Opens a session, whose index must be free.
    pub fn open(&mut self, session: SessionId) {
        self.subscribers.open(session);
    }

    /// Ends a session and its subscriptions.
    pub fn close(&mut self, session: SessionId, out: &mut VecDeque<Output>) {
        self.subscribers.close(session, &self.settings, out);
    }

    /// Handles a session's request, which is allowed: the namespace of its channel exists. Without an id, it gets no
    /// reply.
    pub fn handle(
        &mut self,
        session: SessionId,
        id: Option<RequestId>,
        request: Request,
        out: &mut VecDeque<Output>,
    ) {
        let Self { settings, subscribers, .. } = self;
        match (id, request) {
            (id, Request::Publish { channel, payload, idempotency_key }) => {
                let Some(channel) = channel else {
                    return refuse(session, id, Refusal::NotSubscribed, out);
                };
                let to = settings.home_of(&channel);
                let receipt = id.map(|id| self.receipt(session, id));
                let message = StreamMessage::Publish { channel, payload, receipt, idempotency_key };
                out.push_back(Output::send(to, message));
            }
            (Some(id), Request::Connect) => {
                out.push_back(Output::Reply { session, id, reply: Reply::Connected });
            }
            (Some(id), Request::Subscribe { channel, since, needs_all }) => {
                let since = since.map(|since| (since, needs_all));
                let request = Subscribe { session, id, channel, since };
                subscribers.subscribe(request, settings, out);
            }
            (Some(id), Request::Unsubscribe { channel }) => {
                subscribers.unsubscribe(session, id, channel, settings, out);
            }
            (Some(id), Request::History { channel, query }) => {
                let (to, receipt) = (settings.home_of(&channel), self.receipt(session, id));
                out.push_back(Output::send(to, QueryMessage::Read { receipt, channel, query }));
            }
            (Some(id), Request::HistoryRemove { channel }) => {
                let (to, receipt) = (settings.home_of(&channel), self.receipt(session, id));
                out.push_back(Output::send(to, QueryMessage::Forget { receipt, channel }));
            }
            (Some(id), Request::Presence { channel, list_max }) => {
                self.ask_for_presence(session, id, channel, list_max, out);
            }
            (Some(id), Request::Channels { pattern }) => {
                self.ask_for_channels(session, id, &pattern, out);
            }
            (Some(id), Request::Control { client, control }) => {
                self.control(session, id, client, control, out);
            }
            // Only a publish does something without a reply.
            (None, _) => {}
        }
    }

    /// Handles a message from a hub, which may be this one.
    pub fn handle_message(&mut self, message: HubMessage, out: &mut VecDeque<Output>) {
        match message {
            HubMessage::Stream(message) => self.handle_stream_message(message, out),
            HubMessage::Query(message) => self.handle_query(message, out),
        }
    }

    fn handle_stream_message(&mut self, message: StreamMessage, out: &mut VecDeque<Output>) {
        let Self { settings, subscribers, streams, join_leave, now_ms, .. } = self;
        match message {
            StreamMessage::Interest { from, channel, serial } => {
                let position = streams.add_interest(&channel, from);
                self.watch_statistics(&channel);
                let message = StreamMessage::Granted { channel, position, serial };
                out.push_back(Output::send(from, message));
            }
            StreamMessage::Disinterest { from, channel } => {
                streams.remove_interest(&channel, from, *now_ms);
                self.watch_statistics(&channel);
            }
            StreamMessage::Granted { channel, position, serial } => {
                subscribers.grant(&channel, position, serial, settings, out);
            }
            StreamMessage::Recover { from, session, channel, since, needs_all, serial } => {
                let (position, recovery) =
                    streams.recover(&channel, since, &settings.limits, *now_ms);
                let is_refused =
                    needs_all && !recovery.is_complete && streams.is_recoverable(&channel);
                let recovery = (!is_refused).then_some(recovery);
                let message =
                    StreamMessage::Recovered { session, channel, position, recovery, serial };
                out.push_back(Output::send(from, message));
            }
            StreamMessage::Recovered { session, channel, position, recovery, serial } => {
                let answer = (position, recovery);
                subscribers.recovered(session, &channel, answer, serial, settings, out);
            }
            StreamMessage::Publish { channel, payload, receipt, idempotency_key } => {
                self.number(channel, payload, receipt, idempotency_key, out);
            }
            StreamMessage::Deliver(publication) => {
                if let Some(key) = subscribers.receiving(&publication.channel) {
                    subscribers.deliver(key, Item::Publication(publication), settings);
                }
            }
            StreamMessage::DeliverJoinLeave { channel, item } => {
                if let Some(key) = subscribers.receiving(&channel) {
                    subscribers.deliver(key, item, settings);
                }
            }
            StreamMessage::JoinLeave { channel, item } => join_leave.add(channel, item, *now_ms),
            StreamMessage::Listed(channel) => join_leave.mark_listed(&channel),
        }
    }

    /// Does what is due at the time of this turn, in microseconds since the start that all workers count from.
    pub fn tick(&mut self, now_us: u64, out: &mut VecDeque<Output>) {
        let now_ms = now_us / 1000;
        (self.now_us, self.now_ms) = (now_us, now_ms);
        self.subscribers.tick(now_ms, &self.settings);
        while let Some((channel, items)) = self.join_leave.take_due(now_ms) {
            self.deliver_join_leave(&channel, &items, out);
        }
        let had_overdue = self.has_overdue;
        self.has_overdue = self.streams.expire(&self.settings.limits, now_ms);
        if had_overdue && !self.has_overdue {
            self.streams.shrink();
        }
    }

    /// When [`Hub::tick`] has something to do next, in milliseconds from now.
    pub fn next_tick(&self) -> Option<u64> {
        let due = [self.subscribers.delivery().next_due(), self.join_leave.next_due()];
        let due = due.into_iter().flatten().min()?;
        Some(due.saturating_sub(self.now_ms))
    }

    /// Whether this worker has to publish the statistics: it is their home, and they have subscribers.
    pub fn wants_statistics(&self) -> bool {
        self.wants_statistics && self.settings.namespaces.has_statistics()
    }

    /// Refuses subscriptions to the statistics from now on, and publishes no more of them.
    pub fn withdraw_statistics(&mut self) {
        Arc::make_mut(&mut self.settings.namespaces).remove_statistics();
    }

    /// Publishes the statistics.
    pub fn publish_statistics(&mut self, json: String, out: &mut VecDeque<Output>) {
        let channel = ChannelName::new(STATISTICS_CHANNEL).expect("a name");
        let payload = Payload::new(PayloadKind::Json, json);
        self.number(channel, payload, None, None, out);
    }

    /// Whether a fan-out is in progress.
    pub fn wants_fan_out(&self) -> bool {
        !self.subscribers.delivery().fan_outs().is_idle()
    }

    /// A turn's share of the fan-outs in progress: visits subscribers, channel by channel in turns. Each visit costs
    /// what `step` says, at least 1; it ends when `cost_max` is reached.
    pub fn fan_out(&mut self, cost_max: usize, mut step: impl FnMut(FanOutStep<'_>) -> Visit) {
        self.subscribers.fan_out(cost_max, &mut step);
    }

    /// Delivers all backlogs, and paces nothing from now on: the server stops, and publications that it acknowledged
    /// are to reach subscribers before their connections are closed. What rates dropped stays dropped.
    pub fn stop_pacing(&mut self) {
        self.subscribers.stop_pacing(&self.settings);
    }

    /// Drops from the backlogs of `count` channels, from slot `from` on, what their options let be dropped. Returns the
    /// slot behind them; 0 after the last one.
    pub fn shed_backlogs(&mut self, from: usize, count: usize) -> usize {
        self.subscribers.shed(from, count, &self.settings)
    }

    /// Gives a slow subscriber, whose socket takes bytes again, some of what it has yet to get. Returns whether there
    /// is more: then it is to be called again once those bytes are gone.
    pub fn catch_up(&mut self, session: SessionId, out: &mut VecDeque<Output>) -> bool {
        self.subscribers.catch_up(session, &self.settings, out)
    }

    /// The options of all channels.
    pub fn namespaces(&self) -> &Namespaces {
        &self.settings.namespaces
    }

    /// The channel that an open session subscribed to first, if it has subscriptions.
    pub fn first_channel(&self, session: SessionId) -> Option<ChannelName> {
        self.subscribers.first_channel(session)
    }

    pub(super) fn receipt(&self, session: SessionId, id: RequestId) -> Receipt {
        Receipt { worker: self.settings.worker, session, id }
    }

    /// Numbers a publication and sends it to the workers with subscribers.
    fn number(
        &mut self,
        channel: ChannelName,
        payload: Payload,
        receipt: Option<Receipt>,
        idempotency_key: Option<Arc<str>>,
        out: &mut VecDeque<Output>,
    ) {
        let limits = &self.settings.limits;
        let numbered = self.streams.number(channel, payload, idempotency_key, limits, self.now_us);
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
        // Behind the publication: when its publisher gets the reply, it is delivered or under way.
        if let Some(receipt) = receipt {
            reply_to(receipt, Reply::Published { position }, out);
        }
    }

    /// Sends joins and leaves to the workers with subscribers.
    fn deliver_join_leave(
        &self,
        channel: &ChannelName,
        items: &[Item],
        out: &mut VecDeque<Output>,
    ) {
        let interested = self.streams.interested(channel);
        for item in items {
            for to in interested.iter() {
                let (channel, item) = (channel.clone(), item.clone());
                let message = StreamMessage::DeliverJoinLeave { channel, item };
                out.push_back(Output::send(to, message));
            }
        }
    }

    /// The interest in a channel has changed.
    fn watch_statistics(&mut self, channel: &ChannelName) {
        if channel.as_str() == STATISTICS_CHANNEL {
            self.wants_statistics = self.streams.interested(channel).len() > 0;
        }
    }
}
