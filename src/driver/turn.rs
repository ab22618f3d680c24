//! What one turn takes, and in which order: the same for real sockets and for simulated ones.
//!
//! A socket that is ready stands in one list, once. A turn takes from its front those that were in it when the
//! turn began: what becomes ready later, or has more than one buffer to give, waits for the next turn, so that
//! no peer can starve another. Sockets that come and sockets that go stand in lists of their own, and a turn takes few
//! of them: when a hundred thousand clients go at once and come back, those who stay hardly notice. It takes those few
//! first: a turn that ends early, because peers send as much as they can, has served them.
//!
//! Behind them come the sockets whose last receive brought little, then those that had more to give, as flows that are
//! sparse go before those that build queues in FQ-CoDel (RFC 8290 section 4.2): who says little waits for a turn, and
//! not for a turn of each peer that floods. A turn in which the latter had nothing is followed by one that begins with
//! one of them, so that many who say little do not starve them either.

use std::collections::VecDeque;

use crate::config::limits::CROWD_MIN;

use super::{DriverSettings, SocketId};

/// The sockets that are ready.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Nothing was received from them yet.
    pub newcomers: VecDeque<SocketId>,
    /// Their peers sent FIN or RST.
    pub hung_up: VecDeque<SocketId>,
    /// Those whose last receive brought little.
    pub ready: VecDeque<SocketId>,
    /// Those that had more to give.
    pub bulky: VecDeque<SocketId>,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        [&self.newcomers, &self.hung_up, &self.ready, &self.bulky]
            .iter()
            .all(|list| list.is_empty())
    }

    /// The list of a socket that stays.
    #[inline]
    pub fn staying(&mut self, is_bulky: bool) -> &mut VecDeque<SocketId> {
        if is_bulky { &mut self.bulky } else { &mut self.ready }
    }
}

/// What is left of a turn.
#[derive(Debug)]
pub(super) struct Turn {
    settings: DriverSettings,
    newcomers_left: usize,
    hung_up_left: usize,
    ready_left: usize,
    bulky_left: usize,
    /// Turns that began with some of them since one of them had its share.
    bulky_waited: u32,
    events_left: usize,
    bytes_left: usize,
}

impl Turn {
    /// One that is over.
    pub fn new(settings: &DriverSettings) -> Self {
        assert!(settings.receive_buffer_bytes > 0, "a receive of nothing looks like the end");
        assert!(settings.events_per_turn_max > 0, "a turn makes progress");
        Self {
            settings: settings.clone(),
            newcomers_left: 0,
            hung_up_left: 0,
            ready_left: 0,
            bulky_left: 0,
            bulky_waited: 0,
            events_left: 0,
            bytes_left: 0,
        }
    }

    /// Begins the next one. Returns how many connections it accepts, of each listener.
    pub fn begin(&mut self, waiting: &Waiting) -> usize {
        self.ready_left = waiting.ready.len();
        self.bulky_left = waiting.bulky.len();
        self.bulky_waited = if self.bulky_left > 0 { self.bulky_waited + 1 } else { 0 };
        let others_wait = self.ready_left + self.bulky_left > 0
            || waiting.hung_up.len() + waiting.newcomers.len() > CROWD_MIN;
        let churn = if others_wait {
            self.settings.churn_per_shared_turn_max
        } else {
            self.settings.churn_per_turn_max
        };
        self.hung_up_left = waiting.hung_up.len().min(churn);
        // Also of those that are accepted in this turn.
        self.newcomers_left = churn;
        self.events_left = self.settings.events_per_turn_max;
        self.bytes_left = self.settings.received_bytes_per_turn_max;
        churn
    }

    /// Whether it takes more, beside what is accepted.
    pub fn has_room(&self) -> bool {
        self.events_left > 0 && self.bytes_left > 0
    }

    /// An event of a socket is reported.
    pub fn count_event(&mut self) {
        self.events_left -= 1;
    }

    /// So much was received with it.
    pub fn count_received(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// The socket to look at next.
    pub fn next(&mut self, waiting: &mut Waiting) -> Option<SocketId> {
        for (left, list) in [
            (&mut self.newcomers_left, &mut waiting.newcomers),
            (&mut self.hung_up_left, &mut waiting.hung_up),
        ] {
            if *left > 0
                && let Some(id) = list.pop_front()
            {
                *left -= 1;
                return Some(id);
            }
        }
        if self.ready_left > 0 && self.bulky_waited < 2 {
            self.ready_left -= 1;
            return waiting.ready.pop_front();
        }
        self.bulky_waited = 0;
        self.bulky_left = self.bulky_left.checked_sub(1)?;
        waiting.bulky.pop_front()
    }

    /// Has a socket looked at once more, before all others of its list.
    pub fn put_back(&mut self, waiting: &mut Waiting, id: SocketId, is_bulky: bool) {
        waiting.staying(is_bulky).push_front(id);
        *(if is_bulky { &mut self.bulky_left } else { &mut self.ready_left }) += 1;
    }

    /// Bytes of one receive. A buffer of the smallest frames is milliseconds of work: while others wait, each socket
    /// has a part of it. Those that were served in this turn and have more wait too: the last has no more than the
    /// first.
    pub fn receive_bytes_max(&self, is_alone: bool) -> usize {
        let all = self.settings.receive_buffer_bytes;
        if is_alone { all } else { all.min(self.settings.receive_share_bytes) }
    }

    /// Whether a receive of so much makes its socket one that has more to give.
    pub fn is_bulky(&self, bytes: usize) -> bool {
        bytes > self.settings.sparse_receive_bytes_max
    }
}
