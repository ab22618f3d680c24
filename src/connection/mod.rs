//! One client's socket: its conversation, its send queue, where it is in its life.
//!
//! **What it is.** [`Connection`], a table entry of at most one cache line: Open → Closing → Dead. Which
//! [`Conversation`] it begins with follows from its listener ([`Service`]); an HTTP conversation may turn into a
//! WebSocket or an event stream.
//!
//! **In and out.** In: bytes, replies, deadlines, the end of the peer's bytes. Out: what its conversation writes and
//! asks for, through the [`Context`].
//!
//! **Always true.** Idle, it owns nothing outside its entry. Closing, it writes nothing new and ignores what it
//! receives.
//!
//! **Must not know.** The kernel, the hub, the clock, other connections, which transport is spoken.

use std::time::Duration;

use crate::buffer::SendQueue;
use crate::config::limits::CONNECTION_BYTES_MAX;
use crate::message::{ChannelName, Disconnect, Item, Origin, Rendition, Reply};
use crate::transport::{
    Answer, Batch, Context, Conversation, Delivered, Encoder, Flow, Output, Prepared,
    TransportSettings,
};

mod flags;
pub mod tls;

pub use crate::transport::{Service, Traits};
pub use flags::{Flags, Pause, Stage};

/// One client's socket.
#[derive(Debug)]
pub struct Connection {
    /// The bytes that wait to be sent.
    pub queue: SendQueue,
    /// The generation of its socket id and of its session.
    pub generation: u32,
    /// While it is open, the tick in which bytes came last; while it closes, how many bytes came and were ignored.
    pub received: u32,
    /// The tick in which the unfinished message began: see [`Connection::unfinished_since`].
    message_began: u32,
    conversation: Conversation,
    /// The place of its TLS session among those of the worker, if its bytes are encrypted.
    pub session_place: u32,
    /// Where it is in its life, why it is not read, and what else is known of it.
    pub flags: Flags,
}

// A slab's entry, which needs no more than a connection itself.
const _: () = assert!(size_of::<Option<Connection>>() <= CONNECTION_BYTES_MAX);

impl Connection {
    /// A connection that was just accepted.
    pub fn new(service: Service, generation: u32, tick: u32) -> Self {
        let conversation = Conversation::new(service);
        Self {
            queue: SendQueue::new(),
            generation,
            received: tick,
            message_began: tick,
            flags: Flags::new(conversation.traits().kind),
            conversation,
            session_place: 0,
        }
    }

    /// What the worker has to know of its conversation.
    pub fn traits(&self) -> Traits {
        self.conversation.traits()
    }

    /// Takes what the peer sent.
    pub fn receive(&mut self, bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
        self.conversation.receive(bytes, context)
    }

    /// Takes commands that the client sent with a request of their own.
    pub fn relay(&mut self, commands: &[u8], context: &mut Context<'_>) -> Flow {
        self.conversation.relay(commands, context)
    }

    /// Takes the hub's answer to a request.
    pub fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> Flow {
        self.conversation.reply(origin, reply, context)
    }

    /// Takes the worker's answer to [`Output::Ask`].
    pub fn answer(&mut self, answer: &Answer<'_>, context: &mut Context<'_>) -> Flow {
        self.conversation.answer(answer, context)
    }

    /// Takes publications: appends what only this client gets; the frame goes behind it.
    pub fn deliver(
        &mut self,
        batch: &mut Batch<'_>,
        out: &mut Vec<u8>,
        settings: &TransportSettings,
    ) -> Delivered {
        self.conversation.deliver(batch, out, settings)
    }

    /// Delivers items of one channel to this client alone.
    pub fn deliver_alone(
        &mut self,
        channel: &ChannelName,
        items: &[Item],
        rendition: Rendition,
        context: &mut Context<'_>,
    ) -> Flow {
        // What one client alone receives is not compressed.
        let (mut prepared, mut encoder) = (Prepared::default(), Encoder::default());
        let mut batch =
            prepared.of_client(channel, items, 0, &mut encoder).rendered(rendition, None);
        let delivered = self.deliver(&mut batch, context.out, context.settings);
        if let Some(frame) = delivered.frame {
            context.out.extend_from_slice(frame.as_bytes());
        }
        if delivered.completes_answer { self.drained(context) } else { Flow::Receive }
    }

    /// Has the conversation go on: what it waited for without a reply has happened.
    pub fn drained(&mut self, context: &mut Context<'_>) -> Flow {
        self.conversation.drained(context)
    }

    /// The peer sends no more, as its flags say.
    pub fn end(&mut self, context: &mut Context<'_>) -> Flow {
        self.conversation.end(context)
    }

    /// The deadline came. `silence` is the time since bytes came last.
    pub fn expire(&mut self, silence: Duration, context: &mut Context<'_>) -> Flow {
        self.conversation.expire(silence, self.is_busy(), context)
    }

    /// Whether its silence proves nothing: something waits to be sent, or nothing is received.
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty() || self.flags.is_paused()
    }

    /// Tells the client why the connection ends, in the terms of its transport, and asks to be closed.
    /// `is_incomplete` if segments that were queued before, which are whole frames and replies, were dropped.
    pub fn disconnect(
        &mut self,
        disconnect: &Disconnect,
        is_incomplete: bool,
        context: &mut Context<'_>,
    ) {
        self.conversation.disconnect(disconnect, is_incomplete, context);
        context.outputs.push(Output::Close(disconnect.reason));
    }

    /// Bytes of heap that its conversation owns: messages and requests that are not finished.
    pub fn heap_bytes(&self) -> usize {
        self.conversation.heap_bytes()
    }

    /// The tick in which the message began whose end has not come. `None` if there is none, or if its end has a
    /// deadline already, as that of an HTTP request.
    pub fn unfinished_since(&self) -> Option<u32> {
        let is_unfinished = self.traits().times_messages && self.heap_bytes() > 0;
        is_unfinished.then_some(self.message_began)
    }

    /// Has the unfinished message, if there is one, begin in this tick: the one before it ended, or its sender was kept
    /// waiting.
    pub fn restart_message(&mut self, tick: u32) {
        self.message_began = tick;
    }

    /// Frees messages and requests that are not finished: nothing more is received.
    pub fn release(&mut self) {
        self.conversation.release();
    }
}
