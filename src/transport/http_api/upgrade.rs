//! Requests that become WebSockets.

use super::answer::{Exchange, close, fail_refused, refuse_overloaded};
use super::{HttpConversation, HttpFlow, HttpNext, Next, channels_of, origin};
use crate::message::{Actor, Refusal, Request, Ticket};
use crate::protocol::http1::{Head, HttpFault, Method};
use crate::protocol::websocket::handshake::{self, HandshakeFault, Upgrade};
use crate::transport::context::{Context, Output};
use crate::transport::handshake_failure::HandshakeFailure;
use crate::transport::websocket::{WebSocketConversation, WebSocketService};

/// A handshake whose answer waits until its subscriptions are made: who has seen the answer misses nothing that is
/// published from then on, by whomever. What comes for the first ones before it is not kept: a plain WebSocket is told
/// no position, neither in its answer nor with a publication, so a client cannot tell it from what came before it
/// asked.
#[derive(Debug)]
pub(super) struct PendingUpgrade {
    upgrade: AllowedUpgrade,
    subscriptions_left: usize,
}

/// An upgrade whose origin may have a WebSocket here: [`accept`] takes no other.
#[derive(Debug)]
struct AllowedUpgrade {
    key: Vec<u8>,
    /// Of those that the client offers: it refuses a connection in which none of them is chosen.
    subprotocol: Option<String>,
}

impl AllowedUpgrade {
    /// Why it is refused, if it is: status, cause, and a sentence.
    fn of(
        upgrade: &Upgrade<'_, '_>,
        service: WebSocketService,
        is_origin_allowed: bool,
    ) -> Result<Self, (u16, HandshakeFailure, &'static str)> {
        if !is_origin_allowed {
            let message = "origin not allowed (http.origins)";
            return Err((403, HandshakeFailure::OriginRefused, message));
        }
        let mut offered = upgrade.subprotocols();
        let subprotocol = match service {
            // What passes is the application's, and so is the name that it has for it.
            WebSocketService::Publish | WebSocketService::Echo => offered.next(),
            WebSocketService::Commands => {
                let names: Vec<_> = offered.collect();
                let json = names.iter().copied().find(|name| *name == JSON_COMMANDS);
                if json.is_none() && names.contains(&PROTOBUF_COMMANDS) {
                    let message =
                        "commands are JSON here: offer the subprotocol centrifuge-json, or none";
                    return Err((400, HandshakeFailure::SubprotocolUnsupported, message));
                }
                json
            }
        };
        Ok(Self { key: upgrade.key.to_vec(), subprotocol: subprotocol.map(str::to_owned) })
    }
}

/// The subprotocol of commands in JSON, as the SDKs of Centrifuge name it.
const JSON_COMMANDS: &str = "centrifuge-json";

/// The subprotocol of commands in Protobuf.
const PROTOBUF_COMMANDS: &str = "centrifuge-protobuf";

impl HttpConversation {
    pub(super) fn upgrade_to_channels(
        &mut self,
        head: &Head<'_>,
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        let channels = match channels_of(head, context.settings.subscriptions_max)? {
            Ok(channels) => channels,
            Err(message) => {
                context.fail_handshake(HandshakeFailure::ChannelInvalid);
                let exchange = Exchange::last();
                let code = HandshakeFailure::ChannelInvalid.label();
                return Ok(self.refuse(400, code, &message, &[], exchange, context));
            }
        };
        let upgrade = match self.check_upgrade(WebSocketService::Publish, head, context) {
            Ok(upgrade) => upgrade,
            Err(next) => return Ok(next),
        };
        if context.overloaded {
            return Ok(refuse_handshake(context));
        }
        self.pending.get_or_insert_default().upgrade =
            Some(PendingUpgrade { upgrade, subscriptions_left: channels.len() });
        for channel in channels {
            let request = Request::Subscribe { channel, since: None, needs_all: false };
            context.request(Some(Ticket::FIRST), Actor::Client, request);
        }
        Ok(Next::Flow(HttpFlow::AwaitReply))
    }

    /// A subscription of the handshake is made: answers it after the last one.
    pub(super) fn count_subscription(&mut self, context: &mut Context<'_>) -> HttpFlow {
        let Some(pending) = &mut self.pending else { return HttpFlow::Receive };
        let Some(waiting) = &mut pending.upgrade else { return HttpFlow::Receive };
        waiting.subscriptions_left -= 1;
        if waiting.subscriptions_left > 0 {
            return HttpFlow::AwaitReply;
        }
        accept(&waiting.upgrade, context);
        let rest = pending.remainder.split_off(pending.used);
        self.pending = None;
        let next = HttpNext::WebSocket(WebSocketConversation::new(WebSocketService::Publish));
        HttpFlow::Become { next, rest }
    }

    /// A subscription of the handshake is refused, and so is the handshake.
    pub(super) fn refuse_subscription(
        &mut self,
        refusal: Refusal,
        context: &mut Context<'_>,
    ) -> HttpFlow {
        self.pending = None;
        context.fail_handshake(HandshakeFailure::SubscriptionRefused);
        fail_refused(Exchange::last(), refusal, context);
        close(context)
    }

    pub(super) fn upgrade_at_once(
        &mut self,
        service: WebSocketService,
        head: &Head<'_>,
        context: &mut Context<'_>,
    ) -> Next {
        match self.check_upgrade(service, head, context) {
            Ok(_) if context.overloaded => refuse_handshake(context),
            Ok(upgrade) => {
                accept(&upgrade, context);
                if service == WebSocketService::Commands {
                    // The upgrade opens no session yet: that is for the first command to do.
                    context.outputs.push(Output::Deadline(context.settings.handshake_timeout));
                }
                let next = HttpNext::WebSocket(WebSocketConversation::new(service));
                Next::Flow(HttpFlow::Become { next, rest: Vec::new() })
            }
            Err(next) => next,
        }
    }

    /// What the protocol and the settings ask of an upgrade; what is answered where it is not so.
    fn check_upgrade(
        &mut self,
        service: WebSocketService,
        head: &Head<'_>,
        context: &mut Context<'_>,
    ) -> Result<AllowedUpgrade, Next> {
        let upgrade = match handshake::check_upgrade(head) {
            Ok(upgrade) => upgrade,
            Err(fault) => return Err(self.refuse_upgrade(fault, head, context)),
        };
        let is_origin_allowed = origin::is_allowed(head, context.settings);
        AllowedUpgrade::of(&upgrade, service, is_origin_allowed).map_err(|refusal| {
            let (status, cause, message) = refusal;
            context.fail_handshake(cause);
            self.refuse(status, cause.label(), message, &[], Exchange::last(), context)
        })
    }

    pub(super) fn refuse_upgrade(
        &mut self,
        fault: HandshakeFault,
        head: &Head<'_>,
        context: &mut Context<'_>,
    ) -> Next {
        context.fail_handshake(fault.into());
        if fault == HandshakeFault::UpgradeRemoved {
            context.outputs.push(Output::ProxyFault(fault.reason()));
        }
        let exchange = Exchange { is_head: head.method == Method::Head, ..Exchange::last() };
        match fault.status() {
            405 => self.refuse_method(exchange, "GET", context),
            status => {
                let headers = fault.headers();
                self.refuse(status, fault.code(), fault.reason(), headers, exchange, context)
            }
        }
    }
}

/// No new subscriber while memory is nearly used up.
fn refuse_handshake(context: &mut Context<'_>) -> Next {
    context.fail_handshake(HandshakeFailure::Overloaded);
    refuse_overloaded(Exchange::last(), context);
    context.outputs.push(Output::Refused);
    Next::Flow(close(context))
}

/// Answers a handshake.
fn accept(upgrade: &AllowedUpgrade, context: &mut Context<'_>) {
    context.messages.sent += 1;
    let AllowedUpgrade { key, subprotocol } = upgrade;
    handshake::write_accept_response(context.out, key, subprotocol.as_deref());
    context.outputs.push(Output::Deadline(context.settings.keepalive_interval));
}
