//! The sockets that one turn serves, and their order: the same for real and simulated sockets.
//!
//! A ready socket is in exactly one list. A turn serves the sockets that were in a list when the turn began; sockets
//! that become ready later, or have more than one buffer to read, wait for the next turn, so that no peer can starve
//! another. New sockets and sockets that were closed by their peers have lists of their own, and a turn serves few of
//! each: when a hundred thousand clients disconnect at once and reconnect, the established ones hardly notice. Those
//! few come first, so that a turn which ends early because peers send as much as they can has still served them.
//!
//! They are followed by the sockets whose last receive was short (sparse), then by those that had more to read (bulky),
//! as FQ-CoDel schedules sparse flows before flows that build queues (RFC 8290 section 4.2): a sparse sender waits for
//! one turn, not for a turn of every peer that floods. After a turn that served no bulky socket, the next begins with
//! one, so that many sparse senders do not starve them.

use std::collections::VecDeque;

use crate::config::limits::CROWD_MIN;

use super::{DriverSettings, SocketId};

/// The sockets that are ready, by the order in which they are served.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Sockets from which nothing was received yet.
    pub accepted: VecDeque<SocketId>,
    /// Sockets whose peers sent FIN or RST.
    pub hung_up: VecDeque<SocketId>,
    /// Sparse sockets, whose last receive was short.
    pub ready: VecDeque<SocketId>,
    /// Bulky sockets, which had more to read.
    pub bulky: VecDeque<SocketId>,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        [&self.accepted, &self.hung_up, &self.ready, &self.bulky].iter().all(|list| list.is_empty())
    }

    /// The list of an established socket.
    #[inline]
    pub fn staying(&mut self, is_bulky: bool) -> &mut VecDeque<SocketId> {
        if is_bulky { &mut self.bulky } else { &mut self.ready }
    }
}

/// The remaining allowance of a turn.
#[derive(Debug)]
pub(super) struct Turn {
    settings: DriverSettings,
    accepted_left: usize,
    hung_up_left: usize,
    ready_left: usize,
    bulky_left: usize,
    /// Turns that began with bulky sockets waiting, since one of them was last served.
    bulky_waited: u32,
    events_left: usize,
    bytes_left: usize,
}

impl Turn {
    /// A turn that has ended.
    pub fn new(settings: &DriverSettings) -> Self {
        assert!(settings.receive_buffer_bytes > 0, "an empty receive looks like end of stream");
        assert!(settings.events_per_turn_max > 0, "a turn makes progress");
        Self {
            settings: settings.clone(),
            accepted_left: 0,
            hung_up_left: 0,
            ready_left: 0,
            bulky_left: 0,
            bulky_waited: 0,
            events_left: 0,
            bytes_left: 0,
        }
    }

    /// Begins the next turn. Returns how many connections it accepts on each listener.
    pub fn begin(&mut self, waiting: &Waiting) -> usize {
        self.ready_left = waiting.ready.len();
        self.bulky_left = waiting.bulky.len();
        self.bulky_waited = if self.bulky_left > 0 { self.bulky_waited + 1 } else { 0 };
        let others_wait = self.ready_left + self.bulky_left > 0
            || waiting.hung_up.len() + waiting.accepted.len() > CROWD_MIN;
        let churn = if others_wait {
            self.settings.churn_per_shared_turn_max
        } else {
            self.settings.churn_per_turn_max
        };
        self.hung_up_left = waiting.hung_up.len().min(churn);
        // Sockets that are accepted in this turn count as well.
        self.accepted_left = churn;
        self.events_left = self.settings.events_per_turn_max;
        self.bytes_left = self.settings.received_bytes_per_turn_max;
        churn
    }

    /// Whether the turn takes more events, apart from accepted connections.
    pub fn has_room(&self) -> bool {
        self.events_left > 0 && self.bytes_left > 0
    }

    /// Counts an event of a socket.
    pub fn count_event(&mut self) {
        self.events_left -= 1;
    }

    /// Counts bytes that were received.
    pub fn count_received(&mut self, bytes: usize) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// The socket to serve next.
    pub fn next(&mut self, waiting: &mut Waiting) -> Option<SocketId> {
        for (left, list) in [
            (&mut self.accepted_left, &mut waiting.accepted),
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

    /// Puts a socket back at the front of its list, to be served once more in this turn.
    pub fn put_back(&mut self, waiting: &mut Waiting, id: SocketId, is_bulky: bool) {
        waiting.staying(is_bulky).push_front(id);
        *(if is_bulky { &mut self.bulky_left } else { &mut self.ready_left }) += 1;
    }

    /// Most bytes of one receive. A buffer full of the smallest frames takes milliseconds to decode, so while other
    /// sockets wait each gets a part of it. Sockets that were served in this turn and have more to read count as
    /// waiting, so that the last one gets no more than the first.
    pub fn receive_bytes_max(&self, is_alone: bool) -> usize {
        let all = self.settings.receive_buffer_bytes;
        if is_alone { all } else { all.min(self.settings.receive_share_bytes) }
    }

    /// Whether a receive of this many bytes makes its socket a bulky one.
    pub fn is_bulky(&self, bytes: usize) -> bool {
        bytes > self.settings.sparse_receive_bytes_max
    }
}
