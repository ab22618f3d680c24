//! The steps of conversations, their requests to the hub, and its replies.

use std::collections::VecDeque;
use std::sync::Arc;

use tracing::warn;

use crate::auth::{self, Verdict};
use crate::config::limits::DEFERRED_PER_TURN_MAX;
use crate::connection::{Connection, Flags, Pause};
use crate::hub::{HubOutput, SubscriptionState};
use crate::message::{
    Actor, ChannelName, PublishOptions, Refusal, Reply, Request, RequestId, SessionId,
    SessionRequest, TransportKind,
};
use crate::telemetry::Counters;
use crate::transport::{Context, Flow, MessageCount, Output};

use super::author;
use super::callbacks;
use super::connections::Connections;
use super::deferred::AnswerKind;
use super::events;
use super::expirations;
use super::login::{Checked, LoginStep};
use super::mesh::Message;
use super::renewals::Due;
use super::settings::Warning;
use super::statistics::withdraw_behind_proxy;
use super::survey::SurveyStep;
use super::sweep::LATENESS_MAX;
use super::table::{Table, socket_of};

impl Connections {
    /// One step of a conversation, and what follows from it.
    pub(super) fn step_connection(
        &mut self,
        index: u32,
        step: impl FnOnce(&mut Connection, &mut Context<'_>) -> Flow,
    ) -> Flow {
        let out = &mut self.outbox.batch.turn;
        let start = out.len();
        let connection = self.table.at(index);
        let room = self.settings.send_queue_bytes_high.saturating_sub(connection.queue.bytes());
        let session = SessionId { index, generation: connection.generation };
        let (flags, now_us) = (connection.flags, self.turn.began_us);
        let mut context = Context {
            rates: self.rates.allowance(index, flags, self.settings.transport.rates, now_us),
            gate: self.prefixes.gate(index, flags, self.settings.prefixes, now_us),
            congested: self.mesh.is_congested(),
            overloaded: self.budget.is_critical(),
            offers_deflate: flags.offers_deflate(),
            is_spare: flags.is_spare(),
            has_ended: flags.has_ended(),
            expects_more: flags.has_ended()
                && (self.deferred.has_waiting(session)
                    || flags.has_session() && self.hub.first_channel(session).is_some()),
            out_bytes_high: start + room as usize,
            ..Context::new(
                self.settings.hub.client_id(session),
                &self.settings.transport,
                (&mut self.answers, &mut self.inflater),
                out,
                &mut self.outputs,
            )
        };
        let before = connection.heap_bytes();
        let flow = step(connection, &mut context);
        let MessageCount { received, sent, any_ended } = context.messages;
        if let Some(client) = context.gate.map(|gate| gate.current) {
            self.prefixes.set(index, client);
        }
        let held = connection.heap_bytes();
        self.unfinished_bytes = self.unfinished_bytes + held - before;
        self.counters.received_messages.add(received.into());
        self.counters.sent_messages.add(sent.into());
        let traits = connection.traits();
        count_transport(traits.kind, &mut connection.flags, &self.counters);
        if connection.flags.counts_handshake() && traits.is_established {
            self.prefixes.complete_handshake(index, &mut connection.flags);
        }
        let written = self.outbox.batch.turn.len() - start;
        if written > 0 {
            self.turn.written_bytes += written;
            self.outbox.enqueue(connection, start);
            self.outbox.mark(connection, index);
            if connection.queue.bytes() > self.settings.send_queue_bytes_high {
                self.table.pause(index, Pause::Queue);
            }
        }
        pause_for(&flow, index, self.turn.tick, &mut self.table);
        if !self.outputs.is_empty() {
            self.take_outputs(session);
        }
        if held > 0 {
            watch_message(index, before == 0 || any_ended, self.turn.tick, &mut self.table);
        }
        flow
    }

    fn take_outputs(&mut self, session: SessionId) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Request(request) => self.request(session, request),
                Output::Close(reason) => self.end_conversation(session.index, reason),
                Output::Deadline(after) => {
                    self.table.set_deadline_after(session.index, self.turn.tick, after)
                }
                Output::DeadlineWithin(within) => {
                    self.table.set_deadline_after(
                        session.index,
                        self.turn.tick,
                        within.saturating_sub(LATENESS_MAX),
                    );
                }
                Output::Forwarded(headers) => self.held.set_headers(session, *headers),
                Output::HttpError => self.counters.http_errors.add(1),
                Output::ApiRefused(refusal) => {
                    self.counters.api_refused[refusal as usize].add(1);
                    if self.warned_until.may_warn(Warning::Api, self.turn.tick) {
                        let reason = refusal.label();
                        warn!(reason, "a request to the server API was refused");
                    }
                }
                Output::ClientRejected(refusal, prefix) => {
                    self.prefixes.note_rejection(refusal, prefix, self.turn.began_us);
                }
                Output::RateExceeded(rate) => self.counters.rates_exceeded[rate as usize].add(1),
                Output::Refused => self.counters.rejected_low_memory.add(1),
                Output::Leave => self.leave(session),
                Output::LeaveChannels => LoginStep { connections: self, session }.leave_channels(),
                Output::Ask(question) => self.questions.push((socket_of(session), question)),
                // Each request through that proxy fails alike: one warning in a while is enough.
                Output::ProxyFault(message) => {
                    if self.warned_until.may_warn(Warning::Proxy, self.turn.tick) {
                        warn!("{message}");
                    }
                }
                Output::ClientNamed(client) => self.arrivals.note(socket_of(session), client),
                Output::BehindProxy => {
                    warn!("{BEHIND_PROXY}");
                    withdraw_behind_proxy(&self.settings, &mut self.hub);
                }
                Output::HandshakeFailed(cause) => {
                    self.counters.handshakes_failed[cause as usize].add(1);
                }
            }
        }
        self.outputs = outputs;
    }

    /// Makes a request, now or when its turn has come.
    pub(super) fn request(&mut self, session: SessionId, request: SessionRequest) {
        self.turn.requests += 1;
        let answer = AnswerKind::to(&request.request);
        let connection = self.table.at(session.index);
        if !connection.flags.is_open() {
            return;
        }
        // The server takes a channel back at once, whatever the client has made wait.
        let is_taken_back =
            request.by == Actor::Server && matches!(request.request, Request::Unsubscribe { .. });
        if is_taken_back {
            return self.ask(session, request, answer);
        }
        let is_behind = connection.flags.is_paused_by(Pause::Answers);
        let has_room = !connection.flags.is_paused_by(Pause::Queue);
        let may_ask = answer == AnswerKind::Short
            || (has_room
                && self.deferred.admits(session, answer, connection.traits().collects_answers));
        let is_verified =
            request.request.token().is_some() && self.settings.authentication.verifies_tokens();
        if may_ask && !is_behind && (!is_verified || self.deferred.admits_token()) {
            self.ask(session, request, answer);
            return;
        }
        match self.deferred.push(session, request) {
            Ok(()) => self.table.pause(session.index, Pause::Answers),
            Err(request) => {
                let id = request.origin.map(|origin| self.deferred.number(origin));
                refuse(&mut self.hub_outputs, session, id, Refusal::Overloaded);
            }
        }
    }

    /// Makes the requests that waited, as many as may be in this turn.
    pub fn ask_deferred(&mut self) {
        for _ in 0..DEFERRED_PER_TURN_MAX {
            if self.deferred.is_turn_full() {
                break;
            }
            let table = &mut self.table;
            let next = self.deferred.pop(|session| {
                let connection = table.at(session.index);
                let has_room = !connection.flags.is_paused_by(Pause::Queue);
                (has_room, connection.traits().collects_answers)
            });
            let Some((session, request, is_last)) = next else { break };
            let answer = AnswerKind::to(&request.request);
            self.ask(session, request, answer);
            if is_last && !self.deferred.has_waiting(session) {
                self.table.unpause(session.index, Pause::Answers, self.turn.tick);
            }
            self.drain_hub_outputs();
        }
    }

    fn ask(&mut self, session: SessionId, request: SessionRequest, answer: AnswerKind) {
        if is_premature(self, session, &request.request) {
            self.deferred.push_front(session, request);
            self.deferred.set_held(session, true);
            self.table.pause(session.index, Pause::Answers);
            return;
        }
        let SessionRequest { origin, by, request } = request;
        let id = origin.map(|origin| self.deferred.number(origin));
        if answer != AnswerKind::Short
            && let Some(id) = id
        {
            self.deferred.await_answer(session, id, answer);
        }
        let connection = self.table.at(session.index);
        match (&request, id) {
            (Request::Subscribe { .. }, _) if !connection.flags.has_session() => {
                connection.flags.set_session(true);
                self.hub.open(session);
            }
            (Request::Unsubscribe { .. }, _) if !connection.flags.has_session() => {
                return refuse(&mut self.hub_outputs, session, id, Refusal::NotSubscribed);
            }
            _ => {}
        }
        self.decide(session, id, by, request);
    }

    /// Hands a request to the hub, if it is allowed.
    fn decide(&mut self, session: SessionId, id: Option<RequestId>, by: Actor, request: Request) {
        let step = LoginStep { connections: self, session };
        let (by, mut request) = match step.check(id, by, request) {
            Ok(Checked::Done) => return,
            Ok(Checked::Ask(request)) => return callbacks::ask(self, session, id, request),
            Ok(Checked::Decide(by, request)) => (by, request),
            Err(refusal) => return refuse(&mut self.hub_outputs, session, id, refusal),
        };
        if let Request::Publish { channel: channel @ None, .. } = &mut request
            && self.table.at(session.index).flags.has_session()
        {
            *channel = self.hub.first_channel(session);
        }
        let has_session = self.table.at(session.index).flags.has_session();
        let is_subscribed = |channel: &ChannelName| {
            has_session && self.hub.subscription(session, channel) != SubscriptionState::None
        };
        let user = if has_session { self.hub.user(session) } else { None };
        if by == Actor::Client && !self.settings.authentication.is_open() {
            keep_key_apart(&mut request, user);
        }
        let client = auth::Client { user, is_subscribed };
        let callbacks = &self.settings.callbacks;
        match auth::decide(by, client, &request, self.hub.namespaces(), callbacks) {
            Verdict::Allow => {
                author::hand_over(self, session, id, by, request);
            }
            Verdict::Ask(_) => callbacks::ask(self, session, id, request),
            Verdict::Refuse(refusal) => refuse(&mut self.hub_outputs, session, id, refusal),
        }
    }

    /// Ends a connection's session, if it has one, and with it the requests that wait. Those that concern other clients
    /// are still made.
    pub(super) fn leave(&mut self, session: SessionId) {
        self.held.forget(session);
        self.held.forget_meta(session);
        self.renewals.forget_session(session);
        self.logins.forget(session);
        for SessionRequest { origin, by, request } in self.deferred.forget(session) {
            if request.is_for_others() {
                let id = origin.map(|origin| self.deferred.number(origin));
                self.decide(session, id, by, request);
            }
        }
        if self.table.at(session.index).flags.is_open() {
            self.table.unpause(session.index, Pause::Answers, self.turn.tick);
        }
        let flags = &mut self.table.at(session.index).flags;
        if flags.has_session() {
            flags.set_session(false);
            self.users.leave(session.index);
            self.hub.close(session, &mut self.hub_outputs);
        }
    }

    /// Does what the hub wants done, and what follows from that, until nothing is left.
    pub(super) fn drain_hub_outputs(&mut self) {
        while let Some(output) = self.hub_outputs.pop_front() {
            match output {
                HubOutput::Send { to, message } if to == self.settings.hub.worker => {
                    events::take_message(self, message);
                }
                HubOutput::Send { to, message } => self.mesh.send(to, message),
                HubOutput::Later(message) => self.mesh.send(self.settings.hub.worker, message),
                HubOutput::Reply { session, id, reply } => {
                    self.reply(session, id, &reply);
                }
                HubOutput::Deliver { session, .. }
                | HubOutput::Expired { session }
                | HubOutput::SubscriptionDue { session, .. }
                    if !self.table.is_open(socket_of(session)) => {}
                HubOutput::Deliver { session, channel, items, rendition } => {
                    self.counters.deliveries.add(items.len() as u64);
                    self.counters.sent_messages.add(items.len() as u64);
                    self.step_connection(session.index, |connection, context| {
                        connection.deliver_alone(&channel, &items, rendition, context)
                    });
                }
                HubOutput::Expired { session } => expirations::expire(self, session, Due::Client),
                HubOutput::SubscriptionDue { session, channel } => {
                    expirations::expire(self, session, Due::Subscription(channel));
                }
                HubOutput::Control(control) => {
                    SurveyStep { connections: self }.control(*control);
                }
                HubOutput::Survey(survey) => SurveyStep { connections: self }.run(survey),
            }
        }
    }

    /// A message from another worker, this one, or the thread of the callbacks, and what follows from it.
    pub fn receive_message(&mut self, message: Message) {
        match message {
            Message::Hub(message) => {
                events::take_message(self, message);
                self.drain_hub_outputs();
            }
            Message::Callback(answered) => {
                self.turn.answers += 1;
                callbacks::take_answer(self, *answered);
            }
            Message::Keys(None) => self.counters.key_fetches_failed.add(1),
            Message::Keys(Some(keys)) => {
                let now = self.settings.transport.now.unix_seconds;
                self.settings.authentication.set_keys(&keys, now);
            }
        }
    }

    pub(super) fn reply(&mut self, session: SessionId, id: RequestId, reply: &Reply) {
        // Before the reply is written: a poll's session ends with its answer, and then what it awaited is forgotten.
        let is_long = self.deferred.settle(session, id);
        // Perhaps a request to unsubscribe waited for it; requests that the backend is asked about are held on.
        if matches!(reply, Reply::Subscribed { .. } | Reply::Refused(_) | Reply::Rejected(_))
            && self.deferred.has_waiting(session)
            && !self.held.has(session)
        {
            self.deferred.set_held(session, false);
        }
        if (LoginStep { connections: self, session }).take_reply(id, reply) {
            return;
        }
        let before = self.turn.written_bytes;
        if self.table.is_open(socket_of(session)) {
            self.step_connection(session.index, |connection, context| {
                connection.reply(id.origin, reply, context)
            });
            if self.table.is_open(socket_of(session)) {
                events::connected(self, session);
            }
        }
        if is_long {
            self.deferred.count_answer(reply, self.turn.written_bytes - before);
        }
    }
}

/// Whether a request ends a subscription whose request is not replied to yet: as with Centrifugo, both are done,
/// one after the other.
fn is_premature(connections: &mut Connections, session: SessionId, request: &Request) -> bool {
    let Request::Unsubscribe { channel } = request else { return false };
    connections.table.at(session.index).flags.has_session()
        && connections.hub.subscription(session, channel) == SubscriptionState::Pending
}

/// Reads no more from a connection while it waits, and again once it does not.
fn pause_for(flow: &Flow, index: u32, tick: u32, table: &mut Table) {
    match flow {
        Flow::AwaitReply => table.pause(index, Pause::Reply),
        Flow::AwaitDrain => {
            table.pause(index, Pause::Queue);
            table.unpause(index, Pause::Reply, tick);
        }
        Flow::Receive => table.unpause(index, Pause::Reply, tick),
        Flow::Closed | Flow::Hold(_) | Flow::Become { .. } => {}
    }
}

/// Keeps the idempotency key of a client's publication apart from those of backends and of other users: who may publish
/// must not have another's publication taken for a repetition of his own.
fn keep_key_apart(request: &mut Request, user: Option<&str>) {
    if let Request::Publish { options: Some(options), .. } = request
        && let Some(key) = &options.idempotency_key
    {
        let key = format!("\0{}\0{key}", user.unwrap_or_default());
        let own = PublishOptions { idempotency_key: Some(key.into()), ..(**options).clone() };
        *options = Arc::new(own);
    }
}

/// Has the sweep watch a message that is not finished, which begins now or began before.
fn watch_message(index: u32, begins: bool, tick: u32, table: &mut Table) {
    let connection = table.at(index);
    if begins {
        connection.restart_message(tick);
    }
    if connection.unfinished_since().is_some() && !table.is_watched(index as usize) {
        table.watch(index, true);
    }
}

/// Counts a connection as the transport that it has become, if it is another one.
fn count_transport(kind: TransportKind, flags: &mut Flags, counters: &Counters) {
    let before = flags.counted();
    if kind as usize != before {
        counters.connections[before].subtract(1);
        flags.set_counted(kind);
        counters.connections[kind as usize].add(1);
    }
}

/// Replies to a request that is refused, if a reply is wanted.
fn refuse(
    outputs: &mut VecDeque<HubOutput>,
    session: SessionId,
    id: Option<RequestId>,
    refusal: Refusal,
) {
    if let Some(id) = id {
        outputs.push_back(HubOutput::Reply { session, id, reply: Reply::Refused(refusal) });
    }
}

const BEHIND_PROXY: &str = "a request came through a proxy, and api.key is not set: every client of the proxy can \
    publish and call the server API. From now on, the page, the statistics and requests of other origins are \
    disabled, unless http.page, statistics and http.origins enable them";
