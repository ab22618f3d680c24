//! The command protocol over raw TCP: one JSON object a line, so that `nc` is a client; or each behind its length.

use bytes::Bytes;

use super::{Context, Flow, Output, WireForm};
use crate::config::Framing;
use crate::message::{
    Actor, ChannelName, CloseReason, Payload, PayloadKind, Refusal, Reply, Request, Ticket,
};
use crate::protocol::json::{self, Command, CommandError, Method};
use crate::protocol::length_prefix::{LengthPrefixDecoder, write_length_prefixed};
use crate::protocol::line::{LineDecoder, write_line};

/// One client's commands.
#[derive(Debug)]
pub struct CommandConversation {
    decoder: Decoder,
    is_connected: bool,
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
        Self { decoder, is_connected: false }
    }

    /// Takes what the peer sent.
    pub fn receive(&mut self, mut bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
        let bytes_max = context.settings.command_bytes_max;
        let mut said = Said { framing: self.framing(), context };
        let Self { decoder, is_connected } = self;
        loop {
            let command = match decoder {
                Decoder::Line(decoder) => match decoder.next(&mut bytes, bytes_max as usize) {
                    Ok(line) => line,
                    // The end of the line is found all the same: framing is not lost.
                    Err(_) => {
                        said.refuse(0, CommandError::LimitExceeded, Some(&too_long(bytes_max)));
                        continue;
                    }
                },
                Decoder::LengthPrefix(decoder) => match decoder.next(&mut bytes, bytes_max) {
                    Ok(frame) => frame,
                    Err(_) => {
                        said.refuse(0, CommandError::LimitExceeded, Some(&too_long(bytes_max)));
                        let reason = CloseReason::MessageTooBig;
                        said.write(|out| json::write_disconnect(out, reason));
                        return said.context.close(reason);
                    }
                },
            };
            match command {
                None => return Flow::Receive,
                // A person at `nc` presses enter.
                Some([]) => {}
                Some(command) => {
                    let publishes = said.take(is_connected, command);
                    if publishes && said.context.congested {
                        return Flow::Hold(bytes.len());
                    }
                }
            }
        }
    }

    /// Takes the hub's answer to a command.
    pub fn reply(&mut self, ticket: Ticket, reply: &Reply, context: &mut Context<'_>) -> Flow {
        let Ticket(id) = ticket;
        let mut said = Said { framing: self.framing(), context };
        match reply {
            Reply::Refused(refusal) => {
                let (error, detail) = error_for(*refusal);
                said.refuse(id, error, detail);
            }
            // Without an id, no reply is wanted.
            _ if id == 0 => {}
            Reply::Subscribed { position, .. } => {
                said.write(|out| json::write_subscribed(out, id, *position));
            }
            Reply::Unsubscribed { .. } => said.done(id, "unsubscribe"),
            Reply::Published { .. } => said.done(id, "publish"),
            Reply::History { .. }
            | Reply::Presence { .. }
            | Reply::Channels { .. }
            | Reply::Done => {}
        }
        Flow::Receive
    }

    /// Whether the client has connected.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// How publications look to this client.
    pub fn wire_form(&self) -> WireForm {
        match self.framing() {
            Framing::Line => WireForm::CommandLine,
            Framing::LengthPrefix => WireForm::CommandLengthPrefixed,
        }
    }

    /// Pings. The answer is not waited for: TCP's own keepalive finds dead peers, and a person at `nc` need not
    /// answer.
    pub fn keep_alive(&self, out: &mut Vec<u8>) {
        write_framed(self.framing(), out, json::write_ping);
    }

    /// Says why the server ends it.
    pub fn say_goodbye(&self, reason: CloseReason, out: &mut Vec<u8>) {
        write_framed(self.framing(), out, |out| json::write_disconnect(out, reason));
    }

    fn framing(&self) -> Framing {
        match self.decoder {
            Decoder::Line(_) => Framing::Line,
            Decoder::LengthPrefix(_) => Framing::LengthPrefix,
        }
    }
}

/// Appends what `write` appends, delimited.
pub(super) fn write_framed(framing: Framing, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    match framing {
        Framing::Line => write_line(out, write),
        Framing::LengthPrefix => write_length_prefixed(out, write),
    }
}

/// What is said in answer to a command.
struct Said<'a, 'c> {
    framing: Framing,
    context: &'a mut Context<'c>,
}

impl Said<'_, '_> {
    /// Does what a command asks; returns whether it published.
    fn take(&mut self, is_connected: &mut bool, command: &[u8]) -> bool {
        let bad = CommandError::BadRequest;
        let Command { id, method } = match json::decode_command(command) {
            Ok(command) => command,
            Err(error) => {
                self.refuse(0, error, Some("a command is one JSON object"));
                return false;
            }
        };
        let ticket = Ticket(id);
        match method {
            Method::Pong => {}
            Method::Malformed => self.refuse(id, bad, Some("wrong parameters")),
            Method::Unknown => self.refuse(id, CommandError::MethodNotFound, None),
            Method::Connect if *is_connected => self.refuse(id, bad, Some("already connected")),
            Method::Connect => {
                *is_connected = true;
                self.connect(id);
            }
            Method::Ping => self.done(id, "ping"),
            _ if !*is_connected => self.refuse(id, bad, Some("connect first")),
            Method::NotAvailable => self.refuse(id, CommandError::NotAvailable, None),
            Method::Subscribe(name) => {
                self.request(id, &name, |channel| Request::Subscribe {
                    ticket,
                    channel,
                    since: None,
                });
            }
            Method::Unsubscribe(name) => {
                self.request(id, &name, |channel| Request::Unsubscribe { ticket, channel });
            }
            Method::Publish(name, data) => {
                let bytes = Bytes::copy_from_slice(data);
                self.request(id, &name, |channel| Request::Publish {
                    ticket: Some(ticket),
                    channel: Some(channel),
                    payload: Payload::new(PayloadKind::Json, bytes),
                    by: Actor::Client,
                    idempotency_key: None,
                });
                return true;
            }
        }
        false
    }

    fn connect(&mut self, id: u32) {
        let client = self.context.client.to_string();
        let ping = self.context.settings.keepalive_interval;
        self.write(|out| json::write_connected(out, id, &client, ping.as_secs().max(1)));
        self.context.outputs.push(Output::Deadline(ping));
    }

    fn request(&mut self, id: u32, name: &str, request: impl FnOnce(ChannelName) -> Request) {
        match ChannelName::new(name) {
            Ok(channel) => self.context.request(request(channel)),
            Err(error) => self.refuse(id, CommandError::BadRequest, Some(&error.to_string())),
        }
    }

    fn done(&mut self, id: u32, method: &str) {
        if id != 0 {
            self.write(|out| json::write_done(out, id, method));
        }
    }

    fn refuse(&mut self, id: u32, error: CommandError, detail: Option<&str>) {
        self.context.log_refusal(error.message(), "a command is refused");
        self.write(|out| json::write_error(out, id, error, detail));
    }

    fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write_framed(self.framing, self.context.out, write);
    }
}

fn too_long(bytes_max: u32) -> String {
    format!("a command has at most {bytes_max} bytes")
}

/// A refusal in the words of the command protocol, which the server API shares.
pub(super) fn error_for(refusal: Refusal) -> (CommandError, Option<&'static str>) {
    match refusal {
        Refusal::AlreadySubscribed => (CommandError::AlreadySubscribed, None),
        Refusal::NotSubscribed => (CommandError::BadRequest, Some("not subscribed")),
        Refusal::SubscriptionsExhausted => (CommandError::LimitExceeded, None),
        Refusal::NamespaceUnknown => (CommandError::UnknownChannel, None),
        Refusal::PermissionDenied => (CommandError::PermissionDenied, None),
        Refusal::NotAvailable => (CommandError::NotAvailable, None),
        Refusal::PositionUnrecoverable => (CommandError::UnrecoverablePosition, None),
        Refusal::Overloaded => (CommandError::TooManyRequests, Some("memory is nearly used up")),
        Refusal::Withdrawn => (CommandError::BadRequest, Some("unsubscribed meanwhile")),
    }
}
