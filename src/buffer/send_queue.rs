//! The bytes bound for one socket.
//!
//! Publications are shared, so a queue holds references, not copies; replies are written into the bytes of the
//! turn and a queue holds their range. A queue itself is three numbers in the connection's entry; its segments
//! are nodes of one arena per worker, so that an idle connection owns nothing.

use slab::Slab;

use super::SharedFrame;

/// One entry of a queue.
#[derive(Debug)]
pub enum Segment {
    /// A frame that other queues may hold as well.
    Shared(SharedFrame),
    /// `start..start + len` of the bytes that this turn wrote; valid until the turn's sends are settled.
    Turn {
        /// First byte.
        start: u32,
        /// Bytes.
        len: u32,
    },
}

impl Segment {
    /// Bytes in this segment.
    pub fn len(&self) -> u32 {
        match self {
            Segment::Shared(frame) => frame.len(),
            Segment::Turn { len, .. } => *len,
        }
    }

    /// Whether the segment has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The queue of one connection: a chain of nodes in a [`QueueArena`].
#[derive(Debug)]
pub struct SendQueue {
    head: u32,
    tail: u32,
    bytes: u32,
}

impl SendQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { head: NONE, tail: NONE, bytes: 0 }
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }
}

impl Default for SendQueue {
    fn default() -> Self {
        Self::new()
    }
}

/// The nodes of all queues of one worker.
#[derive(Debug)]
pub struct QueueArena {
    nodes: Slab<Node>,
    bytes: u64,
}

#[derive(Debug)]
struct Node {
    segment: Segment,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl QueueArena {
    /// An arena with address space for `segments` nodes; pages are touched only as they are used, so growth up
    /// to there copies nothing.
    pub fn with_capacity(segments: usize) -> Self {
        Self { nodes: Slab::with_capacity(segments), bytes: 0 }
    }

    /// Bytes waiting in all queues. A frame counts once for each queue that holds it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a segment. Empty segments are dropped. Panics when the queue would exceed `u32::MAX` bytes, which
    /// its mark forbids.
    pub fn push(&mut self, queue: &mut SendQueue, segment: Segment) {
        let len = segment.len();
        if len == 0 {
            return;
        }
        self.grow(queue, len);
        if let Segment::Turn { start, len } = segment
            && queue.tail != NONE
            && let Segment::Turn { start: tail_start, len: tail_len } =
                &mut self.nodes[queue.tail as usize].segment
            && *tail_start + *tail_len == start
        {
            // Replies written back to back leave as one run of bytes.
            *tail_len += len;
            return;
        }
        let node = self.insert(Node { segment, next: NONE });
        if queue.tail == NONE {
            queue.head = node;
        } else {
            self.nodes[queue.tail as usize].next = node;
        }
        queue.tail = node;
    }

    /// Puts a segment back in front, after the kernel took only what came before it. Turn ranges must have been
    /// copied by then.
    pub fn push_front(&mut self, queue: &mut SendQueue, frame: SharedFrame) {
        if frame.is_empty() {
            return;
        }
        self.grow(queue, frame.len());
        let node = self.insert(Node { segment: Segment::Shared(frame), next: queue.head });
        if queue.tail == NONE {
            queue.tail = node;
        }
        queue.head = node;
    }

    /// Copies the ranges of `turn`, the turn's bytes, that wait in a queue: they outlive the turn.
    pub fn keep_turn(&mut self, queue: &SendQueue, turn: &[u8]) {
        let mut at = queue.head;
        while at != NONE {
            let node = &mut self.nodes[at as usize];
            if let Segment::Turn { start, len } = node.segment {
                let bytes = &turn[start as usize..start as usize + len as usize];
                node.segment = Segment::Shared(SharedFrame::copy_of(bytes));
            }
            at = node.next;
        }
    }

    /// Takes the first segment.
    pub fn pop(&mut self, queue: &mut SendQueue) -> Option<Segment> {
        if queue.head == NONE {
            return None;
        }
        let node = self.nodes.remove(queue.head as usize);
        queue.head = node.next;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        let len = node.segment.len();
        queue.bytes -= len;
        self.bytes -= u64::from(len);
        Some(node.segment)
    }

    /// Drops everything in the queue.
    pub fn clear(&mut self, queue: &mut SendQueue) {
        while self.pop(queue).is_some() {}
    }

    fn grow(&mut self, queue: &mut SendQueue, len: u32) {
        queue.bytes = queue.bytes.checked_add(len).expect("the mark keeps a queue under 4 GiB");
        self.bytes += u64::from(len);
    }

    fn insert(&mut self, node: Node) -> u32 {
        u32::try_from(self.nodes.insert(node)).expect("fewer than 2^32 segments wait")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> SharedFrame {
        SharedFrame::copy_of(bytes)
    }

    #[test]
    fn segments_leave_in_order_and_bytes_follow() {
        let mut arena = QueueArena::with_capacity(8);
        let (mut a, mut b) = (SendQueue::new(), SendQueue::new());
        arena.push(&mut a, Segment::Shared(frame(b"one")));
        arena.push(&mut b, Segment::Shared(frame(b"other")));
        arena.push(&mut a, Segment::Turn { start: 0, len: 4 });
        assert_eq!((a.bytes(), b.bytes(), arena.bytes()), (7, 5, 12));
        assert!(matches!(arena.pop(&mut a), Some(Segment::Shared(f)) if f.as_bytes() == b"one"));
        assert!(matches!(arena.pop(&mut a), Some(Segment::Turn { start: 0, len: 4 })));
        assert!(arena.pop(&mut a).is_none());
        assert_eq!((a.bytes(), arena.bytes()), (0, 5));
        arena.clear(&mut b);
        assert!(b.is_empty());
        assert_eq!(arena.bytes(), 0);
    }

    #[test]
    fn adjacent_turn_ranges_become_one_segment() {
        let mut arena = QueueArena::with_capacity(8);
        let mut queue = SendQueue::new();
        arena.push(&mut queue, Segment::Turn { start: 10, len: 5 });
        arena.push(&mut queue, Segment::Turn { start: 15, len: 5 });
        arena.push(&mut queue, Segment::Turn { start: 30, len: 1 });
        assert!(matches!(arena.pop(&mut queue), Some(Segment::Turn { start: 10, len: 10 })));
        assert!(matches!(arena.pop(&mut queue), Some(Segment::Turn { start: 30, len: 1 })));
    }

    #[test]
    fn what_is_put_back_comes_first() {
        let mut arena = QueueArena::with_capacity(8);
        let mut queue = SendQueue::new();
        arena.push_front(&mut queue, frame(b"b"));
        arena.push_front(&mut queue, frame(b"a"));
        arena.push(&mut queue, Segment::Shared(frame(b"c")));
        let mut seen = Vec::new();
        while let Some(Segment::Shared(frame)) = arena.pop(&mut queue) {
            seen.extend_from_slice(frame.as_bytes());
        }
        assert_eq!(seen, b"abc");
    }

    #[test]
    fn empty_segments_are_not_kept() {
        let mut arena = QueueArena::with_capacity(1);
        let mut queue = SendQueue::new();
        arena.push(&mut queue, Segment::Turn { start: 3, len: 0 });
        arena.push_front(&mut queue, frame(b""));
        assert!(queue.is_empty());
    }

    #[test]
    fn ranges_of_a_turn_outlive_it_once_they_are_kept() {
        let mut arena = QueueArena::with_capacity(8);
        let mut queue = SendQueue::new();
        arena.push(&mut queue, Segment::Shared(frame(b"before ")));
        arena.push(&mut queue, Segment::Turn { start: 1, len: 3 });
        arena.keep_turn(&queue, b"[one]");
        assert_eq!((queue.bytes(), arena.bytes()), (10, 10));
        let mut bytes = Vec::new();
        while let Some(segment) = arena.pop(&mut queue) {
            let Segment::Shared(frame) = segment else { panic!("a range is left") };
            bytes.extend_from_slice(frame.as_bytes());
        }
        assert_eq!(bytes, b"before one");
    }

    #[test]
    fn an_empty_queue_is_twelve_bytes() {
        assert_eq!(size_of::<SendQueue>(), 12);
        assert!(size_of::<Node>() <= 32);
    }
}
