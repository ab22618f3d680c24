//! What calls of the server API do with connections: with one client, or with those of a user.

use super::connections::Connections;
use super::relay;
use super::renewals::{self, Due};
use super::table::socket_of;
use crate::config::CallbackKind;
use crate::config::limits::{
    CONNECTION_CHANNELS_LIST_MAX, CONNECTIONS_LIST_MAX, CONNECTIONS_LOOKED_AT_PER_TURN_MAX,
    CONTROLS_PER_TURN_MAX,
};
use crate::hub::{ControlOne, Survey, SurveyTask, reply_to};
use crate::message::{
    Actor, CloseReason, ConnectionInfo, Control, Origin, Refusal, Reply, Request, Selection,
    SessionId, SessionRequest, SubscriptionForm, TransportKind,
};
use crate::transport::Traits;

/// A step of such a call.
pub(super) struct SurveyStep<'a> {
    pub connections: &'a mut Connections,
}

impl SurveyStep<'_> {
    /// Controls one client, if its connection is still open and it acts for the right user.
    pub fn control(mut self, control: ControlOne) {
        let ControlOne { receipt, session, user, control } = control;
        let is_meant = user.is_none_or(|user| *user == *self.user_of(session));
        let reply = match is_meant {
            true => self.control_session(session, control),
            false => Reply::Done,
        };
        reply_to(receipt, reply, &mut self.connections.hub_outputs);
    }

    /// Goes through some of the connections that a call concerns.
    pub fn run(mut self, mut survey: Survey) {
        let task = survey.task.clone();
        let workers = self.connections.settings.hub.workers;
        let everyone = |user| Selection::User(user);
        let (selection, count_max) = match &*task {
            SurveyTask::Control(command) => (everyone(command.user.clone()), CONTROLS_PER_TURN_MAX),
            SurveyTask::List { selection, .. } => {
                (selection.clone(), CONNECTIONS_LIST_MAX - survey.found.len())
            }
            SurveyTask::Block { user, until } => {
                if survey.from == 0
                    && let Err(refusal) = self.connections.hub.block(user.clone(), *until)
                {
                    let out = &mut self.connections.hub_outputs;
                    return survey.finish(Err(refusal), workers, out);
                }
                (everyone(user.clone()), CONTROLS_PER_TURN_MAX)
            }
        };
        // A client whose request is not answered yet is let in by the answer, so it is ended like the others.
        let ends = match &*task {
            SurveyTask::Control(command) => matches!(command.control, Control::Disconnect(_)),
            SurveyTask::Block { .. } => true,
            SurveyTask::List { .. } => false,
        };
        let (sessions, next) = self.sessions(&selection, survey.from, count_max, ends);
        for session in sessions {
            match &*task {
                SurveyTask::Control(command) => {
                    let client = self.connections.settings.hub.client_id(session);
                    if !command.except.contains(&client) {
                        self.control_session(session, command.control.clone());
                    }
                }
                SurveyTask::List { with_channels, .. } => {
                    survey.found.push(self.describe(session, *with_channels));
                }
                SurveyTask::Block { .. } => {
                    let control = Control::Disconnect(CloseReason::UserBlocked.into());
                    self.control_session(session, control);
                }
            }
        }
        let out = &mut self.connections.hub_outputs;
        match selection {
            Selection::Channel(_) => survey.finish(Ok(next.is_some()), workers, out),
            Selection::User(_) | Selection::All => survey.continue_at(next, workers, out),
        }
    }

    /// At most `count_max` sessions of clients, and where to continue; `None` if there are no more. Those of a user
    /// that is named are with those of requests if `with_requests`.
    fn sessions(
        &mut self,
        selection: &Selection,
        from: usize,
        count_max: usize,
        with_requests: bool,
    ) -> (Vec<SessionId>, Option<usize>) {
        let (mut sessions, next) = match selection {
            Selection::User(user) if !user.is_empty() => {
                self.connections.hub.sessions_of(user, from, count_max)
            }
            Selection::Channel(channel) => {
                // One more says that there are more.
                let found = self.connections.hub.sessions_in(channel, count_max + 1);
                let next = (found.len() > count_max).then_some(count_max);
                (found.into_iter().take(count_max).collect(), next)
            }
            Selection::User(_) | Selection::All => {
                let is_anonymous = *selection != Selection::All;
                return self.clients(from, count_max, is_anonymous);
            }
        };
        if !(with_requests && matches!(selection, Selection::User(_))) {
            sessions.retain(|session| self.is_client(*session));
        }
        (sessions, next)
    }

    /// The same of all clients, or of all anonymous ones.
    fn clients(
        &mut self,
        from: usize,
        count_max: usize,
        is_anonymous: bool,
    ) -> (Vec<SessionId>, Option<usize>) {
        let slots = self.connections.table.slots();
        let until = slots.min(from + CONNECTIONS_LOOKED_AT_PER_TURN_MAX);
        let mut found = Vec::new();
        for slot in from..until {
            let index = u32::try_from(slot).expect("slots are 32 bits");
            if self.connections.table.get(index).is_none() {
                continue;
            }
            let session = self.connections.table.session(index);
            if self.is_client(session) && (!is_anonymous || self.user_of(session).is_empty()) {
                found.push(session);
                if found.len() == count_max {
                    return (found, Some(slot + 1));
                }
            }
        }
        (found, (until < slots).then_some(until))
    }

    /// Whether a session has an open connection whose client has connected. Requests are not clients, and neither are
    /// the peers of the echo services.
    fn is_client(&mut self, session: SessionId) -> bool {
        let table = &mut self.connections.table;
        if !table.is_open(socket_of(session)) {
            return false;
        }
        let Traits { kind, accepts_server_subscriptions, .. } = table.at(session.index).traits();
        match kind {
            TransportKind::WebSocket | TransportKind::LongPoll | TransportKind::Sse => true,
            kind => kind.is_lasting() && accepts_server_subscriptions,
        }
    }

    /// The user of a session; empty if it is anonymous.
    fn user_of(&self, session: SessionId) -> &str {
        self.connections.hub.user(session).unwrap_or_default()
    }

    fn describe(&mut self, session: SessionId, with_channels: bool) -> ConnectionInfo {
        let Connections { hub, table, .. } = &mut *self.connections;
        let channels =
            with_channels.then(|| hub.channels_of(session, CONNECTION_CHANNELS_LIST_MAX));
        let Traits { kind: transport, is_protobuf, .. } = table.at(session.index).traits();
        ConnectionInfo { client: hub.client_info(session), transport, is_protobuf, channels }
    }

    /// Does what a call wants done with a client, if its connection is still open. A plain WebSocket or a poll has its
    /// channels from its address, and its protocol has no message for others.
    fn control_session(&mut self, session: SessionId, control: Control) -> Reply {
        if !self.connections.table.is_open(socket_of(session)) {
            return Reply::Done;
        }
        let is_client = self.is_client(session);
        let connections = &mut *self.connections;
        let accepts = connections.table.at(session.index).traits().accepts_server_subscriptions;
        if !accepts && control.channel().is_some() {
            return Reply::Refused(Refusal::NotAvailable);
        }
        let (origin, by) = (Some(Origin::Server), Actor::Server);
        match control {
            Control::Disconnect(disconnect) => connections.close(session.index, disconnect),
            Control::Refresh { expires_at, info } => {
                let is_asked = connections.settings.callbacks.asks(CallbackKind::Refresh);
                let delay = connections.settings.hub.limits.expired_close_delay.as_secs();
                let delay = if is_asked { 0 } else { delay };
                let closes_at = expires_at.map(|at| at.saturating_add(delay));
                // What the backend says here is newer than its answer.
                connections.renewals.forget(session, &Due::Client);
                let flags = &mut connections.table.at(session.index).flags;
                if is_client && !flags.has_session() {
                    // An anonymous client, of which nothing was to be kept.
                    flags.set_session(true);
                    connections.hub.open(session);
                }
                if connections.table.at(session.index).flags.has_session() {
                    // What was accepted before has a user that is not too long, and info was checked.
                    let _ = connections.hub.refresh(session, closes_at, info);
                }
            }
            Control::Subscribe { channel, since, mut options } => {
                if let Some(options) = &mut options {
                    let Connections { settings, hub, .. } = &*connections;
                    renewals::mark(options, &channel, hub.namespaces(), &settings.callbacks);
                }
                let (needs_all, token, form) = (false, None, SubscriptionForm::default());
                let request =
                    Request::Subscribe { channel, since, needs_all, token, form, options };
                connections.request(session, SessionRequest { origin, by, request });
            }
            Control::Unsubscribe { channel } => {
                let request = Request::Unsubscribe { channel };
                connections.request(session, SessionRequest { origin, by, request });
            }
            Control::Take(commands) => return relay::take(connections, session, commands),
        }
        Reply::Done
    }
}
