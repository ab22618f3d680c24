//! A WebSocket: plain messages in and out (RFC 6455), published or echoed.

use bytes::Bytes;

use super::{Context, Flow};
use crate::message::{Actor, CloseReason, Payload, PayloadKind, Refusal, Reply, Request};
use crate::protocol::json;
use crate::protocol::websocket::{
    Fault, Limits, Message, MessageDecoder, OpCode, write_close, write_frame,
};

/// One client's WebSocket after its handshake.
#[derive(Debug)]
pub struct WebSocketConversation {
    decoder: MessageDecoder,
    service: WebSocketService,
    /// A ping was sent and nothing has come since.
    awaits_pong: bool,
}

/// What is done with a client's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSocketService {
    /// Published to its first channel.
    Publish,
    /// Sent back.
    Echo,
}

impl WebSocketConversation {
    /// A conversation whose handshake has been answered.
    pub fn new(service: WebSocketService) -> Self {
        Self { decoder: MessageDecoder::default(), service, awaits_pong: false }
    }

    /// Takes what the peer sent.
    pub fn receive(&mut self, mut bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
        self.awaits_pong = false;
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
            match message {
                Message::Text(text) => {
                    take(self.service, OpCode::Text, text, context);
                    if self.must_hold(context) {
                        return Flow::Hold(bytes.len());
                    }
                }
                Message::Binary(payload) => {
                    take(self.service, OpCode::Binary, payload, context);
                    if self.must_hold(context) {
                        return Flow::Hold(bytes.len());
                    }
                }
                Message::Ping(payload) => write_frame(context.out, OpCode::Pong, payload),
                Message::Pong(_) => {}
                Message::Close { code, .. } => {
                    // RFC 6455 5.5.1: the answer typically echoes the code; without one it has no body.
                    match code {
                        Some(code) => write_close(context.out, code, ""),
                        None => write_frame(context.out, OpCode::Close, b""),
                    }
                    return context.close(CloseReason::ClientClosed);
                }
            }
        }
    }

    /// Takes the hub's answer. Subscriptions were checked with the handshake; what is still refused ends it.
    pub fn reply(&mut self, reply: &Reply, context: &mut Context<'_>) -> Flow {
        match reply {
            Reply::Refused(Refusal::SubscriptionsExhausted) => {
                self.say_goodbye(CloseReason::SubscriptionsExhausted, context.out);
                context.close(CloseReason::SubscriptionsExhausted)
            }
            _ => Flow::Receive,
        }
    }

    /// The peer has been silent for the keepalive interval, or for the timeout after a ping: whether it was pinged
    /// just now (`true`), or is to be given up (`false`).
    pub fn keep_alive(&mut self, out: &mut Vec<u8>) -> bool {
        if self.awaits_pong {
            return false;
        }
        write_frame(out, OpCode::Ping, b"");
        self.awaits_pong = true;
        true
    }

    /// Whether a ping was sent and nothing has come since.
    pub fn awaits_pong(&self) -> bool {
        self.awaits_pong
    }

    /// Says why the server ends it.
    pub fn say_goodbye(&self, reason: CloseReason, out: &mut Vec<u8>) {
        write_close(out, reason.websocket_code(), reason.label());
    }

    /// Whether what the client sends is published.
    pub fn publishes(&self) -> bool {
        self.service == WebSocketService::Publish
    }

    /// Whether it published while fan-outs are behind.
    fn must_hold(&self, context: &Context<'_>) -> bool {
        context.congested && self.publishes()
    }

    fn limits(&self, context: &Context<'_>) -> Limits {
        match self.service {
            WebSocketService::Publish => context.settings.messages,
            WebSocketService::Echo => context.settings.echo_messages,
        }
    }
}

fn take(service: WebSocketService, opcode: OpCode, bytes: &[u8], context: &mut Context<'_>) {
    match service {
        WebSocketService::Echo => write_frame(context.out, opcode, bytes),
        WebSocketService::Publish => {
            let kind = match opcode {
                OpCode::Binary => PayloadKind::Binary,
                _ => json::kind_of_bytes(bytes),
            };
            context.request(Request::Publish {
                ticket: None,
                channel: None,
                payload: Payload::new(kind, Bytes::copy_from_slice(bytes)),
                by: Actor::Client,
                idempotency_key: None,
            });
        }
    }
}

fn reason_for(fault: Fault) -> CloseReason {
    match fault.close_code() {
        1007 => CloseReason::InvalidUtf8,
        1009 => CloseReason::MessageTooBig,
        _ => CloseReason::ProtocolError,
    }
}
