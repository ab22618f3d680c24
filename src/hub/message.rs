//! The messages between hubs, and the outputs of a hub.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::message::{
    ChannelName, ChannelPattern, ClientId, ClientInfo, ConnectionInfo, Control, HistoryQuery, Item,
    Payload, Position, Publication, PublishOptions, Recovery, Refusal, Rendition, Reply, RequestId,
    Selection, SessionId, SubscriptionForm, SubscriptionOptions, TagsFilter, UserCommand, WorkerId,
};

/// An output of a hub, for its worker to carry out.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum HubOutput {
    /// The reply to a session's request.
    Reply { session: SessionId, id: RequestId, reply: Reply },
    /// A message to the hub of a worker, which may be this one.
    Send { to: WorkerId, message: HubMessage },
    /// A message to this hub itself, to be handled after all messages that are already queued: the rest of a long task.
    Later(HubMessage),
    /// Items of one channel for one session, in order, at least one: for a slow subscriber that catches up, or for one
    /// that unsubscribes while a fan-out is in progress.
    Deliver { session: SessionId, channel: ChannelName, items: Vec<Item>, rendition: Rendition },
    /// The identity of the client of a session has expired.
    Expired { session: SessionId },
    /// The backend is to be asked whether a subscription that has expired goes on.
    SubscriptionDue { session: SessionId, channel: ChannelName },
    /// A command of the server API for a session, which may have ended meanwhile. The result goes to its receipt
    /// through [`reply_to`].
    Control(Box<ControlOne>),
    /// A step of a call of the server API that concerns several connections.
    Survey(Survey),
}

/// The author of a publication, as subscribers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// The client of the session that publishes.
    Client,
    /// No client that a subscriber could know: the server API, or a single request over HTTP that does not say who its
    /// client is.
    Unknown,
}

/// A message between hubs. Messages between two workers arrive in the order in which they were sent.
#[derive(Clone, Debug)]
pub enum HubMessage {
    /// A message between a channel's home and the workers with subscribers of the channel.
    Stream(StreamMessage),
    /// A question, or a part of its answer.
    Query(QueryMessage),
}

/// Messages to and from a channel's home worker.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum StreamMessage {
    /// To the home: `from` has subscribers now. Answered with [`StreamMessage::Granted`] of the same `serial`, which
    /// distinguishes it from the answer to an earlier interest.
    Interest { from: WorkerId, channel: ChannelName, serial: u32 },
    /// To the home: `from` has no more subscribers.
    Disinterest { from: WorkerId, channel: ChannelName },
    /// From the home: every publication after `position` will be delivered.
    Granted { channel: ChannelName, position: Position, serial: u32 },
    /// To the home, to which `from` has sent its interest before: `session` wants the publications after `since`. With
    /// `needs_all`, it is refused unless all of them are available. Answered with [`StreamMessage::Recovered`] of the
    /// same `serial`.
    Recover {
        from: WorkerId,
        session: SessionId,
        channel: ChannelName,
        since: Position,
        needs_all: bool,
        /// Replaces the option `recovery` of the channel.
        recovers: Option<bool>,
        /// The publications that the session wants; `None` for all.
        filter: Option<Arc<TagsFilter>>,
        serial: u32,
    },
    /// From the home: the publications up to `position`. Without `recovery`, all were needed and some are lost.
    Recovered {
        session: SessionId,
        channel: ChannelName,
        position: Position,
        recovery: Option<Recovery>,
        serial: u32,
    },
    /// To the home: number and deliver this payload of a client or of the server API, unless the options say otherwise.
    /// The position is the reply to the request `id`, if there is one.
    Publish {
        channel: ChannelName,
        payload: Payload,
        publisher: ClientId,
        /// What subscribers see of the client; `None` if the server API publishes.
        info: Option<Arc<ClientInfo>>,
        id: Option<RequestId>,
        options: Option<Arc<PublishOptions>>,
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
    /// To a session's worker: the reply to a request of the session.
    Answer { receipt: Receipt, reply: Reply },
    /// To a channel's home: have every worker with subscribers count them and list at most `list_max`.
    CountAll { gather: GatherId, channel: ChannelName, list_max: u32 },
    /// To one of `parts` workers with subscribers: count them and list at most `list_max`.
    Count { gather: GatherId, channel: ChannelName, list_max: u32, parts: u16 },
    /// To each worker: list channels that match `pattern`. A worker sends it to itself to continue at slot `from` with
    /// the channels that it has `found` so far.
    List {
        gather: GatherId,
        pattern: Arc<ChannelPattern>,
        from: usize,
        found: Vec<(ChannelName, u64)>,
    },
    /// One of `parts` parts of an answer; `None` with 0 parts, if no worker has subscribers.
    Part { gather: GatherId, parts: u16, part: Option<Part> },
    /// To a client's worker: a command of the server API for the client, if it acts for the user.
    Control(Box<ControlOne>),
    /// To each worker: a call of the server API that concerns several connections. A worker sends it to itself to
    /// continue.
    Survey(Survey),
}

/// Identifies a question on the worker whose session asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherId {
    /// The worker of the session that asks.
    pub worker: WorkerId,
    pub(super) key: u32,
    pub(super) serial: u32,
}

/// The part of an answer that one worker has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// The subscribers of a channel on that worker.
    Presence(Present),
    /// Channels with subscribers on that worker, each with their number.
    Channels(Vec<(ChannelName, u64)>),
    /// Connections of that worker, and whether it has more.
    Connections(Vec<ConnectionInfo>, bool),
    /// That worker has done it, or why not.
    Done(Result<(), Refusal>),
}

/// A command of the server API for one client.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub struct ControlOne {
    pub receipt: Receipt,
    pub session: SessionId,
    /// The user that it must act for, empty if it must be anonymous; `None` for whichever.
    pub user: Option<Arc<str>>,
    pub control: Control,
}

/// A call of the server API, on its way through the connections of a worker.
#[derive(Clone, Debug)]
pub struct Survey {
    pub(super) gather: GatherId,
    /// What to do.
    pub task: Arc<SurveyTask>,
    /// Where to continue.
    pub from: usize,
    /// Connections to list that were found so far.
    pub found: Vec<ConnectionInfo>,
}

/// What a call does with connections.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub enum SurveyTask {
    /// Controls the clients of a user.
    Control(UserCommand),
    /// Lists connections, and their channels too with `with_channels`.
    List { selection: Selection, with_channels: bool },
    /// Blocks a user until a time, in seconds since the Unix epoch, and closes its connections.
    Block { user: Arc<str>, until: u64 },
}

/// A request to subscribe that was permitted.
#[derive(Debug)]
pub(super) struct Subscribe {
    pub session: SessionId,
    pub id: RequestId,
    pub channel: ChannelName,
    /// The position after which the session wants all publications, and whether it is refused if some are lost.
    pub since: Option<(Position, bool)>,
    /// What the session wants of the channel.
    pub form: SubscriptionForm,
    /// What the backend says about the subscription.
    pub options: Option<Box<SubscriptionOptions>>,
}

/// Subscribers of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// Some of them, if they are to be listed.
    pub clients: Vec<ClientInfo>,
    /// The number of all of them.
    pub client_count: u64,
    /// If they are not to be listed: the hashes of their users, each once and in order.
    pub users: Vec<u64>,
    /// The number of subscribers whose users are not among `users`, because they are too many.
    pub more: u64,
}

/// The address of a reply: the request, and the worker of its session.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the names of these fields say what they are")]
pub struct Receipt {
    pub worker: WorkerId,
    pub session: SessionId,
    pub id: RequestId,
}

impl HubOutput {
    /// Creates a message to a worker.
    pub(super) fn send(to: WorkerId, message: impl Into<HubMessage>) -> Self {
        HubOutput::Send { to, message: message.into() }
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

/// Sends the reply to a request to the worker of its session.
pub fn reply_to(receipt: Receipt, reply: Reply, out: &mut VecDeque<HubOutput>) {
    out.push_back(HubOutput::send(receipt.worker, QueryMessage::Answer { receipt, reply }));
}

/// Sends one of `parts` parts of an answer to the worker whose session asks.
pub(super) fn send_part(
    gather: GatherId,
    parts: u16,
    part: Option<Part>,
    out: &mut VecDeque<HubOutput>,
) {
    out.push_back(HubOutput::send(gather.worker, QueryMessage::Part { gather, parts, part }));
}

/// Refuses a request of a session of this worker. Without an id, it gets no reply.
pub(super) fn refuse(
    session: SessionId,
    id: Option<RequestId>,
    refusal: Refusal,
    out: &mut VecDeque<HubOutput>,
) {
    if let Some(id) = id {
        out.push_back(HubOutput::Reply { session, id, reply: Reply::Refused(refusal) });
    }
}

// The inbox of a worker holds messages by value.
const _: () = assert!(size_of::<HubMessage>() <= 112);
