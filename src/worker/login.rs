//! The requests with which a client says who it is, or that it still is: `connect`, and those that carry a token.

use std::collections::HashMap;

use bytes::Bytes;
use tracing::field::display;
use tracing::warn;

use super::admission;
use super::connections::Connections;
use super::logins::{Next, Wish};
use super::renewals;
use super::settings::{Warning, WorkerSettings};
use super::table::socket_of;
use crate::auth::{self, ConnectionClaims, Holder, Rejection, TokenError, Verdict};
use crate::callback::ConnectResult;
use crate::config::CallbackKind;
use crate::config::limits::INVALID_TOKENS_MAX;
use crate::hub::{HubOutput, SubscriptionChange, SubscriptionState};
use crate::message::{
    Actor, ChannelName, Identity, IdentityError, Login, Origin, Refusal, Reply, Request, RequestId,
    SessionId, SessionRequest, SubscriptionOptions, Token, Welcome,
};

/// A session whose client says who it is.
pub(super) struct LoginStep<'a> {
    pub connections: &'a mut Connections,
    pub session: SessionId,
}

/// What becomes of a request.
pub(super) enum Checked {
    /// It is decided like any other, by the rights of this actor.
    Decide(Actor, Request),
    /// The backend is asked about it.
    Ask(Request),
    /// It is done, and its reply is on its way.
    Done,
}

impl LoginStep<'_> {
    /// Takes what a request says about its client.
    pub fn check(
        mut self,
        id: Option<RequestId>,
        by: Actor,
        request: Request,
    ) -> Result<Checked, Refusal> {
        let (Some(id), Actor::Client) = (id, by) else { return Ok(Checked::Decide(by, request)) };
        match request {
            Request::Connect(login) if self.asks_backend(&login) => {
                return Ok(Checked::Ask(Request::Connect(login)));
            }
            Request::Connect(login) => self.connect(id, *login)?,
            Request::Refresh { token } => self.refresh(id, &token)?,
            Request::RefreshSubscription { channel, token } => {
                self.refresh_subscription(id, &channel, &token)?;
            }
            Request::Subscribe { channel, since, needs_all, token: Some(token), form, .. }
                if self.connections.settings.authentication.verifies_tokens() =>
            {
                auth::check_name(&channel, self.connections.hub.namespaces())?;
                let options = self.subscription(&token, &channel);
                let options = options.map_err(|rejection| self.reject_subscription(rejection))?;
                let options =
                    (options != SubscriptionOptions::default()).then(|| Box::new(options));
                let request =
                    Request::Subscribe { channel, since, needs_all, token: None, form, options };
                // The token is the right to subscribe, but clients may not use every name.
                return Ok(Checked::Decide(Actor::Server, request));
            }
            request => return Ok(Checked::Decide(by, request)),
        }
        Ok(Checked::Done)
    }

    /// Takes the answer to a subscription that the server makes for a client that connects. Returns false if it is the
    /// answer to something else.
    pub fn take_reply(mut self, id: RequestId, reply: &Reply) -> bool {
        let Connections { logins, settings, .. } = &mut *self.connections;
        if logins.is_idle() || id.origin != Origin::Server {
            return false;
        }
        let bytes_max = settings.transport.recovery_bytes_max;
        let next = logins.take(self.session, reply, bytes_max);
        let is_awaited = next.is_some();
        next.into_iter().for_each(|next| self.follow(next));
        is_awaited
    }

    /// Ends all subscriptions of the session, which stays, and who its client is.
    pub fn leave_channels(self) {
        let Connections { table, hub, hub_outputs, .. } = &mut *self.connections;
        if table.at(self.session.index).flags.has_session() {
            hub.leave_channels(self.session, hub_outputs);
        }
    }

    fn connect(&mut self, id: RequestId, login: Login) -> Result<(), Refusal> {
        let Connections { settings, tls, .. } = &*self.connections;
        let (authentication, now) = (&settings.authentication, settings.transport.now.unix_seconds);
        let token = login.token.as_ref().filter(|_| authentication.verifies_tokens());
        let claims = match (token, tls.user(self.session.index)) {
            (None, Some(user)) => Ok(ConnectionClaims::of_user(user)),
            _ => authentication.connect(login.token.as_ref(), now),
        };
        let claims = claims.map_err(|rejection| self.reject(rejection))?;
        let ConnectionClaims { identity, subscriptions, meta } = claims;
        self.admit(id, login, ConnectResult { identity, subscriptions, data: None, meta })
    }

    /// Whether the backend says who a client is.
    fn asks_backend(&self, login: &Login) -> bool {
        let WorkerSettings { callbacks, authentication, .. } = &self.connections.settings;
        let has_token = login.token.is_some() && authentication.verifies_tokens();
        let has_certificate = self.connections.tls.user(self.session.index).is_some();
        callbacks.asks(CallbackKind::Connect) && !has_token && !has_certificate
    }

    /// Takes what the backend says about a client that connects.
    pub fn take_result(
        &mut self,
        id: RequestId,
        login: Login,
        result: Option<ConnectResult>,
    ) -> Result<(), Refusal> {
        let WorkerSettings { transport, authentication, .. } = &self.connections.settings;
        let result = match result {
            Some(result) => result,
            // It does not say who that is.
            None if authentication.allows_anonymous() => ConnectResult::default(),
            None => return Err(Refusal::TokenMissing),
        };
        match result.identity.expires_at {
            Some(at) if at <= transport.now.unix_seconds => Err(Refusal::TokenExpired),
            _ => self.admit(id, login, result),
        }
    }

    /// Lets a client in whose identity is known.
    fn admit(&mut self, id: RequestId, login: Login, of: ConnectResult) -> Result<(), Refusal> {
        let now = self.connections.settings.transport.now.unix_seconds;
        let ConnectResult { identity, data, meta, mut subscriptions } = of;
        if login.has_commands {
            self.add_personal_channel(identity.user.as_deref(), &mut subscriptions)?;
        } else {
            subscriptions.clear();
        }
        if subscriptions.len() > self.connections.settings.hub.limits.subscriptions_max {
            return Err(Refusal::SubscriptionsExhausted);
        }
        let namespaces = self.connections.hub.namespaces();
        if subscriptions.iter().any(|(channel, _)| namespaces.find(channel.as_str()).is_none()) {
            return Err(Refusal::NamespaceUnknown);
        }
        // Each request of a kept connection may be by another client.
        self.connections.leave(self.session);
        self.identify(&identity, login.has_commands)?;
        self.keep_meta(meta);
        // What the server asks the backend itself, the client need not know.
        let expires_at = identity.expires_at.filter(|_| !self.is_renewed_by_backend());
        let ttl_seconds = expires_at.map(|at| at.saturating_sub(now));
        let welcome = Box::new(Welcome { ttl_seconds, data, ..Welcome::default() });
        for channel in self.allowed(login.channels)? {
            if subscriptions.iter().all(|(other, _)| *other != channel) {
                subscriptions.push((channel, SubscriptionOptions::default()));
            }
        }
        let mut wishes: HashMap<_, _> = login.subs.into_iter().collect();
        let Connections { settings, hub, .. } = &*self.connections;
        let wish = |(channel, mut options): (ChannelName, _)| {
            renewals::mark(&mut options, &channel, hub.namespaces(), &settings.callbacks);
            Wish { asked: wishes.remove(&channel).unwrap_or_default(), channel, options }
        };
        let wishes = subscriptions.into_iter().map(wish).collect();
        let next = self.connections.logins.begin(self.session, id, welcome, wishes);
        self.follow(next);
        Ok(())
    }

    /// Adds the channel of a user to those that the server subscribes a client of it to.
    fn add_personal_channel(
        &self,
        user: Option<&str>,
        subscriptions: &mut Vec<(ChannelName, SubscriptionOptions)>,
    ) -> Result<(), Refusal> {
        let channel = self.connections.settings.authentication.personal_channel(user)?;
        let is_new =
            |channel: &ChannelName| subscriptions.iter().all(|(other, _)| other != channel);
        if let Some(channel) = channel.filter(is_new) {
            subscriptions.push((channel, SubscriptionOptions::default()));
        }
        Ok(())
    }

    /// The channels, of those that a client asks for with `connect`, that it may subscribe to. As with Centrifugo, the
    /// others are passed over, but an unknown namespace is refused.
    fn allowed(&mut self, channels: Vec<ChannelName>) -> Result<Vec<ChannelName>, Refusal> {
        let Connections { settings, table, hub, .. } = &mut *self.connections;
        let has_session = table.at(self.session.index).flags.has_session();
        let mut allowed = Vec::new();
        for channel in channels {
            let request = Request::subscribe(channel.clone(), None);
            let user = if has_session { hub.user(self.session) } else { None };
            let client = auth::Client { user, is_subscribed: |_: &ChannelName| false };
            let callbacks = &settings.callbacks;
            match auth::decide(Actor::Client, client, &request, hub.namespaces(), callbacks) {
                Verdict::Allow => allowed.push(channel),
                Verdict::Refuse(refusal @ Refusal::NamespaceUnknown) => {
                    self.connections.leave(self.session);
                    return Err(refusal);
                }
                Verdict::Refuse(_) | Verdict::Ask(_) => {}
            }
        }
        Ok(allowed)
    }

    /// Whether the backend is asked when the identity of a client expires.
    fn is_renewed_by_backend(&self) -> bool {
        self.connections.settings.callbacks.asks(CallbackKind::Refresh)
    }

    fn refresh(&mut self, id: RequestId, token: &Token) -> Result<(), Refusal> {
        if self.is_renewed_by_backend() {
            return Err(Refusal::NotAvailable);
        }
        let Connections { settings, hub, .. } = &*self.connections;
        let now = settings.transport.now.unix_seconds;
        let claims = settings.authentication.refresh(token, hub.user(self.session), now);
        let claims = claims.map_err(|rejection| self.reject(rejection))?;
        let mut ttl_seconds = None;
        if let Some(ConnectionClaims { identity, meta, .. }) = claims {
            self.identify(&identity, true)?;
            self.keep_meta(meta);
            ttl_seconds = identity.expires_at.map(|at| at.saturating_sub(now));
        }
        self.follow(Next::Reply(id, Reply::Refreshed { ttl_seconds }));
        Ok(())
    }

    fn refresh_subscription(
        &mut self,
        id: RequestId,
        channel: &ChannelName,
        token: &Token,
    ) -> Result<(), Refusal> {
        let has_session = self.connections.table.at(self.session.index).flags.has_session();
        let hub = &self.connections.hub;
        if !has_session || hub.subscription(self.session, channel) == SubscriptionState::None {
            return Err(Refusal::PermissionDenied);
        }
        let mut ttl_seconds = None;
        if self.connections.settings.authentication.verifies_tokens() {
            let options = self.subscription(token, channel);
            let options = options.map_err(|rejection| self.reject(rejection))?;
            let now = self.connections.settings.transport.now.unix_seconds;
            ttl_seconds = options.expires_at.map(|at| at.saturating_sub(now));
            let change = SubscriptionChange::Options(Box::new(options));
            let Connections { hub, hub_outputs, .. } = &mut *self.connections;
            hub.change_subscription(self.session, channel, change, hub_outputs);
        }
        self.follow(Next::Reply(id, Reply::SubscriptionRefreshed { ttl_seconds }));
        Ok(())
    }

    /// What the token for a channel says about the subscription.
    fn subscription(
        &self,
        token: &Token,
        channel: &ChannelName,
    ) -> Result<SubscriptionOptions, Rejection> {
        let Connections { settings, hub, .. } = &*self.connections;
        let client = settings.hub.client_id(self.session);
        let holder = Holder { client, user: hub.user(self.session) };
        let now = settings.transport.now.unix_seconds;
        settings.authentication.subscription(token, channel, holder, now)
    }

    /// Keeps what later callbacks have.
    fn keep_meta(&mut self, meta: Option<Bytes>) {
        let Connections { settings, held, .. } = &mut *self.connections;
        if let Some(meta) = meta.filter(|_| settings.callbacks.include_meta()) {
            held.set_meta(self.session, meta);
        }
    }

    /// Notes who the client is. An anonymous one that nothing is known about needs no session for that.
    fn identify(&mut self, identity: &Identity, has_commands: bool) -> Result<(), Refusal> {
        let Connections { settings, table, hub, users, counters, .. } = &mut *self.connections;
        let flags = &mut table.at(self.session.index).flags;
        if !flags.has_session() {
            if *identity == Identity::default() {
                return Ok(());
            }
            flags.set_session(true);
            hub.open(self.session);
        }
        if let Some(connections_max) = settings.user_connections_max
            && !users.enter(self.session.index, identity.user.as_deref(), connections_max)
        {
            let rejection = admission::Rejection::UserConnections;
            counters.connections_rejected[rejection as usize].add(1);
            self.connections.leave(self.session);
            return Err(Refusal::UserConnectionsExhausted);
        }
        let may_refresh = has_commands && !settings.callbacks.asks(CallbackKind::Refresh);
        let expires_at = settings.authentication.closes_at(identity, may_refresh);
        let kept = Identity { expires_at, ..identity.clone() };
        hub.identify(self.session, &kept).map_err(|error| {
            self.connections.leave(self.session);
            match error {
                IdentityError::UserBlocked => Refusal::UserBlocked,
                IdentityError::UserTooLong | IdentityError::InfoTooLong => Refusal::TokenInvalid,
            }
        })
    }

    fn follow(&mut self, next: Next) {
        let session = self.session;
        match next {
            Next::Subscribe(request) => {
                let (origin, by) = (Some(Origin::Server), Actor::Server);
                self.connections.request(session, SessionRequest { origin, by, request });
            }
            Next::Reply(id, reply) => {
                if matches!(reply, Reply::Refused(_)) {
                    self.connections.leave(session);
                }
                self.connections.hub_outputs.push_back(HubOutput::Reply { session, id, reply });
            }
        }
    }

    /// Counts a token that is rejected, and logs it unless this second has a line already.
    fn reject(&self, rejection: Rejection) -> Refusal {
        let Rejection { refusal, cause } = rejection;
        if let Some(cause) = cause {
            let Connections { counters, turn, warned_until, arrivals, .. } = &*self.connections;
            counters.tokens_rejected[cause as usize].add(1);
            if cause == TokenError::KeyPending
                && let Some(caller) = &self.connections.caller
            {
                caller.fetch_keys();
            }
            if warned_until.may_warn(Warning::Token, turn.tick) {
                let (worker, connection) =
                    (self.connections.settings.hub.worker.0, self.session.index);
                let client = arrivals.client(socket_of(self.session)).map(display);
                warn!(worker, connection, client, reason = cause.label(), "a token was rejected");
            }
        }
        refusal
    }

    /// The same of a token with which a client subscribes. As with Centrifugo, one that cannot be verified allows
    /// nothing, and one of another user or channel ends the connection. So do many that cannot be verified.
    fn reject_subscription(&mut self, rejection: Rejection) -> Refusal {
        let is_unverified = rejection.cause != Some(TokenError::Holder);
        let refusal = self.reject(rejection);
        if refusal != Refusal::TokenInvalid || !is_unverified {
            return refusal;
        }
        let flags = &mut self.connections.table.at(self.session.index).flags;
        match flags.count_invalid_token() {
            INVALID_TOKENS_MAX.. => Refusal::TokenInvalid,
            _ => Refusal::PermissionDenied,
        }
    }
}
