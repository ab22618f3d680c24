//! The command protocol (Centrifuge v2, JSON) over TCP, WebSocket, or HTTP.
//!
//! A client may pipeline commands behind `connect`: they wait in `Pipelined` for its reply, and are then taken in
//! order. An invalid command is answered with an error of the protocol, and the session continues. A command without
//! an `id` cannot be answered and is refused, except `publish`, which is executed or refused silently, and `send`.
//! What the server API does with a client reaches it as a push; what the server API failed to do does not. Clients
//! take a message with neither an `id` nor a push for a ping.

use bytes::Bytes;

use super::command_form::{CommandFault, CommandForm};
use super::context::{Context, Output};
use super::handshake_failure::HandshakeFailure;
use super::refusal::{RATE_EXCEEDED, row_of};
use crate::auth::{Rate, RateVerdict};
use crate::config::limits::{
    DELTA_BYTES_MAX, PAYLOAD_DEPTH_MAX, PRESENCE_LIST_MAX, PROCEDURE_BYTES_MAX,
};
use crate::message::{
    Actor, ChannelName, CloseReason, Login, Origin, Payload, PayloadKind, Position, Publications,
    Recovery, Refusal, Reply, Request, SubscriptionForm, Ticket, Token, Welcome,
};
use crate::protocol::command::{
    Answer, Command, CommandError, Connect, Connected, Data, Method, Push, Sent, Subscribe,
    Subscribed, UnsubscribeReason,
};
use crate::protocol::{json, proxy_protocol};

/// Where a client of the command protocol is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Commands {
    stage: Stage,
    ping: Ping,
}

/// Where a client is on its way to be connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// It has not asked to connect.
    #[default]
    New,
    /// Its `connect` is not replied to yet: nothing else of it is taken.
    Connecting,
    /// It is connected.
    Connected,
}

/// What a command led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was answered, or something was asked of the hub.
    Done,
    /// It asked the hub to publish something.
    Published,
    /// The client asked to connect: nothing more is to be taken before the reply.
    Connecting,
}

/// Where pings are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ping {
    /// The next one is sent at the deadline.
    #[default]
    Due,
    /// Nothing has come since the last one.
    Sent,
    /// Something has come since the last one.
    Answered,
}

impl Commands {
    /// Whether the client has connected.
    pub fn is_connected(self) -> bool {
        self.stage == Stage::Connected
    }

    /// Whether the client has asked to connect and waits for the reply.
    pub fn is_connecting(self) -> bool {
        self.stage == Stage::Connecting
    }

    /// Notes that bytes were received, which answers a ping.
    pub fn note_bytes(&mut self) {
        if self.ping == Ping::Sent {
            self.ping = Ping::Answered;
        }
    }

    /// Whether a ping was sent and nothing has come since.
    pub fn awaits_pong(self) -> bool {
        self.ping == Ping::Sent
    }

    /// Does what a command asks. `token` is what the client showed before, which counts if its `connect` has none.
    pub fn take(
        &mut self,
        command: &[u8],
        token: Option<&Token>,
        form: CommandForm,
        context: &mut Context<'_>,
    ) -> Result<Taken, CommandFault> {
        let bad = CommandError::BadRequest;
        let Command { id, method } = match form.decode(command) {
            Err(fault) => return refuse_by_rate(fault, context),
            Ok(decoded) => decoded,
        };
        context.messages.received += 1;
        if let Some(fault) = check_rates(id, &method, form, context) {
            return fault;
        }
        let may_go_unanswered = matches!(method, Method::Publish(..) | Method::Send(..));
        let mut replies = Replies { form, context };
        match method {
            Method::Pong => {}
            Method::Malformed => replies.refuse(id, bad, Some("wrong parameters")),
            Method::Refused(error, detail) => replies.refuse(id, error, Some(detail)),
            Method::Unknown => replies.refuse(id, CommandError::MethodNotFound, None),
            _ if id == 0 && !may_go_unanswered => {
                replies.refuse(id, bad, Some("a command needs an id"));
            }
            Method::Connect(_) if self.is_connected() => {
                replies.refuse(id, bad, Some("already connected"));
            }
            Method::Connect(connect) => {
                if let Some(login) = replies.login(id, &connect, token) {
                    self.stage = Stage::Connecting;
                    let request = Request::Connect(Box::new(login));
                    replies.context.request(Ticket::new(id), Actor::Client, request);
                    return Ok(Taken::Connecting);
                }
                if form.is_unidirectional() {
                    return Err(CommandFault::Fatal);
                }
            }
            Method::Ping => replies.reply(id, Answer::Pinged),
            _ if !self.is_connected() => replies.refuse(id, bad, Some("connect first")),
            // The protocol has no reply to it.
            Method::Send(_) if id != 0 => replies.refuse(id, CommandError::NotAvailable, None),
            Method::Send(data) => replies.call(id, "", data.as_ref()),
            Method::Rpc(procedure, data) => replies.call(id, &procedure, data.as_ref()),
            Method::Refresh(token) => replies.refresh(id, None, &token)?,
            Method::RefreshSubscription(name, token) => replies.refresh(id, Some(&name), &token)?,
            Method::Fatal => return Err(CommandFault::Fatal),
            Method::Subscribe(subscribe) => replies.subscribe(id, subscribe),
            Method::Unsubscribe(name) => {
                replies.request(id, &name, |channel| Request::Unsubscribe { channel });
            }
            Method::History(name, query) => {
                replies.request(id, &name, |channel| Request::History { channel, query });
            }
            Method::Presence(name) => replies.presence(id, &name, PRESENCE_LIST_MAX),
            Method::PresenceStats(name) => replies.presence(id, &name, 0),
            Method::Publish(name, data) => {
                replies.publish(id, &name, &data);
                return Ok(Taken::Published);
            }
        }
        Ok(Taken::Done)
    }

    /// Refuses bytes that are not a command.
    pub fn refuse_invalid(form: CommandForm, context: &mut Context<'_>) {
        let detail = Some("a command is one JSON object");
        Replies { form, context }.refuse(0, CommandError::BadRequest, detail);
    }

    /// Tells the client what a proxy sent in place of a command.
    pub fn refuse_proxy_protocol(form: CommandForm, context: &mut Context<'_>) {
        let detail = format!("{}: {}", proxy_protocol::CODE, proxy_protocol::REASON);
        Replies { form, context }.refuse(0, CommandError::BadRequest, Some(&detail));
    }

    /// Tells the client that one of its commands is too long.
    pub fn refuse_long(form: CommandForm, context: &mut Context<'_>) {
        let bytes_max = context.settings.command_bytes_max;
        let detail = format!("a command has at most {bytes_max} bytes");
        Replies { form, context }.refuse(0, CommandError::LimitExceeded, Some(&detail));
    }

    /// Takes the hub's answer to a command, or what the server API did. An error is the reason for which the client is
    /// to be disconnected.
    pub fn reply(
        &mut self,
        origin: Origin,
        reply: &Reply,
        form: CommandForm,
        context: &mut Context<'_>,
    ) -> Result<(), CloseReason> {
        let id = match origin {
            Origin::Client(ticket) => ticket.number(),
            Origin::Server => 0,
        };
        // While it connects, nothing else is taken from the client: what it gets a reply to is its `connect`.
        if self.is_connecting() && origin != Origin::Server {
            self.stage = match reply {
                Reply::Connected(_) => Stage::Connected,
                _ => Stage::New,
            };
        }
        let mut replies = Replies { form, context };
        match reply {
            Reply::Connected(welcome) => replies.connected(id, welcome),
            Reply::Refreshed { ttl_seconds } => replies.refreshed(id, *ttl_seconds),
            Reply::SubscriptionRefreshed { ttl_seconds } => {
                let ttl_seconds = *ttl_seconds;
                replies.reply(id, Answer::SubscriptionRefreshed { ttl_seconds });
            }
            // The client did not ask for it: the server API did.
            Reply::Refused(_) | Reply::Rejected(_) if origin == Origin::Server => {}
            Reply::Rejected(_) if form.is_unidirectional() => return Err(CloseReason::Backend),
            Reply::Refused(refusal) => replies.refused(id, *refusal)?,
            Reply::Subscribed { channel, position, recoverable, recovery, delta, options } => {
                let recovery = recovery.as_ref();
                let subscribed = Subscribed {
                    position: *position,
                    is_recoverable: *recoverable,
                    recovered: recovery.map(|recovery| recovery.is_complete),
                    ttl_seconds: replies
                        .ttl(options.as_ref().and_then(|it| it.expiry_for_client())),
                    data: options.as_ref().and_then(|it| it.data.as_deref()),
                    delta: *delta,
                };
                replies.subscribed(id, channel, subscribed, recovery);
            }
            Reply::Unsubscribed { channel } if origin == Origin::Server => {
                replies.push(channel, Push::Unsubscribed(UnsubscribeReason::Server));
            }
            Reply::SubscriptionExpired { channel } => {
                replies.push(channel, Push::Unsubscribed(UnsubscribeReason::Expired));
            }
            Reply::Unsubscribed { .. } => replies.reply(id, Answer::Unsubscribed),
            Reply::Published { .. } | Reply::Outdated { .. } => {
                replies.reply(id, Answer::Published)
            }
            Reply::History { position, publications } => {
                replies.reply(id, Answer::History(*position, publications));
            }
            Reply::Presence { clients, .. } => {
                replies.reply(id, Answer::Presence(clients));
            }
            Reply::PresenceStats { client_count, user_count } => {
                let (client_count, user_count) = (*client_count, *user_count);
                replies.reply(id, Answer::PresenceStats { client_count, user_count });
            }
            Reply::Returned(data) => replies.reply(id, Answer::Returned(data.as_ref())),
            Reply::Rejected(error) => replies.reply(id, Answer::Rejected(error)),
            // Replies to requests that only the server API makes.
            Reply::Channels { .. } | Reply::Connections { .. } | Reply::Done => {}
        }
        Ok(())
    }

    /// Handles the deadline: sends a ping, or returns the reason to disconnect the client. A pong is due within the
    /// keepalive timeout, or before the next ping if that is earlier.
    pub fn expire(
        &mut self,
        form: CommandForm,
        context: &mut Context<'_>,
    ) -> Result<(), CloseReason> {
        if !self.is_connected() {
            context.fail_handshake(HandshakeFailure::Timeout);
            // A client that has asked comes back: it is the server, or the backend, that takes so long.
            return Err(match self.is_connecting() {
                true => CloseReason::Overloaded,
                false => CloseReason::HandshakeTimeout,
            });
        }
        let interval = context.settings.keepalive_interval;
        let patience = context.settings.keepalive_timeout.min(interval);
        match (self.ping, form.has_pongs()) {
            (Ping::Sent, true) => return Err(CloseReason::KeepaliveTimeout),
            (Ping::Answered, true) if patience < interval => {
                self.ping = Ping::Due;
                context.outputs.push(Output::Deadline(interval - patience));
            }
            (_, true) => {
                self.ping = Ping::Sent;
                form.write(context.out, &Sent::Ping, context.answers);
                context.outputs.push(Output::Deadline(patience));
            }
            (_, false) => {
                form.write(context.out, &Sent::Ping, context.answers);
                context.outputs.push(Output::Deadline(interval));
            }
        }
        Ok(())
    }
}

/// Counts what is not a command as one. It is refused without an answer if it comes too fast.
fn refuse_by_rate(fault: CommandFault, context: &mut Context<'_>) -> Result<Taken, CommandFault> {
    match context.take_rate(Rate::Commands, 1) {
        RateVerdict::Allow => Err(fault),
        RateVerdict::Refuse => Ok(Taken::Done),
        RateVerdict::Close => Err(CommandFault::TooManyRequests),
    }
}

/// Refuses a command that comes too fast, or that asks for something too often. A publication without an id is refused
/// without an answer.
fn check_rates(
    id: u32,
    method: &Method<'_>,
    form: CommandForm,
    context: &mut Context<'_>,
) -> Option<Result<Taken, CommandFault>> {
    let of_method = match method {
        Method::Pong => return None,
        Method::Publish(..) => Some(Rate::Publications),
        Method::Subscribe(..) => Some(Rate::Subscriptions),
        _ => None,
    };
    let verdicts = [Some(Rate::Commands), of_method].into_iter().flatten();
    let verdict = verdicts
        .map(|rate| context.take_rate(rate, 1))
        .find(|verdict| *verdict != RateVerdict::Allow)?;
    if verdict == RateVerdict::Close {
        return Some(Err(CommandFault::TooManyRequests));
    }
    if id != 0 {
        Replies { form, context }.refuse(id, CommandError::TooManyRequests, Some(RATE_EXCEEDED));
    }
    Some(Ok(Taken::Done))
}

/// A command has been refused.
struct Refused;

/// Writes replies and pushes to one client, and makes the requests of its commands.
struct Replies<'a, 'c> {
    form: CommandForm,
    context: &'a mut Context<'c>,
}

impl Replies<'_, '_> {
    /// What a client shows with `connect`. `None` if it is refused.
    fn login(&mut self, id: u32, connect: &Connect<'_>, token: Option<&Token>) -> Option<Login> {
        let Connect { token: own, data, name, version, channels, subs } = connect;
        let data = data.as_ref().map(|data| self.payload(id, data)).transpose().ok()?;
        if subs.len().max(channels.len()) > self.context.settings.subscriptions_max {
            self.refuse(id, CommandError::LimitExceeded, Some("subs: too many channels"));
            return None;
        }
        // A name that no channel has is not the name of one that the server subscribes the client to.
        let subs = subs
            .iter()
            .filter_map(|(name, wish)| ChannelName::new(name).ok().map(|channel| (channel, *wish)));
        Some(Login {
            token: Token::new(own).or_else(|| token.cloned()),
            data,
            name: name.as_ref().into(),
            version: version.as_ref().into(),
            has_commands: true,
            channels: channels.iter().filter_map(|name| ChannelName::new(name).ok()).collect(),
            subs: subs.collect(),
        })
    }

    fn ttl(&self, expires_at: Option<u64>) -> Option<u64> {
        let now = self.context.settings.now.unix_seconds;
        expires_at.map(|at| at.saturating_sub(now))
    }

    fn connected(&mut self, id: u32, welcome: &Welcome) {
        let interval = self.context.settings.keepalive_interval;
        let client = self.context.client;
        let key = &self.context.settings.now.session_key;
        let session = self.form.has_relays().then(|| key.name_of(client));
        let connected = Connected {
            client,
            session: session.as_deref(),
            ping_seconds: interval.as_secs().max(1),
            wants_pong: self.form.has_pongs(),
            welcome,
            delta_bytes_max: DELTA_BYTES_MAX,
        };
        self.reply(id, Answer::Connected(&connected));
        // A client that has closed its end has a deadline already.
        if !self.context.has_ended {
            self.context.outputs.push(Output::Deadline(interval));
        }
    }

    fn publish(&mut self, id: u32, name: &str, data: &Data<'_>) {
        let Ok(payload) = self.payload(id, data) else { return };
        self.request(id, name, |channel| Request::Publish {
            channel: Some(channel),
            payload,
            options: None,
        });
    }

    /// What a client publishes, or says to a backend. It is refused if it is nested too deep.
    fn payload(&mut self, id: u32, data: &Data<'_>) -> Result<Payload, Refused> {
        match data {
            Data::Json(json) if json::exceeds_depth(json, PAYLOAD_DEPTH_MAX) => {
                let detail = format!("data: it nests deeper than {PAYLOAD_DEPTH_MAX}");
                self.refuse(id, CommandError::BadRequest, Some(&detail));
                Err(Refused)
            }
            Data::Json(json) => Ok(Payload::new(PayloadKind::Json, Bytes::copy_from_slice(json))),
            Data::Bytes(bytes) => {
                let kind = json::kind_of_data(bytes, PAYLOAD_DEPTH_MAX);
                Ok(Payload::new(kind, bytes.clone()))
            }
        }
    }

    fn call(&mut self, id: u32, procedure: &str, data: Option<&Data<'_>>) {
        if procedure.len() > PROCEDURE_BYTES_MAX {
            let detail = format!("method: it has at most {PROCEDURE_BYTES_MAX} bytes");
            return self.refuse(id, CommandError::BadRequest, Some(&detail));
        }
        let data = data.map(|data| self.payload(id, data));
        let Ok(data) = data.transpose() else { return };
        let request = Request::Call { procedure: procedure.into(), data };
        self.context.request(Ticket::new(id), Actor::Client, request);
    }

    fn subscribe(&mut self, id: u32, subscribe: Subscribe<'_>) {
        let Subscribe { channel, since, needs_all, token, data, form } = subscribe;
        let data = data.map(|data| self.payload(id, &data).map(Box::new));
        let Ok(data) = data.transpose() else { return };
        let form = SubscriptionForm { data, ..form };
        let (token, options) = (Token::new(&token), None);
        self.request(id, &channel, |channel| Request::Subscribe {
            channel,
            since,
            needs_all,
            token,
            form,
            options,
        });
    }

    /// Goes on with a new token, for the connection or for a channel. As with Centrifugo, a client that names no
    /// channel, or has no token for its connection, is disconnected.
    fn refresh(&mut self, id: u32, channel: Option<&str>, token: &str) -> Result<(), CommandFault> {
        match (channel, Token::new(token)) {
            (Some(""), _) | (None, None) => return Err(CommandFault::Fatal),
            (Some(_), None) => {
                self.refuse(id, CommandError::BadRequest, Some("a token is needed"));
            }
            (Some(name), Some(token)) => {
                self.request(id, name, |channel| Request::RefreshSubscription { channel, token });
            }
            (None, Some(token)) => {
                let request = Request::Refresh { token };
                self.context.request(Ticket::new(id), Actor::Client, request);
            }
        }
        Ok(())
    }

    fn presence(&mut self, id: u32, name: &str, list_max: u32) {
        self.request(id, name, |channel| Request::Presence { channel, list_max });
    }

    fn request(&mut self, id: u32, name: &str, request: impl FnOnce(ChannelName) -> Request) {
        match ChannelName::new(name) {
            Ok(channel) => self.context.request(Ticket::new(id), Actor::Client, request(channel)),
            Err(error) => self.refuse(id, CommandError::BadRequest, Some(&error.to_string())),
        }
    }

    fn subscribed(
        &mut self,
        id: u32,
        channel: &ChannelName,
        subscribed: Subscribed<'_>,
        recovery: Option<&Recovery>,
    ) {
        // A client that starts anew reads its state elsewhere, and goes on from the position.
        let missed = recovery.filter(|recovery| recovery.is_complete);
        let position = recovered_from(subscribed.position, missed);
        let subscribed = &Subscribed { position, ..subscribed };
        let none = Publications::default();
        let publications = missed.map_or(&none, |missed| &missed.publications);
        if id != 0 {
            self.reply(id, Answer::Subscribed(subscribed, publications));
        } else {
            self.push(channel, Push::Subscribed(subscribed));
            // The push has no place for missed publications.
            for publication in publications.iter() {
                self.push(channel, Push::Publication(publication));
            }
        }
        if missed.is_some_and(|missed| missed.has_more) {
            self.push(channel, Push::Unsubscribed(UnsubscribeReason::InsufficientState));
        }
    }

    fn refreshed(&mut self, id: u32, ttl_seconds: Option<u64>) {
        let client = self.context.client;
        self.reply(id, Answer::Refreshed { client, ttl_seconds });
    }

    /// A request is refused. An error is the reason for which the client is to be disconnected.
    fn refused(&mut self, id: u32, refusal: Refusal) -> Result<(), CloseReason> {
        let row = row_of(refusal);
        match (row.close, refusal) {
            _ if self.form.is_unidirectional() => return Err(reason_of(refusal)),
            (Some(reason), _) => return Err(reason),
            // The client has what it wants: perhaps the server API ended the subscription meanwhile.
            (None, Refusal::NotSubscribed) => self.reply(id, Answer::Unsubscribed),
            (None, _) => self.refuse(id, row.error, row.detail()),
        }
        Ok(())
    }

    fn refuse(&mut self, id: u32, error: CommandError, detail: Option<&str>) {
        self.context.log_refusal(error.message(), "a command is refused");
        // A client that sends nothing but `connect` is disconnected instead.
        if !self.form.is_unidirectional() {
            self.reply(id, Answer::Refused(error, detail));
        }
    }

    fn reply(&mut self, id: u32, answer: Answer<'_>) {
        self.write(&Sent::Reply(id, answer));
    }

    fn push(&mut self, channel: &ChannelName, push: Push<'_>) {
        self.write(&Sent::Push(channel, push));
    }

    fn write(&mut self, sent: &Sent<'_>) {
        self.context.messages.sent += 1;
        self.form.write(self.context.out, sent, self.context.answers);
    }
}

/// Why a client is disconnected that is not let in, and is sent no replies.
fn reason_of(refusal: Refusal) -> CloseReason {
    match (row_of(refusal).close, refusal) {
        (Some(reason), _) => reason,
        (None, Refusal::TokenExpired | Refusal::ConnectionExpired) => CloseReason::Expired,
        (None, Refusal::Overloaded | Refusal::BackendUnavailable) => CloseReason::Overloaded,
        (None, _) => CloseReason::ProtocolError,
    }
}

/// The position in front of the publications of a recovery: a client that reads only some of them comes back from the
/// last one that it read.
fn recovered_from(position: Position, recovery: Option<&Recovery>) -> Position {
    let first = recovery.and_then(|recovery| recovery.publications.first());
    first.map_or(position, |first| Position {
        offset: first.position.offset.saturating_sub(1),
        ..position
    })
}

#[cfg(test)]
mod tests;
