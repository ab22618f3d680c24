//! HTTP requests: the routes, and the ways into a WebSocket and an event stream.
//!
//! Requests of one connection are answered in order. While one waits for the hub, what is pipelined behind it waits
//! in the remainder, and the worker receives nothing more. So it does while much of what was answered has not left: a
//! few bytes may ask for a page, and a receive buffer has room for thousands of such requests. A poll that waits is no
//! such request: the connection is still listened to, so that its end is heard.

use super::api_call::ApiCall;
use super::context::{Answer, Context, Output, Question};
use super::handshake_failure::HandshakeFailure;
use super::sse::EventStream;
use super::websocket::WebSocketService;
use crate::message::{CloseReason, Origin, Position, Reply};
use crate::protocol::http1::{
    BodyDecoder, BodyLength, BodyPart, Head, HttpFault, Method, parse_head,
};
use crate::protocol::websocket::handshake;

mod answer;
mod api;
mod body;
mod cors;
mod origin;
mod page;
mod parameters;
mod poll;
mod publish;
mod subscribe;
mod upgrade;

use answer::{Exchange, fail, fail_refused, refuse_beyond_max, refuse_overloaded, write_ok};
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

/// What a conversation wants next.
#[derive(Debug)]
pub enum HttpFlow {
    /// More bytes.
    Receive,
    /// No bytes until a reply came.
    AwaitReply,
    /// No bytes until most of what is queued has left.
    AwaitRoom,
    /// It is over.
    Closed,
    /// It became a WebSocket: its subscriptions are made and the handshake is answered.
    Upgrade {
        /// Of what kind.
        service: WebSocketService,
        /// What came behind the handshake.
        rest: Vec<u8>,
    },
    /// It became an event stream, which has begun.
    Stream(EventStream),
}

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
    awaits_room: bool,
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
    pub fn receive(&mut self, bytes: &[u8], context: &mut Context<'_>) -> HttpFlow {
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
    pub fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> HttpFlow {
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
                self.answer("application/json", body.as_bytes(), context)
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
    pub fn answer(
        &mut self,
        content_type: &str,
        body: &[u8],
        context: &mut Context<'_>,
    ) -> HttpFlow {
        let Some(exchange) = self.take_awaited() else { return HttpFlow::Receive };
        write_ok(exchange, content_type, body, context);
        self.go_on(exchange, context)
    }

    /// Takes the worker's answer to a question.
    pub fn take_answer(&mut self, answer: &Answer<'_>, context: &mut Context<'_>) -> HttpFlow {
        match *answer {
            Answer::Metrics(text) => {
                self.answer("text/plain; version=0.0.4", text.as_bytes(), context)
            }
            Answer::NodeInfo(info) => self.advance_call(|call| call.take_info(info), context),
            Answer::Readiness(true) => {
                self.answer("application/json", b"{\"status\":\"ready\"}\n", context)
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
    pub fn time_out(&mut self, context: &mut Context<'_>) -> HttpFlow {
        if let Some(poll) = self.poll.take() {
            return self.time_out_poll(&poll, context);
        }
        if !self.has_answered {
            context.fail_handshake(HandshakeFailure::Timeout);
        }
        let is_stream = self.opening().is_some_and(|opening| opening.end_stream(true, context));
        if !is_stream && self.is_in_request() && !self.awaits_room() {
            let message = "the request was not completed in time";
            fail(Exchange::last(), 408, "timeout", message, &[], context);
        }
        context.outputs.push(Output::Close(CloseReason::HandshakeTimeout));
        HttpFlow::Closed
    }

    /// Whether a request waits for its reply.
    pub fn awaits_reply(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.awaits_reply())
    }

    /// Whether the next request waits until most of what is queued has left.
    pub fn awaits_room(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.awaits_room)
    }

    /// Most of what was queued has left: goes on with what is pipelined.
    pub fn go_on_with_room(&mut self, context: &mut Context<'_>) -> HttpFlow {
        match self.awaits_room() {
            true if self.opening().is_some() => self.go_on_opening(context),
            true => self.process_remainder(context),
            false => self.wait_on(),
        }
    }

    /// Bytes of heap that it owns: an unfinished request, or what waits for a reply.
    pub fn held_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| {
            let body = pending.body.as_ref().map_or(0, Body::held_bytes);
            let call = pending.call.as_ref().map_or(0, ApiCall::held_bytes);
            let opening = pending.opening.as_ref().map_or(0, Opening::held_bytes);
            size_of::<Pending>() + pending.remainder.capacity() + body + call + opening
        })
    }

    /// Frees it: nothing more is listened to.
    pub fn release(&mut self) {
        self.pending = None;
        self.poll = None;
    }

    /// Says why the server ends it, if it owes an answer.
    pub fn say_goodbye(&mut self, reason: CloseReason, context: &mut Context<'_>) {
        let is_overloaded = reason == CloseReason::Overloaded;
        match self.poll.take() {
            Some(poll) if !is_overloaded => poll.say_goodbye(context),
            Some(_) => refuse_overloaded(Exchange::last(), context),
            // A request of which nothing was done can be made again (RFC 9110 15.6.4).
            None if reason == CloseReason::Shutdown && self.is_unfinished() => {
                let message = "the server is shutting down";
                fail(Exchange::last(), 503, "shutdown", message, &[("Retry-After", "1")], context);
            }
            // A stream that has not begun needs no word at other ends: its client comes back.
            None if is_overloaded
                && self.is_in_request()
                && self.opening().is_none_or(|opening| !opening.end_stream(true, context)) =>
            {
                refuse_overloaded(Exchange::last(), context);
            }
            None => {}
        }
    }

    /// Whether a request has begun to come and is not there yet.
    fn is_unfinished(&self) -> bool {
        self.is_in_request() && !self.awaits_reply() && !self.awaits_room()
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
        pending.awaits_room = false;
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
                return (HttpFlow::AwaitRoom, bytes.len() - rest.len());
            }
            let next = if self.has_body() {
                self.receive_body(&mut rest, context)
            } else {
                self.receive_head(&mut rest, context)
            };
            match next {
                Ok(Next::Request) => {}
                Ok(Next::Flow(HttpFlow::Upgrade { service, .. })) => {
                    return (HttpFlow::Upgrade { service, rest: rest.to_vec() }, bytes.len());
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
        let is_over =
            matches!(flow, HttpFlow::Closed | HttpFlow::Upgrade { .. } | HttpFlow::Stream(_));
        if is_over || !self.is_in_request() {
            self.pending = None;
            return flow;
        }
        let pending = self.pending.get_or_insert_default();
        pending.awaits_room = matches!(flow, HttpFlow::AwaitRoom);
        // It is the peer's silence that counts: it may read for as long as it reads.
        if !pending.awaits_room && !pending.has_deadline {
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

    /// A request for something that only GET and HEAD are for.
    fn get(
        &mut self,
        head: &Head<'_>,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        if !matches!(head.method, Method::Get | Method::Head) {
            let allow = cors::methods_of(head.path).unwrap_or("GET, HEAD");
            return Ok(self.refuse_method(exchange, allow, context));
        }
        // RFC 9110 7.8: an upgrade may be passed over, as one to h2c is, which Java's HttpClient asks for with
        // each request. One to a WebSocket would wait for a stream or a poll that its client cannot read.
        if handshake::wants_upgrade(head) {
            let message = "not a WebSocket endpoint: use /ws or /connection/websocket";
            let code = "not_a_websocket_endpoint";
            return Ok(self.refuse(400, code, message, &[], exchange, context));
        }
        // The answer would come before the end of a body that was not asked for.
        if head.body != BodyLength::None {
            return Ok(self.refuse_body(exchange, context));
        }
        match head.path {
            "/events" => return self.stream_events(head, exchange, context),
            "/poll" => return self.poll(head, exchange, context),
            "/" => {
                if context.settings.serves_page() {
                    return Ok(self.show_page(head, exchange, context));
                }
                write_ok(exchange, "text/plain; charset=utf-8", WELCOME, context);
            }
            "/metrics" => return Ok(self.ask(Question::Metrics, exchange, context)),
            "/health/ready" => return Ok(self.ask(Question::Readiness, exchange, context)),
            _ => write_ok(exchange, "application/json", b"{\"status\":\"live\"}\n", context),
        }
        Ok(self.finish(exchange, context))
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

const WELCOME: &[u8] = b"This is fantail.

GET  /ws?channel=a        a WebSocket: what is published to a channel, each publication one message;
                          what you send is published to the first channel named, or to the lobby
GET  /events?channel=a    the same as an event stream, for EventSource
GET  /poll?channel=a      the same, one answer at a time: as soon as something is published, or after 25 seconds
POST /publish?channel=a   publishes the body; event=NAME is its type of event
POST /api/METHOD          the server API, as Centrifugo has it
GET  /health/live         whether the server runs
GET  /health/ready        whether it accepts connections: 503 when it does not
GET  /metrics             what it counts, as Prometheus text
";

#[cfg(test)]
mod tests;
