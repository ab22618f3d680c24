//! The command protocol over raw TCP: one JSON object a line, so that `nc` is a client; or each behind its length.

use super::commands::{CommandFault, Commands};
use super::context::{Context, Flow, Output};
use super::framing::{CommandFraming, write_framed};
use super::prepared::WireForm;
use crate::config::Framing;
use crate::message::{CloseReason, Farewell, Origin, Reply};
use crate::protocol::json;
use crate::protocol::length_prefix::{LengthPrefixDecoder, LengthPrefixFault};
use crate::protocol::line::LineDecoder;
use crate::protocol::proxy_protocol::{self, Header};

/// One client's commands.
#[derive(Debug)]
pub struct CommandConversation {
    decoder: Decoder,
    commands: Commands,
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
        Self { decoder, commands: Commands::default() }
    }

    /// Takes what the peer sent.
    pub fn receive(&mut self, mut bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
        let bytes_max = context.settings.command_bytes_max;
        let framing = self.framing();
        let Self { decoder, commands } = self;
        loop {
            let command = match decoder {
                Decoder::Line(decoder) => match decoder.next(&mut bytes, bytes_max as usize) {
                    Ok(line) => line,
                    // The end of the line is found all the same: framing is not lost.
                    Err(_) => {
                        context.messages.any_ended = true;
                        Commands::refuse_long(framing, context);
                        continue;
                    }
                },
                Decoder::LengthPrefix(decoder) => match decoder.next(&mut bytes, bytes_max) {
                    Ok(frame) => frame,
                    Err(LengthPrefixFault::TooLong) => {
                        Commands::refuse_long(framing, context);
                        return close(framing, CloseReason::MessageTooBig, context);
                    }
                    Err(LengthPrefixFault::ProxyProtocol) => {
                        refuse_proxy_protocol(framing, context);
                        return close(framing, CloseReason::ProtocolError, context);
                    }
                },
            };
            let Some(command) = command else { return Flow::Receive };
            context.messages.any_ended = true;
            match command {
                // A person at `nc` presses enter.
                [] => {}
                command => match commands.take(command, framing, context) {
                    Ok(true) if context.congested => {
                        // The next bytes may be long in coming: it owns nothing meanwhile.
                        self.release();
                        return Flow::Hold(bytes.len());
                    }
                    Ok(_) => {}
                    // A proxy sends it ahead of everything else.
                    Err(CommandFault::NoCommand) => match proxy_protocol::of_line(command) {
                        _ if commands.is_connected() => {
                            Commands::refuse_no_command(framing, context);
                        }
                        None => Commands::refuse_no_command(framing, context),
                        Some(Header::Text) => refuse_proxy_protocol(framing, context),
                        // It has no line feed at its end: where the first command begins is not known.
                        Some(Header::Binary) => {
                            refuse_proxy_protocol(framing, context);
                            return close(framing, CloseReason::ProtocolError, context);
                        }
                    },
                    Err(CommandFault::Fatal) => {
                        return close(framing, CloseReason::ProtocolError, context);
                    }
                },
            }
        }
    }

    /// The peer sends no more: what it sent last is a command, with a line feed or without, as `printf` leaves it.
    pub fn end(&mut self, context: &mut Context<'_>) -> Flow {
        match self.decoder {
            Decoder::Line(_) if self.held_bytes() > 0 => self.receive(&mut [b'\n'], context),
            Decoder::Line(_) | Decoder::LengthPrefix(_) => Flow::Receive,
        }
    }

    /// Takes the hub's answer to a command, or what the server API did.
    pub fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> Flow {
        Commands::reply(origin, reply, self.framing(), context);
        Flow::Receive
    }

    /// Whether the client has connected.
    pub fn is_connected(&self) -> bool {
        self.commands.is_connected()
    }

    /// How publications look to this client.
    pub fn wire_form(&self) -> WireForm {
        match self.decoder {
            Decoder::Line(_) => WireForm::CommandLine,
            Decoder::LengthPrefix(_) => WireForm::CommandLengthPrefixed,
        }
    }

    /// One word, to which a peer that is gone answers with a reset.
    pub fn probe(&self, out: &mut Vec<u8>) {
        write_framed(self.framing(), out, json::write_ping);
    }

    /// Bytes of heap that it owns: what is unfinished.
    pub fn held_bytes(&self) -> usize {
        match &self.decoder {
            Decoder::Line(decoder) => decoder.buffered_bytes(),
            Decoder::LengthPrefix(decoder) => decoder.buffered_bytes(),
        }
    }

    /// Frees what is unfinished: nothing more is listened to.
    pub fn release(&mut self) {
        self.decoder = match self.decoder {
            Decoder::Line(_) => Decoder::Line(LineDecoder::new()),
            Decoder::LengthPrefix(_) => Decoder::LengthPrefix(LengthPrefixDecoder::new()),
        };
    }

    /// The deadline came: pings, or returns why the client is to be given up.
    pub fn expire(&mut self, context: &mut Context<'_>) -> Result<(), CloseReason> {
        let framing = self.framing();
        self.commands.expire(framing, context)
    }

    /// Says why the server ends it.
    pub fn say_goodbye(&self, farewell: &Farewell, out: &mut Vec<u8>) {
        say_goodbye(self.framing(), farewell, out);
    }

    fn framing(&self) -> CommandFraming {
        match self.decoder {
            Decoder::Line(_) => CommandFraming::Line,
            Decoder::LengthPrefix(_) => CommandFraming::LengthPrefix,
        }
    }
}

/// Names what a proxy sends; the operator is told as well.
fn refuse_proxy_protocol(framing: CommandFraming, context: &mut Context<'_>) {
    Commands::refuse_proxy_protocol(framing, context);
    context.outputs.push(Output::ProxyFault(proxy_protocol::REASON));
}

fn close(framing: CommandFraming, reason: CloseReason, context: &mut Context<'_>) -> Flow {
    say_goodbye(framing, &reason.into(), context.out);
    context.close(reason)
}

fn say_goodbye(framing: CommandFraming, farewell: &Farewell, out: &mut Vec<u8>) {
    write_framed(framing, out, |out| json::write_disconnect(out, farewell));
}
