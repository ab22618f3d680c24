//! The bytes to be sent to one socket.
//!
//! Publications are shared, so a queue holds references, not copies; replies are written into the bytes of the turn,
//! and a queue holds their range. A queue itself is three numbers in the connection's table entry; its segments are
//! nodes of one arena per worker, so that an idle connection owns no memory.

use slab::Slab;

use super::SharedFrame;

/// A piece of a queue: consecutive bytes in one place.
#[derive(Debug)]
pub enum Segment {
    /// A frame that other queues may hold as well.
    Shared(SharedFrame),
    /// Bytes that were encrypted already, or are not to be. Encrypted bytes come before all others, and leave as they
    /// are.
    Sealed(SharedFrame),
    /// `start..start + len` of the bytes that this turn wrote; valid until the turn's sends are settled.
    Turn {
        /// Index of the first byte.
        start: u32,
        /// Number of bytes.
        len: u32,
    },
}

impl Segment {
    /// Bytes in this segment.
    pub fn len(&self) -> u32 {
        match self {
            Segment::Shared(frame) | Segment::Sealed(frame) => frame.len(),
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

    /// The memory cost of the queue: its bytes, and [`SEGMENT_BYTES`] for each segment.
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Whether the queue has no segments.
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
    /// Bytes of the frames that queues hold, each frame counted once.
    frame_bytes: u64,
}

#[derive(Debug)]
struct Node {
    segment: Segment,
    next: u32,
}

const NONE: u32 = u32::MAX;

/// The cost of a segment in addition to its bytes: its node, and its share of a frame's allocation. It is counted so
/// that a watermark bounds memory whatever the size of publications.
pub const SEGMENT_BYTES: u32 = 64;

fn cost(segment: &Segment) -> u32 {
    SEGMENT_BYTES.saturating_add(segment.len())
}

impl QueueArena {
    /// An arena with address space for `segments` nodes. Pages are touched only when they are used, so growing up to
    /// that number copies nothing.
    pub fn with_capacity(segments: usize) -> Self {
        Self { nodes: Slab::with_capacity(segments), bytes: 0, frame_bytes: 0 }
    }

    /// The cost of all queues. A frame counts once for each queue that holds it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The memory of all queues: like [`QueueArena::bytes`], but each frame counts once.
    pub fn memory_bytes(&self) -> u64 {
        self.nodes.len() as u64 * u64::from(SEGMENT_BYTES) + self.frame_bytes
    }

    /// Appends a frame, unless it is empty. Panics if the queue's cost would exceed `u32::MAX` bytes, which its
    /// watermark prevents.
    pub fn push(&mut self, queue: &mut SendQueue, frame: SharedFrame) {
        if !frame.is_empty() {
            self.append(queue, Segment::Shared(frame));
        }
    }

    /// Appends the turn's bytes from `start` to their end. In an empty queue they become a range, which the next
    /// replies extend: replies written one after another leave as one segment. After a frame they are copied, so that a
    /// range is always the first segment.
    pub fn push_turn(&mut self, queue: &mut SendQueue, turn: &[u8], start: usize) {
        if start == turn.len() {
            return;
        }
        let range = |at: usize| u32::try_from(at).expect("a turn writes far less than 4 GiB");
        let (start_at, more) = (range(start), range(turn.len() - start));
        if queue.head == NONE {
            return self.append(queue, Segment::Turn { start: start_at, len: more });
        }
        if queue.head == queue.tail
            && let Segment::Turn { start: head_start, len } =
                &mut self.nodes[queue.head as usize].segment
            && *head_start + *len == start_at
        {
            *len += more;
            queue.bytes += more;
            self.bytes += u64::from(more);
            return;
        }
        self.push(queue, SharedFrame::copy_of(&turn[start..]));
    }

    /// Appends bytes that leave as they are, unless there are none: see [`Segment::Sealed`].
    pub fn push_sealed(&mut self, queue: &mut SendQueue, frame: SharedFrame) {
        if !frame.is_empty() {
            self.append(queue, Segment::Sealed(frame));
        }
    }

    /// Puts a frame back at the front, after the kernel took only the bytes before it. Ranges of the turn must have
    /// been copied before.
    pub fn push_front(&mut self, queue: &mut SendQueue, segment: Segment) {
        if segment.is_empty() {
            return;
        }
        self.grow(queue, &segment);
        let node = self.insert(Node { segment, next: queue.head });
        if queue.tail == NONE {
            queue.tail = node;
        }
        queue.head = node;
    }

    /// Copies the range of the turn's bytes with which a queue may begin, so that it outlives the turn.
    pub fn keep_turn(&mut self, queue: &SendQueue, turn: &[u8]) {
        if queue.head != NONE
            && let node = &mut self.nodes[queue.head as usize]
            && let Segment::Turn { start, len } = node.segment
        {
            let frame = SharedFrame::copy_of(&turn[start as usize..start as usize + len as usize]);
            self.frame_bytes += frame.enter_queue();
            node.segment = Segment::Shared(frame);
        }
    }

    /// Whether the first segment is sealed.
    pub fn begins_sealed(&self, queue: &SendQueue) -> bool {
        let first = self.nodes.get(queue.head as usize);
        first.is_some_and(|node| matches!(node.segment, Segment::Sealed(_)))
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
        let cost = cost(&node.segment);
        queue.bytes -= cost;
        self.bytes -= u64::from(cost);
        if let Segment::Shared(frame) | Segment::Sealed(frame) = &node.segment {
            self.frame_bytes -= frame.leave_queue();
        }
        Some(node.segment)
    }

    /// Drops everything in the queue.
    pub fn clear(&mut self, queue: &mut SendQueue) {
        while self.pop(queue).is_some() {}
    }

    fn append(&mut self, queue: &mut SendQueue, segment: Segment) {
        self.grow(queue, &segment);
        let node = self.insert(Node { segment, next: NONE });
        if queue.tail == NONE {
            queue.head = node;
        } else {
            self.nodes[queue.tail as usize].next = node;
        }
        queue.tail = node;
    }

    fn grow(&mut self, queue: &mut SendQueue, segment: &Segment) {
        let cost = cost(segment);
        queue.bytes =
            queue.bytes.checked_add(cost).expect("the watermark keeps a queue under 4 GiB");
        self.bytes += u64::from(cost);
        if let Segment::Shared(frame) | Segment::Sealed(frame) = segment {
            self.frame_bytes += frame.enter_queue();
        }
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

    fn shared(bytes: &[u8]) -> Segment {
        Segment::Shared(frame(bytes))
    }

    #[test]
    fn sealed_bytes_are_not_taken_for_others_and_counted_like_them() {
        let mut arena = QueueArena::with_capacity(8);
        let mut queue = SendQueue::new();
        assert!(!arena.begins_sealed(&queue));
        arena.push(&mut queue, frame(b"plain"));
        arena.push_front(&mut queue, Segment::Sealed(frame(b"sealed")));
        assert!(arena.begins_sealed(&queue));
        assert_eq!(queue.bytes(), 2 * SEGMENT_BYTES + 11);
        assert_eq!(arena.memory_bytes(), u64::from(2 * SEGMENT_BYTES + 11));
        assert!(matches!(arena.pop(&mut queue), Some(Segment::Sealed(_))));
        assert!(!arena.begins_sealed(&queue));
        arena.clear(&mut queue);
        assert_eq!(arena.memory_bytes(), 0);
    }

    #[test]
    fn segments_leave_in_order_and_their_cost_is_counted() {
        let mut arena = QueueArena::with_capacity(8);
        let (mut a, mut b) = (SendQueue::new(), SendQueue::new());
        arena.push_turn(&mut a, b"[turn]", 1);
        arena.push(&mut b, frame(b"other"));
        arena.push(&mut a, frame(b"one"));
        let (a_cost, b_cost) = (2 * SEGMENT_BYTES + 8, SEGMENT_BYTES + 5);
        assert_eq!((a.bytes(), b.bytes()), (a_cost, b_cost));
        assert_eq!(arena.bytes(), u64::from(a_cost + b_cost));
        assert!(matches!(arena.pop(&mut a), Some(Segment::Turn { start: 1, len: 5 })));
        assert!(matches!(arena.pop(&mut a), Some(Segment::Shared(f)) if f.as_bytes() == b"one"));
        assert!(arena.pop(&mut a).is_none());
        assert_eq!((a.bytes(), arena.bytes()), (0, u64::from(b_cost)));
        arena.clear(&mut b);
        assert!(b.is_empty());
        assert_eq!(arena.bytes(), 0);
    }

    #[test]
    fn replies_written_one_after_another_are_one_segment() {
        let mut arena = QueueArena::with_capacity(8);
        let mut queue = SendQueue::new();
        arena.push_turn(&mut queue, b"..one", 2);
        arena.push_turn(&mut queue, b"..onetwo", 5);
        assert_eq!(queue.bytes(), SEGMENT_BYTES + 6);
        assert!(matches!(arena.pop(&mut queue), Some(Segment::Turn { start: 2, len: 6 })));
        assert!(queue.is_empty());
    }

    #[test]
    fn only_the_first_segment_is_a_range_of_the_turn() {
        let mut arena = QueueArena::with_capacity(8);
        let mut queue = SendQueue::new();
        arena.push_turn(&mut queue, b"one", 0);
        arena.push_turn(&mut queue, b"one-gap-two", 8);
        arena.push(&mut queue, frame(b"three"));
        arena.push_turn(&mut queue, b"one-gap-twofour", 11);
        arena.keep_turn(&queue, b"one-gap-twofour");
        let mut bytes = Vec::new();
        while let Some(segment) = arena.pop(&mut queue) {
            let Segment::Shared(frame) = segment else { panic!("a range is left") };
            bytes.extend_from_slice(frame.as_bytes());
        }
        assert_eq!(bytes, b"onetwothreefour");
    }

    #[test]
    fn frames_that_are_put_back_come_first() {
        let mut arena = QueueArena::with_capacity(8);
        let mut queue = SendQueue::new();
        arena.push_front(&mut queue, shared(b"b"));
        arena.push_front(&mut queue, shared(b"a"));
        arena.push(&mut queue, frame(b"c"));
        let mut seen = Vec::new();
        while let Some(Segment::Shared(frame)) = arena.pop(&mut queue) {
            seen.extend_from_slice(frame.as_bytes());
        }
        assert_eq!(seen, b"abc");
    }

    #[test]
    fn a_frame_in_many_queues_counts_once_as_memory() {
        let segment = u64::from(SEGMENT_BYTES);
        let mut arena = QueueArena::with_capacity(8);
        let (mut a, mut b) = (SendQueue::new(), SendQueue::new());
        let shared = frame(&[0; 1000]);
        arena.push(&mut a, shared.clone());
        arena.push(&mut b, shared.clone());
        arena.push_front(&mut b, Segment::Shared(shared.skip(999)));
        assert_eq!(arena.memory_bytes(), 3 * segment + 1000);
        assert_eq!(arena.bytes(), 3 * segment + 2001);
        arena.clear(&mut a);
        arena.pop(&mut b);
        assert_eq!(arena.memory_bytes(), segment + 1000);
        arena.clear(&mut b);
        assert_eq!(arena.memory_bytes(), 0);
        arena.push_turn(&mut a, b"turn", 0);
        assert_eq!(arena.memory_bytes(), segment);
        arena.keep_turn(&a, b"turn");
        assert_eq!(arena.memory_bytes(), segment + 4);
        arena.clear(&mut a);
        assert_eq!(arena.memory_bytes(), 0);
    }

    #[test]
    fn empty_segments_are_not_kept() {
        let mut arena = QueueArena::with_capacity(1);
        let mut queue = SendQueue::new();
        arena.push_turn(&mut queue, b"...", 3);
        arena.push(&mut queue, frame(b""));
        arena.push_front(&mut queue, shared(b""));
        arena.push_sealed(&mut queue, frame(b""));
        assert!(queue.is_empty());
    }

    #[test]
    fn an_empty_queue_is_twelve_bytes() {
        assert_eq!(size_of::<SendQueue>(), 12);
        assert!(size_of::<Node>() <= 32);
    }
}
