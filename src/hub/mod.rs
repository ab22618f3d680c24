//! Channels, subscriptions and who is told what.
//!
//! **What it is.** One worker's share of the hub. A channel has one *home* worker, chosen by its name's hash, which
//! numbers its publications; every worker with subscribers of it has a *local* part, which knows them. A hub plays
//! both roles and speaks with its peers on other workers in [`HubMessage`]s, which keep their order between any two.
//!
//! **In and out.** In: sessions opened and closed, [`Request`]s, [`HubMessage`]s. Out: [`Output`]s, replies for
//! sessions and messages for workers; and, slice by slice, who gets which publications ([`Hub::fan_out`]).
//!
//! **Always true.** Only the home worker numbers a channel's publications. A subscriber gets every publication
//! numbered after the position it was told, in order, once, until it unsubscribes; one that joined after a
//! publication does not get it. A fan-out holds its worker for one bounded slice at a time. A channel without
//! subscribers owns nothing.
//!
//! **Must not know.** Sockets, transports, encodings, time.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use crate::message::{
    ChannelName, Payload, Position, Publication, Refusal, Reply, Request, SessionId, Ticket,
    WorkerId,
};

mod fan_out;
mod home;
mod local;
mod name_table;
mod session;

pub use fan_out::{FanOutBatch, FanOutStep};
pub use name_table::ChannelHash;

use fan_out::FanOuts;
use home::Homes;
use local::{LocalChannel, Subscription};
use name_table::NameTable;
use session::Sessions;

/// What a hub is told at start.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// This worker.
    pub worker: WorkerId,
    /// How many workers there are.
    pub workers: u16,
    /// Sessions this worker may have; address space for them is reserved.
    pub sessions_max: usize,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Chooses a channel's home; the same for all workers.
    pub hash: ChannelHash,
}

/// One worker's share of the hub.
#[derive(Debug)]
pub struct Hub {
    settings: HubSettings,
    sessions: Sessions,
    subscriptions: Slab<Subscription>,
    channels: Slab<LocalChannel>,
    names: NameTable,
    homes: Homes,
    fan_outs: FanOuts,
    interest_serial: u32,
}

/// What leaves a hub.
#[derive(Debug)]
pub enum Output {
    /// The answer to a request.
    Reply {
        /// Whose.
        session: SessionId,
        /// Which request.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
    },
    /// A message for a worker, perhaps this one.
    Send {
        /// Which.
        to: WorkerId,
        /// What.
        message: HubMessage,
    },
}

/// What hubs tell each other. Messages between two workers arrive in the order they were sent.
#[derive(Clone, Debug)]
pub enum HubMessage {
    /// To a channel's home: `from` wants its publications from now on.
    Interest {
        /// Who.
        from: WorkerId,
        /// Which.
        channel: ChannelName,
        /// Comes back in `Granted`, so that an answer is not taken for that of a later question.
        serial: u32,
    },
    /// To a channel's home: `from` wants its publications no more.
    Disinterest {
        /// Who.
        from: WorkerId,
        /// Which.
        channel: ChannelName,
    },
    /// From a channel's home: every publication after this position will be delivered.
    Granted {
        /// Which.
        channel: ChannelName,
        /// Where its stream stood.
        position: Position,
        /// Of the question.
        serial: u32,
    },
    /// To a channel's home: number this and deliver it.
    Publish {
        /// Where it was published.
        channel: ChannelName,
        /// What.
        payload: Payload,
        /// Who wants to know its position.
        receipt: Option<Receipt>,
    },
    /// From a channel's home: the publication was accepted.
    Published {
        /// For whom.
        receipt: Receipt,
        /// Its place.
        position: Position,
    },
    /// From a channel's home: deliver this to every local subscriber.
    Deliver(Arc<Publication>),
}

/// Where the answer to a publish goes.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    /// The publisher's worker.
    pub worker: WorkerId,
    /// The publisher.
    pub session: SessionId,
    /// Its request.
    pub ticket: Ticket,
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
            homes: Homes::new(&settings.hash, settings.sessions_max),
            fan_outs: FanOuts::default(),
            interest_serial: 0,
            settings,
        }
    }

    /// Sessions may have this many subscriptions from now on; those that have more keep them.
    pub fn set_subscriptions_max(&mut self, count: usize) {
        self.settings.subscriptions_max = count;
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

    /// Does what a session asks.
    pub fn handle(&mut self, session: SessionId, request: Request, out: &mut VecDeque<Output>) {
        match request {
            Request::Subscribe { ticket, channel, .. } => {
                self.subscribe(session, ticket, channel, out);
            }
            Request::Unsubscribe { ticket, channel } => {
                let reply = match self.find(session, &channel) {
                    Some(subscription) => {
                        // Its own request is answered too, and first.
                        if let Some(ticket) = self.subscriptions[subscription as usize].waits_for()
                        {
                            refuse(session, Some(ticket), Refusal::Withdrawn, out);
                        }
                        self.remove(subscription, out);
                        Reply::Unsubscribed { channel }
                    }
                    None => Reply::Refused(Refusal::NotSubscribed),
                };
                out.push_back(Output::Reply { session, ticket, reply });
            }
            Request::Publish { ticket, channel, payload, .. } => {
                let channel = channel.or_else(|| self.first_channel(session));
                let Some(channel) = channel else {
                    refuse(session, ticket, Refusal::NotSubscribed, out);
                    return;
                };
                let receipt =
                    ticket.map(|ticket| Receipt { worker: self.settings.worker, session, ticket });
                let to = self.home_of(&channel);
                let message = HubMessage::Publish { channel, payload, receipt };
                out.push_back(Output::Send { to, message });
            }
            Request::History { ticket, .. }
            | Request::HistoryRemove { ticket, .. }
            | Request::Presence { ticket, .. }
            | Request::Channels { ticket, .. }
            | Request::Control { ticket, .. } => {
                refuse(session, Some(ticket), Refusal::NotAvailable, out);
            }
        }
    }

    /// Does what another worker's hub, or this one, asks or tells.
    pub fn handle_message(&mut self, message: HubMessage, out: &mut VecDeque<Output>) {
        match message {
            HubMessage::Interest { from, channel, serial } => {
                let position = self.homes.add_interest(&channel, from);
                let message = HubMessage::Granted { channel, position, serial };
                out.push_back(Output::Send { to: from, message });
            }
            HubMessage::Disinterest { from, channel } => self.homes.remove_interest(&channel, from),
            HubMessage::Granted { channel, position, serial } => {
                self.grant(&channel, position, serial, out);
            }
            HubMessage::Publish { channel, payload, receipt } => {
                let (publication, interested) = self.homes.number(channel, payload);
                if let Some(receipt) = receipt {
                    let message = HubMessage::Published { receipt, position: publication.position };
                    out.push_back(Output::Send { to: receipt.worker, message });
                }
                let publication = Arc::new(publication);
                for to in interested.iter() {
                    let message = HubMessage::Deliver(publication.clone());
                    out.push_back(Output::Send { to, message });
                }
            }
            HubMessage::Published { receipt: Receipt { session, ticket, .. }, position } => {
                out.push_back(Output::Reply {
                    session,
                    ticket,
                    reply: Reply::Published { position },
                });
            }
            HubMessage::Deliver(publication) => self.deliver(publication),
        }
    }

    /// Publications and payload bytes that wait for their fan-out.
    pub fn backlog(&self) -> (usize, usize) {
        self.fan_outs.backlog()
    }

    /// Whether a fan-out is in progress.
    pub fn wants_fan_out(&self) -> bool {
        !self.fan_outs.is_idle()
    }

    /// Channels with local subscribers.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Subscriptions of local sessions.
    pub fn subscription_count(&self) -> usize {
        self.subscriptions.len()
    }

    /// The next slice of the fan-outs in progress: visits subscribers, channel by channel in
    /// turns. Each visit costs what `step` says, at least 1; the slice ends when `cost_max` is reached. Returns the
    /// cost, 0 if nothing was to be done.
    pub fn fan_out(
        &mut self,
        cost_max: usize,
        mut step: impl FnMut(FanOutStep<'_>) -> usize,
    ) -> usize {
        let mut cost = 0;
        while cost < cost_max {
            let Some(key) = self.fan_outs.next() else { break };
            cost += self.fan_outs.slice(
                key,
                cost_max - cost,
                &mut self.channels,
                &self.subscriptions,
                &mut step,
            );
        }
        cost
    }

    fn home_of(&self, channel: &ChannelName) -> WorkerId {
        let hash = self.settings.hash.of(channel.as_str());
        // The low bits choose the shard of a name table; the high ones the home.
        let home = (hash >> 32) % u64::from(self.settings.workers);
        WorkerId(u16::try_from(home).expect("a remainder of 16 bits"))
    }

    fn find(&self, session: SessionId, channel: &ChannelName) -> Option<u32> {
        let channel = self.names.find(channel)?;
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

    fn first_channel(&self, session: SessionId) -> Option<ChannelName> {
        let subscription = self.sessions.first(session)?;
        let channel = self.subscriptions[subscription as usize].channel;
        Some(self.channels[channel as usize].name.clone())
    }

    fn subscribe(
        &mut self,
        session: SessionId,
        ticket: Ticket,
        channel: ChannelName,
        out: &mut VecDeque<Output>,
    ) {
        if self.find(session, &channel).is_some() {
            return refuse(session, Some(ticket), Refusal::AlreadySubscribed, out);
        }
        if self.sessions.count(session) >= self.settings.subscriptions_max {
            return refuse(session, Some(ticket), Refusal::SubscriptionsExhausted, out);
        }
        let key = match self.names.find(&channel) {
            Some(key) => key,
            None => self.ask(channel.clone(), out),
        };
        let local = &mut self.channels[key as usize];
        let granted = local.position;
        // A session is told its tickets back; while it waits, the ticket sits where its joining number will be.
        let node = Subscription::new(session.index, key, ticket);
        let subscription = index(self.subscriptions.insert(node));
        self.sessions.append(session, subscription, &mut self.subscriptions);
        if let Some(position) = granted {
            local.join(subscription, &mut self.subscriptions);
            out.push_back(Output::Reply {
                session,
                ticket,
                reply: Reply::Subscribed { channel, position, recoverable: false, recovery: None },
            });
        } else {
            local.wait(subscription, &mut self.subscriptions);
        }
    }

    /// Makes the local part of a channel and asks its home for it.
    fn ask(&mut self, channel: ChannelName, out: &mut VecDeque<Output>) -> u32 {
        self.interest_serial = self.interest_serial.wrapping_add(1);
        let serial = self.interest_serial;
        let key = index(self.channels.insert(LocalChannel::new(channel.clone(), serial)));
        self.names.insert(channel.clone(), key);
        let to = self.home_of(&channel);
        let message = HubMessage::Interest { from: self.settings.worker, channel, serial };
        out.push_back(Output::Send { to, message });
        key
    }

    fn grant(
        &mut self,
        channel: &ChannelName,
        position: Position,
        serial: u32,
        out: &mut VecDeque<Output>,
    ) {
        let Some(key) = self.names.find(channel) else { return };
        let local = &mut self.channels[key as usize];
        if local.position.is_some() || local.serial != serial {
            return;
        }
        local.position = Some(position);
        while let Some(subscription) = local.first_waiting() {
            let ticket = self.subscriptions[subscription as usize].ticket();
            local.unlink(subscription, &mut self.subscriptions);
            local.join(subscription, &mut self.subscriptions);
            let session = self.sessions.id(self.subscriptions[subscription as usize].session);
            let reply = Reply::Subscribed {
                channel: channel.clone(),
                position,
                recoverable: false,
                recovery: None,
            };
            out.push_back(Output::Reply { session, ticket, reply });
        }
    }

    fn deliver(&mut self, publication: Arc<Publication>) {
        // What was on its way when the last subscriber left, or before the answer to a new interest, is for nobody.
        let Some(key) = self.names.find(&publication.channel) else { return };
        let local = &mut self.channels[key as usize];
        if local.position.is_none() {
            return;
        }
        local.position = Some(publication.position);
        let arrival = local.arrivals;
        local.arrivals += 1;
        self.fan_outs.add(key, local, arrival, publication);
    }

    fn remove(&mut self, subscription: u32, out: &mut VecDeque<Output>) {
        let node = &self.subscriptions[subscription as usize];
        let (session, key) = (self.sessions.id(node.session), node.channel);
        self.sessions.unlink(session, subscription, &mut self.subscriptions);
        let local = &mut self.channels[key as usize];
        self.fan_outs.skip(local, subscription, &self.subscriptions);
        local.unlink(subscription, &mut self.subscriptions);
        self.subscriptions.remove(subscription as usize);
        if local.is_empty() {
            let local = self.channels.remove(key as usize);
            self.fan_outs.end(&local);
            self.names.remove(&local.name);
            let to = self.home_of(&local.name);
            let message =
                HubMessage::Disinterest { from: self.settings.worker, channel: local.name };
            out.push_back(Output::Send { to, message });
        }
    }
}

fn refuse(
    session: SessionId,
    ticket: Option<Ticket>,
    refusal: Refusal,
    out: &mut VecDeque<Output>,
) {
    if let Some(ticket) = ticket {
        out.push_back(Output::Reply { session, ticket, reply: Reply::Refused(refusal) });
    }
}

fn some(index: u32) -> Option<u32> {
    (index != NONE).then_some(index)
}

fn index(key: usize) -> u32 {
    u32::try_from(key).expect("fewer than 2^32 entries")
}

#[cfg(test)]
mod tests;
