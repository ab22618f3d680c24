//! One worker's share of the hub. Requests, messages and the time come in here, and are handled by the parts of the
//! hub; replies and messages leave through the queue of outputs that the caller passes in.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::expiry::ExpiryRoom;
use super::fan_out::{FanOutStep, Visit};
use super::gather::Gathers;
use super::join_leave::JoinLeave;
use super::local_channel::SubscriptionState;
use super::message::{
    Author, ControlOne, HubMessage, HubOutput, Part, QueryMessage, Receipt, StreamMessage,
    Subscribe, SurveyTask, refuse, reply_to, send_part,
};
use super::renewal::{self, SubscriptionChange};
use super::settings::{HubLimits, HubSettings};
use super::streams::{Numbered, Publisher, Streams};
use super::subscribers::{self, Subscribers};
use crate::config::{Namespaces, STATISTICS_CHANNEL};
use crate::message::{
    ChannelName, ClientId, ClientInfo, Identity, IdentityError, Item, Payload, PayloadKind,
    Position, PublishOptions, Refusal, Reply, Request, RequestId, SessionId,
};

/// One worker's share of the hub.
#[derive(Debug)]
pub struct Hub {
    settings: HubSettings,
    pub(super) subscribers: Subscribers,
    pub(super) streams: Streams,
    join_leave: JoinLeave,
    gathers: Gathers,
    now_us: u64,
    now_ms: u64,
    /// This worker is the home of the statistics channel, and the channel has subscribers.
    wants_statistics: bool,
    /// The last tick left histories or idempotency keys that have expired.
    pub(super) has_overdue: bool,
}

impl Hub {
    /// Creates a hub without channels.
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

    /// Opens a session. Its index must be free.
    pub fn open(&mut self, session: SessionId) {
        self.subscribers.open(session);
    }

    /// Sets who the client of an open session is, again if that has changed. Until then it is anonymous.
    pub fn identify(
        &mut self,
        session: SessionId,
        identity: &Identity,
    ) -> Result<(), IdentityError> {
        identity.check()?;
        assert!(
            self.subscribers.sessions().is_open(session),
            "only an open session has an identity"
        );
        self.subscribers.clients_mut().identify(session.index, identity)
    }

    /// Changes when the identity of an open session expires, in seconds since the Unix epoch, and with `info` also what
    /// others see of its client.
    pub fn refresh(
        &mut self,
        session: SessionId,
        expires_at: Option<u64>,
        info: Option<Bytes>,
    ) -> Result<(), IdentityError> {
        let identity = self.subscribers.clients().identity(session.index);
        let info = info.or(identity.info);
        self.identify(session, &Identity { info, expires_at, ..identity })
    }

    /// Refuses the identities of a user until a time, in seconds since the Unix epoch; 0 accepts them again. Its open
    /// sessions stay.
    pub fn block(&mut self, user: Arc<str>, until: u64) -> Result<(), Refusal> {
        self.subscribers.clients_mut().block(user, until)
    }

    /// At most `count_max` sessions of a user, which is not anonymous, from the index `from` on, and the index to
    /// continue with; `None` if there are no more.
    pub fn sessions_of(
        &self,
        user: &str,
        from: usize,
        count_max: usize,
    ) -> (Vec<SessionId>, Option<usize>) {
        let identities = self.subscribers.clients().identities();
        let (found, next) = identities.sessions_of(user, from, count_max);
        let sessions = self.subscribers.sessions();
        (found.into_iter().map(|index| sessions.id(index)).collect(), next)
    }

    /// At most `count_max` sessions that are subscribed to a channel.
    pub fn sessions_in(&self, channel: &ChannelName, count_max: usize) -> Vec<SessionId> {
        self.subscribers.sessions_in(channel, count_max)
    }

    /// The client of a session as others see it, whether or not the session is open.
    pub fn client_info(&self, session: SessionId) -> ClientInfo {
        let client = self.settings.client_id(session);
        match self.subscribers.sessions().is_open(session) {
            true => self.subscribers.clients().connection_info(client),
            false => ClientInfo::anonymous(client),
        }
    }

    /// At most `count_max` channels that a session is subscribed to.
    pub fn channels_of(&self, session: SessionId, count_max: usize) -> Vec<ChannelName> {
        self.subscribers.channels_of(session, count_max)
    }

    /// The user of a session, which may not be open. `None` if it is anonymous.
    pub fn user(&self, session: SessionId) -> Option<&str> {
        let user = self.subscribers.clients().identities().user(session.index);
        user.filter(|_| self.subscribers.sessions().is_open(session))
    }

    /// Takes what a token or the backend says about a subscription.
    pub fn change_subscription(
        &mut self,
        session: SessionId,
        channel: &ChannelName,
        change: SubscriptionChange,
        out: &mut VecDeque<HubOutput>,
    ) {
        renewal::change(&mut self.subscribers, session, channel, change, &self.settings, out);
    }

    /// Ends the subscriptions of a session, which stays open, and who its client is.
    pub fn leave_channels(&mut self, session: SessionId, out: &mut VecDeque<HubOutput>) {
        self.subscribers.leave_channels(session, &self.settings, out);
    }

    /// Ends a session and its subscriptions.
    pub fn close(&mut self, session: SessionId, out: &mut VecDeque<HubOutput>) {
        self.subscribers.close(session, &self.settings, out);
    }

    /// Handles a request of a session. The caller has checked its permissions, and that the channel's namespace exists.
    /// A request without an id gets no reply. What is published shows its author to subscribers.
    pub fn handle(
        &mut self,
        session: SessionId,
        id: Option<RequestId>,
        author: Author,
        request: Request,
        out: &mut VecDeque<HubOutput>,
    ) {
        let Self { settings, subscribers, gathers, .. } = self;
        match (id, request) {
            (id, Request::Publish { channel: Some(channel), payload, options }) => {
                let to = settings.home_of(&channel);
                let publisher = settings.client_id(session);
                let info = subscribers::publisher(subscribers, session, author, &channel, settings);
                let message =
                    StreamMessage::Publish { channel, payload, publisher, info, id, options };
                out.push_back(HubOutput::send(to, message));
            }
            (Some(id), Request::Subscribe { channel, since, needs_all, form, options, .. }) => {
                let since = since.map(|since| (since, needs_all));
                let request = Subscribe { session, id, channel, since, form, options };
                subscribers.subscribe(request, settings, out);
            }
            (Some(id), Request::Unsubscribe { channel }) => {
                subscribers.unsubscribe(session, id, channel, settings, out);
            }
            (Some(id), Request::History { channel, query }) => {
                let (to, receipt) = (settings.home_of(&channel), settings.receipt(session, id));
                out.push_back(HubOutput::send(to, QueryMessage::Read { receipt, channel, query }));
            }
            (Some(id), Request::HistoryRemove { channel }) => {
                let (to, receipt) = (settings.home_of(&channel), settings.receipt(session, id));
                out.push_back(HubOutput::send(to, QueryMessage::Forget { receipt, channel }));
            }
            (Some(id), Request::Presence { channel, list_max }) => {
                let question = (channel, list_max);
                gathers.ask_for_presence(session, id, question, settings, out);
            }
            (Some(id), Request::Channels { pattern }) => {
                gathers.ask_for_channels(session, id, &pattern, settings, out);
            }
            (Some(id), Request::Control { client, user, control }) => {
                let (receipt, session) = (settings.receipt(session, id), client.session);
                self.control(client, ControlOne { receipt, session, user, control }, out);
            }
            (Some(id), Request::ControlUser(command)) => {
                let task = SurveyTask::Control(*command);
                gathers.ask_for_survey(session, id, task, settings, out);
            }
            (Some(id), Request::Connections { selection, with_channels }) => {
                let task = SurveyTask::List { selection, with_channels };
                gathers.ask_for_survey(session, id, task, settings, out);
            }
            (Some(id), Request::Block { user, until }) => {
                let task = SurveyTask::Block { user, until };
                gathers.ask_for_survey(session, id, task, settings, out);
            }
            (id, Request::Publish { channel: None, .. }) => {
                refuse(session, id, Refusal::NotSubscribed, out);
            }
            // The backend answers it, if there is one.
            (id @ Some(_), Request::Call { .. }) => refuse(session, id, Refusal::NotAvailable, out),
            // The worker answers these three itself; conversations give every other request an id.
            (
                _,
                Request::Connect(_) | Request::Refresh { .. } | Request::RefreshSubscription { .. },
            )
            | (None, _) => {}
        }
    }

    /// Whether a channel has subscribers on any worker, if this worker is its home.
    pub fn is_occupied(&self, channel: &ChannelName) -> bool {
        self.streams.is_occupied(channel)
    }

    /// Handles a message from a hub, which may be this one.
    pub fn handle_message(&mut self, message: HubMessage, out: &mut VecDeque<HubOutput>) {
        match message {
            HubMessage::Stream(message) => self.handle_stream_message(message, out),
            HubMessage::Query(message) => self.handle_query_message(message, out),
        }
    }

    fn handle_stream_message(&mut self, message: StreamMessage, out: &mut VecDeque<HubOutput>) {
        let Self { settings, subscribers, streams, join_leave, now_ms, .. } = self;
        match message {
            StreamMessage::Interest { from, channel, serial } => {
                let limits = &settings.limits;
                let position = streams.add_interest(&channel, from, limits, *now_ms);
                self.watch_statistics(&channel);
                let message = StreamMessage::Granted { channel, position, serial };
                out.push_back(HubOutput::send(from, message));
            }
            StreamMessage::Disinterest { from, channel } => {
                streams.remove_interest(&channel, from, *now_ms);
                self.watch_statistics(&channel);
            }
            StreamMessage::Granted { channel, position, serial } => {
                subscribers.grant(&channel, position, serial, settings, out);
            }
            StreamMessage::Recover {
                from,
                session,
                channel,
                since,
                needs_all,
                recovers,
                filter,
                serial,
            } => {
                let filter = filter.as_deref();
                let (position, recovery) =
                    streams.recover(&channel, since, recovers, filter, &settings.limits, *now_ms);
                let is_refused = needs_all
                    && !recovery.is_complete
                    && streams.is_recoverable(&channel, recovers);
                let recovery = (!is_refused).then_some(recovery);
                let message =
                    StreamMessage::Recovered { session, channel, position, recovery, serial };
                out.push_back(HubOutput::send(from, message));
            }
            StreamMessage::Recovered { session, channel, position, recovery, serial } => {
                let answer = (position, recovery);
                subscribers.recovered(session, &channel, answer, serial, settings, out);
            }
            StreamMessage::Publish { channel, payload, publisher, info, id, options } => {
                let ClientId { worker, session, .. } = publisher;
                let receipt = id.map(|id| Receipt { worker, session, id });
                let publisher = Some(Publisher { client: publisher, info });
                self.number(channel, payload, publisher, receipt, options.as_deref(), out);
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

    fn handle_query_message(&mut self, message: QueryMessage, out: &mut VecDeque<HubOutput>) {
        let Self { settings, subscribers, streams, gathers, now_ms, .. } = self;
        match message {
            QueryMessage::Read { receipt, channel, query } => {
                reply_to(receipt, streams.read(&channel, query, &settings.limits, *now_ms), out);
            }
            QueryMessage::Forget { receipt, channel } => {
                streams.forget(&channel);
                reply_to(receipt, Reply::Done, out);
            }
            QueryMessage::Answer { receipt, reply } => {
                let (session, id) = (receipt.session, receipt.id);
                out.push_back(HubOutput::Reply { session, id, reply });
            }
            QueryMessage::CountAll { gather, channel, list_max } => {
                let interested = streams.interested(&channel);
                let parts = interested.len();
                if parts == 0 {
                    return send_part(gather, 0, None, out);
                }
                for to in interested.iter() {
                    let channel = channel.clone();
                    let message = QueryMessage::Count { gather, channel, list_max, parts };
                    out.push_back(HubOutput::send(to, message));
                }
            }
            QueryMessage::Count { gather, channel, list_max, parts } => {
                let present = match list_max {
                    0 => subscribers.count(&channel, parts, settings),
                    _ => subscribers.presence(&channel, list_max, settings),
                };
                let has_listed = !present.clients.is_empty();
                send_part(gather, parts, Some(Part::Presence(present)), out);
                let has_join_leave =
                    settings.has_join_leave(&channel) || subscribers.clients().has_options();
                if has_listed && has_join_leave {
                    // It arrives there after the joins of the clients that are listed, and before their leaves.
                    let to = settings.home_of(&channel);
                    out.push_back(HubOutput::send(to, StreamMessage::Listed(channel)));
                }
            }
            QueryMessage::List { gather, pattern, from, mut found } => {
                if let Some(from) = subscribers.list(&pattern, from, &mut found) {
                    let message = QueryMessage::List { gather, pattern, from, found };
                    out.push_back(HubOutput::Later(message.into()));
                } else {
                    send_part(gather, settings.workers, Some(Part::Channels(found)), out);
                }
            }
            QueryMessage::Part { gather, parts, part } => {
                if let Some((session, id, reply)) = gathers.add(gather, parts, part) {
                    out.push_back(HubOutput::Reply { session, id, reply });
                }
            }
            QueryMessage::Control(control) => out.push_back(HubOutput::Control(control)),
            QueryMessage::Survey(survey) => out.push_back(HubOutput::Survey(survey)),
        }
    }

    /// Does what is due at the time of this turn, in microseconds on the clock that all workers share.
    pub fn tick(&mut self, now_us: u64, out: &mut VecDeque<HubOutput>) {
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

    /// Ends sessions and subscriptions that have expired at this time of the calendar, in seconds since the Unix epoch,
    /// or has the backend asked about them: as many as there is room for, and a few others in each turn.
    pub fn expire(&mut self, now: u64, room: ExpiryRoom, out: &mut VecDeque<HubOutput>) {
        renewal::expire(&mut self.subscribers, now, room, &self.settings, out);
    }

    /// The time until [`Hub::tick`] has something to do, in milliseconds. `None` if nothing is due.
    pub fn next_tick(&self) -> Option<u64> {
        let due = [self.subscribers.delivery().next_due(), self.join_leave.next_due()];
        let due = due.into_iter().flatten().min()?;
        Some(due.saturating_sub(self.now_ms))
    }

    /// Whether this worker has to publish the statistics: it is the home of their channel, which has subscribers.
    pub fn wants_statistics(&self) -> bool {
        self.wants_statistics && self.settings.namespaces.has_statistics()
    }

    /// Refuses subscriptions to the statistics channel from now on, and publishes no more statistics.
    pub fn withdraw_statistics(&mut self) {
        Arc::make_mut(&mut self.settings.namespaces).remove_statistics();
    }

    /// Publishes the statistics, a JSON document.
    pub fn publish_statistics(&mut self, json: String, out: &mut VecDeque<HubOutput>) {
        let channel = ChannelName::new(STATISTICS_CHANNEL).expect("a name");
        let payload = Payload::new(PayloadKind::Json, json);
        self.number(channel, payload, None, None, None, out);
    }

    /// Whether a fan-out is in progress.
    pub fn wants_fan_out(&self) -> bool {
        !self.subscribers.delivery().fan_outs().is_idle()
    }

    /// Runs the fan-outs in progress for one turn: visits subscribers, and changes between channels after each slice.
    /// Each visit costs what `step` returns, at least 1; the turn ends once `cost_max` is reached.
    pub fn fan_out(&mut self, cost_max: usize, mut step: impl FnMut(FanOutStep<'_>) -> Visit) {
        self.subscribers.fan_out(cost_max, &self.settings, &mut step);
    }

    /// Releases all backlogs, and delivers at once from now on. For shutdown: publications that were acknowledged reach
    /// their subscribers before the connections are closed. Publications that a rate dropped stay dropped.
    pub fn stop_pacing(&mut self) {
        self.subscribers.stop_pacing(&self.settings);
    }

    /// Sheds the backlogs of `count` channels from slot `from` on, as far as their options allow publications to be
    /// dropped. Returns the slot to continue with; 0 after the last one.
    pub fn shed_backlogs(&mut self, from: usize, count: usize) -> usize {
        self.subscribers.shed(from, count, &self.settings)
    }

    /// Delivers some of the pending publications to a slow subscriber whose socket accepts bytes again. Returns whether
    /// there are more: then the caller has to repeat this once those bytes are sent.
    pub fn catch_up(&mut self, session: SessionId, out: &mut VecDeque<HubOutput>) -> bool {
        self.subscribers.catch_up(session, &self.settings, out)
    }

    /// The options of all channels.
    pub fn namespaces(&self) -> &Namespaces {
        &self.settings.namespaces
    }

    /// The channel that an open session subscribed to first. `None` without subscriptions.
    pub fn first_channel(&self, session: SessionId) -> Option<ChannelName> {
        self.subscribers.first_channel(session)
    }

    /// What a session has of a channel.
    pub fn subscription(&self, session: SessionId, channel: &ChannelName) -> SubscriptionState {
        self.subscribers.subscription(session, channel)
    }

    /// Sends a command of the server API to a client's worker: only that worker knows whether the client exists.
    fn control(&self, client: ClientId, control: ControlOne, out: &mut VecDeque<HubOutput>) {
        // Clients of other nodes, and of earlier runs of this one, do not exist here.
        if client.node == self.settings.node && client.worker.0 < self.settings.workers {
            let message = QueryMessage::Control(Box::new(control));
            out.push_back(HubOutput::send(client.worker, message));
        } else {
            reply_to(control.receipt, Reply::Done, out);
        }
    }

    /// On the channel's home: numbers a publication and sends it to the workers with subscribers.
    fn number(
        &mut self,
        channel: ChannelName,
        payload: Payload,
        publisher: Option<Publisher>,
        receipt: Option<Receipt>,
        options: Option<&PublishOptions>,
        out: &mut VecDeque<HubOutput>,
    ) {
        let limits = &self.settings.limits;
        let numbered =
            self.streams.number(channel, payload, publisher, options, limits, self.now_us);
        let reply = match numbered {
            Numbered::New(publication, interested) => {
                for to in interested.iter() {
                    let message = StreamMessage::Deliver(publication.clone());
                    out.push_back(HubOutput::send(to, message));
                }
                let in_stream = publication.in_stream;
                let position = if in_stream { publication.position } else { Position::NOWHERE };
                Reply::Published { position }
            }
            Numbered::Known(position) => Reply::Published { position },
            Numbered::Outdated(position) => Reply::Outdated { position },
        };
        // The reply follows the publication: when the publisher receives it, the fan-outs have begun or are about to.
        if let Some(receipt) = receipt {
            reply_to(receipt, reply, out);
        }
    }

    /// On the channel's home: sends joins and leaves to the workers with subscribers.
    fn deliver_join_leave(
        &self,
        channel: &ChannelName,
        items: &[Item],
        out: &mut VecDeque<HubOutput>,
    ) {
        let interested = self.streams.interested(channel);
        for item in items {
            for to in interested.iter() {
                let (channel, item) = (channel.clone(), item.clone());
                let message = StreamMessage::DeliverJoinLeave { channel, item };
                out.push_back(HubOutput::send(to, message));
            }
        }
    }

    /// The workers with subscribers of a channel have changed: updates whether statistics are wanted.
    fn watch_statistics(&mut self, channel: &ChannelName) {
        if channel.as_str() == STATISTICS_CHANNEL {
            self.wants_statistics = self.streams.interested(channel).len() > 0;
        }
    }
}
