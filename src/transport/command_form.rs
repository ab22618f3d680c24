//! The forms of the command protocol: how messages to a client are encoded and delimited.

use super::answers::{Answers, ListForm};
use super::stream_form::{STREAM_FORMS, StreamForm};
use crate::message::ChannelName;
use crate::protocol::command::{Answer, Command, InvalidCommand, Push, Sent, Subscribed};
use crate::protocol::length_prefix::write_length_prefixed;
use crate::protocol::line::write_line;
use crate::protocol::protobuf::InvalidFrame;
use crate::protocol::websocket::{OpCode, write_frame_of};
use crate::protocol::{json, protobuf};

/// How a client of the command protocol is written to. Everything that it is sent is encoded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandForm {
    /// How a message is encoded.
    pub encoding: CommandEncoding,
    /// What delimits messages.
    pub framing: CommandFraming,
}

/// How messages of the command protocol are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandEncoding {
    /// A JSON object.
    Json,
    /// A Protobuf message behind its length.
    Protobuf,
    /// Pushes as JSON objects and no replies: the client connects, and sends nothing else.
    JsonPushes,
}

/// What delimits the messages to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandFraming {
    /// A line feed behind each of them.
    Line,
    /// Its length in front of each of them, as 32 bits in network order.
    LengthPrefix,
    /// A WebSocket message for each of them.
    WebSocket,
    /// The same; pushes that many clients receive may be compressed.
    DeflatedWebSocket,
    /// They are the body of an HTTP answer.
    Stream(StreamForm),
}

impl CommandFraming {
    /// A number below [`FRAMINGS`] that no other framing has.
    const fn index(self) -> usize {
        match self {
            CommandFraming::Line => 0,
            CommandFraming::LengthPrefix => 1,
            CommandFraming::WebSocket => 2,
            CommandFraming::DeflatedWebSocket => 3,
            CommandFraming::Stream(form) => 4 + form.index(),
        }
    }
}

/// Why a command is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandFault {
    /// The bytes are not a command: the client is sent an error, and the session goes on.
    InvalidCommand,
    /// The protocol ends the connection.
    Fatal,
    /// The client has asked for too much for too long.
    TooManyRequests,
}

impl CommandForm {
    /// Whether clients answer pings. On raw TCP a person at `nc` need not; TCP's own keepalive finds dead peers.
    pub fn has_pongs(self) -> bool {
        match self.framing {
            CommandFraming::Line | CommandFraming::LengthPrefix => false,
            CommandFraming::WebSocket
            | CommandFraming::DeflatedWebSocket
            | CommandFraming::Stream(_) => !self.is_unidirectional(),
        }
    }

    /// Whether commands come in requests of their own.
    pub fn has_relays(self) -> bool {
        matches!(self.framing, CommandFraming::Stream(_)) && !self.is_unidirectional()
    }

    /// Whether the client sends nothing behind `connect`.
    pub fn is_unidirectional(self) -> bool {
        self.encoding == CommandEncoding::JsonPushes
    }

    /// Messages of a WebSocket.
    pub const fn websocket(encoding: CommandEncoding) -> Self {
        Self { encoding, framing: CommandFraming::WebSocket }
    }

    /// JSON, delimited like this.
    pub const fn json(framing: CommandFraming) -> Self {
        Self { encoding: CommandEncoding::Json, framing }
    }

    /// A number below [`COMMAND_FORMS`] that no other form has.
    pub const fn index(self) -> usize {
        self.encoding as usize * FRAMINGS + self.framing.index()
    }

    /// Appends a message.
    pub fn write(self, out: &mut Vec<u8>, sent: &Sent<'_>, answers: &mut Answers) {
        self.write_framed(out, |out| match self.encoding {
            CommandEncoding::Json => {
                let form = if takes_deltas(sent) { ListForm::JsonDeltas } else { ListForm::Json };
                json::write_sent(out, sent, |out, publications| {
                    answers.write(out, form, publications);
                });
            }
            CommandEncoding::Protobuf => {
                protobuf::write_sent(out, sent, |out, list, publications| {
                    let form = match takes_deltas(sent) {
                        true => ListForm::ProtobufDeltas,
                        false => ListForm::Protobuf(list),
                    };
                    answers.write(out, form, publications);
                })
            }
            CommandEncoding::JsonPushes => json::write_sent_bare(out, sent),
        });
    }

    /// Appends what is pushed to a client about a channel.
    pub fn write_push(self, out: &mut Vec<u8>, channel: &ChannelName, push: Push<'_>) {
        self.write_framed(out, |out| match self.encoding {
            CommandEncoding::Json => json::write_push(out, channel, push),
            CommandEncoding::Protobuf => protobuf::write_push(out, channel, push),
            CommandEncoding::JsonPushes => json::write_bare_push(out, channel, push),
        });
    }

    /// Takes the next command off the front of what a client has sent. Empty lines are skipped.
    pub fn next_command<'b>(self, bytes: &mut &'b [u8]) -> Result<Option<&'b [u8]>, CommandFault> {
        match self.encoding {
            CommandEncoding::Json => Ok(next_line(bytes)),
            CommandEncoding::Protobuf => {
                protobuf::next_message(bytes).map_err(|InvalidFrame| CommandFault::Fatal)
            }
            CommandEncoding::JsonPushes => {
                Ok(Some(std::mem::take(bytes)).filter(|it| !it.is_empty()))
            }
        }
    }

    /// Decodes a command.
    pub fn decode(self, command: &[u8]) -> Result<Command<'_>, CommandFault> {
        match self.encoding {
            CommandEncoding::Json => {
                json::decode_command(command).map_err(|InvalidCommand| CommandFault::InvalidCommand)
            }
            // As with Centrifugo: what follows may be as wrong.
            CommandEncoding::Protobuf => {
                protobuf::decode_command(command).map_err(|InvalidCommand| CommandFault::Fatal)
            }
            CommandEncoding::JsonPushes => {
                json::decode_connect(command).map_err(|InvalidCommand| CommandFault::Fatal)
            }
        }
    }

    fn opcode(self) -> OpCode {
        match self.encoding {
            CommandEncoding::Json | CommandEncoding::JsonPushes => OpCode::Text,
            CommandEncoding::Protobuf => OpCode::Binary,
        }
    }

    fn write_framed(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        match self.framing {
            CommandFraming::Line => write_line(out, write),
            CommandFraming::LengthPrefix => write_length_prefixed(out, write),
            CommandFraming::WebSocket | CommandFraming::DeflatedWebSocket => {
                write_frame_of(out, self.opcode(), write)
            }
            CommandFraming::Stream(form) => form.write(out, write),
        }
    }
}

/// Takes the next line that is not empty.
fn next_line<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    while !bytes.is_empty() {
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let (line, rest) = bytes.split_at(end);
        *bytes = rest.get(1..).unwrap_or_default();
        if !line.trim_ascii().is_empty() {
            return Some(line);
        }
    }
    None
}

/// Whether publications in a message are for a client that takes deltas.
fn takes_deltas(sent: &Sent<'_>) -> bool {
    matches!(sent, Sent::Reply(_, Answer::Subscribed(Subscribed { delta: true, .. }, _)))
}

const ENCODINGS: usize = 3;

const FRAMINGS: usize = 4 + STREAM_FORMS;

/// How many forms there are.
pub(super) const COMMAND_FORMS: usize = ENCODINGS * FRAMINGS;
