//! Frames on their way to every open connection: a cursor goes round, and each visit sends what is new, joined.
//!
//! What comes while a round is under way joins it where the cursor is: each connection then gets it with its next
//! visit, and the cursor goes on until it has passed everyone once more. So several publications under way cost one
//! send per connection and round, however they came.

use std::ops::Range;

/// The frames under way.
#[derive(Default)]
pub struct Round {
    /// Frames as they are sent. Each connection knows how much of all that ever was here it has.
    pub frames: Vec<u8>,
    /// How many bytes were dropped from the front.
    dropped: u64,
    /// What was here when the cursor last began anew: when it does so again, everyone has it.
    lap: u64,
    /// Place of the connection to visit next.
    cursor: usize,
    /// Visits until everyone has everything.
    visits: usize,
}

impl Round {
    pub fn is_done(&self) -> bool {
        self.visits == 0
    }

    /// Everything up to here, counted from the beginning.
    pub fn end(&self) -> u64 {
        self.dropped + self.frames.len() as u64
    }

    /// What a connection that has everything up to `seen` lacks.
    pub fn since(&self, seen: u64) -> &[u8] {
        &self.frames[(seen - self.dropped) as usize..]
    }

    /// Frames were added.
    pub fn extend(&mut self, connections: usize) {
        self.visits = connections;
    }

    /// A connection came or went, and others may have moved: all are visited once more, and nothing is dropped that
    /// one of them may lack.
    pub fn rearrange(&mut self, connections: usize) {
        if !self.frames.is_empty() {
            self.visits = connections;
            self.lap = self.dropped;
        }
    }

    /// The places to visit now.
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

    /// Nothing that was sent is read any more.
    pub fn settle(&mut self) {
        if self.visits == 0 {
            self.dropped = self.end();
            self.lap = self.dropped;
            self.frames.clear();
        }
    }
}

/// Sends of one submission, and between two looks at what came.
const VISITS_PER_TURN_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections that note what each visit would send.
    struct Crowd {
        round: Round,
        connections: Vec<(u64, Vec<u8>)>,
        visits: usize,
    }

    impl Crowd {
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
    fn what_comes_on_the_way_joins_the_round() {
        let mut crowd = Crowd::new(1000);
        crowd.publish(0);
        crowd.visit();
        (1..8).for_each(|byte| crowd.publish(byte));
        crowd.finish();
        assert!(
            crowd.connections.iter().all(|(_, received)| received[..] == [0, 1, 2, 3, 4, 5, 6, 7])
        );
        assert_eq!(crowd.visits, 1000 + VISITS_PER_TURN_MAX);
    }

    #[test]
    fn a_round_that_never_ends_keeps_no_more_than_two_laps() {
        const CONNECTIONS: usize = 1000;
        const VISITS_PER_LAP: usize = CONNECTIONS.div_ceil(VISITS_PER_TURN_MAX);
        let mut crowd = Crowd::new(CONNECTIONS);
        for byte in 0..200 {
            // A frame of one byte with each visit.
            crowd.publish(byte);
            crowd.visit();
            let kept = crowd.round.frames.len();
            assert!(kept <= 2 * VISITS_PER_LAP, "{kept}");
        }
        crowd.finish();
        let all: Vec<u8> = (0..200).collect();
        assert!(crowd.connections.iter().all(|(_, received)| *received == all));
    }

    #[test]
    fn those_who_come_and_go_cost_the_others_nothing() {
        let mut crowd = Crowd::new(1000);
        for byte in 0..100 {
            crowd.publish(byte);
            crowd.visit();
            crowd.connections.swap_remove(usize::from(byte) * 7);
            crowd.connections.push((crowd.round.end(), Vec::new()));
            crowd.round.rearrange(crowd.connections.len());
        }
        crowd.finish();
        // Whoever was there from the beginning has all; the others what came since.
        for (_, received) in &crowd.connections {
            let first = 100 - received.len() as u8;
            assert_eq!(*received, (first..100).collect::<Vec<u8>>());
        }
        assert!(crowd.connections.iter().any(|(_, received)| received.len() == 100));
    }
}
