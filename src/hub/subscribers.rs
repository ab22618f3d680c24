//! The local side of channels: the sessions of this worker, their subscriptions, and the channels that this worker
//! receives from their homes. Requests to subscribe and messages of homes come in; replies, and messages to homes, go
//! out.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use super::clients::Clients;
use super::delivery::Delivery;
use super::fan_out::{Audience, FanOutStep, Visit};
use super::forms::Forms;
use super::join_leave::send_join_leave;
use super::local_channel::{Form, LocalChannel, Subscription, SubscriptionState};
use super::message::{Author, HubOutput, Present, StreamMessage, Subscribe, refuse};
use super::name_table::NameTable;
use super::session::Sessions;
use super::settings::HubSettings;
use super::slots::{NONE, slot, some};
use crate::config::limits::{CHANNELS_LIST_MAX, CHANNELS_LOOKED_AT_PER_TURN_MAX};
use crate::message::{
    ChannelName, ChannelPattern, ClientInfo, Item, Origin, Position, Recovery, Refusal, Reply,
    RequestId, SessionId, SubscriptionForm,
};

/// The sessions of this worker, their subscriptions and their channels.
#[derive(Debug)]
pub(super) struct Subscribers {
    sessions: Sessions,
    clients: Clients,
    subscriptions: Slab<Subscription>,
    channels: Slab<LocalChannel>,
    names: NameTable,
    delivery: Delivery,
    forms: Forms,
    /// The number of slots of `channels` that were ever in use.
    channel_slots: usize,
    serial: u32,
}

impl Subscribers {
    pub(super) fn new(settings: &HubSettings) -> Self {
        Self {
            sessions: Sessions::with_capacity(settings.sessions_max),
            clients: Clients::new(settings),
            subscriptions: Slab::with_capacity(4 * settings.sessions_max),
            channels: Slab::with_capacity(settings.sessions_max),
            names: NameTable::new(&settings.hash),
            delivery: Delivery::default(),
            forms: Forms::default(),
            channel_slots: 0,
            serial: 0,
        }
    }

    pub(super) fn open(&mut self, session: SessionId) {
        self.sessions.open(session);
    }

    /// At most `count_max` sessions that are subscribed to a channel.
    pub(super) fn sessions_in(&self, channel: &ChannelName, count_max: usize) -> Vec<SessionId> {
        let Some(local) = self.local(channel) else { return Vec::new() };
        let sessions = self.subscribers_of(local).map(|(_, node)| self.sessions.id(node.session));
        sessions.take(count_max).collect()
    }

    /// At most `count_max` channels that a session is subscribed to.
    pub(super) fn channels_of(&self, session: SessionId, count_max: usize) -> Vec<ChannelName> {
        let is_open = self.sessions.is_open(session);
        let mut at = is_open.then(|| self.sessions.first(session)).flatten();
        let channels = std::iter::from_fn(|| {
            let node = &self.subscriptions[at? as usize];
            at = some(node.next_in_session);
            Some(self.channels[node.channel as usize].name.clone())
        });
        channels.take(count_max).collect()
    }

    /// Ends a session and its subscriptions.
    pub(super) fn close(
        &mut self,
        session: SessionId,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        self.leave_channels(session, settings, out);
        self.clients.remove(session.index);
        self.sessions.close(session);
    }

    /// Ends the subscriptions of a session.
    pub(super) fn leave_channels(
        &mut self,
        session: SessionId,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        while let Some(subscription) = self.sessions.first(session) {
            self.remove(subscription, settings, out);
        }
    }

    pub(super) fn subscribe(
        &mut self,
        request: Subscribe,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        let Subscribe { session, id, channel, since, form, options } = request;
        if let Err(refusal) = self.may_subscribe(session, &channel, &form, settings) {
            return refuse(session, Some(id), refusal, out);
        }
        let key = match self.names.find(&channel, &self.channels) {
            Some(key) => key,
            None => self.take_interest(channel.clone(), settings, out),
        };
        let local = &mut self.channels[key as usize];
        let allowed = Form::of(&form, settings.options(local.namespace));
        // Only the home can recover from a position. Without one, this worker knows the position of the stream.
        let node = Subscription::new(session.index, key, id, since.is_some(), allowed);
        let subscription = slot(self.subscriptions.insert(node));
        self.forms.begin(subscription, allowed, form.filter.as_ref(), key, local);
        self.sessions.append(session, subscription, &mut self.subscriptions);
        let recovers = options.as_ref().and_then(|options| options.overrides.force_recovery);
        if let Some(options) = options {
            self.clients.set_options(subscription, options);
        }
        local.wait(subscription, &mut self.subscriptions);
        if let Some((since, needs_all)) = since {
            let serial = id.serial;
            let to = settings.home_of(&channel);
            out.push_back(HubOutput::send(
                to,
                StreamMessage::Recover {
                    from: settings.worker,
                    session,
                    channel,
                    since,
                    needs_all,
                    recovers,
                    filter: form.filter,
                    serial,
                },
            ));
        } else if let Some(position) = local.position() {
            self.join(subscription, id, position, None, settings, out);
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        session: SessionId,
        id: RequestId,
        channel: ChannelName,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        let reply = match self.find(session, &channel) {
            Some(subscription) => {
                // A pending request to subscribe gets its reply first.
                let waits_for = self.subscriptions[subscription as usize].waits_for();
                refuse(session, waits_for, Refusal::Withdrawn, out);
                self.deliver_rest(subscription, settings, out);
                self.remove(subscription, settings, out);
                Reply::Unsubscribed { channel }
            }
            None => Reply::Refused(Refusal::NotSubscribed),
        };
        out.push_back(HubOutput::Reply { session, id, reply });
    }

    /// The home granted the interest of this worker: sessions that wait for that are subscribed.
    pub(super) fn grant(
        &mut self,
        channel: &ChannelName,
        position: Position,
        serial: u32,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        let Some(key) = self.names.find(channel, &self.channels) else { return };
        let local = &mut self.channels[key as usize];
        if local.position().is_some() || local.serial != serial {
            return;
        }
        local.advance(position);
        while let Some(subscription) = self.channels[key as usize].first_waiting() {
            let id = self.subscriptions[subscription as usize].waits_for();
            let id = id.expect("it waits");
            self.join(subscription, id, position, None, settings, out);
        }
    }

    /// The home answered a session's request to recover, with the position of the stream and the recovery; `None` if
    /// the session needs all publications and some are lost. Publications up to that position have arrived before this
    /// answer, and later ones will arrive after it.
    pub(super) fn recovered(
        &mut self,
        session: SessionId,
        channel: &ChannelName,
        (position, recovery): (Position, Option<Recovery>),
        serial: u32,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        if !self.sessions.is_open(session) {
            return;
        }
        let Some(subscription) = self.find(session, channel) else { return };
        let node = &self.subscriptions[subscription as usize];
        // It may have unsubscribed and subscribed again meanwhile.
        let Some(id) = node.waits_for().filter(|_| node.recovery() == Some(serial)) else {
            return;
        };
        let Some(recovery) = recovery else {
            refuse(session, Some(id), Refusal::PositionUnrecoverable, out);
            return self.remove(subscription, settings, out);
        };
        let (key, delta) = (node.channel, node.takes_deltas());
        if recovery.has_more && id.origin != Origin::Server {
            let reply = Reply::Subscribed {
                channel: self.channels[key as usize].name.clone(),
                position,
                recoverable: true,
                recovery: Some(recovery),
                delta,
                options: None,
            };
            out.push_back(HubOutput::Reply { session, id, reply });
            return self.remove(subscription, settings, out);
        }
        // A subscription by the server API is announced to the client in one piece.
        let recovery = if recovery.has_more { Recovery::impossible() } else { recovery };
        // The recovery includes the channel's backlog.
        self.delivery.release_all(key, &mut self.channels, settings);
        self.join(subscription, id, position, Some(recovery), settings, out);
    }

    /// The slot of a channel that this worker receives. `None` for items that were sent before the last subscriber
    /// left, or before the home granted a new interest: they are not delivered.
    pub(super) fn receiving(&self, channel: &ChannelName) -> Option<u32> {
        let key = self.names.find(channel, &self.channels)?;
        self.channels[key as usize].position().map(|_| key)
    }

    /// Delivers an item to the subscribers of the channel in slot `key`.
    pub(super) fn deliver(&mut self, key: u32, item: Item, settings: &HubSettings) {
        self.delivery.deliver(key, item, &mut self.channels, settings);
    }

    /// Releases the backlogs that are due.
    pub(super) fn tick(&mut self, now_ms: u64, settings: &HubSettings) {
        self.delivery.tick(now_ms, &mut self.channels, settings);
    }

    /// Releases all backlogs, and delivers at once from now on.
    pub(super) fn stop_pacing(&mut self, settings: &HubSettings) {
        self.delivery.stop_pacing(&mut self.channels, settings);
    }

    /// Sheds the backlogs of `count` channels from slot `from` on. Returns the slot to continue with; 0 after the last
    /// one.
    pub(super) fn shed(&mut self, from: usize, count: usize, settings: &HubSettings) -> usize {
        let until = self.channel_slots.min(from + count);
        for slot in from..until {
            if let Some(local) = self.channels.get_mut(slot) {
                self.forms.shed(slot as u32, local);
                self.delivery.shed(local, settings);
            }
        }
        if until == self.channel_slots { 0 } else { until }
    }

    /// Delivers some of the pending publications to a slow subscriber whose socket accepts bytes again. Returns whether
    /// there are more.
    pub(super) fn catch_up(
        &mut self,
        session: SessionId,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) -> bool {
        let mut is_behind = false;
        let mut at = self.sessions.first(session);
        while let Some(subscription) = at {
            let node = &self.subscriptions[subscription as usize];
            at = some(node.next_in_session);
            let Some(from) = node.is_behind_from() else { continue };
            let local = &mut self.channels[node.channel as usize];
            let (items, next) = self.delivery.catch_up(from, local, settings);
            let client = settings.client_id(session);
            self.forms.deliver(subscription, node, client, &local.name, items, out);
            if let Some(next) = next {
                local.fall_behind(subscription, next, &mut self.subscriptions);
                is_behind = true;
            } else {
                local.unlink(subscription, &mut self.subscriptions);
                local.join(subscription, &mut self.subscriptions);
            }
        }
        is_behind
    }

    /// Runs the fan-outs in progress until that has cost `cost_max`.
    pub(super) fn fan_out(
        &mut self,
        cost_max: usize,
        settings: &HubSettings,
        step: &mut impl FnMut(FanOutStep<'_>) -> Visit,
    ) {
        let Self { delivery, channels, subscriptions, sessions, forms, .. } = self;
        let client_of = |index| settings.client_id(sessions.id(index));
        delivery.fan_out(cost_max, Audience { channels, subscriptions, forms, client_of }, step);
    }

    /// At most `list_max` subscribers of a channel on this worker, and the number of all of them.
    pub(super) fn presence(
        &self,
        channel: &ChannelName,
        list_max: u32,
        settings: &HubSettings,
    ) -> Present {
        let Some((local, client_count)) = self.listed(channel) else { return Present::default() };
        let clients =
            self.clients.list(self.subscribers_of(local), &self.sessions, list_max, settings);
        Present { clients, client_count, ..Present::default() }
    }

    /// The number of subscribers of a channel on this worker, one of `parts`, and their users.
    pub(super) fn count(
        &self,
        channel: &ChannelName,
        parts: u16,
        settings: &HubSettings,
    ) -> Present {
        let Some((local, client_count)) = self.listed(channel) else { return Present::default() };
        self.clients.count(self.subscribers_of(local), client_count, parts, settings)
    }

    /// Adds the channels with subscribers that match a pattern, each with their number, to `found`. Looks at a limited
    /// number of slots from `from` on; returns the slot to continue with, or `None` if the list is complete.
    pub(super) fn list(
        &self,
        pattern: &ChannelPattern,
        from: usize,
        found: &mut Vec<(ChannelName, u64)>,
    ) -> Option<usize> {
        let until = from + CHANNELS_LOOKED_AT_PER_TURN_MAX;
        for slot in from..until.min(self.channel_slots) {
            if found.len() == CHANNELS_LIST_MAX {
                break;
            }
            if let Some(local) = self.channels.get(slot)
                && local.subscribers > 0
                && pattern.is_match(local.name.as_str())
            {
                found.push((local.name.clone(), u64::from(local.subscribers)));
            }
        }
        (until < self.channel_slots && found.len() < CHANNELS_LIST_MAX).then_some(until)
    }

    /// The channel that a session subscribed to first. `None` without subscriptions.
    pub(super) fn first_channel(&self, session: SessionId) -> Option<ChannelName> {
        let subscription = self.sessions.first(session)?;
        let channel = self.subscriptions[subscription as usize].channel;
        Some(self.channels[channel as usize].name.clone())
    }

    pub(super) fn subscription(
        &self,
        session: SessionId,
        channel: &ChannelName,
    ) -> SubscriptionState {
        match self.find(session, channel).map(|at| self.subscriptions[at as usize].waits_for()) {
            None => SubscriptionState::None,
            Some(None) => SubscriptionState::Joined,
            Some(Some(_)) => SubscriptionState::Pending,
        }
    }

    /// What is known about clients and subscriptions.
    pub(super) fn clients(&self) -> &Clients {
        &self.clients
    }

    pub(super) fn clients_mut(&mut self) -> &mut Clients {
        &mut self.clients
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(super) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    pub(super) fn forms(&self) -> &Forms {
        &self.forms
    }

    pub(super) fn channel_count(&self) -> usize {
        self.channels.len()
    }

    pub(super) fn subscription_count(&self) -> usize {
        self.subscriptions.len()
    }

    fn may_subscribe(
        &self,
        session: SessionId,
        channel: &ChannelName,
        form: &SubscriptionForm,
        settings: &HubSettings,
    ) -> Result<(), Refusal> {
        if form.filter.is_some() && !settings.allows_filters(channel) {
            return Err(Refusal::FilterNotAllowed);
        }
        if self.find(session, channel).is_some() {
            return Err(Refusal::AlreadySubscribed);
        }
        if self.sessions.count(session) >= settings.limits.subscriptions_max {
            return Err(Refusal::SubscriptionsExhausted);
        }
        Ok(())
    }

    /// Adds a channel to those that this worker receives, and sends the interest to its home.
    fn take_interest(
        &mut self,
        channel: ChannelName,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let namespace = settings.namespaces.find(channel.as_str());
        let namespace = namespace.expect("the request was permitted");
        let local =
            LocalChannel::new(channel.clone(), serial, namespace, settings.options(namespace));
        let key = slot(self.channels.insert(local));
        self.channel_slots = self.channel_slots.max(key as usize + 1);
        self.names.insert(key, &self.channels);
        let (from, to) = (settings.worker, settings.home_of(&channel));
        out.push_back(HubOutput::send(to, StreamMessage::Interest { from, channel, serial }));
        key
    }

    /// Makes a waiting subscription a joined one, and replies to its request.
    fn join(
        &mut self,
        subscription: u32,
        id: RequestId,
        position: Position,
        recovery: Option<Recovery>,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        let node = &self.subscriptions[subscription as usize];
        let (session, key, delta) =
            (self.sessions.id(node.session), node.channel, node.takes_deltas());
        let local = &mut self.channels[key as usize];
        local.unlink(subscription, &mut self.subscriptions);
        local.join(subscription, &mut self.subscriptions);
        let options = settings.options(local.namespace);
        let overrides = self.clients.overrides(subscription);
        let recoverable = options.is_recoverable_with(overrides.force_recovery);
        let channel = local.name.clone();
        self.clients.join(subscription, key);
        let reply = Reply::Subscribed {
            channel: channel.clone(),
            position,
            recoverable,
            recovery,
            delta,
            options: self.clients.options(subscription),
        };
        out.push_back(HubOutput::Reply { session, id, reply });
        if overrides.join_leave.unwrap_or(options.join_leave) {
            let client = Arc::new(self.clients.info(session, subscription, settings));
            send_join_leave(channel, client, Item::Joined, settings, out);
        }
    }

    /// Delivers the items of a fan-out in progress to a subscriber that leaves: the publisher may have its reply
    /// already, and may be the subscriber itself.
    pub(super) fn deliver_rest(
        &mut self,
        subscription: u32,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        let node = &self.subscriptions[subscription as usize];
        let local = &self.channels[node.channel as usize];
        let client = settings.client_id(self.sessions.id(node.session));
        let items = self.delivery.rest(local, node);
        self.forms.deliver(subscription, node, client, &local.name, items, out);
    }

    /// Ends a subscription.
    pub(super) fn remove(
        &mut self,
        subscription: u32,
        settings: &HubSettings,
        out: &mut VecDeque<HubOutput>,
    ) {
        let node = &self.subscriptions[subscription as usize];
        let (session, key) = (self.sessions.id(node.session), node.channel);
        let was_joined = node.waits_for().is_none();
        self.sessions.unlink(session, subscription, &mut self.subscriptions);
        let local = &mut self.channels[key as usize];
        if was_joined {
            self.clients.leave(subscription, key);
        }
        let overrides = self.clients.overrides(subscription);
        let join_leave = settings.options(local.namespace).join_leave;
        if was_joined && overrides.join_leave.unwrap_or(join_leave) {
            let channel = local.name.clone();
            let client = Arc::new(self.clients.info(session, subscription, settings));
            send_join_leave(channel, client, Item::Left, settings, out);
        }
        local.unlink(subscription, &mut self.subscriptions);
        let node = self.subscriptions.remove(subscription as usize);
        self.forms.end(subscription, &node, local);
        self.clients.remove_options(subscription);
        if local.is_empty() {
            let local = self.channels.remove(key as usize);
            self.delivery.end(key, &local);
            self.names.remove(key, local.name.as_str());
            let (from, to) = (settings.worker, settings.home_of(&local.name));
            let channel = local.name;
            out.push_back(HubOutput::send(to, StreamMessage::Disinterest { from, channel }));
        }
    }

    /// Whether the reply to a subscription has come.
    pub(super) fn has_joined(&self, subscription: u32) -> bool {
        self.subscriptions[subscription as usize].waits_for().is_none()
    }

    /// The session and the channel of a subscription.
    pub(super) fn place_of(&self, subscription: u32) -> (SessionId, ChannelName) {
        let node = &self.subscriptions[subscription as usize];
        (self.sessions.id(node.session), self.channels[node.channel as usize].name.clone())
    }

    fn local(&self, channel: &ChannelName) -> Option<&LocalChannel> {
        let key = self.names.find(channel, &self.channels)?;
        Some(&self.channels[key as usize])
    }

    /// A channel, and the number of its subscribers that are listed.
    fn listed(&self, channel: &ChannelName) -> Option<(&LocalChannel, u64)> {
        let key = self.names.find(channel, &self.channels)?;
        let local = &self.channels[key as usize];
        Some((local, u64::from(local.subscribers - self.clients.hidden_in(key))))
    }

    /// The subscribers of a channel, with their slots.
    fn subscribers_of(&self, local: &LocalChannel) -> impl Iterator<Item = (u32, &Subscription)> {
        local.members(&self.subscriptions).filter(|(_, node)| node.waits_for().is_none())
    }

    pub(super) fn find(&self, session: SessionId, channel: &ChannelName) -> Option<u32> {
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
}

/// What others see of the client that publishes, whether or not it is subscribed, or its session open; `None` if its
/// author is unknown.
pub(super) fn publisher(
    subscribers: &Subscribers,
    session: SessionId,
    author: Author,
    channel: &ChannelName,
    settings: &HubSettings,
) -> Option<Arc<ClientInfo>> {
    if author == Author::Unknown {
        return None;
    }
    let client = settings.client_id(session);
    if !subscribers.sessions.is_open(session) {
        return Some(Arc::new(ClientInfo::anonymous(client)));
    }
    // Few subscriptions have an info of their own, and to find one takes a walk over those of the session.
    let found = subscribers.clients.has_options().then(|| subscribers.find(session, channel));
    let subscription = found.flatten().unwrap_or(NONE);
    Some(Arc::new(subscribers.clients.info(session, subscription, settings)))
}
