//! What is kept for a client of the command protocol until it is connected.

use super::command_form::CommandForm;
use super::prepared::{Batch, Delivered, WireForm};
use crate::buffer::SharedFrame;
use crate::config::limits::CONNECTING_PUSHES_BYTES_MAX;
use crate::message::Token;

/// What a client of the command protocol showed before `connect`, and what came behind it and waits for the reply. The
/// client is not read meanwhile, so that this is at most the rest of one message and one receive buffer.
#[derive(Debug, Default)]
pub(super) struct Pipelined {
    /// The token that the client showed with its handshake.
    token: Option<Token>,
    /// The rest of the message that `connect` was in.
    pub commands: Vec<u8>,
    /// Commands of that message that were taken.
    pub commands_taken: usize,
    /// Bytes behind that message, as they were received.
    pub bytes: Vec<u8>,
    /// Pushes of channels that the server has subscribed the client to, which follow the reply. Other clients share
    /// them: thousands may connect at once.
    pushes: Vec<SharedFrame>,
    /// Bytes of these.
    pushes_bytes: usize,
    /// There were more of them than are kept.
    pub has_lost_pushes: bool,
}

impl Pipelined {
    /// What is kept for a client that showed a token with its handshake.
    pub fn showing(token: Token) -> Box<Self> {
        Box::new(Self { token: Some(token), ..Self::default() })
    }

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

    /// Has a client of the command protocol get a batch: at once, or behind the reply to its `connect`.
    pub fn deliver(
        pipelined: &mut Option<Box<Self>>,
        is_connecting: bool,
        batch: &mut Batch<'_>,
        form: CommandForm,
    ) -> Delivered {
        let form = WireForm::Command(form);
        match is_connecting {
            true => Self::keep_pushes(pipelined, batch, form),
            false => Delivered::shared(batch, form),
        }
    }

    /// Keeps what is delivered before the reply.
    fn keep_pushes(
        pipelined: &mut Option<Box<Self>>,
        batch: &mut Batch<'_>,
        form: WireForm,
    ) -> Delivered {
        let Self { pushes, pushes_bytes, has_lost_pushes, .. } =
            &mut **pipelined.get_or_insert_default();
        *has_lost_pushes |= *pushes_bytes >= CONNECTING_PUSHES_BYTES_MAX;
        if !*has_lost_pushes {
            let push = batch.frame(form);
            *pushes_bytes += push.len() as usize;
            pushes.push(push);
        }
        Delivered { count: batch.items().len(), ..Delivered::NOTHING }
    }

    /// Writes what was delivered before the reply.
    pub fn write_pushes(&self, out: &mut Vec<u8>) {
        self.pushes.iter().for_each(|push| out.extend_from_slice(push.as_bytes()));
    }

    /// Bytes of heap that it owns, itself included. The pushes are not among them, nor is what has nothing but pushes:
    /// a fan-out does not report them.
    pub fn heap_bytes(pipelined: &Option<Box<Self>>) -> usize {
        pipelined.as_ref().map_or(0, |pipelined| {
            let Self { token, commands, bytes, .. } = &**pipelined;
            let token = token.as_ref().map_or(0, Token::heap_bytes);
            match token + commands.capacity() + bytes.capacity() {
                0 => 0,
                owned => size_of::<Self>() + owned,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::message::{ChannelName, Epoch, Item, Payload, PayloadKind, Position, Publication};
    use crate::transport::command_form::CommandFraming;
    use crate::transport::prepared::{Encoder, Prepared};

    #[test]
    fn pushes_are_kept_up_to_the_limit_and_shared() {
        let channel = ChannelName::new("a").unwrap();
        let item = Item::Publication(Arc::new(Publication {
            channel: channel.clone(),
            position: Position { epoch: Epoch(1), offset: 1 },
            payload: Payload::new(PayloadKind::Text, "x".repeat(CONNECTING_PUSHES_BYTES_MAX / 4)),
            info: None,
            accepted_us: 0,
            excludes: None,
            in_stream: true,
        }));
        let (mut prepared, mut encoder) = (Prepared::default(), Encoder::default());
        let mut clients = [None, None];
        // A fan-out does not report what it leaves here.
        let counted =
            |clients: &[Option<Box<Pipelined>>; 2]| clients.each_ref().map(Pipelined::heap_bytes);
        Pipelined::keep(&mut clients[1], b"{}");
        let before = counted(&clients);
        // The fourth one exceeds the limit, and is kept.
        for start in 0..5 {
            prepared.begin(start);
            for pipelined in &mut clients {
                let items = std::slice::from_ref(&item);
                let mut batch = prepared.of_client(&channel, items, start, &mut encoder);
                let form = WireForm::Command(CommandForm::json(CommandFraming::Line));
                assert_eq!(Pipelined::keep_pushes(pipelined, &mut batch, form).count, 1);
                assert_eq!(pipelined.as_ref().unwrap().has_lost_pushes, start == 4);
            }
        }
        assert_eq!(counted(&clients), before);
        let [one, other] = clients.map(Option::unwrap);
        let mut out = Vec::new();
        one.write_pushes(&mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 4);
        let places = |of: &Pipelined| -> Vec<_> {
            of.pushes.iter().map(|push| push.as_bytes().as_ptr()).collect()
        };
        assert_eq!(places(&one), places(&other));
    }
}
