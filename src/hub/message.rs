//! What hubs send each other, and what leaves a hub.

use std::collections::VecDeque;
use std::sync::Arc;

use super::gather::{GatherId, Part};
use crate::message::{
    ChannelName, Control, HistoryQuery, Item, Payload, Position, Publication, Recovery, Refusal,
    Reply, RequestId, SessionId, WorkerId,
};

/// What leaves a hub.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum Output {
    /// The reply to a session's request.
    Reply { session: SessionId, id: RequestId, reply: Reply },
    /// A message for a worker's hub, which may be this one.
    Send { to: WorkerId, message: HubMessage },
    /// A message for this hub itself, to be handled after the messages that are queued already: the rest of a long
    /// task.
    Later(HubMessage),
    /// Items of one channel for one session: a slow subscriber that catches up, or one that unsubscribes while
    /// a fan-out is in progress. In order, at least one.
    Deliver { session: SessionId, channel: ChannelName, items: Vec<Item> },
    /// The server API controls a client. The session may have ended meanwhile. The result goes to `receipt` through
    /// [`reply_to`].
    Control { receipt: Receipt, session: SessionId, control: Control },
}

/// What hubs send each other. Messages between two workers arrive in the order in which they were sent.
#[derive(Clone, Debug)]
pub enum HubMessage {
    /// Between a channel's home, which numbers its publications, and the workers with subscribers.
    Stream(StreamMessage),
    /// A question, a part of an answer, or an answer.
    Query(QueryMessage),
}

/// Messages to and from a channel's home worker.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum StreamMessage {
    /// To the home: `from` has subscribers now. Answered with [`StreamMessage::Granted`] of the same `serial`, so that
    /// the answer to an earlier interest is not taken for it.
    Interest { from: WorkerId, channel: ChannelName, serial: u32 },
    /// To the home: `from` has no subscribers any more.
    Disinterest { from: WorkerId, channel: ChannelName },
    /// From the home: every publication after `position` will be delivered.
    Granted { channel: ChannelName, position: Position, serial: u32 },
    /// To the home, in which `from` is interested already: `session` wants what followed `since`. With `needs_all` it
    /// wants nothing unless all of it can be had. Answered with [`StreamMessage::Recovered`] of the same `serial`.
    Recover {
        from: WorkerId,
        session: SessionId,
        channel: ChannelName,
        since: Position,
        needs_all: bool,
        serial: u32,
    },
    /// From the home: the stream stood at `position`. `recovery` is `None` if all was needed and cannot be had.
    Recovered {
        session: SessionId,
        channel: ChannelName,
        position: Position,
        recovery: Option<Recovery>,
        serial: u32,
    },
    /// To the home: number this payload and deliver it, unless a publication with the same key was numbered within the
    /// last five minutes. The position goes to `receipt`.
    Publish {
        channel: ChannelName,
        payload: Payload,
        receipt: Option<Receipt>,
        idempotency_key: Option<Arc<str>>,
    },
    /// From the home: deliver this to every local subscriber.
    Deliver(Arc<Publication>),
    /// To the home: a client joined or left.
    JoinLeave { channel: ChannelName, item: Item },
    /// From the home: deliver this join or leave to every local subscriber.
    DeliverJoinLeave { channel: ChannelName, item: Item },
    /// To the home: a presence reply lists subscribers of a worker. Their leave events are not suppressed from now on.
    Listed(ChannelName),
}

/// Questions about channels and clients, and their answers.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum QueryMessage {
    /// To a channel's home: read its history.
    Read { receipt: Receipt, channel: ChannelName, query: HistoryQuery },
    /// To a channel's home: remove its history.
    Forget { receipt: Receipt, channel: ChannelName },
    /// The reply to a session's request, for the session's worker.
    Answer { receipt: Receipt, reply: Reply },
    /// To a channel's home: have every worker with subscribers count them and list at most `list_max`.
    CountAll { gather: GatherId, channel: ChannelName, list_max: u32 },
    /// To one of `parts` workers with subscribers: count them and list at most `list_max`.
    Count { gather: GatherId, channel: ChannelName, list_max: u32, parts: u16 },
    /// To each worker: list channels that match `pattern`. A worker goes on with slot `from` and what it `found` so
    /// far.
    List { gather: GatherId, pattern: Arc<str>, from: usize, found: Vec<(ChannelName, u64)> },
    /// One of `parts` parts of an answer. `None` if there are none, because no worker has subscribers.
    Part { gather: GatherId, parts: u16, part: Option<Part> },
    /// To a client's worker: the server API controls it.
    Control { receipt: Receipt, session: SessionId, control: Control },
}

/// Where the reply to a request goes.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub struct Receipt {
    pub worker: WorkerId,
    pub session: SessionId,
    pub id: RequestId,
}

impl Output {
    /// A message for a worker.
    pub(super) fn send(to: WorkerId, message: impl Into<HubMessage>) -> Self {
        Output::Send { to, message: message.into() }
    }
}

impl From<StreamMessage> for HubMessage {
    fn from(message: StreamMessage) -> Self {
        HubMessage::Stream(message)
    }
}

impl From<QueryMessage> for HubMessage {
    fn from(message: QueryMessage) -> Self {
        HubMessage::Query(message)
    }
}

/// Replies to the request of a receipt, on whichever worker its session is.
pub fn reply_to(receipt: Receipt, reply: Reply, out: &mut VecDeque<Output>) {
    out.push_back(Output::send(receipt.worker, QueryMessage::Answer { receipt, reply }));
}

/// Refuses a request, if it is to be answered.
pub(super) fn refuse(
    session: SessionId,
    id: Option<RequestId>,
    refusal: Refusal,
    out: &mut VecDeque<Output>,
) {
    if let Some(id) = id {
        out.push_back(Output::Reply { session, id, reply: Reply::Refused(refusal) });
    }
}

/// What a worker's inbox holds for each message.
const _: () = assert!(size_of::<HubMessage>() <= 112);
