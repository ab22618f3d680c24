//! The sends of one turn: at most one item per socket.
//!
//! The batch owns its segments for as long as the kernel may read them, so that a broadcast borrows its frame and no
//! memory is pinned per subscriber. The turn's replies are written into one buffer here, and queues hold ranges of it.

use std::io;
use std::ops::Range;

use super::SocketId;
use crate::buffer::{Segment, SharedFrame};

/// The sends of one turn.
#[derive(Debug, Default)]
pub struct SendBatch {
    /// The bytes written during the turn; [`Segment::Turn`] is a range of them. What leaves encrypted is sealed behind
    /// them.
    pub turn: Vec<u8>,
    /// Items that the kernel did not take whole, in no particular order. Filled by `Driver::wait`.
    pub late: Vec<Late>,
    items: Vec<SendItem>,
    segments: Vec<Segment>,
}

/// One socket's share of a batch.
#[derive(Clone, Debug)]
pub struct SendItem {
    /// The socket to send to.
    pub id: SocketId,
    /// The bytes of all segments together.
    pub bytes: u32,
    segments: Range<u32>,
}

/// An item that the kernel did not take whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Index of the item in the batch.
    pub item: u32,
    /// How much of it was sent, or that it failed.
    pub result: SendResult,
}

/// The result of an item that the kernel did not take whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendResult {
    /// The kernel took this many bytes, fewer than all and possibly 0; [`super::Event::Sendable`] follows when there is
    /// room.
    Short(u32),
    /// The connection is broken. No `Sendable` follows.
    Failed,
}

impl SendResult {
    /// The result of a send that failed with an error after `sent` bytes.
    pub(super) fn of_error(error: &io::Error, sent: u32) -> Self {
        match error.raw_os_error() {
            // The send buffer is full; or, more rarely, the call was interrupted or memory is short for the moment.
            Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM) => Self::Short(sent),
            _ => Self::Failed,
        }
    }
}

impl SendBatch {
    /// Items in the batch.
    pub fn items(&self) -> &[SendItem] {
        &self.items
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Begins an item with its first segment. One item per socket and batch.
    pub fn begin(&mut self, id: SocketId, segment: Segment) {
        let at = u32::try_from(self.segments.len()).expect("a batch is bounded");
        self.items.push(SendItem { id, bytes: segment.len(), segments: at..at + 1 });
        self.segments.push(segment);
    }

    /// Adds a segment to the item begun last.
    pub fn extend(&mut self, segment: Segment) {
        let item = self.items.last_mut().expect("begin comes before extend");
        item.bytes += segment.len();
        item.segments.end += 1;
        self.segments.push(segment);
    }

    /// How many segments an item has.
    pub fn segment_count(&self, item: &SendItem) -> usize {
        item.segments.len()
    }

    /// An item's bytes, segment by segment.
    pub fn slices(&self, item: &SendItem) -> impl Iterator<Item = &[u8]> {
        self.segments[item.segments.start as usize..item.segments.end as usize]
            .iter()
            .map(|segment| self.bytes_of(segment))
    }

    /// The frames that remain of an item of which the kernel took `sent` bytes, the last one first, ready to be put
    /// back at the front of its queue. Ranges of the turn's bytes are copied; frames stay shared.
    pub fn unsent(&self, item: &SendItem, sent: u32) -> impl Iterator<Item = SharedFrame> {
        let range = item.segments.start as usize..item.segments.end as usize;
        let mut left = item.bytes - sent;
        self.segments[range].iter().rev().map_while(move |segment| {
            if left == 0 {
                return None;
            }
            let keep = segment.len().min(left);
            left -= keep;
            let skip = segment.len() - keep;
            Some(match segment {
                Segment::Shared(frame) | Segment::Sealed(frame) => frame.clone().skip(skip),
                Segment::Turn { .. } => {
                    SharedFrame::copy_of(&self.bytes_of(segment)[skip as usize..])
                }
            })
        })
    }

    /// Drops all items, their frames and the turn's bytes. Up to a limit, the memory is kept for the next turn.
    pub fn clear(&mut self) {
        self.items.clear();
        self.segments.clear();
        self.late.clear();
        self.turn.clear();
        if self.turn.capacity() > TURN_BYTES_KEPT_MAX {
            self.turn.shrink_to(TURN_BYTES_KEPT_MAX);
        }
    }

    fn bytes_of<'a>(&'a self, segment: &'a Segment) -> &'a [u8] {
        match segment {
            Segment::Shared(frame) | Segment::Sealed(frame) => frame.as_bytes(),
            Segment::Turn { start, len } => {
                &self.turn[*start as usize..*start as usize + *len as usize]
            }
        }
    }
}

/// Capacity for the turn's bytes that is kept after a burst.
const TURN_BYTES_KEPT_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> SendBatch {
        let mut batch = SendBatch::default();
        batch.turn.extend_from_slice(b"0123456789");
        batch.begin(SocketId { index: 7, generation: 1 }, Segment::Turn { start: 2, len: 3 });
        batch.extend(Segment::Shared(SharedFrame::copy_of(b"abcd")));
        batch.extend(Segment::Turn { start: 8, len: 2 });
        batch
    }

    #[test]
    fn slices_are_the_segments_in_order() {
        let batch = batch();
        let item = &batch.items()[0];
        assert_eq!(item.bytes, 9);
        assert_eq!(batch.slices(item).collect::<Vec<_>>().concat(), b"234abcd89");
    }

    #[test]
    fn unsent_returns_the_tail_for_every_number_of_bytes_sent() {
        let batch = batch();
        let item = &batch.items()[0];
        for sent in 0..=9 {
            let mut frames: Vec<_> = batch.unsent(item, sent).collect();
            frames.reverse();
            let rest: Vec<u8> = frames.iter().flat_map(|f| f.as_bytes().to_vec()).collect();
            assert_eq!(rest, &b"234abcd89"[sent as usize..]);
            assert!(frames.iter().all(|frame| !frame.is_empty()));
        }
    }
}
