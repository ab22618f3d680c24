//! Immutable bytes that are encoded once and sent to many sockets of one worker by reference.

use std::cell::Cell;
use std::rc::Rc;

/// A view of reference-counted bytes. Cloning one costs a non-atomic increment, because frames never leave their
/// worker: publications cross workers, and each worker encodes them for itself.
#[derive(Clone, Debug)]
pub struct SharedFrame {
    block: Rc<Block>,
    start: u32,
    end: u32,
}

/// The bytes that views share.
#[derive(Debug)]
struct Block {
    bytes: Box<[u8]>,
    /// Number of queue segments that hold it; its memory is counted once for all of them.
    queued: Cell<u32>,
}

impl SharedFrame {
    /// Copies `bytes` into a frame. Panics if they exceed 4 GiB, which no limit allows.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let end = u32::try_from(bytes.len()).expect("limits keep a frame under 4 GiB");
        Self {
            block: Rc::new(Block { bytes: Box::from(bytes), queued: Cell::new(0) }),
            start: 0,
            end,
        }
    }

    /// The bytes of this view.
    pub fn as_bytes(&self) -> &[u8] {
        &self.block.bytes[self.start as usize..self.end as usize]
    }

    /// Number of bytes in this view.
    pub fn len(&self) -> u32 {
        self.end - self.start
    }

    /// Whether the view is empty.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The view without its first `count` bytes, still shared. Panics if there are fewer.
    pub fn skip(mut self, count: u32) -> Self {
        assert!(count <= self.len(), "skip stays inside the frame");
        self.start += count;
        self
    }

    /// The first `count` bytes of the view, still shared. Panics if there are fewer.
    pub fn take(mut self, count: u32) -> Self {
        assert!(count <= self.len(), "take stays inside the frame");
        self.end = self.start + count;
        self
    }

    /// Counts one more queue segment that holds the block. Returns the bytes that it newly keeps alive: 0 if another
    /// segment does already.
    pub(super) fn enter_queue(&self) -> u64 {
        self.block.queued.update(|queued| queued + 1);
        if self.block.queued.get() == 1 { self.block.bytes.len() as u64 } else { 0 }
    }

    /// Counts one queue segment fewer. Returns the bytes that queues no longer keep alive: 0 if another segment does.
    pub(super) fn leave_queue(&self) -> u64 {
        self.block.queued.update(|queued| queued - 1);
        if self.block.queued.get() == 0 { self.block.bytes.len() as u64 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_shares_and_skip_narrows_only_its_own_view() {
        let frame = SharedFrame::copy_of(b"hello");
        let rest = frame.clone().skip(2);
        assert_eq!(frame.as_bytes(), b"hello");
        assert_eq!(rest.as_bytes(), b"llo");
        assert_eq!(rest.len(), 3);
        assert_eq!(frame.clone().skip(1).take(3).as_bytes(), b"ell");
        assert!(rest.skip(3).is_empty());
        assert!(frame.take(0).is_empty());
    }
}
