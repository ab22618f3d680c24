//! What leaves encrypted: one record for each connection and turn, sealed where the batch is filled.

use crate::buffer::{Segment, SharedFrame};
use crate::config::limits::SEGMENTS_PER_SEND_MAX;
use crate::connection::tls::{Alert, RECORD_BYTES_MAX, Session};
use crate::connection::{Connection, Stage};
use crate::driver::SocketId;

use super::outbox::Outbox;

impl Outbox {
    /// Begins an item for an encrypted connection, if it has something to send: what is sealed already, then one record
    /// with what waits, and if the connection is closing and nothing else is left, the alert that ends it. Without a
    /// session, its handshake is not complete: only that is sent. Returns whether there is an item.
    pub(super) fn fill_sealed(
        &mut self,
        id: SocketId,
        connection: &mut Connection,
        session: Option<(&mut Session, Alert)>,
    ) -> bool {
        let mut has_begun = false;
        for _ in 1..SEGMENTS_PER_SEND_MAX {
            if !self.queues.begins_sealed(&connection.queue) {
                break;
            }
            let Some(segment) = self.queues.pop(&mut connection.queue) else { break };
            self.put(id, segment, &mut has_begun);
        }
        if self.queues.begins_sealed(&connection.queue) {
            return has_begun;
        }
        let Some((session, alert)) = session else {
            // A conversation that has not begun says nothing.
            self.queues.clear(&mut connection.queue);
            return has_begun;
        };
        let start = self.batch.turn.len();
        if !session.has_closed() && (!connection.queue.is_empty() || session.is_urgent()) {
            let record = session.begin(&mut self.batch.turn);
            self.gather(connection);
            session.finish(&mut self.batch.turn, record);
            if session.is_used_up() {
                self.unsettled.push(id.index);
            }
        }
        if connection.queue.is_empty() && connection.flags.stage() == Stage::Closing {
            session.close(alert, &mut self.batch.turn);
        }
        let len = self.batch.turn.len() - start;
        if len > 0 {
            let at = |bytes| u32::try_from(bytes).expect("a turn writes far less than 4 GiB");
            self.put(id, Segment::Turn { start: at(start), len: at(len) }, &mut has_begun);
        }
        has_begun
    }

    fn put(&mut self, id: SocketId, segment: Segment, has_begun: &mut bool) {
        if std::mem::replace(has_begun, true) {
            self.batch.extend(segment);
        } else {
            self.batch.begin(id, segment);
        }
    }

    /// Copies what waits behind the turn's bytes, as much as a record takes.
    fn gather(&mut self, connection: &mut Connection) {
        let mut room = RECORD_BYTES_MAX;
        connection.flags.set_split(false);
        while room > 0
            && let Some(segment) = self.queues.pop(&mut connection.queue)
        {
            let turn = &mut self.batch.turn;
            let take = room.min(segment.len() as usize);
            room -= take;
            let rest = match segment {
                Segment::Shared(frame) | Segment::Sealed(frame) => {
                    turn.extend_from_slice(&frame.as_bytes()[..take]);
                    frame.skip(take as u32)
                }
                Segment::Turn { start, len } => {
                    let (start, end) = (start as usize, (start + len) as usize);
                    turn.extend_from_within(start..start + take);
                    if start + take == end {
                        continue;
                    }
                    SharedFrame::copy_of(&turn[start + take..end])
                }
            };
            if !rest.is_empty() {
                connection.flags.set_split(true);
                self.queues.push_front(&mut connection.queue, Segment::Shared(rest));
            }
        }
    }
}
