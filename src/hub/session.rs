//! The subscriptions of each session, as a list through [`Subscription::next_in_session`]. The caller chooses the ids
//! of sessions; the index of an id is the slot of the session.

use slab::Slab;

use super::local_channel::Subscription;
use super::slots::{NONE, some};
use crate::message::SessionId;

#[derive(Debug)]
pub(super) struct Sessions {
    entries: Vec<Session>,
}

#[derive(Clone, Debug)]
struct Session {
    generation: u32,
    first: u32,
    last: u32,
    count: u32,
}

impl Sessions {
    pub(super) fn with_capacity(sessions_max: usize) -> Self {
        Self { entries: Vec::with_capacity(sessions_max) }
    }

    pub(super) fn open(&mut self, id: SessionId) {
        let at = id.index as usize;
        if at >= self.entries.len() {
            self.entries.resize(at + 1, Session::EMPTY);
        }
        assert_eq!(self.entries[at].count, 0, "a session's index is free when it is opened");
        self.entries[at] = Session { generation: id.generation, ..Session::EMPTY };
    }

    pub(super) fn close(&mut self, id: SessionId) {
        self.entries[id.index as usize] = Session::EMPTY;
    }

    /// Whether this session is open.
    pub(super) fn is_open(&self, id: SessionId) -> bool {
        let session = self.entries.get(id.index as usize);
        session.is_some_and(|session| session.generation == id.generation)
    }

    /// The id of the session at an index.
    pub(super) fn id(&self, index: u32) -> SessionId {
        SessionId { index, generation: self.entries[index as usize].generation }
    }

    /// The oldest subscription of a session.
    pub(super) fn first(&self, id: SessionId) -> Option<u32> {
        some(self.entries[id.index as usize].first)
    }

    pub(super) fn count(&self, id: SessionId) -> usize {
        self.entries[id.index as usize].count as usize
    }

    pub(super) fn append(
        &mut self,
        id: SessionId,
        subscription: u32,
        subscriptions: &mut Slab<Subscription>,
    ) {
        let session = &mut self.entries[id.index as usize];
        match some(session.last) {
            Some(last) => subscriptions[last as usize].next_in_session = subscription,
            None => session.first = subscription,
        }
        session.last = subscription;
        session.count += 1;
    }

    /// Removes a subscription. This walks the list, whose length is the number of the session's subscriptions.
    pub(super) fn unlink(
        &mut self,
        id: SessionId,
        subscription: u32,
        subscriptions: &mut Slab<Subscription>,
    ) {
        let session = &mut self.entries[id.index as usize];
        let next = subscriptions[subscription as usize].next_in_session;
        let mut previous = NONE;
        let mut at = session.first;
        while at != subscription {
            previous = at;
            at = subscriptions[at as usize].next_in_session;
        }
        match some(previous) {
            Some(previous) => subscriptions[previous as usize].next_in_session = next,
            None => session.first = next,
        }
        if next == NONE {
            session.last = previous;
        }
        session.count -= 1;
    }
}

impl Session {
    const EMPTY: Session = Session { generation: 0, first: NONE, last: NONE, count: 0 };
}
