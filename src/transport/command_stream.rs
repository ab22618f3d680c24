//! The command protocol over HTTP, for clients that cannot have a WebSocket: replies and pushes are the answer to a
//! request, which goes on; its body, or a parameter of its address, has the first commands, `connect` among them. Later
//! commands come in requests of their own (`POST /emulation`), on any connection of any worker: they are relayed to
//! the worker of the session that they name.
//!
//! SDKs call the forms of the answer `http_stream`, which has a line of JSON or a Protobuf message behind its length
//! for each message, and `sse`, in which each message is the data of an event.

use std::convert::Infallible;
use std::time::Duration;

use super::command_form::{CommandEncoding, CommandFault, CommandForm, CommandFraming};
use super::commands::Commands;
use super::context::{Context, Flow, Output};
use super::contract::{Traits, Transport};
use super::pipelined::Pipelined;
use super::prepared::{Batch, Delivered};
use super::settings::TransportSettings;
use super::stream_form::{StreamForm, StreamFraming, StreamKind};
use super::websocket::take_commands;
use crate::message::{CloseReason, Disconnect, Origin, Reply, Token, TransportKind};
use crate::protocol::command::Sent;
use crate::protocol::http1::LAST_CHUNK;

/// One client's stream of replies and pushes.
#[derive(Debug)]
pub struct CommandStream {
    commands: Commands,
    encoding: CommandEncoding,
    form: StreamForm,
    /// While it connects, what has come meanwhile.
    pipelined: Option<Box<Pipelined>>,
}

impl CommandStream {
    /// Takes the first commands of a client, for which the head of the answer is written. `None` if they do not ask to
    /// connect: then the answer is over, because no other request can name its session.
    pub fn open(
        encoding: CommandEncoding,
        form: StreamForm,
        token: Option<Token>,
        commands: &[u8],
        context: &mut Context<'_>,
    ) -> Option<Self> {
        let pipelined = token.map(Pipelined::showing);
        let mut stream = Self { commands: Commands::default(), encoding, form, pipelined };
        context.outputs.push(Output::Deadline(context.settings.handshake_timeout));
        if form.kind == StreamKind::Events {
            // As from Centrifugo: proxies and browsers see that the answer has begun.
            form.framing.write(context.out, |out| out.extend_from_slice(b"\r\n"));
        }
        let flow = stream.take(commands, 0, context);
        if flow == Flow::AwaitReply {
            return Some(stream);
        }
        if flow != Flow::Closed {
            stream.close(CloseReason::ProtocolError, context);
        }
        None
    }

    /// Takes commands, a line each, behind so many of their message that were taken before.
    fn take(&mut self, lines: &[u8], taken: usize, context: &mut Context<'_>) -> Flow {
        let form = self.command_form();
        let Self { commands, pipelined, .. } = self;
        match take_commands(commands, form, lines, taken, pipelined, context) {
            Ok(_) => self.wait(),
            Err(CommandFault::TooManyRequests) => self.close(CloseReason::TooManyRequests, context),
            Err(CommandFault::Fatal | CommandFault::InvalidCommand) => {
                self.close(CloseReason::ProtocolError, context)
            }
        }
    }

    fn wait(&self) -> Flow {
        match self.commands.is_connecting() {
            true => Flow::AwaitReply,
            false => Flow::Receive,
        }
    }

    /// Takes what was pipelined behind `connect`, which has been answered.
    fn take_pipelined(&mut self, pipelined: Pipelined, context: &mut Context<'_>) -> Flow {
        if pipelined.has_lost_pushes {
            return self.close(CloseReason::InsufficientState, context);
        }
        pipelined.write_pushes(context.out);
        self.take(&pipelined.commands, pipelined.commands_taken, context)
    }

    fn close(&self, reason: CloseReason, context: &mut Context<'_>) -> Flow {
        self.write_end(&reason.into(), context);
        context.close(reason)
    }

    fn write_end(&self, disconnect: &Disconnect, context: &mut Context<'_>) {
        let end = Sent::Disconnect(disconnect);
        self.command_form().write(context.out, &end, context.answers);
        self.write_last_chunk(context.out);
    }

    fn write_last_chunk(&self, out: &mut Vec<u8>) {
        if self.form.framing == StreamFraming::Chunked {
            out.extend_from_slice(LAST_CHUNK);
        }
    }

    fn command_form(&self) -> CommandForm {
        CommandForm { encoding: self.encoding, framing: CommandFraming::Stream(self.form) }
    }
}

impl Transport for CommandStream {
    type Next = Infallible;

    fn traits(&self) -> Traits {
        let is_unidirectional = self.command_form().is_unidirectional();
        let kind = match (self.form.kind, is_unidirectional) {
            (StreamKind::Lines | StreamKind::Messages, false) => TransportKind::CommandsHttpStream,
            (StreamKind::Lines | StreamKind::Messages, true) => TransportKind::UniHttpStream,
            (StreamKind::Events, false) => TransportKind::CommandsSse,
            (StreamKind::Events, true) => TransportKind::UniSse,
        };
        let is_connected = self.commands.is_connected();
        Traits {
            is_established: is_connected,
            accepts_server_subscriptions: is_connected,
            takes_relays: !is_unidirectional,
            is_protobuf: self.encoding == CommandEncoding::Protobuf,
            ..Traits::of(kind)
        }
    }

    /// The answer ends with its connection: a request behind it is never answered.
    fn receive(&mut self, _: &mut [u8], _: &mut Context<'_>) -> Flow {
        self.wait()
    }

    fn relay(&mut self, commands: &[u8], context: &mut Context<'_>) -> Flow {
        self.commands.note_bytes();
        match self.commands.is_connected() {
            true => self.take(commands, 0, context),
            false => self.wait(),
        }
    }

    fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> Flow {
        if let Err(reason) = self.commands.reply(origin, reply, self.command_form(), context) {
            return self.close(reason, context);
        }
        if self.commands.is_connecting() {
            return Flow::AwaitReply;
        }
        if !self.commands.is_connected() {
            // The error says what the client is to do; it has no way to ask again on this connection.
            self.write_last_chunk(context.out);
            return context.close(CloseReason::HttpDone);
        }
        match self.pipelined.take() {
            Some(pipelined) => self.take_pipelined(*pipelined, context),
            None => Flow::Receive,
        }
    }

    fn deliver(
        &mut self,
        batch: &mut Batch<'_>,
        _: &mut Vec<u8>,
        _: &TransportSettings,
    ) -> Delivered {
        let (is_connecting, form) = (self.commands.is_connecting(), self.command_form());
        Pipelined::deliver(&mut self.pipelined, is_connecting, batch, form)
    }

    /// Sends a ping, or closes if the last one was not answered: see the same of a WebSocket.
    fn expire(&mut self, _: Duration, is_busy: bool, context: &mut Context<'_>) -> Flow {
        if is_busy && self.commands.awaits_pong() {
            context.outputs.push(Output::Deadline(context.settings.keepalive_interval));
            return Flow::Receive;
        }
        match self.commands.expire(self.command_form(), context) {
            Ok(()) => Flow::Receive,
            Err(reason) => self.close(reason, context),
        }
    }

    /// Proxies close their end when a client leaves, and no client waits for the rest of a stream.
    fn end(&mut self, context: &mut Context<'_>) -> Flow {
        context.close(CloseReason::ClientGone)
    }

    fn disconnect(&mut self, disconnect: &Disconnect, _: bool, context: &mut Context<'_>) {
        self.write_end(disconnect, context);
    }

    fn heap_bytes(&self) -> usize {
        Pipelined::heap_bytes(&self.pipelined)
    }

    fn release(&mut self) {
        self.pipelined = None;
    }
}
