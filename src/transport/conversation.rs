//! The one list of transports, and how a connection changes from one to another.

use std::convert::Infallible;
use std::time::Duration;

use super::command_stream::CommandStream;
use super::commands_tcp::CommandConversation;
use super::context::{Answer, Context, Flow};
use super::contract::{Traits, Transport, receive_unpaused};
use super::echo::Echo;
use super::http_api::{HttpConversation, HttpNext, HttpService};
use super::prepared::{Batch, Delivered};
use super::settings::TransportSettings;
use super::sse::EventStream;
use super::websocket::WebSocketConversation;
use crate::config::Framing;
use crate::message::{Disconnect, Origin, Reply};

macro_rules! conversations {
    ($($(#[$doc:meta])* $name:ident($conversation:ty);)*) => {
        /// The conversation of a connection. Each verb of [`Transport`] goes to the transport that is spoken, and a
        /// change of transport is made here.
        #[derive(Debug)]
        pub enum Conversation { $($(#[$doc])* $name($conversation),)* }

        impl Conversation {
            /// What the worker has to know of it.
            pub fn traits(&self) -> Traits {
                match self { $(Self::$name(it) => it.traits(),)* }
            }

            /// Passes [`Transport::receive`] on to the transport that is spoken.
            pub fn receive(&mut self, bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
                let flow = match self {
                    $(Self::$name(it) => it.receive(bytes, context).map_next(Self::from),)*
                };
                self.follow(flow, context)
            }

            /// Passes [`Transport::relay`] on to the transport that is spoken.
            pub fn relay(&mut self, commands: &[u8], context: &mut Context<'_>) -> Flow {
                let flow = match self {
                    $(Self::$name(it) => it.relay(commands, context).map_next(Self::from),)*
                };
                self.follow(flow, context)
            }

            /// Passes [`Transport::reply`] on to the transport that is spoken.
            pub fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> Flow {
                let flow = match self {
                    $(Self::$name(it) => it.reply(origin, reply, context).map_next(Self::from),)*
                };
                self.follow(flow, context)
            }

            /// Passes [`Transport::answer`] on to the transport that is spoken.
            pub fn answer(&mut self, answer: &Answer<'_>, context: &mut Context<'_>) -> Flow {
                let flow = match self {
                    $(Self::$name(it) => it.answer(answer, context).map_next(Self::from),)*
                };
                self.follow(flow, context)
            }

            /// Passes [`Transport::deliver`] on to the transport that is spoken.
            pub fn deliver(
                &mut self,
                batch: &mut Batch<'_>,
                out: &mut Vec<u8>,
                settings: &TransportSettings,
            ) -> Delivered {
                match self { $(Self::$name(it) => it.deliver(batch, out, settings),)* }
            }

            /// Passes [`Transport::expire`] on to the transport that is spoken.
            pub fn expire(
                &mut self,
                silence: Duration,
                is_busy: bool,
                context: &mut Context<'_>,
            ) -> Flow {
                let flow = match self {
                    $(Self::$name(it) => it.expire(silence, is_busy, context).map_next(Self::from),)*
                };
                self.follow(flow, context)
            }

            /// Passes [`Transport::drained`] on to the transport that is spoken.
            pub fn drained(&mut self, context: &mut Context<'_>) -> Flow {
                let flow = match self {
                    $(Self::$name(it) => it.drained(context).map_next(Self::from),)*
                };
                self.follow(flow, context)
            }

            /// Passes [`Transport::end`] on to the transport that is spoken.
            pub fn end(&mut self, context: &mut Context<'_>) -> Flow {
                let flow = match self {
                    $(Self::$name(it) => it.end(context).map_next(Self::from),)*
                };
                self.follow(flow, context)
            }

            /// Passes [`Transport::disconnect`] on to the transport that is spoken.
            pub fn disconnect(
                &mut self,
                disconnect: &Disconnect,
                is_incomplete: bool,
                context: &mut Context<'_>,
            ) {
                match self {
                    $(Self::$name(it) => it.disconnect(disconnect, is_incomplete, context),)*
                }
            }

            /// Passes [`Transport::heap_bytes`] on to the transport that is spoken.
            pub fn heap_bytes(&self) -> usize {
                match self { $(Self::$name(it) => it.heap_bytes(),)* }
            }

            /// Passes [`Transport::release`] on to the transport that is spoken.
            pub fn release(&mut self) {
                match self { $(Self::$name(it) => it.release(),)* }
            }
        }
    };
}

conversations! {
    /// HTTP requests, and polls.
    Http(HttpConversation);
    /// A WebSocket: plain messages, commands, or an echo.
    WebSocket(WebSocketConversation);
    /// An event stream.
    EventStream(EventStream);
    /// The command protocol as an HTTP answer.
    CommandStream(CommandStream);
    /// The command protocol over raw TCP.
    Commands(CommandConversation);
    /// Bytes that come back, over raw TCP.
    Echo(Echo);
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// HTTP, WebSocket, event streams and polls, with all that is for administration.
    Edge,
    /// The same without what is for administration, which has addresses of its own.
    Public,
    /// Everything that `Edge` serves, at the addresses for administration.
    Admin,
    /// The command protocol over raw TCP.
    Commands(Framing),
    /// An echo over WebSockets.
    EchoWebSocket,
    /// An echo over raw TCP.
    EchoTcp,
}

impl Conversation {
    /// The conversation that a new connection of a listener begins with.
    pub fn new(service: Service) -> Self {
        match service {
            Service::Edge => Self::Http(HttpConversation::new(HttpService::Edge)),
            Service::Public => Self::Http(HttpConversation::new(HttpService::Public)),
            Service::Admin => Self::Http(HttpConversation::new(HttpService::Admin)),
            Service::EchoWebSocket => Self::Http(HttpConversation::new(HttpService::Echo)),
            Service::Commands(framing) => Self::Commands(CommandConversation::new(framing)),
            Service::EchoTcp => Self::Echo(Echo),
        }
    }

    /// Changes to another transport if the step before wants it, which takes the bytes that came for it already.
    fn follow(&mut self, flow: Flow<Self>, context: &mut Context<'_>) -> Flow {
        let (next, mut rest) = match flow {
            Flow::Receive => return Flow::Receive,
            Flow::AwaitReply => return Flow::AwaitReply,
            Flow::AwaitDrain => return Flow::AwaitDrain,
            Flow::Closed => return Flow::Closed,
            Flow::Hold(count) => return Flow::Hold(count),
            Flow::Become { next, rest } => (next, rest),
        };
        // What the handshake left unfinished is over.
        context.messages.any_ended = true;
        *self = next;
        receive_unpaused(&mut rest, |left| self.receive(left, context))
    }
}

impl From<Infallible> for Conversation {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl From<HttpNext> for Conversation {
    fn from(next: HttpNext) -> Self {
        match next {
            HttpNext::WebSocket(websocket) => Self::WebSocket(websocket),
            HttpNext::EventStream(stream) => Self::EventStream(stream),
            HttpNext::CommandStream(stream) => Self::CommandStream(stream),
        }
    }
}
