//! A WebSocket (RFC 6455): plain messages, published or echoed; or commands, of which each message carries one or more:
//! JSON a line each, or Protobuf.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;

use super::command_form::{CommandEncoding, CommandFault, CommandForm, CommandFraming};
use super::commands::{Commands, Taken};
use super::context::{Context, Flow, Output};
use super::contract::{Traits, Transport, receive_unpaused};
use super::pipelined::Pipelined;
use super::prepared::{Batch, Delivered, WireForm};
use super::settings::TransportSettings;
use crate::auth::{Rate, RateVerdict};
use crate::config::limits::{COMMANDS_PER_MESSAGE_MAX, PAYLOAD_DEPTH_MAX};
use crate::message::{
    Actor, CloseReason, Disconnect, Origin, Payload, PayloadKind, Refusal, Reply, Request, Token,
    TransportKind,
};
use crate::protocol::command::Method;
use crate::protocol::json;
use crate::protocol::websocket::{
    Deflate, Fault, Limits, Message, MessageDecoder, OpCode, is_utf8, write_close, write_frame,
};

/// One client's WebSocket after its handshake.
#[derive(Debug)]
pub struct WebSocketConversation {
    decoder: MessageDecoder,
    kind: Kind,
    /// Which messages may be compressed.
    deflate: Deflate,
    /// While it connects, what has come meanwhile.
    pipelined: Option<Box<Pipelined>>,
}

/// What is done with a client's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSocketService {
    /// Published to its first channel.
    Publish,
    /// Sent back to the client.
    Echo,
    /// Executed: they are commands, encoded like this.
    Commands(CommandEncoding),
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
    Commands(Commands, CommandForm),
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
            WebSocketService::Commands(encoding) => {
                Kind::Commands(Commands::default(), CommandForm::websocket(encoding))
            }
        };
        let deflate = Deflate::Off;
        Self { decoder: MessageDecoder::default(), kind, deflate, pipelined: None }
    }

    /// The same where messages may be compressed.
    pub fn with_deflate(mut self, deflate: Deflate) -> Self {
        self.deflate = deflate;
        if let (Kind::Commands(_, form), Deflate::BothWays) = (&mut self.kind, deflate) {
            form.framing = CommandFraming::DeflatedWebSocket;
        }
        self
    }

    /// The same for a client that showed a token with its handshake.
    pub fn with_token(self, token: Option<Token>) -> Self {
        Self { pipelined: token.map(Pipelined::showing), ..self }
    }

    /// Takes what came with the handshake of a client that sends nothing else.
    pub fn take_first(&mut self, message: &[u8], context: &mut Context<'_>) -> Flow {
        match take(&mut self.kind, OpCode::Text, message, &mut self.pipelined, context) {
            Ok(_) => Flow::AwaitReply,
            Err(fault) => self.refuse(fault, context),
        }
    }

    fn close(&self, reason: CloseReason, context: &mut Context<'_>) -> Flow {
        self.write_disconnect(&reason.into(), context.out);
        context.close(reason)
    }

    fn write_disconnect(&self, disconnect: &Disconnect, out: &mut Vec<u8>) {
        let code = match self.kind {
            Kind::Plain { .. } => disconnect.websocket_code(),
            Kind::Commands(..) => disconnect.disconnect_code(),
        };
        write_close(out, code, disconnect.text());
    }

    /// Disconnects the client for a message that this endpoint does not accept. The code is one after which clients of
    /// the command protocol do not reconnect.
    fn refuse(&self, fault: CommandFault, context: &mut Context<'_>) -> Flow {
        let disconnect = match (fault, &self.kind) {
            (CommandFault::TooManyRequests, _) => CloseReason::TooManyRequests.into(),
            (_, Kind::Commands(..)) => CloseReason::ProtocolError.into(),
            (_, Kind::Plain { .. }) => Disconnect {
                reason: CloseReason::ProtocolError,
                code: Some(CloseReason::ProtocolError.disconnect_code()),
                text: Some("that is a command; commands are taken at /connection/websocket".into()),
            },
        };
        self.write_disconnect(&disconnect, context.out);
        context.close(disconnect.reason)
    }

    /// Takes what was pipelined behind `connect`, which has been answered. If it was refused, the rest of its message
    /// is dropped: a client that is connected is what these commands were meant for.
    fn receive_pipelined(&mut self, pipelined: Pipelined, context: &mut Context<'_>) -> Flow {
        if pipelined.has_lost_pushes {
            return self.close(CloseReason::InsufficientState, context);
        }
        pipelined.write_pushes(context.out);
        let Pipelined { commands: behind, commands_taken, mut bytes, .. } = pipelined;
        if let Kind::Commands(commands, form) = &mut self.kind
            && commands.is_connected()
        {
            let rest = &mut self.pipelined;
            if let Err(fault) =
                take_commands(commands, *form, &behind, commands_taken, rest, context)
            {
                return self.refuse(fault, context);
            }
        }
        receive_unpaused(&mut bytes, |left| self.receive(left, context))
    }

    fn limits(&self, context: &Context<'_>) -> Limits {
        let limits = match self.kind {
            Kind::Plain { service: PlainService::Echo, .. } => context.settings.echo_messages,
            Kind::Plain { .. } | Kind::Commands(..) => context.settings.messages,
        };
        Limits { has_compression: self.deflate != Deflate::Off, ..limits }
    }
}

impl Transport for WebSocketConversation {
    type Next = Infallible;

    fn traits(&self) -> Traits {
        let of = |kind| Traits { times_messages: true, ..Traits::of(kind) };
        match &self.kind {
            Kind::Plain { service: PlainService::Publish, .. } => {
                Traits { publishes: true, ..of(TransportKind::WebSocket) }
            }
            Kind::Plain { service: PlainService::Echo, .. } => of(TransportKind::EchoWebSocket),
            Kind::Commands(commands, form) => Traits {
                is_established: commands.is_connected(),
                publishes: !form.is_unidirectional(),
                accepts_server_subscriptions: commands.is_connected(),
                is_protobuf: form.encoding == CommandEncoding::Protobuf,
                ..of(match form.is_unidirectional() {
                    false => TransportKind::CommandsWebSocket,
                    true => TransportKind::UniWebSocket,
                })
            },
        }
    }

    fn receive(&mut self, mut bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
        match &mut self.kind {
            Kind::Plain { awaits_pong, .. } => *awaits_pong = false,
            Kind::Commands(commands, _) if commands.is_connecting() => {
                Pipelined::keep(&mut self.pipelined, bytes);
                return Flow::AwaitReply;
            }
            Kind::Commands(commands, _) => commands.note_bytes(),
        }
        let limits = self.limits(context);
        loop {
            let message = match self.decoder.next(&mut bytes, &limits) {
                Ok(Some(message)) => message,
                Ok(None) => return Flow::Receive,
                Err(fault) => return fail(fault, context),
            };
            let mut inflated = Vec::new();
            let (opcode, payload) = match message {
                Message::Compressed { is_text, payload } => {
                    let bytes_max = limits.message_bytes_max as usize;
                    if let Err(fault) = context.inflater.inflate(payload, bytes_max, &mut inflated)
                    {
                        return fail(fault, context);
                    }
                    if is_text && !is_utf8(&inflated) {
                        return fail(Fault::Utf8Invalid, context);
                    }
                    (if is_text { OpCode::Text } else { OpCode::Binary }, &mut inflated[..])
                }
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
            match take(&mut self.kind, opcode, payload, &mut self.pipelined, context) {
                Ok(Taken::Connecting) => {
                    Pipelined::keep(&mut self.pipelined, bytes);
                    // It may have come in pieces, which are not kept.
                    self.decoder = MessageDecoder::new();
                    return Flow::AwaitReply;
                }
                Ok(Taken::Published) if context.congested => {
                    // The publisher may be paused for long: it owns no heap meanwhile.
                    self.decoder = MessageDecoder::new();
                    return Flow::Hold(bytes.len());
                }
                Ok(_) => {}
                Err(fault) => return self.refuse(fault, context),
            }
        }
    }

    /// The subscriptions of a plain WebSocket were made with its handshake; one that is still refused ends it.
    fn reply(&mut self, origin: Origin, reply: &Reply, context: &mut Context<'_>) -> Flow {
        match (&mut self.kind, reply) {
            (Kind::Commands(commands, form), _) => {
                if let Err(reason) = commands.reply(origin, reply, *form, context) {
                    return self.close(reason, context);
                }
                if commands.is_connecting() {
                    return Flow::AwaitReply;
                }
                match self.pipelined.take() {
                    Some(pipelined) => self.receive_pipelined(*pipelined, context),
                    None => Flow::Receive,
                }
            }
            (Kind::Plain { .. }, Reply::Refused(Refusal::SubscriptionsExhausted)) => {
                self.close(CloseReason::SubscriptionsExhausted, context)
            }
            // Nothing else would tell the client that nothing comes any more.
            (Kind::Plain { .. }, Reply::SubscriptionExpired { .. }) => {
                self.close(CloseReason::Expired, context)
            }
            (Kind::Plain { .. }, _) => Flow::Receive,
        }
    }

    fn deliver(
        &mut self,
        batch: &mut Batch<'_>,
        _: &mut Vec<u8>,
        _: &TransportSettings,
    ) -> Delivered {
        match self.kind {
            Kind::Plain { .. } => {
                let is_deflated = self.deflate == Deflate::BothWays;
                Delivered::shared(batch, WireForm::WebSocket { is_deflated })
            }
            Kind::Commands(commands, form) => {
                Pipelined::deliver(&mut self.pipelined, commands.is_connecting(), batch, form)
            }
        }
    }

    /// Sends a ping, or closes if the last one was not answered. A busy client is not asked for a pong: it would wait
    /// behind what is queued, or is not read; TCP detects meanwhile whether the peer takes anything. But clients of the
    /// command protocol count on pings, however much they send and receive.
    fn expire(&mut self, silence: Duration, is_busy: bool, context: &mut Context<'_>) -> Flow {
        let interval = context.settings.keepalive_interval;
        let kept = match &mut self.kind {
            Kind::Commands(commands, form) if !is_busy || !commands.awaits_pong() => {
                commands.expire(*form, context)
            }
            Kind::Plain { .. } | Kind::Commands(..) if is_busy => {
                context.outputs.push(Output::Deadline(interval));
                Ok(())
            }
            Kind::Plain { awaits_pong: false, .. } if silence < interval => {
                context.outputs.push(Output::Deadline(interval - silence));
                Ok(())
            }
            Kind::Plain { awaits_pong: awaits_pong @ false, .. } => {
                *awaits_pong = true;
                write_frame(context.out, OpCode::Ping, b"");
                context.outputs.push(Output::Deadline(context.settings.keepalive_timeout));
                Ok(())
            }
            Kind::Plain { .. } | Kind::Commands(..) => Err(CloseReason::KeepaliveTimeout),
        };
        match kept {
            Ok(()) => Flow::Receive,
            Err(reason) => self.close(reason, context),
        }
    }

    /// A client that closes its end without a close frame is gone.
    fn end(&mut self, context: &mut Context<'_>) -> Flow {
        context.close(CloseReason::ClientGone)
    }

    fn disconnect(&mut self, disconnect: &Disconnect, _: bool, context: &mut Context<'_>) {
        self.write_disconnect(disconnect, context.out);
    }

    fn heap_bytes(&self) -> usize {
        self.decoder.buffered_bytes() + Pipelined::heap_bytes(&self.pipelined)
    }

    fn release(&mut self) {
        self.decoder = MessageDecoder::new();
        self.pipelined = None;
    }
}

/// Handles one message. An error ends the connection: the client does not speak the protocol of this endpoint.
fn take(
    kind: &mut Kind,
    opcode: OpCode,
    bytes: &[u8],
    pipelined: &mut Option<Box<Pipelined>>,
    context: &mut Context<'_>,
) -> Result<Taken, CommandFault> {
    match kind {
        Kind::Plain { service: PlainService::Echo, .. } => {
            context.messages.received += 1;
            context.messages.sent += 1;
            write_frame(context.out, opcode, bytes);
            Ok(Taken::Done)
        }
        Kind::Plain { service: PlainService::Publish, has_spoken, .. } => {
            context.messages.received += 1;
            let is_first = !std::mem::replace(has_spoken, true);
            if is_first && opcode == OpCode::Text && is_connect(bytes) {
                context.log_refusal("bad request", "a command was sent to a plain WebSocket");
                return Err(CommandFault::Fatal);
            }
            match context.take_rate(Rate::Publications, 1) {
                RateVerdict::Allow => {}
                // The protocol has no message to refuse one publication.
                RateVerdict::Refuse => return Ok(Taken::Done),
                RateVerdict::Close => return Err(CommandFault::TooManyRequests),
            }
            let kind = match opcode {
                OpCode::Binary => PayloadKind::Binary,
                _ => json::kind_of_bytes(bytes, PAYLOAD_DEPTH_MAX),
            };
            let request = Request::Publish {
                channel: None,
                payload: Payload::new(kind, Bytes::copy_from_slice(bytes)),
                options: None,
            };
            context.request(None, Actor::Client, request);
            Ok(Taken::Published)
        }
        // Such clients need not send anything, and what they send is passed over.
        Kind::Commands(commands, form) if form.is_unidirectional() && commands.is_connected() => {
            Ok(Taken::Done)
        }
        // As with Centrifugo, the form that was agreed on counts, and not the opcode.
        Kind::Commands(commands, form) => {
            take_commands(commands, *form, bytes, 0, pipelined, context)
        }
    }
}

/// Whether a message begins with the command that opens a session of the command protocol. Its clients would take what
/// they publish here for answers, and publish their tokens.
fn is_connect(message: &[u8]) -> bool {
    let line = message.split(|byte| *byte == b'\n').next().unwrap_or(message);
    line.starts_with(b"{")
        && json::decode_command(line)
            .is_ok_and(|command| command.id != 0 && matches!(command.method, Method::Connect(_)))
}

/// Takes the commands of a message, of which `taken` were taken before. A line that is not a command is answered with
/// an error, like the others. What follows `connect` waits in `pipelined`.
pub(super) fn take_commands(
    commands: &mut Commands,
    form: CommandForm,
    message: &[u8],
    mut taken: usize,
    pipelined: &mut Option<Box<Pipelined>>,
    context: &mut Context<'_>,
) -> Result<Taken, CommandFault> {
    let (mut result, mut rest) = (Taken::Done, message);
    while let Some(command) = form.next_command(&mut rest)? {
        if taken == COMMANDS_PER_MESSAGE_MAX {
            return Err(CommandFault::Fatal);
        }
        taken += 1;
        let token = Pipelined::token(pipelined);
        match commands.take(command, token, form, context) {
            Ok(Taken::Done) => {}
            Ok(Taken::Published) => result = Taken::Published,
            Ok(Taken::Connecting) => {
                if !rest.is_empty() {
                    let pipelined = pipelined.get_or_insert_default();
                    (pipelined.commands, pipelined.commands_taken) = (rest.to_vec(), taken);
                }
                return Ok(Taken::Connecting);
            }
            Err(CommandFault::InvalidCommand) => Commands::refuse_invalid(form, context),
            Err(fault) => return Err(fault),
        }
    }
    Ok(result)
}

/// Ends the connection for what its peer has sent.
fn fail(fault: Fault, context: &mut Context<'_>) -> Flow {
    context.log_refusal(fault.reason(), "a WebSocket frame is refused");
    write_close(context.out, fault.close_code(), fault.reason());
    context.close(reason_for(fault))
}

fn reason_for(fault: Fault) -> CloseReason {
    match fault.close_code() {
        _ if fault == Fault::DeflateInvalid => CloseReason::ProtocolError,
        1007 => CloseReason::InvalidUtf8,
        1009 => CloseReason::MessageTooBig,
        _ => CloseReason::ProtocolError,
    }
}
