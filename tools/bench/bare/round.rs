//! Fan-out to every open connection: a cursor cycles through the connections, and each visit sends all new frames in
//! one send.
//!
//! Frames that arrive during a round join it at the cursor: each connection gets them on its next visit, and the
//! cursor continues until it has passed all connections once more. Several outstanding publications therefore cost one
//! send per connection and round.

use std::ops::Range;

/// The outstanding frames.
#[derive(Default)]
pub struct Round {
    /// Encoded frames. Each connection knows its position in the stream of all frames.
    pub frames: Vec<u8>,
    /// Number of bytes that were removed from the front.
    dropped: u64,
    /// Position at the start of the current lap: after the lap, all connections have everything up to it.
    lap: u64,
    /// Index of the connection to visit next.
    cursor: usize,
    /// Visits left until all connections have everything.
    visits: usize,
}

impl Round {
    pub fn is_done(&self) -> bool {
        self.visits == 0
    }

    /// The end position of the frames so far.
    pub fn end(&self) -> u64 {
        self.dropped + self.frames.len() as u64
    }

    /// The frames after position `seen`.
    pub fn since(&self, seen: u64) -> &[u8] {
        &self.frames[(seen - self.dropped) as usize..]
    }

    /// Starts another lap after frames were added.
    pub fn extend(&mut self, connections: usize) {
        self.visits = connections;
    }

    /// Visits all connections once more after a connection was added or removed, which may have moved others. Nothing
    /// is removed that one of them may not have.
    pub fn rearrange(&mut self, connections: usize) {
        if !self.frames.is_empty() {
            self.visits = connections;
            self.lap = self.dropped;
        }
    }

    /// The indexes to visit in this turn.
    pub fn next(&mut self, connections: usize) -> Range<usize> {
        if self.cursor >= connections {
            self.cursor = 0;
            self.frames.drain(..(self.lap - self.dropped) as usize);
            self.dropped = self.lap;
            self.lap = self.end();
        }
        let start = self.cursor;
        let count = self.visits.min(VISITS_PER_TURN_MAX).min(connections - start);
        self.cursor += count;
        self.visits -= count;
        start..start + count
    }

    /// Removes all frames if every connection has them. No earlier send may still read them.
    pub fn settle(&mut self) {
        if self.visits == 0 {
            self.dropped = self.end();
            self.lap = self.dropped;
            self.frames.clear();
        }
    }
}

/// Sends per submission, and between two checks for received data.
const VISITS_PER_TURN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections that record what each visit sends.
    struct Receivers {
        round: Round,
        connections: Vec<(u64, Vec<u8>)>,
        visits: usize,
    }

    impl Receivers {
        fn new(connections: usize) -> Self {
            let connections = vec![(0, Vec::new()); connections];
            Self { round: Round::default(), connections, visits: 0 }
        }

        fn publish(&mut self, byte: u8) {
            self.round.frames.push(byte);
            self.round.extend(self.connections.len());
        }

        fn visit(&mut self) {
            self.round.settle();
            for place in self.round.next(self.connections.len()) {
                let (seen, received) = &mut self.connections[place];
                received.extend_from_slice(self.round.since(*seen));
                *seen = self.round.end();
                self.visits += 1;
            }
        }

        fn finish(&mut self) {
            while !self.round.is_done() {
                self.visit();
            }
            self.round.settle();
            assert!(self.round.frames.is_empty());
        }
    }

    #[test]
    fn frames_that_arrive_during_a_round_join_it() {
        let mut receivers = Receivers::new(1000);
        receivers.publish(0);
        receivers.visit();
        (1..8).for_each(|byte| receivers.publish(byte));
        receivers.finish();
        assert!(
            receivers
                .connections
                .iter()
                .all(|(_, received)| received[..] == [0, 1, 2, 3, 4, 5, 6, 7])
        );
        assert_eq!(receivers.visits, 1000 + VISITS_PER_TURN_MAX);
    }

    #[test]
    fn an_endless_round_keeps_at_most_two_laps_of_frames() {
        const CONNECTIONS: usize = 1000;
        const VISITS_PER_LAP: usize = CONNECTIONS.div_ceil(VISITS_PER_TURN_MAX);
        let mut receivers = Receivers::new(CONNECTIONS);
        for byte in 0..200 {
            // One frame of one byte per visit.
            receivers.publish(byte);
            receivers.visit();
            let kept = receivers.round.frames.len();
            assert!(kept <= 2 * VISITS_PER_LAP, "{kept}");
        }
        receivers.finish();
        let all: Vec<u8> = (0..200).collect();
        assert!(receivers.connections.iter().all(|(_, received)| *received == all));
    }

    #[test]
    fn connections_that_open_and_close_do_not_affect_the_others() {
        let mut receivers = Receivers::new(1000);
        for byte in 0..100 {
            receivers.publish(byte);
            receivers.visit();
            receivers.connections.swap_remove(usize::from(byte) * 7);
            receivers.connections.push((receivers.round.end(), Vec::new()));
            receivers.round.rearrange(receivers.connections.len());
        }
        receivers.finish();
        // Connections that were open from the start have all frames, the others those since.
        for (_, received) in &receivers.connections {
            let first = 100 - received.len() as u8;
            assert_eq!(*received, (first..100).collect::<Vec<u8>>());
        }
        assert!(receivers.connections.iter().any(|(_, received)| received.len() == 100));
    }
}
