//! The one shape of a transport: the verbs that a conversation is driven with.
//!
//! A transport is its codec, a file here with a type that implements [`Transport`], a row in `conversation.rs`, a row
//! of [`TransportKind`], and its tests. What it has no use for, such as replies, it need not write.

use std::time::Duration;

use super::context::{Answer, Context, Flow};
use super::prepared::{Batch, Delivered};
use super::settings::TransportSettings;
use crate::message::{Disconnect, Origin, Reply, TransportKind};

/// One way to talk to a client, from the connection's first byte or from a change of transport on.
pub trait Transport {
    /// The conversations that it may turn into; `Infallible` where it stays what it is.
    type Next;

    /// What the worker has to know of it, now.
    fn traits(&self) -> Traits;

    /// Takes what the peer sent. The bytes may be decoded in place.
    fn receive(&mut self, bytes: &mut [u8], context: &mut Context<'_>) -> Flow<Self::Next>;

    /// Takes commands that the client sent with a request of their own; none if that cannot be taken yet, but shows
    /// that the client is there.
    fn relay(&mut self, _commands: &[u8], _: &mut Context<'_>) -> Flow<Self::Next> {
        Flow::Receive
    }

    /// Takes the hub's answer to a request, or what the server API did.
    fn reply(&mut self, _: Origin, _: &Reply, _: &mut Context<'_>) -> Flow<Self::Next> {
        Flow::Receive
    }

    /// Takes the worker's answer to a question. Apart from [`Transport::reply`], because the hub never says it.
    fn answer(&mut self, _: &Answer<'_>, _: &mut Context<'_>) -> Flow<Self::Next> {
        Flow::Receive
    }

    /// Takes publications: appends to `out` what this client alone gets, and returns the frame that follows it. There
    /// is no context, because a fan-out visits many conversations; `settings` say how the head of an answer looks.
    fn deliver(
        &mut self,
        _: &mut Batch<'_>,
        _out: &mut Vec<u8>,
        _settings: &TransportSettings,
    ) -> Delivered {
        Delivered::NOTHING
    }

    /// The deadline has come. `silence` is the time since bytes came last. `is_busy` tells that it proves nothing:
    /// something waits to be sent, or nothing is received from the peer.
    fn expire(
        &mut self,
        _silence: Duration,
        _is_busy: bool,
        _: &mut Context<'_>,
    ) -> Flow<Self::Next> {
        Flow::Receive
    }

    /// What the conversation waited for without a reply has happened: most of the send queue has left after
    /// [`Flow::AwaitDrain`], or the answer that [`Delivered::completes_answer`] tells of is queued.
    fn drained(&mut self, _: &mut Context<'_>) -> Flow<Self::Next> {
        Flow::Receive
    }

    /// The peer has closed its end: it sends no more, but may still read.
    fn end(&mut self, context: &mut Context<'_>) -> Flow<Self::Next>;

    /// Tells the client why the server ends the connection. `is_incomplete` if segments that were queued before, which
    /// are whole frames and replies, were dropped: what follows them could be misread.
    fn disconnect(&mut self, _: &Disconnect, _is_incomplete: bool, _: &mut Context<'_>) {}

    /// Bytes of heap that it owns: messages and requests that are not finished.
    fn heap_bytes(&self) -> usize {
        0
    }

    /// Frees this heap: the connection closes, and nothing more is received.
    fn release(&mut self) {}
}

/// Has a conversation `receive` bytes that the worker does not keep: its publisher is not paused for them. They are at
/// most one receive buffer.
pub(super) fn receive_unpaused<N>(
    bytes: &mut [u8],
    mut receive: impl FnMut(&mut [u8]) -> Flow<N>,
) -> Flow<N> {
    let mut left = bytes;
    loop {
        let len = left.len();
        match receive(left) {
            Flow::Hold(count) => left = &mut left[len - count..],
            flow => return flow,
        }
    }
}

/// What the worker has to know of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// The transport as which it is counted.
    pub kind: TransportKind,
    /// Its handshake is complete: an HTTP request was answered, or its client is connected.
    pub is_established: bool,
    /// It may publish without waiting for an answer.
    pub publishes: bool,
    /// Replies of the hub are gathered into one answer instead of being written as they come.
    pub collects_answers: bool,
    /// The server API may subscribe it to channels: the client is notified of them.
    pub accepts_server_subscriptions: bool,
    /// Its commands may come in requests of their own: see [`Transport::relay`].
    pub takes_relays: bool,
    /// It waits for [`Transport::drained`].
    pub awaits_drain: bool,
    /// The end of a message that has begun must come in time. Requests have a deadline of their own.
    pub times_messages: bool,
    /// It speaks the command protocol in Protobuf.
    pub is_protobuf: bool,
}

impl Traits {
    /// A transport that is counted as `kind`, and for which nothing else holds.
    pub const fn of(kind: TransportKind) -> Self {
        Self {
            kind,
            is_established: true,
            publishes: false,
            collects_answers: false,
            accepts_server_subscriptions: false,
            takes_relays: false,
            awaits_drain: false,
            times_messages: false,
            is_protobuf: false,
        }
    }
}
