//! How sessions come to channels and leave them, and how publications come to sessions.

use std::collections::VecDeque;
use std::sync::Arc;

use super::backlog::{Pace, missed_before};
use super::queries::refuse;
use super::subscribers::{LocalChannel, Subscription};
use super::{Hub, Output, StreamMessage, index, some};
use crate::config::ChannelOptions;
use crate::config::limits::CATCH_UP_BYTES_MAX;
use crate::message::{
    ChannelName, ClientInfo, Item, Origin, Position, Recovery, Refusal, Reply, RequestId, SessionId,
};

impl Hub {
    pub(super) fn subscribe(
        &mut self,
        session: SessionId,
        id: RequestId,
        channel: ChannelName,
        since: Option<(Position, bool)>,
        out: &mut VecDeque<Output>,
    ) {
        if let Err(refusal) = self.has_place(session, &channel) {
            return refuse(session, Some(id), refusal, out);
        }
        let key = match self.names.find(&channel, &self.channels) {
            Some(key) => key,
            None => self.take_interest(channel.clone(), out),
        };
        let local = &mut self.channels[key as usize];
        let granted = local.position();
        // A position is compared with what the home keeps; without one, where the stream stands is known here.
        let node = Subscription::new(session.index, key, id, since.is_some());
        let subscription = index(self.subscriptions.insert(node));
        self.sessions.append(session, subscription, &mut self.subscriptions);
        local.wait(subscription, &mut self.subscriptions);
        if let Some((since, needs_all)) = since {
            let serial = id.serial;
            let to = self.home_of(&channel);
            let from = self.settings.worker;
            let message =
                StreamMessage::Recover { from, session, channel, since, needs_all, serial };
            out.push_back(Output::send(to, message));
        } else if let Some(position) = granted {
            self.join(subscription, id, position, None, out);
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        session: SessionId,
        id: RequestId,
        channel: ChannelName,
        out: &mut VecDeque<Output>,
    ) {
        let reply = match self.find(session, &channel) {
            Some(subscription) => {
                // Its own request is answered too, and first.
                let waits_for = self.subscriptions[subscription as usize].waits_for();
                refuse(session, waits_for, Refusal::Withdrawn, out);
                self.deliver_rest(subscription, out);
                self.remove(subscription, out);
                Reply::Unsubscribed { channel }
            }
            None => Reply::Refused(Refusal::NotSubscribed),
        };
        out.push_back(Output::Reply { session, id, reply });
    }

    /// The home's answer to a question of this worker.
    pub(super) fn grant(
        &mut self,
        channel: &ChannelName,
        position: Position,
        serial: u32,
        out: &mut VecDeque<Output>,
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
            self.join(subscription, id, position, None, out);
        }
    }

    /// The home's answer to a session's question. What was published before it has come already, what is published
    /// after it will come.
    pub(super) fn recovered(
        &mut self,
        session: SessionId,
        channel: ChannelName,
        position: Position,
        recovery: Option<Recovery>,
        serial: u32,
        out: &mut VecDeque<Output>,
    ) {
        if !self.sessions.is_open(session) {
            return;
        }
        let Some(subscription) = self.find(session, &channel) else { return };
        let node = &self.subscriptions[subscription as usize];
        // It may have left and come again meanwhile.
        let Some(id) = node.waits_for().filter(|_| node.recovery() == Some(serial)) else {
            return;
        };
        let Some(recovery) = recovery else {
            refuse(session, Some(id), Refusal::PositionUnrecoverable, out);
            return self.remove(subscription, out);
        };
        let key = node.channel;
        if recovery.has_more && id.origin != Origin::Server {
            let channel = self.channels[key as usize].name.clone();
            let recovery = Some(recovery);
            let reply = Reply::Subscribed { channel, position, recoverable: true, recovery };
            out.push_back(Output::Reply { session, id, reply });
            return self.remove(subscription, out);
        }
        // What the server API did is told in one piece.
        let recovery = if recovery.has_more { Recovery::impossible() } else { recovery };
        // What waits here for its moment is part of what was recovered.
        while self.channels[key as usize].backlog.as_ref().is_some_and(|backlog| backlog.waits()) {
            self.release(key);
        }
        self.join(subscription, id, position, Some(recovery), out);
    }

    /// Makes a waiting subscription a joined one, and answers its request.
    fn join(
        &mut self,
        subscription: u32,
        id: RequestId,
        position: Position,
        recovery: Option<Recovery>,
        out: &mut VecDeque<Output>,
    ) {
        let node = &self.subscriptions[subscription as usize];
        let (session, key) = (self.sessions.id(node.session), node.channel);
        let local = &mut self.channels[key as usize];
        local.unlink(subscription, &mut self.subscriptions);
        local.join(subscription, &mut self.subscriptions);
        let options = self.settings.namespaces.options(local.namespace);
        let recoverable = options.is_recoverable();
        let tells = options.join_leave;
        let channel = local.name.clone();
        let reply = Reply::Subscribed { channel: channel.clone(), position, recoverable, recovery };
        out.push_back(Output::Reply { session, id, reply });
        if tells {
            self.send_news(session, channel, true, out);
        }
    }

    /// Whether a session may have one more subscription, and does not have this one.
    fn has_place(&self, session: SessionId, channel: &ChannelName) -> Result<(), Refusal> {
        if self.find(session, channel).is_some() {
            return Err(Refusal::AlreadySubscribed);
        }
        if self.sessions.count(session) >= self.settings.limits.subscriptions_max {
            return Err(Refusal::SubscriptionsExhausted);
        }
        Ok(())
    }

    /// Makes the local part of a channel and asks its home for it.
    fn take_interest(&mut self, channel: ChannelName, out: &mut VecDeque<Output>) -> u32 {
        let namespace = self.settings.namespaces.find(channel.as_str());
        let namespace = namespace.expect("the request was allowed");
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let options = self.settings.namespaces.options(namespace);
        let local = LocalChannel::new(channel.clone(), serial, namespace, options);
        let key = index(self.channels.insert(local));
        self.channel_slots = self.channel_slots.max(key as usize + 1);
        self.names.insert(key, &self.channels);
        let to = self.home_of(&channel);
        let message = StreamMessage::Interest { from: self.settings.worker, channel, serial };
        out.push_back(Output::send(to, message));
        key
    }

    /// The local part of a channel, if it receives what the home delivers. What was under way when the last subscriber
    /// left, or before the home granted a new interest, has no receiver.
    pub(super) fn receiving(&self, channel: &ChannelName) -> Option<u32> {
        let key = self.names.find(channel, &self.channels)?;
        self.channels[key as usize].position().map(|_| key)
    }

    /// Takes an item that the home delivered.
    pub(super) fn deliver(&mut self, key: u32, item: Item) {
        let local = &mut self.channels[key as usize];
        let Some(backlog) = &mut local.backlog else { return self.arrive(key, item) };
        let options = self.settings.namespaces.options(local.namespace);
        let before = backlog.bytes();
        let pace = backlog.hold(options, item, self.now_ms);
        self.backlog_bytes = self.backlog_bytes + backlog.bytes() - before;
        self.drops.rate += backlog.take_dropped();
        match pace {
            _ if !self.is_pacing => self.release(key),
            Pace::Wait => {}
            Pace::WaitUntil(due_ms) => drop(self.timed.insert((due_ms, key))),
            Pace::Release => self.release(key),
        }
    }

    /// Lets go what waits for its moment, or as much of it as may go at once.
    pub(super) fn release(&mut self, key: u32) {
        let Some(local) = self.channels.get_mut(key as usize) else { return };
        let Some(backlog) = &mut local.backlog else { return };
        let options = self.settings.namespaces.options(local.namespace);
        if let Some(due_ms) = backlog.due_ms() {
            self.timed.remove(&(due_ms, key));
        }
        let before = backlog.bytes();
        let released = backlog.release(options, self.now_ms);
        self.backlog_bytes = self.backlog_bytes + backlog.bytes() - before;
        if let Some(due_ms) = backlog.due_ms() {
            self.timed.insert((due_ms, key));
        }
        for item in released {
            self.arrive(key, item);
        }
    }

    /// Lets go what waits for its moment, and has nothing wait for one from now on: the server stops, and what it
    /// acknowledged is to reach subscribers before their connections are closed. What rates left out stays left out.
    pub fn stop_pacing(&mut self) {
        self.is_pacing = false;
        // A rate lets go a part, and sets a moment for the rest.
        while let Some((_, key)) = self.timed.pop_first() {
            self.release(key);
        }
    }

    /// Has an item go to every subscriber that there is by now.
    fn arrive(&mut self, key: u32, item: Item) {
        let local = &mut self.channels[key as usize];
        if let Item::Publication(publication) = &item {
            local.advance(publication.position);
            if let Some(backlog) = &mut local.backlog {
                let options = self.settings.namespaces.options(local.namespace);
                let bytes_max = self.settings.limits.backlog_bytes_max;
                let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
                let before = backlog.bytes();
                backlog.keep(options, publication, bytes_max);
                self.backlog_bytes = self.backlog_bytes + backlog.bytes() - before;
            }
        }
        let arrival = local.arrivals;
        local.arrivals += 1;
        self.fan_outs.add(key, local, arrival, item);
    }

    /// Has some channels, from slot `from` on, give back what they hold back and may drop. Returns the slot behind
    /// them; 0 after the last one.
    pub fn shed_backlogs(&mut self, from: usize, count: usize) -> usize {
        let until = self.channel_slots.min(from + count);
        for slot in from..until {
            let Some(local) = self.channels.get_mut(slot) else { continue };
            let has_laggards = local.has_apart();
            let Some(backlog) = &mut local.backlog else { continue };
            let before = backlog.bytes();
            backlog.shed(self.settings.namespaces.options(local.namespace), has_laggards);
            self.drops.memory += backlog.take_dropped();
            self.backlog_bytes = self.backlog_bytes + backlog.bytes() - before;
        }
        if until == self.channel_slots { 0 } else { until }
    }

    /// The socket of a session that lags takes more again: gives it some of what it has yet to get. Returns whether it
    /// lags still; then it is to be called once that is gone.
    pub fn catch_up(&mut self, session: SessionId, out: &mut VecDeque<Output>) -> bool {
        let mut lags = false;
        let mut at = self.sessions.first(session);
        while let Some(subscription) = at {
            let node = &self.subscriptions[subscription as usize];
            at = some(node.next_in_session);
            let Some(from) = node.lags_from() else { continue };
            let key = node.channel;
            let local = &mut self.channels[key as usize];
            let options: &ChannelOptions = self.settings.namespaces.options(local.namespace);
            let Some(backlog) = &local.backlog else { continue };
            let (items, next) = backlog.catch_up(options, from, CATCH_UP_BYTES_MAX);
            self.drops.lag += missed_before(from, &items);
            if !items.is_empty() {
                let channel = local.name.clone();
                out.push_back(Output::Deliver { session, channel, items });
            }
            if let Some(next) = next {
                local.lag(subscription, next, &mut self.subscriptions);
                lags = true;
            } else {
                local.unlink(subscription, &mut self.subscriptions);
                local.join(subscription, &mut self.subscriptions);
            }
        }
        lags
    }

    /// Gives a subscriber that leaves what is under way to it: its publisher may have an answer already, and may be the
    /// subscriber itself.
    fn deliver_rest(&mut self, subscription: u32, out: &mut VecDeque<Output>) {
        let node = &self.subscriptions[subscription as usize];
        let local = &self.channels[node.channel as usize];
        let items = self.fan_outs.rest(local, node);
        if !items.is_empty() {
            let (session, channel) = (self.sessions.id(node.session), local.name.clone());
            out.push_back(Output::Deliver { session, channel, items });
        }
    }

    pub(super) fn remove(&mut self, subscription: u32, out: &mut VecDeque<Output>) {
        let node = &self.subscriptions[subscription as usize];
        let (session, key) = (self.sessions.id(node.session), node.channel);
        let had_joined = node.waits_for().is_none();
        self.sessions.unlink(session, subscription, &mut self.subscriptions);
        let local = &mut self.channels[key as usize];
        if had_joined && self.settings.namespaces.options(local.namespace).join_leave {
            let channel = local.name.clone();
            self.send_news(session, channel, false, out);
        }
        let local = &mut self.channels[key as usize];
        local.unlink(subscription, &mut self.subscriptions);
        self.subscriptions.remove(subscription as usize);
        if local.is_empty() {
            let local = self.channels.remove(key as usize);
            self.fan_outs.end(&local);
            if let Some(backlog) = &local.backlog {
                self.backlog_bytes -= backlog.bytes();
                if let Some(due_ms) = backlog.due_ms() {
                    self.timed.remove(&(due_ms, key));
                }
            }
            self.names.remove(key, &local.name);
            let to = self.home_of(&local.name);
            let message =
                StreamMessage::Disinterest { from: self.settings.worker, channel: local.name };
            out.push_back(Output::send(to, message));
        }
    }

    fn send_news(
        &self,
        session: SessionId,
        channel: ChannelName,
        has_joined: bool,
        out: &mut VecDeque<Output>,
    ) {
        let client = Arc::new(ClientInfo::anonymous(self.settings.client_id(session)));
        let to = self.home_of(&channel);
        let item = if has_joined { Item::Joined(client) } else { Item::Left(client) };
        let message = StreamMessage::JoinLeave { channel, item };
        out.push_back(Output::send(to, message));
    }

    /// Delivers joins and leaves to a channel's subscribers.
    pub(super) fn tell_news(
        &mut self,
        channel: &ChannelName,
        items: Vec<Item>,
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

    /// Some of a channel's subscribers on this worker, and how many they are.
    pub(super) fn subscribers(
        &self,
        channel: &ChannelName,
        list_max: u32,
    ) -> (Vec<ClientInfo>, u64) {
        let Some(key) = self.names.find(channel, &self.channels) else { return (Vec::new(), 0) };
        let local = &self.channels[key as usize];
        let clients = local
            .members(&self.subscriptions)
            .filter(|node| node.waits_for().is_none())
            .take(list_max as usize)
            .map(|node| {
                let session = self.sessions.id(node.session);
                ClientInfo::anonymous(self.settings.client_id(session))
            })
            .collect();
        (clients, u64::from(local.subscribers))
    }
}
