//! The command protocol over raw TCP: one JSON object a line, so that `nc` is a client.

use bytes::Bytes;

use super::{ClientName, Context, Flow, Output};
use crate::message::{
    ChannelName, CloseReason, Payload, PayloadKind, Refusal, Reply, Request, Ticket,
};
use crate::protocol::json::{self, Command, CommandError, Method};
use crate::protocol::line::LineDecoder;

/// One client's lines.
#[derive(Debug, Default)]
pub struct CommandConversation {
    decoder: LineDecoder,
    is_connected: bool,
}

impl CommandConversation {
    /// Takes what the peer sent.
    pub fn receive(&mut self, mut bytes: &mut [u8], context: &mut Context<'_>) -> Flow {
        let line_bytes_max = context.settings.line_bytes_max;
        loop {
            match self.decoder.next(&mut bytes, line_bytes_max) {
                Ok(Some([])) => {}
                Ok(Some(line)) => take(&mut self.is_connected, line, context),
                Ok(None) => return Flow::Receive,
                // The end of the line is found all the same: framing is not lost.
                Err(_) => {
                    let detail = format!("a line has at most {line_bytes_max} bytes");
                    refuse(0, CommandError::LimitExceeded, Some(&detail), context);
                }
            }
        }
    }

    /// Takes the hub's answer to a command.
    pub fn reply(&mut self, ticket: Ticket, reply: &Reply, context: &mut Context<'_>) -> Flow {
        let Ticket(id) = ticket;
        match reply {
            Reply::Refused(refusal) => refuse(id, error_for(*refusal), None, context),
            // Without an id, no reply is wanted.
            _ if id == 0 => {}
            Reply::Subscribed { position, .. } => {
                json::write_subscribed(context.out, id, *position);
                context.out.push(b'\n');
            }
            Reply::Unsubscribed => done(id, "unsubscribe", context),
            Reply::Published { .. } => done(id, "publish", context),
        }
        Flow::Receive
    }

    /// Whether the client has connected.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Pings. The answer is not waited for: TCP's own keepalive finds dead peers, and a person at `nc` need not
    /// answer.
    pub fn keep_alive(&self, out: &mut Vec<u8>) {
        json::write_ping(out);
        out.push(b'\n');
    }

    /// Says why the server ends it.
    pub fn say_goodbye(&self, reason: CloseReason, out: &mut Vec<u8>) {
        json::write_disconnect(out, reason);
        out.push(b'\n');
    }
}

fn take(is_connected: &mut bool, line: &[u8], context: &mut Context<'_>) {
    let Command { id, method } = match json::decode_command(line) {
        Ok(command) => command,
        Err(error) => return refuse(0, error, Some("a line is one JSON object"), context),
    };
    let ticket = Ticket(id);
    let bad = CommandError::BadRequest;
    match method {
        Method::Pong => {}
        Method::Malformed => refuse(id, bad, Some("wrong parameters"), context),
        Method::Unknown => refuse(id, CommandError::MethodNotFound, None, context),
        Method::Connect if *is_connected => refuse(id, bad, Some("already connected"), context),
        Method::Connect => {
            *is_connected = true;
            connect(id, context);
        }
        Method::Ping => done(id, "ping", context),
        _ if !*is_connected => refuse(id, bad, Some("connect first"), context),
        Method::NotAvailable => refuse(id, CommandError::NotAvailable, None, context),
        Method::Subscribe(name) => {
            with_channel(id, &name, context, |channel| Request::Subscribe { ticket, channel });
        }
        Method::Unsubscribe(name) => {
            with_channel(id, &name, context, |channel| Request::Unsubscribe { ticket, channel });
        }
        Method::Publish(name, data) => {
            let bytes = Bytes::copy_from_slice(data);
            with_channel(id, &name, context, |channel| Request::Publish {
                ticket: Some(ticket),
                channel: Some(channel),
                payload: Payload { kind: PayloadKind::Text, bytes },
            });
        }
    }
}

fn connect(id: u32, context: &mut Context<'_>) {
    let ClientName { worker, session } = context.client;
    let client = format!("{:x}-{:x}-{:x}", worker.0, session.index, session.generation);
    let ping = context.settings.keepalive_interval;
    json::write_connected(context.out, id, &client, ping.as_secs().max(1));
    context.out.push(b'\n');
    context.outputs.push(Output::Deadline(ping));
}

fn with_channel(
    id: u32,
    name: &str,
    context: &mut Context<'_>,
    request: impl FnOnce(ChannelName) -> Request,
) {
    match ChannelName::new(name) {
        Ok(channel) => context.request(request(channel)),
        Err(error) => refuse(id, CommandError::BadRequest, Some(&error.to_string()), context),
    }
}

fn done(id: u32, method: &str, context: &mut Context<'_>) {
    if id != 0 {
        json::write_done(context.out, id, method);
        context.out.push(b'\n');
    }
}

fn refuse(id: u32, error: CommandError, detail: Option<&str>, context: &mut Context<'_>) {
    json::write_error(context.out, id, error, detail);
    context.out.push(b'\n');
}

fn error_for(refusal: Refusal) -> CommandError {
    match refusal {
        Refusal::AlreadySubscribed => CommandError::AlreadySubscribed,
        Refusal::NotSubscribed => CommandError::PermissionDenied,
        Refusal::SubscriptionsExhausted => CommandError::LimitExceeded,
        Refusal::Congested => CommandError::TooManyRequests,
    }
}
