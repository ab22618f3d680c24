//! Clients and subscriptions that have expired, and about which the backend is asked whether they go on. Meanwhile they
//! stay, and what their clients ask waits for nothing.
//!
//! No more are asked about at a time than the backend has connections for: the others stay until it is their turn. So
//! when very many expire in one second, none of them is cut off because the backend is busy with others.

use std::collections::HashMap;

use crate::callback::Ask;
use crate::config::limits::EXPIRIES_PER_TURN_MAX;
use crate::config::{CallbackKind, Callbacks, Namespaces};
use crate::hub::ExpiryRoom;
use crate::message::{ChannelName, SessionId, SubscriptionOptions};

/// What the backend was asked about and has not answered yet.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    /// The serial of the last call.
    serial: u32,
    asked: HashMap<SessionId, Vec<Question>>,
    /// How many of them are about clients, and how many about subscriptions.
    counts: [usize; 2],
}

#[derive(Debug)]
struct Question {
    serial: u32,
    about: Due,
}

/// What has expired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The identity of the client.
    Client,
    /// Its subscription to a channel.
    Subscription(ChannelName),
}

impl Due {
    fn index(&self) -> usize {
        usize::from(*self != Due::Client)
    }

    /// What the backend is asked.
    pub(super) fn ask(&self) -> Ask {
        match self {
            Due::Client => Ask::Refresh,
            Due::Subscription(channel) => Ask::SubRefresh { channel: channel.clone() },
        }
    }
}

impl Renewals {
    /// Notes a question, and returns the serial of its call. It takes the place of one about the same.
    pub(super) fn push(&mut self, session: SessionId, about: Due) -> u32 {
        self.forget(session, &about);
        self.serial = self.serial.wrapping_add(1);
        self.counts[about.index()] += 1;
        let question = Question { serial: self.serial, about };
        self.asked.entry(session).or_default().push(question);
        self.serial
    }

    /// Takes the question that a call was made for, unless it is forgotten.
    pub(super) fn take(&mut self, session: SessionId, serial: u32) -> Option<Due> {
        self.remove(session, |question| question.serial == serial)
    }

    /// What is answered about this has no effect any more.
    pub(super) fn forget(&mut self, session: SessionId, about: &Due) {
        self.remove(session, |question| question.about == *about);
    }

    fn remove(&mut self, session: SessionId, is_it: impl Fn(&Question) -> bool) -> Option<Due> {
        if self.asked.is_empty() {
            return None;
        }
        let questions = self.asked.get_mut(&session)?;
        let at = questions.iter().position(is_it)?;
        let Question { about, .. } = questions.swap_remove(at);
        if questions.is_empty() {
            self.asked.remove(&session);
        }
        self.counts[about.index()] -= 1;
        Some(about)
    }

    /// How many sessions and subscriptions may expire in this turn, at a worker of so many.
    pub(super) fn room(
        &self,
        callbacks: &Callbacks,
        workers: u16,
        is_memory_critical: bool,
    ) -> ExpiryRoom {
        let room = |kind, count: usize| {
            if !callbacks.asks(kind) {
                return EXPIRIES_PER_TURN_MAX;
            }
            let share = callbacks.of(kind).connections_max.div_ceil(usize::from(workers));
            let room = if is_memory_critical { 0 } else { share.saturating_sub(count) };
            room.min(EXPIRIES_PER_TURN_MAX)
        };
        let [sessions, subscriptions] = self.counts;
        ExpiryRoom {
            sessions: room(CallbackKind::Refresh, sessions),
            renewals: room(CallbackKind::SubRefresh, subscriptions),
        }
    }

    /// A session has ended.
    pub(super) fn forget_session(&mut self, session: SessionId) {
        if self.asked.is_empty() {
            return;
        }
        for question in self.asked.remove(&session).into_iter().flatten() {
            self.counts[question.about.index()] -= 1;
        }
    }
}

/// A subscription begins. Marks its options if the backend is asked when it expires.
pub(super) fn mark(
    options: &mut SubscriptionOptions,
    channel: &ChannelName,
    namespaces: &Namespaces,
    callbacks: &Callbacks,
) {
    options.is_renewed_by_backend = options.expires_at.is_some()
        && callbacks.asks(CallbackKind::SubRefresh)
        && namespaces
            .find(channel.as_str())
            .is_some_and(|id| namespaces.options(id).callback_sub_refresh);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ChannelOptions;

    #[test]
    fn an_answer_finds_its_question_once_unless_that_is_forgotten() {
        let session = |index| SessionId { index, generation: 1 };
        let of = |name: &str| Due::Subscription(ChannelName::new(name).unwrap());
        let mut renewals = Renewals::default();
        let client = renewals.push(session(1), Due::Client);
        let [a, b] = ["a", "b"].map(|name| renewals.push(session(1), of(name)));
        assert_eq!(renewals.counts, [1, 2]);
        assert_eq!(renewals.take(session(2), client), None, "of another session");
        assert_eq!(renewals.take(session(1), client), Some(Due::Client));
        assert_eq!(renewals.take(session(1), client), None);
        // The same is asked again: the first answer is too late.
        let again = renewals.push(session(1), of("a"));
        assert_eq!((renewals.take(session(1), a), renewals.counts), (None, [0, 2]));
        assert_eq!(renewals.take(session(1), again), Some(of("a")));
        renewals.push(session(1), Due::Client);
        renewals.forget(session(1), &Due::Client);
        renewals.forget_session(session(1));
        renewals.forget_session(session(1));
        assert_eq!((renewals.take(session(1), b), renewals.counts), (None, [0, 0]));
        assert!(renewals.asked.is_empty());
    }

    #[test]
    fn no_more_is_asked_at_a_time_than_the_share_of_the_connections() {
        let mut callbacks = Callbacks::default();
        let mut renewals = Renewals::default();
        let session = SessionId { index: 0, generation: 1 };
        let room = |renewals: &Renewals, callbacks: &Callbacks, is_critical| {
            let ExpiryRoom { sessions, renewals } = renewals.room(callbacks, 3, is_critical);
            (sessions, renewals)
        };
        let all = EXPIRIES_PER_TURN_MAX;
        assert_eq!(room(&renewals, &callbacks, true), (all, all), "the backend is not asked");
        for kind in [CallbackKind::Refresh, CallbackKind::SubRefresh] {
            let callback = callbacks.of_mut(kind);
            callback.endpoint = Some("http://a/".parse().unwrap());
            callback.connections_max = 4;
        }
        assert_eq!(room(&renewals, &callbacks, false), (2, 2));
        assert_eq!(room(&renewals, &callbacks, true), (0, 0));
        renewals.push(session, Due::Client);
        for name in ["a", "b", "c"] {
            renewals.push(session, Due::Subscription(ChannelName::new(name).unwrap()));
        }
        assert_eq!(room(&renewals, &callbacks, false), (1, 0));
        callbacks.of_mut(CallbackKind::Refresh).connections_max = 1024;
        assert_eq!(room(&renewals, &callbacks, false), (all, 0));
    }

    #[test]
    fn a_subscription_is_renewed_by_the_backend_where_its_channel_says_so() {
        let mut namespaces = Namespaces::new(ChannelOptions::development());
        let asks = ChannelOptions { callback_sub_refresh: true, ..ChannelOptions::development() };
        namespaces.add("asks", asks).unwrap();
        let mut callbacks = Callbacks::default();
        let marked = |name: &str, expires_at, callbacks: &Callbacks| {
            let mut options = SubscriptionOptions { expires_at, ..Default::default() };
            mark(&mut options, &ChannelName::new(name).unwrap(), &namespaces, callbacks);
            options.is_renewed_by_backend
        };
        assert!(!marked("asks:1", Some(1), &callbacks));
        let callback = callbacks.of_mut(CallbackKind::SubRefresh);
        callback.endpoint = Some("http://a/".parse().unwrap());
        assert!(marked("asks:1", Some(1), &callbacks));
        assert!(!marked("asks:1", None, &callbacks) && !marked("a", Some(1), &callbacks));
        assert!(!marked("unknown:1", Some(1), &callbacks));
    }
}
