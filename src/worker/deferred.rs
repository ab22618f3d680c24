//! Requests with long answers: a bounded number under way at once, so that others are served between them.
//!
//! A recovery, a history or a presence list may have megabytes, and thousands of clients may ask for one at the same
//! moment. A bounded number of requests is made at once; the others wait here, session by session in turns, and each
//! reply lets the next one go. A session is read no further while one of its requests waits, and what it asked
//! behind it waits too: its requests keep their order, and what waits is bounded by what was read already.
//!
//! A client whose answers go to its send queue has one recovery or history under way, and the next one is made when
//! most of that has left: no queue gets more than one of them.
//!
//! Requests with a token wait here too once a turn has verified as many as it may, because a signature takes up to a
//! fifth of a millisecond. They have a line of their own, so that others do not wait for a storm of tokens.

use std::collections::{HashMap, VecDeque};

use crate::config::limits::{
    ANSWERED_BYTES_PER_TURN_MAX, ANSWERS_AWAITED_MAX, DEFERRED_PER_CONNECTION_MAX,
    TOKENS_PER_TURN_MAX,
};
use crate::message::{
    HistoryQuery, Origin, Publication, Reply, Request, RequestId, SessionId, SessionRequest,
};

/// Requests of sessions that wait, and those whose answers are under way.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    /// The serial of the last request that was made.
    serial: u32,
    sessions: HashMap<SessionId, Requester>,
    /// Sessions whose next request may be made, in turns.
    ready: VecDeque<SessionId>,
    /// The same of sessions whose next request has a token.
    unverified: VecDeque<SessionId>,
    /// Tokens that may still be verified in this turn.
    tokens_left: usize,
    /// Long answers that are under way, of all sessions.
    awaited: usize,
    bytes: usize,
    /// Bytes of long answers that were written in this turn.
    answered_bytes: usize,
}

/// A session with requests that wait, or whose answers are under way.
#[derive(Debug, Default)]
struct Requester {
    waiting: VecDeque<SessionRequest>,
    bytes: usize,
    /// Long answers that are under way, by the serials of their requests.
    awaited: Vec<(u32, AnswerKind)>,
    is_ready: bool,
    /// Whether a request in front of all of these waits for the backend.
    is_held: bool,
}

/// Where a session waits for its turn.
#[derive(Clone, Copy, Debug)]
enum Line {
    Ready,
    Unverified,
}

/// What it takes to answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerKind {
    /// A few bytes, at once.
    Short,
    /// Parts of several workers.
    Gathered,
    /// Publications, as many as one answer may have.
    Publications,
}

impl AnswerKind {
    pub(super) fn to(request: &Request) -> Self {
        match request {
            // It asks for the position only.
            Request::History { query: HistoryQuery { limit: Some(0), .. }, .. } => {
                AnswerKind::Short
            }
            Request::Subscribe { since: Some(_), .. } | Request::History { .. } => {
                AnswerKind::Publications
            }
            Request::Presence { .. }
            | Request::Channels { .. }
            | Request::ControlUser(_)
            | Request::Connections { .. }
            | Request::Block { .. } => AnswerKind::Gathered,
            Request::Connect(_)
            | Request::Refresh { .. }
            | Request::RefreshSubscription { .. }
            | Request::Subscribe { since: None, .. }
            | Request::Unsubscribe { .. }
            | Request::Publish { .. }
            | Request::Call { .. }
            | Request::HistoryRemove { .. }
            | Request::Control { .. } => AnswerKind::Short,
        }
    }
}

impl Requester {
    /// Whether a request may be made now, as far as its session goes.
    fn may_ask(&self, answer: AnswerKind, is_collected: bool) -> bool {
        let is_long = |(_, other): &(u32, AnswerKind)| *other == AnswerKind::Publications;
        answer != AnswerKind::Publications || is_collected || !self.awaited.iter().any(is_long)
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.awaited.is_empty() && !self.is_held
    }
}

impl Deferred {
    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.answered_bytes = 0;
        self.tokens_left = TOKENS_PER_TURN_MAX;
    }

    /// Whether as many bytes of long answers were written in this turn as may be.
    pub(super) fn is_turn_full(&self) -> bool {
        self.answered_bytes >= ANSWERED_BYTES_PER_TURN_MAX
    }

    /// Whether a request that waits may be made in the next turn.
    pub(super) fn is_urgent(&self) -> bool {
        let may_ask = self.awaited < ANSWERS_AWAITED_MAX;
        may_ask && !self.ready.is_empty() || !self.unverified.is_empty()
    }

    /// Whether a token may be verified at once; it counts as verified then.
    pub(super) fn admits_token(&mut self) -> bool {
        let admits = self.unverified.is_empty() && self.tokens_left > 0;
        self.tokens_left -= usize::from(admits);
        admits
    }

    /// What waits here.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What a session has waiting here.
    pub(super) fn bytes_of(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |requester| requester.bytes)
    }

    /// Whether a request may be made at once, by a session that has nothing waiting.
    pub(super) fn admits(
        &self,
        session: SessionId,
        answer: AnswerKind,
        is_collected: bool,
    ) -> bool {
        self.ready.is_empty()
            && self.awaited < ANSWERS_AWAITED_MAX
            && !self.is_turn_full()
            && self
                .sessions
                .get(&session)
                .is_none_or(|requester| requester.may_ask(answer, is_collected))
    }

    /// A request is made: its answer is under way.
    pub(super) fn await_answer(&mut self, session: SessionId, id: RequestId, answer: AnswerKind) {
        self.sessions.entry(session).or_default().awaited.push((id.serial, answer));
        self.awaited += 1;
    }

    /// Has a request wait. Gives it back if its session has as many waiting as may be.
    pub(super) fn push(
        &mut self,
        session: SessionId,
        request: SessionRequest,
    ) -> Result<(), SessionRequest> {
        let requester = self.sessions.entry(session).or_default();
        if requester.waiting.len() >= DEFERRED_PER_CONNECTION_MAX {
            return Err(request);
        }
        let bytes = cost(&request);
        requester.bytes += bytes;
        self.bytes += bytes;
        requester.waiting.push_back(request);
        self.wake(session);
        Ok(())
    }

    /// Has a request wait in front of those of its session that wait already.
    pub(super) fn push_front(&mut self, session: SessionId, request: SessionRequest) {
        let requester = self.sessions.entry(session).or_default();
        let bytes = cost(&request);
        requester.bytes += bytes;
        self.bytes += bytes;
        requester.waiting.push_front(request);
        self.wake(session);
    }

    /// A request of a session waits for the backend from now on, or does so no longer.
    pub(super) fn set_held(&mut self, session: SessionId, is_held: bool) {
        let requester = self.sessions.entry(session).or_default();
        requester.is_held = is_held;
        if requester.is_idle() {
            self.sessions.remove(&session);
        } else if !is_held {
            self.wake(session);
        }
    }

    /// Whether a request of a session waits, here or for the backend.
    pub(super) fn has_waiting(&self, session: SessionId) -> bool {
        let waits = |requester: &Requester| requester.is_held || !requester.waiting.is_empty();
        self.sessions.get(&session).is_some_and(waits)
    }

    /// Something changed for a session: its next request may be possible now.
    pub(super) fn wake(&mut self, session: SessionId) {
        if let Some(requester) = self.sessions.get_mut(&session)
            && !requester.is_ready
            && !requester.waiting.is_empty()
        {
            requester.is_ready = true;
            let has_token =
                requester.waiting.front().is_some_and(|it| it.request.token().is_some());
            match has_token {
                true => self.unverified.push_back(session),
                false => self.ready.push_back(session),
            }
        }
    }

    /// The next request that may be made, and whether it was its session's last one here. `state` tells whether a
    /// session's queue has room, and whether its answers are collected elsewhere.
    pub(super) fn pop(
        &mut self,
        mut state: impl FnMut(SessionId) -> (bool, bool),
    ) -> Option<(SessionId, SessionRequest, bool)> {
        if self.tokens_left > 0
            && let Some(next) = self.pop_from(Line::Unverified, &mut state)
        {
            self.tokens_left -= 1;
            return Some(next);
        }
        self.pop_from(Line::Ready, &mut state)
    }

    fn pop_from(
        &mut self,
        line: Line,
        state: &mut impl FnMut(SessionId) -> (bool, bool),
    ) -> Option<(SessionId, SessionRequest, bool)> {
        while let Some(session) = self.line(line).pop_front() {
            // It may have left.
            let Some(requester) = self.sessions.get_mut(&session) else { continue };
            let Some(request) = requester.waiting.front() else { continue };
            if requester.is_held {
                requester.is_ready = false;
                continue;
            }
            let answer = AnswerKind::to(&request.request);
            if answer != AnswerKind::Short && self.awaited >= ANSWERS_AWAITED_MAX {
                self.line(line).push_front(session);
                return None;
            }
            let (has_room, is_collected) = state(session);
            requester.is_ready = false;
            // It is woken when its queue is nearly empty, or by the reply that it waits for.
            if answer != AnswerKind::Short && !(has_room && requester.may_ask(answer, is_collected))
            {
                continue;
            }
            let request = requester.waiting.pop_front().expect("it was looked at");
            let bytes = cost(&request);
            requester.bytes -= bytes;
            self.bytes -= bytes;
            let is_last = requester.waiting.is_empty();
            if requester.is_idle() {
                self.sessions.remove(&session);
            }
            self.wake(session);
            return Some((session, request, is_last));
        }
        None
    }

    fn line(&mut self, line: Line) -> &mut VecDeque<SessionId> {
        match line {
            Line::Ready => &mut self.ready,
            Line::Unverified => &mut self.unverified,
        }
    }

    /// Names a request that is about to be made.
    pub(super) fn number(&mut self, origin: Origin) -> RequestId {
        self.serial = self.serial.wrapping_add(1);
        RequestId { serial: self.serial, origin }
    }

    /// A reply came. Returns whether it is a long answer that was under way.
    pub(super) fn settle(&mut self, session: SessionId, id: RequestId) -> bool {
        if self.awaited == 0 {
            return false;
        }
        let Some(requester) = self.sessions.get_mut(&session) else { return false };
        let Some(at) = requester.awaited.iter().position(|(serial, _)| *serial == id.serial) else {
            return false;
        };
        requester.awaited.swap_remove(at);
        self.awaited -= 1;
        if requester.is_idle() {
            self.sessions.remove(&session);
        }
        self.wake(session);
        true
    }

    /// A long answer was written: `bytes` of it, or it was taken into an answer that is put together from several.
    pub(super) fn count_answer(&mut self, reply: &Reply, bytes: usize) {
        self.answered_bytes += bytes.max(work_of(reply));
    }

    /// A session ends. Returns what it had waiting.
    pub(super) fn forget(&mut self, session: SessionId) -> VecDeque<SessionRequest> {
        if self.sessions.is_empty() {
            return VecDeque::new();
        }
        let Some(requester) = self.sessions.remove(&session) else { return VecDeque::new() };
        self.awaited -= requester.awaited.len();
        self.bytes -= requester.bytes;
        requester.waiting
    }
}

/// About what it is to read and write a reply.
fn work_of(reply: &Reply) -> usize {
    match reply {
        Reply::History { publications, .. } => publications
            .iter()
            .map(|publication| size_of::<Publication>() + publication.heap_bytes())
            .sum(),
        _ => 0,
    }
}

/// About what a request keeps in memory.
fn cost(request: &SessionRequest) -> usize {
    size_of::<SessionRequest>() + request.request.heap_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Actor, Ticket, Token};

    #[test]
    fn nothing_overtakes_a_request_that_waits_for_the_backend() {
        let mut deferred = Deferred::default();
        let session = SessionId { index: 0, generation: 1 };
        let request = |name: &str| SessionRequest {
            origin: None,
            by: Actor::Client,
            request: Request::Call { procedure: name.into(), data: None },
        };
        deferred.set_held(session, true);
        deferred.push(session, request("a")).unwrap();
        deferred.push(session, request("b")).unwrap();
        assert!(deferred.has_waiting(session));
        assert!(deferred.pop(|_| (true, false)).is_none());
        assert!(!deferred.is_urgent(), "it is not looked at again before the answer");
        deferred.set_held(session, false);
        deferred.push_front(session, request("held"));
        for (name, expected) in [("held", false), ("a", false), ("b", true)] {
            let (_, popped, is_last) = deferred.pop(|_| (true, false)).unwrap();
            let is_it =
                matches!(&popped.request, Request::Call { procedure, .. } if **procedure == *name);
            assert!(is_it && is_last == expected);
        }
        assert!(deferred.sessions.is_empty() && deferred.bytes == 0);
        deferred.set_held(session, true);
        deferred.set_held(session, false);
        assert!(deferred.sessions.is_empty() && !deferred.has_waiting(session));
    }

    #[test]
    fn two_requests_with_one_number_are_distinguished() {
        let mut deferred = Deferred::default();
        let session = SessionId { index: 0, generation: 1 };
        let origin = Origin::Client(Ticket::FIRST);
        let [long, other] = [0, 1].map(|_| deferred.number(origin));
        deferred.await_answer(session, long, AnswerKind::Publications);
        assert!(!deferred.settle(session, other), "the other one is refused first");
        assert_eq!(deferred.awaited, 1);
        assert!(!deferred.admits(session, AnswerKind::Publications, false));
        assert!(deferred.settle(session, long));
        assert_eq!(deferred.awaited, 0);
        assert!(deferred.admits(session, AnswerKind::Publications, false));
        assert!(!deferred.settle(session, long), "it was replied to");
        assert!(deferred.sessions.is_empty());
    }

    #[test]
    fn a_storm_of_tokens_is_verified_in_turns_and_does_not_delay_others() {
        let mut deferred = Deferred::default();
        let session = |index| SessionId { index, generation: 1 };
        let origin = Some(Origin::Client(Ticket::FIRST));
        let by = Actor::Client;
        let with_token = || Request::Refresh { token: Token::new("t").unwrap() };
        deferred.begin_turn();
        for _ in 0..TOKENS_PER_TURN_MAX {
            assert!(deferred.admits_token());
        }
        assert!(!deferred.admits_token(), "as many were verified as one turn may");
        let storm = 3 * TOKENS_PER_TURN_MAX as u32;
        for index in 0..storm {
            deferred
                .push(session(index), SessionRequest { origin, by, request: with_token() })
                .unwrap();
        }
        let other = Request::Channels { pattern: Default::default() };
        deferred.push(session(storm), SessionRequest { origin, by, request: other }).unwrap();
        let mut popped = Vec::new();
        for _ in 0..4 {
            let next = |deferred: &mut Deferred| deferred.pop(|_| (true, false));
            let turn: Vec<_> = std::iter::from_fn(|| next(&mut deferred))
                .map(|(session, ..)| session.index)
                .collect();
            popped.push(turn.len());
            assert!(popped.len() > 1 || turn == [storm], "{turn:?}");
            deferred.begin_turn();
            assert_eq!(deferred.admits_token(), deferred.unverified.is_empty());
        }
        let per_turn = TOKENS_PER_TURN_MAX;
        assert_eq!(
            popped,
            [1, per_turn, per_turn, per_turn],
            "the rest of a turn, and turns of their own"
        );
        assert!(!deferred.is_urgent() && deferred.bytes() == 0);
    }
}
