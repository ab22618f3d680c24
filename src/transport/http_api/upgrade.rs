//! Requests that become WebSockets.

use std::borrow::Cow;

use super::command_stream::{check_connect, connect_parameter};
use super::cors::Cors;
use super::credentials::{BEARER_SUBPROTOCOL, check_shown};
use super::error::{Early, HttpError};
use super::origin;
use super::parameters::channels_of;
use super::subscription_tokens::{SUBPROTOCOL, SubscriptionTokens};
use crate::auth::{Rate, RateVerdict};
use crate::message::{Actor, ChannelName, Reply, Request, Ticket, Token};
use crate::protocol::http1::{Head, query_pairs};
use crate::protocol::websocket::handshake::{self, HandshakeFault, Upgrade};
use crate::protocol::websocket::{Agreement, Deflate};
use crate::transport::command_form::CommandEncoding;
use crate::transport::context::{Context, Flow, Output};
use crate::transport::handshake_failure::HandshakeFailure;
use crate::transport::websocket::{WebSocketConversation, WebSocketService};

/// A handshake whose answer waits until its subscriptions are made: a client receives every publication made after it
/// has read the answer. What is delivered before it is not kept: a plain WebSocket is sent no position, neither in its
/// answer nor with a publication, so a client could not tell it from what came before it asked.
#[derive(Debug)]
pub(super) struct Upgrading {
    upgrade: AllowedUpgrade,
    channels: Vec<ChannelName>,
    /// The token for each, if the client shows any.
    tokens: SubscriptionTokens,
    subscriptions_left: usize,
}

/// An upgrade whose origin is allowed: [`accept`] takes no other.
#[derive(Debug)]
struct AllowedUpgrade {
    key: Vec<u8>,
    /// One of the subprotocols that the client offers: it refuses a connection in which the server chose none of them.
    subprotocol: Option<String>,
    compression: Option<Agreement>,
}

impl AllowedUpgrade {
    /// Checks the origin and the subprotocols. A refusal has a status, a cause, and a sentence.
    fn of(
        upgrade: &Upgrade<'_, '_>,
        service: WebSocketService,
        is_origin_allowed: bool,
        offers_deflate: bool,
    ) -> Result<Self, (u16, HandshakeFailure, &'static str)> {
        if !is_origin_allowed {
            let message = "origin not allowed (http.origins)";
            return Err((403, HandshakeFailure::OriginRefused, message));
        }
        let has_token =
            |name: &&str| [BEARER_SUBPROTOCOL, SUBPROTOCOL].iter().any(|it| name.starts_with(it));
        let mut offered = upgrade.subprotocols().filter(|name| !has_token(name)).peekable();
        if offered.peek().is_none() && upgrade.subprotocols().next().is_some() {
            // WHATWG WebSockets 3.1: a browser ends a connection in which nothing that it offers is chosen.
            let message =
                "offer a subprotocol beside those with tokens: the answer chooses that one";
            return Err((400, HandshakeFailure::SubprotocolUnsupported, message));
        }
        let subprotocol = match service {
            // The payloads are the application's, and so is the name of their protocol.
            WebSocketService::Publish | WebSocketService::Echo => offered.next(),
            WebSocketService::Commands(encoding) => {
                offered.find(|name| *name == subprotocol_of(encoding))
            }
        };
        let compression = upgrade.compression().filter(|_| offers_deflate);
        let subprotocol = subprotocol.map(str::to_owned);
        Ok(Self { key: upgrade.key.to_vec(), subprotocol, compression })
    }

    /// Which messages may be compressed.
    fn deflate(&self) -> Deflate {
        self.compression.map_or(Deflate::Off, Agreement::deflate)
    }
}

/// The subprotocol of commands in JSON, as the SDKs of Centrifuge name it.
const JSON_COMMANDS: &str = "centrifuge-json";

/// The subprotocol of commands in Protobuf.
const PROTOBUF_COMMANDS: &str = "centrifuge-protobuf";

/// The subprotocol of commands in an encoding.
fn subprotocol_of(encoding: CommandEncoding) -> &'static str {
    match encoding {
        CommandEncoding::Json | CommandEncoding::JsonPushes => JSON_COMMANDS,
        CommandEncoding::Protobuf => PROTOBUF_COMMANDS,
    }
}

/// How the commands of a client are encoded, which the answer names if the client offers a subprotocol for it. The
/// query chooses among what is offered; where that is neither of both, it decides alone. Centrifugo has two parameters
/// for it.
pub(super) fn encoding_of(head: &Head<'_>) -> CommandEncoding {
    let is_asked_for = query_pairs(head.query).any(|pair| {
        ["cf_protocol", "format"].contains(&&*pair.name)
            && pair.value().is_ok_and(|value| value == "protobuf")
    });
    let mut first = None;
    for name in head.header_list("sec-websocket-protocol") {
        let encodings = [CommandEncoding::Json, CommandEncoding::Protobuf];
        let offered = encodings.into_iter().find(|it| subprotocol_of(*it).as_bytes() == name);
        if offered == Some(CommandEncoding::Protobuf) && is_asked_for {
            return CommandEncoding::Protobuf;
        }
        first = first.or(offered);
    }
    first.unwrap_or(match is_asked_for {
        true => CommandEncoding::Protobuf,
        false => CommandEncoding::Json,
    })
}

/// Answers a handshake whose WebSocket needs no subscriptions.
pub(super) fn upgrade_at_once(
    service: WebSocketService,
    head: &Head<'_>,
    token: Option<Token>,
    context: &mut Context<'_>,
) -> Result<WebSocketConversation, Early> {
    let upgrade = check(service, head, context)?;
    let first = match service {
        WebSocketService::Commands(CommandEncoding::JsonPushes) => connect_parameter(head)?,
        _ => Cow::Borrowed(""),
    };
    if !first.is_empty() {
        check_connect(first.as_bytes()).map_err(|error| {
            context.fail_handshake(HandshakeFailure::BadRequest);
            HttpError { is_handshake: true, ..error }
        })?;
    }
    check_memory(context)?;
    accept(&upgrade, context);
    if matches!(service, WebSocketService::Commands(_)) {
        // The session begins with the first command, which must come in time.
        context.outputs.push(Output::Deadline(context.settings.handshake_timeout));
    }
    let mut websocket =
        WebSocketConversation::new(service).with_deflate(upgrade.deflate()).with_token(token);
    if !first.is_empty() && websocket.take_first(first.as_bytes(), context) == Flow::Closed {
        return Err(Early::Closed);
    }
    Ok(websocket)
}

impl Upgrading {
    /// Takes a handshake that names channels.
    pub(super) fn begin(
        head: &Head<'_>,
        token: Option<&Token>,
        context: &mut Context<'_>,
    ) -> Result<Self, Early> {
        let channels = match channels_of(head, context.settings.subscriptions_max)? {
            Ok(channels) => channels,
            Err(message) => {
                return Err(fail(HandshakeFailure::ChannelInvalid, 400, message, context).into());
            }
        };
        let upgrade = check(WebSocketService::Publish, head, context)?;
        let tokens = SubscriptionTokens::of(head, &channels, context.settings)?
            .map_err(|error| refuse_token(error, context))?;
        check_shown(token, context.settings).map_err(|error| refuse_token(error, context))?;
        check_memory(context)?;
        if context.take_rate(Rate::Subscriptions, channels.len()) != RateVerdict::Allow {
            context.fail_handshake(HandshakeFailure::RateExceeded);
            let error = HttpError { is_handshake: true, ..HttpError::rate_exceeded() };
            return Err(error.into());
        }
        Ok(Self { upgrade, subscriptions_left: channels.len(), channels, tokens })
    }

    /// Subscribes to the channels.
    pub(super) fn ask(&self, context: &mut Context<'_>) {
        for (index, channel) in self.channels.iter().enumerate() {
            let request = Request::subscribe(channel.clone(), None);
            let request = request.with_token(self.tokens.get(index));
            context.request(Some(Ticket::FIRST), Actor::Client, request);
        }
    }

    /// Bytes of heap that it owns.
    pub(super) fn heap_bytes(&self) -> usize {
        self.channels.capacity() * size_of::<ChannelName>() + self.tokens.heap_bytes()
    }

    /// Takes the answer to one of the subscriptions. Returns the WebSocket once all are made and the handshake is
    /// answered; a subscription that is refused refuses the handshake.
    pub(super) fn take(
        &mut self,
        reply: &Reply,
        context: &mut Context<'_>,
    ) -> Result<Option<WebSocketConversation>, HttpError> {
        let error = match reply {
            Reply::Refused(refusal) => Some(HttpError::refused(*refusal)),
            Reply::Rejected(error) => Some(HttpError::rejected(error)),
            _ => None,
        };
        if let Some(error) = error {
            context.fail_handshake(HandshakeFailure::SubscriptionRefused);
            return Err(HttpError { is_handshake: true, ..error });
        }
        self.subscriptions_left -= 1;
        if self.subscriptions_left > 0 {
            return Ok(None);
        }
        accept(&self.upgrade, context);
        let deflate = self.upgrade.deflate();
        Ok(Some(WebSocketConversation::new(WebSocketService::Publish).with_deflate(deflate)))
    }
}

/// Checks an upgrade against the protocol and the settings.
fn check(
    service: WebSocketService,
    head: &Head<'_>,
    context: &mut Context<'_>,
) -> Result<AllowedUpgrade, HttpError> {
    let upgrade = handshake::check_upgrade(head).map_err(|fault| {
        context.fail_handshake(fault.into());
        if fault == HandshakeFault::UpgradeRemoved {
            context.outputs.push(Output::ProxyFault(fault.reason()));
        }
        let error = match fault.status() {
            405 => HttpError::method("GET"),
            status => HttpError {
                headers: fault.headers(),
                ..HttpError::new(status, fault.code(), fault.reason())
            },
        };
        HttpError { is_handshake: true, ..error }
    })?;
    let is_origin_allowed = origin::is_allowed(head, context.settings);
    AllowedUpgrade::of(&upgrade, service, is_origin_allowed, context.offers_deflate)
        .map_err(|(status, cause, message)| fail(cause, status, message, context))
}

/// While the server is low on memory, it takes no new subscribers.
fn check_memory(context: &mut Context<'_>) -> Result<(), Early> {
    if !context.overloaded {
        return Ok(());
    }
    context.fail_handshake(HandshakeFailure::Overloaded);
    HttpError::overloaded().write_last(Cors::Silent, context);
    context.outputs.push(Output::Refused);
    Err(Early::Closed)
}

/// A token is missing, or cannot be taken.
fn refuse_token(error: HttpError, context: &mut Context<'_>) -> HttpError {
    context.fail_handshake(HandshakeFailure::TokenRefused);
    HttpError { is_handshake: true, ..error }
}

fn fail(
    cause: HandshakeFailure,
    status: u16,
    message: impl Into<Cow<'static, str>>,
    context: &mut Context<'_>,
) -> HttpError {
    context.fail_handshake(cause);
    HttpError { is_handshake: true, ..HttpError::new(status, cause.label(), message) }
}

/// Answers a handshake.
fn accept(upgrade: &AllowedUpgrade, context: &mut Context<'_>) {
    context.messages.sent += 1;
    let AllowedUpgrade { key, subprotocol, compression } = upgrade;
    handshake::write_accept_response(context.out, key, subprotocol.as_deref(), *compression);
    context.outputs.push(Output::Deadline(context.settings.keepalive_interval));
}
