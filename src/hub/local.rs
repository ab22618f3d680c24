//! The part of a channel that one worker's subscribers see.

use slab::Slab;

use super::backlog::Backlog;
use super::name_table::Named;
use super::{NONE, some};
use crate::config::limits::SUBSCRIPTION_BYTES_MAX;
use crate::config::{ChannelOptions, NamespaceId};
use crate::message::{ChannelName, Epoch, Position, Ticket};

/// A channel on a worker that has subscribers of it.
#[derive(Debug)]
pub(super) struct LocalChannel {
    pub name: ChannelName,
    /// Of the publication that came last, or of the home's answer.
    position: Position,
    /// Whether that answer came.
    is_granted: bool,
    /// Publications that came to this worker: the number of the next one.
    pub arrivals: u64,
    /// Of the question to the home.
    pub serial: u32,
    /// The fan-out in progress.
    pub fan_out: u32,
    pub namespace: NamespaceId,
    /// Joined ones and laggards.
    pub subscribers: u32,
    /// What its options have it hold back.
    pub backlog: Option<Box<Backlog>>,
    joined: List,
    waiting: List,
    /// Those whose fan-out is not that of the others: laggards, and who waits for what it missed.
    apart: List,
}

/// The tie between a session and a channel: a node of two lists.
#[derive(Debug)]
pub(super) struct Subscription {
    /// Index of the session.
    pub session: u32,
    /// The channel's local part.
    pub channel: u32,
    pub next_in_session: u32,
    next: u32,
    previous: u32,
    /// While it waits: the ticket of its request and the serial of the question. Joined: the number of the first
    /// arrival that is for it. Lagging: the offset of the first publication that it has yet to get.
    number: u64,
    state: State,
}

/// Where a subscription is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// For the home's answer to the channel's question.
    Waiting,
    /// For the home's answer to its own question: what it missed.
    Recovering,
    /// It is visited by fan-outs.
    Joined,
    /// Its socket took no more; it is given what it has yet to get once it does.
    Lagging,
}

// A million channels are what this is about.
const _: () = assert!(size_of::<Option<LocalChannel>>() <= 96);
const _: () = assert!(size_of::<Subscription>() <= SUBSCRIPTION_BYTES_MAX);
// A slab's entry must not cost a word more than what it holds.
const _: () = assert!(size_of::<Option<Subscription>>() <= SUBSCRIPTION_BYTES_MAX);

/// Both ends of a chain through [`Subscription::next`].
#[derive(Debug)]
struct List {
    head: u32,
    tail: u32,
}

impl Subscription {
    /// Of a request with this ticket; `recovery` is the serial of its question to the home, if it has one of its own.
    pub(super) fn new(session: u32, channel: u32, ticket: Ticket, recovery: Option<u32>) -> Self {
        Self {
            session,
            channel,
            next_in_session: NONE,
            next: NONE,
            previous: NONE,
            number: u64::from(ticket.0) | u64::from(recovery.unwrap_or(0)) << 32,
            state: if recovery.is_some() { State::Recovering } else { State::Waiting },
        }
    }

    /// The ticket of its request, if that is not answered yet.
    pub(super) fn waits_for(&self) -> Option<Ticket> {
        let waits = matches!(self.state, State::Waiting | State::Recovering);
        waits.then_some(Ticket((self.number & u64::from(u32::MAX)) as u32))
    }

    /// The serial of its own question to the home, if that is not answered yet.
    pub(super) fn recovery(&self) -> Option<u32> {
        (self.state == State::Recovering).then_some((self.number >> 32) as u32)
    }

    /// The first arrival that is for this subscriber. Only while joined.
    pub(super) fn joined_at(&self) -> u64 {
        debug_assert_eq!(self.state, State::Joined);
        self.number
    }

    /// The offset of the first publication that a laggard has yet to get.
    pub(super) fn lags_from(&self) -> Option<u64> {
        (self.state == State::Lagging).then_some(self.number)
    }

    /// The one that joined next.
    pub(super) fn next(&self) -> u32 {
        self.next
    }
}

impl Named for LocalChannel {
    fn name(&self) -> &ChannelName {
        &self.name
    }
}

impl LocalChannel {
    pub(super) fn new(
        name: ChannelName,
        serial: u32,
        namespace: NamespaceId,
        options: &ChannelOptions,
    ) -> Self {
        Self {
            name,
            position: Position { epoch: Epoch(0), offset: 0 },
            is_granted: false,
            arrivals: 0,
            serial,
            fan_out: NONE,
            namespace,
            subscribers: 0,
            backlog: Backlog::is_wanted(options).then(Box::default),
            joined: List::EMPTY,
            waiting: List::EMPTY,
            apart: List::EMPTY,
        }
    }

    /// Where the stream stands for who joins now; `None` until the home's answer came.
    pub(super) fn position(&self) -> Option<Position> {
        self.is_granted.then_some(self.position)
    }

    /// The stream stands here now.
    pub(super) fn advance(&mut self, position: Position) {
        self.position = position;
        self.is_granted = true;
    }

    /// The subscriber that joined first, or [`NONE`].
    pub(super) fn first(&self) -> u32 {
        self.joined.head
    }

    pub(super) fn first_waiting(&self) -> Option<u32> {
        some(self.waiting.head)
    }

    /// The first one of those apart.
    pub(super) fn first_apart(&self) -> u32 {
        self.apart.head
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joined.head == NONE && self.waiting.head == NONE && self.apart.head == NONE
    }

    /// Adds a subscriber that waits for an answer of the home.
    pub(super) fn wait(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let state = subscriptions[at as usize].state;
        self.list(state).append(at, subscriptions);
    }

    /// Adds a subscriber behind all others: what arrives from now on is for it.
    pub(super) fn join(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let node = &mut subscriptions[at as usize];
        node.state = State::Joined;
        node.number = self.arrivals;
        self.subscribers += 1;
        self.joined.append(at, subscriptions);
    }

    /// Takes a joined subscriber aside, or a laggard on: publications from offset `from` on are yet to be given to it.
    pub(super) fn lag(&mut self, at: u32, from: u64, subscriptions: &mut Slab<Subscription>) {
        self.unlink(at, subscriptions);
        let node = &mut subscriptions[at as usize];
        node.state = State::Lagging;
        node.number = from;
        self.subscribers += 1;
        self.apart.append(at, subscriptions);
    }

    /// Takes a subscriber out of the list that it is in.
    pub(super) fn unlink(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let state = subscriptions[at as usize].state;
        self.subscribers -= u32::from(matches!(state, State::Joined | State::Lagging));
        self.list(state).unlink(at, subscriptions);
    }

    fn list(&mut self, state: State) -> &mut List {
        match state {
            State::Joined => &mut self.joined,
            State::Waiting => &mut self.waiting,
            State::Recovering | State::Lagging => &mut self.apart,
        }
    }
}

impl List {
    const EMPTY: List = List { head: NONE, tail: NONE };

    fn append(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let node = &mut subscriptions[at as usize];
        node.previous = self.tail;
        node.next = NONE;
        match some(self.tail) {
            Some(tail) => subscriptions[tail as usize].next = at,
            None => self.head = at,
        }
        self.tail = at;
    }

    fn unlink(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let (previous, next) = {
            let node = &subscriptions[at as usize];
            (node.previous, node.next)
        };
        match some(previous) {
            Some(previous) => subscriptions[previous as usize].next = next,
            None => self.head = next,
        }
        match some(next) {
            Some(next) => subscriptions[next as usize].previous = previous,
            None => self.tail = previous,
        }
    }
}
