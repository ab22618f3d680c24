//! A WebSocket (RFC 6455): plain messages, published or echoed; or commands, of which each text message carries one or
//! more, a line each.

use std::time::Duration;

use bytes::Bytes;

use super::commands::{CommandFault, Commands};
use super::context::{Context, Flow, Output};
use super::framing::CommandFraming;
use super::prepared::WireForm;
use crate::config::limits::{COMMANDS_PER_MESSAGE_MAX, PAYLOAD_DEPTH_MAX};
use crate::message::{
    Actor, CloseReason, Farewell, Origin, Payload, PayloadKind, Refusal, Reply, Request,
    TransportKind,
};
use crate::protocol::json::{self, Method};
use crate::protocol::websocket::{
    Fault, Limits, Message, MessageDecoder, OpCode, write_close, write_frame,
};

/// One client's WebSocket after its handshake.
#[derive(Debug)]
pub struct WebSocketConversation {
    decoder: MessageDecoder,
    kind: Kind,
}

/// What is done with a client's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSocketService {
    /// Published to its first channel.
    Publish,
    /// Sent back.
    Echo,
    /// Done: they are commands.
    Commands,
}

#[derive(Debug)]
enum Kind {
    Plain {
        service: PlainService,
        /// A ping was sent and nothing has come since.
        awaits_pong: bool,
        /// A message has come.
        has_spoken: bool,
    },
    Commands(Commands),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlainService {
    Publish,
    Echo,
}

impl WebSocketConversation {
    /// A conversation whose handshake has been answered.
    pub fn new(service: WebSocketService) -> Self {
        let plain = |service| Kind::Plain { service, awaits_pong: false, has_spoken: false };
        let kind = match service {
            WebSocketService::Publish => plain(PlainService::Publish),
            WebSocketService::Echo => plain(PlainService::Echo),
            WebSocketService::Commands => Kind::Commands(Commands::default()),
        };
        Self { decoder: MessageDecoder::default(), kind }
    }

    /// Takes what the peer sent.
    pub fn receive(&mut self, mut bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
        match &mut self.kind {
            Kind::Plain { awaits_pong, .. } => *awaits_pong = false,
            Kind::Commands(commands) => commands.hear(),
        }
        let limits = self.limits(context);
        loop {
            let message = match self.decoder.next(&mut bytes, &limits) {
                Ok(Some(message)) => message,
                Ok(None) => return Flow::Receive,
                Err(fault) => {
                    context.log_refusal(fault.reason(), "a WebSocket frame is refused");
                    write_close(context.out, fault.close_code(), fault.reason());
                    return context.close(reason_for(fault));
                }
            };
            let (opcode, payload) = match message {
                Message::Text(text) => (OpCode::Text, text),
                Message::Binary(payload) => (OpCode::Binary, payload),
                Message::Ping(payload) => {
                    write_frame(context.out, OpCode::Pong, payload);
                    // RFC 6455 5.4: it may stand between the fragments of a message, which then goes on.
                    context.messages.any_ended |= self.decoder.is_between_messages();
                    continue;
                }
                Message::Pong(_) => {
                    context.messages.any_ended |= self.decoder.is_between_messages();
                    continue;
                }
                Message::Close { code, .. } => {
                    // RFC 6455 5.5.1: the answer typically echoes the code; without one it has no body.
                    match code {
                        Some(code) => write_close(context.out, code, ""),
                        None => write_frame(context.out, OpCode::Close, b""),
                    }
                    return context.close(CloseReason::ClientClosed);
                }
            };
            context.messages.any_ended = true;
            match take(&mut self.kind, opcode, payload, context) {
                Ok(true) if context.congested => {
                    // The next bytes may be long in coming: it owns nothing meanwhile.
                    self.release();
                    return Flow::Hold(bytes.len());
                }
                Ok(_) => {}
                Err(_) => {
                    self.say_goodbye(&self.refusal(), context.out);
                    return context.close(CloseReason::ProtocolError);
                }
            }
        }
    }

    /// Takes the hub's answer. A plain socket's subscriptions were checked with the handshake; what is still refused
    /// ends it.
    pub fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> Flow {
        match (&self.kind, reply) {
            (Kind::Commands(_), _) => {
                Commands::reply(origin, reply, CommandFraming::Message, context);
                Flow::Receive
            }
            (Kind::Plain { .. }, Reply::Refused(Refusal::SubscriptionsExhausted)) => {
                self.say_goodbye(&CloseReason::SubscriptionsExhausted.into(), context.out);
                context.close(CloseReason::SubscriptionsExhausted)
            }
            (Kind::Plain { .. }, _) => Flow::Receive,
        }
    }

    /// The deadline came, and nothing has come for `silence`: pings, or returns why the peer is to be given up.
    pub fn expire(
        &mut self,
        silence: Duration,
        context: &mut Context<'_>,
    ) -> Result<(), CloseReason> {
        let interval = context.settings.keepalive_interval;
        match &mut self.kind {
            Kind::Commands(commands) => return commands.expire(CommandFraming::Message, context),
            Kind::Plain { awaits_pong: true, .. } => return Err(CloseReason::KeepaliveTimeout),
            Kind::Plain { .. } if silence < interval => {
                context.outputs.push(Output::Deadline(interval - silence));
            }
            Kind::Plain { awaits_pong, .. } => {
                *awaits_pong = true;
                write_frame(context.out, OpCode::Ping, b"");
                context.outputs.push(Output::Deadline(context.settings.keepalive_timeout));
            }
        }
        Ok(())
    }

    /// Whether its deadline is not that of a pong but must be kept: clients of the command protocol count on pings,
    /// however much they say and hear.
    pub fn owes_ping(&self) -> bool {
        match &self.kind {
            Kind::Plain { .. } => false,
            Kind::Commands(commands) => !commands.awaits_pong(),
        }
    }

    /// Bytes of heap that it owns: what is unfinished.
    pub fn held_bytes(&self) -> usize {
        self.decoder.buffered_bytes()
    }

    /// Frees what is unfinished: nothing more is listened to.
    pub fn release(&mut self) {
        self.decoder = MessageDecoder::new();
    }

    /// Says why the server ends it.
    pub fn say_goodbye(&self, farewell: &Farewell, out: &mut Vec<u8>) {
        let code = match self.kind {
            Kind::Plain { .. } => farewell.websocket_code(),
            Kind::Commands(_) => farewell.disconnect_code(),
        };
        write_close(out, code, farewell.text());
    }

    /// Whether it speaks the command protocol and has connected.
    pub fn is_connected(&self) -> bool {
        matches!(&self.kind, Kind::Commands(commands) if commands.is_connected())
    }

    /// Whether what the client sends may be published.
    pub fn publishes(&self) -> bool {
        !matches!(self.kind, Kind::Plain { service: PlainService::Echo, .. })
    }

    /// How it is counted.
    pub fn transport(&self) -> TransportKind {
        match self.kind {
            Kind::Plain { service: PlainService::Publish, .. } => TransportKind::WebSocket,
            Kind::Plain { service: PlainService::Echo, .. } => TransportKind::EchoWebSocket,
            Kind::Commands(_) => TransportKind::CommandsWebSocket,
        }
    }

    /// How publications look to this client.
    pub fn wire_form(&self) -> WireForm {
        match self.kind {
            Kind::Plain { .. } => WireForm::WebSocket,
            Kind::Commands(_) => WireForm::CommandMessage,
        }
    }

    /// What a client is told whose messages are not what this address takes. The code is one after which clients of the
    /// command protocol do not come back.
    fn refusal(&self) -> Farewell {
        match self.kind {
            Kind::Commands(_) => CloseReason::ProtocolError.into(),
            Kind::Plain { .. } => Farewell {
                reason: CloseReason::ProtocolError,
                code: Some(CloseReason::ProtocolError.disconnect_code()),
                text: Some("that is a command; commands are taken at /connection/websocket".into()),
            },
        }
    }

    fn limits(&self, context: &Context<'_>) -> Limits {
        match self.kind {
            Kind::Plain { service: PlainService::Echo, .. } => context.settings.echo_messages,
            Kind::Plain { .. } | Kind::Commands(_) => context.settings.messages,
        }
    }
}

/// Does what a message asks; returns whether it published. `Err`: it cannot hold commands, and a client that does not
/// speak the protocol is not heard further.
fn take(
    kind: &mut Kind,
    opcode: OpCode,
    bytes: &[u8],
    context: &mut Context<'_>,
) -> Result<bool, CommandFault> {
    match kind {
        Kind::Plain { service: PlainService::Echo, .. } => {
            context.messages.received += 1;
            context.messages.sent += 1;
            write_frame(context.out, opcode, bytes);
            Ok(false)
        }
        Kind::Plain { service: PlainService::Publish, has_spoken, .. } => {
            context.messages.received += 1;
            let is_first = !std::mem::replace(has_spoken, true);
            if is_first && opcode == OpCode::Text && is_connect(bytes) {
                context.log_refusal("bad request", "a command was sent to a plain WebSocket");
                return Err(CommandFault::Fatal);
            }
            let kind = match opcode {
                OpCode::Binary => PayloadKind::Binary,
                _ => json::kind_of_bytes(bytes, PAYLOAD_DEPTH_MAX),
            };
            let request = Request::Publish {
                channel: None,
                payload: Payload::new(kind, Bytes::copy_from_slice(bytes)),
                idempotency_key: None,
            };
            context.request(None, Actor::Client, request);
            Ok(true)
        }
        Kind::Commands(_) if opcode == OpCode::Binary => Err(CommandFault::Fatal),
        Kind::Commands(commands) => take_commands(commands, bytes, context),
    }
}

/// Whether a message begins with the command that opens a session of the command protocol. Its clients would take what
/// they publish here for answers, and publish their tokens.
fn is_connect(message: &[u8]) -> bool {
    let line = message.split(|byte| *byte == b'\n').next().unwrap_or(message);
    line.starts_with(b"{")
        && json::decode_command(line)
            .is_ok_and(|command| command.id != 0 && command.method == Method::Connect)
}

/// Empty lines are passed over; a line that is no command is told so, like the others.
fn take_commands(
    commands: &mut Commands,
    message: &[u8],
    context: &mut Context<'_>,
) -> Result<bool, CommandFault> {
    let mut has_published = false;
    let lines = message.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    for (index, command) in lines.enumerate() {
        if index == COMMANDS_PER_MESSAGE_MAX {
            return Err(CommandFault::Fatal);
        }
        match commands.take(command, CommandFraming::Message, context) {
            Ok(publishes) => has_published |= publishes,
            Err(CommandFault::NoCommand) => {
                Commands::refuse_no_command(CommandFraming::Message, context);
            }
            Err(CommandFault::Fatal) => return Err(CommandFault::Fatal),
        }
    }
    Ok(has_published)
}

fn reason_for(fault: Fault) -> CloseReason {
    match fault.close_code() {
        1007 => CloseReason::InvalidUtf8,
        1009 => CloseReason::MessageTooBig,
        _ => CloseReason::ProtocolError,
    }
}
