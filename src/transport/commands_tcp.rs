//! The command protocol over raw TCP: one JSON object a line, so that `nc` is a client; or each behind its length.

use std::convert::Infallible;
use std::time::Duration;

use super::command_form::{CommandFault, CommandForm, CommandFraming};
use super::commands::{Commands, Taken};
use super::context::{Context, Flow, Output};
use super::contract::{Traits, Transport, receive_unpaused};
use super::pipelined::Pipelined;
use super::prepared::{Batch, Delivered};
use super::settings::TransportSettings;
use crate::config::Framing;
use crate::config::limits::HALF_CLOSED_LINGER;
use crate::message::{CloseReason, Disconnect, Origin, Reply, TransportKind};
use crate::protocol::command::Sent;
use crate::protocol::length_prefix::{LengthPrefixDecoder, LengthPrefixFault};
use crate::protocol::line::LineDecoder;
use crate::protocol::proxy_protocol::{self, Header};

/// One client's commands.
#[derive(Debug)]
pub struct CommandConversation {
    decoder: Decoder,
    commands: Commands,
    /// While it connects, what has come meanwhile.
    pipelined: Option<Box<Pipelined>>,
}

#[derive(Debug)]
enum Decoder {
    Line(LineDecoder),
    LengthPrefix(LengthPrefixDecoder),
}

impl CommandConversation {
    /// A conversation that has not begun.
    pub fn new(framing: Framing) -> Self {
        let decoder = match framing {
            Framing::Line => Decoder::Line(LineDecoder::new()),
            Framing::LengthPrefix => Decoder::LengthPrefix(LengthPrefixDecoder::new()),
        };
        Self { decoder, commands: Commands::default(), pipelined: None }
    }

    /// Keeps what was received behind `connect` until its reply.
    fn wait_for_connect(&mut self, bytes: &[u8]) -> Flow {
        Pipelined::keep(&mut self.pipelined, bytes);
        // The command may have come in pieces, which are not kept.
        self.decoder.clear();
        Flow::AwaitReply
    }

    fn form(&self) -> CommandForm {
        CommandForm::json(match self.decoder {
            Decoder::Line(_) => CommandFraming::Line,
            Decoder::LengthPrefix(_) => CommandFraming::LengthPrefix,
        })
    }
}

impl Transport for CommandConversation {
    type Next = Infallible;

    fn traits(&self) -> Traits {
        Traits {
            is_established: self.commands.is_connected(),
            publishes: true,
            accepts_server_subscriptions: self.commands.is_connected(),
            times_messages: true,
            ..Traits::of(TransportKind::CommandsTcp)
        }
    }

    fn receive(&mut self, mut bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
        if self.commands.is_connecting() {
            Pipelined::keep(&mut self.pipelined, bytes);
            return Flow::AwaitReply;
        }
        let bytes_max = context.settings.command_bytes_max;
        let form = self.form();
        let Self { decoder, commands, .. } = self;
        loop {
            let command = match decoder {
                Decoder::Line(decoder) => match decoder.next(&mut bytes, bytes_max as usize) {
                    Ok(line) => line,
                    // The end of the line is found all the same: framing is not lost.
                    Err(_) => {
                        context.messages.any_ended = true;
                        Commands::refuse_long(form, context);
                        continue;
                    }
                },
                Decoder::LengthPrefix(decoder) => match decoder.next(&mut bytes, bytes_max) {
                    Ok(frame) => frame,
                    Err(LengthPrefixFault::TooLong) => {
                        Commands::refuse_long(form, context);
                        return close(form, CloseReason::MessageTooBig, context);
                    }
                    Err(LengthPrefixFault::ProxyProtocol) => {
                        refuse_proxy_protocol(form, context);
                        return close(form, CloseReason::ProtocolError, context);
                    }
                },
            };
            let Some(command) = command else { return Flow::Receive };
            context.messages.any_ended = true;
            match command {
                // A person at `nc` presses enter.
                [] => {}
                command => match commands.take(command, None, form, context) {
                    Ok(Taken::Connecting) => return self.wait_for_connect(bytes),
                    Ok(Taken::Published) if context.congested => {
                        // The publisher may be paused for long: it owns no heap meanwhile.
                        self.decoder.clear();
                        return Flow::Hold(bytes.len());
                    }
                    Ok(_) => {}
                    // A proxy sends it ahead of everything else.
                    Err(CommandFault::InvalidCommand) => match proxy_protocol::of_line(command) {
                        _ if commands.is_connected() => {
                            Commands::refuse_invalid(form, context);
                        }
                        None => Commands::refuse_invalid(form, context),
                        Some(Header::Text) => refuse_proxy_protocol(form, context),
                        // It has no line feed at its end: where the first command begins is not known.
                        Some(Header::Binary) => {
                            refuse_proxy_protocol(form, context);
                            return close(form, CloseReason::ProtocolError, context);
                        }
                    },
                    Err(CommandFault::Fatal) => {
                        return close(form, CloseReason::ProtocolError, context);
                    }
                    Err(CommandFault::TooManyRequests) => {
                        return close(form, CloseReason::TooManyRequests, context);
                    }
                },
            }
        }
    }

    fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> Flow {
        let form = self.form();
        let was_connecting = self.commands.is_connecting();
        if let Err(reason) = self.commands.reply(origin, reply, form, context) {
            return close(form, reason, context);
        }
        if was_connecting && !self.commands.is_connecting() && context.has_ended {
            context.outputs.push(Output::Deadline(HALF_CLOSED_LINGER));
        }
        match self.pipelined.take_if(|_| !self.commands.is_connecting()) {
            _ if self.commands.is_connecting() => Flow::AwaitReply,
            None => Flow::Receive,
            Some(pipelined) if pipelined.has_lost_pushes => {
                close(form, CloseReason::InsufficientState, context)
            }
            Some(mut pipelined) => {
                pipelined.write_pushes(context.out);
                receive_unpaused(&mut pipelined.bytes, |left| self.receive(left, context))
            }
        }
    }

    fn deliver(
        &mut self,
        batch: &mut Batch<'_>,
        _: &mut Vec<u8>,
        _: &TransportSettings,
    ) -> Delivered {
        let (is_connecting, form) = (self.commands.is_connecting(), self.form());
        Pipelined::deliver(&mut self.pipelined, is_connecting, batch, form)
    }

    /// Sends a ping. A subscriber that has closed its end may still read; any other client has its answers by now.
    fn expire(&mut self, _: Duration, _: bool, context: &mut Context<'_>) -> Flow {
        let form = self.form();
        if context.has_ended && !context.expects_more {
            return context.close(CloseReason::ClientGone);
        }
        match self.commands.expire(form, context) {
            Ok(()) => Flow::Receive,
            Err(reason) => close(form, reason, context),
        }
    }

    /// What the client sent last is a command, with a line feed or without, as `printf` leaves it. A client that closed
    /// both directions answers the ping with a reset, and the next one fails.
    fn end(&mut self, context: &mut Context<'_>) -> Flow {
        if matches!(self.decoder, Decoder::Line(_))
            && self.decoder.buffered_bytes() > 0
            && self.receive(&mut [b'\n'], context) == Flow::Closed
        {
            return Flow::Closed;
        }
        // Its `connect` has a deadline of its own.
        if self.commands.is_connecting() {
            return Flow::AwaitReply;
        }
        if context.expects_more {
            self.form().write(context.out, &Sent::Ping, context.answers);
        }
        context.outputs.push(Output::Deadline(HALF_CLOSED_LINGER));
        Flow::Receive
    }

    fn disconnect(&mut self, disconnect: &Disconnect, _: bool, context: &mut Context<'_>) {
        write_disconnect(self.form(), disconnect, context);
    }

    fn heap_bytes(&self) -> usize {
        self.decoder.buffered_bytes() + Pipelined::heap_bytes(&self.pipelined)
    }

    fn release(&mut self) {
        self.decoder.clear();
        self.pipelined = None;
    }
}

impl Decoder {
    /// Bytes of an unfinished command.
    fn buffered_bytes(&self) -> usize {
        match self {
            Self::Line(decoder) => decoder.buffered_bytes(),
            Self::LengthPrefix(decoder) => decoder.buffered_bytes(),
        }
    }

    /// Drops an unfinished command, and its memory.
    fn clear(&mut self) {
        *self = match self {
            Self::Line(_) => Self::Line(LineDecoder::new()),
            Self::LengthPrefix(_) => Self::LengthPrefix(LengthPrefixDecoder::new()),
        };
    }
}

/// Refuses the header of a proxy by name; the operator is warned as well.
fn refuse_proxy_protocol(form: CommandForm, context: &mut Context<'_>) {
    Commands::refuse_proxy_protocol(form, context);
    context.outputs.push(Output::ProxyFault(proxy_protocol::REASON));
}

fn close(form: CommandForm, reason: CloseReason, context: &mut Context<'_>) -> Flow {
    write_disconnect(form, &reason.into(), context);
    context.close(reason)
}

fn write_disconnect(form: CommandForm, disconnect: &Disconnect, context: &mut Context<'_>) {
    form.write(context.out, &Sent::Disconnect(disconnect), context.answers);
}
