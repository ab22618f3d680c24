//! When clients are to come back: `Retry-After` of HTTP answers, `retry:` of event streams.
//!
//! Each client is given another time of a range, so that those that were refused or disconnected together do not come
//! back together.

use std::ops::RangeInclusive;

use crate::config::limits::{
    EVENT_STREAM_RETRY_MS, EVENT_STREAM_RETRY_OVERLOADED_MS, RETRY_AFTER_OVERLOADED_SECONDS,
    RETRY_AFTER_SECONDS,
};
use crate::message::{ClientId, SessionId};

/// When a client is to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// In a moment: the cause may be over by then.
    Soon,
    /// Later: the server, or its backend, has more clients than it can serve.
    Later,
}

impl Retry {
    /// The value of `Retry-After`, in seconds.
    pub fn after_seconds(self, client: ClientId) -> u32 {
        spread(
            client,
            match self {
                Retry::Soon => RETRY_AFTER_SECONDS,
                Retry::Later => RETRY_AFTER_OVERLOADED_SECONDS,
            },
        )
    }

    /// The reconnection time of an event stream, in milliseconds.
    pub fn stream_ms(self, client: ClientId) -> u32 {
        spread(
            client,
            match self {
                Retry::Soon => EVENT_STREAM_RETRY_MS,
                Retry::Later => EVENT_STREAM_RETRY_OVERLOADED_MS,
            },
        )
    }
}

/// A number in a range that differs from client to client.
pub(super) fn spread(client: ClientId, range: RangeInclusive<u32>) -> u32 {
    let (from, to) = range.into_inner();
    // Fibonacci hashing: neighbours in the table, and lives of one place in it, land far from each other.
    let SessionId { index, generation } = client.session;
    let mixed = (index ^ generation.rotate_left(16)).wrapping_mul(0x9E37_79B1);
    from + ((u64::from(mixed) * u64::from(to - from + 1)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{NodeId, WorkerId};

    #[test]
    fn clients_come_back_at_different_times_within_the_range() {
        for (retry, seconds, ms) in [
            (Retry::Soon, RETRY_AFTER_SECONDS, EVENT_STREAM_RETRY_MS),
            (Retry::Later, RETRY_AFTER_OVERLOADED_SECONDS, EVENT_STREAM_RETRY_OVERLOADED_MS),
        ] {
            let clients = (0..1000).map(|index| ClientId {
                node: NodeId::new(1),
                worker: WorkerId(0),
                session: SessionId { index, generation: 1 },
            });
            let mut counts = vec![0; *seconds.end() as usize + 1];
            for client in clients {
                counts[retry.after_seconds(client) as usize] += 1;
                assert!(ms.contains(&retry.stream_ms(client)));
            }
            let fair = 1000 / seconds.clone().count();
            for (second, count) in counts.into_iter().enumerate() {
                let expected = if seconds.contains(&(second as u32)) { fair } else { 0 };
                assert!((expected / 2..=2 * expected).contains(&count), "{second}: {count}");
            }
        }
    }
}
