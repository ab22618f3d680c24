//! Commands that came in requests of their own and wait until their client may ask for something: in their order, and
//! up to a limit.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::message::SessionId;

/// Commands that wait for their session.
#[derive(Debug, Default)]
pub struct Relays {
    sessions: HashMap<SessionId, Inbox>,
    /// The sessions, the one that is looked at next first.
    order: VecDeque<SessionId>,
    bytes: usize,
    /// The turn ended before all of them were looked at.
    is_cut_short: bool,
}

/// What waits for one session.
#[derive(Debug, Default)]
struct Inbox {
    messages: VecDeque<Bytes>,
    bytes: usize,
}

impl Relays {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether some may be taken at once.
    pub fn is_urgent(&self) -> bool {
        self.is_cut_short
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether some wait for a session.
    pub(super) fn has(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Adds commands behind those of the session that wait. Returns false if there is no room.
    pub(super) fn push(&mut self, session: SessionId, commands: Bytes) -> bool {
        if let Some(inbox) = self.sessions.get(&session)
            && (inbox.bytes + commands.len() > RELAYED_BYTES_MAX
                || inbox.messages.len() >= RELAYED_MESSAGES_MAX)
        {
            return false;
        }
        let inbox = self.sessions.entry(session).or_insert_with(|| {
            self.order.push_back(session);
            Inbox::default()
        });
        inbox.bytes += commands.len();
        self.bytes += commands.len();
        inbox.messages.push_back(commands);
        true
    }

    /// Takes the first of the commands that wait for a session.
    pub(super) fn pop(&mut self, session: SessionId) -> Option<Bytes> {
        let inbox = self.sessions.get_mut(&session)?;
        let commands = inbox.messages.pop_front()?;
        inbox.bytes -= commands.len();
        self.bytes -= commands.len();
        Some(commands)
    }

    /// Takes the session that was not looked at for longest.
    pub(super) fn next(&mut self) -> Option<SessionId> {
        self.order.pop_front()
    }

    /// How many sessions some wait for.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Puts a session back that was taken, unless nothing waits for it any more. One that could not be looked at comes
    /// first in the next turn, which is to begin at once.
    pub(super) fn put_back(&mut self, session: SessionId, is_cut_short: bool) {
        self.is_cut_short = is_cut_short;
        let is_done = self.sessions.get(&session).is_none_or(|inbox| inbox.messages.is_empty());
        match is_cut_short {
            true => self.order.push_front(session),
            false if is_done => self.forget(session),
            false => self.order.push_back(session),
        }
    }

    /// Drops what waits for a session.
    pub(super) fn forget(&mut self, session: SessionId) {
        if let Some(inbox) = self.sessions.remove(&session) {
            self.bytes -= inbox.bytes;
        }
    }
}

/// Bytes of commands that wait for a client because they came in requests of their own and it is not read; one message
/// may exceed it.
const RELAYED_BYTES_MAX: usize = 64 * 1024;

/// Requests whose commands wait for one client.
const RELAYED_MESSAGES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId { index: 1, generation: 1 };
    const OTHER: SessionId = SessionId { index: 1, generation: 2 };

    #[test]
    fn commands_wait_in_their_order() {
        let mut relays = Relays::default();
        assert!(relays.push(ONE, "first".into()) && relays.push(OTHER, "other".into()));
        assert!(relays.push(ONE, "second".into()));
        assert_eq!((relays.bytes(), relays.order.len()), (16, 2));
        assert_eq!(relays.pop(ONE), Some("first".into()));
        assert_eq!(relays.pop(ONE), Some("second".into()));
        assert_eq!((relays.pop(ONE), relays.bytes()), (None, 5));
        relays.forget(OTHER);
        relays.forget(ONE);
        assert!(relays.is_empty() && relays.bytes() == 0);
    }

    #[test]
    fn as_much_waits_as_the_limits_allow_and_one_message_of_any_size() {
        let mut relays = Relays::default();
        let of = |bytes: usize| Bytes::from(vec![b'x'; bytes]);
        assert!(relays.push(ONE, of(RELAYED_BYTES_MAX - 1)) && relays.push(ONE, of(1)));
        assert!(!relays.push(ONE, of(1)));
        assert!(relays.push(OTHER, of(RELAYED_BYTES_MAX + 1)) && !relays.push(OTHER, of(0)));
        let mut relays = Relays::default();
        for _ in 0..RELAYED_MESSAGES_MAX {
            assert!(relays.push(ONE, of(1)));
        }
        assert!(!relays.push(ONE, of(1)));
        assert_eq!(relays.bytes(), RELAYED_MESSAGES_MAX);
    }
}
