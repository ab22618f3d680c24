//! What is kept for a client of the command protocol until it is connected.

use super::framing::{CommandFraming, write_framed};
use super::prepared::{Batch, Delivered};
use crate::config::limits::CONNECTING_PUSHES_BYTES_MAX;
use crate::message::Token;
use crate::protocol::json;

/// What a client of the command protocol showed before `connect`, and what came behind it and waits for the reply. The
/// client is not read meanwhile, so that this is at most the rest of one message and one receive buffer.
#[derive(Debug, Default)]
pub(super) struct Pipelined {
    /// The token that the client showed with its handshake.
    pub token: Option<Token>,
    /// The rest of the message that `connect` was in: commands, a line each.
    pub lines: Vec<u8>,
    /// Commands of that message that were taken.
    pub lines_taken: usize,
    /// Bytes behind that message, as they were received.
    pub bytes: Vec<u8>,
    /// Pushes of channels that the server has subscribed the client to, which follow the reply.
    pub pushes: Vec<u8>,
    /// There were more of them than are kept.
    pub has_lost_pushes: bool,
}

impl Pipelined {
    /// The token that the client showed with its handshake.
    pub fn token(pipelined: &Option<Box<Self>>) -> Option<&Token> {
        pipelined.as_ref()?.token.as_ref()
    }

    /// Keeps bytes as they were received.
    pub fn keep(pipelined: &mut Option<Box<Self>>, bytes: &[u8]) {
        if !bytes.is_empty() {
            pipelined.get_or_insert_default().bytes.extend_from_slice(bytes);
        }
    }

    /// Keeps what is delivered before the reply.
    pub fn keep_pushes(
        pipelined: &mut Option<Box<Self>>,
        batch: &Batch<'_>,
        framing: CommandFraming,
    ) -> Delivered {
        let Self { pushes, has_lost_pushes, .. } = &mut **pipelined.get_or_insert_default();
        for item in batch.items() {
            *has_lost_pushes |= pushes.len() >= CONNECTING_PUSHES_BYTES_MAX;
            if !*has_lost_pushes {
                write_framed(framing, pushes, |out| {
                    json::write_item_push(out, batch.channel(), item)
                });
            }
        }
        Delivered { count: batch.items().len(), ..Delivered::NOTHING }
    }

    /// Bytes of heap that it owns, itself included. The pushes are not among them: a fan-out does not report them.
    pub fn heap_bytes(pipelined: &Option<Box<Self>>) -> usize {
        pipelined.as_ref().map_or(0, |pipelined| {
            let token = pipelined.token.as_ref().map_or(0, Token::heap_bytes);
            size_of::<Self>() + token + pipelined.lines.capacity() + pipelined.bytes.capacity()
        })
    }
}
