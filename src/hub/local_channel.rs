//! A channel on a worker with subscribers of it, and the lists of these subscribers: the ring that fan-outs visit,
//! those that wait for the home's answer, and those that are behind.

use slab::Slab;

use super::backlog::Backlog;
use super::name_table::Named;
use super::slots::{NONE, some};
use crate::config::limits::SUBSCRIPTION_BYTES_MAX;
use crate::config::{ChannelOptions, NamespaceId};
use crate::message::{
    ChannelName, Epoch, Origin, Position, Rendition, RequestId, SubscriptionForm, Ticket,
};

/// A channel on a worker with subscribers of it.
#[derive(Debug)]
pub(super) struct LocalChannel {
    pub name: ChannelName,
    /// The position of the last publication that arrived, or that of the home's answer.
    position: Position,
    /// Whether the home has answered.
    is_granted: bool,
    /// The number of items that have started a fan-out here, which is the arrival number of the next one.
    pub arrivals: u64,
    /// The serial of the interest that was sent to the home.
    pub serial: u32,
    /// The slot of the fan-out in progress, or [`NONE`].
    pub fan_out: u32,
    pub namespace: NamespaceId,
    /// The number of subscribers that have joined, including those that are behind.
    pub subscribers: u32,
    /// Whether some subscriber takes deltas.
    pub has_deltas: bool,
    /// The backlog, if its options require one.
    pub backlog: Option<Box<Backlog>>,
    joined: Ring,
    waiting: List,
    /// Subscribers that fan-outs do not visit: those that are behind, and those that wait for a recovery.
    apart: List,
}

/// The subscription of a session to a channel: a node in a list of each.
#[derive(Debug)]
pub(super) struct Subscription {
    /// The index of the session.
    pub session: u32,
    /// The slot of the local channel.
    pub channel: u32,
    pub next_in_session: u32,
    next: u32,
    previous: u32,
    /// While it waits: the serial of its request, and the ticket, or 0 if the server API made the request. Once joined:
    /// two arrival numbers, see [`Subscription::given`] and [`Subscription::joined_at`]. While behind: the offset of
    /// the first publication that it has not received.
    number: u64,
    state: State,
    form: Form,
}

/// What a subscriber gets of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// All publications as they are.
    Plain,
    /// The publications that fit its filter.
    Filtered,
    /// Deltas, but the next publication whole.
    DeltasNext,
    /// Deltas: it has the publication before the one that it gets next.
    Deltas,
}

/// The state of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for the home's answer to the interest of this worker.
    Waiting,
    /// Waits for the home's answer to its own request to recover.
    Recovering,
    /// Is visited by fan-outs.
    Joined,
    /// Is not visited, because its socket accepts no more bytes; it catches up once the socket does.
    Behind,
}

// A million channels have this size a million times.
const _: () = assert!(size_of::<Option<LocalChannel>>() <= 96);
const _: () = assert!(size_of::<Subscription>() <= SUBSCRIPTION_BYTES_MAX);
// The entry of a slab must not take a word more than the subscription.
const _: () = assert!(size_of::<Option<Subscription>>() <= SUBSCRIPTION_BYTES_MAX);

/// A list through [`Subscription::next`].
#[derive(Debug)]
struct List {
    head: u32,
    tail: u32,
}

/// A ring through [`Subscription::next`], and the subscriber that is visited next.
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

/// What a session has of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionState {
    /// It is not subscribed.
    None,
    /// Its request to subscribe is not replied to yet.
    Pending,
    /// It is subscribed.
    Joined,
}

impl Subscription {
    /// A subscription whose request is pending. With `recovers`, it waits for a recovery from the home.
    pub(super) fn new(
        session: u32,
        channel: u32,
        id: RequestId,
        recovers: bool,
        form: Form,
    ) -> Self {
        let RequestId { serial, origin } = id;
        Self {
            session,
            channel,
            next_in_session: NONE,
            next: NONE,
            previous: NONE,
            number: u64::from(serial) << 32 | u64::from(ticket_number(origin)),
            state: if recovers { State::Recovering } else { State::Waiting },
            form,
        }
    }

    /// Whether it gets only what fits its filter.
    pub(super) fn is_filtered(&self) -> bool {
        self.form == Form::Filtered
    }

    /// Whether it takes deltas.
    pub(super) fn takes_deltas(&self) -> bool {
        matches!(self.form, Form::DeltasNext | Form::Deltas)
    }

    /// How the next publication is written for it.
    pub(super) fn rendition(&self) -> Rendition {
        match self.form {
            Form::Plain | Form::Filtered => Rendition::Plain,
            Form::DeltasNext => Rendition::Whole,
            Form::Deltas => Rendition::Delta,
        }
    }

    /// Records whether a subscriber that takes deltas has the publication before the one that it gets next.
    pub(super) fn set_predecessor(&mut self, has_it: bool) {
        if self.takes_deltas() {
            self.form = if has_it { Form::Deltas } else { Form::DeltasNext };
        }
    }

    /// Its request to subscribe, while that is pending.
    pub(super) fn waits_for(&self) -> Option<RequestId> {
        let waits = matches!(self.state, State::Waiting | State::Recovering);
        let origin = Ticket::new(self.number as u32).map_or(Origin::Server, Origin::Client);
        waits.then_some(RequestId { serial: (self.number >> 32) as u32, origin })
    }

    /// The serial of its request to recover, while that is pending.
    pub(super) fn recovery(&self) -> Option<u32> {
        (self.state == State::Recovering).then_some((self.number >> 32) as u32)
    }

    /// Whether fan-outs visit it.
    pub(super) fn is_joined(&self) -> bool {
        self.state == State::Joined
    }

    /// The arrival number before which this subscriber has received everything that is for it. Only while joined. Its
    /// low 32 bits suffice, because far fewer items are in flight together.
    pub(super) fn given(&self) -> u32 {
        debug_assert_eq!(self.state, State::Joined);
        self.number as u32
    }

    /// The arrival number of the first item that is for this subscriber, until it has received one; then the same as
    /// [`Subscription::given`].
    pub(super) fn joined_at(&self) -> u32 {
        debug_assert_eq!(self.state, State::Joined);
        (self.number >> 32) as u32
    }

    /// Records that the subscriber has received everything before this arrival number.
    pub(super) fn give(&mut self, until: u32) {
        let joined_at = self.joined_at();
        let is_past = until.wrapping_sub(joined_at) as i32 >= 0;
        self.set_arrivals(until, if is_past { until } else { joined_at });
    }

    fn set_arrivals(&mut self, given: u32, joined_at: u32) {
        self.number = u64::from(given) | u64::from(joined_at) << 32;
    }

    /// The offset of the first publication that a subscriber which is behind has not received.
    pub(super) fn is_behind_from(&self) -> Option<u64> {
        (self.state == State::Behind).then_some(self.number)
    }
}

impl Form {
    /// What a channel with these options allows of what a client asks for.
    pub(super) fn of(form: &SubscriptionForm, options: &ChannelOptions) -> Self {
        match form {
            // As with Centrifugo, a subscriber with a filter gets no deltas.
            SubscriptionForm { filter: Some(_), .. } => Form::Filtered,
            SubscriptionForm { takes_deltas: true, .. } if options.allows_deltas => {
                Form::DeltasNext
            }
            SubscriptionForm { .. } => Form::Plain,
        }
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
            has_deltas: false,
            backlog: Backlog::is_wanted(options).then(Box::default),
            joined: Ring { cursor: NONE },
            waiting: List::EMPTY,
            apart: List::EMPTY,
        }
    }

    /// The position of the stream for subscribers that join now; `None` until the home has answered.
    pub(super) fn position(&self) -> Option<Position> {
        self.is_granted.then_some(self.position)
    }

    /// The offset of the next publication to arrive, if none before it is dropped.
    pub(super) fn next_offset(&self) -> u64 {
        self.position.offset + 1
    }

    /// Sets the position of the stream.
    pub(super) fn advance(&mut self, position: Position) {
        self.position = position;
        self.is_granted = true;
    }

    /// The joined subscriber to visit next, or [`NONE`].
    pub(super) fn cursor(&self) -> u32 {
        self.joined.cursor
    }

    /// Moves on to the subscriber after the one that was visited.
    pub(super) fn move_cursor(&mut self, subscriptions: &Slab<Subscription>) {
        self.joined.cursor = subscriptions[self.joined.cursor as usize].next;
    }

    pub(super) fn first_waiting(&self) -> Option<u32> {
        some(self.waiting.head)
    }

    /// Whether there are subscribers that fan-outs do not visit.
    pub(super) fn has_apart(&self) -> bool {
        self.apart.head != NONE
    }

    /// All subscribers, with their slots, but those that wait for the home's answer to the interest of this worker.
    pub(super) fn members<'a>(
        &self,
        subscriptions: &'a Slab<Subscription>,
    ) -> impl Iterator<Item = (u32, &'a Subscription)> + use<'a> {
        let (start, mut at, apart) = (self.joined.cursor, self.joined.cursor, self.apart.head);
        let joined = std::iter::from_fn(move || {
            let slot = some(at)?;
            let node = &subscriptions[slot as usize];
            at = if node.next == start { NONE } else { node.next };
            Some((slot, node))
        });
        let mut at = apart;
        let apart = std::iter::from_fn(move || {
            let slot = some(at)?;
            let node = &subscriptions[slot as usize];
            at = node.next;
            Some((slot, node))
        });
        joined.chain(apart)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joined.cursor == NONE && self.waiting.head == NONE && self.apart.head == NONE
    }

    /// Adds a subscriber that waits for the home's answer.
    pub(super) fn wait(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let list = match subscriptions[at as usize].state {
            State::Waiting => &mut self.waiting,
            State::Recovering => &mut self.apart,
            State::Joined | State::Behind => unreachable!("its request is not answered yet"),
        };
        list.append(at, subscriptions);
    }

    /// Adds a subscriber to the end of the ring: what arrives from now on is for it.
    pub(super) fn join(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let last = some(self.joined.cursor)
            .map(|cursor| subscriptions[cursor as usize].previous)
            .map(|last| subscriptions[last as usize].given());
        let arrivals = self.arrivals as u32;
        let node = &mut subscriptions[at as usize];
        node.state = State::Joined;
        node.set_predecessor(false);
        // The same as the one before it in the ring, so that `given` never decreases from the cursor on.
        node.set_arrivals(last.unwrap_or(arrivals), arrivals);
        self.subscribers += 1;
        self.joined.append(at, subscriptions);
    }

    /// Removes a subscriber from the ring that has not received publications from offset `from` on, or moves the offset
    /// of one that is behind.
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

    /// Removes a subscriber from its list.
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
    /// Adds a node that the cursor reaches last.
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
