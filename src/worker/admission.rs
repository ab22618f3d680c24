//! How many connections there are, on all workers, and whether one more has a place.
//!
//! A server that is full is not dead, and an orchestrator whose health check is not answered would restart it. So a few
//! spare connections beyond the maximum are answered health checks and metrics. Their other requests are refused, in
//! the protocol's own terms and without the hub, and they have little time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::auth::PrefixRefusal;
use crate::config::limits::SPARE_CONNECTIONS;

/// Why a connection is rejected as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The connection limit is reached.
    ConnectionLimit,
    /// Its network prefix has as many connections as it may.
    PrefixConnections,
    /// Its network prefix has as many unfinished handshakes as it may.
    PrefixHandshakes,
    /// Connections of its network prefix come too fast.
    PrefixRate,
    /// Its user has as many connections as it may, which is known once it says who it is.
    UserConnections,
}

impl Rejection {
    /// The labels that metrics have for them.
    pub const LABELS: &'static [&'static str] = &[
        "connection_limit",
        "prefix_connections",
        "prefix_handshakes",
        "prefix_rate",
        "user_connections",
    ];

    /// The label of this one.
    pub fn label(self) -> &'static str {
        Self::LABELS[self as usize]
    }
}

impl From<PrefixRefusal> for Rejection {
    fn from(refusal: PrefixRefusal) -> Self {
        match refusal {
            PrefixRefusal::Connections => Self::PrefixConnections,
            PrefixRefusal::Handshakes => Self::PrefixHandshakes,
            PrefixRefusal::Rate => Self::PrefixRate,
        }
    }
}

/// The connections of all workers, and the spare ones of this worker.
#[derive(Debug)]
pub struct Admission {
    /// Connections of all workers, without spare ones: written once as a connection opens, and once as it closes.
    open: Arc<AtomicUsize>,
    open_max: usize,
    /// Connections of this worker that are beyond the maximum.
    spares: usize,
}

/// The place of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Within the maximum.
    Regular,
    /// Beyond it, for a moment.
    Spare,
}

impl Admission {
    /// An admission that counts with `open`, to which all workers add theirs.
    pub fn new(open: Arc<AtomicUsize>, open_max: usize) -> Self {
        Self { open, open_max, spares: 0 }
    }

    /// Connections of all workers, without spare ones.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a place for a new connection of a worker that has `here`, spare ones included, and may have `here_max`.
    /// `None` if there is none. A spare place is only for a protocol in which a refusal can be expressed.
    pub fn admit(&mut self, here: usize, here_max: usize, can_refuse: bool) -> Option<Place> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        if open < self.open_max && here - self.spares < here_max {
            return Some(Place::Regular);
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        if !can_refuse || self.spares >= SPARE_CONNECTIONS {
            return None;
        }
        self.spares += 1;
        Some(Place::Spare)
    }

    /// A connection is gone.
    pub fn release(&mut self, is_spare: bool) {
        if is_spare {
            self.spares -= 1;
        } else {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_taken_up_to_the_maximum_of_all_and_of_each_worker() {
        let open = Arc::new(AtomicUsize::new(0));
        let [mut first, mut second] = [0; 2].map(|_| Admission::new(open.clone(), 3));
        assert_eq!(first.admit(0, 2, true), Some(Place::Regular));
        assert_eq!(first.admit(1, 2, true), Some(Place::Regular));
        assert_eq!(first.admit(2, 2, false), None, "the worker is full");
        assert_eq!(second.admit(0, 2, false), Some(Place::Regular));
        assert_eq!(second.admit(1, 2, false), None, "the server is full");
        assert_eq!(second.admit(1, 2, true), Some(Place::Spare));
        assert_eq!(second.open(), 3);
        first.release(false);
        assert_eq!(second.admit(2, 2, true), Some(Place::Regular), "spare ones do not count");
    }

    #[test]
    fn spare_places_are_few_and_given_back() {
        let mut admission = Admission::new(Arc::new(AtomicUsize::new(0)), 0);
        for here in 0..SPARE_CONNECTIONS {
            assert_eq!(admission.admit(here, 9, true), Some(Place::Spare));
        }
        assert_eq!(admission.admit(SPARE_CONNECTIONS, 9, true), None);
        admission.release(true);
        assert_eq!(admission.admit(SPARE_CONNECTIONS - 1, 9, true), Some(Place::Spare));
        assert_eq!(admission.open(), 0);
    }
}
