//! Publishers that are not read until fan-outs have caught up, and what they sent before they were paused.

use std::collections::VecDeque;

use crate::driver::SocketId;

/// All paused publishers of a worker, the one that has waited longest first.
#[derive(Debug, Default)]
pub struct PausedPublishers {
    publishers: VecDeque<PausedPublisher>,
    bytes: usize,
    pauses_all: bool,
}

#[derive(Debug)]
struct PausedPublisher {
    id: SocketId,
    /// What it sent that was not looked at yet, as it came: bytes are smaller than what is made of them.
    rest: Vec<u8>,
}

impl PausedPublishers {
    /// Whether no publisher is paused.
    pub fn is_empty(&self) -> bool {
        self.publishers.is_empty()
    }

    /// How many publishers are paused.
    pub fn len(&self) -> usize {
        self.publishers.len()
    }

    /// Bytes that were not looked at yet, of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Pauses every publisher from now on: the server shuts down.
    pub fn pause_all(&mut self) {
        self.pauses_all = true;
    }

    /// Whether every publisher is paused until the server has shut down.
    pub fn pauses_all(&self) -> bool {
        self.pauses_all
    }

    /// Adds a publisher, with the bytes of it that were not looked at.
    pub fn push(&mut self, id: SocketId, rest: &[u8]) {
        self.bytes += rest.len();
        self.publishers.push_back(PausedPublisher { id, rest: rest.to_vec() });
    }

    /// Takes the publisher that has waited longest, with its bytes.
    pub fn pop(&mut self) -> Option<(SocketId, Vec<u8>)> {
        let PausedPublisher { id, rest } = self.publishers.pop_front()?;
        self.bytes -= rest.len();
        Some((id, rest))
    }

    /// Drops the bytes of the publisher at a place in the order if they are more than `bytes_max`, and names it.
    pub fn drop_larger(&mut self, at: usize, bytes_max: u64) -> Option<SocketId> {
        let publisher = &mut self.publishers[at];
        if publisher.rest.len() as u64 <= bytes_max {
            return None;
        }
        self.bytes -= std::mem::take(&mut publisher.rest).len();
        Some(publisher.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> SocketId {
        SocketId { index, generation: 1 }
    }

    #[test]
    fn publishers_go_on_in_the_order_in_which_they_were_paused() {
        let mut paused = PausedPublishers::default();
        paused.push(id(1), b"first");
        paused.push(id(2), b"");
        assert_eq!((paused.len(), paused.bytes()), (2, 5));
        assert_eq!(paused.pop(), Some((id(1), b"first".to_vec())));
        assert_eq!(paused.pop(), Some((id(2), Vec::new())));
        assert_eq!((paused.pop(), paused.bytes()), (None, 0));
    }

    #[test]
    fn bytes_past_the_maximum_are_dropped_and_their_publisher_keeps_its_place() {
        let mut paused = PausedPublishers::default();
        paused.push(id(1), b"1234");
        paused.push(id(2), b"12345");
        assert_eq!(paused.drop_larger(0, 4), None);
        assert_eq!(paused.drop_larger(1, 4), Some(id(2)));
        assert_eq!(paused.drop_larger(1, 4), None, "they are gone");
        assert_eq!((paused.len(), paused.bytes()), (2, 4));
    }
}
