//! One client's socket: its conversation, its send queue, where it is in its life.
//!
//! **What it is.** [`Connection`], a table entry of at most one cache line: Open → Closing → Dead. Which conversation
//! it begins with follows from its listener ([`Service`]); an HTTP conversation may turn into a WebSocket or an event
//! stream.
//!
//! **In and out.** In: bytes, replies, deadlines, the end of the peer's bytes. Out: what its conversation says and
//! asks, through the [`Context`].
//!
//! **Always true.** Idle, it owns nothing outside its entry. Closing, it says nothing new and hears nothing.
//!
//! **Must not know.** The kernel, the hub, the clock, other connections.

use std::time::Duration;

use crate::buffer::SendQueue;
use crate::config::Framing;
use crate::config::limits::{CONNECTION_BYTES_MAX, HALF_CLOSED_LINGER};
use crate::message::{
    ChannelName, ClientId, CloseReason, Farewell, Item, Origin, Reply, TransportKind,
};
use crate::transport::{
    Answer, Batch, CommandConversation, Context, Delivered, EventStream, Flow, HttpConversation,
    HttpFlow, HttpService, Output, Prepared, TransportSettings, WebSocketConversation,
};

mod flags;

pub use flags::{Flags, Pause, Stage};

/// One client's socket.
#[derive(Debug)]
pub struct Connection {
    /// What waits to be sent.
    pub queue: SendQueue,
    /// Of its socket id and its session.
    pub generation: u32,
    /// While it is open, the tick in which bytes came last; then, how many came that are not listened to.
    pub received: u32,
    /// The tick in which the unfinished message began: see [`Connection::unfinished_since`].
    message_began: u32,
    conversation: Conversation,
    /// Where it is in its life, why it is not read, and what else is known of it.
    pub flags: Flags,
}

// A slab's entry, which needs no more than a connection itself.
const _: () = assert!(size_of::<Option<Connection>>() <= CONNECTION_BYTES_MAX);

/// Bytes of its cache line that no field uses.
const CONNECTION_BYTES_LEFT: usize = CONNECTION_BYTES_MAX
    - size_of::<SendQueue>()
    - 3 * size_of::<u32>()
    - size_of::<Flags>()
    - size_of::<Conversation>();

const _: () = assert!(CONNECTION_BYTES_LEFT == 4, "there is room for one more index");

/// What is behind a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// HTTP and WebSocket.
    Edge,
    /// The command protocol over raw TCP.
    Commands(Framing),
    /// WebSockets, echoed.
    EchoWebSocket,
    /// Bytes, echoed.
    EchoTcp,
}

#[derive(Debug)]
enum Conversation {
    Http(HttpConversation),
    WebSocket(WebSocketConversation),
    EventStream(EventStream),
    Commands(CommandConversation),
    EchoTcp,
}

impl Conversation {
    fn transport(&self) -> TransportKind {
        match self {
            Conversation::Http(http) if http.is_polling() => TransportKind::LongPoll,
            Conversation::Http(_) => TransportKind::Http,
            Conversation::EventStream(_) => TransportKind::Sse,
            Conversation::WebSocket(websocket) => websocket.transport(),
            Conversation::Commands(_) => TransportKind::CommandsTcp,
            Conversation::EchoTcp => TransportKind::EchoTcp,
        }
    }
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(service: Service, generation: u32, tick: u32) -> Self {
        let conversation = match service {
            Service::Edge => Conversation::Http(HttpConversation::new(HttpService::Edge)),
            Service::EchoWebSocket => Conversation::Http(HttpConversation::new(HttpService::Echo)),
            Service::Commands(framing) => Conversation::Commands(CommandConversation::new(framing)),
            Service::EchoTcp => Conversation::EchoTcp,
        };
        Self {
            queue: SendQueue::new(),
            generation,
            received: tick,
            message_began: tick,
            flags: Flags::new(conversation.transport()),
            conversation,
        }
    }

    /// Takes what the peer sent.
    pub fn receive(&mut self, bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
        match &mut self.conversation {
            Conversation::WebSocket(websocket) => websocket.receive(bytes, context),
            Conversation::Commands(commands) => commands.receive(bytes, context),
            // An event stream ends with its connection: a request behind it is never answered.
            Conversation::EventStream(_) => Flow::Receive,
            Conversation::EchoTcp => {
                context.out.extend_from_slice(bytes);
                Flow::Receive
            }
            Conversation::Http(http) => {
                let flow = http.receive(bytes, context);
                self.follow(flow, context)
            }
        }
    }

    /// Takes the hub's answer to a request.
    pub fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> Flow {
        match &mut self.conversation {
            Conversation::WebSocket(websocket) => websocket.reply(origin, reply, context),
            Conversation::Commands(commands) => commands.reply(origin, reply, context),
            Conversation::EventStream(stream) => {
                stream.reply(reply, context);
                Flow::Receive
            }
            Conversation::EchoTcp => Flow::Receive,
            Conversation::Http(http) => {
                let flow = http.reply(origin, reply, context);
                self.follow(flow, context)
            }
        }
    }

    /// Delivers items of one channel to this client alone.
    pub fn deliver_alone(
        &mut self,
        channel: &ChannelName,
        items: &[Item],
        context: &mut Context<'_>,
    ) -> Flow {
        let (mut prepared, mut scratch) = (Prepared::default(), Vec::new());
        let mut batch = prepared.of_client(channel, items, 0, &mut scratch);
        let delivered = self.deliver(&mut batch, context.out, context.settings);
        if let Some(frame) = delivered.frame {
            context.out.extend_from_slice(frame.as_bytes());
        }
        if self.is_answered() { self.finish_answer(context) } else { Flow::Receive }
    }

    /// Whether answers of the hub are not written as they come, but make one answer together.
    pub fn collects_answers(&self) -> bool {
        matches!(self.conversation, Conversation::Http(_))
    }

    /// Whether the server API may subscribe it to channels: it is told of them.
    pub fn takes_orders(&self) -> bool {
        match &self.conversation {
            Conversation::WebSocket(websocket) => websocket.is_connected(),
            Conversation::Commands(commands) => commands.is_connected(),
            Conversation::EventStream(_) => true,
            Conversation::Http(_) | Conversation::EchoTcp => false,
        }
    }

    /// Takes the worker's answer to [`Output::Ask`].
    pub fn answer(&mut self, answer: &Answer<'_>, context: &mut Context<'_>) -> Flow {
        let Conversation::Http(http) = &mut self.conversation else { return Flow::Receive };
        let flow = http.take_answer(answer, context);
        self.follow(flow, context)
    }

    /// Whether requests wait until most of what is queued has left: then [`Connection::go_on_with_room`] is to be
    /// called.
    pub fn awaits_room(&self) -> bool {
        matches!(&self.conversation, Conversation::Http(http) if http.awaits_room())
    }

    /// Takes the requests that waited until most of what was queued had left.
    pub fn go_on_with_room(&mut self, context: &mut Context<'_>) -> Flow {
        let Conversation::Http(http) = &mut self.conversation else { return Flow::Receive };
        let flow = http.go_on_with_room(context);
        self.follow(flow, context)
    }

    /// The way in which the client talks by now.
    pub fn transport(&self) -> TransportKind {
        self.conversation.transport()
    }

    /// The peer sends no more.
    pub fn end(&mut self, context: &mut Context<'_>) -> Flow {
        self.flags.set_ended();
        match &mut self.conversation {
            // What was asked for is still answered: `printf ... | nc -N` is a client.
            Conversation::Http(http) if http.awaits_reply() || http.awaits_room() => {}
            // Whoever closed altogether answers this with a reset, and the next one fails.
            Conversation::Commands(commands) => {
                if matches!(commands.end(context), Flow::Closed) {
                    return Flow::Closed;
                }
                if self.flags.has_session() {
                    commands.probe(context.out);
                }
                context.outputs.push(Output::Deadline(HALF_CLOSED_LINGER));
            }
            Conversation::Http(http) if http.is_polling() => http.probe_poll(context),
            Conversation::Http(_) => context.outputs.push(Output::Close(CloseReason::HttpDone)),
            // Nothing is left behind by whoever does not wait any more.
            Conversation::WebSocket(_) | Conversation::EventStream(_) => {
                context.outputs.push(Output::Close(CloseReason::ClientGone));
            }
            Conversation::EchoTcp => {
                context.outputs.push(Output::Close(CloseReason::ClientClosed));
            }
        }
        Flow::Receive
    }

    /// The deadline came. `silence` is the time since bytes came last.
    pub fn expire(&mut self, silence: Duration, context: &mut Context<'_>) -> Flow {
        let alive = match &mut self.conversation {
            Conversation::Http(http)
                if self.flags.has_ended() && http.probe_poll_again(silence, context) =>
            {
                return Flow::Receive;
            }
            Conversation::Http(http) => {
                let flow = http.time_out(context);
                return self.follow(flow, context);
            }
            Conversation::EventStream(stream) => stream.keep_alive(silence, context),
            Conversation::WebSocket(websocket) => websocket.expire(silence, context),
            // A subscriber may listen on without a word to say; for others, everything has been answered by now.
            Conversation::Commands(_) if self.flags.has_ended() && !self.flags.has_session() => {
                context.outputs.push(Output::Close(CloseReason::ClientGone));
                Ok(())
            }
            Conversation::Commands(commands) => commands.expire(context),
            Conversation::EchoTcp => Ok(()),
        };
        if let Err(reason) = alive {
            self.close(&reason.into(), false, context);
        }
        Flow::Receive
    }

    /// Says goodbye in the conversation's own terms, and asks to be closed. `is_incomplete` if something that was
    /// queued before was dropped: segments, which are whole frames and replies of a WebSocket and of commands.
    pub fn close(&mut self, farewell: &Farewell, is_incomplete: bool, context: &mut Context<'_>) {
        match &mut self.conversation {
            Conversation::WebSocket(websocket) => websocket.say_goodbye(farewell, context.out),
            Conversation::Commands(commands) => commands.say_goodbye(farewell, context.out),
            Conversation::EventStream(stream) => {
                stream.say_goodbye(farewell, is_incomplete, context.out);
            }
            // RFC 9112 9.3.2: answers come in the order of their requests. What came behind one that is missing would
            // be taken for it, or for the rest of its body.
            Conversation::Http(_) if is_incomplete => {}
            Conversation::Http(http) => http.say_goodbye(farewell.reason, context),
            Conversation::EchoTcp => {}
        }
        context.outputs.push(Output::Close(farewell.reason));
    }

    /// Bytes of heap that its conversation owns: what is unfinished.
    pub fn held_bytes(&self) -> usize {
        match &self.conversation {
            Conversation::WebSocket(websocket) => websocket.held_bytes(),
            Conversation::Commands(commands) => commands.held_bytes(),
            Conversation::Http(http) => http.held_bytes(),
            Conversation::EventStream(_) | Conversation::EchoTcp => 0,
        }
    }

    /// The tick in which the message began whose end has not come. `None` if there is none, or if its end has a
    /// deadline already, as that of an HTTP request.
    pub fn unfinished_since(&self) -> Option<u32> {
        let is_unfinished = match &self.conversation {
            Conversation::WebSocket(_) | Conversation::Commands(_) => self.held_bytes() > 0,
            Conversation::Http(_) | Conversation::EventStream(_) | Conversation::EchoTcp => false,
        };
        is_unfinished.then_some(self.message_began)
    }

    /// Has the unfinished message, if there is one, begin in this tick: the one before it ended, or its sender was kept
    /// waiting.
    pub fn restart_message(&mut self, tick: u32) {
        self.message_began = tick;
    }

    /// Frees what is unfinished: nothing more is listened to.
    pub fn release(&mut self) {
        match &mut self.conversation {
            Conversation::WebSocket(websocket) => websocket.release(),
            Conversation::Commands(commands) => commands.release(),
            Conversation::Http(http) => http.release(),
            Conversation::EventStream(_) | Conversation::EchoTcp => {}
        }
    }

    /// Whether its silence says nothing about it: a pong would wait behind what is queued, or is not read. TCP finds
    /// out meanwhile whether the peer still takes anything.
    pub fn is_busy(&self) -> bool {
        let waits = !self.queue.is_empty() || self.flags.is_paused();
        match &self.conversation {
            Conversation::WebSocket(websocket) => waits && !websocket.owes_ping(),
            Conversation::EventStream(_) => waits,
            Conversation::Http(_) | Conversation::Commands(_) | Conversation::EchoTcp => false,
        }
    }

    /// Whether it is an event stream that has lived for as long as it may. `silence` is the time since bytes came last.
    pub fn is_over_age(
        &self,
        silence: Duration,
        client: ClientId,
        settings: &TransportSettings,
    ) -> bool {
        matches!(self.conversation, Conversation::EventStream(_))
            && silence >= EventStream::life(client, settings)
    }

    /// Whether it may publish without waiting for an answer.
    pub fn publishes_unasked(&self) -> bool {
        match &self.conversation {
            Conversation::WebSocket(websocket) => websocket.publishes(),
            Conversation::Commands(_) => true,
            Conversation::Http(_) | Conversation::EventStream(_) | Conversation::EchoTcp => false,
        }
    }

    /// Takes publications: appends what only this client gets; the frame goes behind it. Whether it
    /// [`Connection::is_answered`] then is to be asked.
    pub fn deliver(
        &mut self,
        batch: &mut Batch<'_>,
        out: &mut Vec<u8>,
        settings: &TransportSettings,
    ) -> Delivered {
        let form = match &mut self.conversation {
            Conversation::WebSocket(websocket) => websocket.wire_form(),
            Conversation::Commands(commands) => commands.wire_form(),
            Conversation::EventStream(stream) => return stream.deliver(batch, out),
            Conversation::Http(http) => return http.deliver(batch, out, settings),
            Conversation::EchoTcp => return Delivered { count: 0, frame: None },
        };
        Delivered { count: batch.items().len(), frame: Some(batch.frame(form)) }
    }

    /// Whether what was delivered ended a poll: [`Connection::finish_answer`] is to be called.
    pub fn is_answered(&self) -> bool {
        matches!(&self.conversation, Conversation::Http(http) if http.is_poll_answered())
    }

    /// Goes on behind the answer to a poll.
    pub fn finish_answer(&mut self, context: &mut Context<'_>) -> Flow {
        let Conversation::Http(http) = &mut self.conversation else { return Flow::Receive };
        let flow = http.finish_poll(context);
        self.follow(flow, context)
    }

    fn follow(&mut self, flow: HttpFlow, context: &mut Context<'_>) -> Flow {
        match flow {
            HttpFlow::Receive if !self.flags.has_ended() => Flow::Receive,
            HttpFlow::Receive => match &self.conversation {
                Conversation::Http(http) if http.is_polling() => {
                    http.probe_poll(context);
                    Flow::Receive
                }
                _ => {
                    context.outputs.push(Output::Close(CloseReason::HttpDone));
                    Flow::Closed
                }
            },
            HttpFlow::AwaitReply => Flow::AwaitReply,
            HttpFlow::AwaitRoom => Flow::AwaitRoom,
            HttpFlow::Closed => Flow::Closed,
            HttpFlow::Stream(_) if self.flags.has_ended() => {
                context.outputs.push(Output::Close(CloseReason::ClientGone));
                Flow::Closed
            }
            HttpFlow::Stream(stream) => {
                self.conversation = Conversation::EventStream(stream);
                Flow::Receive
            }
            HttpFlow::Upgrade { service, mut rest } => {
                context.messages.any_ended = true;
                let mut websocket = WebSocketConversation::new(service);
                let mut left = rest.as_mut_slice();
                let flow = loop {
                    // At most one receive buffer came behind a handshake: it is not held.
                    let len = left.len();
                    match websocket.receive(left, context) {
                        Flow::Hold(count) => left = &mut left[len - count..],
                        flow => break flow,
                    }
                };
                self.conversation = Conversation::WebSocket(websocket);
                flow
            }
        }
    }
}
