//! The part of a channel that one worker's subscribers see.

use slab::Slab;

use super::backlog::Backlog;
use super::name_table::Named;
use super::slots::{NONE, some};
use crate::config::limits::SUBSCRIPTION_BYTES_MAX;
use crate::config::{ChannelOptions, NamespaceId};
use crate::message::{ChannelName, Epoch, Origin, Position, RequestId, Ticket};

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
    joined: Ring,
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
    /// While it waits: the serial and the ticket of its request, 0 if the server API made it. Joined: two arrivals, see
    /// [`Subscription::given`] and [`Subscription::joined_at`]. Lagging: the offset of the first publication that it
    /// has yet to get.
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
    Behind,
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

/// A chain through [`Subscription::next`] that leads back to where it began, and where its visitor stands.
#[derive(Debug)]
struct Ring {
    cursor: u32,
}

fn ticket_number(origin: Origin) -> u32 {
    match origin {
        Origin::Client(ticket) => ticket.number(),
        Origin::Server => 0,
    }
}

impl Subscription {
    /// A subscription that waits for the reply to a request. `recovers` if it asks the home what followed a position.
    pub(super) fn new(session: u32, channel: u32, id: RequestId, recovers: bool) -> Self {
        let RequestId { serial, origin } = id;
        Self {
            session,
            channel,
            next_in_session: NONE,
            next: NONE,
            previous: NONE,
            number: u64::from(serial) << 32 | u64::from(ticket_number(origin)),
            state: if recovers { State::Recovering } else { State::Waiting },
        }
    }

    /// Its request, if that is not replied to yet.
    pub(super) fn waits_for(&self) -> Option<RequestId> {
        let waits = matches!(self.state, State::Waiting | State::Recovering);
        let origin = Ticket::new(self.number as u32).map_or(Origin::Server, Origin::Client);
        waits.then_some(RequestId { serial: (self.number >> 32) as u32, origin })
    }

    /// The serial of its own question to the home, if that is not answered yet.
    pub(super) fn recovery(&self) -> Option<u32> {
        (self.state == State::Recovering).then_some((self.number >> 32) as u32)
    }

    /// Whether fan-outs visit it.
    pub(super) fn is_joined(&self) -> bool {
        self.state == State::Joined
    }

    /// The arrival before which everything was given to this subscriber, or is not for it. Only while joined. The low
    /// 32 bits of the number: arrivals that are in flight together are far fewer.
    pub(super) fn given(&self) -> u32 {
        debug_assert_eq!(self.state, State::Joined);
        self.number as u32
    }

    /// The first arrival that is for this subscriber, if it has not been given anything yet; else the same as
    /// [`Subscription::given`].
    pub(super) fn joined_at(&self) -> u32 {
        debug_assert_eq!(self.state, State::Joined);
        (self.number >> 32) as u32
    }

    /// It was visited: everything before this arrival was given to it.
    pub(super) fn give(&mut self, until: u32) {
        let joined_at = self.joined_at();
        let is_past = until.wrapping_sub(joined_at) as i32 >= 0;
        self.set_arrivals(until, if is_past { until } else { joined_at });
    }

    fn set_arrivals(&mut self, given: u32, joined_at: u32) {
        self.number = u64::from(given) | u64::from(joined_at) << 32;
    }

    /// The offset of the first publication that a laggard has yet to get.
    pub(super) fn is_behind_from(&self) -> Option<u64> {
        (self.state == State::Behind).then_some(self.number)
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
            joined: Ring { cursor: NONE },
            waiting: List::EMPTY,
            apart: List::EMPTY,
        }
    }

    /// Where the stream stands for who joins now; `None` until the home's answer came.
    pub(super) fn position(&self) -> Option<Position> {
        self.is_granted.then_some(self.position)
    }

    /// The offset that the next publication to arrive has, if none is dropped in front of it.
    pub(super) fn next_offset(&self) -> u64 {
        self.position.offset + 1
    }

    /// The stream stands here now.
    pub(super) fn advance(&mut self, position: Position) {
        self.position = position;
        self.is_granted = true;
    }

    /// The joined subscriber to visit next, or [`NONE`].
    pub(super) fn cursor(&self) -> u32 {
        self.joined.cursor
    }

    /// The subscriber at the cursor was visited: the next one is the one behind it.
    pub(super) fn move_cursor(&mut self, subscriptions: &Slab<Subscription>) {
        self.joined.cursor = subscriptions[self.joined.cursor as usize].next;
    }

    pub(super) fn first_waiting(&self) -> Option<u32> {
        some(self.waiting.head)
    }

    /// Whether there are subscribers whose fan-out is not that of the others.
    pub(super) fn has_apart(&self) -> bool {
        self.apart.head != NONE
    }

    /// Joined subscribers, and those apart.
    pub(super) fn members<'a>(
        &self,
        subscriptions: &'a Slab<Subscription>,
    ) -> impl Iterator<Item = &'a Subscription> + use<'a> {
        let (start, mut at, apart) = (self.joined.cursor, self.joined.cursor, self.apart.head);
        let joined = std::iter::from_fn(move || {
            let node = &subscriptions[some(at)? as usize];
            at = if node.next == start { NONE } else { node.next };
            Some(node)
        });
        let mut at = apart;
        let apart = std::iter::from_fn(move || {
            let node = &subscriptions[some(at)? as usize];
            at = node.next;
            Some(node)
        });
        joined.chain(apart)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joined.cursor == NONE && self.waiting.head == NONE && self.apart.head == NONE
    }

    /// Adds a subscriber that waits for an answer of the home.
    pub(super) fn wait(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let list = match subscriptions[at as usize].state {
            State::Waiting => &mut self.waiting,
            State::Recovering => &mut self.apart,
            State::Joined | State::Behind => unreachable!("its request is not answered yet"),
        };
        list.append(at, subscriptions);
    }

    /// Adds a subscriber behind all others: what arrives from now on is for it.
    pub(super) fn join(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let last = some(self.joined.cursor)
            .map(|cursor| subscriptions[cursor as usize].previous)
            .map(|last| subscriptions[last as usize].given());
        let arrivals = self.arrivals as u32;
        let node = &mut subscriptions[at as usize];
        node.state = State::Joined;
        // As much as the one before it in the ring, so that what was given never falls from the cursor on.
        node.set_arrivals(last.unwrap_or(arrivals), arrivals);
        self.subscribers += 1;
        self.joined.append(at, subscriptions);
    }

    /// Takes a joined subscriber aside, or a laggard on: publications from offset `from` on are yet to be given to it.
    pub(super) fn fall_behind(
        &mut self,
        at: u32,
        from: u64,
        subscriptions: &mut Slab<Subscription>,
    ) {
        self.unlink(at, subscriptions);
        let node = &mut subscriptions[at as usize];
        node.state = State::Behind;
        node.number = from;
        self.subscribers += 1;
        self.apart.append(at, subscriptions);
    }

    /// Takes a subscriber out of the list that it is in.
    pub(super) fn unlink(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let state = subscriptions[at as usize].state;
        self.subscribers -= u32::from(matches!(state, State::Joined | State::Behind));
        match state {
            State::Joined => self.joined.unlink(at, subscriptions),
            State::Waiting => self.waiting.unlink(at, subscriptions),
            State::Recovering | State::Behind => self.apart.unlink(at, subscriptions),
        }
    }
}

impl Ring {
    /// Adds a node that the cursor comes to last.
    fn append(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let next = some(self.cursor).unwrap_or(at);
        let previous = some(self.cursor).map_or(at, |next| subscriptions[next as usize].previous);
        let node = &mut subscriptions[at as usize];
        (node.previous, node.next) = (previous, next);
        subscriptions[previous as usize].next = at;
        subscriptions[next as usize].previous = at;
        self.cursor = next;
    }

    fn unlink(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let node = &subscriptions[at as usize];
        let (previous, next) = (node.previous, node.next);
        subscriptions[previous as usize].next = next;
        subscriptions[next as usize].previous = previous;
        if self.cursor == at {
            self.cursor = if next == at { NONE } else { next };
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
