//! What a turn sends: which connections have bytes in their queues, and the batch that the driver takes.

use std::collections::VecDeque;

use crate::buffer::{QueueArena, Segment, SendQueue, SharedFrame};
use crate::config::limits::{
    SEGMENTS_PER_SEND_MAX, SENDS_PER_TURN_MAX, SENT_BYTES_PER_TURN_MAX, TURN_SEGMENT_BYTES_MAX,
};
use crate::connection::{Connection, Pause, Stage};
use crate::driver::{SendBatch, SendResult, SocketId};

use super::table::Table;
use super::tls_sessions::Tls;

/// All send queues of a worker, and the turn's sends.
#[derive(Debug)]
pub struct Outbox {
    /// The turn's sends; conversations write into its bytes.
    pub batch: SendBatch,
    pub(super) queues: QueueArena,
    /// Connections with something to send, each once.
    dirty: VecDeque<u32>,
    /// Connections in the batch that are resumed once it is settled.
    pub(super) unsettled: Vec<u32>,
}

impl Outbox {
    /// An outbox for the connections of a table with so many places.
    pub fn new(places: usize) -> Self {
        Self {
            batch: SendBatch::default(),
            // Every connection may have a few segments before the arena has to move.
            queues: QueueArena::with_capacity(4 * places),
            dirty: VecDeque::new(),
            unsettled: Vec::new(),
        }
    }

    /// Whether nothing waits to be sent in a later turn.
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Whether there is something to do in the next turn.
    pub fn is_urgent(&self) -> bool {
        !self.dirty.is_empty() || !self.unsettled.is_empty()
    }

    /// Bytes in all queues: see [`QueueArena::bytes`].
    pub fn queued_bytes(&self) -> u64 {
        self.queues.bytes()
    }

    /// The memory that all queues keep: see [`QueueArena::memory_bytes`].
    pub fn memory_bytes(&self) -> u64 {
        self.queues.memory_bytes()
    }

    /// Lists a connection among those with something to send.
    pub fn mark(&mut self, connection: &mut Connection, index: u32) {
        if !connection.flags.is_dirty() {
            connection.flags.set_dirty(true);
            self.dirty.push_back(index);
        }
    }

    /// Queues what was written to the turn's bytes from `start` on.
    pub fn enqueue(&mut self, connection: &mut Connection, start: usize) {
        let Self { batch: SendBatch { turn, .. }, queues, .. } = self;
        if connection.flags.is_blocked() || turn.len() - start > TURN_SEGMENT_BYTES_MAX {
            // It leaves in a later turn, or is too large to stand among the turn's bytes.
            let frame = SharedFrame::copy_of(&turn[start..]);
            turn.truncate(start);
            queues.push(&mut connection.queue, frame);
        } else {
            queues.push_turn(&mut connection.queue, turn, start);
        }
    }

    /// Queues a frame that other queues may hold as well.
    pub fn push(&mut self, connection: &mut Connection, frame: SharedFrame) {
        self.queues.push(&mut connection.queue, frame);
    }

    /// Queues bytes that leave as they are, whether the connection is encrypted or not.
    pub fn push_sealed(&mut self, connection: &mut Connection, frame: SharedFrame) {
        self.queues.push_sealed(&mut connection.queue, frame);
    }

    /// Drops everything that waits for a connection.
    pub fn clear(&mut self, connection: &mut Connection) {
        self.queues.clear(&mut connection.queue);
    }

    /// Drops what waits for a connection, except what is sealed and the segment that was begun. Returns whether
    /// something was dropped.
    pub fn drop_waiting(&mut self, connection: &mut Connection) -> bool {
        let Connection { queue, flags, .. } = connection;
        let mut kept = SendQueue::new();
        while self.queues.begins_sealed(queue)
            && let Some(Segment::Sealed(frame)) = self.queues.pop(queue)
        {
            self.queues.push_sealed(&mut kept, frame);
        }
        if flags.is_split()
            && let Some(Segment::Shared(frame)) = self.queues.pop(queue)
        {
            self.queues.push(&mut kept, frame);
        }
        let has_dropped = !queue.is_empty();
        self.queues.clear(queue);
        *queue = kept;
        has_dropped
    }

    /// Fills the batch: one item for each connection with something to send. A closing connection with nothing left to
    /// send is finished.
    pub fn fill(&mut self, table: &mut Table, tls: &mut Tls) {
        let mut bytes = 0;
        while self.batch.items().len() < SENDS_PER_TURN_MAX && bytes < SENT_BYTES_PER_TURN_MAX {
            let Some(index) = self.dirty.pop_front() else { break };
            // It may have left since, and its slot may be another connection's by now.
            let Some(connection) = table.get(index) else { continue };
            if !connection.flags.is_dirty() {
                continue;
            }
            connection.flags.set_dirty(false);
            let id = table.id(index);
            let connection = table.at(index);
            if connection.flags.is_blocked() || connection.flags.stage() == Stage::Dead {
                continue;
            }
            let has_item = if connection.flags.is_encrypted() {
                let session = tls.session(index, connection);
                self.fill_sealed(id, connection, session)
            } else {
                self.fill_plain(id, connection)
            };
            if !has_item {
                if connection.flags.stage() == Stage::Closing {
                    table.finish(index);
                }
                continue;
            }
            bytes += self.batch.items().last().map_or(0, |item| u64::from(item.bytes));
            let is_plain = connection.queue.is_empty()
                && !connection.flags.is_behind()
                && connection.flags.is_open()
                && !connection.flags.is_paused_by(Pause::Queue);
            if !is_plain {
                self.unsettled.push(index);
            }
        }
        for index in &self.dirty {
            // They leave with a later batch.
            if let Some(connection) = table.get(*index) {
                self.queues.keep_turn(&connection.queue, &self.batch.turn);
            }
        }
    }

    /// Begins an item for a connection that is not encrypted, if something waits for it. Returns whether there is one.
    fn fill_plain(&mut self, id: SocketId, connection: &mut Connection) -> bool {
        let Some(first) = self.queues.pop(&mut connection.queue) else { return false };
        self.batch.begin(id, first);
        connection.flags.set_split(false);
        for _ in 1..SEGMENTS_PER_SEND_MAX {
            let Some(segment) = self.queues.pop(&mut connection.queue) else { break };
            self.batch.extend(segment);
        }
        true
    }

    /// Takes back what the kernel did not take, and empties the batch. Returns the bytes that were sent; connections
    /// whose sends failed are added to `failed`.
    pub fn settle(&mut self, table: &mut Table, failed: &mut Vec<u32>) -> u64 {
        let mut sent_bytes = self.batch.items().iter().map(|item| u64::from(item.bytes)).sum();
        for at in 0..self.batch.late.len() {
            let late = self.batch.late[at];
            let item = self.batch.items()[late.item as usize].clone();
            match late.result {
                SendResult::Short(sent) => {
                    sent_bytes -= u64::from(item.bytes - sent);
                    let connection = table.at(item.id.index);
                    let is_sealed = connection.flags.is_encrypted();
                    let segment = if is_sealed { Segment::Sealed } else { Segment::Shared };
                    for frame in self.batch.unsent(&item, sent) {
                        self.queues.push_front(&mut connection.queue, segment(frame));
                    }
                    connection.flags.set_blocked(true);
                    if !is_sealed {
                        // Something of the first frame may be on the wire already; it must be finished.
                        connection.flags.set_split(true);
                    }
                }
                SendResult::Failed => {
                    sent_bytes -= u64::from(item.bytes);
                    failed.push(item.id.index);
                }
            }
        }
        self.batch.clear();
        sent_bytes
    }

    /// The connections of the batch that was settled that had more to send, or that something waits for.
    pub fn take_unsettled(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.unsettled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::Service;
    use crate::driver::Late;

    fn outbox() -> (Outbox, Table, SocketId) {
        let mut table = Table::new(4);
        let id = table.insert(Service::EchoTcp, 0);
        (Outbox::new(4), table, id)
    }

    fn write(outbox: &mut Outbox, table: &mut Table, id: SocketId, bytes: &[u8]) {
        let start = outbox.batch.turn.len();
        outbox.batch.turn.extend_from_slice(bytes);
        outbox.enqueue(table.at(id.index), start);
        outbox.mark(table.at(id.index), id.index);
    }

    fn sent(outbox: &Outbox) -> Vec<u8> {
        let item = outbox.batch.items().first();
        item.map_or_else(Vec::new, |item| outbox.batch.slices(item).collect::<Vec<_>>().concat())
    }

    #[test]
    fn a_short_send_goes_on_where_it_ended_once_the_kernel_has_room() {
        let (mut outbox, mut table, id) = outbox();
        write(&mut outbox, &mut table, id, b"hello ");
        write(&mut outbox, &mut table, id, b"world");
        outbox.fill(&mut table, &mut Tls::default());
        assert_eq!(sent(&outbox), b"hello world");
        outbox.batch.late.push(Late { item: 0, result: SendResult::Short(3) });
        let mut failed = Vec::new();
        assert_eq!(outbox.settle(&mut table, &mut failed), 3);
        assert!(failed.is_empty() && table.at(id.index).flags.is_blocked());
        outbox.mark(table.at(id.index), id.index);
        outbox.fill(&mut table, &mut Tls::default());
        assert_eq!(outbox.batch.items().len(), 0, "the kernel has no room yet");
        table.at(id.index).flags.set_blocked(false);
        outbox.mark(table.at(id.index), id.index);
        outbox.fill(&mut table, &mut Tls::default());
        assert_eq!(sent(&outbox), b"lo world");
        assert_eq!(outbox.settle(&mut table, &mut failed), 8);
        assert_eq!((outbox.queued_bytes(), outbox.is_empty()), (0, true));
    }

    #[test]
    fn a_partly_sent_segment_is_finished_and_the_rest_is_dropped() {
        let (mut outbox, mut table, id) = outbox();
        write(&mut outbox, &mut table, id, b"begun");
        outbox.fill(&mut table, &mut Tls::default());
        outbox.batch.late.push(Late { item: 0, result: SendResult::Short(1) });
        outbox.settle(&mut table, &mut Vec::new());
        assert!(!outbox.drop_waiting(table.at(id.index)), "nothing is behind it");
        write(&mut outbox, &mut table, id, b"dropped");
        assert!(outbox.drop_waiting(table.at(id.index)));
        table.at(id.index).flags.set_blocked(false);
        outbox.fill(&mut table, &mut Tls::default());
        assert_eq!(sent(&outbox), b"egun");
    }

    #[test]
    fn a_failed_send_names_its_connection() {
        let (mut outbox, mut table, id) = outbox();
        write(&mut outbox, &mut table, id, b"lost");
        outbox.fill(&mut table, &mut Tls::default());
        outbox.batch.late.push(Late { item: 0, result: SendResult::Failed });
        let mut failed = Vec::new();
        assert_eq!(outbox.settle(&mut table, &mut failed), 0);
        assert_eq!(failed, [id.index]);
    }

    #[test]
    fn a_closing_connection_is_finished_once_nothing_waits_for_it() {
        let (mut outbox, mut table, id) = outbox();
        write(&mut outbox, &mut table, id, b"last");
        table.at(id.index).flags.set_stage(Stage::Closing);
        outbox.fill(&mut table, &mut Tls::default());
        assert!(table.actions.is_empty());
        outbox.settle(&mut table, &mut Vec::new());
        for index in outbox.take_unsettled() {
            outbox.mark(table.at(index), index);
        }
        outbox.fill(&mut table, &mut Tls::default());
        assert!(table.at(id.index).flags.has_finished());
    }
}
