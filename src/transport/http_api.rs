//! HTTP requests: the routes, and the ways into a WebSocket and an event stream.
//!
//! Requests of one connection are answered in order. While one waits for the hub, what is pipelined behind it waits
//! in the remainder, and the worker receives nothing more. So it does while much of what was answered has not left: a
//! few bytes may ask for a page, and a receive buffer has room for thousands of such requests. A poll that waits is no
//! such request: the connection is still listened to, so that its end is heard.

use std::time::Duration;

use super::api_call::ApiCall;
use super::context::{Answer, Context, Flow, Output, Question};
use super::contract::{Traits, Transport};
use super::handshake_failure::HandshakeFailure;
use super::prepared::{Batch, Delivered};
use super::settings::TransportSettings;
use super::sse::EventStream;
use super::websocket::{WebSocketConversation, WebSocketService};
use crate::message::{CloseReason, Farewell, Origin, Position, Reply, TransportKind};
use crate::protocol::http1::{
    BodyDecoder, BodyLength, BodyPart, Head, HttpFault, Method, parse_head,
};
use crate::protocol::websocket::handshake;

mod answer;
mod api;
mod body;
mod cors;
mod get;
mod origin;
mod page;
mod parameters;
mod poll;
mod publish;
mod subscribe;
mod upgrade;

use answer::{Exchange, close, fail, fail_refused, refuse_beyond_max, refuse_overloaded, write_ok};
use body::Body;
use parameters::channels_of;
use poll::Poll;
use subscribe::Opening;
use upgrade::PendingUpgrade;

/// The requests of one connection.
#[derive(Debug)]
pub struct HttpConversation {
    service: HttpService,
    /// Whether a request has been answered.
    has_answered: bool,
    /// What an idle connection does not have.
    pending: Option<Box<Pending>>,
    /// A poll that waits.
    poll: Option<Box<Poll>>,
}

/// What is behind the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpService {
    /// Every route.
    Edge,
    /// WebSockets of any path, echoed.
    Echo,
}

/// The conversations that requests may turn into.
#[derive(Debug)]
pub enum HttpNext {
    /// A WebSocket: its subscriptions are made and the handshake is answered.
    WebSocket(WebSocketConversation),
    /// An event stream, which has begun.
    EventStream(EventStream),
}

/// What a step of HTTP wants next.
type HttpFlow = Flow<HttpNext>;

#[derive(Debug, Default)]
struct Pending {
    /// Received and, from `used` on, not used yet: an unfinished head, or what is behind a request that waits for its
    /// reply. A front that was used stays until more comes: requests pipelined by the hundred are not moved up a
    /// hundred times.
    remainder: Vec<u8>,
    used: usize,
    body: Option<Body>,
    /// The body that the client holds back until it is asked for it (RFC 9110 10.1.1).
    expected: Option<BodyLength>,
    awaits: Option<Exchange>,
    call: Option<ApiCall>,
    upgrade: Option<PendingUpgrade>,
    opening: Option<Opening>,
    /// Whether the deadline of the request that began has been asked for.
    has_deadline: bool,
    /// The next request waits until most of what is queued has left.
    awaits_drain: bool,
}

/// What follows a step.
enum Next {
    /// The next request.
    Request,
    Flow(HttpFlow),
}

impl HttpConversation {
    /// A conversation that has not begun.
    pub fn new(service: HttpService) -> Self {
        Self { service, has_answered: false, pending: None, poll: None }
    }

    /// Takes what the peer sent.
    fn take_bytes(&mut self, bytes: &[u8], context: &mut Context<'_>) -> HttpFlow {
        if self.is_polling() {
            return self.receive_behind_poll(bytes);
        }
        match &mut self.pending {
            Some(pending) if !pending.remainder.is_empty() || pending.awaits_reply() => {
                pending.remainder.drain(..std::mem::take(&mut pending.used));
                pending.remainder.extend_from_slice(bytes);
                if pending.awaits_reply() {
                    return HttpFlow::AwaitReply;
                }
                self.process_remainder(context)
            }
            _ => {
                let (flow, used) = self.process(bytes, context);
                if used < bytes.len() && !matches!(flow, HttpFlow::Closed) {
                    let pending = self.pending.get_or_insert_default();
                    pending.remainder.extend_from_slice(&bytes[used..]);
                }
                self.rest(flow, context)
            }
        }
    }

    /// Takes the hub's answer.
    fn take_reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> HttpFlow {
        let Some(pending) = &self.pending else { return HttpFlow::Receive };
        // News of what the server API did to this connection says nothing to it.
        let Origin::Client(ticket) = origin else { return self.wait_on() };
        if pending.upgrade.is_some() {
            return match reply {
                Reply::Refused(refusal) => self.refuse_subscription(*refusal, context),
                _ => self.count_subscription(context),
            };
        }
        if pending.opening.is_some() {
            return self.open(ticket, reply, context);
        }
        if pending.call.is_some() {
            return self.advance_call(|call| call.take_reply(ticket, reply), context);
        }
        match reply {
            Reply::Published { position: Position { epoch, offset } } => {
                let body = format!("{{\"epoch\":\"{epoch}\",\"offset\":{offset}}}\n");
                self.respond("application/json", body.as_bytes(), context)
            }
            Reply::Refused(refusal) => {
                let Some(exchange) = self.take_awaited() else { return HttpFlow::Receive };
                fail_refused(exchange, *refusal, context);
                self.go_on(exchange, context)
            }
            Reply::Subscribed { .. }
            | Reply::Unsubscribed { .. }
            | Reply::History { .. }
            | Reply::Presence { .. }
            | Reply::Channels { .. }
            | Reply::Done => self.wait_on(),
        }
    }

    /// What is wanted next where nothing has changed.
    fn wait_on(&self) -> HttpFlow {
        if self.awaits_reply() { HttpFlow::AwaitReply } else { HttpFlow::Receive }
    }

    /// Answers the request that waits, with status 200, and goes on with what was pipelined behind it.
    fn respond(&mut self, content_type: &str, body: &[u8], context: &mut Context<'_>) -> HttpFlow {
        let Some(exchange) = self.take_awaited() else { return HttpFlow::Receive };
        write_ok(exchange, content_type, body, context);
        self.go_on(exchange, context)
    }

    /// Takes the worker's answer to a question.
    fn take_answer(&mut self, answer: &Answer<'_>, context: &mut Context<'_>) -> HttpFlow {
        match *answer {
            Answer::Metrics(text) => {
                self.respond("text/plain; version=0.0.4", text.as_bytes(), context)
            }
            Answer::NodeInfo(info) => self.advance_call(|call| call.take_info(info), context),
            Answer::Readiness(true) => {
                self.respond("application/json", b"{\"status\":\"ready\"}\n", context)
            }
            Answer::Readiness(false) => {
                let Some(exchange) = self.take_awaited() else { return HttpFlow::Receive };
                let message =
                    "the server is shutting down, or does not accept connections at the moment";
                fail(exchange, 503, "not_ready", message, &[("Retry-After", "1")], context);
                self.go_on(exchange, context)
            }
        }
    }

    /// Asks the worker for what the answer needs.
    fn ask(&mut self, question: Question, exchange: Exchange, context: &mut Context<'_>) -> Next {
        self.pending.get_or_insert_default().awaits = Some(exchange);
        context.outputs.push(Output::Ask(question));
        Next::Flow(HttpFlow::AwaitReply)
    }

    /// The deadline has come: answers a poll, or says what is to be said, after which the connection ends.
    fn time_out(&mut self, context: &mut Context<'_>) -> HttpFlow {
        if let Some(poll) = self.poll.take() {
            return self.time_out_poll(&poll, context);
        }
        if !self.has_answered {
            context.fail_handshake(HandshakeFailure::Timeout);
        }
        let is_stream = self.opening().is_some_and(|opening| opening.end_stream(true, context));
        if !is_stream && self.is_in_request() && !self.awaits_drain() {
            let message = "the request was not completed in time";
            fail(Exchange::last(), 408, "timeout", message, &[], context);
        }
        context.outputs.push(Output::Close(CloseReason::HandshakeTimeout));
        HttpFlow::Closed
    }

    /// Whether a request waits for its reply.
    fn awaits_reply(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.awaits_reply())
    }

    /// Whether the next request waits until most of what is queued has left.
    fn awaits_drain(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.awaits_drain)
    }

    /// Most of what was queued has left: goes on with what is pipelined.
    fn resume_when_drained(&mut self, context: &mut Context<'_>) -> HttpFlow {
        match self.awaits_drain() {
            true if self.opening().is_some() => self.go_on_opening(context),
            true => self.process_remainder(context),
            false => self.wait_on(),
        }
    }

    /// What a step means for a client that has closed its end: nothing more is asked, and nothing goes on.
    fn mind_end(&self, flow: HttpFlow, context: &mut Context<'_>) -> HttpFlow {
        match flow {
            Flow::Receive if context.has_ended && self.is_polling() => {
                self.probe_poll(context);
                Flow::Receive
            }
            Flow::Receive if context.has_ended => close(context),
            Flow::Become { next: HttpNext::EventStream(_), .. } if context.has_ended => {
                context.close(CloseReason::ClientGone)
            }
            flow => flow,
        }
    }

    /// Whether a request has begun to come and is not there yet.
    fn is_unfinished(&self) -> bool {
        self.is_in_request() && !self.awaits_reply() && !self.awaits_drain()
    }

    fn is_in_request(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| {
            pending.used < pending.remainder.len()
                || pending.body.is_some()
                || pending.awaits_reply()
        })
    }

    /// The request whose subscriptions are being made.
    fn opening(&self) -> Option<&Opening> {
        self.pending.as_ref()?.opening.as_ref()
    }

    fn take_awaited(&mut self) -> Option<Exchange> {
        self.pending.as_mut().and_then(|pending| pending.awaits.take())
    }

    /// After an answer that had to be waited for.
    fn go_on(&mut self, exchange: Exchange, context: &mut Context<'_>) -> HttpFlow {
        match self.finish(exchange, context) {
            Next::Flow(flow) => flow,
            Next::Request => self.process_remainder(context),
        }
    }

    fn process_remainder(&mut self, context: &mut Context<'_>) -> HttpFlow {
        let pending = self.pending.get_or_insert_default();
        pending.awaits_drain = false;
        let all = std::mem::take(&mut pending.remainder);
        let start = std::mem::take(&mut pending.used);
        let (flow, used) = self.process(&all[start..], context);
        if start + used < all.len() && !matches!(flow, HttpFlow::Closed) {
            let pending = self.pending.get_or_insert_default();
            pending.remainder = all;
            pending.used = start + used;
        }
        self.rest(flow, context)
    }

    /// Takes requests until there is a reason to stop; returns how many bytes were used.
    fn process(&mut self, bytes: &[u8], context: &mut Context<'_>) -> (HttpFlow, usize) {
        let mut rest = bytes;
        loop {
            if !rest.is_empty() && !self.has_body() && context.out.len() > context.out_bytes_high {
                return (HttpFlow::AwaitDrain, bytes.len() - rest.len());
            }
            let next = if self.has_body() {
                self.receive_body(&mut rest, context)
            } else {
                self.receive_head(&mut rest, context)
            };
            match next {
                Ok(Next::Request) => {}
                Ok(Next::Flow(HttpFlow::Become { next, .. })) => {
                    return (HttpFlow::Become { next, rest: rest.to_vec() }, bytes.len());
                }
                Ok(Next::Flow(flow)) => return (flow, bytes.len() - rest.len()),
                Err(fault) => {
                    if !self.has_answered {
                        context.fail_handshake(HandshakeFailure::BadRequest);
                    }
                    return (self.refuse_fault(fault, rest, context), bytes.len());
                }
            }
        }
    }

    /// Comes to rest: owns nothing if nothing is under way, else asks for the deadline of a request that began.
    fn rest(&mut self, flow: HttpFlow, context: &mut Context<'_>) -> HttpFlow {
        let is_over = matches!(flow, HttpFlow::Closed | HttpFlow::Become { .. });
        if is_over || !self.is_in_request() {
            self.pending = None;
            return flow;
        }
        let pending = self.pending.get_or_insert_default();
        pending.awaits_drain = matches!(flow, HttpFlow::AwaitDrain);
        // It is the peer's silence that counts: it may read for as long as it reads.
        if !pending.awaits_drain && !pending.has_deadline {
            pending.has_deadline = true;
            // The first request's deadline is that of the connection's handshake, which runs already.
            if self.has_answered {
                context.outputs.push(Output::Deadline(context.settings.handshake_timeout));
            }
        }
        flow
    }

    fn has_body(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.body.is_some())
    }

    fn receive_head(
        &mut self,
        rest: &mut &[u8],
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        let Some(mut head) = parse_head(rest, &context.settings.head)? else {
            return Ok(Next::Flow(HttpFlow::Receive));
        };
        let mut behind = &rest[head.head_bytes..];
        if head.body == BodyLength::Chunked {
            // RFC 9112 7.1: a last chunk alone is a body of no bytes, which is the same as none. Where a body is not
            // asked for, the head waits for enough of it to tell.
            let mut body = behind;
            match BodyDecoder::new(head.body, 0)?.next(&mut body) {
                Ok(BodyPart::End) => (head.body, behind) = (BodyLength::None, body),
                Ok(_) if head.method != Method::Post && !head.expect_continue => {
                    return Ok(Next::Flow(HttpFlow::Receive));
                }
                Ok(_) | Err(_) => {}
            }
        }
        *rest = behind;
        context.messages.received += 1;
        let body = *rest;
        let next = self.route(&head, rest, context)?;
        // RFC 9112 9.3: a request that was refused without a look at its body, all of which has come, leaves the
        // connection usable. The body is passed over: what is behind it is the next request.
        if let (Next::Request, BodyLength::Length(length)) = (&next, head.body)
            && rest.len() == body.len()
            && length <= body.len() as u64
        {
            *rest = &body[length as usize..];
        }
        Ok(next)
    }

    fn route(
        &mut self,
        head: &Head<'_>,
        rest: &mut &[u8],
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        if head.is_forwarded && self.service == HttpService::Edge {
            context.hear_of_proxy();
        }
        let mut exchange = Exchange::of(head, rest.len(), context.settings);
        exchange.keep_alive &= !context.is_spare;
        if head.expect_continue && head.body != BodyLength::None && rest.is_empty() {
            self.pending.get_or_insert_default().expected = Some(head.body);
        }
        if self.service == HttpService::Edge
            && head.method == Method::Options
            && let Some(methods) = cors::methods_of(head.path)
        {
            return self.preflight(head, methods, exchange, context);
        }
        if context.is_spare && !(self.service == HttpService::Edge && is_for_all(head.path)) {
            return Ok(self.refuse_with(exchange, context, refuse_beyond_max));
        }
        match (self.service, head.path) {
            (HttpService::Echo, _) => {
                Ok(self.upgrade_at_once(WebSocketService::Echo, head, context))
            }
            (HttpService::Edge, "/connection/websocket") => {
                Ok(self.upgrade_at_once(WebSocketService::Commands, head, context))
            }
            (HttpService::Edge, "/ws") => self.upgrade_to_channels(head, context),
            (HttpService::Edge, "/") if handshake::wants_upgrade(head) => {
                self.upgrade_to_channels(head, context)
            }
            (HttpService::Edge, path)
                if head.method == Method::Post
                    && (path == "/publish" || path.starts_with(API_PREFIX))
                    && !origin::is_allowed(head, context.settings) =>
            {
                Ok(self.refuse_origin(exchange, context))
            }
            (HttpService::Edge, "/publish") => self.publish(head, rest, exchange, context),
            (HttpService::Edge, path) if path.starts_with(API_PREFIX) => {
                self.api(&path[API_PREFIX.len()..], head, rest, exchange, context)
            }
            (
                HttpService::Edge,
                "/" | "/events" | "/poll" | "/health/live" | "/health/ready" | "/metrics",
            ) => self.get(head, exchange, context),
            (HttpService::Edge, _) => {
                Ok(self.refuse(404, "not_found", "no such endpoint", &[], exchange, context))
            }
        }
    }
}

impl Transport for HttpConversation {
    type Next = HttpNext;

    fn traits(&self) -> Traits {
        let kind = if self.is_polling() { TransportKind::LongPoll } else { TransportKind::Http };
        Traits { collects_answers: true, awaits_drain: self.awaits_drain(), ..Traits::of(kind) }
    }

    fn receive(&mut self, bytes: &mut [u8], context: &mut Context<'_>) -> HttpFlow {
        let flow = self.take_bytes(bytes, context);
        self.mind_end(flow, context)
    }

    fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> HttpFlow {
        let flow = self.take_reply(origin, reply, context);
        self.mind_end(flow, context)
    }

    fn answer(&mut self, answer: &Answer<'_>, context: &mut Context<'_>) -> HttpFlow {
        let flow = self.take_answer(answer, context);
        self.mind_end(flow, context)
    }

    fn deliver(
        &mut self,
        batch: &mut Batch<'_>,
        out: &mut Vec<u8>,
        settings: &TransportSettings,
    ) -> Delivered {
        match &mut self.poll {
            Some(poll) => poll.deliver(batch, out, settings),
            None => self.hold(batch),
        }
    }

    fn expire(&mut self, silence: Duration, _: bool, context: &mut Context<'_>) -> HttpFlow {
        if context.has_ended && self.probe_poll_again(silence, context) {
            return Flow::Receive;
        }
        let flow = self.time_out(context);
        self.mind_end(flow, context)
    }

    fn drained(&mut self, context: &mut Context<'_>) -> HttpFlow {
        let flow = match self.is_poll_answered() {
            true => self.finish_poll(context),
            false => self.resume_when_drained(context),
        };
        self.mind_end(flow, context)
    }

    /// What was asked for is still answered: `printf ... | nc -N` is a client.
    fn end(&mut self, context: &mut Context<'_>) -> HttpFlow {
        if self.awaits_reply() || self.awaits_drain() {
            return Flow::Receive;
        }
        if self.is_polling() {
            self.probe_poll(context);
            return Flow::Receive;
        }
        close(context)
    }

    /// Says why, if an answer is owed. After something was dropped nothing is said: answers come in the order of their
    /// requests (RFC 9112 9.3.2), and what follows a missing one would be taken for it, or for the rest of its body.
    fn disconnect(
        &mut self,
        disconnect: &Farewell,
        is_incomplete: bool,
        context: &mut Context<'_>,
    ) {
        if is_incomplete {
            return;
        }
        let is_overloaded = disconnect.reason == CloseReason::Overloaded;
        match self.poll.take() {
            Some(poll) if !is_overloaded => poll.disconnect(context),
            Some(_) => refuse_overloaded(Exchange::last(), context),
            // A request of which nothing was done can be made again (RFC 9110 15.6.4).
            None if disconnect.reason == CloseReason::Shutdown && self.is_unfinished() => {
                let message = "the server is shutting down";
                fail(Exchange::last(), 503, "shutdown", message, &[("Retry-After", "1")], context);
            }
            // A stream that has not begun needs no word for other reasons: its client comes back.
            None if is_overloaded
                && self.is_in_request()
                && self.opening().is_none_or(|opening| !opening.end_stream(true, context)) =>
            {
                refuse_overloaded(Exchange::last(), context);
            }
            None => {}
        }
    }

    fn heap_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| {
            let body = pending.body.as_ref().map_or(0, Body::heap_bytes);
            let call = pending.call.as_ref().map_or(0, ApiCall::heap_bytes);
            let opening = pending.opening.as_ref().map_or(0, Opening::heap_bytes);
            size_of::<Pending>() + pending.remainder.capacity() + body + call + opening
        })
    }

    fn release(&mut self) {
        self.pending = None;
        self.poll = None;
    }
}

impl Pending {
    fn awaits_reply(&self) -> bool {
        self.awaits.is_some() || self.upgrade.is_some() || self.opening.is_some()
    }
}

/// Whether connections beyond the maximum are served this address too. Event streams are refused in their own way:
/// an error would end them for good.
fn is_for_all(path: &str) -> bool {
    matches!(path, "/health/live" | "/health/ready" | "/metrics" | "/events")
}

/// What calls of the server API begin with.
const API_PREFIX: &str = "/api/";

#[cfg(test)]
mod tests;
