//! The requests of one connection: taken apart, routed, and answered as far as nothing has to be waited for.

use std::borrow::Cow;

use super::answer::{Exchange, write_json, write_nothing, write_ok};
use super::api::ApiHead;
use super::body::{Body, Target};
use super::command_stream::{Sends, StreamRequest};
use super::cors::Cors;
use super::credentials::token_of;
use super::error::{Early, HttpError};
use super::forwarded::note_headers;
use super::page::write_page;
use super::preflight::write_preflight;
use super::publish::PublishTo;
use super::routes::{Action, Route};
use super::state::{AfterLogin, Await, Input, State};
use super::subscribe::Opening;
use super::upgrade::{Upgrading, encoding_of, upgrade_at_once};
use super::{client, command_stream, emulation, guards, login, routes};
use crate::message::{Actor, CloseReason};
use crate::protocol::http1::{
    BodyDecoder, BodyLength, BodyPart, Head, HttpFault, Method, parse_head, write_continue,
};
use crate::protocol::websocket::handshake;
use crate::transport::command_form::CommandEncoding;
use crate::transport::command_stream::CommandStream;
use crate::transport::context::{Context, Flow, Output, Question};
use crate::transport::handshake_failure::HandshakeFailure;
use crate::transport::settings::TransportSettings;
use crate::transport::sse::EventStream;
use crate::transport::stream_form::StreamKind;
use crate::transport::websocket::{WebSocketConversation, WebSocketService};

/// The requests of one connection.
#[derive(Debug)]
pub struct HttpConversation {
    pub(super) service: HttpService,
    /// Whether a request has been answered.
    pub(super) has_answered: bool,
    /// Whether the deadline of the request that began has been set.
    has_deadline: bool,
    /// Whether it is known who the client of the request that is answered next is.
    pub(super) has_identity: bool,
    pub(super) state: State,
}

/// What is behind the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpService {
    /// All routes of the edge.
    Edge,
    /// The routes that are not for administration.
    Public,
    /// All routes, on an address for administration.
    Admin,
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
    /// The replies and pushes of the command protocol.
    CommandStream(CommandStream),
}

/// What a step of HTTP wants next.
pub(super) type HttpFlow = Flow<HttpNext>;

/// What follows a request, or a part of one.
enum Next {
    /// The next request.
    Request,
    Flow(HttpFlow),
}

impl Next {
    /// The stream that an answer is from here on; `None` if the answer is over.
    fn stream(stream: Option<CommandStream>) -> Self {
        Self::Flow(match stream {
            Some(stream) => {
                Flow::Become { next: HttpNext::CommandStream(stream), rest: Vec::new() }
            }
            None => Flow::Closed,
        })
    }
}

impl HttpConversation {
    /// A conversation that has not begun.
    pub fn new(service: HttpService) -> Self {
        Self {
            service,
            has_answered: false,
            has_deadline: false,
            has_identity: false,
            state: State::Idle,
        }
    }

    /// Goes on behind an answer that had to be waited for.
    pub(super) fn go_on(
        &mut self,
        exchange: Exchange,
        behind: Option<Box<Input>>,
        context: &mut Context<'_>,
    ) -> HttpFlow {
        match self.finish(exchange, context) {
            Next::Flow(flow) => flow,
            Next::Request => self.take_kept(behind, context),
        }
    }

    /// Takes the requests that waited until most of what was queued had left.
    pub(super) fn resume(&mut self, context: &mut Context<'_>) -> HttpFlow {
        let behind = self.state.take_behind();
        self.take_kept(behind, context)
    }

    /// Takes bytes as they were received.
    pub(super) fn take_new(&mut self, bytes: &[u8], context: &mut Context<'_>) -> HttpFlow {
        let (flow, used) = self.process(bytes, context);
        let behind = (used < bytes.len()).then(|| Box::new(Input::new(&bytes[used..])));
        self.rest(flow, behind, context)
    }

    /// Takes bytes that were kept.
    pub(super) fn take_kept(
        &mut self,
        input: Option<Box<Input>>,
        context: &mut Context<'_>,
    ) -> HttpFlow {
        let Some(mut input) = input else { return self.take_new(&[], context) };
        let (flow, used) = self.process(input.rest(), context);
        let behind = input.use_up(used).then_some(input);
        self.rest(flow, behind, context)
    }

    /// Takes requests until there is a reason to stop; returns how many bytes were used.
    fn process(&mut self, bytes: &[u8], context: &mut Context<'_>) -> (HttpFlow, usize) {
        if self.take_agent_check(bytes, context) {
            return (Flow::AwaitReply, bytes.len());
        }
        let mut rest = bytes;
        loop {
            let is_in_body = matches!(self.state, State::Body(_));
            if !rest.is_empty() && !is_in_body && context.out.len() > context.out_bytes_high {
                return (Flow::AwaitDrain, bytes.len() - rest.len());
            }
            let next = match is_in_body {
                true => self.receive_body(&mut rest, context),
                false => self.receive_head(&mut rest, context),
            };
            match next {
                Ok(Next::Request) => {}
                Ok(Next::Flow(Flow::Become { next, .. })) => {
                    return (Flow::Become { next, rest: rest.to_vec() }, bytes.len());
                }
                Ok(Next::Flow(flow)) => return (flow, bytes.len() - rest.len()),
                Err(fault) => return (self.refuse_fault(fault, rest, context), bytes.len()),
            }
        }
    }

    /// Comes to rest: keeps what was not used, and sets the deadline of a request that began.
    fn rest(
        &mut self,
        flow: HttpFlow,
        behind: Option<Box<Input>>,
        context: &mut Context<'_>,
    ) -> HttpFlow {
        match (&flow, &mut self.state) {
            (Flow::Closed | Flow::Become { .. }, _) => self.state = State::Idle,
            (Flow::AwaitDrain, _) => {
                self.state = State::awaiting(Exchange::last(), Await::Drain, behind);
                // It is the peer's silence that counts: it may read for as long as it reads.
                return flow;
            }
            (_, State::Awaiting(awaiting)) => awaiting.behind = behind,
            (_, State::Idle | State::Head(_)) => {
                self.state = behind.map_or(State::Idle, State::Head);
            }
            (_, State::Body(_)) => {}
        }
        if matches!(self.state, State::Idle) {
            self.has_deadline = false;
        } else if !self.has_deadline {
            self.has_deadline = true;
            // The first request's deadline is that of the connection's handshake, which runs already.
            if self.has_answered {
                context.outputs.push(Output::Deadline(context.settings.handshake_timeout));
            }
        }
        flow
    }

    fn receive_body(
        &mut self,
        rest: &mut &[u8],
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        let State::Body(body) = &mut self.state else { return Ok(Next::Request) };
        if !body.receive(rest)? {
            return Ok(Next::Flow(Flow::Receive));
        }
        let State::Body(body) = self.state.take() else { return Ok(Next::Request) };
        let (target, bytes, exchange) = body.into_parts();
        Ok(self.take_body(target, Cow::Owned(bytes), exchange, context))
    }

    /// Takes a body that is complete.
    fn take_body(
        &mut self,
        target: Target,
        bytes: Cow<'_, [u8]>,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Next {
        let asked = match target {
            Target::Publish(mut to) if to.by == Actor::Client => {
                let token = to.token.take();
                to.check_rate(context).and_then(|()| {
                    login::begin(AfterLogin::Publish(to, bytes.into_owned()), token, context)
                })
            }
            Target::Publish(to) => to.publish(bytes, context).map(|()| Await::Publish),
            Target::Api(head) => match head.begin(&bytes, context) {
                Ok(call) if call.is_answered() => {
                    let (status, body) = call.answer();
                    write_json(exchange, status, &body, context);
                    return self.finish(exchange, context);
                }
                call => call.map(|call| Await::Call(Box::new(call))),
            },
            Target::Stream(request) => match request.check(&bytes) {
                Ok(()) => return Next::stream(request.open(&bytes, exchange, context)),
                Err(error) => Err(error),
            },
            Target::Emulation(is_protobuf) => {
                match emulation::relay(&bytes, is_protobuf, context) {
                    Ok(true) => Ok(Await::Relay),
                    Ok(false) => {
                        write_nothing(exchange, context);
                        return self.finish(exchange, context);
                    }
                    Err(error) => Err(error),
                }
            }
            Target::Refused(answer) => {
                context.out.extend_from_slice(&answer);
                return self.finish(exchange, context);
            }
        };
        match asked {
            Ok(what) => self.await_answer(exchange, what),
            // What follows is understood: the body was received to its end.
            Err(error) => {
                error.write(exchange, context);
                self.finish(exchange, context)
            }
        }
    }

    fn receive_head(
        &mut self,
        rest: &mut &[u8],
        context: &mut Context<'_>,
    ) -> Result<Next, HttpFault> {
        let Some(mut head) = parse_head(rest, &context.settings.head)? else {
            return Ok(Next::Flow(Flow::Receive));
        };
        let mut behind = &rest[head.head_bytes..];
        if head.body == BodyLength::Chunked {
            // RFC 9112 7.1: a last chunk alone is a body of no bytes, which is the same as none. Where a body is not
            // asked for, the head waits for enough of it to tell.
            let mut body = behind;
            match BodyDecoder::new(head.body, 0)?.next(&mut body) {
                Ok(BodyPart::End) => (head.body, behind) = (BodyLength::None, body),
                Ok(_) if head.method != Method::Post && !head.expect_continue => {
                    return Ok(Next::Flow(Flow::Receive));
                }
                Ok(_) | Err(_) => {}
            }
        }
        *rest = behind;
        context.messages.received += 1;
        let body = *rest;
        // Before the exchange: which origins are allowed depends on it.
        if head.is_forwarded && self.service != HttpService::Echo {
            context.note_proxy();
        }
        let mut exchange = Exchange::of(&head, rest.len(), context.settings);
        exchange.keep_alive &= !context.is_spare;
        let next = match self.route(&head, rest, exchange, context) {
            Ok(next) => next,
            Err(Early::Fault(fault)) => return Err(fault),
            Err(Early::Error(error)) => self.refuse(&error, &head, body, exchange, context),
            Err(Early::Answered) => self.finish(exchange, context),
            Err(Early::Closed) => Next::Flow(context.close(CloseReason::HttpDone)),
        };
        // RFC 9112 9.3: a request that was refused without a look at its body, all of which has come, leaves the
        // connection usable. The body is skipped: what is behind it is the next request.
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
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, Early> {
        let route = routes::find(head.path).filter(|route| self.serves(route, head));
        let methods = route.and_then(|route| route.methods);
        if head.method == Method::Options
            && let Some(methods) = methods
        {
            guards::check_no_body(head)?;
            write_preflight(methods, exchange, context);
            return Err(Early::Answered);
        }
        if context.is_spare && !route.is_some_and(|route| route.is_for_all) {
            return Err(HttpError::beyond_max().into());
        }
        if self.service != HttpService::Admin && !client::admit(head, context) {
            return Err(client::refuse(route, head, exchange, context));
        }
        if self.service == HttpService::Echo {
            return self.upgrade(WebSocketService::Echo, head, context);
        }
        let Some(route) = route else {
            return Err(HttpError::new(404, "not_found", "no such endpoint").into());
        };
        let methods = methods.unwrap_or("GET");
        match route.action {
            Action::Home if handshake::wants_upgrade(head) => {
                self.upgrade(WebSocketService::Publish, head, context)
            }
            Action::PlainWebSocket => self.upgrade(WebSocketService::Publish, head, context),
            Action::CommandWebSocket => {
                let service = WebSocketService::Commands(encoding_of(head));
                self.upgrade(service, head, context)
            }
            Action::Publish => {
                guards::check_write(head, methods, context)?;
                let to = PublishTo::allowed(head, context)?;
                self.begin_body(head, rest, Target::Publish(to), exchange, context)
            }
            Action::Api => {
                guards::check_write(head, methods, context)?;
                let call = ApiHead::of(head, routes::name_behind(route, head), context)?;
                self.begin_body(head, rest, Target::Api(call), exchange, context)
            }
            Action::UniWebSocket => self.upgrade(UNI_WEB_SOCKET, head, context),
            Action::CommandStream(kind, sends) => {
                self.begin_stream((kind, sends), (head, methods), rest, exchange, context)
            }
            Action::Emulation => {
                guards::check_write(head, methods, context)?;
                guards::check_encoding(head)?;
                let target = Target::Emulation(command_stream::is_protobuf(head));
                self.begin_body(head, rest, target, exchange, context)
            }
            action => {
                guards::check_read(head, methods)?;
                self.read(action, head, exchange, context)
            }
        }
    }

    /// Whether a route is served on this listener. Where there are addresses for administration, the root of the others
    /// is a WebSocket only.
    fn serves(&self, route: &Route, head: &Head<'_>) -> bool {
        match self.service {
            HttpService::Edge | HttpService::Admin => true,
            HttpService::Public if route.action == Action::Home => handshake::wants_upgrade(head),
            HttpService::Public => !route.is_for_admin,
            HttpService::Echo => false,
        }
    }

    /// Whether the page is at `/`. A proxy in front of other listeners does not make an address for administration
    /// public; one in front of this listener adds its headers to each request.
    fn serves_page(&self, head: &Head<'_>, settings: &TransportSettings) -> bool {
        match self.service {
            HttpService::Admin => settings.serves_page_to_admin(head.is_forwarded),
            _ => settings.serves_page(),
        }
    }

    fn read(
        &mut self,
        action: Action,
        head: &Head<'_>,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, Early> {
        let question = match action {
            Action::Events | Action::Poll => {
                note_headers(head, context);
                let token = token_of(head, context.settings)?;
                let opening = match action {
                    Action::Events => Opening::stream(head, token.as_ref(), exchange, context)?,
                    _ => Opening::poll(head, token.as_ref(), exchange, context)?,
                };
                let what = login::begin(AfterLogin::Subscriptions(opening), token, context)?;
                return Ok(self.await_answer(exchange, what));
            }
            Action::Metrics => Question::Metrics,
            Action::Ready => Question::Readiness,
            Action::Live => {
                write_ok(exchange, "application/json", b"{\"status\":\"live\"}\n", context);
                return Err(Early::Answered);
            }
            _ if self.serves_page(head, context.settings) => {
                write_page(head, exchange, context);
                return Err(Early::Answered);
            }
            _ => {
                let welcome = routes::welcome();
                write_ok(exchange, "text/plain; charset=utf-8", welcome.as_bytes(), context);
                return Err(Early::Answered);
            }
        };
        context.outputs.push(Output::Ask(question));
        Ok(self.await_answer(exchange, Await::Question))
    }

    fn upgrade(
        &mut self,
        service: WebSocketService,
        head: &Head<'_>,
        context: &mut Context<'_>,
    ) -> Result<Next, Early> {
        let token = match service {
            WebSocketService::Publish | WebSocketService::Commands(_) => {
                note_headers(head, context);
                token_of(head, context.settings)?
            }
            WebSocketService::Echo => None,
        };
        if service == WebSocketService::Publish {
            let upgrading = Upgrading::begin(head, token.as_ref(), context)?;
            let what = login::begin(AfterLogin::Upgrade(upgrading), token, context)?;
            return Ok(self.await_answer(Exchange::last(), what));
        }
        let websocket = upgrade_at_once(service, head, token, context)?;
        let next = HttpNext::WebSocket(websocket);
        Ok(Next::Flow(Flow::Become { next, rest: Vec::new() }))
    }

    /// Begins an answer of replies and pushes. Its first commands are in the body, or in the address of an event
    /// stream.
    fn begin_stream(
        &mut self,
        (kind, sends): (StreamKind, Sends),
        (head, methods): (&Head<'_>, &'static str),
        rest: &mut &[u8],
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, Early> {
        if head.method == Method::Post {
            let request = StreamRequest::of((kind, sends), head, context)?;
            return self.begin_body(head, rest, Target::Stream(request), exchange, context);
        }
        if kind != StreamKind::Events {
            return Err(HttpError::method(methods).into());
        }
        let commands = command_stream::commands_in_query(head, sends)?;
        let request = StreamRequest::of((kind, sends), head, context)?;
        request.check(&commands)?;
        Ok(Next::stream(request.open(&commands, exchange, context)))
    }

    /// Takes the body of a request whose head was understood.
    fn begin_body(
        &mut self,
        head: &Head<'_>,
        rest: &mut &[u8],
        target: Target,
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Result<Next, Early> {
        // RFC 9112 6.3: a request without a length has a body of no bytes.
        let length = match head.body {
            BodyLength::None => Some(0),
            BodyLength::Length(length) => Some(length),
            BodyLength::Chunked => None,
        };
        let body = Body::new(head.body, context.settings.body_bytes_max, target, exchange)?;
        // As a rule all of it is here already.
        if let Some(length) = length.filter(|length| *length <= rest.len() as u64) {
            let (bytes, behind) = rest.split_at(length as usize);
            *rest = behind;
            let (target, ..) = body.into_parts();
            return Ok(self.take_body(target, Cow::Borrowed(bytes), exchange, context));
        }
        if expects_continue(head, rest) {
            write_continue(context.out);
        }
        self.state = State::Body(Box::new(body));
        Ok(Next::Request)
    }

    fn await_answer(&mut self, exchange: Exchange, what: Await) -> Next {
        self.state = State::awaiting(exchange, what, None);
        Next::Flow(Flow::AwaitReply)
    }

    /// Answers with an error. A request that has come whole leaves the connection as it is; else it closes, because
    /// what follows would have to be received to be skipped.
    fn refuse(
        &mut self,
        error: &HttpError,
        head: &Head<'_>,
        behind: &[u8],
        exchange: Exchange,
        context: &mut Context<'_>,
    ) -> Next {
        let exchange = error.exchange(exchange);
        if expects_continue(head, behind)
            && BodyDecoder::new(head.body, context.settings.body_bytes_max).is_ok()
        {
            // Java's HttpClient and Jetty's show no other answer than 100 to a request that expects it: the body is
            // asked for and skipped.
            write_continue(context.out);
            let start = context.out.len();
            error.write(exchange, context);
            let target = Target::Refused(context.out.split_off(start));
            let bytes_max = context.settings.body_bytes_max;
            if let Ok(body) = Body::new(head.body, bytes_max, target, exchange) {
                self.state = State::Body(Box::new(body));
                return Next::Request;
            }
        }
        let keep_alive = exchange.keep_alive && exchange.is_whole;
        let exchange = Exchange { keep_alive, ..exchange };
        error.write(exchange, context);
        self.finish(exchange, context)
    }

    /// Answers a request that breaks the protocol, whether or not its head was understood; the connection ends.
    fn refuse_fault(
        &mut self,
        fault: HttpFault,
        received: &[u8],
        context: &mut Context<'_>,
    ) -> HttpFlow {
        if !self.has_answered {
            context.fail_handshake(HandshakeFailure::BadRequest);
        }
        let cors = match &self.state {
            State::Body(body) => body.exchange.cors,
            _ => Cors::of_unparsed(received, context.settings),
        };
        if fault == HttpFault::ProxyProtocol {
            context.outputs.push(Output::ProxyFault(fault.reason()));
        }
        HttpError::of_fault(fault, context).write_last(cors, context);
        context.close(CloseReason::HttpDone)
    }

    /// After an answer: the next request, or the end.
    fn finish(&mut self, exchange: Exchange, context: &mut Context<'_>) -> Next {
        self.has_answered = true;
        self.has_deadline = false;
        // The next request may be another client's: proxies share their connections among clients.
        if let Some(gate) = &mut context.gate {
            gate.leave();
        }
        if std::mem::take(&mut self.has_identity) {
            context.outputs.push(Output::Leave);
        }
        if !exchange.keeps_alive(context.settings) {
            return Next::Flow(context.close(CloseReason::HttpDone));
        }
        context.outputs.push(Output::Deadline(context.settings.http_idle_timeout));
        Next::Request
    }
}

/// A WebSocket of pushes.
const UNI_WEB_SOCKET: WebSocketService = WebSocketService::Commands(CommandEncoding::JsonPushes);

/// Whether the client holds the body back until it is asked for it (RFC 9110 10.1.1).
fn expects_continue(head: &Head<'_>, behind: &[u8]) -> bool {
    head.expect_continue && head.body != BodyLength::None && behind.is_empty()
}
