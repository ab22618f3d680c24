//! The forms of the command protocol: how messages to a client are encoded and delimited.

use super::answers::Answers;
use crate::message::ChannelName;
use crate::protocol::command::{Push, Sent};
use crate::protocol::json;
use crate::protocol::length_prefix::write_length_prefixed;
use crate::protocol::line::write_line;
use crate::protocol::websocket::{OpCode, write_frame_of};

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
}

impl CommandForm {
    /// JSON, delimited like this.
    pub const fn json(framing: CommandFraming) -> Self {
        Self { encoding: CommandEncoding::Json, framing }
    }

    /// A number below [`COMMAND_FORMS`] that no other form has.
    pub const fn index(self) -> usize {
        self.encoding as usize * FRAMINGS + self.framing as usize
    }

    /// Appends a message.
    pub fn write(self, out: &mut Vec<u8>, sent: &Sent<'_>, answers: &mut Answers) {
        self.write_framed(out, |out| match self.encoding {
            CommandEncoding::Json => {
                json::write_sent(out, sent, |out, publications| answers.write(out, publications));
            }
        });
    }

    /// Appends what is pushed to a client about a channel.
    pub fn write_push(self, out: &mut Vec<u8>, channel: &ChannelName, push: Push<'_>) {
        self.write_framed(out, |out| match self.encoding {
            CommandEncoding::Json => json::write_push(out, channel, push),
        });
    }

    fn write_framed(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        match self.framing {
            CommandFraming::Line => write_line(out, write),
            CommandFraming::LengthPrefix => write_length_prefixed(out, write),
            CommandFraming::WebSocket => write_frame_of(out, OpCode::Text, write),
        }
    }
}

const ENCODINGS: usize = 1;

const FRAMINGS: usize = 3;

/// How many forms there are.
pub(super) const COMMAND_FORMS: usize = ENCODINGS * FRAMINGS;
