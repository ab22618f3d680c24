//! The part of a channel that one worker's subscribers see.

use slab::Slab;

use super::{NONE, some};
use crate::config::limits::SUBSCRIPTION_BYTES_MAX;
use crate::message::{ChannelName, Position, Ticket};

/// A channel on a worker that has subscribers of it.
#[derive(Debug)]
pub(super) struct LocalChannel {
    pub name: ChannelName,
    /// Of the publication that came last, or of the home's answer; `None` until that came.
    pub position: Option<Position>,
    /// Publications that came to this worker: the number of the next one.
    pub arrivals: u64,
    /// Of the question to the home.
    pub serial: u32,
    /// The fan-out in progress.
    pub fan_out: u32,
    joined: List,
    waiting: List,
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
    /// While it waits: the ticket of its request. Once joined: the number of the first arrival that is for it.
    number: u64,
    is_waiting: bool,
}

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
    pub(super) fn new(session: u32, channel: u32, ticket: Ticket) -> Self {
        Self {
            session,
            channel,
            next_in_session: NONE,
            next: NONE,
            previous: NONE,
            number: u64::from(ticket.0),
            is_waiting: true,
        }
    }

    /// The request's ticket. Only while it waits.
    pub(super) fn ticket(&self) -> Ticket {
        debug_assert!(self.is_waiting);
        Ticket(u32::try_from(self.number).expect("a ticket has 32 bits"))
    }

    /// The ticket of its request, if that is not answered yet.
    pub(super) fn waits_for(&self) -> Option<Ticket> {
        self.is_waiting.then(|| self.ticket())
    }

    /// The first arrival that is for this subscriber. Only once joined.
    pub(super) fn joined_at(&self) -> u64 {
        debug_assert!(!self.is_waiting);
        self.number
    }

    /// The one that joined next.
    pub(super) fn next(&self) -> u32 {
        self.next
    }
}

impl LocalChannel {
    pub(super) fn new(name: ChannelName, serial: u32) -> Self {
        Self {
            name,
            position: None,
            arrivals: 0,
            serial,
            fan_out: NONE,
            joined: List::EMPTY,
            waiting: List::EMPTY,
        }
    }

    /// The subscriber that joined first, or [`NONE`].
    pub(super) fn first(&self) -> u32 {
        self.joined.head
    }

    pub(super) fn first_waiting(&self) -> Option<u32> {
        some(self.waiting.head)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joined.head == NONE && self.waiting.head == NONE
    }

    /// Adds a subscriber that waits for the home's answer.
    pub(super) fn wait(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        self.waiting.append(at, subscriptions);
    }

    /// Adds a subscriber behind all others: what arrives from now on is for it.
    pub(super) fn join(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let node = &mut subscriptions[at as usize];
        node.is_waiting = false;
        node.number = self.arrivals;
        self.joined.append(at, subscriptions);
    }

    /// Takes a subscriber out of the list that it is in.
    pub(super) fn unlink(&mut self, at: u32, subscriptions: &mut Slab<Subscription>) {
        let is_waiting = subscriptions[at as usize].is_waiting;
        let list = if is_waiting { &mut self.waiting } else { &mut self.joined };
        list.unlink(at, subscriptions);
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
