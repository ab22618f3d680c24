//! When sessions and subscriptions expire: no timer for any of them.
//!
//! Nearly every session of a user expires, and is refreshed again and again. So the times of sessions stand in one
//! list, 4 bytes each, which is looked through in the second in which the next one is due: that is 4 MB of memory read
//! in order for a million, and to refresh one is one write. Subscriptions that expire are few, and are in a queue by
//! time.

use std::collections::BTreeSet;

use super::slots::slot;
use crate::message::SubscriptionOptions;

/// The times at which sessions and subscriptions expire, in seconds since the Unix epoch.
#[derive(Debug)]
pub(super) struct Expiries {
    /// By the index of the session.
    sessions: Vec<u32>,
    /// No session is due before.
    next_session: u32,
    /// The sessions before this index have been looked at, since the first one became due.
    looked_at: usize,
    /// With the slot of the subscription: those that their clients prolong.
    subscriptions: BTreeSet<(u32, u32)>,
    /// The same for subscriptions that the backend is asked about.
    renewed: BTreeSet<(u32, u32)>,
}

/// How much may expire at once.
#[derive(Clone, Copy, Debug)]
pub struct ExpiryRoom {
    /// How many sessions.
    pub sessions: usize,
    /// How many subscriptions that the backend is asked about.
    pub renewals: usize,
}

/// The time of a session that does not expire: in 2106.
const NEVER: u32 = u32::MAX;

impl Expiries {
    /// Reserves address space for as many sessions as there may be.
    pub(super) fn new(sessions_max: usize) -> Self {
        Self {
            sessions: Vec::with_capacity(sessions_max),
            next_session: NEVER,
            looked_at: 0,
            subscriptions: BTreeSet::new(),
            renewed: BTreeSet::new(),
        }
    }

    /// Sets when the session with this index expires.
    pub(super) fn set_session(&mut self, session: u32, expires_at: Option<u64>) {
        let at = expires_at.map_or(NEVER, seconds);
        let index = session as usize;
        if index >= self.sessions.len() {
            if at == NEVER {
                return;
            }
            self.sessions.resize(index + 1, NEVER);
        }
        self.sessions[index] = at;
        self.next_session = self.next_session.min(at);
    }

    /// The index of a session that has expired by now. It does not expire again.
    pub(super) fn take_session(&mut self, now: u64) -> Option<u32> {
        let now = seconds(now);
        if self.next_session > now {
            return None;
        }
        let rest = &self.sessions[self.looked_at..];
        let Some(offset) = rest.iter().position(|at| *at <= now) else {
            self.next_session = self.sessions.iter().copied().min().unwrap_or(NEVER);
            self.looked_at = 0;
            return None;
        };
        let index = self.looked_at + offset;
        self.looked_at = index + 1;
        self.sessions[index] = NEVER;
        Some(slot(index))
    }

    /// The subscription in a slot has begun, or goes on, with these options.
    pub(super) fn insert_subscription(&mut self, slot: u32, options: &SubscriptionOptions) {
        if let Some(at) = options.expires_at {
            self.queue_of(options).insert((seconds(at), slot));
        }
    }

    /// A subscription has ended, or has other options from now on.
    pub(super) fn remove_subscription(&mut self, slot: u32, options: &SubscriptionOptions) {
        if let Some(at) = options.expires_at {
            self.queue_of(options).remove(&(seconds(at), slot));
        }
    }

    fn queue_of(&mut self, options: &SubscriptionOptions) -> &mut BTreeSet<(u32, u32)> {
        match options.is_renewed_by_backend {
            true => &mut self.renewed,
            false => &mut self.subscriptions,
        }
    }

    /// The slot of a subscription that its client has not prolonged by now. It does not expire again.
    pub(super) fn take_subscription(&mut self, now: u64) -> Option<u32> {
        take_due(&mut self.subscriptions, now)
    }

    /// The slot of a subscription that the backend is to be asked about by now. It does not expire again.
    pub(super) fn take_renewal(&mut self, now: u64) -> Option<u32> {
        take_due(&mut self.renewed, now)
    }
}

fn take_due(queue: &mut BTreeSet<(u32, u32)>, now: u64) -> Option<u32> {
    let (at, slot) = *queue.first()?;
    if at > seconds(now) {
        return None;
    }
    queue.pop_first();
    Some(slot)
}

/// A time as it is kept.
fn seconds(at: u64) -> u32 {
    u32::try_from(at).unwrap_or(NEVER)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::tests::Random;
    use super::*;

    fn take_sessions(expiries: &mut Expiries, now: u64) -> Vec<u32> {
        std::iter::from_fn(|| expiries.take_session(now)).collect()
    }

    #[test]
    fn a_session_expires_at_its_time_once() {
        let mut expiries = Expiries::new(4);
        expiries.set_session(5, None);
        assert!(expiries.sessions.is_empty(), "a session that does not expire costs nothing");
        for (session, at) in [(2, 100), (0, 101), (3, 100), (1, u64::MAX)] {
            expiries.set_session(session, Some(at));
        }
        assert_eq!(take_sessions(&mut expiries, 99), [0; 0]);
        assert_eq!(take_sessions(&mut expiries, 100), [2, 3]);
        assert_eq!(take_sessions(&mut expiries, 100), [0; 0]);
        expiries.set_session(3, Some(50));
        assert_eq!(take_sessions(&mut expiries, 1000), [0, 3]);
        assert_eq!(take_sessions(&mut expiries, u64::from(NEVER) - 1), [0; 0]);
    }

    #[test]
    fn sessions_expire_as_they_were_set_last() {
        let mut random = Random(11);
        let mut expiries = Expiries::new(4);
        let mut set: BTreeMap<u32, u64> = BTreeMap::new();
        for now in 1000..1400_u64 {
            for _ in 0..30 {
                let session = random.below(300) as u32;
                match random.below(4) {
                    0 => {
                        expiries.set_session(session, None);
                        set.remove(&session);
                    }
                    _ => {
                        let at = now + random.below(40) - 5;
                        expiries.set_session(session, Some(at));
                        set.insert(session, at);
                    }
                }
                // Some of those that are due, as in a turn that takes no more.
                for _ in 0..random.below(3) {
                    if let Some(session) = expiries.take_session(now) {
                        let at = set.remove(&session).expect("it expires once");
                        assert!(at <= now, "{session} expires at {at}, not at {now}");
                    }
                }
            }
            // All of them, with those that became due before the place that was reached.
            let mut due: BTreeSet<u32> = BTreeSet::new();
            for _ in 0..2 {
                due.extend(take_sessions(&mut expiries, now));
            }
            let expected: BTreeSet<u32> =
                set.iter().filter(|(_, at)| **at <= now).map(|(session, _)| *session).collect();
            assert_eq!(due, expected);
            set.retain(|_, at| *at > now);
        }
    }

    #[test]
    fn subscriptions_expire_in_the_order_of_their_times() {
        let until = |at, is_renewed_by_backend| SubscriptionOptions {
            expires_at: Some(at),
            is_renewed_by_backend,
            ..SubscriptionOptions::default()
        };
        let mut expiries = Expiries::new(0);
        for is_renewed in [false, true] {
            let until = |at| until(at, is_renewed);
            for (slot, at) in [(7, 20), (8, 10), (9, 10), (1, 15)] {
                expiries.insert_subscription(slot, &until(at));
            }
            expiries.insert_subscription(2, &SubscriptionOptions::default());
            expiries.remove_subscription(9, &until(10));
            expiries.remove_subscription(1, &until(14));
            let mut take = |now| -> Vec<u32> {
                std::iter::from_fn(|| match is_renewed {
                    true => expiries.take_renewal(now),
                    false => expiries.take_subscription(now),
                })
                .collect()
            };
            let taken = (take(9), take(19), take(19), take(20));
            assert_eq!(taken, (vec![], vec![8, 1], vec![], vec![7]));
        }
    }
}
