//! HTTP: requests and polls, and the ways into a WebSocket and an event stream. How requests are taken apart and routed
//! is in `requests.rs`; what they wait for, and how that ends, is here.
//!
//! Requests of one connection are answered in order. While one waits for the hub, what is pipelined behind it is kept,
//! and the worker receives nothing more. The same holds while much of what was answered has not left: a few bytes may
//! ask for a page, and a receive buffer has room for thousands of such requests. A poll that waits is different: the
//! connection is still read, so that its end is noticed.

use std::time::Duration;

use super::api_call::ApiCall;
use super::context::{Answer, Context, Flow, Output};
use super::contract::{Traits, Transport};
use super::handshake_failure::HandshakeFailure;
use super::prepared::{Batch, Delivered};
use super::settings::TransportSettings;
use super::sse::EventStream;
use crate::config::limits::POLL_PIPELINED_BYTES_MAX;
use crate::message::{
    CloseReason, Disconnect, Origin, Position, Refusal, Reply, Ticket, TransportKind,
};

mod agent;
mod answer;
mod api;
mod body;
mod client;
mod command_stream;
mod cors;
mod credentials;
mod emulation;
mod error;
mod forwarded;
mod guards;
mod login;
mod origin;
mod page;
mod parameters;
mod poll;
mod preflight;
mod publish;
mod requests;
mod routes;
mod state;
mod subscribe;
mod subscription_tokens;
mod upgrade;

pub use requests::{HttpConversation, HttpNext, HttpService};

use answer::{Exchange, write_nothing, write_response};
use cors::Cors;
use error::HttpError;
use requests::HttpFlow;
use state::{AfterLogin, Await, Awaiting, State};
use subscribe::Opened;

impl Transport for HttpConversation {
    type Next = HttpNext;

    fn traits(&self) -> Traits {
        let is_polling = self.state.poll().is_some();
        let kind = match is_polling {
            true => TransportKind::LongPoll,
            false if self.state.begun_stream().is_some() => TransportKind::Sse,
            false => TransportKind::Http,
        };
        Traits {
            is_established: self.has_answered || is_polling,
            collects_answers: true,
            awaits_drain: self.state.awaits_drain(),
            ..Traits::of(kind)
        }
    }

    fn receive(&mut self, bytes: &mut [u8], context: &mut Context<'_>) -> HttpFlow {
        let flow = match &mut self.state {
            State::Idle | State::Body(_) => self.take_new(bytes, context),
            State::Head(_) => {
                let State::Head(mut input) = self.state.take() else { return Flow::Receive };
                input.extend(bytes);
                self.take_kept(Some(input), context)
            }
            State::Awaiting(awaiting) => {
                awaiting.keep(bytes);
                match &awaiting.what {
                    // Little is kept: a poll is read only so that the end of its client is noticed.
                    Await::Poll(_) if awaiting.behind_bytes() > POLL_PIPELINED_BYTES_MAX => {
                        Flow::AwaitReply
                    }
                    Await::Poll(_) => Flow::Receive,
                    Await::Drain => self.resume(context),
                    _ => Flow::AwaitReply,
                }
            }
        };
        self.apply_half_close(flow, context)
    }

    fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> HttpFlow {
        let flow = match origin {
            Origin::Client(ticket) => self.take_reply(ticket, reply, context),
            // What the server API did to this connection does not concern its requests.
            Origin::Server => self.wait_on(),
        };
        self.apply_half_close(flow, context)
    }

    fn answer(&mut self, answer: &Answer<'_>, context: &mut Context<'_>) -> HttpFlow {
        let flow = match *answer {
            Answer::Metrics(text) => {
                self.respond("text/plain; version=0.0.4", text.as_bytes(), context)
            }
            Answer::Readiness(is_ready) if self.state.awaits_agent_check() => {
                return self.answer_agent_check(is_ready, context);
            }
            Answer::Readiness(true) => {
                self.respond("application/json", b"{\"status\":\"ready\"}\n", context)
            }
            Answer::Readiness(false) => {
                let message =
                    "the server is shutting down, or does not accept connections at the moment";
                self.fail_awaited(&HttpError::new(503, "not_ready", message), context)
            }
            Answer::NodeInfo(info) => self.advance_call(|call| call.take_info(info), context),
        };
        self.apply_half_close(flow, context)
    }

    fn deliver(
        &mut self,
        batch: &mut Batch<'_>,
        out: &mut Vec<u8>,
        settings: &TransportSettings,
    ) -> Delivered {
        let State::Awaiting(awaiting) = &mut self.state else { return Delivered::NOTHING };
        match &mut awaiting.what {
            Await::Poll(poll) => poll.deliver(batch, awaiting.exchange, out, settings),
            Await::Subscriptions(opening) => opening.keep(batch),
            _ => Delivered::NOTHING,
        }
    }

    /// Answers a poll, or says that a request was not completed in time, after which the connection ends.
    fn expire(&mut self, silence: Duration, _: bool, context: &mut Context<'_>) -> HttpFlow {
        if let Some((poll, exchange)) = self.state.poll() {
            if context.has_ended && poll.probe_again(silence, context) {
                return Flow::Receive;
            }
            poll.time_out(exchange, context);
            let flow = self.end_poll(context);
            return self.apply_half_close(flow, context);
        }
        if !self.has_answered {
            context.fail_handshake(HandshakeFailure::Timeout);
        }
        let is_answered = match &self.state {
            State::Idle => true,
            State::Head(_) | State::Body(_) => false,
            State::Awaiting(awaiting) => match &awaiting.what {
                Await::Drain => true,
                what => what.opening().is_some_and(|opening| opening.end_stream(true, context)),
            },
        };
        if !is_answered {
            let message = "the request was not completed in time";
            HttpError::new(408, "timeout", message).write_last(Cors::Silent, context);
        }
        context.close(CloseReason::HandshakeTimeout)
    }

    fn drained(&mut self, context: &mut Context<'_>) -> HttpFlow {
        let flow = match &mut self.state {
            State::Awaiting(awaiting) => match &mut awaiting.what {
                Await::Poll(poll) if poll.is_answered() => self.end_poll(context),
                Await::Subscriptions(opening) if opening.awaits_drain() => {
                    opening.resume(context);
                    Flow::AwaitReply
                }
                Await::Drain => self.resume(context),
                _ => self.wait_on(),
            },
            State::Idle | State::Head(_) | State::Body(_) => Flow::Receive,
        };
        self.apply_half_close(flow, context)
    }

    /// What was asked for is still answered: `printf ... | nc -N` is a client.
    fn end(&mut self, context: &mut Context<'_>) -> HttpFlow {
        match &self.state {
            State::Awaiting(awaiting) => {
                if let Await::Poll(poll) = &awaiting.what {
                    poll.probe(context);
                }
                Flow::Receive
            }
            State::Idle | State::Head(_) | State::Body(_) => context.close(CloseReason::HttpDone),
        }
    }

    /// Says why, if an answer is owed. After something was dropped nothing is said: answers come in the order of their
    /// requests (RFC 9112 9.3.2), and what follows a missing one would be taken for it, or for the rest of its body.
    fn disconnect(
        &mut self,
        disconnect: &Disconnect,
        is_incomplete: bool,
        context: &mut Context<'_>,
    ) {
        if is_incomplete {
            return;
        }
        let is_overloaded = disconnect.reason == CloseReason::Overloaded;
        if let Some(framing) = self.state.begun_stream()
            && !disconnect.may_return()
        {
            return EventStream::write_end(framing, disconnect, context.out);
        }
        match &self.state {
            State::Awaiting(awaiting) => match &awaiting.what {
                Await::Poll(poll) if !is_overloaded => {
                    poll.disconnect(awaiting.exchange, context);
                    self.state = State::Idle;
                }
                what if disconnect.reason == CloseReason::UserBlocked
                    && !matches!(what, Await::Drain) =>
                {
                    let exchange = Exchange { keep_alive: false, ..awaiting.exchange };
                    HttpError::refused(Refusal::UserBlocked).write(exchange, context);
                }
                // The backend was asked about this request.
                what if disconnect.reason == CloseReason::Backend
                    && !what.opening().is_some_and(|opening| opening.is_cut_by(disconnect)) =>
                {
                    let exchange = Exchange { keep_alive: false, ..awaiting.exchange };
                    HttpError::disconnected(disconnect).write(exchange, context);
                }
                // A stream that has not begun needs no word for other reasons: its client comes back.
                what if what
                    .opening()
                    .is_some_and(|opening| !is_overloaded || opening.end_stream(true, context)) => {
                }
                _ if is_overloaded => {
                    HttpError::overloaded().write_last(Cors::Silent, context);
                }
                _ => {}
            },
            State::Head(_) | State::Body(_) if is_overloaded => {
                HttpError::overloaded().write_last(Cors::Silent, context);
            }
            // A request of which nothing was done can be made again (RFC 9110 15.6.4).
            State::Head(_) | State::Body(_) if disconnect.reason == CloseReason::Shutdown => {
                let error = HttpError::new(503, "shutdown", "the server is shutting down");
                error.write_last(Cors::Silent, context);
            }
            State::Idle | State::Head(_) | State::Body(_) => {}
        }
    }

    fn heap_bytes(&self) -> usize {
        self.state.heap_bytes()
    }

    fn release(&mut self) {
        self.state = State::Idle;
    }
}

impl HttpConversation {
    fn take_reply(&mut self, to: Ticket, reply: &Reply, context: &mut Context<'_>) -> HttpFlow {
        let State::Awaiting(awaiting) = &mut self.state else { return Flow::Receive };
        match &mut awaiting.what {
            Await::Publish => match reply {
                Reply::Published { position: Position { epoch, offset } } => {
                    let body = format!("{{\"epoch\":\"{epoch}\",\"offset\":{offset}}}\n");
                    self.respond("application/json", body.as_bytes(), context)
                }
                Reply::Refused(refusal) => {
                    self.fail_awaited(&HttpError::refused(*refusal), context)
                }
                Reply::Rejected(error) => self.fail_awaited(&HttpError::rejected(error), context),
                _ => Flow::AwaitReply,
            },
            Await::Relay => match reply {
                Reply::Done => self.respond_with_nothing(context),
                Reply::Refused(_) => self.fail_awaited(&HttpError::relays_exhausted(), context),
                _ => Flow::AwaitReply,
            },
            Await::Call(_) => self.advance_call(|call| call.take_reply(to, reply), context),
            Await::Login(_) => self.take_login(reply, context),
            Await::Upgrade(upgrading) => match upgrading.take(reply, context) {
                Ok(None) => Flow::AwaitReply,
                Ok(Some(websocket)) => {
                    let behind = self.state.take_behind();
                    let rest = behind.map_or_else(Vec::new, |input| input.into_rest());
                    Flow::Become { next: HttpNext::WebSocket(websocket), rest }
                }
                Err(error) => {
                    self.state = State::Idle;
                    error.write_last(Cors::Silent, context);
                    context.close(CloseReason::HttpDone)
                }
            },
            Await::Subscriptions(opening) => {
                let opened = opening.take(to, reply, context);
                self.follow_opening(opened, context)
            }
            Await::Question | Await::AgentCheck | Await::Poll(_) | Await::Drain => self.wait_on(),
        }
    }

    /// Takes the answer to who the client is: then its request is made.
    fn take_login(&mut self, reply: &Reply, context: &mut Context<'_>) -> HttpFlow {
        let State::Awaiting(awaiting) = &mut self.state else { return Flow::Receive };
        let error = match reply {
            Reply::Refused(refusal) => HttpError::refused(*refusal),
            Reply::Rejected(error) => HttpError::rejected(error),
            _ => {
                let what = std::mem::replace(&mut awaiting.what, Await::Drain);
                let Await::Login(next) = what else { return self.wait_on() };
                self.has_identity = true;
                return match login::ask(*next, context) {
                    Ok(what) => {
                        awaiting.what = what;
                        Flow::AwaitReply
                    }
                    Err(error) => self.fail_awaited(&error, context),
                };
            }
        };
        let Await::Login(next) = &awaiting.what else { return self.wait_on() };
        match &**next {
            AfterLogin::Upgrade(_) => {
                context.fail_handshake(HandshakeFailure::TokenRefused);
                self.state = State::Idle;
                let error = HttpError { is_handshake: true, ..error };
                error.write_last(Cors::Silent, context);
                context.close(CloseReason::HttpDone)
            }
            AfterLogin::Subscriptions(opening)
                if opening.end_stream(error.status == 503, context) =>
            {
                self.state = State::Idle;
                context.close(CloseReason::HttpDone)
            }
            AfterLogin::Subscriptions(_) | AfterLogin::Publish(..) => {
                self.fail_awaited(&error, context)
            }
        }
    }

    fn follow_opening(&mut self, opened: Opened, context: &mut Context<'_>) -> HttpFlow {
        match opened {
            Opened::Wait => Flow::AwaitReply,
            Opened::Part => {
                self.has_answered = true;
                Flow::AwaitDrain
            }
            Opened::Answered => self.end_poll(context),
            Opened::Closed => {
                self.state = State::Idle;
                context.close(CloseReason::HttpDone)
            }
            Opened::Poll(poll) => {
                if let State::Awaiting(awaiting) = &mut self.state {
                    awaiting.what = Await::Poll(poll);
                }
                Flow::Receive
            }
            Opened::Stream(stream) => {
                self.state = State::Idle;
                Flow::Become { next: HttpNext::EventStream(stream), rest: Vec::new() }
            }
        }
    }

    /// A part of the answer to a call came: answers it after the last one.
    fn advance_call(
        &mut self,
        step: impl FnOnce(&mut ApiCall),
        context: &mut Context<'_>,
    ) -> HttpFlow {
        let State::Awaiting(awaiting) = &mut self.state else { return Flow::Receive };
        let Await::Call(call) = &mut awaiting.what else { return self.wait_on() };
        step(call);
        if !call.is_answered() {
            return Flow::AwaitReply;
        }
        let (status, body) = call.answer();
        self.respond_with(status, "application/json", &body, context)
    }

    /// Answers the request that waits, with status 200, and goes on with what is pipelined behind it.
    fn respond(&mut self, content_type: &str, body: &[u8], context: &mut Context<'_>) -> HttpFlow {
        self.respond_with(200, content_type, body, context)
    }

    fn respond_with(
        &mut self,
        status: u16,
        content_type: &str,
        body: &[u8],
        context: &mut Context<'_>,
    ) -> HttpFlow {
        let Some(Awaiting { exchange, behind, .. }) = self.state.take_awaiting() else {
            return Flow::Receive;
        };
        write_response(exchange, status, &[], content_type, body, context);
        self.go_on(exchange, behind, context)
    }

    /// The same with status 204.
    fn respond_with_nothing(&mut self, context: &mut Context<'_>) -> HttpFlow {
        let Some(Awaiting { exchange, behind, .. }) = self.state.take_awaiting() else {
            return Flow::Receive;
        };
        write_nothing(exchange, context);
        self.go_on(exchange, behind, context)
    }

    fn fail_awaited(&mut self, error: &HttpError, context: &mut Context<'_>) -> HttpFlow {
        let Some(Awaiting { exchange, behind, .. }) = self.state.take_awaiting() else {
            return Flow::Receive;
        };
        let exchange = error.exchange(exchange);
        error.write(exchange, context);
        self.go_on(exchange, behind, context)
    }

    /// A poll is answered: its session ends.
    fn end_poll(&mut self, context: &mut Context<'_>) -> HttpFlow {
        context.outputs.push(Output::Leave);
        let Some(Awaiting { exchange, behind, .. }) = self.state.take_awaiting() else {
            return Flow::Receive;
        };
        self.go_on(exchange, behind, context)
    }

    /// What is wanted next where nothing has changed.
    fn wait_on(&self) -> HttpFlow {
        match &self.state {
            State::Awaiting(awaiting) if awaiting.awaits_reply() => Flow::AwaitReply,
            _ => Flow::Receive,
        }
    }

    /// The outcome of a step for a client that may have closed its sending side: it can send no further request then,
    /// so that only a poll continues.
    fn apply_half_close(&self, flow: HttpFlow, context: &mut Context<'_>) -> HttpFlow {
        match flow {
            Flow::Receive if context.has_ended => match self.state.poll() {
                Some((poll, _)) => {
                    poll.probe(context);
                    Flow::Receive
                }
                None => context.close(CloseReason::HttpDone),
            },
            Flow::Become {
                next: HttpNext::EventStream(_) | HttpNext::CommandStream(_), ..
            } if context.has_ended => context.close(CloseReason::ClientGone),
            flow => flow,
        }
    }
}

#[cfg(test)]
mod tests;
